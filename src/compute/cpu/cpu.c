/* The host side: memory, and work cut into items for the pool. What an operation computes is in isa/. */
#include "compute/cpu/cpu.h"

#include "base/error.h"
#include "base/mem.h"
#include "compute/cpu/dispatch.h"
#include "compute/cpu/gemm.h"
#include "compute/cpu/pool.h"

#include <cpuid.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ITEM_WORK = 1 << 15,  /* elements of an item of row-wise work */
    MEASURE_ROWS = 8,     /* rows of an item of measures: neighbours share their baseline row */
    ROUNDED_MAX = 4 << 20 /* floats of X that are rounded at once for KS_GRADE_FAST */
};

struct ks_device {
    ks_pool *pool;
    ks_gemm *gemm;
    const ks_cpu_ops *ops;
    void *scratch; /* of the running operation */
    size_t scratch_bytes;
    char description[128];
};

/* n bytes of scratch for each of `parts`, 64-byte aligned; *stride: bytes from one to the next. What it held is lost. */
static int scratch_get(ks_device *dev, size_t parts, size_t bytes, char **out, size_t *stride)
{
    int rc = KS_OK;
    *stride = (bytes + 63) / 64 * 64;
    const size_t need = parts * *stride;
    if (need > dev->scratch_bytes) {
        ks_big_free(dev->scratch);
        dev->scratch = NULL;
        dev->scratch_bytes = 0;
        KS_GET(dev->scratch, ks_big_alloc(need));
        dev->scratch_bytes = need;
    }
    *out = dev->scratch;
done:
    return rc;
}

/* Row-wise work: fn(args, ops, from, to) over [0, n) in parts of about ITEM_WORK elements. */
typedef void rows_fn(const void *args, const ks_cpu_ops *ops, size_t from, size_t to);

typedef struct rows_job {
    rows_fn *fn;
    const void *args;
    const ks_cpu_ops *ops;
    size_t n, step;
} rows_job;

static void rows_item(void *arg, size_t i, int worker)
{
    const rows_job *j = arg;
    const size_t from = i * j->step, to = from + j->step;
    (void)worker;
    j->fn(j->args, j->ops, from, to < j->n ? to : j->n);
}

static int for_rows(ks_device *dev, rows_fn *fn, const void *args, size_t n, size_t width)
{
    rows_job job = {fn, args, dev->ops, n, ITEM_WORK / (width ? width : 1) + 1};
    if (n <= job.step) fn(args, dev->ops, 0, n);
    else ks_pool_run(dev->pool, rows_item, &job, (n + job.step - 1) / job.step);
    return KS_OK;
}

/* ---- device and memory ---- */

static void cpu_close(ks_device *dev)
{
    if (!dev) return;
    ks_gemm_free(dev->gemm);
    ks_pool_free(dev->pool);
    ks_big_free(dev->scratch);
    free(dev);
}

/* "AMD EPYC 9654 96-Core Processor"; "" where the processor does not say. */
static void processor_name(char name[49])
{
    unsigned r[12] = {0};
    if ((unsigned)__get_cpuid_max(0x80000000u, NULL) >= 0x80000004u) {
        for (unsigned i = 0; i < 3; i++) __get_cpuid(0x80000002u + i, r + 4 * i, r + 4 * i + 1, r + 4 * i + 2, r + 4 * i + 3);
    }
    memcpy(name, r, 48);
    name[48] = 0;
    for (size_t n = strlen(name); n > 0 && name[n - 1] == ' '; n--) name[n - 1] = 0;
}

static int cpu_open(ks_device **out, const ks_device_options *options)
{
    int rc = KS_OK;
    ks_device *dev = NULL;
    char name[49];

    KS_NEW(dev, 1);
    KS_TRY(ks_cpu_ops_find(&dev->ops, options->isa));
    KS_TRY(ks_pool_new(&dev->pool, options->threads));
    KS_TRY(ks_gemm_new(&dev->gemm, dev->pool, dev->ops->name));
    processor_name(name);
    snprintf(dev->description, sizeof dev->description, "%s%s%s, %d thread%s", name, *name ? ", " : "", dev->ops->name, options->threads,
             options->threads == 1 ? "" : "s");
done:
    if (rc) cpu_close(dev);
    else *out = dev;
    return rc;
}

static const char *cpu_describe(const ks_device *dev)
{
    return dev->description;
}

static const char *cpu_algorithms(const ks_device *dev)
{
    (void)dev;
    return "cpu gemm"; /* whose order of sums is one for all (isa/gemm.h) */
}

