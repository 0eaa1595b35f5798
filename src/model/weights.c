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

/* Layers and head blocks are the items of the ring, in one row: 0..L-1 are layers, L.. head blocks. */
enum { ALIGN = 64, CHUNK = 8 << 20, MATRICES = 7 };

struct ks_weights {
    const ks_model *m;
    int source;
    int32_t L, blocks;
    int64_t rows; /* of a head block, but for the last */

    /* Streamed only. */
    ks_ring *ring;
    void *own;       /* the ring's memory where no other process sees it */
    uint32_t passes; /* begun in own */
    _Atomic int64_t bytes_read;
};

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

int64_t ks_weights_predict(const ks_model *m, int source)
{
    int64_t bytes = 0;
    if (source == KS_WEIGHTS_STREAMED) {
        head_rows(m, &bytes);
        return KS_RING_SLOTS * bytes;
    }
    return ks_model_bytes(m);
}

bool ks_weights_stay(const ks_weights *w)
{
    return w->source == KS_WEIGHTS_RESIDENT;
}

int64_t ks_weights_bytes(const ks_weights *w)
{
    return ks_weights_predict(w->m, w->source);
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
    if (item >= w->L) {
        int64_t first;
        const ks_tensor rows = head_block(w, item - w->L, &first);
        return read_tensor(w, r, to, &rows);
    }
    ks_layer layer = *ks_model_layer(w->m, item);
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
int ks_weights_open_shared(ks_weights **out, const ks_model *m, void *shared, int member, int members)
{
    int rc = KS_OK;
    int64_t slot_bytes;
    ks_weights *w = NULL;
    KS_NEW(w, 1);
    w->m = m;
    w->source = KS_WEIGHTS_STREAMED;
    w->L = ks_model_arch(m)->L;
    w->rows = head_rows(m, &slot_bytes);
    w->blocks = (int32_t)((ks_model_arch(m)->V + w->rows - 1) / w->rows);
    if (!shared) {
        KS_GET(w->own, ks_big_alloc(ks_weights_shared_bytes(m)));
        memset(w->own, 0, ks_ring_bytes(0));
    }
    const ks_ring_source source = {w->L + w->blocks, w->blocks, (size_t)slot_bytes, read_item, w};
    KS_TRY(ks_ring_open(&w->ring, shared ? shared : w->own, &source, member, members));
done:
    if (rc) ks_weights_close(w);
    else *out = w;
    return rc;
}

int ks_weights_open(ks_weights **out, const ks_model *m, int source)
{
    int rc = KS_OK;
    ks_weights *w = NULL;
    if (source == KS_WEIGHTS_STREAMED) return ks_weights_open_shared(out, m, NULL, 0, 1);
    KS_NEW(w, 1);
    w->m = m;
    w->source = source;
    w->L = ks_model_arch(m)->L;
    w->rows = ks_model_arch(m)->V;
    w->blocks = 1;
    for (int i = 0; i < ks_st_files(ks_model_files(m)); i++) {
        const ks_st_file *f = ks_st_file_at(ks_model_files(m), i);
        madvise((void *)(uintptr_t)f->map, (size_t)f->bytes, MADV_WILLNEED);
    }
    *out = w;
done:
    return rc;
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

/* Mapped pages of a file that was cut short would kill the process when they are touched. */
static int check_files(const ks_weights *w)
{
    const ks_st *st = ks_model_files(w->m);
    int rc = KS_OK;
    for (int i = 0; i < ks_st_files(st) && !rc; i++) rc = ks_st_check_file(ks_st_file_at(st, i));
    return rc;
}

int ks_weights_acquire(ks_weights *w, int32_t layer, ks_layer *out)
{
    int rc = KS_OK;
    unsigned char *data = NULL;
    KS_REQUIRE(layer >= 0 && layer < w->L, KS_EMACHINE, "weights: there is no layer %d of %d", layer, w->L);
    *out = *ks_model_layer(w->m, layer);
    if (!w->ring) return check_files(w);
    KS_TRY(ks_ring_acquire(w->ring, layer, &data));
    if (layer == 0) ks_model_drop_pages(w->m); /* a pass begins by looking up embeddings in the map */
    for (int i = 0; i < MATRICES; i++) {
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
    if (w->ring) ks_ring_release(w->ring, layer);
}

int32_t ks_weights_head_blocks(const ks_weights *w)
{
    return w->blocks;
}

int ks_weights_acquire_head(ks_weights *w, int32_t block, ks_tensor *rows, int64_t *first_row)
{
    int rc = KS_OK;
    unsigned char *data = NULL;
    KS_REQUIRE(block >= 0 && block < w->blocks, KS_EMACHINE, "weights: there is no head block %d of %d", block, w->blocks);
    *rows = head_block(w, block, first_row);
    if (!w->ring) return check_files(w);
    KS_TRY(ks_ring_acquire(w->ring, w->L + block, &data));
    rows->data = data;
done:
    return rc;
}

void ks_weights_release_head(ks_weights *w, int32_t block)
{
    if (w->ring) ks_ring_release(w->ring, w->L + block);
}
