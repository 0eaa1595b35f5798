/* parts.h - operands in bf16 parts against the same operands in fp32. */
#ifndef KS_TESTS_CHECK_PARTS_H
#define KS_TESTS_CHECK_PARTS_H

#include "base/dtype.h"
#include "check/device.h"

#include <math.h>

static inline uint16_t nearest_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if (isnan(x)) return (uint16_t)((u | 0x00400000u) >> 16);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

/* On the device, n rows [form][K] hold the parts of want [n, K] (host, finite, of moderate size), each the nearest to what the parts before
 * it leave. */
static inline void assert_parts(const char *what, const void *got, int form, const float *want, size_t n, size_t K)
{
    const uint16_t *parts = device_read(got, n * K * ks_form_bytes(form));
    for (size_t i = 0; i < n * K; i++) {
        float rest = want[i];
        for (int p = 0; p < form; p++) {
            const uint16_t part = parts[(i / K * (size_t)form + (size_t)p) * K + i % K];
            if (part != nearest_bf16(rest)) {
                fail_msg("%s in %d parts: row %zu, column %zu of [%zu, %zu]: part %d of %.9g is %.9g", what, form, i / K, i % K, n, K, p,
                         (double)want[i], (double)ks_f32_of_bf16(part));
            }
            rest -= ks_f32_of_bf16(part);
        }
    }
}

#endif
