/* launch.h - the one place where kernels are launched, so that the same .cu runs on a GPU (nvcc) and, for tests, on the host (g++ -x c++
 * with tests/check/emulator.h): KS_LAUNCH for a launch, KS_DYNAMIC_SHARED for shared memory of a size given at the launch. */
#ifndef KS_KERNELS_LAUNCH_H
#define KS_KERNELS_LAUNCH_H

#include <cuda_runtime.h>

#ifdef __CUDACC__
#define KS_LAUNCH(kernel, grid, block, shared, stream, ...) kernel<<<grid, block, shared, (cudaStream_t)(stream)>>>(__VA_ARGS__)
#define KS_DYNAMIC_SHARED(type, name)                  \
    extern __shared__ __align__(16) char ks_shared_[]; \
    type *name = (type *)ks_shared_
#else
#include "tests/check/emulator.h"
#endif

#endif
