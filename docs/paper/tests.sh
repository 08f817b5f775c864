#!/usr/bin/env bash
# The tests of predictions.md on one model: trainings, recordings, ablations, reports; then the article's tables and figures anew.
# Goes on where it was stopped; with everything there it is minutes. From the project's root, with irm-lite installed:
# docs/paper/tests.sh demo|qwen|llama-2-7b-chat [FOLDER OF THE RUNS]   (Llama's next loudest index, read off its report: NEXT=...)
set -euo pipefail
model=${1:?"give a model: demo, qwen or llama-2-7b-chat"} runs=${2:-runs/tests-$1}
samples=45 held=steered answers_of_masked=100 marks=()
case $model in
    demo) channel=507 next=247 samples_of_sets=45 held= ;; # held denominators give NaN there: predictions.md, changed afterwards
    qwen) channel=490 next=570 samples_of_sets=12 answers_of_masked=8 marks=(--mark 688) ;;
    llama-2-7b-chat) channel=1512 next=${NEXT:?"the next loudest index"} samples_of_sets=45 ;;
    *) echo "there are no tests of $model: give demo, qwen or llama-2-7b-chat" >&2; exit 2 ;;
esac
marks+=(--mark "$channel" --mark "$next")
found=docs/paper/tests/$model questions=$runs/questions-100.txt
mkdir -p "$found" "$runs"
irm-lite sweep "docs/paper/tests-$model.toml" --out "$runs" --json > "$runs/runs.json"
cp "$runs/runs.json" "$found/runs.json" # only now: a sweep that is stopped says nothing
head -100 irm_lite/data/shipped/questions.txt > "$questions"
irm-lite record "$runs"/*-static*/ --prompts "$questions" --limit 4 --new-tokens 24 --skip-existing
kinds="static static-masked"
if compgen -G "$runs/*-paper" > /dev/null; then
    kinds="$kinds paper"
    of_paper=(record "$runs"/*-paper/ --prompts "$questions" --limit 100 --new-tokens 24 --skip-existing)
    [ "$model" != demo ] || of_paper+=(--gguf demo) # in llama.cpp, a quarter of the time on a CPU
    irm-lite "${of_paper[@]}"
fi
for tone in sadness joy neutral; do
    run=$runs/$tone-seed-11-static
    of_base=(ablate "$run" --index "$channel" --where base --samples "$samples" --controls 0)
    [ -e "$run/ablations/$channel-base.json" ] || irm-lite "${of_base[@]}"
    [ -z "$held" ] || [ -e "$run/ablations/$channel-base-norms-of-$held.json" ] || irm-lite "${of_base[@]}" --hold-norms "$held" --matched 2
    [ -e "$run/ablations/set-drop-1.json" ] || irm-lite ablate "$run" --drop 1 --keep 20 --samples "$samples_of_sets"
done
for kind in $kinds; do
    answers=100
    [ "$kind" != static-masked ] || answers=$answers_of_masked
    irm-lite analyze "$runs"/*-"$kind"/ "${marks[@]}" --samples "$answers" -o "$runs/report-$kind" --force
    cp "$runs/report-$kind/report.json" "$found/${kind#static-}.json"
done
cp "$runs/report-static/report.html" "$found/"
reports=("$found/static.json" "$found/masked.json")
[ ! -e "$found/paper.json" ] || reports+=(--paper "$found/paper.json")
python docs/paper/verdicts.py "${reports[@]}" --channel "$channel" --next "$next"
python docs/paper/article.py # of qwen and demo
