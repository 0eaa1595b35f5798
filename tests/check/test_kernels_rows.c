/* rows.cu, split.cu, norm.cu, rope.cu and activate.cu against their CPU twins, on aligned and odd shapes, in several orders of threads; and
 * a row's bits against the rows beside it. */
#include "check/check.h"
#include "check/device.h"
#include "check/tolerances.h"
#include "kernels/kernels.h"
#include "support/numbers.h"

#include <math.h>

static rng r = {11};

static const ks_backend *cpu(void)
{
    return all_devices.b;
}
static ks_device *dev(void)
{
    return all_devices.dev[0];
}

/* n random rows below `all`, each at most once: all >= n. */
static int64_t *some_rows(size_t n, size_t all)
{
    int64_t *rows = device_new(NULL, (n ? n : 1) * sizeof *rows);
    char *taken = calloc(all ? all : 1, 1);
    assert_non_null(taken);
    for (size_t i = 0; i < n; i++) {
        size_t row = rng_below(&r, all);
        while (taken[row]) row = (row + 1) % all;
        taken[row] = 1;
        rows[i] = (int64_t)row;
    }
    free(taken);
    return rows;
}

/* n floats in memory of just that size; off by one float from any alignment where `odd`. Free with device_free(p, odd). */
static float *floats(const float *from, size_t n, bool odd)
{
    float *p = device_new(NULL, (n + odd) * sizeof *p);
    if (from && n) memcpy(p + odd, from, n * sizeof *p);
    return p + odd;
}
static void device_free(float *p, bool odd)
{
    if (p) free(p - odd);
}

/* |got - want| / |want| in the Euclidean norm; terms (or NULL): what want is a sum of with something else, counted in where it is larger.
 * Differences that are no more than the last digits of subnormal numbers, a few hundred times, count as none. */
static double row_distance(const float *got, const float *want, const float *terms, size_t n)
{
    double apart = 0, all = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)got[i] - (double)want[i], size = fmax(fabs((double)want[i]), terms ? fabs((double)terms[i]) : 0);
        if (!isfinite(d)) return (double)INFINITY;
        apart += d * d;
        all += size * size;
        most = fmax(most, fabs(d));
    }
    return most <= 0x1p-138 ? 0 : sqrt(apart / all);
}

static void assert_same(const char *what, const float *got, const float *want, size_t n, size_t D)
{
    for (size_t i = 0; i < n * D; i++) {
        if (!same_bits(got + i, want + i, sizeof *got)) {
            fail_msg("%s: row %zu, column %zu of [%zu, %zu]: %.9g, expected %.9g", what, i / D, i % D, n, D, (double)got[i],
                     (double)want[i]);
        }
    }
}

static const size_t WIDTHS[] = {1, 3, 16, 33, 128, 576, 1023, 1024, 1111, 2052};
static const size_t COUNTS[] = {0, 1, 5, 8, 19};
enum { N_WIDTHS = sizeof WIDTHS / sizeof *WIDTHS, N_COUNTS = sizeof COUNTS / sizeof *COUNTS, ALL = 23 };

/* ---- rows: the same bits ---- */

static void test_embed(void **state)
{
    (void)state;
    static const ks_dtype types[] = {KS_BF16, KS_F16, KS_F32};
    static const int k_types[] = {KS_K_BF16, KS_K_F16, KS_K_F32};
    for (size_t c = 0; c < 3 * N_WIDTHS * N_COUNTS; c++) {
        const ks_dtype type = types[c % 3];
        const size_t D = WIDTHS[c / 3 % N_WIDTHS], n = COUNTS[c / 3 / N_WIDTHS], element = ks_dtype_size(type);
        unsigned char *table = device_new(NULL, ALL * D * element);
        for (size_t i = 0; i < ALL * D * element; i++) table[i] = (unsigned char)rng_below(&r, 256);
        for (size_t i = 0; i < ALL * D; i++) { /* neither NaN nor infinite */
            if (type == KS_F32) table[4 * i + 3] = (unsigned char)(table[4 * i + 3] & 0xbf);
            else table[2 * i + 1] = (unsigned char)(table[2 * i + 1] & 0xbf);
        }
        const ks_tensor tensor = {.data = table, .dtype = type, .rows = ALL, .cols = (int64_t)D, .ld = (int64_t)D};
        int32_t *ids = device_new(NULL, n * sizeof *ids);
        for (size_t i = 0; i < n; i++) ids[i] = (int32_t)rng_below(&r, ALL);
        float *want = floats(NULL, n * D, false), *got = floats(NULL, n * D, false);
        assert_int_equal(cpu()->embed(dev(), want, &tensor, ids, n, 1.7f), 0);
        assert_int_equal(ks_k_embed(got, table, k_types[c % 3], ids, n, D, 1.7f, NULL), 0);
        assert_same("embed", got, want, n, D);
        free(table);
        free(ids);
        free(want);
        free(got);
    }
}

