/* operand.cuh - operands of products, as kernels that make them write them: fp32 rows, or rows of bf16 parts, each part the nearest to what
 * the parts before it leave. Both subtractions are exact: three parts hold x to 2^-24, two to 2^-16, one is x rounded to nearest even.
 * Infinities and NaN stay what they are in the first part, the rest is 0. */
#ifndef KS_KERNELS_OPERAND_CUH
#define KS_KERNELS_OPERAND_CUH

#include "kernels/bf16.cuh"
#include "kernels/rows.cuh"

enum { KS_PARTS = 3 };

/* several: more than the first part is wanted. */
static __device__ __forceinline__ void ks_split(uint16_t (&part)[KS_PARTS], float x, bool several)
{
    const unsigned u = __float_as_uint(x), magnitude = u & 0x7fffffffu;
    part[0] = ks_bf16_nearest(x);
    part[1] = part[2] = 0;
    if (magnitude >= 0x7f800000u) return;
    /* Finite, but above the largest bf16 by half of its last digit: rounded down, the rest fits into the second part. */
    if (several && magnitude >= 0x7f7f8000u) part[0] = (uint16_t)(u >> 16 & 0xff7fu);
    const float rest = x - ks_bf16_value(part[0]);
    part[1] = ks_bf16_nearest(rest);
    part[2] = ks_bf16_nearest(rest - ks_bf16_value(part[1]));
}

/* Rows of K columns. form: 0 for fp32, else the number of parts; a row of them is [form][K]. */
struct ks_operand {
    void *p;
    int form;
    size_t K;

    /* Columns c .. c + W - 1 of a row; W > 1: where packs() says so and c is a multiple of W. */
    template <int W> __device__ __forceinline__ void store(size_t row, size_t c, const float (&x)[W]) const
    {
        if (!form) {
            ks_pack<float, W> out;
            for (int k = 0; k < W; k++) out.v[k] = x[k];
            ks_store((float *)p + row * K + c, out);
            return;
        }
        uint16_t *to = (uint16_t *)p + row * K * (size_t)form + c;
        ks_pack<uint16_t, W> out[KS_PARTS];
        for (int k = 0; k < W; k++) {
            uint16_t part[KS_PARTS];
            ks_split(part, x[k], form > 1);
            for (int i = 0; i < KS_PARTS; i++) out[i].v[k] = part[i];
        }
        for (int i = 0; i < KS_PARTS; i++) {
            if (i < form) ks_store(to + (size_t)i * K, out[i]);
        }
    }

    /* Whether rows can be written in packs of four. */
    bool packs() const
    {
        return ks_packs(p, K, form ? sizeof(uint16_t) : sizeof(float));
    }
};

#endif
