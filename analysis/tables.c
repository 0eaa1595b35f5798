#include "analysis/tables.h"
#include "analysis/tables_private.h"

#include "base/mem.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- helpers ---- */

ks_label ks_group_label(const ks_groups *g, const char *group)
{
    ks_label label;
    const size_t n = strcspn(group, "_");
    bool alone = n && n < strlen(group) && !ks_is_baseline(group);
    for (size_t i = 0; i < g->n; i++) {
        const char *other = g->names[i];
        if (strcmp(other, group) && strcspn(other, "_") == n && !memcmp(other, group, n) && !ks_is_baseline(other)) alone = false;
    }
    snprintf(label.text, sizeof label.text, "%.*s", alone ? (int)n : 60, group);
    return label;
}

ks_label ks_window_label(const ks_study_sweep *s, size_t w)
{
    ks_label label;
    if (s->layer_start[w] == s->layer_end[w]) snprintf(label.text, sizeof label.text, "%d", (int)s->layer_start[w]);
    else snprintf(label.text, sizeof label.text, "%d-%d", (int)s->layer_start[w], (int)s->layer_end[w]);
    return label;
}

const char *ks_floor_mark(double value, double floor)
{
    return value <= floor ? "*" : "";
}

const char *ks_mean_mark(const ks_group_cell *c)
{
    if (!c->kl.missing) return ks_floor_mark(c->kl.mean, c->floor);
    return c->kl.mean <= c->floor ? "*!" : "!";
}

double ks_ratio(double a, double b)
{
    return b > 0 ? a / b : (double)NAN;
}

int ks_tests_mean(const ks_view *v, size_t factor, size_t window, size_t head, double *out)
{
    int rc = KS_OK;
    double sum = 0;
    int n = 0;
    for (int i = 0; i < 2 && v->g->tests[i]; i++) {
        ks_group_cell c;
        KS_TRY(ks_group_measure(&c, v->m, v->s, factor, window, head, v->g->tests[i]));
        if (isnan(c.kl.mean)) continue;
        sum += c.kl.mean;
        n++;
    }
    *out = n ? sum / n : (double)NAN;
done:
    return rc;
}

int ks_peak_window(const ks_view *v, size_t *window, bool *found)
{
    int rc = KS_OK;
    double best = NAN;
    *found = false;
    for (size_t w = 0; w < v->s->W; w++) {
        double mean;
        if (!ks_chosen_window(v->opt, v->s, w)) continue;
        KS_TRY(ks_tests_mean(v, 0, w, 0, &mean));
        if (isnan(mean) || (*found && mean <= best)) continue;
        best = mean;
        *window = w;
        *found = true;
    }
done:
    return rc;
}

void ks_view_title(ks_table *t, const ks_view *v, const char *what, const char *where)
{
    const char *heads = v->s->has_head ? "each head" : !strcmp(v->s->heads, "all") ? "all heads" : "heads ";
    ks_table_title(t, "%s: %s, sweep %s%s (%s, %s, %s%s)", what, v->m->name, v->s->name, where, v->s->kind, v->s->edges, heads,
                   heads[strlen(heads) - 1] == ' ' ? v->s->heads : "");
}

void ks_note_groups(ks_table *t, const ks_view *v)
{
    for (size_t i = 0; i < v->g->n; i++) {
        size_t n = 0;
        for (size_t s = 0; s < v->m->S; s++) n += !strcmp(v->m->groups[s], v->g->names[i]);
        const ks_label label = ks_group_label(v->g, v->g->names[i]);
        if (strcmp(label.text, v->g->names[i])) ks_table_note(t, "%s: %s, %zu sample%s", label.text, v->g->names[i], n, n == 1 ? "" : "s");
        else ks_table_note(t, "%s: %zu sample%s", label.text, n, n == 1 ? "" : "s");
    }
}

void ks_note_floor(ks_table *t, const ks_view *v)
{
    for (size_t s = 0; s < v->m->S; s++)
        if (!isnan(v->m->floor[s])) {
            ks_table_note(t, "* at or below the floor: rounding the baseline's residual stream to bf16 changes the prediction as much");
            return;
        }
    ks_table_note(t, "The floor was not measured.");
}

void ks_note_missing(ks_table *t, const size_t *status)
{
    const size_t absent = status[KS_STATUS_NOT_COMPUTED], infinite = status[KS_STATUS_NOT_FINITE];
    if (!absent && !infinite) return;
    ks_table_note(t, "! a mean over fewer samples: values are missing (not computed: %zu, not finite: %zu)", absent, infinite);
}

