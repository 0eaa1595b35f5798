/* config.json: what each family's says, and that nothing in it is ignored that could change the mathematics. */
#include "base/error.h"
#include "base/json.h"
#include "model/arch.h"
#include "support/scratch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct golden {
    const char *name, *family, *architecture;
    int L, D, H, G, E, F, V, norm, act, rope, window;
    bool one_plus, gated, tied, qkv_bias, o_bias, mlp_bias;
    double eps, theta;
} goldens[] = {
    {"a_qwen2", "qwen2", "Qwen2ForCausalLM", 5, 96, 8, 2, 12, 160, 640, KS_NORM_RMS, KS_ACT_SILU, KS_ROPE_PLAIN, 0, 0, 1, 0, 1, 0, 0,
     1e-6,      1e6},
    {"b_qwen2_tied", "qwen2", "Qwen2ForCausalLM", 4, 64, 4, 2, 16, 144, 576, KS_NORM_RMS, KS_ACT_SILU, KS_ROPE_PLAIN, 0, 0, 1, 1, 1, 0, 0,
     1e-6,           1e6},
    {"c_starcoder2", "starcoder2",     "Starcoder2ForCausalLM", 5,  64, 4, 2, 16, 192, 512,
     KS_NORM_LAYER,  KS_ACT_GELU_TANH, KS_ROPE_PLAIN,           24, 0,  0, 1, 1,  1,   1,
     1e-5,           999999.4420358813},
    {"d_gemma", "gemma", "GemmaForCausalLM", 4, 64, 4, 1, 32, 128, 600, KS_NORM_RMS, KS_ACT_GELU_TANH, KS_ROPE_PLAIN, 0, 1, 1, 1, 0, 0, 0,
     1e-6,      1e4},
    {"e_llama", "llama", "LlamaForCausalLM", 5, 64, 4, 4, 16, 128, 560, KS_NORM_RMS, KS_ACT_SILU, KS_ROPE_PLAIN, 0, 0, 1, 0, 0, 0, 0,
     1e-5,      1e6},
    {"f_llama3", "llama", "LlamaForCausalLM", 4, 64, 4, 2, 16, 112, 544, KS_NORM_RMS, KS_ACT_SILU, KS_ROPE_LLAMA3, 0, 0, 1, 1, 0, 0, 0,
     1e-5,       5e5},
    {"g_phi3", "phi3", "Phi3ForCausalLM", 4, 96, 4, 4, 24, 128, 544, KS_NORM_RMS, KS_ACT_SILU, KS_ROPE_PLAIN, 20, 0, 1, 0, 0, 0, 0,
     1e-5,     1e4},
    {"h_phi3_longrope",
     "phi3",
     "Phi3ForCausalLM",
     4,
     64,
     4,
     2,
     16,
     128,
     544,
     KS_NORM_RMS,
     KS_ACT_SILU,
     KS_ROPE_LONGROPE,
     0,
     0,
     1,
     0,
     0,
     0,
     0,
     1e-5,
     1e4},
    {"i_mistral", "mistral", "MistralForCausalLM", 6, 64, 4, 2, 16, 128, 544, KS_NORM_RMS, KS_ACT_SILU, KS_ROPE_PLAIN, 16, 0, 1, 0, 0, 0, 0,
     1e-5,        1e4},
};
enum { GOLDENS = sizeof goldens / sizeof *goldens };

