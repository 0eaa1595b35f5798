#include "analysis/tables.h"
#include "analysis/tables_private.h"

#include "base/json.h"
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

ks_label ks_where(const ks_view *v, size_t window)
{
    ks_label label;
    const bool one = v->s->layer_start[window] == v->s->layer_end[window];
    snprintf(label.text, sizeof label.text, ", layer%s %.40s", one ? "" : "s", ks_window_label(v->s, window).text);
    return label;
}

void ks_note_selected(ks_table *t, bool selected)
{
    if (selected) ks_table_note(t, "This window was chosen for its effect on these same samples: the numbers flatter it.");
}

ks_resample ks_view_resample(const ks_view *v, size_t draws)
{
    ks_resample how = KS_RESAMPLE;
    if (v->opt->seed) how.seed = v->opt->seed;
    if (v->m && v->m->S > 200) draws = draws * 200 / v->m->S; /* of many samples fewer draws, so that tables stay quick */
    how.draws = v->opt->draws ? v->opt->draws : draws < 1000 ? 1000 : draws;
    return how;
}

void ks_note_bootstrap(ks_table *t, const ks_resample *how)
{
    ks_table_note(t, "intervals: %.0f %%, bootstrap (BCa, %zu draws, seed %llu)", 100 * how->level, how->draws,
                  (unsigned long long)how->seed);
}

void ks_summary_columns(ks_table *t)
{
    static const char *const columns[] = {"n",  "mean",   "95 % from", "to",  "std (population)", "std (sample)", "min",
                                          "q1", "median", "q3",        "max", "geometric mean",   "above floor"};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) ks_table_column(t, false, "%s", columns[i]);
}

void ks_summary_cells(ks_table *t, const ks_group_cell *c, const ks_interval *interval)
{
    const ks_summary *k = &c->kl;
    ks_table_cell(t, "%zu", k->n);
    ks_table_number(t, k->mean, ks_mean_mark(c));
    ks_table_number(t, interval->low, "");
    ks_table_number(t, interval->high, "");
    ks_table_number(t, k->std_population, "");
    ks_table_number(t, k->std_sample, "");
    ks_table_number(t, k->min, ks_floor_mark(k->min, c->floor));
    ks_table_number(t, k->quartile_1, ks_floor_mark(k->quartile_1, c->floor));
    ks_table_number(t, k->median, ks_floor_mark(k->median, c->floor));
    ks_table_number(t, k->quartile_3, ks_floor_mark(k->quartile_3, c->floor));
    ks_table_number(t, k->max, ks_floor_mark(k->max, c->floor));
    ks_table_number(t, k->geometric, ks_floor_mark(k->geometric, c->floor));
    if (isnan(c->above)) ks_table_cell(t, "-");
    else ks_table_cell(t, "%.0f %%", 100 * c->above);
}

void ks_p_cell(ks_table *t, double p, double error)
{
    if (isnan(p)) ks_table_cell(t, "-");
    else if (error > 0) ks_table_cell(t, "%.4f +- %.4f", p, error);
    else ks_table_cell(t, p < 1e-4 ? "%.4e" : "%.6f", p);
}

void ks_note_basis(ks_table *t, const ks_view *v, const char *whose)
{
    char n[512] = "", floors[512] = "";
    bool measured = false;
    for (size_t i = 0; i < v->g->n; i++) {
        size_t samples = 0, with = 0;
        double floor = 0;
        for (size_t s = 0; s < v->m->S; s++) {
            if (strcmp(v->m->groups[s], v->g->names[i]) != 0) continue;
            samples++;
            if (isnan(v->m->floor[s])) continue;
            floor += v->m->floor[s];
            with++;
        }
        measured |= with > 0;
        const size_t a = strlen(n), b = strlen(floors);
        snprintf(n + a, sizeof n - a, "%s%s %zu", i ? ", " : "", v->g->names[i], samples);
        if (with) snprintf(floors + b, sizeof floors - b, "%s%.1e", i ? ", " : "", floor / (double)with);
        else snprintf(floors + b, sizeof floors - b, "%s-", i ? ", " : "");
    }
    ks_table_note(t, "%ssamples: %s; mean floor: %s", whose, n, measured ? floors : "not measured");
    const ks_study *f = v->study;
    ks_table_note(t, "%sprotocol: %s of %s, marker %s, special tokens %s; precision %s; unit: nats", whose, v->s->kind, v->s->edges,
                  *f->marker ? f->marker : "rule not in the file", *f->special_tokens ? f->special_tokens : "not in the file",
                  v->m->precision);
}

