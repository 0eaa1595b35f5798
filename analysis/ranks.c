#include "analysis/ranks.h"

#include "analysis/distributions.h"
#include "analysis/permutation.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_SPLITS ((uint64_t)1 << 62)
#define MOST_STEPS 2e8 /* additions of a count: below a second */

int ks_midranks(int64_t *twice, const double *v, size_t n)
{
    int rc = KS_OK;
    ks_ranked *order = NULL;
    KS_NEW(order, n);
    ks_rank(order, v, n);
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && order[end].v == order[i].v;) end++;
        for (size_t k = i; k < end; k++) twice[order[k].at] = (int64_t)(i + 1 + end);
    }
done:
    free(order);
    return rc;
}

/* How many of the subsets of size k of score [n] have a sum at least as far from the mean over all subsets as `seen`. *hits = 0 where there
 * are too many to count: at least one subset is as far as itself. */
static int count_splits(uint64_t *hits, uint64_t *total, const int64_t *score, size_t n, size_t k, int64_t seen)
{
    int rc = KS_OK;
    uint64_t *ways = NULL; /* [k + 1][width]: subsets of that size and sum, of scores from 0 on */
    int64_t least = score[0], most = score[0], all = 0;
    *hits = 0;
    for (size_t i = 0; i < n; i++) {
        if (score[i] < least) least = score[i];
        if (score[i] > most) most = score[i];
        all += score[i];
    }
    const size_t width = k * (size_t)(most - least) + 1;
    *total = ks_choose(n, k, MOST_SPLITS);
    if (*total == MOST_SPLITS || (double)n * (double)k * (double)width > MOST_STEPS) return KS_OK;
    KS_NEW(ways, (k + 1) * width);
    ways[0] = 1;
    for (size_t i = 0; i < n; i++) {
        const size_t s = (size_t)(score[i] - least);
        for (size_t size = i + 1 < k ? i + 1 : k; size >= 1; size--) {
            uint64_t *to = ways + size * width;
            const uint64_t *from = to - width;
            for (size_t w = s; w < width; w++) to[w] += from[w - s];
        }
    }
    /* The mean is k all / n: whole numbers after multiplication by n. */
    const int64_t far = llabs((int64_t)n * seen - (int64_t)k * all);
    for (size_t w = 0; w < width; w++) {
        const int64_t sum = (int64_t)w + (int64_t)k * least;
        if (llabs((int64_t)n * sum - (int64_t)k * all) >= far) *hits += ways[k * width + w];
    }
done:
    free(ways);
    return rc;
}

/* The permutation test of the sum of the first na of score [n], which are whole. One unit of U is 2 in the score's sum for twice the
 * midranks, and for Gehan's scores, too: half a unit of continuity is 1. */
static int score_test(ks_rank_test *out, const int64_t *score, size_t na, size_t n)
{
    int rc = KS_OK;
    int64_t seen = 0, all = 0, seen_b;
    double squares = 0;
    const size_t nb = n - na;
    for (size_t i = 0; i < n; i++) {
        all += score[i];
        if (i < na) seen += score[i];
    }
    seen_b = all - seen;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)((int64_t)n * score[i] - all);
        squares += d * d;
    }
    if (squares == 0) {
        out->why = KS_WHY_FLAT;
        return KS_OK;
    }
    const double off = (double)((int64_t)n * seen - (int64_t)na * all) / (double)n;
    const double variance = (double)na * (double)nb / (double)n / (double)(n - 1) * (squares / (double)n / (double)n);
    out->z = copysign(fmax(0, fabs(off) - 1), off) / sqrt(variance);
    /* The smaller group's sums are as far from their mean as the larger one's. */
    KS_TRY(count_splits(&out->hits, &out->total, score, n, na <= nb ? na : nb, na <= nb ? seen : seen_b));
    out->exact = out->hits > 0;
    if (!out->exact) out->total = 0;
    out->p = out->exact ? (double)out->hits / (double)out->total : ks_normal_p(out->z);
