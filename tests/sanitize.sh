#!/usr/bin/env bash
# The test suite under a tool that sees what tests cannot. Usage: tests/sanitize.sh asan|valgrind|tsan [build directory] [tests, as for ctest -R]
#   asan      address and undefined-behaviour sanitizers, leaks
#   valgrind  memory that was never written, too; 20 to 50 times slower. The tool's processor has no AVX-512
#   tsan      the thread sanitizer; without tests, those where threads meet
# Fails where a test fails or a report was written, to BUILD/reports. What is suppressed stands with its reason in tests/sanitize/.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
tool=${1:?asan, valgrind or tsan}
build=${2:-$root/build-$tool}
tests=${3:-}
sanitize=OFF
run=()

case $tool in
asan) sanitize=ON ;;
valgrind) ;;
tsan)
    sanitize=thread
    run=(setarch -R) # the tool knows few places for a program's memory
    tests=${tests:-'^test_(pool|backend|engine|queue|resume|results_crash|ring|weights|weights_shared)$|^cli_(balance|kills|same_bits|signals)$'}
    ;;
*)
    echo "asan, valgrind or tsan expected, \"$tool\" found" >&2
    exit 2
    ;;
esac

cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=ON -DKS_SANITIZE=$sanitize
# Programs that were wrapped are made anew.
find "$build" -name '*.under-valgrind' -exec bash -c 'rm -f "${1%.under-valgrind}" "$1"' _ {} \;
cmake --build "$build" -j "$(nproc)"
build=$(realpath "$build")
rm -rf "$build/reports"
mkdir "$build/reports"

supp=$root/tests/sanitize
export ASAN_OPTIONS=detect_leaks=1:log_path=$build/reports/asan UBSAN_OPTIONS=print_stacktrace=1
# Open MPI gives back less than it took, and unloads the libraries by whose names that could be told: no search for leaks under mpirun.
mkdir -p "$build/reports/bin"
cat >"$build/reports/bin/mpirun" <<WRAPPER
#!/bin/sh
ASAN_OPTIONS=\$ASAN_OPTIONS:detect_leaks=0 exec $(command -v mpirun) "\$@"
WRAPPER
chmod +x "$build/reports/bin/mpirun"
export PATH=$build/reports/bin:$PATH
export TSAN_OPTIONS=suppressions=$supp/tsan.supp:history_size=7:ignore_noninstrumented_modules=1:log_path=$build/reports/tsan
if [ "$tool" = valgrind ]; then
    # Every program of ours becomes a script that runs it under valgrind, whoever starts it.
    for program in "$build"/kosweep "$build"/kosweep-stats "$build"/tests/test_* "$build"/tests/fuzz/fuzz_*; do
        [ -f "$program" ] && [ -x "$program" ] || continue
        mv "$program" "$program.under-valgrind"
        cat >"$program" <<WRAPPER
#!/bin/sh
exec valgrind -q --leak-check=full --errors-for-leak-kinds=definite --show-leak-kinds=definite \\
    --suppressions="$supp/valgrind.supp" --log-file="$build/reports/valgrind.%p" "$program.under-valgrind" "\$@"
WRAPPER
        chmod +x "$program"
    done
fi

# What of a report is a finding. Not: HDF5's own faults, in the process that is there for them (ks_study_probe); and what valgrind says of
# code without a name, which is PCRE2's compiled patterns: they load more bytes at once than there are, and use none of the rest.
findings() {
    if grep -q be_the_child "$1" && head -n 8 "$1" | grep -q libhdf5; then return; fi
    if [ "$tool" = valgrind ]; then
        sed 's/^==[0-9]*== *//' "$1" | awk -v RS= -v ORS='\n\n' '!/(at|by) 0x/ || /(at|by) 0x[0-9A-F]+: [^?]/'
    else
        cat "$1"
    fi
}

failed=0
"${run[@]}" ctest --test-dir "$build" --output-on-failure -j "${KS_JOBS:-$(nproc)}" --timeout 3600 ${tests:+-R "$tests"} || failed=1
while IFS= read -r -d '' report; do
    found=$(findings "$report")
    [ -n "$found" ] || continue
    echo "== $report"
    head -n 60 <<<"$found"
    failed=1
done < <(find "$build/reports" -maxdepth 1 -type f -size +0 -print0)
[ $failed = 0 ] && echo "$tool: no findings"
exit $failed
