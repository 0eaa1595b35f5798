#define _GNU_SOURCE
#include "sweep/run.h"

#include "base/log.h"
#include "sweep/collect.h"
#include "sweep/comm.h"
#include "sweep/hostmem.h"
#include "sweep/resume.h"
#include "sweep/same.h"
#include "sweep/serve.h"
#include "sweep/work.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A run on one rank; the second half is root's. */
typedef struct run {
    const ks_config *cfg;
    int threads;
    const ks_backend *backend;
    ks_device *device;
    ks_memory memory;  /* root's */
    char sharing[512]; /* root's: why weights cannot be sharded, else how */
    bool joined;       /* the group of all ranks' devices */
    ks_task **tasks;   /* [n_models] */
    bool scattered;    /* ranks work, each at its own place: an error cannot be agreed upon any more */

    const char *command_line;
    char when[32];
    char *json; /* the configuration, as the file holds it */
    ks_corpus *corpus;
    ks_former *former; /* the file that is resumed, or NULL */
    char *history;     /* of that file */
    ks_results *results;
    ks_collector **collectors; /* [n_models] NULL: not yet in the file */
    struct work_thread *own;   /* root's worker; the thread may look at it as long as the program lives */
    int64_t bytes_read;
    bool changed, stopped;
} run;

/* How long a device may be behind the others where they share weights. Ranks that die are noticed by messages, much sooner. */
static const double PATIENCE_SECONDS = 300;

int ks_default_threads(void)
{
    cpu_set_t set;
    const int online = (int)sysconf(_SC_NPROCESSORS_ONLN);
    const int mine = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : online;
    const int threads = mine < online ? mine : online / ks_comm_local_size();
    return threads > 0 ? threads : 1;
}

/* Two backends give the same effects, but not the same bits. */
static int same_backend(const run *r)
{
    int rc = KS_OK;
    void *roots = NULL;
    size_t bytes = strlen(r->backend->name) + 1;
    if (ks_comm_rank() == 0) KS_GET(roots, ks_strdup(r->backend->name));
    KS_TRY(ks_comm_broadcast(&roots, &bytes));
    KS_REQUIRE(ks_comm_size() == 1 || !strcmp(roots, r->backend->name), KS_EMACHINE,
               "auto means the backend %s here and %s on root's host; --backend names one for all", r->backend->name, (char *)roots);
done:
    free(roots);
    return rc;
}

/* Whether all ranks' devices can hold weights together: each a device of its own, in the same way. Else r->sharing says why not. */
static bool may_shard(run *r, const ks_device_memory *all)
{
    const int n = ks_comm_size();
    if (n == 1) snprintf(r->sharing, sizeof r->sharing, "there is one rank");
    for (int i = 0; i < n && !*r->sharing; i++)
        if (!all[i].shares) snprintf(r->sharing, sizeof r->sharing, "on %s: %s", ks_comm_host(i), all[i].how);
        else if (strcmp(all[i].how, all[0].how))
            snprintf(r->sharing, sizeof r->sharing, "%s has %s, %s has %s", ks_comm_host(0), all[0].how, ks_comm_host(i), all[i].how);
    for (int i = 0; i < n && !*r->sharing; i++)
        for (int j = 0; j < i && !*r->sharing; j++)
            if (ks_comm_leader(i) == ks_comm_leader(j) && !strcmp(all[i].place, all[j].place))
                snprintf(r->sharing, sizeof r->sharing, "ranks %d and %d on %s share a GPU", j, i, ks_comm_host(i));
    if (*r->sharing) return false;
    snprintf(r->sharing, sizeof r->sharing, "%s", all[0].how);
    return true;
}

/* Root's r->memory becomes what every rank may use, and so each of them: the least of all ranks. Ranks that share a device share what is
 * free there, of which a tenth is left alone: others may need some. Collective. */
