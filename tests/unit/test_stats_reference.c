/* Every statistic against fixtures/stats_reference.tsv, which tests/tools/make_stats_reference.py made with SciPy, mpmath and rational
 * numbers: closed forms to 1e-10, exact tests to the count, Monte Carlo within 4 standard errors. */
#include "analysis/correlation.h"
#include "analysis/distributions.h"
#include "analysis/many_cells.h"
#include "analysis/power.h"
#include "analysis/resample.h"
#include "analysis/two_groups.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 128, FIELDS = 48 };
static const ks_resample QUICK = {.seed = 5, .draws = 200, .exact = 1048576, .level = 0.95};

typedef struct record {
    const char *kind;
    double v[3][MOST];
    size_t n[3];
    char *name[FIELDS], *value[FIELDS];
    size_t values;
    size_t line;
} record;

static size_t checked[2]; /* doubles, counts */
static double worst;
static const char *worst_name = "";
static char worst_kept[32];

static const char *field(const record *r, const char *name)
{
    for (size_t i = 0; i < r->values; i++)
        if (!strcmp(r->name[i], name)) return r->value[i];
    return NULL;
}

static void near_within(const record *r, const char *name, double found, double tolerance)
{
    const char *text = field(r, name);
    if (!text) return;
    const double expected = strtod(text, NULL);
    checked[0]++;
    if (isnan(expected) && isnan(found)) return;
    /* A logarithm near 0 is that of a p near 1. */
    if (strstr(name, "logp") && fabs(found - expected) < 1e-14) return;
    const double size = fabs(expected) > 0 ? fabs(expected) : 1e-300;
    const double error = found == expected ? 0 : fabs(found - expected) / size;
    /* Subnormal results have fewer digits than the tolerance. */
    if (!(error <= tolerance) && !(fabs(found - expected) <= 1e-322))
        fail_msg("line %zu (%s): %s is %.17g, expected %.17g", r->line, r->kind, name, found, expected);
    if (error > worst && fabs(expected) > 1e-300) {
        worst = error;
        snprintf(worst_kept, sizeof worst_kept, "%s", name);
        worst_name = worst_kept;
    }
}

static void close_to(const record *r, const char *name, double found)
{
    near_within(r, name, found, 1e-10);
}

static void same(const record *r, const char *name, uint64_t found)
{
    const char *text = field(r, name);
    if (!text) return;
    checked[1]++;
    if (found != strtoull(text, NULL, 10))
        fail_msg("line %zu (%s): %s is %llu, expected %s", r->line, r->kind, name, (unsigned long long)found, text);
}

/* p from a count, where the reference has one. */
static void share_of(const record *r, const char *name, uint64_t hits, uint64_t total, double p)
{
    if (!field(r, name)) return;
    same(r, name, hits);
    if (hits) assert_true(p == (double)hits / (double)total);
}

static void monte_carlo(const record *r, const ks_permutation *exact, const ks_permutation *drawn)
{
    assert_true(!drawn->exact && drawn->total == 4000 && drawn->difference == exact->difference);
    /* The error of the true p, for the drawn one may be 1. */
    const double error = sqrt(exact->p * (1 - exact->p) / 4000) + 1.0 / 4000;
    if (fabs(drawn->p - exact->p) > 4 * error) fail_msg("line %zu: Monte Carlo %g, exact %g", r->line, drawn->p, exact->p);
}

