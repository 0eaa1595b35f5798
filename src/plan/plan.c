#include "plan/plan.h"

#include "base/error.h"
#include "base/mem.h"
#include "plan/forecast.h"

#include <math.h>
#include <stdlib.h>

enum {
    CHUNK_ROWS = 2040,        /* enough rows that packing weights is under 1 % of a product */
    MEASURE_BYTES = 64 << 20, /* logit changes at a time */
    MEASURE_MIN = 16,
    MEASURE_MAX = 512,
    UNIT_ROWS = 256, /* a unit of fewer rows would be slow: it may be a pass of its own */
};

void ks_plan_free(ks_plan *p)
{
    if (!p) return;
    ks_forecast_free(p->forecast);
    free(p->units);
    free(p);
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

const uint64_t *ks_problem_done(const ks_problem *problem, int32_t sample)
{
    return problem->done ? problem->done + (size_t)sample * ks_done_words(problem->grid) : NULL;
}

void ks_pass_size_add(ks_pass_size *s, const ks_problem *problem, const ks_unit *u)
{
    const int64_t T = problem->geometry[u->sample]->T;
    s->trunk_rows += T;
    s->logp += problem->arch->H * T * ((T + 15) / 16 * 16);
    s->branch_rows += u->rows;
    s->chunk_rows = max64(s->chunk_rows, max64(u->widest, min64(CHUNK_ROWS, s->branch_rows)));
    s->base_rows += u->all_positions ? T : 1;
    s->measured_rows += u->measured;
    s->measure_chunk = min64(s->measured_rows, max64(MEASURE_MIN, min64(MEASURE_MAX, MEASURE_BYTES / (4 * (int64_t)problem->arch->V))));
}

int ks_unit_branches(ks_branches **out, const ks_problem *problem, const ks_unit *u)
{
    return ks_branches_new(out, problem->geometry[u->sample], problem->grid, u->v0, u->v1, problem->floor && u->first,
                           ks_problem_done(problem, u->sample));
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

/* What one sample's variants cost, so that any range of them is a sum. */
typedef struct costs {
    const ks_problem *problem;
    const uint64_t *done; /* of the sample; NULL: none */
    double trunk[2];      /* measured at the last position, at all */
    ks_walk_cost floor;
    struct {
        bool branch;
        ks_walk_cost as[2]; /* a leader, a fork */
    } * v;                  /* [n_variants] not set where done */
} costs;

static bool is_done(const costs *c, int32_t v)
{
    return c->done && ks_set_has(c->done, v);
}

static int cost_sample(costs *c, int32_t sample)
{
    int rc = KS_OK;
    const ks_problem *problem = c->problem;
    const ks_geometry *g = problem->geometry[sample];
    ks_walk *w = NULL;
    c->done = ks_problem_done(problem, sample);
    c->trunk[0] = ks_trunk_flops(g, 1);
    c->trunk[1] = ks_trunk_flops(g, g->T);
    KS_TRY(ks_walk_new(&w, g));
    if (problem->floor) KS_TRY(ks_walk_floor(w, &c->floor, NULL));
    for (int32_t v = 0; v < (int32_t)problem->grid->n_variants; v++) {
        if (is_done(c, v)) continue;
        const ks_variant *x = &problem->grid->variants[v];
        c->v[v].branch = ks_has_branch(g, problem->grid, v);
        if (!c->v[v].branch) continue;
        KS_TRY(ks_walk_branch(w, problem->grid->masks[x->mask].edges, x->positions, x->a, x->b, c->v[v].as, NULL));
    }
done:
    ks_walk_free(w);
    return rc;
}

/* Goes through variants in the order of the grid: which of them fork from one before (as ks_branches_new has it). */
typedef struct leaders {
    const ks_variant *of[2]; /* by positions */
} leaders;

static bool forks(leaders *l, const ks_variant *v)
{
    const ks_variant *lead = l->of[v->positions];
    if (lead && lead->mask == v->mask && lead->a == v->a) return true;
    l->of[v->positions] = v;
    return false;
}

static void add_branch(ks_unit *u, const ks_walk_cost *c)
{
    u->branches++;
    u->flops += c->flops;
    u->rows += c->n_pos;
    u->measured += c->measured;
    if (c->n_pos > u->widest) u->widest = c->n_pos;
}

/* All that follows from a unit's sample, range and `first`. */
static void sum_unit(const costs *c, ks_unit *u)
{
    leaders lead = {0};
    *u = (ks_unit){.sample = u->sample, .v0 = u->v0, .v1 = u->v1, .first = u->first};
    if (u->first && c->problem->floor) add_branch(u, &c->floor);
    for (int32_t v = u->v0; v < u->v1; v++) {
        const ks_variant *x = &c->problem->grid->variants[v];
        if (is_done(c, v)) continue;
        u->cells++;
        u->all_positions |= x->positions == KS_POSITIONS_ALL;
        if (c->v[v].branch) add_branch(u, &c->v[v].as[forks(&lead, x)]);
    }
    u->flops += c->trunk[u->all_positions];
}

int ks_unit_measure(const ks_problem *problem, ks_unit *u)
{
    int rc = KS_OK;
    costs c = {.problem = problem};
    KS_NEW(c.v, problem->grid->n_variants);
    KS_TRY(cost_sample(&c, u->sample));
    sum_unit(&c, u);
done:
    free(c.v);
    return rc;
}

typedef struct unit_list {
    ks_unit *v;
    size_t n, room;
} unit_list;

static int push_unit(unit_list *list, const ks_unit *u)
{
    if (list->n == list->room) {
        const size_t room = list->room ? 2 * list->room : 64;
        ks_unit *grown = ks_realloc(list->v, room, sizeof *grown);
        if (!grown) return KS_EMACHINE;
        list->v = grown;
        list->room = room;
    }
    list->v[list->n++] = *u;
    return KS_OK;
}

/* Where to cut a unit so that about `goal` FLOPs of its branches stand before. A border between leaders is taken where one is near: behind
 * any other the next variant becomes a leader, which costs more than a fork. near: in FLOPs. */
static int32_t middle_of(const costs *c, const ks_unit *u, double goal, double near)
{
    const ks_variant *x = c->problem->grid->variants;
    const bool floor = u->first && c->problem->floor;
    double sum = floor ? c->floor.flops : 0, nearest = near;
    leaders lead = {0};
    int32_t at = -1, border = -1;
    for (int32_t v = u->v0; v < u->v1; v++) {
        const bool may_cut = v > u->v0 || floor; /* something stands on both sides */
        if (may_cut && (at < 0 || sum <= goal)) at = v;
        if (may_cut && fabs(sum - goal) < nearest && (v == u->v0 || x[v].a != x[v - 1].a || x[v].mask != x[v - 1].mask)) {
            nearest = fabs(sum - goal);
            border = v;
        }
        if (sum > goal + near) break;
        if (!is_done(c, v) && c->v[v].branch) sum += c->v[v].as[forks(&lead, &x[v])].flops;
    }
    return border >= 0 ? border : at;
}

/* Adds a unit's parts: none above max_flops unless it has few rows, none above the budget. */
static int cut(const costs *c, ks_unit u, double max_flops, int64_t budget, unit_list *out)
{
    int rc = KS_OK;
    ks_pass_size size = {0};
    while (u.v0 < u.v1 && is_done(c, u.v0)) u.v0++;
    while (u.v0 < u.v1 && is_done(c, u.v1 - 1)) u.v1--;
    sum_unit(c, &u);
    if (!u.cells && !u.first) return KS_OK;
    ks_pass_size_add(&size, c->problem, &u);
    const int64_t bytes = ks_pass_bytes(&size, c->problem->arch);
    const double trunk = c->trunk[u.all_positions];
    int64_t parts = bytes > budget ? 2 : 1;
    if (u.flops > max_flops) {
        const double part = max_flops - trunk > max_flops / 4 ? max_flops - trunk : max_flops / 4;
        parts = max64(parts, min64((int64_t)fmin(ceil((u.flops - trunk) / part), 1e9), u.rows / UNIT_ROWS));
    }
    if (parts > 1 && u.cells + (u.first && c->problem->floor) > 1) {
        const int64_t half = parts / 2;
        ks_unit left = u, right = u;
        const double part = (u.flops - trunk) / (double)parts;
        left.v1 = right.v0 = middle_of(c, &u, part * (double)half, part / 4);
        right.first = false;
        KS_TRY(cut(c, left, max_flops, budget, out));
        KS_TRY(cut(c, right, max_flops, budget, out));
        goto done;
    }
    KS_REQUIRE(bytes <= budget, KS_EMACHINE,
               "sample %s needs %.1f MB of memory for one variant, and --memory leaves %.1f MB: give it more, or shorten the sample",
               c->problem->names[u.sample], (double)bytes / 1e6, (double)budget / 1e6);
    KS_TRY(push_unit(out, &u));
done:
    return rc;
}

static int by_flops(const void *x, const void *y)
{
    const ks_unit *a = x, *b = y;
    if (a->flops != b->flops) return a->flops < b->flops ? 1 : -1;
    if (a->sample != b->sample) return a->sample - b->sample;
    if (a->v0 != b->v0) return a->v0 - b->v0;
    return a->v1 - b->v1;
}

/* Everything of a sample that is not done. */
static ks_unit whole_sample(const ks_problem *problem, size_t sample)
{
    return (ks_unit){.sample = (int32_t)sample,
                     .v1 = (int32_t)problem->grid->n_variants,
                     .first = !problem->baseline_done || !problem->baseline_done[sample]};
}

/* Ways to cut samples, the first not at all. No unit is above `coarse` times a rank's share of the FLOPs that are left when its sample's
 * turn comes, largest samples first, nor need it be below `fine` times a rank's share of all. So the first samples stay large, the last
 * ones are cut fine, most of the sweep pays for no second trunk and the ranks still end together. Which way is best depends on how many
 * samples there are to a rank and how large a trunk is beside its branches; planning tries them all. */
static const struct {
    double coarse, fine;
} ways[] = {{1e300, 1e300}, {1.4, 1.4}, {1.3, 0.4}, {1.3, 0.1}, {1, 0.2}, {1, 0.1}, {1, 0.05}, {0.8, 0.2}, {0.5, 0.5}, {0.5, 0.1}};
enum { WAYS = sizeof ways / sizeof ways[0] };

/* The units of ways 1, 2 ... whole: the samples as units, most FLOPs first; total: their sum. */
static int cut_finer(costs *c, const unit_list *whole, double total, int ranks, int64_t budget, unit_list tries[WAYS])
{
    int rc = KS_OK;
    double left = total;
    for (size_t i = 0; i < whole->n; i++) {
        const ks_unit *u = &whole->v[i];
        KS_TRY(cost_sample(c, u->sample));
        for (int k = 1; k < WAYS; k++) {
            const double coarse = ways[k].coarse * left / ranks, fine = ways[k].fine * total / ranks;
            KS_TRY(cut(c, *u, coarse > fine ? coarse : fine, budget, &tries[k]));
        }
        left -= u->flops;
    }
done:
    return rc;
}

int ks_plan_new(ks_plan **out, const ks_problem *problem, int ranks, int64_t budget)
{
    int rc = KS_OK;
    costs c = {.problem = problem};
    unit_list whole = {0}, tries[WAYS] = {{0}};
    ks_forecast *f = NULL;
    ks_plan *p = NULL;
    int chosen = 0;
    KS_NEW(p, 1);
    p->ranks = ranks;
    KS_NEW(c.v, problem->grid->n_variants);
    for (size_t s = 0; s < problem->n_samples; s++) {
        ks_unit u = whole_sample(problem, s);
        KS_TRY(cost_sample(&c, (int32_t)s));
        sum_unit(&c, &u);
        if (!u.cells && !u.first) continue;
        KS_TRY(push_unit(&whole, &u));
        KS_TRY(cut(&c, u, 1e300, budget, &tries[0]));
        p->cells += u.cells;
        p->plain_flops += 2 * ks_forward_flops(problem->geometry[s]) * u.cells;
    }
    if (whole.n) qsort(whole.v, whole.n, sizeof *whole.v, by_flops);
    for (size_t i = whole.n; i-- > 0;) p->whole_flops += whole.v[i].flops;

    /* Whole samples, unless another way shortens the sweep by more than 2 %; of the other ways the best. */
    for (int k = 0; k < WAYS; k++) {
        if (k && p->forecast->seconds < 1.02 * p->whole_flops / ranks) break;
        if (k == 1) KS_TRY(cut_finer(&c, &whole, p->whole_flops, ranks, budget, tries));
        if (tries[k].n) qsort(tries[k].v, tries[k].n, sizeof *tries[k].v, by_flops);
        KS_TRY(ks_forecast_new(&f, problem, tries[k].v, tries[k].n, budget, ranks, NULL, NULL));
        if (k && f->seconds > (chosen ? 0.999 : 0.98) * p->forecast->seconds) {
            ks_forecast_free(f);
            f = NULL;
            continue;
        }
        ks_forecast_free(p->forecast);
        p->forecast = f;
        f = NULL;
        free(p->units);
        p->units = tries[k].v;
        p->n_units = tries[k].n;
        chosen = k;
        tries[k] = (unit_list){0};
    }
    for (size_t i = p->n_units; i-- > 0;) {
        p->flops += p->units[i].flops;
        p->branches += p->units[i].branches;
        p->rows += p->units[i].rows;
    }
done:
    for (int k = 0; k < WAYS; k++) free(tries[k].v);
    free(whole.v);
    free(c.v);
    ks_forecast_free(f);
    if (rc) ks_plan_free(p);
    else *out = p;
    return rc;
}
