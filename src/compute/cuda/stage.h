/* stage.h - host data on its way to the device, without waiting: copied into a ring of pinned memory, from there in the queue.
 *
 * The ring has parts; a part is filled anew only when the queue has reached the mark behind its last use. In the main queue each part has a
 * twin on the device, where the lists of an operation lie until the part comes round again. */
#ifndef KS_COMPUTE_CUDA_STAGE_H
#define KS_COMPUTE_CUDA_STAGE_H

#include "compute/cuda/gpu.h"

enum { KS_STAGE_PARTS = 4 };

/* Which marks of gpu.h are whose. */
enum {
    KS_MARK_STAGE = 0,                                            /* each queue's ring: KS_STAGE_PARTS */
    KS_MARK_KEPT = KS_MARK_STAGE + KS_GPU_QUEUES * KS_STAGE_PARTS /* kept.c: 4 */
};

typedef struct ks_stage {
    ks_gpu *gpu;
    int queue;
    char *host, *device; /* [KS_STAGE_PARTS * part_bytes] */
    size_t part_bytes;   /* a multiple of 256 */
    size_t used;         /* of the current part */
    int part;
} ks_stage;

/* One array for a kernel. NULL, or no bytes, gives NULL. */
typedef struct ks_piece {
    const void *host;
    size_t bytes;
    void *device; /* set by ks_stage_put, aligned to 16 bytes */
} ks_piece;

/* s: zeroed. */
int ks_stage_open(ks_stage *s, ks_gpu *g, int queue, size_t part_bytes);
void ks_stage_close(ks_stage *s);

/* The pieces of one operation, in one transfer; for operations queued before the next call. What the pieces hold may change at once. Grows
 * the ring where they are larger than a part, which waits. Main queue. */
int ks_stage_put(ks_stage *s, ks_piece *pieces, size_t n);

/* bytes from any host memory into device memory of the caller's. */
int ks_stage_copy(ks_stage *s, void *dst, const void *host, size_t bytes);

#endif
