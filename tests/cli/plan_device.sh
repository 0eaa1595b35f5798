#!/usr/bin/env bash
# kosweep plan --device: times and memory of GPUs that are not here, also for a model whose weights are not here.
set -euo pipefail
. "$KS_ROOT/tests/tools/refusal.sh"
box=$KS_ROOT/models/box
samples=$KS_ROOT/corpus/attention_samples_universal.json
plan() { "$KOSWEEP" plan --corpus "$samples" --all-windows --output "$work/out.h5" --quiet "$@"; }

# A directory with config.json and tokenizer.json only.
mkdir "$work/shapes"
cp "$box/config.json" "$box"/tokenizer*.json "$work/shapes/"

plan --model "$box" --json >"$work/here.json"
for device in h100 h200 a100 a100-40 l40s rtx4090 rtx5090 b200 gh200; do plan --model "$box" --device $device --json >"$work/$device.json"; done
plan --model "$box" --device H200 --precision fast --json >"$work/fast.json"
plan --model "$box" --device h200 --weights streamed --json >"$work/streamed.json"
plan --model "$box" --device h200 --weights streamed --memory 1072M --json >"$work/small.json"
plan --model "$work/shapes" --device h200 --json >"$work/shapes.json"
# A model of 1.2e9 parameters, of which there is nothing but its configuration.
mkdir "$work/large"
cp "$box"/tokenizer*.json "$work/large/"
/usr/bin/python3 - "$box/config.json" "$work/large/config.json" <<'PY'
import json, sys

c = json.load(open(sys.argv[1]))
c.update(num_hidden_layers=24, hidden_size=2048, intermediate_size=5504, num_attention_heads=16, num_key_value_heads=16, head_dim=128)
json.dump(c, open(sys.argv[2], "w"))
PY
for ranks in 1 4; do plan --model "$work/large" --device l4 --ranks $ranks --json >"$work/large$ranks.json"; done
/usr/bin/python3 - "$work" <<'PY'
import json, pathlib, sys

plans = {p.stem: json.loads(p.read_text()) for p in pathlib.Path(sys.argv[1]).glob("*.json")}
assert len(plans) == 16, sorted(plans)
here, h200 = plans.pop("here"), plans["h200"]
assert "device" not in here
for name, p in plans.items():
    d = p["device"]
    assert set(p) == set(here) | {"device"}, name
    for parts in (d["parts"], d["bounds"]):
        assert abs(sum(parts.values()) / d["seconds"] - 1) < 1e-9 and min(parts.values()) >= 0, name
    assert set(d["parts"]) == {"products", "attention", "elementwise", "head", "weights", "launches"}, name
    assert 0 < d["share_of_peak"] < 0.7 and d["pass_seconds"] <= d["seconds"] * (1 + 1e-9) and p["seconds"] >= p["compute_seconds"], name
    assert abs(p["flops_per_second"] * d["seconds"] / p["flops"] - 1) < 1e-9, name
    assert abs(d["cells_per_second"] * p["seconds"] / p["cells"] - 1) < 1e-9, name
    assert p["memory_bytes"] <= d["memory_bytes"], name
    if not name.startswith("large"):
        assert (p["cells"], p["flops_whole"]) == (here["cells"], here["flops_whole"]), name
assert plans["fast"]["device"]["seconds"] < h200["device"]["seconds"] < plans["rtx4090"]["device"]["seconds"]
assert plans["b200"]["device"]["name"] == "b200" and plans["fast"]["device"]["name"] == "h200"
assert plans["streamed"]["device"]["weights"] == "streamed" and h200["device"]["weights"] == "resident"
assert plans["streamed"]["device"]["seconds"] >= h200["device"]["seconds"]
assert plans["small"]["memory_bytes"] <= 1072 << 20 and plans["small"]["passes"] > h200["passes"]
one, four = plans["large1"], plans["large4"]
assert one["weight_bytes"] > 2.4e9 and one["device"]["seconds"] > 2 and len(four["ranks"]) == 4
assert 3 < one["seconds"] / four["seconds"] <= 4 and four["device"]["seconds"] >= one["device"]["seconds"]
# Without weights: the same but for the headers of the weight files.
shapes = plans["shapes"]
assert shapes["device"]["seconds"] == h200["device"]["seconds"]
assert 0.97 < shapes["weight_bytes"] / h200["weight_bytes"] <= 1, (shapes["weight_bytes"], h200["weight_bytes"])
PY

plan --model "$box" --device h200 >"$work/text"
for line in 'on NVIDIA H200' 'time .* cells/s' 'parts .*products .*attention .*launches' 'waits for .*memory bandwidth' 'bound by'; do
    grep -q "$line" "$work/text" || { echo "no line with: $line"; cat "$work/text"; exit 1; }
done
"$KOSWEEP" plan --device list >"$work/list"
grep -q '^h200 .*989' "$work/list"
"$KOSWEEP" plan --model "$work/shapes" --corpus "$samples" --device h200 --output "$work/out.h5" 2>&1 >/dev/null | grep -q 'config.json'

at_fault() { # STATUS PATTERN OPTIONS...
    local status=$1 pattern=$2
    shift 2
    refused "$status" "$pattern" "$KOSWEEP" plan --corpus "$samples" --output "$out/new.h5" --quiet "$@"
}
at_fault 2 'h20.*known: a10, .*rtx5090' --model "$box" --device h20
at_fault 2 'known: ' --model "$box" --device '%s%n%s'
at_fault 2 'known: ' --model "$box" --device "$(printf 'x%.0s' $(seq 5000))"
at_fault 2 '--device needs a value' --model "$box" --device=
at_fault 2 'no model' --device h200
at_fault 4 '--memory' --model "$box" --device h200 --memory 1000M
at_fault 4 '--memory' --model "$box" --device h200 --memory 1025M
at_fault 3 'model.safetensors' --model "$work/shapes"
sed "s/bfloat16/float8_e4m3fn/" "$box/config.json" >"$work/shapes/config.json"
at_fault 3 'torch_dtype' --model "$work/shapes" --device h200
refused 2 'device is no option of run' "$KOSWEEP" run --model "$box" --corpus "$samples" --device h200
all_refused
