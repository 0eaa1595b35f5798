/* kosweep plan: what would run. */
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "input/options.h"
#include "plan/forecast.h"
#include "sweep/results.h"
#include "sweep/run.h"
#include "sweep/task.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void help(void)
{
    printf(
        "usage: kosweep plan [CONFIG.json] [options]\n\n"
        "Prints what a sweep would compute: cells, branches, FLOPs, bytes, memory, passes, balance, efficiency. Nothing is swept.\n\n%s\n"
        "Examples\n"
        "  kosweep plan config/layer_scan.json --ranks 8\n"
        "  kosweep plan --model models/box --corpus corpus/attention_samples_universal.json --all-windows --json\n",
        ks_options_help);
}

typedef struct plan_facts {
    double flops_per_second; /* of a rank: one product with this model's weights, measured now */
    ks_service service;
    ks_forecast *forecast; /* of ranks of this speed, with root's service */
    double efficiency;     /* ideal time (FLOPs divide evenly, no sample is cut, root costs nothing) over predicted time */
    double flush;          /* root's seconds for a flush, whatever is in it */
    double compute;        /* seconds of the rank that computes longest */
    int64_t bytes_read, weight_bytes, memory_bytes;
    int32_t passes; /* of the rank that has most */
    double balance; /* mean load over largest load */
    char *note;     /* why the service could not be measured, or NULL */
} plan_facts;

/* What sweep/comm.c and serve.c make of a pass: root picks units and sends and takes a few messages; a rank waits until root looks for
 * messages, and then until it looks itself, each at least once a millisecond. */
static const double ROOT_PASS_SECONDS = 5e-5, REPLY_SECONDS = 2e-3, LONGEST_PASS_SECONDS = 20, FLUSH_SECONDS = 5;

/* Speed of this machine on the product that takes most of the time: up-projection of the first layer, 1024 rows. */
static int measure_speed(const ks_task *t, const ks_config *cfg, double *flops_per_second)
{
    int rc = KS_OK;
    enum { ROWS = 1024 };
    const ks_arch *a = t->problem.arch;
    const size_t D = (size_t)a->D, F = (size_t)a->F;
    const ks_backend *be = NULL;
    ks_device *dev = NULL;
    float *x = NULL, *y = NULL, last;
    const ks_layer *layer = ks_model_layer(t->model, 0);
    double best = 0;
    KS_TRY(ks_backend_find(&be, ks_backend_names[cfg->backend]));
    KS_TRY(be->open(&dev, &(ks_device_options){.threads = cfg->threads ? cfg->threads : ks_default_threads()}));
    KS_TRY(be->alloc(dev, &x, ROWS * D));
    KS_TRY(be->alloc(dev, &y, ROWS * F));
    KS_TRY(be->zero(dev, x, ROWS * D));
    for (int i = 0; i < 3; i++) { /* the first one also touches memory */
        const double begin = ks_seconds();
        KS_TRY(be->linear(dev, y, F, x, D, &layer->up, NULL, ROWS, false, KS_GRADE_FULL));
        KS_TRY(be->download(dev, &last, y, 1)); /* waits until it is done */
        const double speed = 2.0 * ROWS * (double)D * (double)F / (ks_seconds() - begin);
        if (speed > best) best = speed;
    }
    *flops_per_second = best;
done:
    if (x) be->free(dev, x);
    if (y) be->free(dev, y);
    if (dev) be->close(dev);
    return rc;
}

enum { BATCHES = 8, BATCH_WINDOWS = 512, SAMPLES = 16, FILE_BYTES = 16 << 20 }; /* of a measurement */

/* Cells with made-up values on their way from a message to the file's arrays. They come as from ranks: n neighbouring variants of a sample,
 * then of the next one. */
static int store_batch(ks_results *r, size_t model, size_t sweep, const ks_samples *samples, size_t S, size_t window, size_t n,
                       ks_position_cell *positions)
{
    int rc = KS_OK;
    ks_wire w = {0};
    ks_cell c = {.status = KS_CELL_DONE, .kl = 1e-3, .kl_reverse = 1e-3, .js = 1e-3, .tv = 1e-3, .p_top = 0.5};
    for (size_t s = 0; s < S; s++)
        for (size_t i = 0; i < n; i++) {
            KS_TRY(KS_PUT(&w, c));
            if (positions) KS_TRY(ks_wire_put(&w, positions, (size_t)samples->v[s].T * sizeof *positions));
        }
    for (size_t s = 0; s < S; s++)
        for (size_t i = 0; i < n; i++) {
            KS_TRY(KS_TAKE(&w, c));
            if (positions) KS_TRY(ks_wire_get(&w, positions, (size_t)samples->v[s].T * sizeof *positions));
            KS_TRY(ks_results_put_cell(r, model, sweep, 0, window + i, 0, s, &c, positions));
        }
done:
    free(w.data);
    return rc;
}

