/* Many cells, layer choice, power, correlation and synergy on constants; and inputs that have no number, in every function. */
#include "analysis/choice.h"
#include "analysis/correlation.h"
#include "analysis/many_cells.h"
#include "analysis/power.h"
#include "analysis/resample.h"
#include "analysis/two_groups.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const ks_resample QUICK = {.seed = 2, .draws = 1000, .exact = 1048576, .level = 0.95};

/* Roughly normal, from a stream of its own. */
static double noise(ks_random *r)
{
    double sum = -6;
    for (int i = 0; i < 12; i++) sum += ks_random_next(r) * 0x1p-32;
    return sum;
}

static void test_corrections(void **state)
{
    (void)state;
    double p[] = {0.01, NAN, 0.04, 0.03, 0.005};
    double holm[5], bh[5];
    assert_int_equal(ks_holm(holm, p, 5), 0);
    assert_int_equal(ks_benjamini_hochberg(bh, p, 5), 0);
    const double holm_expected[] = {0.03, NAN, 0.06, 0.06, 0.02}, bh_expected[] = {0.02, NAN, 0.04, 0.04, 0.02};
    for (int i = 0; i < 5; i++) {
        assert_true(isnan(p[i]) ? isnan(holm[i]) && isnan(bh[i]) : fabs(holm[i] - holm_expected[i]) + fabs(bh[i] - bh_expected[i]) < 1e-15);
    }
    assert_int_equal(ks_holm(p, p, 5), 0); /* in place */
    assert_true(p[0] == holm[0] && isnan(p[1]) && p[4] == holm[4]);
    assert_int_equal(ks_holm(p, p, 0), 0);
}

/* Null scans of correlated cells: single-step maxT must reject in at most 5 % of them, testing each cell alone in many more. */
static void test_family_wise(void **state)
{
    (void)state;
    enum { SCANS = 400, CELLS = 12, SAMPLES = 10 };
    size_t family = 0, naive = 0, paired = 0;
    const uint8_t group[SAMPLES] = {0, 1, 0, 1, 0, 1, 0, 1, 1, 0};
    for (size_t k = 0; k < SCANS; k++) {
        ks_random r = ks_random_at(77, k);
        double v[CELLS * SAMPLES], t[CELLS], p[CELLS], common[SAMPLES];
        bool found = false, alone = false, found_paired = false;
        ks_max_t m;
        for (size_t s = 0; s < SAMPLES; s++) common[s] = noise(&r);
        for (size_t c = 0; c < CELLS; c++)
            for (size_t s = 0; s < SAMPLES; s++) v[c * SAMPLES + s] = 0.5 * common[s] + noise(&r);
        assert_int_equal(ks_max_t_groups(&m, t, p, v, CELLS, group, SAMPLES, NULL), 0);
        assert_true(m.exact && m.total == 252 && m.cells == CELLS);
        for (size_t c = 0; c < CELLS; c++) {
            found |= p[c] <= 0.05;
            alone |= fabs(t[c]) > 2.306;
            assert_true((p[c] <= 0.05) == (fabs(t[c]) > m.limit * (1 + 1e-8)) || fabs(fabs(t[c]) / m.limit - 1) < 1e-6);
        }
        assert_int_equal(ks_max_t_pairs(&m, t, p, v, CELLS, SAMPLES, NULL), 0);
        assert_true(m.exact && m.total == 1024);
        for (size_t c = 0; c < CELLS; c++) found_paired |= p[c] <= 0.05;
        family += found;
        naive += alone;
        paired += found_paired;
    }
    print_message("family-wise error of %d null scans: maxT %.3f, pairs %.3f, each cell alone %.3f\n", SCANS, (double)family / SCANS,
                  (double)paired / SCANS, (double)naive / SCANS);
    /* 5 % of 400 is 20; four standard errors are 17. */
    assert_true(family <= 37 && paired <= 37 && family >= 5 && paired >= 5 && naive > 60);
}

