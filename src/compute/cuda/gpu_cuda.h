/* gpu_cuda.h - what gpu_nccl.c uses of gpu_cuda.c beside gpu.h. */
#ifndef KS_COMPUTE_CUDA_GPU_CUDA_H
#define KS_COMPUTE_CUDA_GPU_CUDA_H

#include "compute/cuda/gpu.h"

/* A queue's cudaStream_t; the GPU becomes the thread's current one. */
void *ks_gpu_queue(ks_gpu *g, int queue);

/* From here on every wait for the GPU polls, and asks `watch` meanwhile, with the seconds that it has lasted; what watch returns but KS_OK
 * ends the wait. NULL: no more. */
void ks_gpu_watch(ks_gpu *g, int (*watch)(void *ctx, double seconds), void *ctx);

#endif
