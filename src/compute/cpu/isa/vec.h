/* vec.h - vectors of this compilation's width and the few operations that C does not have for them.
 *
 * ks_vf is 16, 8 or 4 floats, ks_vi as many int32, ks_vd and ks_vl half as many doubles and int64. + - * / comparisons and ?: are
 * gcc's own. Which width it is never shows in results: lanes are independent, and sums have a fixed order (ks_sum16). */
#ifndef KS_COMPUTE_CPU_ISA_VEC_H
#define KS_COMPUTE_CPU_ISA_VEC_H

#include "compute/cpu/isa/isa.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <immintrin.h>

#if defined(__AVX512F__)
#define KS_LANES 16
#elif defined(__AVX2__)
#define KS_LANES 8
#else
#define KS_LANES 4
#endif

typedef float ks_vf __attribute__((vector_size(4 * KS_LANES)));
typedef int32_t ks_vi __attribute__((vector_size(4 * KS_LANES)));
typedef double ks_vd __attribute__((vector_size(4 * KS_LANES)));
typedef int64_t ks_vl __attribute__((vector_size(4 * KS_LANES)));
typedef uint64_t ks_vu __attribute__((vector_size(4 * KS_LANES)));

KS_INLINE ks_vf ks_splat(float x)
{
    return x - (ks_vf){0};
}

KS_INLINE ks_vd ks_splatd(double x)
{
    return x - (ks_vd){0};
}

