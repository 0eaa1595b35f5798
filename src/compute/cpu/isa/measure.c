/* Formulas and their derivation: docs/method.md, "Measures". Everything is double; sums run over 16 lanes, token i in lane i % 16. */
#include "compute/cpu/isa/measure.h"

#include "compute/cpu/isa/vmath.h"

#include <float.h>

enum { N = KS_LANES / 2, UNITS = 16 / N }; /* doubles of a vector, vectors of a block */

/* Above this change of a logit exp would overflow: plain formulas with log-sum-exp instead. Below LOW exp(u) is 0. */
#define HUGE_CHANGE 600.0
#define LOW -700.0

/* Sixteen elements from x[i] on; beyond n they are `rest`, in buf. */
KS_INLINE const float *block(const float *x, size_t i, size_t n, float buf[16], float rest)
{
    if (i + 16 <= n) return x + i;
    for (size_t l = 0; l < 16; l++) buf[l] = i + l < n ? x[i + l] : rest;
    return buf;
}

KS_INLINE bool any(ks_vl mask)
{
    int64_t m = 0;
    for (int l = 0; l < N; l++) m |= mask[l];
    return m != 0;
}

KS_INLINE double largest(ks_vd v)
{
    double m = v[0];
    for (int l = 1; l < N; l++) m = v[l] > m ? v[l] : m;
    return m;
}

/* The KS_TOP_K largest values with the lowest ids. */
typedef struct top {
    double value[KS_TOP_K];
    int32_t id[KS_TOP_K];
} top;

static void top_clear(top *t)
{
    for (int k = 0; k < KS_TOP_K; k++) {
        t->value[k] = -(double)INFINITY;
        t->id[k] = -1;
    }
}

static void top_insert(top *t, double value, size_t id)
{
    if (!(value > t->value[KS_TOP_K - 1])) return;
    int k = KS_TOP_K - 1;
    for (; k > 0 && value > t->value[k - 1]; k--) {
        t->value[k] = t->value[k - 1];
        t->id[k] = t->id[k - 1];
    }
    t->value[k] = value;
    t->id[k] = (int32_t)id;
}

/* A block of values for the tokens from i on. */
KS_INLINE void top_block(top *t, const ks_vd v[UNITS], size_t i, size_t n)
{
    ks_vl more = v[0] > t->value[KS_TOP_K - 1];
    for (int u = 1; u < UNITS; u++) more |= v[u] > t->value[KS_TOP_K - 1];
    if (!any(more)) return;
    double x[16];
    memcpy(x, v, sizeof x);
    for (size_t l = 0; l < 16 && i + l < n; l++) top_insert(t, x[l], i + l);
}

static double exp_one(double x)
{
    return ks_v_exp(ks_splatd(x))[0];
}

void KS_FN(ks_measure_base)(double *p, const float *logits, double lse, size_t V)
{
    float buf[16];
    for (size_t i = 0; i < V; i += 16) {
        const float *l = block(logits, i, V, buf, -INFINITY);
        for (size_t u = 0; u < UNITS; u++) ks_stored(p + i + u * N, ks_v_exp(ks_widen(l + u * N) - lse));
    }
}

/* Everything `full` asks for, accumulated over the vocabulary. */
typedef struct sums {
    ks_sum16d reverse, js, tv;
    top changed, now; /* by |p' - p|; by the new logit */
} sums;

/* One vector of u = log(p'/p) from exact differences; returns |p' - p|. */
KS_INLINE ks_vd add_small(sums *s, int unit, ks_vd p, ks_vd u)
{
    u = ks_seld(u < LOW, ks_splatd(LOW), u);
    const ks_vd half = 0.5 * u, a = ks_seld(half < 0, -half, half);
    const ks_vd x = ks_v_expm1(a), r = 1 / (1 + x), grown = x * (x + 2); /* e^|u| - 1 */
    const ks_vd w = ks_seld(half < 0, -(grown * r * r), grown);          /* e^u - 1 */
    const ks_vd log_cosh = ks_v_log1p(0.5 * (x * x * r));
    const ks_vd tv = p * ks_seld(w < 0, -w, w);
    s->tv.v[unit] += tv;
    s->js.v[unit] += p * (half * w - log_cosh * (2 + w));
    /* e^u u - (e^u - 1) */
    static const double c[] = {0x1p-1, 0x1.5555555555555p-2, 0x1p-3, 0x1.1111111111111p-5, 0x1.c71c71c71c71cp-8};
    const ks_vd near = u * u * ks_polyd(u, 5, c), far = w * u - (w - u);
    s->reverse.v[unit] += p * ks_seld(a < 0x1p-9, near, far);
    return tv;
}

