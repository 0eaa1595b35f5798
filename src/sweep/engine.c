#include "sweep/engine.h"

#include "base/error.h"
#include "base/mem.h"
#include "sweep/pass.h"

#include <string.h>

/* The lists of one chunk of branches in one layer; each points into the pass's scratch. "slot" rows are rows of d, "trunk" rows
 * the trunk's. in: rows that differ at entry. q: those of them that are also wanted at exit. out: rows wanted at exit. */
typedef struct chunk {
    size_t last; /* branches before it are done */
    size_t n_items;
    int64_t *in_slot, *in_trunk, *q_in, *q_trunk, *out_slot, *out_trunk, *out_mlp;
    int64_t n_in, n_q, n_out;
} chunk;

static ks_norm norm_of(const ks_arch *a, const float *weight, const float *bias)
{
    return (ks_norm){a->norm, a->norm_eps, weight, bias};
}

static ks_attention attention_of(const ks_arch *a, int32_t l)
{
    return (ks_attention){a->H, a->G, a->E, a->window[l], a->attn_scale};
}

/* One layer of the trunk: h -> h1 -> h2, and all that branches need of it. In the last layer only measured rows go on to projection
 * and MLP, and have h1 and h2. */
static int trunk_layer(ks_pass *p, const ks_layer *w)
{
    int rc = KS_OK;
    const ks_backend *be = p->job->backend;
    ks_device *dev = p->job->device;
    const ks_arch *a = p->a;
    const size_t N = (size_t)p->size.trunk_rows, D = (size_t)a->D, E = (size_t)a->E, F = (size_t)a->F;
    const size_t Q = (size_t)a->H * E, KV = (size_t)a->G * E, rot = (size_t)a->rope.dim;
    const int64_t *rows = p->layer == a->L - 1 ? p->base_trunk : NULL;
    const size_t n = rows ? (size_t)p->size.base_rows : N;
    const int form = p->forms.state;
    const ks_norm n1 = norm_of(a, w->norm1, w->norm1_bias), n2 = norm_of(a, w->norm2, w->norm2_bias);
    const ks_attention at = attention_of(a, p->layer);

    KS_TRY(be->norm(dev, p->x, form, &p->tape1, p->h, NULL, N, D, &n1));
    KS_TRY(be->linear(dev, p->q, Q, p->x, form, &w->q, w->q_bias, N, KS_GRADE_STATE));
    KS_TRY(be->linear(dev, p->k, KV, p->x, form, &w->k, w->k_bias, N, KS_GRADE_STATE));
    KS_TRY(be->linear(dev, p->v, KV, p->x, form, &w->v, w->v_bias, N, KS_GRADE_STATE));
    KS_TRY(be->rope(dev, p->q, N, (size_t)a->H, E, rot, p->cos_t, p->sin_t, p->trunk_row));
    KS_TRY(be->rope(dev, p->k, N, (size_t)a->G, E, rot, p->cos_t, p->sin_t, p->trunk_row));
    KS_TRY(be->attention(dev, p->y, form, p->logp, p->q, p->k, p->v, p->trunk_items, p->n_units, &at));
    if (rows) KS_TRY(be->gather(dev, p->dq, p->y, rows, n, Q * ks_form_bytes(form)));
    KS_TRY(be->linear(dev, p->t, D, rows ? p->dq : p->y, form, &w->o, w->o_bias, n, KS_GRADE_STATE));
    KS_TRY(be->add(dev, p->h1, p->h, p->t, rows, n, D));

    KS_TRY(be->norm(dev, p->x, form, &p->tape2, p->h1, rows, n, D, &n2));
    if (a->gated) KS_TRY(be->linear(dev, p->g, F, p->x, form, &w->gate, w->gate_bias, n, KS_GRADE_STATE));
    KS_TRY(be->linear(dev, p->u, F, p->x, form, &w->up, w->up_bias, n, KS_GRADE_STATE));
    KS_TRY(be->activate(dev, p->m, form, a->gated ? p->g : NULL, p->u, n, F, a->act));
    KS_TRY(be->linear(dev, p->t, D, p->m, form, &w->down, w->down_bias, n, KS_GRADE_STATE));
    KS_TRY(be->add(dev, p->h2, p->h1, p->t, rows, n, D));
done:
    return rc;
}

