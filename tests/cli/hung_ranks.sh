#!/usr/bin/env bash
# Ranks that hang or are suspended. A hung rank ends the job with one message that names it; the file is intact and the sweep goes on from
# it. A job that is suspended as a whole goes on as if nothing had been. All at once, since most of it is waiting.
set -uo pipefail
. "$KS_ROOT/tests/tools/refusal.sh"
. "$KS_ROOT/tests/tools/under_way.sh"
host=$(hostname)
ranks=(mpirun -x ASAN_OPTIONS=detect_leaks=0 -n 3)
small=(run --model "$model" --corpus "$corpus" --all-windows --threads 1)

# pid_of LAUNCHER RANK
pid_of() {
    local p
    for p in $(pgrep -P "$1"); do
        if tr '\0' '\n' 2>/dev/null <"/proc/$p/environ" | grep -qx "OMPI_COMM_WORLD_RANK=$2"; then echo "$p"; fi
    done
}

# hangs RANK OPTIONS...: with the rank stopped. Silence is noticed after 8 s; the rest is for slow machines.
hangs() {
    local rank=$1
    shift
    under_way "hung$rank" "${ranks[@]}" "$KOSWEEP" "${sweep[@]}" --output "$work/hung$rank.h5" "$@"
    kill -STOP "$(pid_of "$pid" "$rank")"
    local begin=$SECONDS
    ended "hung$rank" 4 "rank $rank on $host: not heard of for 8 s" 60
    echo "rank $rank hung: ended after $((SECONDS - begin)) s"
    holds "$work/hung$rank.h5" 1 37799
    # It goes on (and is stopped, since all of it takes long).
    under_way "on$rank" "$KOSWEEP" "${sweep[@]}" --output "$work/hung$rank.h5" --resume
    kill -USR1 "$pid"
    wait "$pid"
    [ $? = 75 ] || complain "hung$rank.h5 cannot be resumed"
    exit "$failures"
}
(hangs 0) &
jobs="$!"
(hangs 1 --weights streamed) & # the ranks of a host wait for each other's release of weights
jobs+=" $!"

# Suspended, launcher included, for longer than silence may last; and a rank that does not even start.
suspended() {
    under_way suspended "${ranks[@]}" "$KOSWEEP" "${sweep[@]}" --output "$work/suspended.h5"
    local all
    all="$pid $(pgrep -P "$pid")"
    # shellcheck disable=SC2086
    kill -STOP $all
    sleep 12
    # shellcheck disable=SC2086
    kill -CONT $all
    sleep 3
    grep -q 'error: ' "$work/suspended.log" && complain "somebody was blamed: $(grep 'error: ' "$work/suspended.log")"
    kill -USR1 "$pid"
    wait "$pid"
    cp "$work/suspended.log" "$work/stderr"
    grep -q 'stopped with work left' "$work/suspended.log" || complain "a suspended job did not go on"
    holds "$work/suspended.h5" 1 37800
    exit "$failures"
}
(suspended) &
jobs+=" $!"
begins() {
    KOSWEEP_SILENCE=0.1 timeout 60 "${ranks[@]}" bash -c '[ "$OMPI_COMM_WORLD_RANK" != 2 ] || kill -STOP $$; exec "$@"' start \
        "$KOSWEEP" "${small[@]}" --output "$work/begins.h5" >"$work/stdout2" 2>"$work/begins.log"
    [ $? = 4 ] && grep -q 'error: MPI does not start' "$work/begins.log" || {
        cp "$work/begins.log" "$work/stderr"
        complain "a rank that hangs before MPI starts"
    }
    exit "$failures"
}
(begins) &
jobs+=" $!"
for job in $jobs; do wait "$job" || failures=$((failures + 1)); done
all_refused
