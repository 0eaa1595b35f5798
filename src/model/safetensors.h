/* safetensors.h - weight files: opened, mapped and checked, one file or a sharded directory.
 *
 *   file = 8 bytes little-endian n | n bytes of JSON {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ...} | data
 *
 * Everything is checked before anything is used: header length, JSON, types, shape x size = range, ranges inside the file and
 * disjoint, names unique; in a directory with an index, weight_map against the shards in both directions. */
#ifndef KS_MODEL_SAFETENSORS_H
#define KS_MODEL_SAFETENSORS_H

#include "base/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KS_ST_DIMS = 8 };

typedef struct ks_st_tensor {
    char *name;
    const char *dtype_name; /* as in the file: "BF16", "I64", ... */
    bool has_dtype;         /* dtype is one that kosweep computes with */
    ks_dtype dtype;
    int n_dims;
    int64_t shape[KS_ST_DIMS];
    int file;       /* index for ks_st_file */
    int64_t offset; /* of the data in that file, in bytes */
    int64_t bytes;
    const void *data; /* mapped, any alignment */
} ks_st_tensor;

typedef struct ks_st_file {
    char *path;
    int fd;
    int64_t bytes;
    const unsigned char *map; /* [bytes], read-only */
} ks_st_file;

typedef struct ks_st ks_st; /* immutable; may be read by many threads */

/* path: a .safetensors file, or a directory with model.safetensors or model.safetensors.index.json. KS_EINPUT names file and tensor. */
int ks_st_open(ks_st **out, const char *path);
/* Whether a directory has weight files, or their index. */
int ks_st_is_there(bool *out, const char *dir);
void ks_st_close(ks_st *st); /* NULL is fine */

/* Tensors in order of names. */
size_t ks_st_count(const ks_st *st);
const ks_st_tensor *ks_st_at(const ks_st *st, size_t i);
/* NULL if there is none of that name. */
const ks_st_tensor *ks_st_find(const ks_st *st, const char *name);

/* Files in order of names. */
int ks_st_files(const ks_st *st);
const ks_st_file *ks_st_file_at(const ks_st *st, int i);

/* KS_EMACHINE where the file behind `file` has become shorter than it was when it was opened: reading its map would kill the process. */
int ks_st_check_file(const ks_st_file *file);

#endif
