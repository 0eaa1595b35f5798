"""compare.py - holds a kosweep result file against golden answers, every cell.

A Report collects named comparisons. Each is about one array and keeps its largest and median error, its limits, and how many elements
miss them. Nothing is skipped in silence: an array that is missing, of another shape, or NaN where it should not be is a miss."""
import numpy as np

# An effect counts from here up: golden KLs have noise of about 1e-28, and below this nobody needs relative accuracy.
KL_COUNTS = 1e-18

# (largest, median) relative error of an effect in any cell.
EFFECT_LIMITS = {"full": (1e-3, 2e-5), "fast": (1e-1, 1e-2)}

# Baseline values are fp32 grade in either precision.
LOGITS_LIMIT = 1e-5     # norm of the difference over norm
BASELINE_LIMIT = 1e-4   # relative, probabilities and entropy
ATTENTION_LIMIT = 1e-4  # relative, attention weights


class Report:
    def __init__(self, title):
        self.title = title
        self.rows = {}  # name -> [count, errors, largest allowed, median allowed, misses, first miss]

    def add(self, name, error, largest, median=None, where=None):
        """error: array of errors, NaN counts as a miss. where: optional array of labels of the same size."""
        error = np.asarray(error, dtype=np.float64).ravel()
        row = self.rows.setdefault(name, [[], largest, median, 0, ""])
        row[0].append(error)
        bad = ~(error <= largest)
        if bad.any():
            i = int(np.argmax(bad))
            row[3] += int(bad.sum())
            row[4] = row[4] or f"{'' if where is None else where[i] + ': '}{error[i]:.3g}"

    def miss(self, name, text):
        row = self.rows.setdefault(name, [[], 0.0, None, 0, ""])
        row[3] += 1
        row[4] = row[4] or text

    def exact(self, name, got, want, label=""):
        """got == want, NaN equal to NaN; the error is 0 or 1."""
        got, want = np.asarray(got), np.asarray(want)
        if got.shape != want.shape:
            self.miss(name, f"{label}: shape {got.shape}, expected {want.shape}")
            return
        same = got == want
        if got.dtype.kind == "f":
            same |= np.isnan(got) & np.isnan(want)
        self.add(name, np.where(same, 0.0, 1.0), 0.0, where=labels(label, got.shape))

    def table(self):
        """Lines of the table, and the number of misses."""
        lines, misses = [], 0
        for name, (errors, largest, median, missed, first) in self.rows.items():
            e = np.concatenate(errors) if errors else np.zeros(0)
            finite = e[~np.isnan(e)]
            middle = float(np.median(finite)) if finite.size else 0.0
            if median is not None and not middle <= median:
                missed += 1
                first = first or f"median {middle:.3g}, at most {median:.3g} expected"
            misses += missed
            lines.append(f"{self.title:16} {name:24} {e.size:7} {np.max(finite, initial=0.0):10.2e} {middle:10.2e} "
                         f"{largest:8.0e} {'ok' if not missed else f'{missed} MISSED, first {first}'}")
        return lines, misses


HEADER = f"{'model':16} {'measure':24} {'cells':>7} {'largest':>10} {'median':>10} {'allowed':>8}"


def labels(name, shape):
    """One label per element, made only when something is read from it."""
    class Lazy:
        def __getitem__(self, i):
            return f"{name}{list(int(k) for k in np.unravel_index(i, shape))}"
    return Lazy()


def relative(got, want):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(got == want, 0.0, np.abs(got - want) / np.abs(want))


def effect(report, name, got, want, kl, precision, label):
    """A measure of effects. Zero must be zero and NaN NaN; else relative where the golden KL counts, and below, no larger than noise."""
    if got.shape != want.shape:
        report.miss(name, f"{label}: shape {got.shape}, expected {want.shape}")
        return
    where = labels(label, want.shape)
    report.add(f"{name} zero or NaN", np.where((want == 0) == (got == 0), 0.0, 1.0) + (np.isnan(got) != np.isnan(want)), 0.0, where=where)
    counts = np.where(np.isnan(kl), False, kl >= KL_COUNTS) & ~np.isnan(want) & (want != 0)
    index = np.flatnonzero(counts)
    report.add(name, relative(got, want).ravel()[index], *EFFECT_LIMITS[precision], where=Pick(where, index))


