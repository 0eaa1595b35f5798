/* The model of cost (docs/costs.md): its limits, an example computed by hand, and that it counts the rows that the plan counts. */
#include "base/error.h"
#include "base/mem.h"
#include "input/config.h"
#include "plan/costs.h"

#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { L = 28, SAMPLES = 3, SMALL_L = 6 };

static int32_t no_window[L];

/* Qwen2.5-Coder-7B. */
static ks_arch big_arch(void)
{
    return (ks_arch){.L = L,
                     .D = 3584,
                     .H = 28,
                     .G = 4,
                     .E = 128,
                     .F = 18944,
                     .V = 152064,
                     .gated = true,
                     .qkv_bias = true,
                     .window = no_window,
                     .rope.dim = 128,
                     .dtype = KS_BF16};
}

static const ks_gpu_facts *gpu(const char *name)
{
    const ks_gpu_facts *g = NULL;
    assert_int_equal(ks_gpu_find(&g, name), KS_OK);
    return g;
}

static void close_to(double x, double expected, double tolerance)
{
    if (!(fabs(x - expected) <= tolerance * fabs(expected))) fail_msg("%.9g, expected %.9g", x, expected);
}

/* A pass of `rows` effect rows in every layer and nothing else, 2000 at a time. */
static ks_cost effects(const ks_cost_model *m, double rows)
{
    ks_cost c = {0};
    ks_pass_work *w;
    assert_int_equal(ks_pass_work_new(&w, m->arch), KS_OK);
    w->size.chunk_rows = 2000;
    for (int32_t l = 0; l < m->arch->L; l++) w->effects[l] = (ks_layer_rows){.branches = rows / 40, .in = rows, .q = rows, .out = rows};
    ks_cost_pass(&c, m, w, false);
    ks_pass_work_free(w);
    return c;
}

static void sums_hold(const ks_cost *c)
{
    double parts = 0, bounds = 0;
    for (int i = 0; i < KS_COST_PARTS; i++) {
        assert_true(c->part[i] >= 0);
        parts += c->part[i];
    }
    for (int i = 0; i < KS_COST_BOUNDS; i++) bounds += c->bound[i];
    close_to(parts, c->seconds, 1e-12);
    close_to(bounds, c->seconds, 1e-12);
    assert_null(ks_cost_parts[KS_COST_PARTS]);
    assert_null(ks_cost_bounds[KS_COST_BOUNDS]);
}

static void table_is_whole(void **state)
{
    (void)state;
    for (const ks_gpu_facts *g = ks_gpus; g->name; g++) {
        if (g > ks_gpus) assert_true(strcmp(g[-1].name, g->name) < 0);
        assert_true(g->bf16 > g->fp32 && g->fp32 > g->fp64 && g->fp64 > 1e11);
        assert_true(g->bandwidth > g->host && g->host >= 32e9 && g->interconnect >= 0 && g->memory >= 24000000000);
        assert_ptr_equal(gpu(g->name), g);
        char upper[32] = "";
        for (size_t i = 0; g->name[i]; i++) upper[i] = (char)toupper(g->name[i]);
        assert_ptr_equal(gpu(upper), g);
    }
    close_to(gpu("h200")->bandwidth, 4.8e12, 0);
    const ks_gpu_facts *g;
    static const char *const wrong[] = {"", "h20", "h2000", "h100 ", "%s%n", "../../etc/passwd"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(ks_gpu_find(&g, wrong[i]), KS_EUSAGE);
        for (const ks_gpu_facts *k = ks_gpus; k->name; k++) assert_non_null(strstr(ks_error_text(), k->name));
    }
}

/* 1e5 rows a layer: 2 x 1e5 x 233,046,016 x 28 = 1.305e15 FLOPs a product, about those of the 406 windows of 20 samples. */
static void an_example_by_hand(void **state)
{
    (void)state;
    const ks_arch a = big_arch();
    ks_cost_model m = {gpu("h200"), &a, KS_PRECISION_FULL, KS_ALL_RESIDENT};
    const double flops = 1.3050576896e15;
    ks_cost c = effects(&m, 1e5);
    sums_hold(&c);
    close_to(c.products, 2 * flops, 1e-12);
    /* At 989e12 x 0.70, two products: 3.770 s. No product of so many rows waits for memory. */
    close_to(c.part[KS_COST_PRODUCTS], 2 * flops / 692.3e12, 1e-9);
    close_to(c.part[KS_COST_PRODUCTS], 3.7702, 1e-4);
    /* Bytes of a row, operands of 2 x 2 bytes: norms 2 D (8 + 4), rotation 8 (KV + Q), sums 24 D, activation F (16 + 4): 583,680; at
     * 4.8e12 x 0.80 bytes/s. */
    close_to(c.part[KS_COST_ELEMENTWISE], 583680.0 * 1e5 * 28 / 3.84e12, 1e-9);
    assert_true(c.seconds > 3.7 && c.seconds < 6);
    m.precision = KS_PRECISION_FAST;
    c = effects(&m, 1e5);
    close_to(c.part[KS_COST_PRODUCTS], 1.8851, 1e-4);
    close_to(c.part[KS_COST_ELEMENTWISE], (583680.0 - 2 * 2 * 3584 - 2 * 18944) * 1e5 * 28 / 3.84e12, 1e-9);
    assert_true(c.seconds > 1.88 && c.seconds < 3.5);
}

