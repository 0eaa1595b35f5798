/* Resume: what is finished in a former file comes through bit for bit and serves whatever asks for the same cells; what would change or
 * lose a result is refused; damage is an error. The oracle is a function from a cell's meaning (sample, mask, window) to its numbers. */
#define _GNU_SOURCE
#include "support/results_file.h"
#include "support/scratch.h"

#include "analysis/reader.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "sweep/resume.h"

#include <hdf5.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* HDF5 loses memory where it meets damage; that is not ours to mend. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5";
}

static char dir[SCRATCH_PATH], path[SCRATCH_PATH + 8], other[SCRATCH_PATH + 8];

static int setup(void **state)
{
    (void)state;
    scratch_make(dir);
    snprintf(path, sizeof path, "%s/r.h5", dir);
    snprintf(other, sizeof other, "%s/o.h5", dir);
    ks_log_set_level(KS_LOG_WARN);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(dir);
    return 0;
}

/* ---- a problem: configuration, samples, grid ---- */

#define MODELS "\"models\": [{\"name\": \"tiny\", \"path\": \"x\"}]"
#define LAYERS "{\"name\": \"layers\", \"windows\": \"each-layer\"}"
#define TRIANGLE "{\"name\": \"triangle\", \"windows\": \"all\"}"
#define HEADS "{\"name\": \"heads\", \"windows\": [[0, 1], [2, 2]], \"heads\": \"each\"}"
#define PAIR "{\"name\": \"pair\", \"edges\": \"all-marker\", \"windows\": [[1, 2]], \"heads\": [0, 2]}"
#define DOSE "{\"name\": \"dose\", \"windows\": [[2, 2], [0, 3]], \"kind\": \"scale\", \"values\": [0, 0.5, 2], \"positions\": \"all\"}"
#define EVERY                                                                                                              \
    "{\"name\": \"every\", \"windows\": [[1, 3], [0, 0]], \"kind\": \"set\", \"values\": [0.25, 1], \"heads\": \"each\", " \
    "\"positions\": \"all\"}"
#define ALL_SWEEPS LAYERS ", " TRIANGLE ", " HEADS ", " PAIR ", " DOSE ", " EVERY
#define CONFIG(sweeps) "{" MODELS ", \"save_logits\": true, \"sweeps\": [" sweeps "]}"

typedef struct world {
    ks_config *cfg;
    ks_samples samples; /* borrows rf_samples' arrays */
    ks_grid *grid;
    ks_model_info info;
    size_t *sweeps; /* [n_sweeps] indices in a writer */
} world;

static world world_new(const char *config, size_t first, size_t n)
{
    world w = {.info = rf_info()};
    scratch_text(dir, "c.json", config);
    if (ks_config_load(&w.cfg, scratch_path(dir, "c.json"))) fail_msg("%s", ks_error_text());
    w.info.save_logits = w.cfg->save_logits;
    assert_int_equal(ks_grid_new(&w.grid, w.cfg->sweeps, w.cfg->n_sweeps, RF_L, RF_H), 0);
    w.samples.v = calloc(n, sizeof *w.samples.v);
    w.sweeps = calloc(w.cfg->n_sweeps, sizeof *w.sweeps);
    assert_true(w.samples.v && w.sweeps);
    w.samples.n = n;
    for (size_t s = 0; s < n; s++) w.samples.v[s] = rf_samples()->v[(first + s) % RF_S];
    return w;
}

static void world_free(world *w)
{
    ks_config_free(w->cfg);
    ks_grid_free(w->grid);
    free(w->samples.v);
    free(w->sweeps);
}

/* ---- the oracle ---- */

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9E3779B97F4A7C15U;
    return h ^ h >> 29;
}

static uint64_t text_hash(const char *s)
{
    uint64_t h = 1;
    for (; *s; s++) h = mix(h, (unsigned char)*s);
    return h;
}

/* A number from 1e-300 to 1, every bit of it in use. */
static double number(uint64_t h, int n)
{
    h = mix(mix(h, 77), (uint64_t)n);
    return ldexp(1 + (double)(h >> 12) * 0x1p-52, -(int)(h % 997));
}

static uint64_t meaning(const world *w, size_t v, size_t s)
{
    const ks_variant *p = &w->grid->variants[v];
    const ks_mask *m = &w->grid->masks[p->mask];
    uint64_t bits;
    memcpy(&bits, &m->value, sizeof bits);
    uint64_t h =
        mix(mix(mix(mix(mix(text_hash(w->samples.v[s].id), (uint64_t)m->kind), (uint64_t)m->edges), bits), (uint64_t)p->a), (uint64_t)p->b);
    for (size_t i = 0; i < RF_H; i++) h = mix(h, m->heads ? m->heads[i] : 3);
    return h;
}

