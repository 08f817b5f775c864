#!/usr/bin/env bash
# The paper done again: 24 runs, their recordings, ablations of each tone's most important index, the report.
# Goes on where it was stopped. From the project's root, with irm-lite installed: docs/paper/run.sh [FOLDER OF THE RUNS]
set -euo pipefail
runs=${1:-runs/paper}
irm-lite sweep docs/paper/paper.toml --out "$runs"
for run in "$runs"/*/; do
    [ -d "$run/recordings/held-out" ] || irm-lite record "$run" --limit 12 --new-tokens 24
done
for tone in anger sadness neutral; do
    for where in irm base; do
        irm-lite ablate "$runs/$tone-all" --where $where
    done
done
irm-lite analyze "$runs"/*/ -o docs/paper/report
