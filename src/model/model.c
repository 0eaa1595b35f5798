#define _GNU_SOURCE
#include "model/model.h"

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "model/families.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct ks_model {
    char *dir;
    ks_arch *arch;
    ks_st *st;
    bool *bound; /* [ks_st_count] tensors that have a role */
    ks_globals globals;
    ks_layer *layers; /* [L] */
    float **vectors;  /* [n_vectors] owned */
    size_t n_vectors, room;
    int64_t parameters;
    int64_t bytes_of[3]; /* by ks_dtype */
};

static int64_t size_of(const ks_arch *a, int dim)
{
    switch (dim) {
    case KS_DIM_V:
        return a->V;
    case KS_DIM_D:
        return a->D;
    case KS_DIM_F:
        return a->F;
    case KS_DIM_QUERY:
        return (int64_t)a->H * a->E;
    case KS_DIM_KEY:
        return (int64_t)a->G * a->E;
    default:
        return 1;
    }
}

static bool wanted(const ks_arch *a, int when)
{
    switch (when) {
    case KS_WHEN_UNTIED:
        return !a->tied;
    case KS_WHEN_QKV_BIAS:
        return a->qkv_bias;
    case KS_WHEN_O_BIAS:
        return a->o_bias;
    case KS_WHEN_MLP_BIAS:
        return a->mlp_bias;
    default:
        return true;
    }
}

/* A widened copy of a vector, 1 added where `plus`. */
static int widen(ks_model *m, float **out, const ks_st_tensor *t, bool plus)
{
    int rc = KS_OK;
    const size_t n = (size_t)t->shape[0];
    if (m->n_vectors == m->room) {
        const size_t room = m->room ? 2 * m->room : 64;
        float **grown;
        KS_GET(grown, ks_realloc(m->vectors, room, sizeof *grown));
        m->vectors = grown;
        m->room = room;
    }
    float *x;
    KS_NEW(x, n);
    m->vectors[m->n_vectors++] = x;
    for (size_t i = 0; i < n; i++) x[i] = ks_f32_at(t->data, t->dtype, i) + (plus ? 1.0f : 0.0f);
    *out = x;
done:
    return rc;
}

/* A matrix of config.json's shape, for plans without weights; nothing reads what it points to. */
static void shape_tensor(ks_model *m, const ks_role *role, void *target)
{
    static const char nothing[1];
    const int64_t cols = role->cols == KS_DIM_NONE ? 1 : size_of(m->arch, role->cols);
    for (int p = 0; p < 3 && role->part[p].rows; p++) {
        const int64_t n = size_of(m->arch, role->part[p].rows);
        m->parameters += n * cols;
        m->bytes_of[m->arch->dtype] += n * cols * (int64_t)ks_dtype_size(m->arch->dtype);
        if (role->cols != KS_DIM_NONE)
            *(ks_tensor *)((char *)target + role->part[p].field) = (ks_tensor){nothing, m->arch->dtype, n, cols, cols};
    }
}

