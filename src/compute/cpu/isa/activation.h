/* activation.h - activations of states and of effects. Letters: F feed-forward. */
#ifndef KS_COMPUTE_CPU_ISA_ACTIVATION_H
#define KS_COMPUTE_CPU_ISA_ACTIVATION_H

#include "compute/backend.h"
#include "compute/cpu/isa/isa.h"

/* ks_backend.activate and activate_diff for rows [from, to). */
typedef void ks_activate_fn(float *a, const float *g, const float *u, size_t from, size_t to, size_t F, int act);
typedef void ks_activate_diff_fn(float *da, const float *dg, const float *du, const float *g, const float *u, const int64_t *x_rows,
                                 size_t from, size_t to, size_t F, int act);
KS_DECLARE(ks_activate_fn, ks_activate_rows);
KS_DECLARE(ks_activate_diff_fn, ks_activate_diff_rows);

#endif
