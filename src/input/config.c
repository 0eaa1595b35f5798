#include "input/config.h"

#include "base/error.h"
#include "base/json.h"
#include "base/mem.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const ks_kind_names[] = {"knockout", "scale", "set", NULL};
const char *const ks_edges_names[] = {"marker-targets", "all-marker", NULL};
const char *const ks_positions_names[] = {"last", "all", NULL};
const char *const ks_special_names[] = {"tokenizer", "none", NULL};
const char *const ks_marker_names[] = {"first-token", "span", NULL};
const char *const ks_precision_names[] = {"full", "fast", NULL};
const char *const ks_backend_names[] = {"auto", "cpu", "cuda", NULL};
const char *const ks_source_names[] = {"auto", "resident", "streamed", "sharded", NULL};

/* The sweep's name where none is given, by its windows. The command line's scan options use the same. */
static const char *const default_sweep_names[] = {"layers", "slide", "windows", "triangle", "window"};

int ks_config_word(const char *where, const char *word, const char *const *names, int *out)
{
    char known[128] = "";
    for (int i = 0; names[i]; i++) {
        if (!strcmp(word, names[i])) {
            *out = i;
            return KS_OK;
        }
        if (i) strncat(known, ", ", sizeof known - strlen(known) - 1);
        strncat(known, names[i], sizeof known - strlen(known) - 1);
    }
    const char *near = ks_nearest(word, names);
    if (near) return ks_error(KS_EUSAGE, "%s: must be one of %s, found \"%s\"; did you mean \"%s\"?", where, known, word, near);
    return ks_error(KS_EUSAGE, "%s: must be one of %s, found \"%s\"", where, known, word);
}

int ks_config_bytes(const char *where, const char *text, uint64_t *out)
{
    static const char units[] = "KMGT";
    char *end = NULL;
    double x = isdigit((unsigned char)*text) ? strtod(text, &end) : NAN;
    if (end && *end) {
        const char *unit = strchr(units, toupper((unsigned char)*end));
        x = unit && !end[1] ? ldexp(x, 10 * (int)(unit - units + 1)) : (double)NAN;
    }
    if (!(x >= 1 && x <= 0x1p60)) return ks_error(KS_EUSAGE, "%s: must be bytes such as 1500000000, 512M or 2G, found \"%s\"", where, text);
    *out = (uint64_t)x;
    return KS_OK;
}

int ks_config_check_name(const char *where, const char *what, const char *name)
{
    const size_t good = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+-");
    if (*name && !name[good] && strcmp(name, ".") != 0 && strcmp(name, "..") != 0) return KS_OK;
    return ks_error(KS_EUSAGE, "%s: %s may hold letters, digits and _ . + - only, found \"%s\"", where, what, name);
}

/* "name" or "organisation/name": also what keeps an id from leaving the hub cache. */
int ks_config_check_id(const char *where, const char *id)
{
    int rc = KS_OK;
    char *part = NULL;
    KS_GET(part, ks_strdup(id));
    char *slash = strchr(part, '/');
    if (slash) *slash = 0;
    if (ks_config_check_name(where, "a model id", part) || (slash && ks_config_check_name(where, "a model id", slash + 1)))
        rc = ks_error(KS_EUSAGE, "%s: a model id is \"name\" or \"organisation/name\", found \"%s\"", where, id);
done:
    free(part);
    return rc;
}

char *ks_config_model_name(const char *path_or_id)
{
    char *copy = ks_strdup(path_or_id), *name = NULL;
    if (!copy) return NULL;
    size_t n = strlen(copy);
    while (n > 1 && copy[n - 1] == '/') copy[--n] = 0;
    const char *slash = strrchr(copy, '/');
    name = ks_strdup(slash && slash[1] ? slash + 1 : copy);
    free(copy);
    return name;
}

