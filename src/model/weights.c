#define _GNU_SOURCE
#include "model/weights.h"

#include "base/error.h"
#include "base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Layers and head blocks are units in one row: 0..L-1 are layers, L.. head blocks. */
enum { NONE = -1, SLOTS = 2, ALIGN = 64, CHUNK = 8 << 20, MATRICES = 7 };
enum { EMPTY, READING, READY, FAILED };

typedef struct slot {
    unsigned char *data; /* [slot_bytes] */
    int32_t unit;
    int state;
    int holds; /* acquired and not yet released */
    int code;
    char *error; /* FAILED: what the reader met */
} slot;

struct ks_weights {
    const ks_model *m;
    int source;
    int32_t L, blocks;
    int64_t rows; /* of a head block, but for the last */
    int64_t slot_bytes;

    /* Streamed only; all below is guarded by the mutex, but for the data of a slot that is READING (the reader's) or held (the caller's).
     */
    slot slots[SLOTS];
    pthread_mutex_t mutex;
    pthread_cond_t work, done;
    pthread_t reader;
    bool running, stop;
    int32_t demand;     /* the unit that acquire waits for */
    int32_t ahead;      /* the unit that will be asked for next */
    int32_t last;       /* acquired last */
    int32_t after_last; /* what followed the last head block the last time; NONE at first: a single pass reads nothing in vain */
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
        return SLOTS * bytes;
    }
    for (int i = 0; i < ks_st_files(ks_model_files(m)); i++) bytes += ks_st_file_at(ks_model_files(m), i)->bytes;
    return bytes;
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

/* Copies a mapped tensor's bytes by reading the file, so that its pages never become part of this process. Gives up when another unit
 * is wanted at once or the end has come: *given_up. */