static void test_gather_scatter_round(void **state)
{
    (void)state;
    for (size_t c = 0; c < 2 * N_WIDTHS * N_COUNTS; c++) {
        const bool odd = c % 2;
        const size_t D = WIDTHS[c / 2 % N_WIDTHS], n = COUNTS[c / 2 / N_WIDTHS], size = ALL * D;
        float *x = rng_floats(&r, size, 1), *d = rng_floats(&r, size, 1e-2);
        int64_t *rows = some_rows(n, ALL), *others = some_rows(n, ALL);
        float *want = floats(NULL, n * D, odd), *got = floats(NULL, n * D, odd), *from = floats(x, size, odd);
        assert_int_equal(cpu()->gather(dev(), want, x, rows, n, D), 0);
        assert_int_equal(ks_k_gather(got, from, rows, n, D, NULL), 0);
        assert_same("gather", got, want, n, D);

        float *want_sum = floats(d, size, odd), *got_sum = floats(d, size, odd);
        assert_int_equal(cpu()->scatter_add(dev(), want_sum, want, others, n, D), 0);
        assert_int_equal(ks_k_scatter_add(got_sum, got, others, n, D, NULL), 0);
        assert_same("scatter_add", got_sum, want_sum, ALL, D);

        assert_int_equal(cpu()->round_diff(dev(), want_sum, others, x, rows, n, D), 0);
        assert_int_equal(ks_k_round_diff(got_sum, others, from, rows, n, D, NULL), 0);
        assert_same("round_diff", got_sum, want_sum, ALL, D);
        device_free(want, odd);
        device_free(got, odd);
        device_free(from, odd);
        device_free(want_sum, odd);
        device_free(got_sum, odd);
        free(x);
        free(d);
        free(rows);
        free(others);
    }
}

static void test_add_bias(void **state)
{
    (void)state;
    for (size_t c = 0; c < 2 * N_WIDTHS * N_COUNTS; c++) {
        const size_t N = WIDTHS[c / 2 % N_WIDTHS], n = COUNTS[c / 2 / N_WIDTHS], ldy = N + (c % 2 ? 3 : 4);
        float *y = rng_floats(&r, n * ldy, 1), *bias = rng_floats(&r, N, 1), *got = floats(y, n * ldy, false);
        assert_int_equal(ks_k_add_bias(got, ldy, bias, n, N, NULL), 0);
        for (size_t i = 0; i < n * ldy; i++) {
            if (i % ldy < N) y[i] += bias[i % ldy];
        }
        assert_same("add_bias", got, y, n, ldy);
        free(y);
        free(bias);
        free(got);
    }
}

static void test_rope(void **state)
{
    (void)state;
    static const struct {
        size_t heads, E, dim;
    } shapes[] = {{1, 2, 2}, {3, 6, 6}, {9, 64, 64}, {32, 96, 96}, {5, 80, 32}, {7, 10, 4}, {36, 128, 128}};
    for (size_t c = 0; c < 7 * N_COUNTS; c++) {
        const size_t heads = shapes[c % 7].heads, E = shapes[c % 7].E, dim = shapes[c % 7].dim, n = COUNTS[c / 7], D = heads * E;
        float *x = rng_floats(&r, n * D, 1), *got = floats(x, n * D, false), *cosine = rng_floats(&r, ALL * dim / 2, 1),
              *sine = rng_floats(&r, ALL * dim / 2, 1);
        int64_t *rows = some_rows(n, ALL);
        assert_int_equal(ks_k_rope(got, n, heads, E, dim, cosine, sine, rows, NULL), 0);
        assert_int_equal(cpu()->rope(dev(), x, n, heads, E, dim, cosine, sine, rows), 0);
        assert_same("rope", got, x, n, D);
        free(x);
        free(got);
        free(cosine);
        free(sine);
        free(rows);
    }
}

/* ---- split ---- */

