#include "sweep/pass.h"

#include "base/error.h"
#include "base/mem.h"
#include "model/rope.h"

#include <stdlib.h>
#include <string.h>

/* Every device array of a pass with its size, so that this and plan.c's ks_pass_bytes can be read side by side. They are parts of one
 * allocation: each large one of its own would waste up to a huge page. */
typedef struct device_array {
    float **p;
    int64_t n;
} device_array;

enum { DEVICE_ARRAYS = 28 };

static void list_arrays(ks_pass *p, device_array out[DEVICE_ARRAYS])
{
    const ks_arch *a = p->a;
    const ks_pass_size *s = &p->size;
    const int64_t D = a->D, Q = (int64_t)a->H * a->E, KV = (int64_t)a->G * a->E, F = a->F, V = a->V;
    const int64_t N = s->trunk_rows, gate = a->gated ? F : 0, mean = a->norm == KS_NORM_LAYER ? N : 0;
    const device_array all[DEVICE_ARRAYS] = {
        {&p->h, N * D},
        {&p->h1, N * D},
        {&p->h2, N * D},
        {&p->cos_t, N * (a->rope.dim / 2)},
        {&p->sin_t, N * (a->rope.dim / 2)},
        {&p->tape1.mean, mean},
        {&p->tape1.inv_rms, N},
        {&p->tape2.mean, mean},
        {&p->tape2.inv_rms, N},
        {&p->q, N * Q},
        {&p->k, N * KV},
        {&p->v, N * KV},
        {&p->logp, s->logp},
        {&p->g, N * gate},
        {&p->u, N * F},
        {&p->d, s->branch_rows * D},
        {&p->x, p->work * D},
        {&p->t, p->work * D},
        {&p->dq, p->work * Q},
        {&p->da, p->work * Q},
        {&p->dk, p->work * KV},
        {&p->dv, p->work * KV},
        {&p->dg, p->work * gate},
        {&p->du, p->work * F},
        {&p->xb, s->base_rows * D},
        {&p->logits, s->base_rows * V},
        {&p->xe, s->measure_chunk * D},
        {&p->e, s->measure_chunk * V},
    };
    memcpy(out, all, sizeof all);
}

void ks_pass_free(ks_pass *p)
{
    if (!p) return;
    if (p->arena) p->job->backend->free(p->job->device, p->arena);
    for (size_t i = 0; p->units && i < p->n_units; i++) {
        ks_branches_free(p->units[i].branches);
        free(p->units[i].strength);
    }
    for (size_t i = 0; p->branches && i < p->n_branches; i++) {
        free(p->branches[i].slot);
        free(p->branches[i].set);
    }
    free(p->units);
    free(p->branches);
    free(p->trunk_row);
    free(p->base_of);
    free(p->base_trunk);
    free(p->index);
    free(p->pos);
    free(p->items);
    free(p->trunk_items);
    free(p);
}

/* Sizes of the pass, and each unit's place in it. */
static int place_units(ks_pass *p, const ks_unit *units)
{
    int rc = KS_OK;
    const ks_problem *problem = p->job->problem;
    for (size_t i = 0; i < p->n_units; i++) {
        pass_unit *u = &p->units[i];
        u->unit = &units[i];
        u->g = problem->geometry[units[i].sample];
        u->tokens = &p->job->tokens[units[i].sample];
        u->all_positions = u->unit->all_positions;
        u->item = (ks_attention_item){p->size.trunk_rows, u->g->T, p->size.logp};
        u->base_row = p->size.base_rows;
        if (u->unit->first) KS_NEW(u->strength, (size_t)p->a->L * (size_t)p->a->H);
        KS_TRY(ks_unit_branches(&u->branches, problem, u->unit));
        KS_REQUIRE(u->branches->n == (size_t)u->unit->branches, KS_EMACHINE,
                   "sample %s, variants %d to %d: the plan has %d branches, this rank %zu: do all ranks run the same kosweep?",
                   problem->names[u->unit->sample], u->unit->v0, u->unit->v1 - 1, u->unit->branches, u->branches->n);
        ks_pass_size_add(&p->size, problem, u->unit);
        p->n_branches += u->branches->n;
    }
done:
    return rc;
}

