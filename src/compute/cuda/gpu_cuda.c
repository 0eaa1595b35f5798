/* gpu.h on the CUDA runtime and cuBLASLt.
 *
 * A product's algorithm is asked for once per shape, at PROBE_ROWS rows, and then used for every number of rows: the first that says that
 * it takes them all without split-K and without workspace. No sum crosses thread blocks then: each element of y is one tile's sum along K
 * in the algorithm's order. */
#include "compute/cuda/gpu_cuda.h"

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PROBE_ROWS = 4096 };

/* A kind of product and its algorithm. */
typedef struct plan {
    size_t N, K, ldy, ldx;
    bool bf16;
    uint32_t y_alignment, x_alignment;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w;
    cublasLtMatmulAlgo_t algo;
} plan;

struct ks_gpu {
    int index;
    cudaStream_t queues[KS_GPU_QUEUES];
    cudaEvent_t marks[KS_GPU_MARKS];
    cublasLtHandle_t lt;
    plan *plans;
    size_t n_plans;
    char *algorithms;                        /* a line a plan; NULL: none */
    int (*watch)(void *ctx, double seconds); /* ks_gpu_watch */
    void *watch_ctx;
    char name[320], place[64];
};

static int failed(cudaError_t e, const char *what)
{
    cudaGetLastError(); /* an error that is reported here is not found again behind the next kernel */
    return ks_error(KS_EMACHINE, "CUDA: %s: %s (%s)", what, cudaGetErrorString(e), cudaGetErrorName(e));
}

