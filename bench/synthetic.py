#!/usr/bin/env python3
"""Model directories of real models' shapes with random bf16 weights, made in seconds, and a corpus of token ids to sweep them with.

    synthetic.py SHAPE DIRECTORY [--layers N] [--samples N] [--threads N]      synthetic.py --list

DIRECTORY gets config.json and safetensors (in shards, with an index) as the published model has them, but no tokenizer, and corpus.json:
group `bench`, samples of 40 to 120 token ids with a marker and 4 to 8 targets before it, and group `trunk`, the same samples with a target
behind the marker, so that nothing is removed (its plan is what the baselines alone cost). The same arguments give the same bytes; a
directory that holds them already is left as it is.

Every matrix is a stretch of one random normal sequence of its scale, begun at a place of its own and repeated: making it costs nothing but
writing. The sequence's length is prime, so that no two rows of a matrix are equal. Scales keep activations of usual size through any number
of layers: outputs of unit variance, those that are added to the residual stream smaller by sqrt(2 layers), logits of standard deviation 2.
KLs of single layers are then 1e-9 to 1e-2 nats (seen at hidden size 256).
"""
import argparse
import json
import math
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

SEQUENCE = 8388593  # a prime; bf16 values, 16 MB
SHARD = 5 * 10**9   # bytes, as published models are cut
COMMON = {"attention_dropout": 0.0, "initializer_range": 0.02, "torch_dtype": "bfloat16", "use_cache": True}


def qwen2(hidden, feed_forward, layers, heads, kv_heads, vocab, tied):
    return {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "hidden_size": hidden,
            "intermediate_size": feed_forward, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "max_position_embeddings": 32768, "max_window_layers": layers, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
            "sliding_window": 131072, "use_sliding_window": False, "tie_word_embeddings": tied, "vocab_size": vocab, **COMMON}


SHAPES = {
    "qwen2.5-coder-3b": qwen2(2048, 11008, 36, 16, 2, 151936, True),
    "qwen2.5-coder-7b": qwen2(3584, 18944, 28, 28, 4, 152064, False),
    "qwen2.5-coder-32b": qwen2(5120, 27648, 64, 40, 8, 152064, False),
    "starcoder2-3b": {
        "architectures": ["Starcoder2ForCausalLM"], "model_type": "starcoder2", "hidden_act": "gelu_pytorch_tanh", "hidden_size": 3072,
        "intermediate_size": 12288, "num_hidden_layers": 30, "num_attention_heads": 24, "num_key_value_heads": 2,
        "max_position_embeddings": 16384, "mlp_type": "default", "norm_epsilon": 1e-05, "norm_type": "layer_norm",
        "rope_theta": 999999.4420358813, "sliding_window": 4096, "use_bias": True, "vocab_size": 49152, **COMMON},
    "codegemma-7b": {
        "architectures": ["GemmaForCausalLM"], "model_type": "gemma", "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256, "max_position_embeddings": 8192, "rms_norm_eps": 1e-06,
        "rope_scaling": None, "rope_theta": 10000.0, "vocab_size": 256000, **COMMON},
    "codellama-7b": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 16384,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 1000000, "tie_word_embeddings": False,
        "vocab_size": 32016, **COMMON},
    "phi-3-mini": {
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_act": "silu", "hidden_size": 3072, "intermediate_size": 8192,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 10000.0,
        "sliding_window": 2047, "tie_word_embeddings": False, "attention_bias": False, "pad_token_id": 32000, "vocab_size": 32064, **COMMON},
    "tiny": qwen2(128, 352, 4, 8, 2, 1024, False),
}


def head_size(c):
    return c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]


def tensors(c):
    """[(name, shape, scale, mean)]: random values of standard deviation `scale` around 0; around 1 where mean is 1."""
    D, F, V, L, E = c["hidden_size"], c["intermediate_size"], c["vocab_size"], c["num_hidden_layers"], head_size(c)
    Q, KV, family = c["num_attention_heads"] * E, c["num_key_value_heads"] * E, c["model_type"]
    added = math.sqrt((D if family == "gemma" else 1) / (2 * L))  # gemma multiplies embeddings by sqrt(D)
    out = []

    def matrix(name, n, k, scale=1.0, bias=False):
        out.append((name + ".weight", (n, k), scale / math.sqrt(k), 0))
        if bias:
            out.append((name + ".bias", (n,), 0.02, 0))

    def norm(name):
        out.append((name + ".weight", (D,), 0.05, 0 if family == "gemma" else 1))
        if family == "starcoder2":
            out.append((name + ".bias", (D,), 0.02, 0))

    matrix("model.embed_tokens", V, D, 2)
    for i in range(L):
        a, m = f"model.layers.{i}.self_attn.", f"model.layers.{i}.mlp."
        norm(f"model.layers.{i}.input_layernorm")
        norm(f"model.layers.{i}.post_attention_layernorm")
        if family == "phi3":
            matrix(a + "qkv_proj", Q + 2 * KV, D)
            matrix(m + "gate_up_proj", 2 * F, D)
        else:
            for name, n in (("q", Q), ("k", KV), ("v", KV)):
                matrix(a + name + "_proj", n, D, bias=family in ("qwen2", "starcoder2"))
            for name in ("c_fc",) if family == "starcoder2" else ("gate_proj", "up_proj"):
                matrix(m + name, F, D, bias=family == "starcoder2")
        matrix(a + "o_proj", D, Q, added, bias=family == "starcoder2")
        matrix(m + ("c_proj" if family == "starcoder2" else "down_proj"), D, F, added, bias=family == "starcoder2")
    norm("model.norm")
    if not c.get("tie_word_embeddings", family in ("gemma", "starcoder2")):
        matrix("lm_head", V, D, 2)
    return out


