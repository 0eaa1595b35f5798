/* The host side of each operation: its lists and weights go to the device, its kernel or product into the queue. Nothing waits but what
 * brings a result to the host.
 *
 * Products. bf16 weights are multiplied as they are, by tensor cores, with an operand of bf16 parts: three for states (24 bits), two for
 * effects (16 bits, relative to the effect), one with KS_GRADE_FAST. The kernel that makes the operand splits it. Products of bf16 values
 * are exact in fp32, so what is lost is lost in sums; the smallest part is summed first. f32 weights take plain fp32 products of any grade:
 * splitting both operands would take six. f16 weights are widened to f32 first: an f16 product would need operands in f16's range, which
 * states leave. Widened, too, are bf16 weights that share an operand with others. */
#include "compute/cuda/cuda.h"

#include "base/error.h"
#include "base/mem.h"
#include "compute/cuda/kept.h"
#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STAGE_BYTES = 4 << 20, /* of a part of the ring, less where memory is tight */
    STAGE_LEAST = 256 << 10,
    RESERVE_LEAST = 256 << 10, /* of memory, for results and lists that are longer than usual */
    RESERVE_MOST = 256 << 20,
    SHARE = 64,              /* of memory: what the ring may take, and the reserve */
    LANDING_BYTES = 1 << 20, /* pinned, for what comes back */
    SEEN = 4,
};

/* Host scratch in which the lists of an operation are put together. */
typedef struct lists {
    char *v;
    size_t bytes, room;
} lists;

struct ks_device {
    ks_gpu *gpu;
    size_t memory; /* bytes of the device that all of this together should take at most */
    ks_stage stage;
    ks_kept kept;
    void *result; /* on the device, of an operation that returns something to the host */
    size_t result_bytes;
    void *landing;
    lists items, lists;  /* of structs, of numbers */
    ks_gpu_group *group; /* NULL: none was joined */
    int member;          /* of it, this is */
};

#define LAUNCH(dev, kernel, ...) ks_gpu_launched((dev)->gpu, kernel(__VA_ARGS__, ks_gpu_stream((dev)->gpu)), #kernel)

/* ---- device and memory ---- */

static void cuda_close(ks_device *dev)
{
    if (!dev) return;
    if (dev->gpu) {
        ks_gpu_group_leave(dev->group);
        ks_kept_close(&dev->kept);
        if (dev->stage.gpu) ks_stage_close(&dev->stage);
        ks_gpu_free(dev->gpu, dev->result);
        ks_gpu_free_host(dev->gpu, dev->landing);
        ks_gpu_close(dev->gpu);
    }
    free(dev->items.v);
    free(dev->lists.v);
    free(dev);
}

static size_t within(size_t x, size_t least, size_t most)
{
    return x < least ? least : x > most ? most : x;
}

static int cuda_open(ks_device **out, const ks_device_options *options)
{
    int rc = KS_OK;
    ks_device *dev = NULL;
    size_t all;
    KS_NEW(dev, 1);
    KS_TRY(ks_gpu_open(&dev->gpu, options->local_rank));
    KS_TRY(ks_gpu_alloc_host(dev->gpu, &dev->landing, LANDING_BYTES));
    KS_TRY(ks_gpu_memory(dev->gpu, &dev->memory, &all));
    if (options->memory && options->memory < dev->memory) dev->memory = options->memory;
    KS_TRY(ks_stage_open(&dev->stage, dev->gpu, KS_GPU_MAIN, within(dev->memory / SHARE / KS_STAGE_PARTS, STAGE_LEAST, STAGE_BYTES)));
    KS_TRY(ks_kept_open(&dev->kept, dev->gpu, STAGE_BYTES));
done:
    if (rc) cuda_close(dev);
    else *out = dev;
    return rc;
}

static const char *cuda_describe(const ks_device *dev)
{
    return ks_gpu_name(dev->gpu);
}

static const char *cuda_algorithms(const ks_device *dev)
{
    return ks_gpu_algorithms(dev->gpu);
}

static int cuda_memory(ks_device *dev, ks_device_memory *out)
{
    int rc = KS_OK;
    size_t left = 0, all = 0;
    *out = (ks_device_memory){0};
    snprintf(out->place, sizeof out->place, "%s", ks_gpu_place(dev->gpu));
    out->shares = !ks_gpu_group_probe(out->how, sizeof out->how);
    if (!out->shares) snprintf(out->how, sizeof out->how, "%s", ks_error_text());
    KS_TRY(ks_gpu_memory(dev->gpu, &left, &all));
    out->free = (int64_t)left;
    out->own = (int64_t)(KS_STAGE_PARTS * dev->stage.part_bytes + within(dev->memory / SHARE, RESERVE_LEAST, RESERVE_MOST));
done:
    return rc;
}

