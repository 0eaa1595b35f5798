#include "compute/cuda/kept.h"

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "kernels/kernels.h"

#include <stdlib.h>

enum { ALIGN = 256, BLOCK = 64 << 10 };

/* Marks: STAY and SET are behind the last copies, in the side queue; USED + i is in the main queue where the last set of place i began. */
enum { STAY = KS_MARK_KEPT, SET, USED };

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static size_t bytes_of(const ks_tensor *w)
{
    return (size_t)w->rows * (size_t)w->cols * ks_dtype_size(w->dtype);
}

int ks_kept_open(ks_kept *k, ks_gpu *g, size_t part_bytes)
{
    *k = (ks_kept){.gpu = g};
    return ks_stage_open(&k->stage, g, KS_GPU_SIDE, part_bytes);
}

/* Device memory of at least so many bytes; what it held is lost. */
static int grow(ks_kept *k, void **p, size_t *room, size_t bytes)
{
    int rc = KS_OK;
    if (bytes <= *room) return rc;
    ks_gpu_free(k->gpu, *p);
    *p = NULL;
    *room = 0;
    KS_TRY(ks_gpu_alloc(k->gpu, p, bytes));
    *room = bytes;
done:
    return rc;
}

static void clear(ks_kept_list *l)
{
    free(l->v);
    *l = (ks_kept_list){0};
}

void ks_kept_forget(ks_kept *k)
{
    ks_gpu *g = k->gpu;
    if (!g) return;
    ks_gpu_wait(g);
    ks_gpu_unpin(g, k->pinned);
    for (size_t i = 0; i < k->n_blocks; i++) ks_gpu_free(g, k->blocks[i]);
    for (int i = 0; i < 2; i++) ks_gpu_free(g, k->places[i]);
    ks_gpu_free(g, k->wide);
    ks_gpu_free(g, k->order);
    clear(&k->stay);
    clear(&k->set);
    free(k->blocks);
    *k = (ks_kept){.gpu = g, .stage = k->stage};
}

void ks_kept_close(ks_kept *k)
{
    if (!k->gpu) return;
    ks_kept_forget(k);
    ks_stage_close(&k->stage);
    *k = (ks_kept){0};
}

/* ---- lists ---- */

static bool is(const ks_kept_entry *e, const ks_tensor *w)
{
    return e->host == w->data && e->rows == w->rows && e->cols == w->cols && e->ld == w->ld && e->dtype == w->dtype;
}

static const ks_kept_entry *find(ks_kept_list *l, const ks_tensor *w)
{
    for (size_t i = 0; i < l->n; i++) {
        const size_t at = (l->next + i) % l->n;
        if (!is(&l->v[at], w)) continue;
        l->next = at + 1;
        return &l->v[at];
    }
    return NULL;
}

static int add(ks_kept_list *l, const ks_tensor *w, char *device)
{
    int rc = KS_OK;
    if (l->n == l->room) {
        const size_t room = 2 * l->room + 64;
        ks_kept_entry *v;
        KS_GET(v, ks_realloc(l->v, room, sizeof *v));
        l->v = v;
        l->room = room;
    }
    l->v[l->n++] = (ks_kept_entry){w->data, w->rows, w->cols, w->ld, w->dtype, device};
done:
    return rc;
}

/* ---- copies, in the side queue ---- */

int ks_kept_pin(ks_kept *k, void *memory, size_t bytes)
{
    if (!memory || ks_gpu_pin(k->gpu, memory, bytes)) {
        if (memory)
            ks_log(KS_LOG_WARN, "%s: %.1f MB of streamed weights go to the GPU by way of a small buffer, which is slower (ulimit -l?)",
                   ks_error_text(), (double)bytes * 1e-6);
        return KS_OK;
    }
    k->pinned = memory;
    k->pinned_bytes = bytes;
    return KS_OK;
}

/* Straight from pinned memory, else through the ring. */
static int copy(ks_kept *k, char *device, const char *host, size_t bytes)
{
    const bool pinned = k->pinned && host >= k->pinned && host + bytes <= k->pinned + k->pinned_bytes;
    return pinned ? ks_gpu_upload(k->gpu, KS_GPU_SIDE, device, host, bytes) : ks_stage_copy(&k->stage, device, host, bytes);
}

