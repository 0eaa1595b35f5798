#include "compute/cpu/isa/gemm.h"

#include "base/dtype.h"
#include "compute/cpu/isa/vec.h"

#include <stdbool.h>

enum { KB = KS_GEMM_KB, NR = KS_GEMM_NR };

/* A tile of outputs held in registers: MR rows of NV vectors. 24 of 32 registers with AVX-512, 12 of 16 with AVX2. */
enum { MR = 6, NV = KS_LANES == 16 ? 4 : 2 };

/* A panel is laid out [NR / KS_LANES][KB][KS_LANES], so that packing writes one line after the other; with 64 spare bytes between
 * the parts, so that they lie in different cache sets. */
enum { PART = KB * KS_LANES + 16 };
_Static_assert(PART *(NR / KS_LANES) <= KS_GEMM_PANEL, "scratch for a panel");

/* ---- W: the columns of a panel along one K block, converted and transposed ---- */

#if KS_LANES == 16
typedef __m512i words;
#define LOAD(p) _mm512_loadu_si512(p)

/* 16 x 16 words: x[i][j] <-> x[j][i]. */
KS_INLINE void transpose(words x[16])
{
    words y[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) { /* x[i + j]: column j of each 4 x 4 block of rows i..i+3 */
        x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) { /* a 4 x 4 transpose of 128-bit quarters */
        const words a = _mm512_shuffle_i32x4(x[j], x[j + 4], 0x44), b = _mm512_shuffle_i32x4(x[j], x[j + 4], 0xee);
        const words c = _mm512_shuffle_i32x4(x[j + 8], x[j + 12], 0x44), d = _mm512_shuffle_i32x4(x[j + 8], x[j + 12], 0xee);
        y[j] = _mm512_shuffle_i32x4(a, c, 0x88);
        y[j + 4] = _mm512_shuffle_i32x4(a, c, 0xdd);
        y[j + 8] = _mm512_shuffle_i32x4(b, d, 0x88);
        y[j + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) x[i] = y[i];
}

KS_INLINE ks_vf half_to_float(words x)
{
    return (ks_vf)_mm512_cvtph_ps(_mm512_cvtepi32_epi16(x));
}
#elif KS_LANES == 8
typedef __m256i words;
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))

KS_INLINE void transpose(words x[8])
{
    words y[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        y[i] = _mm256_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm256_unpackhi_epi32(x[i], x[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        x[i] = _mm256_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm256_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm256_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm256_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        y[j] = _mm256_permute2x128_si256(x[j], x[j + 4], 0x20);
        y[j + 4] = _mm256_permute2x128_si256(x[j], x[j + 4], 0x31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) x[i] = y[i];
}

KS_INLINE ks_vf half_to_float(words x)
{
    const words packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(x, x), 0x08);
    return (ks_vf)_mm256_cvtph_ps(_mm256_castsi256_si128(packed));
}
#endif

/* panel[n / KS_LANES][k][n % KS_LANES] = W[n][k] for k < kn, n < NR; columns from cols on repeat the last one, which keeps reads inside W.
 */
KS_INLINE void pack(float *panel, const char *w, ks_dtype wtype, size_t row_bytes, size_t cols, size_t kn)
{
    size_t done = 0;
#if KS_LANES >= 8
    const size_t size = ks_dtype_size(wtype);
    const size_t step = wtype == KS_F32 ? KS_LANES : 2 * KS_LANES; /* k of one square of words; bf16 and f16 travel in pairs */
    done = kn / step * step;
    for (size_t n = 0; n < NR; n += KS_LANES) {
        const char *row[KS_LANES];
        for (size_t i = 0; i < KS_LANES; i++) row[i] = w + (n + i < cols ? n + i : cols - 1) * row_bytes;
        for (size_t k = 0; k < done; k += step) {
            words x[KS_LANES];
#pragma GCC unroll 16
            for (int i = 0; i < KS_LANES; i++) x[i] = LOAD(row[i] + k * size);
            transpose(x);
            float *p = panel + n / KS_LANES * PART + k * KS_LANES;
#pragma GCC unroll 16
            for (int i = 0; i < KS_LANES; i++) {
                if (wtype == KS_F32) {
                    ks_store(p + i * KS_LANES, (ks_vf)x[i]);
                } else if (wtype == KS_BF16) {
                    ks_store(p + 2 * i * KS_LANES, (ks_vf)((ks_vi)x[i] << 16));
                    ks_store(p + (2 * i + 1) * KS_LANES, (ks_vf)((ks_vi)x[i] & (int32_t)0xffff0000));
                } else {
                    ks_store(p + 2 * i * KS_LANES, half_to_float((words)((ks_vi)x[i] & 0xffff)));
                    ks_store(p + (2 * i + 1) * KS_LANES, half_to_float((words)(((ks_vi)x[i] >> 16) & 0xffff)));
                }
            }
        }
    }
#endif
    for (size_t k = done; k < kn; k++) {
        for (size_t n = 0; n < NR; n++)
            panel[n / KS_LANES * PART + k * KS_LANES + n % KS_LANES] = ks_f32_at(w + (n < cols ? n : cols - 1) * row_bytes, wtype, k);
    }
}

/* ---- products ---- */

/* What a tile fetches while it computes: the next rows of X, which it reads in too many short runs for the processor to foresee, and
 * its share of the next part of W, so that packing that one does not wait for memory. */
typedef struct ahead {
    const float *a;   /* the next tile's first row */
    const char *w;    /* the next panel or K block */
    size_t row_bytes; /* of W */
    size_t line;      /* next cache line to fetch, counted along the panel's rows */
    int row_shift;    /* one row of a K block is 2^row_shift cache lines */
    size_t per_step;  /* lines to fetch every STEP of k */
} ahead;

enum { STEP = 16 };
_Static_assert(KB == 256, "row_shift is 3 or 4: 256 elements of 2 or 4 bytes in lines of 64");

/* c[mr, NV vectors] (ldc) = or += the chains over one K block; b is the panel at the tile's first column. */
KS_INLINE void tile(int mr, float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t kn, bool first, ahead *next)
{
    ks_vf s[MR][NV];
#pragma GCC unroll 6
    for (int r = 0; r < mr; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) s[r][v] = (ks_vf){0};
    }
    for (size_t k = 0; k < kn;) {
#pragma GCC unroll 6
        for (int r = 0; r < mr; r++) __builtin_prefetch(next->a + k + (size_t)r * lda);
        for (size_t i = 0; i < next->per_step; i++, next->line++) {
            __builtin_prefetch(next->w + (next->line >> next->row_shift) * next->row_bytes +
                                   (next->line & (((size_t)1 << next->row_shift) - 1)) * 64,
                               0, 2);
        }
        const size_t end = kn - k < STEP ? kn : k + STEP;
        for (; k < end; k++) {
            ks_vf bv[NV];
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++) bv[v] = ks_load(b + k * KS_LANES + (size_t)v * PART);
#pragma GCC unroll 6
            for (int r = 0; r < mr; r++) {
                const ks_vf av = ks_splat(a[k + (size_t)r * lda]);
#pragma GCC unroll 4
                for (int v = 0; v < NV; v++) s[r][v] = ks_fma(av, bv[v], s[r][v]);
            }
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < mr; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) {
            float *p = c + (size_t)r * ldc + v * KS_LANES;
            ks_store(p, first ? s[r][v] : ks_load(p) + s[r][v]);
        }
    }
}