/* Baseline weight marker -> targets in this layer, per head. */
static int attention_strength(ks_pass *p)
{
    const ks_attention at = attention_of(p->a, p->layer);
    int32_t *next = p->pos; /* a sample has no more markers and no more targets than tokens: both fit */
    size_t n = 0;
    for (size_t i = 0; i < p->n_units; i++) {
        const pass_unit *u = &p->units[i];
        if (u->strength < 0) continue;
        ks_edge_item *e = &p->edges[n++];
        *e = (ks_edge_item){.trunk = u->item, .to = (size_t)u->strength * (size_t)p->a->L + (size_t)p->layer};
        e->queries = next;
        for (int32_t t = 0; t < u->g->T; t++)
            if (u->tokens->marker[t]) next[e->n_queries++] = t;
        e->keys = next += e->n_queries;
        for (int32_t t = 0; t < u->g->T; t++)
            if (u->tokens->target[t]) next[e->n_keys++] = t;
        next += e->n_keys;
    }
    return p->job->backend->edge_weights(p->job->device, (double *)(void *)p->strength, p->logp, p->edges, n, &at);
}

static bool mask_on(const ks_pass *p, const pass_branch *b)
{
    return p->layer <= b->b->mask_end;
}

/* Lays the next chunk of branches out: as many whole branches as fit the scratch. Advances each branch's row set to the layer's exit. */
static void make_chunk(ks_pass *p, chunk *c)
{
    int64_t *list = p->index;
    int64_t **lists[7] = {&c->in_slot, &c->in_trunk, &c->q_in, &c->q_trunk, &c->out_slot, &c->out_trunk, &c->out_mlp};
    for (size_t i = 0; i < 7; i++, list += p->work) *lists[i] = list;
    c->n_in = c->n_q = c->n_out = 0;
    c->n_items = 0;
    const bool last_layer = p->layer == p->a->L - 1;

    for (; c->last < p->n_branches; c->last++) {
        pass_branch *b = &p->branches[c->last];
        if (p->layer < b->b->fork) continue;
        const pass_unit *u = &p->units[b->unit];
        int32_t *in_pos = p->pos + c->n_in, *out_pos = p->pos + p->work + c->n_out;
        if (c->n_in + b->b->n_pos > p->size.chunk_rows || c->n_out + b->b->n_pos > p->size.chunk_rows) break;

        ks_branch_item *item = &p->items[c->n_items];
        *item = (ks_branch_item){
            .trunk = u->item, .in_pos = in_pos, .in_row = c->n_in, .out_pos = out_pos, .out_row = c->n_out, .q_row = c->n_q};
        item->n_in = ks_set_list(b->set, u->g->T, in_pos);
        const bool on = mask_on(p, b);
        if (on) {
            const ks_mask *m = &p->job->problem->grid->masks[p->job->problem->grid->variants[b->b->variant].mask];
            item->edges = &u->g->edges[m->edges];
            item->kind = m->kind;
            item->value = m->value;
            item->heads = m->heads;
        }
        ks_rows_step(u->g, on ? b->b->edges : -1, b->b->positions, p->layer, b->set);
        item->n_out = ks_set_list(b->set, u->g->T, out_pos);
        if (item->n_out == 0) continue; /* nothing changed yet, or nothing that is needed any more */

        for (int32_t i = 0; i < item->n_in; i++) {
            const int64_t row = c->n_in + i;
            c->in_slot[row] = b->slot[in_pos[i]];
            c->in_trunk[row] = u->item.row0 + in_pos[i];
            if (!ks_set_has(b->set, in_pos[i])) continue;
            c->q_in[c->n_q] = row;
            c->q_trunk[c->n_q++] = c->in_trunk[row];
        }
        for (int32_t i = 0; i < item->n_out; i++) {
            const int64_t row = c->n_out + i;
            c->out_slot[row] = b->slot[out_pos[i]];
            c->out_trunk[row] = u->item.row0 + out_pos[i];
            c->out_mlp[row] = last_layer ? p->base_of[c->out_trunk[row]] : c->out_trunk[row];
        }
        c->n_in += item->n_in;
        c->n_out += item->n_out;
        c->n_items++;
    }
}

