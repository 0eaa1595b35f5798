/* Which figures there are, and what they have in common. */
#include "analysis/figures.h"
#include "analysis/figures_private.h"
#include "analysis/many_cells.h"
#include "analysis/resample.h"

#include "base/json.h"
#include "base/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *kind;
    size_t (*fits)(const ks_scene *c);
    int (*make)(ks_figure *f, const ks_scene *c);
} kinds[] = {{"layer-scan", ks_fits_layer_scan, ks_figure_scan},
             {"window-triangle", ks_fits_triangle, ks_figure_triangle},
             {"expanding-windows", ks_fits_expanding, ks_figure_scan},
             {"sliding-windows", ks_fits_sliding, ks_figure_scan},
             {"windows", ks_fits_windows, ks_figure_scan},
             {"samples", ks_fits_samples, ks_figure_samples},
             {"heads", ks_fits_heads, ks_figure_heads},
             {"dose-response", ks_fits_dose, ks_figure_dose},
             {"attention-effect", ks_fits_attention, ks_figure_attention},
             {"positions", ks_fits_positions, ks_figure_positions},
             {"models", ks_fits_models, ks_figure_models}};
enum { KINDS = sizeof kinds / sizeof *kinds, MODELS = KINDS - 1 };

const char *const ks_figure_kinds[] = {"layer-scan", "window-triangle", "expanding-windows", "sliding-windows", "windows", "samples",
                                       "heads",      "dose-response",   "attention-effect",  "positions",       "models",  NULL};
_Static_assert(sizeof ks_figure_kinds / sizeof *ks_figure_kinds == KINDS + 1, "a name for each kind");

/* ---- what figures have in common ---- */

void ks_peak_see(ks_peak *k, double value, const char *format, ...)
{
    if (!isfinite(value) || (!isnan(k->value) && value <= k->value)) return;
    va_list args;
    va_start(args, format);
    vsnprintf(k->where, sizeof k->where, format, args);
    va_end(args);
    k->value = value;
}

size_t ks_scene_windows(const ks_scene *c)
{
    size_t n = 0;
    for (size_t w = 0; w < c->v.s->W; w++) n += ks_chosen_window(c->v.opt, c->v.s, w);
    return n;
}

bool ks_single_layers(const ks_study_sweep *s)
{
    for (size_t w = 0; w < s->W; w++)
        if (s->layer_start[w] != s->layer_end[w]) return false;
    return true;
}

double ks_dodge(double x, size_t group, size_t n)
{
    const double step = n > 1 ? fmin(0.14, 0.6 / (double)n) : 0;
    return x + step * ((double)group - (double)(n - 1) / 2);
}

ks_series *ks_scene_series(ks_plot *p, ks_panel *q, const ks_scene *c, size_t group)
{
    const ks_study_sweep *s = c->v.s;
    const char *name = c->v.g->names[group];
    const size_t cells = s->F * s->W * s->H, S = c->v.m->S;
    size_t n = 0, all = 0;
    char text[96];
    for (size_t i = 0; i < S; i++) {
        if (strcmp(c->v.m->groups[i], name) != 0) continue;
        bool any = false;
        for (size_t k = 0; k < cells && !any; k++) any = isfinite(s->kl[k * S + i]);
        n += any;
        all++;
    }
    if (n == all) snprintf(text, sizeof text, "%.40s (n = %zu)", name, n);
    else snprintf(text, sizeof text, "%.40s (n = %zu of %zu)", name, n, all);
    return ks_panel_series(p, q, (int)group, text);
}

int ks_scene_mean(ks_point *out, const ks_scene *c, const char *group, size_t factor, size_t window, size_t head, double x, bool interval,
                  ks_gaps *gaps)
{
    int rc = KS_OK;
    const ks_study_model *m = c->v.m;
    double *values = NULL;
    size_t n = 0;
    ks_group_cell cell;
    KS_TRY(ks_group_measure(&cell, m, c->v.s, factor, window, head, group));
    *out = (ks_point){x, cell.kl.mean, NAN, NAN, cell.kl.mean <= cell.floor};
    for (int i = 0; i < KS_STATUSES; i++) gaps->status[i] += cell.status[i];
    gaps->values += cell.kl.n;
    gaps->above_zero |= cell.kl.max > 0;
    if (cell.kl.min < 0) gaps->below++, out->y = NAN;
    if (!interval || isnan(out->y)) goto done;
    KS_NEW(values, m->S);
    for (size_t i = 0; i < m->S; i++)
        if (!strcmp(m->groups[i], group)) values[n++] = c->v.s->kl[ks_study_at(m, c->v.s, factor, window, head, i)];
    ks_interval bounds;
    const ks_resample how = ks_view_resample(&c->v, 10000);
    KS_TRY(ks_centre_interval(&bounds, values, n, KS_CENTRE_MEAN, &how));
    out->low = bounds.low;
    out->high = bounds.high;
    /* Equal values, as where a scale of 1 changes nothing, need no interval and no excuse. */
    if (bounds.why && cell.kl.max > cell.kl.min) gaps->intervals++, gaps->why = bounds.why;
    if (bounds.why && cell.kl.n < 2) gaps->intervals++, gaps->why = KS_WHY_FEW;
done:
    free(values);
    return rc;
}

