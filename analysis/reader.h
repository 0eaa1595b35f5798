/* reader.h - a result file (docs/result-schema.md) as plain structs, everything checked: types, axes, lengths, ranges.
 * Errors are KS_EINPUT and name file and data set. Nothing here depends on the program that wrote the file; dimension scales are not
 * looked at, only names and shapes.
 * Letters: L layers, H heads, S samples, T tokens of the longest sample, F factors, W windows, K top tokens, V vocabulary. */
#ifndef KS_ANALYSIS_READER_H
#define KS_ANALYSIS_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The values of status in the file. */
enum { KS_STATUS_NOT_COMPUTED, KS_STATUS_DONE, KS_STATUS_EMPTY_ROW, KS_STATUS_NOT_FINITE, KS_STATUS_NOTHING, KS_STATUSES };

typedef struct ks_study_sweep {
    char *name, *kind, *edges, *heads, *positions;
    char *windows; /* "each-layer", "slide", ...; "" in files that do not say */
    size_t F, W, H, K;
    bool has_factor, has_head;        /* whether there are such axes; F and H count 1 where not */
    double *values;                   /* [F] */
    int32_t *layer_start, *layer_end; /* [W] */
    int32_t *edges_removed;           /* [S] */
    /* [F, W, H, S] */
    double *kl, *kl_reverse, *js, *tv, *p_top, *dlogit_top;
    uint8_t *top_changed, *status;
    /* [F, W, H, S, K] */
    int32_t *top_ids;
    double *top_p_baseline, *top_p_ablated;
    double *kl_positions; /* [F, W, H, S, T], or NULL */
    /* Whole: [F, W, H, S, T], or NULL where the file has none */
    double *p_next_positions, *dlogit_next_positions;
} ks_study_sweep;

typedef struct ks_study_model {
    char *name, *id, *revision, *architecture, *weight_dtype, *precision;
    int32_t n_layers, n_heads, vocab;
    size_t S, T;
    char **ids, **groups;     /* [S] */
    int32_t *n_tokens;        /* [S] */
    uint8_t *marker, *target; /* [S, T] */
    char **token_text;        /* [S, T], or NULL */
    double *floor, *entropy;  /* [S] nats; floor is NaN where it was not measured */
    double *strength;         /* [L, S] */
    double *uniform;          /* [S] */
    uint8_t *baseline_status; /* [S] 0 not computed, 1 done; NULL in files that do not say */
    int32_t *text_ids;        /* [n_texts] ascending */
    char **texts;             /* [n_texts] */
    size_t n_texts;
    ks_study_sweep *sweeps;
    size_t n_sweeps;

    /* Whole. */
    char *weights_sha256, *tokenizer_sha256, *config_sha256; /* "" where the file does not say */
    int32_t n_kv_heads, d_model;
    char **sample_texts;       /* [S] "" in a sample given as token ids */
    int32_t *token_ids;        /* [S, T] -1 behind the last token */
    int32_t *baseline_top_ids; /* [S, BK] */
    double *baseline_top_p;    /* [S, BK] */
    size_t BK;
    float *logits;  /* [S, V], or NULL */
    float *by_head; /* [L, H, S] */
} ks_study_model;

/* The run that wrote the file last; all "" and 0 where the file does not say. */
typedef struct ks_study_run {
    char *time, *host, *backend, *device, *isa, *versions, *command_line;
    char *history; /* a line for each run before it */
    char *ended;   /* when it ended; "" if it was killed, or is still running */
    int32_t ranks, threads;
} ks_study_run;

typedef struct ks_study {
    char *path;
    ks_study_model *models;
    size_t n_models;
    char *special_tokens, *marker; /* the protocol, as in the configuration; "" where the file does not say */

    /* Whole. */
    char *config, *corpus_sha256;
    ks_study_run run;
} ks_study;

/* Reads what the tables need; fields under "Whole" stay NULL. Free with ks_study_free. */
int ks_study_read(ks_study **out, const char *path);
/* Reads all that a run needs that goes on with the file. Another schema is KS_EUSAGE. */
int ks_study_read_whole(ks_study **out, const char *path);
void ks_study_free(ks_study *s); /* NULL is allowed */

/* Reads the file, as ks_study_read_whole does where `whole`, in a child process and says whether that survived: HDF5's own code crashes on
 * some damaged files, and goes round for ever in others. KS_OK where the same call is safe here (it may still refuse the file).
 * May be called under MPI and with other threads alive: the child is this program started anew (posix_spawn), not a fork, which would
 * copy locks that other threads hold and pages that a network card writes to. It reads before its main begins and ends. */
int ks_study_probe(const char *path, bool whole);

/* Place of a cell in the arrays [F, W, H, S]. */
static inline size_t ks_study_at(const ks_study_model *m, const ks_study_sweep *s, size_t factor, size_t window, size_t head, size_t sample)
{
    return ((factor * s->W + window) * s->H + head) * m->S + sample;
}

/* The text of a token, NULL where the file has none. */
const char *ks_study_token(const ks_study_model *m, int32_t id);

#endif