static void test_reads_every_golden_model(void **state)
{
    (void)state;
    for (int i = 0; i < GOLDENS; i++) {
        const struct golden *g = &goldens[i];
        char path[256];
        snprintf(path, sizeof path, "goldens/models/%s", g->name);
        ks_arch *a = NULL;
        if (ks_arch_read(&a, path)) fail_msg("%s", ks_error_text());
        assert_string_equal(a->family, g->family);
        assert_string_equal(a->architecture, g->architecture);
        const int found[] = {a->L, a->D, a->H, a->G, a->E, a->F, a->V, a->norm, a->act, a->rope.kind};
        const int expected[] = {g->L, g->D, g->H, g->G, g->E, g->F, g->V, g->norm, g->act, g->rope};
        for (int k = 0; k < 10; k++) assert_int_equal(found[k], expected[k]);
        for (int l = 0; l < a->L; l++) assert_int_equal(a->window[l], g->window);
        const bool flags[] = {a->norm_one_plus, a->gated, a->tied, a->qkv_bias, a->o_bias, a->mlp_bias};
        const bool want[] = {g->one_plus, g->gated, g->tied, g->qkv_bias, g->o_bias, g->mlp_bias};
        for (int k = 0; k < 6; k++) assert_int_equal(flags[k], want[k]);
        assert_true(a->norm_eps == (float)g->eps && a->rope.theta == g->theta && a->rope.dim == g->E);
        assert_true(a->attn_scale == (float)(1 / sqrt(g->E)));
        assert_true(a->embed_scale == (g->one_plus ? 8.0f : 1.0f)); /* gemma: sqrt(64) */
        assert_string_equal(a->warnings, "");
        ks_arch_free(a);
    }
}

/* What the published models of these names say, in full: each must be accepted as it is. */
static const char qwen[] =
    "{\"architectures\":[\"Qwen2ForCausalLM\"],\"attention_dropout\":0.0,\"bos_token_id\":151643,\"eos_token_id\":151645,\"hidden_act\":"
    "\"silu\","
    "\"hidden_size\":3584,\"initializer_range\":0.02,\"intermediate_size\":18944,\"max_position_embeddings\":32768,\"max_window_layers\":"
    "28,"
    "\"model_type\":\"qwen2\",\"num_attention_heads\":28,\"num_hidden_layers\":28,\"num_key_value_heads\":4,\"rms_norm_eps\":1e-06,"
    "\"rope_theta\":1000000.0,\"sliding_window\":131072,\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\",\"transformers_"
    "version\":\"4.44.0\","
    "\"use_cache\":true,\"use_sliding_window\":false,\"vocab_size\":152064}";
static const char starcoder[] = "{\"architectures\":[\"Starcoder2ForCausalLM\"],\"attention_dropout\":0.1,\"residual_dropout\":0.1,"
                                "\"embedding_dropout\":0.1,\"bos_token_id\":0,"
                                "\"eos_token_id\":0,\"hidden_act\":\"gelu_pytorch_tanh\",\"hidden_size\":3072,\"initializer_range\":0."
                                "018042,\"intermediate_size\":12288,"
                                "\"max_position_embeddings\":16384,\"mlp_type\":\"default\",\"model_type\":\"starcoder2\",\"norm_epsilon\":"
                                "1e-05,\"norm_type\":\"layer_norm\","
                                "\"num_attention_heads\":24,\"num_hidden_layers\":30,\"num_key_value_heads\":2,\"rope_theta\":999999."
                                "4420358813,\"sliding_window\":4096,"
                                "\"transformers_version\":\"4.37.0.dev0\",\"use_bias\":true,\"use_cache\":true,\"vocab_size\":49152}";
static const char codegemma[] =
    "{\"architectures\":[\"GemmaForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,\"bos_token_id\":2,\"eos_token_id\":1,"
    "\"head_dim\":256,"
    "\"hidden_act\":\"gelu_pytorch_tanh\",\"hidden_activation\":\"gelu_pytorch_tanh\",\"hidden_size\":3072,\"initializer_range\":0.02,"
    "\"intermediate_size\":24576,\"max_position_embeddings\":8192,\"model_type\":\"gemma\",\"num_attention_heads\":16,\"num_hidden_"
    "layers\":28,"
    "\"num_key_value_heads\":16,\"pad_token_id\":0,\"rms_norm_eps\":1e-06,\"rope_scaling\":null,\"rope_theta\":10000.0,\"torch_dtype\":"
    "\"bfloat16\","
    "\"transformers_version\":\"4.39.3\",\"use_cache\":true,\"vocab_size\":256000}";
