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
    .embed = KS_FN(ks_embed_rows),
    .rope = KS_FN(ks_rope_rows),
    .add = KS_FN(ks_add_rows),
    .round_diff = KS_FN(ks_round_diff_rows),
    .to_bf16 = KS_FN(ks_to_bf16_rows),
    .add_bias = KS_FN(ks_add_bias_rows),
    .norm = KS_FN(ks_norm_rows),
    .norm_diff = KS_FN(ks_norm_diff_rows),
    .activate = KS_FN(ks_activate_rows),
    .activate_diff = KS_FN(ks_activate_diff_rows),
    .attention = KS_FN(ks_attention_head),
    .attention_diff = KS_FN(ks_attention_diff_head),
    .sum_weights = KS_FN(ks_sum_weights),
    .measure_base = KS_FN(ks_measure_base),
    .measure = KS_FN(ks_measure_row),
    .baseline = KS_FN(ks_baseline_row_of),
};