/* The same by plain formulas. */
KS_INLINE ks_vd add_huge(sums *s, int unit, ks_vd p, ks_vd q, ks_vd u)
{
    const double ln2 = 0x1.62e42fefa39efp-1;
    const ks_vd a = ks_seld(u < 0, -u, u), h = ks_v_log1p(ks_v_exp(-a)) - ln2;
    const ks_vl up = u > 0;
    const ks_vd log_p = -ks_seld(up, u + h, h), log_q = ks_seld(up, -h, u - h); /* log 2p/(p+q), log 2q/(p+q) */
    const ks_vd d = q - p, tv = ks_seld(d < 0, -d, d);
    s->tv.v[unit] += tv;
    s->js.v[unit] += p * log_p + q * log_q;
    s->reverse.v[unit] += q * u;
    return tv;
}

static void not_finite(ks_measure *out)
{
    const double nan = (double)NAN;
    *out = (ks_measure){
        .cell = {.kl = nan, .kl_reverse = nan, .js = nan, .tv = nan, .p_top = nan, .dlogit_top = nan}, .p_next = nan, .dlogit_next = nan};
    out->cell.status = KS_CELL_NOT_FINITE;
    for (int k = 0; k < KS_TOP_K; k++) {
        out->cell.top_ids[k] = -1;
        out->cell.top_p_baseline[k] = out->cell.top_p_ablated[k] = nan;
    }
}

/* log sum exp of logits + e - ref. */
static double changed_lse(const float *e, double ref, const float *logits, size_t V)
{
    float bufe[16], bufl[16];
    ks_vd m = ks_splatd(-(double)INFINITY);
    for (size_t i = 0; i < V; i += 16) {
        const float *eb = block(e, i, V, bufe, 0), *lb = block(logits, i, V, bufl, -INFINITY);
        for (size_t u = 0; u < UNITS; u++) {
            const ks_vd z = ks_widen(lb + u * N) + (ks_widen(eb + u * N) - ref);
            m = ks_seld(z > m, z, m);
        }
    }
    const double most = largest(m);
    ks_sum16d sum = {{{0}}};
    for (size_t i = 0; i < V; i += 16) {
        const float *eb = block(e, i, V, bufe, 0), *lb = block(logits, i, V, bufl, -INFINITY);
        for (size_t u = 0; u < UNITS; u++) sum.v[u] += ks_v_exp(ks_widen(lb + u * N) + (ks_widen(eb + u * N) - ref) - most);
    }
    return most + ks_v_log(ks_splatd(ks_sum16d_total(&sum)))[0];
}

