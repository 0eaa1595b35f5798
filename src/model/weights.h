/* weights.h - where the engine gets weights from, without knowing the source.
 *
 * Order of use: begin, layers 0..L-1, then all head blocks as often as need be (once for each chunk of rows), end. One thread calls; what
 * is acquired may be read by many until its release.
 *
 *   resident  the mapped files themselves, so processes of a host share them; a file that is cut short while its pages are in use ends the
 *             process
 *   streamed  two buffers; while the caller computes on one, a thread reads what comes next into the other
 *   shared    streamed for several processes of a host: one reads, all compute on the same two buffers. A pass goes as fast as its slowest
 *             member
 *
 * A model may be partly the one and partly the other: the layers that are streamed are spread evenly among the resident ones.
 *
 *        callers  | layer 0     | layer 1     | layer 2     |
 *        reader   | layer 1     | layer 2     | layer 3     |        */
#ifndef KS_MODEL_WEIGHTS_H
#define KS_MODEL_WEIGHTS_H

#include "model/model.h"

typedef struct ks_weights ks_weights;

/* What of a model is streamed; the rest is resident. All processes that share a model have the same. */
typedef struct ks_streamed {
    int32_t layers; /* so many of the L, or all */
    bool head;
} ks_streamed;
#define KS_ALL_RESIDENT ((ks_streamed){0, false})
#define KS_ALL_STREAMED ((ks_streamed){INT32_MAX, true})
bool ks_weights_any(ks_streamed s); /* anything is streamed */
bool ks_weights_streams(ks_streamed s, int32_t layer, int32_t L);

/* m must outlive *out. */
int ks_weights_open(ks_weights **out, const ks_model *m, ks_streamed streamed);

/* Layers and head blocks in the order of their use: items 0..L-1 are layers, L.. head blocks. */
int32_t ks_weights_items(const ks_weights *w);
/* Whether what is acquired stays in its place, as it is, after its release too (resident weights, until the model is closed). */
bool ks_weights_stay(const ks_weights *w, int32_t item);
/* The buffers that are streamed through, aligned to pages; NULL: nothing is streamed. */
void *ks_weights_buffers(const ks_weights *w, size_t *bytes);

/* Bytes of memory that the processes of a host share to stream a model together. */
size_t ks_weights_shared_bytes(const ks_model *m);
/* One of `members` that stream the same model together. shared: zeroed memory of that size, aligned to a page, seen by all of them,
 * outliving w. Something is streamed. Member 0's process reads the files, in a thread of its own; the others wait up to a minute until it
 * has opened. */
int ks_weights_open_shared(ks_weights **out, const ks_model *m, ks_streamed streamed, void *shared, int member, int members);
/* Ends the pass, too. Closed by member 0 while others are in a pass: they get KS_EMACHINE. NULL is fine. */
void ks_weights_close(ks_weights *w);

/* A pass begins. Where weights are shared, `round` (1, 2, ...) and `who` (who[i] != 0: member i takes part) are the same for all that take
 * part, each of them begins and ends it, and nobody begins before all of the pass before have ended it. Otherwise both are ignored. */
int ks_weights_begin(ks_weights *w, uint32_t round, const uint8_t *who);
/* The pass ends for this member, in any state and with anything held; after it the others no longer wait for this one. */
void ks_weights_end(ks_weights *w);

/* Waits until layer is there; what comes next is being read. At most two things may be held at a time, and are released in the order in
 * which they were acquired. A read that fails, or a file that has become shorter meanwhile, is KS_EMACHINE and names the file, for every
 * member. */
int ks_weights_acquire(ks_weights *w, int32_t layer, ks_layer *out);
void ks_weights_release(ks_weights *w, int32_t layer);

/* The head [V, D] comes in blocks of rows, none larger than the largest layer: the same ones from any source, so that products
 * have the same shapes. */
int32_t ks_weights_head_blocks(const ks_weights *w);
/* *rows [n, D] are rows *first_row .. *first_row + n - 1 of the head. */
int ks_weights_acquire_head(ks_weights *w, int32_t block, ks_tensor *rows, int64_t *first_row);
void ks_weights_release_head(ks_weights *w, int32_t block);

/* Bytes that this process has read from files into buffers, its own or a device's. */
int64_t ks_weights_bytes_read(const ks_weights *w);
/* A resident item was copied to a device: counts it as read. */
void ks_weights_copied(ks_weights *w, int32_t item);

/* Bytes of memory that weights take at the peak: what is resident, and two buffers where anything is streamed, which members share. On a
 * device: without the embedding, whose rows are uploaded, and with the vectors. */
int64_t ks_weights_predict(const ks_model *m, ks_streamed streamed, bool device);
/* On each of n devices that hold a model together: the layers of the one that has most, two places for the others', the head, the vectors.
 */
int64_t ks_weights_predict_shard(const ks_model *m, int n);
/* As much resident as that takes at most `bytes`: all, else the head first, which is used for every chunk of measured rows, then layers. */
ks_streamed ks_weights_choose(const ks_model *m, int64_t bytes, bool device);

#endif
