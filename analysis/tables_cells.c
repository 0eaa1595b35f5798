/* Tables over all windows (values, heads) of a sweep at once: summaries, tests corrected for their number, the choice of a window. */
#include "analysis/choice.h"
#include "analysis/many_cells.h"
#include "analysis/power.h"
#include "analysis/resample.h"
#include "analysis/tables_private.h"
#include "analysis/two_groups.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = 64, SHOWN = 20 }; /* a longer table shows only its first rows; CSV and JSON have all */

typedef struct place {
    size_t f, w, h;
    double key;
} place;

/* The chosen cells in the file's order. */
static int list_places(place **out, size_t *n, const ks_view *v)
{
    int rc = KS_OK;
    const ks_study_sweep *s = v->s;
    *n = 0;
    KS_NEW(*out, s->F * s->W * s->H);
    for (size_t f = 0; f < s->F; f++)
        for (size_t w = 0; w < s->W; w++)
            for (size_t h = 0; ks_chosen_window(v->opt, s, w) && h < s->H; h++) (*out)[(*n)++] = (place){f, w, h, 0};
done:
    return rc;
}

static void place_columns(ks_table *t, const ks_view *v)
{
    ks_table_column(t, false, "layers");
    if (v->s->has_head) ks_table_column(t, false, "head");
    if (v->s->has_factor) ks_table_column(t, false, "%s", v->s->kind);
}

static void place_cells(ks_table *t, const ks_view *v, const place *p)
{
    ks_table_cell(t, "%s", ks_window_label(v->s, p->w).text);
    if (v->s->has_head) ks_table_cell(t, "%zu", p->h);
    if (v->s->has_factor) ks_table_cell(t, "%g", v->s->values[p->f]);
}

static ks_label place_label(const ks_view *v, const place *p)
{
    ks_label l = ks_window_label(v->s, p->w);
    size_t n = strlen(l.text);
    if (v->s->has_head) n += (size_t)snprintf(l.text + n, sizeof l.text - n, " head %zu", p->h);
    if (v->s->has_factor && n < sizeof l.text) snprintf(l.text + n, sizeof l.text - n, " %s %g", v->s->kind, v->s->values[p->f]);
    return l;
}

size_t ks_rows_shown(const ks_view *v, size_t rows)
{
    const bool data = v->opt->format == KS_FORMAT_CSV || v->opt->format == KS_FORMAT_JSON;
    return data || rows <= ROOM ? rows : SHOWN;
}

int ks_table_cells(const ks_view *v)
{
    enum { MOST_INTERVALS = 10000 };
    int rc = KS_OK;
    ks_table t = {0};
    place *places = NULL;
    double *kl = NULL, *floor = NULL;
    size_t n, status[KS_STATUSES] = {0};
    KS_TRY(list_places(&places, &n, v));
    KS_NEW(kl, v->m->S);
    KS_NEW(floor, v->m->S);
    const size_t rows = n * v->g->n;
    const ks_resample how = ks_view_resample(v, rows > 100 ? 1000 : 10000);
    const bool intervals = rows <= MOST_INTERVALS || v->opt->draws;
    ks_view_title(&t, v, "Every cell", "");
    place_columns(&t, v);
    ks_table_column(&t, true, "group");
    ks_summary_columns(&t);
    ks_table_column(&t, false, "floor");
    for (size_t i = 0; i < n; i++)
        for (size_t g = 0; g < v->g->n; g++) {
            const place *p = &places[i];
            ks_group_cell c;
            ks_interval interval = {NAN, NAN, NULL};
            KS_TRY(ks_group_measure(&c, v->m, v->s, p->f, p->w, p->h, v->g->names[g]));
            const size_t values = ks_group_values(kl, floor, v->m, v->s, p->f, p->w, p->h, v->g->names[g]);
            if (intervals) KS_TRY(ks_centre_interval(&interval, kl, values, KS_CENTRE_MEAN, &how));
            for (int k = 0; k < KS_STATUSES; k++) status[k] += c.status[k];
            place_cells(&t, v, p);
            ks_table_cell(&t, "%s", v->g->names[g]);
            ks_summary_cells(&t, &c, &interval);
            ks_table_number(&t, c.floor, "");
        }
    if (intervals) ks_note_bootstrap(&t, &how);
    else ks_table_note(&t, "no intervals for more than %d rows unless --draws asks for them", MOST_INTERVALS);
    ks_note_floor(&t, v);
    ks_note_missing(&t, status);
    KS_TRY(ks_view_add(v, &t, "cells"));
done:
    ks_table_free(&t);
    free(floor);
    free(kl);
    free(places);
    return rc;
}

