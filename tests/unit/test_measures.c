/* KL and its relatives against long double for changes of logits from 1e-30 to 1e3, facts of baseline rows, and equal bits everywhere. */
#include "support/numbers.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Largest relative error allowed. Where a logit changes by hundreds, its rounding alone is that much of u. */
static const double LIMIT = 1e-12;    /* 6e-14 measured */
static const double LIMIT_FAR = 1e-9; /* 2.2e-10 */

typedef struct answer {
    long double kl, reverse, js, tv, *p, *q; /* p, q [V] */
    int32_t top, now;
} answer;

/* e^x - 1 - x and log(1 + x) - x: series near 0. */
static long double expm1_less_x(long double x)
{
    if (fabsl(x) > 0.1L) return expm1l(x) - x;
    long double term = x * x / 2, sum = 0;
    for (int k = 3; k < 30; k++) {
        sum += term;
        term *= x / k;
    }
    return sum;
}

/* (1 + w) log(1 + w) - w, w > -1: x^2/2 - x^3/6 + ... = sum (-w)^k / (k (k-1)). */
static long double xlogx(long double w)
{
    if (w <= -1) return 1;
    if (fabsl(w) > 0.1L) return (1 + w) * log1pl(w) - w;
    long double power = w * w, sum = 0;
    for (int k = 2; k < 30; k++) {
        sum += power / (k * (k - 1));
        power *= -w;
    }
    return sum;
}

/* Text-book sums in long double, with p' = p (1 + w): D(p||p') through u, D(p'||p) = sum p xlogx(w), and Jensen-Shannon with the mixture
 * m = p (1 + w/2): half of D(p||m) + D(p'||m) = sum p [ (xlogx(w) - 2 xlogx(w/2)) ] / 2. */
static answer oracle(const float *e, const float *l, size_t V)
{
    answer a = {.p = calloc(V, sizeof *a.p), .q = calloc(V, sizeof *a.q)};
    long double most = -INFINITY, total = 0, mu = 0, z = 0, mostq = -INFINITY, totalq = 0;
    for (size_t i = 0; i < V; i++) {
        if ((long double)l[i] > most) most = (long double)l[i], a.top = (int32_t)i;
        if ((long double)l[i] + (long double)e[i] > mostq) mostq = (long double)l[i] + (long double)e[i], a.now = (int32_t)i;
    }
    const long double ref = (long double)e[a.top]; /* a common change is none; without this, 64 bits are too few where p is nearly 1 */
    for (size_t i = 0; i < V; i++) {
        total += expl((long double)l[i] - most);
        totalq += expl((long double)l[i] + (long double)e[i] - mostq);
    }
    for (size_t i = 0; i < V; i++) {
        a.p[i] = expl((long double)l[i] - most) / total;
        a.q[i] = expl((long double)l[i] + (long double)e[i] - mostq) / totalq;
        mu += a.p[i] * ((long double)e[i] - ref);
    }
    for (size_t i = 0; i < V; i++) z += a.p[i] * expm1_less_x((long double)e[i] - ref - mu);
    a.kl = isfinite(z) && z < 1e3 ? log1pl(z) : mostq + logl(totalq) - most - logl(total) - ref - mu;
    for (size_t i = 0; i < V; i++) {
        const long double u = (long double)e[i] - ref - mu - a.kl, w = expm1l(u);
        if (fabsl(u) < 50) {
            a.reverse += a.p[i] * xlogx(w);
            a.js += a.p[i] * (xlogx(w) - 2 * xlogx(w / 2)) / 2;
            a.tv += a.p[i] * fabsl(w) / 2;
        } else { /* so large that plain differences are exact */
            const long double m = (a.p[i] + a.q[i]) / 2;
            a.reverse += a.q[i] * u - a.q[i] + a.p[i];
            if (a.p[i] > 0) a.js += a.p[i] * logl(a.p[i] / m) / 2;
            if (a.q[i] > 0) a.js += a.q[i] * logl(a.q[i] / m) / 2;
            a.tv += fabsl(a.q[i] - a.p[i]) / 2;
        }
    }
    return a;
}

/* Relative error of a probability; below the smallest normal double there are no digits to lose. */
static double p_error(double got, long double want)
{
    return want < 1e-300L && got < 1e-300 ? 0 : relative(got, want);
}

static void answer_free(answer *a)
{
    free(a->p), free(a->q);
}

