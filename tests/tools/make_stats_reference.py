"""Writes stats_reference.tsv, which test_stats_reference.c reads: statistics of random and awkward data by SciPy, mpmath, fractions and counting.
Usage: python3 make_stats_reference.py (needs numpy, scipy, mpmath; some minutes)

One line a data set: its kind, its values, then name=value pairs. Doubles are in C's hexadecimal, counts are decimal.
Nothing here is the program's own algorithm: exact tests list every split with rational numbers, closed forms have 40 digits.
"""
import itertools
import math
import os
import random
import sys
from fractions import Fraction

import mpmath as mp
import numpy as np
import scipy.special
import scipy.stats

mp.mp.dps = 40
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "stats_reference.tsv")
NAN = float("nan")
TINY = Fraction(1, 2**960)  # below that a standard error has no digits, and there is no test


def student_log_p(t, df):
    """log P(|T| >= |t|), by the incomplete beta integral or the power series of its complement."""
    t, df = abs(mp.mpf(t)), mp.mpf(df)
    if t == 0:
        return mp.mpf(0)
    x = df / (df + t * t)
    if df <= 400:
        with mp.workdps(60):
            return mp.log(mp.betainc(df / 2, mp.mpf(1) / 2, 0, x, regularized=True))
    # 1 - I_y(1/2, a) by a series of positive terms, with digits enough for p = 1e-400
    with mp.workdps(900):
        a, y = df / 2, t * t / (df + t * t)
        term = total = mp.mpf(1)
        k = 0
        while term > total * mp.mpf(10) ** -890:
            term *= (a + k + mp.mpf(1) / 2) / (k + mp.mpf(3) / 2) * y
            total += term
            k += 1
        return mp.log(1 - 2 * mp.sqrt(y) * (1 - y) ** a * total / mp.beta(mp.mpf(1) / 2, a))


def moments(v):
    """n, mean, sum of squared deviations, exactly."""
    f = [Fraction(x) for x in v]
    m = sum(f) / len(f)
    return len(f), m, sum((x - m) ** 2 for x in f)


def q(f):
    return mp.mpf(f.numerator) / f.denominator


def describe(v, name=""):
    n, m, ss = moments(v)
    out = {"mean": q(m), "sd": mp.sqrt(q(ss) / (n - 1)) if n > 1 else NAN, "sdp": mp.sqrt(q(ss) / n)}
    quartiles = []
    s = sorted(Fraction(x) for x in v)
    for p in (Fraction(1, 4), Fraction(1, 2), Fraction(3, 4)):
        at = p * (n - 1)
        i = math.floor(at)
        quartiles.append(s[i] + (s[min(i + 1, n - 1)] - s[i]) * (at - i))
    out.update(q1=q(quartiles[0]), median=q(quartiles[1]), q3=q(quartiles[2]))
    positive = [x for x in v if x > 0]
    out["geo"] = mp.exp(mp.fsum(mp.log(x) for x in positive) / len(positive)) if positive and min(v) >= 0 else NAN
    return {name + k: x for k, x in out.items()}


def welch(a, b):
    (na, ma, sa), (nb, mb, sb) = moments(a), moments(b)
    va, vb = sa / (na - 1) / na, sb / (nb - 1) / nb
    if va + vb < TINY**2:
        return {"t": NAN, "df": NAN, "logp": NAN, "p": NAN, "wlow": NAN}
    t, df = q(ma - mb) / mp.sqrt(q(va + vb)), q((va + vb) ** 2 / (va**2 / (na - 1) + vb**2 / (nb - 1)))
    log_p = student_log_p(t, df)
    crit = student_quantile(0.05, df)
    return {"t": t, "df": df, "logp": log_p, "p": mp.exp(log_p), "wlow": q(ma - mb) - crit * mp.sqrt(q(va + vb))}


def student_quantile(p, df):
    start = scipy.stats.t.isf(p / 2, float(df))
    f = lambda t: student_log_p(t, df) - mp.log(mp.mpf(p))
    t = mp.mpf(start)
    for _ in range(3):  # Newton: SciPy's is right to ten digits or more
        density = mp.exp(mp.loggamma((df + 1) / 2) - mp.loggamma(df / 2) - mp.log(df * mp.pi) / 2 - (df + 1) / 2 * mp.log1p(t * t / df))
        t += f(t) * mp.mpf(p) / (2 * density)
    return t


