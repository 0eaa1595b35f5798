#!/usr/bin/env bash
# A sweep on this machine: one rank per GPU, or per processor socket. Ctrl-C stops it so that the same command goes on later.
set -uo pipefail
usage() {
    cat <<'HELP'
usage: launch/mpirun.sh [CONFIG.json] [options of kosweep run]

Runs `mpirun -n RANKS kosweep run ...`. The first Ctrl-C (or SIGTERM, SIGUSR1) lets the ranks finish what they have begun and write it,
the second ends them at once. --resume is always given: the same command again goes on with its result file.

environment:
  RANKS         ranks (default: one per GPU; without GPUs one per processor socket)
  THREADS       threads of a rank (default: kosweep's own, all processors divided by the ranks)
  KOSWEEP       the program (default: build/kosweep of this checkout if it is there, else kosweep)
  KS_SITE_ENV   a file to source first: modules, paths (default: launch/site.env if it is there)
  KS_MPIRUN     more options for mpirun, separated by spaces

exit status: that of kosweep run; 75: stopped, with work left.

examples:
  launch/mpirun.sh --model models/box --corpus corpus/attention_samples_universal.json --all-windows --output box.h5
  RANKS=2 THREADS=4 launch/mpirun.sh config/demo.json --output demo.h5
docs/running.md explains every line.
HELP
}
case "${1:-}" in -h | --help) usage && exit 0 ;; esac
# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh" || exit 2

sockets=$(lscpu --parse=socket 2>/dev/null | grep -v '^#' | sort -u | wc -l)
[ "$sockets" -gt 0 ] || sockets=1
gpus=0
! command -v nvidia-smi >/dev/null || gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU')
ranks=${RANKS:-$((gpus > 0 ? gpus : sockets))}

# Bound to one core each, which is what mpirun does with two ranks, they would leave the others idle.
bind=(--bind-to none)
if [ "$sockets" -gt 1 ] && [ "$ranks" = "$sockets" ]; then bind=(--map-by socket --bind-to socket); fi

# In a process group of its own (set -m), mpirun does not hear the terminal's Ctrl-C, on which it would kill the ranks within a second.
# USR1 it passes on to them.
set -m
# shellcheck disable=SC2086 # options, separated by spaces
mpirun -n "$ranks" "${bind[@]}" ${KS_MPIRUN:-} "$KOSWEEP" run "$@" ${THREADS:+--threads "$THREADS"} --resume </dev/null &
job=$!
signals=0
stop() {
    signals=$((signals + 1))
    if [ $signals = 1 ]; then kill -USR1 $job; else kill -TERM $job; fi 2>/dev/null
}
trap stop INT TERM USR1
while kill -0 $job 2>/dev/null; do wait $job; done # a signal ends wait, not the job
wait $job
status=$?
[ $status != 138 ] || status=75 # 128 + USR1: it came before the ranks could hear it
exit $status
