#!/usr/bin/env bash
# Failures under mpirun: one message in all, the same status as alone, nothing left behind, and never a job that hangs.
set -uo pipefail
. "$KS_ROOT/tests/tools/refusal.sh"

# ranks COMMAND...: three ranks. Open MPI does not free everything; the leak checker is for the program.
ranks() {
    timeout 60 mpirun -x ASAN_OPTIONS=detect_leaks=0 -n 3 "$@"
}
run() { # STATUS PATTERN OPTIONS...
    local status=$1 pattern=$2
    shift 2
    refused "$status" "$pattern" ranks "$KOSWEEP" run --model "$model" --corpus "$corpus" --threads 1 --quiet --output "$out/new.h5" "$@"
}

# ---- what every rank, or root alone, finds ----
run 2 '\-\-layr.*--layer' --layr 3
run 2 '5 layers' --layer 5
run 2 'no_such' --groups no_such
run 3 'nowhere.json' --corpus "$work/nowhere.json"
run 3 'nowhere/at/all' --model nowhere/at/all
run 4 'no/such/new.h5' --output "$out/no/such/new.h5"
run 4 '--memory' --memory 1K
if ! [ -e /dev/nvidia0 ]; then run 4 'cuda' --backend cuda; fi
refused 2 'kept.h5: exists' ranks "$KOSWEEP" run --model "$model" --corpus "$corpus" --output "$out/kept.h5"
refused 2 'no command' ranks "$KOSWEEP"
refused 2 '"runn"' ranks "$KOSWEEP" runn
KOSWEEP_HOME=$KS_ROOT refused 2 '\-\-outptu' ranks "$KOSWEEP" demo --outptu
refused 3 'nowhere.json' ranks "$KOSWEEP" plan --model "$model" --corpus "$work/nowhere.json"
refused 3 'nowhere' ranks "$KOSWEEP" model "$work/nowhere"
[ "$(ranks "$KOSWEEP" plan --model "$model" --corpus "$corpus" --json | wc -l)" = 1 ] || complain "plan does not print once"
[ "$(ranks "$KOSWEEP" --version | wc -l)" = 1 ] || complain "--version does not print once"
[ "$(ranks "$KOSWEEP" run --help | grep -c '^usage')" = 1 ] || complain "--help does not print once"

# ---- in the middle: weights that are not finite, root's disk, the second model ----
mkdir "$work/poisoned"
cp "$model"/* "$work/poisoned"
/usr/bin/python3 - "$work/poisoned/model.safetensors" <<'PY'
import json, struct, sys
data = bytearray(open(sys.argv[1], "rb").read())
n = struct.unpack("<Q", data[:8])[0]
end = 8 + n + json.loads(data[8:8 + n])["model.layers.3.mlp.down_proj.weight"]["data_offsets"][1]
data[end - 2:end] = b"\xc0\x7f"
open(sys.argv[1], "wb").write(data)
PY
refused 3 'poisoned: .*tensor model.layers.3.mlp.down_proj.weight' ranks "$KOSWEEP" run --model "$work/poisoned" --corpus "$corpus" \
    --threads 1 --quiet --output "$out/new.h5"
refused 4 'new.h5: .*cannot be' ranks bash -c 'ulimit -f 20; exec "$@"' limited "$KOSWEEP" run --model "$model" --corpus "$corpus" \
    --threads 1 --quiet --output "$out/new.h5"
# What was finished before the failure is kept.
ranks "$KOSWEEP" run --model "$model" --model "$work/poisoned" --corpus "$corpus" --threads 1 --output "$work/half.h5" >/dev/null 2>"$work/stderr"
[ $? = 3 ] && [ "$(grep -c 'error: ' "$work/stderr")" = 1 ] || complain "two models, one poisoned"
grep -q 'half.h5 keeps what was finished; --resume goes on' "$work/stderr" || complain "the warning about the finished model"
/usr/bin/python3 - "$work/half.h5" <<'PY' || complain "the finished model is not in the file, or the other one is whole"
import sys, h5py
with h5py.File(sys.argv[1]) as f:
    done = {name: set(m["sweeps/layers/status"][:].ravel()) for name, m in f["models"].items()}
    assert 0 not in done["a_qwen2"] and 0 in done["poisoned"], done
PY

# ---- one rank alone ----
cat >"$work/alone" <<'SH'
#!/usr/bin/env bash
# alone COMMANDS PROGRAM...: rank 1 runs the shell's COMMANDS first.
before=$1
shift
[ "$OMPI_COMM_WORLD_RANK" != 1 ] || eval "$before"
exec "$@"
SH
chmod +x "$work/alone"
host=$(hostname)
# rank1 STATUS PATTERN COMMANDS [FILE]: a run on the model in the working folder, in which only rank 1 fails. Within 10 seconds.
rank1() {
    local begin=$SECONDS
    (
        cd "$work/good" || exit 1
        failures=0
        refused "$1" "rank 1 on $host: $2" ranks "$work/alone" "$3" "$KOSWEEP" run --model ./m --corpus "$corpus" --threads 1 --quiet \
            --output "${4:-$out/new.h5}"
        exit "$failures"
    ) || failures=$((failures + 1))
    [ $((SECONDS - begin)) -lt 10 ] || complain "$((SECONDS - begin)) seconds: $3"
}
mkdir "$work/good" "$work/empty" "$work/bad"
cp -r "$model" "$work/good/m"
cp -r "$work/poisoned" "$work/bad/m"
mkdir "$work/cut" "$work/other"
cp -r "$model" "$work/other/m"
sed -i 's/"rms_norm_eps": 1e-0[0-9]*/"rms_norm_eps": 1e-03/' "$work/other/m/config.json"
cp -r "$model" "$work/cut/m"
truncate -s 5000 "$work/cut/m/model.safetensors"
rank1 2 '.*vax' 'export KS_CPU_ISA=vax'
rank1 3 '.*no directory ./m' "cd $work/empty"
rank1 3 '.*m/model.safetensors' "cd $work/cut"
rank1 3 './m: the weights are not those that root reads' "cd $work/bad"
rank1 3 './m: config.json is not' "cd $work/other"
# Less and less memory, down to a size that does not do for this sweep's 60 MB of states. (Far below it, Open MPI itself hangs.)
if ! grep -q __asan_init "$KOSWEEP"; then
    hungry() { # MIB: of addresses for rank 1
        ranks "$work/alone" "ulimit -v $(($1 * 1024))" "$KOSWEEP" run --model "$KS_ROOT/models/box" --heads each --all-windows --all-edges \
            --corpus "$KS_ROOT/corpus/attention_samples_universal.json" --threads 1 --quiet --output "$work/hungry.h5" --force
    }
    status=0
    for ((megabytes = 432; megabytes > 100 && !status; megabytes -= 32)); do
        begin=$SECONDS
        hungry "$megabytes" >"$work/stdout" 2>"$work/stderr" || status=$?
    done
    [ "$megabytes" != 400 ] || complain "no memory from the beginning"
    [ "$status" = 4 ] && [ "$(grep -c 'error: ' "$work/stderr")" = 1 ] || complain "status $status without memory"
    grep -Eq "error: rank 1 on $host: .*(out of|Cannot allocate) memory" "$work/stderr" || complain "no word about memory"
    [ $((SECONDS - begin)) -lt 15 ] || complain "$((SECONDS - begin)) seconds without memory"
fi
all_refused
