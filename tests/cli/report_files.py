"""Writes small result files whose truth is known, from docs/result-schema.md alone. Usage: report_files.py KIND FILE

effect      layer 2 has a group difference that no test can miss, and nothing else differs
null        no group difference at all
zeros       nothing changed anywhere
unfinished  half of the cells have status 0
one         one group
hostile     every text tries to break out of the page
ids         samples given as token ids
few         2 samples a group
buried      every effect under the floor
triangle    30 layers, all windows, 20 samples
"""
import sys
import h5py
import numpy as np

kind, path = sys.argv[1:]
HOSTILE = "</pre></title><script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;\u202eevil\u2028\u0007]]>-->"
rng = np.random.default_rng(1)
L, S, T, H, K = (30 if kind == "triangle" else 6), (4 if kind == "few" else 20), 12, 2, 5
groups = ["a_test"] * S if kind == "one" else ["a_test"] * (S // 2) + ["b_test"] * (S // 2)
windows = [(a, b) for a in range(L) for b in range(a, L)] if kind == "triangle" else [(a, a) for a in range(L)]
W = len(windows)
evil = kind == "hostile"
names = [HOSTILE + str(i) if evil else f"sample{i}" for i in range(S)]
if evil:
    groups = [g + HOSTILE for g in groups]
token = [HOSTILE if evil else t for t in ["def", " add", "(", "a", ",", " b", ")", ":", "\n    ", "return", " a", " +"]]

kl = np.exp(rng.normal(-5, 0.3, S) + rng.normal(0, 0.2, (W, S)) + rng.normal(0, 0.5, (W, 1)))
if kind in ("effect", "hostile"):
    kl[2, : S // 2] *= 20
if kind == "zeros":
    kl[:] = 0
status = np.full((W, S), 4 if kind == "zeros" else 1, "u1")
if kind == "unfinished":
    status[W // 2:] = 0
    kl[W // 2:] = 12345.0

with h5py.File(path, "w") as f:
    f.attrs["schema"] = "kosweep-1"
    f.attrs["config"] = HOSTILE if evil else '{"marker": "first-token", "special_tokens": "none"}'
    f.attrs["corpus_sha256"] = "00"
    p = f.create_group("provenance")
    for key in ("time", "host", "backend", "device", "isa", "versions", "command_line", "history"):
        p.attrs[key] = HOSTILE if evil else key
    p.attrs["ended"] = "" if kind == "unfinished" else "later"
    p.attrs.update(ranks=1, threads=1)
    m = f.create_group("models/" + ("<script>alert(2)<!-- script" if evil else "made"))
    for key in ("id", "revision", "architecture", "weight_dtype", "precision", "weights_sha256", "tokenizer_sha256"):
        m.attrs[key] = np.bytes_(b"\xff\xfe<b>\xc0\xaf") if evil else key
    m.attrs.update(n_layers=L, n_heads=H, n_kv_heads=H, d_model=8, vocab=100)
    text = h5py.string_dtype()
    s = m.create_group("samples")
    s["id"] = np.array(names, dtype=text)
    s["group"] = np.array(groups, dtype=text)
    s["text"] = np.array([""] * S if kind == "ids" else ["".join(token)] * S, dtype=text)
    s["token"] = np.arange(T)
    s["n_tokens"] = np.full(S, T)
    s["token_ids"] = np.tile(np.arange(T) + 60, (S, 1))
    s["token_text"] = np.array([token] * S, dtype=text)
    s["marker"] = np.tile(np.arange(T) == T - 1, (S, 1)).astype("u1")
    s["target"] = np.tile(np.arange(T) == 1, (S, 1)).astype("u1")
    b = m.create_group("baseline")
    b["floor"] = np.full(S, 10.0 if kind == "buried" else 1e-6)
    b["entropy"] = np.ones(S)
    b["k"] = np.arange(K)
    b["top_ids"] = np.zeros((S, K), int)
    b["top_p"] = np.zeros((S, K))
    a = m.create_group("attention")
    a["strength"] = rng.random((L, S))
    a["by_head"] = np.zeros((L, H, S), "f4")
    a["uniform"] = np.full(S, 0.1)
    w = m.create_group("sweeps/" + ("'\"><svg onload=alert(3)>" if evil else "triangle" if kind == "triangle" else "layers"))
    w.attrs.update(kind="knockout", edges="marker-targets", heads="all", positions="last", values=np.zeros(0),
                   windows="all" if kind == "triangle" else "each-layer")
    w["layer_start"] = [a for a, _ in windows]
    w["layer_end"] = [b for _, b in windows]
    w["edges_removed"] = np.ones(S, int)
    w["k"] = np.arange(K)
    w["kl"] = kl
    for name in ("kl_reverse", "js", "tv", "p_top", "dlogit_top"):
        w[name] = np.zeros((W, S))
    w["top_changed"] = np.zeros((W, S), "u1")
    w["status"] = status
    w["top_ids"] = np.zeros((W, S, K), int)
    w["top_p_baseline"] = w["top_p_ablated"] = np.zeros((W, S, K))
