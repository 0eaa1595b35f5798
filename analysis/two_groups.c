#include "analysis/two_groups.h"

#include "analysis/distributions.h"
#include "analysis/resample.h"
#include "analysis/stats_private.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

/* ---- standardised difference ---- */

/* The noncentrality under which t is at the given quantile. The normal score of that probability is nearly linear in it: the secant's
 * method, kept inside a bracket. */
static double noncentrality(double t, double df, double quantile)
{
    const double target = ks_normal_quantile(quantile);
    double low = -INFINITY, high = INFINITY, at = t - target, last = NAN, last_off = NAN;
    for (int i = 0; i < 100; i++) {
        const double p = ks_noncentral_t(t, df, at, 0), q = ks_noncentral_t(t, df, at, 1);
        const double off = (p < q ? ks_normal_quantile(p) : -ks_normal_quantile(q)) - target;
        if (isnan(off)) return NAN;
        if (off > 0) low = at;
        else high = at;
        double next = at + off;
        if (isfinite(off) && isfinite(last_off) && off != last_off) next = at - off * (at - last) / (off - last_off);
        if (!(next > low && next < high)) next = isfinite(low) && isfinite(high) ? low + (high - low) / 2 : at + fmax(-4, fmin(4, off));
        last = at;
        last_off = off;
        if (fabs(next - at) <= 1e-13 * fmax(1, fabs(at))) return next;
        at = next;
    }
    return NAN;
}

/* `root`: t = d * root. */
static ks_hedges standardised(double d, double root, double df, double level)
{
    ks_hedges h = {.d = d, .interval = {NAN, NAN, NULL}};
    const double j = ks_gamma_ratio((df - 1) / 2) / sqrt(df / 2), t = d * root;
    h.g = j * d;
    h.interval.low = j / root * noncentrality(t, df, (1 + level) / 2);
    h.interval.high = j / root * noncentrality(t, df, (1 - level) / 2);
    if (isnan(h.interval.low) || isnan(h.interval.high)) h.interval = (ks_interval){NAN, NAN, "t is too large"};
    return h;
}

static ks_hedges no_hedges(const char *why)
{
    return (ks_hedges){NAN, NAN, {NAN, NAN, why}, why};
}

ks_hedges ks_hedges_g(const ks_summary *a, const ks_summary *b, double level)
{
    if (a->n < 2 || b->n < 2) return no_hedges(KS_WHY_FEW);
    const double na = (double)a->n, nb = (double)b->n, df = na + nb - 2;
    const double pooled = hypot(a->std_sample * sqrt((na - 1) / df), b->std_sample * sqrt((nb - 1) / df));
    const double rest_a = isfinite(a->mean_rest) ? a->mean_rest : 0, rest_b = isfinite(b->mean_rest) ? b->mean_rest : 0;
    const double d = ((a->mean - b->mean) + (rest_a - rest_b)) / pooled;
    if (pooled == 0) return no_hedges(KS_WHY_FLAT);
    if (!isfinite(d)) return no_hedges(KS_WHY_INFINITE);
    if (pooled < KS_TINY) return no_hedges(KS_WHY_TINY);
    return standardised(d, sqrt(na * nb / (na + nb)), df, level);
}

ks_hedges ks_hedges_g_paired(const ks_summary *d, double level)
{
    if (d->n < 2) return no_hedges(KS_WHY_FEW);
    if (d->n < 3) return no_hedges("fewer than three pairs"); /* G(0): the correction does not exist */
    if (d->std_sample == 0) return no_hedges(KS_WHY_FLAT_SPREAD);
    if (d->std_sample < KS_TINY) return no_hedges(KS_WHY_TINY);
    if (!isfinite(d->mean / d->std_sample)) return no_hedges(KS_WHY_INFINITE);
    return standardised(d->mean / d->std_sample, sqrt((double)d->n), (double)d->n - 1, level);
}

/* ---- bootstrap statistics ---- */

typedef struct columns {
    const double *a, *b;
    double *room; /* [the longer one] */
} columns;

static double mean_of(double *room, const double *v, const uint32_t *index, size_t n)
{
    for (size_t i = 0; i < n; i++) room[i] = v[index[i]];
    return ks_mean(room, n);
}

static double difference_of_means(void *context, const uint32_t *a, size_t na, const uint32_t *b, size_t nb)
{
    const columns *c = context;
    return mean_of(c->room, c->a, a, na) - mean_of(c->room, c->b, b, nb);
}

static double log_ratio(void *context, const uint32_t *a, size_t na, const uint32_t *b, size_t nb)
{
    const columns *c = context;
    /* Pairs have one list of indices. */
    return log(mean_of(c->room, c->a, a, na) / (nb ? mean_of(c->room, c->b, b, nb) : mean_of(c->room, c->b, a, na)));
}

