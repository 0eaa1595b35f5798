#include "analysis/json.h"
#include "analysis/table.h"
#include "analysis/tables.h"
#include "analysis/tables_private.h"

#include "base/mem.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Written as it goes: a triangle of a large model has thousands of experiments. The fewest digits that give the double back. */
static void number(FILE *out, double x)
{
    char text[32];
    if (!isfinite(x)) {
        fputs("null", out);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x) break;
    }
    fputs(text, out);
}

static void key_number(FILE *out, const char *key, double x)
{
    fprintf(out, ", \"%s\": ", key);
    number(out, x);
}

static void key_text(FILE *out, const char *key, const char *text)
{
    fprintf(out, ", \"%s\": ", key);
    ks_print_json(out, text);
}

static void key_bool(FILE *out, const char *key, bool x)
{
    fprintf(out, ", \"%s\": %s", key, x ? "true" : "false");
}

/* "python" of "python_doctest": the published files name languages, not groups. */
static void language(char *out, size_t size, const char *group)
{
    snprintf(out, size, "%.*s", (int)strcspn(group, "_"), group);
}

static void token(FILE *out, const ks_study_model *m, int32_t id)
{
    const char *text = ks_study_token(m, id);
    char unnamed[32];
    snprintf(unnamed, sizeof unnamed, "<id %d>", (int)id);
    fputs("{\"token\": ", out);
    ks_print_json(out, text ? text : unnamed);
    fprintf(out, ", \"id\": %d", (int)id);
}

static void one_sample(FILE *out, const ks_view *v, size_t at, size_t i)
{
    static const char *const words[KS_STATUSES] = {"not computed", "done", "row left empty", "not finite", "nothing to remove"};
    const ks_study_model *m = v->m;
    const ks_study_sweep *s = v->s;
    char name[64];
    language(name, sizeof name, m->groups[i]);
    fputs("{\"id\": ", out);
    ks_print_json(out, m->ids[i]);
    key_text(out, "language", name);
    key_text(out, "group", m->groups[i]);
    key_bool(out, "is_baseline", ks_is_baseline(m->groups[i]));
    key_number(out, "kl_divergence", s->kl[at]);
    key_number(out, "floor", m->floor[i]);
    key_text(out, "status", words[s->status[at]]);

    int32_t marker = -1;
    for (int32_t t = m->n_tokens[i] - 1; t >= 0; t--)
        if (m->marker[i * m->T + (size_t)t]) marker = t;
    if (marker < 0) fputs(", \"marker_token_pos\": null", out);
    else fprintf(out, ", \"marker_token_pos\": %d", (int)marker);
    fputs(", \"target_token_positions\": [", out);
    bool first = true;
    for (int32_t t = 0; t < m->n_tokens[i]; t++) {
        if (!m->target[i * m->T + (size_t)t]) continue;
        fprintf(out, first ? "%d" : ", %d", (int)t);
        first = false;
    }
    fprintf(out, "], \"edges_knocked_out\": %d, \"top_changed_tokens\": [", (int)s->edges_removed[i]);
    first = true;
    for (size_t k = 0; k < s->K; k++) {
        if (s->top_ids[at * s->K + k] < 0) continue;
        const double before = s->top_p_baseline[at * s->K + k], after = s->top_p_ablated[at * s->K + k];
        if (!first) fputs(", ", out);
        first = false;
        token(out, m, s->top_ids[at * s->K + k]);
        key_number(out, "baseline_prob", before);
        key_number(out, "ablated_prob", after);
        key_number(out, "diff", after - before);
        fputc('}', out);
    }
    fputs("]}", out);
}

static void group_stats(FILE *out, const ks_groups *g, const char *group, const ks_summary *k)
{
    char name[64];
    language(name, sizeof name, group);
    fputs(", ", out);
    char key[80];
    snprintf(key, sizeof key, "%.60s_stats", ks_group_label(g, group).text);
    ks_print_json(out, key);
    fputs(": {\"language\": ", out);
    ks_print_json(out, name);
    key_text(out, "group", group);
    key_bool(out, "is_baseline", ks_is_baseline(group));
    fprintf(out, ", \"n_samples\": %zu", k->n);
    key_number(out, "mean_kl", k->mean);
    key_number(out, "std_kl", k->std_population);
    key_number(out, "min_kl", k->min);
    key_number(out, "max_kl", k->max);
    key_number(out, "median_kl", k->median);
    fputc('}', out);
}

