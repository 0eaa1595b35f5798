/* many_cells.h - tests of many cells (layers, windows) at once. */
#ifndef KS_ANALYSIS_MANY_CELLS_H
#define KS_ANALYSIS_MANY_CELLS_H

#include "analysis/stats.h"

#include <stdbool.h>

/* Holm's step-down p values (1979; family-wise error) and Benjamini & Hochberg's (1995; false discovery rate). NaN is no test: it stays NaN
 * and does not count. adjusted [n] may be p [n]. */
int ks_holm(double *adjusted, const double *p, size_t n);
int ks_benjamini_hochberg(double *adjusted, const double *p, size_t n);

typedef struct ks_max_t {
    size_t cells;   /* with a test: the family */
    bool exact;     /* every split was looked at */
    uint64_t total; /* splits looked at */
    double error;   /* largest Monte Carlo standard error of an adjusted p, 1 / (2 sqrt(total)); 0 where exact */
    double limit;   /* |t| above which a cell has adjusted p <= 1 - level */
    const char *why;
} ks_max_t;

/* Westfall & Young's single-step maxT (1993): the share of the splits of the samples into groups whose largest |t| over all cells is at
 * least the cell's own, which controls the family-wise error whatever the correlation of the cells. t: Welch's. v [cells, samples]; group
 * [samples]: 0 and 1 are the two groups, any other value leaves the sample out. t, adjusted [cells]: out; NaN where a cell has no test
 * (fewer than two values in a group, no variance, a value not finite). NaN in v is a missing value; the sample moves between the groups all
 * the same, and a split that leaves a cell with fewer than two values in a group counts nothing for that cell. |t| within 1e-9 of the
 * cell's own counts as equal. Memory: 8 bytes a split, and 40 bytes a cell for each member of the smaller group. */
int ks_max_t_groups(ks_max_t *out, double *t, double *adjusted, const double *v, size_t cells, const uint8_t *group, size_t samples,
                    const ks_resample *how);

/* The same for paired differences d [cells, samples]: a split turns all differences of a sample. t: paired. */
int ks_max_t_pairs(ks_max_t *out, double *t, double *adjusted, const double *d, size_t cells, size_t samples, const ks_resample *how);

#endif
