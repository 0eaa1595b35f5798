/* Mean weight of edges, head by head; twin: cpu_edge_weights in src/compute/cpu/cpu.c. One block a head; pair i belongs to thread i %
 * THREADS. */
#include "kernels/kernels.h"

#include "kernels/reduce.cuh"

#include <math.h>

enum { THREADS = 256, WARPS = THREADS / 32 };

static __global__ void __launch_bounds__(THREADS)
    edge_weights_kernel(double *strength, const float *logp, const ks_k_sample *sample, const int32_t *pairs, size_t n, int window)
{
    KS_SHARED(double, part, [WARPS]);
    const int64_t T = sample->T, P = (T + 15) / 16 * 16;
    const float *rows = logp + sample->logp + (int64_t)blockIdx.x * T * P;
    double sum = 0;
    for (size_t i = threadIdx.x; i < n; i += THREADS) {
        const int query = pairs[i], key = pairs[n + i];
        if (key <= query && (!window || key > query - window)) sum += exp((double)rows[query * P + key]);
    }
    sum = ks_warp_sum(sum);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int w = 1; w < WARPS; w++) sum += part[w];
    strength[blockIdx.x] = n ? sum / (double)n : 0;
}

extern "C" int ks_k_edge_weights(double *strength, const float *logp, const ks_k_sample *sample, const int32_t *pairs, size_t n, int32_t H,
                                 int32_t window, void *stream)
{
    KS_LAUNCH(edge_weights_kernel, (unsigned)H, THREADS, 0, stream, strength, logp, sample, pairs, n, window);
    return (int)cudaGetLastError();
}
