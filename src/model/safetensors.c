#define _GNU_SOURCE
#include "model/safetensors.h"

#include "base/error.h"
#include "base/json.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct ks_st {
    ks_st_file *files; /* [n_files] */
    int n_files;
    ks_st_tensor *tensors; /* [n] in order of names once everything is open */
    size_t n, room;
};

/* The format's own limit; it keeps a damaged length from asking for all memory. */
enum { HEADER_MAX = 100000000 };

static const struct {
    const char *name;
    int bits;
    int dtype; /* ks_dtype, or -1: known to the format, not to kosweep */
} dtypes[] = {
    {"BF16", 16, KS_BF16}, {"F16", 16, KS_F16}, {"F32", 32, KS_F32}, {"F64", 64, -1},    {"BOOL", 8, -1},
    {"U8", 8, -1},         {"I8", 8, -1},       {"U16", 16, -1},     {"I16", 16, -1},    {"U32", 32, -1},
    {"I32", 32, -1},       {"U64", 64, -1},     {"I64", 64, -1},     {"F8_E5M2", 8, -1}, {"F8_E4M3", 8, -1},
    {"F8_E8M0", 8, -1},    {"F6_E2M3", 6, -1},  {"F6_E3M2", 6, -1},  {"F4", 4, -1},
};

static int whole_number(const cJSON *v, int64_t *out)
{
    if (!cJSON_IsNumber(v)) return 0;
    const double x = v->valuedouble;
    if (!(x >= 0 && x <= 9007199254740992.0)) return 0;
    *out = (int64_t)x;
    return (double)*out == x;
}

/* One header entry -> t. `data` is where the file's data begin, in bytes; data_bytes how many there are. */
static int read_entry(ks_st_tensor *t, const cJSON *entry, const ks_st_file *f, int64_t data, int64_t data_bytes)
{
    int rc = KS_OK;
    const char *path = f->path, *name = entry->string;
    KS_REQUIRE(cJSON_IsObject(entry), KS_EINPUT, "%s: tensor \"%s\": expected an object, found %s", path, name, ks_json_kind(entry));
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(entry, "dtype");
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(entry, "shape");
    const cJSON *range = cJSON_GetObjectItemCaseSensitive(entry, "data_offsets");
    KS_REQUIRE(cJSON_IsString(dtype) && cJSON_IsArray(shape) && cJSON_IsArray(range) && cJSON_GetArraySize(entry) == 3, KS_EINPUT,
               "%s: tensor \"%s\": expected exactly the keys dtype, shape and data_offsets", path, name);

    const size_t n_dtypes = sizeof dtypes / sizeof *dtypes;
    size_t d = 0;
    while (d < n_dtypes && strcmp(dtypes[d].name, dtype->valuestring)) d++;
    KS_REQUIRE(d < n_dtypes, KS_EINPUT, "%s: tensor \"%s\": the format has no dtype \"%s\"", path, name, dtype->valuestring);
    t->dtype_name = dtypes[d].name;
    t->has_dtype = dtypes[d].dtype >= 0;
    if (t->has_dtype) t->dtype = (ks_dtype)dtypes[d].dtype;

    KS_REQUIRE(cJSON_GetArraySize(shape) <= KS_ST_DIMS, KS_EINPUT, "%s: tensor \"%s\": %d dimensions, at most %d expected", path, name,
               cJSON_GetArraySize(shape), KS_ST_DIMS);
    int64_t bits = dtypes[d].bits;
    for (const cJSON *v = shape->child; v; v = v->next) {
        int64_t *size = &t->shape[t->n_dims++];
        KS_REQUIRE(whole_number(v, size), KS_EINPUT, "%s: tensor \"%s\": shape[%d] must be a whole number, 0 or more", path, name,
                   t->n_dims - 1);
        KS_REQUIRE(!__builtin_mul_overflow(bits, *size, &bits), KS_EINPUT, "%s: tensor \"%s\": the shape's product does not fit in 64 bits",
                   path, name);
    }

    int64_t begin = 0, end = 0;
    KS_REQUIRE(cJSON_GetArraySize(range) == 2 && whole_number(range->child, &begin) && whole_number(range->child->next, &end) &&
                   begin <= end,
               KS_EINPUT, "%s: tensor \"%s\": data_offsets must be [begin, end] with 0 <= begin <= end", path, name);
    KS_REQUIRE(end <= data_bytes, KS_EINPUT,
               "%s: tensor \"%s\" ends at byte %" PRId64 " of the data, the file holds %" PRId64 " (is it truncated?)", path, name, end,
               data_bytes);
    KS_REQUIRE(bits % 8 == 0 && bits / 8 == end - begin, KS_EINPUT,
               "%s: tensor \"%s\": shape and dtype %s need %" PRId64 " bytes, data_offsets hold %" PRId64, path, name, t->dtype_name,
               bits / 8, end - begin);
    t->bytes = end - begin;
    t->offset = data + begin;
    t->data = f->map + t->offset;
    KS_GET(t->name, ks_strdup(name));
done:
    return rc;
}

