#define _GNU_SOURCE
#include "model/weights.h"

#include "base/error.h"
#include "base/mem.h"
#include "model/ring.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIGN = 256, PAGE = 4096, CHUNK = 8 << 20, MATRICES = 7, VECTORS = 11 };

struct ks_weights {
    const ks_model *m;
    ks_streamed streamed;
    int32_t L, blocks;
    int64_t rows; /* of a head block, but for the last */

    /* Where anything is streamed. */
    ks_ring *ring;
    void *own;     /* the ring's memory where no other process sees it */
    void *buffers; /* in it */
    size_t slot_bytes;
    uint32_t passes;    /* begun in own */
    int32_t ring_items; /* the streamed layers in order, then the head's blocks */
    bool dropped;       /* mapped pages, once */
    _Atomic int64_t bytes_read;
};

static const size_t vector_field[VECTORS] = {offsetof(ks_layer, norm1),      offsetof(ks_layer, norm1_bias), offsetof(ks_layer, norm2),
                                             offsetof(ks_layer, norm2_bias), offsetof(ks_layer, q_bias),     offsetof(ks_layer, k_bias),
                                             offsetof(ks_layer, v_bias),     offsetof(ks_layer, o_bias),     offsetof(ks_layer, gate_bias),
                                             offsetof(ks_layer, up_bias),    offsetof(ks_layer, down_bias)};
static const size_t matrix_field[MATRICES] = {offsetof(ks_layer, q),   offsetof(ks_layer, k),    offsetof(ks_layer, v),
                                              offsetof(ks_layer, o),   offsetof(ks_layer, gate), offsetof(ks_layer, up),
                                              offsetof(ks_layer, down)};

static ks_tensor *matrix(ks_layer *layer, int i)
{
    return (ks_tensor *)((char *)layer + matrix_field[i]);
}

static int64_t tensor_bytes(const ks_tensor *t)
{
    return t->data ? t->rows * t->ld * (int64_t)ks_dtype_size(t->dtype) : 0;
}