/* A matrix, dense on the device. */
static int copy_matrix(ks_kept *k, char *device, const ks_tensor *w)
{
    int rc = KS_OK;
    const size_t size = ks_dtype_size(w->dtype), row = (size_t)w->cols * size;
    const size_t rows = (size_t)w->rows, step = w->ld == w->cols ? rows : 1;
    for (size_t r = 0; r < rows; r += step) KS_TRY(copy(k, device + r * row, (const char *)w->data + r * (size_t)w->ld * size, step * row));
done:
    return rc;
}

/* Device memory for good. Small pieces share a block. */
static int take(ks_kept *k, size_t bytes, char **out)
{
    int rc = KS_OK;
    bytes = aligned(bytes);
    if (bytes > k->free_bytes) {
        void *block = NULL;
        if (k->n_blocks == k->room_blocks) {
            const size_t room = 2 * k->room_blocks + 64;
            void **v;
            KS_GET(v, ks_realloc(k->blocks, room, sizeof *v));
            k->blocks = v;
            k->room_blocks = room;
        }
        const bool large = bytes >= BLOCK / 4;
        KS_TRY(ks_gpu_alloc(k->gpu, &block, large ? bytes : BLOCK));
        k->blocks[k->n_blocks++] = block;
        if (large) {
            *out = block;
            return rc;
        }
        k->free_at = block;
        k->free_bytes = BLOCK;
    }
    *out = k->free_at;
    k->free_at += bytes;
    k->free_bytes -= bytes;
done:
    return rc;
}

/* Adds those matrices that are not there yet, with room for them; *first: the first of the new entries. */
static int add_staying(ks_kept *k, const ks_tensor *w, size_t n, size_t *first)
{
    int rc = KS_OK;
    size_t bytes = 0;
    char *at = NULL;
    *first = k->stay.n;
    for (size_t i = 0; i < n; i++) bytes += find(&k->stay, &w[i]) ? 0 : aligned(bytes_of(&w[i]));
    if (!bytes) return rc;
    KS_TRY(take(k, bytes, &at));
    for (size_t i = 0; i < n; i++) {
        if (find(&k->stay, &w[i])) continue;
        KS_TRY(add(&k->stay, &w[i], at));
        at += aligned(bytes_of(&w[i]));
    }
done:
    return rc;
}

/* What stays has been filled by what is in the side queue now. */
static int stays_filled(ks_kept *k)
{
    k->stay.pending = true;
    return ks_gpu_mark(k->gpu, KS_GPU_SIDE, STAY);
}

int ks_kept_keep(ks_kept *k, const ks_tensor *w, size_t n, bool *copied)
{
    int rc = KS_OK;
    size_t first = 0;
    *copied = false;
    KS_TRY(add_staying(k, w, n, &first));
    if (first == k->stay.n) return rc;
    for (size_t i = first; i < k->stay.n; i++) {
        const ks_kept_entry *e = &k->stay.v[i];
        KS_TRY(copy_matrix(k, e->device, &(ks_tensor){e->host, e->dtype, e->rows, e->cols, e->ld}));
    }
    KS_TRY(stays_filled(k));
    *copied = true;
done:
    if (rc) k->stay.n = first;
    return rc;
}

/* The places of a new set's n matrices, free to be written behind what is in the side queue. */
static int begin_set(ks_kept *k, const ks_tensor *w, size_t n, char **device)
{
    int rc = KS_OK;
    size_t bytes = 0;
    const int place = 1 - k->place;
    for (size_t i = 0; i < n; i++) bytes += aligned(bytes_of(&w[i]));
    k->set.n = 0;
    KS_TRY(grow(k, &k->places[place], &k->place_bytes[place], bytes));
    /* This place held the set before the last one: all that uses it was queued when the last one began, which is where that one's mark is.
     */
    KS_TRY(ks_gpu_after(k->gpu, KS_GPU_SIDE, USED + k->place));
    KS_TRY(ks_gpu_mark(k->gpu, KS_GPU_MAIN, USED + place));
    k->place = place;
    for (size_t i = 0, at = 0; i < n; at += aligned(bytes_of(&w[i])), i++) {
        device[i] = (char *)k->places[place] + at;
        KS_TRY(add(&k->set, &w[i], device[i]));
    }
done:
    if (rc) k->set.n = 0;
    return rc;
}