done:
    return rc;
}

/* Both groups without NaN, one behind the other. */
static int join(double **out, size_t *na, size_t *nb, const double *a, const double *b, const char **why)
{
    int rc = KS_OK, finite_a, finite_b;
    KS_NEW(*out, *na + *nb);
    *na = ks_present(*out, a, *na, &finite_a);
    *nb = ks_present(*out + *na, b, *nb, &finite_b);
    *why = !*na || !*nb || *na + *nb < 3 ? KS_WHY_FEW : !finite_a || !finite_b ? KS_WHY_INFINITE : NULL;
    if (*na + *nb > 1000000) *why = KS_WHY_LARGE;
done:
    return rc;
}

int ks_mann_whitney(ks_rank_test *out, const double *a, size_t na, const double *b, size_t nb)
{
    int rc = KS_OK;
    double *v = NULL;
    int64_t *twice = NULL, sum = 0;
    *out = (ks_rank_test){.statistic = NAN, .z = NAN, .p = NAN};
    KS_TRY(join(&v, &na, &nb, a, b, &out->why));
    if (out->why) goto done;
    KS_NEW(twice, na + nb);
    KS_TRY(ks_midranks(twice, v, na + nb));
    for (size_t i = 0; i < na; i++) sum += twice[i];
    out->statistic = (double)(sum - (int64_t)(na * (na + 1))) / 2;
    KS_TRY(score_test(out, twice, na, na + nb));
done:
    free(v);
    free(twice);
    return rc;
}

typedef struct censored {
    double v, floor;
    bool below;
} censored;

/* 1 where x is surely above y, -1 where surely below, else 0. */
static int sure_order(const censored *x, const censored *y)
{
    if (x->below && y->below) return 0;
    if (x->below) return y->v > x->floor ? -1 : 0;
    if (y->below) return x->v > y->floor ? 1 : 0;
    return (x->v > y->v) - (x->v < y->v);
}

int ks_gehan(ks_rank_test *out, const double *a, const double *floor_a, size_t na, const double *b, const double *floor_b, size_t nb)
{
    int rc = KS_OK;
    censored *c = NULL;
    int64_t *score = NULL, sum = 0;
    size_t n = 0, used_a = 0;
    bool finite = true;
    *out = (ks_rank_test){.statistic = NAN, .z = NAN, .p = NAN};
    KS_NEW(c, na + nb);
    KS_NEW(score, na + nb);
    for (size_t i = 0; i < na + nb; i++) {
        const double v = i < na ? a[i] : b[i - na], floor = i < na ? floor_a[i] : floor_b[i - na];
        if (isnan(v) || isnan(floor)) continue;
        finite &= isfinite(v) && isfinite(floor);
        c[n++] = (censored){v, floor, v <= floor};
        used_a += i < na;
    }
    out->why = !used_a || used_a == n || n < 3 ? KS_WHY_FEW : !finite ? KS_WHY_INFINITE : n > 20000 ? KS_WHY_LARGE : NULL;
    if (out->why) goto done;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n; k++) score[i] += sure_order(&c[i], &c[k]);
    for (size_t i = 0; i < used_a; i++) sum += score[i];
    out->statistic = (double)sum;
    KS_TRY(score_test(out, score, used_a, n));
done:
    free(c);
    free(score);
    return rc;
}

