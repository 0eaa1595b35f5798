/* Tables over the windows, factors and heads of a sweep. */
#include "analysis/tables_private.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void add_status(size_t *sum, const size_t *status)
{
    for (int i = 0; i < KS_STATUSES; i++) sum[i] += status[i];
}

/* One cell a group: its mean KL with its mark. */
static int mean_cells(ks_table *t, const ks_view *v, size_t f, size_t w, size_t h, size_t *status, double *means, double *floors)
{
    int rc = KS_OK;
    for (size_t i = 0; i < v->g->n; i++) {
        ks_group_cell c;
        KS_TRY(ks_group_measure(&c, v->m, v->s, f, w, h, v->g->names[i]));
        ks_table_number(t, c.kl.mean, ks_mean_mark(&c));
        add_status(status, c.status);
        floors[i] = c.floor;
        means[i] = c.kl.mean;
    }
done:
    return rc;
}

static void mean_columns(ks_table *t, const ks_view *v)
{
    for (size_t i = 0; i < v->g->n; i++) ks_table_column(t, false, "KL %s", ks_group_label(v->g, v->g->names[i]).text);
    if (v->g->tests[1])
        ks_table_column(t, false, "%s/%s", ks_group_label(v->g, v->g->tests[0]).text, ks_group_label(v->g, v->g->tests[1]).text);
}

static double mean_of(const ks_view *v, const char *group, const double *means)
{
    for (size_t i = 0; i < v->g->n; i++)
        if (v->g->names[i] == group) return means[i];
    return NAN;
}

static void ratio_cell(ks_table *t, const ks_view *v, const double *means)
{
    if (!v->g->tests[1]) return;
    const double r = ks_ratio(mean_of(v, v->g->tests[0], means), mean_of(v, v->g->tests[1], means));
    if (isnan(r)) ks_table_cell(t, "-");
    else ks_table_cell(t, "%.4g", r);
}

static int add_means(ks_table *t, const ks_view *v, const size_t *status, const char *name)
{
    ks_table_note(t, "KL(baseline || ablated) at the last position in nats, mean over the samples of a group");
    ks_note_floor(t, v);
    ks_note_missing(t, status);
    return ks_view_add(v, t, name);
}

static bool single_layers(const ks_study_sweep *s)
{
    for (size_t w = 0; w < s->W; w++)
        if (s->layer_start[w] != s->layer_end[w]) return false;
    return true;
}

int ks_table_scan(const ks_view *v)
{
    int rc = KS_OK;
    ks_table t = {0};
    size_t status[KS_STATUSES] = {0};
    double *means = NULL, *floors = NULL;
    KS_NEW(means, v->g->n);
    KS_NEW(floors, v->g->n);
    const bool layers = single_layers(v->s);
    const char *what = layers                             ? "Layer scan"
                       : !strcmp(v->s->windows, "slide")  ? "Sliding-window scan"
                       : !strcmp(v->s->windows, "around") ? "Window scan"
                                                          : "Windows";
    ks_view_title(&t, v, what, "");
    ks_table_column(&t, false, layers ? "layer" : "layers");
    mean_columns(&t, v);
    /* The published layer scan printed percent; nothing else has such a column. */
    for (int i = 0; layers && i < 2 && v->g->tests[i]; i++)
        ks_table_column(&t, false, "%s, nats x 100", ks_group_label(v->g, v->g->tests[i]).text);
    for (size_t i = 0; i < v->g->n; i++) ks_table_column(&t, false, "floor %s", ks_group_label(v->g, v->g->names[i]).text);

    for (size_t w = 0; w < v->s->W; w++) {
        if (!ks_chosen_window(v->opt, v->s, w)) continue;
        ks_table_cell(&t, "%s", ks_window_label(v->s, w).text);
        KS_TRY(mean_cells(&t, v, 0, w, 0, status, means, floors));
        ratio_cell(&t, v, means);
        for (int i = 0; layers && i < 2 && v->g->tests[i]; i++) ks_table_plain(&t, 100 * mean_of(v, v->g->tests[i], means), 4);
        for (size_t i = 0; i < v->g->n; i++) {
            if (isnan(floors[i])) ks_table_cell(&t, "-");
            else ks_table_cell(&t, "%.1e", floors[i]);
        }
    }
    KS_TRY(add_means(&t, v, status, "scan"));
done:
    free(floors);
    free(means);
    return rc;
}

