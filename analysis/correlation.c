#include "analysis/correlation.h"

#include "analysis/distributions.h"
#include "analysis/ranks.h"
#include "analysis/resample.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

enum { EXACT = 9, MOST_CLUSTERS = 500, MOST_POINTS = 20000 };

static int sign(double v)
{
    return (v > 0) - (v < 0);
}

/* ---- bootstrap by weights ---- */

typedef struct by_rank {
    size_t at;  /* the point */
    bool first; /* of its ties */
} by_rank;

/* n points (x, y), each in one of k clusters; a draw is how often each cluster was taken. */
typedef struct cloud {
    size_t n, k;
    const uint32_t *cluster;                  /* [n] */
    by_rank *order_x, *order_y;               /* [n] */
    double *rank_x, *rank_y, *weight;         /* [n], [n], [k]: room for a draw */
    double *concordant, *untied_x, *untied_y; /* [k, k] sums over pairs of points of two clusters; NULL without tau */
} cloud;

static int rank_order(by_rank *out, const double *v, size_t n)
{
    int rc = KS_OK;
    ks_ranked *p = NULL;
    KS_NEW(p, n);
    ks_rank(p, v, n);
    for (size_t i = 0; i < n; i++) out[i] = (by_rank){p[i].at, i == 0 || p[i].v != p[i - 1].v};
done:
    free(p);
    return rc;
}

/* Twice the weighted midranks less their mean: whole numbers. */
static void weighted_ranks(double *rank, const by_rank *order, const cloud *c, double all)
{
    double before = 0;
    for (size_t i = 0, end; i < c->n; i = end) {
        double tied = 0;
        for (end = i; end < c->n && (end == i || !order[end].first); end++) tied += c->weight[c->cluster[order[end].at]];
        for (size_t k = i; k < end; k++) rank[order[k].at] = 2 * before + tied - all;
        before += tied;
    }
}

static void weigh(cloud *c, const uint32_t *a, size_t na)
{
    for (size_t i = 0; i < c->k; i++) c->weight[i] = 0;
    for (size_t i = 0; i < na; i++) c->weight[a[i]]++;
}

static double spearman(void *context, const uint32_t *a, size_t na, const uint32_t *b, size_t nb)
{
    cloud *c = context;
    double all = 0, xy = 0, xx = 0, yy = 0;
    (void)b;
    (void)nb;
    weigh(c, a, na);
    for (size_t i = 0; i < c->n; i++) all += c->weight[c->cluster[i]];
    weighted_ranks(c->rank_x, c->order_x, c, all);
    weighted_ranks(c->rank_y, c->order_y, c, all);
    for (size_t i = 0; i < c->n; i++) {
        const double w = c->weight[c->cluster[i]];
        xy += w * c->rank_x[i] * c->rank_y[i];
        xx += w * c->rank_x[i] * c->rank_x[i];
        yy += w * c->rank_y[i] * c->rank_y[i];
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : (double)NAN;
}

static double kendall(void *context, const uint32_t *a, size_t na, const uint32_t *b, size_t nb)
{
    cloud *c = context;
    double xy = 0, xx = 0, yy = 0;
    (void)b;
    (void)nb;
    weigh(c, a, na);
    for (size_t i = 0; i < c->k; i++) {
        if (c->weight[i] == 0) continue;
        for (size_t j = 0; j < c->k; j++) {
            const double w = c->weight[i] * c->weight[j];
            xy += w * c->concordant[i * c->k + j];
            xx += w * c->untied_x[i * c->k + j];
            yy += w * c->untied_y[i * c->k + j];
        }
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : (double)NAN;
}

static void cloud_free(cloud *c)
{
    free(c->order_x);
    free(c->order_y);
    free(c->rank_x);
    free(c->rank_y);
    free(c->weight);
    free(c->concordant);
    free(c->untied_x);
    free(c->untied_y);
}

static int cloud_make(cloud *c, const double *x, const double *y, const uint32_t *cluster, size_t n, size_t k)
{
    int rc = KS_OK;
    *c = (cloud){.n = n, .k = k, .cluster = cluster};
    KS_NEW(c->order_x, n);
    KS_NEW(c->order_y, n);
    KS_NEW(c->rank_x, n);
    KS_NEW(c->rank_y, n);
    KS_NEW(c->weight, k);
    KS_TRY(rank_order(c->order_x, x, n));
    KS_TRY(rank_order(c->order_y, y, n));
    if (k > MOST_CLUSTERS) goto done;
    KS_NEW(c->concordant, k * k);
    KS_NEW(c->untied_x, k * k);
    KS_NEW(c->untied_y, k * k);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            const size_t at = cluster[i] * k + cluster[j];
            const int sx = sign(x[i] - x[j]), sy = sign(y[i] - y[j]);
            c->concordant[at] += sx * sy;
            c->untied_x[at] += abs(sx);
            c->untied_y[at] += abs(sy);
        }
done:
    return rc;
}

static int intervals(ks_interval *rho, ks_interval *tau, cloud *c, const ks_resample *how)
{
    int rc = KS_OK;
    KS_TRY(ks_bootstrap(rho, spearman, c, c->k, 0, how));
    if (c->concordant) KS_TRY(ks_bootstrap(tau, kendall, c, c->k, 0, how));
    else tau->why = KS_WHY_LARGE;
done:
    return rc;
}

/* ---- samples ---- */

/* Everything whole: twice the midranks less their mean, and signs of all pairs. */
typedef struct orders {
    size_t n, order[EXACT];
    int64_t x[EXACT], y[EXACT], far_rho, far_tau;
    int sx[EXACT][EXACT], sy[EXACT][EXACT];
    uint64_t hits_rho, hits_tau;
} orders;

static void count_orders(orders *o, size_t fixed, int64_t rho, int64_t tau)
{
    if (fixed == o->n) {
        o->hits_rho += llabs(rho) >= o->far_rho;
        o->hits_tau += llabs(tau) >= o->far_tau;
        return;
    }
    for (size_t i = fixed; i < o->n; i++) {
        const size_t chosen = o->order[i];
        int64_t more = 0;
        o->order[i] = o->order[fixed];
        o->order[fixed] = chosen;
        for (size_t j = 0; j < fixed; j++) more += (int64_t)o->sx[fixed][j] * o->sy[chosen][o->order[j]];
        count_orders(o, fixed + 1, rho + o->x[fixed] * o->y[chosen], tau + more);
        o->order[fixed] = o->order[i];
        o->order[i] = chosen;
    }
}

typedef struct ties {
    double pairs, triples, fives; /* sums of t (t-1), t (t-1) (t-2), t (t-1) (2t+5) over groups of t ties */
    double log_orders;            /* log of the orders that leave the values as they are */
    bool mirrored;                /* the pattern of ties reads the same from both ends */
} ties;

static ties tie_sums(const by_rank *order, size_t n)
{
    ties out = {.mirrored = true};
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && !order[end].first;) end++;
        const double t = (double)(end - i);
        out.pairs += t * (t - 1);
        out.triples += t * (t - 1) * (t - 2);
        out.fives += t * (t - 1) * (2 * t + 5);
        out.log_orders += lgamma(t + 1);
        out.mirrored &= i == 0 || order[n - i].first;
    }
    return out;
}

