/* rows.cu, norm.cu, rope.cu and activate.cu against their CPU twins, on aligned and odd shapes, in several orders of threads; and
 * a row's bits against the rows beside it. */
#include "check/device.h"
#include "check/parts.h"
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
    int64_t *rows = host_new(NULL, n * sizeof *rows);
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

static int64_t *on_device(const int64_t *rows, size_t n)
{
    return device_new(rows, n * sizeof *rows);
}

static float *random_floats(size_t n, double scale)
{
    return host_own(rng_floats(&r, n, scale));
}

/* Host memory of n floats, NaN. */
static float *floats(size_t n)
{
    return host_new(NULL, n * sizeof(float));
}

/* Device memory of n floats; off by one float from any alignment where `odd`. */
static float *device_floats(const float *from, size_t n, bool odd)
{
    float *p = device_new(NULL, (n + odd) * sizeof *p);
    if (from) device_set(p + odd, from, n * sizeof *p);
    return p + odd;
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

/* got is on the device. */
static void assert_same(const char *what, const float *got, const float *want, size_t n, size_t D)
{
    float *at = malloc(n * D * sizeof *at + 1);
    assert_non_null(at);
    device_get(at, got, n * D * sizeof *at);
    for (size_t i = 0; i < n * D; i++) {
        if (!same_bits(at + i, want + i, sizeof *at)) {
            fail_msg("%s: row %zu, column %zu of [%zu, %zu]: %.9g, expected %.9g", what, i / D, i % D, n, D, (double)at[i],
                     (double)want[i]);
        }
    }
    free(at);
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
        const size_t D = WIDTHS[c / 3 % N_WIDTHS], n = COUNTS[c / 3 / N_WIDTHS], bytes = ALL * D * ks_dtype_size(type);
        unsigned char *table = host_new(NULL, bytes);
        for (size_t i = 0; i < bytes; i++) table[i] = (unsigned char)rng_below(&r, 256);
        for (size_t i = 0; i < ALL * D; i++) { /* neither NaN nor infinite */
            if (type == KS_F32) table[4 * i + 3] = (unsigned char)(table[4 * i + 3] & 0xbf);
            else table[2 * i + 1] = (unsigned char)(table[2 * i + 1] & 0xbf);
        }
        const ks_tensor tensor = {.data = table, .dtype = type, .rows = ALL, .cols = (int64_t)D, .ld = (int64_t)D};
        int32_t *ids = host_new(NULL, n * sizeof *ids);
        for (size_t i = 0; i < n; i++) ids[i] = (int32_t)rng_below(&r, ALL);
        const void *d_table = device_new(table, bytes);
        const int32_t *d_ids = device_new(ids, n * sizeof *ids);
        float *want = floats(n * D), *got = device_floats(NULL, n * D, false);
        assert_int_equal(cpu()->embed(dev(), want, &tensor, ids, n, 1.7f), 0);
        device_run(ks_k_embed, got, d_table, k_types[c % 3], d_ids, n, D, 1.7f);
        assert_same("embed", got, want, n, D);
        device_end();
    }
}