class Pick:
    def __init__(self, of, index):
        self.of, self.index = of, index

    def __getitem__(self, i):
        return self.of[self.index[i]]


def text(values):
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def take_samples(report, found, golden, axis_name):
    """Index of each golden sample in the result file."""
    ids, want = text(found["id"][:]), text(golden["id"][:])
    if sorted(ids) != sorted(want):
        report.miss(axis_name, f"samples {ids}, expected {want}")
        return None
    return [ids.index(i) for i in want]


def crop(report, name, a, T):
    """[sample, token, ...] cut to T tokens; what is cut off must be padding."""
    if a.shape[1] < T:
        report.miss(name, f"{a.shape[1]} tokens, expected {T}")
        return np.resize(a, (a.shape[0], T) + a.shape[2:])
    return a[:, :T]


def compare_model(report, found, golden, marker, special="tokenizer"):
    """Samples, baseline and attention. found: /models/<name> of a result; golden: an open golden file; marker: first or span."""
    order = take_samples(report, found["samples"], golden["samples"], "samples")
    if order is None:
        return None
    g = golden["samples"]
    suffix = "" if special == "tokenizer" else "_plain"
    T = g["token_ids"].shape[1]
    report.exact("n_tokens", found["samples/n_tokens"][:][order], g["n_tokens"][:])
    report.exact("group", np.array(text(found["samples/group"][:]))[order], np.array(text(g["group"][:])))
    for name in ("token_ids", "token_start", "token_end"):
        report.exact(name, crop(report, name, found[f"samples/{name}"][:], T)[order], g[name + suffix][:], name)
    report.exact("marker mask", crop(report, "marker mask", found["samples/marker"][:], T)[order], g[f"marker_{marker}"][:], "marker")
    report.exact("target mask", crop(report, "target mask", found["samples/target"][:], T)[order], g["target"][:], "target")

    logits, log_probs = golden["baseline/logits"][:], golden["baseline/log_probs"][:]
    got = found["baseline/logits"][:][order].astype(np.float64)
    if got.shape == logits.shape:
        report.add("logits", np.linalg.norm(got - logits, axis=1) / np.linalg.norm(logits, axis=1), LOGITS_LIMIT)
    else:
        report.miss("logits", f"shape {got.shape}, expected {logits.shape}")
    report.add("entropy", relative(found["baseline/entropy"][:][order], golden["baseline/entropy"][:]), BASELINE_LIMIT)
    top_ids, top_p = found["baseline/top_ids"][:][order], found["baseline/top_p"][:][order]
    report.exact("top_ids", top_ids, np.argsort(-logits, axis=1, kind="stable")[:, :top_ids.shape[1]], "top_ids")
    report.add("top_p", relative(top_p, np.exp(np.take_along_axis(log_probs, top_ids.astype(np.int64), 1))), BASELINE_LIMIT)

    if marker == "first":
        a = golden["attention"]
        report.add("strength", relative(found["attention/strength"][:][:, order], a["strength"][:]), ATTENTION_LIMIT)
        report.add("by_head", relative(found["attention/by_head"][:][:, :, order], a["by_head"][:]), ATTENTION_LIMIT)
        report.add("uniform", relative(found["attention/uniform"][:][order], a["uniform"][:]), 1e-12)
    return order


def sweep_order(report, name, found, golden):
    """Indices of the golden's factors and windows in the result, or None."""
    windows = list(zip(found["layer_start"][:].tolist(), found["layer_end"][:].tolist()))
    want = list(zip(golden["layer_start"][:].tolist(), golden["layer_end"][:].tolist()))
    if sorted(windows) != sorted(want):
        report.miss("windows", f"{name}: windows {windows}, expected {want}")
        return None
    factors = None
    if "values" in golden.attrs and len(golden.attrs["values"]) > 1:
        values = np.asarray(found.attrs["values"], dtype=np.float64).tolist()
        if sorted(values) != sorted(golden.attrs["values"].tolist()):
            report.miss("values", f"{name}: values {values}, expected {golden.attrs['values'].tolist()}")
            return None
        factors = [values.index(v) for v in golden.attrs["values"].tolist()]
    return factors, [windows.index(w) for w in want]


