#!/usr/bin/env bash
# Slurm for real: a cluster of two nodes on this host; a sweep on both, killed, cancelled, warned and out of time, and always the same bits.
set -uo pipefail
"$KS_ROOT/tests/slurm/cluster.sh" check || exit 77
work=$(mktemp -d /tmp/ks-slurm.XXXXXX)
finish() {
    "$KS_ROOT/tests/slurm/cluster.sh" stop "$work/cluster"
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM
die() {
    echo "FAILED: $*"
    tail -n 25 "$work"/*.log "$work"/cluster/*.log
    exit 1
}
same() { # REFERENCE FILE...
    /usr/bin/python3 "$KS_ROOT/tests/tools/same_results.py" "$@" || die "not the same bits: $*"
}
until_true() { # SECONDS WHAT COMMAND...
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ $SECONDS -lt $end ] || die "waited in vain for: $what"
        sleep 0.3
    done
}
# How many cells a file holds; its status is the 11th field. Also: the file can be read at this moment.
cells() { # FILE
    [ -f "$1" ] || { echo 0 && return; }
    "$KOSWEEP_STATS" csv "$1" >"$work/cells.csv" 2>"$work/cells.log" || die "$1 cannot be read"
    cut -d, -f11 "$work/cells.csv" | grep -c '^[1-4]$'
}
more_cells() { # THAN FILE
    [ "$(cells "$2")" -gt "$1" ]
}
job() { # FIELD ID: a field of scontrol show job
    scontrol show job "$2" | tr ' ' '\n' | sed -n "s/^$1=//p" | head -n 1
}
job_is() { # FIELD ID VALUE
    [ "$(job "$1" "$2")" = "$3" ]
}

cd "$work" || exit 1
cat >config.json <<JSON
{"models": [{"name": "box", "path": "$KS_ROOT/models/box"}], "corpus": "$KS_ROOT/corpus/attention_samples_universal.json",
 "groups": ["python_doctest", "rust_test", "python_baseline", "rust_baseline", "python_prompt", "rust_prompt"],
 "sweeps": [{"name": "windows", "windows": "all"}, {"name": "all_edge", "windows": "all", "edges": "all-marker"}]}
JSON
options=(config.json --threads 1 --memory 56M)
run=("$KOSWEEP" run "${options[@]}")
"${run[@]}" --quiet --output reference.h5 >/dev/null || die "alone"
all=$(cells reference.h5)
"$KS_ROOT/tests/slurm/cluster.sh" start "$work/cluster" || exit 1
# shellcheck source=/dev/null
. "$work/cluster/env"
export KS_CPUS_PER_RANK=1

# ---- srun on both nodes; what is started in a batch shell; mpirun there ----
srun --mpi=pmix --nodes=2 --ntasks=4 "${run[@]}" --output srun.h5 >/dev/null 2>srun.log || die "srun"
cat >batch.sbatch <<SH
#!/usr/bin/env bash
#SBATCH --nodes=2 --ntasks-per-node=2 --output=batch.log
${run[*]} --output batch.h5 >/dev/null && mpirun -n 4 ${run[*]} --output mpirun.h5 >/dev/null
SH
id=$(sbatch --parsable batch.sbatch) || die "no job"
until_true 60 "the batch job's end" job_is JobState "$id" COMPLETED
same reference.h5 srun.h5 batch.h5 mpirun.h5

# ---- srun without PMIx: programs that do not know of each other ----
srun --mpi=none --nodes=2 --ntasks=4 "${run[@]}" --output none.h5 >none.out 2>none.log
[ $? = 2 ] && [ "$(grep -c 'error: .*srun --mpi=pmix' none.log)" = 1 ] && [ ! -e none.h5 ] || die "srun --mpi=none was not refused"

# ---- from here on ranks are slow, and one file goes through everything ----
# The plain C path gives the same bits, about 80 times as slowly. Every start of a job reads this file anew.
echo 'export KS_CPU_ISA=generic' >site.env
export KS_SITE_ENV=$work/site.env
sweep=(env KS_NODES=2 KS_RANKS_PER_NODE=1 "$KS_ROOT/launch/slurm/sweep.sbatch" "${options[@]}" --output chain.h5)

# A rank is killed: the step ends with one message, within 10 seconds.
KS_CPU_ISA=generic KOSWEEP_SILENCE=4 srun --mpi=pmix --kill-on-bad-exit=0 --wait=30 --nodes=2 --ntasks=2 "${run[@]}" \
    --output "$work/chain.h5" >/dev/null 2>kill.log &
step=$!
until_true 60 "cells of the first step" more_cells 0 chain.h5
before=$(cells chain.h5) killed=$SECONDS
kill -KILL "$(pgrep -f "^$KOSWEEP run .*$work/chain.h5" | tail -n 1)"
wait $step
status=$?
[ $((SECONDS - killed)) -le 10 ] || die "$((SECONDS - killed)) seconds after a rank was killed"
[ $status != 0 ] && [ $status != 75 ] || die "status $status after a rank was killed"
grep -q 'Killed' kill.log || die "no word of the killed rank"
[ "$(cells chain.h5)" -ge "$before" ] || die "cells were lost with the killed rank"

# scancel: finished cells stay, and the job does not come back.
before=$(cells chain.h5)
cancelled=$(KS_SBATCH=--parsable "${sweep[@]}") || die "no job"
until_true 60 "cells of the job to cancel" more_cells "$before" chain.h5
before=$(cells chain.h5)
scancel "$cancelled"
until_true 60 "the cancelled job's end" job_is JobState "$cancelled" CANCELLED
grep -q 'stopped with work left' kosweep-"$cancelled".log || die "the cancelled job does not say that work is left"
[ "$(cells chain.h5)" -ge "$before" ] || die "cells were lost with the cancelled job"

# ---- a job that is warned, then runs out of time, then ends ----
before=$(cells chain.h5)
id=$(KS_SBATCH="--parsable --time=10 --signal=B:USR1@30" "${sweep[@]}") || die "no job"
# Beside it: a program that never gets anywhere, and an array of three models, one of which is not there.
printf '#!/bin/sh\nexit 75\n' >fruitless
chmod +x fruitless
fruitless=$(KOSWEEP=$work/fruitless KS_SBATCH=--parsable KS_TRIES=1 "$KS_ROOT/launch/slurm/sweep.sbatch" --output fruitless.h5) || die "no job"
echo "{\"corpus\": \"$KS_ROOT/corpus/attention_samples_universal.json\"}" >scan.json
printf '%s\n' '# two models' '' "$KS_ROOT/models/box" "  $KS_ROOT/tests/goldens/models/a_qwen2/" nowhere/none >models.txt
KS_SITE_ENV=/dev/null KS_AT_ONCE=2 KS_RESULTS=array "$KS_ROOT/launch/slurm/array.sbatch" models.txt scan.json --threads 1 >array.out || die "no array"

until_true 60 "cells of the job to warn" more_cells "$before" chain.h5
scancel --batch --signal=USR1 "$id"
until_true 60 "the warned job in the queue" job_is Restarts "$id" 1
before=$(cells chain.h5)
scontrol update JobId="$id" TimeLimit=1 || die "no time limit"
# Slurm looks at time limits twice a minute, and warns up to a minute early.
until_true 120 "the time limit" job_is Restarts "$id" 2
echo 'unset KS_CPU_ISA' >site.env # the job has it from its submission
[ "$(cells chain.h5)" -gt "$before" ] || die "a start added nothing"
[ "$(cells chain.h5)" -lt "$all" ] || die "the sweep was done before its time limit"
until_true 120 "the job's end" job_is JobState "$id" COMPLETED
[ "$(grep -c 'back to the queue' kosweep-"$id".log)" = "$(job Restarts "$id")" ] || die "requeued by somebody else"
[ ! -e chain.h5.tries ] || die "chain.h5.tries is left"
same reference.h5 chain.h5

# ---- the jobs beside it ----
until_true 60 "the fruitless job's end" job_is JobState "$fruitless" FAILED
job_is ExitCode "$fruitless" 4:0 || die "the fruitless job did not end with 4"
job_is Restarts "$fruitless" 1 || die "the fruitless job was requeued too often"
compare=$(sed -n 's/.*then \([0-9]*\):.*/\1/p' array.out)
until_true 60 "the comparison" job_is JobState "$compare" FAILED
job_is ExitCode "$compare" 3:0 || die "the comparison did not end with 3"
grep -q 'nowhere/none' kosweep-compare-"$compare".log || die "the missing model is not named"
for model in models/box tests/goldens/models/a_qwen2; do
    "$KOSWEEP" run scan.json --model "$KS_ROOT/$model" --quiet --output "${model##*/}.h5" >/dev/null || die "$model alone"
    same "${model##*/}.h5" "array/${model##*/}.h5"
done
"$KOSWEEP_STATS" compare box.h5 a_qwen2.h5 | diff - array/compare.txt || die "the comparison"
