#!/usr/bin/env bash
# Slurm for real: a cluster of two nodes on this host, a sweep on both, and the same bits as without it.
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
    tail -n 20 "$work"/*.log "$work"/*/*.log
    exit 1
}
same() { # FILE...
    /usr/bin/python3 "$KS_ROOT/tests/tools/same_results.py" "$work/reference.h5" "$@" || die "not the same bits: $*"
}

cat >"$work/config.json" <<JSON
{"models": [{"name": "box", "path": "$KS_ROOT/models/box"}], "corpus": "$KS_ROOT/corpus/attention_samples_universal.json",
 "sweeps": [{"name": "layers", "windows": "each-layer"}, {"name": "all_edge", "windows": "each-layer", "edges": "all-marker"}]}
JSON
cd "$work" || exit 1
run=("$KOSWEEP" run config.json --threads 1 --quiet)
"${run[@]}" --output reference.h5 >/dev/null || die "alone"
"$KS_ROOT/tests/slurm/cluster.sh" start "$work/cluster" || exit 1
# shellcheck source=/dev/null
. "$work/cluster/env"

# ---- srun on both nodes ----
srun --mpi=pmix --nodes=2 --ntasks=4 "${run[@]}" --output srun.h5 >/dev/null 2>srun.log || die "srun"
same srun.h5
