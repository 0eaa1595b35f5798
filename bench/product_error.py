#!/usr/bin/python3
"""What a product of the CUDA backend loses, against the product in double: operands in 3, 2, 1 bf16 parts times bf16 weights with sums as
tensor cores make them, and plain fp32 sums with f32 and f16 weights. Needs numpy; no GPU. A GPU's own figures of the same table:
ctest -R test_kernels_products_gpu -V.

Tensor cores are a model after measurements of V100, T4 and A100 (Fasi, Higham, Mikaitis, Pranesh 2021, PeerJ Computer Science 7:e330): the
products of 8 terms (--terms 16: an assumption for later GPUs) are exact; they and the running sum are aligned to the largest of them and cut
to 24 bits behind its leading one, added, and cut to fp32. Each part has a running sum of its own and is added to the result in fp32,
smallest part first.

Usage: product_error.py [--rows N] [--columns N] [--terms N]
"""
import argparse

import numpy as np

BITS = 24
LENGTHS = [576, 2048, 3584, 8192, 18944]


def bf16(x):
    """The nearest bf16, ties to even, as float32."""
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    bits += 0x7FFF + (bits >> 16 & 1)
    return (bits & 0xFFFF0000).astype(np.uint32).view(np.float32)


def parts(x, n):
    out = []
    for _ in range(n):
        out.append(bf16(x))
        x = x - out[-1]
    return out


def cut(x, quantum):
    return np.trunc(x / quantum) * quantum


def tensor_cores(x, w, n):
    total = np.zeros((x.shape[0], w.shape[0]))
    x, w = x.astype(np.float64), w.astype(np.float64)
    for k in range(0, x.shape[1], n):
        terms = x[:, None, k:k + n] * w[None, :, k:k + n]
        largest = np.maximum(np.abs(terms).max(2), np.abs(total))
        quantum = np.ldexp(1.0, np.frexp(largest)[1] - 1 - BITS)
        total = cut(terms, quantum[..., None]).sum(2) + cut(total, quantum)
        total = cut(total, np.ldexp(1.0, np.frexp(total)[1] - 24))
    return total.astype(np.float32)


def of_parts(x, w, n, terms):
    y = np.float32(0)
    for part in reversed(parts(x, n)):
        y = y + tensor_cores(part, w, terms)
    return y


def fp32(x, w):
    """One fused multiply-add after the other; a double holds the exact product."""
    total = np.zeros((x.shape[0], w.shape[0]), np.float32)
    x, w = x.astype(np.float64), w.astype(np.float64)
    for k in range(x.shape[1]):
        total = (x[:, None, k] * w[None, :, k] + total).astype(np.float32)
    return total


def rows(kind, n, K, rng):
    x = rng.standard_normal((n, K))
    if kind == "heavy tails":  # as states: a few channels are a hundred times the others
        x *= np.exp(rng.standard_normal((n, K)))
        x[:, rng.choice(K, 4, replace=False)] *= 100
    if kind == "effects of 1e-12":
        x *= 1e-12 * np.exp(rng.standard_normal((n, K)))
    return x.astype(np.float32)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--rows", type=int, default=32)
    p.add_argument("--columns", type=int, default=32)
    p.add_argument("--terms", type=int, default=8)
    a = p.parse_args()
    print("| K | rows | 3 parts | 2 parts | 1 part | fp32, f32 weights | fp32, f16 weights |\n|---|---|---|---|---|---|---|")
    for K in LENGTHS:
        for kind in ("normal", "heavy tails", "effects of 1e-12"):
            rng = np.random.default_rng(K)
            x = rows(kind, a.rows, K, rng)
            w = (0.02 * rng.standard_normal((a.columns, K))).astype(np.float32)
            half = w.astype(np.float16).astype(np.float32)
            short = bf16(w)
            worst = []
            for y, weights in [(of_parts(x, short, n, a.terms), short) for n in (3, 2, 1)] + [(fp32(x, w), w), (fp32(x, half), half)]:
                exact = x.astype(np.float64) @ weights.astype(np.float64).T
                worst.append((np.linalg.norm(y - exact, axis=1) / np.linalg.norm(exact, axis=1)).max())
            print(f"| {K} | {kind} |", " | ".join(f"{e:.1e}" for e in worst), "|", flush=True)


main()
