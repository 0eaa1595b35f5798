/* rows.h - rows moved, rotated, rounded. Letters: D width of a row, E head dim. */
#ifndef KS_COMPUTE_CPU_ISA_ROWS_H
#define KS_COMPUTE_CPU_ISA_ROWS_H

#include "compute/backend.h"
#include "compute/cpu/isa/isa.h"

/* The operations of ks_backend of the same names, for rows [from, to). */
typedef void ks_embed_fn(float *y, const ks_tensor *embedding, const int32_t *ids, size_t from, size_t to, float scale);
typedef void ks_rope_fn(float *x, size_t from, size_t to, size_t heads, size_t E, size_t dim, const float *cos_t, const float *sin_t,
                        const int64_t *table_rows);
typedef void ks_add_fn(float *y, const float *x, const float *t, const int64_t *rows, size_t from, size_t to, size_t D);
typedef void ks_round_diff_fn(float *d, const int64_t *d_rows, const float *x, const int64_t *x_rows, size_t from, size_t to, size_t D);
KS_DECLARE(ks_embed_fn, ks_embed_rows);
KS_DECLARE(ks_rope_fn, ks_rope_rows);
KS_DECLARE(ks_add_fn, ks_add_rows);
KS_DECLARE(ks_round_diff_fn, ks_round_diff_rows);

/* y [to - from, K] = x [.., K] (ldx) rounded to the nearest bf16, ties to even; row `from` of x goes to row 0 of y. */
typedef void ks_to_bf16_fn(float *y, const float *x, size_t ldx, size_t from, size_t to, size_t K);
KS_DECLARE(ks_to_bf16_fn, ks_to_bf16_rows);

/* y[r] += bias. y [.., N] (ldy). */
typedef void ks_add_bias_fn(float *y, size_t ldy, const float *bias, size_t from, size_t to, size_t N);
KS_DECLARE(ks_add_bias_fn, ks_add_bias_rows);

#endif
