/* The CUDA backend's host code and kernels without a GPU (gpu_check.h, emulator.h): random sweeps of every golden model beside the CPU
 * backend's, the same bits in any grouping, with any memory for weights and from any source of weights, exact zeros. And the check GPU
 * itself: it finds what it is there to find. */
#include "base/error.h"
#include "base/mem.h"
#include "compute/cuda/cuda.h"
#include "support/sweeps.h"
#include "tests/check/gpu_check.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

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

/* bf16, f32 and f16 weights. */
static const char *const types[] = {"c_starcoder2", "f_llama3", "i_mistral"};

static void any_grouping_gives_the_same_bits(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
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

/* Weights that are uploaded for each use because they may take no room, that give way to arrays, or that are streamed. */
static void any_way_of_weights_gives_the_same_bits(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        fixture f;
        outcome one, other;
        open_on(&f, types[i], 40 + i, &ks_backend_cuda, &(ks_device_options){.threads = 1});
        size_t before = ks_gpu_check_counted().uploaded_bytes;
        run(&f, 1, true, &one);
        const size_t first = ks_gpu_check_counted().uploaded_bytes - before;
        before += first;
        run(&f, 1, true, &other);
        const size_t again = ks_gpu_check_counted().uploaded_bytes - before;
        assert_true(again < first); /* found on the device */
        same_outcome(&one, &other);
        outcome_free(&other);

        ks_weights_close(f.weights);
        f.backend->forget(f.device);
        assert_int_equal(ks_weights_open(&f.weights, f.model, KS_WEIGHTS_STREAMED), KS_OK);
        assert_int_equal(ks_weights_begin(f.weights, 1, NULL), KS_OK);
        run(&f, 1, true, &other);
        ks_weights_end(f.weights);
        same_outcome(&one, &other);
        outcome_free(&other);
        fixture_close(&f);

        open_on(&f, types[i], 40 + i, &ks_backend_cuda, &(ks_device_options){.threads = 1, .weights = 1});
        run(&f, 1, true, &other);
        same_outcome(&one, &other);
        outcome_free(&other);
        fixture_close(&f);
        outcome_free(&one);
    }
}

static void weights_give_way_to_arrays(void **state)
{
    (void)state;
    enum { MEMORY = 64 << 20 };
    ks_device *dev;
    float *big = NULL, *y = NULL, *x = NULL, back[2];
    static float weights[1 << 20];
    ks_tensor w[4];
    ks_gpu_check_memory(MEMORY);
    assert_int_equal(ks_backend_cuda.open(&dev, &(ks_device_options){.threads = 1}), KS_OK);
    assert_int_equal(ks_backend_cuda.alloc(dev, &x, 1 << 19), KS_OK);
    assert_int_equal(ks_backend_cuda.alloc(dev, &y, 8), KS_OK);
    assert_int_equal(ks_backend_cuda.zero(dev, x, 1 << 19), KS_OK);
    for (size_t i = 0; i < 4; i++) {
        w[i] = (ks_tensor){weights + (i << 18), KS_F32, 2, 1 << 17, 1 << 17};
        assert_int_equal(ks_backend_cuda.linear(dev, y, 2, x, 1 << 17, &w[i], NULL, 4, false, KS_GRADE_STATE), KS_OK);
    }
    /* Room for this is only where weights are. */
    const size_t room = MEMORY - (4 << 22) - (1 << 21) - 32;
    assert_int_equal(ks_backend_cuda.alloc(dev, &big, (room - (2 << 20)) / 4), KS_OK);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(ks_backend_cuda.linear(dev, y, 2, x, 1 << 17, &w[i], NULL, 4, false, KS_GRADE_STATE), KS_OK);
    assert_int_equal(ks_backend_cuda.download(dev, back, y, 2), KS_OK);
    assert_true(back[0] == 0 && back[1] == 0);
    float *more;
    assert_int_equal(ks_backend_cuda.alloc(dev, &more, MEMORY / 4), KS_EMACHINE);
    ks_backend_cuda.free(dev, big);
    ks_backend_cuda.free(dev, x);
    ks_backend_cuda.free(dev, y);
    ks_backend_cuda.close(dev);
    ks_gpu_check_memory(0);
}

