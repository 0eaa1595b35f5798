#include "fake_hdf5.h"

#include "fuzz.h"

#include <float.h>
#include <hdf5.h>
#include <math.h>
#include <string.h>

/* ---- the file ---- */

enum { S = 3, T = 4, L = 2, H = 2, K = 5, W = 2, F = 2, N = 3, V = 9, MODELS = 1, SWEEPS = 2 };

/* Members by group; a sweep "a" has neither factors nor heads, "b" has every axis. Types: f g(floats of 8, 4) i(int) u(byte) s(text),
 * v(text of variable length); G a group. An attribute has '@' before its type. */
typedef struct member {
    const char *group, *name, *type, *axes, *text;
} member;

#define SWEEP(group, kind, factor, axes, heads, positions)                                                                            \
    {group, "kind", "@s", "", kind}, {group, "edges", "@v", "", "marker-targets"}, {group, "heads", "@s", "", heads},                 \
        {group, "positions", "@s", "", positions}, {group, "windows", "@s", "", "slide"}, {group, "values", "@f", factor, ""},        \
        {group, "layer_start", "i", "W", ""}, {group, "layer_end", "i", "W", ""}, {group, "edges_removed", "i", "S", ""},             \
        {group, "k", "i", "K", ""}, {group, "kl", "f", axes, ""}, {group, "kl_reverse", "f", axes, ""}, {group, "js", "f", axes, ""}, \
        {group, "tv", "f", axes, ""}, {group, "p_top", "g", axes, ""}, {group, "dlogit_top", "f", axes, ""},                          \
        {group, "top_changed", "u", axes, ""}, {group, "status", "u", axes, ""}, {group, "top_ids", "i", axes "K", ""},               \
        {group, "top_p_baseline", "f", axes "K", ""}, {group, "top_p_ablated", "f", axes "K", ""},                                    \
        {group, "kl_positions", "f", axes "T", ""}, {group, "p_next_positions", "f", axes "T", ""},                                   \
    {                                                                                                                                 \
        group, "dlogit_next_positions", "f", axes "T", ""                                                                             \
    }

static const member members[] = {
    {"/", "schema", "@s", "", "kosweep-1"},
    {"/", "config", "@s", "", FAKE_HDF5_CONFIG},
    {"/", "corpus_sha256", "@s", "", "ab"},
    {"/", "provenance", "G", "", ""},
    {"provenance", "time", "@s", "", "2025-01-01"},
    {"provenance", "host", "@v", "", "host"},
    {"provenance", "command_line", "@v", "", "kosweep run"},
    {"provenance", "history", "@s", "", "one run"},
    {"provenance", "ranks", "@i", "", "2"},
    {"/", "models", "G", "", ""},
    {"models", "m", "G", "", ""},
    {"m", "id", "@s", "", "someone/m"},
    {"m", "revision", "@v", "", "main"},
    {"m", "architecture", "@s", "", "llama"},
    {"m", "weight_dtype", "@s", "", "bf16"},
    {"m", "precision", "@s", "", "full"},
    {"m", "n_layers", "@i", "", "2"},
    {"m", "n_heads", "@i", "", "2"},
    {"m", "vocab", "@i", "", "9"},
    {"m", "weights_sha256", "@s", "", "w"},
    {"m", "tokenizer_sha256", "@s", "", "t"},
    {"m", "config_sha256", "@s", "", "c"},
    {"m", "n_kv_heads", "@i", "", "1"},
    {"m", "d_model", "@i", "", "8"},
    {"m", "samples", "G", "", ""},
    {"m", "baseline", "G", "", ""},
    {"m", "attention", "G", "", ""},
    {"m", "top_tokens", "G", "", ""},
    {"m", "sweeps", "G", "", ""},
    {"samples", "id", "s", "S", "s%d"},
    {"samples", "group", "v", "S", "g%d"},
    {"samples", "token", "i", "T", ""},
    {"samples", "n_tokens", "i", "S", "3"},
    {"samples", "marker", "u", "ST", "1"},
    {"samples", "target", "u", "ST", "1"},
    {"samples", "token_text", "v", "ST", " x%d"},
    {"samples", "text", "v", "S", "def f%d"},
    {"samples", "token_ids", "i", "ST", "7"},
    {"baseline", "floor", "f", "S", ""},
    {"baseline", "entropy", "g", "S", ""},
    {"baseline", "k", "i", "K", ""},
    {"baseline", "top_ids", "i", "SK", ""},
    {"baseline", "top_p", "f", "SK", ""},
    {"baseline", "status", "u", "S", "1"},
    {"baseline", "logits", "g", "SV", ""},
    {"attention", "strength", "f", "LS", ""},
    {"attention", "by_head", "g", "LHS", ""},
    {"attention", "uniform", "f", "S", ""},
    {"top_tokens", "id", "i", "N", ""},
    {"top_tokens", "text", "s", "N", "t%d"},
    {"sweeps", "a", "G", "", ""},
    {"sweeps", "b", "G", "", ""},
    SWEEP("a", "knockout", "", "WS", "all", "last"),
    SWEEP("b", "scale", "F", "FWHS", "each", "all"),
};
enum { MEMBERS = sizeof members / sizeof *members };
_Static_assert(MEMBERS <= 256, "a deviation names a member by a byte");

