/* stats.h - statistics as pure functions of arrays. docs/statistics.md has the formulas and their sources.
 * Where a number does not exist it is NaN and `why` says so in words; never a number that only looks right. */
#ifndef KS_ANALYSIS_STATS_H
#define KS_ANALYSIS_STATS_H

#include <stddef.h>

typedef struct ks_summary {
    size_t n, missing; /* values used; NaN left out */
    double mean, std_population, std_sample, min, max, median;
} ks_summary; /* all NaN for n = 0; std_sample NaN for n = 1 */

typedef struct ks_welch {
    double t, df, p; /* p: two-sided */
    const char *why; /* NULL, or why there is no test (a literal) */
} ks_welch;

/* v [n]; NaN count as missing. KS_EMACHINE when memory ends. */
int ks_summarize(ks_summary *out, const double *v, size_t n);

/* Welch's unequal variances t-test of mean(a) - mean(b) (Welch 1947; degrees of freedom by Satterthwaite 1946). */
ks_welch ks_welch_test(const ks_summary *a, const ks_summary *b);

/* P(|T| >= |t|) for Student's distribution with df > 0 degrees of freedom, which need not be whole. Relative error below 1e-11 for every
 * p that a double can hold (subnormal ones aside). NaN for NaN or df <= 0. */
double ks_student_p(double t, double df);

#endif
