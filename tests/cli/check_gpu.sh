#!/usr/bin/env bash
# The program with --backend cuda on the check GPU: the same bits for any number of ranks and any source of weights, near the CPU's, and one
# clear error where the device's memory is too small.
set -euo pipefail
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
KOSWEEP_CUDA_MODULE=$(dirname "$KOSWEEP")/tests/check/libkosweep_check.so
export KOSWEEP_CUDA_MODULE
if ! [ -e "$KOSWEEP_CUDA_MODULE" ]; then
    echo "check_gpu.sh: no C++ compiler, no check GPU; nothing to see here"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/config.json" <<JSON
{"models": [{"path": "$KS_ROOT/tests/goldens/models/c_starcoder2"}], "corpus": "$KS_ROOT/tests/goldens/corpus/c_starcoder2.json",
 "marker": "span", "sweeps": [{"name": "windows", "windows": "all"}, {"name": "layers", "windows": "each-layer", "positions": "all"}]}
JSON
run() { # NAME [options]: one run into $work/NAME.h5, under $launch if that is set
    local name=$1
    shift
    # With the sanitizers: Open MPI itself leaks at its end, so leaks are looked for where it is not started.
    ASAN_OPTIONS=${ASAN_OPTIONS:-}${launch:+:detect_leaks=0} ${launch:-} "$KOSWEEP" run "$work/config.json" --threads 1 --backend cuda --quiet \
        --output "$work/$name.h5" "$@" >/dev/null
}
fail() {
    echo "check_gpu.sh: $*" >&2
    exit 1
}

mkdir "$work/other"
run other/one
launch="mpirun -n 2" run ranks2
launch="mpirun -n 3" run ranks3 --weights streamed
run streamed --weights streamed
run other/cpu --backend cpu
python=/usr/bin/python3
$python "$KS_ROOT/tests/tools/same_results.py" "$work/other/one.h5" "$work"/*.h5

$python "$KS_ROOT/tests/tools/near_results.py" "$work/other/one.h5" "$work/other/cpu.h5" device='no GPU: check' algorithms='check: cpu gemm'

# --memory bounds what is allocated on the device, whatever is streamed for that; ranks that share a GPU share its memory.
same=()
while read -r bytes options; do
    rm -f "$work/peak"
    # shellcheck disable=SC2086
    KS_CHECK_PEAK=$work/peak run "other/memory$bytes" --memory "$bytes" $options
    sort -n "$work/peak" | tail -1 | {
        read -r peak
        echo "--memory $bytes $options: $peak bytes at the peak"
        [ "$peak" -le "$bytes" ] && [ "$peak" -gt $((bytes / 8)) ]
    } || fail "--memory $bytes: $(cat "$work/peak")"
    same+=("$work/other/memory$bytes.h5")
done <<LIST
2600000
2700000 --weights streamed
2800000
8000000
LIST
KS_CHECK_MEMORY=8000000 run other/small
KS_CHECK_MEMORY=8000000 launch="mpirun -n 2" run other/half
$python "$KS_ROOT/tests/tools/same_results.py" "$work/other/one.h5" "${same[@]}" "$work/other/small.h5" "$work/other/half.h5"

# Too little memory to begin; for weights; for one variant.
while read -r bytes words; do
    status=0
    run small --memory "$bytes" 2>"$work/err" || status=$?
    [ "$status" = 4 ] || fail "$bytes bytes: status $status"
    [ "$(wc -l <"$work/err")" = 1 ] || fail "$bytes bytes: $(cat "$work/err")"
    grep -q "$words.*--memory" "$work/err" || fail "$bytes bytes: $(cat "$work/err")"
done <<LIST
100000 of device memory are too few: two layers of weights need
2000000 MB of memory for one variant
LIST
status=0
KS_CHECK_MEMORY=1000000 run small 2>"$work/err" || status=$?
[ "$status" = 4 ] || fail "a small device: status $status"
grep -q "bytes of device memory are wanted; [0-9]* of 1000000 are in use" "$work/err" || fail "a small device: $(cat "$work/err")"

status=0
KOSWEEP_CUDA_MODULE=$work/none.so run none 2>"$work/err" || status=$?
if [ "$status" != 4 ] || ! grep -q "backend cuda: $work/none.so: cannot open" "$work/err"; then
    fail "no module: status $status, $(cat "$work/err")"
fi
