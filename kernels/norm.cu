/* RMS and layer norm of states and effects (docs/method.md, "Norms"): sums and factors in double, as the CPU's. A short row belongs to one
 * warp, a long one to a block; which, and which thread adds which elements in which order, depends on D only. */
#include "kernels/kernels.h"

#include "kernels/operand.cuh"
#include "kernels/reduce.cuh"
#include "model/arch.h"

#include <math.h>

namespace
{
enum { BLOCK_ROW = 1024 }; /* from this width on a row belongs to a block */

/* Four elements from c on, less `mean`; 0 beyond the row's end. */
struct four {
    double v[4];
};
template <bool PACKS> __device__ __forceinline__ four load_four(const float *x, size_t c, size_t D, double mean)
{
    four f;
    if (PACKS) {
        const ks_pack<float, 4> p = ks_load<4>(x + c);
        for (int k = 0; k < 4; k++) f.v[k] = (double)p.v[k] - mean;
    } else {
        for (int k = 0; k < 4; k++) f.v[k] = c + (size_t)k < D ? (double)x[c + (size_t)k] - mean : 0;
    }
    return f;
}

template <bool PACKS> __device__ __forceinline__ void store_four(const ks_operand &y, size_t row, size_t c, const four &f)
{
    if (PACKS) {
        const float x[4] = {(float)f.v[0], (float)f.v[1], (float)f.v[2], (float)f.v[3]};
        y.store(row, c, x);
    } else {
        for (int k = 0; k < 4; k++) {
            const float x[1] = {(float)f.v[k]};
            if (c + (size_t)k < y.K) y.store(row, c + (size_t)k, x);
        }
    }
}

/* The row of this thread, its first column and the distance to its next ones. */
template <int WARPS> struct place {
    size_t row, first, step;
    __device__ place()
        : row(WARPS == 1 ? (size_t)blockIdx.x * KS_ROW_WARPS + threadIdx.y : blockIdx.x),
          first(4 * (WARPS == 1 ? threadIdx.x : threadIdx.y * 32 + threadIdx.x)), step(4 * 32 * WARPS)
    {
    }
};

template <int WARPS, bool PACKS> __device__ double row_mean(const float *x, size_t D)
{
    const place<WARPS> at;
    double s[1] = {0};
    for (size_t c = at.first; c < D; c += at.step) {
        const four h = load_four<PACKS>(x, c, D, 0);
        for (int k = 0; k < 4; k++) s[0] += h.v[k];
    }
    ks_row_sums<WARPS>(s);
    return s[0] / (double)D;
}

struct norm_args {
    ks_operand y;
    float *mean, *inv_rms;
    const float *x;
    const int64_t *rows;
    size_t n, D;
    bool layer;
    double eps;
    const float *weight, *bias;
};

template <int WARPS, bool PACKS> __global__ void __launch_bounds__(32 * KS_ROW_WARPS) norm(norm_args a)
{
    const place<WARPS> at;
    if (at.row >= a.n) return;
    const size_t row = a.rows ? (size_t)a.rows[at.row] : at.row, D = a.D;
    const float *x = a.x + row * D;
    const double mean = a.layer ? row_mean<WARPS, PACKS>(x, D) : 0;
    double s[1] = {0};
    for (size_t c = at.first; c < D; c += at.step) {
        const four h = load_four<PACKS>(x, c, D, mean);
        for (int k = 0; k < 4; k++) s[0] = fma(h.v[k], h.v[k], s[0]);
    }
    ks_row_sums<WARPS>(s);
    const double inv = 1 / sqrt(s[0] / (double)D + a.eps);
    if (at.first == 0 && a.inv_rms) a.inv_rms[row] = (float)inv;
    if (at.first == 0 && a.mean) a.mean[row] = (float)mean;
    for (size_t c = at.first; c < D; c += at.step) {
        four h = load_four<PACKS>(x, c, D, mean);
        const four w = load_four<PACKS>(a.weight, c, D, 0);
        for (int k = 0; k < 4; k++) h.v[k] = h.v[k] * inv * w.v[k];
        if (a.bias) {
            const four b = load_four<PACKS>(a.bias, c, D, 0);
            for (int k = 0; k < 4; k++) h.v[k] += b.v[k];
        }
        store_four<PACKS>(a.y, at.row, c, h);
    }
}

struct norm_diff_args {
    ks_operand dy;
    const float *d;
    const int64_t *d_rows;
    const float *x;
    const int64_t *x_rows;
    size_t n, D;
    bool layer;
    double eps;
    const float *weight;
};

template <int WARPS, bool PACKS> __global__ void __launch_bounds__(32 * KS_ROW_WARPS) norm_diff(norm_diff_args a)
{
    const place<WARPS> at;
    if (at.row >= a.n) return;
    const size_t D = a.D;
    const float *x = a.x + (size_t)a.x_rows[at.row] * D, *d = a.d + (size_t)a.d_rows[at.row] * D;
    const double mean_x = a.layer ? row_mean<WARPS, PACKS>(x, D) : 0, mean_d = a.layer ? row_mean<WARPS, PACKS>(d, D) : 0;

    double s[3] = {0, 0, 0}; /* h^2, (2h + e) e, (h + e)^2 */
    for (size_t c = at.first; c < D; c += at.step) {
        const four h = load_four<PACKS>(x, c, D, mean_x), e = load_four<PACKS>(d, c, D, mean_d);
        for (int k = 0; k < 4; k++) {
            const double both = h.v[k] + e.v[k];
            s[0] = fma(h.v[k], h.v[k], s[0]);
            s[1] = fma(h.v[k] + both, e.v[k], s[1]);
            s[2] = fma(both, both, s[2]);
        }
    }
    ks_row_sums<WARPS>(s);
    /* 1/rms before and after; their difference from s[1], which has all digits however small e is. */
    const double n = (double)D, before = 1 / sqrt(s[0] / n + a.eps), after = 1 / sqrt(s[2] / n + a.eps);
    const double change = -(s[1] / n) * (before * before) * (after * after) / (before + after);
    for (size_t c = at.first; c < D; c += at.step) {
        const four h = load_four<PACKS>(x, c, D, mean_x), e = load_four<PACKS>(d, c, D, mean_d);
        four w = load_four<PACKS>(a.weight, c, D, 0);
        for (int k = 0; k < 4; k++) w.v[k] *= fma(e.v[k], after, h.v[k] * change);
        store_four<PACKS>(a.dy, at.row, c, w);
    }
}

unsigned blocks(size_t n, size_t D)
{
    return (unsigned)(D < BLOCK_ROW ? (n + KS_ROW_WARPS - 1) / KS_ROW_WARPS : n);
}
} // namespace

