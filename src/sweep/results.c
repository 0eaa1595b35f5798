/* The file lives in HDF5's memory driver, and its arrays are filled there, at the places that they have in the file for good. So there is
 * one copy of everything, and a page of it can be written in place at any time. HDF5 itself never meets a full disk, after which it can
 * neither close a file nor let the program end. */
#include "sweep/results.h"
#include "sweep/results_disk.h"
#include "sweep/results_h5.h"

#include "base/log.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Arrays of a sweep in the order of sweep_arrays; those from KL_POSITIONS on only with positions: all. */
enum {
    KL,
    KL_REVERSE,
    JS,
    TV,
    P_TOP,
    DLOGIT_TOP,
    TOP_CHANGED,
    STATUS,
    TOP_IDS,
    TOP_P_BASELINE,
    TOP_P_ABLATED,
    EDGES_REMOVED,
    KL_POSITIONS,
    P_NEXT_POSITIONS,
    DLOGIT_NEXT_POSITIONS,
    N_SWEEP_ARRAYS
};
#define CELL_AXES "factor window head sample"
static const ks_h5_spec sweep_arrays[N_SWEEP_ARRAYS] = {
    [KL] = {"kl", KS_F64, CELL_AXES, "nats"},
    [KL_REVERSE] = {"kl_reverse", KS_F64, CELL_AXES, "nats"},
    [JS] = {"js", KS_F64, CELL_AXES, "nats"},
    [TV] = {"tv", KS_F64, CELL_AXES, NULL},
    [P_TOP] = {"p_top", KS_F64, CELL_AXES, NULL},
    [DLOGIT_TOP] = {"dlogit_top", KS_F64, CELL_AXES, NULL},
    [TOP_CHANGED] = {"top_changed", KS_U8, CELL_AXES, NULL},
    [STATUS] = {"status", KS_U8, CELL_AXES, NULL},
    [TOP_IDS] = {"top_ids", KS_I32, CELL_AXES " k", NULL},
    [TOP_P_BASELINE] = {"top_p_baseline", KS_F64, CELL_AXES " k", NULL},
    [TOP_P_ABLATED] = {"top_p_ablated", KS_F64, CELL_AXES " k", NULL},
    [EDGES_REMOVED] = {"edges_removed", KS_I32, "sample", NULL},
    [KL_POSITIONS] = {"kl_positions", KS_F64, CELL_AXES " token", "nats"},
    [P_NEXT_POSITIONS] = {"p_next_positions", KS_F64, CELL_AXES " token", NULL},
    [DLOGIT_NEXT_POSITIONS] = {"dlogit_next_positions", KS_F64, CELL_AXES " token", NULL},
};

enum { B_TOP_IDS, B_TOP_P, B_ENTROPY, B_FLOOR, B_STATUS, B_LOGITS, N_BASELINE_ARRAYS };
static const ks_h5_spec baseline_arrays[N_BASELINE_ARRAYS] = {
    [B_TOP_IDS] = {"top_ids", KS_I32, "sample k", NULL}, [B_TOP_P] = {"top_p", KS_F64, "sample k", NULL},
    [B_ENTROPY] = {"entropy", KS_F64, "sample", "nats"}, [B_FLOOR] = {"floor", KS_F64, "sample", "nats"},
    [B_STATUS] = {"status", KS_U8, "sample", NULL},      [B_LOGITS] = {"logits", KS_F32, "sample vocab", NULL},
};

enum { A_STRENGTH, A_BY_HEAD, A_UNIFORM, N_ATTENTION_ARRAYS };
static const ks_h5_spec attention_arrays[N_ATTENTION_ARRAYS] = {
    [A_STRENGTH] = {"strength", KS_F64, "layer sample", NULL},
    [A_BY_HEAD] = {"by_head", KS_F32, "layer head sample", NULL},
    [A_UNIFORM] = {"uniform", KS_F64, "sample", NULL},
};

typedef struct sweep {
    ks_h5_group group;
    ks_h5_array a[N_SWEEP_ARRAYS];
    size_t F, W, H; /* factors and heads count 1 where there is no such axis */
    size_t block;   /* samples that lie together */
} sweep;

typedef struct model {
    char *name;
    ks_h5_group group, baseline, attention, sweeps_group;
    ks_h5_array b[N_BASELINE_ARRAYS], att[N_ATTENTION_ARRAYS];
    size_t S, T, L, H, V; /* T: tokens of the longest sample */
    size_t block;         /* samples that lie together in the arrays of attention */
    int32_t *n_tokens;    /* [S] */
    char **ids, **groups; /* [S] owned copies */
    sweep *sweeps;
    size_t n_sweeps;
} model;

