# What a refusal looks like, for the tests of bad input (sourced). Sets $work, an empty folder that goes when the test ends, and $out, a
# folder for results that must stay as it is.
# shellcheck shell=bash
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
out=$work/out
mkdir "$out"
echo "somebody's results" >"$out/kept.h5"
# shellcheck disable=SC2034 # read by the tests
model=$KS_ROOT/tests/goldens/models/a_qwen2
# shellcheck disable=SC2034
corpus=$KS_ROOT/tests/goldens/corpus/a_qwen2.json
failures=0

complain() {
    echo "FAILED: $*"
    sed 's/^/    /' "$work/stderr"
    failures=$((failures + 1))
}

# refused STATUS PATTERN COMMAND...: the command ends with STATUS and one error line on stderr that matches PATTERN (extended regular
# expression); nothing on stdout; no file is new, none is changed.
refused() {
    local status=$1 pattern=$2 found=0 errors
    shift 2
    "$@" >"$work/stdout" 2>"$work/stderr" </dev/null || found=$?
    [ "$found" = "$status" ] || complain "status $found instead of $status: $*"
    errors=$(grep -c 'error: ' "$work/stderr")
    [ "$errors" = 1 ] || complain "$errors error lines: $*"
    grep 'error: ' "$work/stderr" | grep -Eq -e "$pattern" || complain "no /$pattern/: $*"
    [ ! -s "$work/stdout" ] || complain "something on stdout: $*"
    if [ "$(ls "$out")" != kept.h5 ] || [ "$(cat "$out/kept.h5")" != "somebody's results" ]; then
        complain "left behind: $(ls "$out"): $*"
        rm -rf "${out:?}"/*
        echo "somebody's results" >"$out/kept.h5"
    fi
}

# The test's last line.
all_refused() {
    [ "$failures" = 0 ] || {
        echo "$failures failures"
        exit 1
    }
}
