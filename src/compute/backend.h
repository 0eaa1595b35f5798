/* backend.h - the operations that the engine is made of, as one table per backend.
 *
 * The CPU backend (cpu/) defines what each operation means; every other backend is held against it.
 * Letters: L layers, D hidden, H query heads, G key/value heads, E head dim, F feed-forward, V vocabulary, T tokens of a
 * sample, R rows. A *state* row belongs to the trunk (one row per token of a sample); an *effect* row holds
 * branch - trunk at one token, exactly to fp32 relative to itself.
 *
 * Memory: `float *` arguments are device arrays from `alloc`, dense and row-major unless a leading dimension is given.
 * Index arrays, items and results of measures are host memory, read before the call returns. Weights (matrices, biases, norms) are provider
 * memory (model/weights.h); what a backend keeps of them it finds again by their place there. One thread at a time uses a device.
 * Operands of products are `void *` with their form (base/dtype.h); operations that make them take the form in which they are wanted.
 * Every function returns KS_OK or KS_EMACHINE. A row's result does not depend on what else is in the batch. */
#ifndef KS_COMPUTE_BACKEND_H
#define KS_COMPUTE_BACKEND_H

#include "base/dtype.h"
#include "model/model.h"
#include "plan/cell.h"
#include "plan/rows.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ks_device ks_device; /* one device (or one pool of CPU threads) and its scratch; each backend has its own */

typedef struct ks_device_options {
    int threads;     /* CPU threads, >= 1 */
    const char *isa; /* CPU: "generic", "avx2", "avx512"; NULL: KS_CPU_ISA from the environment, else the best there is */
    int local_rank;  /* CUDA: number of this rank on its host; modulo the number of GPUs it is the GPU's number */
    size_t memory;   /* CUDA: bytes of device memory that all of this rank's together should take at most; 0: no limit */
} ks_device_options;

/* How much of the operand X of a product counts. A backend may keep more than the grade asks for. */
enum {
    KS_GRADE_STATE, /* all of fp32: states, and whatever goes through the head */
    KS_GRADE_FULL,  /* at least 16 bits (cpu: all of fp32): effects with `precision: full`, whose error is relative to themselves */
    KS_GRADE_FAST,  /* X rounded to bf16 (nearest even) first: effects in the layers with `precision: fast` */
};

/* What norms of states leave for norms of effects. */
typedef struct ks_norm_tape {
    float *mean;    /* [R]; layer norm only, else NULL */
    float *inv_rms; /* [R] 1/sqrt(mean(x^2) + eps), layer norm: of the centred x */
} ks_norm_tape;

typedef struct ks_norm {
    int kind; /* KS_NORM_RMS, KS_NORM_LAYER */
    float eps;
    const float *weight; /* [D] host; Gemma's 1 + w is already in it */
    const float *bias;   /* [D] or NULL; drops out of effects */
} ks_norm;

/* One sample of the trunk for attention. Rows row0 .. row0 + T - 1 of q, k, v, out are its positions 0 .. T - 1. */
typedef struct ks_attention_item {
    int64_t row0;
    int32_t T;
    int64_t logp; /* offset in floats of this sample's block [H, T, KS_PADDED(T)] in logp */
} ks_attention_item;
#define KS_PADDED(T) (((int64_t)(T) + 15) / 16 * 16)

/* One branch for attention of effects. */
typedef struct ks_branch_item {
    ks_attention_item trunk;
    /* Input positions (ascending): where the branch's state, hence dk and dv, differs from the trunk. */
    const int32_t *in_pos; /* [n_in] */
    int32_t n_in;
    int64_t in_row; /* dk, dv rows in_row + i belong to in_pos[i] */
    /* Output positions (ascending): where the attention output is wanted. */
    const int32_t *out_pos; /* [n_out] */
    int32_t n_out;
    int64_t out_row; /* da row out_row + i belongs to out_pos[i] */
    int64_t q_row;   /* dq rows from q_row on belong to the output positions that are input positions too, in order; others have dq = 0 */
    /* Intervention in this layer. */
    const ks_edges *edges; /* NULL: none */
    int kind;              /* KS_KNOCKOUT, KS_SCALE, KS_SET (input/config.h) */
    double value;          /* f or v */
    const uint8_t *heads;  /* [H] 1 = acts in this head; NULL: all */
} ks_branch_item;

/* Edges of one sample whose weights are wanted: every key of each query. */
typedef struct ks_edge_item {
    ks_attention_item trunk;
    size_t to; /* row of the result */
    const int32_t *queries, *keys;
    int32_t n_queries, n_keys;
} ks_edge_item;

