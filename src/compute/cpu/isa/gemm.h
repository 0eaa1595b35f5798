/* gemm.h - the inner part of a matrix product: one panel of output columns. compute/cpu/gemm.h is the product itself. */
#ifndef KS_COMPUTE_CPU_ISA_GEMM_H
#define KS_COMPUTE_CPU_ISA_GEMM_H

#include "base/dtype.h"
#include "compute/cpu/isa/isa.h"

#include <stddef.h>

enum {
    KS_GEMM_KB = 256, /* K of one block: part of the definition of a product's bits */
    KS_GEMM_NR = 64,  /* columns of a panel */
    KS_GEMM_AS = 272, /* floats from row to row of packed X: no multiple of 1 KiB, so that neighbours use different cache sets */
    KS_GEMM_PANEL = KS_GEMM_KB * KS_GEMM_NR + 256, /* floats of scratch for a packed panel */
};

/* X [rows, K]: K block b of row r begins at p + b * block + r * row. */
typedef struct ks_gemm_x {
    const float *p;
    size_t row, block; /* floats */
} ks_gemm_x;

/* c[rows, KS_GEMM_NR] = X[rows, K] W[cols, K]^T for cols <= KS_GEMM_NR columns; columns of c beyond cols are written with anything.
 *   c      [rows, ldc]
 *   w      [cols, ldw] of wtype, any alignment; next: the panel that will be asked for next (prefetch), or NULL
 *   panel  scratch [KS_GEMM_PANEL], 64-byte aligned */
typedef void ks_gemm_panel_fn(float *c, size_t ldc, ks_gemm_x x, const void *w, const void *next, ks_dtype wtype, size_t ldw, size_t rows,
                              size_t cols, size_t K, float *panel);
KS_DECLARE(ks_gemm_panel_fn, ks_gemm_panel);

#endif