static int cpu_alloc(ks_device *dev, float **out, size_t n)
{
    int rc = KS_OK;
    (void)dev;
    KS_REQUIRE(n <= SIZE_MAX / sizeof **out, KS_EMACHINE, "an array of %zu floats is more than memory has addresses", n);
    KS_GET(*out, ks_big_alloc((n ? n : 1) * sizeof **out));
done:
    return rc;
}

static void cpu_free(ks_device *dev, float *p)
{
    (void)dev;
    ks_big_free(p);
}

static int cpu_zero(ks_device *dev, float *p, size_t n)
{
    (void)dev;
    if (n) memset(p, 0, n * sizeof *p);
    return KS_OK;
}

static int cpu_copy(ks_device *dev, float *dst, const float *src, size_t n)
{
    (void)dev;
    if (n) memcpy(dst, src, n * sizeof *dst);
    return KS_OK;
}

/* ---- rows ---- */

typedef struct embed_args {
    float *y;
    const ks_tensor *embedding;
    const int32_t *ids;
    float scale;
} embed_args;

static void embed_rows(const void *args, const ks_cpu_ops *ops, size_t from, size_t to)
{
    const embed_args *a = args;
    ops->embed(a->y, a->embedding, a->ids, from, to, a->scale);
}

static int cpu_embed(ks_device *dev, float *y, const ks_tensor *embedding, const int32_t *ids, size_t R, float scale)
{
    return for_rows(dev, embed_rows, &(embed_args){y, embedding, ids, scale}, R, (size_t)embedding->cols);
}

typedef struct gather_args {
    char *y;
    const char *x;
    const int64_t *rows;
    size_t bytes;
} gather_args;

static void gather_rows(const void *args, const ks_cpu_ops *ops, size_t from, size_t to)
{
    const gather_args *a = args;
    (void)ops;
    for (size_t r = from; r < to; r++) memcpy(a->y + r * a->bytes, a->x + (size_t)a->rows[r] * a->bytes, a->bytes);
}

static int cpu_gather(ks_device *dev, void *y, const void *x, const int64_t *rows, size_t n, size_t bytes)
{
    return for_rows(dev, gather_rows, &(gather_args){y, x, rows, bytes}, n, bytes / sizeof(float));
}

typedef struct add_args {
    float *y;
    const float *x, *t;
    const int64_t *rows;
    size_t D;
} add_args;

static void add_rows(const void *args, const ks_cpu_ops *ops, size_t from, size_t to)
{
    const add_args *a = args;
    ops->add(a->y, a->x, a->t, a->rows, from, to, a->D);
}

static int cpu_add(ks_device *dev, float *y, const float *x, const float *t, const int64_t *rows, size_t n, size_t D)
{
    return for_rows(dev, add_rows, &(add_args){y, x, t, rows, D}, n, D);
}

typedef struct round_args {
    float *d;
    const int64_t *d_rows;
    const float *x;
    const int64_t *x_rows;
    size_t D;
} round_args;

static void round_rows(const void *args, const ks_cpu_ops *ops, size_t from, size_t to)
{
    const round_args *a = args;
    ops->round_diff(a->d, a->d_rows, a->x, a->x_rows, from, to, a->D);
}

static int cpu_round_diff(ks_device *dev, float *d, const int64_t *d_rows, const float *x, const int64_t *x_rows, size_t n, size_t D)
{
    return for_rows(dev, round_rows, &(round_args){d, d_rows, x, x_rows, D}, n, D);
}

typedef struct rope_args {
    float *x;
    size_t heads, E, dim;
    const float *cos_t, *sin_t;
    const int64_t *table_rows;
} rope_args;

static void rope_rows(const void *args, const ks_cpu_ops *ops, size_t from, size_t to)
{
    const rope_args *a = args;
    ops->rope(a->x, from, to, a->heads, a->E, a->dim, a->cos_t, a->sin_t, a->table_rows);
}

static int cpu_rope(ks_device *dev, float *x, size_t n, size_t heads, size_t E, size_t dim, const float *cos_t, const float *sin_t,
                    const int64_t *table_rows)
{
    return for_rows(dev, rope_rows, &(rope_args){x, heads, E, dim, cos_t, sin_t, table_rows}, n, heads * E);
}

/* ---- products ---- */

typedef struct round_x_args {
    float *y;
    const float *x;
    size_t K;
} round_x_args;

static void round_x_rows(const void *args, const ks_cpu_ops *ops, size_t from, size_t to)
{
    const round_x_args *a = args;
    ops->to_bf16(a->y + from * a->K, a->x, a->K, from, to, a->K);
}

