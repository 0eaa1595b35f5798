/* The products of gpu.h: a row's bits do not depend on how many rows there are, on its place among them, on where in memory they lie, nor
 * on whether a head comes whole or in blocks; and the sums are those of the operands as they are. For every matrix of the models of
 * shapes.h and of tests/goldens: on a GPU at their sizes, on the check GPU, which computes as the CPU does, at smaller ones. */
#include "base/dtype.h"
#include "base/error.h"
#include "check/device.h"
#include "check/shapes.h"
#include "check/tolerances.h"
#include "support/numbers.h"
#include "support/sweeps.h"

#include <math.h>
#include <stdio.h>

#ifdef KS_CHECK_GPU
enum { SMALLER_N = 64, SMALLER_K = 16, ROWS = 150, BLOCK = 100003 };
#else
enum { SMALLER_N = 1, SMALLER_K = 1, ROWS = 6000, BLOCK = 1000003 };
#endif

enum { SIZES = sizeof shapes / sizeof *shapes, MATRICES = 6 * (SIZES + MODELS) };

/* A matrix [N, K]; ldy > N: a block of a head. */
typedef struct matrix {
    size_t N, K, ldy, first;
} matrix;

static size_t smaller(size_t n, size_t by)
{
    const size_t m = n / by;
    return by > 1 && n > 256 ? m + (m < 8 ? 8 : 0) : n;
}

/* The matrices of a model, those that are not among the n of `all` yet; returns their number with these. */
static size_t matrices_of(matrix *all, size_t n, size_t D, size_t H, size_t G, size_t E, size_t F, size_t V)
{
    const size_t of[6][2] = {{H * E, D}, {G * E, D}, {D, H * E}, {F, D}, {D, F}, {V, D}};
    for (size_t i = 0; i < 6; i++) {
        const matrix m = {smaller(of[i][0], SMALLER_N), smaller(of[i][1], SMALLER_K), smaller(of[i][0], SMALLER_N), 0};
        bool known = false;
        for (size_t k = 0; k < n; k++) known |= all[k].N == m.N && all[k].K == m.K;
        if (!known) all[n++] = m;
    }
    return n;
}

static size_t all_matrices(matrix *all)
{
    size_t n = 0;
    for (size_t i = 0; i < SIZES; i++)
        n = matrices_of(all, n, shapes[i].D, shapes[i].H, shapes[i].G, shapes[i].E, shapes[i].F, shapes[i].V);
    for (size_t i = 0; i < MODELS; i++) {
        char path[200];
        ks_arch *a;
        snprintf(path, sizeof path, "goldens/models/%s", models[i]);
        assert_int_equal(ks_arch_read(&a, path), 0);
        n = matrices_of(all, n, (size_t)a->D, (size_t)a->H, (size_t)a->G, (size_t)a->E, (size_t)a->F, (size_t)a->V);
        ks_arch_free(a);
    }
    return n;
}

/* ---- operands: BLOCK random numbers, over and over ---- */

static float numbers[BLOCK];    /* as the device has them */
static uint16_t bf16_of[BLOCK]; /* the same, cut to bf16 */

static void make_numbers(bool bf16)
{
    rng r = {13};
    for (size_t i = 0; i < BLOCK; i++) {
        uint32_t bits;
        numbers[i] = (float)rng_normal(&r);
        memcpy(&bits, &numbers[i], sizeof bits);
        bf16_of[i] = (uint16_t)(bits >> 16);
        if (bf16) numbers[i] = ks_f32_of_bf16(bf16_of[i]);
    }
}

/* Element i of an operand is numbers[(i + shift) % BLOCK]. */
static void *operand(size_t n, size_t shift, bool bf16)
{
    const size_t size = bf16 ? sizeof *bf16_of : sizeof *numbers;
    const char *from = bf16 ? (const char *)bf16_of : (const char *)numbers;
    char *p = device_new(NULL, n * size);
    for (size_t at = 0, step, in = shift; at < n; at += step, in = 0) {
        step = n - at < BLOCK - in ? n - at : BLOCK - in;
        device_set(p + at * size, from + in * size, step * size);
    }
    return p;
}
enum { SHIFT_X = 7, SHIFT_W = 4321 };

