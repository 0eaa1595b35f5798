#define _GNU_SOURCE
#include "support/scratch.h"

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void need(bool ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "scratch: %s: %s\n", what, strerror(errno));
    abort();
}

void scratch_make(char dir[SCRATCH_PATH])
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, SCRATCH_PATH, "%s/kosweep-XXXXXX", tmp ? tmp : "/tmp");
    need(mkdtemp(dir) != NULL, dir);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st, (void)type, (void)where;
    return remove(path);
}

void scratch_remove(const char *dir)
{
    need(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0, dir);
}

const char *scratch_path(const char *dir, const char *name)
{
    static _Thread_local char path[2 * SCRATCH_PATH];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static FILE *create(const char *dir, const char *name)
{
    char path[2 * SCRATCH_PATH];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    for (char *p = path + strlen(dir) + 1; (p = strchr(p, '/')); *p++ = '/') {
        *p = 0;
        need(mkdir(path, 0700) == 0 || errno == EEXIST, path);
    }
    FILE *f = fopen(path, "wb");
    need(f != NULL, path);
    return f;
}

void scratch_write(const char *dir, const char *name, const void *data, size_t bytes)
{
    FILE *f = create(dir, name);
    need(fwrite(data, 1, bytes, f) == bytes && fclose(f) == 0, name);
}

void scratch_text(const char *dir, const char *name, const char *text)
{
    scratch_write(dir, name, text, strlen(text));
}

void scratch_copy(const char *dir, const char *name, const char *from)
{
    FILE *in = fopen(from, "rb"), *out = create(dir, name);
    need(in != NULL, from);
    char buffer[1 << 14];
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, in));) need(fwrite(buffer, 1, n, out) == n, name);
    need(fclose(out) == 0 && fclose(in) == 0, name);
}

void scratch_safetensors(const char *dir, const char *name, const ks_st_tensor *t, size_t n)
{
    char *header = NULL;
    size_t bytes = 0;
    FILE *text = open_memstream(&header, &bytes);
    need(text != NULL, name);
    int64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        fprintf(text, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "{", t[i].name, t[i].dtype_name);
        for (int d = 0; d < t[i].n_dims; d++) fprintf(text, "%s%" PRId64, d ? "," : "", t[i].shape[d]);
        fprintf(text, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", at, at + t[i].bytes);
        at += t[i].bytes;
    }
    fprintf(text, "%s", n ? "}" : "{}");
    need(fclose(text) == 0, name);

    FILE *f = create(dir, name);
    for (int k = 0; k < 8; k++) fputc((int)(bytes >> 8 * k & 0xff), f);
    fwrite(header, 1, bytes, f);
    for (size_t i = 0; i < n; i++) need(fwrite(t[i].data, 1, (size_t)t[i].bytes, f) == (size_t)t[i].bytes, name);
    need(fclose(f) == 0, name);
    free(header);
}

void scratch_llama(const char *dir, const char *name, int L, int D, int F, int V)
{
    enum { EACH = 9 };
    const struct {
        const char *name;
        int64_t rows, cols;
    } layer[EACH] = {{"self_attn.q_proj", D, D}, {"self_attn.k_proj", D, D}, {"self_attn.v_proj", D, D},
                     {"self_attn.o_proj", D, D}, {"mlp.gate_proj", F, D},    {"mlp.up_proj", F, D},
                     {"mlp.down_proj", D, F},    {"input_layernorm", D, 0},  {"post_attention_layernorm", D, 0}};
    const size_t n = 2 + EACH * (size_t)L, longest = 2 * (size_t)D * (size_t)(V > F ? V : F);
    ks_st_tensor *t = calloc(n, sizeof *t);
    char(*names)[96] = calloc(n, sizeof *names), *data = malloc(longest + 2 * n), text[1024];
    need(t && names && data, name);
    uint32_t x = 1;
    for (size_t i = 0; i < longest + 2 * n; i++) {
        x = x * 1664525u + 1013904223u;
        data[i] = (char)(x >> 24 & 0x3f); /* small, and never an infinity */
    }
    for (size_t i = 0; i < n; i++) {
        const size_t l = i < 2 ? 0 : (i - 2) / EACH, k = i < 2 ? 0 : (i - 2) % EACH;
        if (i < 2) snprintf(names[i], sizeof names[i], "%s", i ? "model.norm.weight" : "model.embed_tokens.weight");
        else snprintf(names[i], sizeof names[i], "model.layers.%zu.%s.weight", l, layer[k].name);
        const int64_t rows = i == 0 ? V : i == 1 ? D : layer[k].rows, cols = i == 0 ? D : i == 1 ? 0 : layer[k].cols;
        t[i] = (ks_st_tensor){.name = names[i],
                              .dtype_name = "BF16",
                              .n_dims = cols ? 2 : 1,
                              .shape = {rows, cols},
                              .bytes = 2 * rows * (cols ? cols : 1),
                              .data = data + 2 * i};
    }
    snprintf(text, sizeof text,
             "{\"model_type\":\"llama\",\"num_hidden_layers\":%d,\"hidden_size\":%d,\"num_attention_heads\":4,\"intermediate_size\":%d,"
             "\"vocab_size\":%d,\"max_position_embeddings\":64,\"tie_word_embeddings\":true}",
             L, D, F, V);
    char file[SCRATCH_PATH];
    snprintf(file, sizeof file, "%s/config.json", name);
    scratch_text(dir, file, text);
    snprintf(file, sizeof file, "%s/model.safetensors", name);
    scratch_safetensors(dir, file, t, n);
    free(t);
    free(names);
    free(data);
}

cJSON *scratch_json(const char *text)
{
    cJSON *o = cJSON_Parse(text);
    need(cJSON_IsObject(o), "a JSON object is expected");
    return o;
}

void scratch_set(cJSON *object, const char *key, const char *value)
{
    cJSON_DeleteItemFromObjectCaseSensitive(object, key);
    if (!value) return;
    cJSON *v = cJSON_Parse(value);
    need(v != NULL, value);
    cJSON_AddItemToObject(object, key, v);
}
