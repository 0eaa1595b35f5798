#include "sweep/task.h"

#include "base/log.h"
#include "model/hub.h"
#include "plan/forecast.h"
#include "sweep/comm.h"

#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

void ks_task_free(ks_task *t)
{
    if (!t) return;
    for (size_t i = 0; i < t->problem.n_samples; i++) {
        if (t->problem.geometry) ks_geometry_free(t->problem.geometry[i]);
        if (t->problem.names) free(t->problem.names[i]);
        if (!t->tokens) continue;
        free(t->tokens[i].ids);
        free(t->tokens[i].marker);
        free(t->tokens[i].target);
    }
    free(t->problem.geometry);
    free(t->problem.names);
    free(t->tokens);
    free(t->done);
    free(t->baseline_done);
    ks_plan_free(t->plan);
    ks_grid_free(t->grid);
    ks_samples_free(t->samples);
    ks_tokenizer_free(t->tokenizer);
    ks_model_close(t->model);
    free(t->name);
    free(t->dir);
    free(t);
}

ks_memory ks_task_memory(const ks_config *cfg, int local_ranks)
{
    if (cfg->memory_bytes) return (ks_memory){.bytes = (int64_t)cfg->memory_bytes, .own = KS_PROGRAM_BYTES};
    long long kb = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    char line[256];
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %lld kB", &kb) == 1) break;
    if (f) fclose(f);
    if (kb <= 0) kb = (long long)sysconf(_SC_PHYS_PAGES) * (sysconf(_SC_PAGESIZE) / 1024) / 2;
    return (ks_memory){.bytes = (int64_t)kb * 1024 * 6 / 10 / local_ranks, .own = KS_PROGRAM_BYTES};
}

static int open_model(ks_task *t, bool shapes)
{
    int rc = KS_OK;
    KS_TRY(shapes ? ks_model_open_shapes(&t->model, t->dir) : ks_model_open(&t->model, t->dir));
    t->problem.arch = ks_model_arch(t->model);
done:
    return rc;
}

static int make_geometry(ks_task *t)
{
    int rc = KS_OK;
    KS_NEW(t->problem.geometry, t->problem.n_samples);
    for (size_t i = 0; i < t->problem.n_samples; i++)
        KS_TRY(ks_geometry_new(&t->problem.geometry[i], t->problem.arch, t->tokens[i].T, t->tokens[i].marker, t->tokens[i].target));
done:
    return rc;
}

static int copy_tokens(ks_task *t)
{
    int rc = KS_OK;
    t->problem.n_samples = t->samples->n;
    KS_NEW(t->tokens, t->samples->n);
    KS_NEW(t->problem.names, t->samples->n);
    for (size_t i = 0; i < t->samples->n; i++) {
        const ks_sample *s = &t->samples->v[i];
        ks_tokens *k = &t->tokens[i];
        const size_t T = (size_t)s->T;
        k->T = s->T;
        KS_GET(t->problem.names[i], ks_strdup(s->id));
        KS_NEW(k->ids, T);
        KS_NEW(k->marker, T);
        KS_NEW(k->target, T);
        memcpy(k->ids, s->ids, T * sizeof *k->ids);
        memcpy(k->marker, s->marker, T);
        memcpy(k->target, s->target, T);
        if (s->T > t->problem.arch->max_positions && t->problem.arch->max_positions > 0)
            ks_log(KS_LOG_WARN, "%s: sample %s has %d tokens, the model was made for %d", t->name, s->id, s->T,
                   t->problem.arch->max_positions);
    }
done:
    return rc;
}

/* Bytes of arrays that a rank could use: those of a pass with its share of all units. */
static int64_t wanted_bytes(const ks_task *t, int ranks)
{
    ks_pass_size all = {0};
    for (size_t i = 0; i < t->plan->n_units; i++) ks_pass_size_add(&all, &t->problem, &t->plan->units[i]);
    const int64_t share = ks_pass_bytes(&all, t->problem.arch, &t->problem.forms) / ranks, most = t->plan->forecast->peak_bytes;
    return share > most ? share : most;
}

