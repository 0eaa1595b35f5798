#define _GNU_SOURCE /* protection keys */
#include "tests/check/gpu_check.h"

#include "base/error.h"
#include "base/mem.h"
#include "compute/cpu/gemm.h"
#include "tests/check/check.h"
#include "tests/check/queues.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, ALIGN = 256, POISON = 0xff };
#define DEFAULT_MEMORY ((size_t)2 << 30)

/* An allocation; its end lies at most ALIGN bytes before a closed page. */
typedef struct block {
    char *map, *p;
    size_t pages_bytes, bytes; /* pages_bytes without the closed page */
} block;

struct ks_gpu {
    block *blocks;
    struct {
        char *p;
        size_t bytes;
    } * pinned;
    size_t n_blocks, n_pinned, used, peak, all;
    ks_queues *queues;
    bool launching;
    int key; /* of protection; < 0: the processor has none */
    ks_pool *pool;
    ks_gemm *gemm;
    char place[32];
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

/* Device memory is open while the queues run, else closed to the host. */
static void open_memory(ks_gpu *g, bool open)
{
    if (g->key >= 0) {
        if (pkey_set(g->key, open ? 0 : PKEY_DISABLE_ACCESS)) fault("pkey_set failed");
        return;
    }
    for (size_t i = 0; i < g->n_blocks; i++)
        if (mprotect(g->blocks[i].map, g->blocks[i].pages_bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE)) fault("mprotect failed");
}

static void launch_later(void *stream, ks_check_work *work);

static void wait_for_all(ks_gpu *g)
{
    if (g->launching) fault("a wait between ks_gpu_stream and ks_gpu_launched");
    open_memory(g, true);
    ks_queues_wait(g->queues);
    open_memory(g, false);
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

int ks_gpu_probe(void)
{
    return KS_OK;
}

int ks_gpu_open(ks_gpu **out, int index)
{
    int rc = KS_OK;
    ks_gpu *g = NULL;
    ks_check_submit(launch_later);
    KS_NEW(g, 1);
    const char *text = getenv("KS_CHECK_MEMORY"), *gpus = getenv("KS_CHECK_GPUS");
    snprintf(g->place, sizeof g->place, "check %d", gpus ? index % atoi(gpus) : index);
    g->all = memory ? memory : text ? strtoull(text, NULL, 10) : DEFAULT_MEMORY;
    g->key = pkey_alloc(0, PKEY_DISABLE_ACCESS);
    KS_TRY(ks_queues_new(&g->queues, g));
    KS_TRY(ks_pool_new(&g->pool, 1));
    KS_TRY(ks_gemm_new(&g->gemm, g->pool, NULL));
done:
    if (rc) ks_gpu_close(g);
    else *out = g;
    return rc;
}

/* The peak, for a test that runs the program. */
static void tell_peak(const ks_gpu *g)
{
    const char *path = getenv("KS_CHECK_PEAK");
    FILE *f = path ? fopen(path, "a") : NULL;
    if (path && !f) fault("%s cannot be opened", path);
    if (!f) return;
    fprintf(f, "%zu\n", g->peak);
    fclose(f);
}

void ks_gpu_close(ks_gpu *g)
{
    if (!g) return;
    tell_peak(g);
    if (g->queues) wait_for_all(g);
    if (g->n_blocks || g->n_pinned) fault("%zu device and %zu host allocations were not freed", g->n_blocks, g->n_pinned);
    if (g->key >= 0) pkey_free(g->key);
    ks_gemm_free(g->gemm);
    ks_pool_free(g->pool);
    ks_queues_free(g->queues);
    free(g->blocks);
    free(g->pinned);
    free(g);
}

const char *ks_gpu_name(const ks_gpu *g)
{
    (void)g;
    return "no GPU: check";
}

const char *ks_gpu_algorithms(const ks_gpu *g)
{
    (void)g;
    return "check: cpu gemm";
}

const char *ks_gpu_place(const ks_gpu *g)
{
    return g->place;
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
    const bool closed = !mprotect(map + pages, PAGE, PROT_NONE) &&
                        !(g->key >= 0 ? pkey_mprotect(map, pages, PROT_READ | PROT_WRITE, g->key) : mprotect(map, pages, PROT_NONE));
    if (!closed) fault("a device allocation cannot be closed to the host");
    g->blocks[g->n_blocks++] = (block){map, map + pages - rounded, pages, bytes};
    g->used += bytes;
    if (g->used > g->peak) g->peak = g->used;
    *out = map + pages - rounded;
done:
    return rc;
}

void ks_gpu_free(ks_gpu *g, void *p)
{
    if (!p) return;
    for (size_t i = 0; i < g->n_blocks; i++) {
        if (g->blocks[i].p != p) continue;
        wait_for_all(g);
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
        wait_for_all(g);
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
        wait_for_all(g);
        g->pinned[i] = g->pinned[--g->n_pinned];
        return;
    }
    fault("%p is unpinned and was not pinned", host);
}

/* ---- what the queues hold ---- */

typedef struct transfer {
    char *device, *host;
    size_t bytes;
    uint64_t sum;  /* of what is uploaded, when that was asked for */
    char *landing; /* what was downloaded and the host may not see yet */
} transfer;

typedef struct copy {
    char *dst;
    const char *src; /* NULL: zeros */
    size_t bytes;
} copy;

typedef struct product {
    float *y;
    const void *x, *w;
    size_t ldy, ldx, M, N, K;
    ks_dtype type;
    bool accumulate;
} product;

/* Of what is uploaded: 64 bits that tell whether it has changed. */
static uint64_t sum_of(const char *p, size_t bytes)
{
    uint64_t sum = bytes, word;
    for (; bytes >= sizeof word; p += sizeof word, bytes -= sizeof word) {
        memcpy(&word, p, sizeof word);
        sum = (sum ^ word) * 0x9e3779b97f4a7c15u;
        sum ^= sum >> 32;
    }
    for (; bytes; p++, bytes--) sum = (sum ^ (unsigned char)*p) * 0x100000001b3u;
    return sum;
}

static void upload_unchanged(void *context, void *args)
{
    const transfer *t = args;
    (void)context;
    if (sum_of(t->host, t->bytes) != t->sum) fault("host memory at %p was changed before its upload was over", (void *)t->host);
}

static void upload_runs(void *context, void *args)
{
    const transfer *t = args;
    upload_unchanged(context, args);
    memcpy(t->device, t->host, t->bytes);
}

static void download_runs(void *context, void *args)
{
    transfer *t = args;
    (void)context;
    t->landing = malloc(t->bytes);
    if (!t->landing) fault("no memory for a download of %zu bytes", t->bytes);
    memcpy(t->landing, t->device, t->bytes);
}

static void download_is_seen(void *context, void *args)
{
    const transfer *t = args;
    (void)context;
    memcpy(t->host, t->landing, t->bytes);
    free(t->landing);
}

static void copy_runs(void *context, void *args)
{
    const copy *c = args;
    (void)context;
    if (c->src) memcpy(c->dst, c->src, c->bytes);
    else memset(c->dst, 0, c->bytes);
}

static void kernel_runs(void *context, void *args)
{
    (void)context;
    ks_check_run(*(ks_check_work **)args);
}

static void product_runs(void *context, void *args)
{
    ks_gpu *g = context;
    const product *p = args;
    float *wide = NULL;
    if (p->type == KS_BF16) {
        const uint16_t *parts = p->x;
        wide = malloc(p->M * p->K * sizeof *wide);
        if (!wide) fault("no memory for a product");
        for (size_t i = 0; i < p->M * p->K; i++) wide[i] = ks_f32_of_bf16(parts[i / p->K * p->ldx + i % p->K]);
    }
    ks_gemm_run(g->gemm, p->y, p->ldy, wide ? wide : p->x, wide ? p->K : p->ldx, p->w, p->type, p->K, p->M, p->N, p->K, p->accumulate);
    free(wide);
}

/* ---- queues ---- */

static int add_copy(ks_gpu *g, void *dst, const void *src, size_t bytes)
{
    return ks_queues_add(g->queues, KS_GPU_MAIN, copy_runs, NULL, &(copy){dst, src, bytes}, sizeof(copy));
}

int ks_gpu_zero(ks_gpu *g, void *p, size_t bytes)
{
    in_device(g, p, bytes, "zero");
    return add_copy(g, p, NULL, bytes);
}

int ks_gpu_copy(ks_gpu *g, void *dst, const void *src, size_t bytes)
{
    in_device(g, dst, bytes, "copy to");
    in_device(g, src, bytes, "copy from");
    const char *a = dst, *b = src;
    if (a < b + bytes && b < a + bytes) fault("a copy overlaps itself");
    return add_copy(g, dst, src, bytes);
}

int ks_gpu_upload(ks_gpu *g, int queue, void *dst, const void *host, size_t bytes)
{
    in_device(g, dst, bytes, "upload to");
    in_pinned(g, host, bytes, "upload from");
    count.uploads++;
    count.uploaded_bytes += bytes;
    const transfer t = {.device = dst, .host = (char *)host, .bytes = bytes, .sum = sum_of(host, bytes)};
    return ks_queues_add(g->queues, queue, upload_runs, upload_unchanged, &t, sizeof t);
}

int ks_gpu_download(ks_gpu *g, void *host, const void *src, size_t bytes)
{
    in_device(g, src, bytes, "download from");
    in_pinned(g, host, bytes, "download to");
    memset(host, POISON, bytes);
    const transfer t = {.device = (char *)src, .host = host, .bytes = bytes};
    return ks_queues_add(g->queues, KS_GPU_MAIN, download_runs, download_is_seen, &t, sizeof t);
}

/* What comes from another GPU: it has come already, and lies there when the queue says so. */
static void arrival_runs(void *context, void *args)
{
    const transfer *t = args;
    (void)context;
    memcpy(t->device, t->landing, t->bytes);
    free(t->landing);
}

int ks_gpu_check_arrive(ks_gpu *g, void *device, const void *bytes, size_t n)
{
    int rc = KS_OK;
    transfer t = {.device = device, .bytes = n};
    in_device(g, device, n, "broadcast to");
    KS_NEW(t.landing, n);
    memcpy(t.landing, bytes, n);
    KS_TRY(ks_queues_add(g->queues, KS_GPU_SIDE, arrival_runs, NULL, &t, sizeof t));
done:
    if (rc) free(t.landing);
    return rc;
}

void ks_gpu_check_leave(ks_gpu *g, void *bytes, const void *device, size_t n)
{
    in_device(g, device, n, "broadcast from");
    open_memory(g, true);
    ks_queues_run(g->queues, KS_GPU_SIDE);
    memcpy(bytes, device, n);
    open_memory(g, false);
}

int ks_gpu_wait(ks_gpu *g)
{
    wait_for_all(g);
    count.waits++;
    return KS_OK;
}

static void is_mark(int i)
{
    if (i < 0 || i >= KS_GPU_MARKS) fault("mark %d: 0 to %d expected", i, KS_GPU_MARKS - 1);
}

int ks_gpu_mark(ks_gpu *g, int queue, int i)
{
    is_mark(i);
    ks_queues_mark(g->queues, queue, i);
    return KS_OK;
}

int ks_gpu_reach(ks_gpu *g, int i)
{
    is_mark(i);
    open_memory(g, true);
    ks_queues_reach(g->queues, i);
    open_memory(g, false);
    return KS_OK;
}

int ks_gpu_after(ks_gpu *g, int queue, int i)
{
    is_mark(i);
    return ks_queues_after(g->queues, queue, i);
}

static void launch_later(void *stream, ks_check_work *work)
{
    ks_gpu *g = stream;
    if (!g->launching) fault("a launch outside of ks_gpu_stream and ks_gpu_launched");
    if (ks_queues_add(g->queues, KS_GPU_MAIN, kernel_runs, NULL, &work, sizeof work)) fault("no memory for a launch");
}

void *ks_gpu_stream(ks_gpu *g)
{
    if (g->launching) fault("ks_gpu_stream twice without ks_gpu_launched");
    g->launching = true;
    return g;
}

int ks_gpu_launched(ks_gpu *g, int error, const char *what)
{
    if (!g->launching) fault("%s was launched without ks_gpu_stream", what);
    g->launching = false;
    count.launches++;
    return error ? ks_error(KS_EMACHINE, "%s: error %d", what, error) : KS_OK;
}

static int add_product(ks_gpu *g, const product *p)
{
    in_device(g, p->y, ((p->M - 1) * p->ldy + p->N) * sizeof *p->y, "product to");
    in_device(g, p->x, ((p->M - 1) * p->ldx + p->K) * ks_dtype_size(p->type), "product of");
    in_device(g, p->w, p->N * p->K * ks_dtype_size(p->type), "product with");
    count.products++;
    return ks_queues_add(g->queues, KS_GPU_MAIN, product_runs, NULL, p, sizeof *p);
}

int ks_gpu_product_bf16(ks_gpu *g, float *y, size_t ldy, const void *x, size_t ldx, const void *w, size_t M, size_t N, size_t K,
                        bool accumulate)
{
    return add_product(g, &(product){y, x, w, ldy, ldx, M, N, K, KS_BF16, accumulate});
}

int ks_gpu_product_f32(ks_gpu *g, float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t M, size_t N, size_t K,
                       bool accumulate)
{
    return add_product(g, &(product){y, x, w, ldy, ldx, M, N, K, KS_F32, accumulate});
}
