#include "plan/plan.h"

#include "base/error.h"
#include "base/mem.h"
#include "plan/forecast.h"

#include <math.h>
#include <stdlib.h>

/* Plans are made for ranks whose speeds differ by so much either way: a cut that fits equal ranks to the second would fit no others. */
static const double UNEVEN = 0.03;

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
    s->strengths += u->first;
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

/* The arrays of sweep/pass.c, in its order. */
int64_t ks_pass_bytes(const ks_pass_size *s, const ks_arch *a, const ks_forms *f)
{
    const int64_t Q = (int64_t)a->H * a->E, KV = (int64_t)a->G * a->E, D = a->D, F = a->F, V = a->V;
    const int64_t state = (int64_t)ks_form_bytes(f->state), effect = (int64_t)ks_form_bytes(f->effect),
                  last = (int64_t)ks_form_bytes(f->head);
    const int64_t N = s->trunk_rows, C = s->chunk_rows, operand = max64(N * state, C * effect);
    const int64_t trunk = 4 * N * (3 * D + a->rope.dim + 4 + Q + 2 * KV + 2 * F) + 4 * s->logp + 8 * s->strengths * a->L * a->H;
    const int64_t scratch = operand * (D + Q) + 4 * max64(N, C) * D + max64(4 * C, s->base_rows * state) * Q + 8 * C * KV;
    const int64_t mlp = 4 * C * F + (f->effect == KS_FORM_F32 ? operand : 4 * C + operand) * F;
    const int64_t head = (s->base_rows + s->measure_chunk) * (4 * V + last * D);
    return trunk + 4 * s->branch_rows * D + scratch + mlp + head + s->measured_rows * 256;
}

