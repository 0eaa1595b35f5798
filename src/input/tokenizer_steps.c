/* Normalizers and pre-tokenizers. Both kinds of a file become one flat list of five simple steps:
 *   ByteLevel = prepend a space unless there + split by its pattern + rewrite in the byte-level alphabet
 *   Metaspace = replace spaces + prepend unless there + split before each
 *   Digits    = split around numbers */
#include "input/tokenizer_parts.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { NORMAL_FORM, LOWERCASE, PREPEND, REPLACE, SPLIT, BYTE_LEVEL };
enum { ISOLATED, REMOVED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };
enum { MAX_DEPTH = 16 };

typedef struct step {
    int kind;
    int form;            /* NORMAL_FORM */
    char *text;          /* PREPEND, REPLACE: what is put there */
    bool unless_there;   /* PREPEND: not where the split begins with text */
    bool only_at_start;  /* PREPEND: only where the split begins with the source's first character */
    ks_tok_regex *regex; /* REPLACE, SPLIT */
    int behaviour;       /* SPLIT */
    bool invert;         /* SPLIT: what lies between the matches counts as a match */
} step;

struct ks_tok_steps {
    size_t n, capacity;
    step *list; /* [n] */
    bool byte_level;
};

/* ---- the byte-level alphabet: bytes that print stand for themselves, the others follow from U+0100 on, in order ---- */

static bool prints(int byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
}

static int32_t byte_level_char(int byte)
{
    if (prints(byte)) return byte;
    return byte <= 0x20 ? 0x100 + byte : byte <= 0xa0 ? 0x121 + byte - 0x7f : 0x143;
}

int ks_tok_byte_level_undo(int32_t c)
{
    if (c < 0x100) return prints(c) ? c : -1;
    if (c <= 0x120) return c - 0x100;
    return c <= 0x142 ? c - 0x121 + 0x7f : c == 0x143 ? 0xad : -1;
}

/* ---- loading ---- */

static int append(ks_tok_steps *s, step new)
{
    if (s->n == s->capacity) {
        const size_t capacity = s->capacity * 2 + 4;
        step *list = ks_realloc(s->list, capacity, sizeof *list);
        if (!list) {
            free(new.text);
            ks_tok_regex_free(new.regex);
            return KS_EMACHINE;
        }
        s->list = list;
        s->capacity = capacity;
    }
    s->list[s->n++] = new;
    return KS_OK;
}

static int append_prepend(ks_tok_steps *s, const char *text, bool unless_there, bool only_at_start)
{
    char *copy = ks_strdup(text);
    if (!copy) return KS_EMACHINE;
    return append(s, (step){.kind = PREPEND, .text = copy, .unless_there = unless_there, .only_at_start = only_at_start});
}

static int append_split(ks_tok_steps *s, const char *pattern, bool literal, int behaviour, bool invert, const char *where)
{
    ks_tok_regex *regex = NULL;
    const int rc = ks_tok_regex_new(&regex, pattern, literal, where);
    return rc ? rc : append(s, (step){.kind = SPLIT, .regex = regex, .behaviour = behaviour, .invert = invert});
}

static int append_replace(ks_tok_steps *s, const char *pattern, bool literal, const char *content, const char *where)
{
    ks_tok_regex *regex = NULL;
    char *copy = ks_strdup(content);
    if (!copy) return KS_EMACHINE;
    int rc = ks_tok_regex_new(&regex, pattern, literal, where);
    /* The reference doubles what is put before the first character so. */
    if (!rc && ks_tok_regex_may_be_empty(regex))
        rc = ks_error(KS_EINPUT, "%s: Replace by a pattern that matches nothing is not supported: %s", where, pattern);
    if (rc) {
        ks_tok_regex_free(regex);
        free(copy);
        return rc;
    }
    return append(s, (step){.kind = REPLACE, .regex = regex, .text = copy});
}

/* {"String": text} or {"Regex": pattern} */
static int read_pattern(const cJSON *component, const char *where, const char **pattern, bool *literal)
{
    int rc = KS_OK;
    const cJSON *p = cJSON_GetObjectItemCaseSensitive(component, "pattern");
    const cJSON *only = cJSON_IsObject(p) ? p->child : NULL;
    KS_REQUIRE(only && !only->next && cJSON_IsString(only) && (!strcmp(only->string, "String") || !strcmp(only->string, "Regex")),
               KS_EINPUT, "%s: \"pattern\" must be {\"String\": ...} or {\"Regex\": ...}", where);
    *literal = !strcmp(only->string, "String");
    *pattern = only->valuestring;
done:
    return rc;
}