int ks_scene_tests(double **adjusted, ks_figure *f, const ks_scene *c)
{
    int rc = KS_OK;
    const ks_study_model *m = c->v.m;
    const ks_study_sweep *s = c->v.s;
    const size_t S = m->S, cells = s->W * s->H;
    double *kl = NULL, *t = NULL, *p = NULL;
    uint8_t *group = NULL;
    size_t n = 0, found = 0;
    KS_NEW(*adjusted, cells);
    for (size_t i = 0; i < cells; i++) (*adjusted)[i] = NAN;
    if (!c->v.g->tests[1] || cells > KS_MOST_TESTS) goto done;
    KS_NEW(kl, cells * S);
    KS_NEW(t, cells);
    KS_NEW(p, cells);
    KS_NEW(group, S);
    for (size_t i = 0; i < S; i++) {
        group[i] = 2;
        for (uint8_t k = 0; k < 2; k++)
            if (!strcmp(m->groups[i], c->v.g->tests[k])) group[i] = k;
    }
    for (size_t w = 0; w < s->W; w++)
        for (size_t h = 0; ks_chosen_window(c->v.opt, s, w) && h < s->H; h++, n++)
            memcpy(kl + n * S, s->kl + ks_study_at(m, s, 0, w, h, 0), S * sizeof *kl);
    /* The family and the limits of the table "corrected", so that both say the same. */
    ks_resample how = ks_view_resample(&c->v, 10000);
    if (n && how.exact > 100000000 / n) how.exact = 100000000 / n;
    ks_max_t max;
    KS_TRY(ks_max_t_groups(&max, t, p, kl, n, group, S, &how));
    double least = NAN;
    n = 0;
    for (size_t w = 0; w < s->W; w++)
        for (size_t h = 0; ks_chosen_window(c->v.opt, s, w) && h < s->H; h++, n++) {
            (*adjusted)[w * s->H + h] = p[n];
            if (!isnan(p[n]) && !(least <= p[n])) least = p[n];
            found += p[n] <= 0.05;
        }
    const char *what = s->has_head ? "head" : ks_single_layers(s) ? "layer" : "window";
    if (max.why) ks_plot_note(f->plot, "%s and %s were not tested against each other: %s.", c->v.g->tests[0], c->v.g->tests[1], max.why);
    else
        ks_plot_note(f->plot, "%s against %s over all %zu %ss that have a test (maxT): %s in %zu, smallest corrected p %.2g.",
                     c->v.g->tests[0], c->v.g->tests[1], max.cells, what, "p at most 0.05", found, least);
    if (found) ks_plot_text(f->plot, &f->plot->marked_name, "the groups differ, corrected p ≤ 0.05");
done:
    free(group);
    free(p);
    free(t);
    free(kl);
    return rc;
}

void ks_scene_floor(ks_plot *p, ks_panel *q, const ks_scene *c)
{
    bool any = false;
    for (size_t g = 0; q && g < c->v.g->n; g++) {
        double sum = 0;
        size_t n = 0;
        for (size_t i = 0; i < c->v.m->S; i++) {
            const double floor = c->v.m->floor[i];
            if (strcmp(c->v.m->groups[i], c->v.g->names[g]) != 0 || !isfinite(floor) || floor < 0) continue;
            if (!any || floor < q->floor_low) q->floor_low = floor;
            if (!any || floor > q->floor_high) q->floor_high = floor;
            any = true;
            sum += floor;
            n++;
        }
        if (!n || q->n_floors == sizeof q->floors / sizeof *q->floors) continue;
        q->floors[q->n_floors] = sum / (double)n;
        q->floor_looks[q->n_floors++] = (int)g;
    }
    if (any) ks_plot_text(p, &p->floor_name, "bf16 floor: each group's mean, range over the samples");
}

int ks_figure_begin(ks_figure *f, const ks_scene *c, const char *what, const char *where)
{
    int rc = KS_OK;
    const ks_study_sweep *s = c->v.s;
    KS_GET(f->plot, ks_plot_new());
    KS_GET(f->title, ks_format("%s: %s, sweep %s%s", what, c->v.m->name, s->name, where));
    ks_plot_text(f->plot, &f->plot->title, "%s", f->title);
    ks_plot_text(f->plot, &f->plot->subtitle, "%s, %s edges, %s%s", s->kind, s->edges,
                 s->has_head                ? "each head"
                 : !strcmp(s->heads, "all") ? "all heads"
                                            : "heads ",
                 s->has_head || !strcmp(s->heads, "all") ? "" : s->heads);
    f->model = c->v.m;
    f->sweep = s;
done:
    return rc;
}

