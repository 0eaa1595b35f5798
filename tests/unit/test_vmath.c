/* Vector math: error against better arithmetic, special values, the same bits on every instruction set.
 *
 *   test_vmath                  dense samples, a fixture of correctly rounded values
 *   test_vmath --exhaustive     every float (minutes), prints the largest errors and where they are
 *   test_vmath --speed          time per element */
#include "base/error.h"
#include "base/log.h"
#include "base/sincos.h"
#include "compute/cpu/dispatch.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const isas[] = {"generic", "avx2", "avx512"};

enum { BATCH = 1 << 12 };

/* What KS_CPU_ISA says, or the best. */
static const ks_cpu_ops *tested(void)
{
    const ks_cpu_ops *ops;
    if (ks_cpu_ops_find(&ops, NULL)) abort();
    return ops;
}

static float float_of_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* |got - want| in units of the last place of a float (double) near want; 0 for equal infinities and for two NaN, huge for one NaN. */
static double ulp_error(double got, double want)
{
    if (isnan(want) || isnan(got)) return isnan(want) && isnan(got) ? 0 : 1e30;
    if (isinf(got) && signbit(got) == signbit(want) && fabs(want) >= (double)FLT_MAX * (1 + 0x1p-25)) return 0;
    if (isinf(got) || isinf(want)) return got == want ? 0 : 1e30;
    int e = want == 0 ? -200 : ilogb(want);
    if (e < -126) e = -126;
    return fabs(got - want) / ldexp(1, e - 23);
}

static double ulp_error_double(double got, long double want)
{
    if (isnan(want) || isnan(got)) return isnan(want) && isnan(got) ? 0 : 1e30;
    if (isinf(got) && signbit(got) == signbit(want) && fabsl(want) >= (long double)DBL_MAX * (1 + 0x1p-54L)) return 0;
    if (isinf(got) || isinf(want)) return got == want ? 0 : 1e30;
    int e = want == 0 ? -2000 : ilogbl(want);
    if (e < -1022) e = -1022;
    return (double)fabsl(got - want) / ldexp(1, e) * 0x1p52;
}

static void ulp_error_itself(void **state)
{
    (void)state;
    assert_true(ulp_error(1, 1) == 0);
    assert_true(ulp_error((double)nextafterf(1, 2), 1) == 1);
    assert_true(ulp_error(0x1p-149, 0) == 1);
    assert_true(ulp_error((double)NAN, 1) > 1e9 && ulp_error(1, (double)INFINITY) > 1e9 &&
                ulp_error(-(double)INFINITY, (double)INFINITY) > 1e9);
    assert_true(ulp_error_double(nextafter(2, 3), 2) == 1 && ulp_error_double(0x1p-1074, 0) == 1);
}

static double ref_sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double ref_slope(double x)
{
    const double e = exp(-fabs(x));
    return e / ((1 + e) * (1 + e));
}

static double ref_sech2(double x)
{
    return 4 * ref_slope(2 * x);
}

static const struct {
    const char *name;
    size_t offset; /* in ks_cpu_ops */
    double (*reference)(double);
    double limit; /* ulp */
} floats[] = {
    {"expf", offsetof(ks_cpu_ops, expf), exp, 1.0},           {"expm1f", offsetof(ks_cpu_ops, expm1f), expm1, 1.5},
    {"tanhf", offsetof(ks_cpu_ops, tanhf), tanh, 1.5},        {"sigmoidf", offsetof(ks_cpu_ops, sigmoidf), ref_sigmoid, 1.5},
    {"slopef", offsetof(ks_cpu_ops, slopef), ref_slope, 1.5}, {"sech2f", offsetof(ks_cpu_ops, sech2f), ref_sech2, 1.5},
};
enum { N_FLOATS = sizeof floats / sizeof *floats };

static ks_map_float_fn *float_fn(const ks_cpu_ops *ops, int f)
{
    return *(ks_map_float_fn *const *)((const char *)ops + floats[f].offset);
}

