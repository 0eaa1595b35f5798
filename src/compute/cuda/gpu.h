/* gpu.h - all that the CUDA backend's host code asks of a GPU: memory, queues, products. Two implementations: gpu_cuda.c (CUDA runtime and
 * cuBLAS) and, for tests, tests/check/gpu_check.cpp (no GPU: device memory of its own, poisoned with NaN; queues in order; products by the
 * CPU's kernel). Functions return KS_OK or KS_EMACHINE, naming what failed. One thread per ks_gpu. */
#ifndef KS_COMPUTE_CUDA_GPU_H
#define KS_COMPUTE_CUDA_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ks_gpu ks_gpu;

/* Device number `index` of those that this process may use. KS_EMACHINE with the reason where there is none. */
int ks_gpu_open(ks_gpu **out, int index);
void ks_gpu_close(ks_gpu *g);
const char *ks_gpu_name(const ks_gpu *g);
void *ks_gpu_stream(ks_gpu *g); /* the compute queue, for kernels */

/* Device memory; pinned host memory. */
int ks_gpu_alloc(ks_gpu *g, void **out, size_t bytes);
void ks_gpu_free(ks_gpu *g, void *p);
int ks_gpu_alloc_host(ks_gpu *g, void **out, size_t bytes);
void ks_gpu_free_host(ks_gpu *g, void *p);

/* In the compute queue. Host memory must be pinned, and stay as it is until ks_gpu_wait or until the mark that follows is reached. */
int ks_gpu_zero(ks_gpu *g, void *p, size_t bytes);
int ks_gpu_copy(ks_gpu *g, void *dst, const void *src, size_t bytes);        /* device to device */
int ks_gpu_upload(ks_gpu *g, void *dst, const void *host, size_t bytes);
int ks_gpu_download(ks_gpu *g, void *host, const void *src, size_t bytes);
int ks_gpu_wait(ks_gpu *g); /* until the queue is empty */
/* The error of a kernel's launcher, if any. */
int ks_gpu_launched(ks_gpu *g, int error, const char *what);

/* y [M, N] (leading dimension ldy, fp32) = or += x [M, K] (bf16, dense) * w [N, K]^T (bf16, leading dimension ldw), accumulated in fp32 by
 * one fixed algorithm per (N, K): a row's bits do not depend on M. */
int ks_gpu_product_bf16(ks_gpu *g, float *y, size_t ldy, const void *x, const void *w, size_t ldw, size_t M, size_t N, size_t K, bool accumulate);
/* The same with x (leading dimension ldx) and w (leading dimension ldw) fp32, without TF32. */
int ks_gpu_product_f32(ks_gpu *g, float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw, size_t M, size_t N, size_t K,
                       bool accumulate);

#endif