typedef struct bias_args {
    float *y;
    size_t ldy;
    const float *bias;
    size_t N;
} bias_args;

static void bias_rows(const void *args, const ks_cpu_ops *ops, size_t from, size_t to)
{
    const bias_args *a = args;
    ops->add_bias(a->y, a->ldy, a->bias, from, to, a->N);
}

static int cpu_form(ks_dtype weights, int grade)
{
    (void)weights, (void)grade;
    return KS_FORM_F32;
}

static int cpu_linear(ks_device *dev, float *y, size_t ldy, const void *operand, int form, const ks_tensor *w, const float *bias, size_t M,
                      int grade)
{
    int rc = KS_OK;
    const float *x = operand;
    const size_t N = (size_t)w->rows, K = (size_t)w->cols, ldw = (size_t)w->ld;
    KS_REQUIRE(form == KS_FORM_F32, KS_EMACHINE, "an operand of %d parts: the CPU takes fp32", form);
    KS_REQUIRE(K <= KS_GEMM_K_MAX, KS_EMACHINE, "a product of length %zu: at most %d can be summed", K, KS_GEMM_K_MAX);

    if (grade == KS_GRADE_FAST && K) {
        size_t step = ROUNDED_MAX / K + 1, stride;
        char *scratch;
        if (step > M) step = M;
        KS_TRY(scratch_get(dev, 1, step * K * sizeof *x, &scratch, &stride));
        float *rounded = (float *)(void *)scratch;
        for (size_t r = 0; r < M; r += step) {
            const size_t m = M - r < step ? M - r : step;
            KS_TRY(for_rows(dev, round_x_rows, &(round_x_args){rounded, x + r * K, K}, m, K));
            ks_gemm_run(dev->gemm, y + r * ldy, ldy, rounded, K, w->data, w->dtype, ldw, m, N, K, false);
        }
    } else {
        ks_gemm_run(dev->gemm, y, ldy, x, K, w->data, w->dtype, ldw, M, N, K, false);
    }
    if (bias) KS_TRY(for_rows(dev, bias_rows, &(bias_args){y, ldy, bias, N}, M, N));
done:
    return rc;
}

/* ---- norms and activations ---- */

typedef struct norm_args {
    float *y;
    const ks_norm_tape *tape;
    const float *x, *d;
    const int64_t *x_rows, *d_rows;
    size_t D;
    const ks_norm *p;
} norm_args;

static void norm_rows(const void *args, const ks_cpu_ops *ops, size_t from, size_t to)
{
    const norm_args *a = args;
    ops->norm(a->y, a->tape, a->x, a->x_rows, from, to, a->D, a->p);
}

static void norm_diff_rows(const void *args, const ks_cpu_ops *ops, size_t from, size_t to)
{
    const norm_args *a = args;
    ops->norm_diff(a->y, a->d, a->d_rows, a->x, a->tape, a->x_rows, from, to, a->D, a->p);
}

static int cpu_norm(ks_device *dev, void *y, int form, const ks_norm_tape *tape, const float *x, const int64_t *rows, size_t n, size_t D,
                    const ks_norm *p)
{
    (void)form;
    return for_rows(dev, norm_rows, &(norm_args){y, tape, x, NULL, rows, NULL, D, p}, n, D);
}

static int cpu_norm_diff(ks_device *dev, void *dy, int form, const float *d, const int64_t *d_rows, const float *x,
                         const ks_norm_tape *tape, const int64_t *x_rows, size_t n, size_t D, const ks_norm *p)
{
    (void)form;
    return for_rows(dev, norm_diff_rows, &(norm_args){dy, tape, x, d, x_rows, d_rows, D, p}, n, D);
}

typedef struct activate_args {
    float *a;
    const float *dg, *du, *g, *u;
    const int64_t *x_rows;
    size_t F;
    int act;
} activate_args;

static void activate_rows(const void *args, const ks_cpu_ops *ops, size_t from, size_t to)
{
    const activate_args *a = args;
    ops->activate(a->a, a->g, a->u, from, to, a->F, a->act);
}

static void activate_diff_rows(const void *args, const ks_cpu_ops *ops, size_t from, size_t to)
{
    const activate_args *a = args;
    ops->activate_diff(a->a, a->dg, a->du, a->g, a->u, a->x_rows, from, to, a->F, a->act);
}

