/* Figures of single samples: the strip plot, attention against effect, the effect along a text. */
#include "analysis/correlation.h"
#include "analysis/figures_private.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static size_t group_of(const ks_groups *g, const char *name)
{
    size_t k = 0;
    while (k < g->n && strcmp(g->names[k], name) != 0) k++;
    return k;
}

/* ", layer 2 (largest effect)"; remark: the window was chosen by looking. */
static ks_label window_words(const ks_scene *c, size_t w)
{
    ks_label label;
    snprintf(label.text, sizeof label.text, ", layer%s %.30s%s", c->v.s->layer_start[w] == c->v.s->layer_end[w] ? "" : "s",
             ks_window_label(c->v.s, w).text, ks_scene_windows(c) > 1 ? " (largest effect)" : "");
    return label;
}

static const char *selected(const ks_scene *c)
{
    return ks_scene_windows(c) > 1 ? " The window was chosen for its effect on these same samples." : "";
}

size_t ks_fits_samples(const ks_scene *c)
{
    return !c->v.s->has_factor && !c->v.s->has_head && ks_scene_windows(c) > 0;
}

/* Places the samples of a group side by side: those next to one another in size are far apart (steps of the golden ratio). */
static double strip_place(const double *values, size_t n, size_t at)
{
    size_t rank = 0;
    for (size_t i = 0; i < n; i++) rank += values[i] < values[at] || (values[i] == values[at] && i < at);
    return 0.46 * (fmod(0.5 + (double)rank * 0.6180339887498949, 1) - 0.5);
}

int ks_figure_samples(ks_figure *f, const ks_scene *c)
{
    int rc = KS_OK;
    const ks_study_model *m = c->v.m;
    size_t window = 0;
    bool found = false, hollow = false;
    ks_peak peak = {.value = NAN};
    ks_gaps gaps = {0}, means = {0};
    double *values = NULL;
    size_t *samples = NULL;
    KS_TRY(ks_peak_window(&c->v, &window, &found));
    if (!found) goto done;
    KS_TRY(ks_figure_begin(f, c, "Samples", window_words(c, window).text));
    KS_NEW(values, m->S);
    KS_NEW(samples, m->S);
    ks_plot *p = f->plot;
    ks_panel *q = ks_plot_panel(p, KS_SCALE_NAMES, KS_SCALE_LOG);
    KS_REQUIRE(q, KS_EMACHINE, "out of memory");
    q->height = 230;
    ks_plot_text(p, &q->y.label, "KL (nats)");
    ks_scene_floor(p, q, c);
    for (size_t i = 0; i < c->v.g->n; i++) {
        size_t n = 0;
        for (size_t k = 0; k < m->S; k++) {
            const double kl = c->v.s->kl[ks_study_at(m, c->v.s, 0, window, 0, k)];
            if (strcmp(m->groups[k], c->v.g->names[i]) != 0 || !isfinite(kl)) continue;
            values[n] = kl;
            samples[n++] = k;
        }
        char name[96];
        snprintf(name, sizeof name, "%.70s (%zu)", c->v.g->names[i], n);
        ks_axis_name(p, &q->x, KS_MARK_NONE, name);
        ks_series *series = ks_panel_series(p, q, (int)i, ""); /* the axis names it */
        for (size_t k = 0; k < n; k++) {
            const bool low = values[k] <= m->floor[samples[k]];
            hollow |= low;
            ks_series_point(p, series, (ks_point){(double)i + strip_place(values, n, k) - 0.1, values[k], NAN, NAN, low});
            ks_peak_see(&peak, values[k], "sample %.60s of %.60s", m->ids[samples[k]], c->v.g->names[i]);
        }
        ks_point mean;
        KS_TRY(ks_scene_mean(&mean, c, c->v.g->names[i], 0, window, 0, (double)i + 0.32, true, &means));
        mean.hollow = false;
        ks_series_point(p, ks_panel_series(p, q, 33 /* a black diamond */, "mean, 95 % interval"), mean);
    }
    gaps = means;
    if (hollow) ks_plot_text(p, &p->hollow_name, "hollow: at or below the sample's own floor");
    KS_TRY(ks_figure_end(f, c, &peak, &gaps,
                         "KL(baseline || ablated) at the last position in nats, one mark per sample (their places side by side mean "
                         "nothing), and each group's mean with its 95 %% BCa bootstrap interval.%s",
                         selected(c)));
done:
    free(samples);
    free(values);
    return rc;
}

/* ---- attention against effect ---- */

size_t ks_fits_attention(const ks_scene *c)
{
    return !c->v.s->has_factor && !c->v.s->has_head && ks_scene_windows(c) > 1 && ks_single_layers(c->v.s) &&
           !strcmp(c->v.s->edges, "marker-targets") && ks_scene_windows(c) * c->v.m->S <= 200000;
}

