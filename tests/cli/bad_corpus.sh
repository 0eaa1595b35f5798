#!/usr/bin/env bash
# Damaged corpora: one message that names file, sample and what is wrong, status 3, and nothing is written.
set -uo pipefail
. "$KS_ROOT/tests/tools/refusal.sh"
broken=$work/broken.json

run() { # STATUS PATTERN [options]
    local status=$1 pattern=$2
    shift 2
    refused "$status" "$pattern" "$KOSWEEP" run --model "$model" --corpus "$broken" --output "$out/new.h5" --quiet "$@"
}
# sample PATTERN JSON-MEMBERS: a corpus whose second sample differs from a good one by these members; null takes one out.
sample() {
    /usr/bin/python3 - "$broken" "$2" <<'PY'
import json, sys
good = {"id": "one", "code": "def f():\n>>> f()\n", "marker_char_pos": 9, "marker_pattern": ">>>", "target_char_positions": [0, 4]}
other = {**good, "id": "two", **json.loads(sys.argv[2])}
other = {k: v for k, v in other.items() if v is not None}
json.dump({"_format_version": "2.0", "python_doctest": [good, other]}, open(sys.argv[1], "w"))
PY
    run 3 "broken.json: .*$1"
}

for text in '' '{' '[]' 'null' '"text"' '{"python_doctest": ' '{"python_doctest": 3}' '{"python_doctest": [3]}' '{"python_doctest": [{}]}' \
    '{"python_doctest": []} x' $'{"python_doctest": [{"id": "\xff"}]}' $'\x00\x01\x02'; do
    printf '%s' "$text" >"$broken"
    run 3 'broken.json'
done
printf '{"python_doctest": [{"id": "\x00"}]}' >"$broken"
run 3 'broken.json'
printf '\xff\xfe{\0}\0' >"$broken"
run 3 'broken.json'
head -c -40 "$corpus" >"$broken"
run 3 'broken.json: not valid JSON.*truncated'

sample 'two.*marker.*>>>' '{"marker_char_pos": 8}'
sample 'two.*marker' '{"marker_char_pos": 16}'
sample 'two.*marker' '{"marker_char_pos": 1000000}'
sample 'two.*marker' '{"marker_char_pos": -1}'
sample 'two.*marker' '{"marker_char_pos": 1.5}'
sample 'two.*marker' '{"marker_char_pos": 1e300}'
sample 'two.*marker' '{"marker_char_pos": "9"}'
sample 'two.*marker_char_pos' '{"marker_char_pos": null}'
sample 'two.*marker_pattern' '{"marker_pattern": null}'
sample 'two.*marker_pattern' '{"marker_pattern": ""}'
sample 'two.*(1000|target)' '{"target_char_positions": [0, 1000]}'
sample 'two.*target' '{"target_char_positions": [-1]}'
sample 'two.*target' '{"target_char_positions": ["0"]}'
sample 'two.*target' '{"target_char_positions": 0}'
sample 'two.*target' '{"target_char_positions": null}'
sample 'two.*code' '{"code": null}'
sample 'two.*code' '{"code": 7}'
sample 'two.*code' '{"code": "", "marker_char_pos": 0}'
sample 'one.*(twice|again|already)' '{"id": "one"}'
sample 'id' '{"id": null}'
sample 'id' '{"id": 5}'
sample 'id' '{"id": ""}'
sample 'two.*marker_char_po.*marker_char_pos' '{"marker_char_po": 9}'
sample 'two.*(640|vocabulary)' '{"code": null, "marker_char_pos": null, "marker_pattern": null, "target_char_positions": null,
                                 "token_ids": [5, 640, 2], "marker_tokens": [2], "target_tokens": [0]}'
sample 'two.*-1' '{"code": null, "marker_char_pos": null, "marker_pattern": null, "target_char_positions": null,
                   "token_ids": [5, -1, 2], "marker_tokens": [2], "target_tokens": [0]}'
sample 'two.*marker_tokens' '{"code": null, "marker_char_pos": null, "marker_pattern": null, "target_char_positions": null,
                              "token_ids": [5, 1, 2], "marker_tokens": [3], "target_tokens": [0]}'
sample 'two.*token_ids' '{"code": null, "marker_char_pos": null, "marker_pattern": null, "target_char_positions": null,
                          "token_ids": [], "marker_tokens": [], "target_tokens": []}'
sample 'two.*token_ids' '{"token_ids": [5, 1, 2], "marker_tokens": [2], "target_tokens": [0]}'

# ---- what is no file ----
refused 3 "$out: " "$KOSWEEP" run --model "$model" --corpus "$out" --output "$out/new.h5"
refused 3 '/dev/null: ' "$KOSWEEP" run --model "$model" --corpus /dev/null --output "$out/new.h5"
refused 3 'nowhere.json: ' "$KOSWEEP" run --model "$model" --corpus "$work/nowhere.json" --output "$out/new.h5"

# ---- nothing chosen ----
cp "$corpus" "$broken"
run 2 'no_such_group' --groups no_such_group
run 2 'no_such_sample' --samples no_such_sample
echo '{"python_doctest": [], "rust_test": []}' >"$broken"
run 3 'broken.json: group "python_doctest" is empty'
echo '{"_format_version": "2.0"}' >"$broken"
run 3 'broken.json'
all_refused