static ks_cell true_cell(uint64_t h)
{
    static const uint8_t status[] = {KS_CELL_DONE, KS_CELL_DONE, KS_CELL_EMPTY_ROW, KS_CELL_NOT_FINITE, KS_CELL_NOTHING};
    ks_cell c = {.status = status[h % 5], .top_changed = h >> 8 & 1};
    double *const fields[] = {&c.kl, &c.kl_reverse, &c.js, &c.tv, &c.p_top, &c.dlogit_top};
    for (int i = 0; i < 6; i++) *fields[i] = c.status == KS_CELL_NOT_FINITE ? (double)NAN : number(h, i);
    if (c.status == KS_CELL_NOTHING) c.kl = 0;
    for (int k = 0; k < KS_TOP_K; k++) {
        c.top_ids[k] = c.status == KS_CELL_NOT_FINITE ? -1 : (int32_t)((h >> k) % RF_V);
        c.top_p_baseline[k] = number(h, 10 + k);
        c.top_p_ablated[k] = number(h, 20 + k);
    }
    return c;
}

static ks_position_cell true_position(uint64_t h, int32_t t, int32_t T)
{
    if (t == 0) return (ks_position_cell){NAN, NAN, NAN};
    if (t == T - 1) return (ks_position_cell){number(h, 100 + t), NAN, NAN};
    return (ks_position_cell){number(h, 100 + t), -number(h, 200 + t), number(h, 300 + t)};
}

typedef struct true_base {
    ks_baseline b;
    float logits[RF_V], by_head[RF_L * RF_H];
    double strength[RF_L], uniform;
} true_base;

static true_base true_baseline(const char *id)
{
    const uint64_t h = text_hash(id);
    true_base r = {.b = {.entropy = number(h, 1), .floor = number(h, 2)}, .uniform = number(h, 3)};
    for (int k = 0; k < KS_TOP_K; k++) r.b.top_ids[k] = (int32_t)((h >> k) % RF_V), r.b.top_p[k] = number(h, 30 + k);
    for (int i = 0; i < RF_V; i++) r.logits[i] = -(float)number(h, 1000 + i);
    for (int i = 0; i < RF_L * RF_H; i++) r.by_head[i] = (float)number(h, 2000 + i);
    for (int i = 0; i < RF_L; i++) r.strength[i] = number(h, 3000 + i);
    return r;
}

static void same_bits(const void *found, const void *expected, size_t bytes, const char *what)
{
    if (memcmp(found, expected, bytes) != 0) fail_msg("%s did not come through", what);
}

static void same_cell(const ks_cell *x, const ks_cell *y)
{
    assert_int_equal(x->status, y->status);
    assert_int_equal(x->top_changed, y->top_changed);
    same_bits(&x->kl, &y->kl, 6 * sizeof(double), "a measure"); /* six doubles side by side */
    same_bits(x->top_ids, y->top_ids, sizeof x->top_ids, "top_ids");
    same_bits(x->top_p_baseline, y->top_p_baseline, sizeof x->top_p_baseline, "top_p_baseline");
    same_bits(x->top_p_ablated, y->top_p_ablated, sizeof x->top_p_ablated, "top_p_ablated");
}

/* ---- writing ---- */

/* Whether a sweep's place holds its cell; leftover numbers stand where it does not. */
typedef bool keep(const world *w, size_t sweep, size_t variant, size_t sample);

static bool keep_all(const world *w, size_t sweep, size_t variant, size_t sample)
{
    (void)w, (void)sweep, (void)variant, (void)sample;
    return true;
}

static bool keep_some(const world *w, size_t sweep, size_t variant, size_t sample)
{
    return mix(meaning(w, variant, sample), sweep) >> 20 & 1;
}

static bool keep_baseline(const world *w, keep *k, size_t s)
{
    return k == keep_all || (text_hash(w->samples.v[s].id) >> 9 & 1);
}

static int put_place(ks_results *r, const world *w, size_t sweep, size_t i, size_t s, const ks_cell *c, const ks_position_cell *at)
{
    const ks_grid_sweep *g = &w->grid->sweeps[sweep];
    return ks_results_put_cell(r, 0, w->sweeps[sweep], i / g->n_heads / g->W, i / g->n_heads % g->W, i % g->n_heads, s, c, at);
}

static ks_results *begin(world *w, const char *to)
{
    ks_results *r = NULL;
    size_t m;
    char *json = ks_config_json(w->cfg);
    assert_non_null(json);
    if (ks_results_create(&r, to, KS_RESULTS_FORCE, json, "abcd")) fail_msg("%s", ks_error_text());
    free(json);
    assert_int_equal(ks_results_add_model(r, &w->info, &w->samples, &m), 0);
    for (size_t i = 0; i < w->cfg->n_sweeps; i++) {
        const ks_grid_sweep *g = &w->grid->sweeps[i];
        const size_t axis = w->cfg->sweeps[i].heads == KS_HEADS_EACH ? g->n_heads : 0;
        assert_int_equal(ks_results_add_sweep(r, m, &w->cfg->sweeps[i], g->windows, g->W, axis, &w->sweeps[i]), 0);
    }
    return r;
}