static int cpu_activate(ks_device *dev, void *a, int form, const float *g, const float *u, size_t n, size_t F, int act)
{
    (void)form;
    return for_rows(dev, activate_rows, &(activate_args){a, NULL, NULL, g, u, NULL, F, act}, n, F);
}

static int cpu_activate_diff(ks_device *dev, void *da, int form, const float *dg, const float *du, const float *g, const float *u,
                             const int64_t *x_rows, size_t n, size_t F, int act)
{
    (void)form;
    return for_rows(dev, activate_diff_rows, &(activate_args){da, dg, du, g, u, x_rows, F, act}, n, F);
}

/* ---- attention: an item of the pool is one (sample or branch, key/value head) ---- */

typedef struct attention_job {
    const ks_cpu_ops *ops;
    float *out, *logp;
    const float *dq, *dk, *dv, *q, *k, *v, *logp_in;
    const ks_attention_item *items;
    const ks_branch_item *branches;
    size_t n;
    const ks_attention *p;
    char *scratch;
    size_t stride;
} attention_job;

static void attention_item(void *arg, size_t i, int worker)
{
    const attention_job *j = arg;
    float *scratch = (float *)(void *)(j->scratch + (size_t)worker * j->stride);
    j->ops->attention(j->out, j->logp, j->q, j->k, j->v, j->items + i % j->n, i / j->n, j->p, scratch);
}

static int cpu_attention(ks_device *dev, void *out, int form, float *logp, const float *q, const float *k, const float *v,
                         const ks_attention_item *items, size_t n, const ks_attention *p)
{
    (void)form;
    int rc = KS_OK;
    int32_t T = 0;
    attention_job job = {.ops = dev->ops, .out = out, .logp = logp, .q = q, .k = k, .v = v, .items = items, .n = n, .p = p};
    for (size_t i = 0; i < n; i++) T = items[i].T > T ? items[i].T : T;
    KS_TRY(scratch_get(dev, (size_t)ks_pool_threads(dev->pool), ks_attention_scratch(p, T) * sizeof(float), &job.scratch, &job.stride));
    ks_pool_run(dev->pool, attention_item, &job, n * (size_t)p->G);
done:
    return rc;
}

/* Each worker's scratch begins with what it holds packed. */
enum { CACHE_BYTES = 64 };
_Static_assert(sizeof(ks_attention_cache) <= CACHE_BYTES, "the cache's key has its own line");

static void attention_diff_item(void *arg, size_t i, int worker)
{
    const attention_job *j = arg;
    char *mine = j->scratch + (size_t)worker * j->stride;
    j->ops->attention_diff(j->out, j->dq, j->dk, j->dv, j->q, j->k, j->v, j->logp_in, j->branches + i % j->n, i / j->n, j->p,
                           (ks_attention_cache *)(void *)mine, (float *)(void *)(mine + CACHE_BYTES));
}

static int cpu_attention_diff(ks_device *dev, void *da, int form, const float *dq, const float *dk, const float *dv, const float *q,
                              const float *k, const float *v, const float *logp, const ks_branch_item *items, size_t n,
                              const ks_attention *p)
{
    (void)form;
    int rc = KS_OK;
    int32_t T = 0;
    const size_t workers = (size_t)ks_pool_threads(dev->pool);
    attention_job job = {.ops = dev->ops,
                         .out = da,
                         .dq = dq,
                         .dk = dk,
                         .dv = dv,
                         .q = q,
                         .k = k,
                         .v = v,
                         .logp_in = logp,
                         .branches = items,
                         .n = n,
                         .p = p};
    for (size_t i = 0; i < n; i++) T = items[i].trunk.T > T ? items[i].trunk.T : T;
    KS_TRY(scratch_get(dev, workers, CACHE_BYTES + ks_attention_scratch(p, T) * sizeof(float), &job.scratch, &job.stride));
    for (size_t w = 0; w < workers; w++) *(ks_attention_cache *)(void *)(job.scratch + w * job.stride) = (ks_attention_cache){.row0 = -1};
    ks_pool_run(dev->pool, attention_diff_item, &job, n * (size_t)p->G);
done:
    return rc;
}

