/* plan.h - one model's grid cut into units.
 *
 * A unit is one sample and a range of variants: the smallest thing that is scheduled. Its trunk is computed with it, so cutting a sample
 * costs another trunk; samples are cut only where that shortens the sweep. Units are handed out while the sweep runs, several at a time
 * (queue.h); those that go through the layers together are a pass. Nothing of this changes a bit of the results. */
#ifndef KS_PLAN_PLAN_H
#define KS_PLAN_PLAN_H

#include "plan/branches.h"

struct ks_forecast;

typedef struct ks_unit {
    int32_t sample;
    int32_t v0, v1;     /* variants v0 .. v1 - 1, as far as they are not done; none where only the baseline is missing */
    bool first;         /* this unit also reports the sample's baseline, attention strength and floor */
    bool all_positions; /* the trunk is measured at every position, because a variant asks for it; else at the last */
    int32_t cells;      /* variants that it reports */
    int32_t branches;
    int32_t widest;   /* stored rows of its largest branch */
    int64_t rows;     /* stored rows of all its branches */
    int64_t measured; /* measured rows of its branches */
    double flops;
} ks_unit;

/* Sizes that a pass needs memory for. */
typedef struct ks_pass_size {
    int64_t strengths;     /* samples whose attention strength is wanted */
    int64_t trunk_rows;    /* sum of T */
    int64_t logp;          /* floats of log attention weights */
    int64_t branch_rows;   /* stored rows of all branches */
    int64_t chunk_rows;    /* rows of branches in work at a time */
    int64_t base_rows;     /* measured rows of the trunk */
    int64_t measured_rows; /* measured rows of branches */
    int64_t measure_chunk; /* rows of logit changes at a time */
} ks_pass_size;

/* Forms of operands (base/dtype.h): of the products of states, of effects, of the head. They follow from backend, weights and precision;
 * here they only say how much memory a pass needs. */
typedef struct ks_forms {
    int state, effect, head;
} ks_forms;

typedef struct ks_problem {
    const ks_arch *arch;
    const ks_grid *grid;
    ks_geometry **geometry; /* [n_samples] */
    size_t n_samples;
    bool floor;
    ks_forms forms;
    char **names;                 /* [n_samples] the samples' ids, for messages */
    const uint64_t *done;         /* [n_samples, ks_done_words] bit v of row s: this cell is known already; NULL: none is. Not owned */
    const uint8_t *baseline_done; /* [n_samples]; NULL: none is. Not owned */
} ks_problem;

typedef struct ks_plan {
    ks_unit *units; /* most FLOPs first */
    size_t n_units;
    int ranks;
    struct ks_forecast *forecast; /* what each of equally fast ranks gets (forecast.h); NULL where the plan came by broadcast */
    double flops;                 /* of all units */
    double plain_flops;           /* the plain way: two forwards a cell, logits at the last position */
    double whole_flops;           /* if no sample were cut */
    int64_t cells, branches, rows;
} ks_plan;

/* The units of everything that is not done, for `ranks` ranks (>= 1) with `budget` bytes of activations each. KS_EMACHINE when a single
 * variant does not fit, naming what it needs. */
int ks_plan_new(ks_plan **out, const ks_problem *problem, int ranks, int64_t budget);
void ks_plan_free(ks_plan *p);

/* Words of a row of ks_problem.done. */
static inline size_t ks_done_words(const ks_grid *grid)
{
    return (grid->n_variants + 63) / 64;
}
/* The row of ks_problem.done, or NULL. */
const uint64_t *ks_problem_done(const ks_problem *problem, int32_t sample);

/* Fills the fields behind `first` of a unit whose sample, variants and `first` are given. */
int ks_unit_measure(const ks_problem *problem, ks_unit *u);
/* The unit's branches; free with ks_branches_free. */
int ks_unit_branches(ks_branches **out, const ks_problem *problem, const ks_unit *u);

/* Adds a unit to a pass's sizes. */
void ks_pass_size_add(ks_pass_size *s, const ks_problem *problem, const ks_unit *u);
int64_t ks_pass_bytes(const ks_pass_size *s, const ks_arch *a, const ks_forms *f);

#endif
