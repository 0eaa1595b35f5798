#include "sweep/collect.h"

#include "sweep/comm.h"

#include <stdlib.h>

enum { MESSAGE_BYTES = 4 << 20 }; /* results are sent when a message has grown to this, and after each pass */

/* Kinds of records in a message to root. */
enum { RECORD_BASELINE, RECORD_CELL };

/* ---- worker ---- */

int ks_packer_flush(ks_packer *p)
{
    const ks_wire w = p->wire;
    p->wire = (ks_wire){0};
    return w.bytes ? ks_comm_send(0, KS_MSG_RECORDS, w.data, w.bytes) : KS_OK;
}

static int pack_baseline(void *ctx, int32_t sample, const ks_baseline *b, const float *logits, const double *strength, double uniform)
{
    int rc = KS_OK;
    ks_packer *p = ctx;
    const ks_arch *a = p->task->problem.arch;
    const int kind = RECORD_BASELINE;
    const bool has_logits = logits != NULL;
    KS_TRY(KS_PUT(&p->wire, kind));
    KS_TRY(KS_PUT(&p->wire, sample));
    KS_TRY(KS_PUT(&p->wire, *b));
    KS_TRY(KS_PUT(&p->wire, uniform));
    KS_TRY(ks_wire_put(&p->wire, strength, (size_t)a->L * (size_t)a->H * sizeof *strength));
    KS_TRY(KS_PUT(&p->wire, has_logits));
    if (has_logits) KS_TRY(ks_wire_put(&p->wire, logits, (size_t)a->V * sizeof *logits));
done:
    return rc;
}

static int pack_cell(void *ctx, int32_t sample, int32_t variant, const ks_cell *cell, const ks_position_cell *positions)
{
    int rc = KS_OK;
    ks_packer *p = ctx;
    const int kind = RECORD_CELL;
    const bool has_positions = positions != NULL;
    KS_TRY(KS_PUT(&p->wire, kind));
    KS_TRY(KS_PUT(&p->wire, sample));
    KS_TRY(KS_PUT(&p->wire, variant));
    KS_TRY(KS_PUT(&p->wire, *cell));
    KS_TRY(KS_PUT(&p->wire, has_positions));
    if (has_positions) KS_TRY(ks_wire_put(&p->wire, positions, (size_t)p->task->tokens[sample].T * sizeof *positions));
    if (p->wire.bytes > MESSAGE_BYTES) KS_TRY(ks_packer_flush(p));
done:
    return rc;
}

ks_sink ks_packer_sink(ks_packer *p)
{
    return (ks_sink){.ctx = p, .baseline = pack_baseline, .cell = pack_cell};
}

/* ---- root ---- */

/* A place of a variant in the sweeps. */
typedef struct place {
    int32_t sweep;
    uint32_t factor, window, head;
} place;

struct ks_collector {
    const ks_task *task;
    ks_results *results;
    size_t model;   /* index in the result file */
    size_t *sweeps; /* [n_sweeps] */
    size_t *start;  /* [n_variants + 1] places of variant v are place[start[v]] .. place[start[v+1]-1] */
    place *places;
    int64_t done;
    /* Room for what a record holds. */
    double *strength;            /* [L, H], then [L] its mean over heads */
    float *by_head;              /* [L, H] */
    float *logits;               /* [V] */
    ks_position_cell *positions; /* [T of the longest sample] */
};

void ks_collector_free(ks_collector *c)
{
    if (!c) return;
    free(c->sweeps);
    free(c->start);
    free(c->places);
    free(c->strength);
    free(c->by_head);
    free(c->logits);
    free(c->positions);
    free(c);
}

static int map_places(ks_collector *c)
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

int ks_collector_new(ks_collector **out, const ks_task *task, const ks_config *cfg, ks_results *results, const ks_model_info *info)
{
    int rc = KS_OK;
    ks_collector *c = NULL;
    int32_t longest = 0;
    KS_NEW(c, 1);
    c->task = task;
    c->results = results;
    KS_TRY(ks_results_add_model(results, info, task->samples, &c->model));
    KS_NEW(c->sweeps, cfg->n_sweeps);
    for (size_t s = 0; s < cfg->n_sweeps; s++) {
        const ks_grid_sweep *g = &task->grid->sweeps[s];
        const size_t axis = cfg->sweeps[s].heads == KS_HEADS_EACH ? g->n_heads : 0;
        KS_TRY(ks_results_add_sweep(results, c->model, &cfg->sweeps[s], g->windows, g->W, axis, &c->sweeps[s]));
        for (size_t i = 0; i < task->problem.n_samples; i++)
            KS_TRY(ks_results_put_edges(results, c->model, c->sweeps[s], i, task->problem.geometry[i]->visible[cfg->sweeps[s].edges]));
    }
    KS_TRY(map_places(c));
    for (size_t i = 0; i < task->problem.n_samples; i++)
        if (task->tokens[i].T > longest) longest = task->tokens[i].T;
    KS_NEW(c->strength, (size_t)info->n_layers * (size_t)(info->n_heads + 1));
    KS_NEW(c->by_head, (size_t)info->n_layers * (size_t)info->n_heads);
    KS_NEW(c->logits, info->vocab);
    KS_NEW(c->positions, longest);
done:
    if (rc) ks_collector_free(c);
    else *out = c;
    return rc;
}

