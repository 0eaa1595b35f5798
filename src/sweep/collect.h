/* collect.h - results on their way from the engine to the file: a worker packs them into messages, root unpacks and stores them. */
#ifndef KS_SWEEP_COLLECT_H
#define KS_SWEEP_COLLECT_H

#include "sweep/results.h"
#include "sweep/task.h"

/* Worker: what the engine reports becomes KS_MSG_RECORDS messages to root. */
typedef struct ks_packer {
    const ks_task *task;
    ks_wire wire;
} ks_packer;

/* A sink that packs into p, which outlives it. */
ks_sink ks_packer_sink(ks_packer *p);
/* Sends what is packed. */
int ks_packer_flush(ks_packer *p);

/* Root: one model's results. */
typedef struct ks_collector ks_collector;

/* Adds the task's model and sweeps to the results. info: of that model. Borrows task, cfg and results. Free with ks_collector_free. */
int ks_collector_new(ks_collector **out, const ks_task *task, const ks_config *cfg, ks_results *results, const ks_model_info *info);
void ks_collector_free(ks_collector *c);

/* Stores a worker's message. from: its rank, for errors. */
int ks_collector_take(ks_collector *c, int from, void *data, size_t bytes);
/* Stores one baseline, or one cell in every place that asks for it. ctx: the collector. Arrays as in ks_results_put_baseline. */
int ks_collector_put_baseline(void *ctx, int32_t sample, const ks_baseline *b, const float *logits, const float *by_head, double uniform,
                              const double *strength);
int ks_collector_put_cell(void *ctx, int32_t sample, int32_t variant, const ks_cell *cell, const ks_position_cell *positions);

int64_t ks_collector_cells(const ks_collector *c); /* of the model */
int64_t ks_collector_done(const ks_collector *c);  /* stored so far */

/* Stores the texts of all top tokens, so that tables need no tokenizer. */
int ks_collector_name_tokens(ks_collector *c);

#endif
