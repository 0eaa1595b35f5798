#define _GNU_SOURCE
#include "model/arch.h"

#include "base/error.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/families.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Keys that are read for every family. */
static const char *const read_keys[] = {
    "architectures",
    "model_type",
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "original_max_position_embeddings",
    "hidden_act",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "layer_types",
    "tie_word_embeddings",
    "dtype",
    "torch_dtype",
    NULL,
};

/* Keys that cannot change a forward pass in evaluation: tokens, training, generation, where a file came from. */
static const char *const harmless_keys[] = {
    /* special tokens */
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "unk_token_id",
    "sep_token_id",
    "cls_token_id",
    "mask_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "tokenizer_class",
    "prefix",
    "suffix",
    /* dropout and training */
    "attention_dropout",
    "attn_pdrop",
    "embd_pdrop",
    "resid_pdrop",
    "residual_dropout",
    "embedding_dropout",
    "hidden_dropout",
    "initializer_range",
    "pretraining_tp",
    "gradient_checkpointing",
    "classifier_dropout",
    "summary_first_dropout",
    /* how a program runs it */
    "use_cache",
    "transformers_version",
    "_name_or_path",
    "name_or_path",
    "auto_map",
    "_attn_implementation",
    "attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_flash_attn_2_enabled",
    "transformers.js_config",
    "unsloth_fixed",
    "unsloth_version",
    "torchscript",
    "use_bfloat16",
    "tf_legacy_loss",
    "return_dict",
    "use_return_dict",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "return_dict_in_generate",
    "chunk_size_feed_forward",
    "task_specific_params",
    "problem_type",
    "finetuning_task",
    "id2label",
    "label2id",
    "num_labels",
    "is_decoder",
    "cross_attention_hidden_size",
    "cache_implementation",
    "model_max_length",
    "_commit_hash",
    /* generation */
    "max_length",
    "max_new_tokens",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "num_return_sequences",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
    "remove_invalid_values",
    NULL,
};

/* Keys whose one computed value holds for every family. */
static const ks_key fixed_keys[] = {
    {"is_encoder_decoder", "false"}, {"add_cross_attention", "false"}, {"tie_encoder_decoder", "false"}, {"pruned_heads", "{}"},
    {"quantization_config", "null"}, {"partial_rotary_factor", "1"},   {"rope_interleaved", "false"},    {NULL, NULL},
};

static bool listed(const char *const *keys, const char *key)
{
    while (*keys && strcmp(*keys, key)) keys++;
    return *keys != NULL;
}

static const ks_key *find_key(const ks_key *keys, const char *key)
{
    while (keys->key && strcmp(keys->key, key)) keys++;
    return keys->key ? keys : NULL;
}

static int check_keys(const cJSON *root, const ks_family *f, const char *name)
{
    for (const cJSON *v = root->child; v; v = v->next) {
        for (const cJSON *w = v->next; w; w = w->next)
            if (!strcmp(v->string, w->string)) return ks_error(KS_EINPUT, "%s: \"%s\" is there twice", name, v->string);
        if (listed(read_keys, v->string) || listed(harmless_keys, v->string) || !strcmp(v->string, f->eps_key)) continue;
        const ks_key *k = find_key(f->keys, v->string);
        if (!k) k = find_key(fixed_keys, v->string);
        if (!k && cJSON_IsNull(v)) continue;
        if (!k)
            return ks_error(
                KS_EINPUT,
                "%s: \"%s\" is not supported for %s models: it may change what the model computes, so it is refused rather than ignored",
                name, v->string, f->model_type);
        if (!k->must || cJSON_IsNull(v)) continue;
        cJSON *must = cJSON_Parse(k->must);
        const bool same = cJSON_Compare(v, must, true);
        cJSON_Delete(must);
        if (same) continue;
        if (!strcmp(v->string, "quantization_config"))
            return ks_error(KS_EINPUT, "%s: \"quantization_config\": quantized weights are not supported; use the bf16, f16 or f32 model",
                            name);
        char *found = cJSON_PrintUnformatted(v);
        const int rc = ks_error(KS_EINPUT, "%s: \"%s\" is supported only as %s for %s models, found %.100s", name, v->string, k->must,
                                f->model_type, found ? found : "?");
        cJSON_free(found);
        return rc;
    }
    return KS_OK;
}

