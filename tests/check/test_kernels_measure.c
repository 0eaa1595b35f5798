/* measure.cu against its CPU twin: changes of logits from 1e-30 to 1.5e3, vocabularies from 5 to 262,144 tokens, ties, nothing, infinities;
 * and a row's bits against all that lies beside it. */
#include "check/check.h"
#include "check/device.h"
#include "check/tolerances.h"
#include "kernels/kernels.h"
#include "support/numbers.h"

#include <math.h>
#include <stdio.h>

static devices cpu;

/* Relative error of a probability; below the smallest normal double there are no digits to lose. */
static double p_error(double got, double want)
{
    return want < 1e-300 && got < 1e-300 ? 0 : relative(got, (long double)want);
}

static double same_or_nan(double got, double want)
{
    return isnan(want) ? (isnan(got) ? 0 : (double)INFINITY) : p_error(got, want);
}

/* Kernel and twin on n rows; the twin's facts of the baseline feed both. Fills out and twin. */
static void run(ks_measure *out, ks_measure *twin, const float *e, const float *l, const ks_baseline_row *base,
                const ks_measure_item *items, size_t n, size_t V)
{
    memset(out, 0, n * sizeof *out);
    memset(twin, 0, n * sizeof *twin);
    assert_int_equal(ks_k_measure(out, e, l, base, items, n, V, NULL), 0);
    assert_int_equal(cpu.b->measure(cpu.dev[0], twin, e, l, base, items, n, V), 0);
}

enum { FIGURES = 6 };
static const char *const NAMES[FIGURES] = {
    "KL", "reverse KL", "Jensen-Shannon", "total variation", "probabilities", "facts of the baseline"};

static void compare(worst w[FIGURES], const ks_measure *m, const ks_measure *twin, const char *what)
{
    const ks_cell *a = &m->cell, *b = &twin->cell;
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->top_changed, b->top_changed);
    worst_of(&w[0], same_or_nan(a->kl, b->kl), "%s", what);
    worst_of(&w[1], same_or_nan(a->kl_reverse, b->kl_reverse), "%s", what);
    worst_of(&w[2], same_or_nan(a->js, b->js), "%s", what);
    worst_of(&w[3], same_or_nan(a->tv, b->tv), "%s", what);
    worst_of(&w[4], same_or_nan(a->p_top, b->p_top), "%s, p_top", what);
    worst_of(&w[4], same_or_nan(m->p_next, twin->p_next), "%s, p_next", what);
    assert_true(same_or_nan(a->dlogit_top, b->dlogit_top) == 0 && same_or_nan(m->dlogit_next, twin->dlogit_next) == 0);
    for (int k = 0; k < KS_TOP_K; k++) {
        assert_int_equal(a->top_ids[k], b->top_ids[k]);
        worst_of(&w[4], same_or_nan(a->top_p_baseline[k], b->top_p_baseline[k]), "%s, top p", what);
        worst_of(&w[4], same_or_nan(a->top_p_ablated[k], b->top_p_ablated[k]), "%s, top p'", what);
    }
}

static void compare_baseline(worst *w, const ks_baseline_row *a, const ks_baseline_row *b, const char *what)
{
    assert_int_equal(a->finite, b->finite);
    worst_of(w, same_or_nan(a->lse, b->lse), "%s, lse", what);
    worst_of(w, same_or_nan(a->entropy, b->entropy), "%s, entropy", what);
    for (int k = 0; k < KS_TOP_K; k++) {
        assert_int_equal(a->top_ids[k], b->top_ids[k]);
        worst_of(w, same_or_nan(a->top_p[k], b->top_p[k]), "%s, baseline p", what);
    }
}

static void test_against_twin(void **state)
{
    (void)state;
    enum { N = 7, BASES = 3 };
    static const double scales[] = {1e-30, 1e-20, 1e-12, 1e-6, 1e-3, 3e-2, 0.3, 3, 30, 300, 1500};
    static const size_t sizes[] = {5, 32, 77, 1000, 263};
    rng r = {6};
    worst w[2][FIGURES] = {{{0}}}; /* [1]: some logits change by hundreds */
    for (int c = 0; c < 11 * 5 * 3; c++) {
        char what[80];
        const size_t V = sizes[c % 5];
        const double scale = scales[c / 5 % 11], spread = (double[]){1, 4, 12}[c / 55];
        const int far = scale > 100 || (scale > 0.1 && c % 4 == 0);
        float *l = rng_floats(&r, BASES * V, spread), *e = rng_floats(&r, N * V, scale);
        ks_baseline_row base[BASES], base_twin[BASES];
        ks_measure_item items[N];
        ks_measure out[N], twin[N], alone;
        snprintf(what, sizeof what, "case %d, V %zu, scale %g, spread %g", c, V, scale, spread);
        for (size_t i = 0; i < N; i++)
            items[i] = (ks_measure_item){(int64_t)rng_below(&r, BASES), i ? (int32_t)rng_below(&r, V) : -1, i % 4 != 3};
        for (size_t i = 0; i < N && c % 4 == 0; i++) e[i * V + rng_below(&r, V)] *= 1e3f; /* one token changes much more than the others */

        assert_int_equal(ks_k_baseline(base, l, BASES, V, NULL), 0);
        assert_int_equal(cpu.b->baseline(cpu.dev[0], base_twin, l, BASES, V), 0);
        for (int i = 0; i < BASES; i++) compare_baseline(&w[0][5], &base[i], &base_twin[i], what);
        run(out, twin, e, l, base_twin, items, N, V);
        for (int i = 0; i < N; i++) compare(w[far], &out[i], &twin[i], what);

        /* Alone, with threads in another order. */
        ks_check_seed((uint64_t)c);
        for (size_t i = 0; i < N; i++) {
            memset(&alone, 0, sizeof alone);
            assert_int_equal(ks_k_measure(&alone, e + i * V, l, base_twin, &items[i], 1, V, NULL), 0);
            assert_true(same_bits(&alone, &out[i], sizeof alone));
        }
        free(l), free(e);
    }
    for (int k = 0; k < FIGURES; k++) {
        assert_below(NAMES[k], &w[0][k], KS_TOLERANCE_MEASURE);
        assert_below(NAMES[k], &w[1][k], KS_TOLERANCE_MEASURE_FAR);
    }
}