int ks_config_set_output(ks_config *c, const char *path)
{
    int rc = KS_OK;
    const size_t n = strlen(path);
    free(c->output);
    free(c->output_json);
    c->output = c->output_json = NULL;
    if (n > 5 && !strcmp(path + n - 5, ".json")) {
        KS_GET(c->output_json, ks_strdup(path));
        KS_GET(c->output, ks_format("%.*s.h5", (int)(n - 5), path));
    } else {
        KS_GET(c->output, ks_strdup(path));
    }
done:
    return rc;
}

int ks_config_new(ks_config **out)
{
    int rc = KS_OK;
    ks_config *c = NULL;
    KS_NEW(c, 1);
    c->floor = true;
    c->ranks = 1;
    c->checkpoint = KS_DEFAULT_CHECKPOINT;
    KS_TRY(ks_config_set_output(c, "results.h5"));
done:
    if (rc) ks_config_free(c);
    else *out = c;
    return rc;
}

/* ---- sweeps ---- */

static int by_head(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

int ks_sweep_finish(ks_sweep *s, const char *where)
{
    int rc = KS_OK;
    if (s->kind == KS_KNOCKOUT)
        KS_REQUIRE(!s->n_values, KS_EUSAGE, "%s: a knockout has no values; they belong to the kinds scale and set", where);
    else KS_REQUIRE(s->n_values, KS_EUSAGE, "%s: the kind %s needs at least one value", where, ks_kind_names[s->kind]);
    for (size_t i = 0; i < s->n_values; i++) {
        const double v = s->values[i];
        if (s->kind == KS_SCALE)
            KS_REQUIRE(isfinite(v) && v >= 0, KS_EUSAGE, "%s: a factor of scale must be finite and at least 0, found %g", where, v);
        else KS_REQUIRE(v >= 0 && v <= 1, KS_EUSAGE, "%s: a weight of set must be from 0 to 1, found %g", where, v);
        for (size_t j = 0; j < i; j++) KS_REQUIRE(s->values[j] != v, KS_EUSAGE, "%s: the value %g stands there twice", where, v);
    }
    if (s->n_heads) qsort(s->head_list, s->n_heads, sizeof *s->head_list, by_head);
    for (size_t i = 1; i < s->n_heads; i++)
        KS_REQUIRE(s->head_list[i] != s->head_list[i - 1], KS_EUSAGE, "%s: the head %d stands there twice", where, (int)s->head_list[i]);
    if (!s->name) KS_GET(s->name, ks_strdup(default_sweep_names[s->windows]));
    KS_TRY(ks_config_check_name(where, "a sweep's name", s->name));
done:
    return rc;
}

int ks_sweep_check_heads(const ks_sweep *s, int32_t H)
{
    if (s->heads == KS_HEADS_LIST && s->head_list[s->n_heads - 1] >= H)
        return ks_error(KS_EUSAGE, "sweep \"%s\": head %d is beyond the model's %d heads (0 to %d)", s->name,
                        (int)s->head_list[s->n_heads - 1], (int)H, (int)H - 1);
    return KS_OK;
}

int ks_sweep_windows(const ks_sweep *s, int32_t L, ks_window **out, size_t *n)
{
    int rc = KS_OK;
    ks_window *w = NULL;
    const size_t layers = (size_t)L;
    size_t count = 0;
    switch (s->windows) {
    case KS_WINDOWS_EACH_LAYER:
        KS_NEW(w, layers);
        for (int32_t l = 0; l < L; l++) w[count++] = (ks_window){l, l};
        break;
    case KS_WINDOWS_SLIDE:
        KS_REQUIRE(s->slide <= L, KS_EUSAGE, "sweep \"%s\": a window of %d layers is longer than the model's %d layers", s->name,
                   (int)s->slide, (int)L);
        KS_NEW(w, layers);
        for (int32_t l = 0; l + s->slide <= L; l++) w[count++] = (ks_window){l, l + s->slide - 1};
        break;
    case KS_WINDOWS_AROUND:
        KS_REQUIRE(s->center < L, KS_EUSAGE, "sweep \"%s\": the center layer %d is beyond the model's %d layers (0 to %d)", s->name,
                   (int)s->center, (int)L, (int)L - 1);
        KS_NEW(w, s->max_radius + 1);
        for (int32_t r = 0; r <= s->max_radius; r++)
            w[count++] = (ks_window){r < s->center ? s->center - r : 0, r < L - 1 - s->center ? s->center + r : L - 1};
        break;
    case KS_WINDOWS_ALL:
        KS_NEW(w, layers * (layers + 1) / 2);
        for (int32_t a = 0; a < L; a++)
            for (int32_t b = a; b < L; b++) w[count++] = (ks_window){a, b};
        break;
    default:
        KS_NEW(w, s->n_list);
        for (size_t i = 0; i < s->n_list; i++) {
            KS_REQUIRE(s->list[i].b < L, KS_EUSAGE, "sweep \"%s\": the window [%d, %d] is beyond the model's %d layers (0 to %d)", s->name,
                       (int)s->list[i].a, (int)s->list[i].b, (int)L, (int)L - 1);
            w[count++] = s->list[i];
        }
    }
    *out = w;
    *n = count;
    w = NULL;
done:
    free(w);
    return rc;
}

/* ---- reading JSON ---- */

static int read_word(const ks_json_ctx *ctx, const cJSON *obj, const char *key, const char *const *names, int *out)
{
    int rc = KS_OK;
    const char *word = NULL;
    char *where = NULL;
    KS_TRY(ks_json_string(ctx, obj, key, false, &word));
    if (word) {
        KS_GET(where, ks_format("%s: \"%s\"", ctx->where, key));
        KS_TRY(ks_config_word(where, word, names, out));
    }
done:
    free(where);
    return rc;
}

/* *out stays as it is where the key is missing; an empty string is an error. */
static int read_text(const ks_json_ctx *ctx, const cJSON *obj, const char *key, char **out)
{
    int rc = KS_OK;
    const char *text = NULL;
    KS_TRY(ks_json_string(ctx, obj, key, false, &text));
    if (text) {
        KS_REQUIRE(*text, KS_EUSAGE, "%s: \"%s\" is empty", ctx->where, key);
        free(*out);
        KS_GET(*out, ks_strdup(text));
    }
done:
    return rc;
}

/* Elements of a non-empty array, 0 where the key is missing. */
static int array_size(const ks_json_ctx *ctx, const cJSON *array, const char *key, size_t *n)
{
    *n = 0;
    if (!array) return KS_OK;
    if (!cJSON_IsArray(array)) return ks_error(KS_EUSAGE, "%s: \"%s\" must be an array, found %s", ctx->where, key, ks_json_kind(array));
    if (!array->child) return ks_error(KS_EUSAGE, "%s: \"%s\" is empty", ctx->where, key);
    for (const cJSON *e = array->child; e; e = e->next) ++*n;
    return KS_OK;
}

static int read_texts(const ks_json_ctx *ctx, const cJSON *obj, const char *key, char ***out, size_t *n)
{
    int rc = KS_OK;
    size_t count = 0;
    const cJSON *array = cJSON_GetObjectItemCaseSensitive(obj, key);
    KS_TRY(array_size(ctx, array, key, &count));
    if (!count) goto done;
    KS_NEW(*out, count);
    for (const cJSON *e = array->child; e; e = e->next) {
        KS_REQUIRE(cJSON_IsString(e) && *e->valuestring, KS_EUSAGE, "%s: \"%s\"[%zu] must be a string that is not empty, found %s",
                   ctx->where, key, *n, cJSON_IsString(e) ? "an empty one" : ks_json_kind(e));
        for (size_t i = 0; i < *n; i++)
            KS_REQUIRE(strcmp((*out)[i], e->valuestring) != 0, KS_EUSAGE, "%s: \"%s\" holds \"%s\" twice", ctx->where, key, e->valuestring);
        KS_GET((*out)[*n], ks_strdup(e->valuestring));
        ++*n;
    }
done:
    return rc;
}

static bool is_layer(const cJSON *v)
{
    return cJSON_IsNumber(v) && v->valuedouble == floor(v->valuedouble) && v->valuedouble >= 0 && v->valuedouble < INT32_MAX;
}

static int read_windows(const char *where, const cJSON *v, ks_sweep *s)
{
    static const char *const words[] = {"each-layer", "all", NULL};
    static const char *const keys[] = {"slide", "center", "max_radius", NULL};
    int rc = KS_OK;
    char *inside = NULL;
    KS_GET(inside, ks_format("%s: \"windows\"", where));
    if (!v) {
        s->windows = KS_WINDOWS_EACH_LAYER;
    } else if (cJSON_IsString(v)) {
        int word = 0;
        KS_TRY(ks_config_word(inside, v->valuestring, words, &word));
        s->windows = word ? KS_WINDOWS_ALL : KS_WINDOWS_EACH_LAYER;
    } else if (cJSON_IsObject(v)) {
        const ks_json_ctx ctx = {KS_EUSAGE, inside};
        int64_t slide = 0, center = -1, radius = -1;
        KS_TRY(ks_json_known_keys(v, keys, KS_EUSAGE, inside));
        KS_TRY(ks_json_int(&ctx, v, "slide", false, 1, INT32_MAX, &slide));
        KS_TRY(ks_json_int(&ctx, v, "center", false, 0, INT32_MAX - 1, &center));
        KS_TRY(ks_json_int(&ctx, v, "max_radius", false, 0, KS_MAX_RADIUS, &radius));
        KS_REQUIRE((slide > 0) != (center >= 0) && (center >= 0 || radius < 0), KS_EUSAGE,
                   "%s: must be {\"slide\": W} or {\"center\": C, \"max_radius\": R}", inside);
        s->windows = slide ? KS_WINDOWS_SLIDE : KS_WINDOWS_AROUND;
        s->slide = (int32_t)slide;
        if (!slide) {
            s->center = (int32_t)center;
            s->max_radius = radius < 0 ? KS_DEFAULT_RADIUS : (int32_t)radius;
        }
    } else {
        size_t count = 0;
        KS_REQUIRE(cJSON_IsArray(v), KS_EUSAGE, "%s: must be \"each-layer\", \"all\", an object or a list of [first, last], found %s",
                   inside, ks_json_kind(v));
        KS_TRY(array_size(&(ks_json_ctx){KS_EUSAGE, where}, v, "windows", &count));
        s->windows = KS_WINDOWS_LIST;
        KS_NEW(s->list, count);
        for (const cJSON *e = v->child; e; e = e->next) {
            const cJSON *a = cJSON_IsArray(e) ? e->child : NULL, *b = a ? a->next : NULL;
            KS_REQUIRE(b && !b->next && is_layer(a) && is_layer(b), KS_EUSAGE, "%s[%zu]: a window is [first layer, last layer]", inside,
                       s->n_list);
            KS_REQUIRE(a->valuedouble <= b->valuedouble, KS_EUSAGE, "%s[%zu]: the window [%.0f, %.0f] ends before it begins", inside,
                       s->n_list, a->valuedouble, b->valuedouble);
            s->list[s->n_list++] = (ks_window){(int32_t)a->valuedouble, (int32_t)b->valuedouble};
        }
    }
done:
    free(inside);
    return rc;
}

static int read_heads(const ks_json_ctx *ctx, const cJSON *v, ks_sweep *s)
{
    static const char *const words[] = {"all", "each", NULL};
    int rc = KS_OK;
    char *inside = NULL;
    KS_GET(inside, ks_format("%s: \"heads\"", ctx->where));
    if (!v) goto done;
    if (cJSON_IsString(v)) {
        KS_TRY(ks_config_word(inside, v->valuestring, words, &s->heads));
        goto done;
    }
    KS_REQUIRE(cJSON_IsArray(v), KS_EUSAGE, "%s: must be \"all\", \"each\" or a list of heads, found %s", inside, ks_json_kind(v));
    size_t count = 0;
    KS_TRY(array_size(ctx, v, "heads", &count));
    s->heads = KS_HEADS_LIST;
    KS_NEW(s->head_list, count);
    for (const cJSON *e = v->child; e; e = e->next) {
        KS_REQUIRE(is_layer(e), KS_EUSAGE, "%s[%zu]: a head is a whole number from 0", inside, s->n_heads);
        s->head_list[s->n_heads++] = (int32_t)e->valuedouble;
    }
done:
    free(inside);
    return rc;
}

static int read_sweep(const char *where, const cJSON *obj, ks_sweep *s)
{
    static const char *const keys[] = {"name", "kind", "edges", "heads", "positions", "values", "windows", NULL};
    const ks_json_ctx ctx = {KS_EUSAGE, where};
    int rc = KS_OK;
    size_t count = 0;
    KS_TRY(ks_json_known_keys(obj, keys, KS_EUSAGE, where));
    KS_TRY(read_text(&ctx, obj, "name", &s->name));
    KS_TRY(read_word(&ctx, obj, "kind", ks_kind_names, &s->kind));
    KS_TRY(read_word(&ctx, obj, "edges", ks_edges_names, &s->edges));
    KS_TRY(read_word(&ctx, obj, "positions", ks_positions_names, &s->positions));
    KS_TRY(read_heads(&ctx, cJSON_GetObjectItemCaseSensitive(obj, "heads"), s));
    KS_TRY(read_windows(where, cJSON_GetObjectItemCaseSensitive(obj, "windows"), s));
    const cJSON *values = cJSON_GetObjectItemCaseSensitive(obj, "values");
    KS_TRY(array_size(&ctx, values, "values", &count));
    if (count) {
        KS_NEW(s->values, count);
        for (const cJSON *e = values->child; e; e = e->next) {
            KS_REQUIRE(cJSON_IsNumber(e), KS_EUSAGE, "%s: \"values\"[%zu] must be a number, found %s", where, s->n_values, ks_json_kind(e));
            s->values[s->n_values++] = e->valuedouble;
        }
    }
    KS_TRY(ks_sweep_finish(s, where));
done:
    return rc;
}

/* path, taken from the directory of the file `beside`. NULL with the error text set. */
static char *resolve(const char *path, const char *beside)
{
    const char *slash = strrchr(beside, '/');
    if (path[0] == '/' || !slash) return ks_strdup(path);
    return ks_format("%.*s/%s", (int)(slash - beside), beside, path);
}

static int read_path(const ks_json_ctx *ctx, const cJSON *obj, const char *key, const char *beside, char **out)
{
    int rc = KS_OK;
    char *text = NULL;
    KS_TRY(read_text(ctx, obj, key, &text));
    if (text) {
        free(*out);
        KS_GET(*out, resolve(text, beside));
    }
done:
    free(text);
    return rc;
}

static int read_model(const char *where, const cJSON *obj, const char *beside, ks_model_ref *m)
{
    static const char *const keys[] = {"name", "path", "id", "revision", NULL};
    const ks_json_ctx ctx = {KS_EUSAGE, where};
    int rc = KS_OK;
    KS_TRY(ks_json_known_keys(obj, keys, KS_EUSAGE, where));
    KS_TRY(read_text(&ctx, obj, "name", &m->name));
    KS_TRY(read_path(&ctx, obj, "path", beside, &m->path));
    KS_TRY(read_text(&ctx, obj, "id", &m->id));
    KS_TRY(read_text(&ctx, obj, "revision", &m->revision));
    KS_REQUIRE(!m->path != !m->id, KS_EUSAGE, "%s: a model has either a \"path\" or an \"id\"; this one has %s", where,
               m->id ? "both" : "neither");
    KS_REQUIRE(m->id || !m->revision, KS_EUSAGE, "%s: a \"revision\" belongs to an \"id\", not to a \"path\"", where);
    if (m->id) KS_TRY(ks_config_check_id(where, m->id));
    if (m->id && !m->revision) KS_GET(m->revision, ks_strdup("main"));
    if (!m->name) KS_GET(m->name, ks_config_model_name(m->path ? m->path : m->id));
    KS_TRY(ks_config_check_name(where, "a model's name", m->name));
done:
    return rc;
}

static int read_memory(const ks_json_ctx *ctx, const cJSON *obj, uint64_t *out)
{
    int rc = KS_OK;
    char *where = NULL;
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(obj, "memory");
    if (v && cJSON_IsString(v)) {
        KS_GET(where, ks_format("%s: \"memory\"", ctx->where));
        KS_TRY(ks_config_bytes(where, v->valuestring, out));
    } else {
        int64_t bytes = (int64_t)*out;
        KS_TRY(ks_json_int(ctx, obj, "memory", false, 0, (int64_t)1 << 53, &bytes));
        *out = (uint64_t)bytes;
    }
done:
    free(where);
    return rc;
}

static int read_config(const cJSON *root, const char *path, ks_config *c)
{
    static const char *const keys[] = {
        "models", "corpus", "groups", "samples", "include_baselines", "special_tokens", "marker", "precision",  "save_logits",
        "floor",  "sweeps", "output", "backend", "weights",           "threads",        "memory", "checkpoint", NULL};
    const ks_json_ctx ctx = {KS_EUSAGE, path};
    int rc = KS_OK;
    char *where = NULL, *output = NULL;
    size_t n = 0;
    int64_t threads = 0, checkpoint = KS_DEFAULT_CHECKPOINT;
    KS_TRY(ks_json_known_keys(root, keys, KS_EUSAGE, path));
    const cJSON *models = cJSON_GetObjectItemCaseSensitive(root, "models"), *sweeps = cJSON_GetObjectItemCaseSensitive(root, "sweeps");
    KS_TRY(array_size(&ctx, models, "models", &n));
    if (n) KS_NEW(c->models, n);
    for (const cJSON *e = n ? models->child : NULL; e; e = e->next) {
        free(where);
        KS_GET(where, ks_format("%s: models[%zu]", path, c->n_models));
        KS_TRY(read_model(where, e, path, &c->models[c->n_models++]));
    }
    KS_TRY(array_size(&ctx, sweeps, "sweeps", &n));
    if (n) KS_NEW(c->sweeps, n);
    for (const cJSON *e = n ? sweeps->child : NULL; e; e = e->next) {
        free(where);
        KS_GET(where, ks_format("%s: sweeps[%zu]", path, c->n_sweeps));
        KS_TRY(read_sweep(where, e, &c->sweeps[c->n_sweeps++]));
    }
    KS_TRY(read_path(&ctx, root, "corpus", path, &c->corpus));
    KS_TRY(read_texts(&ctx, root, "groups", &c->groups, &c->n_groups));
    KS_TRY(read_texts(&ctx, root, "samples", &c->samples, &c->n_samples));
    KS_TRY(ks_json_bool(&ctx, root, "include_baselines", false, &c->include_baselines));
    KS_TRY(read_word(&ctx, root, "special_tokens", ks_special_names, &c->special_tokens));
    KS_TRY(read_word(&ctx, root, "marker", ks_marker_names, &c->marker));
    KS_TRY(read_word(&ctx, root, "precision", ks_precision_names, &c->precision));
    KS_TRY(read_word(&ctx, root, "backend", ks_backend_names, &c->backend));
    KS_TRY(read_word(&ctx, root, "weights", ks_source_names, &c->weights));
    KS_TRY(ks_json_bool(&ctx, root, "save_logits", false, &c->save_logits));
    KS_TRY(ks_json_bool(&ctx, root, "floor", false, &c->floor));
    KS_TRY(ks_json_int(&ctx, root, "threads", false, 0, KS_MAX_THREADS, &threads));
    c->threads = (int)threads;
    KS_TRY(ks_json_int(&ctx, root, "checkpoint", false, 0, KS_MAX_CHECKPOINT, &checkpoint));
    c->checkpoint = (int)checkpoint;
    KS_TRY(read_memory(&ctx, root, &c->memory_bytes));
    KS_TRY(read_path(&ctx, root, "output", path, &output));
    if (output) KS_TRY(ks_config_set_output(c, output));
done:
    free(where);
    free(output);
    return rc;
}

int ks_config_parse(ks_config **out, const char *text, size_t bytes, const char *path)
{
    int rc = KS_OK;
    cJSON *root = NULL;
    ks_config *c = NULL;
    KS_TRY(ks_json_parse(&root, text, bytes, path));
    KS_TRY(ks_config_new(&c));
    KS_TRY(read_config(root, path, c));
    if (!c->n_sweeps) {
        KS_NEW(c->sweeps, 1);
        c->n_sweeps = 1;
        KS_TRY(ks_sweep_finish(&c->sweeps[0], path));
    }
    rc = ks_config_check(c);
    if (rc) rc = ks_error_context(rc, "%s", path);
done:
    cJSON_Delete(root);
    if (rc) ks_config_free(c);
    else *out = c;
    return rc == KS_EINPUT ? KS_EUSAGE : rc; /* a damaged configuration is a matter of usage */
}

int ks_config_load(ks_config **out, const char *path)
{
    int rc = KS_OK;
    char *text = NULL;
    size_t bytes = 0;
    KS_TRY(ks_file_read(&text, &bytes, path));
    KS_TRY(ks_config_parse(out, text, bytes, path));
done:
    free(text);
    return rc == KS_EINPUT ? KS_EUSAGE : rc;
}

int ks_config_check(const ks_config *c)
{
    for (size_t i = 0; i < c->n_models; i++)
        for (size_t j = 0; j < i; j++)
            if (!strcmp(c->models[i].name, c->models[j].name))
                return ks_error(KS_EUSAGE, "two models have the name \"%s\"; give one of them a \"name\" of its own", c->models[i].name);
    for (size_t i = 0; i < c->n_sweeps; i++)
        for (size_t j = 0; j < i; j++)
            if (!strcmp(c->sweeps[i].name, c->sweeps[j].name))
                return ks_error(KS_EUSAGE, "two sweeps have the name \"%s\"; names of sweeps differ", c->sweeps[i].name);
    return KS_OK;
}

void ks_model_ref_clear(ks_model_ref *m)
{
    free(m->name);
    free(m->path);
    free(m->id);
    free(m->revision);
    *m = (ks_model_ref){0};
}

void ks_sweep_clear(ks_sweep *s)
{
    free(s->name);
    free(s->values);
    free(s->head_list);
    free(s->list);
    *s = (ks_sweep){0};
}

void ks_config_free(ks_config *c)
{
    if (!c) return;
    for (size_t i = 0; i < c->n_models; i++) ks_model_ref_clear(&c->models[i]);
    for (size_t i = 0; i < c->n_sweeps; i++) ks_sweep_clear(&c->sweeps[i]);
    for (size_t i = 0; i < c->n_groups; i++) free(c->groups[i]);
    for (size_t i = 0; i < c->n_samples; i++) free(c->samples[i]);
    free(c->models);
    free(c->sweeps);
    free(c->groups);
    free(c->samples);
    free(c->corpus);
    free(c->output);
    free(c->output_json);
    free(c->texts);
    free(c->device);
    free(c);
}

/* ---- writing JSON ---- */

static cJSON *texts_json(char *const *texts, size_t n)
{
    if (!n) return cJSON_CreateNull();
    return cJSON_CreateStringArray((const char *const *)texts, (int)n);
}

static cJSON *windows_json(const ks_sweep *s)
{
    if (s->windows == KS_WINDOWS_EACH_LAYER) return cJSON_CreateString("each-layer");
    if (s->windows == KS_WINDOWS_ALL) return cJSON_CreateString("all");
    cJSON *v = s->windows == KS_WINDOWS_LIST ? cJSON_CreateArray() : cJSON_CreateObject();
    if (s->windows == KS_WINDOWS_SLIDE) cJSON_AddNumberToObject(v, "slide", s->slide);
    if (s->windows == KS_WINDOWS_AROUND) {
        cJSON_AddNumberToObject(v, "center", s->center);
        cJSON_AddNumberToObject(v, "max_radius", s->max_radius);
    }
    for (size_t i = 0; s->windows == KS_WINDOWS_LIST && i < s->n_list; i++)
        cJSON_AddItemToArray(v, cJSON_CreateIntArray((const int[]){s->list[i].a, s->list[i].b}, 2));
    return v;
}

static cJSON *sweep_json(const ks_sweep *s)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "name", s->name);
    cJSON_AddStringToObject(o, "kind", ks_kind_names[s->kind]);
    if (s->n_values) cJSON_AddItemToObject(o, "values", cJSON_CreateDoubleArray(s->values, (int)s->n_values));
    cJSON_AddStringToObject(o, "edges", ks_edges_names[s->edges]);
    if (s->heads == KS_HEADS_LIST) cJSON_AddItemToObject(o, "heads", cJSON_CreateIntArray(s->head_list, (int)s->n_heads));
    else cJSON_AddStringToObject(o, "heads", s->heads == KS_HEADS_EACH ? "each" : "all");
    cJSON_AddStringToObject(o, "positions", ks_positions_names[s->positions]);
    cJSON_AddItemToObject(o, "windows", windows_json(s));
    return o;
}

