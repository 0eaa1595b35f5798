/* results_h5.h - the few HDF5 shapes that the result file is made of: named axes (dimension scales), arrays on them, attributes.
 * Private to the results writer. Every function that returns int gives KS_EMACHINE with HDF5's reason. */
#ifndef KS_SWEEP_RESULTS_H5_H
#define KS_SWEEP_RESULTS_H5_H

#include <hdf5.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KS_F64, KS_F32, KS_I32, KS_U8 };

/* A file in memory. */
typedef struct ks_h5_file {
    char *path;     /* for messages */
    hid_t id, text; /* text: the type of variable-length UTF-8 strings, which h5py and xarray read as str */
    char **memory;  /* where HDF5's memory driver keeps the bytes; they move while the file grows */
    hid_t plain;    /* creation properties of all data sets: no time stamps, so that equal runs give equal files */
    hid_t ordered;  /* creation properties of groups: models and sweeps keep the order in which they came */
} ks_h5_file;

/* A group and the axes made in it. Every group has its own scales, so that it opens alone as one data set in xarray. */
enum { KS_H5_AXES = 8 };
typedef struct ks_h5_group {
    ks_h5_file *f;
    hid_t id;
    const char *coordinates; /* names that xarray shall take as coordinates, set on arrays made from then on; or NULL */
    size_t block;            /* arrays made from then on keep so many entries of the axis "sample" together; 0: all of them */
    struct {
        const char *name; /* not owned: a literal */
        hsize_t n;
        hid_t scale;
    } axes[KS_H5_AXES];
    size_t n_axes;
} ks_h5_group;

/* axes: names separated by blanks, outermost first; a name that the group has no axis for is left out. */
typedef struct ks_h5_spec {
    const char *name;
    int type;
    const char *axes, *units; /* units or NULL */
} ks_h5_spec;

/* An array that fills up: NaN, -1 or 0 at first. It has one place in the file for good, and its elements are set there, in the file's
 * memory, without HDF5. All zero where there is no such array.
 * Its elements stand there block by block of samples, in row-major order of its axes within a block; the last block is filled up. */
enum { KS_H5_PAGE = 4096 };
typedef struct ks_h5_array {
    ks_h5_file *f;
    size_t offset, bytes; /* in the file; the offset is a multiple of 8 */
    size_t n;             /* elements, with those that fill the last block up, which keep their first value */
    uint8_t *dirty;       /* [pages of the array] 1: changed since it was last written to the disk */
    bool published;       /* the file on the disk has this array */
} ks_h5_array;

int ks_h5_file_create(ks_h5_file *f, const char *path);
/* The whole file as bytes, valid until the next call here. */
int ks_h5_file_image(ks_h5_file *f, const void **image, size_t *bytes);
void ks_h5_file_close(ks_h5_file *f);

int ks_h5_group_create(ks_h5_group *g, ks_h5_group *parent, const char *name);
/* The same, and a group of that name goes first. */
int ks_h5_group_replace(ks_h5_group *g, ks_h5_group *parent, const char *name);
void ks_h5_group_close(ks_h5_group *g);

/* Axes: 0..n-1, given values, or names. */
int ks_h5_index_axis(ks_h5_group *g, const char *name, size_t n);
int ks_h5_double_axis(ks_h5_group *g, const char *name, size_t n, const double *values);
int ks_h5_string_axis(ks_h5_group *g, const char *name, size_t n, const char *const *values);

/* Arrays written once, now. Strings that are NULL count as ""; bytes that are not UTF-8 become U+FFFD. */
int ks_h5_put(ks_h5_group *g, const ks_h5_spec *spec, const void *data);
int ks_h5_put_strings(ks_h5_group *g, const char *name, const char *axes, const char *const *data);

/* Arrays that fill up. */
int ks_h5_array_create(ks_h5_array *a, ks_h5_group *g, const ks_h5_spec *spec);
void ks_h5_array_free(ks_h5_array *a);

static inline const void *ks_h5_array_data(const ks_h5_array *a)
{
    return *a->f->memory + a->offset;
}

/* The array's bytes from `at` on, of which the caller is about to change so many. Valid until the file grows. */
static inline void *ks_h5_array_touch(ks_h5_array *a, size_t at, size_t bytes)
{
    for (size_t page = at / KS_H5_PAGE; page <= (at + bytes - 1) / KS_H5_PAGE; page++) a->dirty[page] = 1;
    return *a->f->memory + a->offset + at;
}

/* Attributes. */
int ks_h5_put_text(ks_h5_group *g, const char *name, const char *value);
int ks_h5_put_int(ks_h5_group *g, const char *name, int32_t value);
int ks_h5_put_int64(ks_h5_group *g, const char *name, int64_t value);
int ks_h5_put_doubles(ks_h5_group *g, const char *name, const double *values, size_t n);

#endif
