#!/usr/bin/env python3
"""tokens.py - `kosweep tokens --json` against the golden ids, ranges, markers and targets, with and without special tokens.

    tokens.py [--kosweep FILE] [ROOT ...]      ROOT as in goldens.py; exit code 1 on any difference"""
import argparse
import json
import os
import subprocess
import sys

import h5py
import numpy as np

import compare

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def expected(samples, i, marker, special):
    """What the golden says of sample i, as `tokens --json` prints it."""
    suffix = "_plain" if special == "none" and "token_ids_plain" in samples and samples["token_start"][i][0] >= 0 else ""
    row = samples[f"token_ids{suffix}"][i]
    n = int((row >= 0).sum())
    added = int(samples["n_tokens"][i]) - n  # special tokens stand in front
    places = lambda key: (np.flatnonzero(samples[key][i]) - added).tolist()
    ranges = [[int(a), int(b)] for a, b in zip(samples[f"token_start{suffix}"][i][:n], samples[f"token_end{suffix}"][i][:n])]
    return {"ids": row[:n].tolist(), "ranges": ranges, "marker": places(f"marker_{marker}"), "targets": places("target")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kosweep", default=os.environ.get("KOSWEEP", "kosweep"))
    parser.add_argument("roots", nargs="*", default=[os.path.join(ROOT, "goldens"), os.path.join(ROOT, "fixtures", "hf")])
    args = parser.parse_args()
    checked = wrong = 0
    for root in args.roots:
        for name in sorted(os.listdir(os.path.join(root, "models"))):
            corpus = os.path.join(root, "corpus", f"{name}.json")
            with open(corpus, encoding="utf-8") as f:
                groups = ",".join(key for key in json.load(f) if not key.startswith("_"))
            with h5py.File(os.path.join(root, "golden", f"{name}.h5")) as golden:
                samples = golden["samples"]
                ids = compare.text(samples["id"][:])
                for marker in ("first", "span"):
                    for special in ("tokenizer", "none"):
                        done = subprocess.run([args.kosweep, "tokens", "--model", os.path.join(root, "models", name), "--corpus", corpus,
                                               "--groups", groups, "--marker", "first-token" if marker == "first" else "span",
                                               "--special-tokens", special, "--json"], stdout=subprocess.PIPE, text=True, check=True)
                        lines = [json.loads(line) for line in done.stdout.splitlines()]
                        if [line["id"] for line in lines] != ids:
                            wrong += 1
                            print(f"{name} {marker} {special}: samples {[line['id'] for line in lines]}, expected {ids}")
                            continue
                        for i, line in enumerate(lines):
                            for key, want in expected(samples, i, marker, special).items():
                                checked += 1
                                if line[key] != want:
                                    wrong += 1
                                    print(f"{name} {line['id']} marker {marker}, special tokens {special}: {key}\n"
                                          f"  found    {line[key]}\n  expected {want}")
    print(f"{checked} lists of tokens, {wrong} wrong")
    sys.exit(1 if wrong or not checked else 0)


main()