typedef struct deviation {
    uint8_t what, member;
    uint16_t place, value;
} deviation;

static const uint8_t *input;
static size_t n_deviations, n_calls;

static deviation deviation_at(size_t i)
{
    const uint8_t *p = input + 6 * i;
    return (deviation){p[0] % FAKE_WHATS, p[1] % MEMBERS, (uint16_t)(p[2] | p[3] << 8), (uint16_t)(p[4] | p[5] << 8)};
}

/* The last deviation of that kind for a member. */
static bool deviates(int what, int m, deviation *out)
{
    bool found = false;
    for (size_t i = 0; i < n_deviations; i++) {
        const deviation d = deviation_at(i);
        if (d.what != what || d.member != m) continue;
        *out = d;
        found = true;
    }
    return found;
}

static bool fails(void)
{
    const size_t call = n_calls++;
    for (size_t i = 0; i < n_deviations; i++) {
        const deviation d = deviation_at(i);
        if (d.what == FAKE_FAIL && d.place == call) return true;
    }
    return false;
}

static uint64_t length_of(uint16_t value)
{
    return value & 0x8000 ? (uint64_t)1 << (value & 63) : value;
}

/* ---- handles: an object's number, from 1 ---- */

enum { OBJECTS = 64 };
enum { FREE, ROOT, GROUP, DATASET, ATTRIBUTE, TYPE, SPACE, LIST };
static struct {
    int kind, member; /* member -1: the root */
} objects[OBJECTS];

static hid_t open_object(int kind, int m)
{
    if (fails()) return -1;
    int i = 1;
    while (i < OBJECTS && objects[i].kind != FREE) i++;
    FUZZ_CHECK(i < OBJECTS);
    objects[i].kind = kind;
    objects[i].member = m;
    return i;
}

static int member_of(hid_t id)
{
    FUZZ_CHECK(id > 0 && id < OBJECTS && objects[id].kind != FREE);
    return objects[id].member;
}

static uint32_t hash_of(const char *group, const char *name, bool attribute)
{
    uint32_t h = attribute;
    while (*group) h = h * 31 + (unsigned char)*group++;
    for (h = h * 31 + '/'; *name; name++) h = h * 31 + (unsigned char)*name;
    return h;
}

/* Most of the time would go into comparing names. */
static int find(hid_t group, const char *name, bool attribute)
{
    static uint32_t hashes[MEMBERS];
    const int at = member_of(group);
    const uint32_t hash = hash_of(at < 0 ? "/" : members[at].name, name, attribute);
    for (int i = 0; i < MEMBERS && !hashes[MEMBERS - 1]; i++)
        hashes[i] = hash_of(members[i].group, members[i].name, members[i].type[0] == '@');
    int i = 0;
    while (i < MEMBERS && hashes[i] != hash) i++;
    return i < MEMBERS ? i : -1;
}

void fake_hdf5_begin(const uint8_t *data, size_t size)
{
    input = data;
    n_deviations = size / 6;
    n_calls = 0;
}

void fake_hdf5_end(void)
{
    for (int i = 1; i < OBJECTS; i++) FUZZ_CHECK(objects[i].kind == FREE);
}

/* ---- types and shapes of members ---- */

static char type_letter(int m)
{
    const char *t = members[m].type;
    return t[0] == '@' ? t[1] : t[0];
}

static bool is_text(int m)
{
    return strchr("sv", type_letter(m)) != NULL;
}

static bool is_variable(int m)
{
    deviation d;
    return deviates(FAKE_VARIABLE, m, &d) ? d.value & 1 : type_letter(m) == 'v';
}