static const char codellama[] =
    "{\"_name_or_path\":\"codellama/CodeLlama-7b-hf\",\"architectures\":[\"LlamaForCausalLM\"],\"bos_token_id\":1,\"eos_token_id\":2,"
    "\"hidden_act\":\"silu\",\"hidden_size\":4096,\"initializer_range\":0.02,\"intermediate_size\":11008,\"max_position_embeddings\":16384,"
    "\"model_type\":\"llama\",\"num_attention_heads\":32,\"num_hidden_layers\":32,\"num_key_value_heads\":32,\"pretraining_tp\":1,"
    "\"rms_norm_eps\":1e-05,\"rope_scaling\":null,\"rope_theta\":1000000,\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\","
    "\"transformers_version\":\"4.33.0.dev0\",\"use_cache\":true,\"vocab_size\":32016}";
static const char phi[] =
    "{\"_name_or_path\":\"Phi-3-mini-4k-instruct\",\"architectures\":[\"Phi3ForCausalLM\"],\"attention_dropout\":0.0,\"auto_map\":{"
    "\"AutoConfig\":"
    "\"configuration_phi3.Phi3Config\",\"AutoModelForCausalLM\":\"modeling_phi3.Phi3ForCausalLM\"},\"bos_token_id\":1,\"embd_pdrop\":0.0,"
    "\"eos_token_id\":32000,\"hidden_act\":\"silu\",\"hidden_size\":3072,\"initializer_range\":0.02,\"intermediate_size\":8192,"
    "\"max_position_embeddings\":4096,\"model_type\":\"phi3\",\"num_attention_heads\":32,\"num_hidden_layers\":32,\"num_key_value_heads\":"
    "32,"
    "\"original_max_position_embeddings\":4096,\"pad_token_id\":32000,\"resid_pdrop\":0.0,\"rms_norm_eps\":1e-05,\"rope_scaling\":null,"
    "\"rope_theta\":10000.0,\"sliding_window\":2047,\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\",\"transformers_version\":"
    "\"4.40.2\","
    "\"use_cache\":true,\"attention_bias\":false,\"vocab_size\":32064}";
static const char mistral[] =
    "{\"architectures\":[\"MistralForCausalLM\"],\"bos_token_id\":1,\"eos_token_id\":2,\"hidden_act\":\"silu\",\"hidden_size\":4096,"
    "\"initializer_range\":0.02,\"intermediate_size\":14336,\"max_position_embeddings\":32768,\"model_type\":\"mistral\",\"num_attention_"
    "heads\":32,"
    "\"num_hidden_layers\":32,\"num_key_value_heads\":8,\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,\"sliding_window\":4096,"
    "\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\",\"transformers_version\":\"4.34.0.dev0\",\"use_cache\":true,\"vocab_size\":"
    "32000}";