static void test_split(void **state)
{
    (void)state;
    for (size_t c = 0; c < 4 * N_WIDTHS * N_COUNTS; c++) {
        const int parts = 1 + (int)(c % 3);
        const size_t K = WIDTHS[c / 4 % N_WIDTHS], n = COUNTS[c / 4 / N_WIDTHS], ldx = K + (c % 2 ? 4 : 5);
        float *x = rng_floats(&r, n * ldx, 1);
        for (size_t i = 0; i < n * ldx; i++) x[i] *= powf(10, (float)(60 * rng_uniform(&r) - 30));
        uint16_t *part[3];
        for (int p = 0; p < 3; p++) part[p] = device_new(NULL, n * K * sizeof(uint16_t));
        assert_int_equal(ks_k_split(part[0], parts > 1 ? part[1] : NULL, parts > 2 ? part[2] : NULL, x, ldx, n, K, NULL), 0);

        /* The twin's rounding: round_diff of no change leaves bf16(x) - x, which is exact. */
        float *dense = floats(NULL, n * K, false), *rounded = device_new(NULL, n * K * sizeof *rounded);
        int64_t *rows = device_new(NULL, n * sizeof *rows);
        for (size_t i = 0; i < n * K; i++) dense[i] = x[i / K * ldx + i % K];
        memset(rounded, 0, n * K * sizeof *rounded);
        for (size_t i = 0; i < n; i++) rows[i] = (int64_t)i;
        assert_int_equal(cpu()->round_diff(dev(), rounded, rows, dense, rows, n, K), 0);
        static const double left[] = {0x1p-8, 0x1p-16, 0};
        for (size_t i = 0; i < n * K; i++) {
            double sum = 0;
            for (int p = 0; p < parts; p++) sum += (double)ks_f32_of_bf16(part[p][i]);
            assert_true(ks_f32_of_bf16(part[0][i]) == dense[i] + rounded[i]);
            assert_true(fabs((double)dense[i] - sum) <= left[parts - 1] * fabs((double)dense[i]) + 0x1p-134); /* half a subnormal */
        }
        for (int p = 0; p < 3; p++) free(part[p]);
        free(x);
        free(dense);
        free(rounded);
        free(rows);
    }
}

static void test_split_of_the_unusual(void **state)
{
    (void)state;
    const float x[] = {INFINITY,     -INFINITY, NAN,         0.0f,        -0.0f,    0x1.fffffep127f,
                       -0x1.ffp127f, 0x1p-149f, 1 + 0x1p-8f, 1 + 0x3p-8f, 0x1p-130f};
    enum { N = sizeof x / sizeof *x };
    uint16_t hi[N], mid[N], lo[N], alone[N];
    assert_int_equal(ks_k_split(hi, mid, lo, x, N, 1, N, NULL), 0);
    assert_int_equal(ks_k_split(alone, NULL, NULL, x, N, 1, N, NULL), 0);
    for (int i = 0; i < N; i++) {
        const float h = ks_f32_of_bf16(hi[i]), m = ks_f32_of_bf16(mid[i]), l = ks_f32_of_bf16(lo[i]);
        if (!isfinite(x[i])) {
            assert_true(isnan(x[i]) ? isnan(h) : h == x[i]);
            assert_true(mid[i] == 0 && lo[i] == 0);
        } else {
            assert_true(fabs((double)x[i] - ((double)h + (double)m + (double)l)) <= 0x1p-134);
        }
    }
    assert_true(ks_f32_of_bf16(alone[5]) == INFINITY && ks_f32_of_bf16(alone[6]) == -INFINITY); /* rounded, as the twin does */
    assert_true(signbit(ks_f32_of_bf16(hi[4])));
    assert_true(ks_f32_of_bf16(hi[8]) == 1 && ks_f32_of_bf16(hi[9]) == 1 + 0x1p-6f); /* ties to even */
}

/* ---- norms ---- */

static const double EFFECTS[] = {0, 1e-30, 1e-20, 1e-10, 1e-5, 1e-2, 1, 1e2};
enum { N_EFFECTS = sizeof EFFECTS / sizeof *EFFECTS };

