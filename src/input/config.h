/* config.h - everything a user can ask for: the configuration file (JSON) with the command line's options laid over it.
 *
 * Every error here is KS_EUSAGE. In a configuration file, keys that begin with "_" are comments; any other unknown key is an error
 * that names the nearest known one. Relative paths in a file are relative to the file, on the command line to the working directory. */
#ifndef KS_INPUT_CONFIG_H
#define KS_INPUT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KS_KNOCKOUT, KS_SCALE, KS_SET };
enum { KS_EDGES_MARKER_TARGETS, KS_EDGES_ALL_MARKER };
enum { KS_HEADS_ALL, KS_HEADS_EACH, KS_HEADS_LIST };
enum { KS_POSITIONS_LAST, KS_POSITIONS_ALL };
enum { KS_WINDOWS_EACH_LAYER, KS_WINDOWS_SLIDE, KS_WINDOWS_AROUND, KS_WINDOWS_ALL, KS_WINDOWS_LIST };
enum { KS_SPECIAL_TOKENIZER, KS_SPECIAL_NONE };
enum { KS_MARKER_FIRST_TOKEN, KS_MARKER_SPAN };
enum { KS_PRECISION_FULL, KS_PRECISION_FAST };
enum { KS_BACKEND_AUTO, KS_BACKEND_CPU, KS_BACKEND_CUDA };
enum { KS_SOURCE_AUTO, KS_SOURCE_RESIDENT, KS_SOURCE_STREAMED, KS_SOURCE_SHARDED };

enum {
    KS_DEFAULT_RADIUS = 5,
    KS_MAX_RADIUS = 4096,
    KS_MAX_THREADS = 4096,
    KS_MAX_RANKS = 1 << 20,
    KS_DEFAULT_CHECKPOINT = 20,
    KS_MAX_CHECKPOINT = 86400
};

/* The words of those values, indexed by them, NULL-terminated: "knockout", "marker-targets", "last", "full" ... */
extern const char *const ks_kind_names[], *const ks_edges_names[], *const ks_positions_names[];
extern const char *const ks_special_names[], *const ks_marker_names[], *const ks_precision_names[], *const ks_backend_names[],
                                                                                                        *const ks_source_names[];

typedef struct ks_window {
    int32_t a, b; /* layers, both inclusive */
} ks_window;

typedef struct ks_sweep {
    char *name; /* letters, digits and _ . + - only: it names an HDF5 group */
    int kind, edges, heads, positions;
    double *values; /* [n_values] factors of KS_SCALE (finite, >= 0) or weights of KS_SET (0..1), no two equal; none with KS_KNOCKOUT */
    size_t n_values;
    int32_t *head_list; /* [n_heads] ascending, no two equal; only with KS_HEADS_LIST */
    size_t n_heads;
    int windows;
    int32_t slide;              /* KS_WINDOWS_SLIDE: layers in a window */
    int32_t center, max_radius; /* KS_WINDOWS_AROUND */
    ks_window *list;            /* [n_list] KS_WINDOWS_LIST */
    size_t n_list;
} ks_sweep;

typedef struct ks_model_ref {
    char *name;          /* as ks_sweep.name */
    char *path;          /* a model directory, or NULL */
    char *id, *revision; /* a hub id and its revision ("main" by default) where path is NULL */
} ks_model_ref;

typedef struct ks_config {
    ks_model_ref *models; /* [n_models] names differ */
    size_t n_models;
    char *corpus;  /* NULL: none given */
    char **groups; /* [n_groups]; none: the default groups */
    size_t n_groups;
    char **samples; /* [n_samples] ids; none: every sample of the groups */
    size_t n_samples;
    bool include_baselines;
    int special_tokens, marker, precision, backend;
    bool save_logits, floor;
    ks_sweep *sweeps; /* [n_sweeps >= 1] names differ */
    size_t n_sweeps;
    char *output;      /* the HDF5 file; "results.h5" by default */
    char *output_json; /* the JSON beside it, or NULL */
    bool resume, force;
    int verbosity;         /* -1 --quiet, 0, 1 --verbose */
    int threads;           /* 0: all cores */
    int checkpoint;        /* seconds of a rank's work that a kill may cost, about */
    int weights;           /* KS_SOURCE_*: weights stay where they are, are streamed layer by layer, or sharded over GPUs */
    uint64_t memory_bytes; /* 0: automatic */
    int ranks;             /* plan: 1 by default */
    char *device;          /* plan: a GPU of the table (plan/devices.h) to plan for, "list", or NULL: this machine */
    bool json;             /* plan, tokens: for scripts */
    char *texts;           /* tokens --texts, or NULL */
    bool help, version;    /* --help, --version: nothing else was looked at */
} ks_config;

/* A configuration of defaults: no model, no corpus, no sweep. */
int ks_config_new(ks_config **out);

/* Reads a configuration file. A file without "sweeps" gets the default sweep ("layers": each layer). */
int ks_config_load(ks_config **out, const char *path);
/* The same from memory; `path` begins every message, and relative paths in the text are relative to it. */
int ks_config_parse(ks_config **out, const char *text, size_t bytes, const char *path);

/* NULL is allowed. */
void ks_config_free(ks_config *c);

/* What only the whole can tell: names of models and sweeps differ, and values fit their kinds. */
int ks_config_check(const ks_config *c);

/* Canonical JSON of everything that determines results: models by name, id and revision, choice of samples, protocol, precision, sweeps.
 * Not paths (the result file carries the hashes of weights and corpus), output, threads, backend or memory. Caller frees; NULL with
 * the error text set when memory ends. */
char *ks_config_json(const ks_config *c);

/* The windows of a sweep for a model of L layers, in order: EACH_LAYER [l, l]; SLIDE [s, s+W-1]; AROUND [max(0,C-r), min(L-1,C+r)] for
 * r = 0..R; ALL by a, then b; LIST as given. A window beyond the model is KS_EUSAGE naming both. Caller frees *out. */
int ks_sweep_windows(const ks_sweep *s, int32_t L, ks_window **out, size_t *n);

/* KS_EUSAGE when the sweep names a head that a model of H heads has not. */
int ks_sweep_check_heads(const ks_sweep *s, int32_t H);

/* The pieces below are shared with the command line (options.c); `where` begins every message. */
void ks_sweep_clear(ks_sweep *s);
void ks_model_ref_clear(ks_model_ref *m);
/* *out = the index of `word` in names; the message names the nearest. */
int ks_config_word(const char *where, const char *word, const char *const *names, int *out);
/* Bytes: "1500000", "2G", "512M", "64K" (powers of 1024). */
int ks_config_bytes(const char *where, const char *text, uint64_t *out);
/* Sets output and output_json: "x.json" asks for both x.h5 and x.json. */
int ks_config_set_output(ks_config *c, const char *path);
/* A model's name from the last part of its path or id. NULL with the error text set when memory ends. */
char *ks_config_model_name(const char *path_or_id);
/* Letters, digits and _ . + - only, and not "." or "..": `what` names the thing in the message. */
int ks_config_check_name(const char *where, const char *what, const char *name);
/* "name" or "organisation/name". */
int ks_config_check_id(const char *where, const char *id);
/* A sweep's values and heads checked and brought into their canonical order; its default name where it has none. */
int ks_sweep_finish(ks_sweep *s, const char *where);

#endif
