/* attention.h - attention of one (sample, key/value head) on states, and of one (branch, key/value head) on effects.
 *
 * Letters: T tokens of the sample, H query heads, G key/value heads, E head dim, P = KS_PADDED(T), Q = KS_PADDED(E). */
#ifndef KS_COMPUTE_CPU_ISA_ATTENTION_H
#define KS_COMPUTE_CPU_ISA_ATTENTION_H

#include "compute/backend.h"
#include "compute/cpu/isa/isa.h"

enum {
    KS_ATTENTION_ROWS = 6,       /* query rows of a block */
    KS_ATTENTION_KEPT = 1 << 20, /* floats of a sample's weights that a worker keeps from branch to branch */
};

/* Floats of scratch for samples of up to T tokens: keys and values of trunk and branch, rows of a block, the trunk's weights and their
 * references. */
static inline size_t ks_attention_scratch(const ks_attention *p, int32_t T)
{
    const size_t P = (size_t)KS_PADDED(T), E = (size_t)p->E, Q = (size_t)KS_PADDED(p->E), R = KS_ATTENTION_ROWS;
    const size_t rows = (size_t)(p->H / p->G) * (size_t)T, kept = rows * P < KS_ATTENTION_KEPT ? rows * P : KS_ATTENTION_KEPT;
    return 2 * (E * P + (size_t)T * Q) + (3 * R + 2) * P + (2 * R + 1) * Q + rows + kept;
}

/* ks_backend.attention for one item and key/value head g. */
typedef void ks_attention_fn(float *out, float *logp, const float *q, const float *k, const float *v, const ks_attention_item *item,
                             size_t g, const ks_attention *p, float *scratch);
KS_DECLARE(ks_attention_fn, ks_attention_head);

/* Which trunk a worker's scratch holds packed, its weights with it, so that the next branch of the same sample finds it there. Cleared at
 * the start of a call.
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
