#include "base/json.h"

#include "base/error.h"
#include "base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int ks_file_read(char **out, size_t *bytes, const char *path)
{
    int rc = KS_OK;
    char *text = NULL;
    struct stat st;
    FILE *f = fopen(path, "rb");
    KS_REQUIRE(f, KS_EINPUT, "%s: cannot be opened: %s", path, strerror(errno));
    KS_REQUIRE(fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode), KS_EINPUT, "%s: not a regular file", path);
    const size_t n = (size_t)st.st_size;
    KS_NEW(text, n + 1);
    KS_REQUIRE(fread(text, 1, n, f) == n, KS_EINPUT, "%s: cannot be read: %s", path, ferror(f) ? strerror(errno) : "it became shorter");
    text[n] = 0;
    *bytes = n;
done:
    if (f) fclose(f);
    if (rc) free(text);
    else *out = text;
    return rc;
}

/* Does a string or a bracket stay open? */
static bool unclosed(const char *text, const char *end)
{
    bool quoted = false;
    long depth = 0;
    for (const char *p = text; p < end; p++) {
        if (quoted && *p == '\\') p++;
        else if (*p == '"') quoted = !quoted;
        else if (!quoted) depth += (*p == '{' || *p == '[') - (*p == '}' || *p == ']');
    }
    return quoted || depth > 0;
}

/* cJSON ends a string at U+0000 without a word, so two different strings would look alike. */
static int refuse_nul(const char *text, size_t bytes, const char *name)
{
    const char *end = text + bytes, *nul = memchr(text, 0, bytes);
    if (nul) return ks_error(KS_EINPUT, "%s: a NUL byte at offset %td; JSON is text", name, nul - text);
    for (const char *p = text; (p = memchr(p, '\\', (size_t)(end - p)));) {
        if (end - p >= 6 && !memcmp(p, "\\u0000", 6))
            return ks_error(KS_EINPUT, "%s: a string holds \\u0000 at byte %td; the character U+0000 is not supported", name, p - text);
        p += end - p > 1 ? 2 : 1; /* the escaped character, too, which may be a backslash itself */
    }
    return KS_OK;
}

int ks_json_parse(cJSON **out, const char *text, size_t bytes, const char *name)
{
    int rc = refuse_nul(text, bytes, name);
    const char *end = NULL;
    if (rc) return rc;
    if (bytes >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) text += 3, bytes -= 3;
    cJSON *root = cJSON_ParseWithLengthOpts(text, bytes, &end, false);
    if (root)
        while (end < text + bytes && *end && strchr(" \t\r\n", *end)) end++;
    if (!root || end != text + bytes) {
        size_t line = 1, column = 1;
        if (!end || end > text + bytes) end = text + bytes;
        /* The parser stops at the last character where it wanted one more. */
        const bool truncated = end == text + bytes || (end + 1 == text + bytes && unclosed(text, text + bytes));
        for (const char *p = text; p < end; p++) {
            column = *p == '\n' ? 1 : column + 1;
            line += *p == '\n';
        }
        rc = ks_error(KS_EINPUT, "%s: not valid JSON at line %zu, column %zu%s", name, line, column,
                      root        ? ": something follows the value"
                      : truncated ? " (the end of the file: is it truncated?)"
                                  : "");
        cJSON_Delete(root);
        return rc;
    }
    *out = root;
    return rc;
}

int ks_json_read(cJSON **out, const char *path)
{
    int rc = KS_OK;
    char *text = NULL;
    size_t bytes = 0;
    KS_TRY(ks_file_read(&text, &bytes, path));
    KS_TRY(ks_json_parse(out, text, bytes, path));
done:
    free(text);
    return rc;
}

/* Four hex digits at p, -1 if they are not. */
static int32_t hex4(const char *p, const char *end)
{
    int32_t x = 0;
    if (end - p < 4) return -1;
    for (int i = 0; i < 4; i++) {
        const char *digits = "0123456789abcdef0123456789ABCDEF", *d = p[i] ? strchr(digits, p[i]) : NULL;
        if (!d) return -1;
        x = x << 4 | (int32_t)((d - digits) & 15);
    }
    return x;
}

/* The escape behind a backslash at *p; moves *p past it. -1 if it is none. */
static int32_t unescape(const char **p, const char *end)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    if (*p == end) return -1;
    const char c = *(*p)++, *name = c ? strchr(names, c) : NULL;
    if (name) return values[name - names];
    int32_t x = c == 'u' ? hex4(*p, end) : -1;
    if (x < 0) return -1;
    *p += 4;
    if (x >> 10 == 0x36) { /* the first of a surrogate pair */
        const int32_t low = end - *p >= 6 && (*p)[0] == '\\' && (*p)[1] == 'u' ? hex4(*p + 2, end) : -1;
        if (low >> 10 != 0x37) return -1;
        *p += 6;
        return 0x10000 + ((x & 0x3ff) << 10 | (low & 0x3ff));
    }
    return x >> 10 == 0x37 ? -1 : x;
}

