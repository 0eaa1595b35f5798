/* Added tokens: found in the text by leftmost, then longest match, before anything else is done to it; those with "normalized"
 * in the normalized pieces that are left. Two tries, one of each kind. */
#include "input/tokenizer_parts.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

typedef struct added {
    char *content; /* as in the file */
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} added;

/* Nodes in first-child, next-sibling form; node 0 is the root. */
typedef struct node {
    uint32_t child, sibling; /* 0: none */
    int32_t token;           /* index of the token that ends here, -1 */
    unsigned char byte;
} node;

typedef struct trie {
    size_t n, capacity;
    node *nodes; /* [n] */
    uint32_t first[256];
} trie;

struct ks_tok_added {
    size_t n;
    added *list;   /* [n] */
    trie tries[2]; /* [normalized] */
    int32_t max_id;
    int32_t *by_id; /* [max_id + 1] index in list, -1 */
};

static int new_node(trie *t, unsigned char byte, uint32_t sibling, uint32_t *out)
{
    if (t->n == t->capacity) {
        const size_t capacity = t->n * 2 + 64;
        node *nodes = ks_realloc(t->nodes, capacity, sizeof *nodes);
        if (!nodes) return KS_EMACHINE;
        t->nodes = nodes;
        t->capacity = capacity;
    }
    if (!t->n) t->nodes[t->n++] = (node){.token = -1};
    t->nodes[t->n] = (node){.sibling = sibling, .token = -1, .byte = byte};
    *out = (uint32_t)t->n++;
    return KS_OK;
}

static uint32_t find_child(const trie *t, uint32_t at, unsigned char byte)
{
    uint32_t c = t->nodes[at].child;
    while (c && t->nodes[c].byte != byte) c = t->nodes[c].sibling;
    return c;
}

static int trie_add(trie *t, const char *s, size_t n, int32_t token)
{
    int rc = KS_OK;
    uint32_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const unsigned char byte = (unsigned char)s[i];
        uint32_t next = i ? find_child(t, at, byte) : t->first[byte];
        if (!next) {
            KS_TRY(new_node(t, byte, i ? t->nodes[at].child : 0, &next));
            if (i) t->nodes[at].child = next;
            else t->first[byte] = next;
        }
        at = next;
    }
    if (at && t->nodes[at].token < 0) t->nodes[at].token = token; /* of equal ones the first counts */
done:
    return rc;
}

/* The longest token that begins at s; -1 if there is none. */
static int32_t trie_longest(const trie *t, const char *s, size_t n, size_t *length)
{
    int32_t token = -1;
    uint32_t at = n ? t->first[(unsigned char)*s] : 0;
    for (size_t i = 1; at; i++) {
        if (t->nodes[at].token >= 0) {
            token = t->nodes[at].token;
            *length = i;
        }
        at = i < n ? find_child(t, at, (unsigned char)s[i]) : 0;
    }
    return token;
}

static int read_token(added *a, const cJSON *item, const ks_tok_bpe *bpe, const char *where)
{
    int rc = KS_OK;
    const ks_json_ctx ctx = {KS_EINPUT, where};
    const char *content = NULL;
    int64_t id = 0;
    KS_REQUIRE(cJSON_IsObject(item), KS_EINPUT, "%s: expected an object, found %s", where, ks_json_kind(item));
    KS_TRY(ks_json_string(&ctx, item, "content", true, &content));
    KS_TRY(ks_json_int(&ctx, item, "id", true, 0, KS_TOK_MAX_ID, &id));
    KS_TRY(ks_json_bool(&ctx, item, "single_word", true, &a->single_word));
    KS_TRY(ks_json_bool(&ctx, item, "lstrip", true, &a->lstrip));
    KS_TRY(ks_json_bool(&ctx, item, "rstrip", true, &a->rstrip));
    KS_TRY(ks_json_bool(&ctx, item, "normalized", true, &a->normalized));
    KS_TRY(ks_json_bool(&ctx, item, "special", true, &a->special));
    KS_REQUIRE(*content, KS_EINPUT, "%s: \"content\" is empty", where);
    size_t bytes = 0;
    const int32_t known = ks_tok_bpe_id(bpe, content, strlen(content));
    const char *other = ks_tok_bpe_token(bpe, (int32_t)id, &bytes);
    KS_REQUIRE(known < 0 || known == id, KS_EINPUT, "%s: \"%s\" has id %d here, but %d in the vocabulary", where, content, (int)id,
               (int)known);
    KS_REQUIRE(known >= 0 || !other, KS_EINPUT, "%s: id %d of \"%s\" is that of \"%s\" in the vocabulary", where, (int)id, content, other);
    a->id = (int32_t)id;
    KS_GET(a->content, ks_strdup(content));
done:
    return rc;
}

