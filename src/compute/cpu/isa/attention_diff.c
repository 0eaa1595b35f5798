/* Formulas and their derivation: docs/method.md, "Attention".
 *
 * Details that have caused bugs:
 *   - a removed edge contributes -p whatever ds is there, so ds of removed edges is cleared before anything looks at it;
 *   - 1 - P(removed) is a sum over what is left, never a difference;
 *   - where one key holds nearly all weight, x_j - sum p x cancels: differences are taken to the reference key's x first;
 *   - where scores change a lot p may underflow while p' does not: those rows go through log space. */
#include "compute/cpu/isa/attention.h"

#include "compute/cpu/isa/attention_tile.h"
#include "compute/cpu/isa/vmath.h"
#include "input/config.h"

#include <math.h>

/* A row goes through log space where scores rise by more than LARGE_RISE against the reference (p may underflow where p' does not), where
 * its weight falls to less than SMALL_SHARE (differences cancel), or where hardly anything is left (measured: docs/method.md). */
#define LARGE_RISE 60.0f
#define SMALL_SHARE 0.25f
#define SMALL_REST 0x1p-40f

/* What acts on one row: weights w on its visible edges, or their new share. */
typedef struct action {
    int kind;             /* KS_SCALE (a knockout is scale 0), KS_SET, or -1: nothing */
    float f, f_less_1;    /* KS_SCALE; f - 1 rounded once */
    double v;             /* KS_SET */
    const int32_t *edges; /* [n] visible edges */
    size_t n;
    float *mask; /* [P] all 0 between rows; 1 at edges */
} action;

KS_INLINE float largest(ks_vf v)
{
    float m = v[0];
    for (size_t l = 1; l < KS_LANES; l++) m = v[l] > m ? v[l] : m;
    return m;
}

/* The row in log space: pn = p' from t = logp + ds, dp = p' - p. */
static void row_large(float *dp, float *pn, const float *p, const float *ds, const float *logp, size_t from, size_t to, const action *a)
{
    const bool set = a->kind == KS_SET, drop = set || (a->kind == KS_SCALE && a->f == 0);
    ks_vf top = ks_splat(-INFINITY);
    for (size_t j = from; j < to; j += KS_LANES) {
        ks_vf t = ks_load(logp + j) + ks_load(ds + j);
        if (drop) t = ks_sel(ks_load(a->mask + j) != 0, ks_splat(-INFINITY), t);
        ks_store(pn + j, t);
        top = ks_max(t, top);
    }
    const float m = largest(top);
    ks_sum16 sum = {{{0}}};
    for (size_t j = from; j < to; j += 16) {
        for (size_t u = 0; u < UNIT; u++) {
            const size_t i = j + u * KS_LANES;
            ks_vf e = ks_v_expf(ks_load(pn + i) - m);
            if (a->kind == KS_SCALE) e = ks_sel(ks_load(a->mask + i) != 0, e * a->f, e);
            ks_store(pn + i, e);
            sum.v[u] += e;
        }
    }
    const float total = ks_sum16_total(&sum), share = set ? (float)(1 - (double)a->n * a->v) : 1;
    for (size_t j = from; j < to; j += KS_LANES) {
        const ks_vf e = ks_load(pn + j) / total * share;
        ks_store(pn + j, e);
        ks_store(dp + j, e - ks_load(p + j));
    }
}

/* Keys that the query sees: [lo, t] of the sixteen lanes from j on, vector u of them. */
KS_INLINE ks_vi visible(size_t j, size_t u, size_t lo, size_t t)
{
    static const int32_t lane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    ks_vi at;
    memcpy(&at, lane + u * KS_LANES, sizeof at);
    at += (int32_t)j;
    return (at >= (int32_t)lo) & (at <= (int32_t)t);
}

/* One row that nothing acts on: dp = p' - p and pn = p' over keys [from, to), multiples of 16, of which [lo, t] are visible. p is 0 where a
 * key is not visible, ds holds changes of q.k (they become those of scores against key ref's, that of largest p). */