static int by_offset(const void *a, const void *b)
{
    const ks_st_tensor *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const ks_st_tensor *)a)->name, ((const ks_st_tensor *)b)->name);
}

static int map_file(ks_st_file *f)
{
    int rc = KS_OK;
    struct stat st;
    f->fd = open(f->path, O_RDONLY | O_CLOEXEC);
    KS_REQUIRE(f->fd >= 0, KS_EINPUT, "%s: cannot be opened: %s", f->path, strerror(errno));
    KS_REQUIRE(fstat(f->fd, &st) == 0 && S_ISREG(st.st_mode), KS_EINPUT, "%s: not a regular file", f->path);
    KS_REQUIRE(st.st_size >= 8, KS_EINPUT, "%s: %" PRId64 " bytes are too few for a safetensors file (is it truncated?)", f->path,
               (int64_t)st.st_size);
    f->bytes = st.st_size;
    void *map = mmap(NULL, (size_t)f->bytes, PROT_READ, MAP_PRIVATE, f->fd, 0);
    KS_REQUIRE(map != MAP_FAILED, KS_EMACHINE, "%s: cannot be mapped: %s", f->path, strerror(errno));
    f->map = map;
done:
    return rc;
}

/* Opens st->files[i], whose path is set, and appends its tensors. */
static int open_file(ks_st *st, int i)
{
    int rc = KS_OK;
    cJSON *header = NULL;
    char *name = NULL;
    ks_st_file *f = &st->files[i];
    KS_TRY(map_file(f));

    uint64_t n = 0;
    for (int k = 7; k >= 0; k--) n = n << 8 | f->map[k];
    KS_REQUIRE(n <= HEADER_MAX && n <= (uint64_t)f->bytes - 8, KS_EINPUT,
               "%s: a header of %" PRIu64 " bytes is announced, the file has %" PRId64 " bytes (damaged, truncated, or not safetensors)",
               f->path, n, f->bytes);
    KS_GET(name, ks_format("%s: header", f->path));
    KS_TRY(ks_json_parse(&header, (const char *)f->map + 8, (size_t)n, name));
    KS_REQUIRE(cJSON_IsObject(header), KS_EINPUT, "%s: the header must be an object of tensors, found %s", f->path, ks_json_kind(header));

    const int64_t data = 8 + (int64_t)n;
    const size_t first = st->n;
    for (const cJSON *entry = header->child; entry; entry = entry->next) {
        if (!strcmp(entry->string, "__metadata__")) continue;
        if (st->n == st->room) {
            const size_t room = st->room ? 2 * st->room : 256;
            ks_st_tensor *grown;
            KS_GET(grown, ks_realloc(st->tensors, room, sizeof *grown));
            st->tensors = grown;
            st->room = room;
        }
        ks_st_tensor *t = &st->tensors[st->n++];
        memset(t, 0, sizeof *t);
        t->file = i;
        KS_TRY(read_entry(t, entry, f, data, f->bytes - data));
    }

    ks_st_tensor *t = st->tensors ? st->tensors + first : NULL;
    const size_t count = st->n - first;
    if (count) qsort(t, count, sizeof *t, by_offset);
    const ks_st_tensor *before = NULL;
    for (size_t k = 0; k < count; k++) {
        if (!t[k].bytes) continue;
        KS_REQUIRE(!before || before->offset + before->bytes <= t[k].offset, KS_EINPUT, "%s: tensors \"%s\" and \"%s\" overlap", f->path,
                   before->name, t[k].name);
        before = &t[k];
    }
done:
    free(name);
    cJSON_Delete(header);
    return rc;
}

