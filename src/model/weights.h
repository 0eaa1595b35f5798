/* weights.h - where the engine gets weights from, without knowing the source.
 *
 * Order of use: layers 0..L-1, then head blocks 0.., then either from the first layer again (next pass) or the head blocks again
 * (next chunk of rows). Other orders work, more slowly. One thread calls; what is acquired may be read by many until its release.
 *
 *   resident  the mapped files themselves; a file that is cut short while its pages are in use ends the process
 *   streamed  two buffers; while the caller computes on one, a thread reads what comes next into the other, so that the process
 *             holds two layers however large the model is
 *
 *        caller   | layer 0     | layer 1     | layer 2     |
 *        reader   | layer 1     | layer 2     | layer 3     |        */
#ifndef KS_MODEL_WEIGHTS_H
#define KS_MODEL_WEIGHTS_H

#include "model/model.h"

typedef struct ks_weights ks_weights;
enum { KS_WEIGHTS_RESIDENT, KS_WEIGHTS_STREAMED };

/* m must outlive *out. */
int ks_weights_open(ks_weights **out, const ks_model *m, int source);
void ks_weights_close(ks_weights *w); /* NULL is fine */

/* Waits until layer is there, starts reading what comes next. At most two things may be held at a time. A read that fails, or a file
 * that has become shorter meanwhile, is KS_EMACHINE and names the file. */
int ks_weights_acquire(ks_weights *w, int32_t layer, ks_layer *out);
void ks_weights_release(ks_weights *w, int32_t layer);

/* The head [V, D] comes in blocks of rows, none larger than the largest layer; resident: 1 block. */
int32_t ks_weights_head_blocks(const ks_weights *w);
/* *rows [n, D] are rows *first_row .. *first_row + n - 1 of the head. */
int ks_weights_acquire_head(ks_weights *w, int32_t block, ks_tensor *rows, int64_t *first_row);
void ks_weights_release_head(ks_weights *w, int32_t block);

/* Bytes of weights in memory at the peak: all of them, or the two buffers. */
int64_t ks_weights_bytes(const ks_weights *w);
/* The same before anything is opened, for the plan. */
int64_t ks_weights_predict(const ks_model *m, int source);

#endif