def bf16(x):
    """Bytes of float32 values rounded to bf16 (nearest, ties to even)."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def put(fd, data, at):
    while len(data):
        n = os.pwrite(fd, data, at)
        data, at = data[n:], at + n


def put_tensor(fd, at, count, sequence, begin):
    """Writes `count` values of the endless repetition of sequence (bytes), from its value `begin` on."""
    view, left, position = memoryview(sequence), 2 * count, 2 * begin
    while left:
        part = view[position:position + left]
        put(fd, part, at)
        left, at, position = left - len(part), at + len(part), 0


def write_weights(directory, c, threads):
    """Returns the bytes written."""
    rng = np.random.default_rng(1)
    normal = rng.standard_normal(SEQUENCE, dtype=np.float32)
    sequences, shards, size = {}, [[]], 0
    for t in tensors(c):
        sequences.setdefault(t[2:], None)
        n = 2 * math.prod(t[1])
        if size + n > SHARD and shards[-1]:
            shards.append([])
            size = 0
        shards[-1].append(t)
        size += n
    with ThreadPoolExecutor(threads) as pool:
        for key, data in zip(sequences, pool.map(lambda k: bf16(normal * np.float32(k[0]) + np.float32(k[1])), sequences)):
            sequences[key] = data
        jobs, files, index, total = [], [], {}, 0
        for i, shard in enumerate(shards):
            name = "model.safetensors" if len(shards) == 1 else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
            header, at = {"__metadata__": {"format": "pt"}}, 0
            for tensor, shape, _, _ in shard:
                end = at + 2 * math.prod(shape)
                header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
                index[tensor], at = name, end
            text = json.dumps(header, separators=(",", ":")).encode()
            text += b" " * (-len(text) % 8)
            fd = os.open(os.path.join(directory, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            files.append(fd)
            put(fd, len(text).to_bytes(8, "little") + text, 0)
            for tensor, shape, scale, mean in shard:
                begin = int(rng.integers(SEQUENCE))
                jobs.append(pool.submit(put_tensor, fd, 8 + len(text) + header[tensor]["data_offsets"][0], math.prod(shape),
                                        sequences[scale, mean], begin))
            total += at
        for job in jobs:
            job.result()
        for fd in files:
            os.close(fd)
    if len(shards) > 1:
        with open(os.path.join(directory, "model.safetensors.index.json"), "w", encoding="utf-8") as f:
            json.dump({"metadata": {"total_size": total}, "weight_map": index}, f)
    return total


def corpus(c, samples):
    rng, bench, trunk = random.Random(1), [], []
    for i in range(samples):
        T = 40 + round(80 * i / max(1, samples - 1))
        marker = rng.randint(9 * T // 20, 3 * T // 5)
        sample = {"id": f"b{i:02d}", "token_ids": [rng.randrange(c["vocab_size"]) for _ in range(T)], "marker_tokens": [marker],
                  "target_tokens": sorted(rng.sample(range(marker), rng.randint(4, 8)))}
        bench.append(sample)
        trunk.append({**sample, "id": f"t{i:02d}", "target_tokens": [T - 1]})
    return {"_format_version": "2.0", "bench": bench, "trunk": trunk}


def configuration(shape, layers=0):
    c = dict(SHAPES[shape])
    if layers:
        c["num_hidden_layers"] = min(layers, c["num_hidden_layers"])
    return c


def weight_bytes(c):
    return sum(2 * math.prod(shape) for _, shape, _, _ in tensors(c))


def make(shape, directory, layers=0, samples=20, threads=0):
    """Bytes of the weights, and whether they had to be written."""
    c = configuration(shape, layers)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "corpus.json"), "w", encoding="utf-8") as f:
        json.dump(corpus(c, samples), f)
    path = os.path.join(directory, "config.json")  # written last: what stands there is whole
    text = json.dumps(c, indent=2, sort_keys=True)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            if f.read() == text:
                return weight_bytes(c), False
        raise SystemExit(f"{directory}: holds another model; remove it or name another directory")
    total = write_weights(directory, c, threads or min(16, os.cpu_count()))
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return total, True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", nargs="?", choices=SHAPES)
    parser.add_argument("directory", nargs="?")
    parser.add_argument("--layers", type=int, default=0, help="only so many layers")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--threads", type=int, default=0, help="that write (default: the cores, at most 16)")
    parser.add_argument("--list", action="store_true", help="shapes and the bytes of their weights")
    a = parser.parse_args()
    if a.list:
        for name, c in SHAPES.items():
            print(f"{name:20s} {weight_bytes(c) / 1e9:7.2f} GB, {c['num_hidden_layers']} layers")
        return
    if not a.shape or not a.directory:
        parser.error("a shape and a directory are needed; --list names the shapes")
    if a.layers < 0 or a.samples < 1:
        parser.error("--layers and --samples must be positive")
    total, written = make(a.shape, a.directory, a.layers, a.samples, a.threads)
    print(f"{a.directory}: {a.shape}, {total / 1e9:.2f} GB of weights{'' if written else ', there already'}", file=sys.stderr)


if __name__ == "__main__":
    main()
