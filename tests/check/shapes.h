/* shapes.h - sizes of published models, one or more of each family, for tests at the sizes that sweeps have. */
#ifndef KS_TESTS_CHECK_SHAPES_H
#define KS_TESTS_CHECK_SHAPES_H

#include "model/arch.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct shape {
    const char *name;
    size_t D, H, G, E, F, V;
    int norm, act, window;
    bool gate;
} shape;

static const shape shapes[] = {
    {"Qwen2.5-Coder-0.5B", 896, 14, 2, 64, 4864, 151936, KS_NORM_RMS, KS_ACT_SILU, 0, true},
    {"Qwen2.5-Coder-1.5B", 1536, 12, 2, 128, 8960, 151936, KS_NORM_RMS, KS_ACT_SILU, 0, true},
    {"Qwen2.5-Coder-3B", 2048, 16, 2, 128, 11008, 151936, KS_NORM_RMS, KS_ACT_SILU, 0, true},
    {"Qwen2.5-Coder-7B", 3584, 28, 4, 128, 18944, 152064, KS_NORM_RMS, KS_ACT_SILU, 0, true},
    {"Qwen2.5-Coder-32B", 5120, 40, 8, 128, 27648, 152064, KS_NORM_RMS, KS_ACT_SILU, 0, true},
    {"StarCoder2-3B", 3072, 24, 2, 128, 12288, 49152, KS_NORM_LAYER, KS_ACT_GELU_TANH, 4096, false},
    {"CodeGemma-7B", 3072, 16, 16, 256, 24576, 256000, KS_NORM_RMS, KS_ACT_GELU_TANH, 0, true},
    {"Code-LLaMA-7B", 4096, 32, 32, 128, 11008, 32016, KS_NORM_RMS, KS_ACT_SILU, 0, true},
    {"Llama-3-8B", 4096, 32, 8, 128, 14336, 128256, KS_NORM_RMS, KS_ACT_SILU, 0, true},
    {"Mistral-7B", 4096, 32, 8, 128, 14336, 32000, KS_NORM_RMS, KS_ACT_SILU, 4096, true},
    {"Phi-3-mini", 3072, 32, 32, 96, 8192, 32064, KS_NORM_RMS, KS_ACT_SILU, 2047, true},
    {"SmolLM2-135M", 576, 9, 3, 64, 1536, 49152, KS_NORM_RMS, KS_ACT_GELU_ERF, 0, true},
    {"SmolLM2-1.7B", 2048, 32, 32, 64, 8192, 49152, KS_NORM_RMS, KS_ACT_SILU, 0, true},
};

#endif