/* It has been filled by what is in the side queue now. */
static int end_set(ks_kept *k)
{
    k->set.pending = true;
    return ks_gpu_mark(k->gpu, KS_GPU_SIDE, SET);
}

int ks_kept_fetch(ks_kept *k, const ks_tensor *w, size_t n)
{
    int rc = KS_OK;
    char **device = NULL;
    KS_NEW(device, n);
    KS_TRY(begin_set(k, w, n, device));
    for (size_t i = 0; i < n; i++) KS_TRY(copy_matrix(k, device[i], &w[i]));
    KS_TRY(end_set(k));
done:
    if (rc) k->set.n = 0;
    free(device);
    return rc;
}

int ks_kept_share(ks_kept *k, ks_gpu_group *group, const ks_tensor *w, size_t n, int from, bool mine, bool stays)
{
    int rc = KS_OK;
    size_t first = 0;
    bool copied;
    char **device = NULL;
    KS_NEW(device, n);
    if (mine) KS_TRY(ks_kept_keep(k, w, n, &copied));
    else if (stays) KS_TRY(add_staying(k, w, n, &first));
    else KS_TRY(begin_set(k, w, n, device));
    for (size_t i = 0; i < n && (mine || stays); i++) device[i] = find(&k->stay, &w[i])->device;
    for (size_t i = 0; i < n; i++) KS_TRY(ks_gpu_group_broadcast(group, device[i], bytes_of(&w[i]), from));
    if (!mine) KS_TRY(stays ? stays_filled(k) : end_set(k));
done:
    free(device);
    return rc;
}

int ks_kept_fetched(ks_kept *k)
{
    return ks_gpu_reach(k->gpu, SET);
}

/* ---- uses, in the main queue ---- */

/* Widening a matrix is looking up each of its rows as an embedding. */
static int widen(ks_kept *k, const ks_kept_entry *e, const void **out)
{
    int rc = KS_OK;
    const size_t rows = (size_t)e->rows, cols = (size_t)e->cols;
    int32_t *order = NULL;
    if (rows > k->orders) {
        size_t room = k->orders * sizeof *order;
        KS_NEW(order, rows);
        for (size_t i = 0; i < rows; i++) order[i] = (int32_t)i;
        k->orders = 0;
        KS_TRY(grow(k, &k->order, &room, rows * sizeof *order));
        KS_TRY(ks_stage_copy(&k->stage, k->order, order, rows * sizeof *order));
        KS_TRY(ks_gpu_mark(k->gpu, KS_GPU_SIDE, STAY));
        KS_TRY(ks_gpu_after(k->gpu, KS_GPU_MAIN, STAY));
        k->orders = rows;
    }
    KS_TRY(grow(k, &k->wide, &k->wide_bytes, rows * cols * sizeof(float)));
    KS_TRY(ks_gpu_launched(
        k->gpu,
        ks_k_embed(k->wide, e->device, e->dtype == KS_F16 ? KS_K_F16 : KS_K_BF16, k->order, rows, cols, 1.0f, ks_gpu_stream(k->gpu)),
        "ks_k_embed"));
    *out = k->wide;
done:
    free(order);
    return rc;
}

int ks_kept_matrix(ks_kept *k, const ks_tensor *w, int type, const void **out)
{
    int rc = KS_OK;
    bool copied;
    ks_kept_list *l = &k->set;
    const ks_kept_entry *e = find(l, w);
    if (!e) {
        l = &k->stay;
        KS_TRY(ks_kept_keep(k, w, 1, &copied));
        e = find(l, w);
    }
    if (l->pending) KS_TRY(ks_gpu_after(k->gpu, KS_GPU_MAIN, l == &k->set ? SET : STAY));
    l->pending = false;
    *out = e->device;
    if (type == KS_K_F32 && w->dtype != KS_F32) KS_TRY(widen(k, e, out));
done:
    return rc;
}

int ks_kept_vector(ks_kept *k, const float *v, size_t n, const float **out)
{
    const void *device = NULL;
    int rc = KS_OK;
    if (v) rc = ks_kept_matrix(k, &(ks_tensor){v, KS_F32, 1, (int64_t)n, (int64_t)n}, KS_K_F32, &device);
    *out = device;
    return rc;
}