int ks_view_print(const ks_view *v, ks_table *t)
{
    const int rc = ks_table_print(t, v->out, v->opt->format, *v->first);
    *v->first = false;
    return rc;
}

/* ---- which tables ---- */

static size_t chosen_windows(const ks_table_options *o, const ks_study_sweep *s)
{
    size_t n = 0;
    for (size_t w = 0; w < s->W; w++) n += ks_chosen_window(o, s, w);
    return n;
}

/* alone: no other sweep is printed, so there is room for each sample. */
static int sweep_tables(const ks_view *v, bool alone)
{
    int rc = KS_OK;
    const ks_study_sweep *s = v->s;
    const size_t W = chosen_windows(v->opt, s);
    size_t window = 0;
    bool found = false;
    if (!W) goto done;
    if (s->has_head) {
        KS_TRY(ks_table_heads(v));
        goto done;
    }
    if (s->has_factor) {
        KS_TRY(ks_table_dose(v));
        goto done;
    }
    if (W > 1) {
        KS_TRY(!strcmp(s->windows, "all") ? ks_table_triangle(v) : ks_table_scan(v));
        if (!strcmp(s->edges, "all-marker")) KS_TRY(ks_table_all_edge(v));
    }
    KS_TRY(ks_peak_window(v, &window, &found));
    if (W == 1)
        for (size_t w = 0; w < s->W; w++)
            if (ks_chosen_window(v->opt, s, w)) window = w, found = true;
    if (found) {
        KS_TRY(ks_table_full(v, window, W > 1));
        if (alone || W == 1) KS_TRY(ks_table_samples(v, window, W > 1));
        if (alone || W == 1) KS_TRY(ks_table_positions(v, window));
    }
done:
    return rc;
}

static bool same_windows(const ks_study_sweep *a, const ks_study_sweep *b)
{
    return a->W == b->W && !memcmp(a->layer_start, b->layer_start, a->W * sizeof(int32_t)) &&
           !memcmp(a->layer_end, b->layer_end, a->W * sizeof(int32_t));
}

static bool plain(const ks_study_sweep *s)
{
    return !s->has_factor && !s->has_head;
}

/* Specific edges against all edges, where the model has both for the same windows, kind and heads. */
static int versus_tables(const ks_view *v)
{
    int rc = KS_OK;
    if (!plain(v->s) || strcmp(v->s->edges, "marker-targets")) goto done;
    for (size_t k = 0; k < v->m->n_sweeps; k++) {
        const ks_study_sweep *other = &v->m->sweeps[k];
        if (!plain(other) || strcmp(other->edges, "all-marker") || strcmp(other->kind, v->s->kind) || strcmp(other->heads, v->s->heads))
            continue;
        if (same_windows(v->s, other) && chosen_windows(v->opt, other)) KS_TRY(ks_table_versus(v, other));
    }
done:
    return rc;
}

static int model_tables(FILE *out, const ks_study_model *m, const ks_table_options *opt, bool alone, bool *first)
{
    int rc = KS_OK;
    ks_groups groups = {0};
    KS_TRY(ks_groups_choose(&groups, m, opt));
    for (int pass = 0; pass < 2; pass++)
        for (size_t k = 0; k < m->n_sweeps; k++) {
            const ks_view v = {m, &m->sweeps[k], &groups, opt, out, first};
            if (!ks_chosen_sweep(opt, v.s)) continue;
            KS_TRY(pass ? versus_tables(&v) : sweep_tables(&v, alone));
        }
done:
    ks_groups_free(&groups);
    return rc;
}

int ks_studies_read(ks_study **studies, const char *const *paths, size_t n)
{
    int rc = KS_OK;
    for (size_t i = 0; i < n; i++) KS_TRY(ks_study_read(&studies[i], paths[i]));
done:
    return rc;
}

void ks_studies_free(ks_study **studies, size_t n)
{
    for (size_t i = 0; studies && i < n; i++) ks_study_free(studies[i]);
    free(studies);
}