void KS_FN(ks_measure_row)(ks_measure *out, const float *e, const float *logits, const double *p, const ks_baseline_row *base,
                           const ks_measure_item *item, size_t V)
{
    float bufe[16], bufl[16];
    not_finite(out);
    if (!base->finite) return;

    /* A change that all logits share changes nothing: e counts from that of the most probable token on, so that nothing cancels where its
     * p is nearly 1. */
    const int32_t first = base->top_ids[0];
    const double ref = (double)e[first];
    ks_sum16d sum = {{{0}}};
    ks_vd most = ks_splatd(0);
    for (size_t i = 0; i < V; i += 16) {
        const float *eb = block(e, i, V, bufe, e[first]);
        for (size_t u = 0; u < UNITS; u++) {
            const ks_vd x = ks_widen(eb + u * N) - ref;
            sum.v[u] += ks_loadd(p + i + u * N) * x;
            most = ks_seld(x > most, x, most);
        }
    }
    const double mu = ks_sum16d_total(&sum);
    if (!__builtin_isfinite(mu)) return;

    const bool huge = largest(most) - mu > HUGE_CHANGE;
    double kl, lse = 0;
    if (huge) {
        lse = changed_lse(e, ref, logits, V);
        kl = lse - base->lse - mu;
    } else {
        sum = (ks_sum16d){{{0}}};
        for (size_t i = 0; i < V; i += 16) {
            const float *eb = block(e, i, V, bufe, e[first]);
            for (size_t u = 0; u < UNITS; u++) sum.v[u] += ks_loadd(p + i + u * N) * ks_v_expm1_minus_x(ks_widen(eb + u * N) - ref - mu);
        }
        kl = ks_v_log1p(ks_splatd(ks_sum16d_total(&sum)))[0];
    }
    if (!__builtin_isfinite(kl)) return;
    out->cell.status = KS_CELL_DONE;
    out->cell.kl = kl;

    if (item->next >= 0) {
        out->dlogit_next = (double)e[item->next];
        out->p_next = exp_one((double)logits[item->next] - base->lse + ((double)e[item->next] - ref - mu - kl));
    }
    if (!item->full) return;

    sums s = {0};
    top_clear(&s.changed);
    top_clear(&s.now);
    for (size_t i = 0; i < V; i += 16) {
        const float *eb = block(e, i, V, bufe, e[first]), *lb = block(logits, i, V, bufl, -INFINITY);
        ks_vd change[UNITS], now[UNITS];
        for (int u = 0; u < UNITS; u++) {
            const ks_vd pv = ks_loadd(p + i + (size_t)u * N), ev = ks_widen(eb + u * N) - ref, log_ratio = ev - mu - kl;
            now[u] = ks_widen(lb + u * N) + ev;
            change[u] = huge ? add_huge(&s, u, pv, ks_v_exp(now[u] - lse), log_ratio) : add_small(&s, u, pv, log_ratio);
        }
        top_block(&s.changed, change, i, V);
        top_block(&s.now, now, i, V);
    }
    ks_cell *cell = &out->cell;
    cell->kl_reverse = ks_sum16d_total(&s.reverse);
    cell->js = 0.5 * ks_sum16d_total(&s.js);
    cell->tv = 0.5 * ks_sum16d_total(&s.tv);
    cell->top_changed = s.now.id[0] != first;
    cell->dlogit_top = (double)e[first];
    cell->p_top = exp_one((double)logits[first] - base->lse + ((double)e[first] - ref - mu - kl));
    for (int k = 0; k < KS_TOP_K; k++) {
        const int32_t id = s.changed.id[k];
        if (id < 0) continue;
        cell->top_ids[k] = id;
        cell->top_p_baseline[k] = p[id];
        cell->top_p_ablated[k] = exp_one((double)logits[id] - base->lse + ((double)e[id] - ref - mu - kl));
    }
}

void KS_FN(ks_baseline_row_of)(ks_baseline_row *out, const float *logits, size_t V)
{
    float buf[16];
    const double nan = (double)NAN;
    *out = (ks_baseline_row){.lse = nan, .entropy = nan};
    top t;
    top_clear(&t);
    ks_vd bad = ks_splatd(0);
    for (size_t i = 0; i < V; i += 16) {
        const float *l = block(logits, i, V, buf, 0);
        ks_vd x[UNITS];
        for (int u = 0; u < UNITS; u++) {
            x[u] = ks_widen(l + u * N);
            bad += x[u] - x[u]; /* 0, or NaN for an infinity or NaN */
        }
        top_block(&t, x, i, V);
    }
    double sum_bad = 0;
    for (int l = 0; l < N; l++) sum_bad += bad[l];
    out->finite = sum_bad == 0;
    for (int k = 0; k < KS_TOP_K; k++) {
        out->top_ids[k] = out->finite ? t.id[k] : -1;
        out->top_p[k] = nan;
    }
    if (!out->finite) return;

    /* The largest logit adds exactly 1 and is left out: where it has nearly all of p, the rest decides. */
    const double most = t.value[0];
    ks_sum16d sum = {{{0}}}, lost = {{{0}}}, ties = {{{0}}};
    for (size_t i = 0; i < V; i += 16) {
        const float *l = block(logits, i, V, buf, -FLT_MAX);
        for (size_t u = 0; u < UNITS; u++) {
            const ks_vd x = ks_widen(l + u * N) - most, w = ks_v_exp(x);
            const ks_vl tie = x == 0;
            ties.v[u] += ks_seld(tie, ks_splatd(1), ks_splatd(0));
            sum.v[u] += ks_seld(tie, ks_splatd(0), w);
            lost.v[u] -= w * x;
        }
    }
    const double others = ks_sum16d_total(&ties) - 1 + ks_sum16d_total(&sum), log_total = ks_v_log1p(ks_splatd(others))[0];
    out->lse = most + log_total;
    out->entropy = log_total + ks_sum16d_total(&lost) / (1 + others);
    for (int k = 0; k < KS_TOP_K; k++) {
        if (t.id[k] >= 0) out->top_p[k] = exp_one(t.value[k] - out->lse);
    }
}

double KS_FN(ks_sum_weights)(const float *logp, const int64_t *at, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += exp_one((double)logp[at[i]]);
    return sum;
}
