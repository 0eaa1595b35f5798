/* The product against its definition, bit for bit: odd shapes, all types, all instruction sets, 1 to 3 threads, rows alone. */
#include "base/mem.h"
#include "compute/cpu/dispatch.h"
#include "compute/cpu/gemm.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const isas[] = {"generic", "avx2", "avx512"};

static uint64_t seed = 1;

static uint32_t next_random(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}

/* Magnitudes from 2^-20 to 2^20, both signs, now and then a zero or a denormal, so that the order of sums shows in the bits. */
static float random_float(void)
{
    const uint32_t u = next_random();
    if (u % 97 == 0) return 0;
    if (u % 89 == 0) return 0x1p-140f;
    return (u & 1 ? -1.0f : 1.0f) * ldexpf(1.0f + (float)(u >> 9) * 0x1p-23f, (int)(next_random() % 41) - 20);
}

/* The index of the first element whose bits differ, or n. Two NaNs are equal. */
static size_t first_difference(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (memcmp(a + i, b + i, sizeof *a) && !(isnan(a[i]) && isnan(b[i]))) return i;
    }
    return n;
}

static void comparison_sees_one_wrong_element(void **state)
{
    (void)state;
    float a[9] = {1, 2, 3, 0, NAN, 5, 6, 7, 8}, b[9];
    for (size_t wrong = 0; wrong < 9; wrong += 4) {
        memcpy(b, a, sizeof a);
        assert_int_equal(first_difference(a, b, 9), 9);
        b[wrong] = nextafterf(wrong == 4 ? 1 : a[wrong], 100);
        assert_int_equal(first_difference(a, b, 9), wrong);
    }
    memcpy(b, a, sizeof a);
    b[3] = -0.0f;
    assert_int_equal(first_difference(a, b, 9), 3);
}

typedef struct product {
    size_t M, N, K, ldx, ldw, ldy;
    ks_dtype type;
    float *X, *Y0, *want, *want_acc; /* Y0: what Y holds before; want: Y0 with the product in [M, N] */
    char *W;                         /* unaligned */
    char *W_block;
} product;

/* The definition in gemm.h, word by word. */
static void define(product *p)
{
    for (size_t m = 0; m < p->M; m++) {
        for (size_t n = 0; n < p->N; n++) {
            float c = 0;
            for (size_t k0 = 0; k0 < p->K; k0 += 256) {
                float s = 0;
                for (size_t k = k0; k < p->K && k < k0 + 256; k++) {
                    s = fmaf(p->X[m * p->ldx + k], ks_f32_at(p->W, p->type, n * p->ldw + k), s);
                }
                c = k0 == 0 ? s : c + s;
            }
            p->want[m * p->ldy + n] = c;
            p->want_acc[m * p->ldy + n] = p->Y0[m * p->ldy + n] + c;
        }
    }
}

static void product_make(product *p, size_t M, size_t N, size_t K, ks_dtype type, size_t pad, size_t misalign)
{
    *p = (product){.M = M, .N = N, .K = K, .ldx = K + pad, .ldw = K + 2 * pad, .ldy = N + pad, .type = type};
    p->X = malloc(M * p->ldx * 4 + 1);
    p->Y0 = malloc(M * p->ldy * 4);
    p->want = malloc(M * p->ldy * 4);
    p->want_acc = malloc(M * p->ldy * 4);
    /* Exactly as large as needed, so that the sanitizer sees a read beyond the last element. */
    const size_t w_elements = (N - 1) * p->ldw + K;
    p->W_block = malloc(w_elements * ks_dtype_size(type) + misalign);
    assert_true(p->X && p->Y0 && p->want && p->want_acc && p->W_block);
    p->W = p->W_block + misalign;
    for (size_t i = 0; i < M * p->ldx; i++) p->X[i] = random_float();
    for (size_t i = 0; i < M * p->ldy; i++) p->Y0[i] = random_float();
    for (size_t i = 0; i < w_elements; i++) {
        const float f = random_float();
        uint32_t bits;
        memcpy(&bits, &f, 4);
        uint16_t half = (uint16_t)(bits >> 16);
        if (type == KS_F16 && (half & 0x7c00) == 0x7c00) half ^= 0x4000; /* finite */
        if (type == KS_F32) memcpy(p->W + i * 4, &f, 4);
        else memcpy(p->W + i * 2, &half, 2);
    }
    memcpy(p->want, p->Y0, M * p->ldy * 4);
    memcpy(p->want_acc, p->Y0, M * p->ldy * 4);
    define(p);
}