static int new_normalizer(ks_tok_steps *s, const cJSON *c, const char *type, const char *where)
{
    static const char *const forms[] = {"NFC", "NFD", "NFKC", "NFKD"};
    int rc = KS_OK;
    const ks_json_ctx ctx = {KS_EINPUT, where};
    const char *text = NULL, *pattern = NULL;
    bool literal = false;
    for (int f = 0; f < 4; f++)
        if (!strcmp(type, forms[f])) return append(s, (step){.kind = NORMAL_FORM, .form = f});
    if (!strcmp(type, "Lowercase")) return append(s, (step){.kind = LOWERCASE});
    if (!strcmp(type, "Prepend")) {
        KS_TRY(ks_json_string(&ctx, c, "prepend", true, &text));
        KS_TRY(append_prepend(s, text, false, false));
    } else if (!strcmp(type, "Replace")) {
        KS_TRY(read_pattern(c, where, &pattern, &literal));
        KS_TRY(ks_json_string(&ctx, c, "content", true, &text));
        KS_TRY(append_replace(s, pattern, literal, text, where));
    } else {
        rc = ks_error(KS_EINPUT, "%s: the normalizer %s is not supported", where, type);
    }
done:
    return rc;
}

static int new_split(ks_tok_steps *s, const cJSON *c, const char *where)
{
    static const char *const behaviours[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    int rc = KS_OK, behaviour = 0;
    const ks_json_ctx ctx = {KS_EINPUT, where};
    const char *pattern = NULL, *name = NULL;
    bool literal = false, invert = false;
    KS_TRY(read_pattern(c, where, &pattern, &literal));
    KS_TRY(ks_json_string(&ctx, c, "behavior", true, &name));
    KS_TRY(ks_json_bool(&ctx, c, "invert", false, &invert));
    while (behaviour < 5 && strcmp(name, behaviours[behaviour])) behaviour++;
    KS_REQUIRE(behaviour < 5, KS_EINPUT, "%s: the behavior %s is not known", where, name);
    KS_TRY(append_split(s, pattern, literal, behaviour, invert, where));
done:
    return rc;
}

static int new_metaspace(ks_tok_steps *s, const cJSON *c, const char *where)
{
    int rc = KS_OK;
    const ks_json_ctx ctx = {KS_EINPUT, where};
    const char *mark = NULL, *scheme = NULL;
    bool prefix = true, split = true;
    KS_TRY(ks_json_string(&ctx, c, "replacement", true, &mark));
    KS_REQUIRE(*mark && strlen(mark) == ks_tok_utf8_length(*mark), KS_EINPUT, "%s: \"replacement\" must be one character", where);
    KS_TRY(ks_json_string(&ctx, c, "prepend_scheme", false, &scheme));
    KS_TRY(ks_json_bool(&ctx, c, "add_prefix_space", false, &prefix));
    KS_TRY(ks_json_bool(&ctx, c, "split", false, &split));
    if (!scheme) scheme = prefix ? "always" : "never";
    KS_REQUIRE(!strcmp(scheme, "always") || !strcmp(scheme, "first") || !strcmp(scheme, "never"), KS_EINPUT,
               "%s: the prepend_scheme %s is not known", where, scheme);
    KS_REQUIRE(prefix || !strcmp(scheme, "never"), KS_EINPUT, "%s: \"add_prefix_space\" contradicts the prepend_scheme %s", where, scheme);
    KS_TRY(append_replace(s, " ", true, mark, where));
    if (strcmp(scheme, "never")) KS_TRY(append_prepend(s, mark, true, !strcmp(scheme, "first")));
    if (split) KS_TRY(append_split(s, mark, true, MERGED_WITH_NEXT, false, where));
done:
    return rc;
}

static int new_byte_level(ks_tok_steps *s, const cJSON *c, const char *where)
{
    int rc = KS_OK;
    const ks_json_ctx ctx = {KS_EINPUT, where};
    bool prefix = true, regex = true;
    KS_TRY(ks_json_bool(&ctx, c, "add_prefix_space", true, &prefix));
    KS_TRY(ks_json_bool(&ctx, c, "use_regex", false, &regex));
    if (prefix) KS_TRY(append_prepend(s, " ", true, false));
    if (regex) /* GPT-2's words */
        KS_TRY(append_split(s, "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", false, ISOLATED, false,
                            where));
    KS_TRY(append(s, (step){.kind = BYTE_LEVEL}));
    s->byte_level = true;
done:
    return rc;
}

static int new_pre_tokenizer(ks_tok_steps *s, const cJSON *c, const char *type, const char *where)
{
    int rc = KS_OK;
    if (!strcmp(type, "Split")) return new_split(s, c, where);
    if (!strcmp(type, "ByteLevel")) return new_byte_level(s, c, where);
    if (!strcmp(type, "Metaspace")) return new_metaspace(s, c, where);
    if (!strcmp(type, "Digits")) {
        bool individual = false;
        KS_TRY(ks_json_bool(&(ks_json_ctx){KS_EINPUT, where}, c, "individual_digits", false, &individual));
        KS_TRY(
            append_split(s, "[\\p{N}\\x{11de0}-\\x{11de9}\\x{16ff4}-\\x{16ff6}]", false, individual ? ISOLATED : CONTIGUOUS, false, where));
    } else {
        rc = ks_error(KS_EINPUT, "%s: the pre-tokenizer %s is not supported", where, type);
    }
done:
    return rc;
}

static int new_component(ks_tok_steps *s, const cJSON *c, bool pre_tokenizer, int depth, const char *where)
{
    int rc = KS_OK;
    char *path = NULL;
    const char *type = NULL, *key = pre_tokenizer ? "pretokenizers" : "normalizers";
    const ks_json_ctx ctx = {KS_EINPUT, where};
    KS_REQUIRE(cJSON_IsObject(c), KS_EINPUT, "%s: expected an object, found %s", where, ks_json_kind(c));
    KS_TRY(ks_json_string(&ctx, c, "type", true, &type));
    if (strcmp(type, "Sequence")) return pre_tokenizer ? new_pre_tokenizer(s, c, type, where) : new_normalizer(s, c, type, where);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(c, key);
    KS_REQUIRE(cJSON_IsArray(list), KS_EINPUT, "%s: \"%s\" must be an array, found %s", where, key, ks_json_kind(list));
    KS_REQUIRE(depth < MAX_DEPTH, KS_EINPUT, "%s: sequences are nested deeper than %d", where, MAX_DEPTH);
    int i = 0;
    for (const cJSON *item = list->child; item; item = item->next, i++) {
        KS_GET(path, ks_format("%s.%s[%d]", where, key, i));
        KS_TRY(new_component(s, item, pre_tokenizer, depth + 1, path));
        free(path);
        path = NULL;
    }
done:
    free(path);
    return rc;
}

int ks_tok_steps_new(ks_tok_steps **out, const cJSON *component, bool pre_tokenizer, const char *where)
{
    int rc = KS_OK;
    ks_tok_steps *s = NULL;
    KS_NEW(s, 1);
    if (component && !cJSON_IsNull(component)) KS_TRY(new_component(s, component, pre_tokenizer, 0, where));
done:
    if (rc) ks_tok_steps_free(s);
    else *out = s;
    return rc;
}

void ks_tok_steps_free(ks_tok_steps *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->n; i++) {
        free(s->list[i].text);
        ks_tok_regex_free(s->list[i].regex);
    }
    free(s->list);
    free(s);
}

