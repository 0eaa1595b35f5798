/* Formulas and their derivation: docs/method.md, "Activations".
 *
 * Every activation here is x c(x) with c a distribution function: the logistic one of x (SiLU), the logistic one of y(x)
 * (GELU, tanh form), the normal one (GELU, erf form). A change of x by e: d(x c) = e c(x + e) + x (c(x + e) - c(x)). */
#include "compute/cpu/isa/activation.h"

#include "compute/cpu/isa/vmath.h"

/* GELU's tanh form, 1/2 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), is x sigmoid(y(x)), y(x) = sqrt(8/pi) (x + 0.044715 x^3). */
#define GELU_1 0x1.9884533d43651p+0f
#define GELU_3 0x1.2444f2a4d8b4bp-4f

KS_INLINE ks_vf gelu_argument(ks_vf x)
{
    return x * ks_fma(x * x, ks_splat(GELU_3), ks_splat(GELU_1));
}

/* y(x + e) - y(x); of the cubes' difference 3 x (x + e) + e^2 is left, which is never negative. */
KS_INLINE ks_vf gelu_argument_change(ks_vf x, ks_vf e)
{
    return e * ks_fma(ks_fma(3 * x, x + e, e * e), ks_splat(GELU_3), ks_splat(GELU_1));
}

/* exp(-|x|), then sigmoid(x) and sigmoid(-x) from it. */
KS_INLINE ks_vf decay(ks_vf x)
{
    return ks_v_expf((ks_vf)((ks_vi)x | INT32_MIN));
}

/* What a change of x by e, of the logistic argument from y to y + dy, does to x sigmoid(y): *share = sigmoid(y), and the change. */
static ks_vf logistic_far(ks_vf x, ks_vf e, ks_vf y, ks_vf dy, ks_vf *share)
{
    /* The shares' difference is sign(dy) s(max) s(-min) (1 - exp(-|dy|)), where nothing cancels or overflows for dy of any size. */
    const ks_vf one = ks_splat(1), y2 = y + dy, t = decay(y), t2 = decay(y2), r = 1 / (1 + t), r2 = 1 / (1 + t2);
    const ks_vf before = ks_sel(y < 0, t, one) * r, after = ks_sel(y2 < 0, t2, one) * r2;
    const ks_vf not_before = ks_sel(y < 0, one, t) * r, not_after = ks_sel(y2 < 0, one, t2) * r2;
    const ks_vf z = ks_v_expm1f((ks_vf)((ks_vi)dy | INT32_MIN));
    *share = before;
    return ks_fma(e, after, x * ks_sel(dy < 0, before * not_after * z, -(after * not_before * z)));
}

/* The same where exp of neither y nor dy is far from 1: with t = exp(-y), E = exp(dy), after = E / (t + E), and the difference is
 * t (E - 1) / ((1 + t) (t + E)). One division serves all. */
KS_INLINE ks_vf logistic_change(ks_vf x, ks_vf e, ks_vf y, ks_vf dy, ks_vf *share)
{
    const float bound = 30;
    ks_vf n, m;
    const ks_vf pt = ks_exp_parts(-y, &n), t = (pt + 1) * ks_pow2(n);
    const ks_vf pe = ks_exp_parts(dy, &m), two_m = ks_pow2(m), E = (pe + 1) * two_m, z = ks_fma(two_m, pe, two_m - 1);
    const ks_vf d = 1 + t, d2 = t + E, r = 1 / (d * d2);
    const ks_vf change = ks_fma(e, E * d, x * (t * z)) * r;
    *share = d2 * r;

    const ks_vi near = (ks_abs(y) <= bound) & (ks_abs(dy) <= bound);
    if (__builtin_expect(ks_all(near), 1)) return change;
    ks_vf far_share;
    const ks_vf far = logistic_far(x, e, y, dy, &far_share);
    *share = ks_sel(near, *share, far_share);
    return ks_sel(near, change, far);
}

/* Upper tail of the normal distribution for x >= 0: exp(-x^2/2) times a polynomial in (x - 4) / (x + 4) over 1 + x.
 * Relative error 6e-15 and that of exp. Coefficients: tests/fixtures/make_normal_tail.py. */