def hedges(a, b):
    (na, ma, sa), (nb, mb, sb) = moments(a), moments(b)
    m = na + nb - 2
    if (sa + sb) / m < TINY**2:
        return {"g": NAN}
    d = q(ma - mb) / mp.sqrt(q((sa + sb) / m))
    return {"g": d * mp.gamma(mp.mpf(m) / 2) / (mp.sqrt(mp.mpf(m) / 2) * mp.gamma(mp.mpf(m - 1) / 2))}


def splits(n, k):
    return itertools.combinations(range(n), k)


def count_splits(score, na):
    """hits, total over all splits: exact |n sum - na all| at least as large."""
    n, total = len(score), sum(score)
    seen = abs(n * sum(score[:na]) - na * total)
    hits = count = 0
    for s in splits(n, na):
        hits += abs(n * sum(score[i] for i in s) - na * total) >= seen
        count += 1
    return hits, count


def midranks2(v):
    s = sorted(v)
    return [int(2 * (sum(y < x for y in s)) + sum(y == x for y in s) + 1) for x in v]


def mann_whitney(a, b, exact):
    u = sum((x > y) + Fraction(x == y, 2) for x in a for y in b)
    out = {"u": q(Fraction(u))}
    if len(set(a + b)) == 1:
        return {**out, "mwp": NAN}
    n1, n2 = len(a), len(b)
    n = n1 + n2
    ties = sum(c**3 - c for c in (sum(y == x for y in a + b) for x in set(a + b)))
    var = mp.mpf(n1 * n2) / 12 * (n + 1 - mp.mpf(ties) / (n * (n - 1)))
    off = q(Fraction(u)) - mp.mpf(n1 * n2) / 2
    z = mp.sign(off) * max(mp.mpf(0), abs(off) - mp.mpf(1) / 2) / mp.sqrt(var)
    out["mwz"] = z
    if exact:
        out["mwhits"], out["mwtotal"] = count_splits(midranks2(a + b), n1)
        if ties == 0:
            p = scipy.stats.mannwhitneyu(a, b, method="exact").pvalue
            assert abs(p - out["mwhits"] / out["mwtotal"]) < 1e-12
    sp = scipy.stats.mannwhitneyu(a, b, method="asymptotic").pvalue
    assert abs(sp - 2 * mp.ncdf(-abs(z))) < 1e-9 * sp + 1e-14, (sp, z)
    return out


def gehan(a, fa, b, fb):
    """Scores of surely above minus surely below."""
    x = [(v, f, v <= f) for v, f in zip(a + b, fa + fb)]

    def order(p, r):
        if p[2] and r[2]:
            return 0
        if p[2]:
            return -1 if r[0] > p[1] else 0
        if r[2]:
            return 1 if p[0] > r[1] else 0
        return (p[0] > r[0]) - (p[0] < r[0])

    score = [sum(order(p, r) for r in x) for p in x]
    if not any(score):
        return {"gehan": sum(score[: len(a)]), "ghits": 0}
    hits, total = count_splits(score, len(a))
    return {"gehan": sum(score[: len(a)]), "ghits": hits}


def permutation(a, b):
    """a, b rational: the decimal numbers that the doubles stand for."""
    x = a + b
    if len(set(x)) == 1:
        return {"phits": 0}
    hits, total = count_splits(x, len(a))
    return {"phits": hits, "ptotal": total}


def signed_ranks(d, exact):
    d = [x for x in d if x != 0]
    if not d:
        return {"wp": NAN}
    r = midranks2([abs(x) for x in d])
    plus = sum(k for k, x in zip(r, d) if x > 0)
    out = {"wplus": mp.mpf(plus) / 2}
    far = abs(2 * plus - sum(r))
    out["wz"] = mp.sign(2 * plus - sum(r)) * max(0, mp.mpf(far) / 2 - 1) / mp.sqrt(mp.mpf(sum(k * k for k in r)) / 4)
    if exact:
        out["whits"] = sum(abs(sum(k * s for k, s in zip(r, signs))) >= far for signs in itertools.product((1, -1), repeat=len(r)))
        if len(set(r)) == len(r):
            p = scipy.stats.wilcoxon([float(x) for x in d], method="exact").pvalue
            assert abs(p - out["whits"] / 2 ** len(r)) < 1e-12
    return out