/* Every stride-th float, from first on; the largest error of each function. */
static void scan_floats(uint64_t first, uint64_t stride, double worst[N_FLOATS], float at[N_FLOATS])
{
    static float x[BATCH], y[BATCH];
    memset(worst, 0, N_FLOATS * sizeof *worst);
    for (uint64_t u = first; u < (uint64_t)1 << 32;) {
        size_t n = 0;
        for (; n < BATCH && u < (uint64_t)1 << 32; n++, u += stride) x[n] = float_of_bits((uint32_t)u);
        for (int f = 0; f < N_FLOATS; f++) {
            float_fn(tested(), f)(y, x, n);
            for (size_t i = 0; i < n; i++) {
                const double e = ulp_error((double)y[i], floats[f].reference((double)x[i]));
                if (e > worst[f]) worst[f] = e, at[f] = x[i];
            }
        }
    }
}

static void floats_are_accurate(void **state)
{
    (void)state;
    double worst[N_FLOATS];
    float at[N_FLOATS] = {0};
    scan_floats(3, 4099, worst, at);
    for (int f = 0; f < N_FLOATS; f++) {
        if (worst[f] > floats[f].limit)
            fail_msg("%s(%a): %.3f ulp, at most %.1f expected", floats[f].name, (double)at[f], worst[f], floats[f].limit);
    }
}

static uint64_t seed = 7;

static double uniform(double low, double high)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return low + (high - low) * ((double)(seed >> 11) * 0x1p-53);
}

static long double ref_expm1_minus_x(long double x)
{
    if (fabsl(x) > 2) return expm1l(x) - x;
    long double term = x * x / 2, sum = 0;
    for (int k = 3; k < 60; k++) sum += term, term *= x / k;
    return sum;
}

static const struct {
    const char *name;
    size_t offset;
    long double (*reference)(long double);
    double limit;
    double ranges[4][2];
} doubles[] = {
    {"exp", offsetof(ks_cpu_ops, exp), expl, 1.0, {{-750, 711}, {-1, 1}, {-1e-9, 1e-9}, {-746, -700}}},
    {"expm1", offsetof(ks_cpu_ops, expm1), expm1l, 2.0, {{-50, 711}, {-1, 1}, {-1e-9, 1e-9}, {-2, 2}}},
    {"expm1_minus_x", offsetof(ks_cpu_ops, expm1_minus_x), ref_expm1_minus_x, 2.0, {{-50, 711}, {-1, 1}, {-1e-9, 1e-9}, {-3, 3}}},
    {"log", offsetof(ks_cpu_ops, log), logl, 1.0, {{0, 1e308}, {0.5, 2}, {0.99999, 1.00001}, {0, 1e-307}}},
    {"log1p", offsetof(ks_cpu_ops, log1p), log1pl, 2.0, {{-1, 1e15}, {-1, 2}, {-1e-9, 1e-9}, {-0.6, 0.7}}},
};
enum { N_DOUBLES = sizeof doubles / sizeof *doubles };

static ks_map_double_fn *double_fn(const ks_cpu_ops *ops, int f)
{
    return *(ks_map_double_fn *const *)((const char *)ops + doubles[f].offset);
}

static double scan_double(int f, int batches, double *at)
{
    static double x[BATCH], y[BATCH];
    double worst = 0;
    for (int b = 0; b < 4 * batches; b++) {
        for (int i = 0; i < BATCH; i++) x[i] = uniform(doubles[f].ranges[b % 4][0], doubles[f].ranges[b % 4][1]);
        double_fn(tested(), f)(y, x, BATCH);
        for (int i = 0; i < BATCH; i++) {
            const double e = ulp_error_double(y[i], doubles[f].reference(x[i]));
            if (e > worst) worst = e, *at = x[i];
        }
    }
    return worst;
}

static void doubles_are_accurate(void **state)
{
    (void)state;
    for (int f = 0; f < N_DOUBLES; f++) {
        double at = 0;
        const double worst = scan_double(f, 8, &at);
        if (worst > doubles[f].limit) fail_msg("%s(%a): %.3f ulp, at most %.1f expected", doubles[f].name, at, worst, doubles[f].limit);
    }
}

