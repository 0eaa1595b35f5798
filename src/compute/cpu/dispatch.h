/* dispatch.h - the CPU's operations, one table per instruction set; all tables give the same bits.
 *
 * To add an operation: isa/isa.h. */
#ifndef KS_COMPUTE_CPU_DISPATCH_H
#define KS_COMPUTE_CPU_DISPATCH_H

#include "compute/cpu/isa/gemm.h"
#include "compute/cpu/isa/vmath.h"

typedef struct ks_cpu_ops {
    const char *name; /* "generic", "avx2", "avx512" */
    ks_gemm_panel_fn *gemm_panel;
    ks_map_float_fn *expf, *expm1f, *tanhf, *sigmoidf, *slopef, *sech2f;
    ks_map_double_fn *exp, *expm1, *expm1_minus_x, *log, *log1p;
} ks_cpu_ops;

KS_DECLARE(const ks_cpu_ops, ks_cpu_ops);

/* The table called `name`, if this processor can run it. NULL: what KS_CPU_ISA says in the environment, without it the best one.
 * KS_EUSAGE for an unknown name, KS_EMACHINE for one that this processor lacks. */
int ks_cpu_ops_find(const ks_cpu_ops **out, const char *name);

/* The best table that this processor can run. */
const ks_cpu_ops *ks_cpu_ops_best(void);

#endif