/* *p with room for at least `bytes`; what it held is lost. */
static int grow(ks_device *dev, void **p, size_t *room, size_t bytes)
{
    int rc = KS_OK;
    if (bytes <= *room) return rc;
    ks_gpu_free(dev->gpu, *p);
    *p = NULL;
    *room = 0;
    KS_TRY(ks_gpu_alloc(dev->gpu, p, bytes));
    *room = bytes;
done:
    return rc;
}

static int cuda_alloc(ks_device *dev, float **out, size_t n)
{
    int rc = KS_OK;
    void *p = NULL;
    KS_REQUIRE(n <= SIZE_MAX / sizeof **out / 2, KS_EMACHINE, "an array of %zu floats is more than memory has addresses", n);
    KS_TRY(ks_gpu_alloc(dev->gpu, &p, (n ? n : 1) * sizeof **out));
    *out = p;
done:
    return rc;
}

static void cuda_free(ks_device *dev, float *p)
{
    ks_gpu_free(dev->gpu, p);
}

static int cuda_zero(ks_device *dev, float *p, size_t n)
{
    return n ? ks_gpu_zero(dev->gpu, p, n * sizeof *p) : KS_OK;
}

static int cuda_copy(ks_device *dev, float *dst, const float *src, size_t n)
{
    return n ? ks_gpu_copy(dev->gpu, dst, src, n * sizeof *dst) : KS_OK;
}

/* Waits for everything before. */
static int bring_back(ks_device *dev, void *host, const void *src, size_t bytes)
{
    int rc = KS_OK;
    for (size_t at = 0, step; at < bytes; at += step) {
        step = bytes - at < LANDING_BYTES ? bytes - at : LANDING_BYTES;
        KS_TRY(ks_gpu_download(dev->gpu, dev->landing, (const char *)src + at, step));
        KS_TRY(ks_gpu_wait(dev->gpu));
        memcpy((char *)host + at, dev->landing, step);
    }
done:
    return rc;
}

static int cuda_download(ks_device *dev, float *host, const float *src, size_t n)
{
    return bring_back(dev, host, src, n * sizeof *host);
}

static int cuda_upload(ks_device *dev, float *dst, const float *host, size_t n)
{
    return ks_stage_copy(&dev->stage, dst, host, n * sizeof *dst);
}

static int cuda_keep(ks_device *dev, const ks_tensor *w, size_t n, bool *copied)
{
    return ks_kept_keep(&dev->kept, w, n, copied);
}

static int cuda_fetch(ks_device *dev, const ks_tensor *w, size_t n)
{
    return ks_kept_fetch(&dev->kept, w, n);
}

static int cuda_fetched(ks_device *dev)
{
    return ks_kept_fetched(&dev->kept);
}

static int cuda_pin(ks_device *dev, void *memory, size_t bytes)
{
    return ks_kept_pin(&dev->kept, memory, bytes);
}

static int cuda_new_group(ks_device_group *out)
{
    ks_gpu_group_id id;
    _Static_assert(sizeof id == sizeof *out, "the bytes of a group");
    const int rc = ks_gpu_group_new_id(&id);
    memcpy(out, &id, sizeof *out);
    return rc;
}

static int cuda_join(ks_device *dev, const ks_device_group *group, int member, int members, double patience)
{
    ks_gpu_group_id id;
    memcpy(&id, group, sizeof id);
    dev->member = member;
    return ks_gpu_group_join(&dev->group, dev->gpu, &id, member, members, patience);
}

static int cuda_share(ks_device *dev, const ks_tensor *w, size_t n, int from, bool stays)
{
    return ks_kept_share(&dev->kept, dev->group, w, n, from, from == dev->member, stays);
}

static void cuda_forget(ks_device *dev)
{
    ks_kept_forget(&dev->kept);
}

/* ---- lists ---- */

/* Room for `bytes` more at *at; valid until the next call. */
static int extend(lists *l, size_t bytes, void *at)
{
    int rc = KS_OK;
    if (l->bytes + bytes > l->room) {
        const size_t room = 2 * l->room + bytes;
        char *v;
        KS_GET(v, ks_realloc(l->v, room, 1));
        l->v = v;
        l->room = room;
    }
    *(void **)at = l->v + l->bytes;
    l->bytes += bytes;
done:
    return rc;
}

