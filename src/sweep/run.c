#define _GNU_SOURCE
#include "sweep/run.h"

#include "base/log.h"
#include "plan/queue.h"
#include "sweep/comm.h"
#include "sweep/results.h"
#include "sweep/task.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGE_BYTES = 4 << 20 }; /* results are sent when a message has grown to this, and after each pass */

/* Kinds of records in a message to root. */
enum { RECORD_BASELINE, RECORD_CELL, RECORD_FAILED };

/* Places of a variant in the sweeps: places of variant v are place[start[v]] .. place[start[v+1]-1]. */
typedef struct place {
    int32_t sweep;
    uint32_t factor, window, head;
} place;

/* What a rank does with results: root stores them, the others pack them. */
typedef struct collector {
    const ks_task *task;
    ks_wire wire; /* ranks other than root */

    ks_results *results; /* root */
    size_t model;        /* index in the result file */
    size_t *sweeps;      /* [n_sweeps] */
    size_t *start;       /* [n_variants + 1] */
    place *places;
    int64_t cells, cells_done;
    double begin, own_done, own_total; /* seconds; FLOPs of root's own passes */
    double pass_flops;
    double flushed;   /* when, seconds */
    bool rank_failed; /* another rank's message is the error */
} collector;

static int map_places(collector *c)
{
    int rc = KS_OK;
    const ks_grid *g = c->task->grid;
    size_t n = 0;
    KS_NEW(c->start, g->n_variants + 1);
    for (size_t s = 0; s < g->n_sweeps; s++) {
        const ks_grid_sweep *w = &g->sweeps[s];
        const size_t m = w->n_factors * w->W * w->n_heads;
        n += m;
        for (size_t i = 0; i < m; i++) c->start[w->variant[i] + 1]++;
    }
    for (size_t v = 0; v < g->n_variants; v++) c->start[v + 1] += c->start[v];
    KS_NEW(c->places, n);
    for (size_t s = g->n_sweeps; s-- > 0;) {
        const ks_grid_sweep *w = &g->sweeps[s];
        for (size_t i = w->n_factors * w->W * w->n_heads; i-- > 0;)
            c->places[--c->start[w->variant[i] + 1]] =
                (place){(int32_t)s, (uint32_t)(i / w->n_heads / w->W), (uint32_t)(i / w->n_heads % w->W), (uint32_t)(i % w->n_heads)};
    }
    /* The counting down has moved each start one variant up. */
    for (size_t v = 0; v < g->n_variants; v++) c->start[v] = c->start[v + 1];
    c->start[g->n_variants] = n;
done:
    return rc;
}

static void show_progress(collector *c, double share_of_pass)
{
    const double spent = ks_seconds() - c->begin, done = (c->own_done + share_of_pass * c->pass_flops) / c->own_total;
    if (done <= 0.002) return;
    const double left = spent / done - spent;
    ks_log_progress("%s: %3.0f %%, %.1f cells/s, %d:%02d left", c->task->name, 100 * done, done * (double)c->cells / spent,
                    (int)(left / 60), (int)left % 60);
}

static int store_baseline(void *ctx, int32_t sample, const ks_baseline *b, const float *logits, const double *strength, double uniform)
{
    int rc = KS_OK;
    collector *c = ctx;
    const size_t L = (size_t)c->task->problem.arch->L, H = (size_t)c->task->problem.arch->H;
    float *by_head = NULL;
    double *by_layer = NULL;
    KS_NEW(by_head, L * H);
    KS_NEW(by_layer, L);
    for (size_t l = 0; l < L; l++) {
        for (size_t h = 0; h < H; h++) {
            by_head[l * H + h] = (float)strength[l * H + h];
            by_layer[l] += strength[l * H + h];
        }
        by_layer[l] /= (double)H;
    }
    KS_TRY(ks_results_put_baseline(c->results, c->model, (size_t)sample, b, logits, by_head, uniform, by_layer));
done:
    free(by_head);
    free(by_layer);
    return rc;
}

static int store_cell(void *ctx, int32_t sample, int32_t variant, const ks_cell *cell, const ks_position_cell *positions)
{
    int rc = KS_OK;
    collector *c = ctx;
    for (size_t i = c->start[variant]; i < c->start[variant + 1]; i++) {
        const place *p = &c->places[i];
        KS_TRY(
            ks_results_put_cell(c->results, c->model, c->sweeps[p->sweep], p->factor, p->window, p->head, (size_t)sample, cell, positions));
    }
    c->cells_done++;
done:
    return rc;
}

