/* The plan against its definitions, written out plainly: row sets by reachability, variants by enumeration, units by covering. */
#include "base/error.h"
#include "base/mem.h"
#include "plan/forecast.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_T = 150, MAX_L = 7 };

static uint32_t seed = 1;
static int32_t draw(int32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (int32_t)((seed >> 8) % (uint32_t)n);
}

static ks_arch small_arch(int32_t L, int32_t *window)
{
    return (ks_arch){.L = L, .D = 16, .H = 4, .G = 2, .E = 4, .F = 32, .V = 100, .gated = true, .window = window};
}

static bool visible(const ks_arch *a, int32_t l, int32_t q, int32_t k)
{
    return k <= q && (!a->window[l] || q - k < a->window[l]);
}

typedef struct text {
    int32_t T;
    uint8_t marker[MAX_T], target[MAX_T];
} text;

static text random_text(int32_t T)
{
    text t = {.T = T};
    t.marker[draw(T)] = 1;
    if (draw(2)) t.marker[draw(T)] = 1;
    for (int i = 0; i < 4; i++) t.target[draw(T)] = 1;
    return t;
}

static bool is_edge(const text *t, int edges, int32_t q, int32_t k)
{
    return edges == KS_EDGES_MARKER_TARGETS ? t->marker[q] && t->target[k] : t->marker[k];
}

/* changed[l][q]: row q of layer l's output can differ from the trunk; need[l][q]: the last row depends on it. */
static void reference_rows(const ks_arch *a, const text *t, int edges, int32_t from, int32_t to, bool changed[MAX_L][MAX_T],
                           bool need[MAX_L][MAX_T])
{
    memset(need, 0, MAX_L * sizeof need[0]);
    need[a->L - 1][t->T - 1] = true;
    for (int32_t l = a->L - 1; l > 0; l--)
        for (int32_t q = 0; q < t->T; q++)
            for (int32_t k = 0; k < t->T; k++)
                if (need[l][q] && visible(a, l, q, k)) need[l - 1][k] = true;
    for (int32_t l = 0; l < a->L; l++)
        for (int32_t q = 0; q < t->T; q++) {
            changed[l][q] = false;
            for (int32_t k = 0; k < t->T; k++) {
                if (!visible(a, l, q, k)) continue;
                if (l > 0 && changed[l - 1][k]) changed[l][q] = true;
                if (l >= from && l <= to && is_edge(t, edges, q, k)) changed[l][q] = true;
            }
        }
}

static void row_sets_are_reachability(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++) {
        int32_t window[MAX_L];
        const int32_t L = 1 + draw(MAX_L), T = 1 + draw(MAX_T);
        const bool slides = draw(2);
        for (int32_t l = 0; l < L; l++) window[l] = slides && draw(3) ? 1 + draw(20) : 0;
        const ks_arch a = small_arch(L, window);
        const text t = random_text(T);
        ks_geometry *g;
        assert_int_equal(ks_geometry_new(&g, &a, T, t.marker, t.target), KS_OK);
        const int edges = draw(2), positions = draw(2);
        const int32_t from = draw(L), to = from + draw(L - from);
        bool changed[MAX_L][MAX_T], need[MAX_L][MAX_T];
        reference_rows(&a, &t, edges, from, to, changed, need);
        uint64_t set[(MAX_T + 63) / 64] = {0};
        for (int32_t l = from; l < L; l++) {
            ks_rows_step(g, l <= to ? edges : -1, positions, l, set);
            for (int32_t q = 0; q < T; q++) {
                const bool expected = changed[l][q] && (positions == KS_POSITIONS_ALL || need[l][q]);
                if (ks_set_has(set, q) != expected) fail_msg("round %d layer %d row %d: expected %d", round, l, q, expected);
            }
        }
        ks_geometry_free(g);
    }
}

