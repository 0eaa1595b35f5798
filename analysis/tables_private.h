/* tables_private.h - shared by tables*.c. Every function appends or prints; errors as in tables.h. */
#ifndef KS_ANALYSIS_TABLES_PRIVATE_H
#define KS_ANALYSIS_TABLES_PRIVATE_H

#include "analysis/select.h"
#include "analysis/tables.h"

/* What a table is made of. */
typedef struct ks_view {
    const ks_study_model *m;
    const ks_study_sweep *s;
    const ks_groups *g;
    const ks_table_options *opt;
    const ks_study *study;
    ks_table_list *list; /* where tables go */
} ks_view;

/* A group's short name: what stands before its first "_" where that says enough, else the whole name. */
typedef struct ks_label {
    char text[64];
} ks_label;
ks_label ks_group_label(const ks_groups *g, const char *group);
/* "2" or "0-4" */
ks_label ks_window_label(const ks_study_sweep *s, size_t window);
/* "*" for a value at or below its floor. */
const char *ks_floor_mark(double value, double floor);
/* The same for a group's mean, and "!" where values are missing from it. */
const char *ks_mean_mark(const ks_group_cell *c);
/* a / b, NaN where that says nothing. */
double ks_ratio(double a, double b);
/* Mean KL over the test groups, each group counting once; NaN where there is none. */
int ks_tests_mean(const ks_view *v, size_t factor, size_t window, size_t head, double *out);
/* The chosen window with the largest such mean (the first of equals); found = false where all are NaN. */
int ks_peak_window(const ks_view *v, size_t *window, bool *found);

/* The sweep's heading: "Layer scan: model, sweep x (knockout, marker-targets, all heads)". */
void ks_view_title(ks_table *t, const ks_view *v, const char *what, const char *where);
/* Notes: the mark; what is missing. */
void ks_note_floor(ks_table *t, const ks_view *v);
void ks_note_missing(ks_table *t, const size_t *status /* [KS_STATUSES] */);
/* ", layer 3", ", layers 3-5": for titles. */
ks_label ks_where(const ks_view *v, size_t window);
/* A note where the window was chosen by looking at the same samples. */
void ks_note_selected(ks_table *t, bool selected);
/* --seed and --draws, or these draws. */
ks_resample ks_view_resample(const ks_view *v, size_t draws);
void ks_note_bootstrap(ks_table *t, const ks_resample *how);
/* How many of so many rows a table shows: all, or only the first in texts. */
size_t ks_rows_shown(const ks_view *v, size_t rows);
void ks_summary_columns(ks_table *t);
/* 13 cells: n, mean, its interval from, to, both deviations, min, quartiles with the median, max, geometric mean, share above the floor. */
void ks_summary_cells(ks_table *t, const ks_group_cell *c, const ks_interval *interval);
/* A p value, with its Monte Carlo error where that is not 0. */
void ks_p_cell(ks_table *t, double p, double error);
/* Closes a table: names it (a literal), says n, unit, protocol and floor of v's sweep (where v->s) and moves it to v->list. */
int ks_view_add(const ks_view *v, ks_table *t, const char *name);
/* What every table says of its sweep: n, unit, protocol, floor. whose: "model: ", or "". */
void ks_note_basis(ks_table *t, const ks_view *v, const char *whose);
/* Whether --only, or the lack of it, asks for the tables of this name. */
bool ks_wanted(const ks_table_options *o, const char *name);

/* tables_sweep.c: tables over windows, factors, heads. */
int ks_table_scan(const ks_view *v);
int ks_table_triangle(const ks_view *v);
int ks_table_dose(const ks_view *v);
int ks_table_heads(const ks_view *v);
int ks_table_all_edge(const ks_view *v);
/* v->s: marker-targets; all: the same windows with all-marker. */
int ks_table_versus(const ks_view *v, const ks_study_sweep *all);

/* tables_window.c: tables of one window. selected: it was chosen by looking at the same samples. */
int ks_table_groups(const ks_view *v, size_t window, bool selected);
int ks_table_samples(const ks_view *v, size_t window, bool selected);
/* Where in the text the effect is: the sample with the largest KL at any position. Nothing without positions: all. */
int ks_table_positions(const ks_view *v, size_t window);

/* tables_tests.c: between the test groups in one window. */
int ks_table_tests(const ks_view *v, size_t window, bool selected);

/* tables_cells.c: all windows (values, heads) of a sweep at once. */
int ks_table_cells(const ks_view *v);
int ks_table_corrected(const ks_view *v);
int ks_table_choice(const ks_view *v);
int ks_table_power(const ks_view *v, size_t window, bool selected);

/* tables_layers.c: a window against its layers; attention strength. Nothing where the file lacks the single layers. */
int ks_table_synergy(const ks_view *v);
int ks_table_attention(const ks_view *v);

/* tables_pairs.c: the same samples twice. Nothing where there are no pairs. */
int ks_table_pairs(const ks_view *v);
int ks_table_model_pairs(ks_table_list *list, ks_study *const *studies, size_t n, const ks_table_options *opt);

/* tables_models.c: one line per model and sweep. */
int ks_table_models(ks_table_list *list, ks_study *const *studies, size_t n, const ks_table_options *opt);

#endif
