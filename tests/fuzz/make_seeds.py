"""Writes the first seeds of the fuzz targets from the tests' fixtures, made small. What campaigns found since is in seeds/ too, and is not
made here. Usage: make_seeds.py (in tests/fuzz)"""
import glob
import json
import os
import struct


def seed(target, name, *parts):
    os.makedirs(f"seeds/{target}", exist_ok=True)
    with open(f"seeds/{target}/{name}", "wb") as f:
        f.write(b"\0".join(p if isinstance(p, bytes) else json.dumps(p, separators=(",", ":"), ensure_ascii=False).encode() for p in parts))


def header(path):
    with open(path, "rb") as f:
        return json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))


def tensors(dtype_shapes):
    out, at = {}, 0
    for name, (dtype, shape) in dtype_shapes.items():
        size = {"F32": 4, "BF16": 2, "F16": 2, "U8": 1, "I64": 8}[dtype]
        for n in shape:
            size *= n
        out[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return out


# safetensors: one file, all kinds of shapes; an index with two shards; a whole file
one = tensors({"a": ("F32", [2, 3]), "b": ("BF16", [4]), "scalar": ("F16", []), "none": ("F32", [0, 7]), "ids": ("I64", [3])})
seed("safetensors", "one", {"__metadata__": {"format": "pt"}, **one})
seed("safetensors", "two", {"metadata": {}, "weight_map": {"a": "a.safetensors", "b": "b.safetensors"}},
     tensors({"a": ("F32", [2, 3])}), tensors({"b": ("U8", [5])}))
text = json.dumps(one).encode()
seed("safetensors", "whole", struct.pack("<Q", len(text)) + text + bytes(80))

# models: the families' configurations with tiny sizes, and headers that fit them
for folder in sorted(glob.glob("../goldens/models/*") + glob.glob("../fixtures/hf/models/*")):
    c = json.load(open(f"{folder}/config.json"))
    c = {k: v for k, v in c.items() if k not in ("transformers_version", "initializer_range", "use_cache")}
    H, G = c["num_attention_heads"], c.get("num_key_value_heads", c["num_attention_heads"])
    E = c.get("head_dim") or c["hidden_size"] // H
    old = {"V": c["vocab_size"], "F": c["intermediate_size"], "D": c["hidden_size"], "Q": H * E, "K": G * E}
    new = {"V": 5, "F": 6, "D": 8, "Q": 8, "K": 4}
    sizes = {old[k]: new[k] for k in old}
    sizes |= {old["Q"] + 2 * old["K"]: 16, 2 * old["F"]: 12}
    c.update(vocab_size=5, intermediate_size=6, hidden_size=8, num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=1)
    if c.get("head_dim"):
        c["head_dim"] = 4
    if isinstance(c.get("layer_types"), list):
        c["layer_types"] = c["layer_types"][:1]
    scaling = c.get("rope_scaling") or {}
    for key in ("long_factor", "short_factor"):
        if key in scaling:
            scaling[key] = scaling[key][:max(1, int(4 * c.get("partial_rotary_factor", 1)) // 2)]
    shapes = {}
    for path in sorted(glob.glob(f"{folder}/*.safetensors")):
        for name, t in header(path).items():
            if name != "__metadata__" and (".layers." not in name or ".layers.0." in name):
                shapes[name] = (t["dtype"], [sizes[n] for n in t["shape"]])
    seed("model", os.path.basename(folder), c, tensors(shapes))

# tokenizers: the variants with a short vocabulary and the merges that it has
text = "def f(x):\n    >>> f(1)  # é 漢 🦙 e\u0301 <s>\r\n".encode()
for path in sorted(glob.glob("../fixtures/tokenizers/variants/*/tokenizer.json") + ["../fixtures/corpus/tiny_tokenizer/tokenizer.json"] +
                   glob.glob("../fixtures/tokenizers/models/*/tokenizer.json")):
    t = json.load(open(path))
    t.pop("decoder", None)
    model, added = t["model"], {a["content"] for a in t["added_tokens"]}
    few = {token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1])[:24]} | {"(", ")", "e", "f", "d", ">", "Ġ", "▁"}
    merges = [m for m in model["merges"] if all(p in few for p in (m.split(" ") if isinstance(m, str) else m))][:12]
    whole = {(m.replace(" ", "") if isinstance(m, str) else "".join(m)) for m in merges}
    t["added_tokens"] = [a for a in t["added_tokens"]][:4]
    kept = {a["content"] for a in t["added_tokens"]} | {model.get("unk_token")}
    names = json.dumps(t.get("post_processor"))
    model["vocab"] = {k: v for k, v in model["vocab"].items() if k in few | whole | kept or (k in added and k in names)}
    model["merges"] = merges
    seed("tokenizer", os.path.basename(os.path.dirname(path)), t, text)

# corpora
sample = {"id": "s1", "code": "def f(x):\n>>> f(1)\n", "marker_char_pos": 10, "marker_pattern": ">>>", "target_char_positions": [0, 4]}
ids = {"id": "s2", "token_ids": [5, 9, 2], "marker_tokens": [2], "target_tokens": [0, 1]}
seed("corpus", "both", {"_format_version": "2.0", "python_doctest": [sample], "python_baseline": [dict(ids, id="s3")]})
seed("corpus", "ids", {"_note": "x", "ids": [ids]})
seed("corpus", "characters", {"g": [dict(sample, code="é漢🦙\u0301 #[test]", marker_char_pos=5, marker_pattern="#[test]",
                                        target_char_positions=[2, 1])]})

# configurations and command lines
for path in sorted(glob.glob("../../config/*.json")):
    seed("config", os.path.basename(path)[:-5], json.load(open(path)))
seed("config", "every_key", {
    "models": [{"name": "a", "path": "../m"}, {"id": "org/name", "revision": "main"}], "corpus": "c.json", "groups": ["a", "b"],
    "samples": ["x"], "include_baselines": True, "special_tokens": "none", "marker": "span", "precision": "fast", "save_logits": True,
    "floor": False, "backend": "cpu", "weights": "streamed", "threads": 2, "memory": "2G", "output": "r.json", "_comment": 1,
    "sweeps": [{"name": "l", "windows": "each-layer", "heads": [2, 0]}, {"windows": {"slide": 3}}, {"name": "w", "windows": "all"},
               {"name": "a", "windows": {"center": 2, "max_radius": 3}, "heads": "each", "positions": "all"},
               {"name": "e", "windows": [[0, 4], [1, 3]], "kind": "set", "values": [0, 0.5], "edges": "all-marker"}]})
lines = {"scan": "0--model\nm\n--corpus=c.json\n--scan-layers\n--all-windows\n--threads\n2\n--memory\n512M\n--force",
         "file": "1CONFIG\n--ranks\n4\n--kind\nscale=0,0.5\n--heads\neach\n--positions\nall\n--json\n--edges\nall-marker",
         "window": "2--model\na\n--model\nb\n--layer-start\n1\n--layer-end\n3\n--scan-windows\n--window-center\n2\n--max-radius\n1\n--texts\nt",
         "set": "0CONFIG\n--layer\n3\n--slide-window\n2\n--kind=set=0.5\n--heads=0,3\n--groups\na,b\n--samples\nx\n--output\nr.json\n--quiet"}
for name, line in lines.items():
    seed("options", name, line.encode())

# result files: nothing changed, for each use; then something
for use in range(5):
    seed("study", f"use{use}", bytes([use]))
    seed("study", f"changes{use}", bytes([use]) + b"".join(struct.pack("<BBHH", what, 17 + 5 * use, 0, 3) for what in (8, 10)))
    seed("study_file", f"use{use}", bytes([use]))
    seed("study_file", f"changes{use}", bytes([use, 200 + use, 17, 255, 7, 1, 3]))
for more in range(2):
    seed("resume", f"same{more}", bytes([more]))
    seed("resume", f"changes{more}", bytes([more]) + struct.pack("<BBHH", 10, 60 + more, 0, 0x8000))
