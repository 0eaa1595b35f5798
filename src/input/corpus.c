#include "input/corpus.h"

#include "base/error.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/sha256.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { EXCERPT = 24 }; /* bytes of text shown in a message */

/* Byte offset of the first byte that is not UTF-8, or -1. */
static int64_t invalid_utf8(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes;) {
        int32_t c;
        const ssize_t n = utf8proc_iterate((const uint8_t *)text + i, (ssize_t)(bytes - i), &c);
        if (n <= 0) return (int64_t)i;
        i += (size_t)n;
    }
    return -1;
}

static bool starts_character(char byte)
{
    return ((unsigned char)byte & 0xc0) != 0x80;
}

size_t *ks_char_offsets(const char *text, size_t bytes, size_t *n)
{
    size_t count = 0;
    for (size_t i = 0; i < bytes; i++) count += starts_character(text[i]);
    size_t *offset = ks_calloc(count + 1, sizeof *offset);
    if (!offset) return NULL;
    size_t k = 0;
    for (size_t i = 0; i < bytes; i++)
        if (starts_character(text[i])) offset[k++] = i;
    offset[k] = bytes;
    *n = count;
    return offset;
}

static int ascending(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* A required, non-empty list of whole numbers in [0, limit); `limit_is` says what the limit is. A set is sorted and holds nothing twice. */
static int read_numbers(const ks_json_ctx *ctx, const cJSON *obj, const char *key, bool set, int64_t limit, const char *limit_is,
                        int64_t **out, size_t *n)
{
    int rc = KS_OK;
    int64_t *v = NULL;
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(obj, key);
    KS_REQUIRE(list, KS_EINPUT, "%s: \"%s\" is missing", ctx->where, key);
    KS_REQUIRE(cJSON_IsArray(list), KS_EINPUT, "%s: \"%s\" must be an array of whole numbers, found %s", ctx->where, key,
               ks_json_kind(list));
    KS_REQUIRE(list->child, KS_EINPUT, "%s: \"%s\" is empty", ctx->where, key);
    size_t count = 0, i = 0;
    for (const cJSON *e = list->child; e; e = e->next) count++;
    KS_NEW(v, count);
    for (const cJSON *e = list->child; e; e = e->next, i++) {
        KS_REQUIRE(cJSON_IsNumber(e), KS_EINPUT, "%s: \"%s\"[%zu] must be a whole number, found %s", ctx->where, key, i, ks_json_kind(e));
        const double x = e->valuedouble;
        KS_REQUIRE(x == floor(x) && x >= 0, KS_EINPUT, "%s: \"%s\"[%zu] must be a whole number from 0, found %g", ctx->where, key, i, x);
        KS_REQUIRE(x < (double)limit, KS_EINPUT, "%s: \"%s\"[%zu] is %.0f, beyond %s (%" PRId64 ")", ctx->where, key, i, x, limit_is,
                   limit);
        v[i] = (int64_t)x;
    }
    if (set) {
        qsort(v, count, sizeof *v, ascending);
        for (i = 1; i < count; i++) KS_REQUIRE(v[i] != v[i - 1], KS_EINPUT, "%s: \"%s\" holds %" PRId64 " twice", ctx->where, key, v[i]);
    }
    *out = v;
    *n = count;
    v = NULL;
done:
    free(v);
    return rc;
}

static int read_numbers32(const ks_json_ctx *ctx, const cJSON *obj, const char *key, bool set, int64_t limit, const char *limit_is,
                          int32_t **out, size_t *n)
{
    int rc = KS_OK;
    int64_t *v = NULL;
    KS_TRY(read_numbers(ctx, obj, key, set, limit, limit_is, &v, n));
    KS_NEW(*out, *n);
    for (size_t i = 0; i < *n; i++) (*out)[i] = (int32_t)v[i];
done:
    free(v);
    return rc;
}

static int refuse_twin_keys(const cJSON *obj, const char *where)
{
    for (const cJSON *a = obj->child; a; a = a->next)
        for (const cJSON *b = a->next; b; b = b->next)
            if (!strcmp(a->string, b->string)) return ks_error(KS_EINPUT, "%s: the key \"%s\" stands there twice", where, a->string);
    return KS_OK;
}

/* Bytes to show of a text: at most EXCERPT, whole characters, up to the end of the line. */
static int excerpt(const char *text)
{
    int n = 0;
    while (text[n] && text[n] != '\n' && n < EXCERPT) n++;
    while (text[n] && !starts_character(text[n])) n--;
    return n;
}

static int read_text_sample(const ks_json_ctx *ctx, const cJSON *obj, ks_corpus_sample *s)
{
    int rc = KS_OK;
    const char *code = NULL, *pattern = NULL;
    size_t *offset = NULL, n_chars = 0;
    KS_TRY(ks_json_string(ctx, obj, "code", true, &code));
    KS_REQUIRE(*code, KS_EINPUT, "%s: \"code\" is empty", ctx->where);
    KS_GET(s->text, ks_strdup(code));
    s->text_bytes = strlen(code);
    KS_GET(offset, ks_char_offsets(s->text, s->text_bytes, &n_chars));

    KS_TRY(ks_json_string(ctx, obj, "marker_pattern", true, &pattern));
    KS_REQUIRE(*pattern, KS_EINPUT, "%s: \"marker_pattern\" is empty", ctx->where);
    KS_GET(s->marker_pattern, ks_strdup(pattern));
    KS_TRY(ks_json_int(ctx, obj, "marker_char_pos", true, 0, INT32_MAX, &s->marker_char));
    KS_REQUIRE((size_t)s->marker_char < n_chars, KS_EINPUT, "%s: \"marker_char_pos\" is %" PRId64 ", beyond the text's %zu characters",
               ctx->where, s->marker_char, n_chars);
    const char *at = s->text + offset[s->marker_char];
    if (strncmp(at, pattern, strlen(pattern)) != 0) {
        const char *found = strstr(s->text, pattern);
        size_t position = 0;
        while (found && offset[position] < (size_t)(found - s->text)) position++;
        if (found)
            rc = ks_error(KS_EINPUT, "%s: the marker \"%s\" is not at character %" PRId64 ": there stands \"%.*s\"; its first place is %zu",
                          ctx->where, pattern, s->marker_char, excerpt(at), at, position);
        else
            rc = ks_error(KS_EINPUT,
                          "%s: the marker \"%s\" is not at character %" PRId64 ": there stands \"%.*s\", and nowhere else in the text",
                          ctx->where, pattern, s->marker_char, excerpt(at), at);
        goto done;
    }
    KS_TRY(
        read_numbers(ctx, obj, "target_char_positions", true, (int64_t)n_chars, "the text's characters", &s->target_chars, &s->n_targets));
done:
    free(offset);
    return rc;
}

static int read_token_sample(const ks_json_ctx *ctx, const cJSON *obj, ks_corpus_sample *s)
{
    int rc = KS_OK;
    s->marker_char = -1;
    KS_TRY(read_numbers32(ctx, obj, "token_ids", false, INT32_MAX, "the largest token id", &s->token_ids, &s->n_tokens));
    const int64_t T = (int64_t)s->n_tokens;
    KS_REQUIRE(T < INT32_MAX, KS_EINPUT, "%s: \"token_ids\" is too long", ctx->where);
    KS_TRY(read_numbers32(ctx, obj, "marker_tokens", true, T, "the sample's tokens", &s->marker_tokens, &s->n_marker_tokens));
    KS_TRY(read_numbers32(ctx, obj, "target_tokens", true, T, "the sample's tokens", &s->target_tokens, &s->n_target_tokens));
done:
    return rc;
}

static int read_sample(const char *path, const char *group, size_t index, const cJSON *obj, ks_corpus_sample *s)
{
    static const char *const text_keys[] = {"id", "code", "marker_char_pos", "marker_pattern", "target_char_positions", NULL};
    static const char *const token_keys[] = {"id", "token_ids", "marker_tokens", "target_tokens", NULL};
    int rc = KS_OK;
    char *where = NULL;
    const char *id = NULL;
    ks_json_ctx ctx = {.code = KS_EINPUT};

    KS_GET(where, ks_format("%s: group \"%s\", sample %zu", path, group, index));
    ctx.where = where;
    KS_REQUIRE(cJSON_IsObject(obj), KS_EINPUT, "%s: a sample is an object, this is %s", where, ks_json_kind(obj));
    KS_TRY(ks_json_string(&ctx, obj, "id", true, &id));
    KS_REQUIRE(*id, KS_EINPUT, "%s: \"id\" is empty", where);
    KS_GET(s->id, ks_strdup(id));
    KS_GET(s->group, ks_strdup(group));

    free(where);
    KS_GET(where, ks_format("%s: group \"%s\", sample \"%s\"", path, group, id));
    ctx.where = where;
    const bool text = cJSON_GetObjectItemCaseSensitive(obj, "code"), tokens = cJSON_GetObjectItemCaseSensitive(obj, "token_ids");
    KS_REQUIRE(!(text && tokens), KS_EINPUT, "%s: has both \"code\" and \"token_ids\"; a sample is one of them", where);
    KS_TRY(ks_json_known_keys(obj, tokens ? token_keys : text_keys, KS_EINPUT, where));
    KS_TRY(refuse_twin_keys(obj, where));
    KS_REQUIRE(text || tokens, KS_EINPUT, "%s: has neither \"code\" nor \"token_ids\"", where);
    KS_TRY(text ? read_text_sample(&ctx, obj, s) : read_token_sample(&ctx, obj, s));
done:
    free(where);
    return rc;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int by_id(const void *a, const void *b)
{
    return strcmp((*(const ks_corpus_sample *const *)a)->id, (*(const ks_corpus_sample *const *)b)->id);
}

static int refuse_twins(const ks_corpus *c)
{
    int rc = KS_OK;
    const ks_corpus_sample **s = NULL;
    const char **g = NULL;
    KS_NEW(g, c->n_groups);
    memcpy(g, c->groups, c->n_groups * sizeof *g);
    qsort(g, c->n_groups, sizeof *g, by_text);
    for (size_t i = 1; i < c->n_groups; i++)
        KS_REQUIRE(strcmp(g[i], g[i - 1]) != 0, KS_EINPUT, "%s: the group \"%s\" stands there twice", c->path, g[i]);
    KS_NEW(s, c->n);
    for (size_t i = 0; i < c->n; i++) s[i] = &c->samples[i];
    qsort(s, c->n, sizeof *s, by_id);
    for (size_t i = 1; i < c->n; i++)
        KS_REQUIRE(strcmp(s[i]->id, s[i - 1]->id) != 0, KS_EINPUT,
                   "%s: the id \"%s\" stands there twice (groups \"%s\" and \"%s\"); ids are unique", c->path, s[i]->id, s[i - 1]->group,
                   s[i]->group);
done:
    free(s);
    free(g);
    return rc;
}

int ks_corpus_parse(ks_corpus **out, const char *data, size_t bytes, const char *path)
{
    int rc = KS_OK;
    ks_corpus *c = NULL;
    cJSON *root = NULL;

    const int64_t bad = invalid_utf8(data, bytes);
    KS_REQUIRE(bad < 0, KS_EINPUT, "%s: not valid UTF-8 at byte %" PRId64, path, bad);
    KS_TRY(ks_json_parse(&root, data, bytes, path));
    KS_REQUIRE(cJSON_IsObject(root), KS_EINPUT, "%s: a corpus is an object of groups, this is %s", path, ks_json_kind(root));
    const cJSON *version = cJSON_GetObjectItemCaseSensitive(root, "_format_version");
    if (version)
        KS_REQUIRE(cJSON_IsString(version) && !strcmp(version->valuestring, "2.0"), KS_EINPUT,
                   "%s: \"_format_version\" must be \"2.0\", found %s", path,
                   cJSON_IsString(version) ? version->valuestring : ks_json_kind(version));

    KS_NEW(c, 1);
    KS_GET(c->path, ks_strdup(path));
    ks_sha256_hex(c->sha256, data, bytes);
    size_t n = 0, n_groups = 0;
    for (const cJSON *g = root->child; g; g = g->next) {
        if (g->string[0] == '_') continue;
        KS_REQUIRE(g->string[0], KS_EINPUT, "%s: a group has an empty name", path);
        KS_REQUIRE(cJSON_IsArray(g), KS_EINPUT, "%s: group \"%s\" must be an array of samples, found %s", path, g->string, ks_json_kind(g));
        KS_REQUIRE(g->child, KS_EINPUT, "%s: group \"%s\" is empty", path, g->string);
        n_groups++;
        for (const cJSON *e = g->child; e; e = e->next) n++;
    }
    KS_REQUIRE(n_groups, KS_EINPUT, "%s: has no group of samples", path);
    KS_NEW(c->groups, n_groups);
    KS_NEW(c->samples, n);
    for (const cJSON *g = root->child; g; g = g->next) {
        if (g->string[0] == '_') continue;
        KS_GET(c->groups[c->n_groups], ks_strdup(g->string));
        c->n_groups++;
        size_t index = 0;
        for (const cJSON *e = g->child; e; e = e->next, index++) {
            c->n++; /* first, so that a sample that fails halfway is freed */
            KS_TRY(read_sample(path, g->string, index, e, &c->samples[c->n - 1]));
        }
    }
    KS_TRY(refuse_twins(c));
done:
    cJSON_Delete(root);
    if (rc) ks_corpus_free(c);
    else *out = c;
    return rc;
}

int ks_corpus_load(ks_corpus **out, const char *path)
{
    int rc = KS_OK;
    char *data = NULL;
    size_t bytes = 0;
    KS_TRY(ks_file_read(&data, &bytes, path));
    KS_TRY(ks_corpus_parse(out, data, bytes, path));
done:
    free(data);
    return rc;
}

void ks_corpus_free(ks_corpus *c)
{
    if (!c) return;
    for (size_t i = 0; i < c->n; i++) {
        ks_corpus_sample *s = &c->samples[i];
        free(s->id);
        free(s->group);
        free(s->text);
        free(s->marker_pattern);
        free(s->target_chars);
        free(s->token_ids);
        free(s->marker_tokens);
        free(s->target_tokens);
    }
    for (size_t i = 0; i < c->n_groups; i++) free(c->groups[i]);
    free(c->samples);
    free(c->groups);
    free(c->path);
    free(c);
}