def flips(d):
    if not any(d):
        return {"fhits": 0}
    far = abs(sum(d))
    sums = [0]
    for x in d:
        sums = [s + x for s in sums] + [s - x for s in sums]
    return {"fhits": sum(abs(s) >= far for s in sums)}


def paired_t(d):
    n, m, ss = moments(d)
    if ss == 0:
        return {"pt": NAN, "plogp": NAN}
    t = q(m) * mp.sqrt(n) / mp.sqrt(q(ss) / (n - 1))
    return {"pt": t, "plogp": student_log_p(t, n - 1)}


def cliff(a, b):
    delta = Fraction(sum((x > y) - (x < y) for x in a for y in b), len(a) * len(b))
    na, nb = len(a), len(b)
    seen, half, z = (q(delta) + 1) / 2, mp.mpf(na + nb) / 2 - 1, mp.sqrt(2) * mp.erfinv(mp.mpf("0.95"))
    # The ends solve a quartic: (theta - seen)^2 (2 - theta) (1 + theta) = z^2 theta (1 - theta) (...) / (na nb)
    c = z * z / (na * nb)

    def mul(p, r):
        out = [mp.mpf(0)] * (len(p) + len(r) - 1)
        for i, x in enumerate(p):
            for j, y in enumerate(r):
                out[i + j] += x * y
        return out

    def add(p, r):
        n = max(len(p), len(r))
        p, r = [mp.mpf(0)] * (n - len(p)) + p, [mp.mpf(0)] * (n - len(r)) + r
        return [x + y for x, y in zip(p, r)]

    one = mp.mpf(1)
    left = mul(mul([one, -2 * seen, seen**2], [-one, 2 * one]), [one, one])
    inner = add(mul([-one, 2 * one], [one, one]), add([half * x for x in mul([-one, one], [one, one])], [half * x for x in mul([one, 0 * one], [-one, 2 * one])]))
    right = [c * x for x in mul([-one, one, 0 * one], inner)]
    poly = add(left, [-x for x in right])
    roots = [r.real for r in mp.polyroots(poly, maxsteps=500, extraprec=400) if abs(mp.im(r)) < mp.mpf(10) ** -12]
    low = [r for r in roots if -mp.mpf(10) ** -12 < r <= seen + mp.mpf(10) ** -12]
    high = [r for r in roots if seen - mp.mpf(10) ** -12 <= r < 1 + mp.mpf(10) ** -12]
    return {"delta": q(delta), "clow": 2 * min(low) - 1 if seen > 0 else -1, "chigh": 2 * max(high) - 1 if seen < 1 else 1}


