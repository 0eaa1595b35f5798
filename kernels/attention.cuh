/* attention.cuh - what attention of states and of effects share: a block's tile of query rows, and its two products.
 *
 * A block of 16 x 8 threads works on up to R query rows of one (sample or branch, key/value head), ordered position by position and in each
 * over the group's heads, so that a tile spans few positions and its keys end early. Their scores against all visible keys lie in shared
 * memory, x [R, ldx]. Scores are one chain of fused multiply-adds over the head dimension, outputs one over keys, both ascending: neither R
 * nor the rows beside a row nor the tile where a chain is interrupted show in its bits. */
#ifndef KS_KERNELS_ATTENTION_CUH
#define KS_KERNELS_ATTENTION_CUH

#include "kernels/operand.cuh"
#include "kernels/reduce.cuh"

#include <math.h>
#include <stdint.h>

#define KS_FULL_WARP 0xffffffffu
#define KS_TILE_ROWS 32 /* most query rows of a block */
#define KS_TILE_X 16    /* threads along keys or head dimensions */
#define KS_TILE_Y 8     /* threads along rows; each has rows y, y + 8, .. */
#define KS_TILE_THREADS (KS_TILE_X * KS_TILE_Y)
#define KS_TILE_WARPS (KS_TILE_THREADS / 32)
#define KS_TILE_N 64 /* keys of a tile of scores, head dimensions of a tile of outputs */
#define KS_TILE_K 32 /* head dimensions that scores take at a time, keys that outputs take at a time */
/* Leading dimensions of tiles in shared memory: 16-byte loads of eight threads fall into different banks. */
#define KS_LD_K (KS_TILE_K + 4)
#define KS_LD_N (KS_TILE_N + 4)
#define KS_TILE_B (KS_TILE_N * KS_LD_K) /* floats of a tile of keys, no fewer than of one of values */
#define KS_TILE_SHARED (99 * 1024)      /* bytes of shared memory that a block may have on every GPU from sm_80 on */

/* Where rows of a matrix lie; row() gives NULL for a row of zeros. */
struct ks_trunk_rows { /* position j of a sample */
    const float *base;
    size_t ld;
    int T;
    __device__ const float *row(int j) const
    {
        return j < T ? base + (size_t)j * ld : NULL;
    }
};

struct ks_no_rows {
    __device__ const float *row(int) const
    {
        return NULL;
    }
};

/* to [rows, ld] = columns [c, c + cols) of rows r, r + 1, .. of `of` (plus those of `add`), 0 beyond E. cols: a power of 2. */
template <class A, class B>
static __device__ void ks_stage(float *to, int ld, int rows, int cols, const A &of, const B &add, int r0, int c0, int E)
{
    if (E % 4 == 0) {
        const int quads = cols / 4;
        for (int i = (int)threadIdx.x; i < rows * quads; i += KS_TILE_THREADS) {
            const int r = i / quads, c = i % quads * 4;
            const float *a = of.row(r0 + r), *b = add.row(r0 + r);
            float4 v = make_float4(0, 0, 0, 0);
            if (c0 + c < E) {
                if (a) v = *(const float4 *)(a + c0 + c);
                if (b) {
                    const float4 w = *(const float4 *)(b + c0 + c);
                    v = make_float4(v.x + w.x, v.y + w.y, v.z + w.z, v.w + w.w);
                }
            }
            *(float4 *)(to + r * ld + c) = v;
        }
    } else {
        for (int i = (int)threadIdx.x; i < rows * cols; i += KS_TILE_THREADS) {
            const int r = i / cols, c = i % cols;
            const float *a = of.row(r0 + r), *b = add.row(r0 + r);
            float v = 0;
            if (c0 + c < E) {
                if (a) v = a[c0 + c];
                if (b) v += b[c0 + c];
            }
            to[r * ld + c] = v;
        }
    }
}

/* Row of a that a thread's number i stands for: tiles of fewer than 8 rows leave threads whose results nobody stores. */
static __device__ __forceinline__ int ks_tile_row(int i, int R)
{
    const int r = (int)threadIdx.x / KS_TILE_X + KS_TILE_Y * i;
    return r < R ? r : R - 1;
}

/* sum[i][c] += a[row i] . b[key x + 16 c], c < COLS, over 32 head dimensions; a [R, KS_LD_K], b [16 COLS, KS_LD_K]. */
template <int ROWS, int COLS> static __device__ void ks_tile_scores(float sum[ROWS][4], const float *a, const float *b, int R)
{
    const float *bx = b + (threadIdx.x % KS_TILE_X) * KS_LD_K;
#pragma unroll 2
    for (int k = 0; k < KS_TILE_K; k += 4) {
        float4 keys[COLS];
#pragma unroll
        for (int c = 0; c < COLS; c++) keys[c] = *(const float4 *)(bx + c * KS_TILE_X * KS_LD_K + k);
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const float4 q = *(const float4 *)(a + ks_tile_row(i, R) * KS_LD_K + k);
#pragma unroll
            for (int c = 0; c < COLS; c++) {
                float s = sum[i][c];
                s = fmaf(q.x, keys[c].x, s);
                s = fmaf(q.y, keys[c].y, s);
                s = fmaf(q.z, keys[c].z, s);
                sum[i][c] = fmaf(q.w, keys[c].w, s);
            }
        }
    }
}

