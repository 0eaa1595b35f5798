#include "input/tokenizer_parts.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

ks_tok_text ks_tok_text_for(size_t bytes)
{
    enum { GROWTH = 128, SLACK = 1 << 20 }; /* the most that a sane file does is 18 characters for one, of two bytes a byte */
    const size_t limit = bytes * GROWTH + SLACK;
    return (ks_tok_text){.limit = limit < INT32_MAX ? limit : INT32_MAX};
}

void ks_tok_text_free(ks_tok_text *t)
{
    free(t->bytes);
    free(t->from);
    free(t->to);
    free(t->splits);
    *t = (ks_tok_text){0};
}

void ks_tok_text_clear(ks_tok_text *t)
{
    t->n = 0;
    t->n_splits = 0;
}

static bool grow(void *array, size_t capacity, size_t size)
{
    void *old;
    memcpy(&old, array, sizeof old);
    void *p = ks_realloc(old, capacity, size);
    if (p) memcpy(array, &p, sizeof p);
    return p != NULL;
}

static bool room(ks_tok_text *t, size_t n)
{
    if (t->failed) return false;
    if (n <= t->capacity - t->n) return true;
    if (n > t->limit || t->n > t->limit - n) {
        t->failed = ks_error(KS_EINPUT, "the tokenizer makes more than %zu bytes of a text, a hundred for one", t->limit);
        return false;
    }
    const size_t capacity = (t->n + n) * 2 + 64;
    if (grow(&t->bytes, capacity, 1) && grow(&t->from, capacity, sizeof *t->from) && grow(&t->to, capacity, sizeof *t->to))
        t->capacity = capacity;
    else t->failed = KS_EMACHINE;
    return !t->failed;
}

void ks_tok_text_append(ks_tok_text *t, const char *bytes, size_t n, uint32_t from, uint32_t to)
{
    if (!n || !room(t, n)) return;
    memcpy(t->bytes + t->n, bytes, n);
    for (size_t i = t->n; i < t->n + n; i++) {
        t->from[i] = from;
        t->to[i] = to;
    }
    t->n += n;
}

void ks_tok_text_copy(ks_tok_text *t, const ks_tok_text *source, size_t begin, size_t end)
{
    const size_t n = end - begin;
    if (!n || !room(t, n)) return;
    memcpy(t->bytes + t->n, source->bytes + begin, n);
    memcpy(t->from + t->n, source->from + begin, n * sizeof *t->from);
    memcpy(t->to + t->n, source->to + begin, n * sizeof *t->to);
    t->n += n;
}

void ks_tok_text_split(ks_tok_text *t, size_t begin, size_t end, int32_t id)
{
    if (t->failed || begin >= end) return;
    if (t->n_splits == t->splits_capacity) {
        const size_t capacity = t->n_splits * 2 + 16;
        if (!grow(&t->splits, capacity, sizeof *t->splits)) {
            t->failed = KS_EMACHINE;
            return;
        }
        t->splits_capacity = capacity;
    }
    t->splits[t->n_splits++] = (ks_tok_split){(uint32_t)begin, (uint32_t)end, id};
}

/* Leading white space of s, or trailing if back; the byte-level alphabet's space counts. */
static uint32_t spaces(const char *s, size_t n, bool back)
{
    uint32_t count = 0;
    while (n) {
        size_t at = 0, bytes;
        if (back) {
            at = n - 1;
            while (at && (s[at] & 0xc0) == 0x80) at--;
        }
        const int32_t c = ks_tok_utf8_get(s + at, &bytes);
        if (!ks_tok_is_space(c) && c != 0x120) break;
        count++;
        if (!back) s += bytes;
        n -= bytes;
    }
    return count;
}

int ks_tok_tokens_push(ks_tok_tokens *t, int32_t id, uint32_t start, uint32_t end, const char *text, size_t bytes)
{
    if (t->n == t->capacity) {
        const size_t capacity = t->n * 2 + 64;
        if (!grow(&t->list, capacity, sizeof *t->list)) return KS_EMACHINE;
        t->capacity = capacity;
    }
    t->list[t->n++] = (ks_tok_token){id, start, end, spaces(text, bytes, false), spaces(text, bytes, true)};
    return KS_OK;
}
