#!/usr/bin/env bash
# --backend where there is no GPU: cuda ends with the reason, auto takes the CPU and says why, and neither needs the module.
set -euo pipefail
if compgen -G '/dev/nvidia[0-9]*' >/dev/null || [ -e /dev/dxg ]; then
    echo "backend.sh: this host has a GPU; nothing to see here"
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
sweep=(run --model "$KS_ROOT/models/box" --corpus "$KS_ROOT/corpus/attention_samples_universal.json" --groups python_prompt --layer 1
    --floor off --force --output "$folder/out.h5")

fail() {
    echo "backend.sh: $*" >&2
    cat "$folder/err" >&2
    exit 1
}

# refused PROGRAM PATTERN: --backend cuda ends with 4 and one line that has PATTERN.
refused() {
    local status=0
    "$1" "${sweep[@]}" --backend cuda >/dev/null 2>"$folder/err" || status=$?
    [ "$status" = 4 ] || fail "status $status"
    [ "$(wc -l <"$folder/err")" = 1 ] || fail "more than one line"
    grep -q "backend cuda: .*$2" "$folder/err" || fail "no \"$2\""
    ! [ -e "$folder/out.h5" ] || fail "left a result file behind"
}

module=$(dirname "$KOSWEEP")/libkosweep_cuda.so
if [ -e "$module" ]; then refused "$KOSWEEP" 'no GPU: .*driver'; fi

cp "$KOSWEEP" "$folder/kosweep"
refused "$folder/kosweep" 'libkosweep_cuda.so: cannot open'
printf 'not a library' >"$folder/libkosweep_cuda.so"
refused "$folder/kosweep" "$folder/libkosweep_cuda.so"

"$folder/kosweep" "${sweep[@]}" --backend auto --verbose >/dev/null 2>"$folder/err" || fail "auto failed"
grep -q 'backend cpu: there is no GPU' "$folder/err" || fail "auto does not say why"
"$folder/kosweep" "${sweep[@]}" --backend cpu --verbose >/dev/null 2>"$folder/err" || fail "cpu failed"
! grep -q 'no GPU' "$folder/err" || fail "cpu looked for a GPU"