/* "Spearman's rho is 0.45 (95 % interval 0.21 to 0.60)" */
static void rho_words(char words[160], const ks_cluster_correlation *r, const char *name)
{
    const ks_interval *i = &r->interval_rho;
    if (isnan(r->rho)) snprintf(words, 160, "no rank correlation (%s)", r->why ? r->why : "no values");
    else if (i->why) snprintf(words, 160, "%s%.2f (no interval: %s)", name, r->rho, i->why);
    else snprintf(words, 160, "%s%.2f (%.2f to %.2f)", name, r->rho, i->low, i->high);
}

int ks_figure_attention(ks_figure *f, const ks_scene *c)
{
    int rc = KS_OK;
    const ks_study_model *m = c->v.m;
    const ks_study_sweep *s = c->v.s;
    ks_peak peak = {.value = NAN};
    ks_gaps gaps = {0};
    double *x = NULL, *y = NULL; /* [W, S] NaN where there is no point */
    char words[2][160];
    size_t points = 0;
    KS_NEW(x, s->W * m->S);
    KS_NEW(y, s->W * m->S);
    KS_TRY(ks_figure_begin(f, c, "Attention against effect", ""));
    ks_plot *p = f->plot;
    p->columns = 2;
    p->share_y = true;
    for (int relative = 0; relative < 2; relative++) {
        ks_panel *q = ks_plot_panel(p, KS_SCALE_LOG, KS_SCALE_LOG);
        KS_REQUIRE(q, KS_EMACHINE, "out of memory");
        q->height = 210;
        if (!relative) ks_plot_text(p, &q->y.label, "KL (nats)");
        ks_plot_text(p, &q->x.label, relative ? "the same / uniform 1/(m+1)" : "attention strength (weight)");
        for (size_t i = 0; i < s->W * m->S; i++) x[i] = y[i] = NAN;
        for (size_t g = 0; g < c->v.g->n; g++) {
            ks_series *series = ks_scene_series(p, q, c, g);
            for (size_t w = 0; w < s->W; w++) {
                if (!ks_chosen_window(c->v.opt, s, w) || s->layer_start[w] < 0 || s->layer_start[w] >= m->n_layers) continue;
                for (size_t i = 0; i < m->S; i++) {
                    if (strcmp(m->groups[i], c->v.g->names[g]) != 0) continue;
                    const size_t at = ks_study_at(m, s, 0, w, 0, i);
                    double strength = m->strength[(size_t)s->layer_start[w] * m->S + i];
                    if (relative) strength = m->uniform[i] > 0 ? strength / m->uniform[i] : (double)NAN;
                    gaps.status[s->status[at]] += !relative;
                    if (!isfinite(strength) || !isfinite(s->kl[at])) continue;
                    if (strength < 0 || s->kl[at] < 0) {
                        gaps.below += !relative;
                        continue;
                    }
                    gaps.values++;
                    gaps.above_zero |= s->kl[at] > 0;
                    points += !relative;
                    ks_series_point(p, series, (ks_point){strength, s->kl[at], NAN, NAN, true});
                    x[w * m->S + i] = strength;
                    y[w * m->S + i] = s->kl[at];
                    ks_peak_see(&peak, s->kl[at], "sample %.60s in layer %s", m->ids[i], ks_window_label(s, w).text);
                }
            }
        }
        ks_cluster_correlation r;
        const ks_resample how = ks_view_resample(&c->v, 2000);
        KS_TRY(ks_correlate_layers(&r, x, y, s->W, m->S, &how));
        rho_words(words[relative], &r, "ρ = ");
        ks_plot_text(p, &q->title, "%s", words[relative]);
    }
    const size_t rho = strlen("ρ = ");
    char text[640];
    snprintf(text, sizeof text, "Spearman's rho %s, relative to uniform attention %s", words[0] + (words[0][0] == 'n' ? 0 : rho),
             words[1] + (words[1][0] == 'n' ? 0 : rho));
    KS_TRY(ks_figure_end(f, c, &peak, &gaps,
                         "KL(baseline || ablated) in nats of each layer and sample against the attention weight of the same edges in the "
                         "baseline, as it is and relative to uniform attention; %s over %zu points, with 95 %% intervals by bootstrap of "
                         "whole samples, since the layers of one sample are not independent.",
                         text, points));
    if (points) {
        free(f->alt);
        KS_GET(f->alt,
               ks_format("%s: %s over %zu points; the largest KL is %.3g nats, %s.", f->title, text, points, peak.value, peak.where));
    }
done:
    free(y);
    free(x);
    return rc;
}

/* ---- the effect along a text ---- */