def correlations(x, y, exact):
    n = len(x)
    if len(set(x)) == 1 or len(set(y)) == 1:
        return {"rho": NAN, "tau": NAN}
    rx, ry = [k - (n + 1) for k in midranks2(x)], [k - (n + 1) for k in midranks2(y)]
    rho_num = sum(i * j for i, j in zip(rx, ry))
    rho = rho_num / mp.sqrt(mp.mpf(sum(i * i for i in rx)) * sum(i * i for i in ry))
    sx = [[(p > r) - (p < r) for r in x] for p in x]
    sy = [[(p > r) - (p < r) for r in y] for p in y]
    con = sum(sx[i][j] * sy[i][j] for i in range(n) for j in range(n))
    tau = con / mp.sqrt(mp.mpf(sum(abs(k) for r in sx for k in r)) * sum(abs(k) for r in sy for k in r))
    assert abs(scipy.stats.spearmanr(x, y).statistic - rho) < 1e-10 and abs(scipy.stats.kendalltau(x, y).statistic - tau) < 1e-10
    out = {"rho": rho, "tau": tau}
    if exact:
        rh = th = 0
        for perm in itertools.permutations(range(n)):
            rh += abs(sum(rx[i] * ry[p] for i, p in enumerate(perm))) >= abs(rho_num)
            th += abs(sum(sx[i][j] * sy[perm[i]][perm[j]] for i in range(n) for j in range(i)) * 2) >= abs(con)
        out["rhohits"], out["tauhits"] = rh, th
    elif n > 9:
        if abs(rho) < 1:
            t = rho * mp.sqrt((n - 2) / (1 - rho**2))
            out["rhologp"] = student_log_p(t, n - 2)
        tx, ty = [sum(v == u for v in x) for u in set(x)], [sum(v == u for v in y) for u in set(y)]
        v0, vt, vu = n * (n - 1) * (2 * n + 5), sum(t * (t - 1) * (2 * t + 5) for t in tx), sum(t * (t - 1) * (2 * t + 5) for t in ty)
        v1 = mp.mpf(sum(t * (t - 1) for t in tx)) * sum(t * (t - 1) for t in ty) / (2 * n * (n - 1))
        v2 = mp.mpf(sum(t * (t - 1) * (t - 2) for t in tx)) * sum(t * (t - 1) * (t - 2) for t in ty) / (9 * n * (n - 1) * (n - 2))
        out["tauz"] = (mp.mpf(con) / 2) / mp.sqrt(mp.mpf(v0 - vt - vu) / 18 + v1 + v2)
        sp = scipy.stats.kendalltau(x, y, method="asymptotic").pvalue
        assert abs(sp - 2 * mp.ncdf(-abs(out["tauz"]))) < 1e-9 * sp
    return out


def text(x):
    if isinstance(x, int) or isinstance(x, np.integer):
        return str(int(x))
    return float(x).hex()


def numbers(v):
    return ",".join(repr(float(x)).removesuffix(".0") for x in v)


lines = []


def emit(kind, values, results):
    lines.append("\t".join([kind, *map(numbers, values), *(f"{k}={text(v)}" for k, v in results.items())]))


def rational(v):
    """The decimal that a double stands for."""
    return [Fraction(repr(float(x))) for x in v]


def exact_integers(v):
    r = rational(v)
    scale = math.lcm(*(x.denominator for x in r))
    return [int(x * scale) for x in r]


def two(kind, a, b, floors):
    a, b = [float(x) for x in a], [float(x) for x in b]
    small = math.comb(len(a) + len(b), len(a)) <= LIMIT
    r = {**describe(a), **welch(a, b), **hedges(a, b), **mann_whitney(a, b, small), **cliff(a, b)}
    if small:
        whole = exact_integers(a + b)
        r.update(permutation(whole[: len(a)], whole[len(a) :]))
        r.update(gehan(a, floors[: len(a)], b, floors[len(a) :]))
    emit(kind, [a, b, floors], r)


def paired(kind, a, b):
    a, b = [float(x) for x in a], [float(x) for x in b]
    d = [x - y for x, y in zip(a, b)]
    small = len(d) <= 12
    r = {**paired_t(d), **signed_ranks(d, small), **correlations(a, b, len(a) <= 6)}
    if small:
        whole = exact_integers(a + b)
        r.update(flips([x - y for x, y in zip(whole, whole[len(a) :])]))
    emit(kind, [a, b], r)


LIMIT = 2000
random.seed(20)


def draw(n, style):
    if style == 0:
        return [float(f"{random.lognormvariate(-9, 2):.6g}") for _ in range(n)]
    if style == 1:
        return [random.randint(0, 6) for _ in range(n)]  # ties and zeros
    if style == 2:
        return [round(random.gauss(0, 1), 2) for _ in range(n)]
    if style == 3:
        return [random.randint(1, 9) / 10 for _ in range(n)]  # decimal ties that doubles blur
    return [float(f"{10 ** random.uniform(-30, 0):.3g}") for _ in range(n)]  # huge ratios