static int64_t aligned(int64_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static int64_t layer_bytes(const ks_model *m, int32_t l)
{
    ks_layer layer = *ks_model_layer(m, l);
    int64_t bytes = 0;
    for (int i = 0; i < MATRICES; i++) bytes += aligned(tensor_bytes(matrix(&layer, i)));
    return bytes;
}

/* Rows of a head block, so that it fits into the memory of the largest layer, and what a buffer then takes. */
static int64_t head_rows(const ks_model *m, int64_t *slot_bytes)
{
    int64_t largest = 0;
    for (int32_t l = 0; l < ks_model_arch(m)->L; l++) {
        const int64_t bytes = layer_bytes(m, l);
        if (bytes > largest) largest = bytes;
    }
    const ks_tensor head = ks_model_head(m);
    const int64_t row = head.ld * (int64_t)ks_dtype_size(head.dtype);
    int64_t rows = largest / row;
    if (rows > 64) rows -= rows % 64; /* a block's logits lie as well aligned as all of them: cuBLASLt's choice depends on it */
    if (rows > head.rows) rows = head.rows;
    if (rows < 1) rows = 1;
    *slot_bytes = largest > row ? largest : aligned(row);
    return rows;
}

static ks_streamed clipped(const ks_model *m, ks_streamed s)
{
    const int32_t L = ks_model_arch(m)->L;
    if (s.layers > L) s.layers = L;
    return s;
}

bool ks_weights_any(ks_streamed s)
{
    return s.layers || s.head;
}

/* How many of the first l of L layers are streamed if n of all are. The first one comes late, so that it is read while others are
 * computed. */
static int32_t streamed_before(int32_t l, int32_t n, int32_t L)
{
    return (int32_t)((int64_t)l * n / L);
}

bool ks_weights_streams(ks_streamed s, int32_t l, int32_t L)
{
    return streamed_before(l, s.layers, L) < streamed_before(l + 1, s.layers, L);
}

/* Each at its own multiple of ALIGN. Not more floats than the widest row of the layer's matrices has, or they have rows. */
static int64_t vector_bytes(const ks_model *m)
{
    const ks_arch *a = ks_model_arch(m);
    int64_t widest = a->D > a->F ? a->D : a->F, bytes;
    if (widest < (int64_t)a->H * a->E) widest = (int64_t)a->H * a->E;
    bytes = 2 * aligned(a->D * (int64_t)sizeof(float));
    for (int32_t l = 0; l < a->L; l++)
        for (int i = 0; i < VECTORS; i++) {
            const float *v = *(const float *const *)((const char *)ks_model_layer(m, l) + vector_field[i]);
            if (v) bytes += aligned((i < 4 ? a->D : widest) * (int64_t)sizeof(float));
        }
    return bytes;
}

/* Room to widen one matrix to fp32, of those that are f16, and to number its rows. */
static int64_t widened_bytes(const ks_model *m, int64_t block_rows)
{
    int64_t most = 0;
    ks_tensor head = ks_model_head(m);
    head.rows = block_rows;
    for (int32_t l = -1; l < ks_model_arch(m)->L; l++) {
        ks_layer layer = l < 0 ? (ks_layer){.q = head} : *ks_model_layer(m, l);
        for (int i = 0; i < MATRICES; i++) {
            const ks_tensor *t = matrix(&layer, i);
            const int64_t bytes = t->data && t->dtype == KS_F16 ? aligned(t->rows * t->cols * 4) + aligned(t->rows * 4) : 0;
            if (bytes > most) most = bytes;
        }
    }
    return most;
}

int64_t ks_weights_predict(const ks_model *m, ks_streamed streamed, bool device)
{
    const ks_streamed s = clipped(m, streamed);
    const int32_t L = ks_model_arch(m)->L;
    const ks_tensor head = ks_model_head(m), embedding = ks_model_embedding(m);
    int64_t bytes = 0, slot_bytes;
    if (!device && !ks_weights_any(s)) return ks_model_bytes(m);
    const int64_t block_rows = head_rows(m, &slot_bytes);
    if (ks_weights_any(s)) bytes += KS_RING_SLOTS * slot_bytes;
    for (int32_t l = 0; l < L; l++)
        if (!ks_weights_streams(s, l, L)) bytes += layer_bytes(m, l);
    if (!s.head) bytes += aligned(tensor_bytes(&head));
    if (device) bytes += vector_bytes(m) + widened_bytes(m, block_rows);
    /* Pages of the embedding become part of the process, and are given back only where all is streamed. */
    else if (s.layers < L || !s.head) bytes += embedding.data != head.data || s.head ? tensor_bytes(&embedding) : 0;
    return bytes;
}

int64_t ks_weights_predict_shard(const ks_model *m, int n)
{
    const ks_tensor head = ks_model_head(m);
    int64_t most = 0, slot_bytes;
    head_rows(m, &slot_bytes);
    for (int32_t first = 0; first < n && first < ks_model_arch(m)->L; first++) {
        int64_t bytes = 0;
        for (int32_t l = first; l < ks_model_arch(m)->L; l += n) bytes += layer_bytes(m, l);
        if (bytes > most) most = bytes;
    }
    return most + KS_RING_SLOTS * slot_bytes + aligned(tensor_bytes(&head)) + vector_bytes(m);
}

ks_streamed ks_weights_choose(const ks_model *m, int64_t bytes, bool device)
{
    const int32_t L = ks_model_arch(m)->L;
    if (ks_weights_predict(m, KS_ALL_RESIDENT, device) <= bytes) return KS_ALL_RESIDENT;
    ks_streamed s = {L, false};
    s.head = ks_weights_predict(m, s, device) > bytes;
    while (s.layers > 0 && ks_weights_predict(m, (ks_streamed){s.layers - 1, s.head}, device) <= bytes) s.layers--;
    return s;
}

int32_t ks_weights_items(const ks_weights *w)
{
    return w->L + w->blocks;
}

bool ks_weights_stay(const ks_weights *w, int32_t item)
{
    return item < w->L ? !ks_weights_streams(w->streamed, item, w->L) : !w->streamed.head;
}

void *ks_weights_buffers(const ks_weights *w, size_t *bytes)
{
    *bytes = w->ring ? KS_RING_SLOTS * w->slot_bytes : 0;
    return w->ring ? w->buffers : NULL;
}

/* Its place among the items of the ring. */
static int32_t ring_item(const ks_weights *w, int32_t item)
{
    return item < w->L ? streamed_before(item, w->streamed.layers, w->L) : w->streamed.layers + item - w->L;
}

/* Head rows of a block, as they lie in the file. */
static ks_tensor head_block(const ks_weights *w, int32_t block, int64_t *first_row)
{
    ks_tensor t = ks_model_head(w->m);
    const int64_t first = block * w->rows;
    t.data = (const char *)t.data + (size_t)(first * t.ld) * ks_dtype_size(t.dtype);
    t.rows = t.rows - first < w->rows ? t.rows - first : w->rows;
    *first_row = first;
    return t;
}

/* Copies a mapped tensor's bytes by reading the file, so that its pages never become part of this process. Ends early where nobody wants
 * them any more. */
static int read_tensor(ks_weights *w, ks_ring *r, unsigned char *to, const ks_tensor *t)
{
    const ks_st *st = ks_model_files(w->m);
    const unsigned char *p = t->data;
    int i = 0;
    while (!(p >= ks_st_file_at(st, i)->map && p < ks_st_file_at(st, i)->map + ks_st_file_at(st, i)->bytes)) i++;
    const ks_st_file *f = ks_st_file_at(st, i);
    int64_t at = p - f->map, left = tensor_bytes(t);
    while (left && ks_ring_wanted(r)) {
        const ssize_t n = pread(f->fd, to, (size_t)(left < CHUNK ? left : CHUNK), at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return ks_error(KS_EMACHINE, "%s: cannot be read at byte %" PRId64 ": %s", f->path, at, strerror(errno));
        if (!n)
            return ks_error(KS_EMACHINE, "%s: ends at byte %" PRId64 "; it had %" PRId64 " bytes when it was opened", f->path, at,
                            f->bytes);
        to += n;
        at += n;
        left -= n;
        w->bytes_read += n;
    }
    return KS_OK;
}

/* The ring's source. */
static int read_item(void *ctx, ks_ring *r, int32_t item, unsigned char *to)
{
    int rc = KS_OK;
    ks_weights *w = ctx;
    const int32_t n = w->streamed.layers;
    if (item >= n) {
        int64_t first;
        const ks_tensor rows = head_block(w, item - n, &first);
        return read_tensor(w, r, to, &rows);
    }
    int32_t l = 0;
    while (streamed_before(l + 1, n, w->L) <= item) l++;
    ks_layer layer = *ks_model_layer(w->m, l);
    for (int i = 0; i < MATRICES && !rc; i++) {
        const ks_tensor *t = matrix(&layer, i);
        if (!t->data) continue;
        rc = read_tensor(w, r, to, t);
        to += aligned(tensor_bytes(t));
    }
    return rc;
}

size_t ks_weights_shared_bytes(const ks_model *m)
{
    int64_t slot_bytes;
    head_rows(m, &slot_bytes);
    return ks_ring_bytes((size_t)slot_bytes);
}

/* shared: NULL where this process is the only member. */
int ks_weights_open_shared(ks_weights **out, const ks_model *m, ks_streamed streamed, void *shared, int member, int members)
{
    int rc = KS_OK;
    int64_t slot_bytes;
    ks_weights *w = NULL;
    KS_NEW(w, 1);
    w->m = m;
    w->streamed = clipped(m, streamed);
    w->L = ks_model_arch(m)->L;
    w->rows = head_rows(m, &slot_bytes);
    w->slot_bytes = (size_t)slot_bytes;
    w->blocks = (int32_t)((ks_model_arch(m)->V + w->rows - 1) / w->rows);
    for (int i = 0; i < ks_st_files(ks_model_files(m)) && !w->streamed.layers; i++) {
        const ks_st_file *f = ks_st_file_at(ks_model_files(m), i);
        madvise((void *)(uintptr_t)f->map, (size_t)f->bytes, MADV_WILLNEED);
    }
    if (!ks_weights_any(w->streamed)) goto done;
    if (!shared) {
        KS_GET(w->own, ks_big_alloc(ks_weights_shared_bytes(m) + PAGE));
        shared = (void *)(((uintptr_t)w->own + PAGE - 1) / PAGE * PAGE);
        memset(shared, 0, ks_ring_bytes(0));
    }
    const int32_t tail = w->streamed.head ? w->blocks : 0;
    const ks_ring_source source = {w->streamed.layers + tail, tail, w->slot_bytes, read_item, w};
    w->buffers = (char *)shared + ks_ring_bytes(0);
    KS_TRY(ks_ring_open(&w->ring, shared, &source, member, members));
done:
    if (rc) ks_weights_close(w);
    else *out = w;
    return rc;
}

int ks_weights_open(ks_weights **out, const ks_model *m, ks_streamed streamed)
{
    return ks_weights_open_shared(out, m, streamed, NULL, 0, 1);
}

void ks_weights_close(ks_weights *w)
{
    if (!w) return;
    ks_ring_close(w->ring);
    ks_big_free(w->own);
    free(w);
}

int ks_weights_begin(ks_weights *w, uint32_t round, const uint8_t *who)
{
    static const uint8_t alone[1] = {1};
    if (!w->ring) return KS_OK;
    return w->own ? ks_ring_begin(w->ring, ++w->passes, alone) : ks_ring_begin(w->ring, round, who);
}

void ks_weights_end(ks_weights *w)
{
    if (w->ring) ks_ring_end(w->ring);
}

int64_t ks_weights_bytes_read(const ks_weights *w)
{
    return w->bytes_read;
}

void ks_weights_copied(ks_weights *w, int32_t item)
{
    int64_t first;
    if (item < w->L) {
        ks_layer layer = *ks_model_layer(w->m, item);
        for (int i = 0; i < MATRICES; i++) w->bytes_read += tensor_bytes(matrix(&layer, i));
    } else {
        const ks_tensor rows = head_block(w, item - w->L, &first);
        w->bytes_read += tensor_bytes(&rows);
    }
}

/* Mapped pages of a file that was cut short would kill the process when they are touched. */
static int check_files(const ks_weights *w)
{
    const ks_st *st = ks_model_files(w->m);
    int rc = KS_OK;
    for (int i = 0; i < ks_st_files(st) && !rc; i++) rc = ks_st_check_file(ks_st_file_at(st, i));
    return rc;
}

/* Takes an item from where it comes. *data: its buffer, NULL: it is resident. */
static int acquire(ks_weights *w, int32_t item, unsigned char **data)
{
    int rc = KS_OK;
    *data = NULL;
    if (ks_weights_stay(w, item)) KS_TRY(check_files(w));
    else KS_TRY(ks_ring_acquire(w->ring, ring_item(w, item), data));
    /* A pass begins by looking up embeddings in the map. */
    if (w->ring && item == 0 && (!w->dropped || (w->streamed.layers == w->L && w->streamed.head))) {
        ks_model_drop_pages(w->m);
        w->dropped = true;
    }
done:
    return rc;
}

static void release(ks_weights *w, int32_t item)
{
    if (!ks_weights_stay(w, item)) ks_ring_release(w->ring, ring_item(w, item));
}

int ks_weights_acquire(ks_weights *w, int32_t layer, ks_layer *out)
{
    int rc = KS_OK;
    unsigned char *data;
    KS_REQUIRE(layer >= 0 && layer < w->L, KS_EMACHINE, "weights: there is no layer %d of %d", layer, w->L);
    *out = *ks_model_layer(w->m, layer);
    KS_TRY(acquire(w, layer, &data));
    for (int i = 0; i < MATRICES && data; i++) {
        ks_tensor *t = matrix(out, i);
        const int64_t bytes = tensor_bytes(t);
        if (t->data) t->data = data;
        data += aligned(bytes);
    }
done:
    return rc;
}

void ks_weights_release(ks_weights *w, int32_t layer)
{
    release(w, layer);
}

int32_t ks_weights_head_blocks(const ks_weights *w)
{
    return w->blocks;
}

int ks_weights_acquire_head(ks_weights *w, int32_t block, ks_tensor *rows, int64_t *first_row)
{
    int rc = KS_OK;
    unsigned char *data;
    KS_REQUIRE(block >= 0 && block < w->blocks, KS_EMACHINE, "weights: there is no head block %d of %d", block, w->blocks);
    *rows = head_block(w, block, first_row);
    KS_TRY(acquire(w, w->L + block, &data));
    if (data) rows->data = data;
done:
    return rc;
}

void ks_weights_release_head(ks_weights *w, int32_t block)
{
    release(w, w->L + block);
}