/* a, b without NaN. paired: na pairs. */
static int ratio_interval(ks_mean_ratio *out, const double *a, size_t na, const double *b, size_t nb, bool paired, const ks_resample *how)
{
    int rc = KS_OK;
    double *room = NULL;
    bool negative = false, finite = true;
    *out = (ks_mean_ratio){NAN, {NAN, NAN, NULL}, NULL};
    for (size_t i = 0; i < na; i++) {
        negative |= a[i] < 0;
        finite &= isfinite(a[i]);
    }
    for (size_t i = 0; i < nb; i++) {
        negative |= b[i] < 0;
        finite &= isfinite(b[i]);
    }
    out->why = na < 2 || nb < 2 ? KS_WHY_FEW : !finite ? KS_WHY_INFINITE : negative ? KS_WHY_SIGN : NULL;
    if (!out->why) {
        const double mean_a = ks_mean(a, na), mean_b = ks_mean(b, nb);
        if (mean_b == 0) out->why = KS_WHY_ZERO;
        else if (!isfinite(mean_a / mean_b)) out->why = KS_WHY_RANGE;
        else out->ratio = mean_a / mean_b;
        if (!out->why && mean_a == 0) out->interval.why = KS_WHY_ZERO;
    }
    if (out->why) out->interval.why = out->why;
    if (out->interval.why) goto done;
    KS_NEW(room, na > nb ? na : nb);
    KS_TRY(ks_bootstrap(&out->interval, log_ratio, &(columns){a, b, room}, na, paired ? 0 : nb, how));
    if (!out->interval.why) {
        out->interval.low = exp(out->interval.low);
        out->interval.high = exp(out->interval.high);
        if (isinf(out->interval.high)) out->interval = (ks_interval){NAN, NAN, KS_WHY_RANGE};
    }
done:
    free(room);
    return rc;
}

int ks_ratio_of_means(ks_mean_ratio *out, const double *a, size_t na, const double *b, size_t nb, const ks_resample *how)
{
    int rc = KS_OK, finite;
    double *x = NULL, *y = NULL;
    KS_NEW(x, na);
    KS_NEW(y, nb);
    na = ks_present(x, a, na, &finite);
    nb = ks_present(y, b, nb, &finite);
    KS_TRY(ratio_interval(out, x, na, y, nb, false, how));
done:
    free(x);
    free(y);
    return rc;
}

/* ---- logarithms ---- */

/* out [*kept]: logs of the values above zero. */
static const char *logarithms(double *out, size_t *kept, size_t *zeros, const double *v, size_t n)
{
    *kept = *zeros = 0;
    for (size_t i = 0; i < n; i++) {
        if (isnan(v[i])) continue;
        if (v[i] < 0) return KS_WHY_SIGN;
        if (isinf(v[i])) return KS_WHY_INFINITE;
        if (v[i] == 0) (*zeros)++;
        else out[(*kept)++] = log(v[i]);
    }
    return NULL;
}

int ks_log_tests(ks_log_test *out, const double *a, size_t na, const double *b, size_t nb, const ks_resample *how)
{
    int rc = KS_OK;
    double *x = NULL, *y = NULL;
    size_t kept_a, kept_b;
    ks_summary of_a, of_b;
    *out = (ks_log_test){.ratio = NAN, .interval = {NAN, NAN, NULL}};
    KS_NEW(x, na);
    KS_NEW(y, nb);
    out->why = logarithms(x, &kept_a, &out->zeros_a, a, na);
    if (!out->why) out->why = logarithms(y, &kept_b, &out->zeros_b, b, nb);
    if (out->why) kept_a = kept_b = 0;
    KS_TRY(ks_summarize(&of_a, x, kept_a));
    KS_TRY(ks_summarize(&of_b, y, kept_b));
    out->welch = ks_welch_test(&of_a, &of_b);
    KS_TRY(ks_permute_two(&out->permutation, x, kept_a, y, kept_b, how));
    if (out->why) out->welch.why = out->permutation.why = out->why;
    else if (kept_a < 2 || kept_b < 2) out->why = KS_WHY_FEW;
    const ks_interval logs = ks_welch_interval(&out->welch, how ? how->level : KS_RESAMPLE.level);
    out->interval.why = out->why ? out->why : logs.why;
    if (!out->why) out->ratio = exp(out->welch.difference);
    if (isinf(out->ratio)) {
        out->ratio = NAN;
        out->why = out->interval.why = KS_WHY_RANGE;
    }
    if (!out->interval.why) {
        out->interval.low = exp(logs.low);
        out->interval.high = exp(logs.high);
        if (isinf(out->interval.high)) out->interval = (ks_interval){NAN, NAN, KS_WHY_RANGE};
    }
done:
    free(x);
    free(y);
    return rc;
}

/* ---- all together ---- */

