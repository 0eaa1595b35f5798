/* emulator.h - CUDA's execution model on the processor, for tests: the .cu files of kernels/, compiled as C++, run without a GPU.
 *
 * Included by kernels/launch.h where the compiler is not nvcc, after cuda_runtime.h (the toolkit's or stand_in/'s). Every thread of a block
 * is a fiber. The threads of a block, and the blocks of a grid, run one at a time in an order shuffled by a seed; a thread runs until it
 * waits at a barrier, in half of the blocks warp after warp, so that a missing barrier gives wrong results with almost every seed. Shared
 * memory of either kind is filled with NaN bytes (0xff) before each block and ends with a guard that is looked at after it (under
 * ASan: its red zone).
 *
 * Not as on a GPU: a launch has run when KS_LAUNCH returns (but see `submit`); code between two barriers is never interrupted, so races
 * within it show only where the order of whole threads matters; exited threads do not count as arrived at a barrier, as the programming
 * guide asks, where real devices are more lenient. Misuse that a GPU would not report (a divergent barrier, a shuffle from a lane that
 * takes no part, a write past shared memory) is written to stderr with the kernel's name, block and threads, and aborts the program. */
#ifndef KS_TESTS_CHECK_EMULATOR_H
#define KS_TESTS_CHECK_EMULATOR_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <tuple>
#include <type_traits>

namespace ks_emu
{
/* ---- for tests ---- */

/* The order of threads and blocks from here on. At the start: KS_CHECK_SEED from the environment, or 1. */
void seed(uint64_t value);

/* Who runs a launch that has passed its checks: NULL (at once, in the calling thread), or a function that calls `work` later, in the order
 * of the stream. `work` must be called before what the launch's pointers point to is gone. */
extern void (*submit)(void *stream, std::function<void()> work);

/* A launch that has passed its checks. */
struct launched {
    const char *kernel;
    dim3 grid, block;
    size_t dynamic_shared, static_shared; /* bytes; static_shared: 0 if no block ran */
};
/* Where launches are looked at instead of run: NULL (they run), or who is told of each after `blocks` blocks of it, the grid's last ones,
 * have run. */
extern void (*look)(const launched &l);
extern uint64_t blocks;

/* What cudaGetLastError will answer next in this thread. */
void set_error(int error);

/* ---- for the macros below ---- */

struct thread;
extern uint3 *thread_index; /* of the running thread */
extern uint3 block_index;
extern dim3 block_size, grid_size;

/* Where a shared array stands in the source. */
struct shared_site {
    uint64_t launch; /* that `memory` belongs to */
    void *memory;
};
void *static_shared(shared_site *site, size_t bytes);
void *dynamic_shared();

void block_barrier(const char *where);
int block_count(int predicate, const char *where); /* of threads whose predicate is not 0 */
void warp_barrier(unsigned mask, const char *where);
unsigned ballot(unsigned mask, int predicate, const char *where);
uint64_t shuffle(unsigned mask, uint64_t value, unsigned source, const char *where); /* source: a lane */
unsigned lane();

cudaError_t allow_shared(const void *kernel, int bytes);
void launch(const char *name, const void *kernel, dim3 grid, dim3 block, size_t shared, void *stream, std::function<void()> body);

/* Arguments are converted to the kernel's parameters now, not when it runs. */
template <class... P, class... A>
void launch_kernel(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, void *stream, A &&...args)
{
    typedef std::tuple<std::decay_t<P>...> parameters;
    static_assert(sizeof(parameters) <= 4096, "a kernel's parameters take at most 4096 bytes");
    const parameters p(static_cast<P>(std::forward<A>(args))...);
    launch(name, (const void *)kernel, grid, block, shared, stream, [kernel, p] { std::apply(kernel, p); });
}

/* The warp's operations, as called at one place of the source. */
struct at {
    const char *where;

