/* Units handed out: each once, within the budget, largest first, shares by speed; and whole sweeps acted out with ranks of all speeds. */
#include "base/mem.h"
#include "plan/forecast.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { MAX_UNITS = 4000, SAMPLES = 3 };

static uint32_t seed = 3;
static int32_t draw(int32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (int32_t)((seed >> 8) % (uint32_t)n);
}

/* A queue looks at nothing of a problem but its sizes, so units can be made up. */
typedef struct made_up {
    ks_arch arch;
    ks_geometry geometry[SAMPLES], *list[SAMPLES];
    ks_problem problem;
    ks_unit units[MAX_UNITS];
} made_up;

static int by_flops(const void *x, const void *y)
{
    const ks_unit *a = x, *b = y;
    return (a->flops < b->flops) - (a->flops > b->flops);
}

static void make_up(made_up *m, size_t n, int32_t spread)
{
    m->arch = (ks_arch){.L = 4, .D = 16, .H = 4, .G = 2, .E = 4, .F = 32, .V = 100};
    for (int i = 0; i < SAMPLES; i++) {
        m->geometry[i].T = 10 + 30 * i;
        m->list[i] = &m->geometry[i];
    }
    m->problem = (ks_problem){.arch = &m->arch, .geometry = m->list, .n_samples = SAMPLES};
    for (size_t i = 0; i < n; i++)
        m->units[i] = (ks_unit){.sample = draw(SAMPLES),
                                .rows = 20 + draw(200),
                                .widest = 20,
                                .measured = 3,
                                .cells = 1 + draw(9),
                                .flops = 1e6 * (1 + draw(spread))};
    qsort(m->units, n, sizeof *m->units, by_flops);
}

static int64_t bytes_of(const made_up *m, const int32_t *pass, size_t n)
{
    ks_pass_size size = {0};
    for (size_t i = 0; i < n; i++) ks_pass_size_add(&size, &m->problem, &m->units[pass[i]]);
    return ks_pass_bytes(&size, &m->arch, &m->problem.forms);
}

static void each_unit_is_handed_out_once(void **state)
{
    (void)state;
    static made_up m;
    static int32_t pass[MAX_UNITS];
    static int seen[MAX_UNITS];
    for (int round = 0; round < 300; round++) {
        const size_t n = (size_t)draw(round < 280 ? 20 : MAX_UNITS);
        make_up(&m, n, 1 + draw(1000));
        int64_t budget = INT64_MAX, largest = 0;
        for (int32_t i = 0; i < (int32_t)n; i++)
            if (bytes_of(&m, &i, 1) > largest) largest = bytes_of(&m, &i, 1);
        if (draw(2)) budget = largest * (1 + draw(4));
        ks_queue *q;
        assert_int_equal(ks_queue_new(&q, &m.problem, m.units, n, budget), KS_OK);
        double left = 0;
        for (size_t i = 0; i < n; i++) left += m.units[i].flops;
        size_t units = n;
        for (size_t i = 0; i < n; i++) seen[i] = 0;
        while (units) {
            assert_true(fabs(ks_queue_flops(q) - left) <= 1e-9 * left);
            assert_int_equal(ks_queue_units(q), units);
            const double wanted = draw(3) ? left / (1 + draw(10)) : 0; /* 0: single units */
            const size_t got = ks_queue_take(q, wanted, pass);
            assert_in_range(got, 1, units);
            assert_true(bytes_of(&m, pass, got) <= budget);
            double sum = 0;
            for (size_t i = 0; i < got; i++) {
                assert_in_range(pass[i], 0, n - 1);
                assert_int_equal(seen[pass[i]]++, 0);
                assert_true(i == 0 || pass[i] > pass[i - 1]);
                sum += m.units[pass[i]].flops;
            }
            for (int32_t i = 0; i < pass[0]; i++) assert_int_equal(seen[i], 1); /* the largest that was left is in it */
            assert_true(got == 1 || sum <= wanted * (1 + 1e-12));
            /* Nothing that would have fitted is left out. */
            for (size_t i = 0; budget == INT64_MAX && i < n; i++) assert_true(seen[i] || sum + m.units[i].flops > wanted * (1 - 1e-12));
            left -= sum;
            units -= got;
        }
        assert_true(ks_queue_flops(q) == 0);
        assert_int_equal(ks_queue_take(q, 1e30, pass), 0);
        ks_queue_free(q);
    }
}

static void shares_follow_speeds(void **state)
{
    (void)state;
    assert_true(ks_queue_share(1000, 10, 40, 1e9) == 125);
    assert_true(ks_queue_share(1000, 20, 40, 1e9) == 250);  /* twice as fast, twice as much */
    assert_true(ks_queue_share(1000, 20, 40, 5) == 100);    /* at most 5 seconds */
    assert_true(ks_queue_share(1000, 40, 40, 1e9) == 1000); /* alone: all of it */
    assert_true(ks_queue_share(1000, 40, 40, 10) == 400);
}

