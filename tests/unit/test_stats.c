/* Statistics against mpmath (fixtures/make_stats.py) and against the published study. */
#include "analysis/distributions.h"
#include "analysis/stats.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static double relative(double found, double expected)
{
    if (isnan(expected)) return isnan(found) ? 0 : INFINITY;
    if (found == expected) return 0;
    return fabs(found - expected) / fabs(expected);
}

static size_t numbers(char *text, double *v, size_t max)
{
    size_t n = 0;
    char *save = NULL;
    for (char *p = strtok_r(text, " ", &save); p && n < max; p = strtok_r(NULL, " ", &save)) v[n++] = strtod(p, NULL);
    return n;
}

static void test_against_mpmath(void **state)
{
    (void)state;
    FILE *f = fopen("fixtures/stats.tsv", "r");
    assert_non_null(f);
    char line[16384];
    size_t students = 0, tests = 0;
    double worst = 0;
    while (fgets(line, sizeof line, f)) {
        char *save = NULL, *field[5] = {0};
        size_t n = 0;
        line[strcspn(line, "\n")] = 0;
        for (char *p = strtok_r(line, "\t", &save); p && n < 5; p = strtok_r(NULL, "\t", &save)) field[n++] = p;
        if (!strcmp(field[0], "student")) {
            const double t = strtod(field[1], NULL), df = strtod(field[2], NULL), p = strtod(field[3], NULL);
            const double error = relative(ks_student_p(t, df), p);
            if (!(error < 1e-11)) fail_msg("t %g df %g: p %.17g, expected %.17g", t, df, ks_student_p(t, df), p);
            assert_true(ks_student_p(-t, df) == ks_student_p(t, df));
            if (error > worst) worst = error;
            students++;
        } else {
            double a[64], b[64], moments[4], welch[3];
            const size_t na = numbers(field[1], a, 64), nb = numbers(field[2], b, 64);
            assert_int_equal(numbers(field[3], moments, 4), 4);
            assert_int_equal(numbers(field[4], welch, 3), 3);
            ks_summary sa, sb;
            assert_int_equal(ks_summarize(&sa, a, na), 0);
            assert_int_equal(ks_summarize(&sb, b, nb), 0);
            assert_true(relative(sa.mean, moments[0]) < 1e-14 && relative(sa.std_population, moments[1]) < 1e-13);
            assert_true(relative(sa.std_sample, moments[2]) < 1e-13 && relative(sa.median, moments[3]) < 1e-15);
            const ks_welch w = ks_welch_test(&sa, &sb);
            assert_true(relative(w.t, welch[0]) < 1e-11 && relative(w.df, welch[1]) < 1e-11 && relative(w.p, welch[2]) < 1e-10);
            assert_true(isnan(welch[2]) == (w.why != NULL));
            tests++;
        }
    }
    fclose(f);
    print_message("%zu p values, largest relative error %.1e; %zu tests\n", students, worst, tests);
    assert_true(students > 200 && tests >= 6);
}

/* The four full experiments. t has four decimals and df two as published, so p lies in the range that they allow, and the unrounded p does.
 */
static void test_published(void **state)
{
    (void)state;
    static const double published[][3] = {
        {-0.1174, 13.68, 0.908270}, {1.0033, 9.00, 0.341933}, {-1.8947, 11.45, 0.083653}, {-0.4091, 17.94, 0.687298}};
    for (int i = 0; i < 4; i++) {
        const double t = fabs(published[i][0]), df = published[i][1], p = published[i][2];
        assert_true(p > ks_student_p(t + 5e-5, df + 5e-3) && p < ks_student_p(t - 5e-5, df - 5e-3));
        assert_true(fabs(ks_student_p(t, df) - p) < 2.5e-5);
    }
}

static void test_no_number(void **state)
{
    (void)state;
    ks_summary none, one, two, same, far;
    assert_int_equal(ks_summarize(&none, NULL, 0), 0);
    assert_int_equal(ks_summarize(&one, (double[]){0.1}, 1), 0);
    assert_int_equal(ks_summarize(&two, (double[]){NAN, 1, 3, NAN}, 4), 0);
    assert_int_equal(ks_summarize(&same, (double[]){0.1, 0.1, 0.1}, 3), 0);
    assert_int_equal(ks_summarize(&far, (double[]){INFINITY, 1}, 2), 0);
    assert_true(none.n == 0 && isnan(none.mean) && isnan(none.min) && isnan(none.std_population));
    assert_true(one.n == 1 && one.std_population == 0 && isnan(one.std_sample) && one.median == 0.1);
    assert_true(two.n == 2 && two.missing == 2 && two.mean == 2 && two.median == 2 && two.std_population == 1);
    assert_true(same.std_sample == 0 && same.std_population == 0);

    assert_non_null(ks_welch_test(&one, &two).why);
    assert_true(isnan(ks_welch_test(&none, &two).p));
    assert_string_equal(ks_welch_test(&same, &same).why, "no variance in either group");
    assert_string_equal(ks_welch_test(&far, &two).why, "a value is not finite");
    /* One group without variance is a test with the other's degrees of freedom. */
    const ks_welch w = ks_welch_test(&same, &two);
    assert_true(!w.why && w.df == 1 && w.t < 0);
    assert_true(isnan(ks_student_p(1, 0)) && isnan(ks_student_p(NAN, 3)) && ks_student_p(INFINITY, 3) == 0);
    assert_true(relative(ks_student_p(2, INFINITY), 0.045500263896358414) < 1e-13 &&
                relative(ks_student_p(2, 1e13), 0.045500263896385) < 1e-11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_mpmath),
        cmocka_unit_test(test_published),
        cmocka_unit_test(test_no_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