    void syncwarp(unsigned mask = 0xffffffffu) const
    {
        warp_barrier(mask, where);
    }
    template <class T> T shfl(unsigned mask, T value, int from, int width = 32) const
    {
        return shuffled(mask, value, first(width) | ((unsigned)from & (unsigned)(width - 1)));
    }
    template <class T> T shfl_up(unsigned mask, T value, unsigned by, int width = 32) const
    {
        return shuffled(mask, value, lane() - first(width) >= by ? lane() - by : lane());
    }
    template <class T> T shfl_down(unsigned mask, T value, unsigned by, int width = 32) const
    {
        return shuffled(mask, value, lane() + by < first(width) + (unsigned)width ? lane() + by : lane());
    }
    template <class T> T shfl_xor(unsigned mask, T value, int by, int width = 32) const
    {
        const unsigned source = lane() ^ (unsigned)by;
        return shuffled(mask, value, source < first(width) + (unsigned)width ? source : lane());
    }
    template <class T, class F> T reduce(unsigned mask, T value, F join) const
    {
        static_assert(sizeof(T) == 4 && std::is_integral<T>::value, "__reduce_*_sync takes int or unsigned");
        bool none = true;
        T all = value;
        for (int l = 0; l < 32; l++) {
            if (!(mask >> l & 1)) continue;
            const T one = shfl(mask, value, l);
            all = none ? one : join(all, one);
            none = false;
        }
        return all;
    }

  private:
    static unsigned first(int width)
    {
        return lane() & ~(unsigned)(width - 1);
    }
    template <class T> T shuffled(unsigned mask, T value, unsigned source) const
    {
        static_assert((sizeof(T) == 4 || sizeof(T) == 8) && std::is_arithmetic<T>::value, "shuffles move numbers of 4 or 8 bytes");
        uint64_t bits = 0;
        memcpy(&bits, &value, sizeof value);
        bits = shuffle(mask, bits, source, where);
        memcpy(&value, &bits, sizeof value);
        return value;
    }
};

/* Atomics: threads run one at a time, so these are plain. Not for floating point: sums in an order that is not fixed are not wanted. */
template <class T, class F> T atomic(T *p, F next)
{
    static_assert(std::is_integral<T>::value && sizeof(T) >= 4, "atomics are for integers of 4 or 8 bytes");
    const T old = *p;
    *p = next(old);
    return old;
}

template <class T> struct same {
    typedef T type;
};
} // namespace ks_emu

/* ---- launches and memory (kernels/launch.h says what they mean) ---- */