/* Finds one tensor, checks type and shape, and sets the fields of its role in `target` (a ks_layer or the ks_globals). */
static int bind_tensor(ks_model *m, const char *name, const ks_role *role, void *target)
{
    int rc = KS_OK;
    const ks_arch *a = m->arch;
    const bool matrix = role->cols != KS_DIM_NONE;
    const int64_t cols = size_of(a, role->cols);
    int64_t rows = 0;
    for (int p = 0; p < 3 && role->part[p].rows; p++) rows += size_of(a, role->part[p].rows);
    char expected[64];
    if (matrix) snprintf(expected, sizeof expected, "[%" PRId64 ", %" PRId64 "]", rows, cols);
    else snprintf(expected, sizeof expected, "[%" PRId64 "]", rows);

    const ks_st_tensor *t = ks_st_find(m->st, name);
    KS_REQUIRE(t, KS_EINPUT, "%s: tensor \"%s\" %s is missing", m->dir, name, expected);
    const char *path = ks_st_file_at(m->st, t->file)->path;
    KS_REQUIRE(t->has_dtype, KS_EINPUT, "%s: tensor \"%s\" has dtype %s; supported: BF16, F16, F32", path, name, t->dtype_name);
    if (t->n_dims != (matrix ? 2 : 1) || t->shape[0] != rows || (matrix && t->shape[1] != cols)) {
        char found[128] = "[";
        for (int d = 0; d < t->n_dims; d++) {
            const size_t used = strlen(found);
            snprintf(found + used, sizeof found - used, "%s%" PRId64, d ? ", " : "", t->shape[d]);
        }
        rc = ks_error(KS_EINPUT, "%s: tensor \"%s\" should have the shape %s by config.json, found %s]", path, name, expected, found);
        goto done;
    }
    m->bound[t - ks_st_at(m->st, 0)] = true;
    m->parameters += rows * cols;
    m->bytes_of[t->dtype] += t->bytes;

    float *vector = NULL;
    if (!matrix) KS_TRY(widen(m, &vector, t, role->norm && a->norm_one_plus));
    int64_t row = 0;
    for (int p = 0; p < 3 && role->part[p].rows; p++) {
        const int64_t n = size_of(a, role->part[p].rows);
        void *field = (char *)target + role->part[p].field;
        if (matrix)
            *(ks_tensor *)field =
                (ks_tensor){(const char *)t->data + (size_t)(row * cols) * ks_dtype_size(t->dtype), t->dtype, n, cols, cols};
        else *(const float **)field = vector + row;
        row += n;
    }
done:
    return rc;
}

/* A tied head that is stored too is not used, as in transformers. Where it is not the embedding somebody trained it: the first megabyte
 * tells. */
static int check_second_head(ks_model *m)
{
    const ks_st_tensor *head = m->arch->tied ? ks_st_find(m->st, "lm_head.weight") : NULL;
    const ks_tensor *e = &m->globals.embedding;
    if (!head) return KS_OK;
    const size_t bytes = head->bytes < 1 << 20 ? (size_t)head->bytes : (size_t)1 << 20;
    if (head->has_dtype && head->dtype == e->dtype && !memcmp(head->data, e->data, bytes)) return KS_OK;
    return ks_arch_warn(m->arch,
                        "lm_head.weight differs from the embedding, but the head is tied: it is not used (nor is it by transformers)");
}

/* Tensors without a role that are known to be harmless: tables that old checkpoints stored, and the second copy of a tied head. */
static bool may_be_ignored(const ks_model *m, const ks_st_tensor *t)
{
    static const char table[] = ".rotary_emb.inv_freq";
    const size_t n = strlen(t->name), k = sizeof table - 1;
    if (n > k && !strcmp(t->name + n - k, table)) return true;
    return m->arch->tied && !strcmp(t->name, "lm_head.weight") && t->n_dims == 2 && t->shape[0] == m->arch->V && t->shape[1] == m->arch->D;
}

static int bind_all(ks_model *m, const ks_family *f)
{
    int rc = KS_OK;
    const ks_arch *a = m->arch;
    char name[256];
    KS_REQUIRE(!m->st || ks_st_count(m->st), KS_EINPUT, "%s: the weight files hold no tensor", m->dir);
    if (m->st) KS_NEW(m->bound, ks_st_count(m->st));
    KS_NEW(m->layers, a->L);
    for (const ks_name *n = f->names; n->pattern; n++) {
        if (!wanted(a, n->role->when)) continue;
        const char *hole = strstr(n->pattern, "%d");
        for (int32_t l = 0; l < (n->role->per_layer ? a->L : 1); l++) {
            if (hole) snprintf(name, sizeof name, "%.*s%d%s", (int)(hole - n->pattern), n->pattern, l, hole + 2);
            else snprintf(name, sizeof name, "%s", n->pattern);
            void *target = n->role->per_layer ? (void *)&m->layers[l] : (void *)&m->globals;
            if (m->st) KS_TRY(bind_tensor(m, name, n->role, target));
            else shape_tensor(m, n->role, target);
        }
    }
    for (size_t i = 0; m->st && i < ks_st_count(m->st); i++) {
        const ks_st_tensor *t = ks_st_at(m->st, i);
        KS_REQUIRE(m->bound[i] || may_be_ignored(m, t), KS_EINPUT,
                   "%s: tensor \"%s\" has no place in a %s model of this configuration (%d layers): it is refused rather than ignored",
                   ks_st_file_at(m->st, t->file)->path, t->name, a->family, a->L);
    }
done:
    return rc;
}