static size_t width_of(int m)
{
    deviation d;
    if (deviates(FAKE_SIZE, m, &d)) return (size_t)length_of(d.value);
    switch (type_letter(m)) {
    case 'u':
        return 1;
    case 'g':
    case 'i':
        return 4;
    case 's':
        return strlen(members[m].text) + 2;
    default:
        return 8;
    }
}

static int shape_of(int m, hsize_t *dims)
{
    static const char letters[] = "STLHKWFNV";
    static const hsize_t lengths[] = {S, T, L, H, K, W, F, N, V};
    deviation d;
    int rank = 0;
    for (const char *a = members[m].axes; *a; a++) dims[rank++] = lengths[strchr(letters, *a) - letters];
    if (deviates(FAKE_RANK, m, &d)) {
        for (const int more = d.value % (H5S_MAX_RANK + 1); rank < more; rank++) dims[rank] = 1;
        rank = d.value % (H5S_MAX_RANK + 1);
    }
    for (size_t i = 0; i < n_deviations && rank; i++) {
        d = deviation_at(i);
        if (d.what == FAKE_LENGTH && d.member == m) dims[d.place % rank] = length_of(d.value);
    }
    return rank;
}

static hsize_t elements_of(int m)
{
    hsize_t dims[H5S_MAX_RANK], n = 1;
    const int rank = shape_of(m, dims);
    for (int i = 0; i < rank; i++)
        if (__builtin_mul_overflow(n, dims[i], &n)) return (hsize_t)1 << 62;
    return !strcmp(members[m].name, "values") && !rank ? 0 : n; /* an empty list */
}

static double special(uint16_t value)
{
    static const double table[] = {NAN, INFINITY, -INFINITY, -0.0, 5e-324, 1e308, -1e308, 1e-170, 0.5, 2147483648.0, -2147483648.0, 1e-300};
    return value & 0x8000 ? table[value % (sizeof table / sizeof *table)] : (double)(value & 0x7fff) - 0x2000;
}

/* The numbers of a member, as HDF5 hands them out: converted to the memory's type, and clipped. */
static void fill_numbers(int m, hsize_t n, hid_t memory, void *out)
{
    const bool ascending = !members[m].text[0] && strstr("token id k layer_start layer_end", members[m].name) != NULL;
    const int constant = members[m].text[0] ? atoi(members[m].text) : 1;
    for (hsize_t i = 0; i < n; i++) {
        if (memory == H5T_NATIVE_DOUBLE_g) ((double *)out)[i] = 1e-3 * (double)(1 + i % 7);
        else if (memory == H5T_NATIVE_FLOAT_g) ((float *)out)[i] = 0.5F;
        else if (memory == H5T_NATIVE_INT32_g) ((int32_t *)out)[i] = ascending ? (int32_t)i : constant;
        else ((uint8_t *)out)[i] = (uint8_t)constant;
    }
    for (size_t i = 0; i < n_deviations && n; i++) {
        const deviation d = deviation_at(i);
        if (d.what != FAKE_VALUE || d.member != m) continue;
        const double x = special(d.value), whole = isnan(x) ? 0 : x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : x;
        if (memory == H5T_NATIVE_DOUBLE_g) ((double *)out)[d.place % n] = x;
        else if (memory == H5T_NATIVE_FLOAT_g) ((float *)out)[d.place % n] = isnan(x) || fabs(x) < FLT_MAX ? (float)x : FLT_MAX;
        else if (memory == H5T_NATIVE_INT32_g) ((int32_t *)out)[d.place % n] = (int32_t)whole;
        else ((uint8_t *)out)[d.place % n] = (uint8_t)(whole < 0 ? 0 : whole > 255 ? 255 : whole);
    }
}

static void fill_texts(int m, hsize_t n, void *out)
{
    const bool variable = is_variable(m);
    const size_t width = variable ? sizeof(char *) : width_of(m);
    const char *pattern = members[m].text, *number = strstr(pattern, "%d");
    for (hsize_t i = 0; i < n; i++) {
        char text[sizeof FAKE_HDF5_CONFIG + 16];
        const int before = (int)(number ? number - pattern : (ptrdiff_t)strlen(pattern));
        const int x = (int)(strcmp(members[m].name, "group") ? i : i / 2);
        const int length = snprintf(text, sizeof text, "%.*s", before, pattern) + (number ? snprintf(text + before, 12, "%d", x) : 0);
        for (size_t k = 0; k < n_deviations; k++) {
            const deviation d = deviation_at(k);
            if (d.what == FAKE_VALUE && d.member == m && d.value / 256 % n == i && length) text[d.place % length] = (char)d.value;
        }
        if (variable) {
            char *copy = NULL;
            if (text[0] != '?') FUZZ_CHECK(copy = strdup(text)); /* HDF5 gives NULL for a text that was never written */
            memcpy((char *)out + i * width, &copy, sizeof copy);
        } else {
            /* Without a NUL where it fills the width. */
            for (size_t k = 0; k < width; k++) ((char *)out)[i * width + k] = k <= (size_t)length ? text[k] : 0;
        }
    }
}