static int send_wire(collector *c)
{
    ks_wire w = c->wire;
    c->wire = (ks_wire){0};
    return w.bytes ? ks_comm_send(w.data, w.bytes) : KS_OK;
}

static int pack_baseline(void *ctx, int32_t sample, const ks_baseline *b, const float *logits, const double *strength, double uniform)
{
    int rc = KS_OK;
    collector *c = ctx;
    const ks_arch *a = c->task->problem.arch;
    const int kind = RECORD_BASELINE;
    const bool has_logits = logits != NULL;
    KS_TRY(KS_PUT(&c->wire, kind));
    KS_TRY(KS_PUT(&c->wire, sample));
    KS_TRY(KS_PUT(&c->wire, *b));
    KS_TRY(KS_PUT(&c->wire, uniform));
    KS_TRY(ks_wire_put(&c->wire, strength, (size_t)a->L * (size_t)a->H * sizeof *strength));
    KS_TRY(KS_PUT(&c->wire, has_logits));
    if (has_logits) KS_TRY(ks_wire_put(&c->wire, logits, (size_t)a->V * sizeof *logits));
done:
    return rc;
}

static int pack_cell(void *ctx, int32_t sample, int32_t variant, const ks_cell *cell, const ks_position_cell *positions)
{
    int rc = KS_OK;
    collector *c = ctx;
    const int kind = RECORD_CELL;
    const bool has_positions = positions != NULL;
    KS_TRY(KS_PUT(&c->wire, kind));
    KS_TRY(KS_PUT(&c->wire, sample));
    KS_TRY(KS_PUT(&c->wire, variant));
    KS_TRY(KS_PUT(&c->wire, *cell));
    KS_TRY(KS_PUT(&c->wire, has_positions));
    if (has_positions) KS_TRY(ks_wire_put(&c->wire, positions, (size_t)c->task->tokens[sample].T * sizeof *positions));
    if (c->wire.bytes > MESSAGE_BYTES) KS_TRY(send_wire(c));
done:
    return rc;
}

/* Stores every record of a message; a rank's failure becomes root's. */
static int take_message(collector *c, int from, ks_wire *w)
{
    int rc = KS_OK;
    const ks_arch *a = c->task->problem.arch;
    double *strength = NULL;
    float *logits = NULL;
    ks_position_cell *positions = NULL;
    int32_t longest = 0;
    for (size_t i = 0; i < c->task->problem.n_samples; i++)
        if (c->task->tokens[i].T > longest) longest = c->task->tokens[i].T;
    KS_NEW(strength, (size_t)a->L * (size_t)a->H);
    KS_NEW(logits, a->V);
    KS_NEW(positions, longest);
    while (w->at < w->bytes) {
        int kind = -1;
        int32_t sample = 0, variant = 0;
        KS_TRY(KS_TAKE(w, kind));
        if (kind == RECORD_FAILED) {
            int code = KS_EMACHINE;
            char text[1024], host[256];
            KS_TRY(KS_TAKE(w, code));
            KS_TRY(KS_TAKE(w, text));
            KS_TRY(KS_TAKE(w, host));
            c->rank_failed = true;
            rc = ks_error(code, "rank %d on %.255s: %.1023s", from, host, text);
            goto done;
        }
        KS_TRY(KS_TAKE(w, sample));
        KS_REQUIRE(sample >= 0 && (size_t)sample < c->task->problem.n_samples, KS_EMACHINE, "rank %d sent a damaged message", from);
        if (kind == RECORD_BASELINE) {
            ks_baseline b;
            double uniform = 0;
            bool has_logits = false;
            KS_TRY(KS_TAKE(w, b));
            KS_TRY(KS_TAKE(w, uniform));
            KS_TRY(ks_wire_get(w, strength, (size_t)a->L * (size_t)a->H * sizeof *strength));
            KS_TRY(KS_TAKE(w, has_logits));
            if (has_logits) KS_TRY(ks_wire_get(w, logits, (size_t)a->V * sizeof *logits));
            KS_TRY(store_baseline(c, sample, &b, has_logits ? logits : NULL, strength, uniform));
        } else {
            ks_cell cell;
            bool has_positions = false;
            KS_TRY(KS_TAKE(w, variant));
            KS_REQUIRE(variant >= 0 && (size_t)variant < c->task->grid->n_variants, KS_EMACHINE, "rank %d sent a damaged message", from);
            KS_TRY(KS_TAKE(w, cell));
            KS_TRY(KS_TAKE(w, has_positions));
            if (has_positions) KS_TRY(ks_wire_get(w, positions, (size_t)c->task->tokens[sample].T * sizeof *positions));
            KS_TRY(store_cell(c, sample, variant, &cell, has_positions ? positions : NULL));
        }
    }
done:
    free(strength);
    free(logits);
    free(positions);
    return rc;
}

