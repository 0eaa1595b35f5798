/* Attention of states and of effects against long double, on random samples: grouped heads, sliding windows, partial positions,
 * attention sinks, every kind of intervention, effects from 1e-30 to 1e2. Every case runs on every instruction set with one and with
 * three threads, and must give the same bits. */
#include "input/config.h"
#include "support/numbers.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Largest relative error of a row (all heads) allowed, with the largest measured over all cases below. */
static const double LIMIT_STATE = 2e-6;  /* 1.1e-6 */
static const double LIMIT_LOGP = 2e-6;   /* 1.0e-6, of 1 + |logp| */
static const double LIMIT_DIFF = 2e-6;   /* 1.1e-6; |ds| <= 1 */
static const double LIMIT_SINK = 1.5e-5; /* 4.1e-6; where E = 1, a head's one output may nearly cancel */
static const double LIMIT_LARGE = 1e-4;  /* 5.5e-5; |ds| beyond 1000, of which fp32 holds no more digits */

/* ---- one random case ---- */

typedef struct scene {
    ks_attention at;
    int32_t T;
    bool sink;
    double effect; /* size of dq, dk, dv */
    int kind;      /* -1: no intervention */
    double value;
    size_t n_in, n_out, n_q, n_edges;
    int32_t *in_pos, *out_pos;
    ks_edges edges;
    uint8_t *heads; /* NULL: all */
    float *q, *k, *v, *dq, *dk, *dv;
} scene;

static void scene_free(scene *s)
{
    free(s->in_pos), free(s->out_pos), free(s->edges.start), free(s->edges.key), free(s->heads);
    free(s->q), free(s->k), free(s->v), free(s->dq), free(s->dk), free(s->dv);
}

static int32_t *positions(rng *r, int32_t T, size_t *n, double share)
{
    int32_t *pos = calloc((size_t)T, sizeof *pos);
    *n = 0;
    const int32_t from = (int32_t)rng_below(r, (size_t)T);
    for (int32_t t = from; t < T; t++) {
        if (rng_uniform(r) < share) pos[(*n)++] = t;
    }
    return pos;
}

static bool is_edge(const scene *s, int32_t t, int32_t j)
{
    for (int32_t i = s->edges.start[t]; i < s->edges.start[t + 1]; i++) {
        if (s->edges.key[i] == j) return true;
    }
    return false;
}

static bool visible(const scene *s, int32_t t, int32_t j)
{
    return j <= t && (!s->at.window || j > t - s->at.window);
}

/* Position of t in pos, or -1. */
static int find(const int32_t *pos, size_t n, int32_t t)
{
    for (size_t i = 0; i < n; i++) {
        if (pos[i] == t) return (int)i;
    }
    return -1;
}