struct ks_results {
    ks_disk disk;
    ks_h5_file f;
    ks_h5_group root, models_group;
    model *models;
    size_t n_models;
};

static void arrays_free(ks_h5_array *a, size_t n)
{
    for (size_t i = 0; i < n; i++) ks_h5_array_free(&a[i]);
}

/* Baselines and cells that are finished. */
static int64_t count_finished(const ks_results *r)
{
    int64_t n = 0;
    for (size_t m = 0; m < r->n_models; m++)
        for (size_t s = 0; s <= r->models[m].n_sweeps; s++) {
            const ks_h5_array *a = s < r->models[m].n_sweeps ? &r->models[m].sweeps[s].a[STATUS] : &r->models[m].b[B_STATUS];
            const uint8_t *status = a->n ? ks_h5_array_data(a) : NULL;
            for (size_t i = 0; i < a->n; i++) n += status[i] != KS_CELL_NOT_COMPUTED;
        }
    return n;
}

static void results_free(ks_results *r)
{
    if (!r) return;
    /* A sweep that ended before it finished anything leaves nothing that the next one would trip over. */
    const bool useless = r->disk.fresh && r->disk.ours && !count_finished(r);
    for (size_t m = 0; m < r->n_models; m++) {
        model *M = &r->models[m];
        for (size_t s = 0; s < M->n_sweeps; s++) {
            arrays_free(M->sweeps[s].a, N_SWEEP_ARRAYS);
            ks_h5_group_close(&M->sweeps[s].group);
        }
        free(M->sweeps);
        arrays_free(M->b, N_BASELINE_ARRAYS);
        arrays_free(M->att, N_ATTENTION_ARRAYS);
        ks_h5_group_close(&M->attention);
        ks_h5_group_close(&M->baseline);
        ks_h5_group_close(&M->sweeps_group);
        ks_h5_group_close(&M->group);
        for (size_t s = 0; s < M->S; s++) {
            if (M->ids) free(M->ids[s]);
            if (M->groups) free(M->groups[s]);
        }
        free(M->ids);
        free(M->groups);
        free(M->n_tokens);
        free(M->name);
    }
    free(r->models);
    ks_h5_group_close(&r->models_group);
    ks_h5_file_close(&r->f);
    ks_disk_close(&r->disk, useless);
    free(r);
}

/* ---- create ---- */

int ks_results_create(ks_results **out, const char *path, int mode, const char *config_json, const char *corpus_sha256)
{
    int rc = KS_OK;
    ks_results *r = NULL;
    KS_NEW(r, 1);
    r->disk = (ks_disk){.fd = -1, .stage = -1};
    KS_TRY(ks_disk_open(&r->disk, path, mode != KS_RESULTS_NEW));
    KS_TRY(ks_h5_file_create(&r->f, path));
    r->root = (ks_h5_group){.f = &r->f, .id = r->f.id};
    KS_TRY(ks_h5_put_text(&r->root, "schema", "kosweep-1"));
    KS_TRY(ks_h5_put_text(&r->root, "config", config_json));
    KS_TRY(ks_h5_put_text(&r->root, "corpus_sha256", corpus_sha256));
    KS_TRY(ks_h5_group_create(&r->models_group, &r->root, "models"));
done:
    if (rc) results_free(r);
    else *out = r;
    return rc;
}

int ks_results_set_provenance(ks_results *r, const ks_provenance *p)
{
    int rc = KS_OK;
    ks_h5_group g = {0};
    KS_TRY(ks_h5_group_replace(&g, &r->root, "provenance"));
    KS_TRY(ks_h5_put_text(&g, "time", p->time));
    KS_TRY(ks_h5_put_text(&g, "ended", p->ended));
    KS_TRY(ks_h5_put_text(&g, "host", p->host));
    KS_TRY(ks_h5_put_int(&g, "ranks", p->ranks));
    KS_TRY(ks_h5_put_int(&g, "threads", p->threads));
    KS_TRY(ks_h5_put_text(&g, "backend", p->backend));
    KS_TRY(ks_h5_put_text(&g, "device", p->device));
    KS_TRY(ks_h5_put_text(&g, "isa", p->isa));
    KS_TRY(ks_h5_put_text(&g, "algorithms", p->algorithms));
    KS_TRY(ks_h5_put_text(&g, "versions", "kosweep " KS_VERSION ", HDF5 " H5_VERS_INFO));
    KS_TRY(ks_h5_put_text(&g, "command_line", p->command_line));
    KS_TRY(ks_h5_put_text(&g, "history", p->history));
    KS_TRY(ks_h5_put_int64(&g, "weights_bytes_read", p->weights_bytes_read));
done:
    ks_h5_group_close(&g);
    return rc;
}

