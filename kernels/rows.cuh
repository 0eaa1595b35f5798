/* rows.cuh - element-wise kernels over rows: a warp takes KS_ROW_SPAN columns of a row, in packs of four floats where the arrays allow it.
 *
 * An operation is a struct of its arguments with
 *     template <int W> __device__ void at(size_t i, size_t c) const;
 * which computes columns c .. c + W - 1 of row i. Compiled with -fmad=false: the same bits for every W. */
#ifndef KS_KERNELS_ROWS_CUH
#define KS_KERNELS_ROWS_CUH

#include "kernels/launch.h"

#include <stddef.h>
#include <stdint.h>

enum { KS_ROW_WARPS = 8, KS_ROW_SPAN = 1024 };

/* W values that are read and written at once. */
template <class T, int W> struct alignas(sizeof(T) * W) ks_pack {
    T v[W];
};

template <int W, class T> static __device__ __forceinline__ ks_pack<T, W> ks_load(const T *p)
{
    return *reinterpret_cast<const ks_pack<T, W> *>(p);
}

template <int W, class T> static __device__ __forceinline__ void ks_store(T *p, const ks_pack<T, W> &x)
{
    *reinterpret_cast<ks_pack<T, W> *>(p) = x;
}

/* Whether rows that begin `ld` elements apart can be read in packs of four. NULL can. */
static inline bool ks_packs(const void *p, size_t ld, size_t element)
{
    return ((uintptr_t)p | ld * element) % (4 * element) == 0;
}

template <int W, class F> static __global__ void ks_rows_kernel(size_t n, size_t D, F f)
{
    const size_t i = (size_t)blockIdx.x * KS_ROW_WARPS + threadIdx.y, from = (size_t)blockIdx.y * KS_ROW_SPAN;
    if (i >= n) return;
    const size_t to = from + KS_ROW_SPAN < D ? from + KS_ROW_SPAN : D;
    for (size_t c = from + W * threadIdx.x; c < to; c += 32 * W) f.template at<W>(i, c);
}

/* f on n rows of D columns; packs: in packs of four, which D must be a multiple of. Returns cudaGetLastError(). */
template <class F> static int ks_rows_launch(const F &f, bool packs, size_t n, size_t D, void *stream)
{
    if (!n || !D) return 0;
    const dim3 grid((unsigned)((n + KS_ROW_WARPS - 1) / KS_ROW_WARPS), (unsigned)((D + KS_ROW_SPAN - 1) / KS_ROW_SPAN));
    const dim3 block(32, KS_ROW_WARPS);
    if (packs) KS_LAUNCH((ks_rows_kernel<4, F>), grid, block, 0, stream, n, D, f);
    else KS_LAUNCH((ks_rows_kernel<1, F>), grid, block, 0, stream, n, D, f);
    return (int)cudaGetLastError();
}

#endif
