/* Everything between the two test groups in one window. */
#include "analysis/tables_private.h"
#include "analysis/two_groups.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

typedef struct line {
    const char *what;
    double estimate;
    const ks_interval *interval; /* or NULL */
    double statistic;
    double p, error;
    const char *how, *why;
} line;

static void add_line(ks_table *t, const line *r)
{
    ks_table_cell(t, "%s", r->what);
    ks_table_number(t, r->estimate, "");
    ks_table_number(t, r->interval ? r->interval->low : (double)NAN, "");
    ks_table_number(t, r->interval ? r->interval->high : (double)NAN, "");
    ks_table_number(t, r->statistic, "");
    ks_p_cell(t, r->p, r->error);
    ks_table_cell(t, "%s%s", r->why ? "none: " : "", r->why ? r->why : r->how);
    if (!r->why && r->interval && r->interval->why) ks_table_note(t, "%s: no interval: %s", r->what, r->interval->why);
}

static ks_label counted(const char *statistic, bool exact, uint64_t total)
{
    ks_label l;
    const char *join = *statistic ? ", " : "";
    if (total)
        snprintf(l.text, sizeof l.text, "%s%s%llu splits%s", statistic, join, (unsigned long long)total, exact ? ", exact" : " drawn");
    else snprintf(l.text, sizeof l.text, "%s%snormal, with ties and continuity", statistic, join);
    return l;
}

static void test_lines(ks_table *t, const ks_two_groups *r)
{
    ks_label df, log_df;
    snprintf(df.text, sizeof df.text, "t, df %.2f", r->welch.df);
    snprintf(log_df.text, sizeof log_df.text, "t, df %.2f", r->logs.welch.df);
    const ks_label u = counted("U", r->mann_whitney.exact, r->mann_whitney.total);
    const ks_label perm = counted("", r->permutation.exact, r->permutation.total);
    const ks_label log_perm = counted("", r->logs.permutation.exact, r->logs.permutation.total);
    const ks_label gehan = counted("Gehan", r->censored.exact, r->censored.total);
    const char *log_why = r->logs.why ? r->logs.why : r->logs.welch.why;
    const line lines[] = {
        {"difference of means, Welch", r->welch.difference, &r->welch_interval, r->welch.t, r->welch.p, 0, df.text, r->welch.why},
        {"difference of means, permutation", r->permutation.difference, &r->difference, NAN, r->permutation.p, r->permutation.error,
         perm.text, r->permutation.why},
        {"Mann-Whitney", NAN, NULL, r->mann_whitney.statistic, r->mann_whitney.p, 0, u.text, r->mann_whitney.why},
        {"Cliff's delta", r->cliff.delta, &r->cliff.interval, NAN, NAN, 0, "P(A > B) - P(A < B)", r->cliff.why},
        {"Hedges' g", r->hedges.g, &r->hedges.interval, NAN, NAN, 0, "pooled standard deviations", r->hedges.why},
        {"ratio of means", r->ratio.ratio, &r->ratio.interval, NAN, NAN, 0, "A/B", r->ratio.why},
        {"log KL: ratio of geometric means, Welch", r->logs.ratio, &r->logs.interval, r->logs.welch.t, r->logs.welch.p, 0, log_df.text,
         log_why},
        {"log KL, permutation", NAN, NULL, NAN, r->logs.permutation.p, r->logs.permutation.error, log_perm.text,
         r->logs.why ? r->logs.why : r->logs.permutation.why},
        {"under the floor as censored, Gehan", NAN, NULL, r->censored.statistic, r->censored.p, 0, gehan.text, r->censored.why},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) add_line(t, &lines[i]);
}

int ks_table_tests(const ks_view *v, size_t window, bool selected)
{
    int rc = KS_OK;
    ks_table t = {0};
    double *kl[2] = {0}, *floor[2] = {0};
    size_t n[2];
    ks_two_groups r;
    const ks_resample how = ks_view_resample(v, 10000);
    const char *const *g = v->g->tests;
    if (!g[1]) goto done;
    for (int i = 0; i < 2; i++) {
        KS_NEW(kl[i], v->m->S);
        KS_NEW(floor[i], v->m->S);
        n[i] = ks_group_values(kl[i], floor[i], v->m, v->s, 0, window, 0, g[i]);
    }
    KS_TRY(ks_compare_groups(&r, kl[0], floor[0], n[0], kl[1], floor[1], n[1], &how));
    ks_view_title(&t, v, "Two groups", ks_where(v, window).text);
    ks_table_column(&t, true, "A = %s, B = %s", g[0], g[1]);
    static const char *const columns[] = {"estimate", "95 % from", "to", "statistic", "p, two-sided"};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) ks_table_column(&t, false, "%s", columns[i]);
    ks_table_column(&t, true, "how");
    test_lines(&t, &r);
    ks_table_note(&t, "n: %zu and %zu; A - B in nats; bootstrap intervals: BCa, %zu draws, seed %llu", r.a.n, r.b.n, how.draws,
                  (unsigned long long)how.seed);
    if (r.logs.zeros_a || r.logs.zeros_b)
        ks_table_note(&t, "log KL: exact zeros have no logarithm and are left out: %zu of A, %zu of B", r.logs.zeros_a, r.logs.zeros_b);
    if (r.a.missing || r.b.missing)
        ks_table_note(&t, "! values are missing (not computed or not finite): %zu of A, %zu of B", r.a.missing, r.b.missing);
    if (selected) ks_table_note(&t, "The window was chosen for its effect on these same samples: every p here is too small.");
    KS_TRY(ks_view_add(v, &t, "tests"));
done:
    ks_table_free(&t);
    for (int i = 0; i < 2; i++) {
        free(floor[i]);
        free(kl[i]);
    }
    return rc;
}