static void finish(ks_results *r, const char *time)
{
    const ks_provenance p = {.time = time, .host = "h", .backend = "cpu", .command_line = "kosweep\nrun", .ranks = 2, .threads = 3};
    assert_int_equal(ks_results_set_provenance(r, &p), KS_OK);
    if (ks_results_close(r)) fail_msg("%s", ks_error_text());
}

static void write_file(world *w, const char *to, keep *k)
{
    ks_results *r = begin(w, to);
    for (size_t s = 0; s < w->samples.n; s++) {
        const true_base b = true_baseline(w->samples.v[s].id);
        if (keep_baseline(w, k, s)) assert_int_equal(ks_results_put_baseline(r, 0, s, &b.b, b.logits, b.by_head, b.uniform, b.strength), 0);
        for (size_t j = 0; j < w->cfg->n_sweeps; j++) {
            const ks_grid_sweep *g = &w->grid->sweeps[j];
            for (size_t i = 0; i < g->n_factors * g->W * g->n_heads; i++) {
                const size_t v = (size_t)g->variant[i];
                const uint64_t h = meaning(w, v, s);
                ks_position_cell at[RF_T_MAX];
                for (int32_t t = 0; t < w->samples.v[s].T; t++) at[t] = true_position(h, t, w->samples.v[s].T);
                ks_cell c = true_cell(h);
                if (!k(w, j, v, s)) c.status = KS_CELL_NOT_COMPUTED, c.kl = 12345;
                assert_int_equal(put_place(r, w, j, i, s, &c, at), 0);
            }
        }
    }
    finish(r, "2025-01-01T00:00:00Z");
}

/* ---- importing ---- */

typedef struct catcher {
    world *w;
    uint8_t *seen; /* [n_samples, n_variants] */
    size_t cells, baselines;
    ks_results *to; /* or NULL */
} catcher;

static int catch_baseline(void *ctx, int32_t sample, const ks_baseline *b, const float *logits, const float *by_head, double uniform,
                          const double *strength)
{
    catcher *c = ctx;
    const true_base e = true_baseline(c->w->samples.v[sample].id);
    c->baselines++;
    same_bits(&b->top_ids, &e.b.top_ids, sizeof e.b.top_ids, "baseline top_ids");
    same_bits(&b->top_p, &e.b.top_p, sizeof e.b.top_p, "baseline top_p");
    same_bits(&b->entropy, &e.b.entropy, sizeof b->entropy, "entropy");
    same_bits(&b->floor, &e.b.floor, sizeof b->floor, "floor");
    assert_true(!logits == !c->w->cfg->save_logits);
    if (logits) same_bits(logits, e.logits, sizeof e.logits, "logits");
    same_bits(by_head, e.by_head, sizeof e.by_head, "by_head");
    same_bits(strength, e.strength, sizeof e.strength, "strength");
    same_bits(&uniform, &e.uniform, sizeof uniform, "uniform");
    return c->to ? ks_results_put_baseline(c->to, 0, (size_t)sample, b, logits, by_head, uniform, strength) : KS_OK;
}

static int catch_cell(void *ctx, int32_t sample, int32_t variant, const ks_cell *cell, const ks_position_cell *positions)
{
    int rc = KS_OK;
    catcher *c = ctx;
    const world *w = c->w;
    const uint64_t h = meaning(w, (size_t)variant, (size_t)sample);
    const ks_cell e = true_cell(h);
    const int32_t T = w->samples.v[sample].T;
    c->cells++;
    assert_int_equal(c->seen[(size_t)sample * w->grid->n_variants + (size_t)variant]++, 0);
    same_cell(cell, &e);
    assert_true(!positions == (w->grid->variants[variant].positions != KS_POSITIONS_ALL));
    for (int32_t t = 0; positions && t < T; t++) {
        const ks_position_cell p = true_position(h, t, T);
        same_bits(&positions[t], &p, sizeof p, "a position");
    }
    for (size_t j = 0; c->to && j < w->cfg->n_sweeps; j++) {
        const ks_grid_sweep *g = &w->grid->sweeps[j];
        for (size_t i = 0; i < g->n_factors * g->W * g->n_heads && !rc; i++)
            if (g->variant[i] == variant) rc = put_place(c->to, w, j, i, (size_t)sample, cell, positions);
    }
    return rc;
}

/* Opens, imports, and checks that the bits say what came; returns the status. */
static int import(world *w, const char *from, catcher *c, ks_known *known)
{
    ks_former *f = NULL;
    *c = (catcher){.w = w, .to = c->to};
    *known = (ks_known){0};
    const ks_former_sink sink = {c, catch_baseline, catch_cell};
    const ks_former_task task = {&w->info, &w->samples, w->grid};
    c->seen = calloc(w->samples.n * w->grid->n_variants, 1);
    assert_non_null(c->seen);
    int rc = ks_former_open(&f, from, w->cfg);
    if (!rc) rc = ks_former_import(f, &task, &sink, known);
    const size_t words = (w->grid->n_variants + 63) / 64;
    for (size_t s = 0; !rc && s < w->samples.n; s++)
        for (size_t v = 0; v < w->grid->n_variants; v++)
            assert_int_equal(known->done[s * words + v / 64] >> (v % 64) & 1, c->seen[s * w->grid->n_variants + v]);
    if (!rc) assert_int_equal(known->cells, c->cells);
    if (!rc) assert_int_equal(known->baselines, c->baselines);
    ks_former_free(f);
    return rc;
}

