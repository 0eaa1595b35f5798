#include "sweep/results_h5.h"

#include "base/h5.h"
#include "base/mem.h"

#include <hdf5_hl.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "elements of arrays are set in the file's memory, which is little-endian");

#define TRY_H5(expr) KS_H5(expr, KS_EMACHINE, g->f->path)

static hid_t memory_type(int type)
{
    return type == KS_F64 ? H5T_NATIVE_DOUBLE : type == KS_F32 ? H5T_NATIVE_FLOAT : type == KS_I32 ? H5T_NATIVE_INT32 : H5T_NATIVE_UINT8;
}

static hid_t file_type(int type)
{
    return type == KS_F64 ? H5T_IEEE_F64LE : type == KS_F32 ? H5T_IEEE_F32LE : type == KS_I32 ? H5T_STD_I32LE : H5T_STD_U8LE;
}

static size_t type_bytes(int type)
{
    return type == KS_F64 ? 8 : type == KS_U8 ? 1 : 4;
}

enum { ALIGNMENT = 8 }; /* of everything in the file, so that elements can be set where they are */

static void close_id(hid_t id)
{
    if (id > 0) H5Idec_ref(id);
}

/* ---- file ---- */

int ks_h5_file_create(ks_h5_file *f, const char *path)
{
    int rc = KS_OK;
    hid_t access = 0, root = 0;
    void *memory = NULL;
    char *name = NULL;
    *f = (ks_h5_file){0};
    KS_GET(f->path, ks_strdup(path));
    KS_GET(name, ks_format("results %p", (void *)f)); /* HDF5 has no two files of one name open */
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    KS_H5(f->text = H5Tcopy(H5T_C_S1), KS_EMACHINE, path);
    KS_H5(H5Tset_size(f->text, H5T_VARIABLE), KS_EMACHINE, path);
    KS_H5(H5Tset_cset(f->text, H5T_CSET_UTF8), KS_EMACHINE, path);
    KS_H5(f->plain = H5Pcreate(H5P_DATASET_CREATE), KS_EMACHINE, path);
    KS_H5(H5Pset_obj_track_times(f->plain, 0), KS_EMACHINE, path);
    KS_H5(f->ordered = H5Pcreate(H5P_GROUP_CREATE), KS_EMACHINE, path);
    KS_H5(H5Pset_link_creation_order(f->ordered, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED), KS_EMACHINE, path);
    KS_H5(H5Pset_obj_track_times(f->ordered, 0), KS_EMACHINE, path);
    KS_H5(root = H5Pcreate(H5P_FILE_CREATE), KS_EMACHINE, path);
    KS_H5(H5Pset_obj_track_times(root, 0), KS_EMACHINE, path);
    KS_H5(access = H5Pcreate(H5P_FILE_ACCESS), KS_EMACHINE, path);
    /* This format has checksums on its structure, so that readers notice damage. */
    KS_H5(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18), KS_EMACHINE, path);
    KS_H5(H5Pset_alignment(access, 1, ALIGNMENT), KS_EMACHINE, path);
    KS_H5(H5Pset_fapl_core(access, (size_t)1 << 20, 0), KS_EMACHINE, path);
    KS_H5(f->id = H5Fcreate(name, H5F_ACC_TRUNC, root, access), KS_EMACHINE, path);
    /* Blocks without an index need the format of 1.10. The superblock stays as it was made: that of 1.10 says that a writer has the file
     * open, and then readers refuse it. */
    KS_H5(H5Fset_libver_bounds(f->id, H5F_LIBVER_V110, H5F_LIBVER_V110), KS_EMACHINE, path);
    KS_H5(H5Fget_vfd_handle(f->id, H5P_DEFAULT, &memory), KS_EMACHINE, path);
    f->memory = memory;
done:
    free(name);
    close_id(access);
    close_id(root);
    return rc;
}

int ks_h5_file_image(ks_h5_file *f, const void **image, size_t *bytes)
{
    int rc = KS_OK;
    ssize_t n = 0;
    KS_H5(H5Fflush(f->id, H5F_SCOPE_GLOBAL), KS_EMACHINE, f->path);
    /* Only the size: as a copy, the library gives a superblock whose checksum does not fit. */
    KS_H5(n = H5Fget_file_image(f->id, NULL, 0), KS_EMACHINE, f->path);
    *image = *f->memory;
    *bytes = (size_t)n;
done:
    return rc;
}

