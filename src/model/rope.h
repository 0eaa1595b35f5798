/* rope.h - rotary position tables (Su et al. 2021, in Hugging Face's half-split form: dimension i pairs with i + dim/2). */
#ifndef KS_MODEL_ROPE_H
#define KS_MODEL_ROPE_H

#include "model/arch.h"

#include <stddef.h>

/* inv_freq [dim/2], fp32 step by step as the models define it. T is the sample's whole length: longrope chooses its factors by it. */
void ks_rope_inv_freq(const ks_arch *a, int32_t T, float *inv_freq);

/* cos_t, sin_t [T, dim/2] fp32 for positions 0..T-1 of a sample of length T, attention factor multiplied in. KS_EMACHINE without memory. */
int ks_rope_tables(const ks_arch *a, int32_t T, float *cos_t, float *sin_t);

#endif