static void large_p(ks_correlation *out, const cloud *c)
{
    const ties x = tie_sums(c->order_x, out->n), y = tie_sums(c->order_y, out->n);
    const double n = (double)out->n, all = n * (n - 1);
    const double variance =
        (all * (2 * n + 5) - x.fives - y.fives) / 18 + x.pairs * y.pairs / (2 * all) + x.triples * y.triples / (9 * all * (n - 2));
    double concordant = 0;
    /* With clusters of one point, tau's own sums are the numerator; they exist up to MOST_CLUSTERS, beyond that tau is not computed. */
    for (size_t i = 0; c->concordant && i < c->k * c->k; i++) concordant += c->concordant[i];
    out->z_tau = c->concordant ? concordant / 2 / sqrt(variance) : (double)NAN;
    out->p_tau = ks_normal_p(out->z_tau);
    /* At rho = 1 Student's t would say 0; the orders that reach it can be counted. */
    if (1 - fabs(out->rho) < 1e-14) out->p_rho = fmin(1, exp(x.log_orders - lgamma(n + 1)) * (x.mirrored ? 2 : 1));
    else out->p_rho = ks_student_p(out->rho * sqrt((n - 2) / ((1 - out->rho) * (1 + out->rho))), n - 2);
}

int ks_correlate(ks_correlation *out, const double *x, const double *y, size_t n, const ks_resample *how)
{
    int rc = KS_OK;
    cloud c = {0};
    double *u = NULL, *v = NULL;
    uint32_t *each = NULL;
    bool finite = true;
    *out = (ks_correlation){.rho = NAN, .tau = NAN, .p_rho = NAN, .p_tau = NAN, .z_tau = NAN};
    out->interval_rho = out->interval_tau = (ks_interval){NAN, NAN, NULL};
    KS_NEW(u, n);
    KS_NEW(v, n);
    KS_NEW(each, n);
    for (size_t i = 0; i < n; i++) {
        each[i] = (uint32_t)i;
        if (isnan(x[i]) || isnan(y[i])) continue;
        finite &= isfinite(x[i]) && isfinite(y[i]);
        u[out->n] = x[i];
        v[out->n++] = y[i];
    }
    out->missing = n - out->n;
    n = out->n;
    out->why = n < 3 ? "fewer than three pairs" : !finite ? KS_WHY_INFINITE : n > 1000000 ? KS_WHY_LARGE : NULL;
    if (!out->why) {
        KS_TRY(cloud_make(&c, u, v, each, n, n));
        out->rho = spearman(&c, each, n, NULL, 0);
        if (c.concordant) out->tau = kendall(&c, each, n, NULL, 0);
        if (isnan(out->rho)) out->why = "all values of one side are equal";
    }
    out->interval_rho.why = out->interval_tau.why = out->why;
    if (out->why) goto done;
    if (n <= EXACT) {
        orders o = {.n = n};
        for (size_t i = 0; i < n; i++) {
            o.order[i] = i;
            o.x[i] = (int64_t)c.rank_x[i];
            o.y[i] = (int64_t)c.rank_y[i];
            o.far_rho += o.x[i] * o.y[i];
            for (size_t j = 0; j < n; j++) {
                o.sx[i][j] = sign(u[i] - u[j]);
                o.sy[i][j] = sign(v[i] - v[j]);
                if (j < i) o.far_tau += (int64_t)o.sx[i][j] * o.sy[i][j];
            }
        }
        o.far_rho = llabs(o.far_rho);
        o.far_tau = llabs(o.far_tau);
        count_orders(&o, 0, 0, 0);
        out->exact = true;
        out->hits_rho = o.hits_rho;
        out->hits_tau = o.hits_tau;
        out->p_rho = (double)o.hits_rho / tgamma((double)n + 1);
        out->p_tau = (double)o.hits_tau / tgamma((double)n + 1);
    } else {
        large_p(out, &c);
    }
    KS_TRY(intervals(&out->interval_rho, &out->interval_tau, &c, how));
done:
    cloud_free(&c);
    free(u);
    free(v);
    free(each);
    return rc;
}