int ks_k_norm(void *y, int form, float *mean, float *inv_rms, const float *x, const int64_t *rows, size_t n, size_t D, int kind, float eps,
              const float *weight, const float *bias, void *stream)
{
    if (!n) return 0;
    const norm_args a = {{y, form, D}, mean, inv_rms, x, rows, n, D, kind == KS_NORM_LAYER, (double)eps, weight, bias};
    const bool packs = a.y.packs() && ks_packs(x, D, 4) && ks_packs(weight, 0, 4) && ks_packs(bias, 0, 4);
    const dim3 block(32, KS_ROW_WARPS);
    if (D < BLOCK_ROW && packs) KS_LAUNCH((norm<1, true>), blocks(n, D), block, 0, stream, a);
    else if (D < BLOCK_ROW) KS_LAUNCH((norm<1, false>), blocks(n, D), block, 0, stream, a);
    else if (packs) KS_LAUNCH((norm<KS_ROW_WARPS, true>), blocks(n, D), block, 0, stream, a);
    else KS_LAUNCH((norm<KS_ROW_WARPS, false>), blocks(n, D), block, 0, stream, a);
    return (int)cudaGetLastError();
}

int ks_k_norm_diff(void *dy, int form, const float *d, const int64_t *d_rows, const float *x, const int64_t *x_rows, size_t n, size_t D,
                   int kind, float eps, const float *weight, void *stream)
{
    if (!n) return 0;
    const norm_diff_args a = {{dy, form, D}, d, d_rows, x, x_rows, n, D, kind == KS_NORM_LAYER, (double)eps, weight};
    const bool packs = a.dy.packs() && ks_packs(d, D, 4) && ks_packs(x, D, 4) && ks_packs(weight, 0, 4);
    const dim3 block(32, KS_ROW_WARPS);
    if (D < BLOCK_ROW && packs) KS_LAUNCH((norm_diff<1, true>), blocks(n, D), block, 0, stream, a);
    else if (D < BLOCK_ROW) KS_LAUNCH((norm_diff<1, false>), blocks(n, D), block, 0, stream, a);
    else if (packs) KS_LAUNCH((norm_diff<KS_ROW_WARPS, true>), blocks(n, D), block, 0, stream, a);
    else KS_LAUNCH((norm_diff<KS_ROW_WARPS, false>), blocks(n, D), block, 0, stream, a);
    return (int)cudaGetLastError();
}
