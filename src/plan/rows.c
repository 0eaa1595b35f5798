#include "plan/rows.h"

#include "base/error.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

void ks_geometry_free(ks_geometry *g)
{
    if (!g) return;
    for (int e = 0; e < 2; e++) {
        free(g->edges[e].start);
        free(g->edges[e].key);
        free(g->masked[e]);
        free(g->emptied[e]);
        free(g->row_edges[e]);
    }
    free(g->needed);
    free(g);
}

int32_t ks_set_list(const uint64_t *set, int32_t T, int32_t *out)
{
    int32_t n = 0;
    for (int32_t p = 0; p < T; p++)
        if (ks_set_has(set, p)) out[n++] = p;
    return n;
}

int32_t ks_set_count(const uint64_t *set, size_t words)
{
    int32_t n = 0;
    for (size_t i = 0; i < words; i++) n += __builtin_popcountll(set[i]);
    return n;
}

/* First key that query q sees. */
static int32_t first_key(const ks_arch *arch, int32_t l, int32_t q)
{
    const int32_t W = arch->window[l];
    return W && q >= W ? q - W + 1 : 0;
}

/* marker-targets: query = marker, keys = targets. all-marker: every query, keys = markers. */
static int make_edges(ks_edges *e, int kind, int32_t T, const uint8_t *marker, const uint8_t *target)
{
    int rc = KS_OK;
    const uint8_t *is_key = kind == KS_EDGES_MARKER_TARGETS ? target : marker;
    int32_t keys = 0;
    for (int32_t p = 0; p < T; p++) keys += is_key[p] != 0;
    KS_NEW(e->start, T + 1);
    KS_NEW(e->key, (size_t)T * (size_t)keys);
    int32_t n = 0;
    for (int32_t q = 0; q < T; q++) {
        e->start[q] = n;
        const bool is_query = kind == KS_EDGES_ALL_MARKER || marker[q];
        for (int32_t k = 0; is_query && k <= q; k++)
            if (is_key[k]) e->key[n++] = k;
    }
    e->start[T] = n;
done:
    return rc;
}

static int see_layer(ks_geometry *g, int e, int32_t l)
{
    int32_t total = 0;
    for (int32_t q = 0; q < g->T; q++) {
        const int32_t first = first_key(g->arch, l, q);
        int32_t n = 0;
        for (int32_t i = g->edges[e].start[q]; i < g->edges[e].start[q + 1]; i++) n += g->edges[e].key[i] >= first;
        if (!n) continue;
        total += n;
        ks_set_add(g->masked[e] + (size_t)l * g->words, q);
        if (n > g->row_edges[e][l]) g->row_edges[e][l] = n;
        if (n == q - first + 1) g->emptied[e][l] = 1;
    }
    return total;
}

int ks_geometry_new(ks_geometry **out, const ks_arch *arch, int32_t T, const uint8_t *marker, const uint8_t *target)
{
    int rc = KS_OK;
    const size_t L = (size_t)arch->L;
    ks_geometry *g = NULL;
    KS_NEW(g, 1);
    g->arch = arch;
    g->T = T;
    g->words = ((size_t)T + 63) / 64;
    KS_NEW(g->needed, L * g->words);
    for (int e = 0; e < 2; e++) {
        KS_TRY(make_edges(&g->edges[e], e, T, marker, target));
        KS_NEW(g->masked[e], L * g->words);
        KS_NEW(g->emptied[e], L);
        KS_NEW(g->row_edges[e], L);
        for (int32_t l = 0; l < arch->L; l++) {
            const int32_t total = see_layer(g, e, l);
            if (total > g->visible[e]) g->visible[e] = total;
        }
    }
    ks_set_add(g->needed + (L - 1) * g->words, T - 1);
    for (int32_t l = arch->L - 1; l > 0; l--)
        for (int32_t q = 0; q < T; q++)
            if (ks_set_has(g->needed + (size_t)l * g->words, q))
                for (int32_t k = first_key(arch, l, q); k <= q; k++) ks_set_add(g->needed + (size_t)(l - 1) * g->words, k);
done:
    if (rc) ks_geometry_free(g);
    else *out = g;
    return rc;
}

void ks_rows_step(const ks_geometry *g, int edges, int positions, int32_t l, uint64_t *set)
{
    int32_t last = -1; /* nearest changed key at or before q */
    const int32_t W = g->arch->window[l];
    for (int32_t q = 0; q < g->T; q++) {
        if (ks_set_has(set, q)) last = q; /* bits are added at q only after it was read, so `last` comes from the input */
        if (last >= 0 && (!W || q - last < W)) ks_set_add(set, q);
    }
    for (size_t i = 0; i < g->words; i++) {
        if (edges >= 0) set[i] |= g->masked[edges][(size_t)l * g->words + i];
        if (positions == KS_POSITIONS_LAST) set[i] &= g->needed[(size_t)l * g->words + i];
    }
}

int ks_rows_status(const ks_geometry *g, const ks_mask *m, const ks_variant *v)
{
    int status = KS_CELL_NOTHING;
    for (int32_t l = v->a; l <= v->b; l++) {
        const int32_t n = g->row_edges[m->edges][l];
        if (!n) continue;
        if (m->kind == KS_SET && n * m->value > 1) return KS_CELL_NOT_FINITE;
        if (status == KS_CELL_NOTHING) status = KS_CELL_DONE;
        const bool removes = m->kind == KS_KNOCKOUT || (m->kind == KS_SET && m->value == 0);
        if (removes && g->emptied[m->edges][l]) status = KS_CELL_EMPTY_ROW;
    }
    return status;
}
