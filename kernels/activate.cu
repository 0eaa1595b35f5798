/* Activations of states and effects (docs/method.md, "Activations"): the formulas of src/compute/cpu/isa/activation.c, with CUDA's own
 * exponentials (at most 1 ulp). */
#include "kernels/kernels.h"

#include "kernels/operand.cuh"
#include "model/arch.h"

#include <math.h>

namespace
{
/* sqrt(8/pi) (x + 0.044715 x^3), of which the logistic function is GELU's tanh form; and its change from x to x + e. */
#define GELU_1 (float)0x1.9884533d43651p+0
#define GELU_3 (float)0x1.2444f2a4d8b4bp-4
__device__ __forceinline__ float gelu_argument(float x)
{
    return x * fmaf(x * x, GELU_3, GELU_1);
}
__device__ __forceinline__ float gelu_argument_change(float x, float e)
{
    return e * fmaf(fmaf(3 * x, x + e, e * e), GELU_3, GELU_1);
}

/* sigmoid(y), right for tiny results too. */
__device__ __forceinline__ float sigmoid(float y)
{
    const float t = expf(-fabsf(y));
    return (y < 0 ? t : 1) / (1 + t);
}

/* The change of x sigmoid(y) when x changes by e and y by dy, for y and dy of any size; *share = sigmoid(y). */
__device__ float logistic_far(float x, float e, float y, float dy, float *share)
{
    const float y2 = y + dy, t = expf(-fabsf(y)), t2 = expf(-fabsf(y2)), r = 1 / (1 + t), r2 = 1 / (1 + t2);
    const float before = (y < 0 ? t : 1) * r, after = (y2 < 0 ? t2 : 1) * r2;
    const float not_before = (y < 0 ? 1 : t) * r, not_after = (y2 < 0 ? 1 : t2) * r2;
    const float z = expm1f(-fabsf(dy));
    *share = before;
    return fmaf(e, after, x * (dy < 0 ? before * not_after * z : -(after * not_before * z)));
}

__device__ __forceinline__ float logistic_change(float x, float e, float y, float dy, float *share)
{
    if (!(fabsf(y) <= 30 && fabsf(dy) <= 30)) return logistic_far(x, e, y, dy, share);
    const float t = expf(-y), E = expf(dy), z = expm1f(dy), d = 1 + t, d2 = t + E, r = 1 / (d * d2);
    *share = d2 * r;
    return fmaf(e, E * d, x * (t * z)) * r;
}

/* Phi(x), and Phi(a + e) - Phi(a). */
__device__ __forceinline__ double normal(double x)
{
    return 0.5 * erfc(-x * 0.70710678118654752440);
}
__device__ __forceinline__ double normal_change(double a, double e)
{
    const double b = a + e;
    if (fabs(e) < 0.5) { /* the density's integral by five Gauss-Legendre points */
        const double at[5] = {0.046910077030668004, 0.23076534494715845, 0.5, 0.76923465505284155, 0.953089922969332};
        const double weight[5] = {0.11846344252809454, 0.23931433524968324, 0.28444444444444444, 0.23931433524968324, 0.11846344252809454};
        double sum = 0;
        for (int i = 0; i < 5; i++) {
            const double t = a + at[i] * e;
            sum += weight[i] * exp(-0.5 * t * t);
        }
        return e * (sum * 0x1.9884533d43651p-2); /* 1 / sqrt(2 pi) */
    }
    return a + b > 0 ? normal(-a) - normal(-b) : normal(b) - normal(a);
}

template <int ACT> __device__ __forceinline__ float activated(float x, bool gated, float u)
{
    if (ACT == KS_ACT_GELU_ERF) {
        const double y = (double)x * normal((double)x);
        return (float)(gated ? y * (double)u : y);
    }
    const float y = x * sigmoid(ACT == KS_ACT_SILU ? x : gelu_argument(x));
    return gated ? y * u : y;
}

/* d(f u) = df (u + du) + f du */
template <int ACT> __device__ __forceinline__ float activated_change(float x, float e, bool gated, float u, float du)
{
    if (ACT == KS_ACT_GELU_ERF) {
        const double a = (double)x, b = (double)e;
        const double change = b * normal(a + b) + a * normal_change(a, b);
        if (!gated) return (float)change;
        return (float)(change * ((double)u + (double)du) + a * normal(a) * (double)du);
    }
    const bool silu = ACT == KS_ACT_SILU;
    float share;
    const float change = logistic_change(x, e, silu ? x : gelu_argument(x), silu ? e : gelu_argument_change(x, e), &share);
    return gated ? fmaf(change, u + du, x * share * du) : change;
}

/* x: the activation's argument; u: what its result is multiplied by, or NULL. */
template <int ACT> struct activate {
    ks_operand a;
    const float *x, *u;

    template <int W> __device__ void at(size_t i, size_t c) const
    {
        const size_t p = i * a.K + c;
        const ks_pack<float, W> xs = ks_load<W>(x + p);
        ks_pack<float, W> us = xs;
        if (u) us = ks_load<W>(u + p);
        for (int k = 0; k < W; k++) us.v[k] = activated<ACT>(xs.v[k], u, us.v[k]);
        a.store(i, c, us.v);
    }
};

template <int ACT> struct activate_diff {
    ks_operand da;
    const float *dx, *du, *x, *u;
    const int64_t *x_rows;

    template <int W> __device__ void at(size_t i, size_t c) const
    {
        const size_t p = i * da.K + c, q = (size_t)x_rows[i] * da.K + c;
        const ks_pack<float, W> es = ks_load<W>(dx + p), xs = ks_load<W>(x + q);
        ks_pack<float, W> us = xs, dus = es;
        if (u) {
            us = ks_load<W>(u + q);
            dus = ks_load<W>(du + p);
        }
        for (int k = 0; k < W; k++) dus.v[k] = activated_change<ACT>(xs.v[k], es.v[k], u, us.v[k], dus.v[k]);
        da.store(i, c, dus.v);
    }
};

template <int ACT> int activate_as(const ks_operand &a, const float *g, const float *u, size_t n, void *stream)
{
    const size_t F = a.K;
    const activate<ACT> f = {a, g ? g : u, g ? u : NULL};
    return ks_rows_launch(f, a.packs() && ks_packs(g, F, 4) && ks_packs(u, F, 4), n, F, stream);
}

template <int ACT>
int activate_diff_as(const ks_operand &da, const float *dg, const float *du, const float *g, const float *u, const int64_t *x_rows,
                     size_t n, void *stream)
{
    const size_t F = da.K;
    const activate_diff<ACT> f = {da, g ? dg : du, g ? du : NULL, g ? g : u, g ? u : NULL, x_rows};
    const bool packs = da.packs() && ks_packs(g ? dg : du, F, 4) && ks_packs(du, F, 4) && ks_packs(g, F, 4) && ks_packs(u, F, 4);
    return ks_rows_launch(f, packs, n, F, stream);
}
} // namespace

int ks_k_activate(void *a, int form, const float *g, const float *u, size_t n, size_t F, int act, void *stream)
{
    const ks_operand to = {a, form, F};
    if (act == KS_ACT_SILU) return activate_as<KS_ACT_SILU>(to, g, u, n, stream);
    if (act == KS_ACT_GELU_TANH) return activate_as<KS_ACT_GELU_TANH>(to, g, u, n, stream);
    return activate_as<KS_ACT_GELU_ERF>(to, g, u, n, stream);
}

int ks_k_activate_diff(void *da, int form, const float *dg, const float *du, const float *g, const float *u, const int64_t *x_rows,
                       size_t n, size_t F, int act, void *stream)
{
    const ks_operand to = {da, form, F};
    if (act == KS_ACT_SILU) return activate_diff_as<KS_ACT_SILU>(to, dg, du, g, u, x_rows, n, stream);
    if (act == KS_ACT_GELU_TANH) return activate_diff_as<KS_ACT_GELU_TANH>(to, dg, du, g, u, x_rows, n, stream);
    return activate_diff_as<KS_ACT_GELU_ERF>(to, dg, du, g, u, x_rows, n, stream);
}
