#!/usr/bin/env bash
# Installs the Debian packages that kosweep needs and that are not there yet.
# Usage: launch/install-packages.sh [tests] [more] [lint]   "tests" adds what only the tests need, "more" what some of them use where it is
# there, "lint" what tests/lint.sh needs.
set -euo pipefail
packages=(gcc make cmake pkg-config libc6-dev libopenmpi-dev openmpi-bin libhdf5-dev libcjson-dev libgsl-dev libcairo2-dev libpcre2-dev libutf8proc-dev)
for part in "$@"; do
    case $part in
    tests) packages+=(g++ libcmocka-dev python3 python3-numpy python3-h5py slurm-wlm munge tidy) ;;
    more) packages+=(chromium python3-pandas python3-xarray) ;;
    lint) packages+=(clang clang-format clang-tidy shellcheck) ;;
    *)
        echo "install-packages.sh: tests, more or lint expected, found $part" >&2
        exit 2
        ;;
    esac
done
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
echo "installing: ${missing[*]}" >&2
sudo=
[ "$(id -u)" -eq 0 ] || sudo=sudo
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null