static scene scene_new(rng *r, int kind, double effect, bool sink)
{
    static const int32_t shapes[][3] = {{4, 2, 16}, {9, 3, 64}, {3, 3, 20}, {8, 1, 8}, {2, 2, 96}, {5, 1, 1}};
    static const double factors[] = {0, 1e-8, 0.3, 0.999, 1, 4, 1e4};
    const int32_t *shape = shapes[rng_below(r, 6)];
    scene s = {.kind = kind, .effect = effect, .sink = sink, .T = 1 + (int32_t)rng_below(r, 70)};
    s.at = (ks_attention){.H = shape[0], .G = shape[1], .E = shape[2]};
    s.at.scale = (float)(1 / sqrt((double)s.at.E));
    s.at.window = rng_below(r, 3) ? 0 : 1 + (int32_t)rng_below(r, 30);
    const size_t T = (size_t)s.T, Q = (size_t)(s.at.H * s.at.E), KV = (size_t)(s.at.G * s.at.E), E = (size_t)s.at.E;
    s.q = rng_floats(r, T * Q, 1.5);
    s.k = rng_floats(r, T * KV, 1.5);
    s.v = rng_floats(r, T * KV, 1);
    if (sink) { /* all queries look at key 0 with a weight of about 1 - 1e-6 */
        for (size_t h = 0; h < T * (size_t)s.at.H; h++) s.q[h * E] = 4;
        for (size_t g = 0; g < (size_t)s.at.G; g++) s.k[g * E] += 4.5f * sqrtf((float)E);
    }
    const double share = rng_below(r, 2) ? 1 : 0.4;
    s.in_pos = positions(r, s.T, &s.n_in, effect > 0 ? share : 0);
    s.out_pos = positions(r, s.T, &s.n_out, rng_below(r, 2) ? 1 : 0.5);
    for (size_t i = 0; i < s.n_out; i++) s.n_q += find(s.in_pos, s.n_in, s.out_pos[i]) >= 0;
    s.dq = rng_floats(r, s.n_q * Q, effect);
    s.dk = rng_floats(r, s.n_in * KV, effect);
    s.dv = rng_floats(r, s.n_in * KV, effect);

    s.edges.start = calloc(T + 1, sizeof *s.edges.start);
    s.edges.key = calloc(T * T, sizeof *s.edges.key);
    const double density = (double[]){0.05, 0.5, 1}[rng_below(r, 3)];
    int32_t most = 0;
    for (int32_t t = 0; t < s.T; t++) {
        int32_t n = s.edges.start[t], seen = 0;
        for (int32_t j = 0; j < s.T; j++) {
            if (rng_uniform(r) >= density || (density == 1 && !rng_below(r, 20))) continue;
            s.edges.key[n++] = j;
            seen += visible(&s, t, j);
        }
        s.edges.start[t + 1] = n;
        most = seen > most ? seen : most;
    }
    if (kind == KS_SCALE) s.value = factors[rng_below(r, 7)];
    if (kind == KS_SET)
        s.value = rng_below(r, 3) ? rng_uniform(r) / (double)(most ? most : 1) : rng_below(r, 2) ? 0 : 1.0 / (most ? most : 1);
    if (kind >= 0 && rng_below(r, 2)) {
        s.heads = calloc((size_t)s.at.H, 1);
        for (int32_t h = 0; h < s.at.H; h++) s.heads[h] = rng_below(r, 2) != 0;
    }
    return s;
}

/* ---- the oracle ---- */

static long double dot(const float *a, const float *b, size_t n)
{
    long double s = 0;
    for (size_t i = 0; i < n; i++) s += (long double)a[i] * (long double)b[i];
    return s;
}

/* p' - p for one row by the text-book rules of the kinds, in long double; `plain` takes the difference of two softmaxes, else ds goes
 * through expm1 so that small effects survive (rows that change a lot stay plain). */
static void oracle_row(long double *dp, const long double *p, const long double *ds, const bool *seen, const bool *edge, int32_t T,
                       int kind, double value, bool plain)
{
    int n_seen = 0, n_edges = 0;
    for (int32_t j = 0; j < T; j++) {
        n_seen += seen[j];
        n_edges += seen[j] && edge[j];
    }
    if (kind == KS_SCALE && n_edges == n_seen) kind = -1;
    long double most = -INFINITY, total = 0, z = 0, rest = 0, change = 0, edges = 0;
    for (int32_t j = 0; j < T; j++) {
        if (seen[j] && ds[j] > most && (kind == -1 || kind == KS_SCALE || !edge[j])) most = ds[j];
    }
    long double u[128];
    for (int32_t j = 0; j < T; j++) {
        if (!seen[j]) continue;
        const bool on = kind >= 0 && edge[j];
        const long double w = !on ? 1 : kind == KS_SCALE ? (long double)value : 0;
        u[j] = w == 0 ? 0 : w * p[j] * expl(ds[j] - most);
        total += u[j];
        if (on) edges += p[j];
        z += p[j] * ((w - 1) + (w == 0 ? 0 : w * expm1l(ds[j])));
        if (!on) {
            rest += p[j];
            change += p[j] * expm1l(ds[j]);
        }
    }
    plain |= most > 5000 || (kind == KS_SET ? change < -0.7L * rest : z < -0.7L);
    const long double left = kind == KS_SET ? 1 - (long double)n_edges * (long double)value : 1;
    for (int32_t j = 0; j < T; j++) {
        const bool on = kind >= 0 && seen[j] && edge[j];
        if (!seen[j]) dp[j] = 0;
        else if (on && kind == KS_SET) dp[j] = (long double)value - p[j];
        else if (on && kind == KS_KNOCKOUT) dp[j] = -p[j];
        else if (plain) dp[j] = (total > 0 ? left * u[j] / total : 0) - p[j];
        else if (kind == KS_SET) {
            const long double R = rest + change, c1 = (edges - (long double)n_edges * (long double)value - change) / R;
            dp[j] = p[j] * (expm1l(ds[j]) * left / R + c1);
        } else {
            const long double w = on ? (long double)value : 1, x = (w - 1) + w * expm1l(ds[j]);
            dp[j] = p[j] * (x - z) / (1 + z);
        }
    }
}