/* ---- models and samples ---- */

/* One string a sample or token, picked by `field`; NULL counts as "". */
static int put_sample_texts(ks_h5_group *g, const ks_samples *samples, size_t T)
{
    int rc = KS_OK;
    const size_t S = samples->n;
    const char **one = NULL, **all = NULL;
    KS_NEW(one, S);
    KS_NEW(all, S * T);
    for (size_t s = 0; s < S; s++) one[s] = samples->v[s].id;
    KS_TRY(ks_h5_put_strings(g, "id", "sample", one));
    for (size_t s = 0; s < S; s++) one[s] = samples->v[s].group;
    KS_TRY(ks_h5_put_strings(g, "group", "sample", one));
    for (size_t s = 0; s < S; s++) one[s] = samples->v[s].text;
    KS_TRY(ks_h5_put_strings(g, "text", "sample", one));
    for (size_t s = 0; s < S; s++)
        for (int32_t t = 0; t < samples->v[s].T; t++)
            all[s * T + (size_t)t] = samples->v[s].token_text ? samples->v[s].token_text[t] : NULL;
    KS_TRY(ks_h5_put_strings(g, "token_text", "sample token", all));
done:
    free(all);
    free(one);
    return rc;
}

static int put_samples(model *M, const ks_samples *samples)
{
    int rc = KS_OK;
    const size_t S = M->S, T = M->T;
    ks_h5_group g = {0};
    int32_t *v = NULL;    /* [3, S, T] token_ids, token_start, token_end */
    uint8_t *mask = NULL; /* [2, S, T] marker, target */
    KS_NEW(v, 3 * S * T);
    KS_NEW(mask, 2 * S * T);
    for (size_t i = 0; i < 3 * S * T; i++) v[i] = -1;
    for (size_t s = 0; s < S; s++) {
        const ks_sample *p = &samples->v[s];
        const size_t n = (size_t)p->T, at = s * T;
        if (p->ids) memcpy(v + at, p->ids, n * sizeof *v);
        if (p->start) memcpy(v + S * T + at, p->start, n * sizeof *v);
        if (p->end) memcpy(v + 2 * S * T + at, p->end, n * sizeof *v);
        if (p->marker) memcpy(mask + at, p->marker, n);
        if (p->target) memcpy(mask + S * T + at, p->target, n);
    }
    KS_TRY(ks_h5_group_create(&g, &M->group, "samples"));
    KS_TRY(ks_h5_string_axis(&g, "sample", S, (const char *const *)M->ids));
    KS_TRY(ks_h5_index_axis(&g, "token", T));
    KS_TRY(put_sample_texts(&g, samples, T));
    KS_TRY(ks_h5_put(&g, &(ks_h5_spec){"n_tokens", KS_I32, "sample", NULL}, M->n_tokens));
    KS_TRY(ks_h5_put(&g, &(ks_h5_spec){"token_ids", KS_I32, "sample token", NULL}, v));
    KS_TRY(ks_h5_put(&g, &(ks_h5_spec){"token_start", KS_I32, "sample token", NULL}, v + S * T));
    KS_TRY(ks_h5_put(&g, &(ks_h5_spec){"token_end", KS_I32, "sample token", NULL}, v + 2 * S * T));
    KS_TRY(ks_h5_put(&g, &(ks_h5_spec){"marker", KS_U8, "sample token", NULL}, mask));
    KS_TRY(ks_h5_put(&g, &(ks_h5_spec){"target", KS_U8, "sample token", NULL}, mask + S * T));
done:
    ks_h5_group_close(&g);
    free(mask);
    free(v);
    return rc;
}

static int put_model_attributes(ks_h5_group *g, const ks_model_info *info)
{
    int rc = KS_OK;
    KS_TRY(ks_h5_put_text(g, "id", info->id));
    KS_TRY(ks_h5_put_text(g, "revision", info->revision));
    KS_TRY(ks_h5_put_text(g, "architecture", info->architecture));
    KS_TRY(ks_h5_put_int(g, "n_layers", info->n_layers));
    KS_TRY(ks_h5_put_int(g, "n_heads", info->n_heads));
    KS_TRY(ks_h5_put_int(g, "n_kv_heads", info->n_kv_heads));
    KS_TRY(ks_h5_put_int(g, "d_model", info->d_model));
    KS_TRY(ks_h5_put_int(g, "vocab", info->vocab));
    KS_TRY(ks_h5_put_text(g, "weight_dtype", info->weight_dtype));
    KS_TRY(ks_h5_put_text(g, "precision", info->precision));
    KS_TRY(ks_h5_put_text(g, "weights_sha256", info->weights_sha256));
    KS_TRY(ks_h5_put_text(g, "tokenizer_sha256", info->tokenizer_sha256));
    KS_TRY(ks_h5_put_text(g, "config_sha256", info->config_sha256));
done:
    return rc;
}

