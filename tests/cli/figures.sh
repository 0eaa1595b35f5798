#!/usr/bin/env bash
# kosweep-stats figures on a sweep of every kind over the model in the box: names, well-formed files, the same bytes twice, bad input.
set -uo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export LSAN_OPTIONS=suppressions=$KS_ROOT/tests/sanitize/lsan.supp:print_suppressions=0
failed=0

fail() {
    echo "FAILED: $*"
    failed=1
}

# expect CODE WORDS COMMAND...: the exit code, and words in what is printed.
expect() {
    local code=$1 words=$2 found
    shift 2
    found=$("$@" 2>&1 </dev/null)
    local rc=$?
    if [ $rc != "$code" ] || ! grep -qF -- "$words" <<<"$found"; then fail "$* -> $rc (expected $code and \"$words\"): $found"; fi
}

cat >sweep.json <<JSON
{"models": [{"name": "box", "path": "$KS_ROOT/models/box"}, {"name": "twin", "path": "$KS_ROOT/models/box"}],
 "corpus": "$KS_ROOT/corpus/attention_samples_universal.json", "samples": ["py_simple_add", "rust_simple_add"],
 "groups": ["python_doctest", "rust_test"],
 "sweeps": [{"name": "layers", "windows": "each-layer", "positions": "all"}, {"name": "triangle", "windows": "all"},
            {"name": "slide2", "windows": {"slide": 2}}, {"name": "around", "windows": {"center": 2, "max_radius": 2}},
            {"name": "lists", "windows": [[0, 4], [1, 3]]}, {"name": "heads", "windows": "each-layer", "heads": "each"},
            {"name": "dose", "windows": [[2, 2], [3, 4]], "kind": "scale", "values": [0, 0.5, 1, 2]}], "output": "$work/r.h5"}
JSON
"$KOSWEEP" run sweep.json --quiet >run.txt 2>&1 || { cat run.txt; exit 1; }

s=$KOSWEEP_STATS
"$s" figures r.h5 --model box --format both >list.txt || fail "figures"
expected="attention-effect_layers dose-response_dose_2 dose-response_dose_3-4 expanding-windows_around heads_heads layer-scan_layers
positions_layers_python_doctest positions_layers_rust_test samples_around samples_layers samples_lists samples_slide2 samples_triangle
sliding-windows_slide2 window-triangle_triangle windows_lists"
for name in $expected; do printf '%s.png\n%s.svg\n' "$name" "$name"; done | LC_ALL=C sort >expected.txt
LC_ALL=C ls r-figures | LC_ALL=C sort | diff expected.txt - || fail "other files than expected"
[ "$(wc -l <list.txt)" = "$(wc -l <expected.txt)" ] || fail "not one line per file"
grep -q '^r-figures/layer-scan_layers.svg: Layer scan: box, sweep layers\. .*nats.*fewer than two values' list.txt || fail "caption"

/usr/bin/python3 - <<'PY' || fail "files"
import pathlib, re, struct, sys
import xml.etree.ElementTree as tree

svg = "{http://www.w3.org/2000/svg}"
for path in sorted(pathlib.Path("r-figures").iterdir()):
    data = path.read_bytes()
    if path.suffix == ".png":
        assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR", path
        width, height = struct.unpack(">II", data[16:24])
        assert width == 1300 and 500 < height < 4000, (path, width, height)
        continue
    root = tree.fromstring(data)
    assert root.tag == svg + "svg" and root.get("role") == "img", path
    assert root.find(svg + "title").text and "nats" in root.find(svg + "desc").text, path
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids)) and all(i.startswith(path.stem + "-") for i in ids), path
    used = set(re.findall(r'href="#([^"]+)"', data.decode()) + re.findall(r"url\(#([^)]+)\)", data.decode()))
    assert used and used <= set(ids), path
    assert not re.search(r"\bnan\b|\binf\b", data.decode()), path
PY

# The same bytes again, also one figure alone; nothing is replaced without being told so.
"$s" figures r.h5 --model box --format both --output again >/dev/null || fail "again"
diff -r r-figures again || fail "other bytes the second time"
"$s" figures r.h5 --model box --only layer-scan,heads --output few >/dev/null || fail "only"
[ "$(echo few/*)" = "few/heads_heads.svg few/layer-scan_layers.svg" ] || fail "--only made $(echo few/*)"
diff few/heads_heads.svg r-figures/heads_heads.svg || fail "a figure alone has other bytes"
expect 2 "is there already; --force" "$s" figures r.h5 --model box --only heads --output few
expect 0 "few/heads_heads.svg: Heads" "$s" figures r.h5 --model box --only heads --output few --force
expect 0 "models_triangle.svg: Models: sweep triangle" "$s" figures r.h5 --only models --output models
[ -f models/models_layers.svg ] || fail "no comparison of models"
expect 0 "layer-scan_twin_layers.png" "$s" figures r.h5 --sweep layers --format png --output two

expect 2 'did you mean "heads"' "$s" figures r.h5 --only head
expect 2 "names no figure" "$s" figures r.h5 --only ""
expect 2 "svg, png or both" "$s" figures r.h5 --format pdf
expect 2 "no figure fits" "$s" figures r.h5 --sweep layers --only dose-response
expect 2 "there is" "$s" figures r.h5 --sweep nothing
expect 2 "has no group" "$s" figures r.h5 --groups nobody
expect 2 "options of figures" "$s" tables r.h5 --force
expect 3 "none.h5" "$s" figures none.h5
expect 4 "cannot be made" "$s" figures r.h5 --output no/such/folder
expect 2 "expected a folder, found a file" "$s" figures r.h5 --output list.txt
head -c 3000 r.h5 >cut.h5
expect 3 "cut.h5" "$s" figures cut.h5
[ -e cut-figures ] && fail "a folder for a damaged file"
exit $failed
