/* resample.h - a counter-based generator and the bootstrap. */
#ifndef KS_ANALYSIS_RESAMPLE_H
#define KS_ANALYSIS_RESAMPLE_H

#include "analysis/stats.h"

#include <stdbool.h>

/* Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011): draw number d of a seed is a stream of its own, so draws can be made in any order, by
 * any thread, on any machine. */
typedef struct ks_random {
    uint32_t key[2], counter[4], out[4];
    unsigned left;
} ks_random;
ks_random ks_random_at(uint64_t seed, uint64_t draw);
uint32_t ks_random_next(ks_random *r);
/* Uniform in [0, n), 0 < n <= 2^32, without bias (Lemire 2019). */
uint32_t ks_random_below(ks_random *r, uint64_t n);
/* Shuffles v [n] so that its first k are a random subset in random order (Fisher & Yates). */
void ks_random_choose(ks_random *r, uint32_t *v, size_t n, size_t k);

/* The k-th smallest (0 <= k < n) of v [n], which is reordered: v[i <= k] <= v[k] <= v[i >= k]. No NaN. */
double ks_select_nth(double *v, size_t n, size_t k);
/* The same as ks_quantile_sorted for v [n] in any order, which is reordered. */
double ks_quantile(double *v, size_t n, double p);

/* A statistic of the observations a [na] of the first and b [nb] of the second group, given as indices that may repeat; nb = 0 where there
 * is one group. NaN where it does not exist. Must not depend on the indices' order. */
typedef double ks_statistic(void *context, const uint32_t *a, size_t na, const uint32_t *b, size_t nb);

/* The bias-corrected and accelerated bootstrap interval (Efron 1987; acceleration for two groups as in Davison & Hinkley 1997, 5.3.2) of f
 * over na and nb observations, each group resampled on its own. Draw d takes its indices from ks_random_at(seed, d), first a's. Quantiles
 * are of type 7. Draws without a value are left out while they are at most a twentieth; beyond that, and where all draws are equal, there
 * is no interval. Groups need at least two observations (nb may be 0). */
int ks_bootstrap(ks_interval *out, ks_statistic *f, void *context, size_t na, size_t nb, const ks_resample *how);

typedef enum ks_centre { KS_CENTRE_MEAN, KS_CENTRE_MEDIAN, KS_CENTRE_GEOMETRIC } ks_centre;

/* That interval of the mean, the median or the geometric mean (zeros left out, as in ks_summary) of v [n]. None where fewer than two values
 * are there, all are equal or one is not finite. */
int ks_centre_interval(ks_interval *out, const double *v, size_t n, ks_centre centre, const ks_resample *how);

#endif