/* What was gathered goes to the file every few seconds. */
static int flush_now_and_then(collector *c)
{
    enum { SECONDS = 2 };
    if (ks_seconds() - c->flushed < SECONDS) return KS_OK;
    const int rc = ks_results_flush(c->results);
    c->flushed = ks_seconds();
    return rc;
}

/* Root: takes what has arrived; with wait until every cell is there. */
static int gather(collector *c, bool wait)
{
    int rc = KS_OK;
    ks_wire w = {0};
    while (!wait || c->cells_done < c->cells) {
        int from = 0;
        KS_TRY(ks_comm_receive(wait, &from, (void **)&w.data, &w.bytes));
        if (!w.data) break;
        w.at = 0;
        KS_TRY(take_message(c, from, &w));
        free(w.data);
        w.data = NULL;
        KS_TRY(flush_now_and_then(c));
    }
    KS_TRY(flush_now_and_then(c));
done:
    free(w.data);
    return rc;
}

/* Root, after every layer of its own passes: what the others have sent is taken soon, and a rank that fails is heard of. */
static int progress(void *ctx, double share)
{
    show_progress(ctx, share);
    return gather(ctx, false);
}

/* A baseline that is not finite comes from the weights or from an overflow: say which. */
static int explain_not_finite(const ks_task *t, int rc)
{
    char *tensor = NULL, text[1024];
    snprintf(text, sizeof text, "%s", ks_error_text());
    if (ks_model_find_nonfinite(t->model, &tensor) == KS_OK && tensor)
        ks_error(rc, "%s: %s: tensor %s holds a value that is not finite", t->dir, text, tensor);
    else ks_error(rc, "%s: %s: all weights are finite, so a state overflows fp32", t->dir, text);
    free(tensor);
    return rc;
}

/* This rank's passes of a task. */
static int compute(collector *c, const ks_backend *be, ks_device *dev)
{
    int rc = KS_OK;
    const ks_task *t = c->task;
    const bool root = ks_comm_rank() == 0;
    const int rank = ks_comm_rank(), ranks = ks_comm_size();
    ks_unit *own = NULL, *pass = NULL;
    int32_t *index = NULL;
    ks_queue *queue = NULL;
    ks_weights *weights = NULL;
    const ks_sink sink = {c, root ? store_baseline : pack_baseline, root ? store_cell : pack_cell, root ? progress : NULL};
    KS_TRY(ks_weights_open(&weights, t->model, t->source));
    const ks_job job = {be, dev, t->model, weights, &t->problem, t->tokens, t->precision, t->save_logits};
    /* Unit i of the plan is rank i % ranks's. */
    size_t n_own = 0;
    KS_NEW(own, t->plan->n_units);
    KS_NEW(pass, t->plan->n_units);
    KS_NEW(index, t->plan->n_units);
    for (size_t i = (size_t)rank; i < t->plan->n_units; i += (size_t)ranks) own[n_own++] = t->plan->units[i];
    KS_TRY(ks_queue_new(&queue, &t->problem, own, n_own, t->budget));
    c->own_total = ks_queue_flops(queue);
    while (ks_queue_units(queue)) {
        const size_t n = ks_queue_take(queue, ks_queue_flops(queue), index);
        c->pass_flops = 0;
        for (size_t i = 0; i < n; i++) {
            pass[i] = own[index[i]];
            c->pass_flops += pass[i].flops;
        }
        KS_TRY(ks_weights_begin(weights, 0, NULL));
        rc = ks_engine_pass(&job, pass, n, &sink);
        ks_weights_end(weights);
        if (rc == KS_EINPUT && !c->rank_failed) rc = explain_not_finite(t, rc);
        if (rc) goto done;
        c->own_done += c->pass_flops;
        KS_TRY(root ? gather(c, false) : send_wire(c));
    }
done:
    ks_queue_free(queue);
    free(own);
    free(pass);
    free(index);
    ks_weights_close(weights);
    return rc;
}

