/* permutation.h - permutation tests of means: every split counted where there are few, else a seeded Monte Carlo.
 *
 * A split counts as being as far out as the one seen where rounding the values to double could have made the difference: with e the exact
 * difference of the two statistics as a sum of c_i x_i, where |e| <= 2^-52 sum |c_i x_i|. What both splits have in common has c_i = 0, so
 * values of very different size do not blur one another, and 0.1 + 0.2 against 0.3 is a tie. */
#ifndef KS_ANALYSIS_PERMUTATION_H
#define KS_ANALYSIS_PERMUTATION_H

#include "analysis/stats.h"

#include <stdbool.h>

typedef struct ks_permutation {
    double difference; /* mean a - mean b, or the mean of the differences */
    double p;          /* exact: hits / total. Monte Carlo: (hits + 1) / (total + 1) (Phipson & Smyth 2010) */
    double error;      /* standard error of p by Monte Carlo; 0 where exact */
    bool exact;
    uint64_t hits, total; /* splits at least as far out, splits looked at; an exact count includes the one seen */
    const char *why;
} ks_permutation;

/* Of |mean a - mean b| over the splits of all values into groups of na and nb (Fisher 1935, Pitman 1937). */
int ks_permute_two(ks_permutation *out, const double *a, size_t na, const double *b, size_t nb, const ks_resample *how);

/* Of |mean (a - b)| over the exchanges of a[i] and b[i] [n], which turn the sign of their difference. b NULL: a holds differences. Pairs
 * with a NaN are left out. */
int ks_permute_pairs(ks_permutation *out, const double *a, const double *b, size_t n, const ks_resample *how);

/* C(n, k), or `most` where it is no less; most <= 2^62. */
uint64_t ks_choose(size_t n, size_t k, uint64_t most);

#endif
