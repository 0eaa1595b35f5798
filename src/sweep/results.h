/* results.h - the writer of the result file (HDF5; docs/result-schema.md). Root only, not collective, one thread.
 *
 * The file is built in memory. ks_results_publish puts it at the path as a whole; then ks_results_flush writes what was put since then in
 * place, values first and status last. So the path is at any moment absent, the former file, or a file that opens and whose every cell with
 * a status holds all its values, whatever kills the process. Models and sweeps that are added later reach the disk with the next
 * publication. Results that were not put are NaN with status 0. Indices are those that the add functions gave; KS_EMACHINE names one that
 * is out of range.
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
    const char *weights_sha256, *tokenizer_sha256, *config_sha256; /* config_sha256: of config.json */
    int32_t n_layers, n_heads, n_kv_heads, d_model, vocab;
    bool save_logits;
} ks_model_info;

/* All that may differ between two equal runs. Strings may be NULL. */
typedef struct ks_provenance {
    const char *time, *ended; /* ended: NULL while it runs */
    const char *host, *backend, *device, *command_line, *isa;
    const char *algorithms; /* of products, a line a kind */
    const char *history;    /* one line for each earlier run that this file goes on with: time host ranks threads backend command */
    int32_t ranks, threads;
    int64_t weights_bytes_read;
} ks_provenance;

/* What a file at the path means. */
enum {
    KS_RESULTS_NEW,    /* an error: KS_EUSAGE, names --resume and --force */
    KS_RESULTS_FORCE,  /* it is replaced at the first publication */
    KS_RESULTS_RESUME, /* the same; the caller reads it after ks_results_create, under the lock, and puts its cells */
};

/* Begins a file and locks its place until the writer is freed: KS_EMACHINE where another kosweep writes it. Nothing at the path changes
 * yet, but what would fail later fails here: a folder that is missing or not writable (KS_EMACHINE). From here on the process ignores
 * SIGXFSZ. */
int ks_results_create(ks_results **out, const char *path, int mode, const char *config_json, const char *corpus_sha256);

/* Says who computes; replaces what was said before. In the file from the next publication on. Strings are copied. */
int ks_results_set_provenance(ks_results *r, const ks_provenance *p);

/* Adds /models/<name> with its samples, which are copied. At least one sample. */
int ks_results_add_model(ks_results *r, const ks_model_info *info, const ks_samples *samples, size_t *model);

/* Adds a sweep of W windows. There is a factor axis where the sweep has several values, and a head axis of n_heads_axis entries where
 * that is not 0 (heads: each; then it is H). */
int ks_results_add_sweep(ks_results *r, size_t model, const ks_sweep *s, const ks_window *windows, size_t W, size_t n_heads_axis,
                         size_t *sweep);

/* Sets the sample's baseline to done, which covers its attention. logits: [V] or NULL. strength_by_head [L, H] and strength [L] (its mean
 * over heads) or NULL; uniform: 1 / (m + 1) for a marker at m. */
int ks_results_put_baseline(ks_results *r, size_t model, size_t sample, const ks_baseline *b, const float *logits,
                            const float *strength_by_head, double uniform, const double *strength);

/* Visible edges that the sweep removes from the sample, in one layer and head. */
int ks_results_put_edges(ks_results *r, size_t model, size_t sweep, size_t sample, int32_t edges_removed);

/* A cell is final: put again, it must have the same values. factor and head are 0 where the sweep has no such axis. positions: [T of the
 * sample] or NULL. Values that are not finite are stored as NaN, and such a kl turns the status to KS_CELL_NOT_FINITE. */
int ks_results_put_cell(ks_results *r, size_t model, size_t sweep, size_t factor, size_t window, size_t head, size_t sample,
                        const ks_cell *c, const ks_position_cell *positions);

/* The ids of top tokens that were put for a model, ascending, each once: for ks_results_put_token_text. Caller frees *ids. */
int ks_results_top_ids(const ks_results *r, size_t model, int32_t **ids, size_t *n);

/* Text of tokens, so that tables can name them without the tokenizer; replaces those put before. In the file from the next publication
 * on. */
int ks_results_put_token_text(ks_results *r, size_t model, const int32_t *ids, char *const *texts, size_t n);

/* Puts everything at the path as a new file, and returns when it is on the disk. Needs the room twice for a moment. KS_EMACHINE: disk full
 * and the like: the former file is as it was and the writer stays usable. */
int ks_results_publish(ks_results *r);

/* Writes what was put since the last call, in place; the values of every cell are on the disk before its status is written. Nothing
 * happens before the first publication. It costs least where the cells of a sample come together. KS_EMACHINE: what was flushed before is
 * safe, the rest is tried again at the next call.
 *
 * Both find a file that was removed, renamed or replaced under the run: then everything is written under the path again, or under
 * PATH.saved if something else stands there, and KS_EMACHINE says so. The writer goes on there. */
int ks_results_flush(ks_results *r);

/* Publishes a last time and frees r. On failure r is freed too; the finished cells are still flushed in place if possible. */
int ks_results_close(ks_results *r);

/* After an error or a signal: flushes what was put, which may fail with a warning, and frees r. Keeps the thread's error text. A file that
 * did not exist before and holds nothing finished is removed. Before the first publication the path is as it was. NULL is allowed. */
void ks_results_abandon(ks_results *r);
/* The same for a sweep that ends too early: a warning says which file keeps what was finished. */
void ks_results_break_off(ks_results *r);

/* Bytes written to the disk so far. */
int64_t ks_results_written(const ks_results *r);

#endif
