/* cuda_fp16.h - f16 for the emulator where the toolkit is not installed. */
#ifndef KS_CHECK_CUDA_FP16_H
#define KS_CHECK_CUDA_FP16_H

#include <cstdint>
#include <cstring>

struct __half {
    uint16_t bits;
};

static inline float __half2float(__half h)
{
    const uint32_t sign = (uint32_t)(h.bits & 0x8000u) << 16, rest = h.bits & 0x7fffu;
    uint32_t u = rest >= 0x7c00u ? 0x7f800000u | (rest & 0x3ffu) << 13 : (rest << 13) + (112u << 23);
    float f = (float)rest * 0x1p-24f; /* exact below 2^10: subnormal */
    if (rest < 0x0400u) memcpy(&u, &f, sizeof u);
    u |= sign;
    memcpy(&f, &u, sizeof f);
    return f;
}

#endif
