/* dispatch.h - the CPU's operations, one table per instruction set; all tables give the same bits.
 *
 * To add an operation: isa/isa.h. */
#ifndef KS_COMPUTE_CPU_DISPATCH_H
#define KS_COMPUTE_CPU_DISPATCH_H

#include "compute/cpu/isa/activation.h"
#include "compute/cpu/isa/attention.h"
#include "compute/cpu/isa/gemm.h"
#include "compute/cpu/isa/measure.h"
#include "compute/cpu/isa/norm.h"
#include "compute/cpu/isa/rows.h"
#include "compute/cpu/isa/vmath.h"

typedef struct ks_cpu_ops {
    const char *name; /* "generic", "avx2", "avx512" */
    ks_gemm_panel_fn *gemm_panel;
    ks_map_float_fn *expf, *expm1f, *tanhf, *sigmoidf, *slopef, *sech2f;
    ks_map_double_fn *exp, *expm1, *expm1_minus_x, *log, *log1p;
    ks_embed_fn *embed;
    ks_rope_fn *rope;
    ks_add_fn *add;
    ks_round_diff_fn *round_diff;
    ks_to_bf16_fn *to_bf16;
    ks_add_bias_fn *add_bias;
    ks_norm_fn *norm;
    ks_norm_diff_fn *norm_diff;
    ks_activate_fn *activate;
    ks_activate_diff_fn *activate_diff;
    ks_attention_fn *attention;
    ks_attention_diff_fn *attention_diff;
    ks_sum_weights_fn *sum_weights;
    ks_measure_base_fn *measure_base;
    ks_measure_fn *measure;
    ks_baseline_fn *baseline;
} ks_cpu_ops;

KS_DECLARE(const ks_cpu_ops, ks_cpu_ops);

/* The table called `name`, if this processor can run it. NULL: what KS_CPU_ISA says in the environment, without it the best one.
 * KS_EUSAGE for an unknown name, KS_EMACHINE for one that this processor lacks. */
int ks_cpu_ops_find(const ks_cpu_ops **out, const char *name);

/* The best table that this processor can run. */
const ks_cpu_ops *ks_cpu_ops_best(void);

#endif
