"""Writes study.h5, a small result file with every axis, and study.map, the ranges of its bytes that fuzz_study.c may change: values,
texts, names, shapes and types, but not HDF5's own addresses and tables. Usage: make_study.py FOLDER"""
import struct
import sys

import h5py
import numpy as np

S, T, L, H, K = 3, 3, 2, 2, 2


def sweep(group, name, windows, factors, each_head, positions):
    g = group.create_group(name)
    g.attrs.update(kind=np.bytes_("scale" if factors else "knockout"), edges=np.bytes_("marker-targets"), windows=np.bytes_("all"),
                   heads=np.bytes_("each" if each_head else "all"), positions=np.bytes_("all" if positions else "last"))
    g.attrs["values"] = np.array(factors, "f8")
    g["layer_start"] = np.array([w[0] for w in windows], "i4")
    g["layer_end"] = np.array([w[1] for w in windows], "i4")
    g["edges_removed"] = np.array([1, 2, 0], "i4")
    g["k"] = np.arange(K)
    shape = ([len(factors)] if len(factors) > 1 else []) + [len(windows)] + ([H] if each_head else []) + [S]
    effects = np.linspace(1e-6, 1e-2, int(np.prod(shape))).reshape(shape)
    g.create_dataset("kl", data=effects, **({} if each_head else {"compression": "gzip"}))
    for k, key in enumerate(("kl_reverse", "js", "tv", "p_top", "dlogit_top")):
        g[key] = effects / (k + 2)
    g["top_changed"] = np.zeros(shape, "u1")
    g["status"] = np.ones(shape, "u1")
    g["top_ids"] = np.full(shape + [K], 7, "i4")
    g["top_p_baseline"] = np.full(shape + [K], 0.5)
    g["top_p_ablated"] = np.full(shape + [K], 0.25)
    if positions:
        for key in ("kl_positions", "p_next_positions", "dlogit_next_positions"):
            g[key] = np.full(shape + [T], 1e-3)


def write(path):
    with h5py.File(path, "w") as f:
        f.attrs["schema"] = np.bytes_("kosweep-1")
        f.attrs["config"] = np.bytes_("{}")
        f.attrs["corpus_sha256"] = np.bytes_("ab")
        f.create_group("provenance").attrs.update(ranks=2, time=np.bytes_("2025"))
        m = f.create_group("models/m")
        for key in ("id", "revision", "architecture", "weight_dtype", "precision", "weights_sha256", "tokenizer_sha256"):
            m.attrs[key] = np.bytes_(key)
        m.attrs.update(n_layers=L, n_heads=H, n_kv_heads=H, d_model=8, vocab=100)
        s = m.create_group("samples")
        s["id"] = np.array([b"a1", b"a2", b"b1"])
        s["group"] = ["a_test", "a_test", "b_test"]  # of variable length
        s["token"] = np.arange(T)
        s["text"] = np.full(S, b"def f")
        s["token_ids"] = np.full((S, T), 7, "i4")
        s["n_tokens"] = np.array([3, 2, 3], "i4")
        s["token_text"] = np.full((S, T), b" x")
        s["marker"] = np.tile([0, 1, 0], (S, 1)).astype("u1")
        s["target"] = np.tile([1, 0, 0], (S, 1)).astype("u1")
        b = m.create_group("baseline")
        b["floor"] = np.full(S, 1e-5)
        b["entropy"] = np.ones(S, "f4")
        a = m.create_group("attention")
        a["strength"] = np.full((L, S), 0.1)
        a["uniform"] = np.full(S, 0.5)
        a["by_head"] = np.full((L, H, S), 0.1, "f4")
        b["k"] = np.arange(K)
        b["top_ids"] = np.full((S, K), 7, "i4")
        b["top_p"] = np.full((S, K), 0.5)
        t = m.create_group("top_tokens")
        t["id"] = np.array([5, 7], "i4")
        t["text"] = np.array([b"\n", b"def"])
        sweeps = m.create_group("sweeps")
        sweep(sweeps, "layers", [(0, 0), (1, 1)], [], False, False)
        sweep(sweeps, "shape", [(0, 1), (1, 1)], [0.5, 2.0], True, True)


def header_ranges(image, at):
    """Of a version 1 object header: the lengths of its dataspace message (1), the name and value of its attribute messages (12), and the
    names of a group (17)."""
    count, = struct.unpack_from("<H", image, at + 2)
    size, = struct.unpack_from("<I", image, at + 8)
    blocks = [(at + 16, size)]
    for begin, length in blocks:
        p = begin
        while p + 8 <= begin + length and count:
            kind, n = struct.unpack_from("<HH", image, p)
            body = p + 8
            count -= 1
            if kind == 1 and image[body] == 1:
                yield body + 8, 8 * image[body + 1]
            if kind == 12 and image[body] == 1:
                sizes = struct.unpack_from("<HHH", image, body + 2)
                yield body + 8, sizes[0] - 1
                value = body + 8 + sum((x + 7) // 8 * 8 for x in sizes)
                yield value, body + n - value
            if kind == 16:  # the header goes on elsewhere
                blocks.append(struct.unpack_from("<QQ", image, body))
            if kind == 17:  # a group: its names lie in a heap
                heap, = struct.unpack_from("<Q", image, body + 8)
                assert image[heap:heap + 4] == b"HEAP"
                n_names, _, names = struct.unpack_from("<QQQ", image, heap + 8)
                yield names + 8, n_names - 8
            p += 8 + n


def ranges(path):
    image = open(path, "rb").read()
    out = []
    with h5py.File(path, "r") as f:
        def visit(_, item):
            out.extend(header_ranges(image, h5py.h5o.get_info(item.id).addr))
            if not isinstance(item, h5py.Dataset) or h5py.check_string_dtype(item.dtype) and item.dtype.kind == "O":
                return
            d = item.id
            if item.chunks:
                out.append((d.get_chunk_info(0).byte_offset, d.get_chunk_info(0).size))
            else:
                out.append((d.get_offset(), d.get_storage_size()))
        visit("/", f)
        f.visititems(visit)
    collection = image.find(b"GCOL")
    while collection >= 0:  # texts of variable length
        out.extend((collection + 32 + 24 * i, len("a_test")) for i in range(S))
        collection = image.find(b"GCOL", collection + 4)
    return sorted(set(out))


write(f"{sys.argv[1]}/study.h5")
with open(f"{sys.argv[1]}/study.map", "w") as f:
    for begin, length in ranges(f"{sys.argv[1]}/study.h5"):
        print(begin, length, file=f)
