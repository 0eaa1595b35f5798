/* power.h - how many samples a group needs. */
#ifndef KS_ANALYSIS_POWER_H
#define KS_ANALYSIS_POWER_H

#include "analysis/stats.h"

/* Power of the two-sided t-test of two groups of n with a true standardised difference d (noncentral t, n >= 2, alpha in (0, 1)). */
double ks_power_t(double d, double n, double alpha);
/* The smallest n per group, at most 10^7, with that power; 0 where there is none (d = 0 or NaN). */
size_t ks_power_t_needed(double d, double alpha, double power);

typedef struct ks_power {
    double d;       /* observed, in pooled standard deviations */
    size_t closed;  /* samples per group by ks_power_t_needed: as if values were normal with equal variances; 0: none */
    size_t needed;  /* samples per group by bootstrap of the data; 0: none up to `most` */
    double reached; /* share of significant Welch tests at `needed`, or at `most` */
    double error;   /* its Monte Carlo standard error */
    size_t most;
    const char *why;
} ks_power;

/* To find the observed difference of a and b: groups of n are drawn from a's and b's values with replacement and tested by Welch's test,
 * how->draws times for each n; the smallest n whose share of p < alpha reaches `power` is found by doubling and halving. Post hoc: it says
 * what a new study of such values would need, nothing about this one. */
int ks_power_needed(ks_power *out, const double *a, size_t na, const double *b, size_t nb, double alpha, double power,
                    const ks_resample *how);

#endif