/* What the token looks like where it is searched for. */
static int add_pattern(ks_tok_added *a, int32_t token, const ks_tok_steps *normalizer)
{
    int rc = KS_OK;
    const added *t = &a->list[token];
    const size_t n = strlen(t->content);
    ks_tok_text text = ks_tok_text_for(n), spare = ks_tok_text_for(n);
    ks_tok_text_append(&text, t->content, n, 0, (uint32_t)n);
    ks_tok_text_split(&text, 0, n, -1);
    KS_TRY(text.failed);
    if (t->normalized) KS_TRY(ks_tok_steps_run(normalizer, &text, &spare));
    KS_TRY(trie_add(&a->tries[t->normalized], text.bytes, text.n, token));
done:
    ks_tok_text_free(&text);
    ks_tok_text_free(&spare);
    return rc;
}

static int compare_content(const void *x, const void *y)
{
    const added *const *a = x, *const *b = y;
    return strcmp((*a)->content, (*b)->content);
}

int ks_tok_added_new(ks_tok_added **out, const cJSON *list, const ks_tok_bpe *bpe, const ks_tok_steps *normalizer, const char *where)
{
    int rc = KS_OK;
    char *path = NULL;
    const added **sorted = NULL;
    ks_tok_added *a = NULL;
    KS_NEW(a, 1);
    a->max_id = -1;
    if (!list || cJSON_IsNull(list)) goto done;
    KS_REQUIRE(cJSON_IsArray(list), KS_EINPUT, "%s: expected an array, found %s", where, ks_json_kind(list));
    size_t n = 0;
    for (const cJSON *item = list->child; item; item = item->next) n++;
    KS_NEW(a->list, n);
    KS_NEW(sorted, n);
    for (const cJSON *item = list->child; item; item = item->next) {
        KS_GET(path, ks_format("%s[%zu]", where, a->n));
        KS_TRY(read_token(&a->list[a->n++], item, bpe, path));
        free(path);
        path = NULL;
        if (a->list[a->n - 1].id > a->max_id) a->max_id = a->list[a->n - 1].id;
    }
    KS_NEW(a->by_id, (size_t)a->max_id + 1);
    for (int32_t id = 0; id <= a->max_id; id++) a->by_id[id] = -1;
    for (size_t i = 0; i < n; i++) {
        int32_t *slot = &a->by_id[a->list[i].id];
        KS_REQUIRE(*slot < 0, KS_EINPUT, "%s: id %d is given to \"%s\" and to \"%s\"", where, (int)a->list[i].id, a->list[*slot].content,
                   a->list[i].content);
        *slot = (int32_t)i;
        sorted[i] = &a->list[i];
    }
    qsort(sorted, n, sizeof *sorted, compare_content);
    for (size_t i = 1; i < n; i++)
        KS_REQUIRE(strcmp(sorted[i - 1]->content, sorted[i]->content), KS_EINPUT, "%s: \"%s\" is there twice", where, sorted[i]->content);
    for (int special = 1; special >= 0; special--)
        for (size_t i = 0; i < n; i++)
            if (a->list[i].special == special) KS_TRY(add_pattern(a, (int32_t)i, normalizer));
done:
    free(path);
    free(sorted);
    if (rc) ks_tok_added_free(a);
    else *out = a;
    return rc;
}

