/* Oniguruma's patterns on PCRE2. Where the two differ, the pattern is rewritten or refused:
 *   \s           White_Space; PCRE2's has U+180E too
 *   \w           alphabetic, marks, decimal digits, connectors; PCRE2's differs by version
 *   \p{Han}      the script; PCRE2's takes script extensions
 *   \v \u0041    U+000B, a code point
 *   {n,m}+ {n}?  repeats of repeats; PCRE2: possessive, lazy                (refused)
 *   [a[b]] &&    sets in sets                                              (refused)
 *   (?m) (?x)    other meanings; (?i) inside a branch                      (refused) */
#include "input/tokenizer_parts.h"

#include "base/mem.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

struct ks_tok_regex {
    pcre2_code *code;
    char *pattern;
    bool classes; /* it may ask for a character's category */
};

struct ks_tok_scan {
    const ks_tok_regex *regex;
    pcre2_match_data *match;
    const char *s;
    size_t n, at, last_end; /* last_end SIZE_MAX before the first match */
    char *older;            /* s with older characters, see scan_start */
};

static const char SPACE[] = "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";
static const char NOT_SPACE[] = "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}"
                                "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}";
/* Latin-1's superscripts and fractions are word characters by Oniguruma's table for single bytes. */
static const char WORD[] = "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}\\x{24b6}-\\x{24e9}"
                           "\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}";

/* The pattern being rewritten. */
typedef struct rewrite {
    const char *in, *where;
    char *out;
    size_t i, n, capacity;
} rewrite;

static int emit(rewrite *w, const char *s, size_t n)
{
    if (w->n + n + 1 > w->capacity) {
        const size_t capacity = (w->n + n) * 2 + 64;
        char *out = ks_realloc(w->out, capacity, 1);
        if (!out) return KS_EMACHINE;
        w->out = out;
        w->capacity = capacity;
    }
    memcpy(w->out + w->n, s, n);
    w->n += n;
    w->out[w->n] = 0;
    return KS_OK;
}

static int emit_text(rewrite *w, const char *s)
{
    return emit(w, s, strlen(s));
}

static int refuse(const rewrite *w, const char *what)
{
    return ks_error(KS_EINPUT, "%s: not supported in a pattern: %s, at byte %zu of %s", w->where, what, w->i, w->in);
}

/* \p{...} or \P{...} at w->i. */
static int property(rewrite *w)
{
    static const char *const categories =
        " L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp C Cc Cf Co Cs Cn ";
    int rc = KS_OK;
    char name[40], key[44], text[64];
    const char *p = w->in + w->i + 2;
    const bool negated = *p == '{' && p[1] == '^';
    size_t n = 0;
    if (*p != '{') return refuse(w, "\\p without braces");
    for (p += 1 + negated; isalnum((unsigned char)*p) || *p == '_' || *p == ' ' || *p == '-'; p++) {
        if (n + 1 >= sizeof name) return refuse(w, "a long property name");
        if (isalnum((unsigned char)*p)) name[n++] = *p;
    }
    if (*p != '}' || !n) return refuse(w, "this property");
    name[n] = 0;
    const bool positive = (w->in[w->i + 1] == 'p') != negated;
    snprintf(key, sizeof key, " %s ", name);
    /* A name that is no category is taken for a script: what is neither does not compile. */
    snprintf(text, sizeof text, "\\%c{%s%s}", positive ? 'p' : 'P', strstr(categories, key) ? "" : "sc:", name);
    KS_TRY(emit_text(w, text));
    w->i = (size_t)(p - w->in) + 1;
done:
    return rc;
}

