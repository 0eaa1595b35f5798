/* kept.h - weights on the device: uploaded at their first use, found again by their place in host memory.
 *
 * When the limit, or the device's memory, is reached, something else must go. Weights are used in a cycle, layer after layer, so what was
 * used most recently is needed latest; but for the last few, which further chunks of the same layer use again. That one goes. */
#ifndef KS_COMPUTE_CUDA_KEPT_H
#define KS_COMPUTE_CUDA_KEPT_H

#include "compute/cuda/stage.h"
#include "model/model.h"

typedef struct ks_kept_entry {
    const void *host; /* NULL: idle */
    int64_t rows, cols, ld;
    ks_dtype dtype;
    void *device;
    size_t bytes;
    uint64_t used; /* clock of the last use */
} ks_kept_entry;

typedef struct ks_kept {
    ks_stage *stage;
    ks_kept_entry *v;
    size_t n, room;
    size_t bytes; /* of all entries */
    size_t limit; /* of them; exceeded where one operation needs more */
    uint64_t clock;
} ks_kept;

/* k: zeroed. */
void ks_kept_open(ks_kept *k, ks_stage *stage, size_t limit);
void ks_kept_close(ks_kept *k);

/* A matrix on the device, dense [rows, cols], of KS_K_ type *type: bf16 stays bf16, f32 and f16 are f32 (cuda.c says why). It stays until
 * the second call after this, for all operations queued by then. */
int ks_kept_matrix(ks_kept *k, const ks_tensor *w, const void **out, int *type);
/* A vector [n]; NULL gives NULL. */
int ks_kept_vector(ks_kept *k, const float *v, size_t n, const float **out);

/* Nothing is found any more; the memory is used again for what comes. */
void ks_kept_forget(ks_kept *k);
/* Gives memory of something back to the device; false: there is nothing that may go. */
bool ks_kept_yield(ks_kept *k);

#endif
