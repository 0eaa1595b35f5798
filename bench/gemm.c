/* bench_gemm (-DKS_BENCH=ON) - kosweep's matrix product beside OpenBLAS, BLIS and oneDNN, one thread, in one run.
 *
 *   bench_gemm [--quick] [--ours] [--rows M] [SHAPES]    SHAPES: smollm2, 7b; default both; tables are Markdown
 *
 * Times are CPU time of the thread, the best of several repetitions. Ours reads W as bf16 and includes its conversion and packing; the
 * libraries get W in fp32, converted beforehand. A library that is not installed is left out. */
#include "base/error.h"
#include "base/mem.h"
#include "compute/cpu/dispatch.h"
#include "compute/cpu/gemm.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* GFLOP/s of fused multiply-adds that touch nothing but registers. */
#if defined(__x86_64__)
typedef float v16 __attribute__((vector_size(64)));
typedef float v8 __attribute__((vector_size(32)));

__attribute__((target("avx512f"))) static void fma_loop_512(long n)
{
    v16 a = 0.999f - (v16){0}, c[12];
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++) c[i] = a;
    for (long k = 0; k < n; k++) {
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) __asm__ volatile("vfmadd231ps %1, %1, %0" : "+v"(c[i]) : "v"(a));
    }
}

__attribute__((target("avx2,fma"))) static void fma_loop_256(long n)
{
    v8 a = 0.999f - (v8){0}, c[12];
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++) c[i] = a;
    for (long k = 0; k < n; k++) {
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) __asm__ volatile("vfmadd231ps %1, %1, %0" : "+v"(c[i]) : "v"(a));
    }
}
#endif

static double peak(const char *isa)
{
    double best = 1e30;
    const long n = 2000000;
    double lanes = 8;
#if defined(__x86_64__)
    for (int rep = 0; rep < 10; rep++) {
        const double t = cpu_seconds();
        if (!strcmp(isa, "avx512")) lanes = 16, fma_loop_512(n);
        else fma_loop_256(n);
        const double d = cpu_seconds() - t;
        if (d < best) best = d;
    }
#endif
    return (double)n * 12 * lanes * 2 / best * 1e-9;
}