bool ks_tok_steps_byte_level(const ks_tok_steps *s)
{
    return s->byte_level;
}

/* ---- running ---- */

static void prepend(const step *p, ks_tok_text *out, const ks_tok_text *in, const ks_tok_split *w)
{
    const size_t n = strlen(p->text);
    const bool there = p->unless_there && w->end - w->begin >= n && !memcmp(in->bytes + w->begin, p->text, n);
    if (!there && (!p->only_at_start || in->from[w->begin] == 0)) ks_tok_text_append(out, p->text, n, in->from[w->begin], in->to[w->begin]);
    ks_tok_text_copy(out, in, w->begin, w->end);
}

static int replace(const step *p, ks_tok_scan *scan, ks_tok_text *out, const ks_tok_text *in, const ks_tok_split *w)
{
    int rc = KS_OK;
    const size_t n = strlen(p->text);
    size_t last = w->begin, begin = 0, end = 0;
    bool found = false;
    KS_TRY(ks_tok_scan_start(scan, in->bytes + w->begin, w->end - w->begin));
    for (;;) {
        KS_TRY(ks_tok_scan_next(scan, &found, &begin, &end));
        if (!found) break;
        ks_tok_text_copy(out, in, last, w->begin + begin);
        last = w->begin + end;
        /* The new text stands for the last character of the old. */
        ks_tok_text_append(out, p->text, n, in->from[last - 1], in->to[last - 1]);
    }
    ks_tok_text_copy(out, in, last, w->end);
done:
    return rc;
}