/* The escape at w->i, inside or outside a set. */
static int escape(rewrite *w, bool in_set)
{
    int rc = KS_OK;
    const char *p = w->in + w->i;
    const char c = p[1];
    char text[16];
    const char *set = NULL;
    bool negative = false;
    switch (c) {
    case 'p':
    case 'P':
        return property(w);
    case 's':
        set = SPACE;
        break;
    case 'S':
        set = in_set ? NOT_SPACE : SPACE;
        negative = !in_set;
        break;
    case 'w':
        set = WORD;
        break;
    case 'W':
        if (in_set) return refuse(w, "\\W in a set");
        set = WORD;
        negative = true;
        break;
    case 'd':
        set = "\\p{Nd}";
        break;
    case 'D':
        set = "\\P{Nd}";
        break;
    case 'v':
        set = "\\x{b}";
        break;
    case 'u': {
        size_t n = 0;
        while (n < 4 && isxdigit((unsigned char)p[2 + n])) n++;
        if (n < 4) return refuse(w, "this \\u");
        snprintf(text, sizeof text, "\\x{%.4s}", p + 2);
        w->i += 6;
        return emit_text(w, text);
    }
    case 'x': {
        size_t n = 2;
        if (p[2] == '{') {
            while (isxdigit((unsigned char)p[1 + n])) n++;
            n = 3;
            while (isxdigit((unsigned char)p[n])) n++;
            if (p[n] != '}' || n == 3) return refuse(w, "this \\x");
            n++;
        } else {
            while (n < 4 && isxdigit((unsigned char)p[n])) n++;
            if (n == 2) return refuse(w, "this \\x");
            if (n == 4 && p[2] >= '8') return refuse(w, "\\x80 and above (a byte in one dialect, a character in the other)");
        }
        KS_TRY(emit(w, p, n));
        w->i += n;
        return rc;
    }
    case 't':
    case 'n':
    case 'r':
    case 'f':
    case 'a':
    case 'e':
        break;
    case 'A':
    case 'z':
    case 'Z':
        if (in_set) return refuse(w, "an anchor in a set");
        break;
    default:
        if (!ispunct((unsigned char)c)) return refuse(w, "this escape");
    }
    if (set) {
        if (!in_set) KS_TRY(emit_text(w, negative ? "[^" : "["));
        KS_TRY(emit_text(w, set));
        if (!in_set) KS_TRY(emit_text(w, "]"));
    } else {
        KS_TRY(emit(w, p, 2));
    }
    w->i += 2;
done:
    return rc;
}

static int set(rewrite *w)
{
    int rc = KS_OK;
    KS_TRY(emit(w, "[", 1));
    w->i++;
    if (w->in[w->i] == '^') {
        KS_TRY(emit(w, "^", 1));
        w->i++;
    }
    if (w->in[w->i] == ']') return refuse(w, "an empty set");
    while (w->in[w->i] != ']') {
        const char *p = w->in + w->i;
        if (!*p) return refuse(w, "a set without an end");
        if (*p == '[') return refuse(w, "a set in a set");
        if (p[0] == '&' && p[1] == '&') return refuse(w, "an intersection of sets");
        if (*p == '\\') {
            KS_TRY(escape(w, true));
        } else {
            KS_TRY(emit(w, p, 1));
            w->i++;
        }
    }
    KS_TRY(emit(w, "]", 1));
    w->i++;
done:
    return rc;
}

static int group(rewrite *w)
{
    static const char *const openings[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", NULL};
    const char *p = w->in + w->i;
    size_t n = 0;
    if (p[1] != '?') n = 1;
    if (p[1] == '*') return refuse(w, "a verb");
    if (w->i == 0 && !strncmp(p, "(?i)", 4)) n = 4;
    for (size_t k = 0; !n && openings[k]; k++)
        if (!strncmp(p, openings[k], strlen(openings[k]))) n = strlen(openings[k]);
    if (!n) return refuse(w, "this group");
    w->i += n;
    return emit(w, p, n);
}

/* {n}, {n,} or {n,m}; another { is itself. */
static int interval(rewrite *w)
{
    const char *p = w->in + w->i + 1;
    if (*p == ',') return refuse(w, "{,m}");
    bool comma = false;
    while (isdigit((unsigned char)*p)) p++;
    if (p > w->in + w->i + 1 && *p == ',') {
        comma = true;
        p++;
        while (isdigit((unsigned char)*p)) p++;
    }
    const size_t n = p > w->in + w->i + 1 && *p == '}' ? (size_t)(p + 1 - (w->in + w->i)) : 0;
    if (!n) {
        w->i++;
        return emit(w, "\\{", 2);
    }
    if (p[1] == '+' || p[1] == '*' || (p[1] == '?' && !comma)) return refuse(w, "a repeated repeat");
    const int rc = emit(w, w->in + w->i, n);
    w->i += n;
    return rc;
}

static int translate(char **out, const char *pattern, const char *where)
{
    int rc = KS_OK;
    rewrite w = {.in = pattern, .where = where};
    KS_TRY(emit(&w, "", 0));
    while (pattern[w.i]) {
        switch (pattern[w.i]) {
        case '\\':
            KS_TRY(escape(&w, false));
            break;
        case '[':
            KS_TRY(set(&w));
            break;
        case '(':
            KS_TRY(group(&w));
            break;
        case '{':
            KS_TRY(interval(&w));
            break;
        default:
            KS_TRY(emit(&w, pattern + w.i, 1));
            w.i++;
        }
    }
    *out = w.out;
    w.out = NULL;
done:
    free(w.out);
    return rc;
}

int ks_tok_regex_new(ks_tok_regex **out, const char *pattern, bool literal, const char *where)
{
    int rc = KS_OK, code = 0;
    PCRE2_SIZE at = 0;
    char *text = NULL;
    ks_tok_regex *r = NULL;
    pcre2_compile_context *context = NULL;
    KS_REQUIRE(*pattern, KS_EINPUT, "%s: an empty pattern is not supported", where);
    KS_NEW(r, 1);
    KS_GET(r->pattern, ks_strdup(pattern));
    /* Characters written out beyond the basic plane are meant as they are. */
    r->classes = !literal && strchr(pattern, '\\');
    for (const char *p = pattern; *p; p++)
        if ((unsigned char)*p >= 0xf0) r->classes = false;
    if (literal) KS_GET(text, ks_strdup(pattern));
    else KS_TRY(translate(&text, pattern, where));
    KS_GET(context, pcre2_compile_context_create(NULL));
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    const uint32_t options = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C);
    r->code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, options, &code, &at, context);
    if (!r->code) {
        PCRE2_UCHAR message[200] = "";
        pcre2_get_error_message(code, message, sizeof message);
        rc = ks_error(KS_EINPUT, "%s: the pattern does not compile: %s, at byte %zu of %s", where, (char *)message, at, text);
        goto done;
    }
    pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE); /* without it matching is slower, not different */
