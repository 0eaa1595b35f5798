#!/usr/bin/env bash
# Streamed weights are read once for all ranks of a host: /provenance of whole runs says how many bytes were read. Without shared memory
# every rank reads for itself and says so; the bits are the same.
set -euo pipefail
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
corpus=$KS_ROOT/corpus/attention_samples_universal.json
four=$(/usr/bin/python3 -c 'import json, sys; print(",".join(s["id"] for s in json.load(open(sys.argv[1]))["python_doctest"][:4]))' "$corpus")
# run NAME RANKS OPTIONS...
run() {
    local name=$1 ranks=$2
    shift 2
    mpirun -x ASAN_OPTIONS=detect_leaks=0 -n "$ranks" "$KOSWEEP" run --model "$KS_ROOT/models/box" --corpus "$corpus" --weights streamed \
        --threads 1 --verbose --output "$work/$name.h5" "$@" >"$work/stdout" 2>"$work/$name"
}
run one 1 --samples "$four"
run four 4 --samples "$four"
run rounds 4 --checkpoint 0
run rounds1 1 --weights resident
same="/usr/bin/python3 $KS_ROOT/tests/tools/same_results.py"
$same "$work/one.h5" "$work/four.h5"
$same "$work/rounds1.h5" "$work/rounds.h5"
# A /dev/shm of this test's own, too small for two layers; Open MPI's own shared memory goes elsewhere.
small='mount -t tmpfs -o size=1m tmpfs /dev/shm && "$@"'
if unshare -m sh -c "$small" small true 2>/dev/null; then
    export -f run
    export work corpus
    OMPI_MCA_btl_vader_backing_directory=$work unshare -m bash -c "$small" small bash -c "run small 4 --samples $four"
    grep -q 'warning: .*no 1.[0-9]* MB of shared memory (No space left on device): every rank reads weights for itself' "$work/small"
    $same "$work/one.h5" "$work/small.h5"
else
    echo "no mount: a /dev/shm that is too small is not tested"
fi
/usr/bin/python3 - "$KS_ROOT/models/box/model.safetensors" "$work" <<'PY'
import json, os, re, struct, sys, h5py
data = open(sys.argv[1], "rb").read()
header = json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])
# Norms are read when the model is opened; all other weights, the (tied) head included, are streamed.
weights = sum(t["data_offsets"][1] - t["data_offsets"][0] for name, t in header.items() if name != "__metadata__" and len(t["shape"]) > 1)
def read(name):
    return int(h5py.File(f"{sys.argv[2]}/{name}.h5")["provenance"].attrs["weights_bytes_read"])
def rounds(name):
    """The host's first rank has a pass in each."""
    return int(re.search(r"rank 0 on \S+: (\d+) passes", open(f"{sys.argv[2]}/{name}").read())[1])
assert read("one") == weights, (read("one"), weights)
assert rounds("four") == 1 and read("four") == weights, (rounds("four"), read("four"), weights)
assert rounds("rounds") > 1 and read("rounds") == rounds("rounds") * weights, (rounds("rounds"), read("rounds"), weights)
if os.path.exists(f"{sys.argv[2]}/small.h5"):
    assert read("small") == 4 * weights, (read("small"), weights)
print(f"{weights} bytes of weights: 4 ranks read {read('four')} in one round, {read('rounds')} in {rounds('rounds')}")
PY