static int copy_sample_names(model *M, const ks_samples *samples)
{
    int rc = KS_OK;
    KS_NEW(M->n_tokens, M->S);
    KS_NEW(M->ids, M->S);
    KS_NEW(M->groups, M->S);
    for (size_t s = 0; s < M->S; s++) {
        const ks_sample *p = &samples->v[s];
        KS_REQUIRE(p->T >= 1, KS_EMACHINE, "results: sample %s has no tokens", p->id);
        M->n_tokens[s] = p->T;
        if ((size_t)p->T > M->T) M->T = (size_t)p->T;
        KS_GET(M->ids[s], ks_strdup(p->id));
        KS_GET(M->groups[s], ks_strdup(p->group));
    }
done:
    return rc;
}

/* Results come sample by sample, so in arrays whose samples are not the outermost axis those of a sample shall lie together: a flush then
 * writes few pages. Where a sample has only some rows, a block holds as many samples as fill a page. widest: bytes of a sample in a row of
 * the widest array. HDF5 has no chunks of 4 GiB. */
static size_t find_block(size_t S, size_t rows, size_t widest)
{
    const size_t fit = KS_H5_PAGE / sizeof(double) / rows, blocks = fit > 1 ? (S + fit - 1) / fit : S, even = (S + blocks - 1) / blocks;
    return rows * widest <= UINT32_MAX / even ? even : S;
}

/* Where an element stands in its array, in elements or entries of the axis behind `sample`. */
static size_t find_element(size_t block, size_t rows, size_t row, size_t sample)
{
    return (sample / block * rows + row) * block + sample % block;
}

int ks_results_add_model(ks_results *r, const ks_model_info *info, const ks_samples *samples, size_t *index)
{
    int rc = KS_OK;
    for (size_t m = 0; m < r->n_models; m++)
        KS_REQUIRE(strcmp(r->models[m].name, info->name), KS_EUSAGE, "%s: two models are named \"%s\"", r->disk.path, info->name);
    KS_REQUIRE(samples->n, KS_EUSAGE, "%s: model %s has no samples", r->disk.path, info->name);
    KS_REQUIRE(info->n_layers > 0 && info->n_heads > 0 && info->vocab > 0, KS_EMACHINE, "results: model %s has no layers, heads or tokens",
               info->name);
    model *grown = ks_realloc(r->models, r->n_models + 1, sizeof *grown);
    KS_REQUIRE(grown, KS_EMACHINE, "%s", ks_error_text());
    r->models = grown;
    model *M = &r->models[r->n_models];
    *M = (model){.S = samples->n, .L = (size_t)info->n_layers, .H = (size_t)info->n_heads, .V = (size_t)info->vocab};
    *index = r->n_models++;
    KS_GET(M->name, ks_strdup(info->name));
    KS_TRY(copy_sample_names(M, samples));

    const char *const *ids = (const char *const *)M->ids;
    KS_TRY(ks_h5_group_create(&M->group, &r->models_group, info->name));
    KS_TRY(put_model_attributes(&M->group, info));
    KS_TRY(put_samples(M, samples));

    KS_TRY(ks_h5_group_create(&M->baseline, &M->group, "baseline"));
    KS_TRY(ks_h5_string_axis(&M->baseline, "sample", M->S, ids));
    KS_TRY(ks_h5_index_axis(&M->baseline, "k", KS_TOP_K));
    if (info->save_logits) KS_TRY(ks_h5_index_axis(&M->baseline, "vocab", M->V));
    for (int i = 0; i < (info->save_logits ? N_BASELINE_ARRAYS : B_LOGITS); i++)
        KS_TRY(ks_h5_array_create(&M->b[i], &M->baseline, &baseline_arrays[i]));

    KS_TRY(ks_h5_group_create(&M->attention, &M->group, "attention"));
    KS_TRY(ks_h5_index_axis(&M->attention, "layer", M->L));
    KS_TRY(ks_h5_index_axis(&M->attention, "head", M->H));
    KS_TRY(ks_h5_string_axis(&M->attention, "sample", M->S, ids));
    M->attention.block = M->block = find_block(M->S, M->L * M->H, sizeof(double));
    for (int i = 0; i < N_ATTENTION_ARRAYS; i++) KS_TRY(ks_h5_array_create(&M->att[i], &M->attention, &attention_arrays[i]));

    KS_TRY(ks_h5_group_create(&M->sweeps_group, &M->group, "sweeps"));
done:
    return rc;
}

