#define _GNU_SOURCE
#include "analysis/reader.h"

#include "base/h5.h"
#include "base/json.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_RANK = 6, MAX_AXIS = 1 << 24 };
#define MAX_ELEMENTS ((size_t)1 << 31)

/* Where we are, for messages: the file and the group that is read. */
typedef struct place {
    const char *path;
    uint64_t bytes; /* of the file */
    bool whole;     /* read all, not only what the tables need */
    hid_t id;
    char name[512]; /* "/models/tiny/samples" */
} place;

#define TRY_H5(expr) KS_H5(expr, KS_EINPUT, p->path)

static void close_id(hid_t id)
{
    if (id > 0) H5Idec_ref(id);
}

/* *found = whether the group has a member of that kind; another kind, or damage, is an error. */
static int look_up(const place *p, const char *name, H5O_type_t kind, bool *found)
{
    int rc = KS_OK;
    H5O_info_t info;
    htri_t there = 0;
    *found = false;
    TRY_H5(there = H5Lexists(p->id, name, H5P_DEFAULT));
    if (there > 0) TRY_H5(there = H5Oexists_by_name(p->id, name, H5P_DEFAULT)); /* a link may lead nowhere */
    if (!there) goto done;
    TRY_H5(H5Oget_info_by_name2(p->id, name, &info, H5O_INFO_BASIC, H5P_DEFAULT));
    KS_REQUIRE(info.type == kind, KS_EINPUT, "%s: %s/%s is not a %s", p->path, p->name, name,
               kind == H5O_TYPE_GROUP ? "group" : "data set");
    *found = true;
done:
    return rc;
}

static int require(const place *p, const char *name, H5O_type_t kind)
{
    int rc = KS_OK;
    bool found;
    KS_TRY(look_up(p, name, kind, &found));
    KS_REQUIRE(found, KS_EINPUT, "%s: %s/%s is missing; is it a result file of kosweep?", p->path, p->name, name);
done:
    return rc;
}

static int open_group(place *out, const place *p, const char *name)
{
    int rc = KS_OK;
    *out = (place){.path = p->path, .bytes = p->bytes, .whole = p->whole};
    snprintf(out->name, sizeof out->name, "%.250s/%.250s", p->name, name);
    KS_TRY(require(p, name, H5O_TYPE_GROUP));
    TRY_H5(out->id = H5Gopen2(p->id, name, H5P_DEFAULT));
done:
    return rc;
}

/* Names of the groups in a group, in order of creation where the file keeps it. */
static int list_groups(const place *p, char ***out, size_t *n)
{
    int rc = KS_OK;
    char **v = NULL;
    hid_t created = 0;
    H5G_info_t info;
    unsigned order = 0;
    *n = 0;
    TRY_H5(H5Gget_info(p->id, &info));
    KS_REQUIRE(info.nlinks <= MAX_AXIS, KS_EINPUT, "%s: %s has too many members", p->path, p->name);
    TRY_H5(created = H5Gget_create_plist(p->id));
    TRY_H5(H5Pget_link_creation_order(created, &order));
    const H5_index_t by = order & H5P_CRT_ORDER_TRACKED ? H5_INDEX_CRT_ORDER : H5_INDEX_NAME;
    KS_NEW(v, info.nlinks);
    for (hsize_t i = 0; i < info.nlinks; i++) {
        ssize_t length = 0;
        TRY_H5(length = H5Lget_name_by_idx(p->id, ".", by, H5_ITER_INC, i, NULL, 0, H5P_DEFAULT));
        KS_NEW(v[*n], length + 1);
        TRY_H5(H5Lget_name_by_idx(p->id, ".", by, H5_ITER_INC, i, v[(*n)++], (size_t)length + 1, H5P_DEFAULT));
    }
done:
    close_id(created);
    *out = v;
    return rc;
}

static void free_strings(char **v, size_t n)
{
    for (size_t i = 0; v && i < n; i++) free(v[i]);
    free(v);
}

/* ---- values ---- */