static void product_free(product *p)
{
    free(p->X);
    free(p->Y0);
    free(p->want);
    free(p->want_acc);
    free(p->W_block);
}

static void product_check(const product *p, ks_gemm *g, const char *what)
{
    float *Y = malloc(p->M * p->ldy * 4);
    assert_non_null(Y);
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        memcpy(Y, p->Y0, p->M * p->ldy * 4);
        ks_gemm_run(g, Y, p->ldy, p->X, p->ldx, p->W, p->type, p->ldw, p->M, p->N, p->K, accumulate);
        const size_t at = first_difference(Y, accumulate ? p->want_acc : p->want, p->M * p->ldy);
        if (at < p->M * p->ldy) {
            fail_msg("%s %s M %zu N %zu K %zu accumulate %d: row %zu column %zu: %a expected, %a found", what, ks_dtype_name(p->type), p->M,
                     p->N, p->K, accumulate, at / p->ldy, at % p->ldy, (accumulate ? p->want_acc : p->want)[at], Y[at]);
        }
    }
    /* Two rows in the middle alone, and the first columns alone. */
    const size_t m0 = p->M / 3, m1 = m0 + 2 < p->M ? m0 + 2 : p->M, n1 = (p->N + 1) / 2;
    memcpy(Y, p->want, p->M * p->ldy * 4);
    for (size_t m = m0; m < m1; m++) memset(Y + m * p->ldy, 0x55, n1 * 4);
    ks_gemm_run(g, Y + m0 * p->ldy, p->ldy, p->X + m0 * p->ldx, p->ldx, p->W, p->type, p->ldw, m1 - m0, n1, p->K, false);
    assert_int_equal(first_difference(Y, p->want, p->M * p->ldy), p->M * p->ldy);
    free(Y);
}

/* Runs check for every instruction set of this processor and 1 to 3 threads. */
static void on_all(void (*check)(ks_gemm *g, const char *what, void *arg), void *arg)
{
    for (int i = 0; i < 3; i++) {
        const ks_cpu_ops *ops;
        if (ks_cpu_ops_find(&ops, isas[i])) {
            print_message("not on this processor: %s\n", isas[i]);
            continue;
        }
        assert_int_equal(setenv("KS_CPU_ISA", isas[i], 1), 0);
        for (int threads = 1; threads <= 3; threads++) {
            ks_pool *pool;
            ks_gemm *g;
            char what[40];
            snprintf(what, sizeof what, "%s, %d threads,", isas[i], threads);
            assert_int_equal(ks_pool_new(&pool, threads), 0);
            assert_int_equal(ks_gemm_new(&g, pool, NULL), 0);
            check(g, what, arg);
            ks_gemm_free(g);
            ks_pool_free(pool);
        }
    }
    unsetenv("KS_CPU_ISA");
}

static void check_product(ks_gemm *g, const char *what, void *arg)
{
    product_check(arg, g, what);
}

