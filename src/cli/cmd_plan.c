/* kosweep plan: what would run. */
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "input/options.h"
#include "plan/costs.h"
#include "sweep/results.h"
#include "sweep/run.h"
#include "sweep/task.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void help(void)
{
    printf(
        "usage: kosweep plan [CONFIG.json] [options]\n\n"
        "Prints what a sweep would compute: cells, branches, FLOPs, bytes, memory, passes, balance, efficiency. Nothing is swept.\n\n%s\n"
        "Examples\n"
        "  kosweep plan config/layer_scan.json --ranks 8\n"
        "  kosweep plan --model models/box --corpus corpus/attention_samples_universal.json --all-windows --json\n"
        "  kosweep plan --model Qwen/Qwen2.5-Coder-7B-Instruct --corpus corpus/attention_samples_universal.json --device h200\n",
        ks_options_help);
}

typedef struct plan_facts {
    double flops_per_second; /* of a rank: one product with this model's weights, measured now */
    ks_service service;
    ks_forecast *forecast; /* of ranks of this speed, with root's service */
    ks_cost_model model;   /* --device: its gpu is not NULL, and forecast is part of: */
    ks_gpu_forecast *on_gpu;
    int64_t fixed_bytes; /* beside activations and weights */
    double efficiency;   /* ideal time (FLOPs divide evenly, no sample is cut, root costs nothing) over predicted time */
    double flush;        /* root's seconds for a flush, whatever is in it */
    double compute;      /* seconds of the rank that computes longest */
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
        KS_TRY(be->linear(dev, y, F, x, be->form(layer->up.dtype, KS_GRADE_FULL), &layer->up, NULL, ROWS, KS_GRADE_FULL));
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

/* Forecast, and what follows from it, of ranks on this machine. */
static int act_out(const ks_task *t, const ks_config *cfg, plan_facts *f)
{
    int rc = KS_OK;
    const ks_plan *p = t->plan;
    double *speed = NULL;
    KS_TRY(measure_speed(t, cfg, &f->flops_per_second));
    KS_NEW(speed, p->ranks);
    for (int r = 0; r < p->ranks; r++) speed[r] = f->flops_per_second;
    KS_TRY(ks_forecast_new(&f->forecast, &t->problem, p->units, p->n_units, t->budget, p->ranks, speed, &f->service));
    for (int r = 0; r < p->ranks; r++) f->bytes_read += f->forecast->passes[r] * ks_weights_predict(t->model, KS_ALL_RESIDENT, false);
    f->compute = ks_forecast_top(f->forecast) / f->flops_per_second;
    f->weight_bytes = ks_weights_predict(t->model, t->streamed, false);
    f->fixed_bytes = KS_PROGRAM_BYTES;
    f->memory_bytes = p->forecast->peak_bytes + f->weight_bytes + f->fixed_bytes;
done:
    free(speed);
    return rc;
}

/* The same of GPUs of the table. */
static int act_out_on_gpus(const ks_task *t, const ks_config *cfg, plan_facts *f)
{
    int rc = KS_OK;
    const ks_plan *p = t->plan;
    f->model.arch = t->problem.arch;
    f->model.precision = cfg->precision;
    f->model.streamed = t->streamed;
    f->service.root_loss = 0; /* root's GPU goes on while root serves */
    KS_TRY(ks_gpu_forecast_new(&f->on_gpu, &f->model, &t->problem, p->units, p->n_units, t->budget, p->ranks, &f->service));
    f->forecast = f->on_gpu->forecast;
    f->flops_per_second = f->on_gpu->all.seconds > 0 ? p->flops / f->on_gpu->all.seconds : ks_cost_speed(&f->model);
    f->bytes_read = (int64_t)f->on_gpu->all.copied;
    f->compute = f->on_gpu->busiest;
    f->weight_bytes = ks_weights_predict(t->model, t->streamed, true);
    f->fixed_bytes = KS_GPU_FIXED_BYTES;
    f->memory_bytes = f->forecast->peak_bytes + f->weight_bytes + f->fixed_bytes;
done:
    return rc;
}

static int gather_facts(const ks_task *t, const ks_config *cfg, plan_facts *f)
{
    int rc = KS_OK;
    const ks_plan *p = t->plan;
    f->service = (ks_service){.root_pass = ROOT_PASS_SECONDS,
                              .reply = REPLY_SECONDS,
                              .max_seconds = LONGEST_PASS_SECONDS,
                              .root_loss = 1.0 / (cfg->threads ? cfg->threads : ks_default_threads())};
    KS_TRY(measure_service(t, cfg, f));
    KS_TRY(f->model.gpu ? act_out_on_gpus(t, cfg, f) : act_out(t, cfg, f));
    const double top = ks_forecast_top(f->forecast);
    f->passes = ks_forecast_passes(f->forecast);
    f->balance = top > 0 ? p->flops / p->ranks / top : 1;
    f->efficiency = f->forecast->seconds > 0 ? p->whole_flops / p->ranks / f->flops_per_second / f->forecast->seconds : 1;
done:
    return rc;
}

static int add_number(cJSON *o, const char *key, double value)
{
    return cJSON_AddNumberToObject(o, key, value) ? KS_OK : ks_error(KS_EMACHINE, "out of memory");
}

static int add_times(cJSON *o, const char *key, const char *const *names, const double *seconds)
{
    int rc = KS_OK;
    cJSON *times = cJSON_AddObjectToObject(o, key);
    KS_REQUIRE(times, KS_EMACHINE, "out of memory");
    for (int i = 0; names[i]; i++) KS_TRY(add_number(times, names[i], seconds[i]));
done:
    return rc;
}

/* Of the peak of the units that products run on, while any GPU computes. */
static double share_of_peak(const plan_facts *f)
{
    const ks_cost *c = &f->on_gpu->all;
    return c->seconds > 0 ? c->products / c->seconds / ks_cost_peak(&f->model) : 0;
}

static int add_device(cJSON *o, const ks_task *t, const plan_facts *f)
{
    int rc = KS_OK;
    const ks_gpu_forecast *g = f->on_gpu;
    const double seconds = f->forecast->seconds > 0 ? f->forecast->seconds : 1;
    cJSON *d = cJSON_AddObjectToObject(o, "device");
    KS_REQUIRE(d && cJSON_AddStringToObject(d, "name", f->model.gpu->name) &&
                   cJSON_AddStringToObject(d, "weights", ks_weights_any(f->model.streamed) ? "streamed" : "resident"),
               KS_EMACHINE, "out of memory");
    KS_TRY(add_number(d, "memory_bytes", (double)f->model.gpu->memory));
    KS_TRY(add_number(d, "seconds", g->all.seconds));
    KS_TRY(add_number(d, "pass_seconds", g->longest.seconds));
    KS_TRY(add_times(d, "parts", ks_cost_parts, g->all.part));
    KS_TRY(add_times(d, "bounds", ks_cost_bounds, g->all.bound));
    KS_TRY(add_number(d, "products_flops", g->all.products));
    KS_TRY(add_number(d, "share_of_peak", share_of_peak(f)));
    KS_TRY(add_number(d, "cells_per_second", (double)t->plan->cells / seconds));
    KS_TRY(add_number(d, "samples_per_second", (double)t->problem.n_samples / seconds));
done:
    return rc;
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
    KS_TRY(add_number(o, "activation_bytes", (double)(f->memory_bytes - f->weight_bytes - f->fixed_bytes)));
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
    if (f->on_gpu) KS_TRY(add_device(o, t, f));
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

static void print_head(const ks_task *t, const plan_facts *f)
{
    const ks_plan *p = t->plan;
    printf("%s (%s, %d layers)", t->name, t->problem.arch->family, t->problem.arch->L);
    if (f->on_gpu) printf(" on %s, as docs/costs.md predicts it", f->model.gpu->title);
    printf("\n  samples        %zu\n", t->problem.n_samples);
    printf("  cells          %lld (%zu variants a sample)\n", (long long)p->cells, t->grid->n_variants);
    printf("  branches       %lld with %lld stored rows\n", (long long)p->branches, (long long)p->rows);
    printf("  FLOPs          %.4g; two whole forwards a cell would need %.4g, %.1f times as many\n", p->flops, p->plain_flops,
           p->plain_flops / p->flops);
    char streamed[64] = "resident";
    if (ks_weights_any(t->streamed)) snprintf(streamed, sizeof streamed, "streamed");
    if (ks_weights_any(t->streamed) && t->streamed.layers < t->problem.arch->L)
        snprintf(streamed, sizeof streamed, "%d of %d layers%s streamed", t->streamed.layers, t->problem.arch->L,
                 t->streamed.head ? " and the head" : "");
    printf("  weights        %s, %.1f MB %s\n", streamed, (double)f->bytes_read / 1e6, f->on_gpu ? "copied to GPUs in all" : "read in all");
    printf("  memory a rank  %.1f MB: %.1f activations, %.1f weights, %.1f %s\n", (double)f->memory_bytes / 1e6,
           (double)(f->memory_bytes - f->weight_bytes - f->fixed_bytes) / 1e6, (double)f->weight_bytes / 1e6, (double)f->fixed_bytes / 1e6,
           f->on_gpu ? "CUDA and cuBLAS" : "the program itself");
    printf("  ranks          %d, %zu units, at most %d pass%s a rank, balance %.1f %%\n", p->ranks, p->n_units, f->passes,
           f->passes == 1 ? "" : "es", 100 * f->balance);
}

static void print_shares(const char *label, const char *const *names, const double *seconds, double all)
{
    printf("  %-14s ", label);
    for (int i = 0; names[i]; i++) printf("%s%s %.1f %%", i ? ", " : "", names[i], all > 0 ? 100 * seconds[i] / all : 0);
    printf("\n");
}

static void print_times(const ks_task *t, const plan_facts *f)
{
    const ks_plan *p = t->plan;
    const ks_gpu_forecast *g = f->on_gpu;
    if (!g) {
        printf("  time           about %.3g s, if every rank is as fast as this machine's %.0f GFLOP/s (measured now)\n",
               f->forecast->seconds, f->flops_per_second / 1e9);
        return;
    }
    int most = 0;
    for (int i = 1; i < KS_COST_BOUNDS; i++)
        if (g->all.bound[i] > g->all.bound[most]) most = i;
    printf("  time           about %.3g s, the longest pass %.3g s: %.4g cells/s, %.3g samples/s; not yet held against a GPU\n",
           f->forecast->seconds, g->longest.seconds, (double)p->cells / f->forecast->seconds,
           (double)t->problem.n_samples / f->forecast->seconds);
    print_shares("parts", ks_cost_parts, g->all.part, g->all.seconds);
    print_shares("waits for", ks_cost_bounds, g->all.bound, g->all.seconds);
    printf("  bound by       %s; products are done at %.0f %% of the GPU's %.0f TFLOP/s\n", ks_cost_bounds[most], 100 * share_of_peak(f),
           ks_cost_peak(&f->model) / 1e12);
}

static void print_text(const ks_task *t, const plan_facts *f)
{
    const ks_plan *p = t->plan;
    print_head(t, f);
    print_times(t, f);
    printf("  efficiency     %.1f %%: cutting samples costs %.1f %% more FLOPs, the rest is waiting\n", 100 * f->efficiency,
           100 * (p->flops / p->whole_flops - 1));
    if (f->note) printf("  root           not measured: %s\n", f->note);
    else
        printf("  root           %.3g s to gather and write: %.2g us a cell, %.2g ms a flush (measured now)%s\n", f->forecast->root_seconds,
               1e6 * f->service.root_cell, 1e3 * f->flush,
               f->forecast->root_seconds > f->compute ? ": THE BOTTLENECK, fewer ranks would do" : "");
    if (p->ranks > 1) print_ranks(f->forecast);
}

static void print_devices(void)
{
    printf("%-10s %-30s %9s %9s %9s %7s %7s %7s %7s\n", "name", "GPU", "bf16", "fp32", "fp64", "memory", "GB/s", "host", "link");
    for (const ks_gpu_facts *g = ks_gpus; g->name; g++)
        printf("%-10s %-30s %9.0f %9.1f %9.2f %7.0f %7.0f %7.0f %7.0f\n", g->name, g->title, g->bf16 / 1e12, g->fp32 / 1e12, g->fp64 / 1e12,
               (double)g->memory / 1e9, g->bandwidth / 1e9, g->host / 1e9, g->interconnect / 1e9);
    printf("peak TFLOP/s (bf16: dense, on tensor cores, summed in fp32), GB; host, link: GB/s in one direction, 0: by way of the host\n");
}

/* What a rank may use of its GPU, or of this host. */
static int memory_of(const ks_config *cfg, const ks_gpu_facts *gpu, ks_memory *out)
{
    int rc = KS_OK;
    *out = ks_task_memory(cfg, 1);
    if (!gpu) goto done;
    *out = (ks_memory){.bytes = gpu->memory, .own = KS_GPU_FIXED_BYTES, .device = true};
    if (cfg->memory_bytes && cfg->memory_bytes < (uint64_t)out->bytes) out->bytes = (int64_t)cfg->memory_bytes;
    KS_REQUIRE(out->bytes > KS_GPU_FIXED_BYTES, KS_EMACHINE, "--memory %.1f MB: CUDA alone takes about %.1f MB of a GPU",
               (double)out->bytes / 1e6, (double)KS_GPU_FIXED_BYTES / 1e6);
done:
    return rc;
}

static int prepare(ks_task **t, const ks_config *cfg, size_t i, const ks_corpus *corpus, const ks_gpu_facts *gpu)
{
    int rc = KS_OK;
    ks_memory memory;
    const ks_backend *be = NULL;
    KS_TRY(memory_of(cfg, gpu, &memory));
    if (!gpu && ks_backend_find(&be, ks_backend_names[cfg->backend])) be = NULL;
    KS_TRY(ks_task_prepare(t, cfg, i, corpus, be, cfg->ranks, &memory));
    if (gpu && !ks_model_has_weights((*t)->model))
        ks_log(KS_LOG_WARN, "%s: no weights here; planned by config.json, as if all of them were %s", (*t)->dir,
               ks_dtype_name((*t)->problem.arch->dtype));
    if (gpu && (*t)->problem.arch->dtype == KS_BF16) { /* as src/compute/cuda/cuda.c */
        (*t)->problem.forms = (ks_forms){3, cfg->precision == KS_PRECISION_FAST ? 1 : 2, 3};
        KS_TRY(ks_task_plan(*t, cfg->ranks, &memory));
    }
done:
    return rc;
}

int ks_cmd_plan(int argc, char **argv)
{
    int rc = KS_OK;
    ks_config *cfg = NULL;
    ks_corpus *corpus = NULL;
    const ks_gpu_facts *gpu = NULL;
    KS_TRY(ks_options_parse(&cfg, "plan", argc, argv));
    if (cfg->help || cfg->version) {
        if (cfg->help) help();
        else puts("kosweep " KS_VERSION);
        goto done;
    }
    if (cfg->device && !strcmp(cfg->device, "list")) {
        print_devices();
        goto done;
    }
    if (cfg->device) KS_TRY(ks_gpu_find(&gpu, cfg->device));
    KS_REQUIRE(cfg->corpus, KS_EUSAGE, "no corpus: give --corpus FILE or \"corpus\" in the configuration");
    KS_TRY(ks_corpus_load(&corpus, cfg->corpus));
    for (size_t i = 0; i < cfg->n_models; i++) {
        ks_task *t = NULL;
        plan_facts f = {.model.gpu = gpu};
        rc = prepare(&t, cfg, i, corpus, gpu);
        if (!rc) rc = gather_facts(t, cfg, &f);
        if (!rc && cfg->json) rc = print_json(t, &f);
        else if (!rc) print_text(t, &f);
        if (f.on_gpu) ks_gpu_forecast_free(f.on_gpu);
        else ks_forecast_free(f.forecast);
        free(f.note);
        ks_task_free(t);
        KS_TRY(rc);
    }
done:
    ks_corpus_free(corpus);
    ks_config_free(cfg);
    return rc;
}
