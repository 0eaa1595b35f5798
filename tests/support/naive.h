/* naive.h - the oracle of the tests: a model's forward in double precision by plain loops, and a cell as two whole forwards.
 *
 * Nothing here is shared with the engine but the opened model and the rotary tables: fp32 by definition, here widened.
 * Slow on purpose. Letters: L layers, D hidden, H query heads, G key/value heads, E head dim, F feed-forward, V vocabulary, T tokens. */
#ifndef KS_TESTS_NAIVE_H
#define KS_TESTS_NAIVE_H

#include "model/model.h"
#include "plan/cell.h"

#include <stdbool.h>

/* What one variant does. */
typedef struct ks_naive_edit {
    int32_t a, b;         /* layers, both inclusive */
    int kind;             /* KS_KNOCKOUT, KS_SCALE, KS_SET (input/config.h) */
    double value;         /* the factor of KS_SCALE, the weight of KS_SET */
    const uint8_t *heads; /* [H] 1 where it acts; NULL: in all heads */
    const uint8_t *edges; /* [T, T] query, key: 1 where it acts; edges that are not visible do not count */
} ks_naive_edit;

/* Rotary tables [T, dim/2] for the forwards to come in place of ks_rope_tables; NULL, NULL: back to those. Not owned. For answers that were
 * computed with tables of another rounding. */
void ks_naive_tables(const float *cos_t, const float *sin_t);

/* Whether the forwards to come round the residual stream to bf16 after the embedding and after every layer: the floor's definition. */
void ks_naive_round_stream(bool on);

/* One forward over ids [T], each in [0, V). edit: NULL for the baseline.
 * logits [T - first, V]: the rows from position `first` on. weights [L, H, T, T] (query, key) or NULL. *status (or NULL): KS_CELL_DONE,
 * KS_CELL_EMPTY_ROW, KS_CELL_NOT_FINITE (KS_SET: more weight asked for than a row has; logits mean nothing then), or KS_CELL_NOTHING.
 * KS_EMACHINE without memory. */
int ks_naive_forward(const ks_model *m, const int32_t *ids, int32_t T, const ks_naive_edit *edit, int32_t first, double *logits,
                     double *weights, int *status);

/* All measures of ablated logits against baseline logits, each [V]. status is stored, and decides: not finite gives NaN. */
void ks_naive_measure(const double *baseline, const double *ablated, int32_t V, int status, ks_cell *out);

/* sum p ln(p/q) of two rows of logits [V], in nats. */
double ks_naive_kl(const double *baseline, const double *ablated, int32_t V);

/* One cell: both forwards and the measures at the last position. */
int ks_naive_cell(const ks_model *m, const int32_t *ids, int32_t T, const ks_naive_edit *edit, ks_cell *out);

/* edges [T, T] of an edge set (KS_EDGES_*) from masks marker, target [T]. */
void ks_naive_edges(uint8_t *edges, int set, const uint8_t *marker, const uint8_t *target, int32_t T);

#endif
