#include "sweep/resume.h"

#include "analysis/reader.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "plan/plan.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct ks_former {
    const char *path;     /* not owned */
    const ks_config *cfg; /* not owned */
    ks_study *study;
};

#define WAY_OUT "--output names another file, --force instead of --resume begins anew"

__attribute__((format(printf, 2, 3))) static int refuse(const ks_former *f, const char *format, ...)
{
    char why[1500];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    return ks_error(KS_EUSAGE, "%s: cannot be resumed: %s; " WAY_OUT, f->path, why);
}

#define SAME(cond, ...)                  \
    do {                                 \
        if (!(cond)) {                   \
            rc = refuse(f, __VA_ARGS__); \
            goto done;                   \
        }                                \
    } while (0)

/* ---- configuration ---- */

/* Members that may grow: what the file holds of them is compared by meaning. */
static bool may_grow(const char *key)
{
    static const char *const keys[] = {"models", "groups", "samples", "include_baselines", "sweeps"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strcmp(key, keys[i])) return true;
    return false;
}

/* Every member of one configuration that the other has differently, or has not. */
static int compare_members(const ks_former *f, const cJSON *old, const cJSON *now, const cJSON *keys)
{
    int rc = KS_OK;
    char *was = NULL, *is = NULL;
    for (const cJSON *k = keys->child; k; k = k->next) {
        const cJSON *a = cJSON_GetObjectItemCaseSensitive(old, k->string), *b = cJSON_GetObjectItemCaseSensitive(now, k->string);
        if (may_grow(k->string) || (a && b && cJSON_Compare(a, b, true))) continue;
        was = a ? cJSON_PrintUnformatted(a) : NULL;
        is = b ? cJSON_PrintUnformatted(b) : NULL;
        rc = refuse(f, "its \"%.100s\" is %.300s, now it is %.300s", k->string, was ? was : "missing", is ? is : "missing");
        break;
    }
    cJSON_free(was);
    cJSON_free(is);
    return rc;
}

static int compare_config(const ks_former *f)
{
    int rc = KS_OK;
    char *json = NULL, *name = NULL;
    cJSON *old = NULL, *now = NULL;
    KS_GET(json, ks_config_json(f->cfg));
    KS_TRY(ks_json_parse(&now, json, strlen(json), "the configuration"));
    KS_GET(name, ks_format("%s: attribute config", f->path));
    KS_TRY(ks_json_parse(&old, f->study->config, strlen(f->study->config), name));
    KS_REQUIRE(cJSON_IsObject(old), KS_EINPUT, "%s: must be an object, found %s", name, ks_json_kind(old));
    KS_TRY(compare_members(f, old, now, old));
    KS_TRY(compare_members(f, old, now, now));
done:
    cJSON_Delete(old);
    cJSON_Delete(now);
    free(name);
    free(json);
    return rc;
}

/* "all", "each" or "0,3,5", as the file says it. */
static char *heads_text(const ks_sweep *s)
{
    char *text = ks_strdup(s->heads == KS_HEADS_EACH ? "each" : s->heads == KS_HEADS_ALL ? "all" : "");
    for (size_t i = 0; text && s->heads == KS_HEADS_LIST && i < s->n_heads; i++) {
        char *longer = ks_format(i ? "%s,%d" : "%s%d", text, (int)s->head_list[i]);
        free(text);
        text = longer;
    }
    return text;
}

/* The place of a former value among the new ones, -1 where it has none. A knockout has the one value NaN in the file. */
static int32_t find_value(const ks_sweep *s, double value)
{
    if (!s->n_values) return isnan(value) ? 0 : -1;
    for (size_t i = 0; i < s->n_values; i++)
        if (s->values[i] == value) return (int32_t)i;
    return -1;
}