/* ---- sweeps ---- */

static int put_sweep_attributes(ks_h5_group *g, const ks_sweep *s)
{
    static const char *const windows[] = {"each-layer", "slide", "around", "all", "list"};
    int rc = KS_OK;
    char *heads = NULL;
    KS_GET(heads, ks_strdup(s->heads == KS_HEADS_EACH ? "each" : s->heads == KS_HEADS_ALL ? "all" : ""));
    for (size_t i = 0; s->heads == KS_HEADS_LIST && i < s->n_heads; i++) {
        char *longer = ks_format(i ? "%s,%d" : "%s%d", heads, (int)s->head_list[i]);
        free(heads);
        KS_GET(heads, longer);
    }
    KS_TRY(ks_h5_put_text(g, "kind", ks_kind_names[s->kind]));
    KS_TRY(ks_h5_put_text(g, "edges", ks_edges_names[s->edges]));
    KS_TRY(ks_h5_put_text(g, "heads", heads));
    KS_TRY(ks_h5_put_text(g, "positions", ks_positions_names[s->positions]));
    KS_TRY(ks_h5_put_text(g, "windows", windows[s->windows]));
    KS_TRY(ks_h5_put_doubles(g, "values", s->values, s->n_values));
done:
    free(heads);
    return rc;
}

static int put_windows(ks_h5_group *g, const ks_window *windows, size_t W)
{
    int rc = KS_OK;
    int32_t *v = NULL;
    KS_NEW(v, W);
    for (size_t w = 0; w < W; w++) v[w] = windows[w].a;
    KS_TRY(ks_h5_put(g, &(ks_h5_spec){"layer_start", KS_I32, "window", NULL}, v));
    for (size_t w = 0; w < W; w++) v[w] = windows[w].b;
    KS_TRY(ks_h5_put(g, &(ks_h5_spec){"layer_end", KS_I32, "window", NULL}, v));
done:
    free(v);
    return rc;
}

int ks_results_add_sweep(ks_results *r, size_t m, const ks_sweep *s, const ks_window *windows, size_t W, size_t n_heads_axis, size_t *index)
{
    int rc = KS_OK;
    KS_REQUIRE(m < r->n_models, KS_EMACHINE, "results: model %zu of %zu", m, r->n_models);
    model *M = &r->models[m];
    KS_REQUIRE(W, KS_EUSAGE, "%s: sweep %s has no windows", r->disk.path, s->name);
    sweep *grown = ks_realloc(M->sweeps, M->n_sweeps + 1, sizeof *grown);
    KS_REQUIRE(grown, KS_EMACHINE, "%s", ks_error_text());
    M->sweeps = grown;
    sweep *w = &M->sweeps[M->n_sweeps];
    *w = (sweep){.F = s->n_values > 1 ? s->n_values : 1, .W = W, .H = n_heads_axis ? n_heads_axis : 1};
    *index = M->n_sweeps++;

    ks_h5_group *g = &w->group;
    KS_TRY(ks_h5_group_create(g, &M->sweeps_group, s->name));
    KS_TRY(put_sweep_attributes(g, s));
    if (s->n_values > 1) KS_TRY(ks_h5_double_axis(g, "factor", s->n_values, s->values));
    KS_TRY(ks_h5_index_axis(g, "window", W));
    if (n_heads_axis) KS_TRY(ks_h5_index_axis(g, "head", n_heads_axis));
    KS_TRY(ks_h5_string_axis(g, "sample", M->S, (const char *const *)M->ids));
    KS_TRY(ks_h5_index_axis(g, "k", KS_TOP_K));
    if (s->positions == KS_POSITIONS_ALL) KS_TRY(ks_h5_index_axis(g, "token", M->T));
    KS_TRY(put_windows(g, windows, W));
    /* The groups stand here once more, so that a sweep alone can be grouped by them. */
    KS_TRY(ks_h5_put_strings(g, "group", "sample", (const char *const *)M->groups));
    g->coordinates = "layer_start layer_end group";
    const size_t entries = s->positions == KS_POSITIONS_ALL && M->T > KS_TOP_K ? M->T : KS_TOP_K;
    g->block = w->block = find_block(M->S, w->F * w->W * w->H, entries * sizeof(double));
    for (int i = 0; i < (s->positions == KS_POSITIONS_ALL ? N_SWEEP_ARRAYS : KL_POSITIONS); i++)
        KS_TRY(ks_h5_array_create(&w->a[i], g, &sweep_arrays[i]));
done:
    return rc;
}

/* ---- values ---- */

