/* bench_gemm_peak (-DKS_BENCH=ON, where the CUDA toolkit is) - what one GPU can do: bf16 products through cuBLASLt, and copies.
 *
 *   bench_gemm_peak [--seconds S] [MxNxK ...]      one JSON object on stdout
 *
 * peak_tflops: y [n, n] = x w^T, bf16 operands, sums in fp32, the best of n = 4096, 8192, 16384 and of results in bf16 and fp32, each with
 * the fastest algorithm that cuBLASLt offers, kept up for S seconds (default 1), so that clocks fall as far as they do in a sweep.
 * products: x [M, K] w [N, K]^T as kosweep's CUDA backend makes them: results in fp32, no split-K, no workspace. Operands are random, since
 * a GPU is faster on zeros. h2d, d2d: pinned host memory to the device, and a copy on the device (bytes read; as many are written). */
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANDOM = 8388593, ALGORITHMS = 16, WORKSPACE = 64 << 20, MACHINE_FAILED = 4 }; /* RANDOM: a prime, so that no rows are equal */

#define CUDA(call)                                                                                                  \
    do {                                                                                                            \
        const cudaError_t e_ = (call);                                                                              \
        if (e_) {                                                                                                   \
            fprintf(stderr, "bench_gemm_peak: %s: %s (%s)\n", #call, cudaGetErrorString(e_), cudaGetErrorName(e_)); \
            exit(MACHINE_FAILED);                                                                                   \
        }                                                                                                           \
    } while (0)

#define LT(call)                                                                              \
    do {                                                                                      \
        const cublasStatus_t e_ = (call);                                                     \
        if (e_) {                                                                             \
            fprintf(stderr, "bench_gemm_peak: %s: %s\n", #call, cublasLtGetStatusString(e_)); \
            exit(MACHINE_FAILED);                                                             \
        }                                                                                     \
    } while (0)

static cublasLtHandle_t lt;
static cudaStream_t stream;
static cudaEvent_t begin, end;
static void *workspace;
static uint16_t *noise; /* [RANDOM] bf16 on the device */

/* bf16 values of both signs and of sizes 2^-4 to 1. */
static void make_noise(void)
{
    uint16_t *host = malloc(2 * RANDOM);
    uint64_t seed = 1;
    if (!host) exit(MACHINE_FAILED);
    for (size_t i = 0; i < RANDOM; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        const uint32_t r = (uint32_t)(seed >> 33);
        host[i] = (uint16_t)((r & 1) << 15 | (123 + (r >> 1 & 3)) << 7 | (r >> 3 & 127));
    }
    CUDA(cudaMalloc((void **)&noise, 2 * RANDOM));
    CUDA(cudaMemcpy(noise, host, 2 * RANDOM, cudaMemcpyHostToDevice));
    free(host);
}

static void *random_matrix(size_t count)
{
    uint16_t *p;
    CUDA(cudaMalloc((void **)&p, 2 * count));
    for (size_t at = 0; at < count; at += RANDOM)
        CUDA(cudaMemcpy(p + at, noise, 2 * (count - at < RANDOM ? count - at : RANDOM), cudaMemcpyDeviceToDevice));
    return p;
}

typedef struct product {
    size_t M, N, K;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, y;
    void *w_data, *x_data, *y_data;
    size_t workspace;
} product;

/* Column-major: y^T [N, M] = (w^T)^T [N, K] x^T [K, M]. */
static void open_product(product *p, cudaDataType_t result)
{
    const cublasOperation_t transposed = CUBLAS_OP_T;
    LT(cublasLtMatmulDescCreate(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    LT(cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
    LT(cublasLtMatrixLayoutCreate(&p->w, CUDA_R_16BF, p->K, p->N, (int64_t)p->K));
    LT(cublasLtMatrixLayoutCreate(&p->x, CUDA_R_16BF, p->K, p->M, (int64_t)p->K));
    LT(cublasLtMatrixLayoutCreate(&p->y, result, p->N, p->M, (int64_t)p->N));
    p->w_data = random_matrix(p->N * p->K);
    p->x_data = random_matrix(p->M * p->K);
    CUDA(cudaMalloc(&p->y_data, p->M * p->N * (result == CUDA_R_32F ? 4 : 2)));
}

static void close_product(product *p)
{
    cudaFree(p->y_data);
    cudaFree(p->x_data);
    cudaFree(p->w_data);
    cublasLtMatrixLayoutDestroy(p->y);
    cublasLtMatrixLayoutDestroy(p->x);
    cublasLtMatrixLayoutDestroy(p->w);
    cublasLtMatmulDescDestroy(p->desc);
}

/* Seconds of n products after another; negative where the algorithm cannot do it. */
static double run(const product *p, const cublasLtMatmulAlgo_t *algo, int n)
{
    const float one = 1, zero = 0;
    float ms = 0;
    CUDA(cudaEventRecord(begin, stream));
    for (int i = 0; i < n; i++)
        if (cublasLtMatmul(lt, p->desc, &one, p->w_data, p->w, p->x_data, p->x, &zero, p->y_data, p->y, p->y_data, p->y, algo, workspace,
                           p->workspace, stream))
            return -1;
    CUDA(cudaEventRecord(end, stream));
    CUDA(cudaEventSynchronize(end));
    CUDA(cudaEventElapsedTime(&ms, begin, end));
    return ms * 1e-3;
}

/* TFLOP/s of the fastest algorithm over `seconds`; 0 where there is none. free: any algorithm with workspace; else as kosweep's. */
static double measure(size_t M, size_t N, size_t K, cudaDataType_t result, bool free_choice, double seconds)
{
    product p = {.M = M, .N = N, .K = K, .workspace = free_choice ? WORKSPACE : 0};
    cublasLtMatmulPreference_t pref;
    cublasLtMatmulHeuristicResult_t found[ALGORITHMS];
    int n = 0, chosen = -1;
    double best = 0;
    open_product(&p, result);
    LT(cublasLtMatmulPreferenceCreate(&pref));
    LT(cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &p.workspace, sizeof p.workspace));
    if (cublasLtMatmulAlgoGetHeuristic(lt, p.desc, p.w, p.x, p.y, p.y, pref, ALGORITHMS, found, &n)) n = 0;
    for (int i = 0; i < n; i++) {
        int32_t split = 1;
        size_t written = 0;
        if (found[i].state) continue;
        LT(cublasLtMatmulAlgoConfigGetAttribute(&found[i].algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &split, sizeof split, &written));
        if (!free_choice && split > 1) continue;
        if (run(&p, &found[i].algo, 2) < 0) continue;
        const double t = run(&p, &found[i].algo, 4);
        if (t > 0 && (chosen < 0 || t < best)) {
            best = t;
            chosen = i;
        }
    }
    const double work = 2e-12 * (double)M * (double)N * (double)K;
    double spent = 0, done = 0;
    const int batch = chosen < 0 ? 0 : (int)(0.05 / (best / 4)) + 1;
    while (chosen >= 0 && spent < seconds) {
        const double t = run(&p, &found[chosen].algo, batch);
        if (t <= 0) break;
        spent += t;
        done += work * batch;
    }
    cublasLtMatmulPreferenceDestroy(pref);
    close_product(&p);
    return spent > 0 ? done / spent : 0;
}

/* GB/s of copies of `bytes`. */
static double copies(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    enum { TIMES = 8 };
    float ms = 0;
    CUDA(cudaMemcpyAsync(to, from, bytes, kind, stream));
    CUDA(cudaEventRecord(begin, stream));
    for (int i = 0; i < TIMES; i++) CUDA(cudaMemcpyAsync(to, from, bytes, kind, stream));
    CUDA(cudaEventRecord(end, stream));
    CUDA(cudaEventSynchronize(end));
    CUDA(cudaEventElapsedTime(&ms, begin, end));
    return (double)TIMES * (double)bytes / (ms * 1e6);
}

int main(int argc, char **argv)
{
    double seconds = 1;
    int first = 1, count = 0, driver = 0;
    struct cudaDeviceProp prop;
    if (argc > 2 && !strcmp(argv[1], "--seconds")) {
        seconds = atof(argv[2]);
        first = 3;
    }
    for (int i = first; i < argc; i++) {
        size_t m, n, k;
        if (sscanf(argv[i], "%zux%zux%zu", &m, &n, &k) == 3 && m && n && k) continue;
        fprintf(stderr, "usage: bench_gemm_peak [--seconds S] [MxNxK ...]; found \"%s\"\n", argv[i]);
        return 2;
    }
    if (cudaGetDeviceCount(&count) || count < 1) {
        fprintf(stderr, "bench_gemm_peak: no GPU that the CUDA driver would give to this program\n");
        return MACHINE_FAILED;
    }
    CUDA(cudaSetDevice(0));
    CUDA(cudaGetDeviceProperties(&prop, 0));
    CUDA(cudaDriverGetVersion(&driver));
    CUDA(cudaStreamCreate(&stream));
    CUDA(cudaEventCreate(&begin));
    CUDA(cudaEventCreate(&end));
    CUDA(cudaMalloc(&workspace, WORKSPACE));
    LT(cublasLtCreate(&lt));
    make_noise();

    double peak = 0;
    size_t peak_n = 0;
    const char *peak_result = "";
    for (size_t n = 4096; n <= 16384; n *= 2)
        for (int wide = 0; wide < 2; wide++) {
            const double t = measure(n, n, n, wide ? CUDA_R_32F : CUDA_R_16BF, true, seconds);
            if (t <= peak) continue;
            peak = t;
            peak_n = n;
            peak_result = wide ? "fp32" : "bf16";
        }
    enum { COPIED = 256 << 20 };
    void *host, *a, *b;
    CUDA(cudaMallocHost(&host, COPIED));
    memset(host, 1, COPIED);
    CUDA(cudaMalloc(&a, COPIED));
    CUDA(cudaMalloc(&b, COPIED));
    const double h2d = copies(a, host, COPIED, cudaMemcpyHostToDevice), d2d = copies(b, a, COPIED, cudaMemcpyDeviceToDevice);
    cudaFree(b);
    cudaFree(a);
    cudaFreeHost(host);

    printf("{\"device\": \"%s\", \"compute_capability\": \"%d.%d\", \"memory_bytes\": %zu, \"driver_cuda\": \"%d.%d\", \"runtime_cuda\": "
           "\"%d.%d\", "
           "\"cublaslt\": %zu, \"peak_tflops\": %.6g, \"peak_n\": %zu, \"peak_result\": \"%s\", \"h2d_gb_per_s\": %.4g, \"d2d_gb_per_s\": "
           "%.4g, "
           "\"products\": [",
           prop.name, prop.major, prop.minor, prop.totalGlobalMem, driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000,
           CUDART_VERSION % 1000 / 10, cublasLtGetVersion(), peak, peak_n, peak_result, h2d, d2d);
    for (int i = first; i < argc; i++) {
        size_t m = 0, n = 0, k = 0;
        sscanf(argv[i], "%zux%zux%zu", &m, &n, &k);
        printf("%s{\"product\": \"%s\", \"tflops\": %.6g}", i > first ? ", " : "", argv[i], measure(m, n, k, CUDA_R_32F, false, seconds));
    }
    printf("]}\n");
    return 0;
}