for i in range(500):
    if i % 50 == 0:
        print("two", i, file=sys.stderr)
    style = i % 5
    na, nb = random.randint(2, 7), random.randint(2, 7)
    if i % 10 == 0:
        na, nb = random.randint(8, 60), random.randint(8, 40)
    a, b = draw(na, style), draw(nb, style)
    if i % 3 == 0:
        b = [float(f"{x * 3:.6g}") for x in b]
    floors = [random.choice(a + b) if random.random() < 0.5 else 0 for _ in range(na + nb)] if i % 2 else [sorted(a + b)[(na + nb) // 2]] * (na + nb)
    two("two", a, b, floors)
for i in range(500):
    if i % 50 == 0:
        print("paired", i, file=sys.stderr)
    n = random.randint(2, 12) if i % 10 else random.randint(13, 70)
    style = i % 5
    a = draw(n, style)
    paired("paired", a, draw(n, style) if i % 2 else [float(f"{x * random.uniform(0.5, 1.6):.6g}") for x in a])

# Awkward ones.
before = len(lines)
zero = lambda n: [0.0] * n
for a, b in (
    ([1, 1], [2, 2]), ([1, 1], [1, 1]), ([0, 0, 0], [0, 0, 0]), ([0, 0, 0], [0, 0, 1]), ([1, 2], [1, 2]), ([5, 5, 5], [5, 5, 6]),
    ([1e-170, 3e-170], [2e-170, 9e-170]), ([1e150, 2e150, 5e150], [1e-150, 2e-150]), ([1e300, 1.5e300], [1.7e300, 1e300]),
    ([1e15 + 1, 1e15 + 2, 1e15 + 3], [1e15 + 2, 1e15 + 4, 1e15 + 5]), ([0.1, 0.2, 0.6], [0.3, 0.3, 0.3]), ([0.1, 0.2, 0.3], [0.3, 0.2, 0.1]),
    ([1, 1e-20, 3e-20], [2e-20, 5e-20, 4e-20]), ([1, 1e-20], [2e-20, 1]), ([1e-300, 1], [1e-300, 1e-300]), ([1, 2, 3, 4, 5], [101, 102, 103, 104]),
    ([1 + 2**-45, 1], [1, 1 - 2**-46]), ([4, 4, 4, 4], [4, 4, 4, 4.0000001]), (range(1, 7), range(7, 13)), ([0, 0, 0, 0, 1e-12], [1, 1, 1, 2, 1]),
    ([5e-324, 1e-323], [5e-324, 2e-323, 5e-324]), ([-1, 1], [-1, 1]), ([-3, -2, -1], [1, 2, 3]), ([1, 2], [3, 4, 5, 6, 7, 8, 9]), ([0, 1e-9], [1e9, 1e-9]),
    ([1 / 3, 2 / 3], [1, 1 / 7]),
):
    a, b = list(map(float, a)), list(map(float, b))
    two("two", a, b, [sorted(a + b)[1]] * (len(a) + len(b)))
for a, b in (
    ([1, 2], [1, 2]), ([1, 2], [2, 1]), ([1, 2, 3], [1, 2, 4]), ([0, 0, 0], [0, 0, 0]), ([3, 3, 3], [1, 1, 1]), ([0.3, 0.6, 0.9], [0.1, 0.2, 0.3]),
    ([1e-200, 2e-200, 4e-200], [3e-200, 1e-200, 2e-200]), ([1e200, 1, 1e-200], [1e-200, 1, 1e200]), ([1, 1, 1, 2], [1, 1, 2, 1]), ([5] * 6, [1, 2, 3, 4, 5, 6]),
    ([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]), ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]), ([0, 0, 1], [0, 1, 0]), ([1, 2, 3, 4], [2, 3, 4, 5]), ([-1, 2, -3, 4], [1, -2, 3, -4]),
    ([1e-9, 1, 1e9, 2], [1, 1, 1, 1]), ([7, 7, 7, 7, 8], [7, 7, 7, 8, 7]), ([1e15, 1e15 + 1, 1e15 + 2], [1e15, 1e15, 1e15 + 4]), (list(range(20)), list(range(20))),
    (list(range(15)), [14 - i for i in range(15)]), ([1] * 11 + [2], [2] + [1] * 11), ([0.5] * 7, [0.25] * 7), ([1, 2, 4, 8, 16, 32], [32, 16, 8, 4, 2, 1]), ([1e-12, 0, 0, 0], [0, 0, 0, 0]),
):
    paired("paired", a, b)
awkward = len(lines) - before