static void test_norms(void **state)
{
    (void)state;
    worst state_error = {0}, tape_error = {0}, diff_error = {0};
    for (size_t c = 0; c < N_WIDTHS * N_EFFECTS * 4; c++) {
        const size_t D = WIDTHS[c % N_WIDTHS], n = COUNTS[1 + rng_below(&r, N_COUNTS - 1)], size = ALL * D;
        const double effect = EFFECTS[c / N_WIDTHS % N_EFFECTS];
        const int kind = c / N_WIDTHS / N_EFFECTS % 2 ? KS_NORM_LAYER : KS_NORM_RMS;
        const bool odd = rng_below(&r, 2), listed = rng_below(&r, 2), taped = rng_below(&r, 4), along = rng_below(&r, 4) == 0;
        float *x = rng_floats(&r, size, c % 3 ? 1 : 30), *d = rng_floats(&r, size, effect), *weight = rng_floats(&r, D, 1),
              *bias = rng_floats(&r, D, 1);
        for (size_t i = 0; i < size; i++) {
            if (kind == KS_NORM_LAYER) x[i] += 3;
            if (along) d[i] = (float)((double)x[i] * effect); /* a row's length changes, its direction hardly */
        }
        int64_t *rows = some_rows(n, ALL), *d_rows = some_rows(n, ALL);
        const ks_norm p = {kind, 1e-5f, weight, c % 2 ? bias : NULL};
        float *x_k = floats(x, size, odd), *d_k = floats(d, size, odd), *y = floats(NULL, n * D, odd), *dy = floats(NULL, n * D, odd);
        float want[2][ALL] = {{0}}, got[2][ALL] = {{0}}, *want_y = floats(NULL, n * D, false), *want_dy = floats(NULL, n * D, false);
        const bool mean = kind == KS_NORM_LAYER;
        const ks_norm_tape tape = {mean ? want[0] : NULL, want[1]};
        assert_int_equal(cpu()->norm(dev(), want_y, taped ? &tape : NULL, x, listed ? rows : NULL, n, D, &p), 0);
        assert_int_equal(cpu()->norm_diff(dev(), want_dy, d, d_rows, x, &tape, rows, n, D, &p), 0);
        ks_check_seed(c + 1);
        assert_int_equal(ks_k_norm(y, taped && mean ? got[0] : NULL, taped ? got[1] : NULL, x_k, listed ? rows : NULL, n, D, kind, p.eps,
                                   p.weight, p.bias, NULL),
                         0);
        assert_int_equal(ks_k_norm_diff(dy, d_k, d_rows, x_k, rows, n, D, kind, p.eps, p.weight, NULL), 0);
        for (size_t i = 0; i < n; i++) {
            worst_of(&state_error, row_distance(y + i * D, want_y + i * D, NULL, D), "D %zu, %s", D, ks_norm_name(kind));
            worst_of(&diff_error, row_distance(dy + i * D, want_dy + i * D, NULL, D), "D %zu, %s, effect %g%s", D, ks_norm_name(kind),
                     effect, along ? " along x" : "");
        }
        worst_of(&tape_error, row_distance(got[0], want[0], NULL, ALL), "mean, D %zu", D);
        worst_of(&tape_error, row_distance(got[1], want[1], NULL, ALL), "1/rms, D %zu", D);

        /* Another order of threads; each row alone. */
        float *again = floats(NULL, n * D, odd);
        ks_check_seed(c + 1000);
        assert_int_equal(ks_k_norm_diff(again, d_k, d_rows, x_k, rows, n, D, kind, p.eps, p.weight, NULL), 0);
        assert_same("norm_diff, another order", again, dy, n, D);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(ks_k_norm_diff(again, d_k, d_rows + i, x_k, rows + i, 1, D, kind, p.eps, p.weight, NULL), 0);
            assert_same("norm_diff, a row alone", again, dy + i * D, 1, D);
            const int64_t row = listed ? rows[i] : (int64_t)i;
            assert_int_equal(ks_k_norm(again, NULL, NULL, x_k, &row, 1, D, kind, p.eps, p.weight, p.bias, NULL), 0);
            assert_same("norm, a row alone", again, y + i * D, 1, D);
        }
        /* Memory of another alignment. */
        assert_int_equal(ks_k_norm_diff(want_dy, d, d_rows, x, rows, n, D, kind, p.eps, p.weight, NULL), 0);
        assert_same("norm_diff, another alignment", want_dy, dy, n, D);
        device_free(x_k, odd);
        device_free(d_k, odd);
        device_free(y, odd);
        device_free(dy, odd);
        device_free(again, odd);
        free(want_y);
        free(want_dy);
        free(x);
        free(d);
        free(weight);
        free(bias);
        free(rows);
        free(d_rows);
    }
    assert_below("norm", &state_error, KS_TOLERANCE_NORM);
    assert_below("norm's tape", &tape_error, KS_TOLERANCE_NORM);
    assert_below("norm_diff", &diff_error, KS_TOLERANCE_NORM);
}

/* ---- activations ---- */