static void test_gather_add_round(void **state)
{
    (void)state;
    for (size_t c = 0; c < 2 * N_WIDTHS * N_COUNTS; c++) {
        const bool odd = c % 2;
        const size_t D = WIDTHS[c / 2 % N_WIDTHS], n = COUNTS[c / 2 / N_WIDTHS], size = ALL * D;
        float *x = random_floats(size, 1), *sum = random_floats(size, 1e-2), *want = floats(n * D);
        int64_t *rows = some_rows(n, ALL), *others = some_rows(n, ALL);
        const int64_t *d_rows = on_device(rows, n), *d_others = on_device(others, n);
        float *from = device_floats(x, size, odd), *got = device_floats(NULL, n * D, odd), *got_sum = device_floats(sum, size, odd);
        assert_int_equal(cpu()->gather(dev(), want, x, rows, n, D * sizeof *x), 0);
        device_run(ks_k_gather, got, from, d_rows, n, D * sizeof *x);
        assert_same("gather", got, want, n, D);
        /* Rows of one and of three bf16 parts, any bits: a third of the rows have room in x. */
        int64_t *few = host_new(rows, n * sizeof *rows);
        for (size_t i = 0; i < n; i++) few[i] %= ALL / 3;
        const int64_t *d_few = on_device(few, n);
        for (size_t parts = 1; parts <= 3; parts += 2) {
            const size_t bytes = parts * D * sizeof(uint16_t);
            char *d_some = device_new(NULL, n * bytes);
            device_run(ks_k_gather, d_some, from, d_few, n, bytes);
            const char *some = device_read(d_some, n * bytes);
            for (size_t i = 0; i < n; i++) assert_memory_equal(some + i * bytes, (const char *)x + (size_t)few[i] * bytes, bytes);
        }

        assert_int_equal(cpu()->add(dev(), sum, sum, want, others, n, D), 0);
        device_run(ks_k_add, got_sum, got_sum, got, d_others, n, D);
        assert_same("add to some rows", got_sum, sum, ALL, D);
        float *all = floats(n * D), *got_all = device_floats(NULL, n * D, odd);
        assert_int_equal(cpu()->add(dev(), all, x, want, NULL, n, D), 0);
        device_run(ks_k_add, got_all, from, got, NULL, n, D);
        assert_same("add", got_all, all, n, D);

        assert_int_equal(cpu()->round_diff(dev(), sum, others, x, rows, n, D), 0);
        device_run(ks_k_round_diff, got_sum, d_others, from, d_rows, n, D);
        assert_same("round_diff", got_sum, sum, ALL, D);
        device_end();
    }
}

static void test_add_bias(void **state)
{
    (void)state;
    for (size_t c = 0; c < 2 * N_WIDTHS * N_COUNTS; c++) {
        const size_t N = WIDTHS[c / 2 % N_WIDTHS], n = COUNTS[c / 2 / N_WIDTHS], ldy = N + (c % 2 ? 3 : 4);
        float *y = random_floats(n * ldy, 1), *bias = random_floats(N, 1), *got = device_floats(y, n * ldy, false);
        const float *d_bias = device_floats(bias, N, false);
        device_run(ks_k_add_bias, got, ldy, d_bias, n, N);
        for (size_t i = 0; i < n * ldy; i++) {
            if (i % ldy < N) y[i] += bias[i % ldy];
        }
        assert_same("add_bias", got, y, n, ldy);
        device_end();
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
        float *x = random_floats(n * D, 1), *cosine = random_floats(ALL * dim / 2, 1), *sine = random_floats(ALL * dim / 2, 1);
        int64_t *rows = some_rows(n, ALL);
        float *got = device_floats(x, n * D, false);
        const float *d_cosine = device_floats(cosine, ALL * dim / 2, false), *d_sine = device_floats(sine, ALL * dim / 2, false);
        const int64_t *d_rows = on_device(rows, n);
        device_run(ks_k_rope, got, n, heads, E, dim, d_cosine, d_sine, d_rows);
        assert_int_equal(cpu()->rope(dev(), x, n, heads, E, dim, cosine, sine, rows), 0);
        assert_same("rope", got, x, n, D);
        device_end();
    }
}

/* ---- bf16 parts ---- */

/* parts [form][K] of x [K], by a norm that has nothing to do but to multiply ones with weights x. */
static const uint16_t *split(int form, const float *x, size_t K)
{
    float *ones = floats(K);
    for (size_t i = 0; i < K; i++) ones[i] = 1;
    const float *d_ones = device_floats(ones, K, false), *d_x = device_floats(x, K, false);
    uint16_t *parts = device_new(NULL, K * ks_form_bytes(form));
    device_run(ks_k_norm, parts, form, NULL, NULL, d_ones, NULL, 1, K, KS_NORM_RMS, 0, d_x, NULL);
    return device_read(parts, K * ks_form_bytes(form));
}

