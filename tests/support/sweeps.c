#include "support/sweeps.h"

#include "base/error.h"
#include "base/mem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint32_t seed = 7;
void draw_seed(uint32_t value)
{
    seed = value;
}

int32_t draw(int32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (int32_t)((seed >> 8) % (uint32_t)n);
}

static int on_baseline(void *ctx, int32_t sample, const ks_baseline *b, const float *logits, const double *strength, double uniform)
{
    (void)logits;
    (void)uniform;
    outcome *o = ctx;
    o->baselines[sample] = *b;
    o->reported[sample]++;
    memcpy(o->strength + (size_t)sample * o->per_sample, strength, o->per_sample * sizeof *strength);
    return KS_OK;
}

static int on_cell(void *ctx, int32_t sample, int32_t variant, const ks_cell *c, const ks_position_cell *positions)
{
    outcome *o = ctx;
    const size_t at = (size_t)sample * o->n_variants + (size_t)variant;
    o->cells[at] = *c;
    o->times[at]++;
    for (size_t t = 0; positions && t < (size_t)o->T[sample]; t++) o->kl_positions[at * MAX_T + t] = positions[t].kl;
    return KS_OK;
}

void fixture_open(fixture *f, const char *name, ks_sweep *sweeps, size_t n_sweeps, const ks_backend *backend,
                  const ks_device_options *options)
{
    *f = (fixture){.backend = backend};
    char *path = ks_format("goldens/models/%s", name);
    assert_int_equal(ks_model_open(&f->model, path), KS_OK);
    free(path);
    assert_int_equal(ks_weights_open(&f->weights, f->model, KS_ALL_RESIDENT), KS_OK);
    assert_int_equal(backend->open(&f->device, options), KS_OK);
    const ks_arch *a = ks_model_arch(f->model);
    assert_int_equal(ks_grid_new(&f->grid, sweeps, n_sweeps, a->L, a->H), KS_OK);
    for (int s = 0; s < SAMPLES; s++) {
        ks_tokens *k = &f->tokens[s];
        k->T = 12 + draw(MAX_T - 12 + 1);
        k->ids = ks_calloc((size_t)k->T, sizeof *k->ids);
        k->marker = ks_calloc(MAX_T, 1);
        k->target = ks_calloc(MAX_T, 1);
        for (int32_t t = 0; t < k->T; t++) k->ids[t] = draw(a->V);
        const int32_t m = 4 + draw(k->T - 6);
        k->marker[m] = k->marker[m + draw(2)] = 1;
        for (int i = 0; i < 4; i++) k->target[draw(m)] = 1;
        assert_int_equal(ks_geometry_new(&f->geometry[s], a, k->T, k->marker, k->target), KS_OK);
    }
    f->problem = (ks_problem){.arch = a, .grid = f->grid, .geometry = f->geometry, .n_samples = SAMPLES, .floor = true};
}

void fixture_weights(fixture *f, ks_streamed streamed, bool pin)
{
    size_t bytes;
    if (f->backend->forget) f->backend->forget(f->device);
    ks_weights_close(f->weights);
    assert_int_equal(ks_weights_open(&f->weights, f->model, streamed), KS_OK);
    void *buffers = ks_weights_buffers(f->weights, &bytes);
    assert_true(!buffers == !ks_weights_any(streamed));
    if (pin && buffers && f->backend->pin) assert_int_equal(f->backend->pin(f->device, buffers, bytes), KS_OK);
}

void fixture_close(fixture *f)
{
    for (int s = 0; s < SAMPLES; s++) {
        free(f->tokens[s].ids);
        free(f->tokens[s].marker);
        free(f->tokens[s].target);
        ks_geometry_free(f->geometry[s]);
    }
    ks_grid_free(f->grid);
    f->backend->close(f->device);
    ks_weights_close(f->weights);
    ks_model_close(f->model);
}

static void outcome_new(const fixture *f, outcome *o)
{
    const size_t n = f->grid->n_variants;
    *o = (outcome){.n_variants = n, .per_sample = (size_t)f->problem.arch->L * (size_t)f->problem.arch->H};
    o->cells = ks_calloc(SAMPLES * n, sizeof *o->cells);
    o->kl_positions = ks_calloc(SAMPLES * n * MAX_T, sizeof *o->kl_positions);
    o->strength = ks_calloc(SAMPLES * o->per_sample, sizeof *o->strength);
    o->times = ks_calloc(SAMPLES * n, sizeof *o->times);
    for (size_t i = 0; i < SAMPLES * n * MAX_T; i++) o->kl_positions[i] = -1;
    for (int s = 0; s < SAMPLES; s++) o->T[s] = f->tokens[s].T;
}

static void run_pass(const fixture *f, const ks_unit *units, size_t n, outcome *o)
{
    const ks_job job = {f->backend, f->device, f->model, f->weights, {0, 0}, &f->problem, f->tokens, f->precision, false};
    const ks_sink sink = {o, on_baseline, on_cell, NULL};
    assert_int_equal(ks_weights_begin(f->weights, 0, NULL), KS_OK);
    if (ks_engine_pass(&job, units, n, &sink)) fail_msg("%s", ks_error_text());
    ks_weights_end(f->weights);
}