/* Opens a data set and checks its class and shape. */
static int open_dataset(const place *p, const char *name, int rank, const size_t *dims, bool text, hid_t *out, hid_t *type)
{
    static const char *const kinds[] = {"whole numbers", "numbers", "text"};
    int rc = KS_OK;
    hid_t space = 0;
    hsize_t found[H5S_MAX_RANK];
    size_t elements = 1;
    KS_TRY(require(p, name, H5O_TYPE_DATASET));
    TRY_H5(*out = H5Dopen2(p->id, name, H5P_DEFAULT));
    TRY_H5(*type = H5Dget_type(*out));
    const H5T_class_t class = H5Tget_class(*type);
    const bool fits = text ? class == H5T_STRING : class == H5T_INTEGER || class == H5T_FLOAT;
    KS_REQUIRE(fits, KS_EINPUT, "%s: %s/%s must hold %s", p->path, p->name, name, kinds[text ? 2 : 1]);
    TRY_H5(space = H5Dget_space(*out));
    const int found_rank = H5Sget_simple_extent_ndims(space);
    KS_REQUIRE(found_rank == rank, KS_EINPUT, "%s: %s/%s must have %d axes, found %d", p->path, p->name, name, rank, found_rank);
    TRY_H5(H5Sget_simple_extent_dims(space, found, NULL));
    for (int i = 0; i < rank; i++) {
        KS_REQUIRE(found[i] == dims[i], KS_EINPUT, "%s: %s/%s: axis %d must have length %zu, found %llu", p->path, p->name, name, i,
                   dims[i], (unsigned long long)found[i]);
        KS_REQUIRE(!dims[i] || elements <= MAX_ELEMENTS / dims[i], KS_EINPUT, "%s: %s/%s is too large", p->path, p->name, name);
        elements *= dims[i];
    }
    /* A hostile file can claim any shape; nothing compresses numbers a thousandfold. */
    const hsize_t storage = H5Dget_storage_size(*out);
    KS_REQUIRE(storage <= p->bytes && elements * H5Tget_size(*type) / 1100 < storage, KS_EINPUT, "%s: %s/%s has no data behind its shape",
               p->path, p->name, name);
done:
    close_id(space);
    return rc;
}

/* The length of a one-dimensional data set. */
static int axis_length(const place *p, const char *name, size_t *n)
{
    int rc = KS_OK;
    hid_t id = 0, space = 0;
    hsize_t dims[H5S_MAX_RANK];
    KS_TRY(require(p, name, H5O_TYPE_DATASET));
    TRY_H5(id = H5Dopen2(p->id, name, H5P_DEFAULT));
    TRY_H5(space = H5Dget_space(id));
    KS_REQUIRE(H5Sget_simple_extent_ndims(space) == 1, KS_EINPUT, "%s: %s/%s must have one axis", p->path, p->name, name);
    TRY_H5(H5Sget_simple_extent_dims(space, dims, NULL));
    KS_REQUIRE(dims[0] >= 1 && dims[0] <= MAX_AXIS, KS_EINPUT, "%s: %s/%s has length %llu", p->path, p->name, name,
               (unsigned long long)dims[0]);
    *n = (size_t)dims[0];
done:
    close_id(space);
    close_id(id);
    return rc;
}

static size_t product(int rank, const size_t *dims)
{
    size_t n = 1;
    for (int i = 0; i < rank; i++) n *= dims[i];
    return n;
}

/* *out = the data set as an array of `memory` elements; HDF5 converts and clips. */
static int read_array(const place *p, const char *name, int rank, const size_t *dims, hid_t memory, void **out)
{
    int rc = KS_OK;
    hid_t id = 0, type = 0;
    void *v = NULL;
    KS_TRY(open_dataset(p, name, rank, dims, false, &id, &type));
    KS_GET(v, ks_calloc(product(rank, dims), H5Tget_size(memory)));
    TRY_H5(H5Dread(id, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, v));
done:
    close_id(type);
    close_id(id);
    if (rc) free(v);
    else *out = v;
    return rc;
}

static int read_doubles(const place *p, const char *name, int rank, const size_t *dims, double **out)
{
    void *v = NULL;
    const int rc = read_array(p, name, rank, dims, H5T_NATIVE_DOUBLE, &v);
    if (!rc) *out = v;
    return rc;
}

static int read_floats(const place *p, const char *name, int rank, const size_t *dims, float **out)
{
    void *v = NULL;
    const int rc = read_array(p, name, rank, dims, H5T_NATIVE_FLOAT, &v);
    if (!rc) *out = v;
    return rc;
}

static int read_bytes(const place *p, const char *name, int rank, const size_t *dims, uint8_t **out)
{
    void *v = NULL;
    const int rc = read_array(p, name, rank, dims, H5T_NATIVE_UINT8, &v);
    if (!rc) *out = v;
    return rc;
}

static int read_ints(const place *p, const char *name, int rank, const size_t *dims, int64_t min, int64_t max, int32_t **out)
{
    int rc = KS_OK;
    void *data = NULL;
    KS_TRY(read_array(p, name, rank, dims, H5T_NATIVE_INT32, &data));
    for (size_t i = 0; i < product(rank, dims); i++) {
        const int32_t v = ((int32_t *)data)[i];
        KS_REQUIRE(v >= min && v <= max, KS_EINPUT, "%s: %s/%s[%zu] is %d, must be from %lld to %lld", p->path, p->name, name, i, (int)v,
                   (long long)min, (long long)max);
    }
done:
    if (rc) free(data);
    else *out = data;
    return rc;
}