static void limits_hold(void **state)
{
    (void)state;
    ks_arch a = big_arch();
    for (const ks_gpu_facts *g = ks_gpus; g->name; g++) {
        ks_cost_model m = {g, &a, KS_PRECISION_FULL, KS_ALL_RESIDENT};
        const ks_cost one = effects(&m, 2e5), two = effects(&m, 4e5);
        assert_true(one.bound[KS_BY_ARITHMETIC] > 0.5 * one.seconds);
        close_to(two.seconds, 2 * one.seconds, 1e-9);
        /* Few rows wait for the weights, whatever their number. */
        const ks_cost few = effects(&m, 1), some = effects(&m, 2);
        assert_true(few.part[KS_COST_PRODUCTS] > 0 && some.part[KS_COST_PRODUCTS] < 1.01 * few.part[KS_COST_PRODUCTS]);
        m.precision = KS_PRECISION_FAST;
        const ks_cost fast = effects(&m, 2e5);
        assert_true(fast.seconds < one.seconds && 2 * fast.seconds > one.seconds);
        close_to(ks_cost_peak(&m), g->bf16, 0);

        /* Plain fp32 products: no parts, no difference. */
        a.dtype = KS_F32;
        const ks_cost f32 = effects(&m, 2e5);
        m.precision = KS_PRECISION_FULL;
        close_to(effects(&m, 2e5).seconds, f32.seconds, 0);
        close_to(f32.part[KS_COST_PRODUCTS], one.products / 2 / (0.70 * g->fp32), 1e-9);
        a.dtype = KS_BF16;
    }
}

static void copies_hide_behind_computing(void **state)
{
    (void)state;
    const ks_arch a = big_arch();
    ks_cost_model m = {gpu("h100"), &a, KS_PRECISION_FULL, KS_ALL_RESIDENT};
    const double layer = 2 * 233046016.0, head = 2 * 3584.0 * 152064, link = 0.80 * 64e9;
    for (double rows = 1; rows < 1e6; rows *= 10) {
        m.streamed = KS_ALL_RESIDENT;
        const ks_cost resident = effects(&m, rows);
        m.streamed = KS_ALL_STREAMED;
        const ks_cost streamed = effects(&m, rows);
        sums_hold(&streamed);
        close_to(streamed.copied, L * layer + head, 1e-12);
        close_to(resident.copied + 1, 1, 0);
        /* All layers alike: the longer of the two, and the head's copy, beside which nothing is computed here. */
        close_to(streamed.seconds, fmax(resident.seconds, L * layer / link) + head / link, 1e-9);
        /* Every other layer: each copy has the time of two. */
        m.streamed = (ks_streamed){L / 2, false};
        const ks_cost half = effects(&m, rows);
        close_to(half.copied, L / 2 * layer, 1e-12);
        close_to(half.seconds, fmax(resident.seconds, L / 2 * layer / link), 1e-9);
    }
}

typedef struct fixture {
    int32_t window[SMALL_L];
    ks_arch arch;
    ks_grid *grid;
    ks_geometry *geometry[SAMPLES];
    char *names[SAMPLES];
    ks_problem problem;
} fixture;

static void open_fixture(fixture *f, int windows, int positions)
{
    static char sweep_name[] = "s", sample[] = "sample";
    *f = (fixture){.window = {0, 0, 12, 12, 0, 0}};
    f->arch = (ks_arch){
        .L = SMALL_L, .D = 512, .H = 8, .G = 2, .E = 64, .F = 2048, .V = 5000, .gated = true, .window = f->window, .dtype = KS_BF16};
    ks_sweep sweep = {.name = sweep_name, .windows = windows, .positions = positions};
    assert_int_equal(ks_grid_new(&f->grid, &sweep, 1, SMALL_L, f->arch.H), KS_OK);
    for (int32_t i = 0; i < SAMPLES; i++) {
        const int32_t T = 30 + 17 * i;
        uint8_t marker[80] = {0}, target[80] = {0};
        marker[T / 2] = target[3] = target[T / 3] = 1;
        assert_int_equal(ks_geometry_new(&f->geometry[i], &f->arch, T, marker, target), KS_OK);
        f->names[i] = sample;
    }
    f->problem =
        (ks_problem){.arch = &f->arch, .grid = f->grid, .geometry = f->geometry, .n_samples = SAMPLES, .floor = true, .names = f->names};
}