static int plan_with(ks_task *t, int ranks, const ks_memory *memory)
{
    int rc = KS_OK;
    const int64_t weights =
        t->sharded ? ks_weights_predict_shard(t->model, memory->shards) : ks_weights_predict(t->model, t->streamed, memory->device);
    t->budget = memory->bytes - memory->own - weights;
    KS_REQUIRE(t->budget > 0, KS_EMACHINE, "%s: %.1f MB of %smemory are too few: %s need %.1f MB, %s %.1f MB (--memory)", t->name,
               (double)memory->bytes / 1e6, memory->device ? "device " : "",
               t->sharded                    ? "sharded weights"
               : ks_weights_any(t->streamed) ? "two layers of weights"
                                             : "resident weights",
               (double)weights / 1e6, memory->device ? "the backend" : "the program", (double)memory->own / 1e6);
    ks_plan_free(t->plan);
    t->plan = NULL;
    KS_TRY(ks_plan_new(&t->plan, &t->problem, ranks, t->budget));
done:
    return rc;
}

/* Weights are resident where all fit and leave room for arrays, else sharded where that does. Else layers are streamed, and of them arrays
 * come first: with A bytes of arrays in all, W of layers, B of memory and x resident, A/(B - x) passes read (W - x) each, which grows with
 * x where W > B. So layers get only what no pass could use. The head comes before arrays: a pass needs it for the trunk and for each chunk
 * of measured rows, of which there may be hundreds. */
int ks_task_plan(ks_task *t, int ranks, const ks_memory *memory)
{
    int rc = KS_OK;
    const ks_streamed layers = {INT32_MAX, false};
    const int64_t room = memory->bytes - memory->own, all = ks_weights_predict(t->model, KS_ALL_RESIDENT, memory->device);
    const bool automatic = t->weights == KS_SOURCE_AUTO || (t->weights == KS_SOURCE_SHARDED && !memory->shards);
    const bool resident = t->weights == KS_SOURCE_RESIDENT || (automatic && all <= room / 10 * 7);
    t->sharded = memory->shards && (t->weights == KS_SOURCE_SHARDED ||
                                    (automatic && !resident && ks_weights_predict_shard(t->model, memory->shards) <= room / 10 * 7));
    t->problem.done = t->done;
    t->problem.baseline_done = t->baseline_done;
    t->streamed = resident || t->sharded ? KS_ALL_RESIDENT : automatic ? layers : KS_ALL_STREAMED;
    rc = plan_with(t, ranks, memory);
    if (!automatic) goto done;
    if (rc && (resident || t->sharded)) { /* arrays do not fit beside them */
        t->sharded = false;
        t->streamed = layers;
        rc = plan_with(t, ranks, memory);
    }
    if (rc) {
        t->streamed = KS_ALL_STREAMED;
        KS_TRY(plan_with(t, ranks, memory));
    }
    if (t->sharded || !ks_weights_any(t->streamed) || t->streamed.head) goto done;
    const ks_streamed less = ks_weights_choose(t->model, room - wanted_bytes(t, ranks) * 5 / 4, memory->device);
    if (less.head || less.layers == t->problem.arch->L) goto done;
    t->streamed = less;
    KS_TRY(plan_with(t, ranks, memory));
done:
    return rc;
}