/* One layer of a chunk of branches, beside the trunk. */
static int branch_layer(ks_pass *p, const ks_layer *w, const chunk *c)
{
    int rc = KS_OK;
    const ks_backend *be = p->job->backend;
    ks_device *dev = p->job->device;
    const ks_arch *a = p->a;
    const size_t D = (size_t)a->D, E = (size_t)a->E, F = (size_t)a->F, Q = (size_t)a->H * E, KV = (size_t)a->G * E,
                 rot = (size_t)a->rope.dim;
    const int form = p->forms.effect; /* of no more than 4 bytes */
    const size_t n_in = (size_t)c->n_in, n_q = (size_t)c->n_q, n_out = (size_t)c->n_out;
    const ks_norm n1 = norm_of(a, w->norm1, NULL), n2 = norm_of(a, w->norm2, NULL);
    const ks_attention at = attention_of(a, p->layer);

    if (n_in) {
        KS_TRY(be->norm_diff(dev, p->x, form, p->d, c->in_slot, p->h, &p->tape1, c->in_trunk, n_in, D, &n1));
        KS_TRY(be->linear(dev, p->dk, KV, p->x, form, &w->k, NULL, n_in, p->grade));
        KS_TRY(be->linear(dev, p->dv, KV, p->x, form, &w->v, NULL, n_in, p->grade));
        KS_TRY(be->rope(dev, p->dk, n_in, (size_t)a->G, E, rot, p->cos_t, p->sin_t, c->in_trunk));
    }
    if (n_q) {
        float *xq = p->x;
        if (n_q < n_in) KS_TRY(be->gather(dev, xq = p->t, p->x, c->q_in, n_q, D * ks_form_bytes(form)));
        KS_TRY(be->linear(dev, p->dq, Q, xq, form, &w->q, NULL, n_q, p->grade));
        KS_TRY(be->rope(dev, p->dq, n_q, (size_t)a->H, E, rot, p->cos_t, p->sin_t, c->q_trunk));
    }
    KS_TRY(be->attention_diff(dev, p->y, form, p->dq, p->dk, p->dv, p->q, p->k, p->v, p->logp, p->items, c->n_items, &at));
    KS_TRY(be->linear(dev, p->t, D, p->y, form, &w->o, NULL, n_out, p->grade));
    KS_TRY(be->add(dev, p->d, p->d, p->t, c->out_slot, n_out, D));

    KS_TRY(be->norm_diff(dev, p->x, form, p->d, c->out_slot, p->h1, &p->tape2, c->out_trunk, n_out, D, &n2));
    if (a->gated) KS_TRY(be->linear(dev, p->dg, F, p->x, form, &w->gate, NULL, n_out, p->grade));
    KS_TRY(be->linear(dev, p->du, F, p->x, form, &w->up, NULL, n_out, p->grade));
    KS_TRY(be->activate_diff(dev, p->m, form, a->gated ? p->dg : NULL, p->du, a->gated ? p->g : NULL, p->u, c->out_mlp, n_out, F, a->act));
    KS_TRY(be->linear(dev, p->t, D, p->m, form, &w->down, NULL, n_out, p->grade));
    KS_TRY(be->add(dev, p->d, p->d, p->t, c->out_slot, n_out, D));
done:
    return rc;
}

/* Floor branches round the residual stream: d becomes bf16(x + d) - x in the rows of their set. x: the trunk's state. */
static int round_floor(ks_pass *p, const float *x)
{
    int rc = KS_OK;
    int64_t *slot = p->index, *trunk = p->index + p->work;
    for (size_t i = 0; i < p->n_branches; i++) {
        const pass_branch *b = &p->branches[i];
        if (b->b->variant >= 0) continue;
        const pass_unit *u = &p->units[b->unit];
        const int32_t n = ks_set_list(b->set, u->g->T, p->pos);
        for (int32_t j = 0; j < n; j++) {
            slot[j] = b->slot[p->pos[j]];
            trunk[j] = u->item.row0 + p->pos[j];
        }
        KS_TRY(p->job->backend->round_diff(p->job->device, p->d, slot, x, trunk, (size_t)n, (size_t)p->a->D));
    }
done:
    return rc;
}