static int agree_on_memory(run *r)
{
    int rc = KS_OK;
    const int n = ks_comm_size();
    ks_device_memory *mine = NULL, *all = NULL;
    r->memory = ks_task_memory(r->cfg, ks_comm_local_size());
    if (!r->backend->memory) {
        snprintf(r->sharing, sizeof r->sharing, "the backend is %s", r->backend->name);
        return rc;
    }
    KS_NEW(mine, 1);
    KS_TRY(ks_comm_agree(r->backend->memory(r->device, mine))); /* all have opened theirs */
    rc = ks_comm_send(0, KS_MSG_MEMORY, mine, sizeof *mine);
    mine = NULL;
    if (rc || ks_comm_rank()) goto done;
    KS_NEW(all, n);
    for (int i = 0; i < n; i++) {
        ks_message m;
        KS_TRY(ks_comm_receive(KS_KIND(KS_MSG_MEMORY), INFINITY, &m));
        all[m.from] = *(ks_device_memory *)m.data;
        free(m.data);
    }
    r->memory = (ks_memory){.bytes = INT64_MAX, .device = true, .shards = may_shard(r, all) ? n : 0};
    for (int i = 0; i < n; i++) {
        int64_t sharers = 1, left = all[i].free;
        for (int j = 0; j < n; j++) {
            if (j == i || ks_comm_leader(i) != ks_comm_leader(j) || strcmp(all[i].place, all[j].place)) continue;
            sharers++;
            if (all[j].free < left) left = all[j].free;
        }
        left = left / 10 * 9 / sharers;
        if (left < r->memory.bytes) r->memory.bytes = left;
        if (all[i].own > r->memory.own) r->memory.own = all[i].own;
    }
    if (r->cfg->memory_bytes && (int64_t)r->cfg->memory_bytes < r->memory.bytes) r->memory.bytes = (int64_t)r->cfg->memory_bytes;
    ks_log(KS_LOG_DEBUG, "%.1f MB of device memory a rank", (double)r->memory.bytes * 1e-6);
done:
    free(mine);
    free(all);
    return rc;
}

/* ---- root: the request and the file ---- */

enum { WHEN = 32 };

