/* launch.h - the one place where kernels are launched, so that the same .cu runs on a GPU (nvcc) and, for tests, on the host (g++ -x c++
 * with tests/check/emulator.h).
 *
 * KS_LAUNCH(kernel, grid, block, shared, stream, arguments...): kernel<<<...>>>; a template's name with commas stands in parentheses.
 * KS_SHARED(float, name, [4][32]): an array of static shared memory, 16-byte aligned; instead of __shared__, which the emulator refuses.
 * KS_DYNAMIC_SHARED(float, name): name points to the shared memory whose bytes were given at the launch.
 * KS_ALLOW_SHARED(kernel, bytes): cudaError_t; needed once for a kernel whose dynamic shared memory exceeds 48 KB. */
#ifndef KS_KERNELS_LAUNCH_H
#define KS_KERNELS_LAUNCH_H

#include <cuda_runtime.h>

#ifdef __CUDACC__
#define KS_LAUNCH(kernel, grid, block, shared, stream, ...) kernel<<<grid, block, shared, (cudaStream_t)(stream)>>>(__VA_ARGS__)
#define KS_DYNAMIC_SHARED(type, name)                  \
    extern __shared__ __align__(16) char ks_shared_[]; \
    type *name = (type *)ks_shared_
#define KS_SHARED(type, name, ...) __shared__ __align__(16) type name __VA_ARGS__
#define KS_ALLOW_SHARED(kernel, bytes) \
    cudaFuncSetAttribute((const void *)(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes))
#else
#include "tests/check/emulator.h"
#endif

#endif