KS_INLINE ks_vd normal_tail(ks_vd x)
{
    static const double c[] = {0x1.e361ea6fba141p-2,  -0x1.8c18f2086ee48p-4,  0x1.cabd72a61441fp-7,   0x1.d4969f11aabe9p-6,
                               -0x1.07c3c2588235fp-5, 0x1.25dd71f4a5986p-6,   -0x1.47d5fc3a1e73ap-8,  -0x1.2b7f31fe07944p-12,
                               0x1.6c5370f8b0348p-11, -0x1.8c1591fa90ffdp-14, -0x1.70789f03cde64p-14, 0x1.64b93b15a3347p-16,
                               0x1.c8ef073f7f41dp-17, -0x1.d04b47c13c733p-19, -0x1.5c2d43f29cb5ap-19, 0x1.dbc85f25fc94cp-22,
                               0x1.1b5bc2ace0943p-21, -0x1.2446c3a1d6d8ap-25, -0x1.8b009f8f7c76bp-24, 0x1.5b5760b9f9e73p-33,
                               0x1.40828c7d94706p-27};
    return ks_v_exp(-0.5 * x * x) * ks_polyd((x - 4) / (x + 4), 21, c) / (1 + x);
}

/* Phi(x), and Phi(b) - Phi(a) for b = a + e. */
KS_INLINE ks_vd normal(ks_vd x)
{
    const ks_vd tail = normal_tail(ks_seld(x < 0, -x, x));
    return ks_seld(x < 0, tail, 1 - tail);
}

KS_INLINE ks_vd normal_change(ks_vd a, ks_vd e)
{
    const ks_vd b = a + e;
    /* Large e: tails on the side where they are small. */
    const ks_vl right = a + b > 0;
    const ks_vd far = ks_seld(right, normal(-a) - normal(-b), normal(b) - normal(a));
    /* |e| <= 1/2: the density's integral by five Gauss-Legendre points on [0, 1]; relative error 4e-12 for |a| <= 3, 2e-7 at 8, where it no
     * longer counts. */
    static const double at[] = {0.046910077030668004, 0.23076534494715845, 0.5, 0.76923465505284155, 0.953089922969332},
                        weight[] = {0.11846344252809454, 0.23931433524968324, 0.28444444444444444, 0.23931433524968324,
                                    0.11846344252809454};
    ks_vd sum = ks_splatd(0);
    for (int i = 0; i < 5; i++) {
        const ks_vd t = a + at[i] * e;
        sum += weight[i] * ks_v_exp(-0.5 * t * t);
    }
    const ks_vd near = e * (sum * 0x1.9884533d43651p-2); /* 1 / sqrt(2 pi) */
    return ks_seld((e < 0.5) & (e > -0.5), near, far);
}

/* Sixteen elements at once in double, for the one activation that needs it: a = g c(g) and its change under dg, times u and du. */
static void erf_block(float *a, const float *g, const float *dg, const float *u, const float *du)
{
    enum { N = KS_LANES / 2 };
    double x[16], e[16], y[16], dy[16];
    for (int l = 0; l < 16; l++) {
        x[l] = (double)g[l];
        e[l] = dg ? (double)dg[l] : 0;
    }
    for (int l = 0; l < 16; l += N) {
        const ks_vd xv = ks_loadd(x + l), ev = ks_loadd(e + l);
        ks_stored(y + l, xv * normal(xv));
        if (dg) ks_stored(dy + l, ev * normal(xv + ev) + xv * normal_change(xv, ev));
    }
    for (int l = 0; l < 16; l++) {
        if (!dg) a[l] = (float)(u ? y[l] * (double)u[l] : y[l]);
        else if (!u) a[l] = (float)dy[l];
        else a[l] = (float)(dy[l] * ((double)u[l] + (double)du[l]) + y[l] * (double)du[l]);
    }
}

/* n <= 16 elements of state: a = act(g) u, or act(g) without u. */
KS_INLINE void state_block(float *a, const float *g, const float *u, const int act)
{
    if (act == KS_ACT_GELU_ERF) {
        erf_block(a, g, NULL, u, NULL);
        return;
    }
    for (int l = 0; l < 16; l += KS_LANES) {
        const ks_vf x = ks_load(g + l);
        ks_vf y = x * ks_v_sigmoidf(act == KS_ACT_SILU ? x : gelu_argument(x));
        if (u) y *= ks_load(u + l);
        ks_store(a + l, y);
    }
}