/* Strings of variable or fixed length, from a data set or an attribute (as HDF5 reads them into `raw`). */
static int copy_strings(const place *p, const char *name, char *raw, size_t n, bool variable, size_t width, char **out)
{
    int rc = KS_OK;
    for (size_t i = 0; i < n; i++) {
        const char *s = variable ? ((char **)(void *)raw)[i] : raw + i * width;
        const size_t length = !s ? 0 : variable ? strlen(s) : strnlen(s, width);
        KS_REQUIRE(length < MAX_ELEMENTS, KS_EINPUT, "%s: %s/%s is too long", p->path, p->name, name);
        KS_NEW(out[i], length + 1);
        if (length) memcpy(out[i], s, length);
    }
done:
    return rc;
}

/* Bytes that one of n texts takes in memory as HDF5 reads them. */
static int text_width(const place *p, const char *name, hid_t type, size_t n, bool *variable, size_t *width)
{
    int rc = KS_OK;
    htri_t is_variable = 0;
    TRY_H5(is_variable = H5Tis_variable_str(type));
    *variable = is_variable > 0;
    *width = *variable ? sizeof(char *) : H5Tget_size(type);
    KS_REQUIRE(*width && *width <= MAX_ELEMENTS / n, KS_EINPUT, "%s: %s/%s is too large", p->path, p->name, name);
done:
    return rc;
}

static int read_strings(const place *p, const char *name, int rank, const size_t *dims, char ***out)
{
    int rc = KS_OK;
    hid_t id = 0, type = 0, space = 0;
    char *raw = NULL, **v = NULL;
    bool variable = false;
    size_t n = 0, width = 0;
    KS_TRY(open_dataset(p, name, rank, dims, true, &id, &type));
    n = product(rank, dims);
    KS_TRY(text_width(p, name, type, n, &variable, &width));
    KS_GET(raw, ks_calloc(n, width));
    KS_NEW(v, n);
    TRY_H5(space = H5Dget_space(id));
    TRY_H5(H5Dread(id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, raw));
    KS_TRY(copy_strings(p, name, raw, n, variable, width, v));
done:
    if (variable && raw && space > 0) H5Dvlen_reclaim(type, space, H5P_DEFAULT, raw);
    free(raw);
    close_id(space);
    close_id(type);
    close_id(id);
    if (rc) free_strings(v, n);
    else *out = v;
    return rc;
}

/* ---- attributes ---- */

static int open_attribute(const place *p, const char *name, hid_t *id, hid_t *type, hid_t *space, hssize_t *n)
{
    int rc = KS_OK;
    htri_t there = 0;
    TRY_H5(there = H5Aexists(p->id, name));
    KS_REQUIRE(there, KS_EINPUT, "%s: attribute %s of %s is missing; is it a result file of kosweep?", p->path, name,
               p->name[0] ? p->name : "/");
    TRY_H5(*id = H5Aopen(p->id, name, H5P_DEFAULT));
    TRY_H5(*type = H5Aget_type(*id));
    TRY_H5(*space = H5Aget_space(*id));
    TRY_H5(*n = H5Sget_simple_extent_npoints(*space));
done:
    return rc;
}

static int read_text(const place *p, const char *name, char **out)
{
    int rc = KS_OK;
    hid_t id = 0, type = 0, space = 0;
    hssize_t n = 0;
    size_t width = 0;
    char *raw = NULL;
    bool variable = false;
    KS_TRY(open_attribute(p, name, &id, &type, &space, &n));
    KS_REQUIRE(H5Tget_class(type) == H5T_STRING && n == 1, KS_EINPUT, "%s: attribute %s of %s must be a text", p->path, name, p->name);
    KS_TRY(text_width(p, name, type, 1, &variable, &width));
    KS_REQUIRE(width <= MAX_AXIS, KS_EINPUT, "%s: attribute %s of %s is too long", p->path, name, p->name);
    KS_GET(raw, ks_calloc(1, width));
    TRY_H5(H5Aread(id, type, raw));
    KS_TRY(copy_strings(p, name, raw, 1, variable, width, out));
done:
    if (variable && raw) H5Dvlen_reclaim(type, space, H5P_DEFAULT, raw);
    free(raw);
    close_id(space);
    close_id(type);
    close_id(id);
    return rc;
}

/* "" where the attribute is missing. */
static int read_text_if(const place *p, const char *name, char **out)
{
    int rc = KS_OK;
    htri_t there = 0;
    TRY_H5(there = H5Aexists(p->id, name));
    if (there) KS_TRY(read_text(p, name, out));
    else KS_GET(*out, ks_strdup(""));
done:
    return rc;
}

static int read_int(const place *p, const char *name, int32_t min, int32_t *out)
{
    int rc = KS_OK;
    hid_t id = 0, type = 0, space = 0;
    hssize_t n = 0;
    KS_TRY(open_attribute(p, name, &id, &type, &space, &n));
    KS_REQUIRE(H5Tget_class(type) == H5T_INTEGER && n == 1, KS_EINPUT, "%s: attribute %s of %s must be a whole number", p->path, name,
               p->name);
    TRY_H5(H5Aread(id, H5T_NATIVE_INT32, out));
    KS_REQUIRE(*out >= min && *out <= MAX_AXIS, KS_EINPUT, "%s: attribute %s of %s is %d", p->path, name, p->name, (int)*out);
done:
    close_id(space);
    close_id(type);
    close_id(id);
    return rc;
}