int ks_tables_print(FILE *out, const char *const *paths, size_t n, const ks_table_options *opt)
{
    int rc = KS_OK;
    ks_study **studies = NULL;
    bool first = true;
    size_t sweeps = 0, models = 0;
    KS_NEW(studies, n);
    KS_TRY(ks_studies_read(studies, paths, n));
    KS_TRY(ks_check_choice(studies, n, opt));
    for (int pass = 0; pass < 2; pass++) /* count, then print */
        for (size_t f = 0; f < n; f++)
            for (size_t i = 0; i < studies[f]->n_models; i++) {
                const ks_study_model *m = &studies[f]->models[i];
                if (!ks_chosen_model(opt, m)) continue;
                const size_t before = sweeps;
                for (size_t k = 0; !pass && k < m->n_sweeps; k++) sweeps += ks_chosen_sweep(opt, &m->sweeps[k]);
                models += sweeps > before;
                if (pass) KS_TRY(model_tables(out, m, opt, sweeps == 1, &first));
            }
    if (models > 1) KS_TRY(ks_table_models(out, studies, n, opt, &first));
    KS_REQUIRE(!fflush(out) && !ferror(out), KS_EMACHINE, "the tables cannot be written: %s", strerror(errno));
done:
    ks_studies_free(studies, n);
    return rc;
}

int ks_models_print(FILE *out, const char *const *paths, size_t n, const ks_table_options *opt)
{
    int rc = KS_OK;
    ks_study **studies = NULL;
    bool first = true;
    KS_NEW(studies, n);
    KS_TRY(ks_studies_read(studies, paths, n));
    KS_TRY(ks_check_choice(studies, n, opt));
    KS_TRY(ks_table_models(out, studies, n, opt, &first));
    KS_REQUIRE(!fflush(out) && !ferror(out), KS_EMACHINE, "the table cannot be written: %s", strerror(errno));
done:
    ks_studies_free(studies, n);
    return rc;
}

/* ---- cells for other programs ---- */

static void csv_number(FILE *out, double x)
{
    if (isnan(x)) fputc(',', out);
    else fprintf(out, ",%.17g", x);
}

static void csv_sweep(FILE *out, const ks_study_model *m, const ks_study_sweep *s, const ks_groups *g, const ks_table_options *opt)
{
    for (size_t f = 0; f < s->F; f++)
        for (size_t w = 0; w < s->W; w++)
            for (size_t h = 0; ks_chosen_window(opt, s, w) && h < s->H; h++)
                for (size_t i = 0; i < m->S; i++) {
                    size_t k = 0;
                    while (k < g->n && strcmp(g->names[k], m->groups[i])) k++;
                    if (k == g->n) continue;
                    const size_t at = ks_study_at(m, s, f, w, h, i);
                    ks_print_csv(out, m->name);
                    fputc(',', out);
                    ks_print_csv(out, s->name);
                    fprintf(out, ",%s,%s", s->kind, s->edges);
                    csv_number(out, s->values[f]);
                    fprintf(out, ",%d,%d,", (int)s->layer_start[w], (int)s->layer_end[w]);
                    if (s->has_head) fprintf(out, "%zu", h);
                    fputc(',', out);
                    ks_print_csv(out, m->ids[i]);
                    fputc(',', out);
                    ks_print_csv(out, m->groups[i]);
                    fprintf(out, ",%d,%d", s->status[at], (int)s->edges_removed[i]);
                    const double v[] = {s->kl[at], s->kl_reverse[at], s->js[at], s->tv[at], s->p_top[at], s->dlogit_top[at], m->floor[i]};
                    for (size_t n = 0; n < sizeof v / sizeof *v; n++) csv_number(out, v[n]);
                    fprintf(out, ",%d\n", s->top_changed[at]);
                }
}

int ks_cells_csv_write(FILE *out, const char *const *paths, size_t n, const ks_table_options *opt)
{
    int rc = KS_OK;
    ks_study **studies = NULL;
    ks_groups g = {0};
    KS_NEW(studies, n);
    KS_TRY(ks_studies_read(studies, paths, n));
    KS_TRY(ks_check_choice(studies, n, opt));
    fputs("model,sweep,kind,edges,factor,layer_start,layer_end,head,sample,group,status,edges_removed,kl,kl_reverse,js,tv,p_top,dlogit_top,"
          "floor,top_changed\n",
          out);
    for (size_t f = 0; f < n; f++)
        for (size_t i = 0; i < studies[f]->n_models; i++) {
            const ks_study_model *m = &studies[f]->models[i];
            if (!ks_chosen_model(opt, m)) continue;
            KS_TRY(ks_groups_choose(&g, m, opt));
            for (size_t k = 0; k < m->n_sweeps; k++)
                if (ks_chosen_sweep(opt, &m->sweeps[k])) csv_sweep(out, m, &m->sweeps[k], &g, opt);
            ks_groups_free(&g);
        }
    KS_REQUIRE(!fflush(out) && !ferror(out), KS_EMACHINE, "the cells cannot be written: %s", strerror(errno));
done:
    ks_groups_free(&g);
    ks_studies_free(studies, n);
    return rc;
}
