/* walk.h - the way of a branch through the layers of one sample: which rows it computes in each, and what that costs.
 *
 * Thousands of variants of a sample go through the same few row sets, and most layers of a model are alike. A walk numbers the sets that it
 * meets and remembers each step between two of them, so that each different step is derived once (ks_rows_step, ks_layer_flops) and a
 * branch costs a table look-up a layer. */
#ifndef KS_PLAN_WALK_H
#define KS_PLAN_WALK_H

#include "plan/rows.h"

typedef struct ks_walk ks_walk;

/* For one sample; the geometry is not owned. Free with ks_walk_free. */
int ks_walk_new(ks_walk **out, const ks_geometry *g);
void ks_walk_free(ks_walk *w);

/* What a branch costs from some layer on. */
typedef struct ks_walk_cost {
    double flops;     /* of the layers that it computes itself and of its measured rows in the head */
    int32_t n_pos;    /* positions that it ever holds */
    int32_t measured; /* rows that are measured */
} ks_walk_cost;

/* A branch with the mask `edges` on in layers a .. b: cost[0] of one that computes every layer from a on (a leader), cost[1] of one that
 * takes over the leader's rows behind layer b (a fork; none where b is the last layer). held: NULL, or [2, words], the positions that each
 * ever holds. */
int ks_walk_branch(ks_walk *w, int edges, int positions, int32_t a, int32_t b, ks_walk_cost cost[2], uint64_t *held);
/* The floor's branch: all rows from the first layer on. held: NULL or [words]. */
int ks_walk_floor(ks_walk *w, ks_walk_cost *cost, uint64_t *held);

/* What one layer computes, summed over branches, or over samples of the trunk. */
typedef struct ks_layer_rows {
    double branches;      /* that compute anything */
    double in, q, out;    /* rows: changed at entry (k, v), of those wanted at exit too (q), wanted at exit (projection, MLP) */
    double pairs;         /* the FLOPs of attention are 2 H E pairs */
    double visible;       /* keys that the rows `out` see */
    double keys;          /* positions of the trunk beside which branches lie */
    double forks, copied; /* branches that fork behind this layer, and the rows that they copy */
} ks_layer_rows;

/* Adds what a branch with the mask `edges` on in layers a .. b computes from layer `from` on (a: a leader; b + 1: a fork) to rows [L].
 * edges -1: the floor's branch, whatever a and b. */
int ks_walk_rows(ks_walk *w, int edges, int positions, int32_t a, int32_t b, int32_t from, ks_layer_rows *rows);
/* Adds the trunk's to rows [L]. */
void ks_trunk_rows(const ks_geometry *g, int32_t measured, ks_layer_rows *rows);

/* FLOPs (a multiplication and an addition count 2) of one layer whose changed rows are `in` at entry and `out` at exit. */
double ks_layer_flops(const ks_geometry *g, int32_t l, const uint64_t *in, const uint64_t *out);
/* The trunk: every row in every layer; in the last one only measured rows go through projection and MLP. measured: rows in the head. */
double ks_trunk_flops(const ks_geometry *g, int32_t measured);
/* One forward of the plain way: every row of every layer, logits at the last position. */
double ks_forward_flops(const ks_geometry *g);

#endif