/* The same for effects: d(act(g) u) = d act(g) (u + du) + act(g) du. */
KS_INLINE void diff_block(float *a, const float *dg, const float *du, const float *g, const float *u, const int act)
{
    if (act == KS_ACT_GELU_ERF) {
        erf_block(a, g, dg, u, du);
        return;
    }
    for (int l = 0; l < 16; l += KS_LANES) {
        const ks_vf x = ks_load(g + l), e = ks_load(dg + l);
        const ks_vf y = act == KS_ACT_SILU ? x : gelu_argument(x), dy = act == KS_ACT_SILU ? e : gelu_argument_change(x, e);
        ks_vf share, d = logistic_change(x, e, y, dy, &share);
        if (u) {
            const ks_vf uu = ks_load(u + l), duu = ks_load(du + l);
            d = ks_fma(d, uu + duu, x * share * duu);
        }
        ks_store(a + l, d);
    }
}

/* Rows in blocks of sixteen; the last, shorter block goes through padded copies. */
KS_INLINE void state_rows(float *a, const float *g, const float *u, size_t from, size_t to, size_t F, const int act)
{
    for (size_t r = from; r < to; r++) {
        const float *x = g + r * F, *y = u ? u + r * F : NULL;
        float *out = a + r * F;
        size_t i = 0;
        for (; i + 16 <= F; i += 16) state_block(out + i, x + i, y ? y + i : NULL, act);
        if (i < F) {
            float b[3][16] = {{0}};
            memcpy(b[0], x + i, (F - i) * sizeof *x);
            if (y) memcpy(b[1], y + i, (F - i) * sizeof *y);
            state_block(b[2], b[0], y ? b[1] : NULL, act);
            memcpy(out + i, b[2], (F - i) * sizeof *out);
        }
    }
}

KS_INLINE void diff_rows(float *da, const float *dg, const float *du, const float *g, const float *u, const int64_t *x_rows, size_t from,
                         size_t to, size_t F, const int act)
{
    for (size_t r = from; r < to; r++) {
        const float *e = dg + r * F, *de = u ? du + r * F : NULL, *x = g + (size_t)x_rows[r] * F, *y = u ? u + (size_t)x_rows[r] * F : NULL;
        float *out = da + r * F;
        size_t i = 0;
        for (; i + 16 <= F; i += 16) diff_block(out + i, e + i, u ? de + i : NULL, x + i, u ? y + i : NULL, act);
        if (i < F) {
            float b[5][16] = {{0}};
            const size_t bytes = (F - i) * sizeof *out;
            memcpy(b[0], e + i, bytes);
            memcpy(b[2], x + i, bytes);
            if (u) {
                memcpy(b[1], de + i, bytes);
                memcpy(b[3], y + i, bytes);
            }
            diff_block(b[4], b[0], u ? b[1] : NULL, b[2], u ? b[3] : NULL, act);
            memcpy(out + i, b[4], bytes);
        }
    }
}

/* Without a gate the activation's argument is u. */
void KS_FN(ks_activate_rows)(float *a, const float *g, const float *u, size_t from, size_t to, size_t F, int act)
{
    const float *x = g ? g : u, *y = g ? u : NULL;
    switch (act) {
    case KS_ACT_SILU:
        state_rows(a, x, y, from, to, F, KS_ACT_SILU);
        break;
    case KS_ACT_GELU_TANH:
        state_rows(a, x, y, from, to, F, KS_ACT_GELU_TANH);
        break;
    case KS_ACT_GELU_ERF:
        state_rows(a, x, y, from, to, F, KS_ACT_GELU_ERF);
        break;
    }
}

void KS_FN(ks_activate_diff_rows)(float *da, const float *dg, const float *du, const float *g, const float *u, const int64_t *x_rows,
                                  size_t from, size_t to, size_t F, int act)
{
    const float *e = g ? dg : du, *de = g ? du : NULL, *x = g ? g : u, *y = g ? u : NULL;
    switch (act) {
    case KS_ACT_SILU:
        diff_rows(da, e, de, x, y, x_rows, from, to, F, KS_ACT_SILU);
        break;
    case KS_ACT_GELU_TANH:
        diff_rows(da, e, de, x, y, x_rows, from, to, F, KS_ACT_GELU_TANH);
        break;
    case KS_ACT_GELU_ERF:
        diff_rows(da, e, de, x, y, x_rows, from, to, F, KS_ACT_GELU_ERF);
        break;
    }
}
