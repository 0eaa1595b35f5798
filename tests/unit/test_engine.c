/* The engine on random sweeps: every cell against two whole forwards in double (the oracle), and the same bits however variants and
 * samples are grouped into units and passes, and whatever is done already. Also: the floor against its definition, and interventions that
 * change nothing. */
#include "base/error.h"
#include "base/mem.h"
#include "support/naive.h"
#include "support/sweeps.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Limits: fp32 differences against double. Measured over all models below: largest 6e-5, median 4e-6. */
static const double cell_limit = 1e-3, median_limit = 2e-5;

static void open_on_cpu(fixture *f, const char *name, ks_sweep *sweeps, size_t n)
{
    const ks_backend *cpu;
    assert_int_equal(ks_backend_find(&cpu, "cpu"), KS_OK);
    fixture_open(f, name, sweeps, n, cpu, &(ks_device_options){.threads = 2});
}

static int by_value(const void *x, const void *y)
{
    const double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static void cells_are_two_whole_forwards(void **state)
{
    (void)state;
    static double errors[20000];
    size_t n_errors = 0;
    for (size_t i = 0; i < MODELS; i++) {
        fixture f;
        ks_sweep sweeps[8];
        double values[4];
        int32_t heads[1];
        open_on_cpu(&f, models[i], sweeps, random_sweeps(sweeps, values, heads, 4, 4)); /* every model has at least 4 layers and heads */
        outcome o;
        run(&f, 1, true, &o);
        const ks_arch *a = f.problem.arch;
        for (int32_t s = 0; s < SAMPLES; s++)
            for (size_t v = 0; v < f.grid->n_variants; v++) {
                const ks_variant *variant = &f.grid->variants[v];
                const ks_mask *m = &f.grid->masks[variant->mask];
                uint8_t edges[MAX_T * MAX_T];
                ks_naive_edges(edges, m->edges, f.tokens[s].marker, f.tokens[s].target, f.tokens[s].T);
                const ks_naive_edit edit = {variant->a, variant->b, m->kind, m->value, m->heads, edges};
                ks_cell want;
                const ks_cell *got = &o.cells[(size_t)s * f.grid->n_variants + v];
                assert_int_equal(ks_naive_cell(f.model, f.tokens[s].ids, f.tokens[s].T, &edit, &want), KS_OK);
                assert_int_equal(got->status, want.status);
                if (want.status == KS_CELL_NOT_FINITE) {
                    assert_true(isnan(got->kl) && isnan(got->tv));
                    continue;
                }
                assert_int_equal(got->top_changed, want.top_changed);
                assert_true(fabs(got->p_top - want.p_top) <= 2e-5 * want.p_top);
                const double pairs[][2] = {{got->kl, want.kl}, {got->kl_reverse, want.kl_reverse}, {got->js, want.js}, {got->tv, want.tv}};
                for (size_t k = 0; k < 4; k++) {
                    if (want.kl < 1e-18) { /* below what two double forwards can tell; 0 by causality is exactly 0 */
                        assert_true(pairs[k][0] >= 0 && pairs[k][0] < 1e-8);
                        continue;
                    }
                    const double error = fabs(pairs[k][0] - pairs[k][1]) / pairs[k][1];
                    if (!(error < cell_limit))
                        fail_msg("%s sample %d [%d, %d] kind %d measure %zu: %g, expected %g", a->family, s, variant->a, variant->b,
                                 m->kind, k, pairs[k][0], pairs[k][1]);
                    assert_true(n_errors < sizeof errors / sizeof errors[0]);
                    errors[n_errors++] = error;
                }
            }
        outcome_free(&o);
        fixture_close(&f);
    }
    assert_true(n_errors > 1000);
    qsort(errors, n_errors, sizeof *errors, by_value);
    print_message("%zu measures: largest relative error %.1e, median %.1e\n", n_errors, errors[n_errors - 1], errors[n_errors / 2]);
    assert_true(errors[n_errors / 2] < median_limit);
}

static void groupings_give_the_same_bits(void **state)
{
    (void)state;
    static const struct {
        int32_t pieces;
        bool together;
    } ways[] = {{1, false}, {3, true}, {7, false}, {1000, true}};
    static const char *const some[] = {"a_qwen2", "c_starcoder2", "i_mistral"};
    for (size_t i = 0; i < 3; i++) {
        fixture f;
        ks_sweep sweeps[8];
        double values[4];
        int32_t heads[1];
        open_on_cpu(&f, some[i], sweeps, random_sweeps(sweeps, values, heads, 4, 4));
        outcome one, other;
        run(&f, 1, true, &one);
        for (size_t w = 0; w < 4; w++) {
            const int32_t n = (int32_t)f.grid->n_variants;
            run(&f, ways[w].pieces < n ? ways[w].pieces : n, ways[w].together, &other);
            for (size_t c = 0; c < SAMPLES * one.n_variants; c++) assert_same_cell(&one, &other, c);
            for (int s = 0; s < SAMPLES; s++) {
                assert_int_equal(other.reported[s], 1);
                assert_true(same_double(one.baselines[s].floor, other.baselines[s].floor));
            }
            assert_memory_equal(one.strength, other.strength, SAMPLES * one.per_sample * sizeof *one.strength);
            outcome_free(&other);
        }
        outcome_free(&one);
        fixture_close(&f);
    }
}

/* With any cells done already, exactly the others are reported, with the bits of a whole sweep. */
static void missing_cells_have_the_same_bits(void **state)
{
    (void)state;
    static const char *const some[] = {"a_qwen2", "c_starcoder2", "i_mistral"};
    for (size_t i = 0; i < 3; i++) {
        fixture f;
        ks_sweep sweeps[8];
        double values[4];
        int32_t heads[1];
        open_on_cpu(&f, some[i], sweeps, random_sweeps(sweeps, values, heads, 4, 4));
        const size_t n = f.grid->n_variants, words = ks_done_words(f.grid);
        uint64_t *done = ks_calloc(SAMPLES * words, sizeof *done);
        uint8_t baseline_done[SAMPLES];
        outcome one, other;
        run(&f, 1, true, &one);
        f.problem.done = done;
        f.problem.baseline_done = baseline_done;
        for (int round = 0; round < 12; round++) {
            const int32_t share = round < 4 ? 0 : draw(100);
            for (size_t s = 0; s < SAMPLES; s++) {
                baseline_done[s] = (uint8_t)draw(2);
                memset(done + s * words, 0, words * sizeof *done);
                for (int32_t v = 0; v < (int32_t)n; v++) {
                    const ks_variant *x = &f.grid->variants[v];
                    /* In the first rounds leaders are done and narrower windows are missing, then the other way round. */
                    const bool leads = v == 0 || x[-1].mask != x->mask || x[-1].a != x->a;
                    if (round < 4 ? leads == (round < 2) : draw(100) < share) ks_set_add(done + s * words, v);
                }
            }
            if (round == 11) memset(done, 0xff, words * sizeof *done); /* a sample of which only the baseline may be missing */
            run_plan(&f, 1 + draw(9), 1 + draw(5), &other);
            for (size_t s = 0; s < SAMPLES; s++) {
                for (int32_t v = 0; v < (int32_t)n; v++) {
                    if (ks_set_has(done + s * words, v)) assert_int_equal(other.times[s * n + (size_t)v], 0);
                    else assert_same_cell(&one, &other, s * n + (size_t)v);
                }
                assert_int_equal(other.reported[s], !baseline_done[s]);
                if (baseline_done[s]) continue;
                assert_true(same_double(one.baselines[s].floor, other.baselines[s].floor));
                assert_true(same_double(one.baselines[s].entropy, other.baselines[s].entropy));
                assert_memory_equal(one.strength + s * one.per_sample, other.strength + s * one.per_sample,
                                    one.per_sample * sizeof *one.strength);
            }
            outcome_free(&other);
        }
        outcome_free(&one);
        free(done);
        fixture_close(&f);
    }
}

static void any_part_of_the_weights_may_be_streamed(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i += 2) {
        fixture f;
        outcome one, other;
        ks_sweep sweeps[8];
        double values[4];
        int32_t heads[1];
        open_on_cpu(&f, models[i], sweeps, random_sweeps(sweeps, values, heads, 4, 4));
        run(&f, 1, true, &one);
        for (int32_t n = 0; n <= f.problem.arch->L; n++) {
            fixture_weights(&f, (ks_streamed){n, n % 2 == 0}, true);
            run(&f, 1 + n % 3, n % 2 == 0, &other);
            for (size_t c = 0; c < SAMPLES * one.n_variants; c++) assert_same_cell(&one, &other, c);
            outcome_free(&other);
        }
        outcome_free(&one);
        fixture_close(&f);
    }
}