typedef void (*cblas_sgemm_fn)(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
typedef int (*dnnl_sgemm_fn)(char, char, int64_t, int64_t, int64_t, float, const float *, int64_t, const float *, int64_t, float, float *,
                             int64_t);

enum { OURS, OPENBLAS, BLIS, ONEDNN, N_LIBRARIES };
static const char *const names[] = {"kosweep", "OpenBLAS", "BLIS", "oneDNN"};
static void *functions[N_LIBRARIES];
static ks_gemm *gemm;

static void *load(const char *const *files, const char *symbol)
{
    for (; *files; files++) {
        void *lib = dlopen(*files, RTLD_NOW | RTLD_LOCAL);
        void *f = lib ? dlsym(lib, symbol) : NULL;
        if (f) return f;
    }
    return NULL;
}

typedef struct problem {
    size_t M, N, K;
    float *X, *W, *Y; /* [M, K], [N, K], [M, N] */
    uint16_t *W16;    /* the same W */
} problem;

static void multiply(int library, const problem *p, size_t M, float *Y)
{
    const int m = (int)M, n = (int)p->N, k = (int)p->K;
    if (library == OURS) {
        ks_gemm_run(gemm, Y, p->N, p->X, p->K, p->W16, KS_BF16, p->K, M, p->N, p->K, false);
    } else if (library == ONEDNN) {
        ((dnnl_sgemm_fn)functions[library])('N', 'T', m, n, k, 1, p->X, k, p->W, k, 0, Y, n);
    } else {
        ((cblas_sgemm_fn)functions[library])(101, 111, 112, m, n, k, 1, p->X, k, p->W, k, 0, Y, n);
    }
}

static double gflops(int library, const problem *p, double seconds)
{
    const double work = 2 * (double)p->M * (double)p->N * (double)p->K;
    const int inner = work < 2e8 ? (int)(2e8 / work) + 1 : 1;
    double best = 1e30, spent = 0;
    for (int rep = 0; rep < 2 || spent < seconds; rep++) {
        const double t = cpu_seconds();
        for (int i = 0; i < inner; i++) multiply(library, p, p->M, p->Y);
        const double d = cpu_seconds() - t;
        spent += d;
        if (d < best) best = d;
        if (d > 4) break;
    }
    return work * inner / best * 1e-9;
}

static uint64_t seed = 1;

static float random_float(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(seed >> 32) * 0x1p-31f;
}

/* Share of elements of row 0 that differ between M = 1 and M = 64. */
static double changed_bits(int library, const problem *p)
{
    size_t n = 0;
    float *alone = ks_big_alloc(p->N * 4);
    if (!alone) exit(KS_EMACHINE);
    multiply(library, p, 1, alone);
    multiply(library, p, 64, p->Y);
    for (size_t i = 0; i < p->N; i++) n += memcmp(alone + i, p->Y + i, 4) != 0;
    ks_big_free(alone);
    return (double)n / (double)p->N;
}

static const struct shape {
    const char *set, *what;
    size_t K, N;
} shapes[] = {
    {"smollm2", "q, o", 576, 576},  {"smollm2", "k, v", 576, 192},   {"smollm2", "gate + up", 576, 3072},
    {"smollm2", "down", 1536, 576}, {"smollm2", "head", 576, 49152}, {"7b", "q, o", 3584, 3584},
    {"7b", "k, v", 3584, 512},      {"7b", "gate", 3584, 18944},     {"7b", "down", 18944, 3584},
};

int main(int argc, char **argv)
{
    const char *set = NULL;
    bool quick = false, only_ours = false;
    size_t only_rows = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--quick")) quick = true;
        else if (!strcmp(argv[i], "--ours")) only_ours = true;
        else if (!strcmp(argv[i], "--rows") && i + 1 < argc) only_rows = (size_t)atol(argv[++i]);
        else set = argv[i];
    }
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    setenv("BLIS_NUM_THREADS", "1", 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    functions[OURS] = (void *)1;
    if (!only_ours) {
        functions[OPENBLAS] = load((const char *const[]){"libopenblas.so.0", "libopenblas.so", NULL}, "cblas_sgemm");
        functions[BLIS] = load((const char *const[]){"libblis.so.4", "libblis.so", NULL}, "cblas_sgemm");
        functions[ONEDNN] = load((const char *const[]){"libdnnl.so.3", "libdnnl.so.2", "libdnnl.so", NULL}, "dnnl_sgemm");
    }
    ks_pool *pool;
    const ks_cpu_ops *ops;
    if (ks_cpu_ops_find(&ops, NULL) || ks_pool_new(&pool, 1) || ks_gemm_new(&gemm, pool, NULL)) {
        fprintf(stderr, "bench_gemm: %s\n", ks_error_text());
        return KS_EMACHINE;
    }
    const double top = peak(ops->name);
    printf("Instruction set %s, peak of one core %.0f GFLOP/s (register-only FMA).\n", ops->name, top);
    const char *(*corename)(void) = (const char *(*)(void))load((const char *const[]){"libopenblas.so.0", NULL}, "openblas_get_corename");
    if (functions[OPENBLAS] && corename) printf("OpenBLAS takes its kernels for %s.\n", corename());

    printf("\nGFLOP/s, in brackets the share of the peak.\n\n| product | K | N | M |");
    for (int l = 0; l < N_LIBRARIES; l++) {
        if (functions[l]) printf(" %s |", names[l]);
    }
    printf("\n|---|---|---|---|");
    for (int l = 0; l < N_LIBRARIES; l++) {
        if (functions[l]) printf("---|");
    }
    printf("\n");
    double changed[sizeof shapes / sizeof *shapes][N_LIBRARIES];
    static const size_t rows[] = {1, 16, 64, 512, 8192};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        if (set && strcmp(set, shapes[s].set)) continue;
        problem p = {.N = shapes[s].N, .K = shapes[s].K};
        size_t max_rows = quick ? 512 : 8192;
        if (only_rows) max_rows = only_rows > 64 ? only_rows : 64;
        p.X = ks_big_alloc(max_rows * p.K * 4);
        p.W = ks_big_alloc(p.N * p.K * 4);
        p.W16 = ks_big_alloc(p.N * p.K * 2);
        p.Y = ks_big_alloc(max_rows * p.N * 4);
        if (!p.X || !p.W || !p.W16 || !p.Y) {
            fprintf(stderr, "bench_gemm: %s\n", ks_error_text());
            return KS_EMACHINE;
        }
        memset(p.Y, 0, max_rows * p.N * 4); /* first touch is not part of a product */
        for (size_t i = 0; i < max_rows * p.K; i++) p.X[i] = random_float();
        for (size_t i = 0; i < p.N * p.K; i++) {
            const float f = random_float();
            uint32_t bits;
            memcpy(&bits, &f, 4);
            p.W16[i] = (uint16_t)(bits >> 16);
            p.W[i] = ks_f32_of_bf16(p.W16[i]);
        }
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            p.M = rows[r];
            if (only_rows && r) break;
            if (only_rows) p.M = only_rows;
            if (p.M > max_rows) continue;
            printf("| %s %s | %zu | %zu | %zu |", shapes[s].set, shapes[s].what, p.K, p.N, p.M);
            for (int l = 0; l < N_LIBRARIES; l++) {
                if (!functions[l]) continue;
                const double g = gflops(l, &p, quick ? 0.05 : 0.3);
                printf(" %.0f (%.0f %%) |", g, 100 * g / top);
            }
            printf("\n");
            fflush(stdout);
        }
        for (int l = 0; l < N_LIBRARIES; l++) changed[s][l] = functions[l] ? changed_bits(l, &p) : 0;
        ks_big_free(p.X);
        ks_big_free(p.W);
        ks_big_free(p.W16);
        ks_big_free(p.Y);
    }
    printf("\nShare of a row's elements whose bits differ between M = 1 and M = 64.\n\n| product |");
    for (int l = 0; l < N_LIBRARIES; l++) {
        if (functions[l]) printf(" %s |", names[l]);
    }
    printf("\n|---|");
    for (int l = 0; l < N_LIBRARIES; l++) {
        if (functions[l]) printf("---|");
    }
    printf("\n");
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        if (set && strcmp(set, shapes[s].set)) continue;
        printf("| %s %s |", shapes[s].set, shapes[s].what);
        for (int l = 0; l < N_LIBRARIES; l++) {
            if (functions[l]) printf(" %.0f %% |", 100 * changed[s][l]);
        }
        printf("\n");
    }
    ks_gemm_free(gemm);
    ks_pool_free(pool);
    return 0;
}