static void check_two(const record *r)
{
    ks_two_groups g;
    ks_permutation drawn;
    const double *a = r->v[0], *b = r->v[1], *floors = r->v[2];
    const size_t na = r->n[0], nb = r->n[1];
    assert_int_equal(ks_compare_groups(&g, a, floors, na, b, floors + na, nb, &QUICK), 0);
    close_to(r, "mean", g.a.mean);
    close_to(r, "sd", g.a.std_sample);
    close_to(r, "sdp", g.a.std_population);
    close_to(r, "q1", g.a.quartile_1);
    close_to(r, "median", g.a.median);
    close_to(r, "q3", g.a.quartile_3);
    close_to(r, "geo", g.a.geometric);
    close_to(r, "t", g.welch.t);
    close_to(r, "df", g.welch.df);
    close_to(r, "p", g.welch.p);
    close_to(r, "logp", g.welch.log_p);
    /* The limits' end may be near zero: relative to the interval's width. */
    if (!g.welch.why) {
        const double expected = strtod(field(r, "wlow"), NULL);
        assert_true(fabs(g.welch_interval.low - expected) <= 1e-11 * (g.welch_interval.high - g.welch_interval.low));
        checked[0]++;
    }
    close_to(r, "g", g.hedges.g);
    close_to(r, "u", g.mann_whitney.statistic);
    close_to(r, "mwz", g.mann_whitney.z);
    close_to(r, "mwp", g.mann_whitney.p);
    share_of(r, "mwhits", g.mann_whitney.hits, g.mann_whitney.total, g.mann_whitney.p);
    same(r, "mwtotal", g.mann_whitney.total);
    if (!g.mann_whitney.why && !g.mann_whitney.exact) assert_true(g.mann_whitney.p == ks_normal_p(g.mann_whitney.z));
    close_to(r, "delta", g.cliff.delta);
    close_to(r, "clow", g.cliff.interval.low);
    close_to(r, "chigh", g.cliff.interval.high);
    share_of(r, "phits", g.permutation.hits, g.permutation.total, g.permutation.p);
    close_to(r, "gehan", g.censored.statistic);
    share_of(r, "ghits", g.censored.hits, g.censored.total, g.censored.p);
    if (field(r, "phits") && !g.permutation.why) {
        same(r, "ptotal", g.permutation.total);
        assert_int_equal(ks_permute_two(&drawn, a, na, b, nb, &(ks_resample){.seed = r->line, .draws = 4000, .level = 0.95}), 0);
        monte_carlo(r, &g.permutation, &drawn);
    }
    /* The interval's ends are the effects under which the t that was seen has 97.5 % and 2.5 % below it. */
    if (g.hedges.interval.why) return;
    const double root = sqrt((double)g.a.n * (double)g.b.n / (double)(g.a.n + g.b.n)), t = g.hedges.d * root;
    const double df = (double)(g.a.n + g.b.n) - 2, j = ks_gamma_ratio((df - 1) / 2) / sqrt(df / 2);
    assert_true(fabs(ks_noncentral_t(t, df, g.hedges.interval.low / j * root, 0) - 0.975) < 1e-10);
    assert_true(fabs(ks_noncentral_t(t, df, g.hedges.interval.high / j * root, 0) - 0.025) < 1e-10);
}

static void check_paired(const record *r)
{
    ks_paired p;
    ks_correlation c;
    ks_permutation drawn;
    const size_t n = r->n[0];
    assert_int_equal(ks_compare_paired(&p, r->v[0], r->v[1], n, &QUICK), 0);
    close_to(r, "pt", p.t);
    close_to(r, "plogp", p.log_p);
    close_to(r, "wplus", p.signed_ranks.statistic);
    close_to(r, "wz", p.signed_ranks.z);
    close_to(r, "wp", p.signed_ranks.p);
    share_of(r, "whits", p.signed_ranks.hits, p.signed_ranks.total, p.signed_ranks.p);
    share_of(r, "fhits", p.permutation.hits, p.permutation.total, p.permutation.p);
    if (field(r, "fhits") && !p.permutation.why) {
        assert_int_equal(ks_permute_pairs(&drawn, r->v[0], r->v[1], n, &(ks_resample){.seed = r->line, .draws = 4000, .level = 0.95}), 0);
        monte_carlo(r, &p.permutation, &drawn);
    }
    assert_int_equal(ks_correlate(&c, r->v[0], r->v[1], n, &QUICK), 0);
    if (n < 3) {
        assert_non_null(c.why);
        return;
    }
    close_to(r, "rho", c.rho);
    close_to(r, "tau", c.tau);
    same(r, "rhohits", c.hits_rho);
    same(r, "tauhits", c.hits_tau);
    if (field(r, "rhologp")) close_to(r, "rhologp", log(c.p_rho));
    if (field(r, "tauz")) close_to(r, "tauz", c.z_tau);
}