/* Numbers into the lists; *offset: where, in numbers. */
static int append(lists *l, const int32_t *v, size_t n, int32_t *offset)
{
    int rc = KS_OK;
    int32_t *to = NULL;
    KS_REQUIRE(l->bytes / sizeof *v + n <= INT32_MAX, KS_EMACHINE, "one chunk of branches has lists of more than %d numbers", INT32_MAX);
    *offset = (int32_t)(l->bytes / sizeof *v);
    KS_TRY(extend(l, n * sizeof *v, &to));
    if (n) memcpy(to, v, n * sizeof *v);
done:
    return rc;
}

static int put1(ks_device *dev, const int64_t *rows, size_t n, const int64_t **out)
{
    ks_piece p = {rows, n * sizeof *rows, NULL};
    const int rc = ks_stage_put(&dev->stage, &p, 1);
    *out = p.device;
    return rc;
}

static int put2(ks_device *dev, const int64_t *a, const int64_t *b, size_t n, const int64_t **out_a, const int64_t **out_b)
{
    ks_piece p[] = {{a, n * sizeof *a, NULL}, {b, n * sizeof *b, NULL}};
    const int rc = ks_stage_put(&dev->stage, p, 2);
    *out_a = p[0].device;
    *out_b = p[1].device;
    return rc;
}

static ks_k_sample sample_of(const ks_attention_item *i)
{
    return (ks_k_sample){.row0 = i->row0, .logp = i->logp, .T = i->T};
}

/* ---- rows ---- */

/* The matrix stays on the host: a pass reads one row of it a token, and on the device it would take the place of several layers. */
static int cuda_embed(ks_device *dev, float *y, const ks_tensor *embedding, const int32_t *ids, size_t R, float scale)
{
    static const int types[] = {[KS_BF16] = KS_K_BF16, [KS_F16] = KS_K_F16, [KS_F32] = KS_K_F32};
    int rc = KS_OK;
    const size_t D = (size_t)embedding->cols, size = ks_dtype_size(embedding->dtype), row = D * size;
    const size_t most = STAGE_BYTES / 2 / (row + sizeof(int32_t)) + 1;
    for (size_t r = 0; r < R; r += most) {
        const size_t n = R - r < most ? R - r : most;
        char *rows = NULL;
        int32_t *order = NULL;
        dev->items.bytes = dev->lists.bytes = 0;
        KS_TRY(extend(&dev->items, n * row, &rows));
        KS_TRY(extend(&dev->lists, n * sizeof *order, &order));
        for (size_t i = 0; i < n; i++) {
            memcpy(rows + i * row, (const char *)embedding->data + (size_t)ids[r + i] * (size_t)embedding->ld * size, row);
            order[i] = (int32_t)i;
        }
        ks_piece p[] = {{rows, n * row, NULL}, {order, n * sizeof *order, NULL}};
        KS_TRY(ks_stage_put(&dev->stage, p, 2));
        KS_TRY(LAUNCH(dev, ks_k_embed, y + r * D, p[0].device, types[embedding->dtype], p[1].device, n, D, scale));
    }
done:
    return rc;
}

static int cuda_gather(ks_device *dev, void *y, const void *x, const int64_t *rows, size_t n, size_t bytes)
{
    int rc = KS_OK;
    const int64_t *at;
    if (!n) return rc;
    KS_TRY(put1(dev, rows, n, &at));
    KS_TRY(LAUNCH(dev, ks_k_gather, y, x, at, n, bytes));
done:
    return rc;
}

static int cuda_add(ks_device *dev, float *y, const float *x, const float *t, const int64_t *rows, size_t n, size_t D)
{
    int rc = KS_OK;
    const int64_t *at = NULL;
    if (!n) return rc;
    if (rows) KS_TRY(put1(dev, rows, n, &at));
    KS_TRY(LAUNCH(dev, ks_k_add, y, x, t, at, n, D));
done:
    return rc;
}

static int cuda_round_diff(ks_device *dev, float *d, const int64_t *d_rows, const float *x, const int64_t *x_rows, size_t n, size_t D)
{
    int rc = KS_OK;
    const int64_t *d_at, *x_at;
    if (!n) return rc;
    KS_TRY(put2(dev, d_rows, x_rows, n, &d_at, &x_at));
    KS_TRY(LAUNCH(dev, ks_k_round_diff, d, d_at, x, x_at, n, D));
done:
    return rc;
}

