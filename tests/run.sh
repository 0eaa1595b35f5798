#!/usr/bin/env bash
# Installs what is missing (Debian), builds, runs all tests. Usage: tests/run.sh [build directory]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-$root/build}
"$root/launch/install-packages.sh" tests
# An old cache may have testing turned off or the sanitizers on.
cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=ON -DKS_SANITIZE=OFF
cmake --build "$build" -j "$(nproc)"
ctest --test-dir "$build" --output-on-failure -j "$(nproc)"
