#!/usr/bin/env python3
"""goldens.py - `kosweep run` against every golden answer. Needs numpy and h5py.

    goldens.py [--kosweep FILE] [--precision full|fast] [--only NAME] [--keep DIR] [ROOT ...]
    goldens.py --self-test [ROOT ...]

ROOT holds models/<name>, corpus/<name>.json and golden/<name>.h5 (default: tests/goldens and tests/fixtures/hf of this checkout).
Each model is swept twice, because the marker (first token or span) is one choice for a run. Exit code 1 on any miss."""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

import h5py
import numpy as np

import compare

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def sweep_config(name, g, layers):
    """The configuration of one golden sweep."""
    windows = [[int(a), int(b)] for a, b in zip(g["layer_start"][:], g["layer_end"][:])]
    if windows == [[a, a] for a in range(layers)]:
        windows = "each-layer"
    elif windows == [[a, b] for a in range(layers) for b in range(a, layers)]:
        windows = "all"
    sweep = {"name": name, "windows": windows, "edges": g.attrs["edges"], "kind": g.attrs["kind"], "heads": g.attrs["heads"],
             "positions": g.attrs["positions"]}
    if "values" in g.attrs:
        sweep["values"] = [float(v) for v in g.attrs["values"]]
    return sweep


def run_config(root, name, golden, marker, output):
    corpus = os.path.join(root, "corpus", f"{name}.json")
    with open(corpus, encoding="utf-8") as f:
        groups = [key for key in json.load(f) if not key.startswith("_")]
    layers = golden["attention/strength"].shape[0]
    return {"models": [{"name": name, "path": os.path.join(root, "models", name)}], "corpus": corpus, "groups": groups,
            "special_tokens": "tokenizer", "marker": "first-token" if marker == "first" else "span", "save_logits": True, "floor": False,
            "sweeps": [sweep_config(s, g, layers) for s, g in golden["sweeps"].items() if g.attrs["marker"] == marker],
            "output": output}


def check(report, result, name, golden, marker, precision, only=None):
    """Everything of one run, or only one sweep. result: an open result file."""
    found = result[f"models/{name}"]
    samples = compare.compare_model(report, found, golden, marker)
    if samples is None:
        return
    top_p = found["baseline/top_p"][:][samples][:, 0]
    log_probs = golden["baseline/log_probs"][:]
    for s, g in golden["sweeps"].items():
        if g.attrs["marker"] != marker or only not in (None, s):
            continue
        visible = golden[f"visible_edges/{'mt' if g.attrs['edges'] == 'marker-targets' else 'all'}_{marker}"][:]
        # The result has one number a sample; where layers see different windows, which one it is is the writer's choice.
        edges = visible[0] if (visible == visible[:1]).all() else None
        if f"sweeps/{s}" not in found:
            report.miss("sweeps", f"no sweep {s}")
            continue
        compare.compare_sweep(report, s, found[f"sweeps/{s}"], g, samples, top_p, precision, edges, log_probs)


def models(roots, only):
    for root in roots:
        folder = os.path.join(root, "golden")
        for file in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            name, extension = os.path.splitext(file)
            if extension == ".h5" and only in (None, name):
                yield root, name, os.path.join(folder, file)


