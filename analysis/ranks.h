/* ranks.h - rank tests, counted exactly where that is possible, ties included. */
#ifndef KS_ANALYSIS_RANKS_H
#define KS_ANALYSIS_RANKS_H

#include "analysis/stats.h"

#include <stdbool.h>

typedef struct ks_rank_test {
    double statistic; /* Mann-Whitney: U of a (pairs with a above b, ties half). Gehan: pairs surely above minus pairs surely below.
                         Wilcoxon: sum of the ranks of positive differences */
    double z;         /* with correction for ties and continuity; also where p is exact */
    double p;
    bool exact;           /* p = hits / total, every split counted */
    uint64_t hits, total; /* 0 where p is normal */
    size_t zeros;         /* Wilcoxon: differences of exactly 0, left out */
    const char *why;
} ks_rank_test;

/* Twice the midrank (1-based) of each of v [n], which holds no NaN, so that tied ranks are whole. Infinities rank as they are. */
int ks_midranks(int64_t *twice, const double *v, size_t n);

/* Mann & Whitney (1947): p is the share of the C(na + nb, na) splits whose U is at least as far from na nb / 2 as the one seen; counted
 * where C(na + nb, na) < 2^62 and the count is quick, else normal. Infinities are not available. */
int ks_mann_whitney(ks_rank_test *out, const double *a, size_t na, const double *b, size_t nb);

/* The same for values that are known only to lie in [0, floor] where they are at or below their own floor: Gehan's generalised Wilcoxon
 * test (1965) with its permutation distribution (Mantel 1967). A pair counts only where its order is sure: a value above its floor is
 * itself, one at or below is anything up to its floor. With one common floor this is Mann-Whitney with everything at or below the floor
 * tied. A NaN in value or floor leaves the sample out. */
int ks_gehan(ks_rank_test *out, const double *a, const double *floor_a, size_t na, const double *b, const double *floor_b, size_t nb);

/* Wilcoxon's signed rank test (1945) of paired differences d [n]: differences of 0 are left out and counted; exact with ties up to 62
 * differences, else normal. p is the share of sign patterns whose sum is at least as far from its mean. */
int ks_signed_ranks(ks_rank_test *out, const double *d, size_t n);

/* Cliff's delta (1993): P(a > b) - P(a < b) over all pairs, with the interval of Newcombe's method 5 (2006), which also holds at -1 and 1.
 */
typedef struct ks_cliff {
    double delta;
    ks_interval interval;
    const char *why;
} ks_cliff;
int ks_cliffs_delta(ks_cliff *out, const double *a, size_t na, const double *b, size_t nb, double level);

#endif