/* flush: seconds of a flush of next to nothing; cell: of a cell, with its share of a larger flush. The best of some batches counts. */
static int store_cells(ks_results *r, const ks_samples *samples, const ks_sweep *sweep, size_t L, double *flush, double *cell)
{
    int rc = KS_OK;
    const ks_model_info info = {.name = "service", .n_layers = 1, .n_heads = 1, .n_kv_heads = 1, .d_model = 1, .vocab = 1};
    double store = 1e300, large = 1e300;
    ks_window *windows = NULL;
    ks_position_cell *positions = NULL;
    size_t model = 0, index = 0, longest = 0;
    for (size_t i = 0; i < samples->n; i++)
        if ((size_t)samples->v[i].T > longest) longest = (size_t)samples->v[i].T;
    if (sweep->positions == KS_POSITIONS_ALL) KS_NEW(positions, longest);
    const size_t bytes = sizeof(ks_cell) + (positions ? longest * sizeof *positions : 0); /* of a cell */
    const size_t rows = samples->n ? samples->n : 1;
    const size_t most = FILE_BYTES / BATCHES / bytes / rows, n = most < 2 ? 2 : most < BATCH_WINDOWS ? most : BATCH_WINDOWS;
    KS_NEW(windows, BATCHES * n);
    for (size_t i = 0; i < BATCHES * n; i++) windows[i].a = windows[i].b = (int)(i % L);
    KS_TRY(ks_results_add_model(r, &info, samples, &model));
    KS_TRY(ks_results_add_sweep(r, model, sweep, windows, BATCHES * n, 0, &index));
    KS_TRY(ks_results_publish(r));
    *flush = 1e300;
    for (size_t i = 0; i < BATCHES * n; i += n) {
        double begin = ks_seconds();
        KS_TRY(store_batch(r, model, index, samples, samples->n, i, n - 1, positions));
        store = fmin(store, ks_seconds() - begin);
        begin = ks_seconds();
        KS_TRY(ks_results_flush(r));
        large = fmin(large, ks_seconds() - begin);
        KS_TRY(store_batch(r, model, index, samples, 1, i + n - 1, 1, positions));
        begin = ks_seconds();
        KS_TRY(ks_results_flush(r));
        *flush = fmin(*flush, ks_seconds() - begin);
    }
    *cell = (store + fmax(0, large - *flush)) / (double)((n - 1) * samples->n);
done:
    free(windows);
    free(positions);
    return rc;
}

/* Root's seconds for a cell and a flush, measured with a small file beside the output. A cell that several sweeps ask for is stored in
 * each. Where that file cannot be written the note says so. */
static int measure_service(const ks_task *t, const ks_config *cfg, plan_facts *f)
{
    int rc = KS_OK;
    const ks_samples some = {t->samples->v, t->samples->n < SAMPLES ? t->samples->n : SAMPLES};
    char *path = NULL, name[] = "service";
    size_t places = 0;
    ks_results *r = NULL;
    ks_sweep sweep = {.name = name};
    for (size_t s = 0; s < t->grid->n_sweeps; s++) {
        places += t->grid->sweeps[s].n_factors * t->grid->sweeps[s].W * t->grid->sweeps[s].n_heads;
        if (cfg->sweeps[s].positions == KS_POSITIONS_ALL) sweep.positions = KS_POSITIONS_ALL;
    }
    KS_GET(path, ks_format("%s.plan-%d", cfg->output, (int)getpid()));
    rc = ks_results_create(&r, path, KS_RESULTS_FORCE, "{}", "");
    if (!rc) rc = store_cells(r, &some, &sweep, (size_t)t->problem.arch->L, &f->flush, &f->service.root_cell);
    if (r) ks_results_abandon(r);
    unlink(path);
    if (rc) { /* a plan is of use without it */
        KS_GET(f->note, ks_strdup(ks_error_text()));
        rc = KS_OK;
    }
    f->service.root_cell *= (double)places / (double)t->grid->n_variants;
    /* Flushes come at regular times; what they leave of root's time is there for the rest. */
    const double left = 1 - fmin(f->flush / FLUSH_SECONDS, 0.9);
    f->service.root_cell /= left;
    f->service.root_pass /= left;
done:
    free(path);
    return rc;
}

