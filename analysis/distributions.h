/* distributions.h - Student's, the noncentral t and the normal distribution, accurate in their tails. Pure functions, any thread. */
#ifndef KS_ANALYSIS_DISTRIBUTIONS_H
#define KS_ANALYSIS_DISTRIBUTIONS_H

/* P(|T| >= |t|) for Student's distribution with df > 0 degrees of freedom, which need not be whole. Relative error below 1e-11 for every
 * p that a double can hold (subnormal ones aside). NaN for NaN or df <= 0. */
double ks_student_p(double t, double df);

/* Its natural logarithm, also where p is below a double's range; error below 1e-11 of max(1, |log p|). */
double ks_student_log_p(double t, double df);

/* Both at once. */
void ks_student_both(double t, double df, double *p, double *log_p);

/* The t >= 0 with P(|T| >= t) = p, for p in (0, 1] and df > 0; else NaN. Relative error below 1e-11. */
double ks_student_quantile(double p, double df);

/* P(T <= t), or with upper P(T > t), for the noncentral t distribution of (Z + delta) / sqrt(chi^2 / df), df >= 1 (Johnson & Welch 1940).
 * Absolute error below 1e-13. NaN for NaN, df < 1 or an infinite delta. */
double ks_noncentral_t(double t, double df, double delta, int upper);

/* P(|Z| >= |z|); P(Z <= z); the z with P(Z <= z) = p for p in [0, 1], else NaN. */
double ks_normal_p(double z);
double ks_normal_cdf(double z);
double ks_normal_quantile(double p);

/* G(a + 1/2) / G(a) for a > 0, to 1e-14. */
double ks_gamma_ratio(double a);

#endif