static void test_max_t(void **state)
{
    (void)state;
    ks_max_t m;
    double t[3], p[3], d[3 * 8];
    uint8_t group[8];
    /* Pairs: in cell 0 all eight differences are positive and nearly equal: 2 of 256 sign patterns are as far out. Cell 1 is its copy with
     * values 1e-200 times as large, cell 2 has no values. */
    for (size_t i = 0; i < 8; i++) {
        d[i] = 1 + 0.01 * (double)i;
        d[8 + i] = d[i] * 1e-200;
        d[16 + i] = NAN;
        group[i] = i < 2 ? 0 : i == 7 ? 9 : 1;
    }
    assert_int_equal(ks_max_t_pairs(&m, t, p, d, 3, 8, NULL), 0);
    assert_true(m.cells == 2 && p[0] == 2.0 / 256 && p[1] == p[0] && isnan(p[2]) && isnan(t[2]));
    ks_paired one;
    assert_int_equal(ks_compare_paired(&one, d, (double[8]){0}, 8, &QUICK), 0);
    assert_true(fabs(t[0] - one.t) < 1e-9 * one.t && fabs(t[1] - one.t) < 1e-9 * one.t);
    /* The two smallest of seven evenly spaced values against five, one left out: the two largest are as far out. The order of groups
     * turns the sign only. */
    double back[3], p_back[3];
    assert_int_equal(ks_max_t_groups(&m, t, p, d, 3, group, 8, NULL), 0);
    assert_true(m.exact && m.total == 21);
    for (int i = 0; i < 7; i++) group[i] = !group[i];
    assert_int_equal(ks_max_t_groups(&m, back, p_back, d, 3, group, 8, NULL), 0);
    assert_true(t[0] < 0 && back[0] == -t[0] && p_back[0] == p[0] && p[0] == 2.0 / 21);
    /* No test anywhere, and too few samples. */
    assert_int_equal(ks_max_t_groups(&m, t, p, (double[]){1, 1, 1, 1, INFINITY, 1, 2, 3}, 2, (uint8_t[]){0, 0, 1, 1}, 4, NULL), 0);
    assert_true(m.why && isnan(p[0]) && isnan(p[1]));
    assert_int_equal(ks_max_t_groups(&m, t, p, d, 3, (uint8_t[]){0, 0, 0, 0, 0, 0, 0, 0}, 8, NULL), 0);
    assert_true(m.why && isnan(p[0]));
    assert_int_equal(ks_max_t_groups(&m, t, p, d, 3, (uint8_t[]){0, 0, 0, 0, 0, 0, 0, 1}, 8, NULL), 0);
    assert_true(m.why && isnan(p[0]));
    assert_int_equal(ks_max_t_pairs(&m, t, p, d, 3, 0, NULL), 0);
    assert_non_null(m.why);
}

static void test_choice(void **state)
{
    (void)state;
    /* Layer 1 is largest for all samples: all three ways agree. */
    double v[3 * 6], held[6];
    const uint8_t group[] = {0, 0, 0, 1, 1, 1};
    ks_choice c;
    for (size_t i = 0; i < 6; i++) {
        v[i] = 1;
        v[6 + i] = 5 + (double)i;
        v[12 + i] = NAN;
    }
    assert_int_equal(ks_choose_layer(&c, held, v, 3, group, 6, KS_CHOOSE_MEAN, &QUICK), 0);
    assert_true(!c.why && c.layer == 1 && c.same == 7.5 && c.left_out == 7.5 && c.left_out_same == 6 && c.split_layer == 1 &&
                c.split_same > 0.999);
    assert_true(held[0] == 5 && held[5] == 10 && c.same_interval.low > 5 && c.same_interval.high < 10);
    assert_int_equal(ks_choose_layer(&c, NULL, v, 3, group, 6, KS_CHOOSE_DIFFERENCE, &QUICK), 0);
    assert_true(c.layer == 1 && c.same == -3);
    /* Pure noise with mean 1 in 20 layers: the chosen layer's own samples flatter it, those left out do not. */
    double same = 0, left_out = 0, split = 0;
    for (size_t turn = 0; turn < 100; turn++) {
        ks_random r = ks_random_at(4, turn);
        double w[20 * 8];
        for (size_t i = 0; i < 160; i++) w[i] = 1 + noise(&r);
        assert_int_equal(
            ks_choose_layer(&c, NULL, w, 20, NULL, 8, KS_CHOOSE_MEAN, &(ks_resample){.seed = turn, .draws = 100, .level = 0.95}), 0);
        same += c.same / 100;
        left_out += c.left_out / 100;
        split += c.split / 100;
    }
    print_message("a true effect of 1: same samples %.2f, left out %.2f, split %.2f\n", same, left_out, split);
    assert_true(same > 1.5 && fabs(left_out - 1) < 0.25 && fabs(split - 1) < 0.25);
    assert_int_equal(ks_choose_layer(&c, NULL, v + 12, 1, group, 6, KS_CHOOSE_MEAN, &QUICK), 0);
    assert_true(c.why && isnan(c.same));
    assert_int_equal(ks_choose_layer(&c, NULL, v, 3, NULL, 6, KS_CHOOSE_DIFFERENCE, &QUICK), 0);
    assert_non_null(c.why);
    assert_int_equal(ks_choose_layer(&c, NULL, v, 3, NULL, 1, KS_CHOOSE_MEAN, &QUICK), 0);
    assert_non_null(c.why);
}

