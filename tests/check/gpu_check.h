/* gpu_check.h - src/compute/cuda/gpu.h without a GPU, made to find faults of the host code. What is against the contract of gpu.h ends the
 * program with a line on stderr:
 *
 *   - device memory is pages of its own, closed while host code runs (a touch is a segmentation fault), a closed page behind each
 *     allocation, filled with NaN when allocated
 *   - nothing in a queue runs before something is waited for, and then in an order that a seed decides (queues.h)
 *   - uploads and downloads need pinned memory; what is uploaded is read when the queue comes to it, and must be unchanged until the host
 *     knows that it has passed; what is downloaded is NaN until then
 *   - copies, products and zeroes stay inside one allocation; whatever is allocated is freed before ks_gpu_close
 *
 * A host has KS_CHECK_GPUS of them (environment), or as many as ranks. */
#ifndef KS_TESTS_CHECK_GPU_CHECK_H
#define KS_TESTS_CHECK_GPU_CHECK_H

#include "compute/cuda/gpu.h"

/* Bytes of device memory of GPUs opened from now on; what goes beyond is refused. 0: KS_CHECK_MEMORY of the environment, else 2 GiB. Where
 * KS_CHECK_PEAK names a file, closing a GPU adds a line to it: the most that was allocated at a time. */
void ks_gpu_check_memory(size_t bytes);

/* What happened so far, in this process. */
typedef struct ks_gpu_check_count {
    size_t launches, products, uploads, uploaded_bytes, waits;
} ks_gpu_check_count;
ks_gpu_check_count ks_gpu_check_counted(void);

/* For group_check.c. n bytes that another GPU has sent arrive in the side queue, and n bytes leave from it, which runs it to its end. */
int ks_gpu_check_arrive(ks_gpu *g, void *device, const void *bytes, size_t n);
void ks_gpu_check_leave(ks_gpu *g, void *bytes, const void *device, size_t n);

#endif
