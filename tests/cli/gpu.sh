#!/usr/bin/env bash
# The program with --backend cuda on a real GPU, alone, with two ranks on one GPU, streamed: the same bits, near the CPU's, and the algorithms
# of products on record. 77, and why, where there is no GPU.
set -euo pipefail
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
unset KOSWEEP_CUDA_MODULE
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
goldens=$KS_ROOT/tests/goldens

run() { # NAME [options]: $model's sweeps into $work/NAME.h5, under $launch if that is set
    local name=$1
    shift
    ${launch:-} "$KOSWEEP" run "$work/$model.json" --threads 1 --backend cuda --quiet --output "$work/$name.h5" "$@" >/dev/null
}

# bf16, f32 and f16 weights.
for model in c_starcoder2 f_llama3 i_mistral; do
    cat >"$work/$model.json" <<JSON
{"models": [{"path": "$goldens/models/$model"}], "corpus": "$goldens/corpus/$model.json",
 "marker": "span", "sweeps": [{"name": "windows", "windows": "all"}, {"name": "layers", "windows": "each-layer", "positions": "all"}]}
JSON
    mkdir "$work/$model"
    status=0
    run "$model/one" 2>"$work/err" || status=$?
    if [ "$status" = 4 ] && grep -qE 'backend cuda: (no GPU:|libkosweep_cuda.so: cannot open)' "$work/err"; then
        echo "skipped: $(cat "$work/err")"
        exit 77
    fi
    if [ "$status" != 0 ]; then
        cat "$work/err" >&2
        exit 1
    fi
    run "$model/streamed" --weights streamed
    launch="mpirun -n 2" run "$model/ranks2"
    launch="mpirun -n 2" run "$model/ranks2_streamed" --weights streamed
    /usr/bin/python3 "$KS_ROOT/tests/tools/same_results.py" "$work/$model/one.h5" "$work/$model"/*.h5
    run "$model/cpu" --backend cpu
    type=f32
    [ "$model" != c_starcoder2 ] || type=bf16
    /usr/bin/python3 "$KS_ROOT/tests/tools/near_results.py" "$work/$model/one.h5" "$work/$model/cpu.h5" algorithms="$type ["
done