static void row_free(float *dp, float *pn, const float *p, size_t ref, float *ds, float scale, const float *logp, size_t lo, size_t t,
                     size_t from, size_t to)
{
    /* Softmax does not see a common shift: changes are taken against the reference's, and nothing is left to cancel there.
     * pn holds y = expm1(d). */
    const float ds_ref = ds[ref] * scale;
    ks_vf rise = ks_splat(0);
    ks_sum16 sum = {{{0}}};
    for (size_t j = from; j < to; j += 16) {
        for (size_t u = 0; u < UNIT; u++) {
            const size_t i = j + u * KS_LANES;
            const ks_vf d = ks_sel(visible(j, u, lo, t), ks_load(ds + i) * scale - ds_ref, ks_splat(0)), y = ks_v_expm1f(d);
            ks_store(ds + i, d);
            ks_store(pn + i, y);
            rise = ks_max(d, rise);
            sum.v[u] += ks_load(p + i) * y;
        }
    }
    const float loss = ks_sum16_total(&sum), D = 1 + loss; /* all p sum to 1 */
    if (!ks_all(rise <= LARGE_RISE) || D < SMALL_SHARE) {
        row_large(dp, pn, p, ds, logp, from, to, &(action){.kind = -1});
        return;
    }
    const float inv = 1 / D;
    for (size_t j = from; j < to; j += KS_LANES) {
        const ks_vf pj = ks_load(p + j), d = pj * ((ks_load(pn + j) - loss) * inv);
        ks_store(dp + j, d);
        ks_store(pn + j, pj + d);
    }
}

/* The same for a row with edges of an intervention. */
static void row_diff(float *dp, float *pn, const float *p, float *ds, float scale, const float *logp, size_t from, size_t to,
                     const action *a)
{
    const bool set = a->kind == KS_SET, drop = set || a->f == 0;

    /* The reference: the key of largest p among those that are not dropped. */
    ks_vf top = ks_splat(-1);
    for (size_t j = from; j < to; j += KS_LANES) {
        ks_vf x = ks_load(p + j);
        if (drop) x = ks_sel(ks_load(a->mask + j) != 0, ks_splat(-1), x);
        top = ks_max(x, top);
    }
    const float p_ref = largest(top);
    size_t ref = from;
    while (ref + 1 < to && !(p[ref] == p_ref && !(drop && a->mask[ref] != 0))) ref++;

    const float ds_ref = ds[ref] * scale;
    ks_vf rise = ks_splat(0);
    for (size_t j = from; j < to; j += KS_LANES) {
        ks_vi out = ks_load(logp + j) == -INFINITY;
        if (drop) out |= ks_load(a->mask + j) != 0;
        const ks_vf d = ks_sel(out, ks_splat(0), ks_load(ds + j) * scale - ds_ref);
        ks_store(ds + j, d);
        rise = ks_max(d, rise);
    }

    /* pn holds y = expm1(d); sums of p y and of p, over edges and over the rest. */
    ks_sum16 se = {{{0}}}, sr = {{{0}}}, pe = {{{0}}}, ps = {{{0}}};
    for (size_t j = from; j < to; j += 16) {
        for (size_t u = 0; u < UNIT; u++) {
            const size_t i = j + u * KS_LANES;
            const ks_vf y = ks_v_expm1f(ks_load(ds + i)), pj = ks_load(p + i), py = pj * y, none = ks_splat(0);
            const ks_vi on = ks_load(a->mask + i) != 0;
            ks_store(pn + i, y);
            se.v[u] += ks_sel(on, py, none);
            sr.v[u] += ks_sel(on, none, py);
            pe.v[u] += ks_sel(on, pj, none);
            ps.v[u] += ks_sel(on, none, pj);
        }
    }
    const float ye = ks_sum16_total(&se), yr = ks_sum16_total(&sr), edges = ks_sum16_total(&pe), rest = ks_sum16_total(&ps);

    /* p'/p - 1 = (w y + gain - loss) / D at edges and at the rest; gain: what the other class hands over. */
    const float w_edge = set ? 1 : a->f, w_rest = set ? (float)(1 - (double)a->n * a->v) : 1;
    const float before = set ? rest : w_edge * edges + rest, loss = set ? yr : w_edge * ye + yr, D = before + loss;
    const float gain_edge = a->f_less_1 * rest, gain_rest = set ? (float)((double)edges - (double)a->n * a->v) : -a->f_less_1 * edges;
    if (!ks_all(rise <= LARGE_RISE) || D < SMALL_SHARE * before || (drop && rest < SMALL_REST)) {
        row_large(dp, pn, p, ds, logp, from, to, a);
    } else {
        for (size_t j = from; j < to; j += KS_LANES) {
            const ks_vf pj = ks_load(p + j), y = ks_load(pn + j);
            const ks_vf n = ks_sel(ks_load(a->mask + j) != 0, y * w_edge + gain_edge, y * w_rest + gain_rest);
            const ks_vf d = pj * ((n - loss) / D);
            ks_store(dp + j, d);
            ks_store(pn + j, pj + d);
        }
    }

    /* What is known exactly is written exactly. */
    if (drop) {
        const float v = set ? (float)a->v : 0;
        for (size_t i = 0; i < a->n; i++) {
            const size_t j = (size_t)a->edges[i];
            pn[j] = v;
            dp[j] = set ? (float)(a->v - (double)p[j]) : -p[j];
        }
    }
    if (set && 1 - (double)a->n * a->v <= 0) {
        for (size_t j = from; j < to; j++) {
            if (a->mask[j] != 0) continue;
            pn[j] = 0;
            dp[j] = -p[j];
        }
    }
}

