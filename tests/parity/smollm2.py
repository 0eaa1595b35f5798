#!/usr/bin/env python3
"""smollm2.py - kosweep on SmolLM2-135M against Hugging Face transformers in double precision: both layer scans of four samples.

    smollm2.py [--kosweep FILE] [--precision full|fast] [--backend cpu|cuda] MODEL_DIRECTORY

The directory is what launch/get-smollm2.sh makes; the answers are in tests/fixtures/hf/smollm2.json. Needs numpy and h5py. Exit code 1 on
any miss."""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np

import compare

FIXTURES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fixtures", "hf")


def check(report, found, golden, precision):
    """found: /models/<name> of a result file; golden: the JSON of answers."""
    ids = compare.text(found["samples/id"][:])
    if sorted(ids) != sorted(golden["samples"]):
        report.miss("samples", f"{ids}, expected {sorted(golden['samples'])}")
        return
    answers = [golden["samples"][i] for i in ids]
    logits = found["baseline/logits"][:].astype(np.float64)
    head = np.array([a["logits_head"] for a in answers])
    norm = np.array([a["logit_norm"] for a in answers])
    # 16 of 49152 logits are kept: their share of the norm's limit, and the norm itself.
    report.add("logits (16)", np.linalg.norm(logits[:, :16] - head, axis=1) / np.linalg.norm(head, axis=1), compare.LOGITS_LIMIT)
    report.add("logits (norm)", compare.relative(np.linalg.norm(logits, axis=1), norm), compare.LOGITS_LIMIT)
    report.add("entropy", compare.relative(found["baseline/entropy"][:], np.array([a["entropy"] for a in answers])), compare.BASELINE_LIMIT)
    report.exact("top_ids", found["baseline/top_ids"][:][:, 0], np.array([a["top_id"] for a in answers]))
    report.add("top_p", compare.relative(found["baseline/top_p"][:][:, 0], np.array([a["p_top"] for a in answers])), compare.BASELINE_LIMIT)
    strength = np.array([a["strength"] for a in answers]).T
    report.add("strength", compare.relative(found["attention/strength"][:], strength), compare.ATTENTION_LIMIT)
    for edges in ("marker-targets", "all-marker"):
        sweep = found[f"sweeps/{edges}"]
        if sweep["layer_start"][:].tolist() != list(range(golden["layers"])):
            report.miss("windows", f"{edges}: {sweep['layer_start'][:].tolist()}")
            continue
        want = {k: np.array([a["sweeps"][edges][k] for a in answers]).T for k in answers[0]["sweeps"][edges]}
        report.exact("status", sweep["status"][:], want["status"], f"{edges}/status")
        for k in ("kl", "kl_reverse", "js", "tv"):
            compare.effect(report, k, sweep[k][:], want[k], want["kl"], precision, f"{edges}/{k}")
        compare.top_token(report, lambda k: sweep[k][:], lambda k: want[k], np.array([a["p_top"] for a in answers]), precision, f"{edges}/")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kosweep", default=os.environ.get("KOSWEEP", "kosweep"))
    parser.add_argument("--precision", choices=("full", "fast"), default="full")
    parser.add_argument("--backend", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("model")
    args = parser.parse_args()
    with open(os.path.join(FIXTURES, "smollm2.json"), encoding="utf-8") as f:
        golden = json.load(f)
    report = compare.Report("smollm2")
    with tempfile.TemporaryDirectory(prefix="kosweep-smollm2-") as scratch:
        config, output = os.path.join(scratch, "config.json"), os.path.join(scratch, "result.h5")
        sweeps = [{"name": edges, "edges": edges, "windows": "each-layer"} for edges in ("marker-targets", "all-marker")]
        with open(config, "w", encoding="utf-8") as f:
            json.dump({"models": [{"name": "smollm2", "path": os.path.abspath(args.model)}], "save_logits": True, "floor": False,
                       "corpus": os.path.join(FIXTURES, "smollm2_corpus.json"), "groups": ["python_doctest", "rust_test"],
                       "sweeps": sweeps, "output": output}, f)
        done = subprocess.run([args.kosweep, "run", config, "--precision", args.precision, "--backend", args.backend, "--quiet"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"kosweep run: exit {done.returncode}: {done.stderr.strip()[-500:]}")
        with h5py.File(output) as result:
            check(report, result["models/smollm2"], golden, args.precision)
    lines, misses = report.table()
    print("\n".join([compare.HEADER] + lines))
    sys.exit(1 if misses else 0)


main()