/* Ranks of any speed end together, within one small pass; a slow one gets its share. */
static void ranks_end_together(void **state)
{
    (void)state;
    static made_up m;
    static const double speeds[][5] = {{1, 1, 1, 1, 1}, {1, 1, 1, 1, 0.5}, {4, 1, 2, 1, 0.25}};
    for (size_t k = 0; k < 3; k++)
        for (size_t n = 500; n <= MAX_UNITS; n *= 2) {
            make_up(&m, n, 20);
            double total = 0, all = 0, first = 1e300, last = 0;
            for (size_t i = 0; i < n; i++) total += m.units[i].flops;
            for (int r = 0; r < 5; r++) all += speeds[k][r];
            ks_forecast *f;
            assert_int_equal(ks_forecast_new(&f, &m.problem, m.units, n, INT64_MAX, 5, speeds[k], NULL), KS_OK);
            for (int r = 0; r < 5; r++) {
                const double share = total * speeds[k][r] / all;
                if (f->end[r] < first) first = f->end[r];
                if (f->end[r] > last) last = f->end[r];
                assert_true(fabs(f->flops[r] / speeds[k][r] - f->end[r]) < 1e-9 * last);
                assert_true(fabs(f->flops[r] - share) < 0.03 * share + m.units[n / 2].flops);
                assert_in_range(f->passes[r], 2, 40);
            }
            /* One small pass: a unit of the lower half, on the slowest rank. */
            double slowest = 1;
            for (int r = 0; r < 5; r++) slowest = fmin(slowest, speeds[k][r]);
            assert_true(last - first <= m.units[n / 2].flops / slowest);
            assert_true(f->seconds == last && f->root_seconds == 0);
            ks_forecast_free(f);
        }
}

/* By hand: two ranks, four units of 4, 3, 2, 1 million FLOPs, 10 in all. */
static void service_costs_time(void **state)
{
    (void)state;
    static made_up m;
    make_up(&m, 4, 1);
    for (int i = 0; i < 4; i++) {
        m.units[i].flops = 4 - i;
        m.units[i].cells = 10;
    }
    const ks_service s = {.root_pass = 0.25, .root_cell = 0.05, .reply = 0.125, .root_loss = 1};
    ks_forecast *f;
    assert_int_equal(ks_forecast_new(&f, &m.problem, m.units, 4, INT64_MAX, 1, NULL, &s), KS_OK);
    assert_int_equal(f->passes[0], 1);
    assert_true(f->end[0] == 0.25 + 10);
    assert_true(fabs(f->root_seconds - (0.25 + 40 * 0.05)) < 1e-12 && fabs(f->seconds - (0.25 + 10 + 2)) < 1e-12);
    ks_forecast_free(f);

    /* Rank 1 is served until 0.25, has 4 at 0.375 and is done at 4.375. Root then takes 3 from 0.5 to 3.5; it stores its 10 cells until 4
     * and takes 2 at 3.75, having waited 0.25 for it and with 0.5 to lose for its cells. Rank 1 comes at 4.375: root serves it until 4.625
     * (the last unit, until 5.75) and stores its cells until 5.125. Root's pass would end at 5.75, has lost 0.5 + 0.75 and ends at 7; rank
     * 1's last cells came at 5.75, so they were stored until 6.25, for which root's pass loses another 0.5: 7.5. Its own last cells take
     * until 8. */
    assert_int_equal(ks_forecast_new(&f, &m.problem, m.units, 4, INT64_MAX, 2, NULL, &s), KS_OK);
    assert_true(f->passes[0] == 2 && f->passes[1] == 2 && f->flops[0] == 5 && f->flops[1] == 5);
    assert_true(fabs(f->end[1] - 5.75) < 1e-12 && fabs(f->end[0] - 7.5) < 1e-12 && fabs(f->seconds - 8) < 1e-12);
    assert_true(fabs(f->root_seconds - (4 * 0.25 + 40 * 0.05)) < 1e-12);
    ks_forecast_free(f);

    /* A root that takes longer than the arithmetic is the bottleneck. */
    const ks_service slow = {.root_cell = 1};
    make_up(&m, 400, 1);
    int64_t cells = 0;
    for (int i = 0; i < 400; i++) cells += m.units[i].cells;
    const double speed[] = {1e6, 1e6, 1e6, 1e6, 1e6, 1e6, 1e6, 1e6};
    assert_int_equal(ks_forecast_new(&f, &m.problem, m.units, 400, INT64_MAX, 8, speed, &slow), KS_OK);
    assert_true(f->root_seconds == (double)cells && f->seconds >= (double)cells);
    ks_forecast_free(f);
}

static void passes_are_not_longer_than_allowed(void **state)
{
    (void)state;
    static made_up m;
    make_up(&m, 1000, 10);
    double total = 0;
    for (int i = 0; i < 1000; i++) total += m.units[i].flops;
    const double speed = 1e6;
    ks_forecast *f;
    assert_int_equal(ks_forecast_new(&f, &m.problem, m.units, 1000, INT64_MAX, 1, &speed, &(ks_service){.max_seconds = 50}), KS_OK);
    assert_in_range(f->passes[0], (int)(total / 50e6), (int)(total / 40e6) + 1);
    ks_forecast_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_unit_is_handed_out_once),
        cmocka_unit_test(shares_follow_speeds),
        cmocka_unit_test(ranks_end_together),
        cmocka_unit_test(service_costs_time),
        cmocka_unit_test(passes_are_not_longer_than_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