static int choose_family(const ks_family **out, ks_arch *a, const cJSON *root, const ks_json_ctx *c)
{
    static const char *const without_attention[] = {"rwkv",         "mamba", "falcon_mamba",    "xlstm", "hyena",
                                                    "stripedhyena", "lfm",   "recurrent_gemma", NULL};
    int rc = KS_OK;
    const char *type = NULL;
    KS_TRY(ks_json_string(c, root, "model_type", true, &type));
    const ks_family *f = ks_family_find(type);
    for (const char *const *w = without_attention; !f && *w; w++)
        KS_REQUIRE(strncmp(type, *w, strlen(*w)), KS_EINPUT,
                   "%s: model_type \"%s\" is not supported: its layers are not attention, so there are no attention edges to remove. "
                   "Supported: %s",
                   c->where, type, ks_family_list());
    KS_REQUIRE(f, KS_EINPUT, "%s: model_type \"%s\" is not supported; supported: %s", c->where, type, ks_family_list());

    const cJSON *names = cJSON_GetObjectItemCaseSensitive(root, "architectures");
    if (names && !cJSON_IsNull(names)) {
        KS_REQUIRE(cJSON_IsArray(names) && cJSON_GetArraySize(names) == 1 && cJSON_IsString(names->child), KS_EINPUT,
                   "%s: \"architectures\" must be a list of one name", c->where);
        KS_REQUIRE(!strcmp(names->child->valuestring, f->architecture), KS_EINPUT,
                   "%s: architecture \"%s\" is not supported; for model_type \"%s\" it must be \"%s\"", c->where, names->child->valuestring,
                   type, f->architecture);
    }
    snprintf(a->family, sizeof a->family, "%s", f->model_type);
    snprintf(a->architecture, sizeof a->architecture, "%s", f->architecture);
    *out = f;
done:
    return rc;
}

int ks_arch_warn(ks_arch *a, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    char *joined = ks_format("%s%s%s", a->warnings, a->warnings[0] ? "\n" : "", line);
    if (!joined) return KS_EMACHINE;
    free(a->warnings);
    a->warnings = joined;
    return KS_OK;
}

static int read_size(const ks_json_ctx *c, const cJSON *root, const char *key, bool required, int64_t max, int32_t *out)
{
    int64_t x = *out;
    const int rc = ks_json_int(c, root, key, required, 1, max, &x);
    *out = (int32_t)x;
    return rc;
}

/* Limits far above any model; below them every product of two sizes fits in int64 and of heads and head size in int32. */
static int read_sizes(ks_arch *a, const ks_family *f, const cJSON *root, const ks_json_ctx *c)
{
    int rc = KS_OK;
    KS_TRY(read_size(c, root, "num_hidden_layers", true, 1 << 14, &a->L));
    KS_TRY(read_size(c, root, "hidden_size", true, 1 << 20, &a->D));
    KS_TRY(read_size(c, root, "num_attention_heads", true, 1 << 14, &a->H));
    KS_TRY(read_size(c, root, "intermediate_size", true, 1 << 24, &a->F));
    KS_TRY(read_size(c, root, "vocab_size", true, 1 << 28, &a->V));
    KS_TRY(read_size(c, root, "max_position_embeddings", true, INT32_MAX, &a->max_positions));

    const cJSON *kv = cJSON_GetObjectItemCaseSensitive(root, "num_key_value_heads");
    a->G = f->kv_heads && !cJSON_IsNull(kv) ? f->kv_heads : a->H;
    KS_TRY(read_size(c, root, "num_key_value_heads", false, 1 << 14, &a->G));
    KS_REQUIRE(a->H % a->G == 0, KS_EINPUT, "%s: num_attention_heads %d is not a multiple of num_key_value_heads %d", c->where, a->H, a->G);

    const cJSON *head_dim = cJSON_GetObjectItemCaseSensitive(root, "head_dim");
    const bool given = head_dim && !cJSON_IsNull(head_dim);
    if (!given && !(f->head_dim && !head_dim))
        KS_REQUIRE(a->D % a->H == 0, KS_EINPUT, "%s: hidden_size %d is not a multiple of num_attention_heads %d, and there is no head_dim",
                   c->where, a->D, a->H);
    a->E = f->head_dim && !head_dim ? f->head_dim : a->D / a->H;
    KS_TRY(read_size(c, root, "head_dim", false, 1 << 14, &a->E));
    KS_REQUIRE(a->E % 2 == 0, KS_EINPUT, "%s: the head size %d is odd: rotary positions need pairs", c->where, a->E);
done:
    return rc;
}

