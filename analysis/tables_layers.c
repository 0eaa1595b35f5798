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
    size_t w, n;
    ks_synergy r;
    double max_t[2]; /* p corrected for the number of windows, against the sum and against the largest */
} whole;

static int by_p(const void *a, const void *b)
{
    const whole *x = *(whole *const *)a, *y = *(whole *const *)b;
    const double p = fmin(x->max_t[0], x->max_t[1]), q = fmin(y->max_t[0], y->max_t[1]);
    if (isnan(p) != isnan(q)) return isnan(p) ? 1 : -1;
    if (p < q || p > q) return p < q ? -1 : 1;
    const double t = fmax(fabs(x->r.sum.t), fabs(x->r.max.t)), u = fmax(fabs(y->r.sum.t), fabs(y->r.max.t));
    if (t > u || t < u) return t > u ? -1 : 1;
    return (x > y) - (x < y);
}

static void synergy_row(ks_table *t, const ks_view *v, const whole *x)
{
    const ks_paired *part[2] = {&x->r.sum, &x->r.max};
    ks_table_cell(t, "%s", ks_window_label(v->s, x->w).text);
    ks_table_cell(t, "%zu", part[0]->d.n);
    ks_table_number(t, part[0]->a.mean, "");
    for (int k = 0; k < 2; k++) {
        ks_table_number(t, part[k]->b.mean, "");
        ks_table_number(t, part[k]->d.mean, "");
        ks_table_number(t, part[k]->difference.low, "");
        ks_table_number(t, part[k]->difference.high, "");
        ks_p_cell(t, part[k]->permutation.p, part[k]->permutation.error);
        ks_p_cell(t, x->max_t[k], 0);
    }
    const double sum = x->max_t[0] <= 0.05 ? part[0]->d.mean : 0, max = x->max_t[1] <= 0.05 ? part[1]->d.mean : 0;
    ks_table_cell(t, "%s%s%s",
                  max < 0   ? "less than its largest layer"
                  : sum < 0 ? "less than the sum"
                  : sum > 0 ? "more than the sum"
                            : "",
                  max > 0 && sum ? ", " : "", max > 0 ? "more than its largest layer" : "");
}

static int synergy_of_group(const ks_view *v, const char *group)
{
    int rc = KS_OK;
    const size_t S = v->m->S, L = (size_t)v->m->n_layers;
    const size_t draws = v->s->W > 100 ? 1000 : 10000;
    const ks_resample how = ks_view_resample(v, draws);
    ks_table t = {0};
    size_t n = 0, samples = 0, absent = 0;
    double *window = NULL, *single = NULL, *d[2] = {0}, *ts = NULL, *adjusted = NULL;
    whole *x = NULL, **order = NULL;
    ks_max_t max = {0};
    KS_NEW(window, S);
    KS_NEW(single, L * S);
    KS_NEW(x, v->s->W);
    KS_NEW(order, v->s->W);
    KS_NEW(ts, v->s->W);
    KS_NEW(adjusted, v->s->W);
    for (int k = 0; k < 2; k++) KS_NEW(d[k], v->s->W * S);
    for (size_t w = 0; w < v->s->W; w++) {
        const int32_t a = v->s->layer_start[w], b = v->s->layer_end[w];
        if (a == b || !ks_chosen_window(v->opt, v->s, w)) continue;
        samples = group_values(window, v, v->s->kl + w * S, group);
        bool all = true;
        for (int32_t l = a; l <= b && all; l++) {
            const double *kl = single_layer(v, l);
            all = kl != NULL;
            if (kl) group_values(single + (size_t)(l - a) * samples, v, kl, group);
        }
        absent += !all;
        if (!all) continue;
        x[n].w = w;
        KS_TRY(ks_synergy_test(&x[n].r, window, single, (size_t)(b - a + 1), samples, &how));
        for (size_t i = 0; i < samples; i++) {
            double sum = window[i], most = -INFINITY;
            for (size_t l = 0; l <= (size_t)(b - a); l++) {
                sum -= single[l * samples + i];
                most = isnan(single[l * samples + i]) ? (double)NAN : fmax(most, single[l * samples + i]);
            }
            d[0][n * samples + i] = sum;
            d[1][n * samples + i] = isnan(sum) ? (double)NAN : window[i] - most;
        }
        order[n] = &x[n];
        n++;
    }
    if (!n) goto done;
    for (int k = 0; k < 2; k++) {
        KS_TRY(ks_max_t_pairs(&max, ts, adjusted, d[k], n, samples, &how));
        for (size_t i = 0; i < n; i++) x[i].max_t[k] = adjusted[i];
    }
    const size_t shown = ks_rows_shown(v, n);
    if (shown < n) qsort(order, n, sizeof *order, by_p);
    char title[128];
    snprintf(title, sizeof title, "Windows against their single layers, %.80s", group);
    ks_view_title(&t, v, title, "");
    static const char *const columns[] = {"layers", "n", "window",  "sum of layers", "window - sum",     "95 % from",
                                          "to",     "p", "p, maxT", "largest layer", "window - largest", "95 % from",
                                          "to",     "p", "p, maxT"};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) ks_table_column(&t, false, "%s", columns[i]);
    ks_table_column(&t, true, "at 0.05, corrected");
    for (size_t i = 0; i < shown; i++) synergy_row(&t, v, order[i]);
    if (shown < n) ks_table_note(&t, "the %zu clearest of %zu windows; --format csv and json have all", shown, n);
    if (absent) ks_table_note(&t, "%zu windows are not here: the file lacks one of their layers alone", absent);
    ks_table_note(&t, "mean KL in nats; largest layer: of each sample by itself, so noise makes it larger");
    ks_table_note(&t, "p: exchanges of window and parts within samples; maxT: corrected for all %zu windows", n);
    ks_note_bootstrap(&t, &how);
    KS_TRY(ks_view_add(v, &t, "synergy"));
done:
    ks_table_free(&t);
    free(order);
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
    static const char *const columns[] = {"n", "points", "rho", "95 % from", "to", "tau", "from", "to", "rho within samples", "from", "to"};
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