static void forget(catcher *c, ks_known *known)
{
    free(c->seen);
    ks_known_clear(known);
}

/* ---- tests ---- */

static void test_finished(void **state)
{
    (void)state;
    world w = world_new(CONFIG(ALL_SWEEPS), 0, RF_S);
    catcher c = {0};
    ks_known known;
    write_file(&w, path, keep_all);
    c.to = begin(&w, other);
    if (import(&w, path, &c, &known)) fail_msg("%s", ks_error_text());
    assert_int_equal(c.cells, w.samples.n * w.grid->n_variants);
    assert_int_equal(c.baselines, RF_S);
    finish(c.to, "2026-01-01T00:00:00Z");
    forget(&c, &known);
    /* What was imported and written again is the same file. */
    ks_study *x = NULL, *y = NULL;
    assert_int_equal(ks_study_read_whole(&x, path), 0);
    assert_int_equal(ks_study_read_whole(&y, other), 0);
    assert_int_equal(x->models[0].n_sweeps, y->models[0].n_sweeps);
    same_bits(x->models[0].sweeps[5].kl_positions, y->models[0].sweeps[5].kl_positions, 2 * 2 * 3 * RF_S * RF_T_MAX * sizeof(double), "kl");
    ks_study_free(x);
    ks_study_free(y);
    if (!system("/usr/bin/python3 -c 'import h5py, numpy' 2>/dev/null")) {
        char command[4 * SCRATCH_PATH];
        snprintf(command, sizeof command, "/usr/bin/python3 tools/same_results.py '%s' '%s'", path, other);
        assert_int_equal(system(command), 0);
    }
    world_free(&w);
}

/* A killed run: what is there comes, numbers under status 0 do not. A cell is there when any of its places is, if it has the positions. */
static void test_partial(void **state)
{
    (void)state;
    world w = world_new(CONFIG(ALL_SWEEPS), 0, RF_S);
    catcher c = {0};
    ks_known known;
    size_t expected = 0, shared = 0;
    write_file(&w, path, keep_some);
    if (import(&w, path, &c, &known)) fail_msg("%s", ks_error_text());
    for (size_t s = 0; s < RF_S; s++) {
        for (size_t v = 0; v < w.grid->n_variants; v++) {
            size_t there = 0, places = 0;
            for (size_t j = 0; j < w.cfg->n_sweeps; j++)
                for (size_t i = 0; i < w.grid->sweeps[j].n_factors * w.grid->sweeps[j].W * w.grid->sweeps[j].n_heads; i++)
                    if ((size_t)w.grid->sweeps[j].variant[i] == v) places++, there += keep_some(&w, j, v, s);
            assert_int_equal(c.seen[s * w.grid->n_variants + v], there > 0);
            expected += there > 0;
            shared += there == 1 && places == 2;
        }
        assert_int_equal(known.baseline_done[s], keep_baseline(&w, keep_some, s));
    }
    assert_int_equal(c.cells, expected);
    assert_true(shared > 0 && expected > 0 && expected < RF_S * w.grid->n_variants);
    assert_true(c.baselines > 0 && c.baselines < RF_S);
    forget(&c, &known);
    world_free(&w);
}

/* More samples in another order, sweeps that share cells, longer lists of windows and values: the old cells find their places. */
static void test_grown(void **state)
{
    (void)state;
    world old =
        world_new(CONFIG(LAYERS ", {\"name\": \"list\", \"windows\": [[3, 3], [0, 1]], \"kind\": \"scale\", \"values\": [2]}"), 1, 3);
    world now = world_new(CONFIG("{\"name\": \"list\", \"windows\": [[0, 0], [0, 1], [1, 2], [3, 3]], \"kind\": \"scale\", "
                                 "\"values\": [0.5, 4, 2]}, " TRIANGLE ", " LAYERS ", " HEADS),
                          5, RF_S);
    catcher c = {0};
    ks_known known;
    write_file(&old, path, keep_all);
    if (import(&now, path, &c, &known)) fail_msg("%s", ks_error_text());
    assert_int_equal(c.cells, 3 * (4 + 2));
    assert_int_equal(c.baselines, 3);
    forget(&c, &known);
    /* The triangle alone would lose a sweep's name. */
    world lost = world_new(CONFIG(TRIANGLE), 0, RF_S);
    assert_int_equal(import(&lost, path, &c, &known), KS_EUSAGE);
    forget(&c, &known);
    /* Another model's first run finds nothing, and that is no error. */
    world more =
        world_new("{\"models\": [{\"name\": \"tiny\", \"path\": \"x\"}, {\"name\": \"new\", \"path\": \"y\"}], \"save_logits\": true, "
                  "\"sweeps\": [" LAYERS ", {\"name\": \"list\", \"windows\": [[3, 3], [0, 1]], \"kind\": \"scale\", \"values\": [2]}]}",
                  1, 3);
    more.info.name = "new";
    if (import(&more, path, &c, &known)) fail_msg("%s", ks_error_text());
    assert_int_equal(c.cells + c.baselines, 0);
    forget(&c, &known);
    world_free(&old);
    world_free(&now);
    world_free(&lost);
    world_free(&more);
}

