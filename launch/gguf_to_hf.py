#!/usr/bin/env python3
"""Converts a Llama-type GGUF with a byte-level BPE tokenizer to a Hugging Face directory.

    gguf_to_hf.py MODEL.gguf DIRECTORY

Writes config.json, model.safetensors (bf16), tokenizer.json and tokenizer_config.json. Needs numpy and gguf. The directory appears only
when it is complete. Quantised tensors are expanded and rounded to bf16; what is not known here is refused by name.

Two details that have caused bugs: GGUF lists a tensor's fastest axis first, and llama.cpp stores the rows of q and k so that the two
halves that RoPE turns together are neighbours; left so, the model still talks, only three times worse."""
import json
import os
import shutil
import struct
import sys

import numpy as np
from gguf import GGUFReader, dequantize

GLOBAL_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER_NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL_TOKEN = 3  # GGUF's token type of special tokens
KNOWN_TOKEN_TYPES = {1, CONTROL_TOKEN}
PRE_TOKENIZERS = {"smollm": [{"type": "Digits", "individual_digits": True},
                             {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]}


def fail(message):
    sys.exit(f"gguf_to_hf.py: {message}")


def bf16(x):
    """float32 -> bf16 bits, to nearest, ties to even. x is finite."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) >> 16).astype("<u2")


def hf_name(name):
    stem, dot, suffix = name.rpartition(".")
    if suffix == "weight" and stem in GLOBAL_NAMES:
        return f"{GLOBAL_NAMES[stem]}.weight"
    parts = stem.split(".")
    if suffix == "weight" and len(parts) == 3 and parts[0] == "blk" and parts[2] in LAYER_NAMES:
        return f"model.layers.{parts[1]}.{LAYER_NAMES[parts[2]]}.weight"
    fail(f"tensor '{name}' is not one of a Llama-type model")


def unpermute(w, heads):
    """Undoes llama.cpp's order of the rows of q and k: [heads, E/2, 2] back to [heads, 2, E/2]."""
    rows, columns = w.shape
    return w.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_safetensors(path, tensors):
    """tensors: [(name, shape, function that returns bf16 bits)], written one at a time."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, _ in tensors:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape, bits in tensors:
            data = bits()
            if data.shape != tuple(shape):
                fail(f"tensor '{name}' expands to shape {data.shape}, expected {tuple(shape)}")
            f.write(data.tobytes())


def main():
    if len(sys.argv) != 3 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if "-h" in sys.argv or "--help" in sys.argv else 2)
    source, target = sys.argv[1], sys.argv[2].rstrip("/")
    if os.path.exists(target):
        fail(f"{target} exists")
    reader = GGUFReader(source)

    def field(key, default=None):
        if key not in reader.fields:
            if default is None:
                fail(f"{source} has no field '{key}'")
            return default
        return reader.fields[key].contents()

    if field("general.architecture") != "llama":
        fail(f"{source} is of architecture '{field('general.architecture')}', expected 'llama'")
    if any(key.startswith("llama.rope.scaling") for key in reader.fields):
        fail(f"{source} scales its RoPE, which is not converted")
    if field("tokenizer.ggml.model") != "gpt2" or field("tokenizer.ggml.pre") not in PRE_TOKENIZERS:
        fail(f"tokenizer '{field('tokenizer.ggml.model')}/{field('tokenizer.ggml.pre')}' is not known, expected gpt2/smollm")
    if field("tokenizer.ggml.add_bos_token", False):
        fail("the tokenizer adds BOS, which is not converted")

    heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
    tokens, types, merges = (field(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type", "merges"))
    unknown = sorted(set(types) - KNOWN_TOKEN_TYPES)
    if unknown:
        fail(f"tokens of types {unknown} are not known, expected {sorted(KNOWN_TOKEN_TYPES)}")

    tensors, names = [], set()
    for t in sorted(reader.tensors, key=lambda t: t.name):
        name = hf_name(t.name)
        names.add(name)

        def bits(t=t):
            w = dequantize(t.data, t.tensor_type).astype(np.float32)
            if not np.isfinite(w).all():
                fail(f"tensor '{t.name}' holds a value that is not finite")
            if ".attn_q." in t.name:
                w = unpermute(w, heads)
            if ".attn_k." in t.name:
                w = unpermute(w, kv_heads)
            return bf16(w)
        tensors.append((name, [int(n) for n in reversed(t.shape)], bits))
    tied = "lm_head.weight" not in names

    # A float32 of the file as the shortest decimal that reads back as it: 1e-05, not 9.999999747e-06.
    decimal = lambda x: float(str(np.float32(x)))
    bos, eos = field("tokenizer.ggml.bos_token_id"), field("tokenizer.ggml.eos_token_id")
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
        "vocab_size": len(tokens), "hidden_size": field("llama.embedding_length"), "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"), "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "head_dim": field("llama.rope.dimension_count"), "max_position_embeddings": field("llama.context_length"),
        "rms_norm_eps": decimal(field("llama.attention.layer_norm_rms_epsilon")), "rope_theta": decimal(field("llama.rope.freq_base")),
        "rope_scaling": None, "tie_word_embeddings": tied, "bos_token_id": bos, "eos_token_id": eos, "torch_dtype": "bfloat16",
    }
    special = [{"id": i, "content": tokens[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
               for i, kind in enumerate(types) if kind == CONTROL_TOKEN]
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[field("tokenizer.ggml.pre")]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges},
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": tokens[bos], "eos_token": tokens[eos], "pad_token": tokens[eos],
        "unk_token": tokens[field("tokenizer.ggml.unknown_token_id", eos)], "add_bos_token": False,
        "clean_up_tokenization_spaces": False, "model_max_length": field("llama.context_length"),
        "chat_template": field("tokenizer.chat_template", ""),
        "added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in special},
    }

    partial = f"{target}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial)
    for name, content in (("config.json", config), ("tokenizer.json", tokenizer), ("tokenizer_config.json", tokenizer_config)):
        with open(os.path.join(partial, name), "w", encoding="utf-8") as f:
            json.dump(content, f, ensure_ascii=False, indent=None if name == "tokenizer.json" else 2)
    write_safetensors(os.path.join(partial, "model.safetensors"), tensors)
    os.rename(partial, target)


main()