static void status_names_what_is_special(void **state)
{
    (void)state;
    int32_t window[2] = {0, 2};
    const ks_arch a = small_arch(2, window);
    text t = {.T = 6};
    t.marker[4] = 1;
    t.target[1] = t.target[2] = 1; /* seen by token 4 in layer 0, not in layer 1, whose window is 2 */
    ks_geometry *g;
    assert_int_equal(ks_geometry_new(&g, &a, t.T, t.marker, t.target), KS_OK);
    assert_int_equal(g->visible[KS_EDGES_MARKER_TARGETS], 2);
    ks_mask m = {KS_KNOCKOUT, KS_EDGES_MARKER_TARGETS, 0, NULL};
    assert_int_equal(ks_rows_status(g, &m, &(ks_variant){0, 0, 0, 0}), KS_CELL_DONE);
    assert_int_equal(ks_rows_status(g, &m, &(ks_variant){0, 1, 1, 0}), KS_CELL_NOTHING);
    assert_int_equal(ks_rows_status(g, &m, &(ks_variant){0, 0, 1, 0}), KS_CELL_DONE);
    m.kind = KS_SET;
    m.value = 0.5;
    assert_int_equal(ks_rows_status(g, &m, &(ks_variant){0, 0, 0, 0}), KS_CELL_DONE);
    m.value = 0.51;
    assert_int_equal(ks_rows_status(g, &m, &(ks_variant){0, 0, 0, 0}), KS_CELL_NOT_FINITE);
    ks_geometry_free(g);

    t.marker[4] = 0;
    t.marker[0] = 1; /* row 0 sees nothing but itself */
    m = (ks_mask){KS_KNOCKOUT, KS_EDGES_ALL_MARKER, 0, NULL};
    assert_int_equal(ks_geometry_new(&g, &a, t.T, t.marker, t.target), KS_OK);
    assert_int_equal(ks_rows_status(g, &m, &(ks_variant){0, 0, 1, 0}), KS_CELL_EMPTY_ROW);
    m.kind = KS_SCALE;
    assert_int_equal(ks_rows_status(g, &m, &(ks_variant){0, 0, 1, 0}), KS_CELL_DONE);
    ks_geometry_free(g);
}

static void equal_variants_are_computed_once(void **state)
{
    (void)state;
    char one[] = "layers", two[] = "triangle", three[] = "heads";
    ks_sweep sweeps[] = {{.name = one, .windows = KS_WINDOWS_EACH_LAYER},
                         {.name = two, .windows = KS_WINDOWS_ALL, .positions = KS_POSITIONS_ALL},
                         {.name = three, .windows = KS_WINDOWS_EACH_LAYER, .heads = KS_HEADS_EACH}};
    ks_grid *g;
    assert_int_equal(ks_grid_new(&g, sweeps, 3, 5, 4), KS_OK);
    assert_int_equal(g->n_masks, 1 + 4);
    assert_int_equal(g->n_variants, 15 + 5 * 4);
    for (size_t s = 0; s < 3; s++)
        for (size_t w = 0; w < g->sweeps[s].W; w++)
            for (size_t h = 0; h < g->sweeps[s].n_heads; h++) {
                const ks_variant *v = &g->variants[g->sweeps[s].variant[w * g->sweeps[s].n_heads + h]];
                const ks_mask *m = &g->masks[v->mask];
                assert_int_equal(v->a, g->sweeps[s].windows[w].a);
                assert_int_equal(v->b, g->sweeps[s].windows[w].b);
                for (int32_t i = 0; i < 4; i++) assert_int_equal(m->heads ? m->heads[i] : 1, s < 2 || i == (int32_t)h);
                assert_int_equal(v->positions, s < 2 ? KS_POSITIONS_ALL : KS_POSITIONS_LAST);
            }
    ks_grid_free(g);
}

