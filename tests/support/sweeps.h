/* sweeps.h - random sweeps of the small models in tests/goldens, run by the engine on any backend, and all that they report. */
#ifndef KS_TESTS_SWEEPS_H
#define KS_TESTS_SWEEPS_H

#include "plan/queue.h"
#include "sweep/engine.h"

enum { SAMPLES = 2, MAX_T = 40 };

/* The models, one after the other; every one has at least 4 layers and heads. */
enum { MODELS = 9 };
extern const char *const models[MODELS];

/* A number in [0, n), the same ones in every run of the program. draw_seed: from here on those that belong to this seed. */
int32_t draw(int32_t n);
void draw_seed(uint32_t seed);

/* What a pass reports, by (sample, variant). */
typedef struct outcome {
    ks_cell *cells;       /* [SAMPLES, n_variants] */
    double *kl_positions; /* [SAMPLES, n_variants, MAX_T] NaN where not reported */
    ks_baseline baselines[SAMPLES];
    double *strength;      /* [SAMPLES, L, H] */
    int *times;            /* [SAMPLES, n_variants] how often a cell was reported */
    int reported[SAMPLES]; /* baselines */
    int32_t T[SAMPLES];
    size_t n_variants, per_sample;
} outcome;

typedef struct fixture {
    ks_model *model;
    ks_weights *weights;
    const ks_backend *backend;
    ks_device *device;
    ks_tokens tokens[SAMPLES];
    ks_geometry *geometry[SAMPLES];
    ks_grid *grid;
    ks_problem problem;
    int precision; /* KS_PRECISION_FULL unless set */
} fixture;

/* Sweeps of every sort, of a model of at least L layers and H heads. values [4] and heads [1] must outlive the sweeps [8]; returns their
 * number. */
size_t random_sweeps(ks_sweep *s, double *values, int32_t *heads, int32_t L, int32_t H);

/* A model with random samples, on a device of its own. Asserts that all goes well, like all that follow. */
void fixture_open(fixture *f, const char *name, ks_sweep *sweeps, size_t n_sweeps, const ks_backend *backend,
                  const ks_device_options *options);
/* Other weights for what runs from now on; pin: the backend hears of their buffers, if it wants to. */
void fixture_weights(fixture *f, ks_streamed streamed, bool pin);
void fixture_close(fixture *f);

/* Runs the units of one grouping. pieces: units a sample is cut into; together: all units in one pass, or one pass each. */
void run(const fixture *f, int32_t pieces, bool together, outcome *o);
/* Runs a plan, in passes of about 1/parts of it. */
void run_plan(const fixture *f, int ranks, int parts, outcome *o);
void outcome_free(outcome *o);

bool same_double(double x, double y); /* all bits, or both NaN */
/* A sweep that scales by 1 gives exactly 0 on this backend. */
void assert_nothing_removed_is_zero(const ks_backend *backend, const ks_device_options *options);
/* Cell c (sample * n_variants + variant) has been reported by `other` once, with the same bits. */
void assert_same_cell(const outcome *one, const outcome *other, size_t c);

#endif