static void close_fixture(fixture *f)
{
    for (int i = 0; i < SAMPLES; i++) ks_geometry_free(f->geometry[i]);
    ks_grid_free(f->grid);
}

/* FLOPs by the rows of a pass are those of the plan. */
static void rows_are_the_plans(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        fixture f;
        ks_plan *p;
        ks_pass_work *w;
        open_fixture(&f, k % 2 ? KS_WINDOWS_ALL : KS_WINDOWS_EACH_LAYER, k / 2 ? KS_POSITIONS_ALL : KS_POSITIONS_LAST);
        assert_int_equal(ks_plan_new(&p, &f.problem, 1, INT64_MAX), KS_OK);
        assert_int_equal(ks_pass_work_new(&w, &f.arch), KS_OK);
        for (size_t u = 0; u < p->n_units; u++) assert_int_equal(ks_pass_work_add(w, &f.problem, &p->units[u]), KS_OK);
        const double D = 512, Q = 512, KV = 128, F = 2048;
        double flops = 2 * D * 5000 * (double)(w->size.base_rows + w->size.measured_rows), copied = 0;
        for (int32_t l = 0; l < SMALL_L; l++)
            for (int e = 0; e < 2; e++) {
                const ks_layer_rows *r = e ? &w->effects[l] : &w->trunk[l];
                flops += 2 * D * (2 * KV * r->in + Q * r->q) + 2 * Q * r->pairs + (2 * D * Q + 6 * D * F) * r->out;
                copied += r->copied;
                assert_true(r->q <= r->in && (!e || r->q <= r->out) && r->visible >= r->out);
            }
        close_to(flops, p->flops, 1e-12);
        assert_true(k % 2 ? copied > 0 : copied == 0);
        assert_true(w->size.strengths == SAMPLES);
        ks_pass_work_clear(w, &f.arch);
        assert_true(w->size.trunk_rows == 0 && w->effects[0].in == 0 && w->trunk[SMALL_L - 1].out == 0);
        ks_pass_work_free(w);
        ks_plan_free(p);
        close_fixture(&f);
    }
}

static void a_sweep_is_acted_out(void **state)
{
    (void)state;
    fixture f;
    const ks_service service = {.root_pass = 5e-5, .root_cell = 1e-6, .reply = 2e-3, .max_seconds = 20};
    open_fixture(&f, KS_WINDOWS_ALL, KS_POSITIONS_LAST);
    const ks_cost_model m = {gpu("l4"), &f.arch, KS_PRECISION_FULL, KS_ALL_RESIDENT};
    double alone = 0;
    for (int ranks = 1; ranks <= 3; ranks++)
        for (int tight = 0; tight < 2; tight++) {
            ks_plan *p;
            ks_gpu_forecast *g;
            const int64_t budget = tight ? 14 << 20 : INT64_MAX;
            assert_int_equal(ks_plan_new(&p, &f.problem, ranks, budget), KS_OK);
            assert_int_equal(ks_gpu_forecast_new(&g, &m, &f.problem, p->units, p->n_units, budget, ranks, &service), KS_OK);
            sums_hold(&g->all);
            assert_true(g->forecast->peak_bytes <= budget);
            assert_true(g->busiest * ranks >= g->all.seconds * (1 - 1e-12) && g->longest.seconds <= g->busiest);
            assert_true(g->forecast->seconds >= g->busiest && g->forecast->seconds < g->busiest + 0.05);
            double copies = 0; /* resident weights are copied to each GPU that has work, once */
            for (int r = 0; r < ranks; r++) copies += g->forecast->passes[r] > 0;
            close_to(g->all.copied, copies * 2 * (SMALL_L * (2.0 * 512 * (512 + 128) + 3.0 * 512 * 2048) + 512.0 * 5000), 1e-12);
            if (ranks == 1 && !tight) alone = g->all.seconds;
            if (ranks == 1 && tight) assert_true(ks_forecast_passes(g->forecast) > 1 && g->all.seconds > alone);
            ks_gpu_forecast_free(g);
            ks_plan_free(p);
        }
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_whole),     cmocka_unit_test(an_example_by_hand),
        cmocka_unit_test(limits_hold),        cmocka_unit_test(copies_hide_behind_computing),
        cmocka_unit_test(rows_are_the_plans), cmocka_unit_test(a_sweep_is_acted_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