void ks_h5_file_close(ks_h5_file *f)
{
    close_id(f->ordered);
    close_id(f->plain);
    close_id(f->text);
    if (f->id > 0) H5Fclose(f->id);
    free(f->path);
    *f = (ks_h5_file){0};
}

int ks_h5_group_create(ks_h5_group *g, ks_h5_group *parent, const char *name)
{
    int rc = KS_OK;
    *g = (ks_h5_group){.f = parent->f};
    TRY_H5(g->id = H5Gcreate2(parent->id, name, H5P_DEFAULT, g->f->ordered, H5P_DEFAULT));
done:
    return rc;
}

int ks_h5_group_replace(ks_h5_group *g, ks_h5_group *parent, const char *name)
{
    int rc = KS_OK;
    htri_t there = 0;
    *g = (ks_h5_group){.f = parent->f};
    TRY_H5(there = H5Lexists(parent->id, name, H5P_DEFAULT));
    if (there) TRY_H5(H5Ldelete(parent->id, name, H5P_DEFAULT));
    KS_TRY(ks_h5_group_create(g, parent, name));
done:
    return rc;
}

void ks_h5_group_close(ks_h5_group *g)
{
    for (size_t i = 0; i < g->n_axes; i++) close_id(g->axes[i].scale);
    close_id(g->id);
    *g = (ks_h5_group){0};
}

/* ---- attributes ---- */

static int put_attribute(ks_h5_group *g, hid_t object, const char *name, hid_t type, const hsize_t *n, const void *value)
{
    int rc = KS_OK;
    hid_t space = 0, id = 0;
    TRY_H5(space = n ? H5Screate_simple(1, n, NULL) : H5Screate(H5S_SCALAR));
    TRY_H5(id = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT));
    if (!n || *n) TRY_H5(H5Awrite(id, type, value));
done:
    close_id(id);
    close_id(space);
    return rc;
}

int ks_h5_put_text(ks_h5_group *g, const char *name, const char *value)
{
    if (!value) value = "";
    return put_attribute(g, g->id, name, g->f->text, NULL, &value);
}

int ks_h5_put_int(ks_h5_group *g, const char *name, int32_t value)
{
    return put_attribute(g, g->id, name, H5T_STD_I32LE, NULL, &value);
}

int ks_h5_put_int64(ks_h5_group *g, const char *name, int64_t value)
{
    return put_attribute(g, g->id, name, H5T_STD_I64LE, NULL, &value);
}

int ks_h5_put_doubles(ks_h5_group *g, const char *name, const double *values, size_t n)
{
    const hsize_t count = n;
    return put_attribute(g, g->id, name, H5T_IEEE_F64LE, &count, values);
}

/* ---- axes ---- */

/* Opens the next axis of the group; the caller writes its values. */
static int add_axis(ks_h5_group *g, const char *name, size_t n, hid_t type, hid_t *scale)
{
    int rc = KS_OK;
    hid_t space = 0;
    const hsize_t dim = n;
    KS_REQUIRE(g->n_axes < KS_H5_AXES, KS_EMACHINE, "%s: too many axes for %s", g->f->path, name);
    TRY_H5(space = H5Screate_simple(1, &dim, NULL));
    TRY_H5(*scale = H5Dcreate2(g->id, name, type, space, H5P_DEFAULT, g->f->plain, H5P_DEFAULT));
    g->axes[g->n_axes].name = name;
    g->axes[g->n_axes].n = dim;
    g->axes[g->n_axes++].scale = *scale;
    TRY_H5(H5DSset_scale(*scale, name));
done:
    close_id(space);
    return rc;
}

int ks_h5_index_axis(ks_h5_group *g, const char *name, size_t n)
{
    int rc = KS_OK;
    hid_t scale = 0;
    int32_t *v = NULL;
    KS_NEW(v, n);
    for (size_t i = 0; i < n; i++) v[i] = (int32_t)i;
    KS_TRY(add_axis(g, name, n, H5T_STD_I32LE, &scale));
    TRY_H5(H5Dwrite(scale, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, v));
done:
    free(v);
    return rc;
}