int64_t ks_collector_cells(const ks_collector *c)
{
    return (int64_t)(c->task->problem.n_samples * c->task->grid->n_variants);
}

int64_t ks_collector_done(const ks_collector *c)
{
    return c->done;
}

int ks_collector_put_baseline(void *ctx, int32_t sample, const ks_baseline *b, const float *logits, const float *by_head, double uniform,
                              const double *strength)
{
    ks_collector *c = ctx;
    return ks_results_put_baseline(c->results, c->model, (size_t)sample, b, logits, by_head, uniform, strength);
}

int ks_collector_put_cell(void *ctx, int32_t sample, int32_t variant, const ks_cell *cell, const ks_position_cell *positions)
{
    int rc = KS_OK;
    ks_collector *c = ctx;
    for (size_t i = c->start[variant]; i < c->start[variant + 1]; i++) {
        const place *p = &c->places[i];
        KS_TRY(
            ks_results_put_cell(c->results, c->model, c->sweeps[p->sweep], p->factor, p->window, p->head, (size_t)sample, cell, positions));
    }
    c->done++;
done:
    return rc;
}

static int take_baseline(ks_collector *c, int32_t sample, ks_wire *w)
{
    int rc = KS_OK;
    const ks_arch *a = c->task->problem.arch;
    ks_baseline b;
    double uniform = 0;
    bool has_logits = false;
    KS_TRY(KS_TAKE(w, b));
    KS_TRY(KS_TAKE(w, uniform));
    KS_TRY(ks_wire_get(w, c->strength, (size_t)a->L * (size_t)a->H * sizeof *c->strength));
    KS_TRY(KS_TAKE(w, has_logits));
    if (has_logits) KS_TRY(ks_wire_get(w, c->logits, (size_t)a->V * sizeof *c->logits));
    double *by_layer = c->strength + a->L * a->H;
    for (int32_t l = 0; l < a->L; l++) {
        by_layer[l] = 0;
        for (int32_t h = l * a->H; h < (l + 1) * a->H; h++) {
            c->by_head[h] = (float)c->strength[h];
            by_layer[l] += c->strength[h];
        }
        by_layer[l] /= a->H;
    }
    KS_TRY(ks_collector_put_baseline(c, sample, &b, has_logits ? c->logits : NULL, c->by_head, uniform, by_layer));
done:
    return rc;
}

static int take_cell(ks_collector *c, int32_t sample, ks_wire *w)
{
    int rc = KS_OK;
    int32_t variant = 0;
    ks_cell cell;
    bool has_positions = false;
    KS_TRY(KS_TAKE(w, variant));
    KS_REQUIRE(variant >= 0 && (size_t)variant < c->task->grid->n_variants, KS_EMACHINE, "a message between ranks is damaged");
    KS_TRY(KS_TAKE(w, cell));
    KS_TRY(KS_TAKE(w, has_positions));
    if (has_positions) KS_TRY(ks_wire_get(w, c->positions, (size_t)c->task->tokens[sample].T * sizeof *c->positions));
    KS_TRY(ks_collector_put_cell(c, sample, variant, &cell, has_positions ? c->positions : NULL));
done:
    return rc;
}

int ks_collector_take(ks_collector *c, int from, void *data, size_t bytes)
{
    int rc = KS_OK;
    ks_wire w = {.data = data, .bytes = bytes};
    while (w.at < w.bytes) {
        int kind = -1;
        int32_t sample = -1;
        KS_TRY(KS_TAKE(&w, kind));
        KS_TRY(KS_TAKE(&w, sample));
        KS_REQUIRE(sample >= 0 && (size_t)sample < c->task->problem.n_samples, KS_EMACHINE, "a message between ranks is damaged");
        KS_TRY(kind == RECORD_BASELINE ? take_baseline(c, sample, &w) : take_cell(c, sample, &w));
    }
done:
    if (rc) ks_error_context(rc, "results of rank %d", from);
    return rc;
}

int ks_collector_name_tokens(ks_collector *c)
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