int ks_figure_end(ks_figure *f, const ks_scene *c, const ks_peak *k, const ks_gaps *gaps, const char *format, ...)
{
    int rc = KS_OK;
    ks_plot *p = f->plot;
    char about[1024], missing[512] = "";
    va_list args;
    va_start(args, format);
    vsnprintf(about, sizeof about, format, args);
    va_end(args);
    const size_t absent = gaps->status[KS_STATUS_NOT_COMPUTED], infinite = gaps->status[KS_STATUS_NOT_FINITE];
    if (absent || infinite)
        snprintf(missing, sizeof missing, " Values are missing and left out of the means (not computed: %zu, not finite: %zu).", absent,
                 infinite);
    size_t used = strlen(missing);
    if (gaps->below)
        snprintf(missing + used, sizeof missing - used, " %zu points with a value below 0, which no KL is, are left out.", gaps->below);
    used = strlen(missing);
    if (gaps->intervals)
        snprintf(missing + used, sizeof missing - used, " %zu point%s without an interval: %s.", gaps->intervals,
                 gaps->intervals == 1 ? "" : "s", gaps->why);
    used = strlen(missing);
    if (!gaps->values) snprintf(missing + used, sizeof missing - used, " Nothing was computed yet.");
    else if (!gaps->above_zero) snprintf(missing + used, sizeof missing - used, " All effects are exactly 0.");
    if (*missing) ks_plot_note(p, "%s", missing + 1);
    if (c->v.m && !p->floor_name && p->hollow_name) free(p->hollow_name), p->hollow_name = NULL;
    KS_GET(f->caption, ks_format("%s. %s%s", f->title, about, missing));
    if (isnan(k->value)) KS_GET(f->alt, ks_format("%s: no value to show.", f->title));
    else KS_GET(f->alt, ks_format("%s: the largest value is %.3g nats, %s.", f->title, k->value, k->where));
done:
    return rc;
}

/* ---- the list ---- */