/* One figure a test group: its sample with the largest effect. */
size_t ks_fits_positions(const ks_scene *c)
{
    if (!c->v.s->kl_positions || c->v.s->has_factor || c->v.s->has_head || !ks_scene_windows(c)) return 0;
    return c->v.g->tests[1] ? 2 : 1;
}

int ks_figure_positions(ks_figure *f, const ks_scene *c)
{
    enum { LINE = 40 };
    int rc = KS_OK;
    const ks_study_model *m = c->v.m;
    const char *group = c->v.g->tests[c->part];
    size_t window = 0, best = m->S;
    bool found = false;
    double most = NAN;
    ks_peak peak = {.value = NAN};
    ks_gaps gaps = {0};
    KS_TRY(ks_peak_window(&c->v, &window, &found));
    for (size_t i = 0; found && i < m->S; i++)
        for (size_t k = 0; group_of(c->v.g, m->groups[i]) < c->v.g->n && !strcmp(m->groups[i], group) && k < (size_t)m->n_tokens[i]; k++) {
            const double kl = c->v.s->kl_positions[ks_study_at(m, c->v.s, 0, window, 0, i) * m->T + k];
            if (isfinite(kl) && (best == m->S || kl > most)) most = kl, best = i;
        }
    if (best == m->S) goto done;
    char where[200];
    snprintf(where, sizeof where, "%.60s, sample %.60s", window_words(c, window).text, m->ids[best]);
    KS_TRY(ks_figure_begin(f, c, "Effect along the text", where));
    KS_GET(f->name, ks_strdup(group));
    ks_plot *p = f->plot;
    const size_t tokens = (size_t)m->n_tokens[best], lines = (tokens + LINE - 1) / LINE;
    const double *kl = c->v.s->kl_positions + ks_study_at(m, c->v.s, 0, window, 0, best) * m->T; /* [T] */
    size_t begin = 0;
    while (begin < tokens && isnan(kl[begin])) begin++;
    for (size_t l = 0; l < lines && l < 64; l++) {
        ks_panel *q = ks_plot_panel(p, KS_SCALE_NAMES, KS_SCALE_LINEAR);
        KS_REQUIRE(q, KS_EMACHINE, "out of memory");
        q->height = lines > 2 ? 60 : 110;
        q->x.upright = true;
        q->x.fixed = q->y.fixed = true;
        q->x.scale.low = -0.5;
        q->x.scale.high = (double)(lines == 1 && tokens > 20 ? tokens : LINE) - 0.5;
        q->y.scale.low = 0;
        q->y.scale.high = most > 0 ? most * 1.05 : 1;
        ks_plot_text(p, &q->y.label, "KL (nats)");
        ks_series *series = ks_panel_series(p, q, (int)group_of(c->v.g, group), "KL of what comes next");
        if (series) series->bars = true, series->marker = false;
        const size_t first = l * LINE;
        if (begin > first) q->shade_low = -0.5, q->shade_high = fmin((double)(begin - first) - 0.5, (double)LINE - 0.5);
        for (size_t k = first; k < tokens && k < first + LINE; k++) {
            char number[24];
            const bool marker = m->marker[best * m->T + k], target = m->target[best * m->T + k];
            const char *text = m->token_text ? m->token_text[best * m->T + k] : NULL;
            snprintf(number, sizeof number, "%zu", k);
            ks_axis_name(p, &q->x, (uint8_t)((marker ? KS_MARK_MARKER : 0) | (target ? KS_MARK_TARGET : 0)), text ? text : number);
            if (marker) ks_plot_text(p, &p->marker_name, "marker");
            if (target) ks_plot_text(p, &p->target_name, "target");
            if (!isfinite(kl[k])) {
                gaps.status[KS_STATUS_NOT_FINITE] += k >= begin;
                continue;
            }
            if (kl[k] < 0) {
                gaps.below++;
                continue;
            }
            gaps.values++;
            gaps.above_zero |= kl[k] > 0;
            ks_series_point(p, series, (ks_point){(double)(k - first), kl[k], NAN, NAN, false});
            ks_peak_see(&peak, kl[k], "behind token %zu (%.40s)", k, text ? text : "no text");
        }
    }
    if (lines > 64) ks_plot_note(p, "The first %d of %zu tokens are shown.", 64 * LINE, tokens);
    if (begin) ks_plot_text(p, &p->shade_name, "nothing changes here");
    char *plain = ks_plain_text(peak.where, 150, false);
    KS_REQUIRE(plain, KS_EMACHINE, "%s", ks_error_text());
    snprintf(peak.where, sizeof peak.where, "%.150s", plain);
    free(plain);
    KS_TRY(ks_figure_end(f, c, &peak, &gaps,
                         "KL(baseline || ablated) in nats of the prediction behind every token of the sample of %s with the largest "
                         "effect, along its own text; nothing changes in the %zu tokens before.%s",
                         group, begin, selected(c)));
done:
    return rc;
}
