/* Statistics of two groups and of pairs on constants that can be counted by hand, and on what has no number. */
#include "analysis/distributions.h"
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

#define N(v) (sizeof(v) / sizeof *(v))
#define NEAR(found, expected, tolerance) assert_true(fabs((found) - (double)(expected)) <= (tolerance)*fabs((double)(expected)))

/* The generator's authors publish these words (kat_vectors of Random123). */
static void test_generator(void **state)
{
    (void)state;
    static const uint32_t zero[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    static const uint32_t ones[4] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
    ks_random r = ks_random_at(0, 0), s = {.key = {~0u, ~0u}, .counter = {~0u, ~0u, ~0u, ~0u}};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(ks_random_next(&r), zero[i]);
        assert_int_equal(ks_random_next(&s), ones[i]);
    }
    /* Uniform: 60,000 throws of a die, chi-squared with 5 degrees of freedom below its 99.99 % point. */
    size_t seen[6] = {0};
    double chi = 0;
    for (size_t d = 0; d < 60000; d++) {
        r = ks_random_at(7, d);
        seen[ks_random_below(&r, 6)]++;
    }
    for (int i = 0; i < 6; i++) chi += ((double)seen[i] - 10000) * ((double)seen[i] - 10000) / 10000;
    assert_true(chi < 25.7);
    assert_int_equal(ks_random_below(&r, 1), 0);
}

static void test_selection(void **state)
{
    (void)state;
    for (size_t turn = 0; turn < 2000; turn++) {
        ks_random r = ks_random_at(3, turn);
        double v[40], sorted[40];
        const size_t n = 1 + ks_random_below(&r, N(v));
        const uint32_t values = 1 + ks_random_below(&r, 50);
        for (size_t i = 0; i < n; i++) v[i] = sorted[i] = ks_random_below(&r, values);
        qsort(sorted, n, sizeof *sorted, ks_ascending);
        const size_t k = ks_random_below(&r, n);
        assert_true(ks_select_nth(v, n, k) == sorted[k]);
        const double p = ks_random_below(&r, 1001) / 1000.0;
        assert_true(ks_quantile(v, n, p) == ks_quantile_sorted(sorted, n, p));
    }
}

static void test_summary(void **state)
{
    (void)state;
    ks_summary s;
    assert_int_equal(ks_summarize(&s, (double[]){4, NAN, 1, 0, 2}, 5), 0);
    assert_true(s.n == 4 && s.missing == 1 && s.zeros == 1 && s.quartile_1 == 0.75 && s.quartile_3 == 2.5 && s.median == 1.5);
    NEAR(s.geometric, 2, 1e-15);
    assert_int_equal(ks_summarize(&s, (double[]){1e15 + 1, 1e15 + 2, 1e15 + 3}, 3), 0);
    assert_true(s.mean == 1e15 + 2 && s.std_sample == 1);
    assert_int_equal(ks_summarize(&s, (double[]){1e308, 1.5e308, 1.7e308}, 3), 0);
    NEAR(s.mean, 1.4e308, 1e-15);
    assert_true(isfinite(s.std_sample) && !s.why);
    assert_int_equal(ks_summarize(&s, (double[]){-1, INFINITY, 3}, 3), 0);
    assert_true(isnan(s.mean) && isnan(s.std_sample) && s.median == 3 && s.max == INFINITY && s.why);
    size_t used;
    assert_true(ks_share_above((double[]){1, 2, 3, NAN}, (double[]){1, 1, NAN, 0}, 4, &used) == 0.5 && used == 2);
}

static void test_ranks(void **state)
{
    (void)state;
    ks_rank_test m;
    /* 1 2 3 against 4 5 6: 2 of 20 splits are as far out. */
    assert_int_equal(ks_mann_whitney(&m, (double[]){1, 2, 3}, 3, (double[]){4, 5, 6, NAN}, 4), 0);
    assert_true(m.exact && m.statistic == 0 && m.hits == 2 && m.total == 20 && m.p == 0.1);
    assert_int_equal(ks_mann_whitney(&m, (double[]){1, 1}, 2, (double[]){1, 1}, 2), 0);
    assert_true(isnan(m.p) && m.why);
    /* 2, 2 under the common floor 1 are ties, though their values differ. */
    const double a[] = {0.1, 0.5, 3}, b[] = {0.9, 4, 5}, floor[] = {1, 1, 1}, tied_a[] = {0, 0, 3}, tied_b[] = {0, 4, 5};
    ks_rank_test g;
    assert_int_equal(ks_gehan(&g, a, floor, 3, b, floor, 3), 0);
    assert_int_equal(ks_mann_whitney(&m, tied_a, 3, tied_b, 3), 0);
    assert_true(g.exact && g.hits == m.hits && g.total == 20 && g.z == m.z && m.hits != 20);
    assert_true(g.statistic == -5); /* the two tied ones of a below 4 and 5, 3 below 4 and 5, 3 above the tied one of b */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generator),
        cmocka_unit_test(test_selection),
        cmocka_unit_test(test_summary),
        cmocka_unit_test(test_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