/* sum[i][c] += x[row i][0 .. 32) . b[.][4 x + c]; b [32, KS_LD_N]. */
template <int ROWS> static __device__ void ks_tile_outputs(float sum[ROWS][4], const float *x, int ldx, const float *b, int R)
{
    const float *bx = b + (threadIdx.x % KS_TILE_X) * 4;
#pragma unroll 2
    for (int k = 0; k < KS_TILE_K; k += 4) {
        float4 v[4];
#pragma unroll
        for (int j = 0; j < 4; j++) v[j] = *(const float4 *)(bx + (k + j) * KS_LD_N);
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const float4 w4 = *(const float4 *)(x + (size_t)ks_tile_row(i, R) * ldx + k);
            const float w[4] = {w4.x, w4.y, w4.z, w4.w};
#pragma unroll
            for (int j = 0; j < 4; j++) {
                sum[i][0] = fmaf(w[j], v[j].x, sum[i][0]);
                sum[i][1] = fmaf(w[j], v[j].y, sum[i][1]);
                sum[i][2] = fmaf(w[j], v[j].z, sum[i][2]);
                sum[i][3] = fmaf(w[j], v[j].w, sum[i][3]);
            }
        }
    }
}

/* sum += the scores of a tile's rows (query + plus) against keys [j, j + 64) as far as they come before `to`; a, b: room for tiles. */
template <int ROWS, class Q, class D, class K>
static __device__ void ks_add_scores(float sum[ROWS][4], float *a, float *b, const Q &query, const D &plus, const K &keys, int j, int to,
                                     int R, int E)
{
    const bool half = to - j <= KS_TILE_N / 2;
    for (int e = 0; e < E; e += KS_TILE_K) {
        __syncthreads();
        ks_stage(a, KS_LD_K, R, KS_TILE_K, query, plus, 0, e, E);
        ks_stage(b, KS_LD_K, half ? KS_TILE_N / 2 : KS_TILE_N, KS_TILE_K, keys, ks_no_rows(), j, e, E);
        __syncthreads();
        if (half) ks_tile_scores<ROWS, 2>(sum, a, b, R);
        else ks_tile_scores<ROWS, 4>(sum, a, b, R);
    }
}

/* sum += x [R, keys from .. to) times columns [c, c + 64) of the values. from: a multiple of 32. b: room for a tile. */
template <int ROWS, class V>
static __device__ void ks_add_outputs(float sum[ROWS][4], const float *x, int ldx, float *b, const V &values, int from, int to, int c,
                                      int R, int E)
{
    for (int j = from; j < to; j += KS_TILE_K) {
        __syncthreads();
        ks_stage(b, KS_LD_N, KS_TILE_K, KS_TILE_N, values, ks_no_rows(), j, c, E);
        __syncthreads();
        ks_tile_outputs<ROWS>(sum, x + j, ldx, b, R);
    }
}

/* x[.][j ..) = a tile of scores. */
template <int ROWS> static __device__ void ks_keep_scores(float *x, int ldx, const float sum[ROWS][4], int j, int R)
{
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int r = (int)threadIdx.x / KS_TILE_X + KS_TILE_Y * i;
        if (r >= R) continue;
#pragma unroll
        for (int c = 0; c < 4; c++) x[(size_t)r * ldx + j + (int)(threadIdx.x % KS_TILE_X) + KS_TILE_X * c] = sum[i][c];
    }
}

/* Outputs e .. e + 3 of a head, of which those before E exist. */
static __device__ __forceinline__ void ks_store_outputs(const ks_operand &out, size_t row, int head, const float (&sum)[4], int e, int E)
{
    const size_t c = (size_t)head * (size_t)E + (size_t)e;
    if (E % 4 == 0) {
        if (e < E) out.store(row, c, sum);
    } else {
#pragma unroll
        for (int l = 0; l < 4; l++) {
            const float one[1] = {sum[l]};
            if (e + l < E) out.store(row, c + (size_t)l, one);
        }
    }
}

/* First key that query t sees. */
static __device__ __forceinline__ int ks_first_key(int t, int window)
{
    return window > 0 && t >= window ? t - window + 1 : 0;
}

/* Over a warp, the same in every lane. */
static __device__ __forceinline__ float ks_warp_max(float v)
{
    for (int o = 16; o; o >>= 1) {
        const float w = __shfl_xor_sync(KS_FULL_WARP, v, o);
        v = w > v ? w : v;
    }
    return v;
}

/* Rows of a block: as many as fit `fixed` + R * `row` bytes of shared memory, no more than there are; 0: not even one fits. */
static inline int ks_tile_choose(size_t fixed, size_t row, size_t rows)
{
    int R = KS_TILE_ROWS;
    while (R > 0 && fixed + (size_t)R * row > KS_TILE_SHARED) R /= 2;
    while (R > 1 && (size_t)R / 2 >= rows) R /= 2;
    return R;
}

#endif
