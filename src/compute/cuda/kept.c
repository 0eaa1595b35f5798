#include "compute/cuda/kept.h"

#include "base/error.h"
#include "base/mem.h"
#include "kernels/kernels.h"

#include <stdlib.h>
#include <string.h>

enum {
    RECENT = 24, /* uses: more than the matrices and vectors of a layer */
    IN_USE = 2,  /* what an operation may hold at a time */
};

void ks_kept_open(ks_kept *k, ks_stage *stage, size_t limit)
{
    *k = (ks_kept){.stage = stage, .limit = limit};
}

static void drop(ks_kept *k, size_t i)
{
    ks_gpu_free(k->stage->gpu, k->v[i].device);
    k->bytes -= k->v[i].bytes;
    k->v[i] = k->v[--k->n];
}

void ks_kept_close(ks_kept *k)
{
    while (k->n) drop(k, k->n - 1);
    free(k->v);
    *k = (ks_kept){0};
}

void ks_kept_forget(ks_kept *k)
{
    for (size_t i = 0; i < k->n; i++) k->v[i].host = NULL;
}

/* Whether a should go rather than b; sized: entries of a wanted size go first, as they need not be freed. Ages are k->clock - used. */
static bool goes_first(const ks_kept *k, const ks_kept_entry *a, const ks_kept_entry *b, size_t bytes)
{
    const bool old_a = !a->host || k->clock - a->used >= RECENT, old_b = !b->host || k->clock - b->used >= RECENT;
    if (!a->host != !b->host) return !a->host;
    if (old_a != old_b) return old_a;
    if ((a->bytes == bytes) != (b->bytes == bytes)) return a->bytes == bytes;
    return old_a ? a->used > b->used : a->used < b->used;
}

/* The entry that should go; k->n where none may. */
static size_t victim(const ks_kept *k, size_t bytes)
{
    size_t best = k->n;
    for (size_t i = 0; i < k->n; i++) {
        if (k->v[i].host && k->clock - k->v[i].used < IN_USE) continue;
        if (best == k->n || goes_first(k, &k->v[i], &k->v[best], bytes)) best = i;
    }
    return best;
}

bool ks_kept_yield(ks_kept *k)
{
    const size_t i = victim(k, 0);
    if (i == k->n) return false;
    drop(k, i);
    return true;
}

/* An entry with device memory of that size, its content free to be overwritten behind what is queued. */
static int place(ks_kept *k, size_t bytes, ks_kept_entry **out)
{
    int rc = KS_OK;
    for (;;) {
        const size_t i = victim(k, bytes);
        const bool any = i < k->n;
        if (any && k->v[i].bytes == bytes && (!k->v[i].host || k->bytes + bytes > k->limit)) {
            *out = &k->v[i];
            return KS_OK;
        }
        if (!any || k->bytes + bytes <= k->limit) {
            void *device = NULL;
            if (k->n == k->room) {
                const size_t room = 2 * k->room + 64;
                ks_kept_entry *v;
                KS_GET(v, ks_realloc(k->v, room, sizeof *v));
                k->v = v;
                k->room = room;
            }
            rc = ks_gpu_alloc(k->stage->gpu, &device, bytes);
            if (!rc) {
                *out = &k->v[k->n++];
                **out = (ks_kept_entry){.device = device, .bytes = bytes};
                k->bytes += bytes;
                return KS_OK;
            }
            if (!any) goto done;
        }
        drop(k, i);
    }
done:
    return rc;
}

/* A matrix as it lies in host memory, through the ring: dense, and widened where it is f16. */
static int upload(ks_kept *k, const ks_tensor *w, void *device)
{
    int rc = KS_OK;
    const size_t rows = (size_t)w->rows, cols = (size_t)w->cols, size = ks_dtype_size(w->dtype), row = cols * size;
    const bool dense = w->ld == w->cols;
    int32_t *ids = NULL;
    if (w->dtype != KS_F16) {
        const size_t step = dense ? rows : 1;
        for (size_t r = 0; r < rows; r += step)
            KS_TRY(ks_stage_copy(k->stage, (char *)device + r * row, (const char *)w->data + r * (size_t)w->ld * size, step * row));
    } else {
        /* Widening a matrix is looking up each of its rows as an embedding. */
        const size_t step = dense ? k->stage->part_bytes / (row + sizeof *ids + 32) + 1 : 1;
        ks_gpu *g = k->stage->gpu;
        KS_NEW(ids, step);
        for (size_t i = 0; i < step; i++) ids[i] = (int32_t)i;
        for (size_t r = 0; r < rows; r += step) {
            const size_t n = rows - r < step ? rows - r : step;
            ks_piece p[] = {{(const char *)w->data + r * (size_t)w->ld * size, n * row, NULL}, {ids, n * sizeof *ids, NULL}};
            KS_TRY(ks_stage_put(k->stage, p, 2));
            KS_TRY(ks_gpu_launched(
                g, ks_k_embed((float *)device + r * cols, p[0].device, KS_K_F16, p[1].device, n, cols, 1.0f, ks_gpu_stream(g)),
                "ks_k_embed"));
        }
    }
done:
    free(ids);
    return rc;
}

int ks_kept_matrix(ks_kept *k, const ks_tensor *w, const void **out, int *type)
{
    int rc = KS_OK;
    ks_kept_entry *e = NULL;
    *type = w->dtype == KS_BF16 ? KS_K_BF16 : KS_K_F32;
    k->clock++;
    for (size_t i = 0; i < k->n && !e; i++) {
        ks_kept_entry *v = &k->v[i];
        if (v->host == w->data && v->rows == w->rows && v->cols == w->cols && v->ld == w->ld && v->dtype == w->dtype) e = v;
    }
    if (!e) {
        KS_TRY(place(k, (size_t)w->rows * (size_t)w->cols * (w->dtype == KS_BF16 ? 2 : 4), &e));
        e->host = NULL;
        KS_TRY(upload(k, w, e->device));
        e->host = w->data;
        e->rows = w->rows;
        e->cols = w->cols;
        e->ld = w->ld;
        e->dtype = w->dtype;
    }
    e->used = k->clock;
    *out = e->device;
done:
    return rc;
}

int ks_kept_vector(ks_kept *k, const float *v, size_t n, const float **out)
{
    const void *device = NULL;
    int type, rc = KS_OK;
    if (v) rc = ks_kept_matrix(k, &(ks_tensor){v, KS_F32, 1, (int64_t)n, (int64_t)n}, &device, &type);
    *out = device;
    return rc;
}
