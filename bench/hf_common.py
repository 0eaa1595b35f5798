"""hf_common.py - what the two Hugging Face programs share: one thread, fp32, eager attention, marker -> target knockouts, samples and KL."""
import argparse
import importlib
import json
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

GROUPS = ("python_doctest", "rust_test")


def arguments(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a Hugging Face directory")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--samples", type=int, default=0, help="only so many, spread over the groups (0: all)")
    parser.add_argument("--output", help="JSON: seconds and every KL")
    return parser.parse_args()


def load(args):
    """Model, and samples as (id, ids [T], marker token, target tokens). Not timed."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    samples = []
    with open(args.corpus, encoding="utf-8") as f:
        corpus = json.load(f)
    for s in (s for group in GROUPS for s in corpus[group]):
        coded = tokenizer(s["code"], return_offsets_mapping=True)
        token = lambda c: next(i for i, (a, b) in enumerate(coded["offset_mapping"]) if a <= c < b)
        samples.append((s["id"], torch.tensor([coded["input_ids"]]), token(s["marker_char_pos"]),
                        sorted({token(c) for c in s["target_char_positions"]})))
    if args.samples:
        samples = samples[::max(1, len(samples) // args.samples)][:args.samples]
    return model, samples


def patch_attention(model, cut):
    """Makes the family's eager attention call cut(layer, scores [B, H, T, T]), which may write -inf, before its softmax."""
    module = importlib.import_module(type(model).__module__)

    def eager(self, query, key, value, attention_mask, scaling, dropout=0.0, **_):
        key = module.repeat_kv(key, self.num_key_value_groups)
        value = module.repeat_kv(value, self.num_key_value_groups)
        scores = torch.matmul(query, key.transpose(2, 3)) * scaling
        if attention_mask is not None:
            scores = scores + attention_mask[:, :, :, :key.shape[-2]]
        cut(self.layer_idx, scores)
        weights = torch.nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
        return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights

    module.eager_attention_forward = eager


def kl(p_logits, q_logits):
    """KL in nats from the last position's logits, log-softmax in double, as an evaluation would take it."""
    p, q = (torch.log_softmax(x.double(), -1) for x in (p_logits, q_logits))
    return float((p.exp() * (p - q)).sum())


def report(args, name, model, samples, scan):
    """Times scan(ids, marker, targets) -> KL per layer over all samples, after one warm-up forward."""
    model(samples[0][1], use_cache=False)
    kls, start, cpu_start = {}, time.perf_counter(), time.process_time()
    for sample, ids, marker, targets in samples:
        kls[sample] = scan(ids, marker, targets)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    print(f"{name}: {seconds:.1f} s, of which computing {cpu_seconds:.1f}, {len(samples)} samples, {model.config.num_hidden_layers} layers")
    if args.output:
        with open(args.output, "w", encoding="utf-8") as f:
            json.dump({"name": name, "seconds": seconds, "cpu_seconds": cpu_seconds, "samples": len(samples), "kl": kls}, f)
