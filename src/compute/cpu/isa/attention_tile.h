/* attention_tile.h - the products inside attention, six query rows at a time.
 *
 * Every score and every output element is one chain of fused multiply-adds in a lane of its own (scores: ascending head dimension;
 * outputs: ascending key), so neither the rows beside it nor the tile's width show in its bits. */
#ifndef KS_COMPUTE_CPU_ISA_ATTENTION_TILE_H
#define KS_COMPUTE_CPU_ISA_ATTENTION_TILE_H

#include "compute/cpu/isa/attention.h"
#include "compute/cpu/isa/vec.h"

#include <stdbool.h>

enum {
    TILE_ROWS = KS_ATTENTION_ROWS,
    UNIT = 16 / KS_LANES,                /* vectors in sixteen lanes */
    TILE_UNITS = KS_LANES == 16 ? 4 : 1, /* 24 of 32 registers hold sums with AVX-512, 12 of 16 with AVX2 */
};

KS_INLINE size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* First key that query t sees. */
KS_INLINE size_t first_key(size_t t, int32_t window)
{
    return window > 0 && t >= (size_t)window ? t - (size_t)window + 1 : 0;
}

/* s[r][0 .. 16 units) = (add ? s : +0) + sum over i < n of a[r][i] * b[i][0 .. 16 units), b's rows ldb apart, s's lds. */
KS_INLINE void tile_units(float *s, size_t lds, const float *const a[TILE_ROWS], size_t n, const float *b, size_t ldb, bool add,
                          const size_t units)
{
    ks_vf acc[TILE_ROWS][TILE_UNITS * UNIT];
    for (size_t r = 0; r < TILE_ROWS; r++) {
        for (size_t u = 0; u < units * UNIT; u++) acc[r][u] = add ? ks_load(s + r * lds + u * KS_LANES) : ks_splat(0);
    }
    for (size_t i = 0; i < n; i++) {
        const float *bi = b + i * ldb;
        for (size_t r = 0; r < TILE_ROWS; r++) {
            const ks_vf ar = ks_splat(a[r][i]);
            for (size_t u = 0; u < units * UNIT; u++) acc[r][u] = ks_fma(ar, ks_load(bi + u * KS_LANES), acc[r][u]);
        }
    }
    for (size_t r = 0; r < TILE_ROWS; r++) {
        for (size_t u = 0; u < units * UNIT; u++) ks_store(s + r * lds + u * KS_LANES, acc[r][u]);
    }
}

/* The same for columns [from, to) of s and b, multiples of 16. */
static void tile(float *s, size_t lds, const float *const a[TILE_ROWS], size_t n, const float *b, size_t ldb, bool add, size_t from,
                 size_t to)
{
    size_t j = from;
    for (; j + 16 * TILE_UNITS <= to; j += 16 * TILE_UNITS) tile_units(s + j, lds, a, n, b + j, ldb, add, TILE_UNITS);
    switch (TILE_UNITS > 1 ? (to - j) / 16 : 0) {
    case 3:
        tile_units(s + j, lds, a, n, b + j, ldb, add, TILE_UNITS - 1);
        break;
    case 2:
        tile_units(s + j, lds, a, n, b + j, ldb, add, TILE_UNITS / 2);
        break;
    case 1:
        tile_units(s + j, lds, a, n, b + j, ldb, add, 1);
        break;
    }
}

/* to[e][0 .. n) = from[0 .. n)[e] for n <= 4 rows of E floats. */
KS_INLINE void transpose_rows(float *restrict to, size_t ldt, const float *restrict from, size_t ldf, size_t n, size_t E)
{
    size_t e = 0;
    for (; n == 4 && e + 4 <= E; e += 4) {
        __m128 a = _mm_loadu_ps(from + e), b = _mm_loadu_ps(from + ldf + e), c = _mm_loadu_ps(from + 2 * ldf + e),
               d = _mm_loadu_ps(from + 3 * ldf + e);
        _MM_TRANSPOSE4_PS(a, b, c, d);
        _mm_storeu_ps(to + e * ldt, a);
        _mm_storeu_ps(to + (e + 1) * ldt, b);
        _mm_storeu_ps(to + (e + 2) * ldt, c);
        _mm_storeu_ps(to + (e + 3) * ldt, d);
    }
    for (; e < E; e++) {
        for (size_t i = 0; i < n; i++) to[e * ldt + i] = from[i * ldf + e];
    }
}

/* kt [E, P] = k [T, E] transposed (row j of k at k + j * ldk); columns from T on are 0. */
static void transpose_keys(float *restrict kt, size_t P, const float *restrict k, size_t ldk, size_t T, size_t E)
{
    for (size_t e = 0; e < E; e++) {
        for (size_t j = T; j < P; j++) kt[e * P + j] = 0;
    }
    for (size_t j = 0; j < T; j += 4) transpose_rows(kt + j, P, k + j * ldk, ldk, min_size(4, T - j), E);
}

/* vp [T, Q] = v [T, E] (row j at v + j * ldv), padded with 0. */
static void pad_values(float *restrict vp, size_t Q, const float *restrict v, size_t ldv, size_t T, size_t E)
{
    for (size_t j = 0; j < T; j++) {
        memcpy(vp + j * Q, v + j * ldv, E * sizeof *v);
        for (size_t e = E; e < Q; e++) vp[j * Q + e] = 0;
    }
}

#endif
