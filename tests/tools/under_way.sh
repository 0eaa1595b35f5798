# Sweeps that something happens to while they run (sourced, after refusal.sh). Sets $sweep: about 40 s on one thread, in passes of a second.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2054,SC2154 # read by the tests; values have commas; refusal.sh sets work
sweep=(run --model "$KS_ROOT/models/box" --corpus "$KS_ROOT/corpus/attention_samples_universal.json" --all-windows --all-edges --heads each
    --kind scale=0,0.3,0.5,2,3,4,5,6,7,8 --scan-layers --include-baselines --threads 1 --checkpoint 1)
export KOSWEEP_PROGRESS=0.2

# under_way NAME COMMAND...: starts it in the background, stderr in $work/NAME.log, and returns when cells are finished; $pid is its
# process.
under_way() {
    local name=$1
    shift
    "$@" >"$work/stdout" 2>"$work/$name.log" </dev/null &
    pid=$!
    for _ in $(seq 600); do
        grep -Eq ' [1-9][0-9]* of [0-9]+ cells,' "$work/$name.log" && return
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    cp "$work/$name.log" "$work/stderr"
    complain "no progress: $*"
}

# ended NAME STATUS PATTERN SECONDS: the process $pid ends with STATUS within SECONDS of now, with one error line, which matches PATTERN.
ended() {
    local begin=$SECONDS status errors
    while kill -0 "$pid" 2>/dev/null && [ $((SECONDS - begin)) -lt "$4" ]; do sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null # it hangs
    wait "$pid"
    status=$?
    tr '\r' '\n' <"$work/$1.log" | grep -v 'cells/s' >"$work/stderr"
    [ "$status" = "$2" ] || complain "$1: status $status instead of $2 after $((SECONDS - begin)) s"
    errors=$(grep -c 'error: ' "$work/stderr")
    [ "$errors" = 1 ] || complain "$1: $errors error lines"
    grep -Eq -e "error: .*$3" "$work/stderr" || complain "$1: no /$3/"
}

# holds FILE LEAST MOST: the file opens and has so many finished cells; each of them has its values.
holds() {
    /usr/bin/python3 - "$@" <<'PY' || complain "$1 does not hold $2 to $3 cells with values"
import sys, h5py, numpy as np
done = 0
with h5py.File(sys.argv[1]) as f:
    for m in f["models"].values():
        for s in m["sweeps"].values():
            finished = s["status"][:] > 0
            done += int(finished.sum())
            assert np.isfinite(s["kl"][:][finished]).all()
print(f"{done} cells")
sys.exit(not int(sys.argv[2]) <= done <= int(sys.argv[3]))
PY
}
