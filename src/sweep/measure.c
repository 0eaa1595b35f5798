/* The end of a pass: final norm, head, measures, and the cells that they make. */
#include "base/error.h"
#include "base/mem.h"
#include "sweep/pass.h"

#include <math.h>
#include <stdlib.h>

/* One measured row of a branch. */
typedef struct measured {
    int32_t branch, pos;
} measured;

static int64_t base_row_of(const pass_unit *u, int32_t pos)
{
    return u->base_row + (u->all_positions ? pos : 0);
}

/* y [n, V] = x [n, D] through the head, block by block. more: this is not the last time. */
static int head(ks_pass *p, float *y, const void *x, size_t n, bool more)
{
    int rc = KS_OK;
    for (int32_t b = 0; b < ks_weights_head_blocks(p->job->weights); b++) {
        ks_tensor rows;
        int64_t first = 0;
        KS_TRY(ks_supply_head(&p->supply, &rows, &first));
        KS_TRY(p->job->backend->linear(p->job->device, y + first, (size_t)p->a->V, x, p->forms.head, &rows, NULL, n, KS_GRADE_STATE));
        KS_TRY(ks_supply_queued(&p->supply, more));
    }
done:
    return rc;
}

/* Logits of the trunk's measured rows and their facts base [base_rows]. */
static int baselines(ks_pass *p, const ks_norm *norm, ks_baseline_row *base, bool more)
{
    int rc = KS_OK;
    const ks_backend *be = p->job->backend;
    const size_t n = (size_t)p->size.base_rows, D = (size_t)p->a->D, V = (size_t)p->a->V;
    KS_TRY(be->norm(p->job->device, p->xb, p->forms.head, &p->tape1, p->h, p->base_trunk, n, D, norm));
    KS_TRY(head(p, p->logits, p->xb, n, more));
    KS_TRY(be->baseline(p->job->device, base, p->logits, n, V));
    for (size_t i = 0; i < p->n_units; i++)
        for (int32_t t = 0; t < p->units[i].g->T; t++) {
            const int64_t row = p->base_of[p->units[i].item.row0 + t];
            KS_REQUIRE(row < 0 || base[row].finite, KS_EINPUT, "the baseline of sample %s is not finite at token %d",
                       p->job->problem->names[p->units[i].unit->sample], t);
        }
done:
    return rc;
}

/* Measures of all rows, a chunk at a time. */
static int measure_rows(ks_pass *p, const ks_norm *norm, const ks_baseline_row *base, const measured *rows, size_t n, ks_measure *out)
{
    int rc = KS_OK;
    const ks_backend *be = p->job->backend;
    const size_t step = (size_t)p->size.measure_chunk, D = (size_t)p->a->D, V = (size_t)p->a->V;
    ks_measure_item *items = NULL;
    int64_t *d_rows = NULL, *x_rows = NULL;
    KS_NEW(items, step);
    KS_NEW(d_rows, step);
    KS_NEW(x_rows, step);
    for (size_t i0 = 0; i0 < n; i0 += step) {
        const size_t m = n - i0 < step ? n - i0 : step;
        for (size_t i = 0; i < m; i++) {
            const measured *r = &rows[i0 + i];
            const pass_branch *b = &p->branches[r->branch];
            const pass_unit *u = &p->units[b->unit];
            const bool at_end = r->pos == u->g->T - 1;
            d_rows[i] = b->slot[r->pos];
            x_rows[i] = u->item.row0 + r->pos;
            items[i] = (ks_measure_item){base_row_of(u, r->pos), at_end ? -1 : u->tokens->ids[r->pos + 1], at_end};
        }
        KS_TRY(be->norm_diff(p->job->device, p->xe, p->forms.head, p->d, d_rows, p->h, &p->tape1, x_rows, m, D, norm));
        /* The head's operand is never rounded: its few rows cost little, and an error here is an error of the measure itself. */
        KS_TRY(head(p, p->e, p->xe, m, i0 + step < n));
        KS_TRY(be->measure(p->job->device, out + i0, p->e, p->logits, base, items, m, V));
    }
done:
    free(items);
    free(d_rows);
    free(x_rows);
    return rc;
}

