/* cell.h - what one (variant, sample) measures, as the engine hands it to the results writer.
 * Letters: T tokens of a sample. KL and the like in nats, p are probabilities; KL(baseline || ablated). */
#ifndef KS_PLAN_CELL_H
#define KS_PLAN_CELL_H

#include <stdint.h>

enum { KS_TOP_K = 5 };

/* ks_cell.status; the numbers are those of the result file. */
enum {
    KS_CELL_NOT_COMPUTED = 0,
    KS_CELL_DONE = 1,
    KS_CELL_EMPTY_ROW = 2,  /* done, and a row had nothing left to attend to */
    KS_CELL_NOT_FINITE = 3, /* values are NaN */
    KS_CELL_NOTHING = 4,    /* nothing to remove: KL exactly 0 */
};

/* One (variant, sample), measured at the last position. */
typedef struct ks_cell {
    uint8_t status, top_changed;   /* top_changed: 1 if the most probable token differs from the baseline's */
    double kl, kl_reverse, js, tv; /* total variation in [0, 1] */
    double p_top, dlogit_top;      /* ablated p of the baseline's top token; change of its logit */
    int32_t top_ids[KS_TOP_K];     /* the tokens whose p changed most, largest |change| first */
    double top_p_baseline[KS_TOP_K], top_p_ablated[KS_TOP_K];
} ks_cell;

/* One position of a cell, with positions: all; [T] per cell. All NaN before the first changed position; the text's own
 * next token has none at the last position, so p_next and dlogit_next are NaN there. */
typedef struct ks_position_cell {
    double kl, dlogit_next, p_next;
} ks_position_cell;

/* A sample's baseline at the last position. */
typedef struct ks_baseline {
    int32_t top_ids[KS_TOP_K]; /* most probable first */
    double top_p[KS_TOP_K];
    double entropy, floor; /* nats; floor is NaN where it was not measured */
} ks_baseline;

#endif
