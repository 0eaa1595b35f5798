/* gpu_check.h - src/compute/cuda/gpu.h without a GPU, made to find faults of the host code. What is against the contract of gpu.h ends the
 * program with a line on stderr:
 *
 *   - device memory is pages of its own, closed while host code runs (a touch is a segmentation fault; without protection keys now and
 *     then only), a closed page behind each allocation, filled with NaN when allocated
 *   - uploads and downloads need pinned memory; what is uploaded must be unchanged when the queue is known to have passed it, what is
 *     downloaded is NaN until then
 *   - copies, products and zeroes stay inside one allocation; whatever is allocated is freed before ks_gpu_close */
#ifndef KS_TESTS_CHECK_GPU_CHECK_H
#define KS_TESTS_CHECK_GPU_CHECK_H

#include "compute/cuda/gpu.h"

/* Bytes of device memory of GPUs opened from now on; what goes beyond is refused. 0: KS_CHECK_MEMORY of the environment, else 2 GiB. */
void ks_gpu_check_memory(size_t bytes);

/* What happened so far, in this process. */
typedef struct ks_gpu_check_count {
    size_t launches, products, uploads, uploaded_bytes, waits;
} ks_gpu_check_count;
ks_gpu_check_count ks_gpu_check_counted(void);

/* For group_check.c: these bytes are inside one allocation, or the program ends; a copy that may touch device memory on either side. */
void ks_gpu_check_touch(const ks_gpu *g, const void *device, size_t bytes, const char *what);
void ks_gpu_check_copy(ks_gpu *g, void *dst, const void *src, size_t bytes);

#endif
