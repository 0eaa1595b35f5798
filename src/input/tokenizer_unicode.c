#include "input/tokenizer_parts.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

size_t ks_tok_utf8_length(char first)
{
    const unsigned char c = (unsigned char)first;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

int32_t ks_tok_utf8_get(const char *s, size_t *bytes)
{
    const size_t n = *bytes = ks_tok_utf8_length(*s);
    int32_t c = n == 1 ? *s : *s & (0x7f >> n);
    for (size_t i = 1; i < n; i++) c = c << 6 | (s[i] & 0x3f);
    return c;
}

size_t ks_tok_utf8_put(char out[4], int32_t c)
{
    const size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(n == 1 ? c : (0xf00 >> n & 0xff) | c);
    return n;
}

size_t ks_tok_utf8_check(const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    for (size_t i = 0; i < n;) {
        if (p[i] < 0x80) {
            i++;
            continue;
        }
        const size_t length = ks_tok_utf8_length(s[i]);
        if (p[i] < 0xc2 || p[i] > 0xf4 || length > n - i) return i;
        for (size_t k = 1; k < length; k++)
            if ((p[i + k] & 0xc0) != 0x80) return i;
        const bool overlong = (p[i] == 0xe0 && p[i + 1] < 0xa0) || (p[i] == 0xf0 && p[i + 1] < 0x90);
        const bool surrogate = p[i] == 0xed && p[i + 1] > 0x9f;
        if (overlong || surrogate || (p[i] == 0xf4 && p[i + 1] > 0x8f)) return i;
        i += length;
    }
    return n;
}

bool ks_tok_is_space(int32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool ks_tok_is_word(int32_t c)
{
    switch (utf8proc_category(ks_tok_older(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default: /* Other_Alphabetic symbols, Join_Control */
        return (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
               (c >= 0x1f170 && c <= 0x1f189) || c == 0x200c || c == 0x200d;
    }
}

/* A character and what it changes in the length of the text: +1, it was inserted; -k, it stands for itself and k more. */
typedef struct piece {
    int32_t c;
    int change;
} piece;

typedef struct pieces {
    size_t n, capacity;
    piece *list; /* [n] */
} pieces;

/* Appends the characters of list in place of the source's bytes [begin, end). A character takes the source range of the one that
 * it replaces; an inserted one that of the character before. */
static void replace_pieces(ks_tok_text *t, const ks_tok_text *source, size_t begin, size_t end, const piece *list, size_t n)
{
    size_t at = begin;
    for (size_t i = 0; i < n; i++) {
        char bytes[4];
        const size_t length = ks_tok_utf8_put(bytes, list[i].c);
        const size_t like = list[i].change > 0 && at > begin ? at - 1 : at < end ? at : end - 1;
        ks_tok_text_append(t, bytes, length, source->from[like], source->to[like]);
        for (int k = list[i].change; k <= 0 && at < end; k++) at += ks_tok_utf8_length(source->bytes[at]);
    }
}

static int decompose(pieces *p, const char *s, size_t n, bool compatible)
{
    for (size_t i = 0, bytes; i < n; i += bytes) {
        utf8proc_int32_t parts[32];
        int boundary = 0;
        const int options = UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0);
        const int32_t c = ks_tok_utf8_get(s + i, &bytes);
        utf8proc_ssize_t m = 1;
        if (c < 0x80 || !ks_tok_normal_forms_know(c)) parts[0] = c;
        else m = utf8proc_decompose_char(c, parts, 32, options, &boundary);
        if (m < 1 || m > 32) {
            parts[0] = c;
            m = 1;
        }
        if (p->n + (size_t)m > p->capacity) {
            const size_t capacity = (p->n + (size_t)m) * 2 + n;
            piece *list = ks_realloc(p->list, capacity, sizeof *list);
            if (!list) return KS_EMACHINE;
            p->list = list;
            p->capacity = capacity;
        }
        for (utf8proc_ssize_t k = 0; k < m; k++) p->list[p->n++] = (piece){parts[k], k > 0};
    }
    return KS_OK;
}

static int combining_class(int32_t c)
{
    return c < 0x300 || !ks_tok_normal_forms_know(c) ? 0 : utf8proc_get_property(c)->combining_class;
}

/* Canonical ordering (Unicode 3.11, D109): stable by class within each run of non-starters. A run is as long as a hostile text
 * makes it, so each is sorted in n log n. */
typedef struct keyed {
    int class;
    size_t place;
    piece p;
} keyed;

static int compare_keyed(const void *x, const void *y)
{
    const keyed *a = x, *b = y;
    if (a->class != b->class) return a->class < b->class ? -1 : 1;
    return a->place < b->place ? -1 : a->place > b->place;
}

static int sort_marks(pieces *p)
{
    for (size_t i = 0; i < p->n; i++) {
        if (!combining_class(p->list[i].c)) continue;
        size_t end = i;
        bool ordered = true;
        for (int last = 0, class; end < p->n && (class = combining_class(p->list[end].c)); end++, last = class) ordered &= last <= class;
        if (!ordered) {
            keyed *run = ks_calloc(end - i, sizeof *run);
            if (!run) return KS_EMACHINE;
            for (size_t k = i; k < end; k++) run[k - i] = (keyed){combining_class(p->list[k].c), k, p->list[k]};
            qsort(run, end - i, sizeof *run, compare_keyed);
            for (size_t k = i; k < end; k++) p->list[k] = run[k - i].p;
            free(run);
        }
        i = end - 1;
    }
    return KS_OK;
}

/* The primary composite of two characters, -1 if there is none. */
static int32_t composite(int32_t a, int32_t b)
{
    if (b < 0x300) return -1;
    utf8proc_int32_t pair[3] = {a, b, 0};
    if (utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE) != 1 || !ks_tok_normal_forms_know(pair[0])) return -1;
    return pair[0];
}

/* Canonical composition (D117) in place: a character that is not blocked joins the last starter, which then stands for one more. */
static void compose(pieces *p)
{
    size_t starter = SIZE_MAX, out = 0;
    int last = -1; /* class of the character before; -1: it is the starter itself */
    for (size_t i = 0; i < p->n; i++) {
        const piece x = p->list[i];
        const int class = combining_class(x.c);
        if (starter != SIZE_MAX && (last < class)) {
            const int32_t c = composite(p->list[starter].c, x.c);
            if (c >= 0) {
                p->list[starter].c = c;
                p->list[starter].change += x.change - 1;
                continue;
            }
        }
        if (!class) {
            starter = out;
            last = -1;
        } else {
            last = class;
        }
        p->list[out++] = x;
    }
    p->n = out;
}

int ks_tok_normal_form(ks_tok_text *t, const ks_tok_text *source, size_t begin, size_t end, int form)
{
    const char *s = source->bytes + begin;
    size_t ascii = 0;
    while (ascii < end - begin && !(s[ascii] & 0x80)) ascii++;
    if (ascii == end - begin) {
        ks_tok_text_copy(t, source, begin, end);
        return KS_OK;
    }
    int rc = KS_OK;
    pieces p = {0};
    KS_TRY(decompose(&p, s, end - begin, form == KS_TOK_NFKC || form == KS_TOK_NFKD));
    KS_TRY(sort_marks(&p));
    if (form == KS_TOK_NFC || form == KS_TOK_NFKC) compose(&p);
    replace_pieces(t, source, begin, end, p.list, p.n);
done:
    free(p.list);
    return rc;
}

void ks_tok_lowercase(ks_tok_text *t, const ks_tok_text *source, size_t begin, size_t end)
{
    for (size_t at = begin, bytes; at < end; at += bytes) {
        const int32_t c = ks_tok_utf8_get(source->bytes + at, &bytes);
        const int32_t late = ks_tok_newer_lowercase(c);
        /* the one character whose lower case is two */
        const piece dotted[2] = {{'i', 0}, {0x307, 1}}, simple = {late != c ? late : utf8proc_tolower(c), 0};
        if (c == 0x130) replace_pieces(t, source, at, at + bytes, dotted, 2);
        else replace_pieces(t, source, at, at + bytes, &simple, 1);
    }
}