int ks_task_prepare(ks_task **out, const ks_config *cfg, size_t i, const ks_corpus *corpus, const ks_backend *be, int ranks,
                    const ks_memory *memory)
{
    int rc = KS_OK;
    ks_task *t = NULL;
    char *path = NULL;
    bool need_tokenizer = false;
    KS_NEW(t, 1);
    t->ref = &cfg->models[i];
    KS_GET(t->name, ks_strdup(t->ref->name));
    t->precision = cfg->precision;
    t->weights = cfg->weights;
    t->save_logits = cfg->save_logits;
    t->problem.floor = cfg->floor;
    if (t->ref->path) KS_GET(t->dir, ks_strdup(t->ref->path));
    else KS_TRY(ks_hub_resolve(&t->dir, t->ref->id, t->ref->revision));
    KS_TRY(open_model(t, cfg->device != NULL));
    if (be) t->problem.forms = ks_forms_of(be, t->model, t->precision);

    KS_TRY(ks_samples_need_tokenizer(&need_tokenizer, corpus, cfg));
    KS_GET(path, ks_format("%s/tokenizer.json", t->dir));
    if (need_tokenizer || access(path, R_OK) == 0) KS_TRY(ks_tokenizer_load(&t->tokenizer, t->dir));
    KS_TRY(ks_samples_resolve(&t->samples, corpus, cfg, t->tokenizer, t->problem.arch->V));
    KS_TRY(copy_tokens(t));
    malloc_trim(0); /* a tokenizer's JSON takes several times what is kept of it */
    KS_TRY(ks_grid_new(&t->grid, cfg->sweeps, cfg->n_sweeps, t->problem.arch->L, t->problem.arch->H));
    t->problem.grid = t->grid;
    KS_TRY(make_geometry(t));
    KS_TRY(ks_task_plan(t, ranks, memory));
done:
    free(path);
    if (rc) ks_task_free(t);
    else *out = t;
    return rc;
}

static int put_string(ks_wire *w, const char *s)
{
    const size_t n = strlen(s);
    const int rc = KS_PUT(w, n);
    return rc ? rc : ks_wire_put(w, s, n);
}

static int take_string(ks_wire *w, char **s)
{
    int rc = KS_OK;
    size_t n = 0;
    KS_TRY(KS_TAKE(w, n));
    KS_REQUIRE(n <= w->bytes, KS_EMACHINE, "a message between ranks is damaged");
    KS_NEW(*s, n + 1);
    KS_TRY(ks_wire_get(w, *s, n));
done:
    return rc;
}

static int pack(const ks_task *t, ks_wire *w)
{
    int rc = KS_OK;
    KS_TRY(put_string(w, t->name));
    KS_TRY(put_string(w, t->dir));
    KS_TRY(KS_PUT(w, t->precision));
    KS_TRY(KS_PUT(w, t->streamed));
    KS_TRY(KS_PUT(w, t->sharded));
    KS_TRY(KS_PUT(w, t->save_logits));
    KS_TRY(KS_PUT(w, t->weights_sha256));
    KS_TRY(KS_PUT(w, t->config_sha256));
    KS_TRY(KS_PUT(w, t->problem.floor));
    KS_TRY(KS_PUT(w, t->problem.n_samples));
    for (size_t i = 0; i < t->problem.n_samples; i++) {
        const ks_tokens *k = &t->tokens[i];
        KS_TRY(put_string(w, t->problem.names[i]));
        KS_TRY(KS_PUT(w, k->T));
        KS_TRY(ks_wire_put(w, k->ids, (size_t)k->T * sizeof *k->ids));
        KS_TRY(ks_wire_put(w, k->marker, (size_t)k->T));
        KS_TRY(ks_wire_put(w, k->target, (size_t)k->T));
    }
    KS_TRY(KS_PUT(w, t->grid->L));
    KS_TRY(KS_PUT(w, t->grid->H));
    KS_TRY(KS_PUT(w, t->grid->n_masks));
    for (size_t i = 0; i < t->grid->n_masks; i++) {
        const ks_mask *m = &t->grid->masks[i];
        const bool some = m->heads != NULL;
        KS_TRY(KS_PUT(w, m->kind));
        KS_TRY(KS_PUT(w, m->edges));
        KS_TRY(KS_PUT(w, m->value));
        KS_TRY(KS_PUT(w, some));
        if (some) KS_TRY(ks_wire_put(w, m->heads, (size_t)t->grid->H));
    }
    KS_TRY(KS_PUT(w, t->grid->n_variants));
    KS_TRY(ks_wire_put(w, t->grid->variants, t->grid->n_variants * sizeof *t->grid->variants));
    const size_t done = t->done ? t->problem.n_samples * ks_done_words(t->grid) : 0,
                 baselines = t->baseline_done ? t->problem.n_samples : 0;
    KS_TRY(KS_PUT(w, done));
    KS_TRY(ks_wire_put(w, t->done, done * sizeof *t->done));
    KS_TRY(KS_PUT(w, baselines));
    KS_TRY(ks_wire_put(w, t->baseline_done, baselines));
done:
    return rc;
}