static const char llama32[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,\"bos_token_id\":128000,\"eos_token_id\":"
    "[128001,128008],"
    "\"head_dim\":64,\"hidden_act\":\"silu\",\"hidden_size\":2048,\"initializer_range\":0.02,\"intermediate_size\":8192,"
    "\"max_position_embeddings\":131072,\"mlp_bias\":false,\"model_type\":\"llama\",\"num_attention_heads\":32,\"num_hidden_layers\":16,"
    "\"num_key_value_heads\":8,\"pretraining_tp\":1,\"rms_norm_eps\":1e-05,\"rope_scaling\":{\"factor\":32.0,\"high_freq_factor\":4.0,"
    "\"low_freq_factor\":1.0,\"original_max_position_embeddings\":8192,\"rope_type\":\"llama3\"},\"rope_theta\":500000.0,"
    "\"tie_word_embeddings\":true,\"torch_dtype\":\"bfloat16\",\"transformers_version\":\"4.45.0.dev0\",\"use_cache\":true,\"vocab_size\":"
    "128256}";
static const char smollm[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,\"bos_token_id\":1,\"eos_token_id\":2,"
    "\"hidden_act\":\"silu\",\"hidden_size\":576,\"initializer_range\":0.041666666666666664,\"intermediate_size\":1536,\"is_llama_config\":"
    "true,"
    "\"max_position_embeddings\":8192,\"mlp_bias\":false,\"model_type\":\"llama\",\"num_attention_heads\":9,\"num_hidden_layers\":30,"
    "\"num_key_value_heads\":3,\"pad_token_id\":2,\"pretraining_tp\":1,\"rms_norm_eps\":1e-05,\"rope_interleaved\":false,\"rope_scaling\":"
    "null,"
    "\"rope_theta\":100000,\"tie_word_embeddings\":true,\"torch_dtype\":\"bfloat16\",\"transformers.js_config\":{\"kv_cache_dtype\":{"
    "\"q4f16\":"
    "\"float16\"}},\"transformers_version\":\"4.42.3\",\"use_cache\":true,\"vocab_size\":49152}";

/* Parses `base` with up to three keys set (NULL value: removed). Returns the status. */
static int parse(ks_arch **a, const char *base, ...)
{
    cJSON *o = scratch_json(base);
    va_list args;
    va_start(args, base);
    for (const char *key; (key = va_arg(args, const char *));) scratch_set(o, key, va_arg(args, const char *));
    va_end(args);
    char *text = cJSON_PrintUnformatted(o);
    const int rc = ks_arch_parse(a, text, strlen(text), "config.json");
    cJSON_free(text);
    cJSON_Delete(o);
    return rc;
}
#define END (const char *)NULL

static ks_arch *accepted(const char *base)
{
    ks_arch *a = NULL;
    if (parse(&a, base, END)) fail_msg("%s", ks_error_text());
    return a;
}

/* base with key = value must be refused by a message with both parts. */
static void refused(const char *base, const char *key, const char *value, const char *part, const char *other)
{
    ks_arch *a = NULL;
    const int rc = parse(&a, base, key, value, END);
    if (rc != KS_EINPUT || !strstr(ks_error_text(), part) || !strstr(ks_error_text(), other) || !strstr(ks_error_text(), "config.json"))
        fail_msg("%s = %s: expected an error with \"%s\" and \"%s\"; status %d, \"%s\"", key, value ? value : "(removed)", part, other, rc,
                 ks_error_text());
    assert_null(a);
}

static void test_accepts_published_configurations(void **state)
{
    (void)state;
    ks_arch *a = accepted(qwen);
    assert_int_equal(a->E, 128);
    for (int l = 0; l < a->L; l++) assert_int_equal(a->window[l], 0); /* use_sliding_window is false */
    assert_true(a->qkv_bias && !a->o_bias && a->has_dtype && a->dtype == KS_BF16);
    ks_arch_free(a);

    a = accepted(starcoder);
    assert_true(a->tied && a->o_bias && a->mlp_bias && !a->gated); /* tie_word_embeddings is missing: true */
    assert_int_equal(a->window[29], 4096);
    ks_arch_free(a);

    a = accepted(codegemma);
    assert_true(a->tied && a->norm_one_plus && a->embed_scale == (float)sqrt(3072));
    assert_int_equal(a->E, 256);
    ks_arch_free(a);

    a = accepted(codellama);
    assert_true(!a->tied && a->E == 128 && a->rope.theta == 1e6);
    ks_arch_free(a);

    a = accepted(phi);
    assert_int_equal(a->E, 96);
    assert_int_equal(a->window[0], 2047);
    ks_arch_free(a);

    a = accepted(mistral);
    assert_int_equal(a->window[31], 4096);
    ks_arch_free(a);

    a = accepted(llama32);
    assert_true(a->rope.kind == KS_ROPE_LLAMA3 && a->rope.factor == 32 && a->rope.original == 8192 && a->tied);
    ks_arch_free(a);

    a = accepted(smollm);
    assert_true(a->E == 64 && a->G == 3);
    ks_arch_free(a);
}

static void test_what_missing_and_null_keys_mean(void **state)
{
    (void)state;
    ks_arch *a = NULL;
    assert_int_equal(parse(&a, mistral, "sliding_window", "null", END), KS_OK);
    assert_int_equal(a->window[0], 0);
    ks_arch_free(a);
    assert_int_equal(parse(&a, mistral, "sliding_window", NULL, END), KS_OK);
    assert_int_equal(a->window[0], 4096);
    ks_arch_free(a);
    assert_int_equal(parse(&a, phi, "sliding_window", NULL, END), KS_OK);
    assert_int_equal(a->window[0], 0);
    ks_arch_free(a);
    assert_int_equal(parse(&a, codellama, "num_key_value_heads", NULL, "head_dim", "null", "tie_word_embeddings", NULL, END), KS_OK);
    assert_true(a->G == 32 && a->E == 128 && !a->tied);
    ks_arch_free(a);
    assert_int_equal(parse(&a, llama32, "dtype", "\"float16\"", "torch_dtype", NULL, "rope_scaling", "null", END), KS_OK);
    assert_true(a->dtype == KS_F16 && a->rope.kind == KS_ROPE_PLAIN);
    ks_arch_free(a);
    assert_int_equal(parse(&a, codellama, "rope_theta", NULL, "rms_norm_eps", NULL, END), KS_OK);
    assert_true(a->rope.theta == 10000 && a->norm_eps == 1e-6f);
    ks_arch_free(a);
    /* llama's attention_bias is o's too; qwen2's o never has one. */
    assert_int_equal(parse(&a, llama32, "attention_bias", "true", "mlp_bias", "true", END), KS_OK);
    assert_true(a->qkv_bias && a->o_bias && a->mlp_bias);
    ks_arch_free(a);
    assert_int_equal(parse(&a, starcoder, "use_bias", "false", END), KS_OK);
    assert_true(!a->qkv_bias && !a->o_bias && !a->mlp_bias);
    ks_arch_free(a);
    /* gemma computes hidden_act, whatever hidden_activation says. */
    assert_int_equal(parse(&a, codegemma, "hidden_act", "\"gelu\"", END), KS_OK);
    assert_int_equal(a->act, KS_ACT_GELU_ERF);
    assert_non_null(strstr(a->warnings, "hidden_activation"));
    ks_arch_free(a);
    /* transformers 5 writes rope_parameters. */
    assert_int_equal(parse(&a, codellama, "rope_theta", NULL, "rope_scaling", NULL, "rope_parameters",
                           "{\"rope_type\":\"default\",\"rope_theta\":12345.0}", END),
                     KS_OK);
    assert_true(a->rope.theta == 12345 && a->rope.kind == KS_ROPE_PLAIN);
    ks_arch_free(a);
}

static void test_sliding_windows_of_qwen2(void **state)
{
    (void)state;
    ks_arch *a = NULL;
    assert_int_equal(parse(&a, qwen, "use_sliding_window", "true", "max_window_layers", "21", END), KS_OK);
    for (int l = 0; l < 28; l++) assert_int_equal(a->window[l], l >= 21 ? 131072 : 0);
    ks_arch_free(a);
    assert_int_equal(parse(&a, qwen, "use_sliding_window", "true", "num_hidden_layers", "2", "layer_types",
                           "[\"sliding_attention\",\"full_attention\"]", END),
                     KS_OK);
    assert_true(a->window[0] == 131072 && a->window[1] == 0);
    ks_arch_free(a);
    assert_int_equal(parse(&a, qwen, "num_hidden_layers", "2", "layer_types", "[\"sliding_attention\",\"full_attention\"]", END),
                     KS_EINPUT);
    assert_non_null(strstr(ks_error_text(), "no sliding window"));
    assert_int_equal(parse(&a, qwen, "num_hidden_layers", "2", "layer_types", "[\"full_attention\",\"chunked_attention\"]", END),
                     KS_EINPUT);
    assert_non_null(strstr(ks_error_text(), "chunked_attention"));
    refused(qwen, "layer_types", "[\"full_attention\"]", "layer_types", "28");
    assert_int_equal(parse(&a, mistral, "num_hidden_layers", "2", "layer_types", "[\"full_attention\",\"sliding_attention\"]", END),
                     KS_EINPUT);
    assert_non_null(strstr(ks_error_text(), "alike"));
}

static void test_longrope(void **state)
{
    (void)state;
    static const char factors[] = "{\"type\":\"%s\",\"long_factor\":[1,2,3,4],\"short_factor\":[1,1,1,1]}";
    char scaling[256];
    snprintf(scaling, sizeof scaling, factors, "su");
    ks_arch *a = NULL;
    assert_int_equal(
        parse(&a, phi, "head_dim", "16", "partial_rotary_factor", "0.5", "rope_scaling", scaling, "max_position_embeddings", "131072", END),
        KS_OK);
    assert_int_equal(a->rope.kind, KS_ROPE_LONGROPE);
    assert_int_equal(a->rope.dim, 8);
    assert_int_equal(a->rope.original, 4096);
    assert_true(a->rope.attn_factor == sqrt(1 + log(32.0) / log(4096)));
    assert_true(a->rope.long_factor[3] == 4 && a->rope.short_factor[3] == 1);
    ks_arch_free(a);
    assert_int_equal(parse(&a, phi, "head_dim", "16", "rope_scaling", scaling, END), KS_EINPUT); /* 8 factors are needed */
    assert_non_null(strstr(ks_error_text(), "long_factor"));
}

static void test_refuses_by_name(void **state)
{
    (void)state;
    refused(qwen, "model_type", "\"rwkv7\"", "rwkv7", "not attention");
    refused(qwen, "model_type", "\"mamba2\"", "mamba2", "not attention");
    refused(qwen, "model_type", "\"gpt2\"", "gpt2", "starcoder2");
    refused(qwen, "model_type", NULL, "model_type", "missing");
    refused(qwen, "architectures", "[\"Qwen2ForSequenceClassification\"]", "Qwen2ForSequenceClassification", "Qwen2ForCausalLM");
    refused(qwen, "architectures", "\"Qwen2ForCausalLM\"", "architectures", "list");
    refused(qwen, "hidden_act", "\"relu2\"", "relu2", "silu");
    refused(qwen, "hidden_act", "3", "hidden_act", "a string");
    refused(qwen, "quantization_config", "{\"bits\":4}", "quantization_config", "quantized");
    refused(qwen, "rope_scaling", "{\"type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":32768}", "yarn", "llama3");
    refused(qwen, "rope_scaling", "{\"rope_type\":\"linear\",\"factor\":4.0}", "linear", "rope_scaling");
    refused(qwen, "rope_scaling", "{\"rope_type\":\"default\",\"mrope_section\":[1]}", "mrope_section", "rope_scaling");
    refused(qwen, "rope_scaling", "[1]", "rope_scaling", "an object");
    refused(qwen, "rope_scaling", "{\"factor\":2}", "rope_type", "missing");
    refused(qwen, "rope_theta", "-1", "rope_theta", "-1");
    refused(qwen, "final_logit_softcapping", "30.0", "final_logit_softcapping", "qwen2");
    refused(qwen, "partial_rotary_factor", "0.5", "partial_rotary_factor", "0.5");
    refused(qwen, "num_experts", "8", "num_experts", "refused");
    refused(qwen, "tie_word_embeddings", "1", "tie_word_embeddings", "true or false");
    refused(codellama, "sliding_window", "4096", "sliding_window", "4096");
    refused(codellama, "rope_interleaved", "true", "rope_interleaved", "false");
    refused(starcoder, "norm_type", "\"rms_norm\"", "norm_type", "layer_norm");
    refused(starcoder, "mlp_type", "\"gated\"", "mlp_type", "default");
    refused(starcoder, "rms_norm_eps", "1e-6", "rms_norm_eps", "starcoder2");
    refused(llama32, "rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":8}", "low_freq_factor", "missing");
    refused(
        llama32, "rope_scaling",
        "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4,\"original_max_position_embeddings\":8192}",
        "low_freq_factor < high_freq_factor", "4");
    refused(mistral, "sliding_window", "0", "sliding_window", "0");
}

static void test_refuses_sizes(void **state)
{
    (void)state;
    static const char *const keys[] = {"num_hidden_layers", "hidden_size", "num_attention_heads",
                                       "intermediate_size", "vocab_size",  "max_position_embeddings"};
    static const char *const values[] = {"0", "-1", "1.5", "1e18", "1e300", "\"7\"", NULL};
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) refused(codellama, keys[k], values[v], keys[k], "");
    refused(codellama, "num_key_value_heads", "5", "num_attention_heads 32", "num_key_value_heads 5");
    refused(codellama, "num_key_value_heads", "64", "num_key_value_heads", "64");
    refused(codellama, "num_attention_heads", "96", "hidden_size 4096", "96");
    refused(codellama, "head_dim", "63", "63", "odd");
    refused(codellama, "rms_norm_eps", "0", "rms_norm_eps", "0");
    refused(codellama, "rms_norm_eps", "\"1e-5\"", "rms_norm_eps", "a string");
}

static void test_refuses_damaged_text(void **state)
{
    (void)state;
    ks_arch *a = NULL;
    for (size_t n = 0; n < strlen(smollm); n++) assert_int_equal(ks_arch_parse(&a, smollm, n, "config.json"), KS_EINPUT);
    assert_int_equal(ks_arch_parse(&a, "[]", 2, "config.json"), KS_EINPUT);
    const char *twice = "{\"model_type\":\"llama\",\"hidden_size\":8,\"hidden_size\":16}";
    assert_int_equal(ks_arch_parse(&a, twice, strlen(twice), "config.json"), KS_EINPUT);
    assert_non_null(strstr(ks_error_text(), "\"hidden_size\" is there twice"));
    assert_int_equal(ks_arch_read(&a, "goldens"), KS_EINPUT);
    assert_null(a);
}

/* Any byte replaced by any of a few others: read or refused, never worse (the sanitizers watch). */
static void test_survives_damage(void **state)
{
    (void)state;
    static const char others[] = "\"{}[]:,-019e.\\ \x01\xff";
    int refusals = 0;
    for (size_t i = 0; i < strlen(llama32); i++)
        for (const char *c = others; *c; c++) {
            char text[sizeof llama32];
            memcpy(text, llama32, sizeof text);
            text[i] = *c;
            ks_arch *a = NULL;
            const int rc = ks_arch_parse(&a, text, strlen(text), "config.json");
            assert_true(rc == KS_OK || rc == KS_EINPUT);
            refusals += rc != KS_OK;
            ks_arch_free(a);
        }
    assert_true(refusals > 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_every_golden_model),
        cmocka_unit_test(test_accepts_published_configurations),
        cmocka_unit_test(test_what_missing_and_null_keys_mean),
        cmocka_unit_test(test_sliding_windows_of_qwen2),
        cmocka_unit_test(test_longrope),
        cmocka_unit_test(test_refuses_by_name),
        cmocka_unit_test(test_refuses_sizes),
        cmocka_unit_test(test_refuses_damaged_text),
        cmocka_unit_test(test_survives_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