static int cuda_rope(ks_device *dev, float *x, size_t n, size_t heads, size_t E, size_t dim, const float *cos_t, const float *sin_t,
                     const int64_t *table_rows)
{
    int rc = KS_OK;
    const int64_t *at;
    if (!n) return rc;
    KS_TRY(put1(dev, table_rows, n, &at));
    KS_TRY(LAUNCH(dev, ks_k_rope, x, n, heads, E, dim, cos_t, sin_t, at));
done:
    return rc;
}

/* ---- products ---- */

static int cuda_form(ks_dtype weights, int grade)
{
    if (weights != KS_BF16) return KS_FORM_F32;
    return grade == KS_GRADE_STATE ? 3 : grade == KS_GRADE_FULL ? 2 : 1;
}

static int cuda_linear(ks_device *dev, float *y, size_t ldy, const void *x, int form, const ks_tensor *w, const float *bias, size_t M,
                       int grade)
{
    int rc = KS_OK;
    const size_t N = (size_t)w->rows, K = (size_t)w->cols;
    const void *weights = NULL;
    const float *added = NULL;
    (void)grade; /* the form says it */
    if (!M || !N) return rc;
    KS_REQUIRE(K, KS_EMACHINE, "a product of length 0");
    KS_REQUIRE(form == KS_FORM_F32 || w->dtype == KS_BF16, KS_EMACHINE, "an operand of %d bf16 parts for %s weights", form,
               ks_dtype_name(w->dtype));
    KS_TRY(ks_kept_matrix(&dev->kept, w, form == KS_FORM_F32 ? KS_K_F32 : KS_K_BF16, &weights));
    if (form == KS_FORM_F32) KS_TRY(ks_gpu_product_f32(dev->gpu, y, ldy, x, K, weights, M, N, K, false));
    for (int i = form - 1; i >= 0; i--)
        KS_TRY(
            ks_gpu_product_bf16(dev->gpu, y, ldy, (const uint16_t *)x + (size_t)i * K, (size_t)form * K, weights, M, N, K, i < form - 1));
    KS_TRY(ks_kept_vector(&dev->kept, bias, N, &added));
    if (added) KS_TRY(LAUNCH(dev, ks_k_add_bias, y, ldy, added, M, N));
done:
    return rc;
}

/* ---- norms and activations ---- */

static int cuda_norm(ks_device *dev, void *y, int form, const ks_norm_tape *tape, const float *x, const int64_t *rows, size_t n, size_t D,
                     const ks_norm *p)
{
    int rc = KS_OK;
    const int64_t *at = NULL;
    const float *weight, *bias;
    if (!n) return rc;
    KS_TRY(ks_kept_vector(&dev->kept, p->weight, D, &weight));
    KS_TRY(ks_kept_vector(&dev->kept, p->bias, D, &bias));
    if (rows) KS_TRY(put1(dev, rows, n, &at));
    KS_TRY(
        LAUNCH(dev, ks_k_norm, y, form, tape ? tape->mean : NULL, tape ? tape->inv_rms : NULL, x, at, n, D, p->kind, p->eps, weight, bias));
done:
    return rc;
}

static int cuda_norm_diff(ks_device *dev, void *dy, int form, const float *d, const int64_t *d_rows, const float *x,
                          const ks_norm_tape *tape, const int64_t *x_rows, size_t n, size_t D, const ks_norm *p)
{
    int rc = KS_OK;
    const int64_t *d_at, *x_at;
    const float *weight;
    (void)tape; /* the kernel reads the trunk's row anyway */
    if (!n) return rc;
    KS_TRY(ks_kept_vector(&dev->kept, p->weight, D, &weight));
    KS_TRY(put2(dev, d_rows, x_rows, n, &d_at, &x_at));
    KS_TRY(LAUNCH(dev, ks_k_norm_diff, dy, form, d, d_at, x, x_at, n, D, p->kind, p->eps, weight));
done:
    return rc;
}

static int cuda_activate(ks_device *dev, void *a, int form, const float *g, const float *u, size_t n, size_t F, int act)
{
    return n ? LAUNCH(dev, ks_k_activate, a, form, g, u, n, F, act) : KS_OK;
}

static int cuda_activate_diff(ks_device *dev, void *da, int form, const float *dg, const float *du, const float *g, const float *u,
                              const int64_t *x_rows, size_t n, size_t F, int act)
{
    int rc = KS_OK;
    const int64_t *at;
    if (!n) return rc;
    KS_TRY(put1(dev, x_rows, n, &at));
    KS_TRY(LAUNCH(dev, ks_k_activate_diff, da, form, dg, du, g, u, at, n, F, act));
done:
    return rc;
}