static int unpack(ks_task *t, ks_wire *w)
{
    int rc = KS_OK;
    KS_TRY(take_string(w, &t->name));
    KS_TRY(take_string(w, &t->dir));
    KS_TRY(KS_TAKE(w, t->precision));
    KS_TRY(KS_TAKE(w, t->streamed));
    KS_TRY(KS_TAKE(w, t->sharded));
    KS_TRY(KS_TAKE(w, t->save_logits));
    KS_TRY(KS_TAKE(w, t->weights_sha256));
    KS_TRY(KS_TAKE(w, t->config_sha256));
    KS_TRY(KS_TAKE(w, t->problem.floor));
    KS_TRY(KS_TAKE(w, t->problem.n_samples));
    KS_NEW(t->tokens, t->problem.n_samples);
    KS_NEW(t->problem.names, t->problem.n_samples);
    for (size_t i = 0; i < t->problem.n_samples; i++) {
        ks_tokens *k = &t->tokens[i];
        KS_TRY(take_string(w, &t->problem.names[i]));
        KS_TRY(KS_TAKE(w, k->T));
        KS_NEW(k->ids, k->T);
        KS_NEW(k->marker, k->T);
        KS_NEW(k->target, k->T);
        KS_TRY(ks_wire_get(w, k->ids, (size_t)k->T * sizeof *k->ids));
        KS_TRY(ks_wire_get(w, k->marker, (size_t)k->T));
        KS_TRY(ks_wire_get(w, k->target, (size_t)k->T));
    }
    KS_NEW(t->grid, 1);
    KS_TRY(KS_TAKE(w, t->grid->L));
    KS_TRY(KS_TAKE(w, t->grid->H));
    KS_TRY(KS_TAKE(w, t->grid->n_masks));
    KS_NEW(t->grid->masks, t->grid->n_masks);
    for (size_t i = 0; i < t->grid->n_masks; i++) {
        ks_mask *m = &t->grid->masks[i];
        bool some = false;
        KS_TRY(KS_TAKE(w, m->kind));
        KS_TRY(KS_TAKE(w, m->edges));
        KS_TRY(KS_TAKE(w, m->value));
        KS_TRY(KS_TAKE(w, some));
        if (!some) continue;
        KS_NEW(m->heads, t->grid->H);
        KS_TRY(ks_wire_get(w, m->heads, (size_t)t->grid->H));
    }
    KS_TRY(KS_TAKE(w, t->grid->n_variants));
    KS_NEW(t->grid->variants, t->grid->n_variants);
    KS_TRY(ks_wire_get(w, t->grid->variants, t->grid->n_variants * sizeof *t->grid->variants));
    size_t done = 0, baselines = 0;
    KS_TRY(KS_TAKE(w, done));
    if (done) KS_NEW(t->done, done);
    KS_TRY(ks_wire_get(w, t->done, done * sizeof *t->done));
    KS_TRY(KS_TAKE(w, baselines));
    if (baselines) KS_NEW(t->baseline_done, baselines);
    KS_TRY(ks_wire_get(w, t->baseline_done, baselines));
    t->problem.grid = t->grid;
    t->problem.done = t->done;
    t->problem.baseline_done = t->baseline_done;
done:
    return rc;
}

int ks_task_share(ks_task **task)
{
    int rc = KS_OK;
    const bool root = ks_comm_rank() == 0;
    ks_wire w = {0};
    if (ks_comm_size() == 1) return KS_OK;
    if (root) rc = pack(*task, &w);
    KS_TRY(ks_comm_agree(rc));
    KS_TRY(ks_comm_broadcast((void **)&w.data, &w.bytes));
    if (!root) {
        ks_task *t = *task = ks_calloc(1, sizeof *t);
        rc = t ? unpack(t, &w) : KS_EMACHINE;
        if (!rc) rc = open_model(t, false);
        if (!rc) rc = make_geometry(t);
    }
    KS_TRY(ks_comm_agree(rc));
done:
    free(w.data);
    return rc;
}