/* ---- products ---- */

typedef struct problem {
    matrix m;
    bool bf16;
    size_t rows, ldx; /* ldx: of an operand of one to three parts, of which the last one is multiplied */
    char *x, *w;
    float *once, *twice; /* [rows, N] the product of all rows; that, and once more on top */
} problem;

/* y = or += rows first .. first + M - 1 of x times w's rows w0 .. w0 + N - 1. */
static void multiply(const problem *p, float *y, size_t ldy, size_t first, size_t M, size_t w0, size_t N, bool accumulate)
{
    const size_t K = p->m.K, size = p->bf16 ? 2 : 4;
    const void *x = p->x + (first * p->ldx + p->ldx - K) * size, *w = p->w + w0 * K * size;
    const int rc = p->bf16 ? ks_gpu_product_bf16(device_gpu(), y, ldy, x, p->ldx, w, M, N, K, accumulate)
                           : ks_gpu_product_f32(device_gpu(), y, ldy, x, p->ldx, w, M, N, K, accumulate);
    if (rc) fail_msg("[%zu, %zu] of %s, %zu rows: %s", N, K, p->bf16 ? "bf16" : "f32", M, ks_error_text());
}

/* n rows, of which not more than LOOK at both ends are looked at. */
static void assert_rows(const problem *p, const float *got, const float *want, size_t n, size_t M, size_t place, const char *what)
{
    enum { LOOK = 128 };
    const size_t N = p->m.ldy;
    for (size_t at = 0; at < n; at += LOOK) {
        if (at >= LOOK && n - at > LOOK) continue;
        const size_t rows = n - at < LOOK ? n - at : LOOK, bytes = rows * N * sizeof *got;
        float *a = malloc(bytes), *b = malloc(bytes);
        assert_true(a && b);
        device_get(a, got + at * N, bytes);
        device_get(b, want + at * N, bytes);
        for (size_t i = 0; i < rows * N && !same_bits(a, b, bytes); i++) {
            if (!same_bits(a + i, b + i, sizeof *a))
                fail_msg("[%zu, %zu] of %s, %s: row %zu of %zu from %zu on, column %zu: %.9g, among %zu rows %.9g", p->m.N, p->m.K,
                         p->bf16 ? "bf16" : "f32", what, at + i / N, M, place, i % N, (double)a[i], p->rows, (double)b[i]);
        }
        free(a), free(b);
    }
}

/* Some elements against sums in long double, relative to the sum of |x w|. */
static void check_sums(const problem *p, worst *w)
{
    const size_t N = p->m.N, K = p->m.K;
    for (size_t i = 0; i < 24; i++) {
        const size_t row = i * 7919 % p->rows, column = i * 104729 % N;
        float got;
        long double sum = 0, all = 0;
        for (size_t k = 0; k < K; k++) {
            const long double t = (long double)numbers[(row * p->ldx + p->ldx - K + k + SHIFT_X) % BLOCK] *
                                  (long double)numbers[(column * K + k + SHIFT_W) % BLOCK];
            sum += t;
            all += fabsl(t);
        }
        device_get(&got, p->once + row * N + column, sizeof got);
        worst_of(w, isfinite(got) ? (double)(fabsl((long double)got - sum) / all) : (double)INFINITY, "[%zu, %zu] of %s", N, K,
                 p->bf16 ? "bf16" : "f32");
    }
}