/* Intervals from the same draws by numpy, so equal but for rounding; the script holds numpy's against SciPy's own bootstrap. */
static void check_bootstrap(const record *r)
{
    static const char *const names[][2] = {{"mlow", "mhigh"}, {"dlow", "dhigh"}, {"glow", "ghigh"}};
    const ks_resample how = {.seed = (uint64_t)r->v[2][0], .draws = 10000, .level = 0.95};
    ks_interval i;
    for (int k = 0; k < 3; k++) {
        if (!field(r, names[k][0])) continue;
        assert_int_equal(ks_centre_interval(&i, r->v[0], r->n[0], (ks_centre)k, &how), 0);
        close_to(r, names[k][0], i.low);
        close_to(r, names[k][1], i.high);
    }
    if (!field(r, "rlow")) return;
    ks_mean_ratio ratio;
    assert_int_equal(ks_ratio_of_means(&ratio, r->v[0], r->n[0], r->v[1], r->n[1], &how), 0);
    close_to(r, "rlow", ratio.interval.low);
    close_to(r, "rhigh", ratio.interval.high);
}

static void check_adjusted(const record *r)
{
    double found[MOST];
    const size_t n = r->n[0];
    assert_int_equal(ks_holm(found, r->v[0], n), 0);
    for (size_t i = 0; i < n; i++) assert_true(fabs(found[i] - r->v[1][i]) <= 1e-14);
    assert_int_equal(ks_benjamini_hochberg(found, r->v[0], n), 0);
    for (size_t i = 0; i < n; i++) assert_true(fabs(found[i] - r->v[2][i]) <= 1e-14);
    checked[0] += 2 * n;
}

static void check_max_t(const record *r)
{
    const size_t na = (size_t)r->v[0][0], n = na + (size_t)r->v[0][1], cells = r->n[1] / n;
    const double total = strtod(field(r, "total"), NULL);
    double t[MOST], p[MOST], drawn[MOST];
    uint8_t group[MOST];
    ks_max_t m;
    for (size_t i = 0; i < n; i++) group[i] = i >= na;
    assert_int_equal(ks_max_t_groups(&m, t, p, r->v[1], cells, group, n, NULL), 0);
    if (m.why) {
        for (size_t c = 0; c < cells; c++) assert_true(isnan(r->v[2][c]));
        return;
    }
    assert_true(m.exact);
    same(r, "total", m.total);
    for (size_t c = 0; c < cells; c++) {
        checked[1]++;
        if (isnan(p[c]) != isnan(r->v[2][c]) || (!isnan(p[c]) && p[c] != r->v[2][c] / total))
            fail_msg("line %zu: cell %zu has p %g, expected %g / %g", r->line, c, p[c], r->v[2][c], total);
        ks_summary a, b;
        assert_int_equal(ks_summarize(&a, r->v[1] + c * n, na), 0);
        assert_int_equal(ks_summarize(&b, r->v[1] + c * n + na, n - na), 0);
        if (!isnan(p[c])) assert_true(fabs(t[c] - ks_welch_test(&a, &b).t) <= 1e-9 * fabs(t[c]) + 1e-12);
    }
    assert_int_equal(ks_max_t_groups(&m, t, drawn, r->v[1], cells, group, n, &(ks_resample){.seed = r->line, .draws = 4000, .level = 0.95}),
                     0);
    assert_true(!m.exact && m.total == 4000);
    for (size_t c = 0; c < cells; c++)
        if (!isnan(p[c])) assert_true(fabs(drawn[c] - p[c]) <= 4 * (sqrt(p[c] * (1 - p[c]) / 4000) + 1.0 / 4000));
}

