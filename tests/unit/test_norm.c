/* RMS and layer norm of states and effects against long double, and equal bits on every instruction set and number of threads. */
#include "support/numbers.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

/* Largest relative error of a row allowed (measured). */
static const double LIMIT_STATE = 1e-7; /* 5.6e-8 */
static const double LIMIT_DIFF = 1e-7;  /* 5.6e-8 */

/* Mean of x (layer norm) or 0, and 1/sqrt(mean square of what is left + eps). */
static void moments(const long double *x, size_t D, const ks_norm *p, long double *mean, long double *inv)
{
    long double m = 0, s = 0;
    for (size_t i = 0; i < D; i++) m += x[i] / (long double)D;
    if (p->kind == KS_NORM_RMS) m = 0;
    for (size_t i = 0; i < D; i++) s += (x[i] - m) * (x[i] - m) / (long double)D;
    *mean = m;
    *inv = 1 / sqrtl(s + (long double)p->eps);
}

/* norm(x + d) - norm(x) with the change of 1/rms from m = mean((2x + d) d), which small d survive. */
static void oracle(long double *y, long double *dy, const float *x, const float *d, size_t D, const ks_norm *p)
{
    long double h[1200], e[1200], both[1200], mean, inv, mean2, inv2, m = 0;
    for (size_t i = 0; i < D; i++) {
        h[i] = (long double)x[i];
        e[i] = (long double)d[i];
        both[i] = h[i] + e[i];
    }
    moments(h, D, p, &mean, &inv);
    moments(both, D, p, &mean2, &inv2);
    long double mean_e = 0;
    for (size_t i = 0; i < D; i++) mean_e += e[i] / (long double)D;
    if (p->kind == KS_NORM_RMS) mean_e = 0;
    for (size_t i = 0; i < D; i++) m += (2 * (h[i] - mean) + e[i] - mean_e) * (e[i] - mean_e) / (long double)D;
    for (size_t i = 0; i < D; i++) {
        const long double w = (long double)p->weight[i];
        y[i] = (h[i] - mean) * inv * w + (p->bias ? (long double)p->bias[i] : 0);
        dy[i] = w * ((e[i] - mean_e) * inv2 - (h[i] - mean) * m * inv * inv * inv2 * inv2 / (inv + inv2));
    }
}

static void test_against_long_double(void **state)
{
    (void)state;
    static const size_t widths[] = {3, 7, 16, 33, 576, 1111};
    static const double scales[] = {0, 1e-30, 1e-20, 1e-10, 1e-5, 1e-2, 1, 1e2, 1e3};
    enum { N = 70 };
    rng r = {3};
    worst w_state = {0}, w_diff = {0};
    for (int c = 0; c < 6 * 9 * 2; c++) {
        const size_t D = widths[c % 6];
        const double scale = scales[c / 6 % 9];
        float *x = rng_floats(&r, N * D, c % 3 ? 1 : 30), *d = rng_floats(&r, N * D, scale), *weight = rng_floats(&r, D, 1),
              *bias = rng_floats(&r, D, 1);
        const ks_norm p = {.kind = c / 54 ? KS_NORM_LAYER : KS_NORM_RMS, .eps = 1e-5f, .weight = weight, .bias = c % 2 ? bias : NULL};
        int64_t rows[N], d_rows[N];
        for (size_t i = 0; i < N; i++) {
            rows[i] = (int64_t)(i * 37 % N);
            d_rows[i] = (int64_t)(i * 11 % N);
            if (p.kind == KS_NORM_LAYER) {
                for (size_t k = 0; k < D; k++) x[i * D + k] += 3;
            }
        }
        float *first[4] = {0};
        for (int t = 0; t < all_devices.n; t++) {
            float *y = malloc(N * D * sizeof *y), *dy = malloc(N * D * sizeof *dy), *mean = calloc(N, sizeof *mean),
                  *inv = calloc(N, sizeof *inv);
            const ks_norm_tape tape = {p.kind == KS_NORM_LAYER ? mean : NULL, inv};
            assert_int_equal(all_devices.b->norm(all_devices.dev[t], y, KS_FORM_F32, &tape, x, rows, N, D, &p), 0);
            assert_int_equal(all_devices.b->norm_diff(all_devices.dev[t], dy, KS_FORM_F32, d, d_rows, x, &tape, rows, N, D, &p), 0);
            float *now[4] = {y, dy, mean, inv};
            for (int k = 0; k < 4; k++) {
                if (t == 0) first[k] = now[k];
                else assert_true(same_bits(first[k], now[k], (k < 2 ? N * D : N) * sizeof(float)));
                if (t > 0) free(now[k]);
            }
        }
        long double y[1200], dy[1200];
        for (size_t i = 0; i < N; i++) {
            oracle(y, dy, x + (size_t)rows[i] * D, d + (size_t)d_rows[i] * D, D, &p);
            worst_of(&w_state, distance(first[0] + i * D, y, D), "case %d, D %zu, kind %d, row %zu", c, D, p.kind, i);
            worst_of(&w_diff, distance(first[1] + i * D, dy, D), "case %d, D %zu, kind %d, scale %g, row %zu", c, D, p.kind, scale, i);
        }
        for (int k = 0; k < 4; k++) free(first[k]);
        free(x), free(d), free(weight), free(bias);
    }
    assert_below("norm of states", &w_state, LIMIT_STATE);
    assert_below("norm of effects", &w_diff, LIMIT_DIFF);
}

/* Without rows, row i is row i; without a tape nothing is kept. An effect that undoes its row leaves -norm(x). */
static void test_edges(void **state)
{
    (void)state;
    rng r = {4};
    enum { D = 40 };
    float *x = rng_floats(&r, 2 * D, 1), *weight = rng_floats(&r, D, 1), y[2 * D], again[D], d[D], dy[D], inv[2];
    const ks_norm p = {.kind = KS_NORM_RMS, .eps = 1e-6f, .weight = weight};
    const ks_norm_tape tape = {NULL, inv};
    assert_int_equal(all_devices.b->norm(all_devices.dev[0], y, KS_FORM_F32, &tape, x, NULL, 2, D, &p), 0);
    assert_int_equal(all_devices.b->norm(all_devices.dev[0], again, KS_FORM_F32, NULL, x, &(int64_t){1}, 1, D, &p), 0);
    assert_true(same_bits(y + D, again, sizeof again));
    for (int i = 0; i < D; i++) d[i] = -x[D + i];
    assert_int_equal(all_devices.b->norm_diff(all_devices.dev[0], dy, KS_FORM_F32, d, &(int64_t){0}, x, &tape, &(int64_t){1}, 1, D, &p), 0);
    for (int i = 0; i < D; i++) assert_true(dy[i] == -again[i]);
    free(x), free(weight);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_long_double),
        cmocka_unit_test(test_edges),
    };
    return cmocka_run_group_tests(tests, devices_setup, devices_teardown);
}
