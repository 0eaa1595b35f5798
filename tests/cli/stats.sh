#!/usr/bin/env bash
# kosweep-stats as its users meet it: help, exit codes, messages, files that other programs wrote.
set -uo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# expect CODE WORDS COMMAND...: the exit code, and words in what is printed.
expect() {
    local code=$1 words=$2 found
    shift 2
    found=$("$@" 2>&1 </dev/null)
    local rc=$?
    if [ $rc != "$code" ] || ! grep -qF -- "$words" <<<"$found"; then
        echo "FAILED: $* -> $rc (expected $code and \"$words\"): $found"
        failed=1
    fi
}

s=$KOSWEEP_STATS
expect 0 "Examples" "$s" --help
expect 0 "Examples" "$s" tables --help
for kind in scan groups tests corrected choice cells power synergy attention pairs models; do expect 0 "  $kind " "$s" --help; done
expect 0 "kosweep-stats " "$s" --version
expect 2 "a command is missing" "$s"
expect 2 'did you mean "tables"' "$s" table x.h5
expect 2 'did you mean "--window"' "$s" tables x.h5 --windw 3
expect 2 "a result file is missing" "$s" tables
expect 2 "needs a value" "$s" tables x.h5 --model
expect 2 "--window" "$s" tables x.h5 --window 3-1
expect 2 "--window" "$s" tables x.h5 --window=-1
expect 2 "--format" "$s" tables x.h5 --format html
expect 3 "cannot be opened" "$s" tables "$work/none.h5"
echo '{"a": 1}' >"$work/foreign.h5"
expect 3 "not an HDF5 file" "$s" tables "$work/foreign.h5"
expect 3 "$work" "$s" json "$work"

# A file of the published schema that h5py wrote: the reader needs names and shapes only.
if /usr/bin/python3 -c 'import h5py, numpy' 2>/dev/null; then
    /usr/bin/python3 "$KS_ROOT/tests/cli/foreign_results.py" "$work/foreign.h5" || failed=1
    expect 0 "Layer scan: by-hand, sweep layers" "$s" tables "$work/foreign.h5"
    expect 0 "protocol: knockout of marker-targets, marker span, special tokens none; precision x; unit: nats" "$s" tables "$work/foreign.h5"
    expect 0 "2.5000e-03" "$s" tables "$work/foreign.h5" --window 1
    expect 0 '"kl_divergence": 0.001' "$s" json "$work/foreign.h5" --window 0
    expect 0 "by-hand,layers,knockout" "$s" csv "$work/foreign.h5"
    expect 0 '\toprule' "$s" tables "$work/foreign.h5" --format latex
    expect 0 "Samples that a new study would need" "$s" tables "$work/foreign.h5" --only power --draws 100 --seed 7
    expect 2 'did you mean "power"' "$s" tables "$work/foreign.h5" --only powr
    expect 2 "--draws: expected a whole number" "$s" tables "$work/foreign.h5" --draws 1
    expect 0 "The same samples in two models" "$s" compare "$work/foreign.h5" "$work/foreign.h5" --only pairs
    expect 0 '\begin{tabular}' "$s" tables "$work/foreign.h5" --format latex
    expect 2 "there is layers" "$s" tables "$work/foreign.h5" --sweep heads
    "$s" json "$work/foreign.h5" | /usr/bin/python3 -c 'import json, sys; assert len(json.load(sys.stdin)["experiments"]) == 2' || failed=1
    "$s" tables "$work/foreign.h5" --format json | /usr/bin/python3 -c 'import json, sys; [json.loads(l)["rows"] for l in sys.stdin]' || failed=1
    expect 0 "Models: each sweep's window of largest effect" "$s" compare "$work/foreign.h5"
    expect 2 "there is layers" "$s" compare "$work/foreign.h5" --sweep heads
    diff <("$s" compare "$work/foreign.h5" "$work/foreign.h5") <("$s" tables "$work/foreign.h5" "$work/foreign.h5" | sed -n '/^Models:/,$p') || failed=1
    expect 4 "cannot be written" sh -c '"$0" csv "$1" >/dev/full' "$s" "$work/foreign.h5"
    for bytes in 50 500 5000; do
        head -c $bytes "$work/foreign.h5" >"$work/cut.h5"
        expect 3 "cut.h5" "$s" tables "$work/cut.h5"
    done
else
    echo "python3-h5py is not there: files by h5py were not tested"
fi
exit $failed