/* A cell that nothing reaches: every effect exactly 0. */
static ks_cell unchanged_cell(const ks_baseline_row *base, int status)
{
    ks_cell c = {.status = (uint8_t)status, .p_top = base->top_p[0]};
    for (int k = 0; k < KS_TOP_K; k++) {
        c.top_ids[k] = base->top_ids[k];
        c.top_p_baseline[k] = c.top_p_ablated[k] = base->top_p[k];
    }
    return c;
}

static ks_cell unknown_cell(void)
{
    ks_cell c = {.status = KS_CELL_NOT_FINITE, .kl = NAN, .kl_reverse = NAN, .js = NAN, .tv = NAN, .p_top = NAN, .dlogit_top = NAN};
    for (int k = 0; k < KS_TOP_K; k++) {
        c.top_ids[k] = -1;
        c.top_p_baseline[k] = c.top_p_ablated[k] = NAN;
    }
    return c;
}

/* First position with an edge in any layer of the variant. */
static int32_t first_masked(const ks_geometry *g, int32_t edges, const ks_variant *v)
{
    for (int32_t t = 0; t < g->T; t++)
        for (int32_t l = v->a; l <= v->b; l++)
            if (ks_set_has(g->masked[edges] + (size_t)l * g->words, t)) return t;
    return g->T;
}

/* Positions from the first masked one on that the effect does not reach: their logits change by exactly 0, which is measured as any other
 * change is. */
static int unchanged_positions(ks_pass *p, const pass_branch *b, const ks_variant *v, const ks_baseline_row *base, ks_position_cell *out)
{
    int rc = KS_OK;
    const ks_backend *be = p->job->backend;
    const pass_unit *u = &p->units[b->unit];
    const size_t V = (size_t)p->a->V;
    bool zeroed = false;
    for (int32_t t = first_masked(u->g, b->b->edges, v); t < u->g->T; t++) {
        if (ks_set_has(b->set, t)) continue;
        if (!zeroed) KS_TRY(be->zero(p->job->device, p->e, V));
        zeroed = true;
        const ks_measure_item item = {base_row_of(u, t), t + 1 < u->g->T ? u->tokens->ids[t + 1] : -1, false};
        ks_measure m;
        KS_TRY(be->measure(p->job->device, &m, p->e, p->logits, base, &item, 1, V));
        out[t] = (ks_position_cell){m.cell.kl, m.dlogit_next, m.p_next};
    }
done:
    return rc;
}

/* The unit's branch at `branch` if it computes this variant, else NULL. */
static const pass_branch *branch_of(const ks_pass *p, const pass_unit *u, size_t branch, int32_t variant)
{
    const pass_branch *b = branch < p->n_branches ? &p->branches[branch] : NULL;
    return b && &p->units[b->unit] == u && b->b->variant == variant ? b : NULL;
}

/* The cells of a unit. Its branches are first .. ; rows and results run along in the same order. */
static int emit_cells(ks_pass *p, const pass_unit *u, size_t *branch, size_t *row, const measured *rows, size_t n_rows, const ks_measure *m,
                      const ks_baseline_row *base, double *floor)
{
    int rc = KS_OK;
    const ks_grid *grid = p->job->problem->grid;
    const uint64_t *done = ks_problem_done(p->job->problem, u->unit->sample);
    const ks_baseline_row *end = &base[base_row_of(u, u->g->T - 1)];
    ks_position_cell *positions = NULL;
    KS_NEW(positions, u->g->T);
    *floor = NAN;
    if (branch_of(p, u, *branch, -1)) {
        *floor = m[*row].cell.kl;
        ++*row;
        ++*branch;
    }
    for (int32_t v = u->unit->v0; v < u->unit->v1; v++) {
        if (done && ks_set_has(done, v)) continue;
        const ks_variant *variant = &grid->variants[v];
        const ks_mask *mask = &grid->masks[variant->mask];
        const bool all = variant->positions == KS_POSITIONS_ALL;
        const int status = ks_rows_status(u->g, mask, variant);
        ks_cell cell = status == KS_CELL_NOT_FINITE ? unknown_cell() : unchanged_cell(end, status);
        for (int32_t t = 0; all && t < u->g->T; t++) positions[t] = (ks_position_cell){NAN, NAN, NAN};
        const pass_branch *b = branch_of(p, u, *branch, v);
        if (b) {
            for (; *row < n_rows && rows[*row].branch == (int32_t)*branch; ++*row) {
                const int32_t t = rows[*row].pos;
                const ks_measure *r = &m[*row];
                if (all) positions[t] = (ks_position_cell){r->cell.kl, r->dlogit_next, r->p_next};
                if (t < u->g->T - 1) continue;
                cell = r->cell;
                if (cell.status == KS_CELL_DONE) cell.status = (uint8_t)status;
            }
            if (all) KS_TRY(unchanged_positions(p, b, variant, base, positions));
            ++*branch;
        }
        KS_TRY(p->sink->cell(p->sink->ctx, u->unit->sample, v, &cell, all ? positions : NULL));
    }
done:
    free(positions);
    return rc;
}

