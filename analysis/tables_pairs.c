/* The same samples under two conditions: two sweeps, two models, a sample and its twin. */
#include "analysis/tables_private.h"
#include "analysis/two_groups.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One side of a comparison; group: only its samples. */
typedef struct side {
    const ks_view *v;
    size_t w;
} side;

static const double *kl_of(const side *x)
{
    return x->v->s->kl + x->w * x->v->m->S;
}

static void columns(ks_table *t)
{
    static const char *const names[] = {"A",          "B",        "group",    "n",     "mean A", "mean B",          "A - B",
                                        "A - B from", "A - B to", "paired t", "df",    "p",      "p, signed ranks", "p, exchange",
                                        "g",          "A/B",      "A/B from", "A/B to"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) ks_table_column(t, i < 3, "%s", names[i]);
}

static int row(ks_table *t, const char *a_name, const char *b_name, const char *group, const double *a, const double *b, size_t n,
               const ks_resample *how)
{
    int rc = KS_OK;
    ks_paired p;
    KS_TRY(ks_compare_paired(&p, a, b, n, how));
    ks_table_cell(t, "%s", a_name);
    ks_table_cell(t, "%s", b_name);
    ks_table_cell(t, "%s", group);
    ks_table_cell(t, "%zu", p.d.n);
    ks_table_number(t, p.a.mean, "");
    ks_table_number(t, p.b.mean, "");
    ks_table_number(t, p.d.mean, "");
    ks_table_number(t, p.difference.low, "");
    ks_table_number(t, p.difference.high, "");
    ks_table_plain(t, p.t, 3);
    ks_table_plain(t, p.df, 0);
    ks_p_cell(t, p.p, 0);
    ks_p_cell(t, p.signed_ranks.p, 0);
    ks_p_cell(t, p.permutation.p, p.permutation.error);
    ks_table_plain(t, p.hedges.g, 3);
    ks_table_number(t, p.ratio.ratio, "");
    ks_table_number(t, p.ratio.interval.low, "");
    ks_table_number(t, p.ratio.interval.high, "");
    if (p.why) ks_table_note(t, "%s, %s against %s: no paired t: %s", group, a_name, b_name, p.why);
    if (p.missing) ks_table_note(t, "%s, %s against %s: %zu pairs lack a value and are left out", group, a_name, b_name, p.missing);
    if (p.signed_ranks.zeros)
        ks_table_note(t, "%s, %s against %s: %zu differences are exactly 0; signed ranks leave them out", group, a_name, b_name,
                      p.signed_ranks.zeros);
done:
    return rc;
}

static void notes(ks_table *t, const ks_resample *how)
{
    ks_table_note(t, "pairs: the same sample on both sides; mean KL in nats; p of exchange: A and B exchanged within samples");
    ks_note_bootstrap(t, how);
}

/* ---- two sweeps of one model ---- */

static bool same_windows(const ks_study_sweep *a, const ks_study_sweep *b)
{
    return a->W == b->W && !memcmp(a->layer_start, b->layer_start, a->W * sizeof(int32_t)) &&
           !memcmp(a->layer_end, b->layer_end, a->W * sizeof(int32_t));
}

static int sweep_rows(ks_table *t, const ks_view *v, size_t w, const ks_study_sweep *other, const ks_resample *how)
{
    int rc = KS_OK;
    double *a = NULL, *b = NULL;
    const size_t S = v->m->S;
    KS_NEW(a, S);
    KS_NEW(b, S);
    char names[2][160];
    snprintf(names[0], sizeof names[0], "%.60s, %.40s", v->s->name, ks_window_label(v->s, w).text);
    snprintf(names[1], sizeof names[1], "%.60s, %.40s", other->name, ks_window_label(v->s, w).text);
    for (int i = 0; i < 2 && v->g->tests[i]; i++) {
        size_t n = 0;
        for (size_t s = 0; s < S; s++) {
            if (strcmp(v->m->groups[s], v->g->tests[i]) != 0) continue;
            a[n] = v->s->kl[w * S + s];
            b[n++] = other->kl[w * S + s];
        }
        KS_TRY(row(t, names[0], names[1], v->g->tests[i], a, b, n, how));
    }
done:
    free(b);
    free(a);
    return rc;
}

/* A twin of sample "x" is "x_baseline" or "x_twin". */
static size_t twin_of(const ks_study_model *m, size_t s)
{
    static const char *const tails[] = {"_baseline", "_twin"};
    const size_t n = strlen(m->ids[s]);
    for (size_t i = 0; i < m->S; i++)
        for (int k = 0; k < 2; k++)
            if (!strncmp(m->ids[i], m->ids[s], n) && !strcmp(m->ids[i] + n, tails[k])) return i;
    return m->S;
}

static int twin_rows(ks_table *t, const ks_view *v, size_t w, const ks_resample *how)
{
    int rc = KS_OK;
    double *a = NULL, *b = NULL;
    const side x = {v, w};
    KS_NEW(a, v->m->S);
    KS_NEW(b, v->m->S);
    for (int i = 0; i < 2 && v->g->tests[i]; i++) {
        size_t n = 0;
        for (size_t s = 0; s < v->m->S; s++) {
            const size_t twin = strcmp(v->m->groups[s], v->g->tests[i]) ? v->m->S : twin_of(v->m, s);
            if (twin == v->m->S) continue;
            a[n] = kl_of(&x)[s];
            b[n++] = kl_of(&x)[twin];
        }
        if (n) KS_TRY(row(t, "sample", "its twin", v->g->tests[i], a, b, n, how));
    }
done:
    free(b);
    free(a);
    return rc;
}

