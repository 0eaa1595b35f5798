#!/usr/bin/env bash
# The corpus is what it says, and the check that says so can fail.
set -euo pipefail
check="$KS_ROOT/tests/check_corpus.py"
python3 "$check"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
sed 's/return a + b/return a - b/' "$KS_ROOT/corpus/attention_samples_universal.json" > "$folder/wrong.json"
if PATH=/usr/bin:/bin python3 "$check" "$folder/wrong.json" > "$folder/out" 2>&1; then
    echo "a wrong corpus passed" >&2
    exit 1
fi
grep -q "py_simple_add: .*failed" "$folder/out"