static int gather_facts(const ks_task *t, const ks_config *cfg, plan_facts *f)
{
    int rc = KS_OK;
    const ks_plan *p = t->plan;
    double *speed = NULL;
    const int64_t weights = ks_weights_predict(t->model, KS_WEIGHTS_RESIDENT);
    f->service = (ks_service){.root_pass = ROOT_PASS_SECONDS,
                              .reply = REPLY_SECONDS,
                              .max_seconds = LONGEST_PASS_SECONDS,
                              .root_loss = 1.0 / (cfg->threads ? cfg->threads : ks_default_threads())};
    KS_TRY(measure_speed(t, cfg, &f->flops_per_second));
    KS_TRY(measure_service(t, cfg, f));
    KS_NEW(speed, p->ranks);
    for (int r = 0; r < p->ranks; r++) speed[r] = f->flops_per_second;
    KS_TRY(ks_forecast_new(&f->forecast, &t->problem, p->units, p->n_units, t->budget, p->ranks, speed, &f->service));
    for (int r = 0; r < p->ranks; r++) f->bytes_read += f->forecast->passes[r] * weights;
    const double top = ks_forecast_top(f->forecast);
    f->passes = ks_forecast_passes(f->forecast);
    f->compute = top / f->flops_per_second;
    f->balance = top > 0 ? p->flops / p->ranks / top : 1;
    f->efficiency = f->forecast->seconds > 0 ? p->whole_flops / p->ranks / f->flops_per_second / f->forecast->seconds : 1;
    f->weight_bytes = ks_weights_predict(t->model, t->source);
    f->memory_bytes = p->forecast->peak_bytes + f->weight_bytes + KS_PROGRAM_BYTES;
done:
    free(speed);
    return rc;
}

static int add_number(cJSON *o, const char *key, double value)
{
    return cJSON_AddNumberToObject(o, key, value) ? KS_OK : ks_error(KS_EMACHINE, "out of memory");
}

static int print_json(const ks_task *t, const plan_facts *f)
{
    int rc = KS_OK;
    const ks_plan *p = t->plan;
    char *text = NULL;
    cJSON *ranks, *o = cJSON_CreateObject();
    KS_REQUIRE(o && cJSON_AddStringToObject(o, "model", t->name), KS_EMACHINE, "out of memory");
    KS_TRY(add_number(o, "cells", (double)p->cells));
    KS_TRY(add_number(o, "branches", (double)p->branches));
    KS_TRY(add_number(o, "rows", (double)p->rows));
    KS_TRY(add_number(o, "flops", p->flops));
    KS_TRY(add_number(o, "flops_plain", p->plain_flops));
    KS_TRY(add_number(o, "bytes_read", (double)f->bytes_read));
    KS_TRY(add_number(o, "memory_bytes", (double)f->memory_bytes));
    KS_TRY(add_number(o, "activation_bytes", (double)p->forecast->peak_bytes));
    KS_TRY(add_number(o, "weight_bytes", (double)f->weight_bytes));
    KS_TRY(add_number(o, "passes", f->passes));
    KS_TRY(add_number(o, "balance", f->balance));
    KS_TRY(add_number(o, "flops_per_second", f->flops_per_second));
    KS_TRY(add_number(o, "seconds", f->forecast->seconds));
    KS_TRY(add_number(o, "efficiency", f->efficiency));
    KS_TRY(add_number(o, "compute_seconds", f->compute));
    KS_TRY(add_number(o, "root_seconds", f->forecast->root_seconds));
    KS_TRY(add_number(o, "seconds_per_cell", f->service.root_cell));
    KS_TRY(add_number(o, "seconds_per_flush", f->flush));
    KS_TRY(add_number(o, "units", (double)p->n_units));
    KS_TRY(add_number(o, "flops_whole", p->whole_flops));
    KS_REQUIRE(ranks = cJSON_AddArrayToObject(o, "ranks"), KS_EMACHINE, "out of memory");
    for (int r = 0; r < p->ranks; r++) {
        cJSON *rank = cJSON_CreateObject();
        KS_REQUIRE(rank && cJSON_AddItemToArray(ranks, rank), KS_EMACHINE, "out of memory");
        KS_TRY(add_number(rank, "cells", (double)f->forecast->cells[r]));
        KS_TRY(add_number(rank, "flops", f->forecast->flops[r]));
        KS_TRY(add_number(rank, "passes", f->forecast->passes[r]));
    }
    KS_GET(text, cJSON_PrintUnformatted(o));
    puts(text);
done:
    cJSON_free(text);
    cJSON_Delete(o);
    return rc;
}

