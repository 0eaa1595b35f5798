#include "plan/grid.h"

#include "base/error.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

void ks_grid_free(ks_grid *g)
{
    if (!g) return;
    for (size_t i = 0; i < g->n_masks; i++) free(g->masks[i].heads);
    for (size_t i = 0; i < g->n_sweeps; i++) {
        free(g->sweeps[i].windows);
        free(g->sweeps[i].variant);
    }
    free(g->masks);
    free(g->variants);
    free(g->sweeps);
    free(g);
}

static int same_heads(const uint8_t *x, const uint8_t *y, int32_t H)
{
    return x && y ? !memcmp(x, y, (size_t)H) : x == y;
}

/* *index = the mask equal to m, added if it is new; takes m->heads. */
static int add_mask(ks_grid *g, ks_mask *m, int32_t *index)
{
    int rc = KS_OK;
    size_t i = 0;
    while (i < g->n_masks && !(g->masks[i].kind == m->kind && g->masks[i].edges == m->edges && g->masks[i].value == m->value &&
                               same_heads(g->masks[i].heads, m->heads, g->H)))
        i++;
    if (i == g->n_masks) {
        ks_mask *grown;
        KS_GET(grown, ks_realloc(g->masks, i + 1, sizeof *grown));
        g->masks = grown;
        g->masks[g->n_masks++] = *m;
        m->heads = NULL;
    }
    *index = (int32_t)i;
done:
    free(m->heads);
    m->heads = NULL;
    return rc;
}

/* The mask of factor f, head index h of a sweep. */
static int make_mask(ks_grid *g, const ks_sweep *s, size_t f, size_t h, int32_t *index)
{
    int rc = KS_OK;
    ks_mask m = {s->kind, s->edges, s->n_values ? s->values[f] : 0, NULL};
    if (s->heads != KS_HEADS_ALL) {
        KS_NEW(m.heads, g->H);
        if (s->heads == KS_HEADS_EACH) m.heads[h] = 1;
        for (size_t i = 0; s->heads == KS_HEADS_LIST && i < s->n_heads; i++) m.heads[s->head_list[i]] = 1;
    }
    KS_TRY(add_mask(g, &m, index));
done:
    return rc;
}

/* First the mask of each place; variants come once all masks are known. */
static int lay_out(ks_grid *g, const ks_sweep *s, ks_grid_sweep *out)
{
    int rc = KS_OK;
    KS_TRY(ks_sweep_windows(s, g->L, &out->windows, &out->W));
    KS_TRY(ks_sweep_check_heads(s, g->H));
    out->n_factors = s->n_values ? s->n_values : 1;
    out->n_heads = s->heads == KS_HEADS_EACH ? (size_t)g->H : 1;
    KS_NEW(out->variant, out->n_factors * out->W * out->n_heads);
    for (size_t f = 0; f < out->n_factors; f++)
        for (size_t h = 0; h < out->n_heads; h++) {
            int32_t mask = 0;
            KS_TRY(make_mask(g, s, f, h, &mask));
            for (size_t w = 0; w < out->W; w++) out->variant[(f * out->W + w) * out->n_heads + h] = mask;
        }
done:
    return rc;
}

int ks_grid_new(ks_grid **out, const ks_sweep *sweeps, size_t n, int32_t L, int32_t H)
{
    int rc = KS_OK;
    uint8_t *wanted = NULL; /* [mask, a, b] 1 = wanted at the last position, 2 = at all */
    int32_t *number = NULL; /* [mask, a, b] */
    ks_grid *g = NULL;
    KS_NEW(g, 1);
    g->L = L;
    g->H = H;
    KS_NEW(g->sweeps, n);
    g->n_sweeps = n;
    for (size_t i = 0; i < n; i++) KS_TRY(lay_out(g, &sweeps[i], &g->sweeps[i]));

    const size_t square = (size_t)L * (size_t)L;
    KS_NEW(wanted, g->n_masks * square);
    KS_NEW(number, g->n_masks * square);
    for (size_t pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < n; i++) {
            ks_grid_sweep *s = &g->sweeps[i];
            for (size_t j = 0; j < s->n_factors * s->W * s->n_heads; j++) {
                const ks_window w = s->windows[j / s->n_heads % s->W];
                const size_t at = (size_t)s->variant[j] * square + (size_t)w.a * (size_t)L + (size_t)w.b;
                if (pass == 0) wanted[at] |= sweeps[i].positions == KS_POSITIONS_ALL ? 2 : 1;
                else s->variant[j] = number[at];
            }
        }
        if (pass == 1) break;
        for (size_t at = 0; at < g->n_masks * square; at++) g->n_variants += wanted[at] != 0;
        KS_NEW(g->variants, g->n_variants);
        int32_t next = 0;
        for (size_t m = 0; m < g->n_masks; m++)
            for (int32_t a = 0; a < L; a++)
                for (int32_t b = L - 1; b >= a; b--) {
                    const size_t at = m * square + (size_t)a * (size_t)L + (size_t)b;
                    if (!wanted[at]) continue;
                    g->variants[next] = (ks_variant){(int32_t)m, a, b, wanted[at] & 2 ? KS_POSITIONS_ALL : KS_POSITIONS_LAST};
                    number[at] = next++;
                }
    }
done:
    free(wanted);
    free(number);
    if (rc) ks_grid_free(g);
    else *out = g;
    return rc;
}
