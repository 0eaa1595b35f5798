#include "sweep/pass.h"

#include "base/error.h"
#include "base/mem.h"
#include "model/rope.h"

#include <stdlib.h>
#include <string.h>

/* Every device array of a pass with its bytes, so that this and plan.c's ks_pass_bytes can be read side by side. They are parts of one
 * allocation: each large one of its own would waste up to a huge page. */
typedef struct device_array {
    float **p;
    int64_t bytes;
} device_array;

enum { DEVICE_ARRAYS = 30 };

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void list_arrays(ks_pass *p, device_array out[DEVICE_ARRAYS])
{
    const ks_arch *a = p->a;
    const ks_pass_size *s = &p->size;
    const int64_t D = a->D, Q = (int64_t)a->H * a->E, KV = (int64_t)a->G * a->E, F = a->F, V = a->V;
    const int64_t N = s->trunk_rows, C = s->chunk_rows, gate = a->gated ? F : 0, mean = a->norm == KS_NORM_LAYER ? N : 0;
    const int64_t state = (int64_t)ks_form_bytes(p->forms.state), effect = (int64_t)ks_form_bytes(p->forms.effect),
                  head = (int64_t)ks_form_bytes(p->forms.head), operand = larger(N * state, C * effect);
    const bool in_place = p->forms.effect == KS_FORM_F32; /* the MLP's activation */
    const device_array all[DEVICE_ARRAYS] = {
        {&p->h, 4 * N * D},
        {&p->h1, 4 * N * D},
        {&p->h2, 4 * N * D},
        {&p->cos_t, 4 * N * (a->rope.dim / 2)},
        {&p->sin_t, 4 * N * (a->rope.dim / 2)},
        {&p->tape1.mean, 4 * mean},
        {&p->tape1.inv_rms, 4 * N},
        {&p->tape2.mean, 4 * mean},
        {&p->tape2.inv_rms, 4 * N},
        {&p->q, 4 * N * Q},
        {&p->k, 4 * N * KV},
        {&p->v, 4 * N * KV},
        {&p->logp, 4 * s->logp},
        {&p->strength, 8 * s->strengths * a->L * a->H},
        {&p->g, 4 * N * gate},
        {&p->u, 4 * N * F},
        {&p->d, 4 * s->branch_rows * D},
        {&p->x, operand * D},
        {&p->y, operand * Q},
        {&p->t, 4 * p->work * D},
        {&p->dq, larger(4 * C, s->base_rows * state) * Q},
        {&p->dk, 4 * C * KV},
        {&p->dv, 4 * C * KV},
        {&p->dg, 4 * C * gate},
        {&p->du, (in_place ? operand : 4 * C) * F},
        {&p->m, in_place ? 0 : operand * F},
        {&p->xb, head * s->base_rows * D},
        {&p->logits, 4 * s->base_rows * V},
        {&p->xe, head * s->measure_chunk * D},
        {&p->e, 4 * s->measure_chunk * V},
    };
    memcpy(out, all, sizeof all);
}

ks_forms ks_forms_of(const ks_backend *be, const ks_model *m, int precision)
{
    const ks_arch *a = ks_model_arch(m);
    const int grade = precision == KS_PRECISION_FAST ? KS_GRADE_FAST : KS_GRADE_FULL;
    ks_forms f = {be->form(a->dtype, KS_GRADE_STATE), be->form(a->dtype, grade), be->form(ks_model_head(m).dtype, KS_GRADE_STATE)};
    for (int32_t l = 0; l < a->L; l++) {
        const ks_layer *w = ks_model_layer(m, l);
        const ks_tensor *all[] = {&w->q, &w->k, &w->v, &w->o, &w->gate, &w->up, &w->down};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            if (all[i]->data && all[i]->dtype != a->dtype) f.state = f.effect = KS_FORM_F32;
    }
    return f;
}

void ks_pass_free(ks_pass *p)
{
    if (!p) return;
    if (p->arena) p->job->backend->free(p->job->device, p->arena);
    for (size_t i = 0; p->units && i < p->n_units; i++) ks_branches_free(p->units[i].branches);
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
    free(p->edges);
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
        u->strength = u->unit->first ? p->size.strengths : -1;
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
    KS_NEW(p->edges, p->n_units);
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
    enum { ALIGN = 64 }; /* bytes: a cache line */
    device_array arrays[DEVICE_ARRAYS];
    int64_t total = 0;
    list_arrays(p, arrays);
    for (size_t i = 0; i < DEVICE_ARRAYS; i++) total += (arrays[i].bytes + ALIGN - 1) / ALIGN * ALIGN;
    KS_TRY(p->job->backend->alloc(p->job->device, &p->arena, (size_t)total / sizeof *p->arena));
    float *next = p->arena;
    for (size_t i = 0; i < DEVICE_ARRAYS; i++) {
        if (arrays[i].bytes) *arrays[i].p = next;
        next += (arrays[i].bytes + ALIGN - 1) / ALIGN * ALIGN / (int64_t)sizeof *next;
    }
    if (!p->m) p->m = p->du;
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
    p->forms = ks_forms_of(job->backend, job->model, job->precision);
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
