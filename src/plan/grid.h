/* grid.h - the sweeps of one model as a list of different variants.
 *
 * A variant is a mask (kind, value, edge set, heads) and a window of layers. Sweeps of one file often ask for the same variant
 * ([2, 2] of `layers` and of `triangle`); it is computed once and stored in every place that asks for it. */
#ifndef KS_PLAN_GRID_H
#define KS_PLAN_GRID_H

#include "input/config.h"

typedef struct ks_mask {
    int32_t kind, edges; /* KS_KNOCKOUT ..., KS_EDGES_... */
    double value;        /* f or v; 0 with KS_KNOCKOUT */
    uint8_t *heads;      /* [H] 1 = acts in this head; NULL: all */
} ks_mask;

typedef struct ks_variant {
    int32_t mask;      /* index */
    int32_t a, b;      /* layers, inclusive */
    int32_t positions; /* KS_POSITIONS_ALL if any sweep wants them all */
} ks_variant;

/* One sweep: which variant stands at which place of its axes. */
typedef struct ks_grid_sweep {
    ks_window *windows;           /* [W] */
    size_t W, n_factors, n_heads; /* n_heads is H with heads: each, else 1; n_factors is 1 without values */
    int32_t *variant;             /* [n_factors, W, n_heads] */
} ks_grid_sweep;

typedef struct ks_grid {
    int32_t L, H;
    ks_mask *masks;
    size_t n_masks;
    ks_variant *variants; /* by mask, a, then b descending: variants that share rows stand side by side */
    size_t n_variants;
    ks_grid_sweep *sweeps; /* in the order of the configuration */
    size_t n_sweeps;
} ks_grid;

/* The grid of `sweeps` for a model of L layers and H heads. A window or head beyond the model is KS_EUSAGE. Free with ks_grid_free. */
int ks_grid_new(ks_grid **out, const ks_sweep *sweeps, size_t n, int32_t L, int32_t H);
void ks_grid_free(ks_grid *g);

#endif