#define KS_LAUNCH(kernel, grid, block, shared, stream, ...) \
    ks_emu::launch_kernel(#kernel, kernel, dim3(grid), dim3(block), (size_t)(shared), (void *)(stream), __VA_ARGS__)
#define KS_ALLOW_SHARED(kernel, bytes) ks_emu::allow_shared((const void *)(kernel), (int)(bytes))
#define KS_DYNAMIC_SHARED(type, name) type *name = (type *)ks_emu::dynamic_shared()
#define KS_SHARED(type, name, ...)          \
    typedef type name##_shared __VA_ARGS__; \
    static ks_emu::shared_site name##_site; \
    name##_shared &name = *(name##_shared *)ks_emu::static_shared(&name##_site, sizeof(name##_shared))
/* A plain static could not be found and filled before each block: gcc ignores section attributes in templates. */
#undef __shared__
#define __shared__                                             \
    static_assert(false, "use KS_SHARED of kernels/launch.h"); \
    static

/* ---- the language ---- */

#undef __launch_bounds__
#define __launch_bounds__(...)

#define threadIdx (*(const uint3 *)ks_emu::thread_index)
#define blockIdx ((const uint3 &)ks_emu::block_index)
#define blockDim ((const dim3 &)ks_emu::block_size)
#define gridDim ((const dim3 &)ks_emu::grid_size)
#define warpSize 32

#define KS_EMU_TEXT_(x) #x
#define KS_EMU_TEXT(x) KS_EMU_TEXT_(x)
#define KS_EMU_AT(what) what " at " __FILE__ ":" KS_EMU_TEXT(__LINE__)

#define __syncthreads() ks_emu::block_barrier(KS_EMU_AT("__syncthreads"))
#define __syncthreads_count(predicate) ks_emu::block_count((predicate) != 0, KS_EMU_AT("__syncthreads_count"))
#define __syncthreads_or(predicate) (ks_emu::block_count((predicate) != 0, KS_EMU_AT("__syncthreads_or")) != 0)
#define __syncthreads_and(predicate) (ks_emu::block_count((predicate) == 0, KS_EMU_AT("__syncthreads_and")) == 0)

#define __syncwarp ks_emu::at{KS_EMU_AT("__syncwarp")}.syncwarp
#define __shfl_sync ks_emu::at{KS_EMU_AT("__shfl_sync")}.shfl
#define __shfl_up_sync ks_emu::at{KS_EMU_AT("__shfl_up_sync")}.shfl_up
#define __shfl_down_sync ks_emu::at{KS_EMU_AT("__shfl_down_sync")}.shfl_down
#define __shfl_xor_sync ks_emu::at{KS_EMU_AT("__shfl_xor_sync")}.shfl_xor
#define __ballot_sync(mask, predicate) ks_emu::ballot(mask, (predicate) != 0, KS_EMU_AT("__ballot_sync"))
#define __any_sync(mask, predicate) (ks_emu::ballot(mask, (predicate) != 0, KS_EMU_AT("__any_sync")) != 0)
#define __all_sync(mask, predicate) (ks_emu::ballot(mask, (predicate) == 0, KS_EMU_AT("__all_sync")) == 0)
#define KS_EMU_REDUCE_(mask, value, join, what) ks_emu::at{KS_EMU_AT(what)}.reduce(mask, value, [](auto a, auto b) { return join; })
#define __reduce_add_sync(mask, value) KS_EMU_REDUCE_(mask, value, decltype(a)(a + b), "__reduce_add_sync")
#define __reduce_min_sync(mask, value) KS_EMU_REDUCE_(mask, value, a < b ? a : b, "__reduce_min_sync")
#define __reduce_max_sync(mask, value) KS_EMU_REDUCE_(mask, value, a > b ? a : b, "__reduce_max_sync")
#define __reduce_and_sync(mask, value) KS_EMU_REDUCE_(mask, value, decltype(a)(a & b), "__reduce_and_sync")
#define __reduce_or_sync(mask, value) KS_EMU_REDUCE_(mask, value, decltype(a)(a | b), "__reduce_or_sync")

/* An order of memory between threads is given: one runs at a time. */
static inline void __threadfence()
{
}
static inline void __threadfence_block()
{
}

template <class T> static inline T atomicAdd(T *p, typename ks_emu::same<T>::type v)
{
    return ks_emu::atomic(p, [v](T old) { return (T)(old + v); });
}
template <class T> static inline T atomicMax(T *p, typename ks_emu::same<T>::type v)
{
    return ks_emu::atomic(p, [v](T old) { return old > v ? old : v; });
}
template <class T> static inline T atomicMin(T *p, typename ks_emu::same<T>::type v)
{
    return ks_emu::atomic(p, [v](T old) { return old < v ? old : v; });
}
template <class T> static inline T atomicOr(T *p, typename ks_emu::same<T>::type v)
{
    return ks_emu::atomic(p, [v](T old) { return (T)(old | v); });
}
template <class T> static inline T atomicAnd(T *p, typename ks_emu::same<T>::type v)
{
    return ks_emu::atomic(p, [v](T old) { return (T)(old & v); });
}
template <class T> static inline T atomicExch(T *p, typename ks_emu::same<T>::type v)
{
    return ks_emu::atomic(p, [v](T) { return v; });
}
template <class T> static inline T atomicCAS(T *p, typename ks_emu::same<T>::type compare, typename ks_emu::same<T>::type v)
{
    return ks_emu::atomic(p, [compare, v](T old) { return old == compare ? v : old; });
}

/* ---- functions of the device that C++ has not ---- */

#define KS_EMU_BITS_(name, to, from) \
    static inline to name(from x)    \
    {                                \
        to y;                        \
        memcpy(&y, &x, sizeof y);    \
        return y;                    \
    }
KS_EMU_BITS_(__float_as_int, int, float)
KS_EMU_BITS_(__float_as_uint, unsigned, float)
KS_EMU_BITS_(__int_as_float, float, int)
KS_EMU_BITS_(__uint_as_float, float, unsigned)
KS_EMU_BITS_(__double_as_longlong, long long, double)
KS_EMU_BITS_(__longlong_as_double, double, long long)

#define KS_EMU_FUNCTION_(type, name, parameters, value) \
    static inline type name parameters                  \
    {                                                   \
        return value;                                   \
    }
KS_EMU_FUNCTION_(float, rsqrtf, (float x), 1 / sqrtf(x))
KS_EMU_FUNCTION_(double, rsqrt, (double x), 1 / sqrt(x))
KS_EMU_FUNCTION_(float, normcdff, (float x), 0.5f * erfcf(-x * 0.70710678f))
KS_EMU_FUNCTION_(double, normcdf, (double x), 0.5 * erfc(-x * 0.70710678118654752))
#define __expf expf /* glibc has functions of these names */
#define __logf logf
KS_EMU_FUNCTION_(float, __fdividef, (float x, float y), x / y)
KS_EMU_FUNCTION_(float, __frcp_rn, (float x), 1 / x)
KS_EMU_FUNCTION_(float, __fsqrt_rn, (float x), sqrtf(x))
KS_EMU_FUNCTION_(float, __fmaf_rn, (float x, float y, float z), fmaf(x, y, z))
KS_EMU_FUNCTION_(float, __fadd_rn, (float x, float y), x + y)
KS_EMU_FUNCTION_(float, __fsub_rn, (float x, float y), x - y)
KS_EMU_FUNCTION_(float, __fmul_rn, (float x, float y), x *y)
KS_EMU_FUNCTION_(float, __fdiv_rn, (float x, float y), x / y)
KS_EMU_FUNCTION_(double, __fma_rn, (double x, double y, double z), fma(x, y, z))
KS_EMU_FUNCTION_(double, __dadd_rn, (double x, double y), x + y)
KS_EMU_FUNCTION_(double, __dsub_rn, (double x, double y), x - y)
KS_EMU_FUNCTION_(double, __dmul_rn, (double x, double y), x *y)
KS_EMU_FUNCTION_(double, __ddiv_rn, (double x, double y), x / y)
KS_EMU_FUNCTION_(float, __double2float_rn, (double x), (float)x)
KS_EMU_FUNCTION_(int, __float2int_rn, (float x), (int)nearbyintf(x))
KS_EMU_FUNCTION_(int, __popc, (unsigned x), __builtin_popcount(x))
KS_EMU_FUNCTION_(int, __popcll, (unsigned long long x), __builtin_popcountll(x))
KS_EMU_FUNCTION_(int, __ffs, (int x), __builtin_ffs(x))
KS_EMU_FUNCTION_(int, __clz, (int x), x ? __builtin_clz((unsigned)x) : 32)
template <class T> static inline T __ldg(const T *p)
{
    return *p;
}
template <class T> static inline T __ldcs(const T *p)
{
    return *p;
}
template <class T> static inline void __stcs(T *p, typename ks_emu::same<T>::type v)
{
    *p = v;
}

#define KS_EMU_MINMAX_(type)                                     \
    KS_EMU_FUNCTION_(type, min, (type a, type b), a < b ? a : b) \
    KS_EMU_FUNCTION_(type, max, (type a, type b), a > b ? a : b)
KS_EMU_MINMAX_(int)
KS_EMU_MINMAX_(unsigned)
KS_EMU_MINMAX_(long)
KS_EMU_MINMAX_(unsigned long)
KS_EMU_MINMAX_(long long)
KS_EMU_MINMAX_(unsigned long long)
KS_EMU_FUNCTION_(float, min, (float a, float b), fminf(a, b))
KS_EMU_FUNCTION_(float, max, (float a, float b), fmaxf(a, b))
KS_EMU_FUNCTION_(double, min, (double a, double b), fmin(a, b))
KS_EMU_FUNCTION_(double, max, (double a, double b), fmax(a, b))

#endif
