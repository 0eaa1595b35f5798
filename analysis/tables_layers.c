/* A window against its single layers, and attention strength against effects, layer by layer. */
#include "analysis/correlation.h"
#include "analysis/many_cells.h"
#include "analysis/tables_private.h"
#include "analysis/two_groups.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* KL [S] of one layer alone under the same intervention: from this sweep, or from another of the model. NULL: nowhere. */
static const double *single_layer(const ks_view *v, int32_t layer)
{
    for (size_t k = 0; k <= v->m->n_sweeps; k++) {
        const ks_study_sweep *s = k ? &v->m->sweeps[k - 1] : v->s;
        if (s->has_factor || s->has_head || strcmp(s->kind, v->s->kind) != 0 || strcmp(s->edges, v->s->edges) != 0 ||
            strcmp(s->heads, v->s->heads) != 0 || (strcmp(s->kind, "knockout") != 0 && s->values[0] != v->s->values[0]))
            continue;
        for (size_t w = 0; w < s->W; w++)
            if (s->layer_start[w] == layer && s->layer_end[w] == layer) return s->kl + w * v->m->S;
    }
    return NULL;
}

static size_t group_values(double *out, const ks_view *v, const double *values /* [S] */, const char *group)
{
    size_t n = 0;
    for (size_t s = 0; s < v->m->S; s++)
        if (!strcmp(v->m->groups[s], group)) out[n++] = values[s];
    return n;
}

/* ---- compensation and synergy ---- */

typedef struct whole {
    size_t w;
    double t[2], p[2]; /* paired t and p corrected for the number of windows, against the sum and against the largest */
} whole;

static int by_p(const void *a, const void *b)
{
    const whole *x = a, *y = b;
    const double p = fmin(x->p[0], x->p[1]), q = fmin(y->p[0], y->p[1]);
    if (isnan(p) != isnan(q)) return isnan(p) ? 1 : -1;
    if (p < q || p > q) return p < q ? -1 : 1;
    const double t = fmax(fabs(x->t[0]), fabs(x->t[1])), u = fmax(fabs(y->t[0]), fabs(y->t[1]));
    if (t > u || t < u) return t > u ? -1 : 1;
    return (x->w > y->w) - (x->w < y->w);
}

/* The group's KL in a window [samples] and in its layers alone [layers, samples]; found = false where a layer is nowhere. */
static size_t parts(bool *found, double *window, double *single, const ks_view *v, size_t w, const char *group)
{
    const size_t samples = group_values(window, v, v->s->kl + w * v->m->S, group);
    *found = true;
    for (int32_t l = v->s->layer_start[w]; l <= v->s->layer_end[w] && *found; l++) {
        const double *kl = single_layer(v, l);
        *found = kl != NULL;
        if (kl) group_values(single + (size_t)(l - v->s->layer_start[w]) * samples, v, kl, group);
    }
    return samples;
}

static size_t layers_of(const ks_study_sweep *s, size_t w)
{
    return (size_t)(s->layer_end[w] - s->layer_start[w]) + 1;
}

static void synergy_row(ks_table *t, const ks_view *v, const whole *x, const ks_synergy *r)
{
    const ks_paired *part[2] = {&r->sum, &r->max};
    ks_table_cell(t, "%s", ks_window_label(v->s, x->w).text);
    ks_table_cell(t, "%zu", part[0]->d.n);
    ks_table_number(t, part[0]->a.mean, "");
    for (int k = 0; k < 2; k++) {
        ks_table_number(t, part[k]->b.mean, "");
        ks_table_number(t, part[k]->d.mean, "");
        ks_table_number(t, part[k]->difference.low, "");
        ks_table_number(t, part[k]->difference.high, "");
        ks_p_cell(t, part[k]->permutation.p, part[k]->permutation.error);
        ks_p_cell(t, x->p[k], 0);
    }
    const double sum = x->p[0] <= 0.05 ? part[0]->d.mean : 0, max = x->p[1] <= 0.05 ? part[1]->d.mean : 0;
    ks_table_cell(t, "%s%s%s",
                  max < 0   ? "less than its largest layer"
                  : sum < 0 ? "less than the sum"
                  : sum > 0 ? "more than the sum"
                            : "",
                  max > 0 && fabs(sum) > 0 ? ", " : "", max > 0 ? "more than its largest layer" : "");
}