static int read_values(const place *p, double **out, size_t *F)
{
    int rc = KS_OK;
    hid_t id = 0, type = 0, space = 0;
    hssize_t n = 0;
    double *v = NULL;
    KS_TRY(open_attribute(p, "values", &id, &type, &space, &n));
    const H5T_class_t class = H5Tget_class(type);
    KS_REQUIRE((class == H5T_FLOAT || class == H5T_INTEGER) && n <= MAX_AXIS, KS_EINPUT, "%s: attribute values of %s must be numbers",
               p->path, p->name);
    *F = n > 1 ? (size_t)n : 1;
    KS_NEW(v, *F);
    v[0] = NAN;
    if (n > 0) TRY_H5(H5Aread(id, H5T_NATIVE_DOUBLE, v));
done:
    close_id(space);
    close_id(type);
    close_id(id);
    if (rc) free(v);
    else *out = v;
    return rc;
}

/* ---- the file ---- */

/* dims = [F,] W, [H,] S [, last]; returns the rank. */
static int cell_dims(const ks_study_sweep *s, size_t S, size_t last, size_t *dims)
{
    int rank = 0;
    if (s->has_factor) dims[rank++] = s->F;
    dims[rank++] = s->W;
    if (s->has_head) dims[rank++] = s->H;
    dims[rank++] = S;
    if (last) dims[rank++] = last;
    return rank;
}

static int read_next_positions(const place *p, int rank, const size_t *dims, ks_study_sweep *s)
{
    int rc = KS_OK;
    bool p_next, dlogit_next;
    KS_TRY(look_up(p, "p_next_positions", H5O_TYPE_DATASET, &p_next));
    KS_TRY(look_up(p, "dlogit_next_positions", H5O_TYPE_DATASET, &dlogit_next));
    if (!p_next || !dlogit_next) goto done;
    KS_TRY(read_doubles(p, "p_next_positions", rank, dims, &s->p_next_positions));
    KS_TRY(read_doubles(p, "dlogit_next_positions", rank, dims, &s->dlogit_next_positions));
done:
    return rc;
}

/* A run that was killed may leave numbers beside status 0: they were being written and mean nothing. */
static void mask_unfinished(ks_study_sweep *s, const ks_study_model *m)
{
    double *const one[] = {s->kl, s->kl_reverse, s->js, s->tv, s->p_top, s->dlogit_top};
    for (size_t i = 0; i < s->F * s->W * s->H * m->S; i++) {
        if (s->status[i] != KS_STATUS_NOT_COMPUTED) continue;
        for (size_t a = 0; a < sizeof one / sizeof *one; a++) one[a][i] = NAN;
        s->top_changed[i] = 0;
        for (size_t k = i * s->K; k < (i + 1) * s->K; k++) {
            s->top_ids[k] = -1;
            s->top_p_baseline[k] = s->top_p_ablated[k] = NAN;
        }
        double *const rows[] = {s->kl_positions, s->p_next_positions, s->dlogit_next_positions};
        for (size_t a = 0; a < sizeof rows / sizeof *rows; a++)
            for (size_t t = i * m->T; rows[a] && t < (i + 1) * m->T; t++) rows[a][t] = NAN;
    }
}