int ks_json_text(char **out, size_t *bytes, const char *json, size_t json_bytes, const char *name)
{
    int rc = KS_OK;
    const char *p = json, *end = json + json_bytes;
    char *text = NULL;
    size_t n = 0;
    KS_NEW(text, json_bytes + 1);
    while (p < end && strchr(" \t\r\n", *p) && *p) p++;
    KS_REQUIRE(p < end && *p == '"', KS_EINPUT, "%s: expected a JSON string", name);
    for (p++; p < end && *p != '"';) {
        int32_t c = (unsigned char)*p++;
        KS_REQUIRE(c >= 0x20, KS_EINPUT, "%s: a control character in a JSON string, at byte %td", name, p - 1 - json);
        if (c != '\\') {
            text[n++] = (char)c;
            continue;
        }
        c = unescape(&p, end);
        KS_REQUIRE(c >= 0, KS_EINPUT, "%s: a bad escape in a JSON string, before byte %td", name, p - json);
        if (c < 0x80) {
            text[n++] = (char)c;
            continue;
        }
        if (c >= 0x10000) text[n++] = (char)(0xf0 | c >> 18);
        if (c >= 0x800) text[n++] = (char)(c >= 0x10000 ? 0x80 | (c >> 12 & 0x3f) : 0xe0 | c >> 12);
        text[n++] = (char)(c >= 0x800 ? 0x80 | (c >> 6 & 0x3f) : 0xc0 | c >> 6);
        text[n++] = (char)(0x80 | (c & 0x3f));
    }
    KS_REQUIRE(p < end, KS_EINPUT, "%s: a JSON string without an end", name);
    for (p++; p < end && *p && strchr(" \t\r\n", *p);) p++;
    KS_REQUIRE(p == end, KS_EINPUT, "%s: something follows the JSON string, at byte %td", name, p - json);
    text[n] = 0;
    *bytes = n;
done:
    if (rc) free(text);
    else *out = text;
    return rc;
}

const char *ks_json_kind(const cJSON *v)
{
    if (!v) return "nothing";
    if (cJSON_IsObject(v)) return "an object";
    if (cJSON_IsArray(v)) return "an array";
    if (cJSON_IsString(v)) return "a string";
    if (cJSON_IsNumber(v)) return "a number";
    if (cJSON_IsBool(v)) return "true or false";
    return "null";
}

static size_t edit_distance(const char *a, const char *b)
{
    enum { MAX = 64 };
    const size_t n = strlen(a), m = strlen(b);
    if (n >= MAX || m >= MAX) return MAX;
    size_t row[MAX + 1];
    for (size_t j = 0; j <= m; j++) row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            const size_t change = diagonal + (a[i - 1] != b[j - 1]);
            const size_t insert = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);
            diagonal = row[j];
            row[j] = change < insert ? change : insert;
        }
    }
    return row[m];
}

const char *ks_nearest(const char *s, const char *const *names)
{
    const char *best = NULL;
    size_t best_distance = strlen(s) / 2 + 1;
    for (; *names; names++) {
        const size_t d = edit_distance(s, *names);
        if (d < best_distance) {
            best = *names;
            best_distance = d;
        }
    }
    return best;
}

int ks_json_known_keys(const cJSON *obj, const char *const *keys, int code, const char *where)
{
    if (!cJSON_IsObject(obj)) return ks_error(code, "%s: expected an object, found %s", where, ks_json_kind(obj));
    for (const cJSON *item = obj->child; item; item = item->next) {
        if (item->string[0] == '_') continue;
        size_t i = 0;
        while (keys[i] && strcmp(keys[i], item->string)) i++;
        if (keys[i]) continue;
        const char *near = ks_nearest(item->string, keys);
        if (near) return ks_error(code, "%s: unknown key \"%s\"; did you mean \"%s\"?", where, item->string, near);
        return ks_error(code, "%s: unknown key \"%s\"", where, item->string);
    }
    return KS_OK;
}

/* NULL with *rc set when the key is required and missing; NULL with *rc = KS_OK when the default stands. */
static const cJSON *member(const ks_json_ctx *c, const cJSON *obj, const char *key, bool required, int *rc)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(obj, key);
    if (v && cJSON_IsNull(v)) v = NULL;
    *rc = !v && required ? ks_error(c->code, "%s: \"%s\" is missing", c->where, key) : KS_OK;
    return v;
}

static int wrong_kind(const ks_json_ctx *c, const char *key, const char *expected, const cJSON *v)
{
    return ks_error(c->code, "%s: \"%s\" must be %s, found %s", c->where, key, expected, ks_json_kind(v));
}

int ks_json_int(const ks_json_ctx *c, const cJSON *obj, const char *key, bool required, int64_t min, int64_t max, int64_t *out)
{
    int rc;
    const cJSON *v = member(c, obj, key, required, &rc);
    if (!v) return rc;
    if (!cJSON_IsNumber(v)) return wrong_kind(c, key, "a whole number", v);
    const double x = v->valuedouble;
    if (!(fabs(x) <= 9007199254740992.0) || x != floor(x) || x < (double)min || x > (double)max)
        return ks_error(c->code, "%s: \"%s\" must be a whole number from %" PRId64 " to %" PRId64 ", found %g", c->where, key, min, max, x);
    *out = (int64_t)x;
    return KS_OK;
}

int ks_json_number(const ks_json_ctx *c, const cJSON *obj, const char *key, bool required, double *out)
{
    int rc;
    const cJSON *v = member(c, obj, key, required, &rc);
    if (!v) return rc;
    if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble)) return wrong_kind(c, key, "a finite number", v);
    *out = v->valuedouble;
    return KS_OK;
}

int ks_json_bool(const ks_json_ctx *c, const cJSON *obj, const char *key, bool required, bool *out)
{
    int rc;
    const cJSON *v = member(c, obj, key, required, &rc);
    if (!v) return rc;
    if (!cJSON_IsBool(v)) return wrong_kind(c, key, "true or false", v);
    *out = cJSON_IsTrue(v);
    return KS_OK;
}

int ks_json_string(const ks_json_ctx *c, const cJSON *obj, const char *key, bool required, const char **out)
{
    int rc;
    const cJSON *v = member(c, obj, key, required, &rc);
    if (!v) return rc;
    if (!cJSON_IsString(v)) return wrong_kind(c, key, "a string", v);
    *out = v->valuestring;
    return KS_OK;
}