/* ---- attention ---- */

static int cuda_attention(ks_device *dev, void *out, int form, float *logp, const float *q, const float *k, const float *v,
                          const ks_attention_item *items, size_t n, const ks_attention *p)
{
    int rc = KS_OK;
    ks_k_sample *s = NULL;
    int32_t longest = 0;
    if (!n) return rc;
    dev->items.bytes = 0;
    KS_TRY(extend(&dev->items, n * sizeof *s, &s));
    for (size_t i = 0; i < n; i++) {
        s[i] = sample_of(&items[i]);
        if (s[i].T > longest) longest = s[i].T;
    }
    ks_piece piece = {s, n * sizeof *s, NULL};
    KS_TRY(ks_stage_put(&dev->stage, &piece, 1));
    KS_TRY(LAUNCH(dev, ks_k_attention, out, form, logp, q, k, v, piece.device, n, longest, p->H, p->G, p->E, p->window, p->scale));
done:
    return rc;
}

/* Edges and heads are the same for many branches that follow one another: what lies in the lists already. */
typedef struct seen {
    const void *host[SEEN];
    int32_t at[SEEN], more[SEEN];
    int next;
} seen;

static bool find(const seen *s, const void *host, int32_t *at, int32_t *more)
{
    for (int i = 0; i < SEEN; i++) {
        if (s->host[i] != host) continue;
        *at = s->at[i];
        *more = s->more[i];
        return true;
    }
    return false;
}

static void remember(seen *s, const void *host, int32_t at, int32_t more)
{
    s->host[s->next] = host;
    s->at[s->next] = at;
    s->more[s->next] = more;
    s->next = (s->next + 1) % SEEN;
}

/* One branch for the kernel, its lists appended. */
static int flatten(lists *l, seen *edges, seen *heads, const ks_branch_item *item, int32_t H, ks_k_branch *out)
{
    int rc = KS_OK;
    int32_t unused;
    *out = (ks_k_branch){
        .trunk = sample_of(&item->trunk),
        .in_row = item->in_row,
        .out_row = item->out_row,
        .q_row = item->q_row,
        .n_in = item->n_in,
        .n_out = item->n_out,
        .edge_start = -1,
        .heads = -1,
        .kind = item->kind,
        .value = item->value,
    };
    KS_TRY(append(l, item->in_pos, (size_t)item->n_in, &out->in_pos));
    KS_TRY(append(l, item->out_pos, (size_t)item->n_out, &out->out_pos));
    if (item->edges && !find(edges, item->edges, &out->edge_start, &out->edge_keys)) {
        const int32_t T = item->trunk.T;
        KS_TRY(append(l, item->edges->start, (size_t)T + 1, &out->edge_start));
        KS_TRY(append(l, item->edges->key, (size_t)item->edges->start[T], &out->edge_keys));
        remember(edges, item->edges, out->edge_start, out->edge_keys);
    }
    if (item->edges && item->heads && !find(heads, item->heads, &out->heads, &unused)) {
        int32_t *flags = NULL;
        out->heads = (int32_t)(l->bytes / sizeof *flags);
        KS_TRY(extend(l, (size_t)H * sizeof *flags, &flags));
        for (int32_t h = 0; h < H; h++) flags[h] = item->heads[h];
        remember(heads, item->heads, out->heads, 0);
    }
done:
    return rc;
}

static int cuda_attention_diff(ks_device *dev, void *da, int form, const float *dq, const float *dk, const float *dv, const float *q,
                               const float *k, const float *v, const float *logp, const ks_branch_item *items, size_t n,
                               const ks_attention *p)
{
    int rc = KS_OK;
    ks_k_branch *b = NULL;
    seen edges = {0}, heads = {0};
    int32_t longest = 0, most_out = 0;
    if (!n) return rc;
    dev->items.bytes = dev->lists.bytes = 0;
    KS_TRY(extend(&dev->items, n * sizeof *b, &b));
    for (size_t i = 0; i < n; i++) {
        KS_TRY(flatten(&dev->lists, &edges, &heads, &items[i], p->H, &b[i]));
        if (b[i].trunk.T > longest) longest = b[i].trunk.T;
        if (b[i].n_out > most_out) most_out = b[i].n_out;
    }
    ks_piece pieces[] = {{b, n * sizeof *b, NULL}, {dev->lists.v, dev->lists.bytes, NULL}};
    KS_TRY(ks_stage_put(&dev->stage, pieces, 2));
    KS_TRY(LAUNCH(dev, ks_k_attention_diff, da, form, dq, dk, dv, q, k, v, logp, pieces[0].device, pieces[1].device, n, longest, most_out,
                  p->H, p->G, p->E, p->window, p->scale));
done:
    return rc;
}

