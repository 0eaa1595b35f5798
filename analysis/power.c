#include "analysis/power.h"

#include "analysis/distributions.h"
#include "analysis/resample.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

enum { MOST = 4096, MOST_DRAWS = 2000 };

double ks_power_t(double d, double n, double alpha)
{
    const double df = 2 * n - 2, shift = d * sqrt(n / 2);
    if (!(n >= 2) || !isfinite(shift)) return NAN;
    const double limit = ks_student_quantile(alpha, df);
    return fmin(1, ks_noncentral_t(limit, df, shift, 1) + ks_noncentral_t(-limit, df, shift, 0));
}

size_t ks_power_t_needed(double d, double alpha, double power)
{
    size_t low = 1, high = 2;
    if (!isfinite(d) || d == 0) return 0;
    while (!(ks_power_t(d, (double)high, alpha) >= power)) {
        low = high;
        high *= 2;
        if (high > 10000000) return 0;
    }
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (ks_power_t(d, (double)middle, alpha) >= power) high = middle;
        else low = middle;
    }
    return high;
}

/* One drawn group of n; v is centred, so plain sums do. */
static void draw(ks_random *r, const double *v, size_t nv, size_t n, double *mean, double *variance)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        const double x = v[ks_random_below(r, nv)];
        sum += x;
        squares += x * x;
    }
    *mean = sum / (double)n;
    *variance = fmax(0, squares - sum * *mean) / (double)(n - 1);
    /* What rounding leaves of n equal values is no variance. */
    if (*variance < 1e-14 * squares) *variance = 0;
}

static double share(const double *a, size_t na, const double *b, size_t nb, double between, size_t n, double alpha, const ks_resample *h)
{
    /* The test's limit falls with its degrees of freedom, which lie between n - 1 and 2 n - 2: most draws need no p value. */
    const double strict = ks_student_quantile(alpha, (double)n - 1), mild = ks_student_quantile(alpha, 2 * (double)n - 2);
    size_t hits = 0;
    for (size_t d = 0; d < h->draws; d++) {
        ks_random r = ks_random_at(h->seed ^ (n << 32), d);
        double ma, va, mb, vb;
        draw(&r, a, na, n, &ma, &va);
        draw(&r, b, nb, n, &mb, &vb);
        const double e2 = (va + vb) / (double)n;
        /* Without variance there is no test, so nothing is found. */
        if (!(e2 > 0)) continue;
        const double t = fabs(ma - mb + between) / sqrt(e2);
        const double df = (va + vb) / (va * va + vb * vb) * (va + vb) * ((double)n - 1);
        hits += t > strict || (t > mild && ks_student_p(t, df) < alpha);
    }
    return (double)hits / (double)h->draws;
}

int ks_power_needed(ks_power *out, const double *a, size_t na, const double *b, size_t nb, double alpha, double power,
                    const ks_resample *how)
{
    int rc = KS_OK, finite;
    ks_resample h = how ? *how : KS_RESAMPLE;
    if (h.draws > MOST_DRAWS) h.draws = MOST_DRAWS;
    double *x = NULL, *y = NULL;
    ks_summary sa, sb;
    *out = (ks_power){.d = NAN, .reached = NAN, .error = NAN, .most = MOST};
    KS_NEW(x, na);
    KS_NEW(y, nb);
    KS_TRY(ks_summarize(&sa, a, na));
    KS_TRY(ks_summarize(&sb, b, nb));
    na = ks_present(x, a, na, &finite);
    nb = ks_present(y, b, nb, &finite);
    const ks_welch w = ks_welch_test(&sa, &sb);
    out->why = w.why                                    ? w.why
               : w.difference == 0                      ? "the means are equal"
               : !(alpha > 0 && alpha < 1 && power < 1) ? "alpha or power is out of range"
                                                        : NULL;
    if (out->why) goto done;
    const double df = (double)(na + nb) - 2;
    out->d = w.difference / hypot(sa.std_sample * sqrt(((double)na - 1) / df), sb.std_sample * sqrt(((double)nb - 1) / df));
    /* Tiny values' squares vanish: the standard error is made about 1, and each group has its mean at 0. */
    const int scale = ilogb(w.error);
    const double between = ldexp(w.difference, -scale);
    for (size_t i = 0; i < na; i++) x[i] = ldexp(x[i] - sa.mean, -scale);
    for (size_t i = 0; i < nb; i++) y[i] = ldexp(y[i] - sb.mean, -scale);
    out->closed = ks_power_t_needed(out->d, alpha, power);
    size_t low = 1, high = 2;
    while ((out->reached = share(x, na, y, nb, between, high, alpha, &h)) < power && high < MOST) {
        low = high;
        high *= 2;
    }
    while (out->reached >= power && high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        const double found = share(x, na, y, nb, between, middle, alpha, &h);
        if (found >= power) {
            high = middle;
            out->reached = found;
        } else {
            low = middle;
        }
    }
    out->needed = out->reached >= power ? high : 0;
    out->error = sqrt(out->reached * (1 - out->reached) / (double)h.draws);
done:
    free(x);
    free(y);
    return rc;
}
