/* Figures over the windows, factors and heads of a sweep. */
#include "analysis/figures_private.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MEAN_KL "mean KL (nats)"
#define INTERVALS "error bars: 95 %% BCa bootstrap intervals of the mean"

/* More than a page can show. */
enum { MOST_WINDOWS = 20000, MOST_LAYERS = 1000 };

static bool plain(const ks_scene *c)
{
    const size_t n = ks_scene_windows(c);
    return !c->v.s->has_factor && !c->v.s->has_head && n > 1 && n <= MOST_WINDOWS;
}

size_t ks_fits_layer_scan(const ks_scene *c)
{
    return plain(c) && ks_single_layers(c->v.s);
}

size_t ks_fits_triangle(const ks_scene *c)
{
    return plain(c) && !ks_single_layers(c->v.s) && !strcmp(c->v.s->windows, "all") && c->v.m->n_layers <= MOST_LAYERS;
}

size_t ks_fits_expanding(const ks_scene *c)
{
    return plain(c) && !ks_single_layers(c->v.s) && !strcmp(c->v.s->windows, "around");
}

size_t ks_fits_sliding(const ks_scene *c)
{
    return plain(c) && !ks_single_layers(c->v.s) && !strcmp(c->v.s->windows, "slide");
}

size_t ks_fits_windows(const ks_scene *c)
{
    return plain(c) && !ks_single_layers(c->v.s) && !ks_fits_triangle(c) && !ks_fits_expanding(c) && !ks_fits_sliding(c);
}

int ks_figure_scan(ks_figure *f, const ks_scene *c)
{
    int rc = KS_OK;
    const ks_study_sweep *s = c->v.s;
    const bool layers = ks_single_layers(s), list = ks_fits_windows(c);
    const bool intervals = ks_scene_windows(c) * c->v.g->n <= KS_MOST_INTERVALS;
    double *tests = NULL;
    ks_peak peak = {.value = NAN};
    ks_gaps gaps = {0};
    KS_TRY(ks_figure_begin(f, c,
                           layers                 ? "Layer scan"
                           : ks_fits_expanding(c) ? "Expanding windows"
                           : ks_fits_sliding(c)   ? "Sliding windows"
                                                  : "Windows",
                           ""));
    ks_plot *p = f->plot;
    ks_panel *q = ks_plot_panel(p, layers ? KS_SCALE_LINEAR : KS_SCALE_NAMES, KS_SCALE_LOG);
    KS_REQUIRE(q, KS_EMACHINE, "out of memory");
    q->height = 230;
    ks_plot_text(p, &q->y.label, MEAN_KL);
    ks_plot_text(p, &q->x.label, layers ? "layer without the edges" : "layers without the edges (first-last)");
    ks_scene_floor(p, q, c);
    q->x.whole = q->x.fixed = layers;
    for (size_t w = 0; w < s->W; w++) {
        if (!ks_chosen_window(c->v.opt, s, w)) continue;
        ks_axis_name(p, &q->x, KS_MARK_NONE, ks_window_label(s, w).text);
        if (!layers) continue;
        q->x.scale.low = fmin(isnan(q->x.scale.low) ? INFINITY : q->x.scale.low, s->layer_start[w] - 0.6);
        q->x.scale.high = fmax(isnan(q->x.scale.high) ? -INFINITY : q->x.scale.high, s->layer_start[w] + 0.6);
    }
    bool hollow = false;
    for (size_t i = 0; i < c->v.g->n; i++) {
        ks_series *series = ks_scene_series(p, q, c, i);
        if (series) series->line = !list;
        size_t place = 0;
        for (size_t w = 0; w < s->W; w++) {
            ks_point point;
            if (!ks_chosen_window(c->v.opt, s, w)) continue;
            const double x = layers ? s->layer_start[w] : (double)place++;
            KS_TRY(ks_scene_mean(&point, c, c->v.g->names[i], 0, w, 0, ks_dodge(x, i, c->v.g->n), intervals, &gaps));
            hollow |= point.hollow;
            ks_series_point(p, series, point);
            ks_peak_see(&peak, point.y, "%s at layer%s %s", c->v.g->names[i], layers ? "" : "s", ks_window_label(s, w).text);
        }
    }
    if (layers) { /* numbers, not names, stand at the axis */
        for (size_t i = 0; i < q->x.n_names; i++) free(q->x.names[i]);
        q->x.n_names = 0;
    }
    if (hollow) ks_plot_text(p, &p->hollow_name, "hollow: at or below the group's mean floor");
    KS_TRY(ks_scene_tests(&tests, f, c));
    free(p->marked_name); /* there are no cells to mark: the note says it */
    p->marked_name = NULL;
    if (!intervals) ks_plot_note(p, "No intervals: more than %d points.", KS_MOST_INTERVALS);
    KS_TRY(ks_figure_end(f, c, &peak, &gaps,
                         "Mean KL(baseline || ablated) at the last position in nats over each group's samples; " INTERVALS
                         "; grey: floor of "
                         "rounding the residual stream to bf16."));
done:
    free(tests);
    return rc;
}

