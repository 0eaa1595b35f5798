#!/usr/bin/env bash
# kosweep-stats report: what it says of files whose truth is known, the page's form, safety and accessibility, and what a browser makes of it.
set -uo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
s=$KOSWEEP_STATS
here=$KS_ROOT/tests/cli

fail() {
    echo "FAILED: $*"
    failed=1
}
# refused CODE WORDS COMMAND...: the exit code, and words in what is printed.
refused() {
    local code=$1 words=$2 found rc
    shift 2
    found=$("$@" 2>&1 </dev/null)
    rc=$?
    if [ $rc != "$code" ] || ! grep -qF -- "$words" <<<"$found"; then fail "$* -> $rc (expected $code and \"$words\"): $found"; fi
}
# says NAME WORDS...: makes the report of $work/NAME.h5 and checks it.
says() {
    local name=$1
    shift
    "$s" report "$work/$name.h5" --force >"$work/said" || fail "report $name"
    python3 "$here/check_report.py" "$work/$name.html" "$@" || failed=1
}

# A sweep on the model in the box: every kind of sweep.
corpus=$KS_ROOT/corpus/attention_samples_universal.json
cat >"$work/box.json" <<END
{"models": [{"path": "$KS_ROOT/models/box"}], "corpus": "$corpus", "groups": ["python_prompt", "rust_prompt"],
 "samples": ["py_prompt_multiply", "py_prompt_reverse", "py_prompt_factorial", "rust_prompt_multiply", "rust_prompt_gcd", "rust_prompt_factorial"],
 "sweeps": [{"name": "layers", "windows": "each-layer", "positions": "all"},
            {"name": "all", "windows": "each-layer", "edges": "all-marker"},
            {"name": "triangle", "windows": "all"},
            {"name": "heads", "windows": [[3, 3], [4, 4]], "heads": "each"},
            {"name": "dose", "windows": [[4, 4]], "kind": "scale", "values": [0, 0.5, 1, 2]}]}
END
"$KOSWEEP" run "$work/box.json" --output "$work/box.h5" >/dev/null 2>"$work/log" || fail "run: $(cat "$work/log")"
says box "+What was found" "+py_prompt_factorial (python_prompt)" "+chosen as the largest of 21 windows" \
    "+Windows against the sum of their single layers' effects: of 15," "+All edges to the marker (sweep all)" "+by scale value" "+Spearman's rho" "+scale 0, 0.5, 1, 2" "+Groups are compared in 5 sweeps" "-Unfinished"
[ "$(grep -c '<svg' "$work/box.html")" -ge 6 ] || fail "fewer than 6 figures of the box model"
grep -q '<mark class="marker"[^>]*> &gt;&gt;&gt;</mark>' "$work/box.html" || fail "the marker is not highlighted"
cp "$work/box.html" "$work/first.html"
refused 2 "exists; --force overwrites" "$s" report "$work/box.h5"
refused 2 "is a result file" "$s" report "$work/box.h5" --output "$work/box.h5" --force
refused 2 "is a folder" "$s" report "$work/box.h5" --output "$work" --force
refused 2 "there is layers" "$s" report "$work/box.h5" --sweep nope --force
refused 2 "--only" "$s" report "$work/box.h5" --only scan --force
refused 2 "--format" "$s" report "$work/box.h5" --format md --force
refused 4 "cannot be written" "$s" report "$work/box.h5" --output "$work/nowhere/x.html"
refused 3 "cannot be opened" "$s" report "$work/none.h5" --force
cmp -s "$work/first.html" "$work/box.html" || fail "a refusal changed the page"
"$s" report "$work/box.h5" --output "$work/again.html" >/dev/null || fail "report --output"
cmp "$work/first.html" "$work/again.html" || fail "the same file gives other bytes"
"$s" report "$work/box.h5" --sweep layers --window 4 --groups rust_prompt,python_prompt --output "$work/one.html" >/dev/null || fail "report --window"
python3 "$here/check_report.py" "$work/one.html" "+The effect was measured at layer 4. rust_prompt" "-chosen as the largest" || failed=1

