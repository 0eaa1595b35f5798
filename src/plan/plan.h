/* plan.h - one model's grid cut into units, units given to ranks, each rank's units grouped into passes.
 *
 * A unit is one sample and a range of variants: the smallest thing that is scheduled. Its trunk is computed with it, so splitting a
 * sample costs a second trunk; samples are split only where that shortens the sweep. A pass is a set of units that goes through the
 * layers together. Nothing of this changes a bit of the results. */
#ifndef KS_PLAN_PLAN_H
#define KS_PLAN_PLAN_H

#include "plan/branches.h"

typedef struct ks_unit {
    int32_t sample;
    int32_t v0, v1; /* variants v0 .. v1 - 1 */
    bool first;     /* this unit also reports the sample's baseline, attention strength and floor */
    double flops;
    int32_t rank, pass; /* pass: within the rank */
} ks_unit;

/* Sizes that a pass needs memory for. */
typedef struct ks_pass_size {
    int64_t trunk_rows;    /* sum of T */
    int64_t logp;          /* floats of log attention weights */
    int64_t branch_rows;   /* stored rows of all branches */
    int64_t chunk_rows;    /* rows of branches in work at a time */
    int64_t base_rows;     /* measured rows of the trunk */
    int64_t measured_rows; /* measured rows of branches */
    int64_t measure_chunk; /* rows of logit changes at a time */
} ks_pass_size;

typedef struct ks_problem {
    const ks_arch *arch;
    const ks_grid *grid;
    ks_geometry **geometry; /* [n_samples] */
    size_t n_samples;
    bool floor;
    char **names; /* [n_samples] the samples' ids, for messages */
} ks_problem;

typedef struct ks_plan {
    ks_unit *units; /* by rank, then pass */
    size_t n_units;
    int ranks;
    double *rank_flops;   /* [ranks] */
    int32_t *rank_passes; /* [ranks] */
    double flops;         /* sum over ranks */
    double plain_flops;   /* the plain way: two forwards a cell, logits at the last position */
    int64_t cells, branches, rows;
    int64_t peak_bytes; /* activations of the largest pass */
} ks_plan;

/* ranks >= 1; budget: bytes of activations a rank may use. KS_EMACHINE when a single variant does not fit, naming what it needs. */
int ks_plan_new(ks_plan **out, const ks_problem *problem, int ranks, int64_t budget);
void ks_plan_free(ks_plan *p);

/* Adds a unit with its branches to a pass's sizes. */
void ks_pass_size_add(ks_pass_size *s, const ks_problem *problem, const ks_unit *u, const ks_branches *b);
/* The unit's branches; free with ks_branches_free. */
int ks_unit_branches(ks_branches **out, const ks_problem *problem, const ks_unit *u);
int64_t ks_pass_bytes(const ks_pass_size *s, const ks_arch *a);

/* Whether the sample's trunk is measured at every position (a variant of the unit asks for it) or at the last. */
bool ks_unit_all_positions(const ks_grid *grid, const ks_unit *u);

#endif
