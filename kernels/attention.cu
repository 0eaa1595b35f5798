/* Attention of states; twin: src/compute/cpu/isa/attention.c. */
#include "kernels/kernels.h"

#include "kernels/attention.cuh"

struct states {
    ks_operand out;
    float *logp;
    const float *q, *k, *v;
    const ks_k_sample *samples;
    int H, G, E, window, tiles, R, ldx;
    float scale;
};

/* Query rows of a tile: row r is head i % group at position i / group, i = first + r. */
struct query_rows {
    const float *q; /* of the sample's first position and the group's first head */
    size_t H, E;
    int first, n, group;
    __device__ const float *row(int r) const
    {
        if (r >= n) return NULL;
        const int i = first + r;
        return q + ((size_t)(i / group) * H + (size_t)(i % group)) * E;
    }
};

/* Scores x[0 .. to) of query t, of which [lo, t] are visible, become weights; logp [P]. One warp. */
static __device__ void softmax_row(float *x, float *logp, int lo, int t, int from, int to, int P, float scale)
{
    const int lane = (int)threadIdx.x % 32;
    float m = -INFINITY, total = 0;
    for (int j = from + lane; j < to; j += 32) {
        const float s = j >= lo && j <= t ? x[j] * scale : -INFINITY;
        x[j] = s;
        m = s > m ? s : m;
    }
    m = ks_warp_max(m);
    for (int j = from + lane; j < to; j += 32) total += expf(x[j] - m);
    total = ks_warp_sum(total);
    /* The largest score adds exactly 1, so the sum's log is a log1p. */
    const float log_total = (float)log1p((double)total - 1);
    for (int j = lane; j < P; j += 32) logp[j] = j >= lo && j <= t ? x[j] - m - log_total : -INFINITY;
    for (int j = from + lane; j < to; j += 32) x[j] = expf(x[j] - m) / total;
}

template <int ROWS> static __global__ void __launch_bounds__(KS_TILE_THREADS, 4) states_kernel(states s)
{
    KS_DYNAMIC_SHARED(float, shared);
    float *x = shared, *b = x + (size_t)s.R * s.ldx, *a = b + KS_TILE_B;
    const int tile = (int)(blockIdx.x % (unsigned)s.tiles), g = (int)(blockIdx.x / (unsigned)s.tiles % (unsigned)s.G);
    const ks_k_sample item = s.samples[blockIdx.x / (unsigned)s.tiles / (unsigned)s.G];
    const int group = s.H / s.G, first = tile * s.R, T = item.T, P = (T + 15) / 16 * 16, E = s.E;
    if (first >= T * group) return;
    const int n = T * group - first < s.R ? T * group - first : s.R;
    const int to = (first + n - 1) / group + 1, from = ks_first_key(first / group, s.window) / 32 * 32; /* keys that some row sees */
    const size_t kv = ((size_t)item.row0 * s.G + g) * E, head0 = (size_t)item.row0 * s.H + (size_t)g * group;
    const query_rows query = {s.q + head0 * E, (size_t)s.H, (size_t)E, first, n, group};
    const ks_trunk_rows keys = {s.k + kv, (size_t)s.G * E, T}, values = {s.v + kv, (size_t)s.G * E, T};

    for (int j = from / KS_TILE_N * KS_TILE_N; j < to; j += KS_TILE_N) {
        float sum[ROWS][4] = {};
        ks_add_scores<ROWS>(sum, a, b, query, ks_no_rows(), keys, j, to, s.R, E);
        ks_keep_scores<ROWS>(x, s.ldx, sum, j, s.R);
    }
    __syncthreads();
    const int to32 = (to + 31) / 32 * 32;
    for (int r = (int)threadIdx.x / 32; r < n; r += KS_TILE_WARPS) {
        const int t = (first + r) / group, h = g * group + (first + r) % group;
        float *logp = s.logp + (size_t)item.logp + ((size_t)h * T + t) * P;
        softmax_row(x + (size_t)r * s.ldx, logp, ks_first_key(t, s.window), t, from, to32, P, s.scale);
    }
    for (int c = 0; c < E; c += KS_TILE_N) {
        float sum[ROWS][4] = {};
        ks_add_outputs<ROWS>(sum, x, s.ldx, b, values, from, to, c, s.R, E);
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const int r = (int)threadIdx.x / KS_TILE_X + KS_TILE_Y * i, e = c + (int)(threadIdx.x % KS_TILE_X) * 4;
            if (r >= n) continue;
            ks_store_outputs(s.out, (size_t)item.row0 + (size_t)((first + r) / group), g * group + (first + r) % group, sum[i], e, E);
        }
    }
}

template <int ROWS> static int launch(const states &s, size_t blocks, size_t shared, void *stream)
{
    const int err = KS_ALLOW_SHARED(states_kernel<ROWS>, shared);
    if (err) return err;
    KS_LAUNCH(states_kernel<ROWS>, (unsigned)blocks, KS_TILE_THREADS, shared, stream, s);
    return (int)cudaGetLastError();
}

extern "C" int ks_k_attention(void *out, int form, float *logp, const float *q, const float *k, const float *v, const ks_k_sample *samples,
                              size_t n, int32_t longest, int32_t H, int32_t G, int32_t E, int32_t window, float scale, void *stream)
{
    if (n == 0 || longest <= 0) return 0;
    const int ldx = (longest + KS_TILE_N - 1) / KS_TILE_N * KS_TILE_N + 4;
    const size_t rows = (size_t)longest * (size_t)(H / G), row = ((size_t)ldx + KS_LD_K) * sizeof(float), fixed = KS_TILE_B * sizeof(float);
    const int R = ks_tile_choose(fixed, row, rows);
    if (R == 0) return (int)cudaErrorInvalidValue;
    const size_t tiles = (rows + R - 1) / R, blocks = n * (size_t)G * tiles, shared = fixed + R * row;
    if (blocks > 0x7fffffff) return (int)cudaErrorInvalidValue;
    const states s = {{out, form, (size_t)H * E}, logp, q, k, v, samples, H, G, E, window, (int)tiles, R, ldx, scale};
    return R == 32   ? launch<4>(s, blocks, shared, stream)
           : R == 16 ? launch<2>(s, blocks, shared, stream)
                     : launch<1>(s, blocks, shared, stream);
}
