/* norm.h - RMS and layer norm of states, and their exact differences. Letters: R rows, D hidden. */
#ifndef KS_COMPUTE_CPU_ISA_NORM_H
#define KS_COMPUTE_CPU_ISA_NORM_H

#include "compute/backend.h"
#include "compute/cpu/isa/isa.h"

/* ks_backend.norm for i in [from, to). */
typedef void ks_norm_fn(float *y, const ks_norm_tape *tape, const float *x, const int64_t *rows, size_t from, size_t to, size_t D,
                        const ks_norm *p);
KS_DECLARE(ks_norm_fn, ks_norm_rows);

/* ks_backend.norm_diff for i in [from, to). */
typedef void ks_norm_diff_fn(float *dy, const float *d, const int64_t *d_rows, const float *x, const ks_norm_tape *tape,
                             const int64_t *x_rows, size_t from, size_t to, size_t D, const ks_norm *p);
KS_DECLARE(ks_norm_diff_fn, ks_norm_diff_rows);

#endif
