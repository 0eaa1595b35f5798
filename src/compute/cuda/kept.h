/* kept.h - weights on the device, found again by their place in host memory.
 *
 * Two sorts. What stays in its place in host memory is copied once, at its first use or ahead of it, and kept until it is forgotten; the
 * plan sees to it that there is room. What does not stay is brought, set after set, into two places that are used in turn: one is filled
 * while operations use the other.
 *
 *     main queue   uses set 0        | uses set 1             | uses set 2
 *     side queue   set 1 to place 1  | set 2 to place 0       | ...
 *                  ^ the place's last set is no longer used   ^ set 2 is there
 *
 * All copies run in the side queue; the main queue waits for one only when it is about to use it. Matrices of f16 (and of bf16 where
 * they share an operand with others) are widened to fp32 at each use: beside a product that costs little, and they take half the room. */
#ifndef KS_COMPUTE_CUDA_KEPT_H
#define KS_COMPUTE_CUDA_KEPT_H

#include "compute/cuda/group.h"
#include "compute/cuda/stage.h"
#include "model/model.h"

typedef struct ks_kept_entry {
    const void *host;
    int64_t rows, cols, ld;
    ks_dtype dtype;
    char *device; /* dense */
} ks_kept_entry;

typedef struct ks_kept_list {
    ks_kept_entry *v;
    size_t n, room;
    size_t next;  /* where the search begins: weights are used in a cycle */
    bool pending; /* the main queue has not waited for the last copies yet */
} ks_kept_list;

typedef struct ks_kept {
    ks_gpu *gpu;
    ks_stage stage;         /* of the side queue */
    ks_kept_list stay, set; /* set: the last one */
    void **blocks;          /* what stays lies in them */
    size_t n_blocks, room_blocks;
    char *free_at; /* in the last block */
    size_t free_bytes;
    void *places[2];
    size_t place_bytes[2];
    int place; /* of the last set */
    char *pinned;
    size_t pinned_bytes;
    void *wide, *order; /* a matrix as fp32; 0, 1, 2 ... for the kernel that does it */
    size_t wide_bytes, orders;
} ks_kept;

/* k: zeroed. part_bytes: of the ring that pageable memory goes through. */
int ks_kept_open(ks_kept *k, ks_gpu *g, size_t part_bytes);
void ks_kept_close(ks_kept *k);

/* A matrix on the device, dense [rows, cols], of KS_K_ type `type`: KS_K_F32, to which it is widened, or KS_K_BF16 for one of bf16. For
 * operations that are queued before the next set, and a widened one before the next of these. */
int ks_kept_matrix(ks_kept *k, const ks_tensor *w, int type, const void **out);
/* A vector [n], which stays; NULL gives NULL. */
int ks_kept_vector(ks_kept *k, const float *v, size_t n, const float **out);

/* As keep, fetch, fetched, pin and forget of backend.h. */
int ks_kept_keep(ks_kept *k, const ks_tensor *w, size_t n, bool *copied);
int ks_kept_fetch(ks_kept *k, const ks_tensor *w, size_t n);
int ks_kept_fetched(ks_kept *k);
int ks_kept_pin(ks_kept *k, void *memory, size_t bytes);
void ks_kept_forget(ks_kept *k);

/* As share; mine: this is member `from`. */
int ks_kept_share(ks_kept *k, ks_gpu_group *group, const ks_tensor *w, size_t n, int from, bool mine, bool stays);

#endif
