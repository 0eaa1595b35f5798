/* engine.h - one pass through the layers computes every variant of every sample in it.
 *
 * For each layer: take its weights, step the trunk of all samples, then the branches beside it in chunks, fork the branches that
 * start at the next layer. After the last layer the head turns the measured rows into logits and their changes, and those into
 * measures. Branches hold differences from the trunk, never states (docs/method.md). */
#ifndef KS_SWEEP_ENGINE_H
#define KS_SWEEP_ENGINE_H

#include "compute/backend.h"
#include "model/weights.h"
#include "plan/plan.h"
#include "sweep/supply.h"

/* A sample as the engine needs it. */
typedef struct ks_tokens {
    int32_t T;
    int32_t *ids;             /* [T] */
    uint8_t *marker, *target; /* [T] masks */
} ks_tokens;

/* Where results go; called on the engine's thread, in an order that means nothing. An error ends the pass. */
typedef struct ks_sink {
    void *ctx;
    /* logits [V] host or NULL; strength [L, H]: mean baseline weight marker -> targets; uniform: mean of 1/(m + 1) over marker tokens m. */
    int (*baseline)(void *ctx, int32_t sample, const ks_baseline *b, const float *logits, const double *strength, double uniform);
    /* positions [T] with KS_POSITIONS_ALL, else NULL. */
    int (*cell)(void *ctx, int32_t sample, int32_t variant, const ks_cell *c, const ks_position_cell *positions);
    /* After every layer; share of the pass that is done, 0..1. May be NULL. */
    int (*progress)(void *ctx, double share);
} ks_sink;

typedef struct ks_job {
    const ks_backend *backend;
    ks_device *device;
    const ks_model *model;
    ks_weights *weights;
    ks_shards shards;
    const ks_problem *problem;
    const ks_tokens *tokens; /* [n_samples] */
    int precision;           /* KS_PRECISION_* */
    bool save_logits;
} ks_job;

/* Forms of the operands of a pass: those that the matrices want, or KS_FORM_F32 where their types differ. */
ks_forms ks_forms_of(const ks_backend *be, const ks_model *m, int precision);

/* Runs n units together. A baseline that is not finite is KS_EINPUT. */
int ks_engine_pass(const ks_job *job, const ks_unit *units, size_t n, const ks_sink *sink);

#endif
