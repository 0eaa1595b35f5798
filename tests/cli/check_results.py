"""Checks a result file as a user of h5py sees it: attributes, axes with names and coordinates, types. Usage: check_results.py FILE"""
import sys
import h5py
import numpy as np

CELL = {"kl": "f8", "kl_reverse": "f8", "js": "f8", "tv": "f8", "top_changed": "u1", "p_top": "f8", "dlogit_top": "f8", "status": "u1"}
TOP = {"top_ids": "i4", "top_p_baseline": "f8", "top_p_ablated": "f8"}


def check(group, name, dtype, axes):
    d = group[name]
    assert h5py.check_string_dtype(d.dtype) if dtype == "str" else d.dtype == np.dtype(dtype), (d.name, d.dtype)
    assert len(d.dims) == len(axes), (d.name, d.shape, axes)
    for dim, axis in zip(d.dims, axes):
        assert dim.label == axis, (d.name, dim.label, axis)
        assert dim[0].name.split("/")[-1] == axis and dim[0].shape[0] == d.shape[list(axes).index(axis)], d.name
    return d


with h5py.File(sys.argv[1], "r") as f:
    assert f.attrs["schema"] == "kosweep-1"
    assert isinstance(f.attrs["config"], str) and "corpus_sha256" in f.attrs
    for key in ("time", "host", "ranks", "threads", "backend", "device", "algorithms", "versions", "command_line"):
        assert key in f["provenance"].attrs, key
    for model in f["models"].values():
        for key in "id revision architecture n_layers n_heads n_kv_heads d_model vocab weight_dtype precision weights_sha256 tokenizer_sha256".split():
            assert key in model.attrs, key
        s = model["samples"]
        for name in ("id", "group", "text"):
            check(s, name, "str", ["sample"])
        check(s, "n_tokens", "i4", ["sample"])
        for name in ("token_ids", "token_start", "token_end"):
            check(s, name, "i4", ["sample", "token"])
        check(s, "token_text", "str", ["sample", "token"]).asstr()[...]
        for name in ("marker", "target"):
            check(s, name, "u1", ["sample", "token"])
        ids = list(s["id"].asstr())
        b = model["baseline"]
        check(b, "top_ids", "i4", ["sample", "k"])
        check(b, "top_p", "f8", ["sample", "k"])
        check(b, "entropy", "f8", ["sample"])
        check(b, "floor", "f8", ["sample"])
        if "logits" in b:
            assert check(b, "logits", "f4", ["sample", "vocab"]).shape[1] == model.attrs["vocab"]
        check(model["attention"], "strength", "f8", ["layer", "sample"])
        check(model["attention"], "by_head", "f4", ["layer", "head", "sample"])
        check(model["attention"], "uniform", "f8", ["sample"])
        for sweep in model["sweeps"].values():
            for key in ("kind", "edges", "heads", "positions", "values"):
                assert key in sweep.attrs, key
            axes = ["factor"] if len(sweep.attrs["values"]) > 1 else []
            axes += ["window"] + (["head"] if sweep.attrs["heads"] == "each" else []) + ["sample"]
            check(sweep, "layer_start", "i4", ["window"])
            check(sweep, "layer_end", "i4", ["window"])
            check(sweep, "edges_removed", "i4", ["sample"])
            for name, dtype in CELL.items():
                check(sweep, name, dtype, axes)
            for name, dtype in TOP.items():
                check(sweep, name, dtype, axes + ["k"])
            assert ("kl_positions" in sweep) == (sweep.attrs["positions"] == "all")
            if "kl_positions" in sweep:
                for name in ("kl_positions", "p_next_positions", "dlogit_next_positions"):
                    check(sweep, name, "f8", axes + ["token"])
            scale = sweep["kl"].dims[len(axes) - 1][0]
            assert list(scale.asstr()) == ids
            kl, status = sweep["kl"][...], sweep["status"][...]
            assert np.all(np.isnan(kl) == np.isin(status, (0, 3)))
            assert np.all(kl[status == 4] == 0)
