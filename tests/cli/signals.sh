#!/usr/bin/env bash
# Signals: the first one lets running passes end, the second one ends the program; exit code 75; --resume goes on to the same bits.
set -uo pipefail
. "$KS_ROOT/tests/tools/refusal.sh"
export KOSWEEP_PROGRESS=0.2

# While it is to be stopped the sweep runs on the plain C path, which has the same bits and is many times slower.
slow=KS_CPU_ISA=generic
long=(run --model "$KS_ROOT/models/box" --corpus "$KS_ROOT/corpus/attention_samples_universal.json" --all-windows --all-edges --scan-layers --include-baselines --threads 1 --checkpoint 1)
finished() { # FILE: number of finished cells
    /usr/bin/python3 -c 'import sys, h5py
with h5py.File(sys.argv[1]) as f:
    print(sum(int((s["status"][:] > 0).sum()) for m in f["models"].values() for s in m["sweeps"].values()))' "$1"
}
"$KOSWEEP" "${long[@]}" --output "$work/whole.h5" --quiet >/dev/null || complain "the undisturbed run"
all=$(finished "$work/whole.h5")

# stopped SIGNALS RANKS MESSAGE: starts the sweep, sends the signals 0.6 s apart once it is under way, wants exit code 75.
stopped() {
    local signals=$1 ranks=$2 message=$3 pid status before=${cells:-0}
    local start=()
    [ "$ranks" = 1 ] || start=(mpirun -x ASAN_OPTIONS=detect_leaks=0 -n "$ranks")
    env $slow "${start[@]}" "$KOSWEEP" "${long[@]}" --output "$work/o.h5" --resume >"$work/stdout" 2>"$work/stderr" &
    pid=$!
    for _ in $(seq 300); do
        grep -q 'cells/s' "$work/stderr" && break
        sleep 0.1
    done
    for signal in $signals; do
        kill -"$signal" "$pid"
        kill -"$signal" "$pid" # together with the first one: still one request
        sleep 0.6
    done
    wait "$pid"
    status=$?
    [ "$status" = 75 ] || complain "$signals on $ranks ranks: exit code $status: $(cat "$work/stderr")"
    grep -q "$message" "$work/stderr" || complain "$signals on $ranks ranks: no \"$message\": $(cat "$work/stderr")"
    cells=$(finished "$work/o.h5")
    [ "$cells" -ge "$before" ] && [ "$cells" -lt "$all" ] || complain "$signals on $ranks ranks: $before, then $cells of $all cells"
}

cells=0
stopped TERM 1 'stopped with work left; .*--resume goes on'
[ "$cells" -gt 0 ] || complain "nothing was finished before the first stop"
stopped INT 1 'asked to stop: 1 running pass will be finished'
stopped USR1 2 'asked to stop: . running pass' # mpirun hands it on to every rank: still one request
mv "$work/o.h5" "$work/later.h5"
long+=(--checkpoint 1000) # passes of many seconds
for ranks in 1 2; do
    rm -f "$work/o.h5"
    cells=0
    stopped 'USR1 USR1' "$ranks" 'stopped at once'
done
grep -q ' cells/s, .* left, pass' "$work/stderr" || complain "no progress line without a terminal: $(cat "$work/stderr")"

mv "$work/later.h5" "$work/o.h5"
"$KOSWEEP" "${long[@]}" --output "$work/o.h5" --resume --quiet >/dev/null || complain "the last run"
/usr/bin/python3 "$KS_ROOT/tests/tools/same_results.py" "$work/whole.h5" "$work/o.h5" || complain "the bits differ"
[ "$failures" = 0 ] && echo "signals: as documented"
exit "$failures"