static int read_sweep(const place *sweeps, const ks_study_model *m, const char *name, ks_study_sweep *s)
{
    int rc = KS_OK;
    place group = {0};
    const place *p = &group;
    size_t dims[MAX_RANK];
    KS_GET(s->name, ks_strdup(name));
    KS_TRY(open_group(&group, sweeps, name));
    KS_TRY(read_text(p, "kind", &s->kind));
    KS_TRY(read_text(p, "edges", &s->edges));
    KS_TRY(read_text(p, "heads", &s->heads));
    KS_TRY(read_text(p, "positions", &s->positions));
    KS_TRY(read_text_if(p, "windows", &s->windows));
    KS_TRY(read_values(p, &s->values, &s->F));
    s->has_factor = s->F > 1;
    s->has_head = !strcmp(s->heads, "each");
    s->H = s->has_head ? (size_t)m->n_heads : 1;
    KS_TRY(axis_length(p, "layer_start", &s->W));
    KS_TRY(read_ints(p, "layer_start", 1, &s->W, 0, m->n_layers - 1, &s->layer_start));
    KS_TRY(read_ints(p, "layer_end", 1, &s->W, 0, m->n_layers - 1, &s->layer_end));
    for (size_t w = 0; w < s->W; w++)
        KS_REQUIRE(s->layer_start[w] <= s->layer_end[w], KS_EINPUT, "%s: %s: window %zu ends before it starts", p->path, p->name, w);
    KS_TRY(read_ints(p, "edges_removed", 1, &m->S, -1, INT32_MAX, &s->edges_removed));

    /* The status first: while a sweep runs it is written last, so what it says done is there when the values are read. */
    int rank = cell_dims(s, m->S, 0, dims);
    KS_TRY(read_bytes(p, "status", rank, dims, &s->status));
    KS_TRY(read_doubles(p, "kl", rank, dims, &s->kl));
    KS_TRY(read_doubles(p, "kl_reverse", rank, dims, &s->kl_reverse));
    KS_TRY(read_doubles(p, "js", rank, dims, &s->js));
    KS_TRY(read_doubles(p, "tv", rank, dims, &s->tv));
    KS_TRY(read_doubles(p, "p_top", rank, dims, &s->p_top));
    KS_TRY(read_doubles(p, "dlogit_top", rank, dims, &s->dlogit_top));
    KS_TRY(read_bytes(p, "top_changed", rank, dims, &s->top_changed));
    for (size_t i = 0; i < product(rank, dims); i++) {
        KS_REQUIRE(s->status[i] < KS_STATUSES, KS_EINPUT, "%s: %s/status[%zu] is %d", p->path, p->name, i, s->status[i]);
        /* One missing value has one face: whatever the file holds, a cell without a result reads as NaN. */
        if (s->status[i] == KS_STATUS_NOT_FINITE || !isfinite(s->kl[i])) s->kl[i] = NAN;
    }
    KS_TRY(axis_length(p, "k", &s->K));
    rank = cell_dims(s, m->S, s->K, dims);
    KS_TRY(read_ints(p, "top_ids", rank, dims, -1, INT32_MAX, &s->top_ids));
    KS_TRY(read_doubles(p, "top_p_baseline", rank, dims, &s->top_p_baseline));
    KS_TRY(read_doubles(p, "top_p_ablated", rank, dims, &s->top_p_ablated));
    if (!strcmp(s->positions, "all")) {
        rank = cell_dims(s, m->S, m->T, dims);
        KS_TRY(read_doubles(p, "kl_positions", rank, dims, &s->kl_positions));
        if (p->whole) KS_TRY(read_next_positions(p, rank, dims, s));
    }
    mask_unfinished(s, m);
done:
    close_id(group.id);
    return rc;
}

static int read_samples(const place *model, ks_study_model *m)
{
    int rc = KS_OK;
    bool has_text = false;
    place group = {0};
    const place *p = &group;
    KS_TRY(open_group(&group, model, "samples"));
    KS_TRY(axis_length(p, "id", &m->S));
    KS_TRY(axis_length(p, "token", &m->T));
    const size_t dims[2] = {m->S, m->T};
    KS_TRY(read_strings(p, "id", 1, &m->S, &m->ids));
    KS_TRY(read_strings(p, "group", 1, &m->S, &m->groups));
    KS_TRY(read_ints(p, "n_tokens", 1, &m->S, 1, (int64_t)m->T, &m->n_tokens));
    KS_TRY(read_bytes(p, "marker", 2, dims, &m->marker));
    KS_TRY(read_bytes(p, "target", 2, dims, &m->target));
    KS_TRY(look_up(p, "token_text", H5O_TYPE_DATASET, &has_text));
    if (has_text) KS_TRY(read_strings(p, "token_text", 2, dims, &m->token_text));
    if (p->whole) {
        KS_TRY(read_strings(p, "text", 1, &m->S, &m->sample_texts));
        KS_TRY(read_ints(p, "token_ids", 2, dims, -1, INT32_MAX, &m->token_ids));
    }
done:
    close_id(group.id);
    return rc;
}

/* What only a run needs that goes on with the file. */
static int read_whole_baseline(const place *baseline, const place *attention, ks_study_model *m)
{
    int rc = KS_OK;
    bool has_logits;
    size_t dims[3] = {m->S};
    KS_TRY(axis_length(baseline, "k", &m->BK));
    dims[1] = m->BK;
    KS_TRY(read_ints(baseline, "top_ids", 2, dims, -1, INT32_MAX, &m->baseline_top_ids));
    KS_TRY(read_doubles(baseline, "top_p", 2, dims, &m->baseline_top_p));
    KS_TRY(look_up(baseline, "logits", H5O_TYPE_DATASET, &has_logits));
    dims[1] = (size_t)m->vocab;
    if (has_logits) KS_TRY(read_floats(baseline, "logits", 2, dims, &m->logits));
    dims[0] = (size_t)m->n_layers;
    dims[1] = (size_t)m->n_heads;
    dims[2] = m->S;
    KS_TRY(read_floats(attention, "by_head", 3, dims, &m->by_head));
done:
    return rc;
}