#define TRY_CUDA(call)                 \
    do {                               \
        const cudaError_t e_ = (call); \
        if (e_) {                      \
            rc = failed(e_, #call);    \
            goto done;                 \
        }                              \
    } while (0)

#define TRY_LT(call)                                                                            \
    do {                                                                                        \
        const cublasStatus_t e_ = (call);                                                       \
        if (e_) {                                                                               \
            rc = ks_error(KS_EMACHINE, "cuBLASLt: %s: %s", #call, cublasLtGetStatusString(e_)); \
            goto done;                                                                          \
        }                                                                                       \
    } while (0)

/* The thread's current device, which kernels and memory take: threads of a rank hand a ks_gpu on to one another. */
static void enter(const ks_gpu *g)
{
    static _Thread_local int current = -1;
    if (current == g->index) return;
    if (!cudaSetDevice(g->index)) current = g->index;
}

/* The count is not written where there is no driver, and the error is "insufficient driver" then. */
static int count_gpus(int *count)
{
    *count = 0;
    const cudaError_t e = cudaGetDeviceCount(count);
    if (e == cudaErrorInsufficientDriver)
        return ks_error(KS_EMACHINE, "no GPU: there is no CUDA driver, or it is older than CUDA %d.%d", CUDART_VERSION / 1000,
                        CUDART_VERSION % 1000 / 10);
    if (e) return ks_error(KS_EMACHINE, "no GPU: %s (%s)", cudaGetErrorString(e), cudaGetErrorName(e));
    if (*count < 1) return ks_error(KS_EMACHINE, "no GPU: the CUDA driver has none for this process (CUDA_VISIBLE_DEVICES?)");
    return KS_OK;
}

int ks_gpu_probe(void)
{
    int count;
    return count_gpus(&count);
}

/* Waits for a mark, or for the end of a queue where mark is NULL. While somebody watches it polls: at first at once, for what takes
 * microseconds, then with pauses. */
static int wait_for(ks_gpu *g, cudaStream_t queue, cudaEvent_t mark)
{
    const struct timespec pause = {.tv_nsec = 50000};
    const double begin = ks_seconds();
    while (g->watch) {
        const cudaError_t e = mark ? cudaEventQuery(mark) : cudaStreamQuery(queue);
        const double seconds = ks_seconds() - begin;
        if (!e) return KS_OK;
        if (e != cudaErrorNotReady) return failed(e, "what was queued");
        cudaGetLastError(); /* "not ready" is not found again behind the next kernel */
        const int rc = g->watch(g->watch_ctx, seconds);
        if (rc) return rc;
        if (seconds > 1e-3) nanosleep(&pause, NULL);
        else sched_yield();
    }
    const cudaError_t e = mark ? cudaEventSynchronize(mark) : cudaStreamSynchronize(queue);
    return e ? failed(e, "what was queued") : KS_OK;
}

static int wait_all(ks_gpu *g)
{
    int first = KS_OK;
    for (int i = 0; i < KS_GPU_QUEUES; i++) {
        const int rc = g->queues[i] ? wait_for(g, g->queues[i], NULL) : KS_OK;
        if (!first) first = rc;
    }
    return first;
}

void ks_gpu_close(ks_gpu *g)
{
    if (!g) return;
    enter(g);
    wait_all(g);
    for (size_t i = 0; i < g->n_plans; i++) {
        cublasLtMatrixLayoutDestroy(g->plans[i].w);
        cublasLtMatmulDescDestroy(g->plans[i].desc);
    }
    if (g->lt) cublasLtDestroy(g->lt);
    for (int i = 0; i < KS_GPU_MARKS; i++)
        if (g->marks[i]) cudaEventDestroy(g->marks[i]);
    for (int i = 0; i < KS_GPU_QUEUES; i++)
        if (g->queues[i]) cudaStreamDestroy(g->queues[i]);
    free(g->plans);
    free(g->algorithms);
    free(g);
}

int ks_gpu_open(ks_gpu **out, int index)
{
    int rc = KS_OK, count = 0;
    ks_gpu *g = NULL;
    struct cudaDeviceProp prop;
    KS_TRY(count_gpus(&count));
    KS_NEW(g, 1);
    g->index = index % count;
    TRY_CUDA(cudaSetDevice(g->index));
    TRY_CUDA(cudaGetDeviceProperties(&prop, g->index));
    KS_REQUIRE(prop.major >= 8, KS_EMACHINE, "GPU %d, %s, has compute capability %d.%d: 8.0 or later is needed", g->index, prop.name,
               prop.major, prop.minor);
    snprintf(g->name, sizeof g->name, "%s (GPU %d of %d), compute capability %d.%d, CUDA %d.%d, cuBLASLt %zu", prop.name, g->index, count,
             prop.major, prop.minor, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10, cublasLtGetVersion());
    for (size_t i = 0; i < sizeof prop.uuid.bytes; i++) snprintf(g->place + 2 * i, 3, "%02x", (unsigned char)prop.uuid.bytes[i]);
    for (int i = 0; i < KS_GPU_QUEUES; i++) TRY_CUDA(cudaStreamCreateWithFlags(&g->queues[i], cudaStreamNonBlocking));
    for (int i = 0; i < KS_GPU_MARKS; i++) TRY_CUDA(cudaEventCreateWithFlags(&g->marks[i], cudaEventDisableTiming));
    TRY_LT(cublasLtCreate(&g->lt));
done:
    if (rc) ks_gpu_close(g);
    else *out = g;
    return rc;
}

const char *ks_gpu_name(const ks_gpu *g)
{
    return g->name;
}

const char *ks_gpu_place(const ks_gpu *g)
{
    return g->place;
}

int ks_gpu_memory(ks_gpu *g, size_t *free_bytes, size_t *all_bytes)
{
    int rc = KS_OK;
    enter(g);
    TRY_CUDA(cudaMemGetInfo(free_bytes, all_bytes));
done:
    return rc;
}

int ks_gpu_alloc(ks_gpu *g, void **out, size_t bytes)
{
    enter(g);
    const cudaError_t e = cudaMalloc(out, bytes ? bytes : 1);
    if (!e) return KS_OK;
    failed(e, "device memory");
    return ks_error_context(KS_EMACHINE, "%.1f MB", (double)bytes * 1e-6);
}

void ks_gpu_free(ks_gpu *g, void *p)
{
    if (!p) return;
    enter(g);
    if (g->watch) wait_all(g); /* cudaFree waits, and for ever */
    cudaFree(p);
}

int ks_gpu_alloc_host(ks_gpu *g, void **out, size_t bytes)
{
    int rc = KS_OK;
    enter(g);
    TRY_CUDA(cudaMallocHost(out, bytes));
done:
    return rc;
}

void ks_gpu_free_host(ks_gpu *g, void *p)
{
    if (!p) return;
    enter(g);
    wait_all(g);
    cudaFreeHost(p);
}

int ks_gpu_pin(ks_gpu *g, void *host, size_t bytes)
{
    int rc = KS_OK;
    enter(g);
    TRY_CUDA(cudaHostRegister(host, bytes, cudaHostRegisterPortable));
done:
    return rc;
}

void ks_gpu_unpin(ks_gpu *g, void *host)
{
    if (!host) return;
    enter(g);
    wait_all(g);
    cudaHostUnregister(host);
}

/* ---- the queues ---- */

int ks_gpu_zero(ks_gpu *g, void *p, size_t bytes)
{
    int rc = KS_OK;
    enter(g);
    TRY_CUDA(cudaMemsetAsync(p, 0, bytes, g->queues[KS_GPU_MAIN]));
done:
    return rc;
}

int ks_gpu_copy(ks_gpu *g, void *dst, const void *src, size_t bytes)
{
    int rc = KS_OK;
    enter(g);
    TRY_CUDA(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, g->queues[KS_GPU_MAIN]));
done:
    return rc;
}

int ks_gpu_upload(ks_gpu *g, int queue, void *dst, const void *host, size_t bytes)
{
    int rc = KS_OK;
    enter(g);
    TRY_CUDA(cudaMemcpyAsync(dst, host, bytes, cudaMemcpyHostToDevice, g->queues[queue]));
done:
    return rc;
}

int ks_gpu_download(ks_gpu *g, void *host, const void *src, size_t bytes)
{
    int rc = KS_OK;
    enter(g);
    TRY_CUDA(cudaMemcpyAsync(host, src, bytes, cudaMemcpyDeviceToHost, g->queues[KS_GPU_MAIN]));
done:
    return rc;
}

int ks_gpu_wait(ks_gpu *g)
{
    enter(g);
    return wait_all(g);
}

int ks_gpu_mark(ks_gpu *g, int queue, int i)
{
    int rc = KS_OK;
    enter(g);
    TRY_CUDA(cudaEventRecord(g->marks[i], g->queues[queue]));
done:
    return rc;
}

int ks_gpu_reach(ks_gpu *g, int i)
{
    enter(g);
    return wait_for(g, NULL, g->marks[i]);
}

int ks_gpu_after(ks_gpu *g, int queue, int i)
{
    int rc = KS_OK;
    enter(g);
    TRY_CUDA(cudaStreamWaitEvent(g->queues[queue], g->marks[i], 0));
done:
    return rc;
}

void *ks_gpu_stream(ks_gpu *g)
{
    return ks_gpu_queue(g, KS_GPU_MAIN);
}

void *ks_gpu_queue(ks_gpu *g, int queue)
{
    enter(g);
    return g->queues[queue];
}

void ks_gpu_watch(ks_gpu *g, int (*watch)(void *ctx, double seconds), void *ctx)
{
    g->watch = watch;
    g->watch_ctx = ctx;
}

int ks_gpu_launched(ks_gpu *g, int error, const char *what)
{
    (void)g;
    return error ? failed((cudaError_t)error, what) : KS_OK;
}

/* ---- products: cuBLASLt is column-major, so y^T [N, M] = (w^T)^T [N, K] x^T [K, M] ---- */

/* The largest power of two that divides the address and, in bytes, the row. Up to 16, which every array of the engine has, so that the
 * algorithm does not depend on where in memory an array lies. */
static uint32_t alignment_of(const void *p, size_t row_bytes)
{
    uint32_t a = 16;
    while ((uintptr_t)p % a || row_bytes % a) a /= 2;
    return a;
}

/* An algorithm's configuration or capability; 0 where it has none. */
static long long config_of(const cublasLtMatmulAlgo_t *algo, cublasLtMatmulAlgoConfigAttributes_t which)
{
    uint64_t value = 0; /* of 2 or 4 bytes, little-endian */
    size_t written = 0;
    const bool two = which == CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID || which == CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID;
    if (cublasLtMatmulAlgoConfigGetAttribute(algo, which, &value, two ? 2 : 4, &written)) return 0;
    return (int32_t)value;
}

static uint64_t capability_of(const cublasLtMatmulAlgo_t *algo, cublasLtMatmulAlgoCapAttributes_t which, size_t bytes)
{
    uint64_t value = 0;
    size_t written = 0;
    return cublasLtMatmulAlgoCapGetAttribute(algo, which, &value, bytes, &written) ? 0 : value;
}

/* fp32 sums of the operands as they are. COMPUTE_32F promises that; but variables of the environment reach into the library, so what an
 * algorithm says of itself counts. */
static bool exact_operands(const cublasLtMatmulAlgo_t *algo, bool bf16)
{
    const uint64_t flags = capability_of(algo, CUBLASLT_ALGO_CAP_NUMERICAL_IMPL_FLAGS, 8);
    const uint64_t narrow = CUBLASLT_NUMERICAL_IMPL_FLAGS_TENSOR_OP_MASK | CUBLASLT_NUMERICAL_IMPL_FLAGS_INPUT_TF32 |
                            CUBLASLT_NUMERICAL_IMPL_FLAGS_INPUT_16BF | CUBLASLT_NUMERICAL_IMPL_FLAGS_INPUT_16F;
    if (flags & CUBLASLT_NUMERICAL_IMPL_FLAGS_ACCUMULATOR_16F) return false;
    return bf16 || (!(flags & narrow) && !capability_of(algo, CUBLASLT_ALGO_CAP_FLOATING_POINT_EMULATION_SUPPORT, 4));
}

/* Whether an algorithm takes any number of rows, without workspace for any: what joins partial sums of several thread blocks, stream-K
 * above all, needs workspace where the rows call for it. */
static bool takes_any_rows(const ks_gpu *g, const plan *p, const cublasLtMatmulAlgo_t *algo)
{
    static const uint64_t rows[] = {1, 2, 3, 7, 16, 64, 255, 1000, PROBE_ROWS, 65536, 1 << 20};
    const cudaDataType_t type = p->bf16 ? CUDA_R_16BF : CUDA_R_32F;
    bool good = true;
    for (size_t i = 0; i < sizeof rows / sizeof *rows && good; i++) {
        cublasLtMatrixLayout_t x = NULL, y = NULL;
        cublasLtMatmulHeuristicResult_t r = {.state = CUBLAS_STATUS_SUCCESS};
        good = !cublasLtMatrixLayoutCreate(&x, type, p->K, rows[i], (int64_t)p->ldx) &&
               !cublasLtMatrixLayoutCreate(&y, CUDA_R_32F, p->N, rows[i], (int64_t)p->ldy) &&
               !cublasLtMatmulAlgoCheck(g->lt, p->desc, p->w, x, y, y, algo, &r) && !r.workspaceSize;
        if (y) cublasLtMatrixLayoutDestroy(y);
        if (x) cublasLtMatrixLayoutDestroy(x);
    }
    return good;
}

/* One line on a product's algorithm, for ks_gpu_algorithms; numbers are cuBLASLt's. */
static int describe_plan(ks_gpu *g, const plan *p)
{
    int rc = KS_OK;
    char line[320], *text;
    const size_t length = g->algorithms ? strlen(g->algorithms) : 0;
    const uint64_t flags = capability_of(&p->algo, CUBLASLT_ALGO_CAP_NUMERICAL_IMPL_FLAGS, 8);
    const int n =
        snprintf(line, sizeof line,
                 "%s%s [%zu, %zu] ldx %zu ldy %zu: algorithm %lld tile %lld stages %lld inner %lld cluster %lld swizzle %lld "
                 "option %lld numerics 0x%llx",
                 length ? "\n" : "", p->bf16 ? "bf16" : "f32", p->N, p->K, p->ldx, p->ldy, config_of(&p->algo, CUBLASLT_ALGO_CONFIG_ID),
                 config_of(&p->algo, CUBLASLT_ALGO_CONFIG_TILE_ID), config_of(&p->algo, CUBLASLT_ALGO_CONFIG_STAGES_ID),
                 config_of(&p->algo, CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID), config_of(&p->algo, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID),
                 config_of(&p->algo, CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING), config_of(&p->algo, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION),
                 (unsigned long long)flags);
    KS_GET(text, ks_realloc(g->algorithms, length + (size_t)n + 1, 1));
    memcpy(text + length, line, (size_t)n + 1);
    g->algorithms = text;
done:
    return rc;
}

static int make_plan(ks_gpu *g, plan *p)
{
    int rc = KS_OK;
    const cudaDataType_t type = p->bf16 ? CUDA_R_16BF : CUDA_R_32F;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const uint32_t no_reduction = CUBLASLT_REDUCTION_SCHEME_NONE, w_alignment = 256;
    const size_t no_workspace = 0;
    cublasLtMatrixLayout_t w = NULL, x = NULL, y = NULL; /* of a whole row of y: a head in blocks gets the algorithm that it gets as one */
    cublasLtMatmulPreference_t pref = NULL;
    cublasLtMatmulHeuristicResult_t found[32];
    int n = 0, chosen = -1;
    TRY_LT(cublasLtMatmulDescCreate(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    TRY_LT(cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
    TRY_LT(cublasLtMatrixLayoutCreate(&p->w, type, p->K, p->N, (int64_t)p->K));
    TRY_LT(cublasLtMatrixLayoutCreate(&w, type, p->K, p->ldy, (int64_t)p->K));
    TRY_LT(cublasLtMatrixLayoutCreate(&x, type, p->K, PROBE_ROWS, (int64_t)p->ldx));
    TRY_LT(cublasLtMatrixLayoutCreate(&y, CUDA_R_32F, p->ldy, PROBE_ROWS, (int64_t)p->ldy));
    TRY_LT(cublasLtMatmulPreferenceCreate(&pref));
    TRY_LT(cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &no_workspace, sizeof no_workspace));
    TRY_LT(cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &no_reduction, sizeof no_reduction));
    TRY_LT(cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &w_alignment, sizeof w_alignment));
    TRY_LT(cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &p->x_alignment, sizeof p->x_alignment));
    TRY_LT(cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &p->y_alignment, sizeof p->y_alignment));
    TRY_LT(cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &p->y_alignment, sizeof p->y_alignment));
    TRY_LT(cublasLtMatmulAlgoGetHeuristic(g->lt, p->desc, w, x, y, y, pref, (int)(sizeof found / sizeof *found), found, &n));
    for (int i = 0; i < n && chosen < 0; i++) {
        const cublasLtMatmulAlgo_t *algo = &found[i].algo;
        if (found[i].state || found[i].workspaceSize || config_of(algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM) > 1) continue;
        if (config_of(algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME) != CUBLASLT_REDUCTION_SCHEME_NONE) continue;
        if (exact_operands(algo, p->bf16) && takes_any_rows(g, p, algo)) chosen = i;
    }
    KS_REQUIRE(chosen >= 0, KS_EMACHINE,
               "cuBLASLt: of %d algorithms for a product [., %zu] x [%zu, %zu]^T of %s none takes any number of rows without split-K, "
               "workspace and narrower numbers",
               n, p->K, p->N, p->K, p->bf16 ? "bf16" : "f32");
    p->algo = found[chosen].algo;
    KS_TRY(describe_plan(g, p));