/* ---- two groups in every cell ---- */

typedef struct matrix {
    place *places; /* [n] */
    size_t n;
    double *kl;     /* [n, S] */
    uint8_t *group; /* [S] 0, 1: the test groups; 2: neither */
    double *a, *b;  /* [S] room for one cell's groups */
} matrix;

static void matrix_free(matrix *x)
{
    free(x->places);
    free(x->kl);
    free(x->group);
    free(x->a);
    free(x->b);
}

static int matrix_fill(matrix *x, const ks_view *v)
{
    int rc = KS_OK;
    const size_t S = v->m->S;
    KS_TRY(list_places(&x->places, &x->n, v));
    KS_NEW(x->kl, x->n * S);
    KS_NEW(x->group, S);
    KS_NEW(x->a, S);
    KS_NEW(x->b, S);
    for (size_t i = 0; i < x->n; i++) {
        const place *p = &x->places[i];
        memcpy(x->kl + i * S, v->s->kl + ks_study_at(v->m, v->s, p->f, p->w, p->h, 0), S * sizeof *x->kl);
    }
    for (size_t s = 0; s < S; s++) {
        x->group[s] = 2;
        for (uint8_t k = 0; k < 2; k++)
            if (v->g->tests[k] && !strcmp(v->m->groups[s], v->g->tests[k])) x->group[s] = k;
    }
done:
    return rc;
}

/* Values [S] by group. */
static void split(matrix *x, const double *values, size_t S, size_t *na, size_t *nb)
{
    *na = *nb = 0;
    for (size_t s = 0; s < S; s++) {
        if (x->group[s] == 0) x->a[(*na)++] = values[s];
        else if (x->group[s] == 1) x->b[(*nb)++] = values[s];
    }
}

static int welch_of(ks_welch *out, double *mean_a, double *mean_b, matrix *x, const double *values, size_t S)
{
    int rc = KS_OK;
    size_t na, nb;
    ks_summary a, b;
    split(x, values, S, &na, &nb);
    KS_TRY(ks_summarize(&a, x->a, na));
    KS_TRY(ks_summarize(&b, x->b, nb));
    *out = ks_welch_test(&a, &b);
    *mean_a = a.mean;
    *mean_b = b.mean;
done:
    return rc;
}

static int by_key(const void *a, const void *b)
{
    const place *x = *(const place *const *)a, *y = *(const place *const *)b;
    if (isnan(x->key) != isnan(y->key)) return isnan(x->key) ? 1 : -1;
    if (x->key < y->key) return -1;
    if (x->key > y->key) return 1;
    return (x > y) - (x < y);
}

static size_t below(const double *p, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) k += p[i] <= 0.05;
    return k;
}