static void equals_definition(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {/* M, N, K */
                                       {1, 4, 8},      {1, 33, 17},    {2, 31, 64},  {3, 64, 256}, {5, 96, 257},  {7, 20, 300},
                                       {12, 32, 255},  {13, 65, 600},  {24, 1, 40},  {25, 7, 512}, {37, 129, 96}, {61, 48, 768},
                                       {1, 300, 1100}, {130, 36, 290}, {200, 5, 33}, {1, 1, 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (int type = KS_BF16; type <= KS_F32; type++) {
            product p;
            product_make(&p, shapes[i][0], shapes[i][1], shapes[i][2], (ks_dtype)type, i % 3 * 5, (i * 7 + (size_t)type) % 4);
            on_all(check_product, &p);
            product_free(&p);
        }
    }
}

/* More rows than one chunk of packed X holds, by row count and by K. */
static void equals_definition_in_chunks(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {{1100, 9, 20}, {30, 8, 150000 / 30}, {5, 3, 1 << 20}};
    for (size_t i = 0; i < 3; i++) {
        product p;
        product_make(&p, shapes[i][0], shapes[i][1], shapes[i][2], KS_BF16, 1, 0);
        ks_pool *pool;
        ks_gemm *g;
        assert_int_equal(ks_pool_new(&pool, 2), 0);
        assert_int_equal(ks_gemm_new(&g, pool, NULL), 0);
        product_check(&p, g, "chunks");
        ks_gemm_free(g);
        ks_pool_free(pool);
        product_free(&p);
    }
}

static void check_not_finite(ks_gemm *g, const char *what, void *arg)
{
    (void)what;
    (void)arg;
    enum { M = 4, N = 40, K = 300 };
    static float X[M * K], Y[M * N];
    static uint16_t W[N * K];
    for (int i = 0; i < M * K; i++) X[i] = 1;
    for (int i = 0; i < N * K; i++) W[i] = 0x3f80; /* bf16 1 */
    X[1 * K + 290] = NAN;
    X[2 * K + 5] = INFINITY;
    W[7 * K + 270] = 0x7f80;  /* infinity */
    W[9 * K + 5] = 0;         /* times X's infinity: NaN */
    W[39 * K + 299] = 0x7fc1; /* NaN */
    ks_gemm_run(g, Y, N, X, K, W, KS_BF16, K, M, N, K, false);
    for (int m = 0; m < M; m++) {
        for (int n = 0; n < N; n++) {
            const float y = Y[m * N + n];
            if (m == 1 || n == 39 || (m == 2 && n == 9)) assert_true(isnan(y));
            else if (m == 2 || n == 7) assert_true(isinf(y) && y > 0);
            else assert_true(y == K - (n == 9));
        }
    }
}

static void infinities_and_nans_spread(void **state)
{
    (void)state;
    on_all(check_not_finite, NULL);
}

/* Every f16 and bf16 value through the packing: X is the unit matrix. Infinities and NaN, whose products with 0 are NaN, have rows of
 * their own, read at one k only. */
static void check_halves(ks_gemm *g, const char *what, void *arg)
{
    (void)what;
    (void)arg;
    enum { N = 1024, K = 64 };
    static uint16_t W[N * K];
    static float eye[K * K], Y[K * N];
    for (int k = 0; k < K; k++) eye[k * K + k] = 1;
    for (int i = 0; i < N * K; i++) W[i] = (uint16_t)i;
    for (int type = KS_BF16; type <= KS_F16; type++) {
        ks_gemm_run(g, Y, N, eye, K, W, (ks_dtype)type, K, K, N, K, false);
        for (int n = 0; n < N; n++) {
            bool finite = true;
            for (int k = 0; k < K; k++) finite &= isfinite(ks_f32_at(W, (ks_dtype)type, (size_t)(n * K + k)));
            for (int k = 0; k < K; k++) {
                const float want = ks_f32_at(W, (ks_dtype)type, (size_t)(n * K + k)) + 0.0f; /* -0 + 0 = +0 */
                if (finite) assert_true(first_difference(&Y[k * N + n], &want, 1) == 1);
            }
        }
        for (int exponents = 0; exponents < 2; exponents++) { /* K = 1: the scalar part, infinities and NaN too */
            ks_gemm_run(g, Y, K, eye, K, W + exponents * 32768, (ks_dtype)type, 1, 1, 32768, 1, false);
            for (int n = 0; n < 32768; n++) {
                const float want = ks_f32_at(W, (ks_dtype)type, (size_t)(exponents * 32768 + n)) + 0.0f;
                assert_true(first_difference(&Y[n], &want, 1) == 1);
            }
        }
    }
}

static void all_half_values_convert(void **state)
{
    (void)state;
    on_all(check_halves, NULL);
}

static void unknown_instruction_set_is_refused(void **state)
{
    (void)state;
    const ks_cpu_ops *ops = NULL;
    assert_int_equal(ks_cpu_ops_find(&ops, "sse9"), KS_EUSAGE);
    assert_non_null(strstr(ks_error_text(), "sse9"));
    setenv("KS_CPU_ISA", "avx51", 1);
    assert_int_equal(ks_cpu_ops_find(&ops, NULL), KS_EUSAGE);
    assert_non_null(strstr(ks_error_text(), "KS_CPU_ISA"));
    assert_null(ops);
    unsetenv("KS_CPU_ISA");
    assert_int_equal(ks_cpu_ops_find(&ops, NULL), KS_OK);
    assert_ptr_equal(ops, ks_cpu_ops_best());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comparison_sees_one_wrong_element), cmocka_unit_test(equals_definition),
        cmocka_unit_test(equals_definition_in_chunks),       cmocka_unit_test(infinities_and_nans_spread),
        cmocka_unit_test(all_half_values_convert),           cmocka_unit_test(unknown_instruction_set_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
