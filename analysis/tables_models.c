/* The cross-model summary. */
#include "analysis/tables_private.h"

#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int model_row(ks_table *t, const ks_view *v, size_t *status)
{
    int rc = KS_OK;
    size_t w = 0;
    bool found = false;
    ks_group_cell c[2] = {0};
    KS_TRY(ks_peak_window(v, &w, &found));
    if (!found) goto done;
    for (int i = 0; i < 2 && v->g->tests[i]; i++) KS_TRY(ks_group_measure(&c[i], v->m, v->s, 0, w, 0, v->g->tests[i]));
    for (int k = 0; k < KS_STATUSES; k++) status[k] += c[0].status[k] + c[1].status[k];
    ks_table_cell(t, "%s", v->m->name);
    ks_table_cell(t, "%d", (int)v->m->n_layers);
    ks_table_cell(t, "%s", v->m->precision);
    ks_table_cell(t, "%s", v->s->name);
    ks_table_cell(t, "%s", v->s->edges);
    ks_table_cell(t, "%s", ks_window_label(v->s, w).text);
    for (int i = 0; i < 2; i++) {
        if (v->g->tests[i]) ks_table_number(t, c[i].kl.mean, ks_mean_mark(&c[i]));
        else ks_table_cell(t, "-");
    }
    const double r = v->g->tests[1] ? ks_ratio(c[0].kl.mean, c[1].kl.mean) : (double)NAN;
    const double p = v->g->tests[1] ? ks_welch_test(&c[0].kl, &c[1].kl).p : (double)NAN;
    if (isnan(r)) ks_table_cell(t, "-");
    else ks_table_cell(t, "%.4g", r);
    if (isnan(p)) ks_table_cell(t, "-");
    else ks_table_cell(t, p < 1e-4 ? "%.4e" : "%.6f", p);
    ks_label whose;
    snprintf(whose.text, sizeof whose.text, "%.60s: ", v->m->name);
    ks_note_basis(t, v, whose.text);
    ks_table_cell(t, "%s%s%s", v->g->tests[0], v->g->tests[1] ? ", " : "", v->g->tests[1] ? v->g->tests[1] : "");
done:
    return rc;
}

int ks_table_models(ks_table_list *list, ks_study *const *studies, size_t n, const ks_table_options *opt)
{
    int rc = KS_OK;
    ks_table t = {0};
    ks_groups g = {0};
    size_t status[KS_STATUSES] = {0};
    ks_view v = {.opt = opt, .list = list};
    ks_table_title(&t, "Models: each sweep's window of largest effect");
    static const struct {
        const char *name;
        bool left;
    } columns[] = {{"model", true}, {"layers of it", false}, {"precision", true}, {"sweep", true},    {"edges", true}, {"window", false},
                   {"KL A", false}, {"KL B", false},         {"A/B", false},      {"Welch p", false}, {"A, B", true}};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) ks_table_column(&t, columns[i].left, "%s", columns[i].name);
    for (size_t f = 0; f < n; f++)
        for (size_t i = 0; i < studies[f]->n_models; i++) {
            v.study = studies[f];
            v.m = &studies[f]->models[i];
            if (!ks_chosen_model(opt, v.m)) continue;
            KS_TRY(ks_groups_choose(&g, v.m, opt));
            v.g = &g;
            for (size_t k = 0; k < v.m->n_sweeps; k++) {
                v.s = &v.m->sweeps[k];
                if (ks_chosen_sweep(opt, v.s) && !v.s->has_factor && !v.s->has_head) KS_TRY(model_row(&t, &v, status));
                if (t.n_cells) ks_note_floor(&t, &v);
            }
            ks_groups_free(&g);
        }
    ks_table_note(
        &t, "Mean KL in nats; A and B: the test groups of the last column. p is too small where the window was chosen by its effect.");
    ks_note_missing(&t, status);
    v.s = NULL; /* each row has its own */
    KS_TRY(ks_view_add(&v, &t, "models"));
done:
    ks_groups_free(&g);
    return rc;
}
