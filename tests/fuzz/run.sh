#!/usr/bin/env bash
# A campaign: runs one fuzz target for a time or a number of inputs. Usage: tests/fuzz/run.sh NAME [RUNS|SECONDSs]
#   tests/fuzz/run.sh tokenizer 600s        tests/fuzz/run.sh corpus 10000000
# KS_FUZZ_BUILD: the build directory (default build-fuzz), configured with clang and KS_FUZZ=ON where it is not yet. In it, corpus/NAME grows
# from campaign to campaign, and findings/NAME-* are the inputs that broke something. More libFuzzer options: KS_FUZZ_OPTIONS.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
name=${1:?which target? tests/fuzz/fuzz_NAME.c}
limit=${2:-60s}
build=${KS_FUZZ_BUILD:-$root/build-fuzz}
[ -e "$build/CMakeCache.txt" ] || cmake -S "$root" -B "$build" -DCMAKE_C_COMPILER=clang -DKS_FUZZ=ON
cmake --build "$build" -j "$(nproc)" --target "fuzz_$name"
mkdir -p "$build/corpus/$name" "$build/findings"

# Words that mean something to the readers: the strings of their sources.
grep -ohE '"[A-Za-z0-9_.<>-]{2,40}"' "$root"/src/input/*.c "$root"/src/model/{arch,families,safetensors,model}.c "$root"/analysis/reader.c |
    sort -u >"$build/words.dict"

case $limit in
*s) limit=-max_total_time=${limit%s} ;;
*) limit=-runs=$limit ;;
esac
# No stacks for allocations: they cost more than the readers.
ASAN_OPTIONS=malloc_context_size=${KS_FUZZ_STACKS:-0}:quarantine_size_mb=16:${ASAN_OPTIONS:-} \
    exec "$build/tests/fuzz/fuzz_$name" "$limit" -timeout=20 -rss_limit_mb=3000 -max_len=8192 -dict="$build/words.dict" \
    -artifact_prefix="$build/findings/$name-" -print_final_stats=1 ${KS_FUZZ_OPTIONS:-} "$build/corpus/$name" "$root/tests/fuzz/seeds/$name"