static int experiment(FILE *out, const ks_view *v, size_t f, size_t w, size_t h)
{
    int rc = KS_OK;
    const ks_study_model *m = v->m;
    const ks_study_sweep *s = v->s;
    ks_group_cell c[2] = {0};
    fputs("{\"model\": ", out);
    ks_print_json(out, m->id[0] ? m->id : m->name);
    key_text(out, "name", m->name);
    key_text(out, "sweep", s->name);
    key_text(out, "kind", s->kind);
    key_text(out, "edges", s->edges);
    if (s->layer_start[w] == s->layer_end[w]) fprintf(out, ", \"layer\": %d", (int)s->layer_start[w]);
    else fprintf(out, ", \"layer_start\": %d, \"layer_end\": %d", (int)s->layer_start[w], (int)s->layer_end[w]);
    if (!isnan(s->values[f])) key_number(out, "factor", s->values[f]);
    if (s->has_head) fprintf(out, ", \"head\": %zu", h);
    fprintf(out, ", \"n_heads\": %d, \"sample_results\": [", (int)m->n_heads);
    bool first = true;
    for (size_t g = 0; g < v->g->n; g++)
        for (size_t i = 0; i < m->S; i++) {
            if (strcmp(m->groups[i], v->g->names[g])) continue;
            fputs(first ? "\n  " : ",\n  ", out);
            first = false;
            one_sample(out, v, ks_study_at(m, s, f, w, h, i), i);
        }
    fputs("]", out);
    for (size_t g = 0; g < v->g->n; g++) {
        ks_group_cell x;
        KS_TRY(ks_group_measure(&x, m, s, f, w, h, v->g->names[g]));
        group_stats(out, v->g, v->g->names[g], &x.kl);
        for (int i = 0; i < 2; i++)
            if (v->g->tests[i] == v->g->names[g]) c[i] = x;
    }
    const ks_welch welch = ks_welch_test(&c[0].kl, &c[1].kl);
    key_number(out, "welch_t_statistic", welch.t);
    key_number(out, "welch_df", welch.df);
    key_number(out, "welch_p_value", welch.p);
    if (isnan(welch.p)) fputs(", \"significant_difference\": null", out);
    else key_bool(out, "significant_difference", welch.p < 0.05);
    fputc('}', out);
done:
    return rc;
}

/* Counts the chosen experiments (out NULL) or writes them. */
static int experiments(FILE *out, ks_study *const *studies, size_t n, const ks_table_options *opt, size_t *count)
{
    int rc = KS_OK;
    ks_groups g = {0};
    *count = 0;
    for (size_t file = 0; file < n; file++)
        for (size_t i = 0; i < studies[file]->n_models; i++) {
            const ks_study_model *m = &studies[file]->models[i];
            if (!ks_chosen_model(opt, m)) continue;
            KS_TRY(ks_groups_choose(&g, m, opt));
            for (size_t k = 0; k < m->n_sweeps; k++) {
                const ks_study_sweep *s = &m->sweeps[k];
                const ks_view v = {.m = m, .s = s, .g = &g, .opt = opt};
                if (!ks_chosen_sweep(opt, s)) continue;
                for (size_t w = 0; w < s->W; w++)
                    for (size_t f = 0; ks_chosen_window(opt, s, w) && f < s->F; f++)
                        for (size_t h = 0; h < s->H; h++) {
                            if (out && *count) fputs(",\n", out);
                            if (out) KS_TRY(experiment(out, &v, f, w, h));
                            ++*count;
                        }
            }
            ks_groups_free(&g);
        }
done:
    ks_groups_free(&g);
    return rc;
}

int ks_stats_json_write(FILE *out, const char *const *paths, size_t n, const ks_table_options *opt)
{
    int rc = KS_OK;
    ks_study **studies = NULL;
    size_t count = 0;
    KS_NEW(studies, n);
    KS_TRY(ks_studies_read(studies, paths, n));
    KS_TRY(ks_check_choice(studies, n, opt));
    KS_TRY(experiments(NULL, studies, n, opt, &count));
    const bool list = count > 1;
    if (list) fputs("{\"experiments\": [\n", out);
    KS_TRY(experiments(out, studies, n, opt, &count));
    fputs(list ? "\n]}\n" : "\n", out);
    KS_REQUIRE(!fflush(out) && !ferror(out), KS_EMACHINE, "the JSON cannot be written: %s", strerror(errno));
done:
    ks_studies_free(studies, n);
    return rc;
}
