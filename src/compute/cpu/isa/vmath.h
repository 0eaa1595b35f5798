/* vmath.h - exp and its relatives, the same bits on every processor and at every vector width.
 *
 * ks_v_<name>(v) is one vector (inline, for the sources of this directory); ks_<name>(y, x, n) is an array, y may be x, reached through
 * ks_cpu_ops. Only + - * / and explicit fma are used, each rounded to nearest, so the compiler and the width can change nothing.
 * Denormals are kept. Arguments of +-0 may give a zero of the other sign; NaN gives NaN.
 * Polynomials: tests/fixtures/make_vmath.py.
 *
 *   float            value                  largest error, ulp (all 2^32 arguments: test_vmath --exhaustive)
 *   expf             e^x                    0.99
 *   expm1f           e^x - 1                1.44
 *   tanhf            tanh x                 1.35
 *   sigmoidf         1 / (1 + e^-x)         1.48      1 - sigmoid(x) = sigmoid(-x)
 *   slopef           sigmoid'(x)            1.49      s (1 - s) without cancellation
 *   sech2f           1 - tanh(x)^2          1.49      without cancellation
 *   double                                  (random arguments against long double: test_vmath)
 *   exp              e^x                    1.00
 *   expm1            e^x - 1                1.82
 *   expm1_minus_x    e^x - 1 - x            1.82
 *   log              log x                  0.83
 *   log1p            log(1 + x)             0.86
 */
#ifndef KS_COMPUTE_CPU_ISA_VMATH_H
#define KS_COMPUTE_CPU_ISA_VMATH_H

#include "compute/cpu/isa/vec.h"

#include <math.h>

typedef void ks_map_float_fn(float *y, const float *x, size_t n);
typedef void ks_map_double_fn(double *y, const double *x, size_t n);
KS_DECLARE(ks_map_float_fn, ks_expf);
KS_DECLARE(ks_map_float_fn, ks_expm1f);
KS_DECLARE(ks_map_float_fn, ks_tanhf);
KS_DECLARE(ks_map_float_fn, ks_sigmoidf);
KS_DECLARE(ks_map_float_fn, ks_slopef);
KS_DECLARE(ks_map_float_fn, ks_sech2f);
KS_DECLARE(ks_map_double_fn, ks_exp);
KS_DECLARE(ks_map_double_fn, ks_expm1);
KS_DECLARE(ks_map_double_fn, ks_expm1_minus_x);
KS_DECLARE(ks_map_double_fn, ks_log);
KS_DECLARE(ks_map_double_fn, ks_log1p);

#ifdef KS_ISA /* the vector forms */

/* c[0] + c[1] x + ... of n coefficients */
KS_INLINE ks_vf ks_poly(ks_vf x, int n, const float *c)
{
    ks_vf y = ks_splat(c[n - 1]);
#pragma GCC unroll 16
    for (int i = n - 2; i >= 0; i--) y = ks_fma(y, x, ks_splat(c[i]));
    return y;
}

KS_INLINE ks_vd ks_polyd(ks_vd x, int n, const double *c)
{
    ks_vd y = ks_splatd(c[n - 1]);
#pragma GCC unroll 16
    for (int i = n - 2; i >= 0; i--) y = ks_fmad(y, x, ks_splatd(c[i]));
    return y;
}

/* NaN passes. */
KS_INLINE ks_vf ks_clamp(ks_vf x, float low, float high)
{
    return ks_min(ks_splat(high), ks_max(ks_splat(low), x));
}

KS_INLINE ks_vd ks_clampd(ks_vd x, double low, double high)
{
    return ks_mind(ks_splatd(high), ks_maxd(ks_splatd(low), x));
}

KS_INLINE ks_vf ks_abs(ks_vf x)
{
    return (ks_vf)((ks_vi)x & 0x7fffffff);
}

/* The nearest integer of |x| < 2^22, and 2^n of an integer n in [-126, 127]: adding 1.5 x 2^23 leaves it in the lowest bits. */
KS_INLINE ks_vf ks_round(ks_vf x)
{
    return (x + 0x1.8p23f) - 0x1.8p23f;
}

KS_INLINE ks_vf ks_pow2(ks_vf n)
{
    return (ks_vf)((ks_vi)(n + (0x1.8p23f + 127)) << 23);
}

/* The same for |x| < 2^51, n in [-1022, 1023]. */
KS_INLINE ks_vd ks_roundd(ks_vd x)
{
    return (x + 0x1.8p52) - 0x1.8p52;
}

KS_INLINE ks_vd ks_pow2d(ks_vd n)
{
    return (ks_vd)((ks_vl)(n + (0x1.8p52 + 1023)) << 52);
}