int ks_figure_triangle(ks_figure *f, const ks_scene *c)
{
    int rc = KS_OK;
    const ks_study_sweep *s = c->v.s;
    const size_t L = (size_t)c->v.m->n_layers;
    ks_peak peak = {.value = NAN};
    ks_gaps gaps = {0};
    double *tests = NULL;
    KS_TRY(ks_figure_begin(f, c, "Triangle of windows", ""));
    KS_TRY(ks_scene_tests(&tests, f, c));
    ks_plot *p = f->plot;
    p->columns = c->v.g->tests[1] ? 2 : 1;
    ks_plot_text(p, &p->colour_label, MEAN_KL);
    for (int i = 0; i < 2 && c->v.g->tests[i]; i++) {
        ks_panel *q = ks_plot_panel(p, KS_SCALE_LINEAR, KS_SCALE_NAMES);
        KS_REQUIRE(q, KS_EMACHINE, "out of memory");
        ks_plot_text(p, &q->title, "%.60s", c->v.g->tests[i]);
        ks_plot_text(p, &q->x.label, "last layer");
        ks_plot_text(p, &q->y.label, "first layer");
        q->x.whole = q->x.fixed = true;
        q->x.scale.low = -0.5;
        q->x.scale.high = (double)L - 0.5;
        q->height = p->columns == 2 ? 165 : 300;
        for (size_t a = 0; a < L; a++) {
            char text[24];
            snprintf(text, sizeof text, "%zu", a);
            ks_axis_name(p, &q->y, KS_MARK_NONE, text);
        }
        ks_panel_cells(p, q, L, L);
        for (size_t w = 0; w < s->W; w++) {
            ks_point point;
            if (!ks_chosen_window(c->v.opt, s, w)) continue;
            KS_TRY(ks_scene_mean(&point, c, c->v.g->tests[i], 0, w, 0, 0, false, &gaps));
            ks_panel_cell(q, (size_t)s->layer_start[w], (size_t)s->layer_end[w], point.y,
                          tests[w] <= 0.05 ? KS_CELL_MARKED : KS_CELL_VALUE);
            ks_peak_see(&peak, point.y, "%s in layers %s", c->v.g->tests[i], ks_window_label(s, w).text);
        }
    }
    KS_TRY(ks_figure_end(f, c, &peak, &gaps,
                         "Mean KL(baseline || ablated) at the last position in nats for every window of layers, one triangle per test "
                         "group; colours are logarithmic and the same for both."));
done:
    free(tests);
    return rc;
}

size_t ks_fits_heads(const ks_scene *c)
{
    return c->v.s->has_head && !c->v.s->has_factor && ks_scene_windows(c) > 0 && ks_scene_windows(c) * c->v.s->H <= MOST_WINDOWS;
}