/* da [n_out, H*E] from the device's own logp, so that only the step at hand is judged. *large: some |ds| is above 1. */
static void oracle_diff(long double *da, const scene *s, const float *logp, bool plain, bool *large)
{
    const size_t E = (size_t)s->at.E, H = (size_t)s->at.H, G = (size_t)s->at.G, P = (size_t)KS_PADDED(s->T);
    long double p[128], ds[128], dp[128];
    bool seen[128], edge[128];
    *large = false;
    int iq = 0;
    for (size_t i = 0; i < s->n_out; i++) {
        const int32_t t = s->out_pos[i];
        const int at_q = find(s->in_pos, s->n_in, t) >= 0 ? iq++ : -1;
        for (size_t h = 0; h < H; h++) {
            const size_t g = h / (H / G);
            long double total = 0;
            for (int32_t j = 0; j < s->T; j++) {
                seen[j] = visible(s, t, j);
                edge[j] = is_edge(s, t, j) && s->kind >= 0 && (!s->heads || s->heads[h]);
                p[j] = seen[j] ? expl((long double)logp[(h * (size_t)s->T + (size_t)t) * P + (size_t)j]) : 0;
                total += p[j];
                ds[j] = 0;
                if (!seen[j]) continue;
                const float *q = s->q + ((size_t)t * H + h) * E, *k = s->k + ((size_t)j * G + g) * E;
                const int in = find(s->in_pos, s->n_in, j);
                if (at_q >= 0) ds[j] += dot(s->dq + ((size_t)at_q * H + h) * E, k, E);
                if (in >= 0) {
                    const float *dk = s->dk + ((size_t)in * G + g) * E;
                    ds[j] += dot(q, dk, E);
                    if (at_q >= 0) ds[j] += dot(s->dq + ((size_t)at_q * H + h) * E, dk, E);
                }
                ds[j] *= (long double)s->at.scale;
                if (fabsl(ds[j]) > 1) *large = true;
            }
            for (int32_t j = 0; j < s->T; j++) p[j] /= total;
            oracle_row(dp, p, ds, seen, edge, s->T, s->kind, s->value, plain);
            for (size_t e = 0; e < E; e++) {
                long double sum = 0;
                for (int32_t j = 0; j < s->T; j++) {
                    const int in = find(s->in_pos, s->n_in, j);
                    const long double dv = in >= 0 ? (long double)s->dv[((size_t)in * G + g) * E + e] : 0;
                    if (seen[j]) sum += (p[j] + dp[j]) * dv + dp[j] * (long double)s->v[((size_t)j * G + g) * E + e];
                }
                da[(i * H + h) * E + e] = sum;
            }
        }
    }
}

static void oracle_state(long double *out, long double *logp, const scene *s)
{
    const size_t E = (size_t)s->at.E, H = (size_t)s->at.H, G = (size_t)s->at.G, P = (size_t)KS_PADDED(s->T);
    for (int32_t t = 0; t < s->T; t++) {
        for (size_t h = 0; h < H; h++) {
            long double sc[128], most = -INFINITY, total = 0;
            const size_t g = h / (H / G);
            for (int32_t j = 0; j <= t; j++) {
                if (!visible(s, t, j)) continue;
                sc[j] = dot(s->q + ((size_t)t * H + h) * E, s->k + ((size_t)j * G + g) * E, E) * (long double)s->at.scale;
                most = sc[j] > most ? sc[j] : most;
            }
            for (int32_t j = 0; j <= t; j++) total += visible(s, t, j) ? expl(sc[j] - most) : 0;
            for (size_t j = 0; j < P; j++) {
                logp[(h * (size_t)s->T + (size_t)t) * P + j] = visible(s, t, (int32_t)j) ? sc[j] - most - logl(total) : -INFINITY;
            }
            for (size_t e = 0; e < E; e++) {
                long double sum = 0;
                for (int32_t j = 0; j <= t; j++) {
                    if (visible(s, t, j)) sum += expl(sc[j] - most) / total * (long double)s->v[((size_t)j * G + g) * E + e];
                }
                out[((size_t)t * H + h) * E + e] = sum;
            }
        }
    }
}

