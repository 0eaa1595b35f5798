/* branches.h - the trie of a sample's variants, as branches, and what each costs.
 *
 * Windows [a, b1], [a, b2] ... with one mask share all layers up to the smaller end. The widest of them, the leader, opens at a; each
 * other one forks from the leader's rows at layer b + 1 and goes on without the mask:
 *
 *   layer      0    1    2    3    4
 *   trunk      ●────●────●────●────●            baseline
 *   leader [1,4]    └●───●────●────●            mask on from layer 1
 *   [1,1]                └●───●────●            forks at layer 2
 *   [1,2]                     └●───●            forks at layer 3 */
#ifndef KS_PLAN_BRANCHES_H
#define KS_PLAN_BRANCHES_H

#include "plan/walk.h"

typedef struct ks_branch {
    int32_t variant;  /* index in the grid; -1: the floor's branch */
    int32_t leader;   /* index of the branch it forks from; its own index: it forks from the trunk */
    int32_t fork;     /* first layer that it computes itself */
    int32_t mask_end; /* last layer in which its mask is on while it computes; -1 for a branch that forks from a leader */
    int32_t edges;    /* KS_EDGES_* of the mask */
    int32_t positions;
    int32_t n_pos;    /* positions that it ever holds: its storage */
    int32_t measured; /* rows that are measured */
    double flops;     /* ks_walk_cost */
} ks_branch;

typedef struct ks_branches {
    ks_branch *v;
    size_t n;
    uint64_t *held; /* [n, words] the positions that branch i ever holds */
} ks_branches;

/* The branches of variants v0 .. v1 - 1 of a sample; with floor the floor's branch comes first. Variants that compute nothing
 * (ks_rows_status) and those of done (bit v; NULL: none) have no branch. Free with ks_branches_free. */
int ks_branches_new(ks_branches **out, const ks_geometry *g, const ks_grid *grid, int32_t v0, int32_t v1, bool floor, const uint64_t *done);
void ks_branches_free(ks_branches *b);

/* Whether a variant of this sample computes anything. */
bool ks_has_branch(const ks_geometry *g, const ks_grid *grid, int32_t v);

#endif
