#include "model/families.h"

#include "model/arch.h"

#include <stdio.h>
#include <string.h>

/* clang-format off */
#define GLOBAL(f) offsetof(ks_globals, f)
#define LAYER(f) offsetof(ks_layer, f)
#define MATRIX(rows, cols, f) {KS_WHEN_ALWAYS, true, false, KS_DIM_##cols, {{KS_DIM_##rows, LAYER(f)}}}
#define VECTOR(when, rows, f) {KS_WHEN_##when, true, false, KS_DIM_NONE, {{KS_DIM_##rows, LAYER(f)}}}
/* clang-format on */

static const ks_role embedding = {KS_WHEN_ALWAYS, false, false, KS_DIM_D, {{KS_DIM_V, GLOBAL(embedding)}}};
static const ks_role head = {KS_WHEN_UNTIED, false, false, KS_DIM_D, {{KS_DIM_V, GLOBAL(head)}}};
static const ks_role final_norm = {KS_WHEN_ALWAYS, false, true, KS_DIM_NONE, {{KS_DIM_D, GLOBAL(final_norm)}}};
static const ks_role final_norm_bias = {KS_WHEN_ALWAYS, false, false, KS_DIM_NONE, {{KS_DIM_D, GLOBAL(final_norm_bias)}}};
static const ks_role norm1 = {KS_WHEN_ALWAYS, true, true, KS_DIM_NONE, {{KS_DIM_D, LAYER(norm1)}}};
static const ks_role norm2 = {KS_WHEN_ALWAYS, true, true, KS_DIM_NONE, {{KS_DIM_D, LAYER(norm2)}}};
static const ks_role norm1_bias = VECTOR(ALWAYS, D, norm1_bias);
static const ks_role norm2_bias = VECTOR(ALWAYS, D, norm2_bias);
static const ks_role q = MATRIX(QUERY, D, q);
static const ks_role k = MATRIX(KEY, D, k);
static const ks_role v = MATRIX(KEY, D, v);
static const ks_role o = MATRIX(D, QUERY, o);
static const ks_role gate = MATRIX(F, D, gate);
static const ks_role up = MATRIX(F, D, up);
static const ks_role down = MATRIX(D, F, down);
static const ks_role qkv = {
    KS_WHEN_ALWAYS, true, false, KS_DIM_D, {{KS_DIM_QUERY, LAYER(q)}, {KS_DIM_KEY, LAYER(k)}, {KS_DIM_KEY, LAYER(v)}}};
static const ks_role gate_up = {KS_WHEN_ALWAYS, true, false, KS_DIM_D, {{KS_DIM_F, LAYER(gate)}, {KS_DIM_F, LAYER(up)}}};
static const ks_role q_bias = VECTOR(QKV_BIAS, QUERY, q_bias);
static const ks_role k_bias = VECTOR(QKV_BIAS, KEY, k_bias);
static const ks_role v_bias = VECTOR(QKV_BIAS, KEY, v_bias);
static const ks_role o_bias = VECTOR(O_BIAS, D, o_bias);
static const ks_role gate_bias = VECTOR(MLP_BIAS, F, gate_bias);
static const ks_role up_bias = VECTOR(MLP_BIAS, F, up_bias);
static const ks_role down_bias = VECTOR(MLP_BIAS, D, down_bias);

/* clang-format off */
#define OUTER_NAMES \
    {"model.embed_tokens.weight", &embedding}, \
    {"lm_head.weight", &head}, \
    {"model.norm.weight", &final_norm}, \
    {"model.layers.%d.input_layernorm.weight", &norm1}, \
    {"model.layers.%d.post_attention_layernorm.weight", &norm2}
#define ATTENTION_NAMES \
    {"model.layers.%d.self_attn.q_proj.weight", &q}, \
    {"model.layers.%d.self_attn.k_proj.weight", &k}, \
    {"model.layers.%d.self_attn.v_proj.weight", &v}, \
    {"model.layers.%d.self_attn.o_proj.weight", &o}, \
    {"model.layers.%d.self_attn.q_proj.bias", &q_bias}, \
    {"model.layers.%d.self_attn.k_proj.bias", &k_bias}, \
    {"model.layers.%d.self_attn.v_proj.bias", &v_bias}, \
    {"model.layers.%d.self_attn.o_proj.bias", &o_bias}
/* clang-format on */

/* Most families: biases are bound only where the architecture has them. */
static const ks_name llama_names[] = {
    OUTER_NAMES,
    ATTENTION_NAMES,
    {"model.layers.%d.mlp.gate_proj.weight", &gate},
    {"model.layers.%d.mlp.up_proj.weight", &up},
    {"model.layers.%d.mlp.down_proj.weight", &down},
    {"model.layers.%d.mlp.gate_proj.bias", &gate_bias},
    {"model.layers.%d.mlp.up_proj.bias", &up_bias},
    {"model.layers.%d.mlp.down_proj.bias", &down_bias},
    {NULL, NULL},
};

static const ks_name starcoder2_names[] = {
    OUTER_NAMES,
    ATTENTION_NAMES,
    {"model.norm.bias", &final_norm_bias},
    {"model.layers.%d.input_layernorm.bias", &norm1_bias},
    {"model.layers.%d.post_attention_layernorm.bias", &norm2_bias},
    {"model.layers.%d.mlp.c_fc.weight", &up},
    {"model.layers.%d.mlp.c_fc.bias", &up_bias},
    {"model.layers.%d.mlp.c_proj.weight", &down},
    {"model.layers.%d.mlp.c_proj.bias", &down_bias},
    {NULL, NULL},
};