/* What a layer's attention is, for states and effects. */
typedef struct ks_attention {
    int32_t H, G, E;
    int32_t window; /* sliding window W: key k visible to query q iff q - W < k <= q; 0: iff k <= q */
    float scale;    /* of q.k */
} ks_attention;

/* Facts about one row of baseline logits. */
typedef struct ks_baseline_row {
    double lse;     /* log sum exp of the logits */
    double entropy; /* nats */
    int32_t top_ids[KS_TOP_K];
    double top_p[KS_TOP_K];
    bool finite; /* all logits finite */
} ks_baseline_row;

/* One row of logit changes to measure against its baseline row. */
typedef struct ks_measure_item {
    int64_t base_row; /* row of logits */
    int32_t next;     /* id of the text's own next token, -1: none */
    bool full;        /* false: only kl, p_next, dlogit_next are wanted */
} ks_measure_item;

typedef struct ks_measure {
    ks_cell cell; /* status: KS_CELL_DONE or KS_CELL_NOT_FINITE (values NaN) */
    double p_next, dlogit_next;
} ks_measure;

/* The memory of a device, for the plan. */
typedef struct ks_device_memory {
    char place[64]; /* ranks of a host with the same one share that memory */
    int64_t free;   /* bytes that nobody uses now */
    int64_t own;    /* bytes that the backend needs beside weights and arrays, those that it has included */
    bool shares;    /* it can hold weights together with other ranks' devices */
    char how[256];  /* it does that, or why it cannot */
} ks_device_memory;

/* Devices of several ranks that are to hold weights together: made by one rank, sent to the others as bytes. */
typedef struct ks_device_group {
    char bytes[128];
} ks_device_group;

