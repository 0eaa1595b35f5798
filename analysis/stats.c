#include "analysis/stats.h"

#include "analysis/distributions.h"
#include "analysis/stats_private.h"
#include "base/mem.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

int ks_ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

size_t ks_rank(ks_ranked *out, const double *v, size_t n)
{
    size_t m = 0;
    for (size_t i = 0; i < n; i++)
        if (!isnan(v[i])) out[m++] = (ks_ranked){v[i], i};
    qsort(out, m, sizeof *out, ks_ascending); /* v comes first */
    return m;
}

size_t ks_present(double *out, const double *v, size_t n, int *finite)
{
    size_t kept = 0;
    *finite = 1;
    for (size_t i = 0; i < n; i++) {
        if (isnan(v[i])) continue;
        if (isinf(v[i])) *finite = 0;
        out[kept++] = v[i];
    }
    return kept;
}

double ks_mean(const double *v, size_t n)
{
    double sum = 0, lost = 0;
    for (size_t i = 0; i < n; i++) {
        const ks_dd t = ks_two_sum(sum, v[i]);
        sum = t.high;
        lost += t.low;
    }
    return ks_dd_over(ks_two_sum(sum, lost), (double)n).high;
}

double ks_quantile_sorted(const double *v, size_t n, double p)
{
    const double at = p * (double)(n - 1);
    const size_t i = (size_t)at;
    if (i + 1 >= n) return v[n - 1];
    /* Equal neighbours may be infinite, and neighbours of other signs may be too far apart for their difference. */
    if (v[i] == v[i + 1] || at == (double)i) return v[i];
    const double step = at - (double)i, gap = v[i + 1] - v[i];
    return isfinite(gap) ? v[i] + gap * step : v[i] * (1 - step) + v[i + 1] * step;
}

/* Mean and squared deviations of sorted finite x. They are computed on x * 2^-k with the largest |x| at 1, so that neither sums nor squares
 * leave a double's range. */
static void moments(ks_summary *s, const double *x)
{
    const double largest = fmax(fabs(s->max), fabs(s->min));
    const int k = largest > 0 ? ilogb(largest) + 1 : 0;
    const double n = (double)s->n;
    ks_dd sum = {0, 0}, squares = {0, 0};
    for (size_t i = 0; i < s->n; i++) sum = ks_dd_add(sum, ldexp(x[i], -k));
    const ks_dd mean = ks_dd_over(sum, n);
    for (size_t i = 0; i < s->n; i++) {
        const ks_dd d = ks_dd_plus((ks_dd){ldexp(x[i], -k), 0}, (ks_dd){-mean.high, -mean.low});
        squares = ks_dd_plus(squares, ks_dd_product(d.high, d.high));
    }
    s->mean = ldexp(mean.high, k);
    s->mean_rest = ldexp(mean.low, k);
    /* Equal values have no spread, even where their mean is rounded. */
    if (s->min == s->max) {
        squares.high = 0;
        s->mean = s->min;
        s->mean_rest = 0;
    }
    s->std_population = ldexp(sqrt(squares.high / n), k);
    if (s->n > 1) s->std_sample = ldexp(sqrt(squares.high / (n - 1)), k);
}

int ks_summarize(ks_summary *out, const double *v, size_t n)
{
    int rc = KS_OK, finite;
    double *x = NULL; /* [s.n] sorted, without the missing */
    ks_summary s = {.mean = NAN, .std_population = NAN, .std_sample = NAN, .min = NAN, .max = NAN, .median = NAN};
    s.mean_rest = s.quartile_1 = s.quartile_3 = s.geometric = NAN;
    KS_NEW(x, n);
    s.n = ks_present(x, v, n, &finite);
    s.missing = n - s.n;
    s.why = !s.n ? KS_WHY_NONE : !finite ? KS_WHY_INFINITE : NULL;
    if (!s.n) goto done;
    qsort(x, s.n, sizeof *x, ks_ascending);
    s.min = x[0];
    s.max = x[s.n - 1];
    s.median = ks_quantile_sorted(x, s.n, 0.5);
    s.quartile_1 = ks_quantile_sorted(x, s.n, 0.25);
    s.quartile_3 = ks_quantile_sorted(x, s.n, 0.75);
    for (size_t i = 0; i < s.n; i++) s.zeros += x[i] == 0;
    if (!finite) goto done;
    moments(&s, x);
    if (s.min >= 0 && s.max > 0) {
        ks_dd logs = {0, 0};
        for (size_t i = s.zeros; i < s.n; i++) logs = ks_dd_add(logs, log(x[i]));
        s.geometric = x[s.zeros] == s.max ? s.max : exp(ks_dd_over(logs, (double)(s.n - s.zeros)).high);
    }
done:
    free(x);
    if (!rc) *out = s;
    return rc;
}

double ks_share_above(const double *v, const double *floor, size_t n, size_t *used)
{
    size_t above = 0;
    *used = 0;
    for (size_t i = 0; i < n; i++) {
        if (isnan(v[i]) || isnan(floor[i])) continue;
        (*used)++;
        above += v[i] > floor[i];
    }
    return *used ? (double)above / (double)*used : (double)NAN;
}

ks_welch ks_welch_test(const ks_summary *a, const ks_summary *b)
{
    ks_welch w = {NAN, NAN, NAN, NAN, NAN, NAN, NULL};
    const double rest_a = isfinite(a->mean_rest) ? a->mean_rest : 0, rest_b = isfinite(b->mean_rest) ? b->mean_rest : 0;
    if (a->n && b->n) w.difference = (a->mean - b->mean) + (rest_a - rest_b);
    if (a->n < 2 || b->n < 2) w.why = KS_WHY_FEW;
    const double ea = a->std_sample / sqrt((double)a->n), eb = b->std_sample / sqrt((double)b->n);
    const double e = hypot(ea, eb);
    if (!w.why && !(e > 0)) w.why = e == 0 ? KS_WHY_FLAT : KS_WHY_INFINITE;
    if (!w.why && !(isfinite(w.difference) && isfinite(e))) w.why = KS_WHY_RANGE;
    if (!w.why && e < KS_TINY) w.why = KS_WHY_TINY;
    if (w.why) return w;
    w.error = e;
    const double ca = (ea / e) * (ea / e), cb = (eb / e) * (eb / e);
    w.t = w.difference / e;
    w.df = 1 / (ca * ca / (double)(a->n - 1) + cb * cb / (double)(b->n - 1));
    ks_student_both(w.t, w.df, &w.p, &w.log_p);
    return w;
}

ks_interval ks_welch_interval(const ks_welch *w, double level)
{
    if (w->why) return (ks_interval){NAN, NAN, w->why};
    const double reach = ks_student_quantile(1 - level, w->df) * w->error;
    const ks_interval i = {w->difference - reach, w->difference + reach, NULL};
    return isfinite(i.low) && isfinite(i.high) ? i : (ks_interval){NAN, NAN, KS_WHY_RANGE};
}