/* A row whose every visible key is an edge: knockout leaves nothing, set leaves v. */
static void row_all_edges(float *dp, float *pn, const float *p, size_t from, size_t to, const action *a)
{
    for (size_t j = from; j < to; j++) {
        const bool on = a->mask[j] != 0 && a->kind == KS_SET;
        pn[j] = on ? (float)a->v : 0;
        dp[j] = on ? (float)(a->v - (double)p[j]) : -p[j];
    }
}

/* The edges of query t that it sees: a slice of e->key. */
static size_t visible_edges(const int32_t **first, const ks_edges *e, size_t lo, size_t t)
{
    int32_t i = e->start[t], end = e->start[t + 1];
    while (i < end && (size_t)e->key[i] < lo) i++;
    while (end > i && (size_t)e->key[end - 1] > t) end--;
    *first = e->key + i;
    return (size_t)(end - i);
}

/* What the item's intervention does to query t of head h, which sees keys [lo, t]. */
static void action_of(action *a, const ks_branch_item *item, size_t h, size_t lo, size_t t, float *mask)
{
    a->kind = -1;
    a->n = 0;
    if (!item->edges || (item->heads && !item->heads[h])) return;
    const int32_t *edges;
    const size_t n = visible_edges(&edges, item->edges, lo, t);
    if (!n) return;
    switch (item->kind) {
    case KS_KNOCKOUT:
        *a = (action){.kind = KS_SCALE, .f = 0, .f_less_1 = -1, .edges = edges, .n = n, .mask = mask};
        break;
    case KS_SCALE:
        if (item->value == 1 || n == t + 1 - lo) return; /* a row of nothing but edges stays as it is */
        *a =
            (action){.kind = KS_SCALE, .f = (float)item->value, .f_less_1 = (float)(item->value - 1), .edges = edges, .n = n, .mask = mask};
        break;
    case KS_SET:
        *a = (action){.kind = KS_SET, .f = 1, .v = item->value, .edges = edges, .n = n, .mask = mask};
        break;
    }
}

/* Weights w [P] = exp(logp) of a row of the trunk that sees keys [lo, t], and their reference: the first key of largest weight. */
static size_t trunk_row(float *w, const float *logp, size_t lo, size_t t, size_t P)
{
    const size_t from = lo / 16 * 16, to = (size_t)KS_PADDED(t + 1);
    memset(w, 0, from * sizeof *w);
    memset(w + to, 0, (P - to) * sizeof *w);
    ks_vf top = ks_splat(-1);
    for (size_t j = from; j < to; j += KS_LANES) {
        const ks_vf x = ks_v_expf(ks_load(logp + j));
        ks_store(w + j, x);
        top = ks_max(x, top);
    }
    const float most = largest(top);
    size_t ref = from;
    while (ref + 1 < to && w[ref] != most) ref++;
    return ref;
}

/* Asks for n floats from p on, which lie far away. */
KS_INLINE void fetch(const float *p, size_t n)
{
    for (size_t i = 0; i < n; i += 16) __builtin_prefetch(p + i);
}

/* dkt [E, P] = dk transposed and dvp [T, Q] = dv padded: row i of dk and dv (i * ld) at position pos[i]; other positions from in_from on
 * are 0, those before it not set. */