static void test_against_long_double(void **state)
{
    (void)state;
    static const double scales[] = {1e-30, 1e-20, 1e-12, 1e-6, 1e-3, 3e-2, 0.3, 3, 30, 300, 1500};
    static const size_t sizes[] = {5, 32, 77, 1000};
    rng r = {6};
    worst w[2][6] = {{{0}}}; /* [1]: some logits change by hundreds */
    for (int c = 0; c < 11 * 4 * 6; c++) {
        const size_t V = sizes[c % 4], n = 19;
        const double scale = scales[c / 4 % 11], spread = (double[]){1, 4, 12}[c / 44 % 3];
        const int far = scale > 100 || (scale > 0.1 && c % 5 == 0);
        float *l = rng_floats(&r, 4 * V, spread), *e = rng_floats(&r, n * V, scale);
        ks_baseline_row base[4], base0[4];
        ks_measure_item items[19];
        for (size_t i = 0; i < n; i++) items[i] = (ks_measure_item){(int64_t)(i * 4 / n), (int32_t)rng_below(&r, V), i % 4 != 3};
        if (c % 5 == 0) { /* one token changes much more than the others */
            for (size_t i = 0; i < n; i++) e[i * V + rng_below(&r, V)] *= 1e3f;
        }
        ks_measure first[19], now[19];
        memset(base0, 0, sizeof base0);
        memset(base, 0, sizeof base);
        for (int t = 0; t < all_devices.n; t++) {
            memset(now, 0, sizeof now);
            assert_int_equal(all_devices.b->baseline(all_devices.dev[t], base, l, 4, V), 0);
            assert_int_equal(all_devices.b->measure(all_devices.dev[t], now, e, l, base, items, n, V), 0);
            if (t == 0) {
                memcpy(first, now, sizeof now);
                memcpy(base0, base, sizeof base);
            }
            assert_true(same_bits(base0, base, sizeof base));
            for (size_t i = 0; i < n; i++) {
                assert_true(same_bits(&first[i].cell.kl, &now[i].cell.kl, 6 * sizeof(double)));
                assert_true(same_bits(first[i].cell.top_ids, now[i].cell.top_ids, sizeof now[i].cell.top_ids));
                assert_true(same_bits(first[i].cell.top_p_ablated, now[i].cell.top_p_ablated, sizeof now[i].cell.top_p_ablated));
                assert_true(same_bits(&first[i].p_next, &now[i].p_next, sizeof(double)));
            }
        }
        for (size_t i = 0; i < n; i++) {
            const float *li = l + (size_t)items[i].base_row * V, *ei = e + i * V;
            const ks_cell *m = &first[i].cell;
            answer a = oracle(ei, li, V);
            assert_int_equal(m->status, KS_CELL_DONE);
            worst_of(&w[far][0], relative(m->kl, a.kl), "kl, case %d, V %zu, scale %g, spread %g", c, V, scale, spread);
            worst_of(&w[far][5], p_error(first[i].p_next, a.q[items[i].next]), "p_next, case %d, scale %g", c, scale);
            assert_true(first[i].dlogit_next == (double)ei[items[i].next]);
            if (!items[i].full) {
                answer_free(&a);
                continue;
            }
            worst_of(&w[far][1], relative(m->kl_reverse, a.reverse), "reverse, case %d, V %zu, scale %g, spread %g", c, V, scale, spread);
            worst_of(&w[far][2], relative(m->js, a.js), "js, case %d, V %zu, scale %g, spread %g", c, V, scale, spread);
            worst_of(&w[far][3], relative(m->tv, a.tv), "tv, case %d, V %zu, scale %g, spread %g", c, V, scale, spread);
            worst_of(&w[far][4], p_error(m->p_top, a.q[a.top]), "p_top, case %d, V %zu, scale %g, spread %g", c, V, scale, spread);
            if (scale >= 1e-12) assert_int_equal(m->top_changed, a.now != a.top);
            assert_true(m->dlogit_top == (double)ei[a.top]);
            for (int k = 0; k < KS_TOP_K; k++) {
                const int32_t id = m->top_ids[k];
                worst_of(&w[far][4], p_error(m->top_p_baseline[k], a.p[id]), "top p, case %d", c);
                worst_of(&w[far][5], p_error(m->top_p_ablated[k], a.q[id]), "top p', case %d", c);
                size_t larger = 0; /* tokens that changed clearly more: k at most */
                const long double mine = fabsl(a.q[id] - a.p[id]);
                for (size_t j = 0; j < V && scale >= 1e-6 && scale < 100; j++) larger += fabsl(a.q[j] - a.p[j]) > mine * 1.00001L + 1e-15L;
                assert_true(larger <= (size_t)k);
            }
            answer_free(&a);
        }
        for (int b = 0; b < 4; b++) {
            const float zero[1000] = {0};
            answer a = oracle(zero, l + (size_t)b * V, V);
            const float *lb = l + (size_t)b * V, most = lb[a.top];
            long double entropy = 0, others = 0;
            for (size_t i = 0; i < V; i++) others += (int32_t)i != a.top ? expl((long double)lb[i] - (long double)most) : 0;
            for (size_t i = 0; i < V; i++) entropy += a.p[i] * (log1pl(others) + ((long double)most - (long double)lb[i]));
            worst_of(&w[0][4], relative(base0[b].entropy, entropy), "entropy, case %d", c);
            assert_true(base0[b].finite && base0[b].top_ids[0] == a.top);
            for (int k = 0; k < KS_TOP_K; k++)
                worst_of(&w[0][4], p_error(base0[b].top_p[k], a.p[base0[b].top_ids[k]]), "baseline p, case %d", c);
            for (int k = 1; k < KS_TOP_K; k++) assert_true(base0[b].top_p[k] <= base0[b].top_p[k - 1]);
            answer_free(&a);
        }
        free(l), free(e);
    }
    static const char *const names[] = {"KL", "reverse KL", "Jensen-Shannon", "total variation", "p of the baseline, p_top", "p'"};
    for (int k = 0; k < 6; k++) {
        assert_below(names[k], &w[0][k], LIMIT);
        assert_below(names[k], &w[1][k], LIMIT_FAR);
    }
}