static int read_activation(ks_arch *a, const ks_family *f, const cJSON *root, const ks_json_ctx *c)
{
    static const struct {
        const char *name;
        int act;
    } acts[] = {{"silu", KS_ACT_SILU},
                {"swish", KS_ACT_SILU},
                {"gelu_pytorch_tanh", KS_ACT_GELU_TANH},
                {"gelu_new", KS_ACT_GELU_TANH},
                {"gelu", KS_ACT_GELU_ERF}};
    int rc = KS_OK;
    const char *name = f->act, *other = NULL;
    size_t i = 0;
    KS_TRY(ks_json_string(c, root, "hidden_act", false, &name));
    KS_TRY(ks_json_string(c, root, "hidden_activation", false, &other));
    while (i < sizeof acts / sizeof *acts && strcmp(acts[i].name, name)) i++;
    KS_REQUIRE(i < sizeof acts / sizeof *acts, KS_EINPUT,
               "%s: hidden_act \"%s\" is not supported; supported: silu, gelu_pytorch_tanh, gelu", c->where, name);
    a->act = acts[i].act;
    if (other && strcmp(other, name))
        KS_TRY(ks_arch_warn(a, "hidden_activation is \"%s\", hidden_act \"%s\": transformers computes the latter, and so does kosweep",
                            other, name));
done:
    return rc;
}

static int read_bias(bool *out, ks_bias_rule rule, const cJSON *root, const ks_json_ctx *c)
{
    *out = rule.missing;
    return rule.key && rule.key[0] ? ks_json_bool(c, root, rule.key, false, out) : KS_OK;
}

static int read_windows(ks_arch *a, const ks_family *f, const cJSON *root, const ks_json_ctx *c)
{
    int rc = KS_OK;
    const cJSON *key = cJSON_GetObjectItemCaseSensitive(root, "sliding_window");
    int32_t window = cJSON_IsNull(key) ? 0 : f->window;
    int64_t first = 0;
    bool on = true;
    KS_NEW(a->window, a->L);
    if (f->sliding != KS_SLIDING_NEVER) KS_TRY(read_size(c, root, "sliding_window", false, INT32_MAX, &window));
    if (f->sliding == KS_SLIDING_SWITCHED) {
        on = false;
        first = 28;
        KS_TRY(ks_json_bool(c, root, "use_sliding_window", false, &on));
        KS_TRY(ks_json_int(c, root, "max_window_layers", false, 0, INT32_MAX, &first));
    }
    if (f->sliding == KS_SLIDING_NEVER || !on) window = 0;
    for (int32_t l = 0; l < a->L; l++) a->window[l] = l >= first ? window : 0;

    const cJSON *types = cJSON_GetObjectItemCaseSensitive(root, "layer_types");
    if (!types || cJSON_IsNull(types)) goto done;
    KS_REQUIRE(cJSON_IsArray(types) && cJSON_GetArraySize(types) == a->L, KS_EINPUT,
               "%s: \"layer_types\" must be a list of %d names, one a layer", c->where, a->L);
    int32_t l = 0;
    for (const cJSON *t = types->child; t; t = t->next, l++) {
        const char *type = cJSON_IsString(t) ? t->valuestring : ks_json_kind(t);
        const bool slides = !strcmp(type, "sliding_attention");
        KS_REQUIRE(slides || !strcmp(type, "full_attention"), KS_EINPUT,
                   "%s: layer_types[%d] \"%s\" is not supported; supported: full_attention, sliding_attention", c->where, l, type);
        KS_REQUIRE(!slides || window, KS_EINPUT, "%s: layer_types[%d] is \"%s\", but no sliding window is set", c->where, l, type);
        KS_REQUIRE(f->sliding == KS_SLIDING_SWITCHED || slides == (a->window[l] != 0), KS_EINPUT,
                   "%s: layer_types[%d] is \"%s\", but all layers of a %s model are alike (sliding_window %d)", c->where, l, type,
                   f->model_type, window);
        a->window[l] = slides ? window : 0;
    }
done:
    return rc;
}