static int emit_baseline(ks_pass *p, const pass_unit *u, const ks_baseline_row *base, double floor)
{
    int rc = KS_OK;
    float *logits = NULL;
    double *strength = NULL;
    const size_t LH = (size_t)p->a->L * (size_t)p->a->H;
    const ks_baseline_row *end = &base[base_row_of(u, u->g->T - 1)];
    ks_baseline b = {.entropy = end->entropy, .floor = floor};
    for (int k = 0; k < KS_TOP_K; k++) {
        b.top_ids[k] = end->top_ids[k];
        b.top_p[k] = end->top_p[k];
    }
    double uniform = 0;
    int markers = 0;
    for (int32_t t = 0; t < u->g->T; t++)
        if (u->tokens->marker[t]) {
            uniform += 1.0 / (t + 1);
            markers++;
        }
    if (p->job->save_logits) {
        const size_t V = (size_t)p->a->V;
        KS_NEW(logits, V);
        KS_TRY(p->job->backend->download(p->job->device, logits, p->logits + (size_t)base_row_of(u, u->g->T - 1) * V, V));
    }
    KS_NEW(strength, LH);
    const size_t floats = LH * sizeof *strength / sizeof(float);
    KS_TRY(p->job->backend->download(p->job->device, (float *)(void *)strength, p->strength + (size_t)u->strength * floats, floats));
    KS_TRY(p->sink->baseline(p->sink->ctx, u->unit->sample, &b, logits, strength, markers ? uniform / markers : NAN));
done:
    free(strength);
    free(logits);
    return rc;
}

int ks_pass_measure(ks_pass *p)
{
    int rc = KS_OK;
    const ks_norm norm = {p->a->norm, p->a->norm_eps, ks_model_final_norm(p->job->model), ks_model_final_norm_bias(p->job->model)};
    ks_baseline_row *base = NULL;
    ks_measure *m = NULL;
    measured *rows = NULL;
    size_t n = 0, branch = 0, row = 0;
    KS_NEW(base, p->size.base_rows);
    KS_NEW(rows, p->size.measured_rows);
    KS_NEW(m, p->size.measured_rows);
    for (size_t i = 0; i < p->n_branches; i++) {
        const pass_branch *b = &p->branches[i];
        for (int32_t t = 0; t < p->units[b->unit].g->T; t++)
            if (ks_set_has(b->set, t)) rows[n++] = (measured){(int32_t)i, t};
    }
    KS_TRY(baselines(p, &norm, base, n > 0));
    if (n) KS_TRY(measure_rows(p, &norm, base, rows, n, m));
    for (size_t i = 0; i < p->n_units; i++) {
        double floor;
        KS_TRY(emit_cells(p, &p->units[i], &branch, &row, rows, n, m, base, &floor));
        if (p->units[i].unit->first) KS_TRY(emit_baseline(p, &p->units[i], base, floor));
    }
    if (p->sink->progress) KS_TRY(p->sink->progress(p->sink->ctx, 1.0));
done:
    free(base);
    free(rows);
    free(m);
    return rc;
}
