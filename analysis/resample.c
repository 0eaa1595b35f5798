#include "analysis/resample.h"

#include "analysis/distributions.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the generator ---- */

ks_random ks_random_at(uint64_t seed, uint64_t draw)
{
    return (ks_random){.key = {(uint32_t)seed, (uint32_t)(seed >> 32)}, .counter = {0, 0, (uint32_t)draw, (uint32_t)(draw >> 32)}};
}

static void philox(ks_random *r)
{
    uint32_t c[4], k0 = r->key[0], k1 = r->key[1];
    memcpy(c, r->counter, sizeof c);
    for (int round = 0; round < 10; round++) {
        const uint64_t a = (uint64_t)0xD2511F53 * c[0], b = (uint64_t)0xCD9E8D57 * c[2];
        const uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k0, (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ k1, (uint32_t)a};
        memcpy(c, next, sizeof c);
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
    memcpy(r->out, c, sizeof c);
    if (!++r->counter[0]) r->counter[1]++;
    r->left = 4;
}

uint32_t ks_random_next(ks_random *r)
{
    if (!r->left) philox(r);
    return r->out[4 - r->left--];
}

uint32_t ks_random_below(ks_random *r, uint64_t n)
{
    const uint32_t bound = (uint32_t)n; /* 0 stands for 2^32: every word is good */
    uint64_t product = ks_random_next(r) * n;
    if ((uint32_t)product < bound) {
        const uint32_t reject = -bound % bound;
        while ((uint32_t)product < reject) product = ks_random_next(r) * n;
    }
    return (uint32_t)(product >> 32);
}

void ks_random_choose(ks_random *r, uint32_t *v, size_t n, size_t k)
{
    for (size_t i = 0; i < k && i + 1 < n; i++) {
        const size_t at = i + ks_random_below(r, n - i);
        const uint32_t kept = v[i];
        v[i] = v[at];
        v[at] = kept;
    }
}

/* ---- order statistics ---- */

/* Hoare's selection (1961). */
double ks_select_nth(double *v, size_t n, size_t k)
{
    size_t low = 0, high = n - 1;
    while (low < high) {
        const double pivot = v[low + (high - low) / 2];
        size_t i = low, j = high;
        for (;;) {
            while (v[i] < pivot) i++;
            while (v[j] > pivot) j--;
            if (i >= j) break;
            const double kept = v[i];
            v[i++] = v[j];
            v[j--] = kept;
        }
        /* v[low..j] <= pivot <= v[j+1..high]; both parts are shorter than the whole */
        if (k <= j) high = j;
        else low = j + 1;
    }
    return v[k];
}

double ks_quantile(double *v, size_t n, double p)
{
    const size_t i = (size_t)(p * (double)(n - 1));
    ks_select_nth(v, n, i);
    if (i + 1 < n) ks_select_nth(v + i + 1, n - i - 1, 0);
    return ks_quantile_sorted(v, n, p);
}

/* ---- the bootstrap ---- */

/* Efron's acceleration from leaving each observation out in turn. NaN where a statistic without one of them does not exist. */
static int acceleration(double *out, ks_statistic *f, void *context, size_t na, size_t nb)
{
    int rc = KS_OK;
    uint32_t *index[2] = {NULL, NULL};
    double *pull = NULL, largest = 0, cubes = 0, squares = 0; /* pull [na + nb]: each observation's influence */
    const size_t n[2] = {na, nb};
    KS_NEW(index[0], na);
    KS_NEW(index[1], nb);
    KS_NEW(pull, na + nb);
    for (size_t g = 0; g < 2; g++)
        for (size_t i = 0; i < n[g]; i++) index[g][i] = (uint32_t)i;
    for (size_t g = 0; g < 2; g++) {
        if (!n[g]) continue;
        double *u = pull + (g ? na : 0);
        for (size_t i = 0; i < n[g]; i++) {
            uint32_t *last = &index[g][n[g] - 1];
            *last = (uint32_t)i;
            index[g][i] = (uint32_t)(n[g] - 1);
            u[i] = f(context, index[0], g == 0 ? na - 1 : na, index[1], g == 1 ? nb - 1 : nb);
            index[g][i] = (uint32_t)i;
            *last = (uint32_t)(n[g] - 1);
        }
        const double mean = ks_mean(u, n[g]), count = (double)n[g];
        for (size_t i = 0; i < n[g]; i++) u[i] = (count - 1) / count * (mean - u[i]);
    }
    for (size_t i = 0; i < na + nb; i++) largest = fmax(largest, fabs(pull[i]));
    for (size_t i = 0; i < na + nb && largest > 0; i++) {
        const double u = pull[i] / largest;
        cubes += u * u * u;
        squares += u * u;
    }
    *out = squares > 0 ? cubes / (6 * squares * sqrt(squares)) : squares == 0 ? 0 : (double)NAN;
done:
    free(index[0]);
    free(index[1]);
    free(pull);
    return rc;
}

int ks_bootstrap(ks_interval *out, ks_statistic *f, void *context, size_t na, size_t nb, const ks_resample *how)
{
    int rc = KS_OK;
    const ks_resample h = how ? *how : KS_RESAMPLE;
    uint32_t *index[2] = {NULL, NULL};
    double *drawn = NULL, accelerate = 0;
    size_t kept = 0, below = 0, equal = 0;
    *out = (ks_interval){NAN, NAN, KS_WHY_FEW};
    if (na < 2 || nb == 1) return KS_OK;
    out->why = KS_WHY_RESAMPLES;
    KS_NEW(index[0], na);
    KS_NEW(index[1], nb);
    KS_NEW(drawn, h.draws);
    for (size_t i = 0; i < na; i++) index[0][i] = (uint32_t)i;
    for (size_t i = 0; i < nb; i++) index[1][i] = (uint32_t)i;
    const double seen = f(context, index[0], na, index[1], nb);
    if (!isfinite(seen)) goto done;
    for (size_t d = 0; d < h.draws; d++) {
        ks_random r = ks_random_at(h.seed, d);
        for (size_t i = 0; i < na; i++) index[0][i] = ks_random_below(&r, na);
        for (size_t i = 0; i < nb; i++) index[1][i] = ks_random_below(&r, nb);
        const double v = f(context, index[0], na, index[1], nb);
        if (isnan(v)) continue;
        drawn[kept++] = v;
        below += v < seen;
        equal += v == seen;
    }
    if (kept < h.draws - h.draws / 20 || equal == kept) goto done;
    KS_TRY(acceleration(&accelerate, f, context, na, nb));
    const double bias = ks_normal_quantile(((double)below + (double)equal / 2) / (double)kept);
    const double z = ks_normal_quantile((1 + h.level) / 2);
    const double down = bias - z, up = bias + z;
    const double p = ks_normal_cdf(bias + down / (1 - accelerate * down)), q = ks_normal_cdf(bias + up / (1 - accelerate * up));
    /* Beyond its pole the correction turns around and says nothing. */
    if (!(1 - accelerate * down > 0) || !(1 - accelerate * up > 0) || isnan(p) || isnan(q)) goto done;
    const ks_interval found = {ks_quantile(drawn, kept, p), ks_quantile(drawn, kept, q), NULL};
    if (isfinite(found.low) && isfinite(found.high)) *out = found;
done:
    free(index[0]);
    free(index[1]);
    free(drawn);
    return rc;
}

typedef struct centre_of {
    const double *v;
    double *room; /* [n] */
    ks_centre centre;
} centre_of;

static double centre_statistic(void *context, const uint32_t *a, size_t na, const uint32_t *b, size_t nb)
{
    const centre_of *c = context;
    (void)b;
    (void)nb;
    for (size_t i = 0; i < na; i++) c->room[i] = c->v[a[i]];
    return c->centre == KS_CENTRE_MEDIAN ? ks_quantile(c->room, na, 0.5) : ks_mean(c->room, na);
}

int ks_centre_interval(ks_interval *out, const double *v, size_t n, ks_centre centre, const ks_resample *how)
{
    int rc = KS_OK, finite;
    double *x = NULL, *room = NULL;
    bool negative = false, flat = true;
    size_t kept;
    *out = (ks_interval){NAN, NAN, KS_WHY_FEW};
    KS_NEW(x, n);
    KS_NEW(room, n);
    kept = ks_present(x, v, n, &finite);
    if (centre == KS_CENTRE_GEOMETRIC) {
        size_t above = 0;
        for (size_t i = 0; i < kept; i++) {
            negative |= x[i] < 0;
            if (x[i] > 0) x[above++] = log(x[i]);
        }
        kept = above;
    }
    for (size_t i = 1; i < kept; i++) flat &= x[i] == x[0];
    if (!finite) out->why = KS_WHY_INFINITE;
    else if (negative) out->why = KS_WHY_SIGN;
    else if (kept >= 2 && flat) out->why = KS_WHY_FLAT;
    else if (kept >= 2) KS_TRY(ks_bootstrap(out, centre_statistic, &(centre_of){x, room, centre}, kept, 0, how));
    if (centre == KS_CENTRE_GEOMETRIC && !out->why) {
        out->low = exp(out->low);
        out->high = exp(out->high);
    }
done:
    free(x);
    free(room);
    return rc;
}
