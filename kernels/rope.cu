/* Rotary positions, in place. The same bits as the CPU's. */
#include "kernels/kernels.h"

#include "kernels/rows.cuh"

namespace
{
/* Column c of a row stands for pair c % half of head c / half. */
struct rope {
    float *x;
    size_t heads, E;
    unsigned half;
    const float *cos_t, *sin_t;
    const int64_t *table_rows;

    template <int W> __device__ void at(size_t i, size_t c) const
    {
        const unsigned head = (unsigned)c / half, pair = (unsigned)c % half;
        const size_t angle = (size_t)table_rows[i] * half + pair;
        float *to = x + (i * heads + head) * E + pair;
        ks_pack<float, W> a = ks_load<W>(to), b = ks_load<W>(to + half);
        const ks_pack<float, W> cosine = ks_load<W>(cos_t + angle), sine = ks_load<W>(sin_t + angle);
        for (int k = 0; k < W; k++) {
            const float u = a.v[k], v = b.v[k];
            a.v[k] = u * cosine.v[k] - v * sine.v[k];
            b.v[k] = v * cosine.v[k] + u * sine.v[k];
        }
        ks_store(to, a);
        ks_store(to + half, b);
    }
};
} // namespace

int ks_k_rope(float *x, size_t n, size_t heads, size_t E, size_t dim, const float *cos_t, const float *sin_t, const int64_t *table_rows,
              void *stream)
{
    const size_t half = dim / 2;
    const rope f = {x, heads, E, (unsigned)half, cos_t, sin_t, table_rows};
    return ks_rows_launch(f, ks_packs(x, E, 4) && ks_packs(cos_t, half, 4) && ks_packs(sin_t, half, 4), n, heads * half, stream);
}
