#!/usr/bin/env bash
# The same bits for any number of ranks and threads, resident and streamed weights, any memory budget, any instruction set.
set -euo pipefail
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
models=$KS_ROOT/tests/goldens/models

cat >"$work/config.json" <<JSON
{"models": [{"path": "$models/a_qwen2"}], "corpus": "$KS_ROOT/tests/goldens/corpus/a_qwen2.json", "marker": "span", "save_logits": true,
 "sweeps": [{"name": "triangle", "windows": "all", "edges": "all-marker"},
            {"name": "windows", "windows": "all"},
            {"name": "layers", "windows": "each-layer", "positions": "all"},
            {"name": "heads", "windows": "each-layer", "heads": "each"},
            {"name": "dose", "windows": [[1, 2]], "kind": "scale", "values": [0.5, 2]},
            {"name": "forced", "windows": [[2, 2]], "kind": "set", "values": [0.25]}]}
JSON
run() { # NAME [options]: one run into $work/NAME.h5, under $launch if that is set
    local name=$1
    shift
    # With the sanitizers: Open MPI itself leaks at its end, so leaks are looked for where it is not started.
    ASAN_OPTIONS=${ASAN_OPTIONS:-}${launch:+:detect_leaks=0} ${launch:-} "$KOSWEEP" run "$work/config.json" --threads 1 --quiet --output "$work/$name.h5" "$@" >/dev/null
}
mkdir "$work/reference"
run reference/one
python=/usr/bin/python3
$python "$KS_ROOT/tests/tools/same_results.py" --self-test "$work/reference/one.h5"

for ranks in 1 2 3 5 17; do launch="mpirun -n $ranks" run "ranks$ranks"; done
run threads2 --threads 2
run threads3 --threads 3
run streamed --weights streamed
run small --memory 54M
run smaller --memory 51500K --weights streamed
launch="mpirun -n 3" run small3 --memory 52M --threads 2
for isa in generic avx2 avx512; do
    # A processor without the instruction set cannot show its bits.
    if KS_CPU_ISA=$isa "$KOSWEEP" run "$work/config.json" --threads 1 --quiet --output "$work/$isa.h5" >/dev/null 2>"$work/error"; then continue; fi
    grep -q "$isa" "$work/error" || { cat "$work/error"; exit 1; }
    echo "not on this processor: $isa"
done
$python "$KS_ROOT/tests/tools/same_results.py" "$work/reference/one.h5" "$work"/*.h5
# A sweep alone gives what it gives beside others that share its branches.
cat >"$work/alone.json" <<JSON
{"models": [{"path": "$models/a_qwen2"}], "corpus": "$KS_ROOT/tests/goldens/corpus/a_qwen2.json", "marker": "span",
 "sweeps": [{"name": "windows", "windows": "all"}]}
JSON
"$KOSWEEP" run "$work/alone.json" --threads 1 --quiet --output "$work/reference/alone.h5" >/dev/null
$python "$KS_ROOT/tests/tools/same_results.py" --within "$work/reference/alone.h5" "$work/reference/one.h5"

"$KOSWEEP" plan "$work/config.json" --memory 51500K --json | grep -q '"passes":[2-9]' || { echo "the small budget did not need several passes"; exit 1; }
