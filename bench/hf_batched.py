#!/usr/bin/env python3
"""A layer scan on Hugging Face transformers used well: the baseline once a sample, all layers' knockouts as one batch (row b of the batch is
cut in layer b), logits of the last position only. One thread, fp32, or --device and --dtype.

    hf_batched.py --model models/smollm2-135m --corpus corpus/attention_samples_universal.json [--samples 4] [--output FILE.json]"""
import hf_common

args = hf_common.arguments(__doc__)
model, samples, layers = hf_common.load(args)
edit = None  # (marker, targets) of the batch at hand


def cut(layer, scores):
    if edit and layer in layers:
        scores[layers.index(layer), :, edit[0], edit[1]] = -float("inf")


def scan(ids, marker, targets):
    global edit
    edit = None
    baseline = model(ids, use_cache=False, logits_to_keep=1).logits[0, -1]
    edit = (marker, targets)
    ablated = model(ids.expand(len(layers), -1), use_cache=False, logits_to_keep=1).logits[:, -1]
    edit = None
    return [hf_common.kl(baseline, row) for row in ablated]


hf_common.patch_attention(model, cut)
hf_common.report(args, "Hugging Face, used well", model, samples, layers, scan)
