/* measure.cu against its CPU twin: changes of logits from 1e-30 to 1.5e3, vocabularies from 5 to 262,144 tokens, ties, nothing, infinities;
 * and a row's bits against all that lies beside it. */
#include "check/device.h"
#include "check/tolerances.h"
#include "kernels/kernels.h"
#include "support/numbers.h"

#include <math.h>
#include <stdio.h>

/* Relative error of a probability; below the smallest normal double there are no digits to lose. */
static double p_error(double got, double want)
{
    return want < 1e-300 && got < 1e-300 ? 0 : relative(got, (long double)want);
}

static double same_or_nan(double got, double want)
{
    return isnan(want) ? (isnan(got) ? 0 : (double)INFINITY) : p_error(got, want);
}

/* A case's arrays, on the host and on the device. */
typedef struct problem {
    size_t V, bases, n;
    float *l, *e;           /* [bases, V], [n, V] */
    ks_baseline_row *base;  /* the twin's facts, which feed both */
    ks_measure_item *items; /* [n] */
    const float *d_l, *d_e;
    const void *d_base, *d_items;
} problem;

/* Facts of the baseline by kernel and twin, and all that measures need on the device. got [bases]. */
static void upload(problem *p, ks_baseline_row *got)
{
    p->base = host_new(NULL, p->bases * sizeof *p->base);
    p->d_l = device_new(p->l, p->bases * p->V * sizeof(float));
    p->d_e = device_new(p->e, p->n * p->V * sizeof(float));
    p->d_items = device_new(p->items, p->n * sizeof *p->items);
    void *facts = device_new(NULL, p->bases * sizeof *got);
    device_run(ks_k_baseline, facts, p->d_l, p->bases, p->V);
    assert_int_equal(all_devices.b->baseline(all_devices.dev[0], p->base, p->l, p->bases, p->V), 0);
    device_get(got, facts, p->bases * sizeof *got);
    p->d_base = device_new(p->base, p->bases * sizeof *p->base);
}

/* The kernel's own facts instead of the twin's. */
static void use_facts(problem *p, ks_baseline_row *base)
{
    p->base = base;
    p->d_base = device_new(base, p->bases * sizeof *base);
}

/* Kernel on rows first .. first + n - 1. Bytes that it leaves alone are 0. */
static void measure(const problem *p, ks_measure *out, size_t first, size_t n)
{
    memset(out, 0, n * sizeof *out);
    void *d_out = device_new(out, n * sizeof *out);
    device_run(ks_k_measure, d_out, p->d_e + first * p->V, p->d_l, p->d_base, (const ks_measure_item *)p->d_items + first, n, p->V);
    device_get(out, d_out, n * sizeof *out);
}

/* Kernel and twin on all rows. */
static void run(const problem *p, ks_measure *out, ks_measure *twin)
{
    memset(twin, 0, p->n * sizeof *twin);
    measure(p, out, 0, p->n);
    assert_int_equal(all_devices.b->measure(all_devices.dev[0], twin, p->e, p->l, p->base, p->items, p->n, p->V), 0);
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
        ks_baseline_row base[BASES];
        ks_measure_item items[N];
        ks_measure out[N], twin[N], alone;
        problem p = {.V = V, .bases = BASES, .n = N, .items = items};
        p.l = host_own(rng_floats(&r, BASES * V, spread));
        p.e = host_own(rng_floats(&r, N * V, scale));
        snprintf(what, sizeof what, "case %d, V %zu, scale %g, spread %g", c, V, scale, spread);
        for (size_t i = 0; i < N; i++)
            items[i] = (ks_measure_item){(int64_t)rng_below(&r, BASES), i ? (int32_t)rng_below(&r, V) : -1, i % 4 != 3};
        for (size_t i = 0; i < N && c % 4 == 0; i++) p.e[i * V + rng_below(&r, V)] *= 1e3f; /* one token changes much more than others */

        upload(&p, base);
        for (int i = 0; i < BASES; i++) compare_baseline(&w[0][5], &base[i], &p.base[i], what);
        run(&p, out, twin);
        for (int i = 0; i < N; i++) compare(w[far], &out[i], &twin[i], what);

        /* Alone, with threads in another order. */
        device_shuffle((uint64_t)c);
        for (size_t i = 0; i < N; i++) {
            measure(&p, &alone, i, 1);
            assert_true(same_bits(&alone, &out[i], sizeof alone));
        }
        device_end();
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
    ks_measure_item item = {0, V - 1, true};
    ks_baseline_row base;
    ks_measure out, twin;
    problem p = {.V = V, .bases = 1, .n = 1, .items = &item};
    p.l = host_own(rng_floats(&r, V, 3));
    p.e = host_own(rng_floats(&r, V, 0.1));
    upload(&p, &base);
    compare_baseline(&w[5], &base, p.base, "large");
    run(&p, &out, &twin);
    compare(w, &out, &twin, "large");
    for (int k = 0; k < FIGURES; k++) assert_below(NAMES[k], &w[k], KS_TOLERANCE_MEASURE);
    device_end();
}

