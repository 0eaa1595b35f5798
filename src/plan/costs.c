#include "plan/costs.h"

#include "base/error.h"
#include "base/mem.h"
#include "input/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const ks_cost_parts[] = {"products", "attention", "elementwise", "head", "weights", "launches", NULL};
const char *const ks_cost_bounds[] = {"arithmetic", "memory bandwidth", "copies from the host", "latency", NULL};

enum { STATE_PARTS = 3, FULL_PARTS = 2, FAST_PARTS = 1 };

static double ceil_div(double x, double y)
{
    return x > 0 ? ceil(x / y) : 0;
}

static bool tensor_cores(const ks_cost_model *m)
{
    return m->arch->dtype == KS_BF16;
}

/* Products of bf16 that a product of effects takes. */
static int effect_parts(const ks_cost_model *m)
{
    if (!tensor_cores(m)) return 1;
    return m->precision == KS_PRECISION_FAST ? FAST_PARTS : FULL_PARTS;
}

static int state_parts(const ks_cost_model *m)
{
    return tensor_cores(m) ? STATE_PARTS : 1;
}

double ks_cost_peak(const ks_cost_model *m)
{
    return tensor_cores(m) ? m->gpu->bf16 : m->gpu->fp32;
}

double ks_cost_speed(const ks_cost_model *m)
{
    return KS_SHARE_PRODUCTS * ks_cost_peak(m) / effect_parts(m);
}

/* Bytes of a number of a product's operand (bf16 parts, or fp32). */
static double operand_bytes(const ks_cost_model *m, int parts)
{
    return tensor_cores(m) ? 2.0 * parts : 4.0;
}

/* Bytes that a product moves for a weight: f16 is widened first, which reads 2 and writes 4. */
static double weight_bytes(const ks_cost_model *m)
{
    return m->arch->dtype == KS_BF16 ? 2.0 : m->arch->dtype == KS_F16 ? 10.0 : 4.0;
}

static void spend(ks_cost *c, int part, int bound, double seconds)
{
    c->part[part] += seconds;
    c->bound[bound] += seconds;
    c->seconds += seconds;
}

/* An operation, done `times` times: each time `flops` at `rate` and `bytes` of memory. */
static void operation(ks_cost *c, const ks_cost_model *m, int part, double times, double flops, double rate, double bytes)
{
    const double arithmetic = flops / rate, traffic = bytes / (KS_SHARE_BANDWIDTH * m->gpu->bandwidth);
    spend(c, part, arithmetic >= traffic ? KS_BY_ARITHMETIC : KS_BY_MEMORY, times * fmax(arithmetic, traffic));
}

static void launches(ks_cost *c, double n)
{
    spend(c, KS_COST_LAUNCHES, KS_BY_LATENCY, n * KS_LAUNCH_SECONDS);
}

/* rows [rows, K] times a matrix [N, K], in `times` equal chunks, as `parts` products that add up. */
static void product(ks_cost *c, const ks_cost_model *m, int part, int parts, double times, double rows, double K, double N)
{
    if (rows <= 0) return;
    const double M = rows / times, flops = 2 * M * K * N * parts;
    const double bytes = M * K * operand_bytes(m, parts) + parts * K * N * weight_bytes(m) + 4 * M * N * (2 * parts - 1);
    operation(c, m, part, times, flops, KS_SHARE_PRODUCTS * ks_cost_peak(m), bytes);
    c->products += times * flops;
    launches(c, times * parts);
}

static void traffic(ks_cost *c, const ks_cost_model *m, double times, double bytes)
{
    if (bytes <= 0) return;
    operation(c, m, KS_COST_ELEMENTWISE, 1, 0, 1, bytes);
    launches(c, times);
}

typedef struct sizes {
    double D, Q, KV, F, V, H;
} sizes;

static sizes sizes_of(const ks_arch *a)
{
    return (sizes){a->D, (double)a->H * a->E, (double)a->G * a->E, a->F, a->V, a->H};
}