int ks_table_triangle(const ks_view *v)
{
    int rc = KS_OK;
    ks_table t = {0};
    const int32_t L = v->m->n_layers;
    for (int i = 0; i < 2 && v->g->tests[i]; i++) {
        size_t status[KS_STATUSES] = {0};
        ks_view_title(&t, v, "Triangle of windows", "");
        ks_table_column(&t, false, "first\\last");
        for (int32_t b = 0; b < L; b++) ks_table_column(&t, false, "%d", (int)b);
        for (int32_t a = 0; a < L; a++) {
            ks_table_cell(&t, "%d", (int)a);
            for (int32_t b = 0; b < L; b++) {
                size_t w = 0;
                while (w < v->s->W && (v->s->layer_start[w] != a || v->s->layer_end[w] != b)) w++;
                if (w == v->s->W || !ks_chosen_window(v->opt, v->s, w)) {
                    ks_table_cell(&t, "%s", "");
                    continue;
                }
                ks_group_cell c;
                KS_TRY(ks_group_measure(&c, v->m, v->s, 0, w, 0, v->g->tests[i]));
                add_status(status, c.status);
                if (isnan(c.kl.mean)) ks_table_cell(&t, "-");
                else ks_table_cell(&t, "%.2e%s", c.kl.mean, ks_mean_mark(&c));
            }
        }
        ks_table_note(&t, "%s: mean KL(baseline || ablated) in nats; rows: first layer of the window, columns: last", v->g->tests[i]);
        ks_note_floor(&t, v);
        ks_note_missing(&t, status);
        KS_TRY(ks_view_add(v, &t, "triangle"));
    }
done:
    return rc;
}

int ks_table_dose(const ks_view *v)
{
    int rc = KS_OK;
    ks_table t = {0};
    size_t status[KS_STATUSES] = {0};
    double *means = NULL, *floors = NULL;
    KS_NEW(means, v->g->n);
    KS_NEW(floors, v->g->n);
    ks_view_title(&t, v, "Dose-response", "");
    ks_table_column(&t, false, "layers");
    if (v->s->has_head) ks_table_column(&t, false, "head");
    ks_table_column(&t, false, "%s", v->s->kind);
    mean_columns(&t, v);
    for (size_t w = 0; w < v->s->W; w++)
        for (size_t h = 0; ks_chosen_window(v->opt, v->s, w) && h < v->s->H; h++)
            for (size_t f = 0; f < v->s->F; f++) {
                ks_table_cell(&t, "%s", ks_window_label(v->s, w).text);
                if (v->s->has_head) ks_table_cell(&t, "%zu", h);
                ks_table_cell(&t, "%g", v->s->values[f]);
                KS_TRY(mean_cells(&t, v, f, w, h, status, means, floors));
                ratio_cell(&t, v, means);
            }
    KS_TRY(add_means(&t, v, status, "dose"));
done:
    free(floors);
    free(means);
    return rc;
}

typedef struct ranked {
    double mean;
    size_t w, h;
} ranked;

/* Largest first, unknown last, else in order of place. */
static int by_mean(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (isnan(x->mean) != isnan(y->mean)) return isnan(x->mean) ? 1 : -1;
    if (x->mean > y->mean) return -1;
    if (x->mean < y->mean) return 1;
    if (x->w != y->w) return x->w < y->w ? -1 : 1;
    return (x->h > y->h) - (x->h < y->h);
}

int ks_table_heads(const ks_view *v)
{
    enum { SHOWN = 20 };
    int rc = KS_OK;
    ks_table t = {0};
    const ks_study_sweep *s = v->s;
    double *means = NULL, *floors = NULL;
    ranked *r = NULL;
    if (s->has_factor) return ks_table_dose(v); /* every axis at once: nothing to rank by */
    KS_NEW(means, v->g->n);
    KS_NEW(floors, v->g->n);
    KS_NEW(r, s->W * s->H);
    size_t n = 0, status[KS_STATUSES] = {0};
    for (size_t w = 0; w < s->W; w++)
        for (size_t h = 0; ks_chosen_window(v->opt, s, w) && h < s->H; h++, n++) {
            r[n] = (ranked){.w = w, .h = h};
            KS_TRY(ks_tests_mean(v, 0, w, h, &r[n].mean));
        }
    qsort(r, n, sizeof *r, by_mean);
    ks_view_title(&t, v, "Heads by effect", "");
    ks_table_column(&t, false, "rank");
    ks_table_column(&t, false, "layers");
    ks_table_column(&t, false, "head");
    mean_columns(&t, v);
    for (size_t i = 0; i < n && i < SHOWN; i++) {
        ks_table_cell(&t, "%zu", i + 1);
        ks_table_cell(&t, "%s", ks_window_label(s, r[i].w).text);
        ks_table_cell(&t, "%zu", r[i].h);
        KS_TRY(mean_cells(&t, v, 0, r[i].w, r[i].h, status, means, floors));
        ratio_cell(&t, v, means);
    }
    ks_table_note(&t, "Sorted by the mean over the test groups%s", n > SHOWN ? "" : "; all heads shown");
    if (n > SHOWN) ks_table_note(&t, "%d of %zu heads shown; `kosweep-stats csv` has all", SHOWN, n);
    KS_TRY(add_means(&t, v, status, "heads"));
done:
    free(r);
    free(floors);
    free(means);
    return rc;
}