/* A cell measured at the last position does not serve a sweep that wants all; the other way round it does. */
static void test_positions(void **state)
{
    (void)state;
#define LAST "{\"name\": \"last\", \"windows\": [[2, 2]]}"
#define ALL "{\"name\": \"all\", \"windows\": [[2, 2], [3, 3]], \"positions\": \"all\"}"
    world last = world_new(CONFIG(LAST), 0, 2), all = world_new(CONFIG(ALL), 0, 2), both = world_new(CONFIG(ALL ", " LAST), 0, 2);
    catcher c = {0};
    ks_known known;
    write_file(&last, path, keep_all);
    if (import(&both, path, &c, &known)) fail_msg("%s", ks_error_text());
    assert_int_equal(c.cells, 0);
    assert_int_equal(c.baselines, 2);
    forget(&c, &known);
    write_file(&all, path, keep_all);
    if (import(&both, path, &c, &known)) fail_msg("%s", ks_error_text());
    assert_int_equal(c.cells, 4);
    forget(&c, &known);
    world_free(&last);
    world_free(&all);
    world_free(&both);
}

static void expect(world *now, int code, const char *a, const char *b)
{
    catcher c = {0};
    ks_known known;
    const int rc = import(now, path, &c, &known);
    const char *text = ks_error_text();
    if (rc != code) fail_msg("\"%s\": status %d, %s", a, rc, rc ? text : "");
    if (!strstr(text, a) || !strstr(text, b) || !strstr(text, path) || !strstr(text, "--output") || !strstr(text, "--force"))
        fail_msg("\"%s\" does not say \"%s\" and \"%s\"", text, a, b);
    assert_int_equal(c.cells + c.baselines, 0); /* nothing is taken over before everything is compared */
    assert_null(known.done);
    forget(&c, &known);
}

static void test_refused_config(void **state)
{
    (void)state;
    static const struct {
        const char *config, *words, *more;
    } cases[] = {
        {"{" MODELS ", \"sweeps\": [" LAYERS "]}", "\"save_logits\" is true", "now it is false"},
        {"{" MODELS ", \"save_logits\": true, \"floor\": false, \"sweeps\": [" LAYERS "]}", "\"floor\" is true", "false"},
        {"{" MODELS ", \"save_logits\": true, \"precision\": \"fast\", \"sweeps\": [" LAYERS "]}", "\"precision\" is \"full\"", "\"fast\""},
        {"{" MODELS ", \"save_logits\": true, \"special_tokens\": \"none\", \"sweeps\": [" LAYERS "]}", "\"special_tokens\"", "\"none\""},
        {"{" MODELS ", \"save_logits\": true, \"marker\": \"span\", \"sweeps\": [" LAYERS "]}", "\"marker\"", "\"span\""},
        {"{\"models\": [{\"name\": \"big\", \"path\": \"x\"}], \"save_logits\": true, \"sweeps\": [" LAYERS "]}", "the model tiny",
         "not asked for any more"},
        {CONFIG(LAYERS), "the sweep dose", "not asked for any more"},
        {CONFIG(LAYERS ", {\"name\": \"dose\", \"windows\": [[2, 2], [0, 3]], \"kind\": \"set\", \"values\": [0, 0.5]}"), "kind \"scale\"",
         "\"set\""},
        {CONFIG(LAYERS ", {\"name\": \"dose\", \"windows\": [[2, 2], [0, 3]], \"kind\": \"scale\", \"values\": [0, 0.5, 2]}"),
         "positions \"all\"", "\"last\""},
        {CONFIG(LAYERS ", {\"name\": \"dose\", \"windows\": [[2, 2], [0, 3]], \"kind\": \"scale\", \"values\": [0, 2], \"positions\": "
                       "\"all\"}"),
         "the value 0.5", "not asked for any more"},
        {CONFIG(LAYERS
                ", {\"name\": \"dose\", \"windows\": [[0, 3]], \"kind\": \"scale\", \"values\": [0, 0.5, 2], \"positions\": \"all\"}"),
         "the window [2, 2]", "not asked for any more"},
        {CONFIG("{\"name\": \"layers\", \"windows\": \"each-layer\", \"heads\": [0, 2]}, " DOSE), "heads \"all\"", "\"0,2\""},
        {CONFIG("{\"name\": \"layers\", \"windows\": \"each-layer\", \"edges\": \"all-marker\"}, " DOSE), "edges \"marker-targets\"",
         "\"all-marker\""},
    };
    world old = world_new(CONFIG(LAYERS ", " DOSE), 0, 3);
    write_file(&old, path, keep_all);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        world now = world_new(cases[i].config, 0, 3);
        expect(&now, KS_EUSAGE, cases[i].words, cases[i].more);
        world_free(&now);
    }
    world_free(&old);
}

