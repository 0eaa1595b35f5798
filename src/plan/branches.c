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

double ks_layer_flops(const ks_geometry *g, int32_t l, const uint64_t *in, const uint64_t *out)
{
    const ks_arch *a = g->arch;
    const double D = a->D, Q = (double)a->H * a->E, KV = (double)a->G * a->E, W = a->window[l];
    double n_in = 0, n_q = 0, n_out = 0, pairs = 0;
    int32_t seen = 0; /* changed keys that q sees */
    for (int32_t q = 0; q < g->T; q++) {
        const bool changed = ks_set_has(in, q);
        seen += changed;
        if (W > 0 && q >= W) seen -= ks_set_has(in, q - (int32_t)W);
        n_in += changed;
        if (!ks_set_has(out, q)) continue;
        const double visible = W > 0 && q >= W ? W : q + 1;
        n_out++;
        n_q += changed;
        pairs += (changed ? 2 : 1) * visible + 2 * seen; /* scores: dq.(k+dk) where q changed, q.dk; output: dp v, (p+dp) dv */
    }
    return 2 * D * (n_in * 2 * KV + n_q * Q) + 2 * Q * pairs + 2 * D * Q * n_out + 2 * D * a->F * (a->gated ? 3 : 2) * n_out;
}

static double full_layer_flops(const ks_geometry *g, int32_t l, int32_t out_rows)
{
    const ks_arch *a = g->arch;
    const double D = a->D, Q = (double)a->H * a->E, KV = (double)a->G * a->E, T = g->T;
    double visible = 0;
    for (int32_t q = 0; q < g->T; q++) visible += a->window[l] && q >= a->window[l] ? a->window[l] : q + 1;
    return 2 * D * T * (Q + 2 * KV) + 4 * Q * visible + out_rows * (2 * D * Q + 2 * D * a->F * (a->gated ? 3 : 2));
}

double ks_trunk_flops(const ks_geometry *g, int32_t measured)
{
    double flops = 2.0 * g->arch->D * g->arch->V * measured;
    for (int32_t l = 0; l < g->arch->L; l++) flops += full_layer_flops(g, l, l + 1 < g->arch->L ? g->T : measured);
    return flops;
}

double ks_forward_flops(const ks_geometry *g)
{
    double flops = 2.0 * g->arch->D * g->arch->V;
    for (int32_t l = 0; l < g->arch->L; l++) flops += full_layer_flops(g, l, g->T);
    return flops;
}

static void hold(uint64_t *held, const uint64_t *set, size_t words)
{
    for (size_t i = 0; i < words; i++) held[i] |= set[i];
}

/* Walks a branch through the layers; set, before: scratch [words]. */
static void walk(const ks_geometry *g, int32_t a, int32_t b, ks_branch *br, uint64_t *held, uint64_t *set, uint64_t *before)
{
    const size_t bytes = g->words * sizeof *set;
    for (int32_t l = a; l < g->arch->L; l++) {
        if (l >= br->fork && br->fork > a) hold(held, set, g->words); /* the rows that a fork takes over */
        memcpy(before, set, bytes);
        ks_rows_step(g, l <= b ? br->edges : -1, br->positions, l, set);
        if (l < br->fork) continue;
        hold(held, set, g->words);
        br->flops += ks_layer_flops(g, l, before, set);
    }
    br->n_pos = ks_set_count(held, g->words);
    br->measured = ks_set_count(set, g->words);
    br->flops += 2.0 * g->arch->D * g->arch->V * br->measured;
}

int ks_branches_new(ks_branches **out, const ks_geometry *g, const ks_grid *grid, int32_t v0, int32_t v1, bool floor)
{
    int rc = KS_OK;
    uint64_t *set = NULL, *before = NULL;
    ks_branches *b = NULL;
    int32_t leader[2] = {-1, -1}; /* by positions */
    KS_NEW(b, 1);
    KS_NEW(b->v, v1 - v0 + 1);
    KS_NEW(b->held, (size_t)(v1 - v0 + 1) * g->words);
    KS_NEW(set, g->words);
    KS_NEW(before, g->words);
    if (floor) {
        ks_branch *br = &b->v[b->n++];
        *br = (ks_branch){.variant = -1, .mask_end = -1, .positions = KS_POSITIONS_LAST};
        for (int32_t p = 0; p < g->T; p++) ks_set_add(set, p);
        hold(b->held, set, g->words);
        walk(g, 0, -1, br, b->held, set, before);
    }
    for (int32_t i = v0; i < v1; i++) {
        const ks_variant *v = &grid->variants[i];
        const ks_mask *m = &grid->masks[v->mask];
        const int status = ks_rows_status(g, m, v);
        if (status != KS_CELL_DONE && status != KS_CELL_EMPTY_ROW) continue;
        const int32_t me = (int32_t)b->n++;
        ks_branch *br = &b->v[me];
        int32_t *lead = &leader[v->positions];
        const ks_variant *lv = *lead >= 0 ? &grid->variants[b->v[*lead].variant] : NULL;
        const bool forks = lv && lv->mask == v->mask && lv->a == v->a;
        if (!forks) *lead = me;
        *br = (ks_branch){.variant = i,
                          .leader = *lead,
                          .fork = forks ? v->b + 1 : v->a,
                          .mask_end = forks ? -1 : v->b,
                          .edges = m->edges,
                          .positions = v->positions};
        memset(set, 0, g->words * sizeof *set);
        walk(g, v->a, v->b, br, b->held + (size_t)me * g->words, set, before);
    }
    for (size_t i = 0; i < b->n; i++) {
        b->flops += b->v[i].flops;
        b->rows += b->v[i].n_pos;
        b->measured += b->v[i].measured;
        if (b->v[i].n_pos > b->widest) b->widest = b->v[i].n_pos;
    }
done:
    free(set);
    free(before);
    if (rc) ks_branches_free(b);
    else *out = b;
    return rc;
}
