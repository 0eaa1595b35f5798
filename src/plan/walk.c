#include "plan/walk.h"

#include "base/error.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { UNKNOWN = -1, EMPTY = 0 };

/* Layers that act alike on every set form a class; steps are kept by (set, class, mask, positions). */
struct ks_walk {
    const ks_geometry *g;
    int32_t *class_of;       /* [L] */
    int32_t *layer_of;       /* [n_classes] its first layer */
    size_t n_classes, kinds; /* kinds: steps from a set, 6 a class */
    size_t n, room;          /* sets; number 0 is the empty one */
    uint64_t *set;           /* [room, words] */
    int32_t *next;           /* [room, kinds] the set at a layer's exit, UNKNOWN until somebody asks */
    ks_layer_rows *rows;     /* [room, kinds] of that step */
    uint64_t *before, *now;  /* [words] scratch */
    uint64_t *held;          /* [2, words] scratch */
};

static double visible_keys(const ks_geometry *g, int32_t l, int32_t q)
{
    const int32_t W = g->arch->window[l];
    return W > 0 && q >= W ? W : q + 1;
}

static ks_layer_rows count_rows(const ks_geometry *g, int32_t l, const uint64_t *in, const uint64_t *out)
{
    const int32_t W = g->arch->window[l];
    ks_layer_rows n = {.branches = 1, .keys = g->T};
    int32_t seen = 0; /* changed keys that q sees */
    for (int32_t q = 0; q < g->T; q++) {
        const bool changed = ks_set_has(in, q);
        seen += changed;
        if (W > 0 && q >= W) seen -= ks_set_has(in, q - W);
        n.in += changed;
        if (!ks_set_has(out, q)) continue;
        const double visible = visible_keys(g, l, q);
        n.out++;
        n.q += changed;
        n.visible += visible;
        n.pairs += (changed ? 2 : 1) * visible + 2 * seen; /* scores: dq.(k+dk) where q changed, q.dk; output: dp v, (p+dp) dv */
    }
    return n;
}

static double flops_of(const ks_arch *a, const ks_layer_rows *n)
{
    const double D = a->D, Q = (double)a->H * a->E, KV = (double)a->G * a->E;
    return 2 * D * (n->in * 2 * KV + n->q * Q) + 2 * Q * n->pairs + 2 * D * Q * n->out + 2 * D * a->F * (a->gated ? 3 : 2) * n->out;
}

double ks_layer_flops(const ks_geometry *g, int32_t l, const uint64_t *in, const uint64_t *out)
{
    const ks_layer_rows n = count_rows(g, l, in, out);
    return flops_of(g->arch, &n);
}

static double full_layer_flops(const ks_geometry *g, int32_t l, int32_t out_rows)
{
    const ks_arch *a = g->arch;
    const double D = a->D, Q = (double)a->H * a->E, KV = (double)a->G * a->E, T = g->T;
    double visible = 0;
    for (int32_t q = 0; q < g->T; q++) visible += visible_keys(g, l, q);
    return 2 * D * T * (Q + 2 * KV) + 4 * Q * visible + out_rows * (2 * D * Q + 2 * D * a->F * (a->gated ? 3 : 2));
}

