/* arch.h - what a model computes, read from config.json. Families differ by the values of these fields, not by code.
 *
 * Letters: L layers, D hidden, H query heads, G key/value heads, E head dim, F feed-forward, V vocabulary. */
#ifndef KS_MODEL_ARCH_H
#define KS_MODEL_ARCH_H

#include "base/dtype.h"

#include <stdbool.h>
#include <stdint.h>

enum { KS_NORM_RMS, KS_NORM_LAYER };
enum { KS_ACT_SILU, KS_ACT_GELU_TANH, KS_ACT_GELU_ERF };
enum { KS_ROPE_PLAIN, KS_ROPE_LLAMA3, KS_ROPE_LONGROPE };

typedef struct ks_rope {
    int kind;
    double theta;
    int32_t dim;                        /* rotated dimensions of a head, even; the others pass unchanged */
    double factor, low, high;           /* llama3 */
    int32_t original;                   /* llama3, longrope: positions the model was first trained on */
    double attn_factor;                 /* cos and sin are multiplied by it; 1 but for longrope */
    double *long_factor, *short_factor; /* [dim/2], longrope; long iff T > original */
} ks_rope;

typedef struct ks_arch {
    char family[32];       /* model_type: "qwen2" ... */
    char architecture[64]; /* "Qwen2ForCausalLM" ... */
    int32_t L, D, H, G, E, F, V;
    int norm;
    bool norm_one_plus; /* the norm multiplies by 1 + w */
    float norm_eps;
    int act;
    bool gated;        /* act(gate) * up, or act(up) alone */
    float embed_scale; /* 1, or sqrt(D) */
    float attn_scale;  /* E^-0.5 */
    bool tied;         /* the head is the embedding matrix */
    bool qkv_bias, o_bias, mlp_bias;
    int32_t *window; /* [L] sliding window W, 0 = none: key k is visible to query q iff q-W < k <= q */
    ks_rope rope;
    int32_t max_positions;
    ks_dtype dtype; /* of the weights (of most of their bytes); before they are opened, what config.json says */
    bool has_dtype; /* config.json says one */
    char *warnings; /* one a line, "" for none: what is odd but computed as Hugging Face transformers does */
} ks_arch;

/* Reads DIR/config.json. Whatever in it is not implemented is refused by name (KS_EINPUT): nothing is ignored that could change the
 * mathematics. */
int ks_arch_read(ks_arch **out, const char *dir);
/* The same from text; `name` begins every message. */
int ks_arch_parse(ks_arch **out, const char *text, size_t bytes, const char *name);
void ks_arch_free(ks_arch *a); /* NULL is fine */

/* "silu", "gelu_tanh", "gelu_erf"; "rms", "layer"; "plain", "llama3", "longrope". */
const char *ks_act_name(int act);
const char *ks_norm_name(int norm);
const char *ks_rope_name(int kind);

#endif