/* ---- tests ---- */

/* Runs the scene's states and effects on every device; the results of the first are returned, the others must equal them. */
static void run(const scene *s, float **out, float **logp, float **da)
{
    const size_t T = (size_t)s->T, Q = (size_t)(s->at.H * s->at.E), n_logp = (size_t)(s->at.H * s->T * KS_PADDED(s->T));
    const ks_attention_item item = {.row0 = 0, .T = s->T, .logp = 0};
    const ks_branch_item branch = {.trunk = item,
                                   .in_pos = s->in_pos,
                                   .n_in = (int32_t)s->n_in,
                                   .in_row = 0,
                                   .out_pos = s->out_pos,
                                   .n_out = (int32_t)s->n_out,
                                   .out_row = 0,
                                   .q_row = 0,
                                   .edges = s->kind >= 0 ? &s->edges : NULL,
                                   .kind = s->kind,
                                   .value = s->value,
                                   .heads = s->heads};
    for (int i = 0; i < all_devices.n; i++) {
        float *o = malloc(T * Q * sizeof *o + 4), *l = malloc(n_logp * sizeof *l + 4), *a = malloc(s->n_out * Q * sizeof *a + 4);
        assert_int_equal(all_devices.b->attention(all_devices.dev[i], o, KS_FORM_F32, l, s->q, s->k, s->v, &item, 1, &s->at), 0);
        assert_int_equal(
            all_devices.b->attention_diff(all_devices.dev[i], a, KS_FORM_F32, s->dq, s->dk, s->dv, s->q, s->k, s->v, l, &branch, 1, &s->at),
            0);
        if (i == 0) {
            *out = o, *logp = l, *da = a;
        } else {
            assert_true(same_bits(o, *out, T * Q * sizeof *o));
            assert_true(same_bits(l, *logp, n_logp * sizeof *l));
            assert_true(same_bits(a, *da, s->n_out * Q * sizeof *a));
            free(o), free(l), free(a);
        }
    }
}

static void test_states(void **state)
{
    (void)state;
    rng r = {1};
    worst w_out = {0}, w_logp = {0};
    for (int c = 0; c < 40; c++) {
        scene s = scene_new(&r, -1, 0, c % 4 == 0);
        const size_t Q = (size_t)(s.at.H * s.at.E), T = (size_t)s.T, P = (size_t)KS_PADDED(s.T), n_logp = (size_t)s.at.H * T * P;
        long double *ref = calloc(T * Q, sizeof *ref), *lref = calloc(n_logp, sizeof *lref);
        float *out, *logp, *da;
        run(&s, &out, &logp, &da);
        oracle_state(ref, lref, &s);
        for (size_t t = 0; t < T; t++) worst_of(&w_out, distance(out + t * Q, ref + t * Q, Q), "case %d, row %zu", c, t);
        for (size_t i = 0; i < n_logp; i++) {
            if (isinf(lref[i])) assert_true(isinf(logp[i]) && logp[i] < 0);
            else worst_of(&w_logp, (double)fabsl((long double)logp[i] - lref[i]) / (1 + (double)fabsl(lref[i])), "case %d, %zu", c, i);
        }
        for (size_t i = 0; i < s.n_out * Q; i++) assert_true(da[i] == 0);
        free(ref), free(lref), free(out), free(logp), free(da);
        scene_free(&s);
    }
    assert_below("attention of states", &w_out, LIMIT_STATE);
    assert_below("log weights", &w_logp, LIMIT_LOGP);
}

