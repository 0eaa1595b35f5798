#!/usr/bin/env python3
"""Compare result files bit for bit: every attribute and dataset outside /provenance.

usage: same_results.py REFERENCE.h5 OTHER.h5 ...      exit 1 and the first differences where they are not the same
       same_results.py --within SMALL.h5 LARGE.h5     every sweep of SMALL stands in LARGE with the same bits
       same_results.py --self-test FILE.h5            checks that this comparison finds a single changed element
"""
import shutil
import sys
import tempfile

import h5py
import numpy as np


def contents(path):
    """{name: bytes-comparable value} of everything but /provenance."""
    found = {}
    with h5py.File(path, "r") as f:
        def visit(name, item):
            if name.split("/")[0] == "provenance":
                return
            for key, value in item.attrs.items():
                if key not in ("DIMENSION_LIST", "REFERENCE_LIST", "NAME", "CLASS"):
                    found[f"{name}@{key}"] = repr(value)
            if isinstance(item, h5py.Dataset):
                value = item[()]
                found[name] = (str(value.dtype), value.shape, value.tobytes() if value.dtype != object else repr(value.tolist()))
        for key, value in f.attrs.items():
            found[f"/@{key}"] = repr(value)
        f.visititems(visit)
    return found


def differences(a, b):
    return sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))


def self_test(path):
    with tempfile.TemporaryDirectory() as folder:
        copy = folder + "/copy.h5"
        names = [k for k, v in contents(path).items() if "@" not in k and k.endswith("/kl")]
        assert names, "no kl in " + path
        size = h5py.File(path, "r")[names[0]].size
        for where in (0, size // 2, size - 1):
            shutil.copy(path, copy)
            with h5py.File(copy, "r+") as f:
                values = f[names[0]][()]
                bits = values.reshape(-1).view(np.uint64)
                bits[where] ^= np.uint64(1)
                f[names[0]][...] = values
            assert differences(contents(path), contents(copy)) == [names[0]], where
    print("self-test: one changed bit is found at the first, middle and last element")


def within(small, large):
    sweeps = {k: v for k, v in contents(small).items() if "/sweeps/" in k}
    other = contents(large)
    different = [k for k in sweeps if sweeps[k] != other.get(k)]
    assert sweeps, "no sweep in " + small
    if different:
        sys.exit(f"{small} and {large} differ in {', '.join(different[:5])}")
    print(f"{len(sweeps)} attributes and datasets of {small} stand in {large} with the same bits")


def main():
    if sys.argv[1] == "--self-test":
        return self_test(sys.argv[2])
    if sys.argv[1] == "--within":
        return within(sys.argv[2], sys.argv[3])
    reference = contents(sys.argv[1])
    failed = False
    for path in sys.argv[2:]:
        different = differences(reference, contents(path))
        if different:
            failed = True
            print(f"{path} differs from {sys.argv[1]} in {len(different)} places: {', '.join(different[:5])}")
    if failed:
        sys.exit(1)
    print(f"{len(sys.argv) - 2} files equal {sys.argv[1]} in {len(reference)} attributes and datasets")


main()
