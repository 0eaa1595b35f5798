/* pass.h - the state of one pass: its units and branches, their places in the device's arrays, and those arrays. Private to the engine.
 *
 * Trunk rows of a unit: row0 + position. A branch stores its rows for the positions that it ever holds, `slot[position]`. */
#ifndef KS_SWEEP_PASS_H
#define KS_SWEEP_PASS_H

#include "sweep/engine.h"
#include "sweep/supply.h"

typedef struct pass_unit {
    const ks_unit *unit;
    const ks_geometry *g;
    const ks_tokens *tokens;
    ks_branches *branches;
    ks_attention_item item; /* row0, T, place in logp */
    int64_t base_row;       /* first measured row of the trunk */
    bool all_positions;     /* measured rows: all T, or the last */
    int64_t strength;       /* place among the attention strengths, of a sample's first unit; else -1 */
} pass_unit;

typedef struct pass_branch {
    const ks_branch *b;
    int32_t unit;
    int64_t *slot; /* [T] row of d that holds the position; -1: never held */
    uint64_t *set; /* [words] rows that differ from the trunk now */
} pass_branch;

typedef struct ks_pass {
    const ks_job *job;
    const ks_arch *a;
    const ks_sink *sink;
    ks_supply supply;
    int32_t layer;
    int grade; /* of products of effects */
    ks_forms forms;
    ks_pass_size size;
    pass_unit *units;
    size_t n_units;
    pass_branch *branches;
    size_t n_branches;

    /* Host. */
    int64_t *trunk_row;             /* [trunk_rows] 0, 1, 2 ... */
    int64_t *base_of;               /* [trunk_rows] its place among the measured rows, -1: not measured */
    int64_t *base_trunk;            /* [base_rows] */
    int64_t *index;                 /* scratch of row lists, 7 x [work] */
    int32_t *pos;                   /* scratch of positions, 2 x [work] */
    int64_t work;                   /* rows of scratch: the larger of trunk_rows and chunk_rows */
    ks_attention_item *trunk_items; /* [n_units] */
    ks_branch_item *items;          /* [n_branches] */
    ks_edge_item *edges;            /* [n_units] */

    /* Device; N trunk rows, R branch rows, C rows of a chunk. x, y, m, xb, xe are operands, in their forms. */
    float *arena;              /* holds all that follow */
    float *h, *h1, *h2;        /* [N, D] before the layer, after attention, after the layer */
    float *cos_t, *sin_t;      /* [N, rope.dim/2] */
    ks_norm_tape tape1, tape2; /* [N] */
    float *q, *k, *v, *logp;   /* [N, H*E] [N, G*E] [N, G*E] */
    float *strength;           /* double [samples, L, H] attention strengths */
    float *g, *u;              /* [N, F] MLP pre-activations; in the last layer rows are measured rows */
    float *d;                  /* [R, D] the branches */
    float *x, *y, *m;          /* [work, D] [work, H*E] [work, F]: of norms, attention, activation; m is du where it may */
    float *t;                  /* [work, D] */
    float *dq, *dk, *dv;       /* [C, H*E] [C, G*E] [C, G*E]; dq also takes the trunk's measured rows of y */
    float *dg, *du;            /* [C, F] */
    float *xb, *logits;        /* [base_rows, D] [base_rows, V] */
    float *xe, *e;             /* [measure_chunk, D] [measure_chunk, V] */
} ks_pass;

int ks_pass_new(ks_pass **out, const ks_job *job, const ks_unit *units, size_t n, const ks_sink *sink);
void ks_pass_free(ks_pass *p);

/* The head and the measures, after the last layer (measure.c). */
int ks_pass_measure(ks_pass *p);

#endif