static int cuda_edge_weights(ks_device *dev, double *strength, const float *logp, const ks_edge_item *items, size_t n,
                             const ks_attention *p)
{
    int rc = KS_OK;
    ks_k_edge_item *e = NULL;
    if (!n) return rc;
    dev->items.bytes = dev->lists.bytes = 0;
    KS_TRY(extend(&dev->items, n * sizeof *e, &e));
    for (size_t i = 0; i < n; i++) {
        const ks_edge_item *from = &items[i];
        e[i] = (ks_k_edge_item){
            .trunk = sample_of(&from->trunk), .to = (int64_t)from->to * p->H, .n_queries = from->n_queries, .n_keys = from->n_keys};
        KS_TRY(append(&dev->lists, from->queries, (size_t)from->n_queries, &e[i].queries));
        KS_TRY(append(&dev->lists, from->keys, (size_t)from->n_keys, &e[i].keys));
    }
    ks_piece pieces[] = {{e, n * sizeof *e, NULL}, {dev->lists.v, dev->lists.bytes, NULL}};
    KS_TRY(ks_stage_put(&dev->stage, pieces, 2));
    KS_TRY(LAUNCH(dev, ks_k_edge_weights, strength, logp, pieces[0].device, pieces[1].device, n, p->H, p->window));
done:
    return rc;
}

/* ---- measures ---- */

static int cuda_baseline(ks_device *dev, ks_baseline_row *out, const float *logits, size_t n, size_t V)
{
    int rc = KS_OK;
    if (!n) return rc;
    KS_TRY(grow(dev, &dev->result, &dev->result_bytes, n * sizeof *out));
    KS_TRY(LAUNCH(dev, ks_k_baseline, dev->result, logits, n, V));
    KS_TRY(bring_back(dev, out, dev->result, n * sizeof *out));
done:
    return rc;
}

static int cuda_measure(ks_device *dev, ks_measure *out, const float *e, const float *logits, const ks_baseline_row *base,
                        const ks_measure_item *items, size_t n, size_t V)
{
    int rc = KS_OK;
    int64_t rows = 0;
    if (!n) return rc;
    for (size_t i = 0; i < n; i++)
        if (items[i].base_row >= rows) rows = items[i].base_row + 1;
    ks_piece pieces[] = {{base, (size_t)rows * sizeof *base, NULL}, {items, n * sizeof *items, NULL}};
    KS_TRY(grow(dev, &dev->result, &dev->result_bytes, n * sizeof *out));
    KS_TRY(ks_stage_put(&dev->stage, pieces, 2));
    KS_TRY(LAUNCH(dev, ks_k_measure, dev->result, e, logits, pieces[0].device, pieces[1].device, n, V));
    KS_TRY(bring_back(dev, out, dev->result, n * sizeof *out));
done:
    return rc;
}

const ks_backend ks_backend_cuda = {
    .name = "cuda",
    .open = cuda_open,
    .close = cuda_close,
    .describe = cuda_describe,
    .algorithms = cuda_algorithms,
    .memory = cuda_memory,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .zero = cuda_zero,
    .copy = cuda_copy,
    .download = cuda_download,
    .upload = cuda_upload,
    .keep = cuda_keep,
    .fetch = cuda_fetch,
    .fetched = cuda_fetched,
    .pin = cuda_pin,
    .new_group = cuda_new_group,
    .join = cuda_join,
    .share = cuda_share,
    .forget = cuda_forget,
    .embed = cuda_embed,
    .form = cuda_form,
    .linear = cuda_linear,
    .norm = cuda_norm,
    .norm_diff = cuda_norm_diff,
    .rope = cuda_rope,
    .attention = cuda_attention,
    .attention_diff = cuda_attention_diff,
    .edge_weights = cuda_edge_weights,
    .activate = cuda_activate,
    .activate_diff = cuda_activate_diff,
    .gather = cuda_gather,
    .add = cuda_add,
    .round_diff = cuda_round_diff,
    .baseline = cuda_baseline,
    .measure = cuda_measure,
};