/* Each branch forks from a leader that has taken the same actions so far. */
static void branches_share_only_equal_beginnings(void **state)
{
    (void)state;
    int32_t window[5] = {0};
    const ks_arch a = small_arch(5, window);
    char name[] = "triangle";
    ks_sweep sweep = {.name = name, .windows = KS_WINDOWS_ALL};
    text t = {.T = 40};
    t.marker[20] = t.target[3] = 1;
    ks_grid *grid;
    ks_geometry *g;
    ks_branches *b;
    assert_int_equal(ks_grid_new(&grid, &sweep, 1, 5, 4), KS_OK);
    assert_int_equal(ks_geometry_new(&g, &a, t.T, t.marker, t.target), KS_OK);
    assert_int_equal(ks_branches_new(&b, g, grid, 0, (int32_t)grid->n_variants, true, NULL), KS_OK);
    assert_int_equal(b->n, 16);
    assert_int_equal(b->v[0].variant, -1);
    for (size_t i = 1; i < b->n; i++) {
        const ks_variant *v = &grid->variants[b->v[i].variant], *lead = &grid->variants[b->v[b->v[i].leader].variant];
        assert_int_equal(lead->a, v->a);
        if (b->v[i].leader == (int32_t)i) {
            assert_int_equal(v->b, 4);
            assert_int_equal(b->v[i].fork, v->a);
            assert_int_equal(b->v[i].mask_end, v->b);
        } else {
            assert_true(lead->b > v->b);
            assert_int_equal(b->v[i].fork, v->b + 1);
            assert_int_equal(b->v[i].mask_end, -1);
        }
        assert_int_equal(b->v[i].measured, v->a < 4); /* in the last layer row 20 cannot reach row 39 */
    }
    ks_branches_free(b);
    ks_geometry_free(g);
    ks_grid_free(grid);
}

/* A problem of random texts; windows of all kinds, so that layers differ. */
typedef struct fixture {
    int32_t window[MAX_L];
    ks_arch arch;
    ks_grid *grid;
    ks_geometry *geometry[8];
    char *names[8];
    ks_problem problem;
} fixture;

static void fixture_open(fixture *f, int32_t L, size_t n_samples, int32_t longest, bool slides)
{
    static char name[] = "sample", one[] = "one", two[] = "two", three[] = "three";
    static double values[] = {0.5, 2};
    ks_sweep sweeps[] = {
        {.name = one, .windows = KS_WINDOWS_ALL},
        {.name = two, .windows = KS_WINDOWS_EACH_LAYER, .edges = KS_EDGES_ALL_MARKER, .positions = KS_POSITIONS_ALL},
        {.name = three, .windows = KS_WINDOWS_SLIDE, .slide = L > 1 ? 2 : 1, .kind = KS_SCALE, .values = values, .n_values = 2}};
    for (int32_t l = 0; l < L; l++) f->window[l] = slides && draw(3) ? 1 + draw(20) : 0;
    f->arch = small_arch(L, f->window);
    assert_int_equal(ks_grid_new(&f->grid, sweeps, 3, L, 4), KS_OK);
    for (size_t i = 0; i < n_samples; i++) {
        const text t = random_text(2 + draw(longest - 1));
        assert_int_equal(ks_geometry_new(&f->geometry[i], &f->arch, t.T, t.marker, t.target), KS_OK);
        f->names[i] = name;
    }
    f->problem = (ks_problem){
        .arch = &f->arch, .grid = f->grid, .geometry = f->geometry, .n_samples = n_samples, .floor = draw(2), .names = f->names};
}

static void fixture_close(fixture *f)
{
    for (size_t i = 0; i < f->problem.n_samples; i++) ks_geometry_free(f->geometry[i]);
    ks_grid_free(f->grid);
}

/* A branch layer by layer, as ks_rows_step and ks_layer_flops say; held [words]. */
static ks_walk_cost plain_walk(const ks_geometry *g, const ks_branch *b, int32_t a, int32_t last_masked, uint64_t *held)
{
    ks_walk_cost c = {0};
    uint64_t set[3] = {0}, before[3];
    if (b->variant < 0)
        for (int32_t p = 0; p < g->T; p++) ks_set_add(set, p);
    memset(held, 0, sizeof set);
    for (int32_t l = a; l < g->arch->L; l++) {
        if (l == b->fork)
            for (size_t i = 0; i < g->words; i++) held[i] |= set[i];
        memcpy(before, set, sizeof set);
        ks_rows_step(g, l <= last_masked ? b->edges : -1, b->positions, l, set);
        if (l < b->fork) continue;
        for (size_t i = 0; i < g->words; i++) held[i] |= set[i];
        c.flops += ks_layer_flops(g, l, before, set);
    }
    c.n_pos = ks_set_count(held, g->words);
    c.measured = ks_set_count(set, g->words);
    c.flops += 2.0 * g->arch->D * g->arch->V * c.measured;
    return c;
}