static int check_dtype(ks_model *m)
{
    int rc = KS_OK;
    ks_arch *a = m->arch;
    ks_dtype most = KS_BF16;
    for (int d = KS_BF16; d <= KS_F32; d++)
        if (m->bytes_of[d] > m->bytes_of[most]) most = (ks_dtype)d;
    if (a->has_dtype && a->dtype != most)
        KS_TRY(ks_arch_warn(a, "config.json says %s, the weights are %s: they are computed as stored", ks_dtype_name(a->dtype),
                            ks_dtype_name(most)));
    a->dtype = most;
done:
    return rc;
}

void ks_model_drop_pages(const ks_model *m)
{
    for (int i = 0; i < ks_st_files(m->st); i++) {
        const ks_st_file *f = ks_st_file_at(m->st, i);
        madvise((void *)(uintptr_t)f->map, (size_t)f->bytes, MADV_DONTNEED);
    }
}

static int open_model(ks_model **out, const char *dir, bool weights)
{
    int rc = KS_OK;
    ks_model *m = NULL;
    KS_NEW(m, 1);
    KS_GET(m->dir, ks_strdup(dir));
    KS_TRY(ks_arch_read(&m->arch, dir));
    if (weights) KS_TRY(ks_st_open(&m->st, dir));
    else
        KS_REQUIRE(m->arch->has_dtype, KS_EINPUT,
                   "%s/config.json: without weight files \"torch_dtype\" must be bfloat16, float16 or float32", dir);
    KS_TRY(bind_all(m, ks_family_find(m->arch->family)));
    if (weights) {
        KS_TRY(check_second_head(m));
        KS_TRY(check_dtype(m));
        ks_model_drop_pages(m); /* headers and vectors were read through the maps */
    }
    for (const char *line = m->arch->warnings; *line;) {
        const size_t n = strcspn(line, "\n");
        ks_log(KS_LOG_WARN, "%s: %.*s", dir, (int)n, line);
        line += n + (line[n] == '\n');
    }
done:
    if (rc) ks_model_close(m);
    else *out = m;
    return rc;
}

int ks_model_open(ks_model **out, const char *dir)
{
    return open_model(out, dir, true);
}

int ks_model_open_shapes(ks_model **out, const char *dir)
{
    int rc = KS_OK;
    bool weights = false;
    KS_TRY(ks_st_is_there(&weights, dir));
    KS_TRY(open_model(out, dir, weights));
done:
    return rc;
}

bool ks_model_has_weights(const ks_model *m)
{
    return m->st != NULL;
}

int64_t ks_model_bytes(const ks_model *m)
{
    int64_t bytes = 0;
    if (!m->st) return m->bytes_of[m->arch->dtype];
    for (int i = 0; i < ks_st_files(m->st); i++) bytes += ks_st_file_at(m->st, i)->bytes;
    return bytes;
}

void ks_model_close(ks_model *m)
{
    if (!m) return;
    for (size_t i = 0; i < m->n_vectors; i++) free(m->vectors[i]);
    free(m->vectors);
    free(m->layers);
    free(m->bound);
    ks_st_close(m->st);
    ks_arch_free(m->arch);
    free(m->dir);
    free(m);
}

