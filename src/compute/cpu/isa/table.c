#include "compute/cpu/dispatch.h"
#include "compute/cpu/isa/isa.h"

extern const ks_cpu_ops KS_FN(ks_cpu_ops);

const ks_cpu_ops KS_FN(ks_cpu_ops) = {
    .name = KS_TEXT(KS_ISA),
    .gemm_panel = KS_FN(ks_gemm_panel),
    .expf = KS_FN(ks_expf),
    .expm1f = KS_FN(ks_expm1f),
    .tanhf = KS_FN(ks_tanhf),
    .sigmoidf = KS_FN(ks_sigmoidf),
    .slopef = KS_FN(ks_slopef),
    .sech2f = KS_FN(ks_sech2f),
    .exp = KS_FN(ks_exp),
    .expm1 = KS_FN(ks_expm1),
    .expm1_minus_x = KS_FN(ks_expm1_minus_x),
    .log = KS_FN(ks_log),
    .log1p = KS_FN(ks_log1p),
};
