#include "analysis/stats.h"

#include "base/mem.h"

#include <gsl/gsl_integration.h>
#include <math.h>
#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int ks_summarize(ks_summary *out, const double *v, size_t n)
{
    int rc = KS_OK;
    double *x = NULL; /* [s.n] sorted, without the missing */
    ks_summary s = {0, 0, NAN, NAN, NAN, NAN, NAN, NAN};
    KS_NEW(x, n);
    for (size_t i = 0; i < n; i++) {
        if (isnan(v[i])) s.missing++;
        else x[s.n++] = v[i];
    }
    if (!s.n) goto done;
    qsort(x, s.n, sizeof *x, ascending);
    s.min = x[0];
    s.max = x[s.n - 1];
    s.median = s.n % 2 ? x[s.n / 2] : x[s.n / 2 - 1] + (x[s.n / 2] - x[s.n / 2 - 1]) / 2;

    double sum = 0, lost = 0; /* Neumaier: effects span many orders of magnitude */
    for (size_t i = 0; i < s.n; i++) {
        const double t = sum + x[i];
        lost += fabs(sum) >= fabs(x[i]) ? (sum - t) + x[i] : (x[i] - t) + sum;
        sum = t;
    }
    s.mean = (sum + lost) / (double)s.n;

    /* Deviations relative to the largest, so that squares of effects like 1e-170 do not vanish. */
    const double scale = fmax(fabs(s.max - s.mean), fabs(s.min - s.mean));
    double squares = 0;
    for (size_t i = 0; i < s.n && scale > 0; i++) squares += (x[i] - s.mean) / scale * ((x[i] - s.mean) / scale);
    /* Equal values have no spread, even where their mean is rounded. */
    if (s.min == s.max) squares = 0;
    s.std_population = scale * sqrt(squares / (double)s.n);
    if (s.n > 1) s.std_sample = scale * sqrt(squares / (double)(s.n - 1));
done:
    free(x);
    if (!rc) *out = s;
    return rc;
}

ks_welch ks_welch_test(const ks_summary *a, const ks_summary *b)
{
    ks_welch w = {NAN, NAN, NAN, NULL};
    if (a->n < 2 || b->n < 2) {
        w.why = "a group has fewer than two values";
        return w;
    }
    const double ea = a->std_sample / sqrt((double)a->n), eb = b->std_sample / sqrt((double)b->n);
    const double e = hypot(ea, eb);
    if (!(e > 0)) {
        w.why = e == 0 ? "no variance in either group" : "a value is not finite";
        return w;
    }
    const double ca = (ea / e) * (ea / e), cb = (eb / e) * (eb / e);
    w.t = (a->mean - b->mean) / e;
    w.df = 1 / (ca * ca / (double)(a->n - 1) + cb * cb / (double)(b->n - 1));
    w.p = ks_student_p(w.t, w.df);
    return w;
}

/* G(a + 1/2) / G(a): for large a the asymptotic series (DLMF 5.11.13), whose first omitted term is below 1e-15 there. */
static double gamma_ratio(double a)
{
    if (a < 100) return tgamma(a + 0.5) / tgamma(a);
    const double r = 1 / a;
    return sqrt(a) * (1 + r * (-1.0 / 8 + r * (1.0 / 128 + r * (5.0 / 1024 + r * (-21.0 / 32768 + r * (-399.0 / 262144))))));
}

/* log(cosh w + tau sinh w) without cancellation or overflow. */
static double log_growth(double w, double tau)
{
    if (w > 1) return w + log((1 + tau) / 2 + (1 - tau) / 2 * exp(-2 * w));
    const double half = sinh(w / 2);
    return log1p(2 * half * half + tau * sinh(w));
}

/* With t = sqrt(df) sinh v the density becomes cosh(v)^-df, so
 *     p = 2 G((df+1)/2) / (sqrt(pi) G(df/2)) cosh(v0)^-df  integral over w > 0 of (cosh w + tanh(v0) sinh w)^-df,
 * a sum of positive terms, right to the last digits for every t and df. GSL's own functions are not: gsl_cdf_tdist is an expansion with
 * errors up to 6e-9 beyond df = 30, gsl_sf_beta_inc loses digits for large df and for small t.
 * Panels that double keep their distance from the integrand's singularities (v = i pi/2), so 20 Gauss-Legendre points are exact. */
double ks_student_p(double t, double df)
{
    if (isnan(t) || !(df > 0)) return NAN;
    const double u = fabs(t);
    if (u == 0) return 1;
    if (isinf(u)) return 0;
    if (isinf(df)) return erfc(u / M_SQRT2);

    gsl_integration_glfixed_table *points = gsl_integration_glfixed_table_alloc(20);
    if (!points) return NAN;
    const double root = sqrt(df), tau = u / hypot(u, root);
    double integral = 0, a = 0, h = fmin(0.5, 1 / (df * tau + root));
    for (double panel = 1; panel > 1e-18 * integral; a += h, h = a) {
        panel = 0;
        for (size_t i = 0; i < 20; i++) {
            double w, weight;
            gsl_integration_glfixed_point(a, a + h, i, &w, &weight, points);
            panel += weight * exp(-df * log_growth(w, tau));
        }
        integral += panel;
    }
    gsl_integration_glfixed_table_free(points);

    const double ratio = u / df * u; /* t^2 / df, which may be beyond a double */
    const double log_front = isfinite(ratio) ? -df / 2 * log1p(ratio) : df / 2 * (log(df) - 2 * log(u));
    return fmin(1, 2 / sqrt(M_PI) * gamma_ratio(df / 2) * exp(log_front) * integral);
}