static void check_matrix(problem *p, worst *error)
{
    static const size_t counts[] = {1, 2, 7, 16, 64, 255, 4096};
    const size_t N = p->m.N;
    p->once = device_new(NULL, p->rows * N * sizeof(float));
    p->twice = device_new(NULL, p->rows * N * sizeof(float));
    multiply(p, p->once, N, 0, p->rows, 0, N, false);
    assert_int_equal(ks_gpu_copy(device_gpu(), p->twice, p->once, p->rows * N * sizeof(float)), 0);
    multiply(p, p->twice, N, 0, p->rows, 0, N, true);
    check_sums(p, error);
    for (size_t c = 0; c < sizeof counts / sizeof *counts && counts[c] <= p->rows; c++) {
        const size_t M = counts[c], places[] = {0, (p->rows - M) / 2, p->rows - M};
        float *y = device_new(NULL, (M + 1) * N * sizeof *y);
        for (size_t i = 0; i < 3; i++) {
            float *z = y + i % 2 * N; /* results begin at a row, too */
            multiply(p, z, N, places[i], M, 0, N, false);
            assert_rows(p, z, p->once + places[i] * N, M, M, places[i], "a product");
            multiply(p, z, N, places[i], M, 0, N, true);
            assert_rows(p, z, p->twice + places[i] * N, M, M, places[i], "a product on top of another");
        }
    }
}

/* As a streamed head comes: blocks of rows of w, each into its columns. */
static void check_blocks(problem *p)
{
    const size_t N = p->m.N, block = N < 192 ? N : N / 192 * 64, M = p->rows < 16 ? p->rows : 16;
    float *y = device_new(NULL, M * N * sizeof *y);
    for (size_t first = 0; first < N; first += block)
        multiply(p, y + first, N, p->rows - M, M, first, N - first < block ? N - first : block, false);
    assert_rows(p, y, p->once + (p->rows - M) * N, M, M, p->rows - M, "a product in blocks of columns");
}

static void every_matrix_has_one_algorithm(bool bf16, size_t parts)
{
    matrix all[MATRICES];
    worst error = {0};
    size_t free_bytes, all_bytes, done = 0;
    const size_t n = all_matrices(all);
    make_numbers(bf16);
    for (size_t i = 0; i < n; i++) {
        problem p = {.m = all[i], .bf16 = bf16, .rows = ROWS, .ldx = parts * all[i].K};
        const size_t size = bf16 ? 2 : 4, N = p.m.N, K = p.m.K, most = ((size_t)1 << 28) / (N > K ? N : K);
        if (p.rows > most) p.rows = most;
        assert_int_equal(ks_gpu_memory(device_gpu(), &free_bytes, &all_bytes), 0);
        const double bytes = ((double)(N * K) + (double)(p.rows * p.ldx)) * (double)size + 4.0 * (double)(p.rows * N * sizeof(float));
        if (bytes > 0.9 * (double)free_bytes) {
            printf("[%zu, %zu] of %s is left out: %.1f GB, and %.1f GB are free\n", N, K, bf16 ? "bf16" : "f32", bytes * 1e-9,
                   (double)free_bytes * 1e-9);
            continue;
        }
        p.x = operand(p.rows * p.ldx, SHIFT_X, bf16);
        p.w = operand(N * K, SHIFT_W, bf16);
        check_matrix(&p, &error);
        check_blocks(&p);
        device_end();
        done++;
    }
    printf("%zu of %zu matrices\n", done, n);
    assert_true(done > n / 2);
    assert_below(bf16 ? "products of bf16" : "products of f32", &error, bf16 ? KS_TOLERANCE_PRODUCT_BF16 : KS_TOLERANCE_PRODUCT);
}

static void test_bf16(void **state)
{
    (void)state;
    for (size_t parts = 1; parts <= 3; parts++) every_matrix_has_one_algorithm(true, parts);
}

static void test_f32(void **state)
{
    (void)state;
    every_matrix_has_one_algorithm(false, 1);
    const char *lines = ks_gpu_algorithms(device_gpu());
    assert_true(*lines && lines[strlen(lines) - 1] != '\n');
    printf("%s\n", lines);
}

/* ---- what is lost against the product in double: bench/product_error.py's table, here as the GPU has it ---- */