/* Branches that fork from a leader behind this layer take over its rows. */
static int fork_branches(ks_pass *p)
{
    int rc = KS_OK;
    const size_t D = (size_t)p->a->D;
    size_t first = 0; /* of the unit, to find the leader */
    for (size_t i = 0; i < p->n_branches; i++) {
        pass_branch *b = &p->branches[i];
        if (i && p->branches[i - 1].unit != b->unit) first = i;
        const pass_branch *leader = &p->branches[first + (size_t)b->b->leader];
        if (leader == b || b->b->fork != p->layer + 1) continue;
        const pass_unit *u = &p->units[b->unit];
        memcpy(b->set, leader->set, u->g->words * sizeof *b->set);
        for (int32_t t = 0; t < u->g->T;) {
            int32_t n = 0; /* a run of rows that lie side by side in both */
            while (t + n < u->g->T && ks_set_has(b->set, t + n) && b->slot[t + n] == b->slot[t] + n &&
                   leader->slot[t + n] == leader->slot[t] + n)
                n++;
            if (n)
                KS_TRY(p->job->backend->copy(p->job->device, p->d + (size_t)b->slot[t] * D, p->d + (size_t)leader->slot[t] * D,
                                             (size_t)n * D));
            t += n ? n : 1;
        }
    }
done:
    return rc;
}

static int run_layer(ks_pass *p)
{
    int rc = KS_OK;
    ks_layer w;
    KS_TRY(ks_supply_layer(&p->supply, &w));
    KS_TRY(trunk_layer(p, &w));
    KS_TRY(attention_strength(p));
    chunk c = {0};
    while (c.last < p->n_branches) {
        make_chunk(p, &c);
        if (c.n_items) KS_TRY(branch_layer(p, &w, &c));
    }
    KS_TRY(round_floor(p, p->h2));
    KS_TRY(fork_branches(p));
    KS_TRY(ks_supply_queued(&p->supply, false));
    float *old = p->h;
    p->h = p->h2;
    p->h2 = old;
done:
    return rc;
}

/* Embeds every sample; d = 0, and the floor's branches begin with the rounding of the embedding. */
static int begin(ks_pass *p)
{
    int rc = KS_OK;
    const ks_tensor embedding = ks_model_embedding(p->job->model);
    const size_t D = (size_t)p->a->D;
    if (p->size.branch_rows) KS_TRY(p->job->backend->zero(p->job->device, p->d, (size_t)p->size.branch_rows * D));
    for (size_t i = 0; i < p->n_units; i++) {
        const pass_unit *u = &p->units[i];
        KS_TRY(p->job->backend->embed(p->job->device, p->h + (size_t)u->item.row0 * D, &embedding, u->tokens->ids, (size_t)u->g->T,
                                      p->a->embed_scale));
    }
    for (size_t i = 0; i < p->n_branches; i++)
        for (int32_t t = 0; p->branches[i].b->variant < 0 && t < p->units[p->branches[i].unit].g->T; t++) ks_set_add(p->branches[i].set, t);
    KS_TRY(round_floor(p, p->h));
done:
    return rc;
}

int ks_engine_pass(const ks_job *job, const ks_unit *units, size_t n, const ks_sink *sink)
{
    int rc = KS_OK;
    ks_pass *p = NULL;
    KS_TRY(ks_pass_new(&p, job, units, n, sink));
    KS_TRY(ks_supply_begin(&p->supply, job->backend, job->device, job->weights, job->shards));
    KS_TRY(begin(p));
    for (p->layer = 0; p->layer < p->a->L; p->layer++) {
        KS_TRY(run_layer(p));
        if (sink->progress) KS_TRY(sink->progress(sink->ctx, (p->layer + 1.0) / (p->a->L + 1.0)));
    }
    KS_TRY(ks_pass_measure(p));
done:
    if (p) ks_supply_end(&p->supply);
    ks_pass_free(p);
    return rc;
}