/* ---- layers and samples ---- */

/* rho over the layers of one sample; NaN where there is none. */
static int within_sample(double *out, const double *x, const double *y, size_t layers, size_t samples, size_t sample, double *room)
{
    int rc = KS_OK;
    cloud c = {0};
    uint32_t *each = NULL;
    size_t n = 0;
    *out = NAN;
    KS_NEW(each, layers);
    for (size_t l = 0; l < layers; l++) {
        const double u = x[l * samples + sample], v = y[l * samples + sample];
        if (isnan(u) || isnan(v)) continue;
        each[n] = (uint32_t)n;
        room[n] = u;
        room[layers + n++] = v;
    }
    if (n < 3) goto done;
    c = (cloud){.n = n, .k = n, .cluster = each};
    KS_NEW(c.order_x, n);
    KS_NEW(c.order_y, n);
    KS_NEW(c.rank_x, n);
    KS_NEW(c.rank_y, n);
    KS_NEW(c.weight, n);
    KS_TRY(rank_order(c.order_x, room, n));
    KS_TRY(rank_order(c.order_y, room + layers, n));
    *out = spearman(&c, each, n, NULL, 0);
done:
    cloud_free(&c);
    free(each);
    return rc;
}

int ks_correlate_layers(ks_cluster_correlation *out, const double *x, const double *y, size_t layers, size_t samples,
                        const ks_resample *how)
{
    int rc = KS_OK;
    cloud c = {0};
    double *u = NULL, *v = NULL, *each_rho = NULL;
    uint32_t *cluster = NULL, *each = NULL;
    bool finite = true;
    *out = (ks_cluster_correlation){.rho = NAN, .tau = NAN, .within = NAN};
    out->interval_rho = out->interval_tau = out->interval_within = (ks_interval){NAN, NAN, NULL};
    KS_NEW(u, 2 * layers * samples);
    KS_NEW(v, layers * samples);
    KS_NEW(cluster, layers * samples);
    KS_NEW(each, samples);
    KS_NEW(each_rho, samples);
    for (size_t s = 0; s < samples; s++) {
        const size_t before = out->points;
        for (size_t l = 0; l < layers; l++) {
            const double a = x[l * samples + s], b = y[l * samples + s];
            if (isnan(a) || isnan(b)) continue;
            finite &= isfinite(a) && isfinite(b);
            u[out->points] = a;
            v[out->points] = b;
            cluster[out->points++] = (uint32_t)out->samples;
        }
        each[out->samples] = (uint32_t)out->samples;
        out->samples += out->points > before;
    }
    out->missing = layers * samples - out->points;
    out->why = out->samples < 3 ? "fewer than three samples" : !finite ? KS_WHY_INFINITE : out->points > MOST_POINTS ? KS_WHY_LARGE : NULL;
    if (!out->why) {
        KS_TRY(cloud_make(&c, u, v, cluster, out->points, out->samples));
        out->rho = spearman(&c, each, out->samples, NULL, 0);
        if (c.concordant) out->tau = kendall(&c, each, out->samples, NULL, 0);
        if (isnan(out->rho)) out->why = "all values of one side are equal";
    }
    out->interval_rho.why = out->interval_tau.why = out->interval_within.why = out->why;
    if (out->why) goto done;
    KS_TRY(intervals(&out->interval_rho, &out->interval_tau, &c, how));
    for (size_t s = 0; s < samples; s++) {
        double rho;
        KS_TRY(within_sample(&rho, x, y, layers, samples, s, u));
        if (!isnan(rho)) each_rho[out->within_samples++] = rho;
    }
    if (out->within_samples) out->within = ks_mean(each_rho, out->within_samples);
    KS_TRY(ks_centre_interval(&out->interval_within, each_rho, out->within_samples, KS_CENTRE_MEAN, how));
done:
    cloud_free(&c);
    free(u);
    free(v);
    free(each_rho);
    free(cluster);
    free(each);
    return rc;
}
