#include "model/rope.h"

#include "base/error.h"
#include "base/mem.h"
#include "base/sincos.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

/* What torch computes for 2 pi / tensor: the reciprocal, rounded, times the scalar. */
static float over(float scalar, float x)
{
    return 1 / x * scalar;
}

static float llama3(float f, const ks_rope *r)
{
    const float factor = (float)r->factor, wavelength = over((float)(2 * M_PI), f);
    if (wavelength > (float)(r->original / r->low)) return f / factor;
    if (wavelength < (float)(r->original / r->high)) return f;
    const float smooth = (over((float)r->original, wavelength) - (float)r->low) / (float)(r->high - r->low);
    return (1 - smooth) * f / factor + smooth * f;
}

void ks_rope_inv_freq(const ks_arch *a, int32_t T, float *inv_freq)
{
    const ks_rope *r = &a->rope;
    const double *extended = r->kind != KS_ROPE_LONGROPE ? NULL : T > r->original ? r->long_factor : r->short_factor;
    for (int32_t i = 0; i < r->dim / 2; i++) {
        /* Every step is rounded to fp32: the table is part of the model's definition. The power itself is torch's but for a rare
         * last bit when it is taken in double and rounded once; powf, or no rounding of it, differ ten times as often. */
        const float e = (float)(2 * i) / (float)r->dim;
        const float power = (float)pow((double)(float)r->theta, (double)e);
        inv_freq[i] = 1 / (extended ? (float)extended[i] * power : power);
        if (r->kind == KS_ROPE_LLAMA3) inv_freq[i] = llama3(inv_freq[i], r);
    }
}

int ks_rope_tables(const ks_arch *a, int32_t T, float *cos_t, float *sin_t)
{
    int rc = KS_OK;
    float *inv_freq = NULL;
    const size_t half = (size_t)a->rope.dim / 2;
    const float scale = (float)a->rope.attn_factor;
    KS_NEW(inv_freq, half);
    ks_rope_inv_freq(a, T, inv_freq);
    for (size_t t = 0; t < (size_t)T; t++)
        for (size_t i = 0; i < half; i++) {
            const float angle = (float)t * inv_freq[i];
            double sine, cosine;
            ks_sincos((double)angle, &sine, &cosine);
            cos_t[t * half + i] = (float)cosine * scale;
            sin_t[t * half + i] = (float)sine * scale;
        }
done:
    free(inv_freq);
    return rc;
}