static int read_factors(double **out, int32_t n, const char *key, const cJSON *scaling, const ks_json_ctx *c)
{
    int rc = KS_OK, i = 0;
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(scaling, key);
    KS_REQUIRE(cJSON_IsArray(list) && cJSON_GetArraySize(list) == n, KS_EINPUT,
               "%s: \"%s\" must be a list of %d numbers, half the rotated dimensions", c->where, key, n);
    KS_NEW(*out, n);
    for (const cJSON *v = list->child; v; v = v->next, i++) {
        KS_REQUIRE(cJSON_IsNumber(v) && isfinite(v->valuedouble) && v->valuedouble > 0, KS_EINPUT, "%s: %s[%d] must be a number above 0",
                   c->where, key, i);
        (*out)[i] = v->valuedouble;
    }
done:
    return rc;
}

static int read_longrope(ks_arch *a, const ks_family *f, const cJSON *root, const cJSON *scaling, const ks_json_ctx *c)
{
    static const char *const keys[] = {"type",        "rope_type",        "rope_theta",
                                       "long_factor", "short_factor",     "original_max_position_embeddings",
                                       "factor",      "attention_factor", NULL};
    int rc = KS_OK;
    ks_rope *r = &a->rope;
    KS_TRY(ks_json_known_keys(scaling, keys, KS_EINPUT, c->where));
    /* The length at the top level wins: Hugging Face reads no other. */
    r->original = f->original;
    KS_TRY(read_size(c, scaling, "original_max_position_embeddings", false, INT32_MAX, &r->original));
    KS_TRY(read_size(c, root, "original_max_position_embeddings", false, INT32_MAX, &r->original));
    KS_REQUIRE(r->original > 1, KS_EINPUT, "%s: longrope needs original_max_position_embeddings above 1", c->where);
    KS_TRY(read_factors(&r->long_factor, r->dim / 2, "long_factor", scaling, c));
    KS_TRY(read_factors(&r->short_factor, r->dim / 2, "short_factor", scaling, c));
    const double factor = (double)a->max_positions / r->original;
    if (factor > 1) r->attn_factor = sqrt(1 + log(factor) / log(r->original));
    KS_TRY(ks_json_number(c, scaling, "attention_factor", false, &r->attn_factor));
done:
    return rc;
}

