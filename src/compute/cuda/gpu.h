/* gpu.h - all that the CUDA backend's host code asks of a GPU: memory, two queues, products. Two implementations: gpu_cuda.c (CUDA runtime
 * and cuBLASLt) and, for tests, tests/check/gpu_check.c (no GPU: device memory of its own that host code cannot touch, poisoned with NaN;
 * products by the CPU's kernel). Functions return KS_OK or KS_EMACHINE, naming what failed. One thread at a time uses a ks_gpu.
 *
 * What one queue holds runs in order. The two run side by side: KS_GPU_MAIN computes, KS_GPU_SIDE brings weights meanwhile. Marks order
 * them: what is behind ks_gpu_after(g, KS_GPU_MAIN, i) in the main queue runs after everything before mark i. */
#ifndef KS_COMPUTE_CUDA_GPU_H
#define KS_COMPUTE_CUDA_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ks_gpu ks_gpu;

enum { KS_GPU_MAIN, KS_GPU_SIDE, KS_GPU_QUEUES };
enum { KS_GPU_MARKS = 16 };

/* KS_OK if this process may use a GPU, else KS_EMACHINE with the reason. */
int ks_gpu_probe(void);

/* Device number `index` modulo the number of those that this process may use. */
int ks_gpu_open(ks_gpu **out, int index);
void ks_gpu_close(ks_gpu *g); /* NULL is fine */
const char *ks_gpu_name(const ks_gpu *g);
/* The same for processes of a host that have the same device, and for no others. */
const char *ks_gpu_place(const ks_gpu *g);

/* Device memory, aligned to 256 bytes; pinned host memory. Freeing waits until both queues are empty. NULL is fine. */
int ks_gpu_alloc(ks_gpu *g, void **out, size_t bytes);
void ks_gpu_free(ks_gpu *g, void *p);
int ks_gpu_alloc_host(ks_gpu *g, void **out, size_t bytes);
void ks_gpu_free_host(ks_gpu *g, void *p);
/* Makes memory of the caller's, aligned to pages, pinned, and ends that: waits until both queues are empty. */
int ks_gpu_pin(ks_gpu *g, void *host, size_t bytes);
void ks_gpu_unpin(ks_gpu *g, void *host);
/* Device memory that is free now, and all of it. */
int ks_gpu_memory(ks_gpu *g, size_t *free_bytes, size_t *all_bytes);

/* In a queue. Host memory must be pinned; it stays as it is, and what was downloaded is not there, until ks_gpu_wait, or until
 * ks_gpu_reach of a mark that was set behind the operation. */
int ks_gpu_zero(ks_gpu *g, void *p, size_t bytes);                    /* main queue */
int ks_gpu_copy(ks_gpu *g, void *dst, const void *src, size_t bytes); /* main queue; device to device */
int ks_gpu_upload(ks_gpu *g, int queue, void *dst, const void *host, size_t bytes);
int ks_gpu_download(ks_gpu *g, void *host, const void *src, size_t bytes); /* main queue */
int ks_gpu_wait(ks_gpu *g);                                                /* until both queues are empty */
/* Mark i (0 .. KS_GPU_MARKS - 1) moves to the queue's end. A mark that was never set is behind nothing. */
int ks_gpu_mark(ks_gpu *g, int queue, int i);
int ks_gpu_reach(ks_gpu *g, int i);            /* the host waits until mark i has been reached */
int ks_gpu_after(ks_gpu *g, int queue, int i); /* what is queued from here on waits for where mark i is now */

/* A kernel's launcher gets the main queue from ks_gpu_stream, asked for anew each time, and what it returns goes to ks_gpu_launched at
 * once. */
void *ks_gpu_stream(ks_gpu *g);
int ks_gpu_launched(ks_gpu *g, int error, const char *what);

/* y [M, N] (leading dimension ldy, fp32) = or += x [M, K] (leading dimension ldx, bf16) * w [N, K]^T (bf16, dense), accumulated in fp32 by
 * one fixed algorithm per (N, K, ldy, ldx): a row's bits do not depend on M. w aligned as ks_gpu_alloc gives it. M, N, K > 0. */
int ks_gpu_product_bf16(ks_gpu *g, float *y, size_t ldy, const void *x, size_t ldx, const void *w, size_t M, size_t N, size_t K,
                        bool accumulate);
/* The same with x and w fp32, without TF32. */
int ks_gpu_product_f32(ks_gpu *g, float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t M, size_t N, size_t K,
                       bool accumulate);

/* How products have been computed so far: a line each kind (type, N, K, leading dimensions), in the order of their first use, without a
 * newline at the end; "" before the first. Valid until the next product. */
const char *ks_gpu_algorithms(const ks_gpu *g);

#endif