static int synergy_of_group(const ks_view *v, const char *group)
{
    int rc = KS_OK;
    const size_t S = v->m->S, W = v->s->W;
    ks_table t = {0};
    size_t n = 0, samples = 0, absent = 0;
    double *window = NULL, *single = NULL, *d[2] = {0}, *ts = NULL, *adjusted = NULL;
    whole *x = NULL;
    bool found;
    ks_max_t max = {0};
    KS_NEW(window, S);
    KS_NEW(single, (size_t)v->m->n_layers * S);
    KS_NEW(x, W);
    KS_NEW(ts, W);
    KS_NEW(adjusted, W);
    for (int k = 0; k < 2; k++) KS_NEW(d[k], W * S);
    for (size_t w = 0; w < W; w++) {
        if (layers_of(v->s, w) == 1 || !ks_chosen_window(v->opt, v->s, w)) continue;
        samples = parts(&found, window, single, v, w, group);
        absent += !found;
        for (size_t i = 0; found && i < samples; i++) {
            double sum = 0, most = -INFINITY;
            for (size_t l = 0; l < layers_of(v->s, w); l++) {
                sum += single[l * samples + i];
                most = fmax(most, single[l * samples + i]);
            }
            d[0][n * samples + i] = window[i] - sum;
            d[1][n * samples + i] = isnan(sum) ? (double)NAN : window[i] - most;
        }
        if (found) x[n++].w = w;
    }
    if (!n) goto done;
    const size_t shown = ks_rows_shown(v, n);
    const ks_resample how = ks_view_resample(v, shown > 100 ? 1000 : 10000);
    for (int k = 0; k < 2; k++) {
        KS_TRY(ks_max_t_pairs(&max, ts, adjusted, d[k], n, samples, &how));
        for (size_t i = 0; i < n; i++) {
            x[i].t[k] = ts[i];
            x[i].p[k] = adjusted[i];
        }
    }
    if (shown < n) qsort(x, n, sizeof *x, by_p);
    char title[128];
    snprintf(title, sizeof title, "Windows against their single layers, %.80s", group);
    ks_view_title(&t, v, title, "");
    static const char *const columns[] = {"layers",      "n",          "window",       "sum of layers", "window - sum",     "sum: from",
                                          "sum: to",     "sum: p",     "sum: maxT",    "largest layer", "window - largest", "largest: from",
                                          "largest: to", "largest: p", "largest: maxT"};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) ks_table_column(&t, false, "%s", columns[i]);
    ks_table_column(&t, true, "at 0.05, corrected");
    for (size_t i = 0; i < shown; i++) {
        ks_synergy r;
        parts(&found, window, single, v, x[i].w, group);
        KS_TRY(ks_synergy_test(&r, window, single, layers_of(v->s, x[i].w), samples, &how));
        synergy_row(&t, v, &x[i], &r);
    }
    if (shown < n) ks_table_note(&t, "the %zu clearest of %zu windows; --format csv and json have all", shown, n);
    if (absent) ks_table_note(&t, "%zu windows are not here: the file lacks one of their layers alone", absent);
    ks_table_note(&t, "mean KL in nats; largest layer: of each sample by itself, so noise makes it larger");
    ks_table_note(&t, "p: exchanges of window and parts within samples; maxT: corrected for all %zu windows", n);
    ks_note_bootstrap(&t, &how);
    KS_TRY(ks_view_add(v, &t, "synergy"));
done:
    ks_table_free(&t);
    free(x);
    free(adjusted);
    free(ts);
    for (int k = 0; k < 2; k++) free(d[k]);
    free(single);
    free(window);
    return rc;
}

int ks_table_synergy(const ks_view *v)
{
    int rc = KS_OK;
    for (int i = 0; i < 2 && v->g->tests[i]; i++) KS_TRY(synergy_of_group(v, v->g->tests[i]));
done:
    return rc;
}

/* ---- correlation against causation ---- */

typedef struct strengths {
    size_t L, S;
    double *raw, *relative, *kl; /* [L, S] of the test groups' samples; NaN elsewhere */
    double *a, *b;               /* [S] */
} strengths;

static int strength_row(ks_table *t, const ks_view *v, const strengths *x, size_t layer, const ks_resample *how)
{
    int rc = KS_OK;
    const char *const *g = v->g->tests;
    const double *measures[2] = {x->raw + layer * x->S, x->relative + layer * x->S};
    ks_table_cell(t, "%zu", layer);
    for (int k = 0; k < 2; k++) {
        ks_summary s[2] = {0};
        for (int i = 0; i < 2 && g[i]; i++) {
            const size_t n = group_values(x->a, v, measures[k], g[i]);
            KS_TRY(ks_summarize(&s[i], x->a, n));
            ks_table_number(t, s[i].mean, "");
        }
        if (g[1]) ks_p_cell(t, ks_welch_test(&s[0], &s[1]).p, 0);
    }
    ks_correlation c;
    KS_TRY(ks_correlate(&c, measures[1], x->kl + layer * x->S, x->S, how));
    ks_table_plain(t, c.rho, 3);
    ks_table_plain(t, c.interval_rho.low, 3);
    ks_table_plain(t, c.interval_rho.high, 3);
    ks_p_cell(t, c.p_rho, 0);
    if (c.why) ks_table_note(t, "layer %zu: no correlation: %s", layer, c.why);
done:
    return rc;
}