void ks_note_floor(ks_table *t, const ks_view *v)
{
    for (size_t s = 0; s < v->m->S; s++)
        if (!isnan(v->m->floor[s])) {
            ks_table_note(t, "* at or below the floor: rounding the baseline's residual stream to bf16 changes the prediction as much");
            return;
        }
}

void ks_note_missing(ks_table *t, const size_t *status)
{
    const size_t absent = status[KS_STATUS_NOT_COMPUTED], infinite = status[KS_STATUS_NOT_FINITE];
    if (!absent && !infinite) return;
    ks_table_note(t, "! a mean over fewer samples: values are missing (not computed: %zu, not finite: %zu)", absent, infinite);
}

int ks_view_add(const ks_view *v, ks_table *t, const char *name)
{
    t->name = name;
    if (v->s) ks_note_basis(t, v, "");
    return ks_table_list_add(v->list, t);
}

/* ---- which tables ---- */

const ks_table_kind ks_table_kinds[] = {
    {"scan", "mean KL of each group in each window", false},
    {"triangle", "the same of all windows, first layer by last", false},
    {"all-edge", "a summary of an all-marker sweep", false},
    {"dose", "mean KL by the intervention's value", false},
    {"heads", "the heads of largest effect", false},
    {"groups", "one window: every group's n, mean and its interval, deviations, quartiles, share above the floor", false},
    {"tests", "one window: all tests and effect sizes between the two test groups", false},
    {"corrected", "two groups in every window: p, corrected by Holm, Benjamini-Hochberg, maxT", false},
    {"choice", "the window of largest effect: selected on the same samples, and left out or split", false},
    {"cells", "every window, head and value: as groups", true},
    {"power", "one window: how many samples a new study would need", true},
    {"synergy", "every window against the sum and the largest of its single layers", true},
    {"attention", "attention strength by layer, raw and relative to uniform, and its rank correlation with the effect", true},
    {"pairs", "the same samples under two conditions: sweeps, models, twins", true},
    {"samples", "one window: each sample", false},
    {"positions", "one window: the effect at every position of a sample", false},
    {"versus", "specific edges against all edges", false},
    {"models", "one line per model and sweep", false},
    {NULL, NULL, false},
};

static bool in_list(const char *list, const char *name)
{
    const size_t length = strlen(name);
    for (const char *p = list; *p; p += p[strcspn(p, ",")] ? strcspn(p, ",") + 1 : strlen(p))
        if (strcspn(p, ",") == length && !memcmp(p, name, length)) return true;
    return false;
}

bool ks_wanted(const ks_table_options *o, const char *name)
{
    if (o->only) return in_list(o->only, "all") || in_list(o->only, name);
    for (const ks_table_kind *k = ks_table_kinds; k->name; k++)
        if (!strcmp(k->name, name)) return !k->asked;
    return false;
}

static int check_only(const ks_table_options *o)
{
    int rc = KS_OK;
    char name[32];
    const char *names[64] = {"all"};
    for (size_t i = 0; ks_table_kinds[i].name; i++) names[i + 1] = ks_table_kinds[i].name;
    for (const char *p = o->only ? o->only : ""; *p;) {
        const size_t length = strcspn(p, ",");
        snprintf(name, sizeof name, "%.*s", length < sizeof name ? (int)length : (int)sizeof name - 1, p);
        size_t k = 0;
        while (names[k] && strcmp(names[k], name) != 0) k++;
        const char *near = names[k] ? NULL : ks_nearest(name, names);
        KS_REQUIRE(names[k], KS_EUSAGE, "--only: no table is named \"%s\"%s%s%s", name, near ? "; did you mean \"" : "; see --help",
                   near ? near : "", near ? "\"?" : "");
        p += length + (p[length] == ',');
    }
done:
    return rc;
}

