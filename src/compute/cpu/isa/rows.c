#include "compute/cpu/isa/rows.h"

#include <string.h>

void KS_FN(ks_embed_rows)(float *y, const ks_tensor *embedding, const int32_t *ids, size_t from, size_t to, float scale)
{
    const size_t D = (size_t)embedding->cols;
    for (size_t r = from; r < to; r++) {
        const unsigned char *row =
            (const unsigned char *)embedding->data + (size_t)ids[r] * (size_t)embedding->ld * ks_dtype_size(embedding->dtype);
        for (size_t i = 0; i < D; i++) y[r * D + i] = ks_f32_at(row, embedding->dtype, i) * scale;
    }
}

void KS_FN(ks_rope_rows)(float *x, size_t from, size_t to, size_t heads, size_t E, size_t dim, const float *cos_t, const float *sin_t,
                         const int64_t *table_rows)
{
    const size_t half = dim / 2;
    for (size_t r = from; r < to; r++) {
        const float *restrict c = cos_t + (size_t)table_rows[r] * half, *restrict s = sin_t + (size_t)table_rows[r] * half;
        for (size_t h = 0; h < heads; h++) {
            float *restrict a = x + (r * heads + h) * E, *restrict b = a + half;
            for (size_t i = 0; i < half; i++) {
                const float u = a[i], v = b[i];
                a[i] = u * c[i] - v * s[i];
                b[i] = v * c[i] + u * s[i];
            }
        }
    }
}

void KS_FN(ks_add_rows)(float *y, const float *x, const float *t, const int64_t *rows, size_t from, size_t to, size_t D)
{
    for (size_t r = from; r < to; r++) {
        const size_t at = (rows ? (size_t)rows[r] : r) * D;
        const float *a = x + at, *restrict b = t + r * D;
        float *c = y + at;
        for (size_t i = 0; i < D; i++) c[i] = a[i] + b[i];
    }
}

/* The nearest bf16, ties to even; NaN stays NaN. */
KS_INLINE float to_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    const uint32_t rounded = (u + 0x7fffu + (u >> 16 & 1u)) & 0xffff0000u, nan = (u | 0x00400000u) & 0xffff0000u;
    return ks_f32_of_bits((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

void KS_FN(ks_round_diff_rows)(float *d, const int64_t *d_rows, const float *x, const int64_t *x_rows, size_t from, size_t to, size_t D)
{
    for (size_t r = from; r < to; r++) {
        float *restrict e = d + (size_t)d_rows[r] * D;
        const float *restrict h = x + (size_t)x_rows[r] * D;
        for (size_t i = 0; i < D; i++) e[i] = to_bf16(h[i] + e[i]) - h[i];
    }
}

void KS_FN(ks_to_bf16_rows)(float *y, const float *x, size_t ldx, size_t from, size_t to, size_t K)
{
    for (size_t r = from; r < to; r++) {
        float *restrict out = y + (r - from) * K;
        const float *restrict in = x + r * ldx;
        for (size_t k = 0; k < K; k++) out[k] = to_bf16(in[k]);
    }
}

void KS_FN(ks_add_bias_rows)(float *y, size_t ldy, const float *bias, size_t from, size_t to, size_t N)
{
    for (size_t r = from; r < to; r++) {
        float *restrict out = y + r * ldy;
        for (size_t i = 0; i < N; i++) out[i] += bias[i];
    }
}