static void test_parts(void **state)
{
    (void)state;
    for (size_t c = 0; c < 3 * N_WIDTHS; c++) {
        const int form = 1 + (int)(c % 3);
        const size_t K = WIDTHS[c / 3];
        float *x = random_floats(K, 1), *rounded = floats(K);
        for (size_t i = 0; i < K; i++) x[i] *= powf(10, (float)(60 * rng_uniform(&r) - 30));
        const uint16_t *parts = split(form, x, K);

        /* The twin's rounding: round_diff of no change leaves bf16(x) - x, which is exact. */
        memset(rounded, 0, K * sizeof *rounded);
        assert_int_equal(cpu()->round_diff(dev(), rounded, &(int64_t){0}, x, &(int64_t){0}, 1, K), 0);
        static const double left[] = {0x1p-8, 0x1p-16, 0};
        for (size_t i = 0; i < K; i++) {
            double sum = 0;
            for (size_t p = 0; p < (size_t)form; p++) sum += (double)ks_f32_of_bf16(parts[p * K + i]);
            assert_true(ks_f32_of_bf16(parts[i]) == x[i] + rounded[i]);
            assert_true(fabs((double)x[i] - sum) <= left[form - 1] * fabs((double)x[i]) + 0x1p-134); /* half a subnormal */
        }
        device_end();
    }
}

static void test_parts_of_the_unusual(void **state)
{
    (void)state;
    const float x[] = {INFINITY,     -INFINITY, NAN,         0.0f,        -0.0f,    0x1.fffffep127f,
                       -0x1.ffp127f, 0x1p-149f, 1 + 0x1p-8f, 1 + 0x3p-8f, 0x1p-130f};
    enum { N = sizeof x / sizeof *x };
    const uint16_t *hi = split(3, x, N), *mid = hi + N, *lo = mid + N, *alone = split(1, x, N);
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
    device_end();
}

/* ---- norms ---- */

static const double EFFECTS[] = {0, 1e-30, 1e-20, 1e-10, 1e-5, 1e-2, 1, 1e2};
enum { N_EFFECTS = sizeof EFFECTS / sizeof *EFFECTS };

