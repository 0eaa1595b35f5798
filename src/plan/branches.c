#include "plan/branches.h"

#include "base/error.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

void ks_branches_free(ks_branches *b)
{
    if (!b) return;
    free(b->v);
    free(b->held);
    free(b);
}

bool ks_has_branch(const ks_geometry *g, const ks_grid *grid, int32_t v)
{
    const int status = ks_rows_status(g, &grid->masks[grid->variants[v].mask], &grid->variants[v]);
    return status == KS_CELL_DONE || status == KS_CELL_EMPTY_ROW;
}

int ks_branches_new(ks_branches **out, const ks_geometry *g, const ks_grid *grid, int32_t v0, int32_t v1, bool floor, const uint64_t *done)
{
    int rc = KS_OK;
    uint64_t *held = NULL; /* [2, words] of a variant as a leader and as a fork */
    ks_walk *w = NULL;
    ks_branches *b = NULL;
    int32_t leader[2] = {-1, -1}; /* by positions */
    KS_NEW(b, 1);
    KS_NEW(b->v, v1 - v0 + 1);
    KS_NEW(b->held, (size_t)(v1 - v0 + 1) * g->words);
    KS_NEW(held, 2 * g->words);
    KS_TRY(ks_walk_new(&w, g));
    if (floor) {
        ks_walk_cost c;
        KS_TRY(ks_walk_floor(w, &c, b->held));
        b->v[b->n++] = (ks_branch){
            .variant = -1, .mask_end = -1, .positions = KS_POSITIONS_LAST, .n_pos = c.n_pos, .measured = c.measured, .flops = c.flops};
    }
    for (int32_t i = v0; i < v1; i++) {
        if ((done && ks_set_has(done, i)) || !ks_has_branch(g, grid, i)) continue;
        const ks_variant *v = &grid->variants[i];
        const int32_t me = (int32_t)b->n++, edges = grid->masks[v->mask].edges;
        int32_t *lead = &leader[v->positions];
        const ks_variant *lv = *lead >= 0 ? &grid->variants[b->v[*lead].variant] : NULL;
        const bool forks = lv && lv->mask == v->mask && lv->a == v->a;
        ks_walk_cost c[2];
        KS_TRY(ks_walk_branch(w, edges, v->positions, v->a, v->b, c, held));
        memcpy(b->held + (size_t)me * g->words, held + (forks ? g->words : 0), g->words * sizeof *held);
        if (!forks) *lead = me;
        b->v[me] = (ks_branch){.variant = i,
                               .leader = *lead,
                               .fork = forks ? v->b + 1 : v->a,
                               .mask_end = forks ? -1 : v->b,
                               .edges = edges,
                               .positions = v->positions,
                               .n_pos = c[forks].n_pos,
                               .measured = c[forks].measured,
                               .flops = c[forks].flops};
    }
done:
    free(held);
    ks_walk_free(w);
    if (rc) ks_branches_free(b);
    else *out = b;
    return rc;
}
