/* Splits fp32 into bf16 parts, each the nearest to what the parts before it leave: both subtractions are exact. */
#include "kernels/kernels.h"

#include "kernels/bf16.cuh"
#include "kernels/rows.cuh"

namespace
{
struct parts {
    uint16_t hi, mid, lo;
};

/* several: more than hi is wanted. */
__device__ __forceinline__ parts split(float x, bool several)
{
    const unsigned u = __float_as_uint(x), magnitude = u & 0x7fffffffu;
    parts p = {ks_bf16_nearest(x), 0, 0};
    if (magnitude >= 0x7f800000u) return p;
    /* Finite, but above the largest bf16 by half of its last digit: rounded down, the rest fits into mid. */
    if (several && magnitude >= 0x7f7f8000u) p.hi = (uint16_t)(u >> 16 & 0xff7fu);
    const float rest = x - ks_bf16_value(p.hi);
    p.mid = ks_bf16_nearest(rest);
    p.lo = ks_bf16_nearest(rest - ks_bf16_value(p.mid));
    return p;
}

struct split_rows {
    uint16_t *hi, *mid, *lo;
    const float *x;
    size_t ldx, K;

    template <int W> __device__ void at(size_t i, size_t c) const
    {
        const ks_pack<float, W> in = ks_load<W>(x + i * ldx + c);
        ks_pack<uint16_t, W> out[3];
        for (int k = 0; k < W; k++) {
            const parts p = split(in.v[k], mid || lo);
            out[0].v[k] = p.hi;
            out[1].v[k] = p.mid;
            out[2].v[k] = p.lo;
        }
        if (hi) ks_store(hi + i * K + c, out[0]);
        if (mid) ks_store(mid + i * K + c, out[1]);
        if (lo) ks_store(lo + i * K + c, out[2]);
    }
};
} // namespace

int ks_k_split(void *hi, void *mid, void *lo, const float *x, size_t ldx, size_t n, size_t K, void *stream)
{
    const split_rows f = {(uint16_t *)hi, (uint16_t *)mid, (uint16_t *)lo, x, ldx, K};
    const bool packs = K % 4 == 0 && ks_packs(x, ldx, 4) && ks_packs(hi, K, 2) && ks_packs(mid, K, 2) && ks_packs(lo, K, 2);
    return ks_rows_launch(f, packs, n, K, stream);
}