/* x = n ln 2 + r, |r| <= 0.3466; returns r + r^2 q(r) = e^r - 1 and *n. */
KS_INLINE ks_vf ks_exp_parts(ks_vf x, ks_vf *n)
{
    static const float q[] = {0x1p-1f, 0x1.555556p-3f, 0x1.5554e8p-5f, 0x1.1110ep-7f, 0x1.6d434ep-10f, 0x1.a12516p-13f};
    *n = ks_round(x * 0x1.715476p0f);
    ks_vf r = ks_fma(*n, ks_splat(-0x1.62e4p-1f), x); /* 15 bits times n: exact */
    r = ks_fma(*n, ks_splat(-0x1.7f7d1cp-20f), r);
    return ks_fma(r * r, ks_poly(r, 6, q), r);
}

KS_INLINE ks_vd ks_exp_partsd(ks_vd x, ks_vd *n)
{
    static const double q[] = {0x1p-1,
                               0x1.5555555555557p-3,
                               0x1.5555555555556p-5,
                               0x1.11111111100d3p-7,
                               0x1.6c16c16c162cfp-10,
                               0x1.a01a01abeccc3p-13,
                               0x1.a01a01a6db488p-16,
                               0x1.71de02225a2f3p-19,
                               0x1.27e4db5bb725ap-22,
                               0x1.af4e092e1705bp-26,
                               0x1.1f7315649f2d7p-29};
    *n = ks_roundd(x * 0x1.71547652b82fep0);
    ks_vd r = ks_fmad(*n, ks_splatd(-0x1.62e42fefa38p-1), x); /* 42 bits times n: exact */
    r = ks_fmad(*n, ks_splatd(-0x1.ef35793c7673p-45), r);
    return ks_fmad(r * r, ks_polyd(r, 11, q), r);
}

/* e^x 2^shift */
KS_INLINE ks_vf ks_exp_shifted(ks_vf x, float shift)
{
    ks_vf n;
    const ks_vf p = ks_exp_parts(ks_clamp(x, -106, 89), &n);
    n += shift;
    const ks_vf n1 = ks_clamp(n, -126, 127); /* 2^n in two factors: results may be subnormal or infinite */
    return (p + 1) * ks_pow2(n1) * ks_pow2(n - n1);
}

KS_INLINE ks_vf ks_v_expf(ks_vf x)
{
    return ks_exp_shifted(x, 0);
}

KS_INLINE ks_vd ks_v_exp(ks_vd x)
{
    ks_vd n;
    const ks_vd p = ks_exp_partsd(ks_clampd(x, -746, 710), &n);
    const ks_vd n1 = ks_clampd(n, -1022, 1023);
    return (p + 1) * ks_pow2d(n1) * ks_pow2d(n - n1);
}

KS_INLINE ks_vf ks_v_expm1f(ks_vf x)
{
    ks_vf n;
    const ks_vf p = ks_exp_parts(ks_clamp(x, -20, 89), &n);
    const ks_vf half = ks_pow2(n - 1); /* halved, because 2^128 is no float */
    return ks_sel(n == 0, p, ks_fma(half, p, half - 0.5f) * 2);
}

KS_INLINE ks_vd ks_v_expm1(ks_vd x)
{
    ks_vd n;
    const ks_vd p = ks_exp_partsd(ks_clampd(x, -40, 710), &n);
    const ks_vd half = ks_pow2d(n - 1);
    return ks_seld(n == 0, p, ks_fmad(half, p, half - 0.5) * 2);
}

/* x^2/2 + x^3 q(x) near 0 */
KS_INLINE ks_vd ks_v_expm1_minus_x(ks_vd x)
{
    static const double q[] = {0x1.5555555555557p-3,  0x1.5555555555556p-5,  0x1.1111111110dddp-7,  0x1.6c16c16c16aabp-10,
                               0x1.a01a01a072883p-13, 0x1.a01a01a041491p-16, 0x1.71de3a1202f5bp-19, 0x1.27e4fb59a059bp-22,
                               0x1.ae648b2e491a9p-26, 0x1.1eeda6609dd31p-29, 0x1.610e588b651a3p-33, 0x1.9383bb719ad54p-37,
                               0x1.b7dddf9b5b981p-41, 0x1.b6d129ef51709p-45};
    const ks_vd near = ks_clampd(x, -1, 1.25), z = near * near;
    const ks_vd rest = ks_fmad(near, near, -z) * 0.5; /* what rounding took from x^2 / 2 */
    const ks_vd y = 0.5 * z + ks_fmad(z * near, ks_polyd(near, 14, q), rest);
    return ks_seld(near == x, y, ks_v_expm1(x) - x);
}

KS_INLINE ks_vf ks_v_tanhf(ks_vf x)
{
    static const float q[] = {-0x1.555556p-2f, 0x1.1110f6p-3f, -0x1.ba0d94p-5f, 0x1.64fad8p-6f, -0x1.1394cap-7f, 0x1.36bdb2p-9f};
    const ks_vf a = ks_abs(x), z = x * x;
    const ks_vf far = 1 - 2 / (ks_v_expf(a + a) + 1);
    const ks_vf signed_far = (ks_vf)((ks_vi)far | ((ks_vi)x & INT32_MIN));
    return ks_sel(a < 0.6f, ks_fma(x * z, ks_poly(z, 6, q), x), signed_far);
}