static void scatter_inputs(float *restrict dkt, float *restrict dvp, const float *restrict dk, const float *restrict dv, size_t ld,
                           const int32_t *pos, size_t n, size_t in_from, size_t T, size_t P, size_t E, size_t Q)
{
    for (size_t e = 0; e < E; e++) memset(dkt + e * P + in_from, 0, (P - in_from) * sizeof *dkt);
    memset(dvp + in_from * Q, 0, (T - in_from) * Q * sizeof *dvp);
    for (size_t i = 0, m; i < n; i += m) {
        m = i + 4 <= n && pos[i + 3] == pos[i] + 3 ? 4 : 1;
        for (size_t a = i + 12; a < min_size(n, i + 12 + m); a++) {
            fetch(dk + a * ld, E);
            fetch(dv + a * ld, E);
        }
        transpose_rows(dkt + pos[i], P, dk + i * ld, ld, m, E);
        for (size_t r = i; r < i + m; r++) memcpy(dvp + (size_t)pos[r] * Q, dv + r * ld, E * sizeof *dv);
    }
}

/* One output row: position number i, query t of head h, which sees keys [lo, t]. */
typedef struct out_row {
    size_t i, t, h, lo;
    size_t at;                   /* row of weights kept */
    const float *q2, *dq, *logp; /* q + dq, dq, the trunk's log weights */
    action act;
} out_row;

