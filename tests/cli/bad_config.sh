#!/usr/bin/env bash
# Wrong configurations and options: one message that names key or option, status 2, and nothing is written.
set -uo pipefail
. "$KS_ROOT/tests/tools/refusal.sh"
broken=$work/broken.json

# config PATTERN MEMBERS [STATUS]: a good configuration with these members laid over it (null takes one out).
config() {
    /usr/bin/python3 - "$broken" "$model" "$corpus" "$out/new.h5" "$2" <<'PY'
import json, sys
path, model, corpus, output, members = sys.argv[1:]
good = {"models": [{"name": "one", "path": model}], "corpus": corpus, "sweeps": [{"name": "layers", "windows": "each-layer"}], "output": output}
good.update(json.loads(members))
json.dump({k: v for k, v in good.items() if v is not None}, open(path, "w"))
PY
    refused "${3:-2}" "$1" "$KOSWEEP" run "$broken" --quiet
}
# sweep PATTERN MEMBERS: the same for a sweep.
sweep() {
    config "$1" "$(/usr/bin/python3 -c 'import json, sys
sweep = {"name": "layers", "windows": "each-layer"}
sweep.update(json.loads(sys.argv[1]))
print(json.dumps({"sweeps": [{k: v for k, v in sweep.items() if v is not None}]}))' "$2")"
}
options() { # PATTERN OPTIONS...
    local pattern=$1
    shift
    refused 2 "$pattern" "$KOSWEEP" run --model "$model" --corpus "$corpus" --output "$out/new.h5" --quiet "$@"
}

# ---- the file ----
for text in '' '{' '[]' 'null' '{"models": }'; do
    printf '%s' "$text" >"$broken"
    refused 2 'broken.json' "$KOSWEEP" run "$broken"
done
refused 2 'nowhere.json: ' "$KOSWEEP" run "$work/nowhere.json"
refused 2 "$out: " "$KOSWEEP" run "$out"
config 'broken.json: .*"corpsu".*"corpus"' '{"corpsu": "x"}'
config 'broken.json: .*models' '{"models": 3}'
config 'models' '{"models": []}'
config 'models' '{"models": null}'
config 'models.*path' '{"models": [{"pth": "x"}]}'
config 'models' '{"models": [{"name": "x"}]}'
config 'models' '{"models": ["x"]}'
config 'corpus' '{"corpus": null}'
config 'corpus' '{"corpus": 3}'
config 'groups' '{"groups": "python_doctest"}'
config 'groups' '{"groups": [1]}'
config 'no_such_group' '{"groups": ["no_such_group"]}'
config 'special_tokens.*"tokenizer"' '{"special_tokens": "tokenizers"}'
config 'precision' '{"precision": 16}'
config 'floor' '{"floor": "on"}'
config 'save_logits' '{"save_logits": 1}'
config 'output' '{"output": 1}'
config 'output' '{"output": ""}'
config 'sweeps' '{"sweeps": {}}'
config 'sweeps' '{"sweeps": [3]}'
config 'sweeps' '{"sweeps": []}'
config '"twin"' '{"sweeps": [{"name": "twin", "windows": "each-layer"}, {"name": "twin", "windows": "all"}]}'
config '"one"' "{\"models\": [{\"name\": \"one\", \"path\": \"$model\"}, {\"name\": \"one\", \"path\": \"$model\"}]}"
config 'nowhere' "{\"models\": [{\"path\": \"$work/nowhere\"}]}" 3
sweep '"windos".*"windows"' '{"windos": "all"}'
sweep 'windows.*each-layer' '{"windows": "every-layer"}'
sweep 'windows' '{"windows": 3}'
sweep 'windows' '{"windows": []}'
sweep 'windows' '{"windows": [[1]]}'
sweep 'windows' '{"windows": [[3, 1]]}'
sweep 'windows' '{"windows": [[-1, 1]]}'
sweep 'windows' '{"windows": [[0.5, 1]]}'
sweep '4.*9.*5 layers' '{"windows": [[4, 9]]}'
sweep '5 layers' '{"windows": {"slide": 6}}'
sweep 'slide' '{"windows": {"slide": 0}}'
sweep '5 layers' '{"windows": {"center": 5, "max_radius": 1}}'
sweep 'center' '{"windows": {"max_radius": 1}}'
sweep 'edges.*"all-marker"' '{"edges": "all-markers"}'
sweep 'kind' '{"kind": "cut"}'
sweep 'scale needs at least one value' '{"kind": "scale"}'
sweep 'values' '{"kind": "scale", "values": []}'
sweep 'sweeps.0.: .*-1' '{"kind": "scale", "values": [-1]}'
sweep 'values' '{"kind": "scale", "values": ["x"]}'
sweep 'sweeps.0.: .*1.5' '{"kind": "set", "values": [1.5]}'
sweep 'values' '{"kind": "knockout", "values": [0.5]}'
sweep 'head 0 .*twice' '{"heads": [0, 0]}'
sweep 'heads' '{"heads": "some"}'
sweep 'head 8.*8 heads' '{"heads": [8]}'
sweep 'name' '{"name": "a/b"}'
sweep 'name' '{"name": ".."}'