static void test_activations(void **state)
{
    (void)state;
    worst error[2] = {{0}};
    for (size_t c = 0; c < N_WIDTHS * N_EFFECTS * 6; c++) {
        const size_t F = WIDTHS[c % N_WIDTHS], n = COUNTS[1 + rng_below(&r, N_COUNTS - 1)], size = ALL * F;
        const double effect = EFFECTS[c / N_WIDTHS % N_EFFECTS], width = (double[]){1, 5, 40}[rng_below(&r, 3)];
        const int act = (int)(c / N_WIDTHS / N_EFFECTS % 3); /* KS_ACT_SILU .. */
        const bool gated = c / N_WIDTHS / N_EFFECTS / 3, odd = rng_below(&r, 2);
        float *g = rng_floats(&r, size, width), *u = rng_floats(&r, size, gated ? 1 : width), *dg = rng_floats(&r, n * F, effect),
              *du = rng_floats(&r, n * F, effect);
        int64_t *rows = some_rows(n, ALL);
        float *want = floats(NULL, n * F, false), *want_d = floats(NULL, n * F, false);
        assert_int_equal(cpu()->activate(dev(), want, gated ? g : NULL, u, n, F, act), 0);
        assert_int_equal(cpu()->activate_diff(dev(), want_d, dg, du, gated ? g : NULL, u, rows, n, F, act), 0);

        /* d(f u) = df (u + du) + f du: where both nearly cancel, in few columns, f du is what errors are relative to. */
        float *f = floats(NULL, size, false), *terms = floats(NULL, n * F, false);
        assert_int_equal(cpu()->activate(dev(), f, NULL, g, ALL, F, act), 0);
        for (size_t i = 0; i < n * F; i++) terms[i] = gated ? f[(size_t)rows[i / F] * F + i % F] * du[i] : 0;

        float *g_k = floats(g, size, odd), *u_k = floats(u, size, odd), *dg_k = floats(dg, n * F, odd), *du_k = floats(du, n * F, odd);
        float *a = floats(NULL, n * F, odd), *da = floats(NULL, n * F, odd);
        ks_check_seed(c + 1);
        assert_int_equal(ks_k_activate(a, gated ? g_k : NULL, u_k, n, F, act, NULL), 0);
        assert_int_equal(ks_k_activate_diff(da, dg_k, du_k, gated ? g_k : NULL, u_k, rows, n, F, act, NULL), 0);
        for (size_t i = 0; i < n; i++) {
            const char *name = ks_act_name(act), *gate = gated ? ", gated" : "";
            worst_of(&error[0], row_distance(a + i * F, want + i * F, NULL, F), "F %zu, %s%s, of %g", F, name, gate, width);
            worst_of(&error[1], row_distance(da + i * F, want_d + i * F, terms + i * F, F), "F %zu, %s%s, of %g, effect %g", F, name, gate,
                     width, effect);
        }

        /* Another alignment, a row alone, in place. */
        float *again = floats(NULL, F, false);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(ks_k_activate_diff(again, dg + i * F, du + i * F, gated ? g : NULL, u, rows + i, 1, F, act, NULL), 0);
            assert_same("activate_diff, a row alone", again, da + i * F, 1, F);
        }
        assert_int_equal(ks_k_activate(u_k, gated ? g_k : NULL, u_k, n, F, act, NULL), 0);
        assert_same("activate in place", u_k, a, n, F);
        assert_int_equal(ks_k_activate_diff(du, dg, du, gated ? g : NULL, u, rows, n, F, act, NULL), 0);
        assert_same("activate_diff in place", du, da, n, F);
        device_free(g_k, odd);
        device_free(u_k, odd);
        device_free(dg_k, odd);
        device_free(du_k, odd);
        device_free(a, odd);
        device_free(da, odd);
        free(again);
        free(want);
        free(want_d);
        free(f);
        free(terms);
        free(g);
        free(u);
        free(dg);
        free(du);
        free(rows);
    }
    assert_below("activate", &error[0], KS_TOLERANCE_ACTIVATE);
    assert_below("activate_diff", &error[1], KS_TOLERANCE_ACTIVATE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embed),    cmocka_unit_test(test_gather_scatter_round),
        cmocka_unit_test(test_add_bias), cmocka_unit_test(test_rope),
        cmocka_unit_test(test_split),    cmocka_unit_test(test_split_of_the_unusual),
        cmocka_unit_test(test_norms),    cmocka_unit_test(test_activations),
    };
    return cmocka_run_group_tests(tests, devices_setup, devices_teardown);
}
