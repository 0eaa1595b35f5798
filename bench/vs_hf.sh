#!/usr/bin/env bash
# kosweep against Hugging Face transformers on one thread: a marker -> targets layer scan of the python_doctest and rust_test samples.
set -euo pipefail
usage() {
    cat <<'HELP'
usage: bench/vs_hf.sh [--model DIR] [--corpus FILE] [--rounds N] [--published-samples N]

Runs three programs in turn, one thread each, and prints seconds (real, and of the processor: what counts where the machine does other
things too), ratios, and how far their KLs are apart:
  kosweep run      the whole program, start to written file
  hf_batched.py    baseline once, all layers as one batch, last logits only (loading not counted)
  hf_published.py  two whole forwards a cell (loading not counted); it takes minutes and runs once
kosweep and hf_batched.py run N rounds (default 2), kosweep again at the end; each program's best time counts.
--published-samples N runs it on N of the samples and scales its time (default 0: all of them).

environment:
  KOSWEEP     the program (default: build/kosweep of this checkout)
  KS_PYTHON   a python with torch, transformers, numpy and h5py (default: python3)
HELP
}
root=$(cd "$(dirname "$0")/.." && pwd)
model=$root/models/smollm2-135m corpus=$root/corpus/attention_samples_universal.json rounds=2 published=0
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage && exit 0 ;;
        --model) model=$2 ;;
        --corpus) corpus=$2 ;;
        --rounds) rounds=$2 ;;
        --published-samples) published=$2 ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift 2
done
kosweep=${KOSWEEP:-$root/build/kosweep} python=${KS_PYTHON:-python3}
[ -f "$model/model.safetensors" ] || { echo "vs_hf: no model in $model: run launch/get-smollm2.sh" >&2 && exit 3; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1

run_kosweep() {
    # Real, user and system seconds, one run a line.
    local TIMEFORMAT='%R %U %S'
    {
        time "$kosweep" run --model "$model" --corpus "$corpus" --groups python_doctest,rust_test --scan-layers --floor off \
            --threads 1 --backend cpu --quiet --force --output "$scratch/kosweep.h5" >/dev/null 2>&3
    } 3>&2 2>>"$scratch/kosweep.times"
    tail -n 1 "$scratch/kosweep.times" | awk '{ printf "kosweep: %.2f s, of which computing %.2f\n", $1, $2 + $3 }'
}
run_hf() { # program, run number, further options
    "$python" "$root/bench/hf_$1.py" --model "$model" --corpus "$corpus" --output "$scratch/$1.$2.json" "${@:3}" 2>/dev/null
}

for ((round = 1; round <= rounds; round++)); do
    run_kosweep
    run_hf batched "$round"
    [ "$round" -gt 1 ] || run_hf published 1 --samples "$published"
done
run_kosweep
"$python" "$root/bench/hf_report.py" "$scratch"
