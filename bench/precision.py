#!/usr/bin/env python3
"""What precision does to effects of different sizes: relative error of KL against double precision, Hugging Face transformers in fp32,
fp16 and bf16 (eager, two forwards subtracted) beside kosweep full and fast, on the cells of tests/fixtures/hf/smollm2.json.

    precision.py --kosweep build/kosweep --model models/smollm2-135m      prints one Markdown table; needs torch, transformers, numpy, h5py"""
import argparse
import json
import os
import subprocess
import tempfile

import h5py
import numpy as np
import torch
from transformers import AutoModelForCausalLM

import hf_common

FIXTURES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "fixtures", "hf")
EDGES = ("marker-targets", "all-marker")
edit = None  # (layer, edges, marker, targets) of the forward at hand


def cut(layer, scores):
    if not edit or layer != edit[0]:
        return
    _, edges, marker, targets = edit
    if edges == "marker-targets":
        scores[0, :, marker, [t for t in targets if t <= marker]] = -float("inf")
    else:
        scores[0, :, marker:, marker] = -float("inf")


def hugging_face(path, corpus, dtype):
    """{(edges, sample): KL [layer]}, each ablated forward run as the baseline is: alone."""
    global edit
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager").eval()
    hf_common.patch_attention(model, cut)
    found = {}
    for sample in (s for group in corpus if not group.startswith("_") for s in corpus[group]):
        ids = torch.tensor([sample["token_ids"]])
        edit = None
        baseline = model(ids, use_cache=False, logits_to_keep=1).logits[0, -1]
        for edges in EDGES:
            kls = []
            for layer in range(model.config.num_hidden_layers):
                edit = (layer, edges, sample["marker_tokens"][0], sample["target_tokens"])
                kls.append(hf_common.kl(baseline, model(ids, use_cache=False, logits_to_keep=1).logits[0, -1]))
            found[edges, sample["id"]] = kls
    return found


def kosweep(program, path, precision):
    with tempfile.TemporaryDirectory() as folder:
        config = {"models": [{"name": "m", "path": os.path.abspath(path)}], "corpus": os.path.join(FIXTURES, "smollm2_corpus.json"),
                  "precision": precision, "sweeps": [{"name": e, "edges": e, "windows": "each-layer"} for e in EDGES]}
        with open(f"{folder}/c.json", "w", encoding="utf-8") as f:
            json.dump(config, f)
        subprocess.run([program, "run", f"{folder}/c.json", "--quiet", "--floor", "off", "--output", f"{folder}/r.h5"], check=True,
                       stdout=subprocess.DEVNULL)
        with h5py.File(f"{folder}/r.h5", "r") as f:
            ids = [i.decode() if isinstance(i, bytes) else i for i in f["models/m/samples/id"][:]]
            return {(e, s): f[f"models/m/sweeps/{e}/kl"][:, n].tolist() for e in EDGES for n, s in enumerate(ids)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kosweep", default="build/kosweep")
    parser.add_argument("--model", required=True)
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    with open(os.path.join(FIXTURES, "smollm2.json"), encoding="utf-8") as f:
        golden = json.load(f)
    with open(os.path.join(FIXTURES, "smollm2_corpus.json"), encoding="utf-8") as f:
        corpus = json.load(f)
    want = {(e, s): golden["samples"][s]["sweeps"][e]["kl"] for e in EDGES for s in golden["samples"]}
    ways = {"bf16": hugging_face(args.model, corpus, torch.bfloat16), "fp16": hugging_face(args.model, corpus, torch.float16),
            "fp32": hugging_face(args.model, corpus, torch.float32), "kosweep fast": kosweep(args.kosweep, args.model, "fast"),
            "kosweep full": kosweep(args.kosweep, args.model, "full")}
    true = np.concatenate([want[k] for k in want])
    print("| KL in nats | cells | " + " | ".join(f"{w}: median, largest" for w in ways) + " |\n|---|---|" + "---|" * len(ways))
    for low, high in ((0, 1e-8), (1e-8, 1e-7), (1e-7, 1e-6), (1e-6, 1e-5), (1e-5, 1e-4), (1e-4, 1)):
        here = (true > low) & (true <= high)
        if not here.any():
            continue
        row = []
        for found in ways.values():
            error = np.abs(np.concatenate([found[k] for k in want])[here] - true[here]) / true[here]
            row.append(f"{np.median(error):.1e}, {error.max():.1e}")
        print(f"| {low:g} to {high:g} | {here.sum()} | " + " | ".join(row) + " |")


main()