static int read_llama3(ks_arch *a, const cJSON *scaling, const ks_json_ctx *c)
{
    static const char *const keys[] = {
        "type", "rope_type", "rope_theta", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", NULL};
    int rc = KS_OK;
    ks_rope *r = &a->rope;
    KS_TRY(ks_json_known_keys(scaling, keys, KS_EINPUT, c->where));
    KS_TRY(ks_json_number(c, scaling, "factor", true, &r->factor));
    KS_TRY(ks_json_number(c, scaling, "low_freq_factor", true, &r->low));
    KS_TRY(ks_json_number(c, scaling, "high_freq_factor", true, &r->high));
    KS_TRY(read_size(c, scaling, "original_max_position_embeddings", true, INT32_MAX, &r->original));
    KS_REQUIRE(r->factor > 0 && r->low > 0 && r->high > r->low, KS_EINPUT,
               "%s: llama3 needs factor > 0 and 0 < low_freq_factor < high_freq_factor, found %g, %g, %g", c->where, r->factor, r->low,
               r->high);
done:
    return rc;
}

/* rope_scaling (or rope_parameters, as transformers 5 writes it, theta inside). */
static int read_rope(ks_arch *a, const ks_family *f, const cJSON *root, const ks_json_ctx *c)
{
    int rc = KS_OK;
    char where[400];
    ks_rope *r = &a->rope;
    r->kind = KS_ROPE_PLAIN;
    r->theta = 10000;
    r->attn_factor = 1;
    double part = 1;
    if (f->partial_rotary) KS_TRY(ks_json_number(c, root, "partial_rotary_factor", false, &part));
    KS_REQUIRE(part > 0 && part <= 1, KS_EINPUT, "%s: partial_rotary_factor must be above 0 and at most 1, found %g", c->where, part);
    r->dim = (int32_t)(a->E * part);
    KS_REQUIRE(r->dim > 0 && r->dim % 2 == 0, KS_EINPUT, "%s: %d of %d dimensions rotate: an even number is needed", c->where, r->dim,
               a->E);
    KS_TRY(ks_json_number(c, root, "rope_theta", false, &r->theta));

    const cJSON *old = cJSON_GetObjectItemCaseSensitive(root, "rope_scaling"),
                *new = cJSON_GetObjectItemCaseSensitive(root, "rope_parameters");
    if (cJSON_IsNull(old)) old = NULL;
    if (cJSON_IsNull(new)) new = NULL;
    KS_REQUIRE(!old || !new, KS_EINPUT, "%s: both rope_scaling and rope_parameters are there", c->where);
    const cJSON *scaling = old ? old : new;
    snprintf(where, sizeof where, "%s: %s", c->where, old ? "rope_scaling" : "rope_parameters");
    const ks_json_ctx in = {c->code, where};
    if (scaling) {
        static const char *const plain_keys[] = {"type", "rope_type", "rope_theta", NULL};
        const char *type = NULL;
        KS_REQUIRE(cJSON_IsObject(scaling), KS_EINPUT, "%s must be an object, found %s", where, ks_json_kind(scaling));
        KS_TRY(ks_json_string(&in, scaling, "type", false, &type));
        KS_TRY(ks_json_string(&in, scaling, "rope_type", false, &type));
        KS_REQUIRE(type, KS_EINPUT, "%s: \"rope_type\" is missing", where);
        KS_TRY(ks_json_number(&in, scaling, "rope_theta", false, &r->theta));
        /* phi3 called its longrope su and yarn at first. */
        if (!strcmp(f->model_type, "phi3") && (!strcmp(type, "su") || !strcmp(type, "yarn"))) type = "longrope";
        if (!strcmp(type, "llama3")) r->kind = KS_ROPE_LLAMA3;
        else if (!strcmp(type, "longrope")) r->kind = KS_ROPE_LONGROPE;
        else
            KS_REQUIRE(!strcmp(type, "default"), KS_EINPUT, "%s: rope type \"%s\" is not supported; supported: default, llama3, longrope",
                       where, type);
        if (r->kind == KS_ROPE_LLAMA3) KS_TRY(read_llama3(a, scaling, &in));
        else if (r->kind == KS_ROPE_LONGROPE) KS_TRY(read_longrope(a, f, root, scaling, &in));
        else KS_TRY(ks_json_known_keys(scaling, plain_keys, KS_EINPUT, where));
    }
    KS_REQUIRE(r->theta > 0 && r->theta < 1e30, KS_EINPUT, "%s: rope_theta must be above 0, found %g", c->where, r->theta);
done:
    return rc;
}

static int read_dtype(ks_arch *a, const cJSON *root, const ks_json_ctx *c)
{
    static const char *const names[] = {[KS_BF16] = "bfloat16", [KS_F16] = "float16", [KS_F32] = "float32"};
    int rc = KS_OK;
    const char *name = NULL;
    KS_TRY(ks_json_string(c, root, "torch_dtype", false, &name));
    KS_TRY(ks_json_string(c, root, "dtype", false, &name));
    for (int d = KS_BF16; name && d <= KS_F32; d++)
        if (!strcmp(name, names[d])) {
            a->dtype = (ks_dtype)d;
            a->has_dtype = true;
        }
done:
    return rc;
}

int ks_arch_parse(ks_arch **out, const char *text, size_t bytes, const char *name)
{
    int rc = KS_OK;
    ks_arch *a = NULL;
    cJSON *root = NULL;
    const ks_family *f = NULL;
    const ks_json_ctx c = {KS_EINPUT, name};
    KS_NEW(a, 1);
    KS_GET(a->warnings, ks_strdup(""));
    KS_TRY(ks_json_parse(&root, text, bytes, name));
    KS_REQUIRE(cJSON_IsObject(root), KS_EINPUT, "%s: a model's configuration is an object, this is %s", name, ks_json_kind(root));
    KS_TRY(choose_family(&f, a, root, &c));
    KS_TRY(check_keys(root, f, name));
    KS_TRY(read_sizes(a, f, root, &c));

    double eps = f->eps;
    KS_TRY(ks_json_number(&c, root, f->eps_key, false, &eps));
    KS_REQUIRE(eps > 0 && eps < 1, KS_EINPUT, "%s: \"%s\" must be above 0 and below 1, found %g", name, f->eps_key, eps);
    a->norm = f->norm;
    a->norm_one_plus = f->norm_one_plus;
    a->norm_eps = (float)eps;
    a->gated = f->gated;
    a->embed_scale = f->embed_sqrt_d ? (float)sqrt(a->D) : 1;
    a->attn_scale = (float)(1 / sqrt(a->E));
    a->tied = f->tied;
    KS_TRY(ks_json_bool(&c, root, "tie_word_embeddings", false, &a->tied));
    KS_TRY(read_bias(&a->qkv_bias, f->qkv_bias, root, &c));
    KS_TRY(read_bias(&a->o_bias, f->o_bias, root, &c));
    KS_TRY(read_bias(&a->mlp_bias, f->mlp_bias, root, &c));
    KS_TRY(read_activation(a, f, root, &c));
    KS_TRY(read_windows(a, f, root, &c));
    KS_TRY(read_rope(a, f, root, &c));
    KS_TRY(read_dtype(a, root, &c));
done:
    cJSON_Delete(root);
    if (rc) ks_arch_free(a);
    else *out = a;
    return rc;
}

int ks_arch_read(ks_arch **out, const char *dir)
{
    int rc = KS_OK;
    char *path = NULL, *text = NULL;
    size_t bytes = 0;
    KS_GET(path, ks_format("%s/config.json", dir));
    KS_TRY(ks_file_read(&text, &bytes, path));
    KS_TRY(ks_arch_parse(out, text, bytes, path));
done:
    free(path);
    free(text);
    return rc;
}

void ks_arch_free(ks_arch *a)
{
    if (!a) return;
    free(a->window);
    free(a->rope.long_factor);
    free(a->rope.short_factor);
    free(a->warnings);
    free(a);
}

const char *ks_act_name(int act)
{
    return act == KS_ACT_SILU ? "silu" : act == KS_ACT_GELU_TANH ? "gelu_tanh" : "gelu_erf";
}

const char *ks_norm_name(int norm)
{
    return norm == KS_NORM_RMS ? "rms" : "layer";
}

const char *ks_rope_name(int kind)
{
    return kind == KS_ROPE_PLAIN ? "plain" : kind == KS_ROPE_LLAMA3 ? "llama3" : "longrope";
}