static void byte_level(ks_tok_text *out, const ks_tok_text *in, const ks_tok_split *w)
{
    for (size_t i = w->begin; i < w->end; i++) {
        char c[4];
        const size_t n = ks_tok_utf8_put(c, byte_level_char((unsigned char)in->bytes[i]));
        ks_tok_text_append(out, c, n, in->from[i], in->to[i]);
    }
}

/* The pieces of a split: matches and what lies between, in order, joined as the behaviour says. */
typedef struct joiner {
    const step *p;
    ks_tok_text *out;
    size_t offset;     /* of the split */
    size_t begin, end; /* the piece that may still grow */
    bool open, last_is_match;
} joiner;

static void close_piece(joiner *j)
{
    if (j->open) ks_tok_text_split(j->out, j->offset + j->begin, j->offset + j->end, -1);
    j->open = false;
}

static void add_piece(joiner *j, size_t begin, size_t end, bool match)
{
    match ^= j->p->invert;
    const bool last = j->last_is_match;
    bool joins = false;
    switch (j->p->behaviour) {
    case REMOVED:
        if (match) return;
        break;
    case CONTIGUOUS:
        joins = match == last;
        break;
    case MERGED_WITH_PREVIOUS:
        joins = match && !last;
        break;
    case MERGED_WITH_NEXT: /* read from the right: a match goes to what follows it unless that is a match */
        joins = last && !match;
        break;
    }
    j->last_is_match = match;
    if (joins && j->open) {
        j->end = end;
        return;
    }
    close_piece(j);
    j->begin = begin;
    j->end = end;
    j->open = true;
}

static int split(const step *p, ks_tok_scan *scan, ks_tok_text *out, const ks_tok_text *in, const ks_tok_split *w)
{
    int rc = KS_OK;
    joiner j = {.p = p, .out = out, .offset = out->n};
    size_t last = 0, begin = 0, end = 0;
    bool found = false;
    ks_tok_text_copy(out, in, w->begin, w->end);
    KS_TRY(ks_tok_scan_start(scan, in->bytes + w->begin, w->end - w->begin));
    for (;;) {
        KS_TRY(ks_tok_scan_next(scan, &found, &begin, &end));
        if (!found) break;
        if (begin != last) add_piece(&j, last, begin, false);
        add_piece(&j, begin, end, true);
        last = end;
    }
    if (last != w->end - w->begin) add_piece(&j, last, w->end - w->begin, false);
    close_piece(&j);
done:
    return rc;
}

static int run_step(const step *p, ks_tok_text *out, const ks_tok_text *in)
{
    int rc = KS_OK;
    ks_tok_scan *scan = NULL;
    if (p->regex) KS_TRY(ks_tok_scan_new(&scan, p->regex));
    ks_tok_text_clear(out);
    for (size_t i = 0; i < in->n_splits; i++) {
        const ks_tok_split *w = &in->splits[i];
        const size_t begin = out->n;
        if (w->id >= 0) {
            ks_tok_text_copy(out, in, w->begin, w->end);
        } else {
            switch (p->kind) {
            case NORMAL_FORM:
                KS_TRY(ks_tok_normal_form(out, in, w->begin, w->end, p->form));
                break;
            case LOWERCASE:
                ks_tok_lowercase(out, in, w->begin, w->end);
                break;
            case PREPEND:
                prepend(p, out, in, w);
                break;
            case REPLACE:
                KS_TRY(replace(p, scan, out, in, w));
                break;
            case BYTE_LEVEL:
                byte_level(out, in, w);
                break;
            case SPLIT:
                KS_TRY(split(p, scan, out, in, w));
                continue;
            }
        }
        ks_tok_text_split(out, begin, out->n, w->id);
    }
    rc = out->failed;
done:
    ks_tok_scan_free(scan);
    return rc;
}

int ks_tok_steps_run(const ks_tok_steps *s, ks_tok_text *text, ks_tok_text *spare)
{
    int rc = KS_OK;
    for (size_t i = 0; i < s->n; i++) {
        KS_TRY(run_step(&s->list[i], spare, text));
        const ks_tok_text done_text = *spare;
        *spare = *text;
        *text = done_text;
    }
done:
    return rc;
}