/* What one sample's variants cost, so that any range of them is a sum. */
typedef struct costs {
    const ks_problem *problem;
    const double *speed;  /* [ranks] that the plan is made for */
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

/* Where to cut a unit so that about half of its branches' FLOPs stand before. A border between leaders is taken where one is near: behind
 * any other the next variant becomes a leader, which costs more than a fork. */
static int32_t middle_of(const costs *c, const ks_unit *u)
{
    const ks_variant *x = c->problem->grid->variants;
    const bool floor = u->first && c->problem->floor;
    const double goal = (u->flops - c->trunk[u->all_positions]) / 2, near = goal / 4;
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

/* Adds a unit's parts: two halves if `halve` and if it has rows enough, more where it is above the budget. */
static int cut(const costs *c, ks_unit u, bool halve, int64_t budget, unit_list *out)
{
    int rc = KS_OK;
    ks_pass_size size = {0};
    while (u.v0 < u.v1 && is_done(c, u.v0)) u.v0++;
    while (u.v0 < u.v1 && is_done(c, u.v1 - 1)) u.v1--;
    sum_unit(c, &u);
    if (!u.cells && !u.first) return KS_OK;
    ks_pass_size_add(&size, c->problem, &u);
    const int64_t bytes = ks_pass_bytes(&size, c->problem->arch, &c->problem->forms);
    const bool divides = u.cells + (u.first && c->problem->floor) > 1;
    if (divides && (bytes > budget || (halve && u.rows >= 2 * UNIT_ROWS))) {
        ks_unit left = u, right = u;
        left.v1 = right.v0 = middle_of(c, &u);
        right.first = false;
        KS_TRY(cut(c, left, false, budget, out));
        KS_TRY(cut(c, right, false, budget, out));
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

static int by_sample(const void *x, const void *y)
{
    const ks_unit *a = x, *b = y;
    return a->sample != b->sample ? a->sample - b->sample : a->v0 - b->v0;
}

/* The plan's units become `list`, and its forecast f; the former ones are there afterwards. */
static void exchange(ks_plan *p, unit_list *list, ks_forecast **f)
{
    const unit_list units = {p->units, p->n_units, p->n_units};
    ks_forecast *forecast = p->forecast;
    p->units = list->v;
    p->n_units = list->n;
    p->forecast = *f;
    *list = units;
    *f = forecast;
}

/* Sorts a list and acts it out. */
static int forecast(const costs *c, const ks_plan *p, unit_list *list, int64_t budget, ks_forecast **f)
{
    if (list->n) qsort(list->v, list->n, sizeof *list->v, by_flops);
    ks_forecast_free(*f);
    *f = NULL;
    return ks_forecast_new(f, c->problem, list->v, list->n, budget, p->ranks, c->speed, NULL);
}

/* The units of `now`, with those in halves that end last: later than a quarter of the way from the mean to the end. Cutting costs trunks,
 * so what does not keep others waiting is left alone. */
static int halve_the_last(costs *c, const unit_list *now, const ks_forecast *f, double mean, int64_t budget, unit_list *late,
                          unit_list *out)
{
    int rc = KS_OK;
    const double limit = mean + (f->seconds - mean) / 4;
    late->n = out->n = 0;
    for (size_t i = 0; i < now->n; i++) KS_TRY(push_unit(f->unit_end[i] > limit ? late : out, &now->v[i]));
    if (late->n) qsort(late->v, late->n, sizeof *late->v, by_sample);
    for (size_t i = 0; i < late->n; i++) {
        if (!i || late->v[i].sample != late->v[i - 1].sample) KS_TRY(cost_sample(c, late->v[i].sample));
        KS_TRY(cut(c, late->v[i], true, budget, out));
    }
done:
    return rc;
}

/* Cuts the plan's units, which are whole samples, until that no longer helps; they stay whole unless that shortens the sweep by more than
 * 2 %. */
static int cut_finer(costs *c, ks_plan *p, int64_t budget)
{
    int rc = KS_OK;
    enum { ROUNDS = 24 };
    unit_list now = {0}, next = {0}, late = {0}, best = {0};
    ks_forecast *f = NULL, *best_f = NULL;
    for (size_t i = 0; i < p->n_units; i++) KS_TRY(push_unit(&now, &p->units[i]));
    KS_TRY(forecast(c, p, &now, budget, &f));
    for (int round = 0; round < ROUNDS; round++) {
        double mean = 0;
        for (size_t i = now.n; i-- > 0;) mean += now.v[i].flops / p->ranks;
        if (f->seconds < 1.005 * mean) break;
        KS_TRY(halve_the_last(c, &now, f, mean, budget, &late, &next));
        if (next.n == now.n) break; /* none of them can be cut */
        unit_list former = now;
        now = next;
        next = former;
        KS_TRY(forecast(c, p, &now, budget, &f));
        if (f->seconds > 0.999 * (best_f ? best_f->seconds : p->forecast->seconds)) continue;
        best.n = 0;
        for (size_t i = 0; i < now.n; i++) KS_TRY(push_unit(&best, &now.v[i]));
        KS_TRY(forecast(c, p, &best, budget, &best_f));
    }
    if (best_f && best_f->seconds < 0.98 * p->forecast->seconds) exchange(p, &best, &best_f);
done:
    ks_forecast_free(f);
    ks_forecast_free(best_f);
    free(now.v);
    free(next.v);
    free(late.v);
    free(best.v);
    return rc;
}

int ks_plan_new(ks_plan **out, const ks_problem *problem, int ranks, int64_t budget)
{
    int rc = KS_OK;
    costs c = {.problem = problem};
    unit_list units = {0};
    double *speed = NULL;
    ks_plan *p = NULL;
    KS_NEW(p, 1);
    p->ranks = ranks;
    KS_NEW(c.v, problem->grid->n_variants);
    for (size_t s = 0; s < problem->n_samples; s++) {
        ks_unit u = whole_sample(problem, s);
        KS_TRY(cost_sample(&c, (int32_t)s));
        sum_unit(&c, &u);
        if (!u.cells && !u.first) continue;
        KS_TRY(cut(&c, u, false, budget, &units));
        p->whole_flops += u.flops;
        p->cells += u.cells;
        p->plain_flops += 2 * ks_forward_flops(problem->geometry[s]) * u.cells;
    }
    KS_NEW(speed, ranks);
    for (int r = 0; r < ranks; r++) speed[r] = 1 + UNEVEN * (2 * fmod(r * 0.6180339887, 1) - 1);
    if (ranks == 1) speed[0] = 1;
    c.speed = speed;
    KS_TRY(forecast(&c, p, &units, budget, &p->forecast));
    p->units = units.v;
    p->n_units = units.n;
    units = (unit_list){0};
    if (p->forecast->seconds > 1.02 * p->whole_flops / ranks) KS_TRY(cut_finer(&c, p, budget));
    ks_forecast_free(p->forecast);
    p->forecast = NULL;
    KS_TRY(ks_forecast_new(&p->forecast, problem, p->units, p->n_units, budget, ranks, NULL, NULL));
    for (size_t i = p->n_units; i-- > 0;) {
        p->flops += p->units[i].flops;
        p->branches += p->units[i].branches;
        p->rows += p->units[i].rows;
    }
done:
    free(speed);
    free(units.v);
    free(c.v);
    if (rc) ks_plan_free(p);
    else *out = p;
    return rc;
}