def run_all(args, roots):
    scratch = args.keep or tempfile.mkdtemp(prefix="kosweep-goldens-")
    os.makedirs(scratch, exist_ok=True)
    misses = count = 0
    print(compare.HEADER)
    for root, name, path in models(roots, args.only):
        count += 1
        report = compare.Report(name)
        with h5py.File(path) as golden:
            for marker in sorted({g.attrs["marker"] for g in golden["sweeps"].values()}):
                config = os.path.join(scratch, f"{name}-{marker}.json")
                output = os.path.join(scratch, f"{name}-{marker}.h5")
                with open(config, "w", encoding="utf-8") as f:
                    json.dump(run_config(root, name, golden, marker, output), f)
                done = subprocess.run([args.kosweep, "run", config, "--precision", args.precision, "--backend", args.backend, "--force",
                                       "--quiet"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=600)
                if done.returncode:
                    report.miss("run", f"kosweep run {config}: exit {done.returncode}: {done.stderr.strip()[-500:]}")
                    continue
                with h5py.File(output) as result:
                    check(report, result, name, golden, marker, args.precision)
        lines, missed = report.table()
        print("\n".join(lines), flush=True)
        misses += missed
    if not args.keep:
        shutil.rmtree(scratch)
    if not count:
        sys.exit(f"goldens.py: no golden answers in {', '.join(roots)}")
    print(f"{count} models, {'all as expected' if not misses else f'{misses} MISSES'}")
    return misses


def fake_result(path, name, golden, marker):
    """The golden answers as a result file: what a perfect kosweep would write. For the self-test."""
    with h5py.File(path, "w") as f:
        m = f.create_group(f"models/{name}")
        g = golden["samples"]
        for key in ("id", "group", "n_tokens", "token_ids", "token_start", "token_end", "target"):
            m[f"samples/{key}"] = g[key][:]
        m["samples/marker"] = g[f"marker_{marker}"][:]
        logits, log_probs = golden["baseline/logits"][:], golden["baseline/log_probs"][:]
        top = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        m["baseline/logits"] = logits
        m["baseline/entropy"] = golden["baseline/entropy"][:]
        m["baseline/top_ids"] = top
        m["baseline/top_p"] = np.exp(np.take_along_axis(log_probs, top, 1))
        for key in ("strength", "by_head", "uniform"):
            m[f"attention/{key}"] = golden[f"attention/{key}"][:]
        for s, sweep in golden["sweeps"].items():
            if sweep.attrs["marker"] != marker:
                continue
            out = m.create_group(f"sweeps/{s}")
            one = "values" in sweep.attrs and len(sweep.attrs["values"]) == 1
            for key in sweep:
                out[key] = sweep[key][:][0] if one and not key.startswith("layer_") else sweep[key][:]
            if "values" in sweep.attrs:
                out.attrs["values"] = sweep.attrs["values"]
            if "p_top" in sweep:
                # Where nothing is removed the ablated p is the baseline's own number, bit for bit.
                base = np.broadcast_to(m["baseline/top_p"][:][:, 0], out["p_top"].shape)
                out["p_top"][...] = np.where(out["status"][:] == 4, base, out["p_top"][:])
            visible = golden[f"visible_edges/{'mt' if sweep.attrs['edges'] == 'marker-targets' else 'all'}_{marker}"][:]
            out["edges_removed"] = visible[0]


def self_test(roots):
    """A perfect copy must pass; one wrong element, at the first, middle or last place that counts, of any array must fail."""
    root, name, path = next(models(roots, None))
    failures = trials = 0
    scratch = tempfile.mkdtemp(prefix="kosweep-goldens-")
    file = os.path.join(scratch, "fake.h5")
    with h5py.File(path) as golden:
        for marker in ("first", "span"):
            fake_result(file, name, golden, marker)

            def misses(key=None):
                only = key.split("/")[3] if key and "/sweeps/" in key else None
                report = compare.Report(name)
                with h5py.File(file) as result:
                    check(report, result, name, golden, marker, "full", only)
                lines, missed = report.table()
                return missed, lines

            missed, lines = misses()
            if missed:
                print("\n".join([compare.HEADER] + lines))
                sys.exit("self-test: a perfect copy does not pass")
            arrays = []
            with h5py.File(file) as f:
                f.visititems(lambda key, o: arrays.append(key) if isinstance(o, h5py.Dataset) else None)
            for key in arrays:
                with h5py.File(file) as f:
                    whole = f[key][:]
                    status = f[os.path.dirname(key) + "/status"][:] if "/sweeps/" in key and "edges" not in key else None
                places = places_that_count(key, whole, status, marker)
                for place in sorted({places[0], places[len(places) // 2], places[-1]}) if len(places) else []:
                    wrong = whole.copy()
                    wrong.flat[place] = spoil(whole.flat[place], key)
                    with h5py.File(file, "r+") as f:
                        f[key][...] = wrong
                    trials += 1
                    if not misses(key)[0]:
                        failures += 1
                        print(f"self-test: {key} element {place}: {whole.flat[place]} -> {wrong.flat[place]} went unnoticed")
                with h5py.File(file, "r+") as f:
                    f[key][...] = whole
    shutil.rmtree(scratch)
    print(f"self-test: {trials} wrong elements, {failures} unnoticed")
    return failures


def places_that_count(key, a, status, marker):
    """Flat indices whose value the comparison promises to check."""
    if "/attention/" in key and marker != "first":
        return []
    if "/baseline/logits" in key:
        return np.arange(a.size)
    leaf = key.rsplit("/", 1)[1]
    if leaf == "top_changed":
        return np.flatnonzero(status != 3)
    if leaf in ("dlogit_top", "js", "tv", "kl_reverse", "kl", "kl_positions"):
        # Below this, an error of a thousandth part is no error. sqrt(1e-16) for dlogit and tv.
        return np.flatnonzero(np.isnan(a) | (a == 0) | (np.abs(a) >= (1e-6 if leaf in ("dlogit_top", "tv") else 1e-16)))
    return np.arange(a.size)


def spoil(v, key):
    """The smallest change that must be seen."""
    if isinstance(v, (bytes, str)):
        return (v.decode() if isinstance(v, bytes) else v) + "x"
    if np.asarray(v).dtype.kind in "iu":
        return v ^ 1
    if np.isnan(v):
        return 0.5
    if v == 0:
        return 1e-30
    if "/baseline/logits" in key or "dlogit" in key:
        return v + 0.01  # these two are held against the size of their row, and of the whole effect
    return v * (1 + 3e-3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kosweep", default=os.environ.get("KOSWEEP", "kosweep"))
    parser.add_argument("--precision", choices=("full", "fast"), default="full")
    parser.add_argument("--backend", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--only", help="one model")
    parser.add_argument("--keep", help="keep configurations and result files in this directory")
    parser.add_argument("--self-test", action="store_true", help="test the comparison itself")
    parser.add_argument("roots", nargs="*")
    args = parser.parse_args()
    roots = args.roots or [os.path.join(ROOT, "tests", "goldens"), os.path.join(ROOT, "tests", "fixtures", "hf")]
    sys.exit(1 if (self_test(roots) if args.self_test else run_all(args, roots)) else 0)


main()