# BCa intervals from the same draws: Philox in numpy, everything else by SciPy and numpy.
def philox(seed, draw, block):
    c = [np.full(draw.shape, block, np.uint64), np.zeros_like(draw), draw & 0xFFFFFFFF, draw >> 32]
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> 32) ^ c[1] ^ np.uint64(k0), b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ np.uint64(k1), a & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, -1)


def indices(seed, draws, sizes):
    """One array [draws, n] for each of the sizes n: word w of draw d times n, over 2^32."""
    d = np.arange(draws, dtype=np.uint64)
    words = np.concatenate([philox(seed, d, block) for block in range(-(-sum(sizes) // 4))], -1)
    out, at = [], 0
    for n in sizes:
        w = words[:, at : at + n] * np.uint64(n)
        assert ((w & 0xFFFFFFFF) >= 2**32 % n).all()  # no word is rejected
        out.append((w >> 32).astype(int))
        at += n
    return out


def bca(statistic, groups, seed, draws=10000):
    drawn = np.array([statistic(*(g[i] for g, i in zip(groups, rows))) for rows in zip(*indices(seed, draws, [len(g) for g in groups]))])
    seen = statistic(*groups)
    z0 = scipy.stats.norm.ppf(((drawn < seen).sum() + (drawn <= seen).sum()) / 2 / draws)
    cubes = squares = 0
    for k, g in enumerate(groups):
        left = [statistic(*(np.delete(h, i) if j == k else h for j, h in enumerate(groups))) for i in range(len(g))]
        u = (len(g) - 1) * (math.fsum(left) / len(g) - np.array(left)) / len(g)
        cubes, squares = cubes + (u**3).sum(), squares + (u**2).sum()
    a = cubes / 6 / squares**1.5 if squares > 0 else 0
    z = scipy.stats.norm.ppf([0.025, 0.975])
    p = scipy.stats.norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))
    ends = np.quantile(drawn, p)
    # SciPy's own, with its own draws: within four standard errors of either quantile
    other = scipy.stats.bootstrap(groups, lambda *x, axis=-1: np.apply_along_axis(lambda v: statistic(v), -1, x[0]) if len(x) == 1 else statistic(*x), n_resamples=draws, method="BCa",
                                  vectorized=len(groups) == 1, rng=np.random.default_rng(1)).confidence_interval
    for end, share in zip(other, p):
        if math.isnan(end):  # SciPy has no acceleration where leaving one out changes nothing; here it is 0
            continue
        reach = 4 * math.sqrt(2 * share * (1 - share) / draws) + 0.004
        low, high = np.quantile(drawn, [max(0, share - reach), min(1, share + reach)])
        assert low - 1e-12 * abs(low) <= end <= high + 1e-12 * abs(high), (end, low, high)
    return ends


fmean = lambda v: float(sum(map(Fraction, v)) / len(v))  # rounded once: draws of equal sums tie
for i in range(12):
    a, b = np.array(draw(5 + 2 * i, (0, 1, 2, 0)[i % 4])), np.array(draw(12 - i // 2, 0))
    r = {}
    r["mlow"], r["mhigh"] = bca(fmean, [a], 100 + i)
    r["dlow"], r["dhigh"] = bca(np.median, [a], 100 + i)
    if i % 4 in (0, 3):
        r["glow"], r["ghigh"] = np.exp(bca(fmean, [np.log(a)], 100 + i))
        r["rlow"], r["rhigh"] = np.exp(bca(lambda x, y: math.log(fmean(x) / fmean(y)), [a, b], 100 + i))
    emit("boot", [a, b, [100 + i]], r)

# Corrections, and the largest Welch t over cells with every split listed.
for i in range(20):
    p = [round(random.random() ** 3, random.choice((2, 5))) for _ in range(random.randint(1, 30))]
    order = sorted(range(len(p)), key=lambda k: p[k])
    holm, bound = [0] * len(p), 0
    for k, at in enumerate(order):
        bound = holm[at] = max(bound, min(1, (len(p) - k) * p[at]))
    emit("adjust", [p, holm, scipy.stats.false_discovery_control(p, method="bh")], {"n": len(p)})


def abs_t(a, b):
    a, b = [x for x in a if x == x], [x for x in b if x == x]
    if min(len(a), len(b)) < 2:
        return 0
    (na, ma, sa), (nb, mb, sb) = moments(a), moments(b)
    e2 = sa / (na - 1) / na + sb / (nb - 1) / nb
    if e2 == 0:
        return math.inf if ma != mb else 0
    return math.sqrt(float((ma - mb) ** 2 / e2))


for i in range(12):
    cells, na, nb = random.randint(1, 6), random.randint(2, 4), random.randint(2, 5)
    n = na + nb
    v = [draw(n, (0, 1, 2, 3)[i % 4]) for _ in range(cells)]
    if i % 3 == 1:
        v[0][random.randrange(n)] = NAN
    v = [[float(x) for x in row] for row in v]
    seen = [abs_t(row[:na], row[na:]) for row in v]
    ok = [0 < s < math.inf or (s == 0 and len({x for x in row if x == x}) > 1 and sum(x == x for x in row[:na]) > 1 and sum(x == x for x in row[na:]) > 1) for s, row in zip(seen, v)]
    hits, total = [0] * cells, 0
    for s in splits(n, na):
        rest = [k for k in range(n) if k not in s]
        most = max([abs_t([row[k] for k in s], [row[k] for k in rest]) for row, o in zip(v, ok) if o], default=0)
        hits = [h + (most >= t * (1 - 1e-9)) for h, t in zip(hits, seen)]
        total += 1
    emit("maxt", [[na, nb], sum(v, []), [h if o else NAN for h, o in zip(hits, ok)]], {"total": total})

for d in (0.2, 0.31, 0.5, 0.8, 1.2, 2, 5):
    def reach(n):
        t = scipy.stats.t.isf(0.025, 2 * n - 2)
        return scipy.stats.nct.sf(t, 2 * n - 2, d * math.sqrt(n / 2)) + scipy.stats.nct.cdf(-t, 2 * n - 2, d * math.sqrt(n / 2))
    n = 2
    while reach(n) < 0.8:
        n += 1
    emit("power", [[d]], {"n": n, "power": reach(n)})

# Noncentral t, as an integral over chi with 40 digits.
for df in (1, 2, 3, 7.5, 18, 58, 1000, 1e6):
    for t, delta in ((0.5, 0), (2, 1), (-1, 2), (2.1, 2.8), (5, 4), (40, 35), (40, 60), (0, 1.5), (1.96, -3)):
        d, t_, de = mp.mpf(df), mp.mpf(t), mp.mpf(delta)
        with mp.workdps(25):
            mode = mp.sqrt(max(d - 1, 0))
            lo, hi = max(mp.mpf(0), mode - 11), mode + 12
            norm = (d / 2 - 1) * mp.log(2) + mp.loggamma(d / 2)
            cut = de * mp.sqrt(d) / t_ if t_ else mode
            points = sorted({lo, hi, *(lo + (hi - lo) * k / 24 for k in range(25)), *(max(lo, min(hi, cut + k * mp.sqrt(d) / (abs(t_) + 1) * 1.5)) for k in range(-6, 7))})
            f = lambda u: mp.exp((d - 1) * mp.log(u) - u * u / 2 - norm) if u > 0 else (mp.sqrt(2 / mp.pi) if df == 1 else mp.mpf(0))
            value = mp.quad(lambda u: f(u) * mp.ncdf(t_ * u / mp.sqrt(d) - de), points)
        assert abs(value - scipy.stats.nct.cdf(t, df, delta)) < 1e-6 or abs(delta) > 30 or df >= 1000, (df, t, delta, value, scipy.stats.nct.cdf(t, df, delta))
        lines.append(f"nct\t{t}\t{df}\t{delta}\tcdf={text(value)}")
for df in (1, 1.5, 2, 5, 18, 100, 1234.5, 1e5, 1e6):
    for t in (0.001, 0.5, 2, 7, 15, 40):
        lines.append(f"student\t{t}\t{df}\tlogp={text(student_log_p(t, df))}")

with open(OUT, "w") as f:
    f.write("\n".join(lines) + "\n")
print(len(lines), "lines,", awkward, "awkward,", os.path.getsize(OUT), "bytes", file=sys.stderr)