static void attention(ks_cost *c, const ks_cost_model *m, double times, double flops, double bytes)
{
    operation(c, m, KS_COST_ATTENTION, 1, flops, KS_SHARE_KERNELS * m->gpu->fp32, bytes);
    launches(c, times);
}

/* engine.c: trunk_layer. */
static void trunk_layer(ks_cost *c, const ks_cost_model *m, const ks_pass_work *w, int32_t l)
{
    const ks_arch *a = m->arch;
    const sizes s = sizes_of(a);
    const ks_layer_rows *r = &w->trunk[l];
    const int parts = state_parts(m);
    const double ob = operand_bytes(m, parts), N = r->in, n = r->out;
    if (N <= 0) return;
    traffic(c, m, 1, N * s.D * (4 + ob)); /* norm */
    product(c, m, KS_COST_PRODUCTS, parts, 1, N, s.D, s.Q);
    product(c, m, KS_COST_PRODUCTS, parts, 1, N, s.D, s.KV);
    product(c, m, KS_COST_PRODUCTS, parts, 1, N, s.D, s.KV);
    if (a->qkv_bias) traffic(c, m, 3, 8 * N * (s.Q + 2 * s.KV));
    traffic(c, m, 2, 8 * N * (s.Q + s.KV)); /* rotation */
    attention(c, m, 1, 2 * s.Q * r->pairs, 4 * (N * (s.Q + 2 * s.KV) + (double)w->size.logp) + N * s.Q * ob);
    product(c, m, KS_COST_PRODUCTS, parts, 1, n, s.Q, s.D);
    if (a->o_bias) traffic(c, m, 1, 8 * n * s.D);
    traffic(c, m, 2, 2 * 12 * n * s.D);   /* h1 and h2 */
    traffic(c, m, 1, n * s.D * (4 + ob)); /* norm */
    product(c, m, KS_COST_PRODUCTS, parts, 1, n, s.D, s.F);
    if (a->gated) product(c, m, KS_COST_PRODUCTS, parts, 1, n, s.D, s.F);
    if (a->mlp_bias) traffic(c, m, a->gated ? 3 : 2, 8 * n * ((a->gated ? 2 : 1) * s.F + s.D));
    traffic(c, m, 1, n * s.F * ((a->gated ? 8 : 4) + ob)); /* activation */
    product(c, m, KS_COST_PRODUCTS, parts, 1, n, s.F, s.D);
    if (w->size.strengths) launches(c, 1);
}

/* engine.c: branch_layer, over all chunks, and fork_branches. */
static void effects_layer(ks_cost *c, const ks_cost_model *m, const ks_pass_work *w, int32_t l)
{
    const ks_arch *a = m->arch;
    const sizes s = sizes_of(a);
    const ks_layer_rows *r = &w->effects[l];
    const int parts = effect_parts(m);
    const double ob = operand_bytes(m, parts), work = fmax((double)w->size.trunk_rows, (double)w->size.chunk_rows);
    const double n = ceil_div(fmax(r->in, r->out), work); /* chunks */
    if (n > 0) {
        traffic(c, m, n, r->in * s.D * (8 + ob)); /* norm */
        product(c, m, KS_COST_PRODUCTS, parts, n, r->in, s.D, s.KV);
        product(c, m, KS_COST_PRODUCTS, parts, n, r->in, s.D, s.KV);
        traffic(c, m, n, 8 * r->in * s.KV); /* rotation */
        if (r->q < r->in) traffic(c, m, n, 2 * r->q * s.D * ob);
        product(c, m, KS_COST_PRODUCTS, parts, n, r->q, s.D, s.Q);
        traffic(c, m, n, 8 * r->q * s.Q); /* rotation */
        attention(c, m, n, 2 * s.Q * r->pairs,
                  4 * (r->q * s.Q + 2 * r->in * s.KV + r->out * s.Q + 2 * r->keys * s.KV + s.H * r->visible) + r->out * s.Q * ob);
        product(c, m, KS_COST_PRODUCTS, parts, n, r->out, s.Q, s.D);
        traffic(c, m, 2 * n, 2 * 12 * r->out * s.D); /* added to d, twice */
        traffic(c, m, n, r->out * s.D * (8 + ob));   /* norm */
        product(c, m, KS_COST_PRODUCTS, parts, n, r->out, s.D, s.F);
        if (a->gated) product(c, m, KS_COST_PRODUCTS, parts, n, r->out, s.D, s.F);
        traffic(c, m, n, r->out * s.F * ((a->gated ? 16 : 8) + ob)); /* activation */
        product(c, m, KS_COST_PRODUCTS, parts, n, r->out, s.F, s.D);
    }
    traffic(c, m, r->forks, 8 * r->copied * s.D);
}