int ks_table_corrected(const ks_view *v)
{
    enum { MOST = 100000 }; /* cells times samples */
    int rc = KS_OK;
    ks_table t = {0};
    matrix x = {0};
    enum { WELCH, HOLM, BH, MAX_T, TIMES, MEAN_A, MEAN_B, COLUMNS };
    double *c[COLUMNS] = {0}; /* [n] each */
    const place **order = NULL;
    size_t tested = 0, S = v->m->S;
    ks_max_t max = {0};
    const char *none = NULL;
    if (!v->g->tests[1]) goto done;
    KS_TRY(matrix_fill(&x, v));
    for (int k = 0; k < COLUMNS; k++) KS_NEW(c[k], x.n);
    KS_NEW(order, x.n);
    for (size_t i = 0; i < x.n; i++) {
        ks_welch w;
        KS_TRY(welch_of(&w, &c[MEAN_A][i], &c[MEAN_B][i], &x, x.kl + i * S, S));
        if (w.why) none = w.why;
        c[WELCH][i] = w.p;
        c[TIMES][i] = w.t;
        c[MAX_T][i] = NAN;
        x.places[i].key = -fabs(w.t);
        order[i] = &x.places[i];
        tested += !isnan(w.p);
    }
    KS_TRY(ks_holm(c[HOLM], c[WELCH], x.n));
    KS_TRY(ks_benjamini_hochberg(c[BH], c[WELCH], x.n));
    /* Every split of 10 against 10 in a triangle of 30 layers is half a second; beyond that drawn splits do. */
    ks_resample how = ks_view_resample(v, 10000);
    if (x.n && how.exact > 100000000 / x.n) how.exact = 100000000 / x.n;
    const bool resample = x.n * S <= MOST || v->opt->only;
    if (resample) KS_TRY(ks_max_t_groups(&max, c[TIMES], c[MAX_T], x.kl, x.n, x.group, S, &how));
    const size_t shown = ks_rows_shown(v, x.n);
    if (shown < x.n) qsort(order, x.n, sizeof(place *), by_key);
    ks_view_title(&t, v, "Two groups in every window", "");
    place_columns(&t, v);
    ks_table_column(&t, false, "A = %s", v->g->tests[0]);
    ks_table_column(&t, false, "B = %s", v->g->tests[1]);
    static const char *const columns[] = {"A - B", "Welch t", "p", "p, Holm", "p, BH", "p, maxT"};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) ks_table_column(&t, false, "%s", columns[i]);
    for (size_t r = 0; r < shown; r++) {
        const size_t i = (size_t)(order[r] - x.places);
        place_cells(&t, v, order[r]);
        ks_table_number(&t, c[MEAN_A][i], "");
        ks_table_number(&t, c[MEAN_B][i], "");
        ks_table_number(&t, c[MEAN_A][i] - c[MEAN_B][i], "");
        ks_table_plain(&t, c[TIMES][i], 4);
        for (int k = WELCH; k <= MAX_T; k++) ks_p_cell(&t, c[k][i], 0);
    }
    if (shown < x.n) ks_table_note(&t, "the %zu largest |t| of %zu; --format csv and json have all", shown, x.n);
    ks_table_note(&t, "%zu of %zu tests; at 0.05: %zu by p alone, %zu by Holm (family-wise), %zu by Benjamini-Hochberg (false discoveries)",
                  tested, x.n, below(c[WELCH], x.n), below(c[HOLM], x.n), below(c[BH], x.n));
    if (none) ks_table_note(&t, "-: no test: %s", none);
    if (!resample) ks_table_note(&t, "no maxT for more than %d values unless --only corrected asks for it", MOST);
    else if (max.why) ks_table_note(&t, "no maxT: %s", max.why);
    else if (max.exact)
        ks_table_note(&t, "maxT (Westfall-Young): %zu at 0.05, |t| from %.3f on; all %llu splits", below(c[MAX_T], x.n), max.limit,
                      (unsigned long long)max.total);
    else
        ks_table_note(&t, "maxT (Westfall-Young): %zu at 0.05, |t| from %.3f on; %llu splits drawn, seed %llu, error of p up to %.4f",
                      below(c[MAX_T], x.n), max.limit, (unsigned long long)max.total, (unsigned long long)how.seed, max.error);
    KS_TRY(ks_view_add(v, &t, "corrected"));
done:
    ks_table_free(&t);
    free(order);
    for (int k = 0; k < COLUMNS; k++) free(c[k]);
    matrix_free(&x);
    return rc;
}

/* ---- the window that was chosen ---- */

static void interval_cells(ks_table *t, double x, const ks_interval *i)
{
    ks_table_number(t, x, "");
    ks_table_number(t, i->low, "");
    ks_table_number(t, i->high, "");
}