static const ks_name phi3_names[] = {
    OUTER_NAMES,
    {"model.layers.%d.self_attn.qkv_proj.weight", &qkv},
    {"model.layers.%d.self_attn.o_proj.weight", &o},
    {"model.layers.%d.mlp.gate_up_proj.weight", &gate_up},
    {"model.layers.%d.mlp.down_proj.weight", &down},
    {NULL, NULL},
};

static const ks_key gemma_keys[] = {{"hidden_activation", NULL}, {"attention_bias", NULL}, {NULL, NULL}};
static const ks_key llama_keys[] = {
    {"attention_bias", NULL},  {"mlp_bias", NULL},         {"rope_interleaved", "false"},
    {"is_llama_config", NULL}, {"sliding_window", "null"}, {NULL, NULL},
};
static const ks_key mistral_keys[] = {{"sliding_window", NULL}, {"attention_bias", "false"}, {"mlp_bias", "false"}, {NULL, NULL}};
static const ks_key phi3_keys[] = {
    {"sliding_window", NULL}, {"partial_rotary_factor", NULL}, {"attention_bias", "false"}, {"lm_head_bias", "false"},
    {"mlp_bias", "false"},    {"interpolate_factor", "1"},     {"full_attn_mod", "1"},      {NULL, NULL},
};
static const ks_key qwen2_keys[] = {
    {"use_sliding_window", NULL}, {"sliding_window", NULL}, {"max_window_layers", NULL},
    {"attention_bias", "true"},   {"use_mrope", "false"},   {NULL, NULL},
};
static const ks_key starcoder2_keys[] = {
    {"sliding_window", NULL}, {"use_bias", NULL}, {"mlp_type", "\"default\""}, {"norm_type", "\"layer_norm\""}, {NULL, NULL},
};

const ks_family ks_families[] = {
    {
        .model_type = "gemma",
        .architecture = "GemmaForCausalLM",
        .names = llama_names,
        .keys = gemma_keys,
        .norm = KS_NORM_RMS,
        .norm_one_plus = true,
        .gated = true,
        .embed_sqrt_d = true,
        .qkv_bias = {"attention_bias", false},
        .o_bias = {"attention_bias", false},
        .tied = true,
        .eps_key = "rms_norm_eps",
        .eps = 1e-6,
        .act = "gelu_pytorch_tanh",
        .kv_heads = 16,
        .head_dim = 256,
    },
    {
        .model_type = "llama",
        .architecture = "LlamaForCausalLM",
        .names = llama_names,
        .keys = llama_keys,
        .norm = KS_NORM_RMS,
        .gated = true,
        .qkv_bias = {"attention_bias", false},
        .o_bias = {"attention_bias", false},
        .mlp_bias = {"mlp_bias", false},
        .eps_key = "rms_norm_eps",
        .eps = 1e-6,
        .act = "silu",
    },
    {
        .model_type = "mistral",
        .architecture = "MistralForCausalLM",
        .names = llama_names,
        .keys = mistral_keys,
        .norm = KS_NORM_RMS,
        .gated = true,
        .eps_key = "rms_norm_eps",
        .eps = 1e-6,
        .act = "silu",
        .kv_heads = 8,
        .sliding = KS_SLIDING_ALL,
        .window = 4096,
    },
    {
        .model_type = "phi3",
        .architecture = "Phi3ForCausalLM",
        .names = phi3_names,
        .keys = phi3_keys,
        .norm = KS_NORM_RMS,
        .gated = true,
        .eps_key = "rms_norm_eps",
        .eps = 1e-5,
        .act = "silu",
        .sliding = KS_SLIDING_ALL,
        .original = 4096,
        .partial_rotary = true,
    },
    {
        .model_type = "qwen2",
        .architecture = "Qwen2ForCausalLM",
        .names = llama_names,
        .keys = qwen2_keys,
        .norm = KS_NORM_RMS,
        .gated = true,
        .qkv_bias = {"", true},
        .eps_key = "rms_norm_eps",
        .eps = 1e-6,
        .act = "silu",
        .kv_heads = 32,
        .sliding = KS_SLIDING_SWITCHED,
        .window = 4096,
    },
    {
        .model_type = "starcoder2",
        .architecture = "Starcoder2ForCausalLM",
        .names = starcoder2_names,
        .keys = starcoder2_keys,
        .norm = KS_NORM_LAYER,
        .qkv_bias = {"use_bias", true},
        .o_bias = {"use_bias", true},
        .mlp_bias = {"use_bias", true},
        .tied = true,
        .eps_key = "norm_epsilon",
        .eps = 1e-5,
        .act = "gelu_pytorch_tanh",
        .kv_heads = 2,
        .sliding = KS_SLIDING_ALL,
    },
    {.model_type = NULL},
};

const ks_family *ks_family_find(const char *model_type)
{
    const ks_family *f = ks_families;
    while (f->model_type && strcmp(f->model_type, model_type)) f++;
    return f->model_type ? f : NULL;
}

const char *ks_family_list(void)
{
    static _Thread_local char text[256];
    size_t used = 0;
    for (const ks_family *f = ks_families; f->model_type && used < sizeof text; f++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", used ? ", " : "", f->model_type);
    return text;
}
