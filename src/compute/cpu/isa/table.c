#include "compute/cpu/dispatch.h"
#include "compute/cpu/isa/isa.h"

extern const ks_cpu_ops KS_FN(ks_cpu_ops);

const ks_cpu_ops KS_FN(ks_cpu_ops) = {
    .name = KS_TEXT(KS_ISA),
    .gemm_panel = KS_FN(ks_gemm_panel),
};
