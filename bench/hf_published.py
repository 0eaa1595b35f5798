#!/usr/bin/env python3
"""A layer scan as the published study ran it, on Hugging Face transformers: for every sample and layer two whole forwards, the baseline and
the one with marker -> targets knocked out, one sample at a time, logits of every position. One thread, fp32, or --device and --dtype.

    hf_published.py --model models/smollm2-135m --corpus corpus/attention_samples_universal.json [--samples 4] [--output FILE.json]"""
import hf_common

args = hf_common.arguments(__doc__)
model, samples, layers = hf_common.load(args)
edit = None  # (layer, marker, targets) of the forward at hand


def cut(layer, scores):
    if edit and edit[0] == layer:
        scores[:, :, edit[1], edit[2]] = -float("inf")


def scan(ids, marker, targets):
    global edit
    kls = []
    for layer in layers:
        edit = None
        baseline = model(ids, use_cache=False).logits[0, -1]
        edit = (layer, marker, targets)
        kls.append(hf_common.kl(baseline, model(ids, use_cache=False).logits[0, -1]))
    edit = None
    return kls


hf_common.patch_attention(model, cut)
hf_common.report(args, "Hugging Face, as published", model, samples, layers, scan)
