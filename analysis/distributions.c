#include "analysis/distributions.h"

#include <gsl/gsl_cdf.h>
#include <gsl/gsl_integration.h>
#include <math.h>
#include <stddef.h>

enum { POINTS = 20 }; /* of Gauss-Legendre on a panel */

/* For large a the asymptotic series (DLMF 5.11.13), whose first omitted term is below 1e-15 there. */
double ks_gamma_ratio(double a)
{
    if (a < 100) return tgamma(a + 0.5) / tgamma(a);
    const double r = 1 / a;
    return sqrt(a) * (1 + r * (-1.0 / 8 + r * (1.0 / 128 + r * (5.0 / 1024 + r * (-21.0 / 32768 + r * (-399.0 / 262144))))));
}

/* log(cosh w + tau sinh w) without cancellation or overflow. */
static double log_growth(double w, double tau)
{
    if (w > 1) return w + log((1 + tau) / 2 + (1 - tau) / 2 * exp(-2 * w));
    const double e = expm1(w), f = e / (1 + e); /* cosh w - 1 = e f / 2, sinh w = (e + f) / 2 */
    return log1p((e * f + tau * (e + f)) / 2);
}

/* p = exp(*log_front) * factor. With t = sqrt(df) sinh v the density becomes cosh(v)^-df, so
 *     p = 2 G((df+1)/2) / (sqrt(pi) G(df/2)) cosh(v0)^-df  integral over w > 0 of (cosh w + tanh(v0) sinh w)^-df,
 * a sum of positive terms, right to the last digits for every t and df. GSL's own functions are not: gsl_cdf_tdist is an expansion with
 * errors up to 6e-9 beyond df = 30, gsl_sf_beta_inc loses digits for large df and for small t.
 * Panels that double keep their distance from the integrand's singularities (v = i pi/2), so 20 Gauss-Legendre points are exact. */
static double student_tail(double u, double df, double *log_front)
{
    gsl_integration_glfixed_table *points = gsl_integration_glfixed_table_alloc(POINTS);
    if (!points) return NAN;
    const double root = sqrt(df), tau = u / hypot(u, root);
    double integral = 0, a = 0, h = fmin(0.5, 1 / (df * tau + root));
    for (double panel = 1; panel > 1e-18 * integral; a += h, h = a) {
        panel = 0;
        for (size_t i = 0; i < POINTS; i++) {
            double w, weight;
            gsl_integration_glfixed_point(a, a + h, i, &w, &weight, points);
            panel += weight * exp(-df * log_growth(w, tau));
        }
        integral += panel;
    }
    gsl_integration_glfixed_table_free(points);

    const double ratio = u / df * u; /* t^2 / df, which may be beyond a double */
    *log_front = isfinite(ratio) ? -df / 2 * log1p(ratio) : df / 2 * (log(df) - 2 * log(u));
    return 2 / sqrt(M_PI) * ks_gamma_ratio(df / 2) * integral;
}

void ks_student_both(double t, double df, double *p, double *log_p)
{
    const double u = fabs(t);
    double log_front = NAN;
    *p = *log_p = NAN;
    if (isnan(t) || !(df > 0)) return;
    if (u == 0 || isinf(u)) {
        *p = u == 0;
        *log_p = log(*p);
    } else if (isinf(df) && u < 30) {
        *p = ks_normal_p(u);
        *log_p = log(*p);
    } else {
        /* For a normal p that small an expansion would be needed; df = 1e17 differs from it by u^4 / 4e17. */
        const double factor = student_tail(u, isinf(df) ? 1e17 : df, &log_front);
        *p = fmin(1, exp(log_front) * factor);
        /* Near p = 1 the sum of the two logarithms has no digits left. */
        *log_p = log_front > -1 ? log(*p) : fmin(0, log_front + log(factor));
    }
}

double ks_student_p(double t, double df)
{
    double p, log_p;
    ks_student_both(t, df, &p, &log_p);
    return p;
}

double ks_student_log_p(double t, double df)
{
    double p, log_p;
    ks_student_both(t, df, &p, &log_p);
    return log_p;
}