static int read_baseline(const place *model, ks_study_model *m)
{
    int rc = KS_OK;
    place baseline = {0}, attention = {0}, texts = {0};
    bool has_texts = false, has_status = false;
    const size_t dims[2] = {(size_t)m->n_layers, m->S};
    KS_TRY(open_group(&baseline, model, "baseline"));
    KS_TRY(look_up(&baseline, "status", H5O_TYPE_DATASET, &has_status));
    if (has_status) KS_TRY(read_bytes(&baseline, "status", 1, &m->S, &m->baseline_status));
    KS_TRY(read_doubles(&baseline, "floor", 1, &m->S, &m->floor));
    KS_TRY(read_doubles(&baseline, "entropy", 1, &m->S, &m->entropy));
    KS_TRY(open_group(&attention, model, "attention"));
    KS_TRY(read_doubles(&attention, "strength", 2, dims, &m->strength));
    KS_TRY(read_doubles(&attention, "uniform", 1, &m->S, &m->uniform));
    if (model->whole) KS_TRY(read_whole_baseline(&baseline, &attention, m));
    for (size_t i = 0; has_status && i < m->S; i++) {
        KS_REQUIRE(m->baseline_status[i] <= KS_STATUS_DONE, KS_EINPUT, "%s: %s/status[%zu] is %d", baseline.path, baseline.name, i,
                   m->baseline_status[i]);
        if (m->baseline_status[i] == KS_STATUS_DONE) continue;
        m->floor[i] = m->entropy[i] = m->uniform[i] = NAN;
        for (size_t l = 0; l < (size_t)m->n_layers; l++) m->strength[l * m->S + i] = NAN;
    }
    KS_TRY(look_up(model, "top_tokens", H5O_TYPE_GROUP, &has_texts));
    if (has_texts) {
        KS_TRY(open_group(&texts, model, "top_tokens"));
        size_t n = 0;
        KS_TRY(axis_length(&texts, "id", &n));
        KS_TRY(read_ints(&texts, "id", 1, &n, 0, INT32_MAX, &m->text_ids));
        KS_TRY(read_strings(&texts, "text", 1, &n, &m->texts));
        m->n_texts = n;
        for (size_t i = 1; i < n; i++)
            KS_REQUIRE(m->text_ids[i - 1] < m->text_ids[i], KS_EINPUT, "%s: %s/id is not ascending", texts.path, texts.name);
    }
done:
    close_id(texts.id);
    close_id(attention.id);
    close_id(baseline.id);
    return rc;
}

static int read_model(const place *models, const char *name, ks_study_model *m)
{
    int rc = KS_OK;
    place group = {0}, sweeps = {0};
    const place *p = &group;
    char **names = NULL;
    size_t n = 0;
    KS_GET(m->name, ks_strdup(name));
    KS_TRY(open_group(&group, models, name));
    KS_TRY(read_text(p, "id", &m->id));
    KS_TRY(read_text(p, "revision", &m->revision));
    KS_TRY(read_text(p, "architecture", &m->architecture));
    KS_TRY(read_text(p, "weight_dtype", &m->weight_dtype));
    KS_TRY(read_text(p, "precision", &m->precision));
    KS_TRY(read_int(p, "n_layers", 1, &m->n_layers));
    KS_TRY(read_int(p, "n_heads", 1, &m->n_heads));
    KS_TRY(read_int(p, "vocab", 1, &m->vocab));
    if (p->whole) {
        KS_TRY(read_text(p, "weights_sha256", &m->weights_sha256));
        KS_TRY(read_text(p, "tokenizer_sha256", &m->tokenizer_sha256));
        KS_TRY(read_text_if(p, "config_sha256", &m->config_sha256));
        KS_TRY(read_int(p, "n_kv_heads", 1, &m->n_kv_heads));
        KS_TRY(read_int(p, "d_model", 1, &m->d_model));
    }
    KS_TRY(read_samples(p, m));
    KS_TRY(read_baseline(p, m));
    KS_TRY(open_group(&sweeps, p, "sweeps"));
    KS_TRY(list_groups(&sweeps, &names, &n));
    KS_NEW(m->sweeps, n);
    m->n_sweeps = n;
    for (size_t i = 0; i < n; i++) KS_TRY(read_sweep(&sweeps, m, names[i], &m->sweeps[i]));
done:
    free_strings(names, n);
    close_id(sweeps.id);
    close_id(group.id);
    return rc;
}

static int read_run(const place *root, ks_study *s)
{
    int rc = KS_OK;
    bool there;
    place group = {0};
    const place *p = &group;
    ks_study_run *r = &s->run;
    const struct {
        const char *name;
        char **text;
        int32_t *number;
    } fields[] = {{"time", &r->time, NULL},        {"host", &r->host, NULL},
                  {"backend", &r->backend, NULL},  {"command_line", &r->command_line, NULL},
                  {"history", &r->history, NULL},  {"ranks", NULL, &r->ranks},
                  {"ended", &r->ended, NULL},      {"threads", NULL, &r->threads},
                  {"device", &r->device, NULL},    {"isa", &r->isa, NULL},
                  {"versions", &r->versions, NULL}};
    KS_TRY(read_text(root, "config", &s->config));
    KS_TRY(read_text(root, "corpus_sha256", &s->corpus_sha256));
    KS_TRY(look_up(root, "provenance", H5O_TYPE_GROUP, &there));
    if (there) KS_TRY(open_group(&group, root, "provenance"));
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const bool has = there && H5Aexists(p->id, fields[i].name) > 0;
        if (fields[i].number && has) KS_TRY(read_int(p, fields[i].name, 0, fields[i].number));
        if (fields[i].text && has) KS_TRY(read_text(p, fields[i].name, fields[i].text));
        if (fields[i].text && !has) KS_GET(*fields[i].text, ks_strdup(""));
    }