# Files whose truth is known.
if /usr/bin/python3 -c 'import h5py, numpy' 2>/dev/null; then
    for kind in effect null zeros unfinished one hostile ids few buried triangle; do
        /usr/bin/python3 "$here/report_files.py" $kind "$work/$kind.h5" || fail "report_files.py $kind"
    done
    differ="+a_test and b_test differ in 1 of 6 layers: layer 2 (permutation test of Welch's t, max-T correction"
    says effect "$differ" "+b_test: the mean effect is above the floor in 6 of 6 layers, and shown to be below it in 0" "+a_test has the larger mean" "-No difference" "+these same samples"
    says null "+No difference between a_test and b_test is shown in any of 6 layers" "+That is no evidence that the groups are equal" \
        "+A new study would need" "- differ in "
    says zeros "+Nothing changed: KL is exactly 0 in all 120 values" "- differ in " "-larger" "-above the floor in"
    says unfinished "+Unfinished: 60 of 120 values (50 %) are not computed yet" "+does not say that its run ended" "-12345" "-1.23e+04"
    says one "+There is one group (a_test)" "- differ in " "-No difference between"
    says ids "+given as ids" "+60 61 62"
    says few "+this test could not have shown a difference" "+fewer than 5 samples" "- differ in "
    says buried "+Even the largest mean effect lies under the floor" "+a_test: the mean effect is not shown to be above the floor in any of 6 layers, and shown to be below it in 6" \
        "+b_test's mean is at or under its floor of 10 nats" "-the mean effect is above the floor"
    says triangle "+chosen as the largest of 465 windows"
    says hostile "+differ in 1 of 6 layers" "+[U+202E]evil[U+2028]" "+<script>alert(1)</script>"
    grep -q 'sample0' "$work/null.html" || fail "the samples are missing"
    /usr/bin/python3 "$here/foreign_results.py" "$work/foreign.h5" || fail "foreign_results.py"
    says foreign "+it lacks what kosweep writes about its runs" "+The floor was not measured" "+could not have shown"
    head -c 5000 "$work/null.h5" >"$work/cut.h5"
    refused 3 "cut.h5" "$s" report "$work/cut.h5"
    [ ! -e "$work/cut.html" ] || fail "a damaged file left a page"
    # Two files in one page.
    "$s" report "$work/effect.h5" "$work/box.h5" --output "$work/two.html" >/dev/null || fail "report of two files"
    python3 "$here/check_report.py" "$work/two.html" "$differ" "+Windows against the sum" "+made of effect.h5, sweep layers" || failed=1
else
    echo "python3-h5py is not there: files of known truth were not tested"
fi

# HTML by a checker of its own: SVG's lengths ("468pt") are no error.
if command -v tidy >/dev/null; then
    for page in "$work"/*.html; do
        found=$(tidy -quiet -errors "$page" 2>&1 | grep -v '<svg> attribute "\(width\|height\)"')
        [ -z "$found" ] || fail "tidy $page: $found"
    done
else
    echo "tidy is not there: its opinion was not asked"
fi

# In a browser: the script runs under the page's own policy, heads become buttons; no text of a file acts; a phone does not scroll sideways.
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
open_page() {
    timeout 120 "$browser" --headless --no-sandbox --disable-gpu --virtual-time-budget=5000 --user-data-dir="$work/profile" --window-size="$1",900 --dump-dom "file://$2" 2>/dev/null
}
if [ -n "$browser" ] && open_page 800 "$work/box.html" >"$work/dom" && grep -q '</html>' "$work/dom"; then
    grep -q '<th scope="col"[^>]*><button type="button">' "$work/dom" || fail "heads did not become buttons"
    for page in box hostile triangle; do
        [ -e "$work/$page.html" ] || continue
        cat >"$work/frame.html" <<END
<!DOCTYPE html>
<title>-</title>
<script>addEventListener("message", function (e) { document.title = "wide " + e.data; });</script>
<iframe style="width: 400px; height: 900px; border: 0" src="framed.html"></iframe>
END
        sed -e 's/<meta http-equiv="Content-Security-Policy"[^>]*>//' \
            -e 's|^</body>|<script>parent.postMessage(document.documentElement.scrollWidth, "*");</script></body>|' \
            "$work/$page.html" >"$work/framed.html"
        wide=$(open_page 800 "$work/frame.html" | sed -n 's/.*<title>wide \([0-9]*\).*/\1/p' | head -1)
        [ "${wide:-9999}" -le 400 ] || fail "$page is ${wide:-?} wide on a screen of 400"
    done
else
    echo "no browser that runs: the page was not opened"
fi
exit $failed
