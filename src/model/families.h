/* families.h - model families as data: what config.json and the weight files of each look like. Private to src/model.
 *
 * A new family is a ks_family and, where its tensors are named differently, a list of names: see docs/families.md. */
#ifndef KS_MODEL_FAMILIES_H
#define KS_MODEL_FAMILIES_H

#include "model/model.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Sizes that shapes are made of; NONE as the columns of a vector. */
enum { KS_DIM_NONE, KS_DIM_V, KS_DIM_D, KS_DIM_F, KS_DIM_QUERY /* H*E */, KS_DIM_KEY /* G*E */ };

/* When a tensor is there. */
enum { KS_WHEN_ALWAYS, KS_WHEN_UNTIED, KS_WHEN_QKV_BIAS, KS_WHEN_O_BIAS, KS_WHEN_MLP_BIAS };

/* What a tensor is for. A fused tensor has several parts, one under the other. */
typedef struct ks_role {
    int when;
    bool per_layer; /* its fields are in ks_layer, else in ks_globals (model.c) */
    bool norm;      /* a norm's weight: 1 is added where the architecture says so */
    int cols;
    struct {
        int rows;     /* KS_DIM_NONE ends the list */
        size_t field; /* offset of a ks_tensor (matrix) or a const float * (vector) */
    } part[3];
} ks_role;

typedef struct ks_name {
    const char *pattern; /* %d stands for the layer */
    const ks_role *role;
} ks_name;

/* A key of config.json that this family may have, beside those that arch.c reads for all. */
typedef struct ks_key {
    const char *key;
    const char *must; /* JSON: the only value that is computed; null is accepted too. NULL: the key is read, or does not matter */
} ks_key;

enum { KS_SLIDING_NEVER, KS_SLIDING_ALL, KS_SLIDING_SWITCHED /* use_sliding_window, max_window_layers, layer_types */ };

/* A bias is there: never (NULL), always (""), or where this key of config.json says so. */
typedef struct ks_bias_rule {
    const char *key;
    bool missing; /* what a missing key means */
} ks_bias_rule;

typedef struct ks_family {
    const char *model_type, *architecture;
    const ks_name *names; /* ends with pattern NULL */
    const ks_key *keys;   /* ends with key NULL */
    int norm;
    bool norm_one_plus, gated, embed_sqrt_d;
    ks_bias_rule qkv_bias, o_bias, mlp_bias;
    /* What missing keys mean. */
    bool tied;
    const char *eps_key;
    double eps;
    const char *act;
    int32_t kv_heads, head_dim; /* head_dim 0: D / H */
    int sliding;
    int32_t window;   /* 0: none */
    int32_t original; /* original_max_position_embeddings; 0: none */
    bool partial_rotary;
} ks_family;

extern const ks_family ks_families[]; /* ends with model_type NULL */

/* The family of a model_type; NULL if there is none. */
const ks_family *ks_family_find(const char *model_type);

/* "gemma, llama, ..." */
const char *ks_family_list(void);

/* What a model has once, for the offsets in the tables. */
typedef struct ks_globals {
    ks_tensor embedding, head;                 /* [V, D]; head only where it is not tied */
    const float *final_norm, *final_norm_bias; /* [D] */
} ks_globals;

/* Appends a line to a->warnings. */
int ks_arch_warn(ks_arch *a, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