done:
    pcre2_compile_context_free(context);
    free(text);
    if (rc) ks_tok_regex_free(r);
    else *out = r;
    return rc;
}

bool ks_tok_regex_may_be_empty(const ks_tok_regex *r)
{
    uint32_t empty = 0;
    pcre2_pattern_info(r->code, PCRE2_INFO_MATCHEMPTY, &empty);
    return empty;
}

void ks_tok_regex_free(ks_tok_regex *r)
{
    if (!r) return;
    pcre2_code_free(r->code);
    free(r->pattern);
    free(r);
}

int ks_tok_scan_new(ks_tok_scan **out, const ks_tok_regex *r)
{
    ks_tok_scan *scan = ks_calloc(1, sizeof *scan);
    if (!scan) return KS_EMACHINE;
    scan->regex = r;
    scan->match = pcre2_match_data_create(1, NULL);
    if (!scan->match) {
        free(scan);
        return ks_error(KS_EMACHINE, "out of memory for a pattern's matches");
    }
    *out = scan;
    return KS_OK;
}

void ks_tok_scan_free(ks_tok_scan *scan)
{
    if (!scan) return;
    pcre2_match_data_free(scan->match);
    free(scan->older);
    free(scan);
}

/* PCRE2's tables may be older or newer than the reference's: it sees the text with new characters replaced by like ones. */
int ks_tok_scan_start(ks_tok_scan *scan, const char *s, size_t n)
{
    char *copy = NULL;
    if (scan->regex->classes) {
        for (size_t i = 0, bytes; i < n; i += bytes) {
            bytes = ks_tok_utf8_length(s[i]);
            if (bytes < 3) continue;
            const int32_t c = ks_tok_utf8_get(s + i, &bytes), older = ks_tok_older(c);
            if (older == c) continue;
            if (!copy) {
                free(scan->older);
                copy = scan->older = ks_calloc(n, 1);
                if (!copy) return KS_EMACHINE;
                memcpy(copy, s, n);
            }
            ks_tok_utf8_put(copy + i, older);
        }
    }
    scan->s = copy ? copy : s;
    scan->n = n;
    scan->at = 0;
    scan->last_end = SIZE_MAX;
    return KS_OK;
}

int ks_tok_scan_next(ks_tok_scan *scan, bool *found, size_t *begin, size_t *end)
{
    *found = false;
    while (scan->at <= scan->n) {
        const PCRE2_SPTR s = (PCRE2_SPTR)scan->s;
        int rc = pcre2_match(scan->regex->code, s, scan->n, scan->at, PCRE2_NO_UTF_CHECK, scan->match, NULL);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
            rc = pcre2_match(scan->regex->code, s, scan->n, scan->at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, scan->match, NULL);
        if (rc == PCRE2_ERROR_NOMATCH) return KS_OK;
        if (rc < 0) {
            PCRE2_UCHAR message[200] = "";
            pcre2_get_error_message(rc, message, sizeof message);
            return ks_error(KS_EINPUT, "the tokenizer's pattern %s fails on this text: %s", scan->regex->pattern, (char *)message);
        }
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(scan->match);
        if (range[0] == range[1] && range[1] == scan->last_end) { /* no empty match where the last one ended */
            scan->at += scan->at < scan->n ? ks_tok_utf8_length(scan->s[scan->at]) : 1;
            continue;
        }
        *found = true;
        *begin = range[0];
        *end = scan->at = scan->last_end = range[1];
        return KS_OK;
    }
    return KS_OK;
}