done:
    if (pref) cublasLtMatmulPreferenceDestroy(pref);
    if (y) cublasLtMatrixLayoutDestroy(y);
    if (x) cublasLtMatrixLayoutDestroy(x);
    if (w) cublasLtMatrixLayoutDestroy(w);
    if (rc) {
        if (p->w) cublasLtMatrixLayoutDestroy(p->w);
        if (p->desc) cublasLtMatmulDescDestroy(p->desc);
    }
    return rc;
}

static int find_plan(ks_gpu *g, const plan *key, const plan **out)
{
    int rc = KS_OK;
    plan *plans, p = *key;
    for (size_t i = 0; i < g->n_plans; i++) {
        const plan *q = &g->plans[i];
        if (q->N != p.N || q->K != p.K || q->ldy != p.ldy || q->ldx != p.ldx || q->bf16 != p.bf16) continue;
        if (q->y_alignment != p.y_alignment || q->x_alignment != p.x_alignment) continue;
        *out = q;
        return rc;
    }
    KS_GET(plans, ks_realloc(g->plans, g->n_plans + 1, sizeof *plans));
    g->plans = plans;
    KS_TRY(make_plan(g, &p));
    g->plans[g->n_plans] = p;
    *out = &g->plans[g->n_plans++];
done:
    return rc;
}