int ks_compare_groups(ks_two_groups *out, const double *a, const double *floor_a, size_t na, const double *b, const double *floor_b,
                      size_t nb, const ks_resample *how)
{
    int rc = KS_OK, finite;
    const double level = how ? how->level : KS_RESAMPLE.level;
    double *x = NULL, *y = NULL, *room = NULL;
    size_t kept_a, kept_b;
    *out = (ks_two_groups){.difference = {NAN, NAN, NULL}};
    KS_NEW(x, na);
    KS_NEW(y, nb);
    KS_NEW(room, na > nb ? na : nb);
    KS_TRY(ks_summarize(&out->a, a, na));
    KS_TRY(ks_summarize(&out->b, b, nb));
    out->welch = ks_welch_test(&out->a, &out->b);
    out->welch_interval = ks_welch_interval(&out->welch, level);
    KS_TRY(ks_mann_whitney(&out->mann_whitney, a, na, b, nb));
    KS_TRY(ks_permute_two(&out->permutation, a, na, b, nb, how));
    out->hedges = ks_hedges_g(&out->a, &out->b, level);
    KS_TRY(ks_cliffs_delta(&out->cliff, a, na, b, nb, level));
    KS_TRY(ks_ratio_of_means(&out->ratio, a, na, b, nb, how));
    KS_TRY(ks_log_tests(&out->logs, a, na, b, nb, how));
    kept_a = ks_present(x, a, na, &finite);
    kept_b = ks_present(y, b, nb, &finite);
    if (kept_a < 2 || kept_b < 2) out->difference.why = KS_WHY_FEW;
    else if (out->a.why || out->b.why) out->difference.why = KS_WHY_INFINITE;
    else KS_TRY(ks_bootstrap(&out->difference, difference_of_means, &(columns){x, y, room}, kept_a, kept_b, how));
    if (floor_a && floor_b) KS_TRY(ks_gehan(&out->censored, a, floor_a, na, b, floor_b, nb));
    else out->censored = (ks_rank_test){.statistic = NAN, .z = NAN, .p = NAN, .why = "no floor is known"};
done:
    free(x);
    free(y);
    free(room);
    return rc;
}

int ks_compare_paired(ks_paired *out, const double *a, const double *b, size_t n, const ks_resample *how)
{
    int rc = KS_OK;
    const double level = how ? how->level : KS_RESAMPLE.level;
    double *x = NULL, *y = NULL, *d = NULL;
    size_t kept = 0;
    *out = (ks_paired){.t = NAN, .df = NAN, .p = NAN, .log_p = NAN};
    KS_NEW(x, n);
    KS_NEW(y, n);
    KS_NEW(d, n);
    for (size_t i = 0; i < n; i++) {
        if (isnan(a[i]) || isnan(b[i])) continue;
        x[kept] = a[i];
        y[kept] = b[i];
        /* Two infinities have no difference; it must not look like a missing pair. */
        d[kept++] = isfinite(a[i]) && isfinite(b[i]) ? a[i] - b[i] : (double)INFINITY;
    }
    out->missing = n - kept;
    KS_TRY(ks_summarize(&out->a, x, kept));
    KS_TRY(ks_summarize(&out->b, y, kept));
    KS_TRY(ks_summarize(&out->d, d, kept));
    out->why = kept < 2                      ? KS_WHY_FEW
               : out->d.why                  ? out->d.why
               : isinf(out->d.std_sample)    ? KS_WHY_RANGE
               : out->d.std_sample == 0      ? KS_WHY_FLAT_SPREAD
               : out->d.std_sample < KS_TINY ? KS_WHY_TINY
                                             : NULL;
    if (!out->why) {
        out->t = out->d.mean / out->d.std_sample * sqrt((double)kept);
        out->df = (double)kept - 1;
        ks_student_both(out->t, out->df, &out->p, &out->log_p);
    }
    KS_TRY(ks_centre_interval(&out->difference, d, kept, KS_CENTRE_MEAN, how));
    KS_TRY(ks_centre_interval(&out->median, d, kept, KS_CENTRE_MEDIAN, how));
    KS_TRY(ks_signed_ranks(&out->signed_ranks, d, kept));
    KS_TRY(ks_permute_pairs(&out->permutation, x, y, kept, how));
    out->hedges = ks_hedges_g_paired(&out->d, level);
    KS_TRY(ratio_interval(&out->ratio, x, kept, y, kept, true, how));
done:
    free(x);
    free(y);
    free(d);
    return rc;
}

int ks_synergy_test(ks_synergy *out, const double *window, const double *single, size_t layers, size_t n, const ks_resample *how)
{
    int rc = KS_OK;
    double *sum = NULL, *max = NULL, *column = NULL;
    KS_NEW(sum, n);
    KS_NEW(max, n);
    KS_NEW(column, layers);
    for (size_t i = 0; i < n; i++) {
        bool missing = !layers;
        max[i] = -INFINITY;
        for (size_t l = 0; l < layers; l++) {
            column[l] = single[l * n + i];
            missing |= isnan(column[l]);
            max[i] = fmax(max[i], column[l]);
        }
        sum[i] = missing ? (double)NAN : ks_mean(column, layers) * (double)layers;
        if (missing) max[i] = NAN;
        else if (isnan(sum[i])) sum[i] = INFINITY; /* of infinities: there, but no number */
    }
    KS_TRY(ks_compare_paired(&out->sum, window, sum, n, how));
    KS_TRY(ks_compare_paired(&out->max, window, max, n, how));
done:
    free(sum);
    free(max);
    free(column);
    return rc;
}
