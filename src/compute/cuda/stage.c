#include "compute/cuda/stage.h"

#include "base/error.h"

#include <string.h>

static size_t aligned(size_t bytes, size_t to)
{
    return (bytes + to - 1) / to * to;
}

void ks_stage_close(ks_stage *s)
{
    ks_gpu_free_host(s->gpu, s->host);
    ks_gpu_free(s->gpu, s->device);
    *s = (ks_stage){.gpu = s->gpu, .queue = s->queue};
}

static int mark_of(const ks_stage *s, int part)
{
    return KS_MARK_STAGE + s->queue * KS_STAGE_PARTS + part;
}

int ks_stage_open(ks_stage *s, ks_gpu *g, int queue, size_t part_bytes)
{
    int rc = KS_OK;
    void *host = NULL, *device = NULL;
    *s = (ks_stage){.gpu = g, .queue = queue, .part_bytes = aligned(part_bytes, 256)};
    KS_TRY(ks_gpu_alloc_host(g, &host, KS_STAGE_PARTS * s->part_bytes));
    s->host = host;
    if (queue == KS_GPU_MAIN) KS_TRY(ks_gpu_alloc(g, &device, KS_STAGE_PARTS * s->part_bytes));
    s->device = device;
    for (int i = 0; i < KS_STAGE_PARTS; i++) KS_TRY(ks_gpu_mark(g, queue, mark_of(s, i)));
done:
    if (rc) ks_stage_close(s);
    return rc;
}

/* Room for `bytes`, at most a part: *at is its offset. */
static int take(ks_stage *s, size_t bytes, size_t *at)
{
    int rc = KS_OK;
    if (s->used + bytes > s->part_bytes) {
        KS_TRY(ks_gpu_mark(s->gpu, s->queue, mark_of(s, s->part)));
        s->part = (s->part + 1) % KS_STAGE_PARTS;
        s->used = 0;
        KS_TRY(ks_gpu_reach(s->gpu, mark_of(s, s->part)));
    }
    *at = (size_t)s->part * s->part_bytes + s->used;
    s->used += bytes;
done:
    return rc;
}

int ks_stage_put(ks_stage *s, ks_piece *pieces, size_t n)
{
    int rc = KS_OK;
    size_t bytes = 0, at = 0;
    for (size_t i = 0; i < n; i++) bytes += pieces[i].host ? aligned(pieces[i].bytes, 16) : 0;
    if (bytes > s->part_bytes) {
        ks_gpu *g = s->gpu;
        KS_TRY(ks_gpu_wait(g));
        ks_stage_close(s);
        KS_TRY(ks_stage_open(s, g, s->queue, bytes + bytes / 2));
    }
    KS_TRY(take(s, bytes, &at));
    const size_t begin = at;
    for (size_t i = 0; i < n; i++) {
        pieces[i].device = NULL;
        if (!pieces[i].host || !pieces[i].bytes) continue;
        memcpy(s->host + at, pieces[i].host, pieces[i].bytes);
        pieces[i].device = s->device + at;
        at += aligned(pieces[i].bytes, 16);
    }
    if (bytes) KS_TRY(ks_gpu_upload(s->gpu, KS_GPU_MAIN, s->device + begin, s->host + begin, bytes));
done:
    return rc;
}

int ks_stage_copy(ks_stage *s, void *dst, const void *host, size_t bytes)
{
    int rc = KS_OK;
    for (size_t done = 0, step; done < bytes; done += step) {
        size_t at = 0;
        step = bytes - done < s->part_bytes ? bytes - done : s->part_bytes;
        KS_TRY(take(s, aligned(step, 16), &at));
        memcpy(s->host + at, (const char *)host + done, step);
        KS_TRY(ks_gpu_upload(s->gpu, s->queue, (char *)dst + done, s->host + at, step));
    }
done:
    return rc;
}