static int find_sweep(ks_results *r, size_t m, size_t s, size_t sample, sweep **out)
{
    int rc = KS_OK;
    KS_REQUIRE(m < r->n_models && s < r->models[m].n_sweeps && sample < r->models[m].S, KS_EMACHINE,
               "results: no model %zu, sweep %zu, sample %zu", m, s, sample);
    *out = &r->models[m].sweeps[s];
done:
    return rc;
}

static double or_nan(double x)
{
    return isfinite(x) ? x : (double)NAN;
}

/* Elements from i on. */
static double *touch_f64(ks_h5_array *a, size_t i, size_t n)
{
    return ks_h5_array_touch(a, i * sizeof(double), n * sizeof(double));
}

static void set_f64(ks_h5_array *a, size_t i, const double *x, size_t n)
{
    double *to = touch_f64(a, i, n);
    for (size_t k = 0; k < n; k++) to[k] = or_nan(x[k]);
}

static void set_i32(ks_h5_array *a, size_t i, const int32_t *x, size_t n)
{
    memcpy(ks_h5_array_touch(a, i * sizeof *x, n * sizeof *x), x, n * sizeof *x);
}

static void set_u8(ks_h5_array *a, size_t i, uint8_t x)
{
    *(uint8_t *)ks_h5_array_touch(a, i, sizeof x) = x;
}

int ks_results_put_baseline(ks_results *r, size_t m, size_t sample, const ks_baseline *b, const float *logits,
                            const float *strength_by_head, double uniform, const double *strength)
{
    int rc = KS_OK;
    KS_REQUIRE(m < r->n_models && sample < r->models[m].S, KS_EMACHINE, "results: no model %zu, sample %zu", m, sample);
    model *M = &r->models[m];
    set_i32(&M->b[B_TOP_IDS], sample * KS_TOP_K, b->top_ids, KS_TOP_K);
    set_f64(&M->b[B_TOP_P], sample * KS_TOP_K, b->top_p, KS_TOP_K);
    set_f64(&M->b[B_ENTROPY], sample, &b->entropy, 1);
    set_f64(&M->b[B_FLOOR], sample, &b->floor, 1);
    const size_t row = M->V * sizeof *logits;
    if (logits && M->b[B_LOGITS].n) memcpy(ks_h5_array_touch(&M->b[B_LOGITS], sample * row, row), logits, row);
    set_f64(&M->att[A_UNIFORM], sample, &uniform, 1);
    for (size_t l = 0; strength && l < M->L; l++) set_f64(&M->att[A_STRENGTH], find_element(M->block, M->L, l, sample), &strength[l], 1);
    for (size_t i = 0; strength_by_head && i < M->L * M->H; i++) {
        const size_t at = find_element(M->block, M->L * M->H, i, sample) * sizeof *strength_by_head;
        memcpy(ks_h5_array_touch(&M->att[A_BY_HEAD], at, sizeof *strength_by_head), &strength_by_head[i], sizeof *strength_by_head);
    }
    set_u8(&M->b[B_STATUS], sample, KS_CELL_DONE);
done:
    return rc;
}

int ks_results_put_edges(ks_results *r, size_t m, size_t s, size_t sample, int32_t edges_removed)
{
    int rc = KS_OK;
    sweep *w = NULL;
    KS_TRY(find_sweep(r, m, s, sample, &w));
    set_i32(&w->a[EDGES_REMOVED], sample, &edges_removed, 1);
done:
    return rc;
}