typedef struct ks_backend {
    const char *name;
    int (*open)(ks_device **out, const ks_device_options *options);
    void (*close)(ks_device *dev);
    const char *(*describe)(const ks_device *dev); /* for /provenance: device, instruction set */
    /* For /provenance: how products were computed so far, a line a kind; valid until the next product. */
    const char *(*algorithms)(const ks_device *dev);

    int (*memory)(ks_device *dev, ks_device_memory *out); /* NULL: weights and arrays are in host memory */
    int (*alloc)(ks_device *dev, float **out, size_t n);  /* not initialised */
    void (*free)(ks_device *dev, float *p);
    int (*zero)(ks_device *dev, float *p, size_t n);
    int (*copy)(ks_device *dev, float *dst, const float *src, size_t n);
    int (*download)(ks_device *dev, float *host, const float *src, size_t n);
    int (*upload)(ks_device *dev, float *dst, const float *host, size_t n);

    /* Weights on their way to the device, beside what it computes. NULL where operations read them in place (CPU). */
    /* Matrices that stay in their place: those that are not there yet are copied, for good. *copied: whether any was. */
    int (*keep)(ks_device *dev, const ks_tensor *w, size_t n, bool *copied);
    /* Matrices whose place will hold others: for operations called until the next fetch. Their host memory must not change until `fetched`
     * returns, which does not wait for operations that use them. */
    int (*fetch)(ks_device *dev, const ks_tensor *w, size_t n);
    int (*fetched)(ks_device *dev);
    /* fetch will read from this memory, aligned to pages, until forget; where it cannot be made fit for fast copies, that is said. */
    int (*pin)(ks_device *dev, void *memory, size_t bytes);
    /* Weights that devices of several ranks hold together. A group is made by one rank; each of its n members joins it, and waits up to
     * `patience` seconds for the others, then and whenever one is behind. It lasts until the device is closed. */
    int (*new_group)(ks_device_group *out);
    int (*join)(ks_device *dev, const ks_device_group *group, int member, int members, double patience);
    /* What member `from` keeps of these matrices comes to the others' devices: for good, as by keep, or as by fetch, without `fetched`. All
     * members call it for the same matrices in the same order. */
    int (*share)(ks_device *dev, const ks_tensor *w, size_t n, int from, bool stays);
    /* The model may be closed, and pinned memory go: nothing of either is used any more. */
    void (*forget)(ks_device *dev);

    /* y[r] = embedding[ids[r]] * scale, [R, D]. */
    int (*embed)(ks_device *dev, float *y, const ks_tensor *embedding, const int32_t *ids, size_t R, float scale);

    /* The form that products with weights of this type want for a grade; asked without a device. Any type of weights takes
     * KS_FORM_F32, too. */
    int (*form)(ks_dtype weights, int grade);
    /* y [M, N] with leading dimension ldy = x [M, K] * w [N, K]^T (+ bias [N], host, NULL: none). x: an operand in the form that is wanted
     * for w and grade, or KS_FORM_F32. Defined order of sums: cpu/isa/gemm.h. */
    int (*linear)(ks_device *dev, float *y, size_t ldy, const void *x, int form, const ks_tensor *w, const float *bias, size_t M,
                  int grade);

    /* y[i] = norm(x[rows[i]]) (rows NULL: i), keeps tape[rows[i]] when tape is not NULL. x [.., D], y: operand [n, D]. */
    int (*norm)(ks_device *dev, void *y, int form, const ks_norm_tape *tape, const float *x, const int64_t *rows, size_t n, size_t D,
                const ks_norm *p);
    /* dy[i] = norm(x[x_rows[i]] + d[d_rows[i]]) - norm(x[x_rows[i]]), by exact algebra. dy: operand [n, D]. A backend may take 1/rms from
     * the tape or compute it anew (cpu does). */
    int (*norm_diff)(ks_device *dev, void *dy, int form, const float *d, const int64_t *d_rows, const float *x, const ks_norm_tape *tape,
                     const int64_t *x_rows, size_t n, size_t D, const ks_norm *p);

    /* Rotates in place the first `dim` of each head's E values, pairs (i, i + dim/2), row r at angle row table_rows[r] of cos, sin
     * [.., dim/2] (device). Linear, so the same for states and effects. x [n, heads * E]. */
    int (*rope)(ks_device *dev, float *x, size_t n, size_t heads, size_t E, size_t dim, const float *cos_t, const float *sin_t,
                const int64_t *table_rows);

    /* Attention of states: out, operand [rows, H*E], and log weights logp (-inf where not visible, and in the padding). */
    int (*attention)(ks_device *dev, void *out, int form, float *logp, const float *q, const float *k, const float *v,
                     const ks_attention_item *items, size_t n, const ks_attention *p);
    /* Attention of effects beside the trunk's q, k, v, logp: da, operand [.., H*E]. */
    int (*attention_diff)(ks_device *dev, void *da, int form, const float *dq, const float *dk, const float *dv, const float *q,
                          const float *k, const float *v, const float *logp, const ks_branch_item *items, size_t n, const ks_attention *p);
    /* strength [.., H] (device): for each item, mean baseline weight of each head over the keys of a query, and of that over queries; a
     * pair that is not visible counts 0, as do no pairs. */
    int (*edge_weights)(ks_device *dev, double *strength, const float *logp, const ks_edge_item *items, size_t n, const ks_attention *p);

    /* a[r] = act(g[r]) * u[r]; without gate (g NULL): act(u[r]). a: operand [n, F]; in KS_FORM_F32 it may be u. act: KS_ACT_*
     * (model/arch.h). */
    int (*activate)(ks_device *dev, void *a, int form, const float *g, const float *u, size_t n, size_t F, int act);
    /* da[r] = the change of that when g, u (rows x_rows[r] of the trunk) change by dg[r], du[r]. da: operand; in KS_FORM_F32 it may be du.
     */
    int (*activate_diff)(ks_device *dev, void *da, int form, const float *dg, const float *du, const float *g, const float *u,
                         const int64_t *x_rows, size_t n, size_t F, int act);

    /* y[i] = x[rows[i]]: n rows of `bytes` bytes, of an operand. */
    int (*gather)(ks_device *dev, void *y, const void *x, const int64_t *rows, size_t n, size_t bytes);
    /* y[rows[i]] = x[rows[i]] + t[i] (rows NULL: i), where no row may appear twice. t [n, D]; y may be x. */
    int (*add)(ks_device *dev, float *y, const float *x, const float *t, const int64_t *rows, size_t n, size_t D);
    /* d[d_rows[i]] = bf16(x[x_rows[i]] + d[d_rows[i]]) - x[x_rows[i]]: the floor's rounding of the residual stream. */
    int (*round_diff)(ks_device *dev, float *d, const int64_t *d_rows, const float *x, const int64_t *x_rows, size_t n, size_t D);

    /* Facts of n rows of logits [n, V]; out [n] host. */
    int (*baseline)(ks_device *dev, ks_baseline_row *out, const float *logits, size_t n, size_t V);
    /* Measures of n rows of logit changes e [n, V] against logits [.., V] with their facts base [..] (by base_row); out [n] host.
     * Formulas: docs/method.md; from log-softmax in double, without cancellation. */
    int (*measure)(ks_device *dev, ks_measure *out, const float *e, const float *logits, const ks_baseline_row *base,
                   const ks_measure_item *items, size_t n, size_t V);
} ks_backend;

/* "auto", "cpu", "cuda"; KS_EUSAGE for another name, KS_EMACHINE with a reason when the backend is not there. auto: cuda where a GPU
 * answers, else cpu, and why (verbose). */
int ks_backend_find(const ks_backend **out, const char *name);

#endif
