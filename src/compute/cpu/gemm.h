/* gemm.h - the CPU's matrix product, whose bits are defined.
 *
 * Y[m, n] = C, or Y[m, n] + C with `accumulate` (one addition, at the end), where for blocks of 256 along K
 *     s = +0;  s = fma(X[m, k], W[n, k], s) for ascending k of the block
 *     C = s for the first block, C = C + s for every later one
 * in fp32, rounding to nearest, denormals kept, W converted to fp32 first (exact). So a row's bits depend on that row of X and on W
 * only: not on M, not on the number of threads, not on the processor. Error at most about K/2 x 2^-24 in theory, 1.3 x 2^-24 of
 * sum |x||w| measured at K = 576. A NaN is a NaN everywhere, but which one is not defined. */
#ifndef KS_COMPUTE_CPU_GEMM_H
#define KS_COMPUTE_CPU_GEMM_H

#include "base/dtype.h"
#include "compute/cpu/pool.h"

#include <stdbool.h>
#include <stddef.h>

enum { KS_GEMM_K_MAX = 1 << 20 };

typedef struct ks_gemm ks_gemm;

/* Scratch for products on `pool`, which must outlive it: 16 MiB and 320 KiB a thread, of which only what a product's size needs is
 * touched. isa as in ks_cpu_ops_find (NULL: the environment's or the best). */
int ks_gemm_new(ks_gemm **out, ks_pool *pool, const char *isa);
void ks_gemm_free(ks_gemm *g);

/* Y[M, N] (ldy) = X[M, K] (ldx) W[N, K]^T (ldw), or Y += with accumulate. Leading dimensions count elements. W lies at any byte
 * address. Y must overlap neither X nor W. K <= KS_GEMM_K_MAX; K = 0 gives C = +0. Columns of Y beyond N are not touched. */
void ks_gemm_run(ks_gemm *g, float *Y, size_t ldy, const float *X, size_t ldx, const void *W, ks_dtype wtype, size_t ldw, size_t M,
                 size_t N, size_t K, bool accumulate);

#endif
