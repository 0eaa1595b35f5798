/* Rows: taken from the embedding, gathered, scattered, rounded. The same bits as the CPU's. */
#include "kernels/kernels.h"

#include "kernels/bf16.cuh"
#include "kernels/rows.cuh"

#include <cuda_fp16.h>

namespace
{
template <int TYPE> struct weight;
template <> struct weight<KS_K_BF16> {
    typedef uint16_t stored;
    static __device__ float value(stored w)
    {
        return ks_bf16_value(w);
    }
};
template <> struct weight<KS_K_F16> {
    typedef __half stored;
    static __device__ float value(stored w)
    {
        return __half2float(w);
    }
};
template <> struct weight<KS_K_F32> {
    typedef float stored;
    static __device__ float value(stored w)
    {
        return w;
    }
};

template <int TYPE> struct embed {
    typedef typename weight<TYPE>::stored stored;
    float *y;
    const stored *embedding;
    const int32_t *ids;
    size_t D;
    float scale;

    template <int W> __device__ void at(size_t i, size_t c) const
    {
        const ks_pack<stored, W> w = ks_load<W>(embedding + (size_t)ids[i] * D + c);
        ks_pack<float, W> out;
        for (int k = 0; k < W; k++) out.v[k] = weight<TYPE>::value(w.v[k]) * scale;
        ks_store(y + i * D + c, out);
    }
};

/* T: what rows are copied in. */
template <class T> struct gather {
    T *y;
    const T *x;
    const int64_t *rows;
    size_t D;

    template <int W> __device__ void at(size_t i, size_t c) const
    {
        ks_store(y + i * D + c, ks_load<W>(x + (size_t)rows[i] * D + c));
    }
};

struct add {
    float *y;
    const float *x, *t;
    const int64_t *rows;
    size_t D;

    template <int W> __device__ void at(size_t i, size_t c) const
    {
        const size_t to = (rows ? (size_t)rows[i] : i) * D + c;
        ks_pack<float, W> a = ks_load<W>(x + to);
        const ks_pack<float, W> b = ks_load<W>(t + i * D + c);
        for (int k = 0; k < W; k++) a.v[k] += b.v[k];
        ks_store(y + to, a);
    }
};

struct round_diff {
    float *d;
    const int64_t *d_rows;
    const float *x;
    const int64_t *x_rows;
    size_t D;

    template <int W> __device__ void at(size_t i, size_t c) const
    {
        float *to = d + (size_t)d_rows[i] * D + c;
        ks_pack<float, W> e = ks_load<W>(to);
        const ks_pack<float, W> h = ks_load<W>(x + (size_t)x_rows[i] * D + c);
        for (int k = 0; k < W; k++) e.v[k] = ks_bf16_value(ks_bf16_nearest(h.v[k] + e.v[k])) - h.v[k];
        ks_store(to, e);
    }
};

struct add_bias {
    float *y;
    size_t ldy;
    const float *bias;

    template <int W> __device__ void at(size_t i, size_t c) const
    {
        ks_pack<float, W> a = ks_load<W>(y + i * ldy + c);
        const ks_pack<float, W> b = ks_load<W>(bias + c);
        for (int k = 0; k < W; k++) a.v[k] += b.v[k];
        ks_store(y + i * ldy + c, a);
    }
};

template <int TYPE> int embed_as(float *y, const void *embedding, const int32_t *ids, size_t R, size_t D, float scale, void *stream)
{
    typedef typename weight<TYPE>::stored stored;
    const embed<TYPE> f = {y, (const stored *)embedding, ids, D, scale};
    return ks_rows_launch(f, ks_packs(y, D, sizeof *y) && ks_packs(embedding, D, sizeof(stored)), R, D, stream);
}
} // namespace

int ks_k_embed(float *y, const void *embedding, int type, const int32_t *ids, size_t R, size_t D, float scale, void *stream)
{
    if (type == KS_K_BF16) return embed_as<KS_K_BF16>(y, embedding, ids, R, D, scale, stream);
    if (type == KS_K_F16) return embed_as<KS_K_F16>(y, embedding, ids, R, D, scale, stream);
    return embed_as<KS_K_F32>(y, embedding, ids, R, D, scale, stream);
}

int ks_k_gather(void *y, const void *x, const int64_t *rows, size_t n, size_t bytes, void *stream)
{
    if ((((uintptr_t)y | (uintptr_t)x | bytes) & 3) == 0) {
        const gather<uint32_t> f = {(uint32_t *)y, (const uint32_t *)x, rows, bytes / 4};
        return ks_rows_launch(f, ks_packs(y, f.D, 4) && ks_packs(x, f.D, 4), n, f.D, stream);
    }
    const gather<uint16_t> f = {(uint16_t *)y, (const uint16_t *)x, rows, bytes / 2};
    return ks_rows_launch(f, false, n, f.D, stream);
}

int ks_k_add(float *y, const float *x, const float *t, const int64_t *rows, size_t n, size_t D, void *stream)
{
    const add f = {y, x, t, rows, D};
    return ks_rows_launch(f, ks_packs(y, D, 4) && ks_packs(x, D, 4) && ks_packs(t, D, 4), n, D, stream);
}

int ks_k_round_diff(float *d, const int64_t *d_rows, const float *x, const int64_t *x_rows, size_t n, size_t D, void *stream)
{
    const round_diff f = {d, d_rows, x, x_rows, D};
    return ks_rows_launch(f, ks_packs(d, D, 4) && ks_packs(x, D, 4), n, D, stream);
}

int ks_k_add_bias(float *y, size_t ldy, const float *bias, size_t n, size_t N, void *stream)
{
    const add_bias f = {y, ldy, bias};
    return ks_rows_launch(f, N % 4 == 0 && ks_packs(y, ldy, 4) && ks_packs(bias, 0, 4), n, N, stream);
}