KS_INLINE ks_vf ks_load(const float *p)
{
    ks_vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

KS_INLINE void ks_store(float *p, ks_vf v)
{
    memcpy(p, &v, sizeof v);
}

KS_INLINE ks_vd ks_loadd(const double *p)
{
    ks_vd v;
    memcpy(&v, p, sizeof v);
    return v;
}

KS_INLINE void ks_stored(double *p, ks_vd v)
{
    memcpy(p, &v, sizeof v);
}

/* KS_LANES / 2 floats as doubles, and back. */
KS_INLINE ks_vd ks_widen(const float *p)
{
#if defined(__AVX512F__)
    return (ks_vd)_mm512_cvtps_pd(_mm256_loadu_ps(p));
#elif defined(__AVX2__)
    return (ks_vd)_mm256_cvtps_pd(_mm_loadu_ps(p));
#else
    return (ks_vd){(double)p[0], (double)p[1]};
#endif
}

KS_INLINE void ks_store_narrow(float *p, ks_vd v)
{
#if defined(__AVX512F__)
    _mm256_storeu_ps(p, _mm512_cvtpd_ps((__m512d)v));
#elif defined(__AVX2__)
    _mm_storeu_ps(p, _mm256_cvtpd_ps((__m256d)v));
#else
    p[0] = (float)v[0];
    p[1] = (float)v[1];
#endif
}

/* The first n < KS_LANES floats at p, the other lanes `rest`. */
KS_INLINE ks_vf ks_load_n(const float *p, size_t n, float rest)
{
    ks_vf v = ks_splat(rest);
    memcpy(&v, p, n * sizeof *p);
    return v;
}

KS_INLINE void ks_store_n(float *p, size_t n, ks_vf v)
{
    memcpy(p, &v, n * sizeof *p);
}

KS_INLINE ks_vd ks_loadd_n(const double *p, size_t n, double rest)
{
    ks_vd v = ks_splatd(rest);
    memcpy(&v, p, n * sizeof *p);
    return v;
}

KS_INLINE void ks_stored_n(double *p, size_t n, ks_vd v)
{
    memcpy(p, &v, n * sizeof *p);
}

/* a * b + c with one rounding. */
KS_INLINE ks_vf ks_fma(ks_vf a, ks_vf b, ks_vf c)
{
#if defined(__AVX512F__)
    return (ks_vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
    return (ks_vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    for (int i = 0; i < KS_LANES; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#endif
}

KS_INLINE ks_vd ks_fmad(ks_vd a, ks_vd b, ks_vd c)
{
#if defined(__AVX512F__)
    return (ks_vd)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__AVX2__)
    return (ks_vd)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
    for (int i = 0; i < KS_LANES / 2; i++) c[i] = __builtin_fma(a[i], b[i], c[i]);
    return c;
#endif
}

/* a > b ? a : b and a < b ? a : b, so that b passes where either is NaN. */
KS_INLINE ks_vf ks_max(ks_vf a, ks_vf b)
{
#if defined(__AVX512F__)
    return (ks_vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (ks_vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return (ks_vf)_mm_max_ps((__m128)a, (__m128)b);
#endif
}

KS_INLINE ks_vf ks_min(ks_vf a, ks_vf b)
{
#if defined(__AVX512F__)
    return (ks_vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (ks_vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return (ks_vf)_mm_min_ps((__m128)a, (__m128)b);
#endif
}

KS_INLINE ks_vd ks_maxd(ks_vd a, ks_vd b)
{
#if defined(__AVX512F__)
    return (ks_vd)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif defined(__AVX2__)
    return (ks_vd)_mm256_max_pd((__m256d)a, (__m256d)b);
#else
    return (ks_vd)_mm_max_pd((__m128d)a, (__m128d)b);
#endif
}

KS_INLINE ks_vd ks_mind(ks_vd a, ks_vd b)
{
#if defined(__AVX512F__)
    return (ks_vd)_mm512_min_pd((__m512d)a, (__m512d)b);
#elif defined(__AVX2__)
    return (ks_vd)_mm256_min_pd((__m256d)a, (__m256d)b);
#else
    return (ks_vd)_mm_min_pd((__m128d)a, (__m128d)b);
#endif
}

/* mask (all ones or 0 in each lane, as comparisons give it) ? a : b */
KS_INLINE ks_vf ks_sel(ks_vi mask, ks_vf a, ks_vf b)
{
    return (ks_vf)((mask & (ks_vi)a) | (~mask & (ks_vi)b));
}

KS_INLINE ks_vd ks_seld(ks_vl mask, ks_vd a, ks_vd b)
{
    return (ks_vd)((mask & (ks_vl)a) | (~mask & (ks_vl)b));
}

/* Whether every lane of a mask is set. */
KS_INLINE bool ks_all(ks_vi mask)
{
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) == 0xffff;
#elif defined(__AVX2__)
    return _mm256_movemask_ps((__m256)mask) == 0xff;
#else
    int32_t all = -1;
    for (int i = 0; i < KS_LANES; i++) all &= mask[i];
    return all != 0;
#endif
}

/* Sixteen partial sums: element i of a row goes to lane i % 16. The order is the same at every width. */
typedef struct ks_sum16 {
    ks_vf v[16 / KS_LANES];
} ks_sum16;

/* (lane i + lane i+8), then +4, +2, +1; in registers, because a loop over an array waits for its own stores. */
KS_INLINE float ks_sum16_total(const ks_sum16 *s)
{
    typedef float half __attribute__((vector_size(32)));
    typedef float quarter __attribute__((vector_size(16)));
    half h[2];
    quarter q[2];
    memcpy(h, s->v, sizeof h);
    h[0] += h[1];
    memcpy(q, h, sizeof q);
    q[0] += q[1];
    return (q[0][0] + q[0][2]) + (q[0][1] + q[0][3]);
}

/* The same for doubles. */
typedef struct ks_sum16d {
    ks_vd v[32 / KS_LANES];
} ks_sum16d;

KS_INLINE double ks_sum16d_total(const ks_sum16d *s)
{
    typedef double half __attribute__((vector_size(64)));
    typedef double quarter __attribute__((vector_size(32)));
    half h[2];
    quarter q[2];
    memcpy(h, s->v, sizeof h);
    h[0] += h[1];
    memcpy(q, h, sizeof q);
    q[0] += q[1];
    return (q[0][0] + q[0][2]) + (q[0][1] + q[0][3]);
}

#endif