int ks_h5_double_axis(ks_h5_group *g, const char *name, size_t n, const double *values)
{
    int rc = KS_OK;
    hid_t scale = 0;
    KS_TRY(add_axis(g, name, n, H5T_IEEE_F64LE, &scale));
    TRY_H5(H5Dwrite(scale, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values));
done:
    return rc;
}

int ks_h5_string_axis(ks_h5_group *g, const char *name, size_t n, const char *const *values)
{
    int rc = KS_OK;
    hid_t scale = 0;
    KS_TRY(add_axis(g, name, n, g->f->text, &scale));
    TRY_H5(H5Dwrite(scale, g->f->text, H5S_ALL, H5S_ALL, H5P_DEFAULT, values));
done:
    return rc;
}

/* ---- arrays ---- */

typedef struct shape {
    int rank;
    hsize_t dims[KS_H5_AXES];
    size_t axis[KS_H5_AXES]; /* of the group */
    size_t n;                /* elements */
} shape;

static shape find_shape(const ks_h5_group *g, const char *axes)
{
    shape s = {.n = 1};
    for (const char *p = axes; *p;) {
        const size_t length = strcspn(p, " ");
        size_t i = 0;
        while (i < g->n_axes && (strncmp(g->axes[i].name, p, length) || g->axes[i].name[length])) i++;
        if (i < g->n_axes) {
            s.axis[s.rank] = i;
            s.dims[s.rank++] = g->axes[i].n;
            s.n *= g->axes[i].n;
        }
        p += length + (p[length] == ' ');
    }
    return s;
}

/* Creates the data set `spec` of a file type on its axes. */
static int create_dataset(ks_h5_group *g, const ks_h5_spec *spec, const shape *s, hid_t type, hid_t creation, hid_t *out)
{
    int rc = KS_OK;
    hid_t space = 0;
    TRY_H5(space = H5Screate_simple(s->rank, s->dims, NULL));
    TRY_H5(*out = H5Dcreate2(g->id, spec->name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT));
    for (int i = 0; i < s->rank; i++) {
        TRY_H5(H5DSattach_scale(*out, g->axes[s->axis[i]].scale, (unsigned)i));
        TRY_H5(H5DSset_label(*out, (unsigned)i, g->axes[s->axis[i]].name));
    }
    if (spec->units) KS_TRY(put_attribute(g, *out, "units", g->f->text, NULL, &spec->units));
    if (g->coordinates) KS_TRY(put_attribute(g, *out, "coordinates", g->f->text, NULL, &g->coordinates));
done:
    close_id(space);
    return rc;
}

int ks_h5_put(ks_h5_group *g, const ks_h5_spec *spec, const void *data)
{
    int rc = KS_OK;
    hid_t id = 0;
    const shape s = find_shape(g, spec->axes);
    KS_TRY(create_dataset(g, spec, &s, file_type(spec->type), g->f->plain, &id));
    TRY_H5(H5Dwrite(id, memory_type(spec->type), H5S_ALL, H5S_ALL, H5P_DEFAULT, data));
done:
    close_id(id);
    return rc;
}

/* Bytes of the UTF-8 character at s, 0 if it is none (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF). */
static size_t utf8_length(const unsigned char *s)
{
    if (s[0] < 0x80) return 1;
    const size_t n = s[0] >= 0xC2 && s[0] <= 0xDF ? 2 : (s[0] & 0xF0) == 0xE0 ? 3 : s[0] >= 0xF0 && s[0] <= 0xF4 ? 4 : 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    const bool overlong = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xF0 && s[1] < 0x90);
    const bool beyond = (s[0] == 0xED && s[1] > 0x9F) || (s[0] == 0xF4 && s[1] > 0x8F);
    return overlong || beyond ? 0 : n;
}

/* A copy with U+FFFD for each byte that is not UTF-8: half a character is a common token, and readers refuse such strings. */
static char *utf8_repaired(const char *s)
{
    char *out = ks_calloc(3 * strlen(s) + 1, 1), *p = out;
    while (out && *s) {
        const size_t n = utf8_length((const unsigned char *)s);
        memcpy(p, n ? s : "\xEF\xBF\xBD", n ? n : 3);
        p += n ? n : 3;
        s += n ? n : 1;
    }
    return out;
}