static uint16_t bf16_nearest(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* 0: normal; 1: heavy tails, a few channels a hundred times the others; 2: effects of 1e-12. */
static float *rows_of_kind(rng *r, int kind, size_t rows, size_t K)
{
    float *x = host_own(rng_floats(r, rows * K, kind == 2 ? 1e-12 : 1));
    size_t channels[4];
    for (int c = 0; c < 4; c++) channels[c] = rng_below(r, K);
    for (size_t i = 0; i < rows * K && kind; i++) x[i] *= (float)exp(rng_normal(r));
    for (size_t i = 0; i < 4 * rows && kind == 1; i++) x[i / 4 * K + channels[i % 4]] *= 100;
    return x;
}

static void test_error_of_parts(void **state)
{
    (void)state;
    enum { R = 32, N = 32, WAYS = 4 };
    static const char *const kinds[] = {"normal", "heavy tails", "effects of 1e-12"};
    static const size_t lengths[] = {576, 2048, 3584, 8192, 18944};
    static const double limits[WAYS] = {KS_TOLERANCE_PARTS, KS_TOLERANCE_PARTS, KS_TOLERANCE_ONE_PART, KS_TOLERANCE_F32};
    rng r = {17};
    printf("| K | rows | 3 parts | 2 parts | 1 part | fp32 |\n|---|---|---|---|---|---|\n");
    for (size_t c = 0; c < 15; c++) {
        const size_t K = lengths[c / 3];
        float *x = rows_of_kind(&r, (int)(c % 3), R, K), *w = host_own(rng_floats(&r, N * K, 0.02)), *rest = host_new(x, R * K * sizeof *x);
        uint16_t *short_w = host_new(NULL, N * K * sizeof *short_w), *part = host_new(NULL, R * K * sizeof *part);
        void *d_part[3], *d_w, *d_short;
        for (size_t i = 0; i < N * K; i++) w[i] = ks_f32_of_bf16(short_w[i] = bf16_nearest(w[i]));
        for (int p = 0; p < 3; p++) {
            for (size_t i = 0; i < R * K; i++) rest[i] -= ks_f32_of_bf16(part[i] = bf16_nearest(rest[i]));
            d_part[p] = device_new(part, R * K * sizeof *part);
        }
        d_short = device_new(short_w, N * K * sizeof *short_w);
        d_w = device_new(w, N * K * sizeof *w);
        const float *d_x = device_new(x, R * K * sizeof *x);
        float *d_y = device_new(NULL, R * N * sizeof *d_y), y[R * N];
        double largest[WAYS] = {0};
        for (int way = 0; way < WAYS; way++) {
            for (int p = 2 - way; p >= 0; p--)
                assert_int_equal(ks_gpu_product_bf16(device_gpu(), d_y, N, d_part[p], K, d_short, R, N, K, p < 2 - way), 0);
            if (way == 3) assert_int_equal(ks_gpu_product_f32(device_gpu(), d_y, N, d_x, K, d_w, R, N, K, false), 0);
            device_get(y, d_y, sizeof y);
            for (size_t i = 0; i < R; i++) {
                double apart = 0, all = 0;
                for (size_t j = 0; j < N; j++) {
                    double sum = 0;
                    for (size_t k = 0; k < K; k++) sum += (double)x[i * K + k] * (double)w[j * K + k];
                    apart += ((double)y[i * N + j] - sum) * ((double)y[i * N + j] - sum);
                    all += sum * sum;
                }
                largest[way] = fmax(largest[way], sqrt(apart / all));
            }
        }
        printf("| %zu | %s | %.1e | %.1e | %.1e | %.1e |\n", K, kinds[c % 3], largest[0], largest[1], largest[2], largest[3]);
        for (int way = 0; way < WAYS; way++) assert_true(largest[way] > 0 && largest[way] < limits[way]);
        assert_true(largest[0] < 2 * largest[1] && largest[1] < largest[2] / 10);
        device_end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_error_of_parts), cmocka_unit_test(test_bf16), cmocka_unit_test(test_f32)};
    return device_run_tests(tests);
}