static void test_refused_model(void **state)
{
    (void)state;
    world w = world_new(CONFIG(LAYERS), 0, 3);
    write_file(&w, path, keep_all);
    const ks_model_info good = w.info;
#define CHANGED(field, value, words, more)      \
    do {                                        \
        w.info.field = value;                   \
        expect(&w, KS_EUSAGE, (words), (more)); \
        w.info = good;                          \
    } while (0)
    CHANGED(weights_sha256, "1234", "weights_sha256 is \"00ff\"", "now it is \"1234\"");
    CHANGED(tokenizer_sha256, NULL, "tokenizer_sha256 is \"ff00\"", "now it is \"\"");
    CHANGED(config_sha256, "1", "config_sha256 is \"0ff0\"", "now it is \"1\"");
    CHANGED(architecture, "qwen2", "architecture is \"llama\"", "\"qwen2\"");
    CHANGED(weight_dtype, "f32", "weight_dtype is \"bf16\"", "\"f32\"");
    CHANGED(precision, "fast", "precision is \"full\"", "\"fast\"");
    CHANGED(n_layers, 5, "n_layers is 4", "now it is 5");
    CHANGED(n_heads, 2, "n_heads is 3", "now it is 2");
    CHANGED(n_kv_heads, 3, "n_kv_heads is 1", "now it is 3");
    CHANGED(d_model, 25, "d_model is 24", "now it is 25");
    CHANGED(vocab, 51, "vocab is 50", "now it is 51");
    world_free(&w);
}

static void test_refused_samples(void **state)
{
    (void)state;
    static int32_t ids[RF_T_MAX];
    static uint8_t marker[RF_T_MAX], target[RF_T_MAX];
    static char group[] = "elsewhere", text[] = "def g():>>>";
    world w = world_new(CONFIG(LAYERS), 0, 3), fewer = world_new(CONFIG(LAYERS), 0, 2);
    write_file(&w, path, keep_all);
    expect(&fewer, KS_EUSAGE, "the sample py_default (group python_doctest)", "not asked for any more");
    const ks_sample good = w.samples.v[0];
    ks_sample *s = &w.samples.v[0];
    memcpy(ids, good.ids, sizeof *ids * 5);
    memcpy(marker, good.marker, 5);
    memcpy(target, good.target, 5);
    ids[3]++;
    marker[2] = 1;
    target[1] = 0;
    s->group = group;
    expect(&w, KS_EUSAGE, "sample py_simple_add differs: its group is python_doctest", "now it is elsewhere");
    *s = good;
    s->text = text;
    expect(&w, KS_EUSAGE, "after 4 bytes its text goes on \"f():>>>\"", "now \"g():>>>\"");
    *s = good;
    s->text = NULL;
    expect(&w, KS_EUSAGE, "after 0 bytes", "now \"\"");
    *s = good;
    s->T = 4;
    expect(&w, KS_EUSAGE, "it has 5 tokens", "now 4");
    *s = good;
    s->ids = ids;
    expect(&w, KS_EUSAGE, "its token 3 is 3", "now 4");
    *s = good;
    s->marker = marker;
    expect(&w, KS_EUSAGE, "its token 2 is not of the marker", "now it is");
    *s = good;
    s->target = target;
    expect(&w, KS_EUSAGE, "its token 1 is a target", "now it is not");
    world_free(&fewer);
    world_free(&w);
}

static void edit_text(const char *name, const char *value)
{
    const hid_t f = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(value) + 1);
    H5Adelete(f, name);
    const hid_t a = H5Acreate2(f, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(a, type, value) >= 0);
    H5Aclose(a);
    H5Sclose(space);
    H5Tclose(type);
    H5Fclose(f);
}

static void test_other_files(void **state)
{
    (void)state;
    world w = world_new(CONFIG(LAYERS ", " DOSE), 0, 3);
    catcher c = {0};
    ks_known known;
    ks_former *f = NULL;
    char *history = NULL;

    /* No file, no model in it: everything is to do. */
    unlink(path);
    assert_int_equal(import(&w, path, &c, &known), KS_OK);
    assert_true(known.done && known.baseline_done && known.cells == 0);
    forget(&c, &known);
    assert_int_equal(ks_former_history(NULL, &history), KS_OK);
    assert_string_equal(history, "");
    free(history);

    write_file(&w, path, keep_all);
    edit_text("schema", "kosweep-9");
    expect(&w, KS_EUSAGE, "schema \"kosweep-9\"", "this version reads \"kosweep-1\"");
    edit_text("schema", "kosweep-1");
    edit_text("config", "{\"a\"");
    expect(&w, KS_EINPUT, "attribute config", "not valid JSON");
    edit_text("config", "[]");
    expect(&w, KS_EINPUT, "attribute config", "must be an object, found an array");
    char *json = ks_config_json(w.cfg), *more = ks_format("%.*s,\"depth\":3}", (int)strlen(json) - 1, json);
    edit_text("config", more);
    expect(&w, KS_EUSAGE, "its \"depth\" is 3", "now it is missing");
    edit_text("config", json);
    free(more);
    free(json);
    assert_int_equal(import(&w, path, &c, &known), KS_OK);
    assert_int_equal(c.cells, 3 * (4 + 6));
    forget(&c, &known);

    assert_int_equal(ks_former_open(&f, dir, w.cfg), KS_EUSAGE);
    assert_non_null(strstr(ks_error_text(), "not a regular file"));
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(ks_former_open(&f, path, w.cfg), KS_EUSAGE);
    unlink(path);
    scratch_text(dir, "r.h5", "");
    expect(&w, KS_EINPUT, "not an HDF5 file", "damaged");
    unlink(path);
    world_free(&w);
}

