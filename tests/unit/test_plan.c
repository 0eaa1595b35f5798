/* The plan against its definitions, written out plainly: row sets by reachability, variants by enumeration, units by covering. */
#include "base/error.h"
#include "base/mem.h"
#include "plan/plan.h"

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
    assert_int_equal(ks_branches_new(&b, g, grid, 0, (int32_t)grid->n_variants, true), KS_OK);
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

static void units_cover_the_grid_once(void **state)
{
    (void)state;
    enum { S = 5 };
    int32_t window[6] = {0};
    const ks_arch a = small_arch(6, window);
    char name[] = "triangle";
    ks_sweep sweep = {.name = name, .windows = KS_WINDOWS_ALL};
    ks_grid *grid;
    ks_geometry *geometry[S];
    assert_int_equal(ks_grid_new(&grid, &sweep, 1, 6, 4), KS_OK);
    for (int i = 0; i < S; i++) {
        text t = {.T = 20 + 25 * i};
        t.marker[10 + i] = t.target[2] = 1;
        assert_int_equal(ks_geometry_new(&geometry[i], &a, t.T, t.marker, t.target), KS_OK);
    }
    char *names[S] = {name, name, name, name, name};
    const ks_problem problem = {&a, grid, geometry, S, true, names};
    const int ranks[] = {1, 2, 3, 5, 17};
    const int64_t budgets[] = {(int64_t)1 << 40, 600000};
    for (size_t r = 0; r < 5; r++)
        for (size_t m = 0; m < 2; m++) {
            ks_plan *p;
            assert_int_equal(ks_plan_new(&p, &problem, ranks[r], budgets[m]), KS_OK);
            int seen[S][32] = {{0}}, first[S] = {0};
            double flops[17] = {0};
            for (size_t i = 0; i < p->n_units;) {
                const ks_unit *u = &p->units[i];
                ks_pass_size size = {0};
                for (; i < p->n_units && p->units[i].rank == u->rank && p->units[i].pass == u->pass; i++) {
                    const ks_unit *x = &p->units[i];
                    ks_branches *b;
                    assert_int_equal(ks_unit_branches(&b, &problem, x), KS_OK);
                    ks_pass_size_add(&size, &problem, x, b);
                    ks_branches_free(b);
                    for (int32_t v = x->v0; v < x->v1; v++) seen[x->sample][v]++;
                    first[x->sample] += x->first;
                    flops[x->rank] += x->flops;
                }
                assert_true(ks_pass_bytes(&size, &a) <= budgets[m]);
                assert_in_range(u->rank, 0, ranks[r] - 1);
            }
            double top = 0, sum = 0;
            for (int i = 0; i < S; i++) {
                assert_int_equal(first[i], 1);
                for (size_t v = 0; v < grid->n_variants; v++) assert_int_equal(seen[i][v], 1);
            }
            for (int i = 0; i < ranks[r]; i++) {
                assert_true(flops[i] == p->rank_flops[i] || (flops[i] - p->rank_flops[i]) / flops[i] < 1e-12);
                sum += flops[i];
                if (flops[i] > top) top = flops[i];
            }
            assert_true(top < 1.6 * sum / ranks[r]);
            ks_plan_free(p);
        }
    ks_plan *p;
    assert_int_equal(ks_plan_new(&p, &problem, 1, 1000), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "needs"));
    for (int i = 0; i < S; i++) ks_geometry_free(geometry[i]);
    ks_grid_free(grid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(row_sets_are_reachability),        cmocka_unit_test(status_names_what_is_special),
        cmocka_unit_test(equal_variants_are_computed_once), cmocka_unit_test(branches_share_only_equal_beginnings),
        cmocka_unit_test(units_cover_the_grid_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
