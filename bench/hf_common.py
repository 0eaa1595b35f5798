"""hf_common.py - what the two Hugging Face programs share: eager attention, marker -> target knockouts, samples and KL; one thread and fp32,
or a GPU and another number type."""
import argparse
import importlib
import json
import time

import torch
import transformers


def arguments(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a Hugging Face directory")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--groups", default="python_doctest,rust_test")
    parser.add_argument("--samples", type=int, default=0, help="only so many, spread over the groups (0: all)")
    parser.add_argument("--layers", type=int, default=0, help="cut only in so many layers, spread over the model (0: in each)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--output", help="JSON: seconds and every KL")
    return parser.parse_args()


def spread(values, n):
    """n of the values, evenly; all of them if n is 0."""
    return [values[i * len(values) // n] for i in range(n)] if 0 < n < len(values) else values


def load(args):
    """Model, samples as (id, ids [1, T], marker token, target tokens), and the layers to cut in. Not timed."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype), attn_implementation="eager")
    model = model.to(args.device).eval()
    tokenizer, samples = None, []
    with open(args.corpus, encoding="utf-8") as f:
        corpus = json.load(f)
    for s in (s for group in args.groups.split(",") for s in corpus[group]):
        if "token_ids" in s:
            ids, marker, targets = s["token_ids"], s["marker_tokens"][0], s["target_tokens"]
        else:
            tokenizer = tokenizer or transformers.AutoTokenizer.from_pretrained(args.model)
            coded = tokenizer(s["code"], return_offsets_mapping=True)
            token = lambda c: next(i for i, (a, b) in enumerate(coded["offset_mapping"]) if a <= c < b)
            ids, marker, targets = coded["input_ids"], token(s["marker_char_pos"]), sorted({token(c) for c in s["target_char_positions"]})
        samples.append((s["id"], torch.tensor([ids], device=args.device), marker, targets))
    return model, spread(samples, args.samples), spread(list(range(model.config.num_hidden_layers)), args.layers)


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


def report(args, name, model, samples, layers, scan):
    """Times scan(ids, marker, targets) -> KL per layer of `layers` over all samples, after one warm-up forward."""
    model(samples[0][1], use_cache=False).logits.cpu()
    kls, start, cpu_start = {}, time.perf_counter(), time.process_time()
    for sample, ids, marker, targets in samples:
        kls[sample] = scan(ids, marker, targets)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    print(f"{name}: {seconds:.1f} s, of which computing {cpu_seconds:.1f}, {len(samples)} samples, {len(layers)} layers")
    if args.output:
        with open(args.output, "w", encoding="utf-8") as f:
            json.dump({"name": name, "seconds": seconds, "cpu_seconds": cpu_seconds, "samples": len(samples), "layers": layers, "kl": kls,
                       "versions": f"torch {torch.__version__}, transformers {transformers.__version__}"}, f)
