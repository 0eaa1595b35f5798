/* scratch.h - files that tests make at run time: temporary directories, small weight files, edited configurations. */
#ifndef KS_TESTS_SCRATCH_H
#define KS_TESTS_SCRATCH_H

#include "model/safetensors.h"

#include <cjson/cJSON.h>
#include <stddef.h>

enum { SCRATCH_PATH = 512 };

/* A new empty directory; ends the program where none can be made. */
void scratch_make(char dir[SCRATCH_PATH]);
/* Removes it and everything in it. */
void scratch_remove(const char *dir);

/* dir/name in a static buffer of the thread, until the next call. */
const char *scratch_path(const char *dir, const char *name);

/* Writes dir/name; directories on the way are made. */
void scratch_write(const char *dir, const char *name, const void *data, size_t bytes);
void scratch_text(const char *dir, const char *name, const char *text);
void scratch_copy(const char *dir, const char *name, const char *from);

/* Writes dir/name with these tensors (name, dtype_name, shape, data, bytes), one after the other. */
void scratch_safetensors(const char *dir, const char *name, const ks_st_tensor *t, size_t n);

/* Writes dir/name/ with a llama model of L layers, 4 heads, a tied head [V, D], every tensor with numbers of its own (bf16, finite). */
void scratch_llama(const char *dir, const char *name, int L, int D, int F, int V);

/* The object of a JSON text, to be edited. Free with cJSON_Delete. */
cJSON *scratch_json(const char *text);
/* Sets key to the value of this JSON text; NULL removes it. */
void scratch_set(cJSON *object, const char *key, const char *value);

#endif
