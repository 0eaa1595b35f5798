/* The CUDA backend's host code and kernels, on the check GPU and on a real one: random sweeps of every golden model beside the CPU
 * backend's, the same bits in any grouping, from any source of weights, exact zeros. */
#include "base/error.h"
#include "base/mem.h"
#include "check/device.h"
#include "compute/cuda/cuda.h"
#include "support/sweeps.h"

#include <math.h>
#include <stdio.h>

/* Relative differences between two backends: fast rounds operands to 8 bits, and not always the same way in both. */
static const struct {
    int precision;
    double cell, median;
} limits[] = {{KS_PRECISION_FULL, 1e-3, 1e-5}, {KS_PRECISION_FAST, 1e-1, 1e-3}};

static const ks_backend *cpu;

static int by_value(const void *x, const void *y)
{
    const double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* 0 where both are 0 or both NaN, infinite where one is. */
static double difference(double got, double want)
{
    if (got == want || (isnan(got) && isnan(want))) return 0;
    if (want == 0 || isnan(got) || isnan(want)) return INFINITY;
    return fabs(got - want) / fabs(want);
}

/* Sweeps and samples by a seed: the same on every backend. */
static void open_on(fixture *f, const char *name, uint32_t seed, const ks_backend *backend, const ks_device_options *options)
{
    static ks_sweep sweeps[8];
    static double values[4];
    static int32_t heads[1];
    draw_seed(seed);
    const size_t n = random_sweeps(sweeps, values, heads, 4, 4);
    fixture_open(f, name, sweeps, n, backend, options);
}

static void compare(const char *name, const fixture *f, const outcome *got, const outcome *want, double limit, double *errors, size_t *n)
{
    for (size_t c = 0; c < SAMPLES * want->n_variants; c++) {
        const ks_cell *x = &got->cells[c], *y = &want->cells[c];
        assert_int_equal(got->times[c], 1);
        assert_int_equal(x->status, y->status);
        if (f->precision == KS_PRECISION_FULL) assert_int_equal(x->top_changed, y->top_changed);
        const double pairs[][2] = {
            {x->kl, y->kl}, {x->kl_reverse, y->kl_reverse}, {x->js, y->js}, {x->tv, y->tv}, {1 - x->p_top, 1 - y->p_top}};
        for (size_t k = 0; k < 5; k++) {
            const double error = difference(pairs[k][0], pairs[k][1]);
            if (y->kl > 0 && y->kl < 1e-18) continue; /* below what a cell promises */
            if (!(error < limit)) fail_msg("%s cell %zu measure %zu: %g, on the CPU %g", name, c, k, pairs[k][0], pairs[k][1]);
            if (y->kl > 0) errors[(*n)++] = error;
        }
        for (size_t t = 0; t < MAX_T; t++) {
            const double kl = want->kl_positions[c * MAX_T + t];
            if (!(kl > 0 && kl < 1e-18)) assert_true(difference(got->kl_positions[c * MAX_T + t], kl) < limit);
        }
    }
    for (int s = 0; s < SAMPLES; s++) {
        assert_true(difference(got->baselines[s].entropy, want->baselines[s].entropy) < 1e-5);
        assert_true(difference(got->baselines[s].top_p[0], want->baselines[s].top_p[0]) < 1e-5);
        assert_true(difference(got->baselines[s].floor, want->baselines[s].floor) <
                    1); /* roundings that go the other way: see test_engine.c */
    }
    for (size_t i = 0; i < SAMPLES * want->per_sample; i++) assert_true(difference(got->strength[i], want->strength[i]) < 1e-4);
}

static void cells_are_the_cpus(void **state)
{
    (void)state;
    static double errors[40000];
    for (size_t k = 0; k < 2; k++) {
        size_t n = 0;
        for (uint32_t i = 0; i < MODELS; i += k ? 3 : 1) { /* fast: those, of bf16 */
            fixture f, g;
            outcome got, want;
            open_on(&f, models[i], 20 + i, cpu, &(ks_device_options){.threads = 1});
            open_on(&g, models[i], 20 + i, &ks_backend_cuda, &(ks_device_options){.threads = 1});
            f.precision = g.precision = limits[k].precision;
            run(&f, 1, true, &want);
            run(&g, 1, true, &got);
            compare(models[i], &g, &got, &want, limits[k].cell, errors, &n);
            outcome_free(&got);
            outcome_free(&want);
            fixture_close(&f);
            fixture_close(&g);
        }
        assert_true(n > 500 && n < sizeof errors / sizeof *errors);
        qsort(errors, n, sizeof *errors, by_value);
        print_message("%s: %zu measures: largest relative difference %.1e, median %.1e\n", k ? "fast" : "full", n, errors[n - 1],
                      errors[n / 2]);
        assert_true(errors[n / 2] < limits[k].median);
    }
}

static void same_outcome(const outcome *one, const outcome *other)
{
    for (size_t c = 0; c < SAMPLES * one->n_variants; c++) assert_same_cell(one, other, c);
    for (int s = 0; s < SAMPLES; s++) assert_true(same_double(one->baselines[s].floor, other->baselines[s].floor));
    assert_memory_equal(one->strength, other->strength, SAMPLES * one->per_sample * sizeof *one->strength);
}

/* bf16, f32 and f16 weights. The sanitizers slow fibers down several times: there the last test alone covers all of them. */
static const char *const types[] = {"c_starcoder2", "f_llama3", "i_mistral"};
#ifdef __SANITIZE_ADDRESS__
enum { TYPES = 1 };
#else
enum { TYPES = 3 };
#endif

static void any_grouping_gives_the_same_bits(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < TYPES; i++) {
        fixture f;
        outcome one, other;
        open_on(&f, types[i], 40 + i, &ks_backend_cuda, &(ks_device_options){.threads = 1});
        run(&f, 1, true, &one);
        run(&f, 1, false, &other);
        same_outcome(&one, &other);
        outcome_free(&other);
        run(&f, 5, true, &other);
        same_outcome(&one, &other);
        outcome_free(&other);
        outcome_free(&one);
        fixture_close(&f);
    }
}