static int check_only(const char *only)
{
    int rc = KS_OK;
    char name[64];
    for (const char *p = only; p && *p;) {
        const size_t n = strcspn(p, ",");
        snprintf(name, sizeof name, "%.*s", (int)(n < 60 ? n : 60), p);
        size_t k = 0;
        while (ks_figure_kinds[k] && strcmp(ks_figure_kinds[k], name) != 0) k++;
        const char *near = ks_nearest(name, ks_figure_kinds);
        KS_REQUIRE(ks_figure_kinds[k], KS_EUSAGE,
                   "--only: no figure \"%s\"%s%s%s; there is layer-scan, window-triangle, expanding-windows, sliding-windows, windows, "
                   "samples, heads, dose-response, attention-effect, positions, models",
                   name, near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
        p += n + (p[n] == ',');
    }
    KS_REQUIRE(!only || *only, KS_EUSAGE, "--only: names no figure");
done:
    return rc;
}

static bool wanted(const char *only, const char *kind)
{
    const size_t n = strlen(kind);
    if (!only) return true;
    for (const char *p = only; *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == n && !memcmp(p, kind, n)) return true;
    return false;
}

/* Letters, digits, dot, dash and underscore as they are, all else a dash: names become file names and ids. */
static void plain_name(char *name)
{
    for (char *s = name; *s; s++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", *s)) *s = '-';
}

static void figure_clear(ks_figure *f)
{
    ks_plot_free(f->plot);
    free(f->name);
    free(f->title);
    free(f->caption);
    free(f->alt);
    *f = (ks_figure){0};
}

void ks_figures_free(ks_figures *f)
{
    for (size_t i = 0; i < f->n; i++) figure_clear(&f->list[i]);
    free(f->list);
    *f = (ks_figures){0};
}

static int unique_name(ks_figures *out, const char *stem)
{
    int rc = KS_OK;
    ks_figure *f = &out->list[out->n];
    for (int number = 1; number < 100000; number++) {
        free(f->name);
        f->name = NULL;
        if (number == 1) KS_GET(f->name, ks_format("%.180s", stem));
        else KS_GET(f->name, ks_format("%.180s-%d", stem, number));
        size_t i = 0;
        while (i < out->n && strcmp(out->list[i].name, f->name) != 0) i++;
        if (i == out->n) break;
    }
done:
    return rc;
}

/* Every figure of one kind and scene; middle: "_sweep" or "_model_sweep". */
static int append(ks_figures *out, ks_scene *c, size_t kind, const char *middle)
{
    int rc = KS_OK;
    char stem[256];
    const size_t parts = kinds[kind].fits(c);
    for (c->part = 0; c->part < parts; c->part++) {
        ks_figure *list = ks_realloc(out->list, out->n + 1, sizeof *list);
        KS_REQUIRE(list, KS_EMACHINE, "%s", ks_error_text());
        out->list = list;
        ks_figure *f = &list[out->n];
        *f = (ks_figure){.kind = kinds[kind].kind};
        rc = kinds[kind].make(f, c);
        if (rc || !f->plot) {
            figure_clear(f);
            if (rc) goto done;
            continue;
        }
        snprintf(stem, sizeof stem, "%s%.120s%s%.60s", f->kind, middle, f->name ? "_" : "", f->name ? f->name : "");
        plain_name(stem);
        if ((rc = unique_name(out, stem)) != KS_OK) {
            figure_clear(f);
            goto done;
        }
        out->n++;
    }
done:
    return rc;
}

static int model_figures(ks_figures *out, ks_scene *c, const char *only, bool several)
{
    int rc = KS_OK;
    ks_groups g = {0};
    KS_TRY(ks_groups_choose(&g, c->v.m, c->v.opt));
    c->v.g = &g;
    for (size_t k = 0; k < c->v.m->n_sweeps; k++) {
        char middle[160];
        c->v.s = &c->v.m->sweeps[k];
        if (!ks_chosen_sweep(c->v.opt, c->v.s)) continue;
        snprintf(middle, sizeof middle, "_%.60s%s%.60s", several ? c->v.m->name : "", several ? "_" : "", c->v.s->name);
        for (size_t i = 0; i < MODELS; i++)
            if (wanted(only, kinds[i].kind)) KS_TRY(append(out, c, i, middle));
    }
done:
    c->v.g = NULL;
    ks_groups_free(&g);
    return rc;
}

/* One figure for each name of a sweep that two models have. */
static int across_figures(ks_figures *out, const ks_scene *all)
{
    int rc = KS_OK;
    const char **names = NULL;
    size_t n = 0, room = 0;
    for (size_t f = 0; f < all->n_studies; f++)
        for (size_t i = 0; i < all->studies[f]->n_models; i++) room += all->studies[f]->models[i].n_sweeps;
    KS_NEW(names, room);
    for (size_t f = 0; f < all->n_studies; f++)
        for (size_t i = 0; i < all->studies[f]->n_models; i++)
            for (size_t k = 0; k < all->studies[f]->models[i].n_sweeps; k++) {
                ks_scene c = *all;
                c.sweep_name = all->studies[f]->models[i].sweeps[k].name;
                size_t seen = 0;
                while (seen < n && strcmp(names[seen], c.sweep_name) != 0) seen++;
                if (seen < n || (all->v.opt->sweep && strcmp(all->v.opt->sweep, c.sweep_name) != 0)) continue;
                names[n++] = c.sweep_name;
                char middle[80];
                snprintf(middle, sizeof middle, "_%.60s", c.sweep_name);
                KS_TRY(append(out, &c, MODELS, middle));
            }
done:
    free(names);
    return rc;
}

int ks_figures_make(ks_figures *out, ks_study *const *studies, size_t n, const ks_table_options *opt, const char *only)
{
    int rc = KS_OK;
    size_t models = 0;
    *out = (ks_figures){0};
    KS_TRY(check_only(only));
    KS_TRY(ks_check_choice(studies, n, opt));
    for (size_t f = 0; f < n; f++)
        for (size_t i = 0; i < studies[f]->n_models; i++) models += ks_chosen_model(opt, &studies[f]->models[i]);
    for (size_t f = 0; f < n; f++)
        for (size_t i = 0; i < studies[f]->n_models; i++) {
            ks_scene c = {.studies = studies, .n_studies = n, .v = {.m = &studies[f]->models[i], .opt = opt}};
            if (ks_chosen_model(opt, c.v.m)) KS_TRY(model_figures(out, &c, only, models > 1));
        }
    if (models > 1 && wanted(only, kinds[MODELS].kind))
        KS_TRY(across_figures(out, &(ks_scene){.studies = studies, .n_studies = n, .v = {.opt = opt}}));
done:
    if (rc) ks_figures_free(out);
    return rc;
}

int ks_figure_svg(const ks_figure *f, char **svg, size_t *bytes)
{
    return ks_plot_svg(f->plot, f->name, f->title, f->alt, svg, bytes);
}

int ks_figure_png(const ks_figure *f, double dots_per_inch, unsigned char **png, size_t *bytes)
{
    return ks_plot_png(f->plot, dots_per_inch, png, bytes);
}
