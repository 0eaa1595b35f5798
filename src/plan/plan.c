#include "plan/plan.h"

#include "base/error.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum {
    CHUNK_ROWS = 2040,        /* enough rows that packing weights is under 1 % of a product */
    MEASURE_BYTES = 64 << 20, /* logit changes at a time */
    MEASURE_MIN = 16,
    MEASURE_MAX = 512,
};

void ks_plan_free(ks_plan *p)
{
    if (!p) return;
    free(p->units);
    free(p->rank_flops);
    free(p->rank_passes);
    free(p);
}

bool ks_unit_all_positions(const ks_grid *grid, const ks_unit *u)
{
    for (int32_t v = u->v0; v < u->v1; v++)
        if (grid->variants[v].positions == KS_POSITIONS_ALL) return true;
    return false;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void ks_pass_size_add(ks_pass_size *s, const ks_problem *problem, const ks_unit *u, const ks_branches *b)
{
    const int64_t T = problem->geometry[u->sample]->T;
    s->trunk_rows += T;
    s->logp += problem->arch->H * T * ((T + 15) / 16 * 16);
    s->branch_rows += b->rows;
    s->chunk_rows = max64(s->chunk_rows, max64(b->widest, min64(CHUNK_ROWS, s->branch_rows)));
    s->base_rows += ks_unit_all_positions(problem->grid, u) ? T : 1;
    s->measured_rows += b->measured;
    s->measure_chunk = min64(s->measured_rows, max64(MEASURE_MIN, min64(MEASURE_MAX, MEASURE_BYTES / (4 * (int64_t)problem->arch->V))));
}

int ks_unit_branches(ks_branches **out, const ks_problem *problem, const ks_unit *u)
{
    return ks_branches_new(out, problem->geometry[u->sample], problem->grid, u->v0, u->v1, problem->floor && u->first);
}

/* The arrays of sweep/engine.c, one term each, in its order. */
int64_t ks_pass_bytes(const ks_pass_size *s, const ks_arch *a)
{
    const int64_t Q = (int64_t)a->H * a->E, KV = (int64_t)a->G * a->E, D = a->D, F = a->F;
    const int64_t trunk = s->trunk_rows * (3 * D + 4 + Q + 2 * KV + 2 * F) + s->logp;
    const int64_t work = max64(s->trunk_rows, s->chunk_rows);
    const int64_t scratch = work * (2 * D + 2 * Q + 2 * KV + 2 * F);
    const int64_t head = (s->base_rows + s->measure_chunk) * ((int64_t)a->V + D);
    return 4 * (trunk + s->branch_rows * D + scratch + head) + s->measured_rows * 256;
}

/* Cuts each sample's variants so that no unit is above max_flops or max_bytes (one variant alone may be above max_flops). */
typedef struct cutter {
    const ks_problem *problem;
    ks_unit *units;
    size_t n, room;
} cutter;

static int push_unit(cutter *c, ks_unit u)
{
    if (c->n == c->room) {
        const size_t room = c->room ? 2 * c->room : 64;
        ks_unit *grown = ks_realloc(c->units, room, sizeof *grown);
        if (!grown) return KS_EMACHINE;
        c->units = grown;
        c->room = room;
    }
    c->units[c->n++] = u;
    return KS_OK;
}

/* Exact cost of a unit (a cut sample's first variant in a group becomes a leader, which costs more than a fork). */
static int unit_cost(const ks_problem *problem, ks_unit *u, int64_t *bytes)
{
    int rc = KS_OK;
    ks_branches *b = NULL;
    const ks_geometry *g = problem->geometry[u->sample];
    ks_pass_size size = {0};
    KS_TRY(ks_unit_branches(&b, problem, u));
    u->flops = b->flops + ks_trunk_flops(g, ks_unit_all_positions(problem->grid, u) ? g->T : 1);
    ks_pass_size_add(&size, problem, u, b);
    *bytes = ks_pass_bytes(&size, problem->arch);
done:
    ks_branches_free(b);
    return rc;
}

static int cut_range(cutter *c, int32_t sample, int32_t v0, int32_t v1, double max_flops, int64_t max_bytes)
{
    int rc = KS_OK;
    ks_unit u = {.sample = sample, .v0 = v0, .v1 = v1, .first = v0 == 0};
    int64_t bytes = 0;
    KS_TRY(unit_cost(c->problem, &u, &bytes));
    if (v1 - v0 > 1 && (u.flops > max_flops || bytes > max_bytes)) {
        /* Halves by number; groups of equal mask and start are kept whole where a border is near. */
        const ks_variant *v = c->problem->grid->variants;
        int32_t middle = v0 + (v1 - v0) / 2;
        for (int32_t step = 0; step < (v1 - v0) / 4; step++) {
            const int32_t down = middle - step, up = middle + step;
            if (v[down].a != v[down - 1].a || v[down].mask != v[down - 1].mask) {
                middle = down;
                break;
            }
            if (v[up].a != v[up - 1].a || v[up].mask != v[up - 1].mask) {
                middle = up;
                break;
            }
        }
        KS_TRY(cut_range(c, sample, v0, middle, max_flops, max_bytes));
        KS_TRY(cut_range(c, sample, middle, v1, max_flops, max_bytes));
        goto done;
    }
    KS_REQUIRE(bytes <= max_bytes, KS_EMACHINE,
               "sample %s needs %.1f MB of memory for one variant, and --memory leaves %.1f MB: give it more, or shorten the sample",
               c->problem->names[sample], (double)bytes / 1e6, (double)max_bytes / 1e6);
    KS_TRY(push_unit(c, u));
done:
    return rc;
}

static int by_flops(const void *x, const void *y)
{
    const ks_unit *a = x, *b = y;
    if (a->flops != b->flops) return a->flops < b->flops ? 1 : -1;
    if (a->sample != b->sample) return a->sample - b->sample;
    return a->v0 - b->v0;
}

static int by_rank(const void *x, const void *y)
{
    const ks_unit *a = x, *b = y;
    if (a->rank != b->rank) return a->rank - b->rank;
    if (a->sample != b->sample) return a->sample - b->sample;
    return a->v0 - b->v0;
}

/* Longest unit first to the rank that has least; returns the largest load. */
static double assign(ks_unit *units, size_t n, double *load, int ranks)
{
    qsort(units, n, sizeof *units, by_flops);
    memset(load, 0, (size_t)ranks * sizeof *load);
    double top = 0;
    for (size_t i = 0; i < n; i++) {
        int least = 0;
        for (int r = 1; r < ranks; r++)
            if (load[r] < load[least]) least = r;
        units[i].rank = least;
        load[least] += units[i].flops;
        if (load[least] > top) top = load[least];
    }
    return top;
}

/* Greedy passes of each rank's units, in order; and the plan's sums. */
static int group_passes(ks_plan *p, const ks_problem *problem, int64_t budget)
{
    int rc = KS_OK;
    ks_pass_size size = {0};
    for (size_t i = 0; i < p->n_units; i++) {
        ks_unit *u = &p->units[i];
        ks_branches *b = NULL;
        KS_TRY(ks_unit_branches(&b, problem, u));
        const bool fresh = i == 0 || p->units[i - 1].rank != u->rank;
        ks_pass_size with = fresh ? (ks_pass_size){0} : size;
        ks_pass_size_add(&with, problem, u, b);
        const bool fits = ks_pass_bytes(&with, problem->arch) <= budget;
        u->pass = fresh ? 0 : p->units[i - 1].pass + !fits;
        if (!fresh && !fits) {
            with = (ks_pass_size){0};
            ks_pass_size_add(&with, problem, u, b);
        }
        size = with;
        p->peak_bytes = max64(p->peak_bytes, ks_pass_bytes(&size, problem->arch));
        p->rank_passes[u->rank] = u->pass + 1;
        p->branches += (int64_t)b->n;
        p->rows += b->rows;
        p->flops += u->flops;
        ks_branches_free(b);
    }
done:
    return rc;
}

int ks_plan_new(ks_plan **out, const ks_problem *problem, int ranks, int64_t budget)
{
    int rc = KS_OK;
    cutter c = {.problem = problem};
    double *load = NULL, best = 0, total = 0;
    ks_plan *p = NULL;
    const int32_t n_variants = (int32_t)problem->grid->n_variants;
    KS_NEW(p, 1);
    KS_NEW(p->rank_flops, ranks);
    KS_NEW(p->rank_passes, ranks);
    KS_NEW(load, ranks);
    p->ranks = ranks;

    /* Whole samples first; then finer cuts as long as they shorten the longest rank by more than 2 %. */
    for (int fine = 1; fine <= 64; fine *= 2) {
        const double max_flops = fine == 1 ? 1e300 : 2 * total / ranks / fine;
        c.n = 0;
        for (size_t s = 0; s < problem->n_samples; s++) KS_TRY(cut_range(&c, (int32_t)s, 0, n_variants, max_flops, budget));
        const double top = assign(c.units, c.n, load, ranks);
        if (fine == 1)
            for (size_t i = 0; i < c.n; i++) total += c.units[i].flops;
        if (fine == 1 || top < 0.98 * best) {
            best = top;
            free(p->units);
            KS_NEW(p->units, c.n);
            memcpy(p->units, c.units, c.n * sizeof *c.units);
            p->n_units = c.n;
            memcpy(p->rank_flops, load, (size_t)ranks * sizeof *load);
        }
        if (best < 1.02 * total / ranks) break;
    }
    qsort(p->units, p->n_units, sizeof *p->units, by_rank);
    KS_TRY(group_passes(p, problem, budget));

    p->cells = (int64_t)problem->n_samples * n_variants;
    for (size_t s = 0; s < problem->n_samples; s++) p->plain_flops += 2 * ks_forward_flops(problem->geometry[s]) * n_variants;
done:
    free(c.units);
    free(load);
    if (rc) ks_plan_free(p);
    else *out = p;
    return rc;
}
