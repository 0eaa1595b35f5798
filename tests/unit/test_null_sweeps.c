/* Layer scans without any difference between the groups: how often does each way of reading them find one? Effects are lognormal,
 * with heavy tails and with light ones, layers correlated, 10 samples against 10, 30 layers. KS_NULL_SWEEPS=N: so many sweeps instead of
 * 2,000. docs/statistics.md has the figures. */
#include "analysis/choice.h"
#include "analysis/distributions.h"
#include "analysis/many_cells.h"
#include "analysis/resample.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 30, N = 10, S = 2 * N };
enum { SMALLEST, PEAK, FURTHEST, BH, HOLM, MAX_T, PEAK_OUT, FURTHEST_OUT, WAYS };
static const char *const words[WAYS] = {
    [SMALLEST] = "naive: any layer with Welch p <= 0.05",
    [PEAK] = "naive: Welch in the layer of largest mean effect",
    [FURTHEST] = "naive: Welch in the layer of largest difference",
    [BH] = "any layer by Benjamini-Hochberg",
    [HOLM] = "any layer by Holm",
    [MAX_T] = "any layer by maxT",
    [PEAK_OUT] = "left out: Welch, layer of largest mean effect",
    [FURTHEST_OUT] = "left out: Welch, layer of largest difference",
};

static double normal(ks_random *r)
{
    return ks_normal_quantile((ks_random_next(r) + 0.5) / 4294967296.0);
}

/* log KL = a hill over the layers + something of the sample + a walk along its layers (correlation 0.9 from one to the next). */
static void null_sweep(double *v, uint64_t number, double spread)
{
    ks_random r = ks_random_at(2026, number);
    for (int s = 0; s < S; s++) {
        const double own = normal(&r);
        double walk = normal(&r);
        for (int l = 0; l < LAYERS; l++) {
            if (l) walk = 0.9 * walk + sqrt(1 - 0.81) * normal(&r);
            v[l * S + s] = exp(-8 - 0.01 * (l - 12) * (l - 12) + spread * (own + walk));
        }
    }
}

static double welch(const double *v)
{
    ks_summary a, b;
    assert_int_equal(ks_summarize(&a, v, N), 0);
    assert_int_equal(ks_summarize(&b, v + N, N), 0);
    return ks_welch_test(&a, &b).p;
}

static double smallest(const double *p)
{
    double least = 1;
    for (int l = 0; l < LAYERS; l++) least = p[l] < least ? p[l] : least;
    return least;
}

static void look(double spread)
{
    const char *wanted = getenv("KS_NULL_SWEEPS");
    const long sweeps = wanted ? strtol(wanted, NULL, 10) : 2000;
    static double v[LAYERS * S];
    uint8_t group[S];
    long found[WAYS] = {0};
    assert_true(sweeps > 0);
    for (int s = 0; s < S; s++) group[s] = s >= N;
    for (long i = 0; i < sweeps; i++) {
        double p[LAYERS], adjusted[LAYERS], t[LAYERS], held_out[S];
        null_sweep(v, (uint64_t)i, spread);
        for (int l = 0; l < LAYERS; l++) p[l] = welch(v + l * S);
        found[SMALLEST] += smallest(p) <= 0.05;
        assert_int_equal(ks_holm(adjusted, p, LAYERS), 0);
        found[HOLM] += smallest(adjusted) <= 0.05;
        assert_int_equal(ks_benjamini_hochberg(adjusted, p, LAYERS), 0);
        found[BH] += smallest(adjusted) <= 0.05;
        ks_max_t max;
        const ks_resample drawn = {.seed = (uint64_t)i + 1, .draws = 999, .exact = 0, .level = 0.95};
        assert_int_equal(ks_max_t_groups(&max, t, adjusted, v, LAYERS, group, S, &drawn), 0);
        found[MAX_T] += smallest(adjusted) <= 0.05;
        for (int k = 0; k < 2; k++) {
            ks_choice c;
            const ks_resample few = {.seed = 1, .draws = 100, .exact = 0, .level = 0.95}; /* its intervals are not looked at */
            assert_int_equal(ks_choose_layer(&c, held_out, v, LAYERS, group, S, k ? KS_CHOOSE_DIFFERENCE : KS_CHOOSE_MEAN, &few), 0);
            found[k ? FURTHEST : PEAK] += p[c.layer] <= 0.05;
            found[k ? FURTHEST_OUT : PEAK_OUT] += welch(held_out) <= 0.05;
        }
    }
    const double n = (double)sweeps;
    print_message("%ld null sweeps, standard deviation of log KL %.2f\n", sweeps, spread * sqrt(2));
    for (int k = 0; k < WAYS; k++)
        print_message("%-52s %5.2f %% +- %.2f\n", words[k], 100 * (double)found[k] / n,
                      100 * sqrt((double)found[k] / n * (1 - (double)found[k] / n) / n));
    assert_true((double)found[MAX_T] <= 0.055 * n && (double)found[MAX_T] >= 0.03 * n);
    assert_true((double)found[HOLM] <= 0.055 * n);
    assert_true((double)found[SMALLEST] > 0.1 * n); /* or the sweeps would be too tame to show anything */
}

static void test_null_sweeps(void **state)
{
    (void)state;
    look(1);
    look(0.1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_null_sweeps)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
