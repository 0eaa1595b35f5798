#!/usr/bin/env bash
# From a fresh Debian machine to a first causal result: installs what is missing, builds, and sweeps the model in the box on all cores.
# Usage: launch/quickstart.sh [output folder]     (default: results/)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root/results}
build=$root/build

"$root/launch/install-packages.sh"
if [ ! -f "$build/CMakeCache.txt" ]; then
    cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF >/dev/null
fi
cmake --build "$build" -j "$(nproc)" --target kosweep kosweep-stats | grep -v '^\[\|^Consolidate' || true

mkdir -p "$out"
file=$out/quickstart.h5
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
mpirun --use-hwthread-cpus -n "$(nproc)" "$build/kosweep" run "$root/config/demo.json" --force --output "$file" >/dev/null
"$build/kosweep-stats" tables "$file"

cat <<TEXT

The results are in $file (HDF5; docs/result-schema.md).
Try next:
  $build/kosweep demo
  $build/kosweep tokens --model $root/models/box --corpus $root/corpus/attention_samples_universal.json
  $build/kosweep run --model $root/models/box --corpus $root/corpus/attention_samples_universal.json --groups python_prompt,rust_prompt --all-windows --output triangle.h5
  $root/launch/get-smollm2.sh        a model of 135 million parameters; README.md shows its scan
TEXT