/* Newton's method in log t: log p is a concave, decreasing function of it. */
double ks_student_quantile(double p, double df)
{
    if (!(p > 0 && p <= 1) || !(df > 0)) return NAN;
    if (p == 1) return 0;
    if (isinf(df)) return -ks_normal_quantile(p / 2);
    const double log_density = log(ks_gamma_ratio(df / 2)) - log(df * M_PI) / 2, target = log(p);
    double u = log(fmax(-ks_normal_quantile(p / 2), 1e-300));
    for (int i = 0; i < 200; i++) {
        const double t = exp(u), ratio = t / df * t;
        const double log_p = ks_student_log_p(t, df);
        const double log_tail = isfinite(ratio) ? log1p(ratio) : 2 * u - log(df);
        const double slope = -2 * exp(u + log_density - (df + 1) / 2 * log_tail - log_p);
        const double step = fmax(-3, fmin(3, (target - log_p) / slope));
        u += step;
        if (fabs(step) < 1e-14 * fmax(1, fabs(u))) break;
    }
    return exp(u);
}

/* Parts of the integral over [a, b] of the density of chi and of its product with the normal probability. */
typedef struct noncentral {
    double df, mode, slope, delta, sign;
    double part, whole;
    gsl_integration_glfixed_table *points;
} noncentral;

static void add_range(noncentral *c, double a, double b, double width)
{
    if (!(b > a)) return;
    const size_t panels = (size_t)ceil((b - a) / width);
    const double h = (b - a) / (double)panels;
    for (size_t k = 0; k < panels; k++)
        for (size_t i = 0; i < POINTS; i++) {
            double u, weight;
            gsl_integration_glfixed_point(a + (double)k * h, a + (double)(k + 1) * h, i, &u, &weight, c->points);
            const double d = u - c->mode;
            /* (df - 1) log(u / mode) - (u^2 - mode^2) / 2, without the cancellation that large df would bring */
            const double log_f = c->mode > 0 ? (c->df - 1) * log1p(d / c->mode) - d * (u + c->mode) / 2 : -u * u / 2;
            const double f = weight * exp(log_f);
            c->whole += f;
            c->part += f * ks_normal_cdf(c->sign * (c->slope * u - c->delta));
        }
}

/* P(T <= t) is the mean of P(Z <= t u / sqrt(df) - delta) over u, which is chi-distributed. The probability rises around u = delta / slope
 * over a width of 1 / slope, which may be much narrower than chi's spread. */
double ks_noncentral_t(double t, double df, double delta, int upper)
{
    if (isnan(t) || !(df >= 1) || !isfinite(df) || !isfinite(delta)) return NAN;
    if (isinf(t)) return (t > 0) == !upper;
    noncentral c = {.df = df, .mode = sqrt(df - 1), .slope = t / sqrt(df), .delta = delta, .sign = upper ? -1 : 1};
    c.points = gsl_integration_glfixed_table_alloc(POINTS);
    if (!c.points) return NAN;
    const double low = fmax(0, c.mode - 9), high = c.mode + 10, steep = fabs(c.slope);
    if (steep > 1) {
        const double centre = fmin(high, fmax(low, delta / c.slope));
        const double from = fmax(low, centre - 9 / steep), to = fmin(high, centre + 9 / steep);
        add_range(&c, low, from, 0.75);
        add_range(&c, from, to, 0.75 / steep);
        add_range(&c, to, high, 0.75);
    } else {
        add_range(&c, low, high, 0.75);
    }
    gsl_integration_glfixed_table_free(c.points);
    return fmin(1, c.part / c.whole);
}

double ks_normal_p(double z)
{
    return erfc(fabs(z) / M_SQRT2);
}

double ks_normal_cdf(double z)
{
    return erfc(-z / M_SQRT2) / 2;
}

double ks_normal_quantile(double p)
{
    if (!(p >= 0 && p <= 1)) return NAN;
    if (p == 0 || p == 1) return p == 0 ? -INFINITY : INFINITY;
    return gsl_cdf_ugaussian_Pinv(p);
}
