#define _GNU_SOURCE /* protection keys */
#include "tests/check/gpu_check.h"

#include "base/error.h"
#include "base/mem.h"
#include "compute/cpu/gemm.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, ALIGN = 256, POISON = 0xff, CLOSE_EVERY = 37 };
#define DEFAULT_MEMORY ((size_t)2 << 30)

/* An allocation; its end lies at most ALIGN bytes before a closed page. */
typedef struct block {
    char *map, *p;
    size_t pages_bytes, bytes; /* pages_bytes without the closed page */
} block;

/* A transfer that the queue may not have reached yet. */
typedef struct transfer {
    char *host, *copy;
    size_t bytes;
    uint64_t at;
    bool up;
} transfer;

struct ks_gpu {
    block *blocks;
    transfer *transfers;
    struct {
        char *p;
        size_t bytes;
    } * pinned;
    size_t n_blocks, n_transfers, n_pinned, used, all;
    uint64_t clock, marks[KS_GPU_MARKS];
    bool launching;
    int key;
    bool open; /* without a key */
    size_t operations;
    ks_pool *pool;
    ks_gemm *gemm;
};

static size_t memory; /* 0: KS_CHECK_MEMORY of the environment, else DEFAULT_MEMORY */
static ks_gpu_check_count count;

void ks_gpu_check_memory(size_t bytes)
{
    memory = bytes;
}

ks_gpu_check_count ks_gpu_check_counted(void)
{
    return count;
}