static int read_tensor(ks_weights *w, unsigned char *to, const ks_tensor *t, int32_t unit, bool *given_up)
{
    const ks_st *st = ks_model_files(w->m);
    const unsigned char *p = t->data;
    int i = 0;
    while (!(p >= ks_st_file_at(st, i)->map && p < ks_st_file_at(st, i)->map + ks_st_file_at(st, i)->bytes)) i++;
    const ks_st_file *f = ks_st_file_at(st, i);
    int64_t at = p - f->map, left = tensor_bytes(t);
    while (left) {
        pthread_mutex_lock(&w->mutex);
        *given_up = w->stop || (w->demand != NONE && w->demand != unit);
        pthread_mutex_unlock(&w->mutex);
        if (*given_up) return KS_OK;
        const ssize_t n = pread(f->fd, to, (size_t)(left < CHUNK ? left : CHUNK), at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return ks_error(KS_EMACHINE, "%s: cannot be read at byte %" PRId64 ": %s", f->path, at, strerror(errno));
        if (!n)
            return ks_error(KS_EMACHINE, "%s: ends at byte %" PRId64 "; it had %" PRId64 " bytes when it was opened", f->path, at,
                            f->bytes);
        to += n;
        at += n;
        left -= n;
    }
    return KS_OK;
}

static int read_unit(ks_weights *w, unsigned char *to, int32_t unit, bool *given_up)
{
    int rc = KS_OK;
    *given_up = false;
    if (unit >= w->L) {
        int64_t first;
        const ks_tensor rows = head_block(w, unit - w->L, &first);
        return read_tensor(w, to, &rows, unit, given_up);
    }
    ks_layer layer = *ks_model_layer(w->m, unit);
    for (int i = 0; i < MATRICES && !rc && !*given_up; i++) {
        const ks_tensor *t = matrix(&layer, i);
        if (!t->data) continue;
        rc = read_tensor(w, to, t, unit, given_up);
        to += aligned(tensor_bytes(t));
    }
    return rc;
}

static slot *find(ks_weights *w, int32_t unit)
{
    for (int i = 0; i < SLOTS; i++)
        if (w->slots[i].state != EMPTY && w->slots[i].unit == unit) return &w->slots[i];
    return NULL;
}

/* What the reader should read next and where to, NULL if nothing. */
static slot *next_read(ks_weights *w, int32_t *unit)
{
    *unit = w->demand != NONE && !find(w, w->demand)                      ? w->demand
            : w->demand == NONE && w->ahead != NONE && !find(w, w->ahead) ? w->ahead
                                                                          : NONE;
    if (*unit == NONE) return NULL;
    for (int i = 0; i < SLOTS; i++)
        if (!w->slots[i].holds) return &w->slots[i];
    return NULL;
}

static void *read_ahead(void *arg)
{
    ks_weights *w = arg;
    pthread_mutex_lock(&w->mutex);
    while (!w->stop) {
        int32_t unit;
        slot *s = next_read(w, &unit);
        if (!s) {
            pthread_cond_wait(&w->work, &w->mutex);
            continue;
        }
        s->unit = unit;
        s->state = READING;
        free(s->error);
        s->error = NULL;
        pthread_mutex_unlock(&w->mutex);
        bool given_up;
        const int rc = read_unit(w, s->data, unit, &given_up);
        pthread_mutex_lock(&w->mutex);
        s->state = rc ? FAILED : given_up ? EMPTY : READY;
        s->code = rc;
        if (rc) s->error = ks_strdup(ks_error_text());
        pthread_cond_broadcast(&w->done);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

static int start_reader(ks_weights *w)
{
    int rc = KS_OK;
    for (int i = 0; i < SLOTS; i++) KS_GET(w->slots[i].data, ks_big_alloc((size_t)w->slot_bytes));
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->work, NULL);
    pthread_cond_init(&w->done, NULL);

    /* Signals are the main thread's. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(&w->reader, NULL, read_ahead, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    KS_REQUIRE(!failed, KS_EMACHINE, "cannot start a thread: %s", strerror(failed));
    w->running = true;
done:
    return rc;
}

int ks_weights_open(ks_weights **out, const ks_model *m, int source)
{
    int rc = KS_OK;
    ks_weights *w = NULL;
    KS_NEW(w, 1);
    w->m = m;
    w->source = source;
    w->L = ks_model_arch(m)->L;
    w->demand = w->last = w->after_last = NONE;
    if (source == KS_WEIGHTS_STREAMED) {
        w->rows = head_rows(m, &w->slot_bytes);
        w->blocks = (int32_t)((ks_model_arch(m)->V + w->rows - 1) / w->rows);
        KS_TRY(start_reader(w));
    } else {
        w->rows = ks_model_arch(m)->V;
        w->blocks = 1;
        for (int i = 0; i < ks_st_files(ks_model_files(m)); i++) {
            const ks_st_file *f = ks_st_file_at(ks_model_files(m), i);
            madvise((void *)(uintptr_t)f->map, (size_t)f->bytes, MADV_WILLNEED);
        }
    }
done:
    if (rc) ks_weights_close(w);
    else *out = w;
    return rc;
}

void ks_weights_close(ks_weights *w)
{
    if (!w) return;
    if (w->running) {
        pthread_mutex_lock(&w->mutex);
        w->stop = true;
        pthread_cond_signal(&w->work);
        pthread_mutex_unlock(&w->mutex);
        pthread_join(w->reader, NULL);
        pthread_cond_destroy(&w->work);
        pthread_cond_destroy(&w->done);
        pthread_mutex_destroy(&w->mutex);
    }
    for (int i = 0; i < SLOTS; i++) {
        ks_big_free(w->slots[i].data);
        free(w->slots[i].error);
    }
    free(w);
}

/* Waits for the unit and holds it; *data is where it lies. */
static int hold(ks_weights *w, int32_t unit, unsigned char **data)
{
    int rc = KS_OK;
    const int32_t end = w->L + w->blocks - 1;
    pthread_mutex_lock(&w->mutex);
    slot *s = find(w, unit);
    while (!s || s->state == READING) {
        bool free_slot = false;
        for (int i = 0; i < SLOTS; i++) free_slot |= !w->slots[i].holds;
        KS_REQUIRE(free_slot, KS_EMACHINE, "weights: both buffers are held; release one before the next is acquired");
        w->demand = unit;
        pthread_cond_signal(&w->work);
        pthread_cond_wait(&w->done, &w->mutex);
        s = find(w, unit);
    }
    if (s->state == FAILED) {
        s->state = EMPTY;
        rc = ks_error(s->code, "%s", s->error ? s->error : "weights: a read failed");
        goto done;
    }
    s->holds++;
    *data = s->data;
    if (w->last == end) w->after_last = unit;
    w->last = unit;
    w->ahead = unit == end ? w->after_last : unit + 1;
done:
    w->demand = NONE;
    if (rc) w->ahead = NONE;
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->mutex);
    return rc;
}

static void let_go(ks_weights *w, int32_t unit)
{
    if (w->source != KS_WEIGHTS_STREAMED) return;
    pthread_mutex_lock(&w->mutex);
    slot *s = find(w, unit);
    if (s && s->holds) s->holds--;
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->mutex);
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
    if (w->source != KS_WEIGHTS_STREAMED) return check_files(w);
    KS_TRY(hold(w, layer, &data));
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
    let_go(w, layer);
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
    if (w->source != KS_WEIGHTS_STREAMED) return check_files(w);
    KS_TRY(hold(w, w->L + block, &data));
    rows->data = data;
done:
    return rc;
}

void ks_weights_release_head(ks_weights *w, int32_t block)
{
    let_go(w, w->L + block);
}
