/* stats.h - what one group of values is, and Welch's test of two. docs/statistics.md has the formulas and their sources.
 *
 * Common to all statistics of analysis/: pure functions of arrays; NaN is a missing value and is left out; a number that does not exist is
 * NaN and `why` (a literal, NULL where all is well) says so in words. Values carry their unit (nats) through, p values and shares are in
 * [0, 1], all tests are two-sided. Functions that return int allocate: KS_OK or KS_EMACHINE. */
#ifndef KS_ANALYSIS_STATS_H
#define KS_ANALYSIS_STATS_H

#include <stddef.h>
#include <stdint.h>

#define KS_WHY_NONE "no values"
#define KS_WHY_FEW "a group has fewer than two values"
#define KS_WHY_FLAT "no variance in either group"
#define KS_WHY_FLAT_PAIRS "all differences are zero"
#define KS_WHY_FLAT_SPREAD "all differences are equal"
#define KS_WHY_INFINITE "a value is not finite"
#define KS_WHY_TINY "values are too small for a double"
#define KS_WHY_RANGE "beyond the range of a double"
#define KS_WHY_SIGN "a value is negative"
#define KS_WHY_ZERO "a mean is zero"
#define KS_WHY_LARGE "too many values"
#define KS_WHY_RESAMPLES "the resamples do not give an interval"

typedef struct ks_interval {
    double low, high; /* both NaN where there is none */
    const char *why;
} ks_interval;

/* How resampling is done; NULL stands for KS_RESAMPLE. The same seed gives the same draws on every machine and any number of threads. */
typedef struct ks_resample {
    uint64_t seed;
    size_t draws;   /* of a bootstrap or a Monte Carlo permutation test, at least 100 */
    uint64_t exact; /* permutation tests with at most so many splits (at most 2^40) look at all of them */
    double level;   /* of intervals, in (0, 1) */
} ks_resample;
#define KS_RESAMPLE ((ks_resample){.seed = 1, .draws = 10000, .exact = 1048576, .level = 0.95})

typedef struct ks_summary {
    size_t n, missing; /* values used; NaN left out */
    double mean, std_population, std_sample, min, max, median;
    double mean_rest;              /* mean + mean_rest is the mean to 2^-100: differences of nearly equal means are right */
    double quartile_1, quartile_3; /* type 7 of Hyndman and Fan (1996), as in numpy and R */
    double geometric;              /* geometric mean of the values above zero; NaN if there is none or one is negative */
    size_t zeros;                  /* exact zeros, which `geometric` leaves out */
    const char *why;               /* no values, or one is infinite: then mean, std and geometric are NaN */
} ks_summary;                      /* all NaN for n = 0; std_sample NaN for n = 1 */

typedef struct ks_welch {
    double t, df, p;
    double log_p;             /* natural log, also where p underflows */
    double difference, error; /* mean a - mean b, its standard error */
    const char *why;
} ks_welch;

/* v [n]; NaN count as missing. */
int ks_summarize(ks_summary *out, const double *v, size_t n);

/* Share of the values v [n] above their floor [n]; pairs with a NaN on either side are left out and *used is what remains.
 * NaN where nothing remains. */
double ks_share_above(const double *v, const double *floor, size_t n, size_t *used);

/* Welch's unequal variances t-test of mean(a) - mean(b) (Welch 1947; degrees of freedom by Satterthwaite 1946). Needs only n, mean,
 * mean_rest and std_sample, so it serves summaries out of papers, too. */
ks_welch ks_welch_test(const ks_summary *a, const ks_summary *b);

/* Its interval of the difference; level in (0, 1). Costs several times the test. */
ks_interval ks_welch_interval(const ks_welch *w, double level);

/* The p-quantile (p in [0, 1]) of the sorted values v [n], n > 0: linear between order statistics, type 7. */
double ks_quantile_sorted(const double *v, size_t n, double p);

/* Ascending, for qsort of doubles without NaN. */
int ks_ascending(const void *a, const void *b);

/* A value and its place in the array that it comes from. */
typedef struct ks_ranked {
    double v;
    size_t at;
} ks_ranked;
/* The values of v [n] that are not NaN, ascending; returns their number. out: room for n. */
size_t ks_rank(ks_ranked *out, const double *v, size_t n);

/* The mean of v [n], n > 0, all finite, rounded once (as good as always): what rounding loses of the sum is summed beside it. */
double ks_mean(const double *v, size_t n);

/* Copies the values that are not NaN to out [n] in order; returns how many. *finite: all of them are. */
size_t ks_present(double *out, const double *v, size_t n, int *finite);

#endif