static size_t chosen_windows(const ks_table_options *o, const ks_study_sweep *s)
{
    size_t n = 0;
    for (size_t w = 0; w < s->W; w++) n += ks_chosen_window(o, s, w);
    return n;
}

/* The chosen plain sweep that attention is set against: the first that cuts marker -> targets in single layers. */
static const ks_study_sweep *first_layers(const ks_view *v)
{
    for (size_t k = 0; k < v->m->n_sweeps; k++) {
        const ks_study_sweep *s = &v->m->sweeps[k];
        if (s->has_factor || s->has_head || strcmp(s->edges, "marker-targets") != 0 || !ks_chosen_sweep(v->opt, s)) continue;
        for (size_t w = 0; w < s->W; w++)
            if (s->layer_start[w] == s->layer_end[w]) return s;
    }
    return NULL;
}

/* What looks at all cells together; of heads and values only where asked by name. */
static int many_tables(const ks_view *v, size_t windows)
{
    int rc = KS_OK;
    const bool axes = v->s->has_head || v->s->has_factor;
    const bool many = axes ? v->opt->only != NULL : windows > 1;
    if (ks_wanted(v->opt, "cells")) KS_TRY(ks_table_cells(v));
    if (many && ks_wanted(v->opt, "corrected")) KS_TRY(ks_table_corrected(v));
    if (many && ks_wanted(v->opt, "choice")) KS_TRY(ks_table_choice(v));
done:
    return rc;
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
        if (ks_wanted(v->opt, s->has_factor ? "dose" : "heads")) KS_TRY(ks_table_heads(v));
        KS_TRY(many_tables(v, W));
        goto done;
    }
    if (s->has_factor) {
        if (ks_wanted(v->opt, "dose")) KS_TRY(ks_table_dose(v));
        KS_TRY(many_tables(v, W));
        goto done;
    }
    if (W > 1) {
        const bool triangle = !strcmp(s->windows, "all");
        if (triangle && ks_wanted(v->opt, "triangle")) KS_TRY(ks_table_triangle(v));
        if (!triangle && ks_wanted(v->opt, "scan")) KS_TRY(ks_table_scan(v));
        if (!strcmp(s->edges, "all-marker") && ks_wanted(v->opt, "all-edge")) KS_TRY(ks_table_all_edge(v));
    }
    KS_TRY(many_tables(v, W));
    KS_TRY(ks_peak_window(v, &window, &found));
    if (W == 1)
        for (size_t w = 0; w < s->W; w++)
            if (ks_chosen_window(v->opt, s, w)) window = w, found = true;
    if (ks_wanted(v->opt, "synergy")) KS_TRY(ks_table_synergy(v));
    if (s == first_layers(v) && ks_wanted(v->opt, "attention")) KS_TRY(ks_table_attention(v));
    if (ks_wanted(v->opt, "pairs")) KS_TRY(ks_table_pairs(v));
    if (found) {
        const bool room = alone || W == 1 || v->opt->only;
        if (ks_wanted(v->opt, "groups")) KS_TRY(ks_table_groups(v, window, W > 1));
        if (ks_wanted(v->opt, "tests")) KS_TRY(ks_table_tests(v, window, W > 1));
        if (ks_wanted(v->opt, "power")) KS_TRY(ks_table_power(v, window, W > 1));
        if (room && ks_wanted(v->opt, "samples")) KS_TRY(ks_table_samples(v, window, W > 1));
        if (room && ks_wanted(v->opt, "positions")) KS_TRY(ks_table_positions(v, window));
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
    if (!ks_wanted(v->opt, "versus") || !plain(v->s) || strcmp(v->s->edges, "marker-targets") != 0) goto done;
    for (size_t k = 0; k < v->m->n_sweeps; k++) {
        const ks_study_sweep *other = &v->m->sweeps[k];
        if (!plain(other) || strcmp(other->edges, "all-marker") || strcmp(other->kind, v->s->kind) || strcmp(other->heads, v->s->heads))
            continue;
        if (same_windows(v->s, other) && chosen_windows(v->opt, other)) KS_TRY(ks_table_versus(v, other));
    }
done:
    return rc;
}