static int place_branches(ks_pass *p)
{
    int rc = KS_OK;
    int64_t next = 0;
    size_t n = 0;
    KS_NEW(p->branches, p->n_branches);
    for (size_t i = 0; i < p->n_units; i++) {
        const pass_unit *u = &p->units[i];
        for (size_t j = 0; j < u->branches->n; j++) {
            pass_branch *b = &p->branches[n++];
            b->b = &u->branches->v[j];
            b->unit = (int32_t)i;
            KS_NEW(b->slot, u->g->T);
            KS_NEW(b->set, u->g->words);
            for (int32_t t = 0; t < u->g->T; t++) b->slot[t] = ks_set_has(u->branches->held + j * u->g->words, t) ? next++ : -1;
        }
    }
done:
    return rc;
}

static int make_host_arrays(ks_pass *p)
{
    int rc = KS_OK;
    KS_NEW(p->trunk_row, p->size.trunk_rows);
    KS_NEW(p->base_of, p->size.trunk_rows);
    KS_NEW(p->base_trunk, p->size.base_rows);
    KS_NEW(p->index, 7 * p->work);
    KS_NEW(p->pos, 2 * p->work);
    KS_NEW(p->items, p->n_branches);
    KS_NEW(p->trunk_items, p->n_units);
    for (size_t i = 0; i < p->n_units; i++) {
        const pass_unit *u = &p->units[i];
        const int64_t row0 = u->item.row0;
        p->trunk_items[i] = u->item;
        for (int32_t t = 0; t < u->g->T; t++) {
            p->trunk_row[row0 + t] = row0 + t;
            const bool measured = u->all_positions || t == u->g->T - 1;
            p->base_of[row0 + t] = measured ? u->base_row + (u->all_positions ? t : 0) : -1;
            if (measured) p->base_trunk[p->base_of[row0 + t]] = row0 + t;
        }
    }
done:
    return rc;
}

static int make_device_arrays(ks_pass *p)
{
    int rc = KS_OK;
    enum { ALIGN = 16 }; /* floats: a cache line */
    device_array arrays[DEVICE_ARRAYS];
    int64_t total = 0;
    list_arrays(p, arrays);
    for (size_t i = 0; i < DEVICE_ARRAYS; i++) total += (arrays[i].n + ALIGN - 1) / ALIGN * ALIGN;
    KS_TRY(p->job->backend->alloc(p->job->device, &p->arena, (size_t)total));
    float *next = p->arena;
    for (size_t i = 0; i < DEVICE_ARRAYS; i++) {
        if (arrays[i].n) *arrays[i].p = next;
        next += (arrays[i].n + ALIGN - 1) / ALIGN * ALIGN;
    }
done:
    return rc;
}

/* Each sample has tables of its own: their values may depend on its length. */
static int upload_rope(ks_pass *p)
{
    int rc = KS_OK;
    const size_t half = (size_t)p->a->rope.dim / 2, n = (size_t)p->size.trunk_rows * half;
    float *tables = NULL;
    KS_NEW(tables, 2 * n);
    for (size_t i = 0; i < p->n_units; i++) {
        const size_t at = (size_t)p->units[i].item.row0 * half;
        KS_TRY(ks_rope_tables(p->a, p->units[i].g->T, tables + at, tables + n + at));
    }
    KS_TRY(p->job->backend->upload(p->job->device, p->cos_t, tables, n));
    KS_TRY(p->job->backend->upload(p->job->device, p->sin_t, tables + n, n));
done:
    free(tables);
    return rc;
}

int ks_pass_new(ks_pass **out, const ks_job *job, const ks_unit *units, size_t n, const ks_sink *sink)
{
    int rc = KS_OK;
    ks_pass *p = NULL;
    KS_NEW(p, 1);
    p->job = job;
    p->a = job->problem->arch;
    p->sink = sink;
    p->grade = job->precision == KS_PRECISION_FAST ? KS_GRADE_FAST : KS_GRADE_FULL;
    KS_NEW(p->units, n);
    p->n_units = n;
    KS_TRY(place_units(p, units));
    p->work = p->size.trunk_rows > p->size.chunk_rows ? p->size.trunk_rows : p->size.chunk_rows;
    KS_TRY(place_branches(p));
    KS_TRY(make_host_arrays(p));
    KS_TRY(make_device_arrays(p));
    KS_TRY(upload_rope(p));
done:
    if (rc) ks_pass_free(p);
    else *out = p;
    return rc;
}
