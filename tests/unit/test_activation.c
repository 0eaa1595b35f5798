/* Activations of states and effects against long double, for effects from 1e-30 to 1e2, and equal bits everywhere. */
#include "support/numbers.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Largest relative error of a row allowed (measured), by KS_ACT_*. */
static const double limit_state[] = {3e-7, 3e-7, 1e-7}; /* 1.0e-7, 1.1e-7, 5.6e-8 */
static const double limit_diff[] = {6e-7, 6e-7, 1e-7};  /* 2.6e-7, 2.1e-7, 5.7e-8 */

static const long double PI = 3.141592653589793238462643383279502884L;

/* c(x): the activation is x c(x). */
static long double share(long double x, int act)
{
    const long double y = sqrtl(8 / PI) * (x + 0.044715L * x * x * x);
    switch (act) {
    case KS_ACT_SILU:
        return 1 / (1 + expl(-x));
    case KS_ACT_GELU_TANH:
        return 1 / (1 + expl(-y));
    default:
        return 0.5L * erfcl(-x * sqrtl(0.5L));
    }
}

/* c(x + e) - c(x): the plain difference for large e; small ones by Simpson's rule over the normal density, and by the logistic
 * function's own addition formula. */
static long double share_change(long double x, long double e, int act)
{
    if (fabsl(e) > 1e-3L) return share(x + e, act) - share(x, act);
    if (act == KS_ACT_GELU_ERF) {
        const long double a = expl(-x * x / 2), b = expl(-(x + e) * (x + e) / 2), m = expl(-(x + e / 2) * (x + e / 2) / 2);
        return e / 6 * (a + 4 * m + b) / sqrtl(2 * PI);
    }
    long double de = e;
    if (act == KS_ACT_GELU_TANH) de = sqrtl(8 / PI) * (e + 0.044715L * (3 * x * x * e + 3 * x * e * e + e * e * e));
    const long double s = share(x, act), s2 = share(-x, act);
    return s * s2 * expm1l(de) / (1 + s * expm1l(de));
}

static void test_against_long_double(void **state)
{
    (void)state;
    static const double scales[] = {0, 1e-30, 1e-20, 1e-10, 1e-5, 5e-4, 1e-2, 0.1, 1, 10, 100};
    static const size_t widths[] = {1, 16, 50, 333};
    enum { N = 120 };
    rng r = {5};
    for (int act = 0; act < 3; act++) {
        worst w_state = {0}, w_diff = {0};
        for (int c = 0; c < 11 * 4 * 2; c++) {
            const size_t F = widths[c % 4];
            const double scale = scales[c / 4 % 11];
            const bool gated = c / 44;
            float *g = rng_floats(&r, N * F, 3), *u = rng_floats(&r, N * F, 3), *dg = rng_floats(&r, N * F, scale),
                  *du = rng_floats(&r, N * F, scale);
            int64_t rows[N];
            for (size_t i = 0; i < N; i++) rows[i] = (int64_t)(i * 7 % N);
            float *first = NULL, *first_d = NULL;
            for (int t = 0; t < all_devices.n; t++) {
                float *a = malloc(N * F * sizeof *a), *da = malloc(N * F * sizeof *da);
                memcpy(a, u, N * F * sizeof *a); /* in place, as the engine does it */
                memcpy(da, du, N * F * sizeof *da);
                assert_int_equal(all_devices.b->activate(all_devices.dev[t], a, KS_FORM_F32, gated ? g : NULL, a, N, F, act), 0);
                assert_int_equal(all_devices.b->activate_diff(all_devices.dev[t], da, KS_FORM_F32, gated ? dg : NULL, da, gated ? g : NULL,
                                                              u, rows, N, F, act),
                                 0);
                if (t == 0) {
                    first = a, first_d = da;
                } else {
                    assert_true(same_bits(a, first, N * F * sizeof *a));
                    assert_true(same_bits(da, first_d, N * F * sizeof *da));
                    free(a), free(da);
                }
            }
            for (size_t i = 0; i < N; i++) {
                long double y[333], dy[333];
                for (size_t k = 0; k < F; k++) {
                    const size_t at = (size_t)rows[i] * F + k, here = i * F + k;
                    const long double x = (long double)(gated ? g : u)[at], e = (long double)(gated ? dg : du)[here];
                    const long double d = e * share(x + e, act) + x * share_change(x, e, act), x0 = (long double)(gated ? g : u)[here];
                    y[k] = x0 * share(x0, act) * (gated ? (long double)u[here] : 1);
                    dy[k] = gated ? d * ((long double)u[at] + (long double)du[here]) + x * share(x, act) * (long double)du[here] : d;
                }
                /* A single number may lie where the function or its derivative is nearly zero: rows are judged. */
                if (F > 1) worst_of(&w_state, distance(first + i * F, y, F), "act %d, case %d, F %zu, row %zu", act, c, F, i);
                if (F > 1)
                    worst_of(&w_diff, distance(first_d + i * F, dy, F), "act %d, case %d, F %zu, scale %g, row %zu", act, c, F, scale, i);
                else if (scale == 0) assert_true(first_d[i] == 0);
            }
            free(g), free(u), free(dg), free(du), free(first), free(first_d);
        }
        assert_below("activation of states", &w_state, limit_state[act]);
        assert_below("activation of effects", &w_diff, limit_diff[act]);
    }
}

/* Arguments far out: finite in, finite out. */
static void test_far_out(void **state)
{
    (void)state;
    static const float x[] = {0, -0.0f, 1e-38f, -1e-38f, 29.9f, -29.9f, 30.1f, -30.1f, 90, -90, 1e4f, -1e4f, 1e9f, -1e9f};
    enum { M = sizeof x / sizeof *x };
    float g[M * M], e[M * M], a[M * M];
    for (int i = 0; i < M * M; i++) {
        g[i] = x[i / M];
        e[i] = x[i % M];
    }
    for (int act = 0; act < 3; act++) {
        assert_int_equal(all_devices.b->activate_diff(all_devices.dev[0], a, KS_FORM_F32, NULL, e, NULL, g, &(int64_t){0}, 1, M * M, act),
                         0);
        for (int i = 0; i < M * M; i++) {
            const double want = (double)(share((long double)g[i] + (long double)e[i], act) * ((long double)g[i] + (long double)e[i]) -
                                         share((long double)g[i], act) * (long double)g[i]);
            assert_true(isfinite(a[i]));
            assert_true(fabs((double)a[i] - want) <= 3e-7 * (fabs(want) + fabs((double)g[i]) + fabs((double)e[i])));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_long_double),
        cmocka_unit_test(test_far_out),
    };
    return cmocka_run_group_tests(tests, devices_setup, devices_teardown);
}
