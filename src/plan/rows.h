/* rows.h - which rows of a branch differ from the trunk, layer by layer: exactly the rows that the engine computes.
 *
 * Attention is causal, so a change at key position k reaches the queries that see k, and nothing before. Looking back from the
 * measured rows, only what they see is needed. A branch computes the rows that are both changed and needed.
 * Row sets are bit sets over positions: bit p of word p / 64. */
#ifndef KS_PLAN_ROWS_H
#define KS_PLAN_ROWS_H

#include "model/arch.h"
#include "plan/cell.h"
#include "plan/grid.h"

#include <stdbool.h>
#include <stdint.h>

/* Edges that an intervention acts on, for one sample, in all of its rows: keys of query q are key[start[q] .. start[q+1]-1],
 * ascending, without repeats. Edges that are not visible (causality, sliding window) are ignored. */
typedef struct ks_edges {
    int32_t *start; /* [T + 1] */
    int32_t *key;
} ks_edges;

/* What the plan and the engine know of one sample in one model. */
typedef struct ks_geometry {
    const ks_arch *arch; /* not owned */
    int32_t T;
    size_t words;          /* of a row set */
    ks_edges edges[2];     /* by KS_EDGES_*: all causal pairs of the set, sliding windows not yet applied */
    uint64_t *masked[2];   /* [L, words] rows that have a visible edge in layer l */
    uint64_t *needed;      /* [L, words] rows of layer l's output on which the last position's output depends */
    uint8_t *emptied[2];   /* [L] some row sees nothing but edges */
    int32_t *row_edges[2]; /* [L] most visible edges in one row */
    int32_t visible[2];    /* visible edges, of the layer that has most */
} ks_geometry;

/* marker, target [T]: masks of tokens. Free with ks_geometry_free. */
int ks_geometry_new(ks_geometry **out, const ks_arch *arch, int32_t T, const uint8_t *marker, const uint8_t *target);
void ks_geometry_free(ks_geometry *g);

/* set: the changed rows that enter layer l (none at the fork); afterwards the changed and needed rows that leave it.
 * edges: KS_EDGES_* where the intervention acts in this layer, -1 where not. */
void ks_rows_step(const ks_geometry *g, int edges, int positions, int32_t l, uint64_t *set);

/* The status that a variant has by its geometry alone: KS_CELL_DONE, KS_CELL_EMPTY_ROW, KS_CELL_NOTHING, or KS_CELL_NOT_FINITE where
 * `set` asks for more than the whole row. */
int ks_rows_status(const ks_geometry *g, const ks_mask *m, const ks_variant *v);

static inline bool ks_set_has(const uint64_t *set, int32_t p)
{
    return set[p / 64] >> (p % 64) & 1;
}
static inline void ks_set_add(uint64_t *set, int32_t p)
{
    set[p / 64] |= (uint64_t)1 << (p % 64);
}
/* Positions of a set, ascending, into out [T]; returns their number. */
int32_t ks_set_list(const uint64_t *set, int32_t T, int32_t *out);
int32_t ks_set_count(const uint64_t *set, size_t words);

#endif