def top_token(report, got, want, baseline_top_p, precision, label):
    """What becomes of the baseline's top token. got, want: functions of a dataset's name; baseline_top_p [sample]."""
    kl, largest = want("kl"), EFFECT_LIMITS[precision][0]
    ok = ~np.isnan(kl)
    size = np.sqrt(2 * np.where(ok, kl, 0.0))  # the spread of the change of ln p: what an error of dlogit is measured by
    for m in ("p_top", "dlogit_top"):
        report.exact("NaN where no value", np.isnan(got(m)), ~ok, label + m)
    changed, p_top, where = got("top_changed")[ok], got("p_top")[ok], Pick(labels(label + "p_top", kl.shape), np.flatnonzero(ok))
    if precision == "full":
        report.exact("top_changed", changed, want("top_changed")[ok], label + "top_changed")
        report.add("p_top", relative(p_top, want("p_top")[ok]), BASELINE_LIMIT, where=where)
    else:
        # Two tokens that are nearly level may change places: one cell, or one in a hundred. ln p_top errs as its change does.
        differ = int((changed != want("top_changed")[ok]).sum())
        report.add("top_changed", [max(differ - 1, 0) / max(len(changed), 1)], 0.01, where=[label])
        base = np.broadcast_to(np.log(baseline_top_p), kl.shape)[ok]
        change = np.maximum(np.abs(np.log(want("p_top")[ok]) - base), size[ok])
        error = np.maximum(np.abs(np.log(p_top / want("p_top")[ok])) - BASELINE_LIMIT, 0)
        report.add("p_top", np.where(error == 0, 0, error / np.where(change == 0, 1e-300, change)), largest, where=where)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.abs(got("dlogit_top") - want("dlogit_top"))
        error = np.where(error == 0, 0.0, error / np.maximum(np.abs(want("dlogit_top")), size))
    counts = ok & ((kl >= KL_COUNTS) | (kl == 0))
    report.add("dlogit_top", error[counts], largest, where=Pick(labels(label + "dlogit_top", kl.shape), np.flatnonzero(counts)))


def compare_sweep(report, name, found, golden, samples, baseline_top_p, precision, edges=None, log_probs=None):
    """One sweep. samples: order of samples; edges [sample]: visible edges or None; log_probs [sample, vocab] of the golden baseline."""
    order = sweep_order(report, name, found, golden)
    if order is None:
        return
    factors, windows = order
    sample_axis = 1 + (factors is not None) + (golden.attrs["heads"] == "each")

    def rows(key):
        a = found[key][:]
        if factors is not None:
            a = a[factors]
        a = np.take(a, windows, axis=sample_axis - 1 - (golden.attrs["heads"] == "each"))
        return np.take(a, samples, axis=sample_axis)

    def want(key):
        a = golden[key][:]
        return a[0] if factors is None and "values" in golden.attrs else a

    kl, label = want("kl"), f"{name}/"
    report.exact("status", rows("status"), want("status"), label + "status")
    measures = [m for m in ("kl", "kl_reverse", "js", "tv") if m in golden]
    for m in measures:
        effect(report, m, rows(m), want(m), kl, precision, label + m)
    if "p_top" in golden:
        top_token(report, rows, want, baseline_top_p, precision, label)
        nothing = want("status") == 4
        report.add("p_top of nothing", relative(rows("p_top"), np.broadcast_to(baseline_top_p, kl.shape))[nothing], 0.0)
    if "top_ids" in found and log_probs is not None:
        ids, p0 = rows("top_ids").astype(np.int64), rows("top_p_baseline")
        ok = (want("status") != 3) & (want("status") != 4)
        full = np.broadcast_to(np.exp(log_probs), kl.shape + log_probs.shape[-1:])
        truth = np.take_along_axis(full, np.where(ok[..., None], ids, 0), -1)
        report.add("top_p_baseline", relative(p0, truth)[ok], BASELINE_LIMIT)
    if "kl_positions" in golden:
        T = golden["kl_positions"].shape[-1]
        positions, truth = rows("kl_positions"), golden["kl_positions"][:]
        if positions.shape[-1] < T or not np.isnan(positions[..., T:]).all():
            report.miss("kl_positions", f"{name}: {positions.shape[-1]} tokens, expected {T}")
        else:
            effect(report, "kl_positions", positions[..., :T], truth, truth, precision, label + "kl_positions")
    if edges is not None:
        report.exact("edges_removed", found["edges_removed"][:][samples], edges, label + "edges_removed")
