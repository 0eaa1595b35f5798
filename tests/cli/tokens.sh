#!/usr/bin/env bash
# kosweep tokens: the pretty view, JSON lines, texts through a pipe, and its errors with their exit codes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$KS_ROOT"
box=models/box
corpus=corpus/attention_samples_universal.json

fail()
{
    echo "$*" >&2
    exit 1
}

# Expects an exit code and a message on stderr: refuse CODE MESSAGE arguments...
refuse()
{
    local code=$1 message=$2 found=0
    shift 2
    "$KOSWEEP" tokens "$@" > "$folder/out" 2> "$folder/err" || found=$?
    [ "$found" = "$code" ] || fail "tokens $*: exit code $found, expected $code: $(cat "$folder/err")"
    grep -qF -- "$message" "$folder/err" || fail "tokens $*: expected \"$message\", found: $(cat "$folder/err")"
}

"$KOSWEEP" tokens --model $box --corpus $corpus --samples py_simple_add --scan-layers > "$folder/pretty"
head -4 "$folder/pretty" | diff - <(cat << 'X'
box  python_doctest/py_simple_add  62 tokens
     0  [def][ add][(a],·[ b]):↵
     6     · """·Return· the· sum· of· two· numbers·.↵↵
    15     · The· arguments· may· be· of· any· type· that· support·s· add·ition·.↵↵
X
)
grep -q '{ >>>} add·(·2·,· ·3·)↵' "$folder/pretty"
grep -qx '        marker-targets: queries 30 -> keys 0-2 4: 4 edges (layers)' "$folder/pretty"

"$KOSWEEP" tokens --model $box --corpus $corpus --samples py_simple_add --json > "$folder/json"
python3 - "$folder/json" $corpus <<'X'
import json, sys
(line,) = [json.loads(l) for l in open(sys.argv[1])]
sample = json.load(open(sys.argv[2]))["python_doctest"][0]
assert list(line) == ["model", "id", "ids", "ranges", "marker", "targets"], list(line)
assert line["model"] == "box" and line["id"] == "py_simple_add"
assert len(line["ids"]) == len(line["ranges"]) == 62
text = "".join(sample["code"][a:b] for a, b in line["ranges"])
assert text == sample["code"], text
(m,) = line["marker"]
a, b = line["ranges"][m]
assert a <= sample["marker_char_pos"] < b
held = {next(t for t, (a, b) in enumerate(line["ranges"]) if a <= p < b) for p in sample["target_char_positions"]}
assert sorted(held) == line["targets"], line["targets"]
X

[ "$("$KOSWEEP" tokens config/demo.json --json | wc -l)" = 40 ] || fail "the demo has 40 samples"
[ "$("$KOSWEEP" tokens config/demo.json --json --include-baselines | wc -l)" = 50 ] || fail "with baselines 50"

printf '"a b"\n"x\\u0000y"\n"\\ud83e\\udd99"\n' | "$KOSWEEP" tokens --model $box --texts - > "$folder/texts"
diff "$folder/texts" - <<'X'
{"ids": [65, 304], "ranges": [[0, 1], [1, 3]]}
{"ids": [88, 189, 89], "ranges": [[0, 1], [1, 2], [2, 3]]}
{"ids": [173, 254, 100, 248], "ranges": [[0, 1], [0, 1], [0, 1], [0, 1]]}
X
for line in '' '7' '"a' '"a"b"' '"\q"' '"\u12"' '"\ud800"' '"\udc00"' '"\ud83e\u0041"' $'"a\tb"'; do
    printf '"good"\n%s\n' "$line" > "$folder/bad.jsonl"
    refuse 3 "bad.jsonl: line 2 is not a JSON string" --model $box --texts "$folder/bad.jsonl"
done
printf '"\xff"\n' > "$folder/utf8.jsonl"
refuse 3 "utf8.jsonl: line 1" --model $box --texts "$folder/utf8.jsonl"

# Token ids need no tokenizer; a vanished marker, an unknown id and a missing file are named.
echo '{"raw": [{"id": "r", "token_ids": [5, 9, 2], "marker_tokens": [2], "target_tokens": [0, 1]}]}' > "$folder/raw.json"
mkdir "$folder/empty"
"$KOSWEEP" tokens --model "$folder/empty" --corpus "$folder/raw.json" > "$folder/out"
grep -q 'raw/r  3 tokens' "$folder/out"
grep -q '\[<5>\]\[<9>\]{<2>}' "$folder/out"
refuse 3 "tokenizer.json" --model "$folder/empty" --corpus $corpus
refuse 2 'did you mean "py_simple_add"' --model $box --corpus $corpus --samples py_simple_ad
refuse 2 "no corpus" --model $box
refuse 2 "no model" --corpus $corpus
refuse 3 "nowhere.json: cannot be opened" --model $box --corpus nowhere.json
refuse 2 "--resume keeps" --model $box --corpus $corpus --force --resume
sed '0,/"marker_char_pos": [0-9]*/s//"marker_char_pos": 3/' $corpus > "$folder/moved.json"
refuse 3 'sample "py_simple_add": the marker ">>>" is not at character 3: there stands " add(a, b):"' --model $box --corpus "$folder/moved.json"
"$KOSWEEP" tokens --help > "$folder/help"
grep -q -- '--texts FILE' "$folder/help"