int ks_signed_ranks(ks_rank_test *out, const double *d, size_t n)
{
    int rc = KS_OK, finite;
    double *v = NULL, *size = NULL, squares = 0;
    int64_t *twice = NULL, seen = 0, all = 0;
    uint64_t *ways = NULL;
    size_t kept, used = 0;
    *out = (ks_rank_test){.statistic = NAN, .z = NAN, .p = NAN};
    KS_NEW(v, n);
    KS_NEW(size, n);
    KS_NEW(twice, n);
    kept = ks_present(v, d, n, &finite);
    for (size_t i = 0; i < kept; i++) {
        if (v[i] == 0) continue;
        size[used] = fabs(v[i]);
        v[used++] = v[i];
    }
    out->zeros = kept - used;
    out->why = kept < 2 ? KS_WHY_FEW : !finite ? KS_WHY_INFINITE : !used ? KS_WHY_FLAT_PAIRS : used > 1000000 ? KS_WHY_LARGE : NULL;
    if (out->why) goto done;
    KS_TRY(ks_midranks(twice, size, used));
    for (size_t i = 0; i < used; i++) {
        all += twice[i];
        squares += (double)twice[i] * (double)twice[i];
        if (v[i] > 0) seen += twice[i];
    }
    const int64_t far = llabs(2 * seen - all); /* twice the distance from the mean, in half ranks */
    out->statistic = (double)seen / 2;
    /* In half ranks the variance of the sum is sum(twice^2) / 4, and half a rank of continuity is 1. */
    out->z = copysign(fmax(0, (double)far / 2 - 1), (double)(2 * seen - all)) / sqrt(squares / 4);
    out->p = ks_normal_p(out->z);
    if (used > 62) goto done;
    KS_NEW(ways, all + 1);
    ways[0] = 1;
    for (size_t i = 0; i < used; i++)
        for (int64_t w = all; w >= twice[i]; w--) ways[w] += ways[w - twice[i]];
    for (int64_t w = 0; w <= all; w++)
        if (llabs(2 * w - all) >= far) out->hits += ways[w];
    out->total = (uint64_t)1 << used;
    out->exact = true;
    out->p = (double)out->hits / (double)out->total;
done:
    free(v);
    free(size);
    free(twice);
    free(ways);
    return rc;
}

/* (theta - seen)^2 - z^2 V(theta) with Newcombe's variance of the estimated P(a > b): negative inside the interval. */
static double newcombe(double theta, double seen, double z, double na, double nb)
{
    const double half = (na + nb) / 2 - 1;
    const double v = theta * (1 - theta) * (1 + half * ((1 - theta) / (2 - theta) + theta / (1 + theta))) / (na * nb);
    return (theta - seen) * (theta - seen) - z * z * v;
}

static double newcombe_end(double outside, double inside, double seen, double z, double na, double nb)
{
    for (int i = 0; i < 200; i++) {
        const double middle = outside + (inside - outside) / 2;
        if (middle == outside || middle == inside) break;
        if (newcombe(middle, seen, z, na, nb) > 0) outside = middle;
        else inside = middle;
    }
    return inside;
}

int ks_cliffs_delta(ks_cliff *out, const double *a, size_t na, const double *b, size_t nb, double level)
{
    int rc = KS_OK;
    double *v = NULL;
    int64_t *twice = NULL, sum = 0;
    *out = (ks_cliff){.delta = NAN, .interval = {NAN, NAN, NULL}};
    KS_TRY(join(&v, &na, &nb, a, b, &out->why));
    if (!out->why && (na < 2 || nb < 2)) out->why = KS_WHY_FEW;
    out->interval.why = out->why;
    if (out->why) goto done;
    KS_NEW(twice, na + nb);
    KS_TRY(ks_midranks(twice, v, na + nb));
    for (size_t i = 0; i < na; i++) sum += twice[i];
    /* sum - na (na + 1) = 2 U, and delta = 2 U / (na nb) - 1 */
    const double pairs = (double)na * (double)nb, twice_u = (double)(sum - (int64_t)(na * (na + 1)));
    const double seen = twice_u / 2 / pairs, z = ks_normal_quantile((1 + level) / 2);
    out->delta = (twice_u - pairs) / pairs;
    out->interval.low = seen > 0 ? 2 * newcombe_end(0, seen, seen, z, (double)na, (double)nb) - 1 : -1;
    out->interval.high = seen < 1 ? 2 * newcombe_end(1, seen, seen, z, (double)na, (double)nb) - 1 : 1;
done:
    free(v);
    free(twice);
    return rc;
}