static void nothing_removed_is_exactly_zero(void **state)
{
    (void)state;
    fixture f;
    outcome o;
    double one = 1;
    ks_sweep sweeps[] = {
        {.name = "a", .windows = KS_WINDOWS_ALL, .kind = KS_SCALE, .values = &one, .n_values = 1, .positions = KS_POSITIONS_ALL}};
    fixture_open(&f, "d_gemma", sweeps, 1, &ks_backend_cuda, &(ks_device_options){.threads = 1});
    run(&f, 1, true, &o);
    for (size_t c = 0; c < SAMPLES * o.n_variants; c++) {
        assert_int_equal(o.cells[c].status, KS_CELL_DONE);
        assert_true(o.cells[c].kl == 0 && o.cells[c].kl_reverse == 0 && o.cells[c].js == 0 && o.cells[c].tv == 0);
        assert_true(o.cells[c].dlogit_top == 0 && o.cells[c].top_changed == 0);
        assert_true(o.cells[c].p_top == o.baselines[c / o.n_variants].top_p[0]);
    }
    outcome_free(&o);
    fixture_close(&f);
}

/* ---- the check GPU finds faults ---- */

static int touch(ks_gpu *g, char *device, char *pinned)
{
    (void)g;
    (void)pinned;
    return *(volatile char *)device;
}

static int change_before_upload_is_over(ks_gpu *g, char *device, char *pinned)
{
    ks_gpu_upload(g, KS_GPU_MAIN, device, pinned, 64);
    pinned[5] ^= 1;
    return ks_gpu_wait(g);
}

static int upload_from_the_stack(ks_gpu *g, char *device, char *pinned)
{
    char mine[64] = {0};
    (void)pinned;
    return ks_gpu_upload(g, KS_GPU_MAIN, device, mine, sizeof mine);
}

static int copy_past_the_end(ks_gpu *g, char *device, char *pinned)
{
    (void)pinned;
    return ks_gpu_zero(g, device, 4097);
}

static int write_past_the_end(ks_gpu *g, char *device, char *pinned)
{
    (void)pinned;
    ks_gpu_stream(g);
    ((volatile char *)device)[4096] = 1;
    return ks_gpu_launched(g, 0, "a kernel");
}

static int leave_memory_behind(ks_gpu *g, char *device, char *pinned)
{
    (void)device;
    (void)pinned;
    ks_gpu_close(g);
    return 0;
}

static void faults_are_found(void **state)
{
    (void)state;
    static const struct {
        int (*fn)(ks_gpu *g, char *device, char *pinned);
        int signal;
    } faults[] = {
        {touch, SIGSEGV},
        {change_before_upload_is_over, SIGABRT},
        {upload_from_the_stack, SIGABRT},
        {copy_past_the_end, SIGABRT},
        {write_past_the_end, SIGSEGV},
        {leave_memory_behind, SIGABRT},
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        const pid_t child = fork();
        if (!child) {
            ks_gpu *g;
            void *device, *pinned;
            signal(SIGSEGV, SIG_DFL);
            signal(SIGABRT, SIG_DFL);
            if (!freopen("/dev/null", "w", stderr)) _exit(1);
            if (ks_gpu_open(&g, 0) || ks_gpu_alloc(g, &device, 4096) || ks_gpu_alloc_host(g, &pinned, 4096)) _exit(1);
            faults[i].fn(g, device, pinned);
            _exit(0);
        }
        int status = 0;
        assert_true(child > 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), faults[i].signal);
    }
}

/* Memory is NaN until something is written, on the device and, before the queue is waited for, on the host. */
static void unwritten_is_nan(void **state)
{
    (void)state;
    ks_gpu *g;
    void *device, *pinned;
    assert_int_equal(ks_gpu_open(&g, 0), KS_OK);
    assert_int_equal(ks_gpu_alloc(g, &device, 1000), KS_OK);
    assert_int_equal(ks_gpu_alloc_host(g, &pinned, 1000), KS_OK);
    const float *x = pinned;
    assert_int_equal(ks_gpu_download(g, pinned, device, 1000), KS_OK);
    assert_int_equal(ks_gpu_wait(g), KS_OK);
    for (int i = 0; i < 250; i++) assert_true(isnan(x[i]));
    assert_int_equal(ks_gpu_zero(g, device, 1000), KS_OK);
    assert_int_equal(ks_gpu_download(g, pinned, device, 1000), KS_OK);
    assert_true(isnan(x[0]));
    assert_int_equal(ks_gpu_mark(g, KS_GPU_MAIN, 0), KS_OK);
    assert_int_equal(ks_gpu_reach(g, 0), KS_OK);
    for (int i = 0; i < 250; i++) assert_true(x[i] == 0);
    ks_gpu_free(g, device);
    ks_gpu_free_host(g, pinned);
    ks_gpu_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_are_found),
        cmocka_unit_test(unwritten_is_nan),
        cmocka_unit_test(weights_give_way_to_arrays),
        cmocka_unit_test(nothing_removed_is_exactly_zero),
        cmocka_unit_test(any_grouping_gives_the_same_bits),
        cmocka_unit_test(any_way_of_weights_gives_the_same_bits),
        cmocka_unit_test(cells_are_the_cpus),
    };
    if (ks_backend_find(&cpu, "cpu")) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