void ks_tok_added_free(ks_tok_added *a)
{
    if (!a) return;
    for (size_t i = 0; a->list && i < a->n; i++) free(a->list[i].content);
    free(a->list);
    free(a->by_id);
    free(a->tries[0].nodes);
    free(a->tries[1].nodes);
    free(a);
}

const char *ks_tok_added_content(const ks_tok_added *a, int32_t id)
{
    return id < 0 || id > a->max_id || a->by_id[id] < 0 ? NULL : a->list[a->by_id[id]].content;
}

int32_t ks_tok_added_max_id(const ks_tok_added *a)
{
    return a->max_id;
}

static bool word_before(const char *s, size_t at)
{
    size_t bytes;
    if (!at) return false;
    at--;
    while (at && (s[at] & 0xc0) == 0x80) at--;
    return ks_tok_is_word(ks_tok_utf8_get(s + at, &bytes));
}

static bool word_after(const char *s, size_t n, size_t at)
{
    size_t bytes;
    return at < n && ks_tok_is_word(ks_tok_utf8_get(s + at, &bytes));
}

static size_t strip_left(const char *s, size_t at, size_t not_before)
{
    while (at > not_before) {
        size_t before = at - 1, bytes;
        while (before && (s[before] & 0xc0) == 0x80) before--;
        if (!ks_tok_is_space(ks_tok_utf8_get(s + before, &bytes))) break;
        at = before;
    }
    return at;
}

static size_t strip_right(const char *s, size_t n, size_t at)
{
    for (size_t bytes; at < n && ks_tok_is_space(ks_tok_utf8_get(s + at, &bytes)); at += bytes) continue;
    return at;
}

/* Cuts one split s [n]. The copies of its pieces go to out; where a token reaches back over what the one before took (rstrip),
 * both have it, as in the reference. */
static void cut(const ks_tok_added *a, const trie *t, ks_tok_text *out, const ks_tok_text *in, const ks_tok_split *w)
{
    const char *s = in->bytes + w->begin;
    const size_t n = w->end - w->begin;
    size_t done_to = 0;
    for (size_t i = 0; i < n;) {
        size_t length = 0, base;
        const int32_t found = trie_longest(t, s + i, n - i, &length);
        if (found < 0) {
            i++;
            continue;
        }
        const added *token = &a->list[found];
        size_t start = i, stop = i + length;
        i = stop;
        if (token->single_word && (word_before(s, start) || word_after(s, n, stop))) continue;
        if (token->lstrip) {
            start = strip_left(s, start, 0);
            if (start < done_to) start = done_to;
        }
        if (token->rstrip) stop = strip_right(s, n, stop);
        if (done_to < start) {
            base = out->n;
            ks_tok_text_copy(out, in, w->begin + done_to, w->begin + start);
            ks_tok_text_split(out, base, out->n, -1);
        }
        base = out->n;
        ks_tok_text_copy(out, in, w->begin + start, w->begin + stop);
        ks_tok_text_split(out, base, out->n, token->id);
        done_to = stop;
    }
    if (done_to != n) {
        const size_t base = out->n;
        ks_tok_text_copy(out, in, w->begin + done_to, w->end);
        ks_tok_text_split(out, base, out->n, -1);
    }
}

void ks_tok_added_cut(const ks_tok_added *a, bool normalized, ks_tok_text *text, ks_tok_text *spare)
{
    const trie *t = &a->tries[normalized];
    if (!t->n) return;
    ks_tok_text_clear(spare);
    for (size_t i = 0; i < text->n_splits; i++) {
        const ks_tok_split *w = &text->splits[i];
        const size_t base = spare->n;
        if (w->id < 0) {
            cut(a, t, spare, text, w);
        } else {
            ks_tok_text_copy(spare, text, w->begin, w->end);
            ks_tok_text_split(spare, base, spare->n, w->id);
        }
    }
    const ks_tok_text cut_text = *spare;
    *spare = *text;
    *text = cut_text;
}