static void utc(char out[WHEN])
{
    const time_t now = time(NULL);
    strftime(out, WHEN, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
}

/* Everything that can be wrong with the request is found here, before anything is computed or written. */
static int prepare(run *r)
{
    int rc = KS_OK;
    const ks_config *cfg = r->cfg;
    utc(r->when);
    KS_REQUIRE(cfg->corpus, KS_EUSAGE, "no corpus: give --corpus FILE or \"corpus\" in the configuration");
    KS_REQUIRE(cfg->force || cfg->resume || !cfg->output_json || access(cfg->output_json, F_OK), KS_EUSAGE,
               "%s: exists; --force overwrites, --output names another", cfg->output_json);
    KS_TRY(ks_corpus_load(&r->corpus, cfg->corpus));
    for (size_t i = 0; i < cfg->n_models; i++)
        KS_TRY(ks_task_prepare(&r->tasks[i], cfg, i, r->corpus, r->backend, ks_comm_size(), &r->memory));
    KS_GET(r->json, ks_config_json(cfg));
    const int mode = cfg->resume ? KS_RESULTS_RESUME : cfg->force ? KS_RESULTS_FORCE : KS_RESULTS_NEW;
    KS_TRY(ks_results_create(&r->results, cfg->output, mode, r->json, r->corpus->sha256));
    if (cfg->resume) KS_TRY(ks_former_open(&r->former, cfg->output, cfg));
    KS_TRY(ks_former_history(r->former, &r->history));
done:
    return rc;
}

/* Not while a pass is at work: the device is asked. */
static int set_provenance(run *r, const char *ended)
{
    const ks_provenance p = {.time = r->when,
                             .ended = ended,
                             .host = ks_comm_host(0),
                             .backend = r->backend->name,
                             .device = r->backend->describe(r->device),
                             .command_line = r->command_line,
                             .isa = r->backend->describe(r->device),
                             .algorithms = r->backend->algorithms(r->device),
                             .history = r->history,
                             .weights_bytes_read = r->bytes_read,
                             .ranks = ks_comm_size(),
                             .threads = r->threads};
    return ks_results_set_provenance(r->results, &p);
}

static int publish(run *r)
{
    const int rc = set_provenance(r, NULL);
    return rc ? rc : ks_results_publish(r->results);
}

/* Adds model i to the file, with what is known of it already, and plans the rest. */
static int lay_out(run *r, size_t i)
{
    int rc = KS_OK;
    ks_task *t = r->tasks[i];
    const ks_arch *a = t->problem.arch;
    KS_TRY(ks_model_weights_sha256(t->model, t->weights_sha256));
    KS_TRY(ks_model_config_sha256(t->model, t->config_sha256));
    const ks_model_info info = {.name = t->name,
                                .id = t->ref->id,
                                .revision = t->ref->revision,
                                .architecture = a->architecture,
                                .weight_dtype = ks_dtype_name(a->dtype),
                                .precision = ks_precision_names[t->precision],
                                .weights_sha256 = t->weights_sha256,
                                .tokenizer_sha256 = t->tokenizer ? ks_tokenizer_sha256(t->tokenizer) : NULL,
                                .config_sha256 = t->config_sha256,
                                .n_layers = a->L,
                                .n_heads = a->H,
                                .n_kv_heads = a->G,
                                .d_model = a->D,
                                .vocab = a->V,
                                .save_logits = t->save_logits};
    KS_TRY(ks_collector_new(&r->collectors[i], t, r->cfg, r->results, &info));
    const ks_former_task task = {&info, t->samples, t->grid};
    const ks_former_sink sink = {r->collectors[i], ks_collector_put_baseline, ks_collector_put_cell};
    ks_known known = {0};
    KS_TRY(ks_former_import(r->former, &task, &sink, &known));
    t->done = known.done;
    t->baseline_done = known.baseline_done;
    if (known.cells + known.baselines) KS_TRY(ks_task_plan(t, ks_comm_size(), &r->memory));
done:
    return rc;
}

/* ---- all ranks: one model ---- */

typedef struct work_thread {
    const run *r;
    const ks_task *task;
    ks_weights *weights;
} work_thread;

static void *work(void *arg)
{
    const work_thread *w = arg;
    ks_work(w->task, w->r->backend, w->r->device, w->weights, w->r->threads); /* root hears of a failure in ks_serve */
    return NULL;
}

/* Root serves, and works in a second thread; the other ranks work. */
static int compute(run *r, size_t i, ks_weights *weights)
{
    int rc = KS_OK;
    const ks_task *t = r->tasks[i];
    pthread_t thread;
    ks_served served = {0};
    if (ks_comm_rank()) return ks_work(t, r->backend, r->device, weights, r->threads);

    const double begin = ks_seconds();
    const long long cells = ks_collector_cells(r->collectors[i]), known = ks_collector_done(r->collectors[i]);
    if (t->plan->n_units)
        ks_log(KS_LOG_INFO, "%s: %lld cells in %lld branches on %d rank%s", t->name, cells - known, (long long)t->plan->branches,
               ks_comm_size(), ks_comm_size() > 1 ? "s" : "");
    if (!r->own) KS_NEW(r->own, 1);
    *r->own = (work_thread){r, t, weights};
    const int failed = pthread_create(&thread, NULL, work, r->own);
    KS_REQUIRE(!failed, KS_EMACHINE, "no thread: %s", strerror(failed));
    const int rounds = t->sharded ? KS_ROUNDS_ALL : ks_weights_any(t->streamed) ? KS_ROUNDS_HOST : KS_ROUNDS_NONE;
    const ks_serve_options options = {rounds, r->cfg->checkpoint};
    KS_TRY(ks_serve(t, r->collectors[i], r->results, &options, &served));
    pthread_join(thread, NULL);
    r->bytes_read += served.bytes_read;
    KS_TRY(ks_collector_name_tokens(r->collectors[i]));
    r->stopped = served.stopped;
    const long long done = ks_collector_done(r->collectors[i]);
    if (!served.stopped && t->plan->n_units) ks_log(KS_LOG_INFO, "%s: done in %.2f s", t->name, ks_seconds() - begin);
    if (served.stopped) ks_log(KS_LOG_INFO, "%s: %lld of %lld cells done in %.1f s", t->name, done, cells, ks_seconds() - begin);
done:
    return rc;
}

/* The weights of a model, in memory of its own or in one that the ranks of this host share. */
static int open_weights(const ks_task *t, ks_weights **weights, void **shared, size_t *bytes)
{
    int rc = KS_OK;
    if (ks_weights_any(t->streamed) && ks_comm_local_size() > 1) {
        *bytes = ks_weights_shared_bytes(t->model);
        KS_TRY(ks_hostmem_new(shared, *bytes));
    }
    if (*shared) KS_TRY(ks_weights_open_shared(weights, t->model, t->streamed, *shared, ks_comm_local_rank(), ks_comm_local_size()));
    else KS_TRY(ks_weights_open(weights, t->model, t->streamed));
done:
    return rc;
}

/* All ranks' devices, with what of the weights each of them keeps. Collective. */
static int join(run *r)
{
    int rc = KS_OK;
    const char *text = getenv("KOSWEEP_PATIENCE");
    void *group = NULL;
    size_t bytes = sizeof(ks_device_group);
    if (ks_comm_rank() == 0) {
        KS_GET(group, ks_calloc(1, bytes));
        rc = r->backend->new_group(group);
    }
    KS_TRY(ks_comm_agree(rc));
    KS_TRY(ks_comm_broadcast(&group, &bytes));
    rc = r->backend->join(r->device, group, ks_comm_rank(), ks_comm_size(), text && atof(text) > 0 ? atof(text) : PATIENCE_SECONDS);
    KS_TRY(ks_comm_agree(rc));
    r->joined = true;
done:
    free(group);
    return rc;
}

/* Root: what of the weights is where, if several devices could hold them together. */
static void tell_sharding(const run *r, const ks_task *t)
{
    const char *instead = !ks_weights_any(t->streamed)              ? "resident"
                          : t->streamed.layers < t->problem.arch->L ? "streamed in part"
                                                                    : "streamed";
    const char *why = r->memory.shards ? "all devices together have too little memory" : r->sharing;
    if (t->sharded) ks_log(KS_LOG_DEBUG, "%s: weights are sharded over %d ranks (%s)", t->name, ks_comm_size(), r->sharing);
    else if (t->weights == KS_SOURCE_SHARDED) ks_log(KS_LOG_WARN, "%s: weights are not sharded, but %s: %s", t->name, instead, why);
    else if (t->weights == KS_SOURCE_AUTO && ks_weights_any(t->streamed) && r->memory.device)
        ks_log(KS_LOG_DEBUG, "%s: weights are not sharded, but %s: %s", t->name, instead, why);
}

static int run_model(run *r, size_t i)
{
    int rc = KS_OK;
    ks_weights *weights = NULL;
    void *shared = NULL;
    size_t bytes = 0;
    if (ks_comm_rank() == 0 && !r->collectors[i]) {
        rc = lay_out(r, i);
        if (!rc) rc = publish(r);
    }
    KS_TRY(ks_comm_agree(rc));
    KS_TRY(ks_task_share(&r->tasks[i]));
    if (ks_comm_rank() == 0) tell_sharding(r, r->tasks[i]);
    if (r->tasks[i]->sharded && !r->joined) KS_TRY(join(r));
    KS_TRY(ks_comm_agree(ks_same_model(r->tasks[i])));
    KS_TRY(ks_comm_agree(open_weights(r->tasks[i], &weights, &shared, &bytes)));
    r->scattered = true;
    KS_TRY(compute(r, i, weights));
    r->scattered = false;
    KS_TRY(ks_comm_agree(r->stopped ? ks_error(KS_ESTOPPED, "stopped with work left; the same command with --resume goes on") : KS_OK));
done:
    if (r->scattered) return rc; /* a thread may still be at work with all of this */
    ks_weights_close(weights);
    ks_hostmem_free(shared, bytes);
    return rc;
}

/* A file that is resumed is replaced as a whole, so that everything it holds must be in the new layout first. */
static int lay_out_former(run *r)
{
    int rc = KS_OK;
    r->changed = !r->former || !ks_former_ended(r->former, r->json, r->corpus->sha256);
    for (size_t i = 0; r->former && i < r->cfg->n_models; i++) {
        KS_TRY(lay_out(r, i));
        r->changed |= r->tasks[i]->plan->n_units > 0;
    }
    if (r->former && r->changed) KS_TRY(publish(r));
done:
    return rc;
}

/* Root: the last words of the file. */
static int finish(run *r)
{
    int rc = KS_OK;
    ks_results *results = r->results;
    char now[WHEN];
    if (!r->changed) {
        ks_log(KS_LOG_INFO, "%s is complete: nothing to compute", r->cfg->output);
        return rc;
    }
    utc(now);
    KS_TRY(set_provenance(r, now));
    r->results = NULL;
    KS_TRY(ks_results_close(results));
done:
    return rc;
}

/* Ranks are somewhere in their passes and cannot be asked to return: they end here. Root has the last word. */
static _Noreturn void end_scattered(run *r, int rc)
{
    if (ks_comm_rank()) {
        sleep(10); /* root ends the job within moments; if it cannot, this rank does */
        ks_log(KS_LOG_ERROR, "on %s: %s", ks_comm_host(ks_comm_rank()), ks_error_text());
    } else {
        ks_log_progress("%s", "");
        ks_log(KS_LOG_ERROR, "%s", ks_error_text());
        ks_results_break_off(r->results);
    }
    ks_comm_abort(rc);
}

int ks_run(const ks_config *cfg, const char *command_line)
{
    int rc = KS_OK;
    const bool root = ks_comm_rank() == 0;
    run r = {.cfg = cfg, .command_line = command_line, .threads = cfg->threads ? cfg->threads : ks_default_threads()};
    ks_comm_catch_signals();
    KS_NEW(r.tasks, cfg->n_models);
    KS_NEW(r.collectors, cfg->n_models);
    rc = ks_backend_find(&r.backend, ks_backend_names[cfg->backend]);
    if (!rc)
        rc = r.backend->open(&r.device,
                             &(ks_device_options){.threads = r.threads, .local_rank = ks_comm_local_rank(), .memory = cfg->memory_bytes});
    if (!rc) ks_log(KS_LOG_DEBUG, "backend %s: %s", r.backend->name, r.backend->describe(r.device));
    KS_TRY(ks_comm_agree(rc));
    KS_TRY(ks_comm_agree(same_backend(&r)));
    KS_TRY(ks_comm_agree(agree_on_memory(&r)));
    KS_TRY(ks_comm_agree(root ? prepare(&r) : KS_OK));
    KS_TRY(ks_comm_agree(root ? lay_out_former(&r) : KS_OK));
    for (size_t i = 0; i < cfg->n_models && !rc; i++) rc = run_model(&r, i);
    if (r.scattered) end_scattered(&r, rc);
    if (root && (!rc || rc == KS_ESTOPPED)) {
        const int lost = finish(&r);
        if (lost) rc = lost;
    }
    rc = ks_comm_agree(rc);
done:
    if (r.results) ks_results_break_off(r.results);
    for (size_t i = 0; r.tasks && i < cfg->n_models; i++) {
        ks_task_free(r.tasks[i]);
        ks_collector_free(r.collectors[i]);
    }
    free(r.own);
    free(r.tasks);
    free(r.collectors);
    free(r.history);
    free(r.json);
    ks_former_free(r.former);
    ks_corpus_free(r.corpus);
    if (r.device) r.backend->close(r.device);
    return rc;
}