/* Sorts by name and refuses a name that comes twice, in one file or in two. */
static int sort_tensors(ks_st *st)
{
    if (st->n) qsort(st->tensors, st->n, sizeof *st->tensors, by_name);
    for (size_t k = 1; k < st->n; k++) {
        const ks_st_tensor *a = &st->tensors[k - 1], *b = &st->tensors[k];
        if (!strcmp(a->name, b->name))
            return ks_error(KS_EINPUT, "%s: tensor \"%s\" is there twice (%s)", st->files[a->file].path, a->name, st->files[b->file].path);
    }
    return KS_OK;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int open_paths(ks_st *st, char *const *paths, int n)
{
    int rc = KS_OK;
    KS_NEW(st->files, n);
    for (int i = 0; i < n; i++) st->files[i].fd = -1;
    st->n_files = n;
    for (int i = 0; i < n; i++) {
        KS_GET(st->files[i].path, ks_strdup(paths[i]));
        KS_TRY(open_file(st, i));
    }
    KS_TRY(sort_tensors(st));
done:
    return rc;
}

static int open_index(ks_st *st, const char *dir, const char *index)
{
    int rc = KS_OK;
    cJSON *root = NULL;
    const char **shards = NULL; /* names in weight_map */
    char **paths = NULL;
    bool *listed = NULL;
    int n = 0, n_paths = 0;

    KS_TRY(ks_json_read(&root, index));
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(root, "weight_map");
    KS_REQUIRE(cJSON_IsObject(map) && map->child, KS_EINPUT, "%s: \"weight_map\" must be an object of tensor names and files, found %s",
               index, ks_json_kind(map));
    KS_NEW(shards, cJSON_GetArraySize(map));
    for (const cJSON *e = map->child; e; e = e->next) {
        KS_REQUIRE(cJSON_IsString(e), KS_EINPUT, "%s: weight_map[\"%s\"] must be a file name, found %s", index, e->string, ks_json_kind(e));
        /* An index may not reach outside its directory. */
        KS_REQUIRE(e->valuestring[0] && e->valuestring[0] != '.' && !strchr(e->valuestring, '/'), KS_EINPUT,
                   "%s: weight_map[\"%s\"] must name a file in the same directory, found \"%s\"", index, e->string, e->valuestring);
        shards[n++] = e->valuestring;
    }
    qsort(shards, (size_t)n, sizeof *shards, by_text);
    KS_NEW(paths, n);
    for (int i = 0; i < n; i++) {
        if (i && !strcmp(shards[i], shards[i - 1])) continue;
        KS_GET(paths[n_paths], ks_format("%s/%s", dir, shards[i]));
        n_paths++;
    }
    KS_TRY(open_paths(st, paths, n_paths));

    KS_NEW(listed, st->n);
    for (const cJSON *e = map->child; e; e = e->next) {
        const ks_st_tensor *t = ks_st_find(st, e->string);
        KS_REQUIRE(t, KS_EINPUT, "%s: tensor \"%s\" is listed, but %s does not hold it", index, e->string, e->valuestring);
        const char *in = base_name(st->files[t->file].path);
        KS_REQUIRE(!strcmp(in, e->valuestring), KS_EINPUT, "%s: tensor \"%s\" is listed in %s, but found in %s", index, e->string,
                   e->valuestring, in);
        KS_REQUIRE(!listed[t - st->tensors], KS_EINPUT, "%s: tensor \"%s\" is listed twice", index, e->string);
        listed[t - st->tensors] = true;
    }
    for (size_t k = 0; k < st->n; k++)
        KS_REQUIRE(listed[k], KS_EINPUT, "%s: tensor \"%s\" of %s is not listed in weight_map", index, st->tensors[k].name,
                   base_name(st->files[st->tensors[k].file].path));
done:
    for (int i = 0; i < n_paths; i++) free(paths[i]);
    free(paths);
    free(shards);
    free(listed);
    cJSON_Delete(root);
    return rc;
}

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

/* Says what a directory without safetensors holds instead: most often another format of the same weights. */
static int no_weights(const char *dir)
{
    const char *other = NULL;
    char found[256] = "";
    DIR *d = opendir(dir);
    for (const struct dirent *e; d && (e = readdir(d));) {
        const char *dot = strrchr(e->d_name, '.');
        if (!dot || (strcmp(dot, ".bin") && strcmp(dot, ".gguf") && strcmp(dot, ".pth") && strcmp(dot, ".safetensors"))) continue;
        snprintf(found, sizeof found, "%s", e->d_name);
        other = found;
    }
    if (d) closedir(d);
    return ks_error(KS_EINPUT, "%s: neither model.safetensors nor model.safetensors.index.json is there%s%s%s", dir, other ? " (" : "",
                    other ? other : "", other ? " is, which kosweep does not read)" : "");
}

int ks_st_is_there(bool *out, const char *dir)
{
    int rc = KS_OK;
    char *single = NULL, *index = NULL;
    KS_GET(single, ks_format("%s/model.safetensors", dir));
    KS_GET(index, ks_format("%s/model.safetensors.index.json", dir));
    *out = exists(single) || exists(index);
done:
    free(single);
    free(index);
    return rc;
}

int ks_st_open(ks_st **out, const char *path)
{
    int rc = KS_OK;
    ks_st *st = NULL;
    char *single = NULL, *index = NULL;
    struct stat s;
    KS_NEW(st, 1);
    KS_REQUIRE(stat(path, &s) == 0, KS_EINPUT, "%s: cannot be opened: %s", path, strerror(errno));
    if (S_ISDIR(s.st_mode)) {
        KS_GET(single, ks_format("%s/model.safetensors", path));
        KS_GET(index, ks_format("%s/model.safetensors.index.json", path));
        if (exists(single)) KS_TRY(open_paths(st, &single, 1));
        else if (exists(index)) KS_TRY(open_index(st, path, index));
        else KS_TRY(no_weights(path));
    } else {
        KS_GET(single, ks_strdup(path));
        KS_TRY(open_paths(st, &single, 1));
    }
done:
    free(single);
    free(index);
    if (rc) ks_st_close(st);
    else *out = st;
    return rc;
}

void ks_st_close(ks_st *st)
{
    if (!st) return;
    for (int i = 0; i < st->n_files; i++) {
        ks_st_file *f = &st->files[i];
        if (f->map) munmap((void *)(uintptr_t)f->map, (size_t)f->bytes);
        if (f->fd >= 0) close(f->fd);
        free(f->path);
    }
    for (size_t k = 0; k < st->n; k++) free(st->tensors[k].name);
    free(st->files);
    free(st->tensors);
    free(st);
}

size_t ks_st_count(const ks_st *st)
{
    return st->n;
}

const ks_st_tensor *ks_st_at(const ks_st *st, size_t i)
{
    return &st->tensors[i];
}

const ks_st_tensor *ks_st_find(const ks_st *st, const char *name)
{
    size_t low = 0, high = st->n;
    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        const int c = strcmp(st->tensors[mid].name, name);
        if (!c) return &st->tensors[mid];
        if (c < 0) low = mid + 1;
        else high = mid;
    }
    return NULL;
}

int ks_st_files(const ks_st *st)
{
    return st->n_files;
}

const ks_st_file *ks_st_file_at(const ks_st *st, int i)
{
    return &st->files[i];
}

int ks_st_check_file(const ks_st_file *file)
{
    struct stat s;
    if (fstat(file->fd, &s)) return ks_error(KS_EMACHINE, "%s: %s", file->path, strerror(errno));
    if (s.st_size < file->bytes)
        return ks_error(KS_EMACHINE, "%s: had %" PRId64 " bytes when it was opened, now %" PRId64, file->path, file->bytes,
                        (int64_t)s.st_size);
    return KS_OK;
}