/* Files of versions that had fewer arrays, and a cell that claims to be finished without its value. */
static void test_older_files(void **state)
{
    (void)state;
    world w = world_new(CONFIG(LAYERS ", " DOSE), 0, 3);
    catcher c = {0};
    ks_known known;
    write_file(&w, path, keep_some);
    size_t expected = 0;
    for (size_t s = 0; s < 3; s++) expected += keep_baseline(&w, keep_some, s);
    hid_t f = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Ldelete(f, "/models/tiny/baseline/status", H5P_DEFAULT); /* may not be there */
    H5Fclose(f);
    if (import(&w, path, &c, &known)) fail_msg("%s", ks_error_text());
    assert_int_equal(c.baselines, expected);
    forget(&c, &known);

    write_file(&w, path, keep_all);
    f = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(H5Ldelete(f, "/models/tiny/sweeps/dose/p_next_positions", H5P_DEFAULT) >= 0);
    const hid_t d = H5Dopen2(f, "/models/tiny/sweeps/layers/kl", H5P_DEFAULT);
    double kl[4 * 3];
    assert_true(H5Dread(d, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, kl) >= 0);
    size_t at = 0;
    while (isnan(kl[at])) at++;
    kl[at] = NAN;
    assert_true(H5Dwrite(d, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, kl) >= 0);
    H5Dclose(d);
    H5Fclose(f);
    if (import(&w, path, &c, &known)) fail_msg("%s", ks_error_text());
    assert_int_equal(c.cells, 3 * 4 - 1); /* nothing of dose: its positions are not complete */
    forget(&c, &known);

    write_file(&w, path, keep_all);
    f = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(H5Ldelete(f, "/models/tiny/baseline/logits", H5P_DEFAULT) >= 0);
    H5Fclose(f);
    if (import(&w, path, &c, &known)) fail_msg("%s", ks_error_text());
    assert_int_equal(c.baselines, 0); /* they are wanted with logits */
    forget(&c, &known);
    world_free(&w);
}

/* The same content in another layout of bytes: compressed, chunked, strings of fixed length. */
static void test_repacked(void **state)
{
    (void)state;
    if (system("/usr/bin/python3 -c 'import h5py, numpy' 2>/dev/null")) skip();
    world w = world_new(CONFIG(ALL_SWEEPS), 0, RF_S);
    catcher c = {0};
    ks_known known;
    char command[4 * SCRATCH_PATH];
    write_file(&w, other, keep_all);
    scratch_text(
        dir, "repack.py",
        "import sys, h5py\n"
        "def copy(a, b):\n"
        "    for k, v in a.attrs.items():\n"
        "        if k not in ('DIMENSION_LIST', 'REFERENCE_LIST', 'CLASS', 'NAME'): b.attrs[k] = v.encode() if type(v) is str else v\n"
        "    for k, v in a.items():\n"
        "        if isinstance(v, h5py.Group): copy(v, b.create_group(k, track_order=True))\n"
        "        elif v.dtype == object: b[k] = v.asstr()[()].astype('S')\n"
        "        else: b.create_dataset(k, data=v[()], compression='gzip', shuffle=True, chunks=True)\n"
        "with h5py.File(sys.argv[1]) as a, h5py.File(sys.argv[2], 'w') as b: copy(a, b)\n");
    snprintf(command, sizeof command, "/usr/bin/python3 '%s/repack.py' '%s' '%s'", dir, other, path);
    assert_int_equal(system(command), 0);
    if (import(&w, path, &c, &known)) fail_msg("%s", ks_error_text());
    assert_int_equal(c.cells, w.samples.n * w.grid->n_variants);
    assert_int_equal(c.baselines, RF_S);
    forget(&c, &known);
    world_free(&w);
}

