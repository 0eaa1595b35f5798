#!/usr/bin/env bash
# launch/mpirun.sh: ranks, signals, exit codes; and what all scripts there say for themselves.
set -uo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
unset KS_SITE_ENV RANKS THREADS
die() {
    echo "FAILED: $*"
    cat "$work"/*.log
    exit 1
}
cells() { # FILE: how many it holds
    "$KOSWEEP_STATS" csv "$1" 2>/dev/null | cut -d, -f11 | grep -c '^[1-4]$'
}

for script in mpirun.sh slurm/sweep.sbatch slurm/array.sbatch; do
    "$KS_ROOT/launch/$script" --help | grep -q '^examples:' || die "$script --help"
done

# More than 30 s of work on the plain C path, less than 1 s on any other, with the same bits.
cat >"$work/config.json" <<JSON
{"models": [{"name": "box", "path": "$KS_ROOT/models/box"}], "corpus": "$KS_ROOT/corpus/attention_samples_universal.json",
 "sweeps": [{"name": "windows", "windows": "all"}, {"name": "all_edge", "windows": "all", "edges": "all-marker"}]}
JSON
options=("$work/config.json" --memory 56M --quiet)
"$KOSWEEP" run "${options[@]}" --threads 1 --output "$work/reference.h5" >/dev/null || die "alone"
all=$(cells "$work/reference.h5")
sweep=(env RANKS=2 THREADS=1 "$KS_ROOT/launch/mpirun.sh" "${options[@]}" --output "$work/ranks.h5")

# begin FILE: starts the sweep slowly and waits until it has added a cell. Sets $pid and $before.
begin() {
    before=$(cells "$work/ranks.h5")
    KS_CPU_ISA=generic "${sweep[@]}" >/dev/null 2>"$work/sweep.log" &
    pid=$!
    for _ in $(seq 300); do
        [ "$(cells "$work/ranks.h5")" -le "$before" ] || return 0
        sleep 0.2
    done
    die "no cell in a minute"
}
# The ranks' processes are children of mpirun, not of the script.
left() {
    pgrep -f "^$KOSWEEP run .*$work/ranks.h5" >/dev/null
}

begin
kill -TERM $pid
wait $pid
status=$?
[ $status = 75 ] || die "status $status after SIGTERM"
! left || die "ranks are left after SIGTERM"
stopped=$(cells "$work/ranks.h5")
[ "$stopped" -gt "$before" ] && [ "$stopped" -lt "$all" ] || die "$stopped of $all cells after SIGTERM"

begin
kill -USR1 $pid
sleep 0.1
kill -USR1 $pid
wait $pid
[ $? != 0 ] || die "status 0 after two signals"
! left || die "ranks are left after two signals"
[ "$(cells "$work/ranks.h5")" -gt "$stopped" ] || die "cells were lost at the second signal"

"${sweep[@]}" >/dev/null 2>"$work/sweep.log" || die "the last start"
/usr/bin/python3 "$KS_ROOT/tests/tools/same_results.py" "$work/reference.h5" "$work/ranks.h5" || die "not the same bits"

# ---- exit codes; the site's environment ----
RANKS=2 "$KS_ROOT/launch/mpirun.sh" --layr 3 >/dev/null 2>"$work/usage.log"
[ $? = 2 ] || die "the status of a wrong option"
KOSWEEP=$work/none "$KS_ROOT/launch/mpirun.sh" 2>"$work/program.log"
[ $? = 2 ] && grep -q "$work/none: no such program" "$work/program.log" || die "a program that is not there"
echo "KOSWEEP=$work/from_site" >"$work/site.env"
KS_SITE_ENV=$work/site.env "$KS_ROOT/launch/mpirun.sh" 2>"$work/site.log"
[ $? = 2 ] && grep -q "$work/from_site: no such program" "$work/site.log" || die "the site's environment"
KS_SITE_ENV=$work/none.env "$KS_ROOT/launch/mpirun.sh" 2>"$work/site.log"
[ $? = 2 ] && grep -q "$work/none.env cannot be read" "$work/site.log" || die "an environment that is not there"
