/* Mean weight of edges, sample by sample and head by head; twin: cpu_edge_weights in src/compute/cpu/cpu.c. One block a (sample, head);
 * pair i, key i % n_keys of query i / n_keys, belongs to thread i % THREADS. */
#include "kernels/kernels.h"

#include "kernels/reduce.cuh"

#include <math.h>

enum { THREADS = 256, WARPS = THREADS / 32 };

static __global__ void __launch_bounds__(THREADS)
    edge_weights_kernel(double *strength, const float *logp, const ks_k_edge_item *items, const int32_t *lists, int H, int window)
{
    KS_SHARED(double, part, [WARPS]);
    const ks_k_edge_item item = items[blockIdx.x / (unsigned)H];
    const int h = (int)(blockIdx.x % (unsigned)H);
    const int64_t T = item.trunk.T, P = (T + 15) / 16 * 16, n = (int64_t)item.n_queries * item.n_keys;
    const float *rows = logp + item.trunk.logp + h * T * P;
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        const int query = lists[item.queries + i / item.n_keys], key = lists[item.keys + i % item.n_keys];
        if (key <= query && (!window || key > query - window)) sum += exp((double)rows[query * P + key]);
    }
    sum = ks_warp_sum(sum);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int w = 1; w < WARPS; w++) sum += part[w];
    strength[item.to + h] = n ? sum / (double)n : 0;
}

extern "C" int ks_k_edge_weights(double *strength, const float *logp, const ks_k_edge_item *items, const int32_t *lists, size_t n,
                                 int32_t H, int32_t window, void *stream)
{
    if (n == 0) return 0;
    KS_LAUNCH(edge_weights_kernel, (unsigned)(n * (size_t)H), THREADS, 0, stream, strength, logp, items, lists, H, window);
    return (int)cudaGetLastError();
}