static _Noreturn void __attribute__((format(printf, 1, 2))) fault(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("check GPU: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

/* Device memory is open to kernels, copies and products, closed to the host. With a protection key that is one instruction. Where the
 * processor has none (key < 0) every page's protection changes, which is slow, so it is closed after every CLOSE_EVERY-th operation only: a
 * touch that recurs is found all the same. */
static void open_memory(ks_gpu *g, bool open)
{
    if (g->key >= 0) {
        if (pkey_set(g->key, open ? 0 : PKEY_DISABLE_ACCESS)) fault("pkey_set failed");
        return;
    }
    if (open == g->open || (!open && ++g->operations % CLOSE_EVERY)) return;
    g->open = open;
    for (size_t i = 0; i < g->n_blocks; i++)
        if (mprotect(g->blocks[i].map, g->blocks[i].pages_bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE)) fault("mprotect failed");
}

static void in_device(const ks_gpu *g, const void *p, size_t bytes, const char *what)
{
    const char *c = p;
    if (g->launching) fault("%s between ks_gpu_stream and ks_gpu_launched", what);
    for (size_t i = 0; i < g->n_blocks; i++)
        if (c >= g->blocks[i].p && c + bytes <= g->blocks[i].p + g->blocks[i].bytes) return;
    fault("%s: %zu bytes at %p are not inside one allocation", what, bytes, p);
}

static void in_pinned(const ks_gpu *g, const void *p, size_t bytes, const char *what)
{
    const char *c = p;
    for (size_t i = 0; i < g->n_pinned; i++)
        if (c >= g->pinned[i].p && c + bytes <= g->pinned[i].p + g->pinned[i].bytes) return;
    fault("%s: %zu bytes at %p of the host are not pinned", what, bytes, p);
}

/* The queue has passed everything up to `until`. */
static void settle(ks_gpu *g, uint64_t until)
{
    size_t left = 0;
    for (size_t i = 0; i < g->n_transfers; i++) {
        const transfer *t = &g->transfers[i];
        if (t->at > until) {
            g->transfers[left++] = *t;
            continue;
        }
        if (t->up && memcmp(t->host, t->copy, t->bytes)) fault("host memory at %p was changed before its upload was over", (void *)t->host);
        if (!t->up) memcpy(t->host, t->copy, t->bytes);
        free(t->copy);
    }
    g->n_transfers = left;
}

int ks_gpu_probe(void)
{
    return KS_OK;
}

int ks_gpu_open(ks_gpu **out, int index)
{
    int rc = KS_OK;
    ks_gpu *g = NULL;
    (void)index;
    KS_NEW(g, 1);
    const char *text = getenv("KS_CHECK_MEMORY");
    g->all = memory ? memory : text ? strtoull(text, NULL, 10) : DEFAULT_MEMORY;
    g->key = pkey_alloc(0, PKEY_DISABLE_ACCESS);
    KS_TRY(ks_pool_new(&g->pool, 1));
    KS_TRY(ks_gemm_new(&g->gemm, g->pool, NULL));
done:
    if (rc) ks_gpu_close(g);
    else *out = g;
    return rc;
}

void ks_gpu_close(ks_gpu *g)
{
    if (!g) return;
    settle(g, g->clock);
    if (g->n_blocks || g->n_pinned) fault("%zu device and %zu host allocations were not freed", g->n_blocks, g->n_pinned);
    if (g->key >= 0) pkey_free(g->key);
    ks_gemm_free(g->gemm);
    ks_pool_free(g->pool);
    free(g->blocks);
    free(g->transfers);
    free(g->pinned);
    free(g);
}

const char *ks_gpu_name(const ks_gpu *g)
{
    (void)g;
    return "no GPU: check";
}

int ks_gpu_memory(ks_gpu *g, size_t *free_bytes, size_t *all_bytes)
{
    *free_bytes = g->all - g->used;
    *all_bytes = g->all;
    return KS_OK;
}

int ks_gpu_alloc(ks_gpu *g, void **out, size_t bytes)
{
    int rc = KS_OK;
    block *v;
    const size_t rounded = (bytes + ALIGN - 1) / ALIGN * ALIGN, pages = (rounded + PAGE - 1) / PAGE * PAGE;
    KS_REQUIRE(bytes <= g->all && g->used + bytes <= g->all, KS_EMACHINE, "%zu bytes of device memory are wanted; %zu of %zu are in use",
               bytes, g->used, g->all);
    KS_GET(v, ks_realloc(g->blocks, g->n_blocks + 1, sizeof *v));
    g->blocks = v;
    char *map = mmap(NULL, pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    KS_REQUIRE(map != MAP_FAILED, KS_EMACHINE, "no memory to play %zu bytes of device memory", bytes);
    memset(map, POISON, pages);
    const int others = g->open ? PROT_READ | PROT_WRITE : PROT_NONE;
    const bool closed = !mprotect(map + pages, PAGE, PROT_NONE) &&
                        !(g->key >= 0 ? pkey_mprotect(map, pages, PROT_READ | PROT_WRITE, g->key) : mprotect(map, pages, others));
    if (!closed) fault("a device allocation cannot be closed to the host");
    g->blocks[g->n_blocks++] = (block){map, map + pages - rounded, pages, bytes};
    g->used += bytes;
    *out = map + pages - rounded;
done:
    return rc;
}

void ks_gpu_free(ks_gpu *g, void *p)
{
    if (!p) return;
    for (size_t i = 0; i < g->n_blocks; i++) {
        if (g->blocks[i].p != p) continue;
        settle(g, g->clock);
        g->used -= g->blocks[i].bytes;
        munmap(g->blocks[i].map, g->blocks[i].pages_bytes + PAGE);
        g->blocks[i] = g->blocks[--g->n_blocks];
        return;
    }
    fault("%p is freed and was not allocated", p);
}

int ks_gpu_alloc_host(ks_gpu *g, void **out, size_t bytes)
{
    int rc = KS_OK;
    void *v;
    KS_GET(v, ks_realloc(g->pinned, g->n_pinned + 1, sizeof *g->pinned));
    g->pinned = v;
    char *p;
    KS_NEW(p, bytes);
    memset(p, POISON, bytes);
    g->pinned[g->n_pinned].p = p;
    g->pinned[g->n_pinned++].bytes = bytes;
    *out = p;
done:
    return rc;
}

void ks_gpu_free_host(ks_gpu *g, void *p)
{
    if (!p) return;
    for (size_t i = 0; i < g->n_pinned; i++) {
        if (g->pinned[i].p != p) continue;
        settle(g, g->clock);
        free(p);
        g->pinned[i] = g->pinned[--g->n_pinned];
        return;
    }
    fault("%p is freed and was not pinned", p);
}

int ks_gpu_pin(ks_gpu *g, void *host, size_t bytes)
{
    int rc = KS_OK;
    void *v;
    if ((uintptr_t)host % PAGE) fault("%p is to be pinned and not aligned to pages", host);
    KS_GET(v, ks_realloc(g->pinned, g->n_pinned + 1, sizeof *g->pinned));
    g->pinned = v;
    g->pinned[g->n_pinned].p = host;
    g->pinned[g->n_pinned++].bytes = bytes;
done:
    return rc;
}

void ks_gpu_unpin(ks_gpu *g, void *host)
{
    if (!host) return;
    for (size_t i = 0; i < g->n_pinned; i++) {
        if (g->pinned[i].p != host) continue;
        settle(g, g->clock);
        g->pinned[i] = g->pinned[--g->n_pinned];
        return;
    }
    fault("%p is unpinned and was not pinned", host);
}

/* ---- the queue: done at once, but the host may not rely on it ---- */

int ks_gpu_zero(ks_gpu *g, void *p, size_t bytes)
{
    in_device(g, p, bytes, "zero");
    open_memory(g, true);
    memset(p, 0, bytes);
    open_memory(g, false);
    return KS_OK;
}

int ks_gpu_copy(ks_gpu *g, void *dst, const void *src, size_t bytes)
{
    in_device(g, dst, bytes, "copy to");
    in_device(g, src, bytes, "copy from");
    const char *a = dst, *b = src;
    if (a < b + bytes && b < a + bytes) fault("a copy overlaps itself");
    open_memory(g, true);
    memcpy(dst, src, bytes);
    open_memory(g, false);
    return KS_OK;
}

void ks_gpu_check_touch(const ks_gpu *g, const void *device, size_t bytes, const char *what)
{
    in_device(g, device, bytes, what);
}

void ks_gpu_check_copy(ks_gpu *g, void *dst, const void *src, size_t bytes)
{
    open_memory(g, true);
    memcpy(dst, src, bytes);
    open_memory(g, false);
}

static int transfer_at(ks_gpu *g, void *host, const void *device, size_t bytes, bool up)
{
    int rc = KS_OK;
    transfer *v;
    char *copy;
    in_device(g, device, bytes, up ? "upload to" : "download from");
    in_pinned(g, host, bytes, up ? "upload from" : "download to");
    KS_GET(v, ks_realloc(g->transfers, g->n_transfers + 1, sizeof *v));
    g->transfers = v;
    KS_NEW(copy, bytes);
    g->transfers[g->n_transfers++] = (transfer){host, copy, bytes, ++g->clock, up};
    open_memory(g, true);
    memcpy(copy, up ? host : device, bytes);
    if (!up) memset(host, POISON, bytes);
done:
    return rc;
}

int ks_gpu_upload(ks_gpu *g, int queue, void *dst, const void *host, size_t bytes)
{
    (void)queue;
    const int rc = transfer_at(g, (void *)host, dst, bytes, true);
    if (!rc) memcpy(dst, host, bytes);
    open_memory(g, false);
    count.uploads++;
    count.uploaded_bytes += bytes;
    return rc;
}

int ks_gpu_download(ks_gpu *g, void *host, const void *src, size_t bytes)
{
    const int rc = transfer_at(g, host, src, bytes, false);
    open_memory(g, false);
    return rc;
}

int ks_gpu_wait(ks_gpu *g)
{
    settle(g, g->clock);
    count.waits++;
    return KS_OK;
}

int ks_gpu_mark(ks_gpu *g, int queue, int i)
{
    (void)queue;
    g->marks[i] = g->clock;
    return KS_OK;
}

int ks_gpu_reach(ks_gpu *g, int i)
{
    settle(g, g->marks[i]);
    return KS_OK;
}

int ks_gpu_after(ks_gpu *g, int queue, int i)
{
    (void)g, (void)queue, (void)i; /* one order for both queues */
    return KS_OK;
}

void *ks_gpu_stream(ks_gpu *g)
{
    if (g->launching) fault("ks_gpu_stream twice without ks_gpu_launched");
    g->launching = true;
    open_memory(g, true);
    return g;
}

int ks_gpu_launched(ks_gpu *g, int error, const char *what)
{
    if (!g->launching) fault("%s was launched without ks_gpu_stream", what);
    g->launching = false;
    open_memory(g, false);
    count.launches++;
    return error ? ks_error(KS_EMACHINE, "%s: error %d", what, error) : KS_OK;
}

/* ---- products ---- */

static void multiply(ks_gpu *g, float *y, size_t ldy, const float *x, size_t ldx, const void *w, ks_dtype type, size_t M, size_t N,
                     size_t K, bool accumulate)
{
    in_device(g, y, ((M - 1) * ldy + N) * sizeof *y, "product to");
    in_device(g, w, N * K * ks_dtype_size(type), "product with");
    open_memory(g, true);
    ks_gemm_run(g->gemm, y, ldy, x, ldx, w, type, K, M, N, K, accumulate);
    open_memory(g, false);
    count.products++;
}

int ks_gpu_product_bf16(ks_gpu *g, float *y, size_t ldy, const void *x, const void *w, size_t M, size_t N, size_t K, bool accumulate)
{
    int rc = KS_OK;
    float *wide = NULL;
    const uint16_t *parts = x;
    in_device(g, x, M * K * sizeof *parts, "product of");
    KS_NEW(wide, M * K);
    open_memory(g, true);
    for (size_t i = 0; i < M * K; i++) wide[i] = ks_f32_of_bf16(parts[i]);
    multiply(g, y, ldy, wide, K, w, KS_BF16, M, N, K, accumulate);
done:
    free(wide);
    return rc;
}

int ks_gpu_product_f32(ks_gpu *g, float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t M, size_t N, size_t K,
                       bool accumulate)
{
    in_device(g, x, ((M - 1) * ldx + K) * sizeof *x, "product of");
    multiply(g, y, ldy, x, ldx, w, KS_F32, M, N, K, accumulate);
    return KS_OK;
}
