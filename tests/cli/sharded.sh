#!/usr/bin/env bash
# --weights sharded on the check GPU: the same bits, each byte read once in the job; ranks without work; two models; why not, where it
# cannot be; and a rank that dies or hangs in the middle ends the job, which then goes on.
set -uo pipefail
. "$KS_ROOT/tests/tools/refusal.sh"
. "$KS_ROOT/tests/tools/under_way.sh"
KOSWEEP_CUDA_MODULE=$(dirname "$KOSWEEP")/tests/check/libkosweep_check.so
export KOSWEEP_CUDA_MODULE
if ! [ -e "$KOSWEEP_CUDA_MODULE" ]; then
    echo "sharded.sh: no C++ compiler, no check GPU; nothing to see here"
    exit 0
fi
weights=$KS_ROOT/tests/goldens/models/c_starcoder2
cat >"$work/config.json" <<JSON
{"models": [{"name": "first", "path": "$weights"}, {"name": "second", "path": "$weights"}],
 "corpus": "$KS_ROOT/tests/goldens/corpus/c_starcoder2.json", "marker": "span", "backend": "cuda",
 "sweeps": [{"name": "windows", "windows": "all"}, {"name": "layers", "windows": "each-layer", "positions": "all"}]}
JSON
same() {
    /usr/bin/python3 "$KS_ROOT/tests/tools/same_results.py" "$@" >"$work/stderr" 2>&1 || complain "the bits differ: $*"
}
# run NAME RANKS OPTIONS...
run() {
    local name=$1 ranks=$2
    shift 2
    timeout 300 mpirun -x ASAN_OPTIONS=detect_leaks=0 -n "$ranks" "$KOSWEEP" run "$work/config.json" --threads 1 --verbose \
        --output "$work/$name.h5" "$@" >"$work/stdout" 2>"$work/stderr" || complain "$name: status $?"
}
says() { # PATTERN
    grep -Eq -e "$1" "$work/stderr" || complain "no /$1/"
}

run one 1
run two 2 --weights sharded
says 'first: weights are sharded over 2 ranks \(shared memory: check\)'
run three 3 --weights sharded --checkpoint 0
same "$work/one.h5" "$work/two.h5" "$work/three.h5"
/usr/bin/python3 - "$weights/model.safetensors" "$work" <<'PY' || complain "weights were read more than once"
import json, struct, sys, h5py
data = open(sys.argv[1], "rb").read()
header = json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])
weights = sum(t["data_offsets"][1] - t["data_offsets"][0] for name, t in header.items() if name != "__metadata__" and len(t["shape"]) > 1)
for name in ("two", "three"):
    read = int(h5py.File(f"{sys.argv[2]}/{name}.h5")["provenance"].attrs["weights_bytes_read"])
    assert read == 2 * weights, (name, read, weights)
print(f"two models of {weights} bytes of weights, each read once")
PY

# One unit of work: the other ranks only hand weights on.
few=(--layer 1 --samples "$(/usr/bin/python3 -c 'import json, sys
print(next(s["id"] for k, v in json.load(open(sys.argv[1])).items() if k[0] != "_" for s in v))' "$KS_ROOT/tests/goldens/corpus/c_starcoder2.json")")
run idle1 1 "${few[@]}"
run idle3 3 --weights sharded "${few[@]}"
same "$work/idle1.h5" "$work/idle3.h5"

# Too large for one GPU, not for three: a third of the layers, two buffers, and the head.
box=(--model "$KS_ROOT/models/box" --corpus "$KS_ROOT/corpus/attention_samples_universal.json" --groups python_prompt --layer 1
    --samples "$(/usr/bin/python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["python_prompt"][0]["id"])' \
        "$KS_ROOT/corpus/attention_samples_universal.json")")
run whole 1 "${box[@]}"
run automatic 3 --memory 9M "${box[@]}"
says 'box: weights are sharded over 3 ranks'
same "$work/whole.h5" "$work/automatic.h5"

# Where it cannot be.
KS_CHECK_GPUS=2 run shared 3 --weights sharded "${few[@]}"
says 'warning: first: weights are not sharded, but resident: ranks 0 and 2 on .* share a GPU'
run alone 1 --weights sharded "${few[@]}"
says 'warning: first: weights are not sharded, but resident: there is one rank'
KS_CHECK_GPUS=1 run small 2 --weights sharded --memory 1700K "${few[@]}"
says 'warning: first: weights are not sharded, but streamed.*: ranks 0 and 1 on .* share a GPU'
same "$work/idle1.h5" "$work/shared.h5" "$work/alone.h5" "$work/small.h5"
run cpu 2 --weights sharded --backend cpu "${few[@]}"
says 'warning: first: weights are not sharded, but resident: the backend is cpu'

# In the middle. A rank that is killed is the launcher's to tell of; one that is stopped is noticed after 8 s.
begin() { # NAME
    under_way "$1" mpirun -x ASAN_OPTIONS=detect_leaks=0 -n 3 "$KOSWEEP" run "$work/config.json" --threads 1 --checkpoint 0 --weights sharded \
        --output "$work/$1.h5"
}
rank_of() { # RANK of the job $pid
    local p
    for p in $(pgrep -P "$pid"); do
        if tr '\0' '\n' 2>/dev/null <"/proc/$p/environ" | grep -qx "OMPI_COMM_WORLD_RANK=$1"; then echo "$p"; fi
    done
}
goes_on() { # NAME
    holds "$work/$1.h5" 1 119
    run "$1" 2 --weights sharded --resume
    same "$work/one.h5" "$work/$1.h5"
}
begin stopped
kill -STOP "$(rank_of 1)"
ended stopped 4 "rank 1 on .*: not heard of for 8 s" 60
goes_on stopped
begin killed
kill -KILL "$(rank_of 2)"
begun=$SECONDS
while kill -0 "$pid" 2>/dev/null && [ $((SECONDS - begun)) -lt 60 ]; do sleep 0.1; done
kill -KILL "$pid" 2>/dev/null && complain "a job that lost a rank does not end"
wait "$pid" && complain "a job that lost a rank ends with 0"
cp "$work/killed.log" "$work/stderr"
[ "$(grep -c 'error: ' "$work/stderr")" -le 1 ] || complain "more than one message"
goes_on killed
all_refused