int ks_results_put_cell(ks_results *r, size_t m, size_t s, size_t factor, size_t window, size_t head, size_t sample, const ks_cell *c,
                        const ks_position_cell *positions)
{
    int rc = KS_OK;
    sweep *w = NULL;
    KS_TRY(find_sweep(r, m, s, sample, &w));
    KS_REQUIRE(factor < w->F && window < w->W && head < w->H, KS_EMACHINE, "results: no factor %zu, window %zu, head %zu", factor, window,
               head);
    const model *M = &r->models[m];
    const size_t i = find_element(w->block, w->F * w->W * w->H, (factor * w->W + window) * w->H + head, sample);

    set_f64(&w->a[KL], i, &c->kl, 1);
    set_f64(&w->a[KL_REVERSE], i, &c->kl_reverse, 1);
    set_f64(&w->a[JS], i, &c->js, 1);
    set_f64(&w->a[TV], i, &c->tv, 1);
    set_f64(&w->a[P_TOP], i, &c->p_top, 1);
    set_f64(&w->a[DLOGIT_TOP], i, &c->dlogit_top, 1);
    set_u8(&w->a[TOP_CHANGED], i, c->top_changed);
    set_i32(&w->a[TOP_IDS], i * KS_TOP_K, c->top_ids, KS_TOP_K);
    set_f64(&w->a[TOP_P_BASELINE], i * KS_TOP_K, c->top_p_baseline, KS_TOP_K);
    set_f64(&w->a[TOP_P_ABLATED], i * KS_TOP_K, c->top_p_ablated, KS_TOP_K);
    if (positions && w->a[KL_POSITIONS].n) {
        const size_t n = (size_t)M->n_tokens[sample];
        double *kl = touch_f64(&w->a[KL_POSITIONS], i * M->T, n), *p_next = touch_f64(&w->a[P_NEXT_POSITIONS], i * M->T, n);
        double *dlogit_next = touch_f64(&w->a[DLOGIT_NEXT_POSITIONS], i * M->T, n);
        for (size_t t = 0; t < n; t++) {
            kl[t] = or_nan(positions[t].kl);
            p_next[t] = or_nan(positions[t].p_next);
            dlogit_next[t] = or_nan(positions[t].dlogit_next);
        }
    }
    set_u8(&w->a[STATUS], i, c->status == KS_CELL_NOT_COMPUTED || isfinite(c->kl) ? c->status : (uint8_t)KS_CELL_NOT_FINITE);
done:
    return rc;
}

/* ---- texts of top tokens ---- */

int ks_results_top_ids(const ks_results *r, size_t m, int32_t **ids, size_t *n)
{
    int rc = KS_OK;
    uint8_t *seen = NULL; /* [V] */
    int32_t *v = NULL;
    KS_REQUIRE(m < r->n_models, KS_EMACHINE, "results: model %zu of %zu", m, r->n_models);
    const model *M = &r->models[m];
    KS_NEW(seen, M->V);
    size_t count = 0;
    for (size_t a = 0; a <= M->n_sweeps; a++) {
        const ks_h5_array *from = a < M->n_sweeps ? &M->sweeps[a].a[TOP_IDS] : &M->b[B_TOP_IDS];
        for (size_t i = 0; i < from->n; i++) {
            const int32_t id = ((const int32_t *)ks_h5_array_data(from))[i];
            if (id < 0 || (size_t)id >= M->V || seen[id]) continue;
            seen[id] = 1;
            count++;
        }
    }
    KS_NEW(v, count);
    *n = 0;
    for (size_t id = 0; id < M->V; id++)
        if (seen[id]) v[(*n)++] = (int32_t)id;
    *ids = v;
done:
    free(seen);
    return rc;
}

int ks_results_put_token_text(ks_results *r, size_t m, const int32_t *ids, char *const *texts, size_t n)
{
    int rc = KS_OK;
    ks_h5_group g = {0};
    KS_REQUIRE(m < r->n_models, KS_EMACHINE, "results: model %zu of %zu", m, r->n_models);
    if (!n) goto done;
    KS_TRY(ks_h5_group_replace(&g, &r->models[m].group, "top_tokens"));
    KS_TRY(ks_h5_index_axis(&g, "entry", n));
    KS_TRY(ks_h5_put(&g, &(ks_h5_spec){"id", KS_I32, "entry", NULL}, ids));
    KS_TRY(ks_h5_put_strings(&g, "text", "entry", (const char *const *)texts));
done:
    ks_h5_group_close(&g);
    return rc;
}

/* ---- to the disk ---- */

/* Calls visit for every array; last: only those that say that others hold results, else only the others. */
typedef int visitor(ks_results *r, ks_h5_array *a);

static int for_arrays(ks_results *r, bool last, visitor *visit)
{
    int rc = KS_OK;
    for (size_t m = 0; m < r->n_models; m++) {
        model *M = &r->models[m];
        for (int i = 0; i < N_BASELINE_ARRAYS; i++)
            if (M->b[i].n && last == (i == B_STATUS)) KS_TRY(visit(r, &M->b[i]));
        for (int i = 0; i < N_ATTENTION_ARRAYS; i++)
            if (M->att[i].n && !last) KS_TRY(visit(r, &M->att[i]));
        for (size_t s = 0; s < M->n_sweeps; s++)
            for (int i = 0; i < N_SWEEP_ARRAYS; i++)
                if (M->sweeps[s].a[i].n && last == (i == STATUS)) KS_TRY(visit(r, &M->sweeps[s].a[i]));
    }
done:
    return rc;
}

