#!/usr/bin/env bash
# Damaged and unsupported model directories: one message that names file and tensor or key, status 3, and nothing is written.
set -uo pipefail
. "$KS_ROOT/tests/tools/refusal.sh"
dir=$work/broken

# fresh [MODEL]: $dir is a good copy of a golden model.
fresh() {
    rm -rf "$dir"
    cp -r "$KS_ROOT/tests/goldens/models/${1:-a_qwen2}" "$dir"
}
run() { # STATUS PATTERN [options]
    local status=$1 pattern=$2
    shift 2
    refused "$status" "$pattern" "$KOSWEEP" run --model "$dir" --corpus "$corpus" --output "$out/new.h5" --quiet "$@"
}
# edit KEY VALUE: sets a key of config.json (VALUE is JSON).
edit() {
    /usr/bin/python3 - "$dir/config.json" "$1" "$2" <<'PY'
import json, sys
path, key, value = sys.argv[1:]
config = json.load(open(path))
config[key] = json.loads(value)
json.dump(config, open(path, "w"))
PY
}

# ---- weights ----
bytes=$(stat -c %s "$model/model.safetensors")
for length in 0 1 7 8 9 100 $((bytes / 2)) $((bytes - 1)); do
    fresh
    truncate -s "$length" "$dir/model.safetensors"
    run 3 'broken/model.safetensors'
    refused 3 'broken/model.safetensors' "$KOSWEEP" model "$dir"
done

# header TEXT [LENGTH]: a file with this header, and perhaps a false length in front of it.
header() {
    fresh
    /usr/bin/python3 - "$dir/model.safetensors" "$1" "${2:-}" <<'PY'
import struct, sys
path, text, length = sys.argv[1:]
text = text.encode()
open(path, "wb").write(struct.pack("<Q", int(length or len(text))) + text + bytes(64))
PY
    run 3 'broken/model.safetensors'
}
header '{}' 18446744073709551615
header '{}' 9223372036854775807
header '{}' 100000000
header ''
header '[]'
header '{'
header 'null'
header '{"a": 1}'
header '{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}'
header '{"a": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}}'
header '{"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}'
header '{"a": {"dtype": "F32", "shape": [4611686018427387904, 4], "data_offsets": [0, 0]}}'
header '{"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}'
header '{"a": {"dtype": "F32", "shape": [1e300], "data_offsets": [0, 16]}}'
header '{"a": {"dtype": "F33", "shape": [4], "data_offsets": [0, 16]}}'
header "$(printf '[%.0s' {1..5000})"

fresh
rm "$dir/model.safetensors"
run 3 'broken.*model.safetensors'
fresh
rm "$dir/model.safetensors"
mkdir "$dir/model.safetensors"
run 3 'broken/model.safetensors'
fresh e_llama
rm "$dir/model-00002-of-00003.safetensors"
run 3 'model-00002-of-00003.safetensors' --groups ids
fresh e_llama
echo '{"weight_map": {"model.norm.weight": "../../../etc/passwd"}}' >"$dir/model.safetensors.index.json"
run 3 'model.safetensors.index.json' --groups ids

# poison TENSOR BITS: its last bf16 element becomes BITS.
poison() {
    fresh
    /usr/bin/python3 - "$dir/model.safetensors" "$1" "$2" <<'PY'
import json, struct, sys
path, name, bits = sys.argv[1:]
data = bytearray(open(path, "rb").read())
n = struct.unpack("<Q", data[:8])[0]
end = 8 + n + json.loads(data[8:8 + n])[name]["data_offsets"][1]
data[end - 2:end] = struct.pack("<H", int(bits, 16))
open(path, "wb").write(data)
PY
    run 3 "broken: .*tensor ${1//./\\.} "
}
poison model.layers.3.mlp.down_proj.weight 7fc0
poison model.layers.0.self_attn.q_proj.bias 7f80
poison model.layers.4.self_attn.k_proj.weight ff80
poison model.norm.weight 7fc0
poison lm_head.weight 7fc0

# ---- config.json ----
fresh
edit model_type '"mamba"'
run 3 'broken/config.json: .*mamba'
fresh
edit rope_scaling '{"rope_type": "spiral", "factor": 2}'
run 3 'broken/config.json: .*spiral'
fresh
edit hidden_act '"mystery"'
run 3 'broken/config.json: .*mystery'
fresh
edit hidden_size 97
run 3 'broken/'
fresh
edit hidden_size '"many"'
run 3 'broken/config.json: .*hidden_size'
fresh
edit num_attention_heads 0
run 3 'broken/config.json: .*num_attention_heads'
fresh
edit num_hidden_layers 6
run 3 'model.layers.5'
fresh
edit num_hidden_layers 2000000000
run 3 'broken/'
fresh
edit intermediate_size 2147483647
run 3 'broken/'
fresh
edit vocab_size 641
run 3 'broken/.*(embed_tokens|lm_head)'
for text in '' '{' '[]' 'null' '{"model_type": 3}' $'\xff\xfe'; do
    fresh
    printf '%s' "$text" >"$dir/config.json"
    run 3 'broken/config.json'
done
fresh
rm "$dir/config.json"
run 3 'broken/config.json'

# ---- tokenizer.json ----
for length in 0 1 100 10000 22435; do
    fresh
    truncate -s "$length" "$dir/tokenizer.json"
    run 3 'broken/tokenizer.json'
    refused 3 'broken/tokenizer.json' "$KOSWEEP" tokens --model "$dir" --corpus "$corpus"
done
fresh
rm "$dir/tokenizer.json"
run 3 'broken/tokenizer.json|tokenizer.json.*broken'
fresh
sed -i 's/"BPE"/"WordPiece"/' "$dir/tokenizer.json"
run 3 'broken/tokenizer.json: .*WordPiece'

# ---- no model ----
refused 3 'nowhere/at/all' "$KOSWEEP" run --model nowhere/at/all --corpus "$corpus" --output "$out/new.h5"
HF_HUB_CACHE=$work/hub refused 3 'some/id' "$KOSWEEP" run --model some/id --corpus "$corpus" --output "$out/new.h5"
refused 3 'config.json' "$KOSWEEP" run --model "$out" --corpus "$corpus" --output "$out/new.h5"
all_refused