done:
    close_id(group.id);
    return rc;
}

/* The protocol stands in the configuration alone. What other programs write there need not be ours. */
static int read_protocol(const place *root, ks_study *s)
{
    int rc = KS_OK;
    char *config = NULL;
    KS_TRY(read_text_if(root, "config", &config));
    cJSON *json = cJSON_Parse(config);
    const cJSON *special = cJSON_GetObjectItemCaseSensitive(json, "special_tokens");
    const cJSON *marker = cJSON_GetObjectItemCaseSensitive(json, "marker");
    s->special_tokens = ks_strdup(cJSON_IsString(special) ? special->valuestring : "");
    s->marker = ks_strdup(cJSON_IsString(marker) ? marker->valuestring : "");
    cJSON_Delete(json);
    KS_REQUIRE(s->special_tokens && s->marker, KS_EMACHINE, "out of memory");
done:
    free(config);
    return rc;
}

static int read_study(ks_study **out, const char *path, bool whole)
{
    int rc = KS_OK;
    ks_study *s = NULL;
    hid_t access = 0;
    char *schema = NULL, **names = NULL;
    size_t n = 0;
    struct stat st;
    place root = {.path = path, .whole = whole}, models = {0};
    const place *p = &root;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    KS_NEW(s, 1);
    KS_GET(s->path, ks_strdup(path));
    FILE *f = fopen(path, "rb");
    KS_REQUIRE(f, KS_EINPUT, "%s: cannot be opened: no such file, or not readable", path);
    if (!fstat(fileno(f), &st)) root.bytes = (uint64_t)st.st_size;
    fclose(f);
    KS_REQUIRE(H5Fis_hdf5(path) > 0, KS_EINPUT, "%s: not an HDF5 file, or damaged at its beginning", path);
    TRY_H5(access = H5Pcreate(H5P_FILE_ACCESS));
#if H5_VERSION_GE(1, 10, 7)
    /* Reading needs no lock, and on NFS HDF5's would collide with that of a sweep which is writing the file. */
    TRY_H5(H5Pset_file_locking(access, false, true));
#endif
    TRY_H5(root.id = H5Fopen(path, H5F_ACC_RDONLY, access));
    KS_TRY(read_text(p, "schema", &schema));
    KS_REQUIRE(!strcmp(schema, "kosweep-1"), whole ? KS_EUSAGE : KS_EINPUT,
               "%s: schema \"%.40s\" is not known; this version reads \"kosweep-1\"", path, schema);
    KS_TRY(read_protocol(p, s));
    if (whole) KS_TRY(read_run(p, s));
    KS_TRY(open_group(&models, p, "models"));
    KS_TRY(list_groups(&models, &names, &n));
    KS_REQUIRE(n, KS_EINPUT, "%s: holds no model", path);
    KS_NEW(s->models, n);
    s->n_models = n;
    for (size_t i = 0; i < n; i++) KS_TRY(read_model(&models, names[i], &s->models[i]));
done:
    free_strings(names, n);
    free(schema);
    close_id(models.id);
    close_id(access);
    if (root.id > 0) H5Fclose(root.id);
    if (rc) ks_study_free(s);
    else *out = s;
    return rc;
}

int ks_study_read(ks_study **out, const char *path)
{
    return read_study(out, path, false);
}

int ks_study_read_whole(ks_study **out, const char *path)
{
    return read_study(out, path, true);
}

/* ---- the trial ---- */

/* The child's argv: this, "whole" or "tables", the path. */
static const char PROBE[] = "kosweep-probe";

/* Damage can make HDF5 go round for ever (a global heap of zeros does); reading costs far less processor time than this, however slow the
 * disk. */
