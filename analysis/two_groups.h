/* two_groups.h - everything about the difference of two groups, and of two conditions on the same samples. */
#ifndef KS_ANALYSIS_TWO_GROUPS_H
#define KS_ANALYSIS_TWO_GROUPS_H

#include "analysis/permutation.h"
#include "analysis/ranks.h"
#include "analysis/stats.h"

/* A standardised mean difference with its small-sample correction (Hedges 1981): g = J d, d in pooled standard deviations,
 * J = G(m/2) / (sqrt(m/2) G((m-1)/2)) for m degrees of freedom. The interval inverts the noncentral t distribution (Steiger & Fouladi
 * 1997), so it is exact for normal values of equal variance. */
typedef struct ks_hedges {
    double g, d;
    ks_interval interval; /* of g */
    const char *why;
} ks_hedges;
/* From n, mean, mean_rest and std_sample of two summaries; level of the interval in (0, 1). */
ks_hedges ks_hedges_g(const ks_summary *a, const ks_summary *b, double level);
/* From a paired summary of differences: d = mean / std, m = n - 1. */
ks_hedges ks_hedges_g_paired(const ks_summary *d, double level);

/* mean a / mean b of values >= 0 with a bootstrap interval of its logarithm. */
typedef struct ks_mean_ratio {
    double ratio;
    ks_interval interval;
    const char *why;
} ks_mean_ratio;
int ks_ratio_of_means(ks_mean_ratio *out, const double *a, size_t na, const double *b, size_t nb, const ks_resample *how);

/* Tests of the logarithms. Exact zeros (effects that causality forbids) have none: they are left out and counted. */
typedef struct ks_log_test {
    size_t zeros_a, zeros_b;
    double ratio;         /* of the geometric means */
    ks_interval interval; /* of that ratio, by Welch's interval of the difference of mean logs */
    ks_welch welch;
    ks_permutation permutation;
    const char *why; /* also KS_WHY_SIGN; the tests have their own */
} ks_log_test;
int ks_log_tests(ks_log_test *out, const double *a, size_t na, const double *b, size_t nb, const ks_resample *how);

typedef struct ks_two_groups {
    ks_summary a, b;
    ks_welch welch;
    ks_interval welch_interval; /* of mean a - mean b */
    ks_interval difference;     /* of mean a - mean b, by bootstrap */
    ks_rank_test mann_whitney;
    ks_permutation permutation;
    ks_hedges hedges;
    ks_cliff cliff;
    ks_mean_ratio ratio;
    ks_log_test logs;
    ks_rank_test censored; /* ks_gehan; not available without floors */
} ks_two_groups;

/* All of the above for a [na] and b [nb]; floor_a [na], floor_b [nb] or both NULL. */
int ks_compare_groups(ks_two_groups *out, const double *a, const double *floor_a, size_t na, const double *b, const double *floor_b,
                      size_t nb, const ks_resample *how);

typedef struct ks_paired {
    size_t missing;  /* pairs without one of the two values */
    ks_summary a, b; /* of the complete pairs */
    ks_summary d;    /* of a - b */
    double t, df, p; /* paired t (Student 1908) */
    double log_p;
    const char *why;        /* of the paired t */
    ks_interval difference; /* of the mean difference, by bootstrap of the pairs */
    ks_interval median;     /* of the median difference, likewise */
    ks_rank_test signed_ranks;
    ks_permutation permutation; /* over signs */
    ks_hedges hedges;
    ks_mean_ratio ratio; /* mean a / mean b, bootstrap of the pairs */
} ks_paired;

/* The same samples under two conditions: a [n] and b [n]. */
int ks_compare_paired(ks_paired *out, const double *a, const double *b, size_t n, const ks_resample *how);

/* A window of layers against its single layers: is the whole more or less than its parts? Per sample, window - sum of singles, and window -
 * largest single. The largest is chosen within each sample, so it is biased upwards where effects are noisy; to test against one layer that
 * was named beforehand, use ks_compare_paired. */
typedef struct ks_synergy {
    ks_paired sum, max; /* a: the window, b: the sum or the largest; b's summary says how large that is */
} ks_synergy;
/* window [n], single [layers, n]. A sample with a NaN anywhere is left out of both; infinite values are not available. */
int ks_synergy_test(ks_synergy *out, const double *window, const double *single, size_t layers, size_t n, const ks_resample *how);

#endif