/* No change, and a change that all logits share: exactly 0. Ties: the lowest ids win, wherever they lie. */
static void test_nothing(void **state)
{
    (void)state;
    rng r = {7};
    for (size_t V = 5; V < 600; V += 17) {
        worst w[FIGURES] = {{0}};
        ks_baseline_row base;
        ks_measure m, twin;
        ks_measure_item item = {0, -1, true};
        problem p = {.V = V, .bases = 1, .n = 1, .items = &item};
        p.l = host_own(rng_floats(&r, V, 3));
        p.e = host_own(calloc(V, sizeof *p.e));
        if (V % 2) p.l[V - 1] = p.l[0];
        else memset(p.l, 0, V * sizeof *p.l);
        for (int common = 0; common < 2; common++) {
            for (size_t i = 0; i < V && common; i++) p.e[i] = 700;
            upload(&p, &base);
            use_facts(&p, &base);
            run(&p, &m, &twin);
            assert_int_equal(m.cell.status, KS_CELL_DONE);
            assert_true(m.cell.kl == 0 && m.cell.kl_reverse == 0 && m.cell.js == 0 && m.cell.tv == 0 && m.cell.top_changed == 0);
            assert_true(isnan(m.p_next) && isnan(m.dlogit_next) && m.cell.dlogit_top == (common ? 700 : 0));
            assert_true(m.cell.p_top == base.top_p[0]);
            compare(w, &m, &twin, "nothing");
        }
        for (int k = 0; k < KS_TOP_K && V % 2 == 0; k++) assert_int_equal(base.top_ids[k], k);
        memset(p.e, 0, V * sizeof *p.e); /* groups of equal changes */
        for (size_t i = 0; i < V && V % 2 == 0; i++) p.e[i] = i % 3 == 2 ? 0.5f : 0;
        upload(&p, &base);
        run(&p, &m, &twin);
        compare(w, &m, &twin, "ties");
        for (int k = 0; k < KS_TOP_K && V % 2 == 0 && V >= 15; k++) assert_int_equal(m.cell.top_ids[k], 3 * k + 2);
        for (int k = 0; k < FIGURES; k++) assert_true(w[k].value <= KS_TOLERANCE_MEASURE);
        device_end();
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
            ks_measure_item item = {1, 3, true};
            problem p = {.V = V, .bases = 2, .n = 1, .l = l, .e = e, .items = &item};
            float *x = c < 3 ? e : l + V;
            const float keep = x[at];
            x[at] = bad[c % 3];
            upload(&p, base);
            assert_true(base[0].finite && base[1].finite == (c < 3));
            assert_true(c < 3 || (isnan(base[1].lse) && isnan(base[1].entropy) && isnan(base[1].top_p[0]) && base[1].top_ids[0] == -1));
            use_facts(&p, base);
            measure(&p, &m, 0, 1);
            assert_int_equal(m.cell.status, KS_CELL_NOT_FINITE);
            assert_true(isnan(m.cell.kl) && isnan(m.cell.kl_reverse) && isnan(m.cell.js) && isnan(m.cell.tv) && isnan(m.cell.p_top));
            assert_true(isnan(m.cell.dlogit_top) && isnan(m.p_next) && isnan(m.dlogit_next));
            for (int k = 0; k < KS_TOP_K; k++) assert_true(m.cell.top_ids[k] == -1 && isnan(m.cell.top_p_ablated[k]));
            x[at] = keep;
            device_end();
        }
    }
    device_run(ks_k_measure, NULL, NULL, NULL, NULL, NULL, 0, V);
    device_run(ks_k_baseline, NULL, NULL, 0, V);
    free(l), free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_twin),
        cmocka_unit_test(test_largest_vocabulary),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_not_finite),
    };
    return device_run_tests(tests);
}