static const ks_streamed choices[] = {{3, false}, {INT32_MAX, false}, {1, true}, {0, true}, {INT32_MAX, true}, {2, false}};

/* Weights that stay on the device, or come with every pass: some layers or all, the head or not, from pinned memory or not, one pass or
 * several. */
static void any_way_of_weights_gives_the_same_bits(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < TYPES; i++) {
        fixture f;
        outcome one, other;
        open_on(&f, types[i], 40 + i, &ks_backend_cuda, &(ks_device_options){.threads = 1});
        run(&f, 1, true, &one);
        const int64_t weights = ks_weights_bytes_read(f.weights);
        run(&f, 1, true, &other); /* weights are on the device */
        assert_true(weights > 0 && ks_weights_bytes_read(f.weights) == weights);
        same_outcome(&one, &other);
        outcome_free(&other);

        for (size_t k = i % 2; k < sizeof choices / sizeof *choices; k += 2) {
            fixture_weights(&f, choices[k], i != 2);
            const bool all = choices[k].layers > f.problem.arch->L && choices[k].head;
            int64_t read[2];
            for (int pass = 0; pass < 2; pass++) {
                run(&f, 1, !pass || all, &other);
                same_outcome(&one, &other);
                outcome_free(&other);
                read[pass] = ks_weights_bytes_read(f.weights);
            }
            /* What stays was read once, what is streamed is read in each pass; two items would still be in their buffers. */
            if (all) assert_true(read[1] == 2 * read[0]);
            else if (choices[k].layers > 2) assert_true(read[1] > read[0] && read[1] < 3 * read[0]);
        }
        fixture_close(&f);
        outcome_free(&one);
    }
}

static void nothing_removed_is_exactly_zero(void **state)
{
    (void)state;
    assert_nothing_removed_is_zero(&ks_backend_cuda, &(ks_device_options){.threads = 1});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_removed_is_exactly_zero),
        cmocka_unit_test(any_grouping_gives_the_same_bits),
        cmocka_unit_test(any_way_of_weights_gives_the_same_bits),
        cmocka_unit_test(cells_are_the_cpus),
    };
    if (ks_backend_find(&cpu, "cpu")) return 1;
    return device_run_tests(tests);
}