static herr_t read_member(int m, hid_t memory, void *out)
{
    const hsize_t n = elements_of(m);
    const bool numbers = memory >= OBJECTS;
    const size_t width = memory == H5T_NATIVE_DOUBLE_g  ? 8
                         : memory == H5T_NATIVE_INT32_g ? 4
                         : memory == H5T_NATIVE_UINT8_g ? 1
                                                        : width_of(m);
    if (fails() || (width && n > ((hsize_t)1 << 24) / width)) return -1; /* so much is not in the file */
    if (numbers) fill_numbers(m, n, memory, out);
    else fill_texts(m, n, out);
    return 0;
}

/* ---- the library's functions that the reader calls ---- */

hid_t H5T_NATIVE_DOUBLE_g = OBJECTS + 1, H5T_NATIVE_INT32_g = OBJECTS + 2, H5T_NATIVE_UINT8_g = OBJECTS + 3,
      H5T_NATIVE_FLOAT_g = OBJECTS + 4;
hid_t H5P_CLS_FILE_ACCESS_ID_g = OBJECTS + 5;

herr_t H5open(void)
{
    return 0;
}

herr_t H5check_version(unsigned major, unsigned minor, unsigned release)
{
    (void)major, (void)minor, (void)release;
    return 0;
}

herr_t H5Eset_auto2(hid_t stack, H5E_auto2_t function, void *data)
{
    (void)stack, (void)function, (void)data;
    return 0;
}

herr_t H5Ewalk2(hid_t stack, H5E_direction_t direction, H5E_walk2_t function, void *data)
{
    (void)stack, (void)direction, (void)function, (void)data;
    return 0;
}

herr_t H5Eclear2(hid_t stack)
{
    (void)stack;
    return 0;
}

hid_t H5Pcreate(hid_t class)
{
    (void)class;
    return open_object(LIST, -1);
}

herr_t H5Pset_file_locking(hid_t list, hbool_t use, hbool_t ignore)
{
    (void)use, (void)ignore;
    member_of(list);
    return fails() ? -1 : 0;
}

htri_t H5Fis_hdf5(const char *path)
{
    (void)path;
    return fails() ? 0 : 1;
}

hid_t H5Fopen(const char *path, unsigned flags, hid_t access)
{
    (void)path, (void)flags, (void)access;
    return open_object(ROOT, -1);
}

herr_t H5Fclose(hid_t id)
{
    member_of(id);
    objects[id].kind = FREE;
    return fails() ? -1 : 0;
}

int H5Idec_ref(hid_t id)
{
    return H5Fclose(id);
}

htri_t H5Lexists(hid_t group, const char *name, hid_t access)
{
    (void)access;
    deviation d;
    const int m = find(group, name, false);
    if (fails()) return -1;
    return m >= 0 && !deviates(FAKE_MISSING, m, &d);
}

htri_t H5Oexists_by_name(hid_t group, const char *name, hid_t access)
{
    (void)access;
    deviation d;
    const int m = find(group, name, false);
    return fails() ? -1 : !deviates(FAKE_DANGLING, m, &d);
}

herr_t H5Oget_info_by_name2(hid_t group, const char *name, H5O_info_t *info, unsigned fields, hid_t access)
{
    (void)fields, (void)access;
    deviation d;
    const int m = find(group, name, false);
    memset(info, 0, sizeof *info);
    info->type = (type_letter(m) == 'G') != deviates(FAKE_KIND, m, &d) ? H5O_TYPE_GROUP : H5O_TYPE_DATASET;
    return fails() ? -1 : 0;
}

hid_t H5Gopen2(hid_t group, const char *name, hid_t access)
{
    (void)access;
    return open_object(GROUP, find(group, name, false));
}

herr_t H5Gget_info(hid_t group, H5G_info_t *info)
{
    deviation d;
    const int m = member_of(group);
    memset(info, 0, sizeof *info);
    info->nlinks = !strcmp(members[m].name, "sweeps") ? SWEEPS : MODELS;
    if (deviates(FAKE_MEMBERS, m, &d)) info->nlinks = length_of(d.value);
    return fails() ? -1 : 0;
}