static void tiles(int mr, float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t kn, bool first, ahead *next)
{
    for (int n = 0; n < NR; n += NV * KS_LANES) {
        switch (mr) {
        case 1:
            tile(1, c + n, ldc, a, lda, b + n / KS_LANES * PART, kn, first, next);
            break;
        case 2:
            tile(2, c + n, ldc, a, lda, b + n / KS_LANES * PART, kn, first, next);
            break;
        case 3:
            tile(3, c + n, ldc, a, lda, b + n / KS_LANES * PART, kn, first, next);
            break;
        case 4:
            tile(4, c + n, ldc, a, lda, b + n / KS_LANES * PART, kn, first, next);
            break;
        case 5:
            tile(5, c + n, ldc, a, lda, b + n / KS_LANES * PART, kn, first, next);
            break;
        case 6:
            tile(6, c + n, ldc, a, lda, b + n / KS_LANES * PART, kn, first, next);
            break;
        default:
            __builtin_unreachable();
        }
    }
}

void KS_FN(ks_gemm_panel)(float *c, size_t ldc, ks_gemm_x x, const void *w, const void *next, ks_dtype wtype, size_t ldw, size_t rows,
                          size_t cols, size_t K, float *panel)
{
    const size_t size = ks_dtype_size(wtype), row_bytes = ldw * size;
    const int row_shift = size == 4 ? 4 : 3;
    const size_t slivers = (rows + MR - 1) / MR, steps = slivers * (NR / (NV * KS_LANES)) * (KB / STEP);
    for (size_t k = 0; k < K || k == 0; k += KB) {
        const size_t kn = K - k < KB ? K - k : KB;
        const char *wk = (const char *)w + k * size;
        if (wtype == KS_BF16) pack(panel, wk, KS_BF16, row_bytes, cols, kn);
        else if (wtype == KS_F16) pack(panel, wk, KS_F16, row_bytes, cols, kn);
        else pack(panel, wk, KS_F32, row_bytes, cols, kn);
        ahead then = {.w = k + KB < K ? wk + KB * size : next, .row_bytes = row_bytes, .row_shift = row_shift};
        if (then.w) then.per_step = (((size_t)NR << row_shift) + steps - 1) / steps;
        /* Slivers of nearly equal height: 7 rows are 4 + 3, not 6 + 1 whose single row would wait for its own chains. */
        const float *ak = x.p + k / KB * x.block;
        for (size_t i = 0; i < slivers; i++) {
            const size_t r0 = rows * i / slivers, r1 = rows * (i + 1) / slivers;
            then.a = i + 1 < slivers ? ak + r1 * x.row : k + KB < K ? ak + x.block : x.p;
            tiles((int)(r1 - r0), c + r0 * ldc, ldc, ak + r0 * x.row, x.row, panel, kn, k == 0, &then);
        }
    }
}
