/* figures_private.h - shared by figures*.c. */
#ifndef KS_ANALYSIS_FIGURES_PRIVATE_H
#define KS_ANALYSIS_FIGURES_PRIVATE_H

#include "analysis/figures.h"
#include "analysis/plot.h"
#include "analysis/tables_private.h"

/* What a figure is made of. */
typedef struct ks_scene {
    ks_study *const *studies; /* [n_studies] figures over several models */
    size_t n_studies;
    const char *sweep_name; /* likewise */
    ks_view v;              /* else; out and first are not used */
    size_t part;            /* which of the figures of this kind that the sweep has */
} ks_scene;

/* The largest value that a figure shows, and where: for its alt text. */
typedef struct ks_peak {
    double value; /* NaN: none yet */
    char where[160];
} ks_peak;
void ks_peak_see(ks_peak *k, double value, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* What is missing in a figure, for its notes. */
enum { KS_MOST_TESTS = 5000, KS_MOST_INTERVALS = 2000 };
typedef struct ks_gaps {
    size_t status[KS_STATUSES]; /* of all cells looked at */
    size_t values;              /* cells that have a value */
    size_t below;               /* values below 0, which no KL is */
    size_t intervals;           /* points without an interval; why: the first reason */
    const char *why;
    bool above_zero; /* a value above 0 is there */
} ks_gaps;

/* A sweep's figure begun: its plot with title and subtitle. */
int ks_figure_begin(ks_figure *f, const ks_scene *c, const char *what, const char *where);
/* Notes about gaps, then caption and alt text: about: what the picture shows; the caption adds unit, groups, floor. */
int ks_figure_end(ks_figure *f, const ks_scene *c, const ks_peak *k, const ks_gaps *gaps, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* Mean KL of a group in a cell as a point at x, with its bootstrap interval where wanted; hollow at or below the mean floor. */
int ks_scene_mean(ks_point *out, const ks_scene *c, const char *group, size_t factor, size_t window, size_t head, double x, bool interval,
                  ks_gaps *gaps);
/* The floor of the groups' samples: a line at each group's mean, a band from the least to the largest. */
void ks_scene_floor(ks_plot *p, ks_panel *q, const ks_scene *c);
/* The groups' series number i: colour and marker of a group are the same in all figures of a model. */
ks_series *ks_scene_series(ks_plot *p, ks_panel *q, const ks_scene *c, size_t group);
/* Westfall & Young's p of the two test groups' difference over all chosen windows and heads, as the table "corrected" has it: adjusted
 * [W, H], NaN where there is no test. Says in a note what was found, and none where there are not two test groups or too many cells. */
int ks_scene_tests(double **adjusted, ks_figure *f, const ks_scene *c);
/* x of one of n groups beside the others. */
double ks_dodge(double x, size_t group, size_t n);
size_t ks_scene_windows(const ks_scene *c);
bool ks_single_layers(const ks_study_sweep *s);

/* How many figures of a kind a sweep has, and one of them; f->plot stays NULL where there is nothing to show after all. */
size_t ks_fits_layer_scan(const ks_scene *c);
size_t ks_fits_expanding(const ks_scene *c);
size_t ks_fits_sliding(const ks_scene *c);
size_t ks_fits_windows(const ks_scene *c);
int ks_figure_scan(ks_figure *f, const ks_scene *c);
size_t ks_fits_triangle(const ks_scene *c);
int ks_figure_triangle(ks_figure *f, const ks_scene *c);
size_t ks_fits_heads(const ks_scene *c);
int ks_figure_heads(ks_figure *f, const ks_scene *c);
size_t ks_fits_dose(const ks_scene *c);
int ks_figure_dose(ks_figure *f, const ks_scene *c);
size_t ks_fits_samples(const ks_scene *c);
int ks_figure_samples(ks_figure *f, const ks_scene *c);
size_t ks_fits_attention(const ks_scene *c);
int ks_figure_attention(ks_figure *f, const ks_scene *c);
size_t ks_fits_positions(const ks_scene *c);
int ks_figure_positions(ks_figure *f, const ks_scene *c);
/* 1 where at least two chosen models have a plain sweep of c->sweep_name. */
size_t ks_fits_models(const ks_scene *c);
int ks_figure_models(ks_figure *f, const ks_scene *c);

#endif