int ks_figure_heads(ks_figure *f, const ks_scene *c)
{
    int rc = KS_OK;
    const ks_study_sweep *s = c->v.s;
    ks_peak peak = {.value = NAN};
    ks_gaps gaps = {0};
    double *tests = NULL;
    KS_TRY(ks_figure_begin(f, c, "Heads", ""));
    KS_TRY(ks_scene_tests(&tests, f, c));
    ks_plot *p = f->plot;
    ks_plot_text(p, &p->colour_label, MEAN_KL);
    for (int i = 0; i < 2 && c->v.g->tests[i]; i++) {
        ks_panel *q = ks_plot_panel(p, KS_SCALE_NAMES, KS_SCALE_NAMES);
        KS_REQUIRE(q, KS_EMACHINE, "out of memory");
        ks_plot_text(p, &q->title, "%.60s", c->v.g->tests[i]);
        ks_plot_text(p, &q->x.label, ks_single_layers(s) ? "layer" : "layers (first-last)");
        ks_plot_text(p, &q->y.label, "head");
        q->height = fmin(fmax(12.0 * (double)s->H, 70), 280);
        for (size_t h = 0; h < s->H; h++) {
            char text[24];
            snprintf(text, sizeof text, "%zu", h);
            ks_axis_name(p, &q->y, KS_MARK_NONE, text);
        }
        ks_panel_cells(p, q, s->H, ks_scene_windows(c));
        size_t place = 0;
        for (size_t w = 0; w < s->W; w++) {
            if (!ks_chosen_window(c->v.opt, s, w)) continue;
            ks_axis_name(p, &q->x, KS_MARK_NONE, ks_window_label(s, w).text);
            for (size_t h = 0; h < s->H; h++) {
                ks_point point;
                KS_TRY(ks_scene_mean(&point, c, c->v.g->tests[i], 0, w, h, 0, false, &gaps));
                ks_panel_cell(q, h, place, point.y, tests[w * s->H + h] <= 0.05 ? KS_CELL_MARKED : KS_CELL_VALUE);
                ks_peak_see(&peak, point.y, "%s in head %zu of layer%s %s", c->v.g->tests[i], h,
                            s->layer_start[w] == s->layer_end[w] ? "" : "s", ks_window_label(s, w).text);
            }
            place++;
        }
    }
    KS_TRY(ks_figure_end(f, c, &peak, &gaps,
                         "Mean KL(baseline || ablated) at the last position in nats, one head of one layer at a time; colours are "
                         "logarithmic and the same for both test groups."));
done:
    free(tests);
    return rc;
}

/* One figure a window. */
size_t ks_fits_dose(const ks_scene *c)
{
    return c->v.s->has_factor && !c->v.s->has_head && c->v.s->F > 1 ? ks_scene_windows(c) : 0;
}

int ks_figure_dose(ks_figure *f, const ks_scene *c)
{
    int rc = KS_OK;
    const ks_study_sweep *s = c->v.s;
    size_t w = 0, left = c->part;
    while (!ks_chosen_window(c->v.opt, s, w) || left--) w++;
    ks_peak peak = {.value = NAN};
    ks_gaps gaps = {0};
    const bool one = s->layer_start[w] == s->layer_end[w];
    char where[64];
    snprintf(where, sizeof where, ", layer%s %.40s", one ? "" : "s", ks_window_label(s, w).text);
    KS_TRY(ks_figure_begin(f, c, "Dose-response", where));
    if (ks_scene_windows(c) > 1) KS_GET(f->name, ks_strdup(ks_window_label(s, w).text));
    ks_plot *p = f->plot;
    ks_panel *q = ks_plot_panel(p, KS_SCALE_LINEAR, KS_SCALE_LOG);
    KS_REQUIRE(q, KS_EMACHINE, "out of memory");
    q->height = 230;
    ks_plot_text(p, &q->y.label, MEAN_KL);
    ks_plot_text(p, &q->x.label, "%s",
                 !strcmp(s->kind, "scale") ? "factor on the edges' attention weights" : "weight of each edge, as set");
    ks_scene_floor(p, q, c);
    double low = s->values[0], high = s->values[0];
    for (size_t k = 1; k < s->F; k++) low = fmin(low, s->values[k]), high = fmax(high, s->values[k]);
    if (high > low) q->x.fixed = true, q->x.scale.low = low - 0.04 * (high - low), q->x.scale.high = high + 0.04 * (high - low);
    bool hollow = false;
    for (size_t i = 0; i < c->v.g->n; i++) {
        ks_series *series = ks_scene_series(p, q, c, i);
        if (series) series->line = true;
        double before = -INFINITY; /* factors in ascending order, whatever the file's is */
        for (size_t k = 0; k < s->F; k++) {
            size_t next = s->F;
            for (size_t n = 0; n < s->F; n++)
                if (s->values[n] > before && (next == s->F || s->values[n] < s->values[next])) next = n;
            if (next == s->F) break;
            before = s->values[next];
            ks_point point;
            const double shift = (ks_dodge(0, i, c->v.g->n)) * (high - low) / 20;
            KS_TRY(ks_scene_mean(&point, c, c->v.g->names[i], next, w, 0, before + shift, true, &gaps));
            hollow |= point.hollow;
            ks_series_point(p, series, point);
            ks_peak_see(&peak, point.y, "%s at %s %g", c->v.g->names[i], s->kind, before);
        }
    }
    if (hollow) ks_plot_text(p, &p->hollow_name, "hollow: at or below the group's mean floor");
    KS_TRY(ks_figure_end(
        f, c, &peak, &gaps,
        "Mean KL(baseline || ablated) at the last position in nats against how far the edges' weights are changed; " INTERVALS "%s",
        !strcmp(s->kind, "scale") ? "; a factor of 1 changes nothing." : "."));
done:
    return rc;
}
