#!/usr/bin/env bash
# Format, static analysis, shell scripts. Usage: tests/lint.sh [build directory that is configured]
set -euo pipefail
build=$(realpath "${1:-build}")
cd "$(dirname "$0")/.."
find src analysis kernels tests bench '(' -name '*.[ch]' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' ')' -print0 | xargs -0 clang-format --dry-run -Werror
# isa/ is written for gcc's vector types, clang 14 does not know the name of a feature that dispatch.c asks for, and gpu_cuda.c and
# gpu_nccl.c need the CUDA toolkit.
find src analysis -name '*.c' ! -path '*/isa/*' ! -name dispatch.c ! -name gpu_cuda.c ! -name gpu_nccl.c -print0 |
    xargs -0 -P "$(nproc)" -n 4 clang-tidy -p "$build" --quiet 2> >(grep -v "warnings\? generated" >&2)
find launch tests .ci -type f \( -name '*.sh' -o -name '*.sbatch' -o -name 'site.env*' -o -path .ci/run \) -print0 | xargs -0 shellcheck -x -S warning
echo "lint: no findings"
