/* resume.h - results of a former file, carried over into a new layout by meaning (docs/manual.md, Resume).
 *
 * The former file is read whole and compared with what is asked for now. A difference that could change a result, or lose one, is refused
 * (KS_EUSAGE), with the old and the new value. Samples, sweeps, models, windows and values may be added: a cell is known by its model,
 * sample, mask and window, not by its place, so a new sweep that shares cells with an old one finds them done.
 * Root only, not collective, one thread. */
#ifndef KS_SWEEP_RESUME_H
#define KS_SWEEP_RESUME_H

#include "input/config.h"
#include "input/samples.h"
#include "plan/cell.h"
#include "plan/grid.h"
#include "sweep/results.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct ks_former ks_former;

/* Reads the file and compares what the configuration alone can tell: schema, protocol, precision, names and definitions of sweeps.
 * *out = NULL and KS_OK where there is no file yet: job scripts can always say --resume. KS_EINPUT: damaged; it is read in a child process
 * first, since HDF5 may crash on damage (ks_study_probe). The file is closed when this returns. path and cfg are borrowed until
 * ks_former_free. */
int ks_former_open(ks_former **out, const char *path, const ks_config *cfg);
void ks_former_free(ks_former *f); /* NULL is allowed */

/* A model as it is now: the facts of its group, its samples, the variants that are wanted (of cfg's sweeps). */
typedef struct ks_former_task {
    const ks_model_info *info;
    const ks_samples *samples;
    const ks_grid *grid;
} ks_former_task;

/* Where results go. Samples and variants are indices of the task; each (sample, variant) comes once and belongs in all of its places.
 * Arrays are valid during the call. */
typedef struct ks_former_sink {
    void *ctx;
    /* The arguments of ks_results_put_baseline: logits [V] or NULL, by_head [L, H], strength [L]. */
    int (*baseline)(void *ctx, int32_t sample, const ks_baseline *b, const float *logits, const float *by_head, double uniform,
                    const double *strength);
    /* positions: [T of the sample] where the variant wants them all, else NULL. */
    int (*cell)(void *ctx, int32_t sample, int32_t variant, const ks_cell *cell, const ks_position_cell *positions);
} ks_former_sink;

/* What is known of a task. Clear with ks_known_clear. */
typedef struct ks_known {
    uint64_t *done;         /* [n_samples, ks_done_words] as ks_problem.done */
    uint8_t *baseline_done; /* [n_samples] as ks_problem.baseline_done */
    int64_t cells, baselines;
} ks_known;

/* Compares the model (weights, tokenizer, architecture) and each former sample (text, tokens, marker, targets, group), then gives every
 * finished baseline and cell to the sink, bit for bit, and logs how many there are and how many are missing. Nothing reaches the sink
 * before everything is compared. A cell that is not finite (status 3) counts as finished; one without its positions does not where they
 * are wanted. f may be NULL: nothing is known. The sink's errors are passed on. */
int ks_former_import(const ks_former *f, const ks_former_task *task, const ks_former_sink *sink, ks_known *known);
void ks_known_clear(ks_known *k);

/* One line for each run that worked on the file: time, host, ranks, threads, backend, command. "" where f is NULL. Caller frees. */
int ks_former_history(const ks_former *f, char **out);

/* Whether the file was closed in order by a run of this configuration and corpus: then it is as a new run would leave it, but for cells
 * that are missing. */
bool ks_former_ended(const ks_former *f, const char *config_json, const char *corpus_sha256);

#endif