static void test_norms(void **state)
{
    (void)state;
    worst state_error = {0}, tape_error = {0}, diff_error = {0};
    static const float zeros[ALL] = {0};
    int64_t all_rows[ALL];
    for (size_t i = 0; i < ALL; i++) all_rows[i] = (int64_t)i;
    for (size_t c = 0; c < N_WIDTHS * N_EFFECTS * 4; c++) {
        const size_t D = WIDTHS[c % N_WIDTHS], n = COUNTS[1 + rng_below(&r, N_COUNTS - 1)], size = ALL * D;
        const double effect = EFFECTS[c / N_WIDTHS % N_EFFECTS];
        const int kind = c / N_WIDTHS / N_EFFECTS % 2 ? KS_NORM_LAYER : KS_NORM_RMS;
        const bool odd = rng_below(&r, 2), listed = rng_below(&r, 2), taped = rng_below(&r, 4), along = rng_below(&r, 4) == 0;
        float *x = random_floats(size, c % 3 ? 1 : 30), *d = random_floats(size, effect), *weight = random_floats(D, 1),
              *bias = random_floats(D, 1);
        for (size_t i = 0; i < size; i++) {
            if (kind == KS_NORM_LAYER) x[i] += 3;
            if (along) d[i] = (float)((double)x[i] * effect); /* a row's length changes, its direction hardly */
        }
        int64_t *rows = some_rows(n, ALL), *d_rows = some_rows(n, ALL);
        const ks_norm p = {kind, 1e-5f, weight, c % 2 ? bias : NULL};
        const bool mean = kind == KS_NORM_LAYER;
        float want_tape[2][ALL] = {{0}}, got_tape[2][ALL], *want_y = floats(n * D), *want_dy = floats(n * D);
        const ks_norm_tape tape = {mean ? want_tape[0] : NULL, want_tape[1]};
        assert_int_equal(cpu()->norm(dev(), want_y, KS_FORM_F32, taped ? &tape : NULL, x, listed ? rows : NULL, n, D, &p), 0);
        assert_int_equal(cpu()->norm_diff(dev(), want_dy, KS_FORM_F32, d, d_rows, x, &tape, rows, n, D, &p), 0);

        const float *x_k = device_floats(x, size, odd), *d_k = device_floats(d, size, odd), *w_k = device_floats(weight, D, false),
                    *b_k = p.bias ? device_floats(bias, D, false) : NULL;
        const int64_t *rows_k = on_device(rows, n), *d_rows_k = on_device(d_rows, n), *alone_k = listed ? rows_k : on_device(all_rows, n);
        float *y = device_floats(NULL, n * D, odd), *dy = device_floats(NULL, n * D, odd);
        float *tape_k[2];
        for (int k = 0; k < 2; k++) tape_k[k] = device_new(zeros, sizeof zeros);
        device_shuffle(c + 1);
        device_run(ks_k_norm, y, KS_FORM_F32, taped && mean ? tape_k[0] : NULL, taped ? tape_k[1] : NULL, x_k, listed ? rows_k : NULL, n, D,
                   kind, p.eps, w_k, b_k);
        device_run(ks_k_norm_diff, dy, KS_FORM_F32, d_k, d_rows_k, x_k, rows_k, n, D, kind, p.eps, w_k);
        const float *got_y = device_read(y, n * D * sizeof *y), *got_dy = device_read(dy, n * D * sizeof *dy);
        for (int k = 0; k < 2; k++) device_get(got_tape[k], tape_k[k], sizeof got_tape[k]);
        for (size_t i = 0; i < n; i++) {
            worst_of(&state_error, row_distance(got_y + i * D, want_y + i * D, NULL, D), "D %zu, %s", D, ks_norm_name(kind));
            worst_of(&diff_error, row_distance(got_dy + i * D, want_dy + i * D, NULL, D), "D %zu, %s, effect %g%s", D, ks_norm_name(kind),
                     effect, along ? " along x" : "");
        }
        worst_of(&tape_error, row_distance(got_tape[0], want_tape[0], NULL, ALL), "mean, D %zu", D);
        worst_of(&tape_error, row_distance(got_tape[1], want_tape[1], NULL, ALL), "1/rms, D %zu", D);

        /* Another order of threads; each row alone. */
        float *again = device_floats(NULL, n * D, odd);
        device_shuffle(c + 1000);
        device_run(ks_k_norm_diff, again, KS_FORM_F32, d_k, d_rows_k, x_k, rows_k, n, D, kind, p.eps, w_k);
        assert_same("norm_diff, another order", again, got_dy, n, D);
        for (size_t i = 0; i < n; i++) {
            device_run(ks_k_norm_diff, again, KS_FORM_F32, d_k, d_rows_k + i, x_k, rows_k + i, 1, D, kind, p.eps, w_k);
            assert_same("norm_diff, a row alone", again, got_dy + i * D, 1, D);
            device_run(ks_k_norm, again, KS_FORM_F32, NULL, NULL, x_k, alone_k + i, 1, D, kind, p.eps, w_k, b_k);
            assert_same("norm, a row alone", again, got_y + i * D, 1, D);
        }
        const int form = 1 + (int)(c % 3);
        void *parts = device_new(NULL, n * D * ks_form_bytes(form));
        device_run(ks_k_norm, parts, form, NULL, NULL, x_k, listed ? rows_k : NULL, n, D, kind, p.eps, w_k, b_k);
        assert_parts("norm", parts, form, got_y, n, D);
        device_run(ks_k_norm_diff, parts, form, d_k, d_rows_k, x_k, rows_k, n, D, kind, p.eps, w_k);
        assert_parts("norm_diff", parts, form, got_dy, n, D);
        /* Memory of another alignment. */
        const float *x_a = device_floats(x, size, !odd), *d_a = device_floats(d, size, !odd);
        float *dy_a = device_floats(NULL, n * D, !odd);
        device_run(ks_k_norm_diff, dy_a, KS_FORM_F32, d_a, d_rows_k, x_a, rows_k, n, D, kind, p.eps, w_k);
        assert_same("norm_diff, another alignment", dy_a, got_dy, n, D);
        device_end();
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
        float *g = random_floats(size, width), *u = random_floats(size, gated ? 1 : width), *dg = random_floats(n * F, effect),
              *du = random_floats(n * F, effect);
        int64_t *rows = some_rows(n, ALL);
        float *want = floats(n * F), *want_d = floats(n * F);
        assert_int_equal(cpu()->activate(dev(), want, KS_FORM_F32, gated ? g : NULL, u, n, F, act), 0);
        assert_int_equal(cpu()->activate_diff(dev(), want_d, KS_FORM_F32, dg, du, gated ? g : NULL, u, rows, n, F, act), 0);

        /* d(f u) = df (u + du) + f du, and without gate d(s u) = ds (u + du) + s du, s u = f: where both nearly cancel, in few columns, the
         * last term is what errors are relative to. */
        float *f = floats(size), *terms = floats(n * F);
        assert_int_equal(cpu()->activate(dev(), f, KS_FORM_F32, NULL, gated ? g : u, ALL, F, act), 0);
        for (size_t i = 0; i < n * F; i++) {
            const size_t at = (size_t)rows[i / F] * F + i % F;
            terms[i] = gated ? f[at] * du[i] : f[at] / u[at] * du[i];
        }

        const float *g_k = gated ? device_floats(g, size, odd) : NULL, *dg_k = device_floats(dg, n * F, odd);
        float *u_k = device_floats(u, size, odd), *du_k = device_floats(du, n * F, odd);
        float *a = device_floats(NULL, n * F, odd), *da = device_floats(NULL, n * F, odd);
        const int64_t *rows_k = on_device(rows, n);
        device_shuffle(c + 1);
        device_run(ks_k_activate, a, KS_FORM_F32, g_k, u_k, n, F, act);
        device_run(ks_k_activate_diff, da, KS_FORM_F32, dg_k, du_k, g_k, u_k, rows_k, n, F, act);
        const float *got = device_read(a, n * F * sizeof *a), *got_d = device_read(da, n * F * sizeof *da);
        for (size_t i = 0; i < n; i++) {
            const char *name = ks_act_name(act), *gate = gated ? ", gated" : "";
            worst_of(&error[0], row_distance(got + i * F, want + i * F, NULL, F), "F %zu, %s%s, of %g", F, name, gate, width);
            worst_of(&error[1], row_distance(got_d + i * F, want_d + i * F, terms + i * F, F), "F %zu, %s%s, of %g, effect %g", F, name,
                     gate, width, effect);
        }

        const int form = 1 + (int)(c % 3);
        void *parts = device_new(NULL, n * F * ks_form_bytes(form));
        device_run(ks_k_activate, parts, form, g_k, u_k, n, F, act);
        assert_parts("activate", parts, form, got, n, F);
        device_run(ks_k_activate_diff, parts, form, dg_k, du_k, g_k, u_k, rows_k, n, F, act);
        assert_parts("activate_diff", parts, form, got_d, n, F);

        /* A row alone, another alignment, in place. */
        const float *g_a = gated ? device_floats(g, size, !odd) : NULL, *u_a = device_floats(u, size, !odd),
                    *dg_a = device_floats(dg, n * F, !odd);
        float *du_a = device_floats(du, n * F, !odd), *again = device_floats(NULL, F, false);
        for (size_t i = 0; i < n; i++) {
            device_run(ks_k_activate_diff, again, KS_FORM_F32, dg_a + i * F, du_a + i * F, g_a, u_a, rows_k + i, 1, F, act);
            assert_same("activate_diff, a row alone", again, got_d + i * F, 1, F);
        }
        device_run(ks_k_activate_diff, du_a, KS_FORM_F32, dg_a, du_a, g_a, u_a, rows_k, n, F, act);
        assert_same("activate_diff in place", du_a, got_d, n, F);
        device_run(ks_k_activate, u_k, KS_FORM_F32, g_k, u_k, n, F, act);
        assert_same("activate in place", u_k, got, n, F);
        device_end();
    }
    assert_below("activate", &error[0], KS_TOLERANCE_ACTIVATE);
    assert_below("activate_diff", &error[1], KS_TOLERANCE_ACTIVATE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embed),    cmocka_unit_test(test_gather_add_round),
        cmocka_unit_test(test_add_bias), cmocka_unit_test(test_rope),
        cmocka_unit_test(test_parts),    cmocka_unit_test(test_parts_of_the_unusual),
        cmocka_unit_test(test_norms),    cmocka_unit_test(test_activations),
    };
    return device_run_tests(tests);
}