char *ks_config_json(const ks_config *c)
{
    cJSON *root = cJSON_CreateObject(), *models = cJSON_AddArrayToObject(root, "models");
    for (size_t i = 0; i < c->n_models; i++) {
        cJSON *m = cJSON_CreateObject();
        cJSON_AddStringToObject(m, "name", c->models[i].name);
        if (c->models[i].id) {
            cJSON_AddStringToObject(m, "id", c->models[i].id);
            cJSON_AddStringToObject(m, "revision", c->models[i].revision);
        }
        cJSON_AddItemToArray(models, m);
    }
    cJSON_AddItemToObject(root, "groups", texts_json(c->groups, c->n_groups));
    cJSON_AddItemToObject(root, "samples", texts_json(c->samples, c->n_samples));
    cJSON_AddBoolToObject(root, "include_baselines", c->include_baselines);
    cJSON_AddStringToObject(root, "special_tokens", ks_special_names[c->special_tokens]);
    cJSON_AddStringToObject(root, "marker", ks_marker_names[c->marker]);
    cJSON_AddStringToObject(root, "precision", ks_precision_names[c->precision]);
    cJSON_AddBoolToObject(root, "save_logits", c->save_logits);
    cJSON_AddBoolToObject(root, "floor", c->floor);
    cJSON *sweeps = cJSON_AddArrayToObject(root, "sweeps");
    for (size_t i = 0; i < c->n_sweeps; i++) cJSON_AddItemToArray(sweeps, sweep_json(&c->sweeps[i]));
    char *text = cJSON_PrintUnformatted(root), *copy = NULL;
    if (text) copy = ks_strdup(text);
    else ks_error(KS_EMACHINE, "no memory for the configuration's JSON");
    cJSON_free(text);
    cJSON_Delete(root);
    return copy;
}
