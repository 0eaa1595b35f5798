/* kernels.h - all launchers of kernels/, one operation per file. What an operation means is defined by its CPU twin, the operation of the
 * same name in src/compute/backend.h (src/compute/cpu/isa/); here stand only layouts and what differs.
 *
 * All pointers are device memory (a struct's pointers too), all arrays dense and row-major unless a leading dimension is given; index
 * arrays are int64 as in backend.h. stream: a cudaStream_t. A launcher starts its kernel, does not wait, and returns cudaGetLastError(); n
 * = 0 is allowed. Row-local: a row's bits do not depend on other rows, on n, or on the grid. Sums run in a fixed tree that depends on the
 * row's length only. No atomics on floats. Letters: D hidden, H query heads, G key/value heads, E head dim, F feed-forward, V vocabulary, T
 * tokens of a sample, R rows. */
#ifndef KS_KERNELS_H
#define KS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { KS_K_BF16, KS_K_F16, KS_K_F32 }; /* types of weights */

/* An operand of products is `void *` with its form, as src/base/dtype.h says: KS_FORM_F32, or 1 to 3 for bf16 parts of the same fp32
 * values; aligned to 16 bytes where it comes from attention with E % 4 == 0, as q, k and v are. operand.cuh */

/* y[r] [D] = float(embedding[ids[r]]) * scale; embedding [V, D] of a KS_K_ type. rows.cu */
int ks_k_embed(float *y, const void *embedding, int type, const int32_t *ids, size_t R, size_t D, float scale, void *stream);
/* y[i] = x[rows[i]], rows of `bytes` bytes, an even number; y[rows[i]] = x[rows[i]] + t[i] (rows NULL: i; y may be x);
 * d[d_rows[i]] = bf16(x[x_rows[i]] + d[d_rows[i]]) - x[x_rows[i]]. [n, D]. rows.cu */
int ks_k_gather(void *y, const void *x, const int64_t *rows, size_t n, size_t bytes, void *stream);
int ks_k_add(float *y, const float *x, const float *t, const int64_t *rows, size_t n, size_t D, void *stream);
int ks_k_round_diff(float *d, const int64_t *d_rows, const float *x, const int64_t *x_rows, size_t n, size_t D, void *stream);
/* y[r] += bias, y [n, N] with leading dimension ldy. rows.cu */
int ks_k_add_bias(float *y, size_t ldy, const float *bias, size_t n, size_t N, void *stream);

/* norm.cu: as backend.h; rows NULL: i. kind: KS_NORM_* (model/families.h). mean NULL for RMS; mean, inv_rms NULL: no tape. */
int ks_k_norm(void *y, int form, float *mean, float *inv_rms, const float *x, const int64_t *rows, size_t n, size_t D, int kind, float eps,
              const float *weight, const float *bias, void *stream);
int ks_k_norm_diff(void *dy, int form, const float *d, const int64_t *d_rows, const float *x, const int64_t *x_rows, size_t n, size_t D,
                   int kind, float eps, const float *weight, void *stream);

/* rope.cu: cos, sin [.., dim/2] on the device. */
int ks_k_rope(float *x, size_t n, size_t heads, size_t E, size_t dim, const float *cos_t, const float *sin_t, const int64_t *table_rows,
              void *stream);

/* activate.cu: act: KS_ACT_* (model/arch.h). */
int ks_k_activate(void *a, int form, const float *g, const float *u, size_t n, size_t F, int act, void *stream);
int ks_k_activate_diff(void *da, int form, const float *dg, const float *du, const float *g, const float *u, const int64_t *x_rows,
                       size_t n, size_t F, int act, void *stream);

/* One sample of the trunk. */
typedef struct ks_k_sample {
    int64_t row0, logp; /* as ks_attention_item */
    int32_t T;
} ks_k_sample;

/* attention.cu: as backend.h; samples [n] device. longest: largest T, or more. A row's scores lie in shared memory: cudaErrorInvalidValue
 * above 14,000 tokens, as in attention_diff. */
int ks_k_attention(void *out, int form, float *logp, const float *q, const float *k, const float *v, const ks_k_sample *samples, size_t n,
                   int32_t longest, int32_t H, int32_t G, int32_t E, int32_t window, float scale, void *stream);

/* One branch, as ks_branch_item. Offsets are into `lists`, an int32 array on the device. */
typedef struct ks_k_branch {
    ks_k_sample trunk;
    int64_t in_row, out_row, q_row;
    int32_t n_in, n_out;
    int32_t in_pos, out_pos;       /* offsets: [n_in], [n_out] ascending positions */
    int32_t edge_start, edge_keys; /* offsets: ks_edges.start [T + 1] and .key; edge_start < 0: no intervention */
    int32_t heads;                 /* offset: [H] 0 or 1; < 0: all */
    int32_t kind;
    double value;
} ks_k_branch;

/* attention_diff.cu: as backend.h; branches [n] device. longest: largest T of a branch, most_out: largest n_out (more costs time only). */
int ks_k_attention_diff(void *da, int form, const float *dq, const float *dk, const float *dv, const float *q, const float *k,
                        const float *v, const float *logp, const ks_k_branch *branches, const int32_t *lists, size_t n, int32_t longest,
                        int32_t most_out, int32_t H, int32_t G, int32_t E, int32_t window, float scale, void *stream);

/* Edges of one sample: every key of each query. Offsets are into `lists`, as above. */
typedef struct ks_k_edge_item {
    ks_k_sample trunk;
    int64_t to; /* place of the sample's [H] in strength */
    int32_t queries, keys, n_queries, n_keys;
} ks_k_edge_item;

/* edge_weights.cu: as backend.h; items [n], strength double on the device. */
int ks_k_edge_weights(double *strength, const float *logp, const ks_k_edge_item *items, const int32_t *lists, size_t n, int32_t H,
                      int32_t window, void *stream);

/* measure.cu: as backend.h, with ks_baseline_row, ks_measure_item and ks_measure (src/compute/backend.h) as they lie in memory, on the
 * device. */
int ks_k_baseline(void *out, const float *logits, size_t n, size_t V, void *stream);
int ks_k_measure(void *out, const float *e, const float *logits, const void *base, const void *items, size_t n, size_t V, void *stream);

#ifdef __cplusplus
}
#endif

#endif
