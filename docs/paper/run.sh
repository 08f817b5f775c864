#!/usr/bin/env bash
# The paper done again: 24 runs, their recordings, the report; then what zeroing the indices that it names does, and the report anew.
# Goes on where it was stopped. From the project's root, with irm-lite installed: docs/paper/run.sh [FOLDER OF THE RUNS]
set -euo pipefail
runs=${1:-runs/paper}
report=docs/paper
irm-lite sweep docs/paper/paper.toml --out "$runs"
irm-lite record "$runs"/*/ --limit 12 --new-tokens 24 --skip-existing
irm-lite analyze "$runs"/*/ -o "$report" --force
read -ra indices < <(python - "$report/report.json" <<'END'
import json, sys
report = json.load(open(sys.argv[1]))
across = report["across"]
common = across["common"]["indices"] or [each["index"] for each in report["runs"][0]["top"]]
chosen = dict.fromkeys([*common[:2], *across["tone"]["indices"][:1]])
print(*(f"--index {index}" for index in chosen))
END
)
for tone in anger sadness neutral; do
    for where in irm base; do
        [ -e "$runs/$tone-all/ablations/${indices[-1]}-$where.json" ] ||
            irm-lite ablate "$runs/$tone-all" "${indices[@]}" --where $where
    done
done
irm-lite analyze "$runs"/*/ -o "$report" --force