int ks_table_all_edge(const ks_view *v)
{
    int rc = KS_OK;
    ks_table t = {0};
    ks_view_title(&t, v, "All-edge summary", "");
    ks_table_column(&t, true, "group");
    static const char *const columns[] = {"cells", "mean KL", "max KL", "max at", "top token changed", "row left empty", "not finite"};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) ks_table_column(&t, false, "%s", columns[i]);
    for (size_t i = 0; i < v->g->n; i++) {
        size_t status[KS_STATUSES] = {0}, changed = 0, cells = 0, best = 0;
        double sum = 0, max = NAN;
        for (size_t w = 0; w < v->s->W; w++) {
            if (!ks_chosen_window(v->opt, v->s, w)) continue;
            ks_group_cell c;
            KS_TRY(ks_group_measure(&c, v->m, v->s, 0, w, 0, v->g->names[i]));
            add_status(status, c.status);
            changed += c.top_changed;
            if (!c.kl.n) continue;
            cells += c.kl.n;
            sum += c.kl.mean * (double)c.kl.n;
            if (isnan(max) || c.kl.max > max) max = c.kl.max, best = w;
        }
        ks_table_cell(&t, "%s", v->g->names[i]);
        ks_table_cell(&t, "%zu", cells);
        ks_table_number(&t, cells ? sum / (double)cells : (double)NAN, "");
        ks_table_number(&t, max, "");
        ks_table_cell(&t, "%s", isnan(max) ? "-" : ks_window_label(v->s, best).text);
        ks_table_cell(&t, "%zu", changed);
        ks_table_cell(&t, "%zu", status[KS_STATUS_EMPTY_ROW]);
        ks_table_cell(&t, "%zu", status[KS_STATUS_NOT_FINITE]);
    }
    ks_table_note(&t, "A cell is one sample in one window; KL in nats; \"max at\": the window of the largest value");
    ks_table_note(&t, "row left empty: a marker at position 0 sees only itself, so its row attends to nothing (output 0, not NaN)");
    KS_TRY(ks_view_add(v, &t, "all-edge"));
done:
    return rc;
}

int ks_table_versus(const ks_view *v, const ks_study_sweep *all)
{
    int rc = KS_OK;
    ks_table t = {0};
    size_t status[KS_STATUSES] = {0};
    ks_table_title(&t, "Specific against all edges: %s, sweeps %s and %s (%s)", v->m->name, v->s->name, all->name, v->s->kind);
    ks_table_column(&t, false, "layers");
    for (int i = 0; i < 2 && v->g->tests[i]; i++) {
        const ks_label label = ks_group_label(v->g, v->g->tests[i]);
        ks_table_column(&t, false, "%s specific", label.text);
        ks_table_column(&t, false, "%s all", label.text);
        ks_table_column(&t, false, "%s all/specific", label.text);
    }
    for (size_t w = 0; w < v->s->W; w++) {
        if (!ks_chosen_window(v->opt, v->s, w)) continue;
        ks_table_cell(&t, "%s", ks_window_label(v->s, w).text);
        for (int i = 0; i < 2 && v->g->tests[i]; i++) {
            ks_group_cell a, b;
            KS_TRY(ks_group_measure(&a, v->m, v->s, 0, w, 0, v->g->tests[i]));
            KS_TRY(ks_group_measure(&b, v->m, all, 0, w, 0, v->g->tests[i]));
            add_status(status, a.status);
            add_status(status, b.status);
            ks_table_number(&t, a.kl.mean, ks_mean_mark(&a));
            ks_table_number(&t, b.kl.mean, ks_mean_mark(&b));
            /* Means over different samples have no ratio. */
            const double r = a.kl.missing || b.kl.missing ? (double)NAN : ks_ratio(b.kl.mean, a.kl.mean);
            if (isnan(r)) ks_table_cell(&t, "-");
            else ks_table_cell(&t, "%.4g", r);
        }
    }
    ks_table_note(&t, "specific: marker -> targets removed; all: every edge to the marker removed");
    KS_TRY(add_means(&t, v, status, "versus"));
done:
    return rc;
}