static int compare_sweep(const ks_former *f, const ks_study_model *m, const ks_study_sweep *old, const ks_sweep *now)
{
    int rc = KS_OK;
    char *heads = NULL;
    KS_GET(heads, heads_text(now));
    const struct {
        const char *name, *was, *is;
    } words[] = {{"kind", old->kind, ks_kind_names[now->kind]},
                 {"edges", old->edges, ks_edges_names[now->edges]},
                 {"heads", old->heads, heads},
                 {"positions", old->positions, ks_positions_names[now->positions]}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        SAME(!strcmp(words[i].was, words[i].is),
             "model %s: sweep %s was made with %s \"%.200s\", now it has \"%.200s\"; under a new name it is another sweep", m->name,
             old->name, words[i].name, words[i].was, words[i].is);
    for (size_t i = 0; i < old->F; i++)
        SAME(find_value(now, old->values[i]) >= 0, "model %s: sweep %s holds the value %g, which is not asked for any more", m->name,
             old->name, old->values[i]);
    SAME(old->K == KS_TOP_K, "model %s: sweep %s keeps %zu top tokens, this version keeps %d", m->name, old->name, old->K, KS_TOP_K);
done:
    free(heads);
    return rc;
}

static const ks_sweep *find_sweep(const ks_config *cfg, const char *name, size_t *index)
{
    for (*index = 0; *index < cfg->n_sweeps; ++*index)
        if (!strcmp(cfg->sweeps[*index].name, name)) return &cfg->sweeps[*index];
    return NULL;
}

static int compare_names(const ks_former *f)
{
    int rc = KS_OK;
    for (size_t i = 0; i < f->study->n_models; i++) {
        const ks_study_model *m = &f->study->models[i];
        size_t k = 0;
        while (k < f->cfg->n_models && strcmp(f->cfg->models[k].name, m->name) != 0) k++;
        SAME(k < f->cfg->n_models, "it holds results of the model %.200s, which is not asked for any more", m->name);
        for (size_t j = 0; j < m->n_sweeps; j++) {
            const ks_sweep *s = find_sweep(f->cfg, m->sweeps[j].name, &k);
            SAME(s, "model %.200s: it holds results of the sweep %.200s, which is not asked for any more", m->name, m->sweeps[j].name);
            KS_TRY(compare_sweep(f, m, &m->sweeps[j], s));
        }
    }
done:
    return rc;
}

int ks_former_open(ks_former **out, const char *path, const ks_config *cfg)
{
    int rc = KS_OK;
    ks_former *f = NULL;
    struct stat st;
    *out = NULL;
    if (stat(path, &st)) {
        KS_REQUIRE(errno == ENOENT, KS_EINPUT, "%s: cannot be read: %s", path, strerror(errno));
        ks_log(KS_LOG_INFO, "%s: not there yet: nothing to resume, everything is computed", path);
        goto done;
    }
    KS_REQUIRE(S_ISREG(st.st_mode), KS_EUSAGE, "%s: exists and is not a regular file; --output names another", path);
    KS_NEW(f, 1);
    *f = (ks_former){.path = path, .cfg = cfg};
    rc = ks_study_probe(path, true);
    if (!rc) rc = ks_study_read_whole(&f->study, path);
    if (!rc) rc = compare_config(f);
    if (rc == KS_EINPUT || (rc == KS_EUSAGE && !f->study)) ks_error(rc, "%.1800s; " WAY_OUT, ks_error_text());
    if (rc) goto done;
    KS_TRY(compare_names(f));
done:
    if (rc) ks_former_free(f);
    else *out = f;
    return rc;
}

void ks_former_free(ks_former *f)
{
    if (!f) return;
    ks_study_free(f->study);
    free(f);
}

/* ---- model and samples ---- */

static int compare_model(const ks_former *f, const ks_study_model *m, const ks_model_info *now)
{
    int rc = KS_OK;
    const struct {
        const char *name, *was, *is;
    } words[] = {{"architecture", m->architecture, now->architecture},
                 {"weight_dtype", m->weight_dtype, now->weight_dtype},
                 {"precision", m->precision, now->precision},
                 {"weights_sha256", m->weights_sha256, now->weights_sha256},
                 {"tokenizer_sha256", m->tokenizer_sha256, now->tokenizer_sha256},
                 {"config_sha256", m->config_sha256, now->config_sha256}};
    const struct {
        const char *name;
        int32_t was, is;
    } numbers[] = {{"n_layers", m->n_layers, now->n_layers},
                   {"n_heads", m->n_heads, now->n_heads},
                   {"n_kv_heads", m->n_kv_heads, now->n_kv_heads},
                   {"d_model", m->d_model, now->d_model},
                   {"vocab", m->vocab, now->vocab}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        SAME(numbers[i].was == numbers[i].is, "model %s: its %s is %d, now it is %d", m->name, numbers[i].name, (int)numbers[i].was,
             (int)numbers[i].is);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        const char *is = words[i].is ? words[i].is : "";
        SAME(!strcmp(words[i].was, is), "model %s: its %s is \"%.200s\", now it is \"%.200s\"", m->name, words[i].name, words[i].was, is);
    }
    SAME(m->BK == KS_TOP_K, "model %s: its baselines keep %zu top tokens, this version keeps %d", m->name, m->BK, KS_TOP_K);
done:
    return rc;
}

static int compare_sample(const ks_former *f, const ks_study_model *m, size_t s, const ks_sample *now)
{
    int rc = KS_OK;
    const char *text = now->text ? now->text : "";
    size_t same = 0;
    SAME(!strcmp(m->groups[s], now->group), "model %s: corpus: sample %s differs: its group is %.200s, now it is %.200s", m->name, now->id,
         m->groups[s], now->group);
    while (text[same] && text[same] == m->sample_texts[s][same]) same++;
    SAME(text[same] == m->sample_texts[s][same],
         "model %s: corpus: sample %s differs: after %zu bytes its text goes on \"%.60s\", now \"%.60s\"", m->name, now->id, same,
         m->sample_texts[s] + same, text + same);
    SAME(m->n_tokens[s] == now->T, "model %s: corpus: sample %s differs: it has %d tokens, now %d", m->name, now->id, (int)m->n_tokens[s],
         (int)now->T);
    for (int32_t t = 0; t < now->T; t++) {
        const size_t at = s * m->T + (size_t)t;
        SAME(m->token_ids[at] == now->ids[t], "model %s: corpus: sample %s differs: its token %d is %d, now %d", m->name, now->id, (int)t,
             (int)m->token_ids[at], (int)now->ids[t]);
        SAME(!m->marker[at] == !now->marker[t], "model %s: corpus: sample %s differs: its token %d %s of the marker, now it %s", m->name,
             now->id, (int)t, m->marker[at] ? "is" : "is not", now->marker[t] ? "is" : "is not");
        SAME(!m->target[at] == !now->target[t], "model %s: corpus: sample %s differs: its token %d %s a target, now it %s", m->name,
             now->id, (int)t, m->target[at] ? "is" : "is not", now->target[t] ? "is" : "is not");
    }
done:
    return rc;
}

/* place [m->S]: where each former sample stands now. */
static int compare_samples(const ks_former *f, const ks_study_model *m, const ks_samples *now, int32_t *place)
{
    int rc = KS_OK;
    size_t at = 0; /* samples mostly keep their order: the next one is looked at first */
    for (size_t s = 0; s < m->S; s++) {
        size_t tried = 0;
        while (tried < now->n && strcmp(now->v[(at + tried) % now->n].id, m->ids[s]) != 0) tried++;
        SAME(tried < now->n, "model %s: it holds results of the sample %.200s (group %.200s), which is not asked for any more", m->name,
             m->ids[s], m->groups[s]);
        at = (at + tried) % now->n;
        KS_TRY(compare_sample(f, m, s, &now->v[at]));
        place[s] = (int32_t)at++;
    }
done:
    return rc;
}

/* Which of the new sweep's places the former ones are. */
typedef struct sweep_map {
    const ks_grid_sweep *to;
    int32_t *window; /* [W of the former sweep] */
} sweep_map;

static int map_sweep(const ks_former *f, const ks_study_model *m, const ks_study_sweep *old, const ks_grid *grid, sweep_map *map)
{
    int rc = KS_OK;
    const size_t L = (size_t)grid->L;
    size_t index;
    int32_t *number = NULL; /* [a, b] place in the new sweep, from 1; 0 for none */
    const ks_sweep *now = find_sweep(f->cfg, old->name, &index);
    KS_REQUIRE(now && index < grid->n_sweeps, KS_EMACHINE, "resume: no sweep %s", old->name);
    map->to = &grid->sweeps[index];
    KS_NEW(number, L * L);
    KS_NEW(map->window, old->W);
    for (size_t w = map->to->W; w-- > 0;) number[(size_t)map->to->windows[w].a * L + (size_t)map->to->windows[w].b] = (int32_t)w + 1;
    for (size_t w = 0; w < old->W; w++) {
        map->window[w] = number[(size_t)old->layer_start[w] * L + (size_t)old->layer_end[w]] - 1;
        SAME(map->window[w] >= 0, "model %s: sweep %s holds the window [%d, %d], which is not asked for any more", m->name, old->name,
             (int)old->layer_start[w], (int)old->layer_end[w]);
    }
done:
    free(number);
    return rc;
}

/* ---- import ---- */

static int import_baselines(const ks_study_model *m, const ks_former_task *task, const int32_t *place, const ks_former_sink *sink,
                            ks_known *known)
{
    int rc = KS_OK;
    const size_t L = (size_t)m->n_layers, LH = L * (size_t)m->n_heads, S = m->S;
    float *by_head = NULL;
    double *strength = NULL;
    if (task->info->save_logits && !m->logits) goto done;
    KS_NEW(by_head, LH);
    KS_NEW(strength, L);
    for (size_t s = 0; s < S; s++) {
        if (m->baseline_status ? !m->baseline_status[s] : !isfinite(m->entropy[s])) continue;
        ks_baseline b = {.entropy = m->entropy[s], .floor = m->floor[s]};
        memcpy(b.top_ids, m->baseline_top_ids + s * KS_TOP_K, sizeof b.top_ids);
        memcpy(b.top_p, m->baseline_top_p + s * KS_TOP_K, sizeof b.top_p);
        for (size_t l = 0; l < L; l++) strength[l] = m->strength[l * S + s];
        for (size_t i = 0; i < LH; i++) by_head[i] = m->by_head[i * S + s];
        const float *logits = task->info->save_logits ? m->logits + s * (size_t)m->vocab : NULL;
        KS_TRY(sink->baseline(sink->ctx, place[s], &b, logits, by_head, m->uniform[s], strength));
        known->baseline_done[place[s]] = 1;
        known->baselines++;
    }
done:
    free(by_head);
    free(strength);
    return rc;
}

/* A killed run may leave numbers under status 0. A finished cell's KL exists, whatever its status says; NaN is the face of status 3. */
static bool is_finished(const ks_study_sweep *o, size_t at)
{
    return o->status[at] == KS_CELL_NOT_FINITE || (o->status[at] != KS_CELL_NOT_COMPUTED && isfinite(o->kl[at]));
}

static ks_cell cell_at(const ks_study_sweep *o, size_t at)
{
    ks_cell c = {.status = o->status[at],
                 .top_changed = o->top_changed[at],
                 .kl = o->kl[at],
                 .kl_reverse = o->kl_reverse[at],
                 .js = o->js[at],
                 .tv = o->tv[at],
                 .p_top = o->p_top[at],
                 .dlogit_top = o->dlogit_top[at]};
    memcpy(c.top_ids, o->top_ids + at * KS_TOP_K, sizeof c.top_ids);
    memcpy(c.top_p_baseline, o->top_p_baseline + at * KS_TOP_K, sizeof c.top_p_baseline);
    memcpy(c.top_p_ablated, o->top_p_ablated + at * KS_TOP_K, sizeof c.top_p_ablated);
    return c;
}

static int import_sweep(const ks_former *f, const ks_study_model *m, const ks_study_sweep *o, const sweep_map *map, const ks_grid *grid,
                        const int32_t *place, const ks_former_sink *sink, ks_known *known)
{
    int rc = KS_OK;
    const size_t words = ks_done_words(grid);
    size_t index;
    ks_position_cell *positions = NULL;
    const ks_sweep *now = find_sweep(f->cfg, o->name, &index);
    const bool has_positions = o->kl_positions && o->p_next_positions && o->dlogit_next_positions;
    KS_NEW(positions, m->T);
    for (size_t i = 0; i < o->F * o->W * o->H; i++) {
        const size_t factor = (size_t)find_value(now, o->values[i / o->H / o->W]), window = (size_t)map->window[i / o->H % o->W];
        const int32_t v = map->to->variant[(factor * map->to->W + window) * o->H + i % o->H];
        const bool all = grid->variants[v].positions == KS_POSITIONS_ALL;
        if (all && !has_positions) continue;
        for (size_t s = 0; s < m->S; s++) {
            const size_t at = i * m->S + s;
            uint64_t *word = &known->done[(size_t)place[s] * words + (size_t)v / 64];
            const uint64_t bit = (uint64_t)1 << (v % 64);
            if (*word & bit || !is_finished(o, at)) continue;
            const ks_cell c = cell_at(o, at);
            for (size_t t = 0; all && t < (size_t)m->n_tokens[s]; t++)
                positions[t] = (ks_position_cell){.kl = o->kl_positions[at * m->T + t],
                                                  .p_next = o->p_next_positions[at * m->T + t],
                                                  .dlogit_next = o->dlogit_next_positions[at * m->T + t]};
            KS_TRY(sink->cell(sink->ctx, place[s], v, &c, all ? positions : NULL));
            *word |= bit;
            known->cells++;
        }
    }
done:
    free(positions);
    return rc;
}

static int import_model(const ks_former *f, const ks_study_model *m, const ks_former_task *task, const ks_former_sink *sink,
                        ks_known *known)
{
    int rc = KS_OK;
    int32_t *place = NULL;
    sweep_map *maps = NULL;
    KS_TRY(compare_model(f, m, task->info));
    KS_NEW(place, m->S);
    KS_TRY(compare_samples(f, m, task->samples, place));
    KS_NEW(maps, m->n_sweeps);
    for (size_t i = 0; i < m->n_sweeps; i++) KS_TRY(map_sweep(f, m, &m->sweeps[i], task->grid, &maps[i]));
    KS_TRY(import_baselines(m, task, place, sink, known));
    for (size_t i = 0; i < m->n_sweeps; i++) KS_TRY(import_sweep(f, m, &m->sweeps[i], &maps[i], task->grid, place, sink, known));
done:
    for (size_t i = 0; maps && i < m->n_sweeps; i++) free(maps[i].window);
    free(maps);
    free(place);
    return rc;
}

int ks_former_import(const ks_former *f, const ks_former_task *task, const ks_former_sink *sink, ks_known *known)
{
    int rc = KS_OK;
    const size_t S = task->samples->n;
    const int64_t cells = (int64_t)(S * task->grid->n_variants);
    const ks_study_model *m = NULL;
    *known = (ks_known){0};
    KS_NEW(known->done, S * ks_done_words(task->grid));
    KS_NEW(known->baseline_done, S);
    if (!f) goto done;
    for (size_t i = 0; i < f->study->n_models; i++)
        if (!strcmp(f->study->models[i].name, task->info->name)) m = &f->study->models[i];
    if (m) KS_TRY(import_model(f, m, task, sink, known));
    ks_log(KS_LOG_INFO, "%s: %s: %lld of %lld cells and %lld of %zu baselines are there, %lld cells are missing", f->path, task->info->name,
           (long long)known->cells, (long long)cells, (long long)known->baselines, S, (long long)(cells - known->cells));
done:
    if (rc) ks_known_clear(known);
    return rc;
}

void ks_known_clear(ks_known *k)
{
    free(k->done);
    free(k->baseline_done);
    *k = (ks_known){0};
}

int ks_former_history(const ks_former *f, char **out)
{
    int rc = KS_OK;
    char *line = NULL;
    const ks_study_run *r = f ? &f->study->run : NULL;
    if (!r || !(*r->time || *r->command_line)) {
        KS_GET(*out, ks_strdup(r ? r->history : ""));
        goto done;
    }
    KS_GET(line, ks_format("%s %s ranks %d threads %d backend %s: %s", r->time, r->host, (int)r->ranks, (int)r->threads, r->backend,
                           r->command_line));
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < ' ') *c = ' '; /* an argument may hold a line end */
    KS_GET(*out, *r->history ? ks_format("%s\n%s", r->history, line) : ks_strdup(line));
done:
    free(line);
    return rc;
}

bool ks_former_ended(const ks_former *f, const char *config_json, const char *corpus_sha256)
{
    return *f->study->run.ended && !strcmp(f->study->config, config_json) && !strcmp(f->study->corpus_sha256, corpus_sha256);
}