static int overall_table(const ks_view *v, const strengths *x)
{
    int rc = KS_OK;
    ks_table t = {0};
    const ks_resample how = ks_view_resample(v, 1000);
    const double *measures[2] = {x->raw, x->relative};
    double *part = NULL;
    KS_NEW(part, x->L * x->S);
    ks_view_title(&t, v, "Attention strength against knockout effect, all layers", "");
    ks_table_column(&t, true, "strength");
    ks_table_column(&t, true, "samples");
    static const char *const columns[] = {
        "n", "points", "rho", "rho from", "rho to", "tau", "tau from", "tau to", "rho within samples", "within from", "within to"};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) ks_table_column(&t, false, "%s", columns[i]);
    for (int k = 0; k < 2; k++)
        for (int i = -1; i < 2 && (i < 0 || v->g->tests[1]); i++) {
            ks_cluster_correlation c;
            for (size_t j = 0; j < x->L * x->S; j++)
                part[j] = i < 0 || !strcmp(v->m->groups[j % x->S], v->g->tests[i]) ? measures[k][j] : (double)NAN;
            KS_TRY(ks_correlate_layers(&c, part, x->kl, x->L, x->S, &how));
            ks_table_cell(&t, k ? "relative to uniform" : "raw");
            ks_table_cell(&t, "%s", i < 0 ? "both groups" : v->g->tests[i]);
            ks_table_cell(&t, "%zu", c.samples);
            ks_table_cell(&t, "%zu", c.points);
            const double values[] = {c.rho,    c.interval_rho.low,    c.interval_rho.high,   c.tau, c.interval_tau.low, c.interval_tau.high,
                                     c.within, c.interval_within.low, c.interval_within.high};
            for (size_t j = 0; j < sizeof values / sizeof *values; j++) ks_table_plain(&t, values[j], 3);
            if (c.why) ks_table_note(&t, "%s: no correlation: %s", i < 0 ? "both groups" : v->g->tests[i], c.why);
        }
    ks_table_note(&t, "a point is a sample in a layer; rho: Spearman, tau: Kendall; intervals draw whole samples");
    ks_table_note(&t, "within samples: mean over samples of rho over that sample's layers");
    ks_note_bootstrap(&t, &how);
    KS_TRY(ks_view_add(v, &t, "attention"));
done:
    ks_table_free(&t);
    free(part);
    return rc;
}

int ks_table_attention(const ks_view *v)
{
    int rc = KS_OK;
    ks_table t = {0};
    strengths x = {.L = (size_t)v->m->n_layers, .S = v->m->S};
    const ks_resample how = ks_view_resample(v, 1000);
    const char *const *g = v->g->tests;
    size_t found = 0;
    KS_NEW(x.raw, x.L * x.S);
    KS_NEW(x.relative, x.L * x.S);
    KS_NEW(x.kl, x.L * x.S);
    KS_NEW(x.a, x.S);
    KS_NEW(x.b, x.S);
    for (size_t l = 0; l < x.L; l++) {
        const double *kl = single_layer(v, (int32_t)l);
        found += kl != NULL;
        for (size_t s = 0; s < x.S; s++) {
            const size_t at = l * x.S + s;
            const bool in = !strcmp(v->m->groups[s], g[0]) || (g[1] && !strcmp(v->m->groups[s], g[1]));
            x.raw[at] = in ? v->m->strength[at] : (double)NAN;
            x.relative[at] = in ? ks_ratio(v->m->strength[at], v->m->uniform[s]) : (double)NAN;
            x.kl[at] = in && kl ? kl[s] : (double)NAN;
        }
    }
    if (!found) goto done;
    ks_view_title(&t, v, "Attention strength by layer", "");
    ks_table_column(&t, false, "layer");
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < 2 && g[i]; i++) ks_table_column(&t, false, "%s%s", ks_group_label(v->g, g[i]).text, k ? ", relative" : "");
        if (g[1]) ks_table_column(&t, false, k ? "p, relative" : "p");
    }
    static const char *const columns[] = {"rho with KL", "95 % from", "to", "p of rho"};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) ks_table_column(&t, false, "%s", columns[i]);
    for (size_t l = 0; l < x.L; l++) KS_TRY(strength_row(&t, v, &x, l, &how));
    ks_table_note(
        &t, "strength: weight of marker -> targets in the baseline, mean over heads and targets; relative: divided by uniform attention");
    ks_table_note(
        &t, "p: Welch between the groups, not corrected for the number of layers; rho: Spearman over samples, relative strength and KL");
    ks_note_bootstrap(&t, &how);
    KS_TRY(ks_view_add(v, &t, "attention"));
    KS_TRY(overall_table(v, &x));
done:
    ks_table_free(&t);
    free(x.b);
    free(x.a);
    free(x.kl);
    free(x.relative);
    free(x.raw);
    return rc;
}