static void set_limits(const char *path)
{
    enum { SECONDS = 3, BYTES_A_SECOND = 10 << 20 };
    struct rlimit cpu, no_core = {0, 0};
    struct stat st = {0};
    if (stat(path, &st) || getrlimit(RLIMIT_CPU, &cpu)) _exit(1);
    const rlim_t seconds = SECONDS + (rlim_t)st.st_size / BYTES_A_SECOND;
    if (cpu.rlim_cur > seconds) cpu.rlim_cur = seconds;
    setrlimit(RLIMIT_CPU, &cpu);
    setrlimit(RLIMIT_CORE, &no_core);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/* Runs before main in every program that has ks_study_probe, so that none can forget it; the GNU C library hands it main's arguments. */
__attribute__((constructor)) static void be_the_child(int argc, char **argv)
{
    if (argc != 3 || strcmp(argv[0], PROBE) != 0) return;
    set_limits(argv[2]);
    ks_study *s = NULL;
    read_study(&s, argv[2], !strcmp(argv[1], "whole")); /* its error comes again, in words, when the file is read for good */
    _exit(0);
}

/* The child starts with no signal blocked or handled, and the last words of a crash stay unheard. */
static int start_child(pid_t *child, const char *path, bool whole)
{
    char exe[4096] = "", *const argv[] = {(char *)(uintptr_t)PROBE, (char *)(uintptr_t)(whole ? "whole" : "tables"),
                                          (char *)(uintptr_t)path, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    /* Not /proc/self/exe itself, which is valgrind's own program under valgrind; but a program may be replaced while it runs. */
    if (readlink("/proc/self/exe", exe, sizeof exe - 1) < 0 || access(exe, X_OK)) snprintf(exe, sizeof exe, "/proc/self/exe");
    sigemptyset(&none);
    sigfillset(&all);
    int error = posix_spawn_file_actions_init(&files);
    if (error) return error;
    error = posix_spawnattr_init(&attributes);
    if (!error) {
        error = posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
        if (!error) error = posix_spawnattr_setsigmask(&attributes, &none);
        if (!error) error = posix_spawnattr_setsigdefault(&attributes, &all);
        if (!error) error = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        if (!error) error = posix_spawn(child, exe, &files, &attributes, argv, environ);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&files);
    return error;
}

int ks_study_probe(const char *path, bool whole)
{
    int rc = KS_OK, status = 0;
    pid_t child = 0;
    if (access(path, R_OK)) goto done; /* ks_study_read says it in words */
    const int error = start_child(&child, path, whole);
    KS_REQUIRE(!error, KS_EMACHINE, "%s: no process to read it in: %s", path, strerror(error));
    while (waitpid(child, &status, 0) < 0) KS_REQUIRE(errno == EINTR, KS_EMACHINE, "%s: waiting for its reader: %s", path, strerror(errno));
    KS_REQUIRE(WIFEXITED(status) && !WEXITSTATUS(status), KS_EINPUT, "%s: damaged: HDF5 cannot get through it", path);
done:
    return rc;
}

void ks_study_free(ks_study *study)
{
    if (!study) return;
    for (size_t i = 0; i < study->n_models; i++) {
        ks_study_model *m = &study->models[i];
        for (size_t k = 0; k < m->n_sweeps; k++) {
            ks_study_sweep *s = &m->sweeps[k];
            void *owned[] = {s->name,
                             s->kind,
                             s->edges,
                             s->heads,
                             s->positions,
                             s->windows,
                             s->values,
                             s->layer_start,
                             s->layer_end,
                             s->edges_removed,
                             s->kl,
                             s->kl_reverse,
                             s->js,
                             s->tv,
                             s->p_top,
                             s->dlogit_top,
                             s->top_changed,
                             s->status,
                             s->top_ids,
                             s->top_p_baseline,
                             s->top_p_ablated,
                             s->kl_positions,
                             s->p_next_positions,
                             s->dlogit_next_positions};
            for (size_t n = 0; n < sizeof owned / sizeof *owned; n++) free(owned[n]);
        }
        void *owned[] = {m->name,
                         m->id,
                         m->revision,
                         m->architecture,
                         m->weight_dtype,
                         m->precision,
                         m->n_tokens,
                         m->marker,
                         m->target,
                         m->floor,
                         m->entropy,
                         m->strength,
                         m->uniform,
                         m->text_ids,
                         m->sweeps,
                         m->weights_sha256,
                         m->tokenizer_sha256,
                         m->config_sha256,
                         m->token_ids,
                         m->baseline_top_ids,
                         m->baseline_top_p,
                         m->baseline_status,
                         m->logits,
                         m->by_head};
        for (size_t n = 0; n < sizeof owned / sizeof *owned; n++) free(owned[n]);
        free_strings(m->ids, m->S);
        free_strings(m->groups, m->S);
        free_strings(m->texts, m->n_texts);
        free_strings(m->token_text, m->S * m->T);
        free_strings(m->sample_texts, m->S);
    }
    void *owned[] = {study->run.time,      study->run.host,       study->run.backend, study->run.command_line, study->run.history,
                     study->run.ended,     study->run.device,     study->run.isa,     study->run.versions,     study->config,
                     study->corpus_sha256, study->special_tokens, study->marker};
    for (size_t n = 0; n < sizeof owned / sizeof *owned; n++) free(owned[n]);
    free(study->models);
    free(study->path);
    free(study);
}

const char *ks_study_token(const ks_study_model *m, int32_t id)
{
    size_t from = 0, to = m->n_texts;
    while (from < to) {
        const size_t mid = from + (to - from) / 2;
        if (m->text_ids[mid] < id) from = mid + 1;
        else to = mid;
    }
    return from < m->n_texts && m->text_ids[from] == id ? m->texts[from] : NULL;
}
