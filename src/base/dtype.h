/* dtype.h - number types of stored weights, and exact widening to fp32. */
#ifndef KS_BASE_DTYPE_H
#define KS_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum ks_dtype { KS_BF16, KS_F16, KS_F32 } ks_dtype;

/* Bytes of one element. */
static inline size_t ks_dtype_size(ks_dtype t)
{
    return t == KS_F32 ? 4 : 2;
}

/* How rows of an operand x of products [.., K] lie: KS_FORM_F32 as fp32; form 1, 2 or 3 as so many bf16 parts, each the nearest to what the
 * parts before it leave. Such a row is [form][K], so that rows are copied as any others. */
enum { KS_FORM_F32 };
/* Bytes of an element. */
static inline size_t ks_form_bytes(int form)
{
    return form == KS_FORM_F32 ? sizeof(float) : (size_t)form * sizeof(uint16_t);
}

/* "bf16", "f16", "f32". */
static inline const char *ks_dtype_name(ks_dtype t)
{
    return t == KS_BF16 ? "bf16" : t == KS_F16 ? "f16" : "f32";
}

static inline float ks_f32_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float ks_f32_of_bf16(uint16_t h)
{
    return ks_f32_of_bits((uint32_t)h << 16);
}

/* IEEE binary16; subnormals, infinities and NaN included. */
static inline float ks_f32_of_f16(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7fffu;
    if (rest >= 0x7c00u) return ks_f32_of_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    if (rest >= 0x0400u) return ks_f32_of_bits(sign | ((rest << 13) + (112u << 23)));
    const float x = (float)rest * 0x1p-24f; /* exact: rest < 2^10 */
    return sign ? -x : x;
}

/* Element i of an array at any alignment. */
static inline float ks_f32_at(const void *data, ks_dtype t, size_t i)
{
    const unsigned char *p = (const unsigned char *)data + i * ks_dtype_size(t);
    if (t == KS_F32) {
        float x;
        memcpy(&x, p, sizeof x);
        return x;
    }
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return t == KS_BF16 ? ks_f32_of_bf16(h) : ks_f32_of_f16(h);
}

#endif