/* measure.c: one chunk of rows through norm, head and measures; `times` of them. */
static void head(ks_cost *c, const ks_cost_model *m, double times, double rows, double reads, double flops)
{
    const sizes s = sizes_of(m->arch);
    const int parts = state_parts(m);
    if (rows <= 0) return;
    product(c, m, KS_COST_HEAD, parts, times, rows, s.D, s.V);
    operation(c, m, KS_COST_HEAD, 1, flops * rows * s.V, KS_SHARE_KERNELS * m->gpu->fp64, reads * rows * s.V);
    operation(c, m, KS_COST_HEAD, 1, 0, 1, rows * s.D * (8 + operand_bytes(m, parts)));
    launches(c, 2 * times);
    spend(c, KS_COST_LAUNCHES, KS_BY_LATENCY, times * KS_WAIT_SECONDS);
}

/* What a copy of weights takes beyond the computing that goes on beside it, which began when c->seconds was `before`. */
static void copy(ks_cost *c, const ks_cost_model *m, double weights, double before)
{
    const double bytes = weights * (double)ks_dtype_size(m->arch->dtype), seconds = bytes / (KS_SHARE_BANDWIDTH * m->gpu->host);
    c->copied += bytes;
    spend(c, KS_COST_WEIGHTS, KS_BY_HOST, fmax(0, seconds - (c->seconds - before)));
}

void ks_cost_pass(ks_cost *c, const ks_cost_model *m, const ks_pass_work *w, bool cold)
{
    const sizes s = sizes_of(m->arch);
    const double layer = 2 * s.D * (s.Q + s.KV) + (m->arch->gated ? 3 : 2) * s.D * s.F;
    double before = c->seconds; /* of what has been computed since the last copy */
    for (int32_t l = 0; l < m->arch->L; l++) {
        trunk_layer(c, m, w, l);
        effects_layer(c, m, w, l);
        if (!cold && !ks_weights_streams(m->streamed, l, m->arch->L)) continue;
        copy(c, m, layer, before);
        before = c->seconds;
    }
    /* A streamed head is copied for the trunk's rows and for every chunk of measured rows. */
    const double chunks = ceil_div((double)w->size.measured_rows, (double)w->size.measure_chunk);
    before = c->seconds;
    head(c, m, 1, (double)w->size.base_rows, 8, KS_MEASURE_FLOPS / 3); /* logits, read twice */
    if (cold || m->streamed.head) copy(c, m, s.D * s.V, before);
    before = c->seconds;
    head(c, m, chunks, (double)w->size.measured_rows, 24, KS_MEASURE_FLOPS); /* logits and their changes, read three times */
    if (m->streamed.head) copy(c, m, chunks * s.D * s.V, before);
}

/* ---- the work of a pass ---- */

int ks_pass_work_new(ks_pass_work **out, const ks_arch *arch)
{
    int rc = KS_OK;
    ks_pass_work *w = NULL;
    KS_NEW(w, 1);
    KS_NEW(w->trunk, arch->L);
    KS_NEW(w->effects, arch->L);
done:
    if (rc) ks_pass_work_free(w);
    else *out = w;
    return rc;
}

void ks_pass_work_free(ks_pass_work *w)
{
    if (!w) return;
    free(w->trunk);
    free(w->effects);
    free(w);
}