static void test_largest_vocabulary(void **state)
{
    (void)state;
    enum { V = 262144 };
    rng r = {10};
    worst w[FIGURES] = {{0}};
    float *l = rng_floats(&r, V, 3), *e = rng_floats(&r, V, 0.1);
    const ks_measure_item item = {0, V - 1, true};
    ks_baseline_row base, base_twin;
    ks_measure out, twin;
    assert_int_equal(ks_k_baseline(&base, l, 1, V, NULL), 0);
    assert_int_equal(cpu.b->baseline(cpu.dev[0], &base_twin, l, 1, V), 0);
    compare_baseline(&w[5], &base, &base_twin, "large");
    run(&out, &twin, e, l, &base_twin, &item, 1, V);
    compare(w, &out, &twin, "large");
    for (int k = 0; k < FIGURES; k++) assert_below(NAMES[k], &w[k], KS_TOLERANCE_MEASURE);
    free(l), free(e);
}

/* No change, and a change that all logits share: exactly 0. Ties: the lowest ids win, wherever they lie. */
static void test_nothing(void **state)
{
    (void)state;
    rng r = {7};
    for (size_t V = 5; V < 600; V += 17) {
        worst w[FIGURES] = {{0}};
        float *l = rng_floats(&r, V, 3), *e = calloc(V, sizeof *e);
        ks_baseline_row base;
        ks_measure m, twin;
        const ks_measure_item item = {0, -1, true};
        if (V % 2) l[V - 1] = l[0];
        else memset(l, 0, V * sizeof *l);
        for (int common = 0; common < 2; common++) {
            for (size_t i = 0; i < V && common; i++) e[i] = 700;
            assert_int_equal(ks_k_baseline(&base, l, 1, V, NULL), 0);
            run(&m, &twin, e, l, &base, &item, 1, V);
            assert_int_equal(m.cell.status, KS_CELL_DONE);
            assert_true(m.cell.kl == 0 && m.cell.kl_reverse == 0 && m.cell.js == 0 && m.cell.tv == 0 && m.cell.top_changed == 0);
            assert_true(isnan(m.p_next) && isnan(m.dlogit_next) && m.cell.dlogit_top == (common ? 700 : 0));
            assert_true(m.cell.p_top == base.top_p[0]);
            compare(w, &m, &twin, "nothing");
        }
        for (int k = 0; k < KS_TOP_K && V % 2 == 0; k++) assert_int_equal(base.top_ids[k], k);
        memset(e, 0, V * sizeof *e); /* groups of equal changes */
        for (size_t i = 0; i < V && V % 2 == 0; i++) e[i] = i % 3 == 2 ? 0.5f : 0;
        run(&m, &twin, e, l, &base, &item, 1, V);
        compare(w, &m, &twin, "ties");
        for (int k = 0; k < KS_TOP_K && V % 2 == 0 && V >= 15; k++) assert_int_equal(m.cell.top_ids[k], 3 * k + 2);
        for (int k = 0; k < FIGURES; k++) assert_true(w[k].value <= KS_TOLERANCE_MEASURE);
        free(l), free(e);
    }
}

static void test_not_finite(void **state)
{
    (void)state;
    rng r = {9};
    enum { V = 300 };
    const float bad[] = {NAN, INFINITY, -INFINITY};
    float *l = rng_floats(&r, 2 * V, 3), *e = rng_floats(&r, V, 1);
    for (int c = 0; c < 6; c++) {
        for (int at = 0; at < V; at += 99) {
            ks_baseline_row base[2];
            ks_measure m;
            const ks_measure_item item = {1, 3, true};
            float *x = c < 3 ? e : l + V;
            const float keep = x[at];
            x[at] = bad[c % 3];
            assert_int_equal(ks_k_baseline(base, l, 2, V, NULL), 0);
            assert_true(base[0].finite && base[1].finite == (c < 3));
            assert_true(c < 3 || (isnan(base[1].lse) && isnan(base[1].entropy) && isnan(base[1].top_p[0]) && base[1].top_ids[0] == -1));
            assert_int_equal(ks_k_measure(&m, e, l, base, &item, 1, V, NULL), 0);
            assert_int_equal(m.cell.status, KS_CELL_NOT_FINITE);
            assert_true(isnan(m.cell.kl) && isnan(m.cell.kl_reverse) && isnan(m.cell.js) && isnan(m.cell.tv) && isnan(m.cell.p_top));
            assert_true(isnan(m.cell.dlogit_top) && isnan(m.p_next) && isnan(m.dlogit_next));
            for (int k = 0; k < KS_TOP_K; k++) assert_true(m.cell.top_ids[k] == -1 && isnan(m.cell.top_p_ablated[k]));
            x[at] = keep;
        }
    }
    assert_int_equal(ks_k_measure(NULL, NULL, NULL, NULL, NULL, 0, V, NULL), 0);
    assert_int_equal(ks_k_baseline(NULL, NULL, 0, V, NULL), 0);
    free(l), free(e);
}

static int setup(void **state)
{
    (void)state;
    devices_open(&cpu);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    devices_close(&cpu);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_twin),
        cmocka_unit_test(test_largest_vocabulary),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