# ---- the command line ----
refused 2 'no command' "$KOSWEEP"
refused 2 '"runn".*"run"' "$KOSWEEP" runn
refused 2 'no model' "$KOSWEEP" run
refused 2 'no model' "$KOSWEEP" run --corpus "$corpus" --output "$out/new.h5"
refused 2 'no corpus' "$KOSWEEP" run --model "$model" --output "$out/new.h5"
refused 2 'no corpus' "$KOSWEEP" plan --model "$model"
options '\-\-al-edges.*--all-edges' --al-edges
options '\-\-ranks.*plan' --ranks 2
options '\-\-layer needs a value' --layer
options '\-\-threads needs a value' --threads --quiet
options '\-\-all-edges takes no value' --all-edges=yes
for number in x 1x '' ' ' -1 1.5 99999999999999999999 0x10; do
    options '\-\-layer' --layer "$number"
    options '\-\-threads' --threads "$number"
done
options '\-\-memory' --memory lots
options '\-\-memory' --memory -1
options '\-\-memory' --memory 1Q
options '\-\-memory' --memory 99999999999999999999G
options '\-\-kind' --kind set=1.5
options '\-\-kind' --kind scale=nan
options '\-\-kind' --kind scale=inf
options '\-\-kind' --kind scale=
options '\-\-kind' --kind scale=1,,2
options '\-\-kind' --kind scale
options '\-\-kind' --kind cut
options '\-\-heads' --heads 0,x
options 'head 8.*8 heads' --heads 8
options 'layer 5.*5 layers|5.*5 layers' --layer 5
options '\-\-layer-end' --layer-start 3
options '\-\-layer-end 1 .*--layer-start 3' --layer-start 3 --layer-end 1
options '\-\-window-center' --scan-windows
options '5 layers' --scan-windows --window-center 7
options '5 layers' --slide-window 6
options '\-\-precision.*full' --precision ful
options '\-\-resume.*--force' --resume --force
options '\-\-verbose' --verbose
options 'two configurations' a.json b.json
options 'no_such' --groups no_such
refused 2 'kept.h5: exists.*--force' "$KOSWEEP" run --model "$model" --corpus "$corpus" --output "$out/kept.h5"
refused 2 "$out: " "$KOSWEEP" run --model "$model" --corpus "$corpus" --output "$out"
refused 2 '/dev/null' "$KOSWEEP" run --model "$model" --corpus "$corpus" --output /dev/null
refused 2 'one DIR or ID' "$KOSWEEP" model "$model" "$model"
refused 2 '\-\-jsn' "$KOSWEEP" model --jsn
refused 2 '\-\-samles' "$KOSWEEP" tokens --samles
KOSWEEP_HOME=$KS_ROOT refused 2 '\-\-outptu' "$KOSWEEP" demo --outptu "$out/new.h5"
refused 2 'command' "$KOSWEEP_STATS"
refused 3 'kept.h5' "$KOSWEEP_STATS" tables "$out/kept.h5"
all_refused
