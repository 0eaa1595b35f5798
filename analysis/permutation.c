#include "analysis/permutation.h"

#include "analysis/resample.h"
#include "analysis/stats_private.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

#define TIE 0x1p-52

uint64_t ks_choose(size_t n, size_t k, uint64_t most)
{
    uint64_t c = 1;
    if (k > n) return 0;
    if (k > n - k) k = n - k;
    for (size_t i = 1; i <= k; i++) {
        const unsigned __int128 next = (unsigned __int128)c * (n - k + i) / i;
        if (next >= most) return most;
        c = (uint64_t)next;
    }
    return c < most ? c : most;
}

/* What a permutation test moves. Two groups: `in` are the k members of one group, and the statistic is n sum(in) - k sum(all). Paired: k =
 * 0, `in` are the pairs whose sign is turned, and the statistic is sum(all) - 2 sum(in). */
typedef struct splits {
    const double *x, *rest,
        *size;        /* [n] x + rest: the value, scaled so that the largest size is near 1; size: what its rounding is relative to */
    const bool *seen; /* [n] the observed split */
    bool *in;         /* [n] the split that is looked at */
    size_t n, k;
    double all, far, blur; /* sum of x; |statistic| of the observed split; what the quick sums may be off by */
    uint64_t hits, total;
} splits;

/* The sign of sum(c_i x_i), 0 within rounding. */
static int sum_sign(const splits *s, bool opposite)
{
    ks_dd sum = {0, 0};
    double sizes = 0;
    for (size_t i = 0; i < s->n; i++) {
        double c;
        if (s->k && opposite) c = (double)s->n * (s->in[i] + s->seen[i]) - 2 * (double)s->k;
        else if (s->k) c = (double)s->n * (s->in[i] - s->seen[i]);
        else c = opposite ? 1 - s->in[i] - s->seen[i] : s->seen[i] - s->in[i];
        sum = ks_dd_plus(sum, ks_dd_product(c, s->x[i]));
        sum = ks_dd_add(sum, c * s->rest[i]);
        sizes += fabs(c) * s->size[i];
    }
    return fabs(sum.high) <= TIE * sizes ? 0 : sum.high > 0 ? 1 : -1;
}

/* sum: of x over `in`. |D| >= |seen| where (D - seen) (D + seen) >= 0. */
static bool is_far(const splits *s, double sum)
{
    const double d = fabs(s->k ? (double)s->n * sum - (double)s->k * s->all : s->all - 2 * sum);
    if (fabs(d - s->far) > s->blur) return d > s->far;
    return sum_sign(s, false) * sum_sign(s, true) >= 0;
}

static void look(splits *s, double sum)
{
    s->hits += is_far(s, sum);
    s->total++;
}

/* All ways to put `left` more of x from `from` on into the split. Sums are made anew along each way, so that rounding does not add up. */
static void all_subsets(splits *s, size_t from, size_t left, double sum)
{
    if (!left) {
        look(s, sum);
        return;
    }
    for (size_t i = from; i + left <= s->n; i++) {
        s->in[i] = true;
        all_subsets(s, i + 1, left - 1, sum + s->x[i]);
        s->in[i] = false;
    }
}

static void all_signs(splits *s, size_t from, double sum)
{
    if (from == s->n) {
        look(s, sum);
        return;
    }
    all_signs(s, from + 1, sum);
    s->in[from] = true;
    all_signs(s, from + 1, sum + s->x[from]);
    s->in[from] = false;
}

static void draw(splits *s, const ks_resample *h, uint32_t *order)
{
    for (size_t d = 0; d < h->draws; d++) {
        ks_random r = ks_random_at(h->seed, d);
        double sum = 0;
        for (size_t i = 0; i < s->n; i++) {
            s->in[i] = !s->k && ks_random_next(&r) >> 31;
            order[i] = (uint32_t)i;
        }
        if (s->k) ks_random_choose(&r, order, s->n, s->k);
        for (size_t i = 0; i < s->k; i++) s->in[order[i]] = true;
        for (size_t i = 0; i < s->n; i++) sum += s->in[i] ? s->x[i] : 0;
        look(s, sum);
    }
}