/* With e = e^-|x|: i + i t = 1 / (1 + e) to twice a float's precision, which leaves results the error of e and one rounding.
 * Returns 2^shift e. */
KS_INLINE ks_vf ks_sigmoid_parts(ks_vf x, float shift, ks_vf *i, ks_vf *t)
{
    const ks_vf scaled = ks_exp_shifted((ks_vf)((ks_vi)x | INT32_MIN), shift);
    const ks_vf e = scaled * ks_pow2(ks_splat(-shift)), d = 1 + e, lost = e - (d - 1);
    *i = 1 / d;
    *t = ks_fma(-*i, lost, ks_fma(-*i, d, ks_splat(1)));
    return scaled;
}

KS_INLINE ks_vf ks_v_sigmoidf(ks_vf x)
{
    ks_vf i, t;
    const ks_vf e = ks_sigmoid_parts(x, 0, &i, &t), top = ks_sel(x < 0, e, ks_splat(1));
    return ks_fma(top, i, top * i * t);
}

/* sigmoid'(x) 2^shift */
KS_INLINE ks_vf ks_slope_shifted(ks_vf x, float shift)
{
    ks_vf i, t;
    const ks_vf e = ks_sigmoid_parts(x, shift, &i, &t);
    const ks_vf square = i * i, rest = ks_fma(i, i, -square) + 2 * t * square;
    return ks_fma(e, square, e * rest);
}

KS_INLINE ks_vf ks_v_slopef(ks_vf x)
{
    return ks_slope_shifted(x, 0);
}

KS_INLINE ks_vf ks_v_sech2f(ks_vf x)
{
    return ks_slope_shifted(x + x, 2);
}

/* log(1 + f) + k ln 2 + c for 1 + f in [sqrt(1/2), sqrt(2)]: with s = f / (2 + f) the logarithm is 2 s + s^3 q(s^2), and
 * 2 s = f - (f^2/2 - s f^2/2), whose first term is exact. */
KS_INLINE ks_vd ks_log_sum(ks_vd f, ks_vd k, ks_vd c)
{
    static const double q[] = {0x1.5555555555558p-1, 0x1.99999999952b2p-2, 0x1.2492492df6947p-2, 0x1.c71c62debf86bp-3,
                               0x1.7462b69705382p-3, 0x1.39fe208c33457p-3, 0x1.2b5b5fb2eac92p-3};
    const ks_vd s = f / (2 + f), z = s * s, h = 0.5 * f * f;
    const ks_vd small = ks_fmad(s, h + z * ks_polyd(z, 7, q), ks_fmad(k, ks_splatd(0x1.ef35793c7673p-45), c));
    return ks_fmad(k, ks_splatd(0x1.62e42fefa38p-1), f - (h - small));
}

/* x = 2^k m with m in [sqrt(1/2), sqrt(2)), for normal x > 0; returns m - 1. */
KS_INLINE ks_vd ks_split(ks_vd x, ks_vd *k)
{
    const uint64_t root = 0x3fe6a09e667f3bcd, one = 0x3ff0000000000000; /* sqrt(1/2), 1 */
    const ks_vu bits = (ks_vu)x - root;
    const ks_vu biased = (bits + one) >> 52; /* k + 1023 */
    *k = (ks_vd)(biased | 0x4330000000000000) - (0x1p52 + 1023);
    return (ks_vd)((bits & 0xfffffffffffff) + root) - 1;
}

/* log x for normal x > 0 becomes what log gives for 0, negative numbers, infinity and NaN. */
KS_INLINE ks_vd ks_log_edges(ks_vd x, ks_vd y)
{
    y = ks_seld(x == 0, ks_splatd(-(double)INFINITY), y);
    y = ks_seld(x < 0, ks_splatd((double)NAN), y);
    return ks_seld((x == (double)INFINITY) | (x != x), x, y);
}

KS_INLINE ks_vd ks_v_log(ks_vd x)
{
    const ks_vl tiny = x < 0x1p-1022;
    ks_vd k;
    const ks_vd f = ks_split(ks_seld(tiny, x * 0x1p54, x), &k);
    return ks_log_edges(x, ks_log_sum(f, ks_seld(tiny, k - 54, k), ks_splatd(0)));
}

KS_INLINE ks_vd ks_v_log1p(ks_vd x)
{
    const ks_vd u = 1 + x;
    ks_vd k;
    ks_vd f = ks_split(u, &k);
    /* What rounding took from u, relative to u; where 1 + x lies in the middle interval, x itself is exact. */
    const ks_vd lost = ks_seld(x < 1, x - (u - 1), 1 - (u - x)) / u;
    f = ks_seld(k == 0, x, f);
    const ks_vd y = ks_log_sum(f, k, ks_seld(k == 0, ks_splatd(0), lost));
    return ks_log_edges(u, y);
}

#endif
#endif
