/* results_file.h - a result file of known numbers, for the tests of writer, reader and tables. */
#ifndef KS_TESTS_RESULTS_FILE_H
#define KS_TESTS_RESULTS_FILE_H

#include "sweep/results.h"

#include <stdint.h>

/* The sweeps of the file's first model, by index. */
enum {
    RF_LAYERS,   /* each layer, marker-targets */
    RF_ALL_EDGE, /* each layer, all-marker */
    RF_TRIANGLE, /* all windows */
    RF_SLIDE,    /* windows of 2 layers, positions: all */
    RF_AROUND,   /* windows around layer 1 */
    RF_HEADS,    /* each layer, heads: each */
    RF_DOSE,     /* scale with 3 values, one window, positions: all */
    RF_SHAPE,    /* scale with 2 values, 2 windows, heads: each, positions: all: every axis at once */
    RF_SWEEPS
};
enum { RF_L = 4, RF_H = 3, RF_V = 50, RF_S = 7, RF_T_MAX = 6 };

/* Samples: 3 python_doctest, 3 rust_test, 1 python_baseline, of 3 to 6 tokens. */
const ks_samples *rf_samples(void);
int rf_windows(int sweep, ks_window *out /* [16] */);

/* The cell that the file holds there: a smooth function of its place, with a few cells of every status. */
ks_cell rf_cell(int sweep, size_t factor, const ks_window *w, size_t head, size_t sample);
ks_position_cell rf_position(int sweep, size_t factor, const ks_window *w, size_t head, size_t sample, int32_t t);
ks_baseline rf_baseline(size_t sample);

/* Model "tiny". */
ks_model_info rf_info(void);

/* Fills a writer with models "tiny" (all sweeps) and "other" (only RF_LAYERS; no token texts). */
int rf_fill(ks_results *r);

/* create, fill, close. */
int rf_write(const char *path);

#endif