const ks_arch *ks_model_arch(const ks_model *m)
{
    return m->arch;
}

const char *ks_model_dir(const ks_model *m)
{
    return m->dir;
}

const ks_st *ks_model_files(const ks_model *m)
{
    return m->st;
}

const float *ks_model_final_norm(const ks_model *m)
{
    return m->globals.final_norm;
}

const float *ks_model_final_norm_bias(const ks_model *m)
{
    return m->globals.final_norm_bias;
}

ks_tensor ks_model_embedding(const ks_model *m)
{
    return m->globals.embedding;
}

ks_tensor ks_model_head(const ks_model *m)
{
    return m->arch->tied ? m->globals.embedding : m->globals.head;
}

const ks_layer *ks_model_layer(const ks_model *m, int32_t l)
{
    return &m->layers[l];
}

int64_t ks_model_parameters(const ks_model *m)
{
    return m->parameters;
}

int ks_model_weights_sha256(const ks_model *m, char out[65])
{
    enum { CHUNK = 1 << 22 };
    int rc = KS_OK;
    unsigned char *buffer = NULL;
    ks_sha256 s;
    KS_NEW(buffer, CHUNK);
    ks_sha256_init(&s);
    for (int i = 0; i < ks_st_files(m->st); i++) {
        const ks_st_file *f = ks_st_file_at(m->st, i);
        for (int64_t at = 0; at < f->bytes;) {
            const int64_t left = f->bytes - at;
            const ssize_t n = pread(f->fd, buffer, (size_t)(left < CHUNK ? left : CHUNK), at);
            if (n < 0 && errno == EINTR) continue;
            KS_REQUIRE(n > 0, KS_EMACHINE, "%s: cannot be read at byte %" PRId64 ": %s", f->path, at,
                       n < 0 ? strerror(errno) : "it became shorter");
            ks_sha256_update(&s, buffer, (size_t)n);
            at += n;
        }
    }
    ks_sha256_final_hex(&s, out);
done:
    free(buffer);
    return rc;
}

int ks_model_config_sha256(const ks_model *m, char out[65])
{
    int rc = KS_OK;
    char *path = NULL, *text = NULL;
    size_t bytes;
    KS_GET(path, ks_format("%s/config.json", m->dir));
    KS_TRY(ks_file_read(&text, &bytes, path));
    ks_sha256_hex(out, text, bytes);
done:
    free(text);
    free(path);
    return rc;
}

/* An exponent of all ones is an infinity or NaN. */
static bool all_finite(const ks_st_tensor *t)
{
    const unsigned char *p = t->data;
    bool bad = false;
    if (t->dtype == KS_F32) {
        for (int64_t i = 0; i < t->bytes / 4; i++) {
            uint32_t x;
            memcpy(&x, p + 4 * i, sizeof x);
            bad |= (x & 0x7f800000u) == 0x7f800000u;
        }
    } else {
        const uint16_t exponent = t->dtype == KS_BF16 ? 0x7f80 : 0x7c00;
        for (int64_t i = 0; i < t->bytes / 2; i++) {
            uint16_t x;
            memcpy(&x, p + 2 * i, sizeof x);
            bad |= (x & exponent) == exponent;
        }
    }
    return !bad;
}

int ks_model_find_nonfinite(const ks_model *m, char **tensor_name)
{
    int rc = KS_OK;
    *tensor_name = NULL;
    for (int i = 0; i < ks_st_files(m->st); i++) KS_TRY(ks_st_check_file(ks_st_file_at(m->st, i)));
    for (size_t i = 0; i < ks_st_count(m->st) && !*tensor_name; i++) {
        const ks_st_tensor *t = ks_st_at(m->st, i);
        if (m->bound[i] && !all_finite(t)) KS_GET(*tensor_name, ks_strdup(t->name));
    }
done:
    return rc;
}
