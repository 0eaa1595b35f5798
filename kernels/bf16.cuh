/* bf16.cuh - bf16 as its bits. */
#ifndef KS_KERNELS_BF16_CUH
#define KS_KERNELS_BF16_CUH

#include "kernels/launch.h"

#include <stdint.h>

static __device__ __forceinline__ float ks_bf16_value(uint16_t b)
{
    return __uint_as_float((unsigned)b << 16);
}

/* The nearest, ties to even; NaN stays NaN with its sign and leading bits, as on the CPU. */
static __device__ __forceinline__ uint16_t ks_bf16_nearest(float x)
{
    const unsigned u = __float_as_uint(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u | 0x00400000u) >> 16);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

#endif
