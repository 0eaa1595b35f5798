/* kosweep plan: what would run. */
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "input/options.h"
#include "plan/forecast.h"
#include "sweep/run.h"
#include "sweep/task.h"

#include <stdio.h>
#include <stdlib.h>

static void help(void)
{
    printf("usage: kosweep plan [CONFIG.json] [options]\n\n"
           "Prints what a sweep would compute: cells, branches, FLOPs, bytes, memory, passes, balance. Nothing is swept.\n\n%s\n"
           "Examples\n"
           "  kosweep plan config/layer_scan.json --ranks 8\n"
           "  kosweep plan --model models/box --corpus corpus/attention_samples_universal.json --all-windows --json\n",
           ks_options_help);
}

typedef struct plan_facts {
    double flops_per_second; /* of a rank: one product with this model's weights, measured now */
    double seconds;          /* of the slowest rank at that speed */
    int64_t bytes_read, weight_bytes, memory_bytes;
    int32_t passes; /* of the rank that has most */
    double balance; /* mean load over largest load */
} plan_facts;

/* Speed of this machine on the product that takes most of the time: up-projection of the first layer, 1024 rows. */
static int measure_speed(const ks_task *t, const ks_config *cfg, double *flops_per_second)
{
    int rc = KS_OK;
    enum { ROWS = 1024 };
    const ks_arch *a = t->problem.arch;
    const size_t D = (size_t)a->D, F = (size_t)a->F;
    const ks_backend *be = NULL;
    ks_device *dev = NULL;
    float *x = NULL, *y = NULL;
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

static int gather_facts(const ks_task *t, const ks_config *cfg, plan_facts *f)
{
    int rc = KS_OK;
    const ks_plan *p = t->plan;
    double top = 0, sum = 0;
    const int64_t weights = ks_weights_predict(t->model, KS_WEIGHTS_RESIDENT);
    for (int r = 0; r < p->ranks; r++) {
        if (p->forecast->flops[r] > top) top = p->forecast->flops[r];
        if (p->forecast->passes[r] > f->passes) f->passes = p->forecast->passes[r];
        sum += p->forecast->flops[r];
        f->bytes_read += p->forecast->passes[r] * weights;
    }
    KS_TRY(measure_speed(t, cfg, &f->flops_per_second));
    f->seconds = top / f->flops_per_second;
    f->balance = top > 0 ? sum / p->ranks / top : 1;
    f->weight_bytes = ks_weights_predict(t->model, t->source);
    f->memory_bytes = p->forecast->peak_bytes + f->weight_bytes + KS_PROGRAM_BYTES;
done:
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
    KS_TRY(add_number(o, "seconds", f->seconds));
    KS_REQUIRE(ranks = cJSON_AddArrayToObject(o, "ranks"), KS_EMACHINE, "out of memory");
    for (int r = 0; r < p->ranks; r++) {
        cJSON *rank = cJSON_CreateObject();
        KS_REQUIRE(rank && cJSON_AddItemToArray(ranks, rank), KS_EMACHINE, "out of memory");
        KS_TRY(add_number(rank, "cells", (double)p->forecast->cells[r]));
        KS_TRY(add_number(rank, "flops", p->forecast->flops[r]));
        KS_TRY(add_number(rank, "passes", p->forecast->passes[r]));
    }
    KS_GET(text, cJSON_PrintUnformatted(o));
    puts(text);
done:
    cJSON_free(text);
    cJSON_Delete(o);
    return rc;
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
    printf("  time           about %.3g s, if every rank is as fast as this machine's %.0f GFLOP/s (measured now)\n", f->seconds,
           f->flops_per_second / 1e9);
    for (int r = 0; p->ranks > 1 && r < p->ranks; r++)
        printf("    rank %-4d %8lld cells  %.3g FLOPs  %d pass%s\n", r, (long long)p->forecast->cells[r], p->forecast->flops[r],
               p->forecast->passes[r], p->forecast->passes[r] == 1 ? "" : "es");
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
        ks_task_free(t);
        KS_TRY(rc);
    }
done:
    ks_corpus_free(corpus);
    ks_config_free(cfg);
    return rc;
}
