/* attention.h - attention of one (sample, key/value head) on states, and of one (branch, key/value head) on effects.
 *
 * Letters: T tokens of the sample, H query heads, G key/value heads, E head dim, P = KS_PADDED(T), Q = KS_PADDED(E). */
#ifndef KS_COMPUTE_CPU_ISA_ATTENTION_H
#define KS_COMPUTE_CPU_ISA_ATTENTION_H

#include "compute/backend.h"
#include "compute/cpu/isa/isa.h"

/* Floats of scratch for samples of up to T tokens: keys and values of trunk and branch, and rows of a block. */
static inline size_t ks_attention_scratch(const ks_attention *p, int32_t T)
{
    const size_t P = (size_t)KS_PADDED(T), E = (size_t)p->E, Q = (size_t)KS_PADDED(p->E);
    return 2 * (E * P + (size_t)T * Q) + 14 * P + 9 * Q;
}

/* ks_backend.attention for one item and key/value head g. */
typedef void ks_attention_fn(float *out, float *logp, const float *q, const float *k, const float *v, const ks_attention_item *item,
                             size_t g, const ks_attention *p, float *scratch);
KS_DECLARE(ks_attention_fn, ks_attention_head);

/* Which trunk a worker's scratch holds packed, so that the next branch of the same sample finds it there. Cleared at the start of a call.
 */
typedef struct ks_attention_cache {
    int64_t row0; /* -1: none */
    size_t g;
} ks_attention_cache;

/* ks_backend.attention_diff for one item and key/value head g. */
typedef void ks_attention_diff_fn(float *da, const float *dq, const float *dk, const float *dv, const float *q, const float *k,
                                  const float *v, const float *logp, const ks_branch_item *item, size_t g, const ks_attention *p,
                                  ks_attention_cache *cache, float *scratch);
KS_DECLARE(ks_attention_diff_fn, ks_attention_diff_head);

#endif