/* Tells root why this rank stops, then waits to be ended: root writes the last word. */
static _Noreturn void fail_to_root(collector *c, int code)
{
    const int kind = RECORD_FAILED;
    char text[1024] = "", host[256] = "";
    snprintf(text, sizeof text, "%s", ks_error_text());
    gethostname(host, sizeof host - 1);
    free(c->wire.data);
    c->wire = (ks_wire){0};
    if (KS_PUT(&c->wire, kind) || KS_PUT(&c->wire, code) || KS_PUT(&c->wire, text) || KS_PUT(&c->wire, host) || send_wire(c))
        ks_comm_abort(code);
    sleep(10); /* root ends the job within moments; if it cannot, this rank does */
    ks_comm_abort(code);
}

static int add_to_file(collector *c, const ks_config *cfg)
{
    int rc = KS_OK;
    const ks_task *t = c->task;
    const ks_arch *a = t->problem.arch;
    char weights_sha[65];
    KS_TRY(ks_model_weights_sha256(t->model, weights_sha));
    const ks_model_info info = {.name = t->name,
                                .id = t->ref->id,
                                .revision = t->ref->revision,
                                .architecture = a->architecture,
                                .weight_dtype = ks_dtype_name(a->dtype),
                                .precision = ks_precision_names[t->precision],
                                .weights_sha256 = weights_sha,
                                .tokenizer_sha256 = t->tokenizer ? ks_tokenizer_sha256(t->tokenizer) : NULL,
                                .n_layers = a->L,
                                .n_heads = a->H,
                                .n_kv_heads = a->G,
                                .d_model = a->D,
                                .vocab = a->V,
                                .save_logits = t->save_logits};
    KS_TRY(ks_results_add_model(c->results, &info, t->samples, &c->model));
    KS_NEW(c->sweeps, cfg->n_sweeps);
    for (size_t s = 0; s < cfg->n_sweeps; s++) {
        const ks_grid_sweep *g = &t->grid->sweeps[s];
        const size_t axis = cfg->sweeps[s].heads == KS_HEADS_EACH ? g->n_heads : 0;
        KS_TRY(ks_results_add_sweep(c->results, c->model, &cfg->sweeps[s], g->windows, g->W, axis, &c->sweeps[s]));
        for (size_t i = 0; i < t->problem.n_samples; i++)
            KS_TRY(ks_results_put_edges(c->results, c->model, c->sweeps[s], i, t->problem.geometry[i]->visible[cfg->sweeps[s].edges]));
    }
    c->cells = (int64_t)(t->problem.n_samples * t->grid->n_variants);
    KS_TRY(map_places(c));
done:
    return rc;
}

static int name_tokens(collector *c)
{
    int rc = KS_OK;
    int32_t *ids = NULL;
    char **texts = NULL;
    size_t n = 0;
    if (!c->task->tokenizer) return rc;
    KS_TRY(ks_results_top_ids(c->results, c->model, &ids, &n));
    KS_NEW(texts, n);
    for (size_t i = 0; i < n; i++) {
        /* A padded vocabulary has rows without a token. */
        if (ks_tokenizer_token_text(c->task->tokenizer, ids[i], &texts[i])) KS_GET(texts[i], ks_format("<id %d>", ids[i]));
    }
    KS_TRY(ks_results_put_token_text(c->results, c->model, ids, texts, n));
done:
    for (size_t i = 0; texts && i < n; i++) free(texts[i]);
    free(texts);
    free(ids);
    return rc;
}

static void collector_clear(collector *c)
{
    free(c->wire.data);
    free(c->sweeps);
    free(c->start);
    free(c->places);
}

int ks_default_threads(void)
{
    cpu_set_t set;
    const int online = (int)sysconf(_SC_NPROCESSORS_ONLN);
    const int mine = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : online;
    const int threads = mine < online ? mine : online / ks_comm_local_size();
    return threads > 0 ? threads : 1;
}

/* Everything that can be wrong with the request is found here, before anything is computed or written. */
static int prepare(const ks_config *cfg, ks_corpus **corpus, ks_task **tasks, ks_results **results)
{
    int rc = KS_OK;
    char *json = NULL;
    KS_REQUIRE(!cfg->resume, KS_EUSAGE, "--resume is not in this version");
    KS_REQUIRE(cfg->corpus, KS_EUSAGE, "no corpus: give --corpus FILE or \"corpus\" in the configuration");
    KS_REQUIRE(cfg->force || !cfg->output_json || access(cfg->output_json, F_OK), KS_EUSAGE,
               "%s: exists; --force overwrites, --output names another", cfg->output_json);
    KS_TRY(ks_corpus_load(corpus, cfg->corpus));
    for (size_t i = 0; i < cfg->n_models; i++)
        KS_TRY(ks_task_prepare(&tasks[i], cfg, i, *corpus, ks_comm_size(), ks_task_memory(cfg, ks_comm_local_size())));
    KS_GET(json, ks_config_json(cfg));
    KS_TRY(ks_results_create(results, cfg->output, cfg->force ? KS_RESULTS_FORCE : KS_RESULTS_NEW, json, (*corpus)->sha256));
done:
    free(json);
    return rc;
}

