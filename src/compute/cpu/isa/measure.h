/* measure.h - what changed logits mean: KL and its relatives, and facts of baseline logits. Letters: V vocabulary. */
#ifndef KS_COMPUTE_CPU_ISA_MEASURE_H
#define KS_COMPUTE_CPU_ISA_MEASURE_H

#include "compute/backend.h"
#include "compute/cpu/isa/isa.h"

/* p [V padded to 16] = exp(logits - lse), 0 in the padding: what ks_measure_row reads of its baseline row. */
typedef void ks_measure_base_fn(double *p, const float *logits, double lse, size_t V);
KS_DECLARE(ks_measure_base_fn, ks_measure_base);

/* ks_backend.measure for one row: e, logits [V], p from ks_measure_base. */
typedef void ks_measure_fn(ks_measure *out, const float *e, const float *logits, const double *p, const ks_baseline_row *base,
                           const ks_measure_item *item, size_t V);
KS_DECLARE(ks_measure_fn, ks_measure_row);

/* ks_backend.baseline for one row. */
typedef void ks_baseline_fn(ks_baseline_row *out, const float *logits, size_t V);
KS_DECLARE(ks_baseline_fn, ks_baseline_row_of);

/* Sum of exp(logp[at[i]]), in the order of i. */
typedef double ks_sum_weights_fn(const float *logp, const int64_t *at, size_t n);
KS_DECLARE(ks_sum_weights_fn, ks_sum_weights);

#endif
