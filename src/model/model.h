/* model.h - an opened model: its architecture and its weights by role. Immutable; may be read by many threads.
 *
 * Letters: L layers, D hidden, H query heads, G key/value heads, E head dim, F feed-forward, V vocabulary. */
#ifndef KS_MODEL_MODEL_H
#define KS_MODEL_MODEL_H

#include "base/dtype.h"
#include "model/arch.h"
#include "model/safetensors.h"

typedef struct ks_tensor {
    const void *data; /* NULL: absent. Any alignment */
    ks_dtype dtype;
    int64_t rows, cols, ld; /* [rows, cols] row-major, ld elements from row to row */
} ks_tensor;

typedef struct ks_layer {
    /* Matrices; y = W x. Fused tensors of a file appear as views. gate is absent where the MLP is not gated. */
    ks_tensor q, k, v, o, gate, up, down; /* q [H*E, D], k v [G*E, D], o [D, H*E], gate up [F, D], down [D, F] */
    /* Vectors, fp32, owned by the model. A bias is NULL where the model has none. 1 + w is already applied. */
    const float *norm1, *norm1_bias, *norm2, *norm2_bias; /* [D] before attention, before the MLP */
    const float *q_bias, *k_bias, *v_bias, *o_bias;       /* [H*E] [G*E] [G*E] [D] */
    const float *gate_bias, *up_bias, *down_bias;         /* [F] [F] [D] */
} ks_layer;

typedef struct ks_model ks_model;

/* Opens and checks a model directory: every tensor of the family there, of the right shape and type, and no other. KS_EINPUT names file and
 * tensor. */
int ks_model_open(ks_model **out, const char *dir);
/* The same for a plan: where the directory has no weight files, shapes and the type of all weights are those of config.json, and nothing
 * but their sizes may be asked for. KS_EINPUT where config.json does not say the type. */
int ks_model_open_shapes(ks_model **out, const char *dir);
/* Whether it has weights. */
bool ks_model_has_weights(const ks_model *m);
void ks_model_close(ks_model *m); /* NULL is fine */

/* Gives the mapped pages that were touched back to the system, so that a streamed model holds only its buffers. What is touched again comes
 * back from the file: nothing that was read becomes invalid. */
void ks_model_drop_pages(const ks_model *m);

const ks_arch *ks_model_arch(const ks_model *m);
const char *ks_model_dir(const ks_model *m);
const ks_st *ks_model_files(const ks_model *m);

const float *ks_model_final_norm(const ks_model *m);      /* [D] */
const float *ks_model_final_norm_bias(const ks_model *m); /* [D] or NULL */
ks_tensor ks_model_embedding(const ks_model *m);          /* [V, D], mapped */
ks_tensor ks_model_head(const ks_model *m);               /* [V, D], mapped; the embedding where tied */

/* Layer l with its matrices as they lie in the mapped files. The engine asks a weights provider (weights.h) instead. */
const ks_layer *ks_model_layer(const ks_model *m, int32_t l);

/* Bytes of the weight files; without them, of what they would hold. */
int64_t ks_model_bytes(const ks_model *m);

/* Number of parameters; a tied head counts once. */
int64_t ks_model_parameters(const ks_model *m);

/* SHA-256 in hexadecimal over the bytes of the weight files in order of their names. Reads everything. */
int ks_model_weights_sha256(const ks_model *m, char out[65]);

/* The same of config.json. */
int ks_model_config_sha256(const ks_model *m, char out[65]);

/* Looks at every weight. *tensor_name: the first tensor that holds an infinity or NaN (caller frees), NULL if all are finite. */
int ks_model_find_nonfinite(const ks_model *m, char **tensor_name);

#endif