static int model_tables(ks_table_list *list, const ks_study *study, const ks_study_model *m, const ks_table_options *opt, bool alone)
{
    int rc = KS_OK;
    ks_groups groups = {0};
    KS_TRY(ks_groups_choose(&groups, m, opt));
    for (int pass = 0; pass < 2; pass++)
        for (size_t k = 0; k < m->n_sweeps; k++) {
            const ks_view v = {.m = m, .s = &m->sweeps[k], .g = &groups, .opt = opt, .study = study, .list = list};
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

int ks_tables_build(ks_table_list *out, ks_study *const *studies, size_t n, const ks_table_options *opt)
{
    int rc = KS_OK;
    size_t sweeps = 0, models = 0;
    KS_TRY(check_only(opt));
    KS_TRY(ks_check_choice(studies, n, opt));
    for (int pass = 0; pass < 2; pass++) /* count, then build */
        for (size_t f = 0; f < n; f++)
            for (size_t i = 0; i < studies[f]->n_models; i++) {
                const ks_study_model *m = &studies[f]->models[i];
                if (!ks_chosen_model(opt, m)) continue;
                const size_t before = sweeps;
                for (size_t k = 0; !pass && k < m->n_sweeps; k++) sweeps += ks_chosen_sweep(opt, &m->sweeps[k]);
                models += sweeps > before;
                if (pass) KS_TRY(model_tables(out, studies[f], m, opt, sweeps == 1));
            }
    if (models > 1) KS_TRY(ks_models_build(out, studies, n, opt));
    KS_REQUIRE(out->n || !opt->only, KS_EUSAGE, "--only %s: nothing in the chosen sweeps fits", opt->only);
done:
    return rc;
}

int ks_models_build(ks_table_list *out, ks_study *const *studies, size_t n, const ks_table_options *opt)
{
    int rc = KS_OK;
    KS_TRY(check_only(opt));
    KS_TRY(ks_check_choice(studies, n, opt));
    if (ks_wanted(opt, "models")) KS_TRY(ks_table_models(out, studies, n, opt));
    if (ks_wanted(opt, "pairs")) KS_TRY(ks_table_model_pairs(out, studies, n, opt));
done:
    return rc;
}

typedef int builder(ks_table_list *out, ks_study *const *studies, size_t n, const ks_table_options *opt);

static int print(FILE *out, const char *const *paths, size_t n, const ks_table_options *opt, builder *build)
{
    int rc = KS_OK;
    ks_study **studies = NULL;
    ks_table_list list = {0};
    KS_NEW(studies, n);
    KS_TRY(ks_studies_read(studies, paths, n));
    KS_TRY(build(&list, studies, n, opt));
    for (size_t i = 0; i < list.n; i++) KS_TRY(ks_table_print(&list.v[i], out, opt->format, i == 0));
    KS_REQUIRE(!fflush(out) && !ferror(out), KS_EMACHINE, "the tables cannot be written: %s", strerror(errno));
done:
    ks_table_list_free(&list);
    ks_studies_free(studies, n);
    return rc;
}

int ks_tables_print(FILE *out, const char *const *paths, size_t n, const ks_table_options *opt)
{
    return print(out, paths, n, opt, ks_tables_build);
}

int ks_models_print(FILE *out, const char *const *paths, size_t n, const ks_table_options *opt)
{
    return print(out, paths, n, opt, ks_models_build);
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
