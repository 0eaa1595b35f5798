/* reduce.cuh - sums over a row in a fixed tree. A row belongs to `WARPS` warps of a block of (32, KS_ROW_WARPS) threads: to one, so that
 * the block has KS_ROW_WARPS rows, or to all. */
#ifndef KS_KERNELS_REDUCE_CUH
#define KS_KERNELS_REDUCE_CUH

#include "kernels/rows.cuh"

/* The sum over a warp, the same in every lane. */
template <class T> static __device__ __forceinline__ T ks_warp_sum(T v)
{
    for (int by = 16; by; by >>= 1) v += __shfl_xor_sync(0xffffffffu, v, by);
    return v;
}

/* Every v[k] becomes the sum over the row's threads, the same in each of them. All threads of the block must call it when WARPS > 1. */
template <int WARPS, int K> static __device__ __forceinline__ void ks_row_sums(double (&v)[K])
{
    for (int k = 0; k < K; k++) v[k] = ks_warp_sum(v[k]);
    if (WARPS == 1) return;
    KS_SHARED(double, part, [KS_ROW_WARPS][K]);
    if (threadIdx.x == 0) {
        for (int k = 0; k < K; k++) part[threadIdx.y][k] = v[k];
    }
    __syncthreads();
    for (int k = 0; k < K; k++) {
        v[k] = 0;
        for (int w = 0; w < WARPS; w++) v[k] += part[w][k];
    }
    __syncthreads();
}

#endif
