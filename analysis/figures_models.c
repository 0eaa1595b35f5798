/* Several models side by side. */
#include "analysis/figures_private.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The sweep of that name in a model, where it can be compared; NULL where not. */
static const ks_study_sweep *sweep_of(const ks_scene *c, const ks_study_model *m)
{
    if (!ks_chosen_model(c->v.opt, m)) return NULL;
    for (size_t k = 0; k < m->n_sweeps; k++) {
        const ks_study_sweep *s = &m->sweeps[k];
        if (strcmp(s->name, c->sweep_name) != 0 || s->has_factor || s->has_head) continue;
        for (size_t w = 0; w < s->W; w++)
            if (ks_chosen_window(c->v.opt, s, w)) return s;
    }
    return NULL;
}

size_t ks_fits_models(const ks_scene *c)
{
    size_t n = 0;
    for (size_t f = 0; f < c->n_studies; f++)
        for (size_t i = 0; i < c->studies[f]->n_models; i++) n += sweep_of(c, &c->studies[f]->models[i]) != NULL;
    return n >= 2;
}

/* The mean over the test groups along the depth of one model: layer 0 at 0, the last layer at 1. */
static int depth_line(ks_plot *p, ks_panel *q, const ks_scene *c, int look, ks_gaps *gaps)
{
    int rc = KS_OK;
    const ks_study_sweep *s = c->v.s;
    ks_series *series = ks_panel_series(p, q, look, c->v.m->name);
    if (!series) goto done;
    series->line = true;
    for (size_t w = 0; w < s->W; w++) {
        double mean;
        if (!ks_chosen_window(c->v.opt, s, w)) continue;
        KS_TRY(ks_tests_mean(&c->v, 0, w, 0, &mean));
        if (mean < 0) gaps->below++, mean = NAN;
        const double depth = c->v.m->n_layers > 1 ? s->layer_start[w] / (double)(c->v.m->n_layers - 1) : 0;
        ks_series_point(p, series, (ks_point){depth, mean, NAN, NAN, false});
    }
done:
    return rc;
}

int ks_figure_models(ks_figure *f, const ks_scene *all)
{
    int rc = KS_OK;
    ks_groups g = {0};
    ks_peak peak = {.value = NAN};
    ks_gaps gaps = {0};
    size_t place = 0;
    bool layers = true, hollow = false;
    ks_panel *depth = NULL, *peaks = NULL;
    for (size_t k = 0; k < all->n_studies; k++)
        for (size_t i = 0; i < all->studies[k]->n_models; i++) {
            const ks_study_sweep *s = sweep_of(all, &all->studies[k]->models[i]);
            if (s && !ks_single_layers(s)) layers = false;
        }
    KS_GET(f->plot, ks_plot_new());
    KS_GET(f->title, ks_format("Models: sweep %s", all->sweep_name));
    ks_plot *p = f->plot;
    ks_plot_text(p, &p->title, "%s", f->title);
    if (layers) KS_GET(depth, ks_plot_panel(p, KS_SCALE_LINEAR, KS_SCALE_LOG));
    KS_GET(peaks, ks_plot_panel(p, KS_SCALE_NAMES, KS_SCALE_LOG));
    if (depth) {
        ks_plot_text(p, &depth->title, "Mean over the test groups, along the depth");
        ks_plot_text(p, &depth->x.label, "layer / last layer");
        ks_plot_text(p, &depth->y.label, "mean KL (nats)");
        depth->x.fixed = true;
        depth->x.scale.low = -0.03;
        depth->x.scale.high = 1.03;
    }
    ks_plot_text(p, &peaks->title, "Each model's window of largest effect");
    ks_plot_text(p, &peaks->y.label, "mean KL (nats)");
    for (size_t k = 0; k < all->n_studies; k++)
        for (size_t i = 0; i < all->studies[k]->n_models && place < 60; i++) {
            ks_scene c = *all;
            c.v.m = &all->studies[k]->models[i];
            c.v.s = sweep_of(all, c.v.m);
            if (!c.v.s) continue;
            KS_TRY(ks_groups_choose(&g, c.v.m, c.v.opt));
            c.v.g = &g;
            if (depth) KS_TRY(depth_line(p, depth, &c, (int)place, &gaps));
            size_t w = 0;
            bool found = false;
            KS_TRY(ks_peak_window(&c.v, &w, &found));
            char name[96];
            if (found)
                snprintf(name, sizeof name, "%.24s, %s %.20s", c.v.m->name,
                         c.v.s->layer_start[w] == c.v.s->layer_end[w] ? "layer" : "layers", ks_window_label(c.v.s, w).text);
            else snprintf(name, sizeof name, "%.24s, no value", c.v.m->name);
            ks_axis_name(p, &peaks->x, KS_MARK_NONE, name);
            for (int t = 0; found && t < 2 && g.tests[t]; t++) {
                ks_point point;
                KS_TRY(ks_scene_mean(&point, &c, g.tests[t], 0, w, 0, ks_dodge((double)place, (size_t)t, 2), true, &gaps));
                hollow |= point.hollow;
                /* Black and grey-blue with other markers than most lines have: groups, not models. */
                ks_series_point(p, ks_panel_series(p, peaks, t ? 40 : 33, g.tests[t]), point);
                ks_peak_see(&peak, point.y, "%.60s of %.40s at layers %s", g.tests[t], c.v.m->name, ks_window_label(c.v.s, w).text);
            }
            ks_groups_free(&g);
            place++;
        }
    if (hollow) ks_plot_text(p, &p->hollow_name, "hollow: at or below the group's mean floor");
    KS_TRY(
        ks_figure_end(f, all, &peak, &gaps,
                      "Mean KL(baseline || ablated) at the last position in nats%s; error bars: 95 %% BCa bootstrap intervals of the mean. "
                      "Each window was chosen for its effect on these same samples.",
                      depth ? ", of each layer along the depth of each model, and of each test group in the window of largest effect"
                            : " of each test group in each model's window of largest effect"));
done:
    ks_groups_free(&g);
    return rc;
}