int ks_table_pairs(const ks_view *v)
{
    int rc = KS_OK;
    ks_table t = {0};
    size_t w = 0;
    bool found = false;
    const ks_resample how = ks_view_resample(v, 10000);
    KS_TRY(ks_peak_window(v, &w, &found));
    if (!found) goto done;
    ks_view_title(&t, v, "The same samples under two conditions", ks_where(v, w).text);
    columns(&t);
    for (const ks_study_sweep *other = v->s + 1; other < v->m->sweeps + v->m->n_sweeps; other++)
        if (!other->has_factor && !other->has_head && same_windows(v->s, other)) KS_TRY(sweep_rows(&t, v, w, other, &how));
    KS_TRY(twin_rows(&t, v, w, &how));
    if (!t.n_cells) goto done;
    notes(&t, &how);
    ks_note_selected(&t, v->s->W > 1 && !v->opt->has_window);
    KS_TRY(ks_view_add(v, &t, "pairs"));
done:
    ks_table_free(&t);
    return rc;
}

/* ---- two models ---- */

static size_t sample_named(const ks_study_model *m, const char *id)
{
    size_t s = 0;
    while (s < m->S && strcmp(m->ids[s], id) != 0) s++;
    return s;
}

static int model_rows(ks_table *t, const side *x, const side *y, const ks_resample *how)
{
    int rc = KS_OK;
    const ks_study_model *m = x->v->m, *o = y->v->m;
    double *a = NULL, *b = NULL;
    KS_NEW(a, m->S);
    KS_NEW(b, m->S);
    char names[2][160];
    const side *sides[2] = {x, y};
    for (int k = 0; k < 2; k++) {
        ks_label whose;
        snprintf(whose.text, sizeof whose.text, "%.60s: ", sides[k]->v->m->name);
        ks_note_basis(t, sides[k]->v, whose.text);
        snprintf(names[k], sizeof names[k], "%.60s %.40s, %.40s", sides[k]->v->m->name, sides[k]->v->s->name,
                 ks_window_label(sides[k]->v->s, sides[k]->w).text);
    }
    for (int i = 0; i < 2 && x->v->g->tests[i]; i++) {
        size_t n = 0;
        for (size_t s = 0; s < m->S; s++) {
            const size_t same = strcmp(m->groups[s], x->v->g->tests[i]) ? o->S : sample_named(o, m->ids[s]);
            if (same == o->S) continue;
            a[n] = kl_of(x)[s];
            b[n++] = kl_of(y)[same];
        }
        if (n) KS_TRY(row(t, names[0], names[1], x->v->g->tests[i], a, b, n, how));
    }
done:
    free(b);
    free(a);
    return rc;
}

/* Sweeps of one name, kind and edges in two models, each at its own window of largest effect. */
static int two_models(ks_table *t, ks_view x, ks_view y, const ks_resample *how)
{
    int rc = KS_OK;
    ks_groups g[2] = {0};
    KS_TRY(ks_groups_choose(&g[0], x.m, x.opt));
    KS_TRY(ks_groups_choose(&g[1], y.m, y.opt));
    x.g = &g[0];
    y.g = &g[1];
    for (size_t k = 0; k < x.m->n_sweeps; k++)
        for (size_t j = 0; j < y.m->n_sweeps; j++) {
            const ks_study_sweep *a = &x.m->sweeps[k], *b = &y.m->sweeps[j];
            size_t w[2];
            bool found[2];
            if (strcmp(a->name, b->name) != 0 || strcmp(a->kind, b->kind) != 0 || strcmp(a->edges, b->edges) != 0) continue;
            if (a->has_factor || a->has_head || b->has_factor || b->has_head || !ks_chosen_sweep(x.opt, a)) continue;
            x.s = a;
            y.s = b;
            KS_TRY(ks_peak_window(&x, &w[0], &found[0]));
            KS_TRY(ks_peak_window(&y, &w[1], &found[1]));
            if (found[0] && found[1]) KS_TRY(model_rows(t, &(side){&x, w[0]}, &(side){&y, w[1]}, how));
        }
done:
    for (int i = 0; i < 2; i++) ks_groups_free(&g[i]);
    return rc;
}

int ks_table_model_pairs(ks_table_list *list, ks_study *const *studies, size_t n, const ks_table_options *opt)
{
    int rc = KS_OK;
    ks_table t = {0};
    ks_view out = {.opt = opt, .list = list};
    const ks_resample how = ks_view_resample(&out, 10000);
    ks_table_title(&t, "The same samples in two models, each at its window of largest effect");
    columns(&t);
    for (size_t f = 0; f < n; f++)
        for (size_t i = 0; i < studies[f]->n_models; i++)
            for (size_t e = f; e < n; e++)
                for (size_t j = e == f ? i + 1 : 0; j < studies[e]->n_models; j++) {
                    ks_view x = {.m = &studies[f]->models[i], .opt = opt, .study = studies[f]};
                    ks_view y = {.m = &studies[e]->models[j], .opt = opt, .study = studies[e]};
                    if (ks_chosen_model(opt, x.m) && ks_chosen_model(opt, y.m)) KS_TRY(two_models(&t, x, y, &how));
                }
    if (!t.n_cells) goto done;
    notes(&t, &how);
    if (!opt->has_window) ks_note_selected(&t, true);
    KS_TRY(ks_view_add(&out, &t, "pairs"));
done:
    ks_table_free(&t);
    return rc;
}