static void draw_done(const ks_problem *p, uint64_t *done, uint8_t *baseline_done, int share)
{
    memset(done, 0, p->n_samples * ks_done_words(p->grid) * sizeof *done);
    for (size_t s = 0; s < p->n_samples; s++) {
        const int how = draw(4); /* some samples are done, some untouched */
        baseline_done[s] = (uint8_t)draw(2);
        for (int32_t v = 0; v < (int32_t)p->grid->n_variants; v++)
            if (how == 0 || (how > 1 && draw(100) < share)) ks_set_add(done + s * ks_done_words(p->grid), v);
    }
}

/* Costs, rows and sizes of branches and units equal a walk that derives every step anew, whatever is done already. */
static void costs_are_those_of_a_plain_walk(void **state)
{
    (void)state;
    for (int round = 0; round < 100; round++) {
        fixture f = {0};
        fixture_open(&f, 1 + draw(MAX_L), 1, MAX_T, draw(2));
        const ks_geometry *g = f.geometry[0];
        const int32_t n = (int32_t)f.grid->n_variants;
        uint64_t *done = ks_calloc(ks_done_words(f.grid), sizeof *done), held[3];
        uint8_t baseline_done[1];
        if (draw(2)) draw_done(&f.problem, done, baseline_done, 1 + draw(99));
        f.problem.done = done;
        ks_unit u = {.v0 = draw(n), .first = draw(2)};
        u.v1 = u.v0 + draw(n - u.v0 + 1);
        ks_branches *b;
        assert_int_equal(ks_unit_measure(&f.problem, &u), KS_OK);
        assert_int_equal(ks_unit_branches(&b, &f.problem, &u), KS_OK);
        assert_int_equal(u.branches, b->n);
        bool all = false;
        int32_t cells = 0, widest = 0;
        for (int32_t v = u.v0; v < u.v1; v++) {
            if (ks_set_has(done, v)) continue;
            cells++;
            all |= f.grid->variants[v].positions == KS_POSITIONS_ALL;
        }
        int64_t rows = 0, measured = 0;
        double flops = ks_trunk_flops(g, all ? g->T : 1);
        for (size_t i = 0; i < b->n; i++) {
            const ks_branch *x = &b->v[i];
            const ks_variant *v = x->variant < 0 ? &(ks_variant){.b = -1} : &f.grid->variants[x->variant];
            const ks_walk_cost c = plain_walk(g, x, v->a, v->b, held);
            assert_true(c.flops == x->flops && c.n_pos == x->n_pos && c.measured == x->measured);
            assert_memory_equal(held, b->held + i * g->words, g->words * sizeof *held);
            if (x->variant >= 0) assert_false(ks_set_has(done, x->variant));
            flops += c.flops;
            rows += c.n_pos;
            measured += c.measured;
            if (c.n_pos > widest) widest = c.n_pos;
        }
        assert_true(u.flops == flops && u.rows == rows && u.measured == measured);
        assert_true(u.widest == widest && u.cells == cells && u.all_positions == all);
        ks_branches_free(b);
        free(done);
        fixture_close(&f);
    }
}

