#include "analysis/many_cells.h"

#include "analysis/permutation.h"
#include "analysis/resample.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- corrections of p values ---- */

static int adjust(double *adjusted, const double *p, size_t n, bool holm)
{
    int rc = KS_OK;
    ks_ranked *order = NULL;
    KS_NEW(order, n);
    const size_t m = ks_rank(order, p, n);
    for (size_t i = 0; i < n; i++) adjusted[i] = NAN; /* may be p */
    double bound = holm ? 0 : 1;
    for (size_t k = 0; k < m; k++) {
        const size_t i = holm ? k : m - 1 - k;
        if (holm) bound = fmax(bound, fmin(1, (double)(m - i) * order[i].v));
        else bound = fmin(bound, (double)m * order[i].v / (double)(i + 1));
        adjusted[order[i].at] = bound;
    }
done:
    free(order);
    return rc;
}

int ks_holm(double *adjusted, const double *p, size_t n)
{
    return adjust(adjusted, p, n, true);
}

int ks_benjamini_hochberg(double *adjusted, const double *p, size_t n)
{
    return adjust(adjusted, p, n, false);
}

/* ---- the largest t over all cells ---- */

#define EQUAL (1 - 1e-9)
#define NO_SPREAD 1e-13 /* of the squares: what is left of them by rounding */

/* Sums over the samples of one side of a split, one row a sample: cells lie side by side, so that all of them are added at once. */
typedef struct scan {
    size_t cells, n, k;                       /* k: size of the moved group; 0: pairs */
    double *x, *squares, *there;              /* [n, cells] centred and scaled values (0 where missing), their squares, 1 or 0 */
    double *sum, *square, *count;             /* [depth, cells] along the way to a split */
    double *all_sum, *all_square, *all_count; /* [cells] over all samples */
    double *t2;                               /* [cells] of the split that was looked at last */
    double *seen;                             /* [cells] of the observed one; NaN without a test */
    double *most;                             /* [total] */
    size_t total;
} scan;

static double welch_square(double s, double q, double n, double other_s, double other_q, double other_n)
{
    if (n < 2 || other_n < 2) return 0;
    const double off = s / n - other_s / other_n, spread = fmax(0, q - s * s / n), other = fmax(0, other_q - other_s * other_s / other_n);
    const double e2 = spread / (n * (n - 1)) + other / (other_n * (other_n - 1));
    const double nothing = NO_SPREAD * (q + other_q);
    /* Without spread t is infinite, or there is none. */
    if (spread + other <= nothing) return off * off <= nothing ? 0 : INFINITY;
    return off * off / e2;
}

static double paired_square(double s, double q, double n)
{
    if (n < 2) return 0;
    const double mean_square = s * s / n, spread = fmax(0, q - mean_square);
    if (spread <= NO_SPREAD * q) return q > 0 ? INFINITY : 0;
    return mean_square * (n - 1) / spread;
}

/* t^2 of all cells for the sums in a row of the way. Missing values of a moved sample are 0 in every sum. */
static void squares_of(scan *s, const double *sum, const double *square, const double *count)
{
    for (size_t c = 0; c < s->cells; c++) {
        if (s->k)
            s->t2[c] =
                welch_square(sum[c], square[c], count[c], s->all_sum[c] - sum[c], s->all_square[c] - square[c], s->all_count[c] - count[c]);
        else s->t2[c] = paired_square(s->all_sum[c] - 2 * sum[c], s->all_square[c], s->all_count[c]);
    }
}

static void look(scan *s, const double *sum, const double *square, const double *count)
{
    double most = 0;
    squares_of(s, sum, square, count);
    for (size_t c = 0; c < s->cells; c++)
        if (!isnan(s->seen[c]) && s->t2[c] > most) most = s->t2[c];
    s->most[s->total++] = most;
}

/* to = from + sample */
static void move(const scan *s, double *to, const double *from, const double *rows, size_t sample)
{
    const double *row = rows + sample * s->cells;
    for (size_t c = 0; c < s->cells; c++) to[c] = from[c] + row[c];
}

static void step(scan *s, size_t depth, size_t sample)
{
    const size_t at = depth * s->cells, next = at + s->cells;
    move(s, s->sum + next, s->sum + at, s->x, sample);
    if (!s->k) return; /* exchanging the two of a pair moves neither squares nor counts */
    move(s, s->square + next, s->square + at, s->squares, sample);
    move(s, s->count + next, s->count + at, s->there, sample);
}