static void check_power(const record *r)
{
    const size_t n = ks_power_t_needed(r->v[0][0], 0.05, 0.8);
    same(r, "n", n);
    /* SciPy's noncentral t has fewer digits than ours, which check_distribution holds against mpmath. */
    near_within(r, "power", ks_power_t(r->v[0][0], (double)n, 0.05), 1e-7);
}

static void check_distribution(const record *r)
{
    if (!strcmp(r->kind, "student")) {
        const double t = r->v[0][0], df = r->v[1][0], expected = strtod(field(r, "logp"), NULL);
        close_to(r, "logp", ks_student_log_p(t, df));
        if (expected > -700) {
            assert_true(fabs(ks_student_p(t, df) / exp(expected) - 1) < 1e-10);
            assert_true(fabs(ks_student_quantile(exp(expected), df) / t - 1) < 1e-10);
        }
    } else {
        const double found = ks_noncentral_t(r->v[0][0], r->v[1][0], r->v[2][0], 0);
        checked[0]++;
        assert_true(fabs(found - strtod(field(r, "cdf"), NULL)) < 1e-12);
        assert_true(fabs(found + ks_noncentral_t(r->v[0][0], r->v[1][0], r->v[2][0], 1) - 1) < 1e-12);
    }
}

static void test_reference(void **state)
{
    (void)state;
    FILE *f = fopen("fixtures/stats_reference.tsv", "r");
    assert_non_null(f);
    char *line = NULL;
    size_t room = 0, others = 0, kinds[4] = {0};
    record r = {0};
    while (getline(&line, &room, f) > 0) {
        char *save = NULL, *number = NULL;
        size_t lists = 0;
        line[strcspn(line, "\n")] = 0;
        r = (record){.line = r.line + 1, .kind = strtok_r(line, "\t", &save)};
        for (char *p = strtok_r(NULL, "\t", &save); p; p = strtok_r(NULL, "\t", &save)) {
            char *equals = strchr(p, '=');
            if (equals) {
                assert_true(r.values < FIELDS);
                *equals = 0;
                r.name[r.values] = p;
                r.value[r.values++] = equals + 1;
                continue;
            }
            assert_true(lists < 3);
            for (char *x = strtok_r(p, ",", &number); x; x = strtok_r(NULL, ",", &number)) {
                assert_true(r.n[lists] < MOST);
                r.v[lists][r.n[lists]++] = strtod(x, NULL);
            }
            lists++;
        }
        if (!strcmp(r.kind, "two")) check_two(&r), kinds[0]++;
        else if (!strcmp(r.kind, "paired")) check_paired(&r), kinds[1]++;
        else if (!strcmp(r.kind, "boot")) check_bootstrap(&r), others++;
        else if (!strcmp(r.kind, "adjust")) check_adjusted(&r), others++;
        else if (!strcmp(r.kind, "maxt")) check_max_t(&r), others++;
        else if (!strcmp(r.kind, "power")) check_power(&r), others++;
        else check_distribution(&r), kinds[strcmp(r.kind, "nct") ? 2 : 3]++;
    }
    free(line);
    fclose(f);
    print_message(
        "%zu pairs of groups, %zu paired, %zu Student, %zu noncentral; %zu numbers, %zu counts; largest relative error %.1e (%s)\n",
        kinds[0], kinds[1], kinds[2], kinds[3], checked[0], checked[1], worst, worst_name);
    assert_int_equal(others, 51);
    assert_true(kinds[0] >= 525 && kinds[1] >= 524 && kinds[2] >= 50 && kinds[3] >= 70 && checked[0] > 13000 && checked[1] > 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reference)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