/* x, rest, size [n] and seen [n] as in splits; they are scaled here. */
static int permute(ks_permutation *out, double *x, double *rest, double *size, const bool *seen, size_t n, size_t k, const ks_resample *how)
{
    int rc = KS_OK;
    const ks_resample h = how ? *how : KS_RESAMPLE;
    splits s = {.x = x, .rest = rest, .size = size, .seen = seen, .n = n, .k = k};
    uint32_t *order = NULL;
    double largest = 0, sizes = 0, sum = 0;
    for (size_t i = 0; i < n; i++) largest = fmax(largest, size[i]);
    const int scale = ilogb(largest) + 1;
    for (size_t i = 0; i < n; i++) {
        x[i] = ldexp(x[i], -scale);
        rest[i] = ldexp(rest[i], -scale);
        size[i] = ldexp(size[i], -scale);
        s.all += x[i];
        sizes += size[i];
        if (seen[i]) sum += x[i];
    }
    s.far = fabs(k ? (double)n * sum - (double)k * s.all : s.all - 2 * sum);
    s.blur = (k ? (double)n : 1) * (double)(n + 8) * 0x1p-51 * sizes;
    KS_NEW(s.in, n);
    KS_NEW(order, n);
    const uint64_t count = k ? ks_choose(n, k, h.exact + 1) : n < 40 ? (uint64_t)1 << n : UINT64_MAX;
    out->exact = count <= h.exact;
    if (!out->exact) {
        draw(&s, &h, order);
    } else if (k && 2 * k < n) {
        all_subsets(&s, 0, k, 0);
    } else {
        /* A split and its mirror image are equally far out: the first value stays on one side. */
        if (k) {
            s.in[0] = true;
            all_subsets(&s, 1, k - 1, x[0]);
        } else {
            all_signs(&s, 1, 0);
        }
        s.hits *= 2;
        s.total *= 2;
    }
    out->hits = s.hits;
    out->total = s.total;
    out->p = out->exact ? (double)s.hits / (double)s.total : (double)(s.hits + 1) / (double)(s.total + 1);
    out->error = out->exact ? 0 : sqrt(out->p * (1 - out->p) / (double)s.total);
done:
    free(s.in);
    free(order);
    return rc;
}

int ks_permute_two(ks_permutation *out, const double *a, size_t na, const double *b, size_t nb, const ks_resample *how)
{
    int rc = KS_OK, finite_a, finite_b;
    double *x = NULL, *rest = NULL, *size = NULL;
    bool *seen = NULL;
    ks_summary of_a, of_b;
    *out = (ks_permutation){.difference = NAN, .p = NAN, .error = NAN};
    KS_NEW(x, na + nb);
    KS_NEW(rest, na + nb);
    KS_NEW(size, na + nb);
    KS_NEW(seen, na + nb);
    KS_TRY(ks_summarize(&of_a, a, na));
    KS_TRY(ks_summarize(&of_b, b, nb));
    na = ks_present(x, a, na, &finite_a);
    nb = ks_present(x + na, b, nb, &finite_b);
    out->why = na < 2 || nb < 2 ? KS_WHY_FEW : !finite_a || !finite_b ? KS_WHY_INFINITE : NULL;
    if (!out->why && of_a.min == of_a.max && of_b.min == of_b.max && of_a.min == of_b.min) out->why = KS_WHY_FLAT;
    if (out->why) goto done;
    out->difference = (of_a.mean - of_b.mean) + (of_a.mean_rest - of_b.mean_rest);
    for (size_t i = 0; i < na + nb; i++) {
        size[i] = fabs(x[i]);
        seen[i] = na <= nb ? i < na : i >= na;
    }
    KS_TRY(permute(out, x, rest, size, seen, na + nb, na <= nb ? na : nb, how));
done:
    free(x);
    free(rest);
    free(size);
    free(seen);
    return rc;
}

int ks_permute_pairs(ks_permutation *out, const double *a, const double *b, size_t n, const ks_resample *how)
{
    int rc = KS_OK;
    double *x = NULL, *rest = NULL, *size = NULL;
    bool *seen = NULL, finite = true, moved = false;
    size_t kept = 0;
    *out = (ks_permutation){.difference = NAN, .p = NAN, .error = NAN};
    KS_NEW(x, n);
    KS_NEW(rest, n);
    KS_NEW(size, n);
    KS_NEW(seen, n);
    for (size_t i = 0; i < n; i++) {
        const double minus = b ? b[i] : 0;
        if (isnan(a[i]) || isnan(minus)) continue;
        const ks_dd d = ks_two_sum(a[i], -minus);
        finite &= isfinite(d.high);
        moved |= d.high != 0;
        x[kept] = d.high;
        rest[kept] = d.low;
        size[kept] = fabs(a[i]) + fabs(minus);
        finite &= isfinite(size[kept]);
        kept++;
    }
    out->why = kept < 2 ? KS_WHY_FEW : !finite ? KS_WHY_INFINITE : !moved ? KS_WHY_FLAT_PAIRS : NULL;
    if (out->why) goto done;
    out->difference = ks_mean(x, kept);
    KS_TRY(permute(out, x, rest, size, seen, kept, 0, how));
done:
    free(x);
    free(rest);
    free(size);
    free(seen);
    return rc;
}