void run(const fixture *f, int32_t pieces, bool together, outcome *o)
{
    const int32_t n = (int32_t)f->grid->n_variants;
    outcome_new(f, o);
    ks_unit *units = ks_calloc((size_t)(SAMPLES * pieces), sizeof *units);
    size_t n_units = 0;
    for (int32_t s = 0; s < SAMPLES; s++)
        for (int32_t i = 0; i < pieces; i++)
            units[n_units++] = (ks_unit){.sample = s, .v0 = n * i / pieces, .v1 = n * (i + 1) / pieces, .first = i == 0};
    for (size_t i = 0; i < n_units; i++) assert_int_equal(ks_unit_measure(&f->problem, &units[i]), KS_OK);
    const size_t step = together ? n_units : 1;
    for (size_t i = 0; i < n_units; i += step) run_pass(f, units + i, step, o);
    free(units);
}

void run_plan(const fixture *f, int ranks, int parts, outcome *o)
{
    ks_plan *p;
    ks_queue *q;
    outcome_new(f, o);
    assert_int_equal(ks_plan_new(&p, &f->problem, ranks, (int64_t)1 << 40), KS_OK);
    assert_int_equal(ks_queue_new(&q, &f->problem, p->units, p->n_units, (int64_t)1 << 40), KS_OK);
    int32_t *index = ks_calloc(p->n_units, sizeof *index);
    ks_unit *pass = ks_calloc(p->n_units, sizeof *pass);
    for (size_t n; (n = ks_queue_take(q, p->flops / parts, index));) {
        for (size_t i = 0; i < n; i++) pass[i] = p->units[index[i]];
        run_pass(f, pass, n, o);
    }
    free(index);
    free(pass);
    ks_queue_free(q);
    ks_plan_free(p);
}

void outcome_free(outcome *o)
{
    free(o->cells);
    free(o->kl_positions);
    free(o->strength);
    free(o->times);
}

const char *const models[MODELS] = {"a_qwen2",  "b_qwen2_tied", "c_starcoder2",    "d_gemma",  "e_llama",
                                    "f_llama3", "g_phi3",       "h_phi3_longrope", "i_mistral"};

static char names[8][2] = {"a", "b", "c", "d", "e", "f", "g", "h"};

size_t random_sweeps(ks_sweep *s, double *values, int32_t *heads, int32_t L, int32_t H)
{
    static ks_window windows[3];
    for (int i = 0; i < 3; i++) {
        windows[i].a = draw(L);
        windows[i].b = windows[i].a + draw(L - windows[i].a);
    }
    values[0] = 0.5;
    values[1] = 3;
    values[2] = 0.125;
    heads[0] = draw(H);
    size_t n = 0;
    s[n] = (ks_sweep){.name = names[n], .windows = KS_WINDOWS_ALL};
    s[++n] = (ks_sweep){.name = names[n],
                        .windows = KS_WINDOWS_LIST,
                        .list = windows,
                        .n_list = 3,
                        .edges = KS_EDGES_ALL_MARKER,
                        .positions = KS_POSITIONS_ALL};
    s[++n] =
        (ks_sweep){.name = names[n], .windows = KS_WINDOWS_EACH_LAYER, .kind = KS_SCALE, .values = values, .n_values = 2, .edges = draw(2)};
    s[++n] = (ks_sweep){.name = names[n],
                        .windows = KS_WINDOWS_LIST,
                        .list = windows,
                        .n_list = 3,
                        .kind = KS_SET,
                        .values = values + 2,
                        .n_values = 1,
                        .heads = KS_HEADS_LIST,
                        .head_list = heads,
                        .n_heads = 1};
    s[++n] = (ks_sweep){.name = names[n], .windows = KS_WINDOWS_SLIDE, .slide = 2, .heads = KS_HEADS_EACH};
    return n + 1;
}

bool same_double(double x, double y)
{
    return memcmp(&x, &y, sizeof x) == 0 || (isnan(x) && isnan(y));
}

void assert_same_cell(const outcome *one, const outcome *other, size_t c)
{
    const ks_cell *x = &one->cells[c], *y = &other->cells[c];
    assert_int_equal(other->times[c], 1);
    assert_int_equal(x->status, y->status);
    assert_true(same_double(x->kl, y->kl) && same_double(x->kl_reverse, y->kl_reverse) && same_double(x->js, y->js));
    assert_true(same_double(x->tv, y->tv) && same_double(x->p_top, y->p_top) && same_double(x->dlogit_top, y->dlogit_top));
    assert_memory_equal(x->top_ids, y->top_ids, sizeof x->top_ids);
    for (size_t t = 0; t < MAX_T; t++) assert_true(same_double(one->kl_positions[c * MAX_T + t], other->kl_positions[c * MAX_T + t]));
}

void assert_nothing_removed_is_zero(const ks_backend *backend, const ks_device_options *options)
{
    fixture f;
    outcome o;
    double one = 1;
    ks_sweep sweeps[] = {
        {.name = "a", .windows = KS_WINDOWS_ALL, .kind = KS_SCALE, .values = &one, .n_values = 1, .positions = KS_POSITIONS_ALL}};
    fixture_open(&f, "d_gemma", sweeps, 1, backend, options);
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