void ks_trunk_rows(const ks_geometry *g, int32_t measured, ks_layer_rows *rows)
{
    for (int32_t l = 0; l < g->arch->L; l++) {
        double visible = 0;
        for (int32_t q = 0; q < g->T; q++) visible += visible_keys(g, l, q);
        rows[l].branches++;
        rows[l].in += g->T;
        rows[l].q += g->T;
        rows[l].out += l + 1 < g->arch->L ? g->T : measured;
        rows[l].pairs += 2 * visible;
        rows[l].visible += visible;
        rows[l].keys += g->T;
    }
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

void ks_walk_free(ks_walk *w)
{
    if (!w) return;
    free(w->class_of);
    free(w->layer_of);
    free(w->set);
    free(w->next);
    free(w->rows);
    free(w->before);
    free(w->now);
    free(w->held);
    free(w);
}

static bool alike(const ks_geometry *g, int32_t l, int32_t m)
{
    const int32_t *W = g->arch->window;
    const bool same_window = W[l] == W[m] || ((!W[l] || W[l] >= g->T) && (!W[m] || W[m] >= g->T));
    const size_t bytes = g->words * sizeof(uint64_t), x = (size_t)l * g->words, y = (size_t)m * g->words;
    return same_window && !memcmp(g->needed + x, g->needed + y, bytes) && !memcmp(g->masked[0] + x, g->masked[0] + y, bytes) &&
           !memcmp(g->masked[1] + x, g->masked[1] + y, bytes);
}

/* *id = the number of `set`, which is added if it is new. */
static int number_set(ks_walk *w, const uint64_t *set, int32_t *id)
{
    int rc = KS_OK;
    const size_t words = w->g->words;
    for (size_t i = 0; i < w->n; i++)
        if (!memcmp(w->set + i * words, set, words * sizeof *set)) {
            *id = (int32_t)i;
            return KS_OK;
        }
    if (w->n == w->room) {
        void *grown;
        w->room = w->room ? 2 * w->room : 16;
        KS_GET(grown, ks_realloc(w->set, w->room * words, sizeof *w->set));
        w->set = grown;
        KS_GET(grown, ks_realloc(w->next, w->room * w->kinds, sizeof *w->next));
        w->next = grown;
        KS_GET(grown, ks_realloc(w->rows, w->room * w->kinds, sizeof *w->rows));
        w->rows = grown;
    }
    memcpy(w->set + w->n * words, set, words * sizeof *set);
    for (size_t i = 0; i < w->kinds; i++) w->next[w->n * w->kinds + i] = UNKNOWN;
    *id = (int32_t)w->n++;
done:
    return rc;
}

int ks_walk_new(ks_walk **out, const ks_geometry *g)
{
    int rc = KS_OK;
    int32_t empty = EMPTY;
    ks_walk *w = NULL;
    KS_NEW(w, 1);
    w->g = g;
    KS_NEW(w->class_of, g->arch->L);
    KS_NEW(w->layer_of, g->arch->L);
    KS_NEW(w->before, g->words);
    KS_NEW(w->now, g->words);
    KS_NEW(w->held, 2 * g->words);
    for (int32_t l = 0; l < g->arch->L; l++) {
        size_t c = 0;
        while (c < w->n_classes && !alike(g, l, w->layer_of[c])) c++;
        if (c == w->n_classes) w->layer_of[w->n_classes++] = l;
        w->class_of[l] = (int32_t)c;
    }
    w->kinds = 6 * w->n_classes;
    KS_TRY(number_set(w, w->now, &empty));
done:
    if (rc) ks_walk_free(w);
    else *out = w;
    return rc;
}

/* One layer: *set is replaced by the set at its exit; *rows: what it computes, valid until the next step. edges: -1 where the mask is off.
 */
static int step(ks_walk *w, int edges, int positions, int32_t l, int32_t *set, const ks_layer_rows **rows)
{
    int rc = KS_OK;
    const size_t words = w->g->words;
    const size_t at = (size_t)*set * w->kinds + 6 * (size_t)w->class_of[l] + 2 * (size_t)(edges + 1) + (size_t)positions;
    if (w->next[at] == UNKNOWN) {
        int32_t next = 0;
        memcpy(w->before, w->set + (size_t)*set * words, words * sizeof *w->set);
        memcpy(w->now, w->before, words * sizeof *w->set);
        ks_rows_step(w->g, edges, positions, l, w->now);
        KS_TRY(number_set(w, w->now, &next));
        w->next[at] = next;
        w->rows[at] = count_rows(w->g, l, w->before, w->now);
    }
    *rows = &w->rows[at];
    *set = w->next[at];
done:
    return rc;
}

static void hold(const ks_walk *w, uint64_t *held, int32_t set)
{
    for (size_t i = 0; i < w->g->words; i++) held[i] |= w->set[(size_t)set * w->g->words + i];
}

static void finish(const ks_walk *w, ks_walk_cost *c, const uint64_t *held, int32_t set)
{
    c->n_pos = ks_set_count(held, w->g->words);
    c->measured = ks_set_count(w->set + (size_t)set * w->g->words, w->g->words);
    c->flops += 2.0 * w->g->arch->D * w->g->arch->V * c->measured;
}

int ks_walk_branch(ks_walk *w, int edges, int positions, int32_t a, int32_t b, ks_walk_cost cost[2], uint64_t *held)
{
    int rc = KS_OK;
    const ks_geometry *g = w->g;
    int32_t set = EMPTY, last = EMPTY;
    double flops = 0, shared = 0; /* shared: of the layers before the fork */
    const ks_layer_rows *n;
    uint64_t *lead = held ? held : w->held, *fork = lead + g->words;
    memset(lead, 0, 2 * g->words * sizeof *lead);
    for (int32_t l = a; l < g->arch->L; l++) {
        if (l == b + 1) { /* the rows that a fork takes over */
            hold(w, fork, set);
            shared = flops;
        }
        KS_TRY(step(w, l <= b ? edges : -1, positions, l, &set, &n));
        flops += flops_of(g->arch, n);
        if (set == last) continue;
        hold(w, lead, set);
        if (l > b) hold(w, fork, set);
        last = set;
    }
    cost[0] = (ks_walk_cost){.flops = flops};
    cost[1] = (ks_walk_cost){.flops = flops - shared};
    finish(w, &cost[0], lead, set);
    finish(w, &cost[1], fork, set);
done:
    return rc;
}

int ks_walk_floor(ks_walk *w, ks_walk_cost *cost, uint64_t *held)
{
    int rc = KS_OK;
    const ks_geometry *g = w->g;
    int32_t set = 0;
    *cost = (ks_walk_cost){0};
    if (!held) held = w->held;
    memset(held, 0, g->words * sizeof *held);
    for (int32_t p = 0; p < g->T; p++) ks_set_add(held, p);
    KS_TRY(number_set(w, held, &set));
    for (int32_t l = 0; l < g->arch->L; l++) {
        const ks_layer_rows *n;
        KS_TRY(step(w, -1, KS_POSITIONS_LAST, l, &set, &n));
        cost->flops += flops_of(g->arch, n);
    }
    finish(w, cost, held, set);
done:
    return rc;
}

static void add_rows(ks_layer_rows *sum, const ks_layer_rows *n)
{
    if (n->out == 0) return; /* nothing changed yet, or nothing that is needed any more: the engine leaves it out */
    sum->branches += n->branches;
    sum->in += n->in;
    sum->q += n->q;
    sum->out += n->out;
    sum->pairs += n->pairs;
    sum->visible += n->visible;
    sum->keys += n->keys;
}

int ks_walk_rows(ks_walk *w, int edges, int positions, int32_t a, int32_t b, int32_t from, ks_layer_rows *rows)
{
    int rc = KS_OK;
    const ks_geometry *g = w->g;
    int32_t set = EMPTY;
    if (edges < 0) {
        a = from = 0;
        memset(w->held, 0, g->words * sizeof *w->held);
        for (int32_t p = 0; p < g->T; p++) ks_set_add(w->held, p);
        KS_TRY(number_set(w, w->held, &set));
    }
    for (int32_t l = a; l < g->arch->L; l++) {
        const ks_layer_rows *n;
        if (l == from && from > a) {
            rows[l - 1].forks++;
            rows[l - 1].copied += ks_set_count(w->set + (size_t)set * g->words, g->words);
        }
        KS_TRY(step(w, l <= b ? edges : -1, positions, l, &set, &n));
        if (l >= from) add_rows(&rows[l], n);
    }
done:
    return rc;
}