static void print_ranks(const ks_forecast *f)
{
    enum { LINES = 16 };
    const double n = f->ranks;
    double low[3] = {1e300, 1e300, 1e300}, high[3] = {0}, sum[3] = {0};
    for (int r = 0; r < f->ranks; r++) {
        const double x[3] = {(double)f->cells[r], f->flops[r], f->passes[r]};
        for (int i = 0; i < 3; i++) {
            low[i] = x[i] < low[i] ? x[i] : low[i];
            high[i] = x[i] > high[i] ? x[i] : high[i];
            sum[i] += x[i];
        }
        if (f->ranks <= LINES)
            printf("    rank %-4d %8lld cells  %.3g FLOPs  %d pass%s\n", r, (long long)f->cells[r], f->flops[r], f->passes[r],
                   f->passes[r] == 1 ? "" : "es");
    }
    if (f->ranks <= LINES) return;
    printf("    a rank, min / mean / max: %.0f / %.1f / %.0f cells, %.3g / %.3g / %.3g FLOPs, %.0f / %.1f / %.0f passes\n", low[0],
           sum[0] / n, high[0], low[1], sum[1] / n, high[1], low[2], sum[2] / n, high[2]);
}

static void print_text(const ks_task *t, const plan_facts *f)
{
    const ks_plan *p = t->plan;
    printf("%s (%s, %d layers)\n", t->name, t->problem.arch->family, t->problem.arch->L);
    printf("  samples        %zu\n", t->problem.n_samples);
    printf("  cells          %lld (%zu variants a sample)\n", (long long)p->cells, t->grid->n_variants);
    printf("  branches       %lld with %lld stored rows\n", (long long)p->branches, (long long)p->rows);
    printf("  FLOPs          %.4g; two whole forwards a cell would need %.4g, %.1f times as many\n", p->flops, p->plain_flops,
           p->plain_flops / p->flops);
    printf("  weights        %s, %.1f MB read in all\n", t->source == KS_WEIGHTS_STREAMED ? "streamed" : "resident",
           (double)f->bytes_read / 1e6);
    printf("  memory a rank  %.1f MB: %.1f activations, %.1f weights, %.1f the program itself\n", (double)f->memory_bytes / 1e6,
           (double)p->forecast->peak_bytes / 1e6, (double)f->weight_bytes / 1e6, KS_PROGRAM_BYTES / 1e6);
    printf("  ranks          %d, %zu units, at most %d pass%s a rank, balance %.1f %%\n", p->ranks, p->n_units, f->passes,
           f->passes == 1 ? "" : "es", 100 * f->balance);
    printf("  time           about %.3g s, if every rank is as fast as this machine's %.0f GFLOP/s (measured now)\n", f->forecast->seconds,
           f->flops_per_second / 1e9);
    printf("  efficiency     %.1f %%: cutting samples costs %.1f %% more FLOPs, the rest is waiting\n", 100 * f->efficiency,
           100 * (p->flops / p->whole_flops - 1));
    if (f->note) printf("  root           not measured: %s\n", f->note);
    else
        printf("  root           %.3g s to gather and write: %.2g us a cell, %.2g ms a flush (measured now)%s\n", f->forecast->root_seconds,
               1e6 * f->service.root_cell, 1e3 * f->flush,
               f->forecast->root_seconds > f->compute ? ": THE BOTTLENECK, fewer ranks would do" : "");
    if (p->ranks > 1) print_ranks(f->forecast);
}

int ks_cmd_plan(int argc, char **argv)
{
    int rc = KS_OK;
    ks_config *cfg = NULL;
    ks_corpus *corpus = NULL;
    KS_TRY(ks_options_parse(&cfg, "plan", argc, argv));
    if (cfg->help || cfg->version) {
        if (cfg->help) help();
        else puts("kosweep " KS_VERSION);
        goto done;
    }
    KS_REQUIRE(cfg->corpus, KS_EUSAGE, "no corpus: give --corpus FILE or \"corpus\" in the configuration");
    KS_TRY(ks_corpus_load(&corpus, cfg->corpus));
    for (size_t i = 0; i < cfg->n_models; i++) {
        ks_task *t = NULL;
        plan_facts f = {0};
        KS_TRY(ks_task_prepare(&t, cfg, i, corpus, cfg->ranks, ks_task_memory(cfg, 1)));
        rc = gather_facts(t, cfg, &f);
        if (!rc && cfg->json) rc = print_json(t, &f);
        else if (!rc) print_text(t, &f);
        ks_forecast_free(f.forecast);
        free(f.note);
        ks_task_free(t);
        KS_TRY(rc);
    }
done:
    ks_corpus_free(corpus);
    ks_config_free(cfg);
    return rc;
}