/* Every cell and baseline that is not done is in one unit, nothing else is, and no unit is for nothing. */
static void check_cover(const ks_problem *problem, const ks_plan *p, int64_t budget)
{
    const size_t n = problem->grid->n_variants;
    int *seen = ks_calloc(problem->n_samples * n, sizeof *seen), *first = ks_calloc(problem->n_samples, sizeof *first);
    int64_t cells = 0;
    double flops = 0;
    for (size_t i = 0; i < p->n_units; i++) {
        const ks_unit *u = &p->units[i];
        ks_unit same = *u;
        ks_pass_size size = {0};
        assert_int_equal(ks_unit_measure(problem, &same), KS_OK);
        assert_true(same.flops == u->flops && same.cells == u->cells && same.branches == u->branches && same.rows == u->rows);
        assert_true(same.measured == u->measured && same.widest == u->widest && same.all_positions == u->all_positions);
        assert_true(u->cells || u->first);
        assert_true(i == 0 || u->flops <= p->units[i - 1].flops);
        ks_pass_size_add(&size, problem, u);
        assert_true(ks_pass_bytes(&size, problem->arch, &problem->forms) <= budget);
        const uint64_t *done = ks_problem_done(problem, u->sample);
        for (int32_t v = u->v0; v < u->v1; v++)
            if (!done || !ks_set_has(done, v)) {
                seen[(size_t)u->sample * n + (size_t)v]++;
                cells++;
            }
        first[u->sample] += u->first;
        flops += u->flops;
    }
    for (size_t s = 0; s < problem->n_samples; s++) {
        assert_int_equal(first[s], !problem->baseline_done || !problem->baseline_done[s]);
        for (size_t v = 0; v < n; v++)
            assert_int_equal(seen[s * n + v], !problem->done || !ks_set_has(ks_problem_done(problem, (int32_t)s), (int32_t)v));
    }
    assert_int_equal(cells, p->cells);
    assert_true(fabs(flops - p->flops) <= 1e-12 * flops);
    double sum = 0;
    int64_t given = 0;
    for (int r = 0; r < p->ranks; r++) {
        sum += p->forecast->flops[r];
        given += p->forecast->cells[r];
    }
    assert_int_equal(given, cells);
    assert_true(fabs(sum - flops) <= 1e-12 * flops);
    assert_true(p->forecast->peak_bytes <= budget);
    free(seen);
    free(first);
}

static void units_cover_what_is_missing_once(void **state)
{
    (void)state;
    const int ranks[] = {1, 2, 3, 5, 17, 1000};
    const int64_t budgets[] = {(int64_t)1 << 40, 600000};
    for (int round = 0; round < 20; round++) {
        fixture f = {0};
        fixture_open(&f, 6, 5, 120, draw(2));
        uint64_t *done = ks_calloc(5 * ks_done_words(f.grid), sizeof *done);
        uint8_t baseline_done[5];
        if (round) {
            draw_done(&f.problem, done, baseline_done, 1 + draw(99));
            f.problem.done = done;
            f.problem.baseline_done = baseline_done;
        }
        for (size_t r = 0; r < 6; r++)
            for (size_t m = 0; m < 2; m++) {
                ks_plan *p, *again;
                assert_int_equal(ks_plan_new(&p, &f.problem, ranks[r], budgets[m]), KS_OK);
                assert_int_equal(ks_plan_new(&again, &f.problem, ranks[r], budgets[m]), KS_OK);
                check_cover(&f.problem, p, budgets[m]);
                assert_int_equal(p->n_units, again->n_units);
                for (size_t i = 0; i < p->n_units; i++) {
                    const ks_unit *x = &p->units[i], *y = &again->units[i];
                    assert_true(x->sample == y->sample && x->v0 == y->v0 && x->v1 == y->v1 && x->first == y->first);
                }
                if (m == 0 && ranks[r] == 1) assert_true(p->flops == p->whole_flops);
                ks_plan_free(p);
                ks_plan_free(again);
            }
        free(done);
        fixture_close(&f);
    }
}

static void nothing_left_is_no_unit(void **state)
{
    (void)state;
    fixture f = {0};
    fixture_open(&f, 4, 3, 60, false);
    uint64_t *done = ks_calloc(3 * ks_done_words(f.grid), sizeof *done);
    uint8_t baseline_done[3] = {1, 1, 1};
    memset(done, 0xff, 3 * ks_done_words(f.grid) * sizeof *done);
    f.problem.done = done;
    f.problem.baseline_done = baseline_done;
    ks_plan *p;
    assert_int_equal(ks_plan_new(&p, &f.problem, 7, 1 << 30), KS_OK);
    assert_true(p->n_units == 0 && p->cells == 0 && p->forecast->seconds == 0);
    ks_plan_free(p);
    baseline_done[1] = 0; /* a unit without variants */
    assert_int_equal(ks_plan_new(&p, &f.problem, 7, 1 << 30), KS_OK);
    assert_int_equal(p->n_units, 1);
    assert_true(p->units[0].sample == 1 && p->units[0].first && p->units[0].cells == 0 && p->units[0].v0 == p->units[0].v1);
    ks_plan_free(p);
    free(done);
    fixture_close(&f);
}