/* No change at all: exactly 0, on every row size, and nothing changed its place. */
static void test_nothing(void **state)
{
    (void)state;
    rng r = {7};
    for (size_t V = 5; V < 60; V++) {
        float *l = rng_floats(&r, V, 3), *e = calloc(V, sizeof *e);
        ks_baseline_row base;
        ks_measure m;
        l[V - 1] = l[0]; /* a tie: the lower id wins */
        assert_int_equal(all_devices.b->baseline(all_devices.dev[0], &base, l, 1, V), 0);
        assert_int_equal(all_devices.b->measure(all_devices.dev[0], &m, e, l, &base, &(ks_measure_item){0, -1, true}, 1, V), 0);
        assert_int_equal(m.cell.status, KS_CELL_DONE);
        assert_true(m.cell.kl == 0 && m.cell.kl_reverse == 0 && m.cell.js == 0 && m.cell.tv == 0 && m.cell.dlogit_top == 0);
        assert_true(m.cell.top_changed == 0 && isnan(m.p_next) && isnan(m.dlogit_next));
        assert_true(m.cell.p_top == base.top_p[0]);
        for (int k = 0; k < KS_TOP_K; k++) assert_true(m.cell.top_p_baseline[k] > 0 && m.cell.top_p_ablated[k] > 0);
        free(l), free(e);
    }
}

/* A change common to all logits changes nothing. */
static void test_common_change(void **state)
{
    (void)state;
    rng r = {8};
    enum { V = 500 };
    float *l = rng_floats(&r, V, 3), e[V];
    ks_baseline_row base;
    ks_measure m;
    assert_int_equal(all_devices.b->baseline(all_devices.dev[0], &base, l, 1, V), 0);
    for (int i = 0; i < V; i++) e[i] = 700;
    assert_int_equal(all_devices.b->measure(all_devices.dev[0], &m, e, l, &base, &(ks_measure_item){0, 0, true}, 1, V), 0);
    assert_true(m.cell.kl == 0 && m.cell.kl_reverse == 0 && m.cell.js == 0 && m.cell.tv == 0 && m.cell.top_changed == 0);
    assert_true(m.cell.p_top == base.top_p[0] && m.cell.dlogit_top == 700);
    free(l);
}

static void test_not_finite(void **state)
{
    (void)state;
    rng r = {9};
    enum { V = 37 };
    const float bad[] = {NAN, INFINITY, -INFINITY};
    float *l = rng_floats(&r, 2 * V, 3), *e = rng_floats(&r, V, 1);
    for (int c = 0; c < 6; c++) {
        for (int at = 0; at < V; at += 18) {
            ks_baseline_row base[2];
            ks_measure m;
            float *x = c < 3 ? e : l + V;
            const float keep = x[at];
            x[at] = bad[c % 3];
            assert_int_equal(all_devices.b->baseline(all_devices.dev[0], base, l, 2, V), 0);
            assert_true(base[0].finite && base[1].finite == (c < 3));
            assert_int_equal(all_devices.b->measure(all_devices.dev[0], &m, e, l, base, &(ks_measure_item){1, 3, true}, 1, V), 0);
            assert_int_equal(m.cell.status, KS_CELL_NOT_FINITE);
            assert_true(isnan(m.cell.kl) && isnan(m.cell.kl_reverse) && isnan(m.cell.js) && isnan(m.cell.tv) && isnan(m.cell.p_top));
            assert_true(isnan(m.cell.dlogit_top) && isnan(m.p_next) && isnan(m.dlogit_next));
            x[at] = keep;
        }
    }
    free(l), free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_long_double),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_common_change),
        cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, devices_setup, devices_teardown);
}