/* Writes the pages that changed, neighbours at once. */
static int write_changes(ks_results *r, ks_h5_array *a)
{
    int rc = KS_OK;
    const size_t pages = (a->bytes + KS_H5_PAGE - 1) / KS_H5_PAGE;
    const char *data = ks_h5_array_data(a);
    for (size_t p = 0; a->published && p < pages; p++) {
        const uint8_t *first = memchr(a->dirty + p, 1, pages - p);
        if (!first) break;
        const size_t begin = (size_t)(first - a->dirty);
        for (p = begin; p < pages && a->dirty[p];) p++;
        const size_t at = begin * KS_H5_PAGE, end = p < pages ? p * KS_H5_PAGE : a->bytes;
        KS_TRY(ks_disk_write(&r->disk, data + at, end - at, a->offset + at));
    }
done:
    return rc;
}

static int forget_changes(ks_results *r, ks_h5_array *a)
{
    (void)r;
    if (a->published) memset(a->dirty, 0, a->bytes / KS_H5_PAGE + 1);
    return KS_OK;
}

static int mark_published(ks_results *r, ks_h5_array *a)
{
    a->published = true;
    return forget_changes(r, a);
}

/* The whole file, under a name that is free, instead of one that somebody took away. */
static int rescue(ks_results *r, int state, const void *image, size_t bytes)
{
    int rc = KS_OK;
    const long long finished = count_finished(r);
    char *former = NULL;
    const char *what = state == KS_DISK_GONE ? "removed or renamed" : "replaced by another file";
    KS_GET(former, ks_strdup(r->disk.path));
    rc = ks_disk_rescue(&r->disk, image, bytes);
    KS_REQUIRE(!rc, rc, "%s: was %s while it was being written, and what was finished (%lld cells and baselines) cannot be saved: %s",
               former, what, finished, ks_error_text());
    for_arrays(r, false, mark_published);
    for_arrays(r, true, mark_published);
    rc = ks_error(KS_EMACHINE, "%s: was %s while it was being written; all that was finished (%lld cells and baselines) is saved in %s",
                  former, what, finished, r->disk.path);
done:
    free(former);
    return rc;
}

int ks_results_publish(ks_results *r)
{
    int rc = KS_OK;
    const void *image = NULL;
    size_t bytes = 0;
    const int state = ks_disk_state(&r->disk);
    KS_TRY(ks_h5_file_image(&r->f, &image, &bytes));
    if (state != KS_DISK_SAME && r->disk.ours) KS_TRY(rescue(r, state, image, bytes));
    KS_REQUIRE(state != KS_DISK_REPLACED, KS_EMACHINE, "%s: another file has come there since this run began; --output names another",
               r->disk.path);
    rc = ks_disk_publish(&r->disk, image, bytes);
    KS_REQUIRE(!rc, rc, "%s%s", ks_error_text(), r->disk.ours ? "; the cells that were finished stay in the file" : "");
    for_arrays(r, false, mark_published);
    for_arrays(r, true, mark_published);
done:
    return rc;
}

/* Values, then the disk has them, then the status. So after a kill (the kernel keeps the order of writes) and after a power loss (the disk
 * may change the order of what was not synchronised) a status says no more than what is there. */
int ks_results_flush(ks_results *r)
{
    int rc = KS_OK;
    const int64_t before = r->disk.written;
    if (!r->disk.ours) goto done;
    if (ks_disk_state(&r->disk) != KS_DISK_SAME) KS_TRY(ks_results_publish(r));
    KS_TRY(for_arrays(r, false, write_changes));
    if (r->disk.written > before) KS_TRY(ks_disk_sync(&r->disk));
    for_arrays(r, false, forget_changes); /* not before: pages that a failing disk has dropped must be written again */
    KS_TRY(for_arrays(r, true, write_changes));
    for_arrays(r, true, forget_changes);
done:
    return rc;
}

int ks_results_close(ks_results *r)
{
    int rc = ks_results_publish(r);
    if (rc) ks_results_abandon(r);
    else results_free(r);
    return rc;
}

static void give_up(ks_results *r, bool say)
{
    if (!r) return;
    char *text = ks_strdup(ks_error_text());
    const int rc = ks_results_flush(r);
    if (rc && text && strcmp(text, ks_error_text())) ks_log(KS_LOG_WARN, "%s", ks_error_text());
    if (say && r->disk.ours && ks_disk_state(&r->disk) == KS_DISK_SAME && count_finished(r))
        ks_log(KS_LOG_WARN, "%s keeps what was %s; --resume goes on with it", r->disk.path, rc ? "saved before" : "finished");
    ks_error(rc, "%s", text ? text : "");
    free(text);
    results_free(r);
}

void ks_results_abandon(ks_results *r)
{
    give_up(r, false);
}

void ks_results_break_off(ks_results *r)
{
    give_up(r, true);
}

int64_t ks_results_written(const ks_results *r)
{
    return r->disk.written;
}