static void too_little_memory_is_named(void **state)
{
    (void)state;
    fixture f = {0};
    fixture_open(&f, 6, 2, 100, false);
    ks_plan *p;
    assert_int_equal(ks_plan_new(&p, &f.problem, 1, 1000), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "needs"));
    fixture_close(&f);
}

/* SmolLM2-135M's shape, 2,150 samples, every window: a million cells on 1,024 ranks, at 100 GFLOP/s a rank and generous costs of root. */
static void a_million_cells_on_a_thousand_ranks(void **state)
{
    (void)state;
    enum { S = 2150, LAYERS = 30, RANKS = 1024 };
    static int32_t window[LAYERS];
    static ks_geometry *geometry[S];
    static double speed[RANKS];
    char name[] = "triangle";
    const ks_arch a = {.L = LAYERS, .D = 576, .H = 9, .G = 3, .E = 64, .F = 1536, .V = 49152, .gated = true, .window = window};
    ks_sweep sweep = {.name = name, .windows = KS_WINDOWS_ALL};
    ks_grid *grid;
    ks_plan *p;
    ks_forecast *f;
    assert_int_equal(ks_grid_new(&grid, &sweep, 1, LAYERS, 9), KS_OK);
    for (int i = 0; i < S; i++) {
        text t = {.T = 30 + draw(61)};
        t.marker[t.T / 2 + draw(t.T / 2 - 3)] = 1;
        for (int k = 0; k < 4; k++) t.target[draw(t.T / 2)] = 1;
        assert_int_equal(ks_geometry_new(&geometry[i], &a, t.T, t.marker, t.target), KS_OK);
    }
    const ks_problem problem = {.arch = &a, .grid = grid, .geometry = geometry, .n_samples = S, .floor = true};
    const int64_t budget = (int64_t)4 << 30;
    assert_int_equal(ks_plan_new(&p, &problem, RANKS, budget), KS_OK);
    assert_int_equal(p->cells, 999750);
    assert_true(p->flops < 1.02 * p->whole_flops);
    assert_true(p->whole_flops / RANKS > 0.96 * p->forecast->seconds);
    for (int r = 0; r < RANKS; r++) speed[r] = 1e11;
    const ks_service service = {.root_pass = 5e-5, .root_cell = 2e-6, .reply = 2e-3, .root_loss = 1, .max_seconds = 20};
    assert_int_equal(ks_forecast_new(&f, &problem, p->units, p->n_units, budget, RANKS, speed, &service), KS_OK);
    print_message("efficiency %.3f, with root %.3f; root %.1f of %.1f s\n", p->whole_flops / RANKS / p->forecast->seconds,
                  p->whole_flops / RANKS / 1e11 / f->seconds, f->root_seconds, f->seconds);
    assert_true(p->whole_flops / RANKS / 1e11 > 0.95 * f->seconds);
    ks_forecast_free(f);
    ks_plan_free(p);
    for (int i = 0; i < S; i++) ks_geometry_free(geometry[i]);
    ks_grid_free(grid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(row_sets_are_reachability),
        cmocka_unit_test(status_names_what_is_special),
        cmocka_unit_test(equal_variants_are_computed_once),
        cmocka_unit_test(branches_share_only_equal_beginnings),
        cmocka_unit_test(costs_are_those_of_a_plain_walk),
        cmocka_unit_test(units_cover_what_is_missing_once),
        cmocka_unit_test(nothing_left_is_no_unit),
        cmocka_unit_test(too_little_memory_is_named),
        cmocka_unit_test(a_million_cells_on_a_thousand_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
