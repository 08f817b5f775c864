#!/usr/bin/env bash
# What irm-lite does on a Mac: trains, exports and generates with the demo model, and writes one Markdown file to paste
# into an issue. A step that fails is reported, and the next one runs. Works with macOS' own bash 3.2.
usage() {
    cat <<'END'
usage: benchmarks/apple.sh [--device DEVICE]... [--steps N] [--venv FOLDER] [--report FILE]

  --device  cpu or mps; may be given several times [mps and cpu]
  --steps   optimiser steps of each training [30]
  --venv    where the packages go; one that has irm-lite is used as it is [.venv]
  --report  the file to paste [apple-report.md]

PYTHON names the Python that makes the venv [python3].
END
}

devices="" steps=30 venv=.venv report=apple-report.md
while [ $# -gt 0 ]; do
    if [ "$1" = -h ] || [ "$1" = --help ]; then usage; exit 0; fi
    if [ $# -lt 2 ]; then usage >&2; exit 2; fi
    case $1 in
        --device) devices="$devices $2" ;;
        --steps) steps=$2 ;;
        --venv) venv=$2 ;;
        --report) report=$2 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift 2
done
devices=${devices:-mps cpu}
case $report in /*) ;; *) report=$PWD/$report ;; esac
cd "$(dirname "$0")/.." || exit 1
work=$(mktemp -d) || exit 1
rows=$work/rows.md details=$work/details.md log=$work/log.txt
: > "$rows"; : > "$details"
python=$venv/bin/python
export HF_HUB_OFFLINE=1 # nothing is fetched but by pip

# What the system tells of the command's peak: macOS counts Metal's buffers into the footprint, Linux the resident memory.
peak_mb() {
    if [ "$(uname)" = Darwin ]; then
        awk '/peak memory footprint/ { printf "%.0f", $1 / 1e6 }' "$1"
    else
        awk '/Maximum resident set size/ { printf "%.0f", $NF / 1e3 }' "$1"
    fi
}

# step NAME COMMAND...: run it, and note exit code, seconds, peak and the end of what it said. Its output stays in $log.
step() {
    name=$1
    shift
    echo "apple.sh: $name" >&2
    timer=()
    if [ -x /usr/bin/time ]; then
        if [ "$(uname)" = Darwin ]; then timer=(/usr/bin/time -l -o "$work/time.txt"); else timer=(/usr/bin/time -v -o "$work/time.txt"); fi
    fi
    : > "$work/time.txt"
    began=$SECONDS
    ${timer[@]+"${timer[@]}"} "$@" > "$log" 2>&1 < /dev/null
    code=$?
    took=$((SECONDS - began))
    echo "| $name | $code | $took | $(peak_mb "$work/time.txt") | " | tr -d '\n' >> "$rows"
    {
        printf '\n<details><summary>%s (exit %s)</summary>\n\n```\n' "$name" "$code"
        tail -n 60 "$log" | tr -d '\r`' | sed 's/ *$//'
        printf '```\n</details>\n'
    } >> "$details"
    return "$code"
}

note() { echo "$1 |" >> "$rows"; }

# What a training wrote: its pace, its memory, its losses.
trained() {
    "$python" - "$1/events.jsonl" <<'END' 2> /dev/null || echo "no events"
import json, sys
events = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
steps = [event for event in events if event["kind"] == "step"]
nll = [f"{event['nll']:.3f}" for event in events if event["kind"] == "eval"]
rate = f"{steps[-1]['tokens_per_second']} tokens/s" if steps else "no step"
memory = f", {max(event['memory_bytes'] for event in steps) / 1e6:.0f} MB in use" if steps else ""
start = next(event for event in events if event["kind"] == "start")
print(f"{start['dtype']}, {rate}{memory}, NLL {' to '.join(nll[:1] + nll[-1:])}, {len(steps)} steps")
END
}

system() {
    uname -mrs
    if [ "$(uname)" = Darwin ]; then
        sw_vers
        sysctl -n machdep.cpu.brand_string hw.memsize hw.perflevel0.physicalcpu
        system_profiler SPDisplaysDataType | grep -E "Chipset|Cores|Metal"
    else
        grep -m1 "model name" /proc/cpuinfo
        grep MemTotal /proc/meminfo
    fi
    git rev-parse HEAD
    "$python" --version
    "$python" -m pip list | grep -i -E "^(irm-lite|torch|transformers|accelerate|bitsandbytes|llama[-_]cpp[-_]python|gguf|kernels) "
    "$python" -c 'import torch; print("MPS", torch.backends.mps.is_available())'
}

write_report() {
    {
        echo "# irm-lite on $(uname -ms), $(date -u +%Y-%m-%d)"
        printf '\n| step | exit | seconds | peak MB | |\n|---|---|---|---|---|\n'
        cat "$rows" "$details"
    } | sed "s|$HOME|~|g" > "$report"
    rm -rf "$work"
    echo "apple.sh: wrote $report; paste it into an issue" >&2
}
trap write_report EXIT
trap 'exit 130' INT TERM

if ! "$python" -c "import irm_lite" 2> /dev/null; then
    step "venv" "${PYTHON:-python3}" -m venv "$venv"
    note ""
    step "install" "$python" -m pip install -e ".[demo]"
    note ""
fi
export -f system
export python
step "system" bash -c system
note ""
step "doctor" "$python" -m irm_lite doctor
note ""

best=""
for device in $devices; do
    for quant in nf4 none; do
        run=$work/$device-$quant
        if step "train, $device, $quant" "$python" -m irm_lite train --irm lite --out "$run" --device "$device" \
            --quant "$quant" --max-steps "$steps" --sample-tokens 8; then
            best=${best:-$run}
        fi
        note "$(trained "$run")"
    done
done

vector=$work/vector.gguf
if [ -n "$best" ]; then
    step "export of $(basename "$best")" "$python" -m irm_lite export "$best" --out "$vector"
    note "$(grep -i -m1 fidelity "$log" | tr -d '|')"
fi
prompt="What is the capital of France?"
step "generate, base" "$python" -m irm_lite generate --prompt "$prompt" --max-new-tokens 48
note ""
if [ -f "$vector" ]; then
    step "generate, vector" "$python" -m irm_lite generate --prompt "$prompt" --max-new-tokens 48 --vector "$vector"
    note ""
fi
if [ -n "$best" ]; then
    step "generate, the IRM inside llama.cpp" "$python" -m irm_lite generate --prompt "$prompt" --max-new-tokens 48 --irm "$best"
    note ""
fi
