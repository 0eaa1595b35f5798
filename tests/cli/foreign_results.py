"""Writes a small result file by hand, from docs/result-schema.md alone. Usage: foreign_results.py FILE"""
import sys
import h5py
import numpy as np

S, W, T, L, H, K = 4, 2, 3, 2, 2, 5
with h5py.File(sys.argv[1], "w") as f:
    f.attrs["schema"] = "kosweep-1"
    f.attrs["config"] = '{"marker": "span", "special_tokens": "none"}'
    m = f.create_group("models/by-hand")
    for key in ("id", "revision", "architecture", "weight_dtype", "precision"):
        m.attrs[key] = np.bytes_("x")  # fixed length
    m.attrs.update(n_layers=L, n_heads=H, n_kv_heads=H, d_model=8, vocab=100)
    s = m.create_group("samples")
    s["id"] = np.array([b"a1", b"a2", b"b1", b"b2"])
    s["group"] = ["a_test", "a_test", "b_test", "b_test"]
    s["token"] = np.arange(T)
    s["n_tokens"] = np.full(S, T)
    s["marker"] = np.tile([0, 0, 1], (S, 1)).astype(bool).astype("u1")
    s["target"] = np.tile([1, 0, 0], (S, 1)).astype("i8")
    b = m.create_group("baseline")
    b["floor"] = np.full(S, np.nan)
    b["entropy"] = np.ones(S, "f4")
    a = m.create_group("attention")
    a["strength"] = np.ones((L, S))
    a["uniform"] = np.ones(S)
    w = m.create_group("sweeps/layers")
    w.attrs.update(kind="knockout", edges="marker-targets", heads="all", positions="last", values=np.zeros(0))
    w["layer_start"] = w["layer_end"] = np.arange(W)
    w["edges_removed"] = np.ones(S, int)
    w["k"] = np.arange(K)
    w.create_dataset("kl", data=[[1e-3, 2e-3, 3e-3, 4e-3], [2e-3, 3e-3, 1e-4, 2e-4]], compression="gzip")
    for name in ("kl_reverse", "js", "tv", "p_top", "dlogit_top"):
        w[name] = np.zeros((W, S))
    w["top_changed"] = np.zeros((W, S), "u1")
    w["status"] = np.ones((W, S), "u1")
    w["top_ids"] = np.zeros((W, S, K), int)
    w["top_p_baseline"] = w["top_p_ablated"] = np.zeros((W, S, K))
