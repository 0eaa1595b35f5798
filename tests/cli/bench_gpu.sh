#!/usr/bin/env bash
# The GPU benchmarks on the processor: every shape's model loads, is the same from any number of threads, and all parts run on a tiny one.
# With KS_PYTHON naming a python that has torch and transformers, Hugging Face runs too and its KLs must be kosweep's.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
complain() {
    echo "bench_gpu.sh: $*"
    exit 1
}
python=/usr/bin/python3 bench=$KS_ROOT/bench
export PYTHONDONTWRITEBYTECODE=1

# Models: names and shapes of tensors are the families', so that the loader takes them; sizes are cut.
$python - "$bench" "$work" <<'PY'
import sys

sys.path.insert(0, sys.argv[1])
import synthetic

small = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 320}
for name in list(synthetic.SHAPES):
    synthetic.SHAPES[name] = {**synthetic.SHAPES[name], **small, **({"head_dim": 32} if "head_dim" in synthetic.SHAPES[name] else {})}
    synthetic.make(name, f"{sys.argv[2]}/{name}", layers=3, samples=4)
PY
for model in "$work"/*/; do
    model=${model%/}
    said=$("$KOSWEEP" model "$model" 2>&1) || complain "$(basename "$model"): $said"
    ! grep -q warning <<<"$said" || complain "$(basename "$model"): $said"
    "$KOSWEEP" run --model "$model" --corpus "$model/corpus.json" --groups bench --backend cpu --threads 1 --quiet --floor off \
        --output "$work/$(basename "$model").json" >/dev/null
done
$python - "$work" <<'PY'
import glob, json, sys

runs = glob.glob(sys.argv[1] + "/*.json")
assert len(runs) == 8, runs
for path in runs:
    with open(path) as f:
        experiments = json.load(f)["experiments"]
    kls = [s["kl_divergence"] for e in experiments for s in e["sample_results"]]
    assert len(kls) == 12 and all(0 <= kl < 1 for kl in kls) and 1e-7 < max(kls), (path, kls)
PY

# The same bytes from one thread and from five; what is there is left alone; another model is not overwritten.
for threads in 1 5; do $python "$bench/synthetic.py" tiny "$work/tiny$threads" --threads $threads 2>/dev/null; done
cmp "$work/tiny1/model.safetensors" "$work/tiny5/model.safetensors"
$python "$bench/synthetic.py" tiny "$work/tiny1" 2>&1 | grep -q "there already" || complain "a model that is there was made again"
! $python "$bench/synthetic.py" tiny "$work/tiny1" --layers 2 2>"$work/said" || complain "another model was overwritten"
grep -q "holds another model" "$work/said" || complain "$(cat "$work/said")"

# All parts. Their figures mean nothing here.
$python "$bench/gpu.py" --build "$(dirname "$KOSWEEP")" --backend cpu --shape tiny --samples 6 --runs 1 --device h200 --python "${KS_PYTHON:-$python}" \
    --output "$work/table.md" >/dev/null 2>"$work/said" || complain "$(cat "$work/said")"
for row in 'product (kosweep plan)' 'layer scan, .*`full`' 'layer scan, .*`fast`' 'full triangle, .*`full`' 'full triangle, .*`fast`' \
    'plan --device h200. predicts, `full`' 'Hugging Face' '64M of memory' 'the same, resident' 'streamed / resident' 'reading the .* of weights, cold' 'cold layer scan'; do
    grep -q "^| .*$row" "$work/table.md" || complain "no row \"$row\" in $(cat "$work/table.md")"
done
! grep -qiE 'nan|: (NOT )?met' "$work/table.md" || complain "a verdict without a GPU: $(cat "$work/table.md")"
if [ -n "${KS_PYTHON:-}" ]; then
    [ "$(grep -c 'relative distance of .* KLs .*median' "$work/table.md")" = 2 ] || complain "no KLs to compare: $(cat "$work/table.md")"
fi
! $python "$bench/gpu.py" --build "$(dirname "$KOSWEEP")" --parts peak,none 2>"$work/said" || complain "an unknown part was taken"
grep -q "no part is named none" "$work/said" || complain "$(cat "$work/said")"