int ks_table_choice(const ks_view *v)
{
    int rc = KS_OK;
    ks_table t = {0};
    matrix x = {0};
    double *held_out = NULL;
    const size_t S = v->m->S;
    const ks_resample how = ks_view_resample(v, 2000);
    KS_TRY(matrix_fill(&x, v));
    if (x.n < 2) goto done;
    KS_NEW(held_out, S);
    const bool two = v->g->tests[1] != NULL;
    ks_view_title(&t, v, "The window chosen by its effect, and without that advantage", "");
    ks_table_column(&t, true, "chosen for the largest");
    static const char *const columns[] = {"window",        "same samples", "same from",       "same to",   "left out",
                                          "left out from", "left out to",  "again, left out", "by a half", "other half",
                                          "other from",    "other to",     "again, halves"};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) ks_table_column(&t, false, "%s", columns[i]);
    if (two) ks_table_column(&t, false, "Welch p, same samples");
    if (two) ks_table_column(&t, false, "Welch p, left out");
    for (int k = 0; k < (two ? 2 : 1); k++) {
        ks_choice c;
        KS_TRY(ks_choose_layer(&c, held_out, x.kl, x.n, two ? x.group : NULL, S, k ? KS_CHOOSE_DIFFERENCE : KS_CHOOSE_MEAN, &how));
        ks_table_cell(&t, "%s", k ? "difference of the groups" : "mean effect");
        if (c.why) {
            ks_table_note(&t, "%s: no choice: %s", k ? "difference" : "mean effect", c.why);
            for (int i = 0; i < (two ? 15 : 13); i++) ks_table_cell(&t, "-");
            continue;
        }
        size_t used = 0;
        for (size_t s = 0; s < S; s++) used += !isnan(held_out[s]);
        ks_table_cell(&t, "%s", place_label(v, &x.places[c.layer]).text);
        interval_cells(&t, c.same, &c.same_interval);
        interval_cells(&t, c.left_out, &c.left_out_interval);
        ks_table_cell(&t, "%zu of %zu", c.left_out_same, used);
        ks_table_cell(&t, "%s", isnan(c.split) ? "-" : place_label(v, &x.places[c.split_layer]).text);
        interval_cells(&t, c.split, &c.split_interval);
        if (isnan(c.split_same)) ks_table_cell(&t, "-");
        else ks_table_cell(&t, "%.0f %%", 100 * c.split_same);
        double a, b;
        ks_welch same, out;
        if (two) KS_TRY(welch_of(&same, &a, &b, &x, x.kl + c.layer * S, S));
        if (two) KS_TRY(welch_of(&out, &a, &b, &x, held_out, S));
        if (two) ks_p_cell(&t, same.p, 0);
        /* In the layer of the largest difference that test is too liberal: tests/unit/test_null_sweeps.c. */
        if (two && k) ks_table_cell(&t, "see maxT");
        else if (two) ks_p_cell(&t, out.p, 0);
    }
    ks_table_note(
        &t, "same samples: the window is selected on the same samples that measure it, so its effect is too large and its p too small");
    ks_table_note(&t, "left out: each sample in the window that the others choose; other half: chosen by a random half of each group");
    ks_note_bootstrap(&t, &how);
    KS_TRY(ks_view_add(v, &t, "choice"));
done:
    ks_table_free(&t);
    free(held_out);
    matrix_free(&x);
    return rc;
}

int ks_table_power(const ks_view *v, size_t window, bool selected)
{
    int rc = KS_OK;
    ks_table t = {0};
    double *kl[2] = {0}, *floor = NULL;
    size_t n[2];
    ks_power p;
    const ks_resample how = ks_view_resample(v, 1000);
    if (!v->g->tests[1]) goto done;
    KS_NEW(floor, v->m->S);
    for (int i = 0; i < 2; i++) {
        KS_NEW(kl[i], v->m->S);
        n[i] = ks_group_values(kl[i], floor, v->m, v->s, 0, window, 0, v->g->tests[i]);
    }
    KS_TRY(ks_power_needed(&p, kl[0], n[0], kl[1], n[1], 0.05, 0.8, &how));
    ks_view_title(&t, v, "Samples that a new study would need", ks_where(v, window).text);
    ks_table_column(&t, true, "groups");
    static const char *const columns[] = {"observed d", "n per group, normal values", "n per group, such values", "power there"};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) ks_table_column(&t, false, "%s", columns[i]);
    ks_table_cell(&t, "%s, %s", v->g->tests[0], v->g->tests[1]);
    ks_table_plain(&t, p.d, 4);
    if (p.closed) ks_table_cell(&t, "%zu", p.closed);
    else ks_table_cell(&t, "-");
    if (p.needed) ks_table_cell(&t, "%zu", p.needed);
    else ks_table_cell(&t, p.why ? "-" : "more than %zu", p.most);
    ks_p_cell(&t, p.reached, p.error);
    if (p.why) ks_table_note(&t, "no answer: %s", p.why);
    ks_table_note(&t,
                  "for 80 %% power at 0.05, two-sided Welch test; such values: groups drawn from these, %zu times for each n, seed %llu",
                  how.draws, (unsigned long long)how.seed);
    ks_table_note(&t, "As if the observed difference were the true one; it says nothing about this study's result.");
    ks_note_selected(&t, selected);
    KS_TRY(ks_view_add(v, &t, "power"));
done:
    ks_table_free(&t);
    free(floor);
    for (int i = 0; i < 2; i++) free(kl[i]);
    return rc;
}
