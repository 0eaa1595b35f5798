/* results.h - the writer of the result file (HDF5; docs/result-schema.md). Root only, not collective, one thread.
 *
 * The file is built in memory and reaches the disk as a whole: ks_results_flush writes PATH.tmp and renames it, so PATH is at any moment
 * absent, the former file or a complete one, and a full disk costs nothing that was there before. Results that were not put are NaN with
 * status 0. Indices are those that the add functions gave; KS_EMACHINE names one that is out of range.
 * Letters: L layers, H query heads, V vocabulary, S samples, T tokens of a sample, W windows. */
#ifndef KS_SWEEP_RESULTS_H
#define KS_SWEEP_RESULTS_H

#include "input/config.h"
#include "input/samples.h"
#include "plan/cell.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ks_results ks_results;

/* What a model's group says of it. Strings may be NULL (stored as ""), except name. */
typedef struct ks_model_info {
    const char *name, *id, *revision, *architecture, *weight_dtype, *precision;
    const char *weights_sha256, *tokenizer_sha256;
    int32_t n_layers, n_heads, n_kv_heads, d_model, vocab;
    bool save_logits;
} ks_model_info;

/* All that may differ between two equal runs. Strings may be NULL. */
typedef struct ks_provenance {
    const char *time, *host, *backend, *device, *command_line, *isa;
    int32_t ranks, threads;
} ks_provenance;

/* Begins a file. Nothing is written yet, but what would fail later fails here: an existing file without force (KS_EUSAGE), a folder that
 * is missing or not writable (KS_EMACHINE). */
int ks_results_create(ks_results **out, const char *path, bool force, const char *config_json, const char *corpus_sha256);

/* Adds /models/<name> with its samples, which are copied. At least one sample. */
int ks_results_add_model(ks_results *r, const ks_model_info *info, const ks_samples *samples, size_t *model);

/* Adds a sweep of W windows. There is a factor axis where the sweep has several values, and a head axis of n_heads_axis entries where
 * that is not 0 (heads: each; then it is H). */
int ks_results_add_sweep(ks_results *r, size_t model, const ks_sweep *s, const ks_window *windows, size_t W, size_t n_heads_axis,
                         size_t *sweep);

/* logits: [V] or NULL. strength_by_head [L, H] and strength [L] (its mean over heads) or NULL; uniform: 1 / (m + 1) for a marker at m. */
int ks_results_put_baseline(ks_results *r, size_t model, size_t sample, const ks_baseline *b, const float *logits,
                            const float *strength_by_head, double uniform, const double *strength);

/* Visible edges that the sweep removes from the sample, in one layer and head. */
int ks_results_put_edges(ks_results *r, size_t model, size_t sweep, size_t sample, int32_t edges_removed);

/* factor and head are 0 where the sweep has no such axis. positions: [T of the sample] or NULL. Values that are not finite are stored as
 * NaN, and such a kl turns the status to KS_CELL_NOT_FINITE. */
int ks_results_put_cell(ks_results *r, size_t model, size_t sweep, size_t factor, size_t window, size_t head, size_t sample,
                        const ks_cell *c, const ks_position_cell *positions);

/* The ids of top tokens that were put for a model, ascending, each once: for ks_results_put_token_text. Caller frees *ids. */
int ks_results_top_ids(const ks_results *r, size_t model, int32_t **ids, size_t *n);

/* Text of tokens, so that tables can name them without the tokenizer. Called once per model, or not at all. */
int ks_results_put_token_text(ks_results *r, size_t model, const int32_t *ids, char *const *texts, size_t n);

/* Puts a complete file at the path. KS_EMACHINE: disk full and the like; the writer stays usable. */
int ks_results_flush(ks_results *r);

/* Writes the provenance, flushes to the disk itself and frees r. On failure r is freed too, and the file is as at the last flush. */
int ks_results_close(ks_results *r, const ks_provenance *p);

/* After an error elsewhere: frees r; the file is as at the last flush. NULL is allowed. */
void ks_results_abandon(ks_results *r);

#endif