/* fixtures/vmath.txt: function, argument, correctly rounded value. */
static void doubles_match_the_fixture(void **state)
{
    (void)state;
    FILE *file = fopen("fixtures/vmath.txt", "r");
    assert_non_null(file);
    char name[32];
    double x, want;
    int lines = 0;
    while (fscanf(file, "%31s %la %la", name, &x, &want) == 3) {
        lines++;
        double y = 0, limit = 0.51;
        if (!strcmp(name, "sin") || !strcmp(name, "cos")) {
            double s, c;
            ks_sincos(x, &s, &c);
            y = *name == 's' ? s : c;
        } else {
            int f = 0;
            while (f < N_DOUBLES && strcmp(name, doubles[f].name)) f++;
            assert_true(f < N_DOUBLES);
            double_fn(tested(), f)(&y, &x, 1);
            limit = doubles[f].limit;
        }
        const double e = ulp_error_double(y, want);
        if (e > limit + 0.5) fail_msg("%s(%a): %a expected, %a found, %.3f ulp", name, x, want, y, e);
    }
    assert_true(feof(file) && lines > 800);
    fclose(file);
}

static void special_values(void **state)
{
    (void)state;
    const ks_cpu_ops *o = tested();
    const float inf = INFINITY, x[4] = {-inf, inf, NAN, 0};
    static const float want[N_FLOATS][4] = {{0, INFINITY, NAN, 1}, {-1, INFINITY, NAN, 0}, {-1, 1, NAN, 0},
                                            {0, 1, NAN, 0.5f},     {0, 0, NAN, 0.25f},     {0, 0, NAN, 1}};
    for (int f = 0; f < N_FLOATS; f++) {
        float y[4];
        float_fn(o, f)(y, x, 4);
        for (int i = 0; i < 4; i++) assert_true(isnan(want[f][i]) ? isnan(y[i]) : y[i] == want[f][i]);
    }
    const double xd[5] = {-(double)inf, (double)inf, (double)NAN, 0, -1};
    const double wd[N_DOUBLES][4] = {{0, (double)inf, (double)NAN, 1},
                                     {-1, (double)inf, (double)NAN, 0},
                                     {(double)inf, (double)NAN, (double)NAN, 0},
                                     {(double)NAN, (double)inf, (double)NAN, -(double)inf},
                                     {(double)NAN, (double)inf, (double)NAN, 0}};
    for (int f = 0; f < N_DOUBLES; f++) {
        double y[5];
        double_fn(o, f)(y, xd, 5);
        for (int i = 0; i < 4; i++) {
            if (f == 2 && i == 1) continue; /* inf - inf */
            assert_true(isnan(wd[f][i]) ? isnan(y[i]) : y[i] == wd[f][i]);
        }
        if (f == 3) assert_true(isnan(y[4]));
        if (f == 4) assert_true(y[4] == -(double)inf);
    }
    double s, c;
    ks_sincos(0, &s, &c);
    assert_true(s == 0 && c == 1);
    ks_sincos((double)inf, &s, &c);
    assert_true(isnan(s) && isnan(c));
    ks_sincos((double)NAN, &s, &c);
    assert_true(isnan(s) && isnan(c));
}