int ks_h5_put_strings(ks_h5_group *g, const char *name, const char *axes, const char *const *data)
{
    int rc = KS_OK;
    hid_t id = 0;
    const shape s = find_shape(g, axes);
    char **v = NULL;
    KS_TRY(create_dataset(g, &(ks_h5_spec){name, 0, axes, NULL}, &s, g->f->text, g->f->plain, &id));
    KS_NEW(v, s.n);
    for (size_t i = 0; i < s.n; i++) KS_GET(v[i], utf8_repaired(data[i] ? data[i] : ""));
    TRY_H5(H5Dwrite(id, g->f->text, H5S_ALL, H5S_ALL, H5P_DEFAULT, v));
done:
    for (size_t i = 0; v && i < s.n; i++) free(v[i]);
    free(v);
    close_id(id);
    return rc;
}

/* Chunks of a fixed shape, allocated early and not filtered, are "implicit" in the format of 1.10: one after another in one piece, with no
 * index. So such an array has one place, too, and HDF5 is only asked whether it has done that. last: coordinates in the last chunk. */
static int find_blocks(const ks_h5_array *a, hid_t id, const hsize_t *last, haddr_t *offset)
{
    int rc = KS_OK;
    const hsize_t first[KS_H5_AXES] = {0};
    haddr_t end = HADDR_UNDEF;
    hsize_t bytes = 0;
    unsigned filters = 0;
    KS_H5(H5Dget_chunk_info_by_coord(id, first, &filters, offset, &bytes), KS_EMACHINE, a->f->path);
    KS_H5(H5Dget_chunk_info_by_coord(id, last, &filters, &end, &bytes), KS_EMACHINE, a->f->path);
    KS_REQUIRE(end + bytes == *offset + a->bytes, KS_EMACHINE, "%s: HDF5 has not put an array's chunks in one piece", a->f->path);
done:
    return rc;
}

int ks_h5_array_create(ks_h5_array *a, ks_h5_group *g, const ks_h5_spec *spec)
{
    int rc = KS_OK;
    hid_t creation = 0, id = 0;
    const hid_t type = memory_type(spec->type);
    const double nan = NAN;
    const int32_t none = -1;
    const uint8_t zero = 0;
    const bool real = spec->type == KS_F64 || spec->type == KS_F32;
    const shape s = find_shape(g, spec->axes);
    hsize_t chunk[KS_H5_AXES], last[KS_H5_AXES] = {0};
    haddr_t offset = HADDR_UNDEF;
    bool blocks = false;
    size_t n = 1;
    for (int i = 0; i < s.rank; i++) {
        chunk[i] = s.dims[i];
        /* Where samples are the outermost axis, each lies together anyway. */
        if (i && g->block && g->block < s.dims[i] && !strcmp(g->axes[s.axis[i]].name, "sample")) {
            chunk[i] = g->block;
            last[i] = s.dims[i] - 1;
            blocks = true;
        }
        n *= (s.dims[i] + chunk[i] - 1) / chunk[i] * chunk[i];
    }
    /* Its place is taken and filled at once and never moves. */
    TRY_H5(creation = H5Pcopy(g->f->plain));
    TRY_H5(H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY));
    TRY_H5(H5Pset_fill_time(creation, H5D_FILL_TIME_ALLOC));
    if (blocks) TRY_H5(H5Pset_chunk(creation, s.rank, chunk));
    if (real) TRY_H5(H5Pset_fill_value(creation, H5T_NATIVE_DOUBLE, &nan));
    else TRY_H5(H5Pset_fill_value(creation, type, spec->type == KS_I32 ? (const void *)&none : &zero));
    KS_TRY(create_dataset(g, spec, &s, file_type(spec->type), creation, &id));
    a->f = g->f;
    a->bytes = n * type_bytes(spec->type);
    if (blocks) KS_TRY(find_blocks(a, id, last, &offset));
    else offset = H5Dget_offset(id);
    KS_REQUIRE(offset != HADDR_UNDEF && offset % ALIGNMENT == 0, KS_EMACHINE, "%s: HDF5 gives %s no place", g->f->path, spec->name);
    a->offset = (size_t)offset;
    KS_NEW(a->dirty, a->bytes / KS_H5_PAGE + 1);
    a->n = n;
done:
    close_id(id);
    close_id(creation);
    return rc;
}

void ks_h5_array_free(ks_h5_array *a)
{
    free(a->dirty);
    *a = (ks_h5_array){0};
}