static void all_subsets(scan *s, size_t depth, size_t from)
{
    if (depth == s->k) {
        const size_t at = depth * s->cells;
        look(s, s->sum + at, s->square + at, s->count + at);
        return;
    }
    for (size_t i = from; i + (s->k - depth) <= s->n; i++) {
        step(s, depth, i);
        all_subsets(s, depth + 1, i + 1);
    }
}

static void all_signs(scan *s, size_t depth, size_t from)
{
    const size_t at = depth * s->cells;
    if (from == s->n) {
        look(s, s->sum + at, s->square + at, s->count + at);
        return;
    }
    all_signs(s, depth, from + 1);
    step(s, depth, from);
    all_signs(s, depth + 1, from + 1);
}

static void draw(scan *s, const ks_resample *h, uint32_t *order)
{
    double *sum = s->sum + s->cells, *square = s->square + s->cells, *count = s->count + s->cells;
    for (size_t d = 0; d < h->draws; d++) {
        ks_random r = ks_random_at(h->seed, d);
        memset(sum, 0, s->cells * sizeof *sum);
        memset(square, 0, s->cells * sizeof *square);
        memset(count, 0, s->cells * sizeof *count);
        for (size_t i = 0; i < s->n; i++) order[i] = (uint32_t)i;
        if (s->k) ks_random_choose(&r, order, s->n, s->k);
        for (size_t i = 0; i < (s->k ? s->k : s->n); i++) {
            if (!s->k && ks_random_next(&r) >> 31) continue;
            move(s, sum, sum, s->x, order[i]);
            if (!s->k) continue;
            move(s, square, square, s->squares, order[i]);
            move(s, count, count, s->there, order[i]);
        }
        look(s, sum, square, count);
    }
}

/* v [cells, stride], taken at column [n]; pairs are not centred, because their differences keep their sign's meaning. */
static void fill(scan *s, const double *v, size_t stride, const size_t *column)
{
    for (size_t c = 0; c < s->cells; c++) {
        double mean = 0, largest = 0;
        size_t n = 0;
        for (size_t i = 0; i < s->n; i++) {
            const double x = v[c * stride + column[i]];
            if (!isnan(x)) largest = fmax(largest, fabs(x));
        }
        /* Values that are not finite and such without any size have no test. */
        const int scale = largest > 0 && isfinite(largest) ? ilogb(largest) + 1 : 0;
        for (size_t turn = s->k ? 0 : 1; turn < 2; turn++) {
            n = 0;
            for (size_t i = 0; i < s->n; i++) {
                const double x = v[c * stride + column[i]], scaled = isnan(x) || isinf(largest) ? 0 : ldexp(x, -scale) - mean;
                s->x[i * s->cells + c] = scaled;
                s->there[i * s->cells + c] = !isnan(x);
                n += !isnan(x);
            }
            if (turn == 0 && n) {
                double sum = 0;
                for (size_t i = 0; i < s->n; i++) sum += s->x[i * s->cells + c];
                mean = sum / (double)n;
            }
        }
        for (size_t i = 0; i < s->n; i++) {
            const size_t at = i * s->cells + c;
            s->squares[at] = s->x[at] * s->x[at];
            s->all_sum[c] += s->x[at];
            s->all_square[c] += s->squares[at];
            s->all_count[c] += s->there[at];
        }
        s->seen[c] = isinf(largest) ? (double)NAN : 0;
    }
}