static void test_history(void **state)
{
    (void)state;
    world w = world_new(CONFIG(LAYERS), 0, 1);
    ks_former *f = NULL;
    char *history = NULL;
    write_file(&w, path, keep_all);
    const hid_t h = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), g = H5Gopen2(h, "provenance", H5P_DEFAULT);
    static const char first[] = "the first run";
    const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, sizeof first);
    if (H5Aexists(g, "history") > 0) H5Adelete(g, "history");
    const hid_t a = H5Acreate2(g, "history", type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(a, type, first) >= 0);
    H5Aclose(a);
    H5Sclose(space);
    H5Tclose(type);
    H5Gclose(g);
    H5Fclose(h);
    assert_int_equal(ks_former_open(&f, path, w.cfg), KS_OK);
    assert_int_equal(ks_former_history(f, &history), KS_OK);
    assert_string_equal(history, "the first run\n2025-01-01T00:00:00Z h ranks 2 threads 3 backend cpu: kosweep run");
    free(history);
    ks_former_free(f);
    world_free(&w);
}

/* The sink's error ends the import. */
static int full(void *ctx, int32_t sample, int32_t variant, const ks_cell *cell, const ks_position_cell *positions)
{
    (void)sample, (void)variant, (void)cell, (void)positions;
    return ++*(int *)ctx == 3 ? ks_error(KS_EMACHINE, "full") : KS_OK;
}

static int ignore(void *ctx, int32_t sample, const ks_baseline *b, const float *logits, const float *by_head, double uniform,
                  const double *strength)
{
    (void)ctx, (void)sample, (void)b, (void)logits, (void)by_head, (void)uniform, (void)strength;
    return KS_OK;
}

static void test_sink_fails(void **state)
{
    (void)state;
    world w = world_new(CONFIG(LAYERS), 0, 2);
    ks_former *f = NULL;
    ks_known known;
    int n = 0;
    write_file(&w, path, keep_all);
    assert_int_equal(ks_former_open(&f, path, w.cfg), KS_OK);
    const ks_former_task task = {&w.info, &w.samples, w.grid};
    assert_int_equal(ks_former_import(f, &task, &(ks_former_sink){&n, ignore, full}, &known), KS_EMACHINE);
    assert_int_equal(n, 3);
    assert_null(known.done);
    ks_former_free(f);
    world_free(&w);
}

/* ---- damage ---- */

static _Atomic bool stop;

static void *make_noise(void *unused)
{
    (void)unused;
    while (!stop) {
        free(malloc(100));
        char *line = ks_format("%d", 7);
        free(line);
        fflush(stdout);
        usleep(50);
    }
    return NULL;
}

/* Files cut anywhere, blank in places, with bytes changed: an error in words, or the cells of an undamaged part; never a crash. Other
 * threads are alive all the time, as they are under MPI. */
static void test_damaged(void **state)
{
    (void)state;
    world w = world_new(CONFIG(LAYERS ", " DOSE), 0, 3);
    char *good = NULL;
    size_t bytes = 0, refused = 0;
    pthread_t noise[2];
    uint64_t seed = 5;
    write_file(&w, path, keep_all);
    assert_int_equal(ks_file_read(&good, &bytes, path), 0);
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&noise[i], NULL, make_noise, NULL), 0);
    for (size_t n = 0; n < 130; n++) {
        char *bad = malloc(bytes);
        assert_non_null(bad);
        memcpy(bad, good, bytes);
        size_t length = bytes;
        if (n < 40) length = bytes * n / 40;
        else if (n < 60) memset(bad + bytes * (n - 40) / 20, 0, bytes / 20);
        for (int k = 0; n >= 60 && k < (n < 95 ? 8 : 1); k++) {
            seed = mix(seed, n);
            bad[(seed >> 20) % (n < 95 ? 6000 : bytes)] = (char)(seed >> 56);
        }
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        assert_int_equal(fwrite(bad, 1, length, f), length);
        fclose(f);
        free(bad);
        /* Changed numbers are not noticed (HDF5 has checksums on structure only), so the import is not compared. */
        ks_former *former = NULL;
        ks_known known = {0};
        int count = 1000;
        const ks_former_task task = {&w.info, &w.samples, w.grid};
        int rc = ks_former_open(&former, path, w.cfg);
        if (!rc) rc = ks_former_import(former, &task, &(ks_former_sink){&count, ignore, full}, &known);
        assert_true(rc == KS_OK || rc == KS_EINPUT || rc == KS_EUSAGE);
        if (rc && (!strstr(ks_error_text(), path) || !strstr(ks_error_text(), "--force"))) fail_msg("\"%s\"", ks_error_text());
        if (n < 40) assert_int_equal(rc, KS_EINPUT);
        refused += rc != KS_OK;
        ks_known_clear(&known);
        ks_former_free(former);
    }
    stop = true;
    for (int i = 0; i < 2; i++) pthread_join(noise[i], NULL);
    print_message("%zu of 130 refused\n", refused);
    assert_true(refused >= 50 && refused < 130);
    free(good);
    world_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finished),        cmocka_unit_test(test_partial),        cmocka_unit_test(test_grown),
        cmocka_unit_test(test_positions),       cmocka_unit_test(test_refused_config), cmocka_unit_test(test_refused_model),
        cmocka_unit_test(test_refused_samples), cmocka_unit_test(test_other_files),    cmocka_unit_test(test_older_files),
        cmocka_unit_test(test_repacked),        cmocka_unit_test(test_history),        cmocka_unit_test(test_sink_fails),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