static void test_power(void **state)
{
    (void)state;
    /* Cohen's (1988) table: d = 0.2, 0.5, 0.8 need 393 or 394, 64, 26 a group. */
    assert_int_equal(ks_power_t_needed(0.2, 0.05, 0.8), 394);
    assert_int_equal(ks_power_t_needed(0.5, 0.05, 0.8), 64);
    assert_int_equal(ks_power_t_needed(-0.8, 0.05, 0.8), 26);
    assert_int_equal(ks_power_t_needed(0, 0.05, 0.8), 0);
    assert_true(fabs(ks_power_t(0, 10, 0.05) - 0.05) < 1e-12);
    /* Nearly normal values in groups of 40: bootstrap and closed form agree roughly. */
    ks_random r = ks_random_at(9, 0);
    double a[40], b[40];
    for (int i = 0; i < 40; i++) {
        a[i] = 1e-170 * (10 + noise(&r));
        b[i] = 1e-170 * (10.7 + noise(&r));
    }
    ks_power p;
    assert_int_equal(ks_power_needed(&p, a, 40, b, 40, 0.05, 0.8, &QUICK), 0);
    print_message("power: d %.2f, closed form %zu, bootstrap %zu\n", p.d, p.closed, p.needed);
    assert_true(!p.why && p.needed > 4 && p.reached >= 0.8 && fabs((double)p.needed / (double)p.closed - 1) < 0.25 && p.error < 0.02);
    assert_int_equal(ks_power_needed(&p, a, 1, b, 40, 0.05, 0.8, &QUICK), 0);
    assert_true(p.why && !p.needed && !p.closed);
    assert_int_equal(ks_power_needed(&p, a, 40, a, 40, 0.05, 0.8, &QUICK), 0);
    assert_non_null(p.why);
}

static void test_layers_and_synergy(void **state)
{
    (void)state;
    enum { LAYERS = 5, SAMPLES = 8 };
    double x[LAYERS * SAMPLES], y[LAYERS * SAMPLES];
    ks_random r = ks_random_at(12, 0);
    for (size_t l = 0; l < LAYERS; l++)
        for (size_t s = 0; s < SAMPLES; s++) {
            x[l * SAMPLES + s] = (double)(l + 1) + 10 * (double)s;
            y[l * SAMPLES + s] = -x[l * SAMPLES + s];
        }
    ks_cluster_correlation c;
    assert_int_equal(ks_correlate_layers(&c, x, y, LAYERS, SAMPLES, &QUICK), 0);
    assert_true(!c.why && fabs(c.rho + 1) < 1e-15 && c.tau == -1 && c.within == -1 && c.interval_rho.why && c.points == 40);
    for (size_t i = 0; i < LAYERS * SAMPLES; i++) y[i] = x[i] + 20 * noise(&r);
    y[3] = NAN;
    assert_int_equal(ks_correlate_layers(&c, x, y, LAYERS, SAMPLES, &QUICK), 0);
    assert_true(c.points == 39 && c.missing == 1 && c.interval_rho.low < c.rho && c.rho < c.interval_rho.high);
    assert_true(c.interval_tau.low < c.tau && c.tau < c.interval_tau.high && c.interval_within.low < c.within);
    /* One layer: the same as over samples. */
    ks_correlation k;
    assert_int_equal(ks_correlate(&k, x, y + SAMPLES, SAMPLES, &QUICK), 0);
    assert_int_equal(ks_correlate_layers(&c, x, y + SAMPLES, 1, SAMPLES, &QUICK), 0);
    assert_true(k.rho == c.rho && k.tau == c.tau && k.interval_rho.low == c.interval_rho.low && k.interval_tau.high == c.interval_tau.high);
    assert_true(isnan(c.within) && c.interval_within.why);

    /* The whole is twice the sum of its parts in every sample. */
    double window[SAMPLES];
    for (size_t s = 0; s < SAMPLES; s++) {
        window[s] = 0;
        for (size_t l = 0; l < LAYERS; l++) window[s] += 2 * x[l * SAMPLES + s];
    }
    ks_synergy g;
    assert_int_equal(ks_synergy_test(&g, window, x, LAYERS, SAMPLES, &QUICK), 0);
    assert_true(g.sum.ratio.ratio == 2 && g.sum.permutation.p == 2.0 / 256 && g.max.b.max == 75 && g.sum.difference.low > 0);
    x[0] = NAN;
    assert_int_equal(ks_synergy_test(&g, window, x, LAYERS, SAMPLES, &QUICK), 0);
    assert_true(g.sum.missing == 1 && g.max.missing == 1 && g.sum.d.n == SAMPLES - 1);
    assert_int_equal(ks_synergy_test(&g, window, x, 0, SAMPLES, &QUICK), 0);
    assert_non_null(g.sum.why);
}