static int product(ks_gpu *g, float *y, const void *x, const void *w, size_t M, bool accumulate, const plan *key)
{
    int rc = KS_OK;
    const plan *p = NULL;
    const cudaDataType_t type = key->bf16 ? CUDA_R_16BF : CUDA_R_32F;
    const float one = 1, beta = accumulate ? 1 : 0;
    cublasLtMatrixLayout_t x_layout = NULL, y_layout = NULL;
    enter(g);
    KS_TRY(find_plan(g, key, &p));
    TRY_LT(cublasLtMatrixLayoutCreate(&x_layout, type, p->K, M, (int64_t)p->ldx));
    TRY_LT(cublasLtMatrixLayoutCreate(&y_layout, CUDA_R_32F, p->N, M, (int64_t)p->ldy));
    TRY_LT(cublasLtMatmul(g->lt, p->desc, &one, w, p->w, x, x_layout, &beta, y, y_layout, y, y_layout, &p->algo, NULL, 0,
                          g->queues[KS_GPU_MAIN]));
done:
    if (y_layout) cublasLtMatrixLayoutDestroy(y_layout);
    if (x_layout) cublasLtMatrixLayoutDestroy(x_layout);
    return rc;
}

int ks_gpu_product_bf16(ks_gpu *g, float *y, size_t ldy, const void *x, size_t ldx, const void *w, size_t M, size_t N, size_t K,
                        bool accumulate)
{
    const plan key = {.N = N,
                      .K = K,
                      .ldy = ldy,
                      .ldx = ldx,
                      .bf16 = true,
                      .y_alignment = alignment_of(y, 4 * ldy),
                      .x_alignment = alignment_of(x, 2 * ldx)};
    return product(g, y, x, w, M, accumulate, &key);
}

int ks_gpu_product_f32(ks_gpu *g, float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t M, size_t N, size_t K,
                       bool accumulate)
{
    const plan key = {
        .N = N, .K = K, .ldy = ldy, .ldx = ldx, .y_alignment = alignment_of(y, 4 * ldy), .x_alignment = alignment_of(x, 4 * ldx)};
    return product(g, y, x, w, M, accumulate, &key);
}

const char *ks_gpu_algorithms(const ks_gpu *g)
{
    return g->algorithms ? g->algorithms : "";
}
