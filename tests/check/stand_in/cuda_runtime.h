/* cuda_runtime.h - the little of CUDA's header that kernels need to compile for the emulator where the toolkit is not installed. */
#ifndef KS_CHECK_CUDA_RUNTIME_H
#define KS_CHECK_CUDA_RUNTIME_H

#include <cstddef>
#include <cstdint>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__
#define __align__(n) __attribute__((aligned(n)))
#define __forceinline__ inline __attribute__((always_inline))

typedef enum cudaError { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 } cudaError_t;
typedef struct CUstream_st *cudaStream_t;
extern "C" cudaError_t cudaGetLastError();
extern "C" cudaError_t cudaPeekAtLastError();

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

#define KS_VECTOR_(type, name, bytes)                                    \
    struct __align__(2 * bytes) name##2                                  \
    {                                                                    \
        type x, y;                                                       \
    };                                                                   \
    struct __align__(4 * bytes) name##4                                  \
    {                                                                    \
        type x, y, z, w;                                                 \
    };                                                                   \
    static inline name##2 make_##name##2(type x, type y)                 \
    {                                                                    \
        return {x, y};                                                   \
    }                                                                    \
    static inline name##4 make_##name##4(type x, type y, type z, type w) \
    {                                                                    \
        return {x, y, z, w};                                             \
    }
KS_VECTOR_(float, float, 4)
KS_VECTOR_(int, int, 4)
KS_VECTOR_(unsigned, uint, 4)
struct __align__(16) double2
{
    double x, y;
};
static inline double2 make_double2(double x, double y)
{
    return {x, y};
}

#endif