void ks_pass_work_clear(ks_pass_work *w, const ks_arch *arch)
{
    memset(w->trunk, 0, (size_t)arch->L * sizeof *w->trunk);
    memset(w->effects, 0, (size_t)arch->L * sizeof *w->effects);
    w->size = (ks_pass_size){0};
}

int ks_pass_work_add(ks_pass_work *w, const ks_problem *problem, const ks_unit *u)
{
    int rc = KS_OK;
    const ks_geometry *g = problem->geometry[u->sample];
    ks_branches *branches = NULL;
    ks_walk *walk = NULL;
    ks_pass_size_add(&w->size, problem, u);
    ks_trunk_rows(g, u->all_positions ? g->T : 1, w->trunk);
    KS_TRY(ks_unit_branches(&branches, problem, u));
    KS_TRY(ks_walk_new(&walk, g));
    for (size_t i = 0; i < branches->n; i++) {
        const ks_branch *b = &branches->v[i];
        if (b->variant < 0) {
            KS_TRY(ks_walk_rows(walk, -1, KS_POSITIONS_LAST, 0, -1, 0, w->effects));
            continue;
        }
        const ks_variant *v = &problem->grid->variants[b->variant];
        KS_TRY(ks_walk_rows(walk, problem->grid->masks[v->mask].edges, v->positions, v->a, v->b, b->fork, w->effects));
    }
done:
    ks_walk_free(walk);
    ks_branches_free(branches);
    return rc;
}

/* ---- a whole sweep ---- */

typedef struct acting {
    const ks_cost_model *m;
    const ks_problem *problem;
    ks_pass_work *work;
    double *busy; /* [ranks] seconds */
    ks_gpu_forecast *f;
} acting;

static int act_pass(void *ctx, const ks_unit *units, const int32_t *of, size_t n, int rank, double *seconds)
{
    int rc = KS_OK;
    acting *a = ctx;
    ks_cost c = {0};
    ks_pass_work_clear(a->work, a->m->arch);
    for (size_t i = 0; i < n; i++) KS_TRY(ks_pass_work_add(a->work, a->problem, &units[of[i]]));
    ks_cost_pass(&c, a->m, a->work, a->busy[rank] == 0);
    a->busy[rank] += c.seconds;
    if (a->busy[rank] > a->f->busiest) a->f->busiest = a->busy[rank];
    if (c.seconds > a->f->longest.seconds) a->f->longest = c;
    a->f->all.seconds += c.seconds;
    a->f->all.products += c.products;
    a->f->all.copied += c.copied;
    for (int i = 0; i < KS_COST_PARTS; i++) a->f->all.part[i] += c.part[i];
    for (int i = 0; i < KS_COST_BOUNDS; i++) a->f->all.bound[i] += c.bound[i];
    *seconds = c.seconds;
done:
    return rc;
}

void ks_gpu_forecast_free(ks_gpu_forecast *f)
{
    if (!f) return;
    ks_forecast_free(f->forecast);
    free(f);
}

int ks_gpu_forecast_new(ks_gpu_forecast **out, const ks_cost_model *m, const ks_problem *problem, const ks_unit *units, size_t n,
                        int64_t budget, int ranks, const ks_service *service)
{
    int rc = KS_OK;
    acting a = {.m = m, .problem = problem};
    ks_service s = *service;
    double *speed = NULL;
    KS_NEW(a.f, 1);
    KS_NEW(a.busy, ranks);
    KS_NEW(speed, ranks);
    for (int r = 0; r < ranks; r++) speed[r] = ks_cost_speed(m);
    KS_TRY(ks_pass_work_new(&a.work, m->arch));
    s.pass = act_pass;
    s.ctx = &a;
    KS_TRY(ks_forecast_new(&a.f->forecast, problem, units, n, budget, ranks, speed, &s));
done:
    free(speed);
    free(a.busy);
    ks_pass_work_free(a.work);
    if (rc) ks_gpu_forecast_free(a.f);
    else *out = a.f;
    return rc;
}
