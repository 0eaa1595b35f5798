#!/usr/bin/env bash
# kosweep model: what it prints, what it refuses, and with which status.
set -euo pipefail
models="$KS_ROOT/tests/goldens/models"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset HF_HOME XDG_CACHE_HOME
export HF_HUB_CACHE="$folder/cache"

fail() {
    echo "model.sh: $*" >&2
    cat "$folder/out" "$folder/err" >&2
    exit 1
}

# expect STATUS PATTERN ARGUMENTS...: `kosweep model ARGUMENTS` ends with STATUS; its output (its stderr where STATUS is not 0) has PATTERN.
expect() {
    local status=$1 pattern=$2 found=0 where=out
    shift 2
    "$KOSWEEP" model "$@" > "$folder/out" 2> "$folder/err" || found=$?
    [ "$found" = "$status" ] || fail "$*: status $found, expected $status"
    [ "$status" = 0 ] || where=err
    grep -qE -e "$pattern" "$folder/$where" || fail "$*: no \"$pattern\""
    if [ "$status" != 0 ] && [ -s "$folder/out" ]; then fail "$*: an error wrote on stdout"; fi
}

expect 0 'usage: kosweep model DIR' --help
expect 0 'kosweep model Qwen/' --help
expect 0 '^weights +bf16, 470256 parameters' "$models/a_qwen2"
expect 0 '^vocabulary +576, tied head' "$models/b_qwen2_tied"
expect 0 '^attention +sliding window 24 in every layer' "$models/c_starcoder2"
expect 0 '^norm +rms, eps 1e-06, 1 \+ weight' "$models/d_gemma"
expect 0 'model-00003-of-00003.safetensors' "$models/e_llama"
expect 0 '^rope +llama3, theta 500000, factor 8' "$models/f_llama3"
expect 0 '^rope +longrope' "$models/h_phi3_longrope"
expect 0 '^values +all finite' --check "$models/i_mistral"

expect 2 'DIR or ID is expected'
expect 2 'unknown option --jsno; did you mean --json' --jsno "$models/a_qwen2"
expect 2 'one DIR or ID' "$models/a_qwen2" "$models/b_qwen2_tied"
expect 2 'revision' "$models/a_qwen2" --revision main
expect 3 'there is no directory' ../nowhere/at/all
expect 3 'not in the hub cache' org/tiny
expect 3 'config.json: cannot be opened' "$models"

# The JSON form, by a reader that is not ours.
for model in "$models"/*; do
    "$KOSWEEP" model "$model" --json --check > "$folder/model.json"
    python3 - "$folder/model.json" "$model" <<'END'
import glob, hashlib, json, os, sys
found, folder = json.load(open(sys.argv[1])), sys.argv[2]
config = json.load(open(folder + "/config.json"))
files = sorted(glob.glob(folder + "/*.safetensors"))
digest = hashlib.sha256()
parameters = 0
for f in files:
    data = open(f, "rb").read()
    digest.update(data)
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    for name, t in header.items():
        if name == "__metadata__":
            continue
        n = 1
        for size in t["shape"]:
            n *= size
        parameters += n
assert found["weights_sha256"] == digest.hexdigest()
assert found["parameters"] == parameters, (found["parameters"], parameters)
assert found["memory_bytes"]["fp32"] == 4 * parameters
assert found["memory_bytes"]["as_stored"] == sum(map(os.path.getsize, files))
assert found["architecture"] == config["architectures"][0]
assert found["n_layers"] == config["num_hidden_layers"] == len(found["sliding_window"])
assert found["vocab"] == config["vocab_size"] and found["finite"] is True and found["tokenizer"] is True and found["warnings"] == []
assert [f["name"] for f in found["files"]] == [os.path.basename(f) for f in files]
END
done

# An id in a hub cache; a damaged copy is refused and named.
snapshot="$folder/cache/models--org--tiny/snapshots/0123456789abcdef0123456789abcdef01234567"
mkdir -p "$snapshot" "$folder/cache/models--org--tiny/refs"
printf 0123456789abcdef0123456789abcdef01234567 > "$folder/cache/models--org--tiny/refs/main"
cp "$models/b_qwen2_tied/config.json" "$models/b_qwen2_tied/model.safetensors" "$snapshot"
expect 0 '^tokenizer +none' org/tiny
expect 3 'revision "v2" is not in the hub cache' org/tiny --revision v2
head -c 300000 "$models/b_qwen2_tied/model.safetensors" > "$snapshot/model.safetensors"
expect 3 'model.safetensors: tensor "model\..*truncated' org/tiny
cp "$models/b_qwen2_tied/model.safetensors" "$snapshot"
sed 's/"hidden_act": "silu"/"hidden_act": "relu"/' "$models/b_qwen2_tied/config.json" > "$snapshot/config.json"
expect 3 'config.json: hidden_act "relu" is not supported' org/tiny
sed 's/"model_type": "qwen2"/"model_type": "rwkv7"/' "$models/b_qwen2_tied/config.json" > "$snapshot/config.json"
expect 3 'rwkv7.*not attention' org/tiny