static void test_effects(void **state)
{
    (void)state;
    static const double effects[] = {0, 1e-30, 1e-20, 1e-12, 1e-6, 1e-3, 3e-2, 0.3, 2, 100};
    static const int kinds[] = {-1, KS_KNOCKOUT, KS_SCALE, KS_SET};
    rng r = {2};
    worst w[3] = {{0}}, agree = {0};
    for (int c = 0; c < 800; c++) {
        scene s = scene_new(&r, kinds[c % 4], effects[c / 4 % 10], c / 40 % 2);
        const size_t Q = (size_t)(s.at.H * s.at.E);
        long double *ref = calloc(s.n_out * Q + 1, sizeof *ref), *plain = calloc(s.n_out * Q + 1, sizeof *plain);
        float *out, *logp, *da;
        bool large;
        run(&s, &out, &logp, &da);
        oracle_diff(plain, &s, logp, true, &large);
        oracle_diff(ref, &s, logp, false, &large);
        for (size_t i = 0; i < s.n_out; i++) {
            worst_of(&w[large ? 2 : s.sink], distance(da + i * Q, ref + i * Q, Q), "case %d, kind %d value %g effect %g T %d E %d row %zu",
                     c, s.kind, s.value, s.effect, s.T, s.at.E, i);
            if (s.effect < 1e-3) continue;
            long double d = 0, n = 0;
            for (size_t e = 0; e < Q; e++) {
                d += (ref[i * Q + e] - plain[i * Q + e]) * (ref[i * Q + e] - plain[i * Q + e]);
                n += ref[i * Q + e] * ref[i * Q + e];
            }
            if (n > 0) worst_of(&agree, (double)sqrtl(d / n), "case %d", c);
        }
        free(ref), free(plain), free(out), free(logp), free(da);
        scene_free(&s);
    }
    assert_below("the oracle's two ways", &agree, 1e-6); /* plain differences lose that at a sink */
    assert_below("effects, |ds| <= 1", &w[0], LIMIT_DIFF);
    assert_below("effects, |ds| <= 1, sink", &w[1], LIMIT_SINK);
    assert_below("effects, |ds| > 1 somewhere", &w[2], LIMIT_LARGE);
}

/* What lies behind the last position wanted does not show: effects in a sample so long that workers do not keep the trunk's weights
 * equal those at the start of a short one, where the second branch finds the first one's. */
static void test_lengths(void **state)
{
    (void)state;
    enum { SHORT = 40, LONG = 1100, FROM = 7, N = SHORT - FROM, E = 8, BRANCHES = 2 };
    const ks_attention at = {.H = 1, .G = 1, .E = E, .scale = 0.35f};
    rng r = {3};
    float *x[3], *d[3], *first = NULL;
    int32_t pos[N];
    for (int i = 0; i < 3; i++) {
        x[i] = rng_floats(&r, LONG * E, 1);
        d[i] = rng_floats(&r, BRANCHES * N * E, 0.1);
    }
    for (int i = 0; i < N; i++) pos[i] = FROM + i;
    for (int c = 0; c < 2 * all_devices.n; c++) {
        const int32_t T = c % 2 ? LONG : SHORT;
        ks_device *dev = all_devices.dev[c / 2];
        const ks_attention_item item = {.T = T};
        ks_branch_item branch[BRANCHES];
        for (int i = 0; i < BRANCHES; i++) {
            branch[i] = (ks_branch_item){
                .trunk = item, .in_pos = pos, .n_in = N, .in_row = i * N, .out_pos = pos, .n_out = N, .out_row = i * N, .q_row = i * N};
        }
        float *out = malloc(LONG * E * sizeof *out), *logp = malloc((size_t)(T * KS_PADDED(T)) * sizeof *logp),
              *da = malloc(BRANCHES * N * E * sizeof *da);
        assert_int_equal(all_devices.b->attention(dev, out, KS_FORM_F32, logp, x[0], x[1], x[2], &item, 1, &at), 0);
        assert_int_equal(
            all_devices.b->attention_diff(dev, da, KS_FORM_F32, d[0], d[1], d[2], x[0], x[1], x[2], logp, branch, BRANCHES, &at), 0);
        if (first) assert_true(same_bits(da, first, BRANCHES * N * E * sizeof *da));
        free(out), free(logp);
        if (first) free(da);
        else first = da;
    }
    free(first);
    for (int i = 0; i < 3; i++) free(x[i]), free(d[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_effects),
        cmocka_unit_test(test_lengths),
    };
    return cmocka_run_group_tests(tests, devices_setup, devices_teardown);
}