/* Bits and lengths: every instruction set, every length to 40, in place, nothing written beyond. */
static void same_bits_everywhere(void **state)
{
    (void)state;
    enum { N = 20000 };
    static float x[N], y[N], z[N];
    static double xd[N], yd[N], zd[N];
    for (int i = 0; i < N; i++) {
        x[i] = float_of_bits((uint32_t)i * 214013u);
        xd[i] = i % 2 ? (double)x[i] : uniform(-30, 30);
    }
    for (int k = 0; k < 3; k++) {
        const ks_cpu_ops *ops;
        if (ks_cpu_ops_find(&ops, isas[k])) continue;
        for (int f = 0; f < N_FLOATS; f++) {
            float_fn(ks_cpu_ops_best(), f)(y, x, N);
            float_fn(ops, f)(z, x, N);
            for (int i = 0; i < N; i++) {
                if (memcmp(&y[i], &z[i], 4) && !(isnan(y[i]) && isnan(z[i])))
                    fail_msg("%s %s(%a): %a and %a", isas[k], floats[f].name, (double)x[i], (double)z[i], (double)y[i]);
            }
            for (size_t n = 0; n < 40; n++) {
                memcpy(z, x, sizeof z);
                float_fn(ops, f)(z, z, n);
                for (size_t i = 0; i < 60; i++) {
                    const float want = i < n ? y[i] : x[i];
                    assert_true(!memcmp(&z[i], &want, 4) || (isnan(z[i]) && isnan(want)));
                }
            }
        }
        for (int f = 0; f < N_DOUBLES; f++) {
            double_fn(ks_cpu_ops_best(), f)(yd, xd, N);
            double_fn(ops, f)(zd, xd, N);
            for (int i = 0; i < N; i++) {
                if (memcmp(&yd[i], &zd[i], 8) && !(isnan(yd[i]) && isnan(zd[i])))
                    fail_msg("%s %s(%a): %a and %a", isas[k], doubles[f].name, xd[i], zd[i], yd[i]);
            }
            for (size_t n = 0; n < 20; n++) {
                memcpy(zd, xd, sizeof zd);
                double_fn(ops, f)(zd, zd, n);
                for (size_t i = 0; i < 30; i++) {
                    const double want = i < n ? yd[i] : xd[i];
                    assert_true(!memcmp(&zd[i], &want, 8) || (isnan(zd[i]) && isnan(want)));
                }
            }
        }
    }
}

static void sincos_is_accurate(void **state)
{
    (void)state;
    double worst = 0;
    for (int i = 0; i < 200000; i++) {
        const double x = i % 2 ? uniform(-1e6, 1e6) : uniform(-4, 4);
        double s, c;
        ks_sincos(x, &s, &c);
        const double es = (double)fabsl(s - sinl(x)), ec = (double)fabsl(c - cosl(x));
        worst = es > worst ? es : worst;
        worst = ec > worst ? ec : worst;
    }
    if (worst > 0x1p-53) fail_msg("sincos: error %g, at most 2^-53 expected", worst);
}

static int report(void)
{
    double worst[N_FLOATS], at = 0;
    float where[N_FLOATS] = {0};
    for (int f = 0; f < N_DOUBLES; f++) {
        const double e = scan_double(f, 1000, &at);
        printf("%-14s %.4f ulp at %a\n", doubles[f].name, e, at);
    }
    fflush(stdout);
    scan_floats(0, 1, worst, where);
    for (int f = 0; f < N_FLOATS; f++) printf("%-14s %.4f ulp at %a\n", floats[f].name, worst[f], (double)where[f]);
    return 0;
}

/* ns per element in the first-level cache. */
static int speed(void)
{
    static float x[BATCH], y[BATCH];
    static double xd[BATCH], yd[BATCH];
    for (int i = 0; i < BATCH; i++) x[i] = (float)uniform(-5, 5), xd[i] = uniform(0.01, 5);
    for (int f = 0; f < N_FLOATS + N_DOUBLES; f++) {
        double best = 1e30;
        for (int rep = 0; rep < 200; rep++) {
            const double t = ks_seconds();
            if (f < N_FLOATS) float_fn(tested(), f)(y, x, BATCH);
            else double_fn(tested(), f - N_FLOATS)(yd, xd, BATCH);
            const double d = ks_seconds() - t;
            if (d < best) best = d;
        }
        printf("%-14s %.3f ns\n", f < N_FLOATS ? floats[f].name : doubles[f - N_FLOATS].name, best / BATCH * 1e9);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "--speed")) return speed();
    if (argc > 1 && !strcmp(argv[1], "--exhaustive")) return report();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ulp_error_itself),          cmocka_unit_test(floats_are_accurate), cmocka_unit_test(doubles_are_accurate),
        cmocka_unit_test(doubles_match_the_fixture), cmocka_unit_test(special_values),      cmocka_unit_test(same_bits_everywhere),
        cmocka_unit_test(sincos_is_accurate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