static int cpu_edge_weights(ks_device *dev, double *strength, const float *logp, const ks_edge_item *items, size_t n, const ks_attention *p)
{
    int rc = KS_OK;
    char *scratch;
    size_t stride;
    int32_t most = 0;
    for (size_t i = 0; i < n; i++) most = items[i].n_keys > most ? items[i].n_keys : most;
    KS_TRY(scratch_get(dev, 1, (size_t)most * sizeof(int64_t), &scratch, &stride));
    int64_t *at = (int64_t *)(void *)scratch;
    for (size_t i = 0; i < n; i++) {
        const ks_edge_item *item = &items[i];
        const int64_t T = item->trunk.T, P = KS_PADDED(T);
        double *mean = strength + item->to * (size_t)p->H;
        for (int32_t h = 0; h < p->H; h++) mean[h] = 0;
        for (int32_t q = 0; q < item->n_queries; q++) {
            const int32_t query = item->queries[q];
            size_t visible = 0;
            for (int32_t k = 0; k < item->n_keys; k++) {
                const int32_t key = item->keys[k];
                if (key <= query && (!p->window || key > query - p->window)) at[visible++] = query * P + key;
            }
            for (int64_t h = 0; visible && h < p->H; h++)
                mean[h] += dev->ops->sum_weights(logp + item->trunk.logp + h * T * P, at, visible) / (double)item->n_keys;
        }
        for (int32_t h = 0; item->n_queries && h < p->H; h++) mean[h] /= item->n_queries;
    }
done:
    return rc;
}

/* ---- measures ---- */

typedef struct measure_job {
    const ks_cpu_ops *ops;
    ks_measure *out;
    const float *e, *logits;
    const ks_baseline_row *base;
    const ks_measure_item *items;
    size_t n, V;
    char *scratch; /* a worker's: the base row that it holds, then p [V] of that row */
    size_t stride;
} measure_job;

static void measure_item(void *arg, size_t i, int worker)
{
    const measure_job *j = arg;
    char *mine = j->scratch + (size_t)worker * j->stride;
    int64_t *held = (int64_t *)(void *)mine;
    double *p = (double *)(void *)(mine + CACHE_BYTES);
    for (size_t r = i * MEASURE_ROWS; r < j->n && r < (i + 1) * MEASURE_ROWS; r++) {
        const ks_measure_item *item = j->items + r;
        const float *logits = j->logits + (size_t)item->base_row * j->V;
        const ks_baseline_row *base = j->base + item->base_row;
        if (*held != item->base_row && base->finite) {
            j->ops->measure_base(p, logits, base->lse, j->V);
            *held = item->base_row;
        }
        j->ops->measure(j->out + r, j->e + r * j->V, logits, p, base, item, j->V);
    }
}

static int cpu_measure(ks_device *dev, ks_measure *out, const float *e, const float *logits, const ks_baseline_row *base,
                       const ks_measure_item *items, size_t n, size_t V)
{
    int rc = KS_OK;
    const size_t workers = (size_t)ks_pool_threads(dev->pool);
    measure_job job = {.ops = dev->ops, .out = out, .e = e, .logits = logits, .base = base, .items = items, .n = n, .V = V};
    KS_TRY(scratch_get(dev, workers, CACHE_BYTES + (size_t)KS_PADDED(V) * sizeof(double), &job.scratch, &job.stride));
    for (size_t w = 0; w < workers; w++) *(int64_t *)(void *)(job.scratch + w * job.stride) = -1;
    ks_pool_run(dev->pool, measure_item, &job, (n + MEASURE_ROWS - 1) / MEASURE_ROWS);
done:
    return rc;
}

typedef struct baseline_args {
    ks_baseline_row *out;
    const float *logits;
    size_t V;
} baseline_args;

static void baseline_rows(const void *args, const ks_cpu_ops *ops, size_t from, size_t to)
{
    const baseline_args *a = args;
    for (size_t r = from; r < to; r++) ops->baseline(a->out + r, a->logits + r * a->V, a->V);
}

static int cpu_baseline(ks_device *dev, ks_baseline_row *out, const float *logits, size_t n, size_t V)
{
    return for_rows(dev, baseline_rows, &(baseline_args){out, logits, V}, n, V);
}

const ks_backend ks_backend_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .describe = cpu_describe,
    .algorithms = cpu_algorithms,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .zero = cpu_zero,
    .copy = cpu_copy,
    .download = cpu_copy,
    .upload = cpu_copy,
    .embed = cpu_embed,
    .form = cpu_form,
    .linear = cpu_linear,
    .norm = cpu_norm,
    .norm_diff = cpu_norm_diff,
    .rope = cpu_rope,
    .attention = cpu_attention,
    .attention_diff = cpu_attention_diff,
    .edge_weights = cpu_edge_weights,
    .activate = cpu_activate,
    .activate_diff = cpu_activate_diff,
    .gather = cpu_gather,
    .add = cpu_add,
    .round_diff = cpu_round_diff,
    .baseline = cpu_baseline,
    .measure = cpu_measure,
};