void KS_FN(ks_attention_diff_head)(float *da, const float *dq, const float *dk, const float *dv, const float *q, const float *k,
                                   const float *v, const float *logp, const ks_branch_item *item, size_t g, const ks_attention *p,
                                   ks_attention_cache *cache, float *scratch)
{
    const ks_attention_item *trunk = &item->trunk;
    const size_t T = (size_t)trunk->T, P = (size_t)KS_PADDED(T), E = (size_t)p->E, Q = (size_t)KS_PADDED(E), H = (size_t)p->H,
                 G = (size_t)p->G, group = H / G, n_in = (size_t)item->n_in, n_out = (size_t)item->n_out;
    float *kt = scratch, *vp = kt + E * P, *dkt = vp + T * Q, *dvp = dkt + E * P;
    float *ds = dvp + T * Q, *pn = ds + TILE_ROWS * P, *dp = pn + TILE_ROWS * P, *one = dp + TILE_ROWS * P, *mask = one + P;
    float *o = mask + P, *q2 = o + TILE_ROWS * Q, *zero = q2 + TILE_ROWS * Q;
    int32_t *refs = (int32_t *)(void *)(zero + Q); /* [group, T] of the trunk's rows, -1: not known yet */
    float *kept = zero + Q + group * T;            /* [group, T, P] weights of the trunk's rows that are known */
    const bool keep = group * T * P <= KS_ATTENTION_KEPT;

    if (cache->row0 != trunk->row0 || cache->g != g) {
        transpose_keys(kt, P, k + ((size_t)trunk->row0 * G + g) * E, G * E, T, E);
        pad_values(vp, Q, v + ((size_t)trunk->row0 * G + g) * E, G * E, T, E);
        for (size_t r = 0; r < group * T; r++) refs[r] = -1;
        *cache = (ks_attention_cache){trunk->row0, g};
    }
    memset(mask, 0, P * sizeof *mask);
    memset(zero, 0, Q * sizeof *zero);
    size_t in_from = P; /* positions before it have dk = dv = 0; a multiple of 16 */
    if (n_in) {
        const size_t first = ((size_t)item->in_row * G + g) * E;
        in_from = (size_t)item->in_pos[0] / 16 * 16;
        scatter_inputs(dkt, dvp, dk + first, dv + first, G * E, item->in_pos, n_in, in_from, T, P, E, Q);
    }

    /* Blocks of rows, position by position and in each over the group's heads. in_at, q_at: input positions and rows of dq that lie
     * before output position i. */
    size_t in_at = 0, q_at = 0, i = 0, head = 0;
    bool has_dq = false;
    while (i < n_out) {
        out_row row[TILE_ROWS];
        size_t n = 0;
        bool alive = false, any_dq = false;
        for (; n < TILE_ROWS && i < n_out; n++) {
            out_row *r = &row[n];
            *r = (out_row){.i = i, .t = (size_t)item->out_pos[i], .h = g * group + head, .dq = zero};
            r->lo = first_key(r->t, p->window);
            r->q2 = q + (((size_t)trunk->row0 + r->t) * H + r->h) * E;
            if (head == 0) {
                while (in_at < n_in && (size_t)item->in_pos[in_at] < r->t) in_at++;
                has_dq = in_at < n_in && (size_t)item->in_pos[in_at] == r->t;
                float *to = da + (((size_t)item->out_row + i) * H + g * group) * E;
                for (size_t e = 0; e < group * E; e += 16) __builtin_prefetch(to + e, 1);
                if (in_at + 2 < n_in) fetch(dq + (((size_t)item->q_row + q_at + 2) * H + g * group) * E, group * E);
            }
            if (has_dq) {
                r->dq = dq + (((size_t)item->q_row + q_at) * H + r->h) * E;
                for (size_t e = 0; e < E; e++) q2[n * Q + e] = r->q2[e] + r->dq[e];
                r->q2 = q2 + n * Q;
                any_dq = true;
            }
            r->at = head * T + r->t;
            r->logp = logp + (size_t)trunk->logp + (r->h * T + r->t) * P;
            if (!keep || refs[r->at] < 0) fetch(r->logp, r->t + 1);
            action_of(&r->act, item, r->h, r->lo, r->t, mask);
            alive |= has_dq || r->act.kind >= 0 || in_from <= r->t;
            if (++head == group) {
                head = 0;
                i++;
                q_at += has_dq;
            }
        }
        if (!alive) { /* nothing reaches these rows: exactly 0 */
            for (size_t r = 0; r < n; r++) memset(da + (((size_t)item->out_row + row[r].i) * H + row[r].h) * E, 0, E * sizeof *da);
            continue;
        }
        const size_t from = row[0].lo / 16 * 16, last = row[n - 1].t, to = (size_t)KS_PADDED(last + 1);
        const size_t in0 = in_from > from ? in_from : from;
        const float *a[TILE_ROWS], *b[TILE_ROWS];

        /* q'.k' - q.k = dq.k + (q + dq).dk */
        for (size_t r = 0; r < TILE_ROWS; r++) {
            a[r] = row[min_size(r, n - 1)].dq;
            b[r] = row[min_size(r, n - 1)].q2;
            if (!any_dq) memset(ds + r * P + from, 0, (to - from) * sizeof *ds);
        }
        if (any_dq) tile(ds, P, a, E, kt, P, false, from, to);
        if (in0 < to) tile(ds, P, b, E, dkt, P, true, in0, to);

        for (size_t r = 0; r < n; r++) {
            const action *act = &row[r].act;
            const size_t t = row[r].t, lo = row[r].lo, at = row[r].at;
            const float *lp = row[r].logp;
            float *dsr = ds + r * P, *dpr = dp + r * P, *pnr = pn + r * P, *w = keep ? kept + at * P : one;
            if (!keep || refs[at] < 0) refs[at] = (int32_t)trunk_row(w, lp, lo, t, P);
            if (act->kind < 0) {
                row_free(dpr, pnr, w, (size_t)refs[at], dsr, p->scale, lp, lo, t, from, to);
                continue;
            }
            for (size_t e = 0; e < act->n; e++) mask[act->edges[e]] = 1;
            if (act->n == t + 1 - lo) row_all_edges(dpr, pnr, w, from, to, act);
            else row_diff(dpr, pnr, w, dsr, p->scale, lp, from, to, act);
            for (size_t e = 0; e < act->n; e++) mask[act->edges[e]] = 0;
        }

        /* sum dp v + p' dv */
        for (size_t r = 0; r < TILE_ROWS; r++) {
            a[r] = dp + min_size(r, n - 1) * P + from;
            b[r] = pn + min_size(r, n - 1) * P + in0;
        }
        tile(o, Q, a, last + 1 - from, vp + from * Q, Q, false, 0, Q);
        if (in0 <= last) tile(o, Q, b, last + 1 - in0, dvp + in0 * Q, Q, true, 0, Q);
        for (size_t r = 0; r < n; r++) {
            memcpy(da + (((size_t)item->out_row + row[r].i) * H + row[r].h) * E, o + r * Q, E * sizeof *da);
        }
    }
}
