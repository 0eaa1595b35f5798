/* json.h - JSON files with errors that name file, key, what was expected and what was found. cJSON does the parsing. */
#ifndef KS_BASE_JSON_H
#define KS_BASE_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whole file into a new NUL-terminated buffer; *bytes excludes the NUL. Free with free(). KS_EINPUT names the path. */
int ks_file_read(char **out, size_t *bytes, const char *path);

/* Parses a file. Free with cJSON_Delete. Syntax errors name line and column; bytes after the value and U+0000 are errors. */
int ks_json_read(cJSON **out, const char *path);
int ks_json_parse(cJSON **out, const char *text, size_t bytes, const char *name);

/* The text of one JSON string, quotes included, which may hold U+0000 (cJSON's strings end there). The new buffer ends with a NUL that
 * *bytes excludes; free with free(). KS_EINPUT after `name`: not a string, a lone surrogate, bytes after it. UTF-8 is not checked. */
int ks_json_text(char **out, size_t *bytes, const char *json, size_t json_bytes, const char *name);

/* "an object", "a string", ... for messages. */
const char *ks_json_kind(const cJSON *v);

/* Fails (code) where obj has a key that is not in keys (NULL-terminated), naming it and the nearest known one.
 * Keys that begin with "_" are comments. `where` begins the message, for example "sweep.json: sweeps[2]". */
int ks_json_known_keys(const cJSON *obj, const char *const *keys, int code, const char *where);

/* Typed members. A missing or null key leaves *out as it is (the default) unless required. Wrong types and ranges fail with `code`. */
typedef struct ks_json_ctx {
    int code;          /* KS_EUSAGE for configurations, KS_EINPUT for data */
    const char *where; /* begins every message */
} ks_json_ctx;
int ks_json_int(const ks_json_ctx *c, const cJSON *obj, const char *key, bool required, int64_t min, int64_t max, int64_t *out);
int ks_json_number(const ks_json_ctx *c, const cJSON *obj, const char *key, bool required, double *out);
int ks_json_bool(const ks_json_ctx *c, const cJSON *obj, const char *key, bool required, bool *out);
/* *out points into obj. */
int ks_json_string(const ks_json_ctx *c, const cJSON *obj, const char *key, bool required, const char **out);

/* The member of names (NULL-terminated) nearest to s by edit distance, NULL if none is near. For "did you mean" messages. */
const char *ks_nearest(const char *s, const char *const *names);

#endif