hid_t H5Gget_create_plist(hid_t group)
{
    return open_object(LIST, member_of(group));
}

herr_t H5Pget_link_creation_order(hid_t list, unsigned *flags)
{
    *flags = member_of(list) % 2 ? H5P_CRT_ORDER_TRACKED : 0;
    return fails() ? -1 : 0;
}

ssize_t H5Lget_name_by_idx(hid_t group, const char *within, H5_index_t by, H5_iter_order_t order, hsize_t n, char *name, size_t size,
                           hid_t access)
{
    (void)within, (void)by, (void)order, (void)access;
    const int m = member_of(group);
    if (fails()) return -1;
    for (int i = 0; i < MEMBERS; i++) {
        if (strcmp(members[i].group, members[m].name) || n--) continue;
        if (name) snprintf(name, size, "%s", members[i].name);
        return (ssize_t)strlen(members[i].name);
    }
    return -1;
}

hid_t H5Dopen2(hid_t group, const char *name, hid_t access)
{
    (void)access;
    return open_object(DATASET, find(group, name, false));
}

hid_t H5Dget_type(hid_t id)
{
    return open_object(TYPE, member_of(id));
}

hid_t H5Dget_space(hid_t id)
{
    return open_object(SPACE, member_of(id));
}

hsize_t H5Dget_storage_size(hid_t id)
{
    deviation d;
    const int m = member_of(id);
    return deviates(FAKE_STORAGE, m, &d) ? length_of(d.value) : elements_of(m) * width_of(m);
}

herr_t H5Dread(hid_t id, hid_t memory, hid_t memory_space, hid_t file_space, hid_t transfer, void *out)
{
    (void)memory_space, (void)file_space, (void)transfer;
    return read_member(member_of(id), memory, out);
}

herr_t H5Dvlen_reclaim(hid_t type, hid_t space, hid_t transfer, void *buffer)
{
    (void)transfer;
    FUZZ_CHECK(member_of(type) == member_of(space));
    for (hsize_t i = 0; i < elements_of(member_of(space)); i++) free(((char **)buffer)[i]);
    return 0;
}

H5T_class_t H5Tget_class(hid_t type)
{
    deviation d;
    const int m = member_of(type);
    if (fails()) return H5T_NO_CLASS;
    if (deviates(FAKE_CLASS, m, &d)) return (H5T_class_t)(d.value % H5T_NCLASSES);
    return is_text(m) ? H5T_STRING : strchr("fg", type_letter(m)) ? H5T_FLOAT : H5T_INTEGER;
}

size_t H5Tget_size(hid_t type)
{
    if (type == H5T_NATIVE_DOUBLE_g) return 8;
    if (type == H5T_NATIVE_INT32_g || type == H5T_NATIVE_FLOAT_g) return 4;
    if (type == H5T_NATIVE_UINT8_g) return 1;
    return fails() ? 0 : width_of(member_of(type));
}

htri_t H5Tis_variable_str(hid_t type)
{
    return fails() ? -1 : is_variable(member_of(type));
}

int H5Sget_simple_extent_ndims(hid_t space)
{
    hsize_t dims[H5S_MAX_RANK];
    return fails() ? -1 : shape_of(member_of(space), dims);
}

int H5Sget_simple_extent_dims(hid_t space, hsize_t *dims, hsize_t *max)
{
    (void)max;
    return fails() ? -1 : shape_of(member_of(space), dims);
}

hssize_t H5Sget_simple_extent_npoints(hid_t space)
{
    return fails() ? -1 : (hssize_t)elements_of(member_of(space));
}

htri_t H5Aexists(hid_t group, const char *name)
{
    deviation d;
    const int m = find(group, name, true);
    return fails() ? -1 : m >= 0 && !deviates(FAKE_MISSING, m, &d);
}

hid_t H5Aopen(hid_t group, const char *name, hid_t access)
{
    (void)access;
    return open_object(ATTRIBUTE, find(group, name, true));
}

hid_t H5Aget_type(hid_t id)
{
    return open_object(TYPE, member_of(id));
}

hid_t H5Aget_space(hid_t id)
{
    return open_object(SPACE, member_of(id));
}

herr_t H5Aread(hid_t id, hid_t memory, void *out)
{
    return read_member(member_of(id), memory, out);
}