/* Whatever goes in: a number that is finite, or a reason. */
static void number_or_reason(double v, const char *why, const char *name)
{
    if (isfinite(v) == (why != NULL) || isinf(v)) fail_msg("%s is %g, why: %s", name, v, why ? why : "(none)");
}

static void interval_or_reason(const ks_interval *i, const char *name)
{
    number_or_reason(i->low, i->why, name);
    number_or_reason(i->high, i->why, name);
    if (!i->why && !(i->low <= i->high)) fail_msg("%s: %g to %g", name, i->low, i->high);
}

static void test_no_number(void **state)
{
    (void)state;
    const double bag[] = {0, 0, 1, 1, NAN, INFINITY, -INFINITY, -1, 1e-300, 1e300, 5e-324, 1.7e308, 0.5};
    for (size_t turn = 0; turn < 3000; turn++) {
        ks_random r = ks_random_at(31, turn);
        double a[6], b[6], f[12];
        const size_t na = ks_random_below(&r, 7), nb = turn % 2 ? na : ks_random_below(&r, 7);
        const uint32_t kinds = turn % 3 ? 13 : 5;
        for (int i = 0; i < 6; i++) {
            a[i] = bag[ks_random_below(&r, kinds)];
            b[i] = bag[ks_random_below(&r, kinds)];
            f[i] = bag[ks_random_below(&r, 4)];
            f[6 + i] = bag[ks_random_below(&r, kinds)];
        }
        const ks_resample how = {.seed = 1, .draws = 100, .exact = 1000, .level = 0.9};
        ks_two_groups g;
        assert_int_equal(ks_compare_groups(&g, a, f, na, b, f + 6, nb, &how), 0);
        number_or_reason(g.a.mean, g.a.why, "mean");
        number_or_reason(g.welch.p, g.welch.why, "Welch's p");
        interval_or_reason(&g.welch_interval, "Welch's interval");
        interval_or_reason(&g.difference, "difference");
        number_or_reason(g.mann_whitney.p, g.mann_whitney.why, "Mann-Whitney's p");
        number_or_reason(g.permutation.p, g.permutation.why, "permutation's p");
        number_or_reason(g.hedges.g, g.hedges.why, "g");
        interval_or_reason(&g.hedges.interval, "g's interval");
        number_or_reason(g.cliff.delta, g.cliff.why, "delta");
        interval_or_reason(&g.cliff.interval, "delta's interval");
        number_or_reason(g.ratio.ratio, g.ratio.why, "ratio");
        interval_or_reason(&g.ratio.interval, "ratio's interval");
        number_or_reason(g.logs.ratio, g.logs.why, "log ratio");
        interval_or_reason(&g.logs.interval, "log ratio's interval");
        number_or_reason(g.logs.welch.p, g.logs.welch.why, "log Welch's p");
        number_or_reason(g.censored.p, g.censored.why, "Gehan's p");
        if (na != nb) continue;
        ks_paired p;
        assert_int_equal(ks_compare_paired(&p, a, b, na, &how), 0);
        number_or_reason(p.p, p.why, "paired p");
        interval_or_reason(&p.difference, "paired difference");
        interval_or_reason(&p.median, "paired median");
        number_or_reason(p.signed_ranks.p, p.signed_ranks.why, "Wilcoxon's p");
        number_or_reason(p.permutation.p, p.permutation.why, "sign permutation's p");
        number_or_reason(p.hedges.g, p.hedges.why, "paired g");
        interval_or_reason(&p.hedges.interval, "paired g's interval");
        number_or_reason(p.ratio.ratio, p.ratio.why, "paired ratio");
        interval_or_reason(&p.ratio.interval, "paired ratio's interval");
        ks_correlation c;
        assert_int_equal(ks_correlate(&c, a, b, na, &how), 0);
        number_or_reason(c.rho, c.why, "rho");
        number_or_reason(c.p_tau, c.why, "tau's p");
        interval_or_reason(&c.interval_rho, "rho's interval");
        interval_or_reason(&c.interval_tau, "tau's interval");
        ks_power w;
        assert_int_equal(ks_power_needed(&w, a, na, b, nb, 0.05, 0.8, &how), 0);
        number_or_reason(w.reached, w.why, "power");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corrections), cmocka_unit_test(test_family_wise), cmocka_unit_test(test_max_t),
        cmocka_unit_test(test_choice),      cmocka_unit_test(test_power),       cmocka_unit_test(test_layers_and_synergy),
        cmocka_unit_test(test_no_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