/* A scale of 1 removes nothing, and a knockout of a marker without targets before it has nothing to remove: exactly 0. */
static void nothing_removed_is_exactly_zero(void **state)
{
    (void)state;
    const ks_backend *cpu;
    assert_int_equal(ks_backend_find(&cpu, "cpu"), KS_OK);
    assert_nothing_removed_is_zero(cpu, &(ks_device_options){.threads = 2});
}

/* The floor is the effect of rounding the residual stream to bf16. Rounding is not continuous: one value near the middle of two bf16 values
 * that goes one way in fp32 and the other in double changes many roundings behind it. Where that does not happen (more than half of the
 * samples here) the floor is held to 1 %, where it does to a factor of 2. */
static void floor_is_a_rounded_forward(void **state)
{
    (void)state;
    int close = 0;
    for (size_t i = 0; i < MODELS; i++) {
        fixture f;
        ks_sweep sweeps[] = {{.name = "a", .windows = KS_WINDOWS_EACH_LAYER}};
        open_on_cpu(&f, models[i], sweeps, 1);
        outcome o;
        run(&f, 1, true, &o);
        const int32_t V = f.problem.arch->V;
        double *rows = ks_calloc(2 * (size_t)V, sizeof *rows);
        for (int s = 0; s < SAMPLES; s++) {
            const ks_tokens *k = &f.tokens[s];
            assert_int_equal(ks_naive_forward(f.model, k->ids, k->T, NULL, k->T - 1, rows, NULL, NULL), KS_OK);
            ks_naive_round_stream(true);
            assert_int_equal(ks_naive_forward(f.model, k->ids, k->T, NULL, k->T - 1, rows + V, NULL, NULL), KS_OK);
            ks_naive_round_stream(false);
            const double want = ks_naive_kl(rows, rows + V, V), got = o.baselines[s].floor;
            if (!(got < 2 * want && want < 2 * got)) fail_msg("%s sample %d: floor %g, expected %g", models[i], s, got, want);
            close += fabs(got - want) < 0.01 * want;
        }
        free(rows);
        outcome_free(&o);
        fixture_close(&f);
    }
    print_message("%d of %d floors within 1 %%\n", close, (int)(SAMPLES * MODELS));
    assert_true(close >= 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells_are_two_whole_forwards),     cmocka_unit_test(groupings_give_the_same_bits),
        cmocka_unit_test(missing_cells_have_the_same_bits), cmocka_unit_test(nothing_removed_is_exactly_zero),
        cmocka_unit_test(floor_is_a_rounded_forward),       cmocka_unit_test(any_part_of_the_weights_may_be_streamed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