/* One model, on all ranks. A failure of another rank's own ends that rank inside; what it returns is root's, or agreed. */
static int run_task(ks_task *t, const ks_config *cfg, ks_results *results, const ks_backend *be, ks_device *dev)
{
    int rc = KS_OK;
    const bool root = ks_comm_rank() == 0;
    collector c = {.task = t, .results = results, .begin = ks_seconds()};
    if (root) rc = add_to_file(&c, cfg);
    if (root && !rc) rc = ks_results_publish(results);
    KS_TRY(ks_comm_agree(rc));
    c.flushed = ks_seconds();
    if (root)
        ks_log(KS_LOG_INFO, "%s: %lld cells in %lld branches on %d rank%s", t->name, (long long)c.cells, (long long)t->plan->branches,
               ks_comm_size(), ks_comm_size() > 1 ? "s" : "");
    rc = compute(&c, be, dev);
    if (rc && !root) fail_to_root(&c, rc);
    if (!root && (rc = ks_comm_drain())) ks_comm_abort(rc);
    if (root) {
        KS_TRY(rc);
        KS_TRY(gather(&c, true));
        KS_TRY(name_tokens(&c));
        ks_log_progress("%s", "");
        ks_log(KS_LOG_INFO, "%s: done in %.1f s", t->name, ks_seconds() - c.begin);
    }
done:
    collector_clear(&c);
    return rc;
}

static int say_who(ks_results *results, const ks_backend *be, const ks_device *dev, int threads, const char *command_line)
{
    char when[64] = "", host[256] = "";
    const time_t now = time(NULL);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
    gethostname(host, sizeof host - 1);
    const ks_provenance p = {.time = when,
                             .host = host,
                             .backend = be->name,
                             .device = be->describe(dev),
                             .command_line = command_line,
                             .isa = be->describe(dev),
                             .ranks = ks_comm_size(),
                             .threads = threads};
    return ks_results_set_provenance(results, &p);
}

int ks_run(const ks_config *cfg, const char *command_line)
{
    int rc = KS_OK;
    const bool root = ks_comm_rank() == 0;
    ks_corpus *corpus = NULL;
    ks_task **tasks = NULL;
    ks_results *results = NULL;
    ks_device *dev = NULL;
    const ks_backend *be = NULL;
    const int threads = cfg->threads ? cfg->threads : ks_default_threads();
    KS_NEW(tasks, cfg->n_models);
    if (root) rc = prepare(cfg, &corpus, tasks, &results);
    KS_TRY(ks_comm_agree(rc));
    rc = ks_backend_find(&be, ks_backend_names[cfg->backend]);
    if (!rc) rc = be->open(&dev, &(ks_device_options){.threads = threads});
    if (!rc && root) rc = say_who(results, be, dev, threads, command_line);
    KS_TRY(ks_comm_agree(rc));
    for (size_t i = 0; i < cfg->n_models; i++) {
        KS_TRY(ks_task_share(&tasks[i]));
        rc = run_task(tasks[i], cfg, results, be, dev);
        if (rc && root) {
            if (i) ks_log(KS_LOG_WARN, "%s holds the %zu model%s before %s", cfg->output, i, i > 1 ? "s" : "", tasks[i]->name);
            ks_results_abandon(results);
            results = NULL;
            /* Other ranks may be in the middle of their passes: they end with this one. */
            if (ks_comm_size() > 1) ks_comm_abort(rc);
        }
        if (rc) goto done;
        ks_task_free(tasks[i]);
        tasks[i] = NULL;
    }
    if (root) rc = ks_results_close(results);
    results = NULL;
    KS_TRY(ks_comm_agree(rc));
done:
    ks_log_progress("%s", "");
    if (results) ks_results_abandon(results);
    for (size_t i = 0; tasks && i < cfg->n_models; i++) ks_task_free(tasks[i]);
    free(tasks);
    ks_corpus_free(corpus);
    if (dev) be->close(dev);
    return rc;
}