static int run(ks_max_t *out, double *t, double *adjusted, const double *v, size_t cells, size_t stride, const size_t *column, size_t n,
               size_t k, const ks_resample *how)
{
    int rc = KS_OK;
    const ks_resample h = how ? *how : KS_RESAMPLE;
    scan s = {.cells = cells, .n = n, .k = k};
    uint32_t *order = NULL;
    bool mirrored;
    *out = (ks_max_t){.limit = NAN, .error = NAN};
    for (size_t c = 0; c < cells; c++) t[c] = adjusted[c] = NAN;
    out->why = n < 2 || (k && (k < 2 || n - k < 2)) ? KS_WHY_FEW : NULL;
    if (out->why) return KS_OK;
    const uint64_t splits = k ? ks_choose(n, k, h.exact + 1) : n < 40 ? (uint64_t)1 << n : UINT64_MAX;
    const size_t depth = (k ? k : n) + 1;
    out->exact = splits <= h.exact;
    KS_NEW(order, n);
    KS_NEW(s.x, n * cells);
    KS_NEW(s.squares, n * cells);
    KS_NEW(s.there, n * cells);
    KS_NEW(s.sum, depth * cells);
    KS_NEW(s.square, depth * cells);
    KS_NEW(s.count, depth * cells);
    KS_NEW(s.all_sum, cells);
    KS_NEW(s.all_square, cells);
    KS_NEW(s.all_count, cells);
    KS_NEW(s.t2, cells);
    KS_NEW(s.seen, cells);
    KS_NEW(s.most, out->exact ? splits : h.draws);
    fill(&s, v, stride, column);

    /* The observed split: the first k columns. A sum with its sign gives t its own. */
    for (size_t i = 0; i < k; i++) step(&s, i, i);
    const size_t at = k * cells;
    squares_of(&s, s.sum + at, s.square + at, s.count + at);
    for (size_t c = 0; c < cells; c++) {
        const double na = s.count[at + c], nb = s.all_count[c] - na;
        const bool enough = k ? na >= 2 && nb >= 2 : s.all_count[c] >= 2;
        if (isnan(s.seen[c]) || !enough || isinf(s.t2[c]) || s.all_square[c] == 0) {
            s.seen[c] = NAN;
            continue;
        }
        const double off = k ? s.sum[at + c] / na - (s.all_sum[c] - s.sum[at + c]) / nb : s.all_sum[c];
        s.seen[c] = s.t2[c];
        t[c] = copysign(sqrt(s.t2[c]), off);
        out->cells++;
    }
    if (!out->cells) {
        out->why = "no cell has a test";
        goto done;
    }

    /* A split and its mirror image have the same |t|: half of them will do, where both are among them. */
    mirrored = out->exact && (!k || 2 * k == n);
    if (!out->exact) {
        draw(&s, &h, order);
    } else if (!k) {
        all_signs(&s, 0, 1);
    } else if (mirrored) {
        step(&s, 0, 0);
        all_subsets(&s, 1, 1);
    } else {
        all_subsets(&s, 0, 0);
    }
    qsort(s.most, s.total, sizeof *s.most, ks_ascending);
    const double extra = out->exact ? 0 : 1;
    for (size_t c = 0; c < cells; c++) {
        if (isnan(s.seen[c])) continue;
        size_t low = 0, high = s.total; /* the first that is as large */
        while (low < high) {
            const size_t middle = low + (high - low) / 2;
            if (s.most[middle] >= s.seen[c] * EQUAL) high = middle;
            else low = middle + 1;
        }
        adjusted[c] = ((double)(s.total - low) + extra) / ((double)s.total + extra);
    }
    /* p <= 1 - level where fewer maxima than that share, the observed one included, are as large. */
    const size_t at_limit = (size_t)ceil(h.level * ((double)s.total + extra)) - 1;
    out->limit = at_limit < s.total ? sqrt(s.most[at_limit]) : INFINITY;
    out->total = mirrored ? 2 * s.total : s.total;
    out->error = out->exact ? 0 : 0.5 / sqrt((double)s.total);
done:
    free(order);
    free(s.x);
    free(s.squares);
    free(s.there);
    free(s.sum);
    free(s.square);
    free(s.count);
    free(s.all_sum);
    free(s.all_square);
    free(s.all_count);
    free(s.t2);
    free(s.seen);
    free(s.most);
    return rc;
}

int ks_max_t_groups(ks_max_t *out, double *t, double *adjusted, const double *v, size_t cells, const uint8_t *group, size_t samples,
                    const ks_resample *how)
{
    int rc = KS_OK;
    size_t *column = NULL, count[2] = {0, 0}, n = 0;
    for (size_t i = 0; i < samples; i++)
        if (group[i] < 2) count[group[i]]++;
    /* The smaller group comes first: it is the one that moves. */
    const uint8_t first = count[1] < count[0];
    KS_NEW(column, samples);
    for (uint8_t g = 0; g < 2; g++)
        for (size_t i = 0; i < samples; i++)
            if (group[i] == (g ? !first : first)) column[n++] = i;
    if (!count[0] || !count[1]) n = 0;
    KS_TRY(run(out, t, adjusted, v, cells, samples, column, n, count[first], how));
    for (size_t c = 0; first && c < cells; c++) t[c] = -t[c];
done:
    free(column);
    return rc;
}

int ks_max_t_pairs(ks_max_t *out, double *t, double *adjusted, const double *d, size_t cells, size_t samples, const ks_resample *how)
{
    int rc = KS_OK;
    size_t *column = NULL;
    KS_NEW(column, samples);
    for (size_t i = 0; i < samples; i++) column[i] = i;
    KS_TRY(run(out, t, adjusted, d, cells, samples, column, samples, 0, how));
done:
    free(column);
    return rc;
}
