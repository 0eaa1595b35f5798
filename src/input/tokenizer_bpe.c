/* Byte pair encoding (Sennrich et al. 2016): vocabulary, merges, and the merging of one word with a heap, because in Gemma's and
 * Llama's files a whole text is one word. */
#include "input/tokenizer_parts.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* A token lies in the arena as this head, then its bytes and a NUL: what a lookup compares is in one place. */
typedef struct token {
    int32_t id;
    uint32_t bytes;
    char text[];
} token;

typedef struct slot {
    uint32_t hash, place; /* the token's place in the arena in units of its alignment, + 1; 0: free */
} slot;

typedef struct merge {
    uint64_t pair; /* left id << 32 | right id; NO_PAIR: free */
    uint32_t rank;
    int32_t id;
} merge;

#define NO_PAIR UINT64_MAX

struct ks_tok_bpe {
    uint32_t *arena;
    slot *slots; /* [slot_mask + 1] */
    size_t slot_mask;
    int32_t max_id;
    uint32_t *by_id; /* [max_id + 1] place + 1; 0: none */
    merge *merges;   /* [merge_mask + 1] */
    size_t merge_mask;
    int32_t ascii[128];   /* id of a character, -1 */
    int32_t byte_id[256]; /* of "<0xNN>", -1 */
    char *unk;            /* unk_token, NULL */
    int32_t unk_id;       /* -1: not in the vocabulary */
    bool fuse_unk, byte_fallback, ignore_merges;
};

/* Word at a time, multiply and fold: strings here are short and there are half a million of them. */
static uint64_t mix(uint64_t a, uint64_t b)
{
    const __uint128_t p = (__uint128_t)(a ^ 0x9e3779b97f4a7c15u) * (b ^ 0xd6e8feb86659fd93u);
    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static uint32_t hash_string(const char *s, size_t n)
{
    uint64_t h = n, w;
    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&w, s, 8);
        h = mix(h, w);
    }
    w = 0;
    memcpy(&w, s, n);
    h = mix(h, w);
    return (uint32_t)(h ^ h >> 32);
}

/* The smallest mask 2^k - 1 that leaves a table of n at most two thirds full. */
static size_t table_mask(size_t n)
{
    size_t size = 16;
    while (size / 3 * 2 < n + 1) size *= 2;
    return size - 1;
}

static token *token_at(const ks_tok_bpe *b, uint32_t place)
{
    return (token *)(b->arena + place - 1);
}

/* The slot of a string, or the free slot where it belongs. */
static slot *find_slot(const ks_tok_bpe *b, const char *s, size_t n, uint32_t hash)
{
    for (size_t i = hash & b->slot_mask;; i = (i + 1) & b->slot_mask) {
        slot *p = &b->slots[i];
        if (!p->place) return p;
        if (p->hash != hash) continue;
        const token *t = token_at(b, p->place);
        if (t->bytes == n && !memcmp(t->text, s, n)) return p;
    }
}

static int32_t find_id(const ks_tok_bpe *b, const char *text, size_t bytes, uint32_t hash)
{
    const slot *p = find_slot(b, text, bytes, hash);
    return p->place ? token_at(b, p->place)->id : -1;
}

int32_t ks_tok_bpe_id(const ks_tok_bpe *b, const char *text, size_t bytes)
{
    return find_id(b, text, bytes, hash_string(text, bytes));
}

const char *ks_tok_bpe_token(const ks_tok_bpe *b, int32_t id, size_t *bytes)
{
    if (id < 0 || id > b->max_id || !b->by_id[id]) return NULL;
    const token *t = token_at(b, b->by_id[id]);
    *bytes = t->bytes;
    return t->text;
}

int32_t ks_tok_bpe_max_id(const ks_tok_bpe *b)
{
    return b->max_id;
}

bool ks_tok_bpe_byte_fallback(const ks_tok_bpe *b)
{
    return b->byte_fallback;
}

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static merge *merge_home(const ks_tok_bpe *b, int32_t left, int32_t right)
{
    return &b->merges[mix(pair_key(left, right), 1) & b->merge_mask];
}

/* The merge of two ids, or the free place where it belongs. */
static merge *find_merge(const ks_tok_bpe *b, int32_t left, int32_t right)
{
    const uint64_t pair = pair_key(left, right);
    merge *m = merge_home(b, left, right);
    while (m->pair != pair && m->pair != NO_PAIR) m = m == b->merges + b->merge_mask ? b->merges : m + 1;
    return m;
}

/* ---- loading ---- */

/* Units of the arena that a token takes. */
static size_t token_size(size_t bytes)
{
    return (sizeof(token) + bytes + sizeof(uint32_t)) / sizeof(uint32_t);
}

static int load_vocab(ks_tok_bpe *b, const cJSON *vocab, const char *where)
{
    int rc = KS_OK;
    size_t size = 0, n = 0;
    KS_REQUIRE(cJSON_IsObject(vocab), KS_EINPUT, "%s: \"vocab\" must be an object, found %s", where, ks_json_kind(vocab));
    b->max_id = -1;
    for (const cJSON *v = vocab->child; v; v = v->next, n++) {
        const double x = v->valuedouble;
        KS_REQUIRE(cJSON_IsNumber(v) && x >= 0 && x <= KS_TOK_MAX_ID && x == (double)(int32_t)x, KS_EINPUT,
                   "%s.vocab: the id of \"%s\" must be a whole number from 0 to %d", where, v->string, KS_TOK_MAX_ID);
        if ((int32_t)x > b->max_id) b->max_id = (int32_t)x;
        size += token_size(strlen(v->string));
    }
    KS_REQUIRE(size < UINT32_MAX, KS_EINPUT, "%s: \"vocab\" is too large", where);
    b->slot_mask = table_mask(n);
    KS_NEW(b->arena, size);
    KS_NEW(b->slots, b->slot_mask + 1);
    KS_NEW(b->by_id, (size_t)b->max_id + 1);
    uint32_t place = 1;
    for (const cJSON *v = vocab->child; v; v = v->next) {
        const size_t bytes = strlen(v->string);
        const int32_t id = (int32_t)v->valuedouble;
        const uint32_t hash = hash_string(v->string, bytes);
        slot *p = find_slot(b, v->string, bytes, hash);
        KS_REQUIRE(!p->place, KS_EINPUT, "%s.vocab: \"%s\" is there twice", where, v->string);
        KS_REQUIRE(!b->by_id[id], KS_EINPUT, "%s.vocab: id %d is given to \"%s\" and to \"%s\"", where, (int)id,
                   token_at(b, b->by_id[id])->text, v->string);
        token *t = token_at(b, place);
        *t = (token){id, (uint32_t)bytes};
        memcpy(t->text, v->string, bytes + 1);
        *p = (slot){hash, place};
        b->by_id[id] = place;
        place += (uint32_t)token_size(bytes);
    }
done:
    return rc;
}

/* Finds the two parts of one merge, "a b" or ["a", "b"]. */
static bool merge_parts(const cJSON *m, const char **a, size_t *a_bytes, const char **b, size_t *b_bytes)
{
    if (cJSON_IsString(m)) {
        *a = m->valuestring;
        const char *space = strchr(*a, ' ');
        if (!space || strchr(space + 1, ' ')) return false;
        *a_bytes = (size_t)(space - *a);
        *b = space + 1;
    } else {
        const cJSON *first = cJSON_IsArray(m) ? m->child : NULL, *second = first ? first->next : NULL;
        if (!second || second->next || !cJSON_IsString(first) || !cJSON_IsString(second)) return false;
        *a = first->valuestring;
        *a_bytes = strlen(*a);
        *b = second->valuestring;
    }
    *b_bytes = strlen(*b);
    return true;
}

/* One lookup of a merge: its left part, right part and whole. */
typedef struct lookup {
    const char *text;
    size_t bytes;
    uint32_t hash;
    int32_t id;
} lookup;

enum { BLOCK = 32, LEFT = 0, RIGHT, WHOLE, PARTS }; /* merges looked up together */

/* Looks up a block [n]. Every step of a lookup misses the cache, so each step is asked for all of them before it is taken: half
 * a million merges load twice as fast. */
static void look_up(const ks_tok_bpe *b, lookup block[][PARTS], size_t n)
{
    lookup *all = &block[0][0];
    for (size_t i = 0; i < n * PARTS; i++) {
        all[i].hash = hash_string(all[i].text, all[i].bytes);
        __builtin_prefetch(&b->slots[all[i].hash & b->slot_mask]);
    }
    for (size_t i = 0; i < n * PARTS; i++) {
        const slot *p = &b->slots[all[i].hash & b->slot_mask];
        if (p->place) __builtin_prefetch(token_at(b, p->place));
    }
    for (size_t i = 0; i < n * PARTS; i++) all[i].id = find_id(b, all[i].text, all[i].bytes, all[i].hash);
    for (size_t i = 0; i < n; i++) __builtin_prefetch(merge_home(b, block[i][LEFT].id, block[i][RIGHT].id));
}

static int add_merges(ks_tok_bpe *b, lookup block[][PARTS], size_t n, uint32_t first_rank, const char *where)
{
    look_up(b, block, n);
    for (size_t i = 0; i < n; i++) {
        const uint32_t rank = first_rank + (uint32_t)i;
        for (int k = 0; k < PARTS; k++)
            if (block[i][k].id < 0)
                return ks_error(KS_EINPUT, "%s.merges: \"%.*s\" of merge %u is not in the vocabulary", where, (int)block[i][k].bytes,
                                block[i][k].text, rank);
        const int32_t left = block[i][LEFT].id, right = block[i][RIGHT].id;
        *find_merge(b, left, right) = (merge){pair_key(left, right), rank, block[i][WHOLE].id}; /* of equal ones the last counts */
    }
    return KS_OK;
}

static int load_merges(ks_tok_bpe *b, const cJSON *merges, const char *where)
{
    int rc = KS_OK;
    size_t n = 0, in_block = 0, longest = 0;
    uint32_t rank = 0;
    lookup block[BLOCK][PARTS];
    char *wholes = NULL; /* [BLOCK, longest] */
    KS_REQUIRE(cJSON_IsArray(merges), KS_EINPUT, "%s: \"merges\" must be an array, found %s", where, ks_json_kind(merges));
    for (const cJSON *m = merges->child; m; m = m->next, n++) {
        lookup *x = block[0];
        /* A line of merges.txt that was taken along is no merge. */
        if (cJSON_IsString(m) && !strncmp(m->valuestring, "#version", 8)) continue;
        KS_REQUIRE(merge_parts(m, &x[LEFT].text, &x[LEFT].bytes, &x[RIGHT].text, &x[RIGHT].bytes), KS_EINPUT,
                   "%s.merges[%zu]: expected \"a b\" or [\"a\", \"b\"]", where, n);
        if (x[LEFT].bytes + x[RIGHT].bytes > longest) longest = x[LEFT].bytes + x[RIGHT].bytes;
    }
    b->merge_mask = table_mask(n);
    KS_NEW(b->merges, b->merge_mask + 1);
    for (size_t i = 0; i <= b->merge_mask; i++) b->merges[i].pair = NO_PAIR;
    KS_NEW(wholes, BLOCK * longest);
    for (const cJSON *m = merges->child; m; m = m->next) {
        lookup *x = block[in_block];
        if (cJSON_IsString(m) && !strncmp(m->valuestring, "#version", 8)) continue;
        merge_parts(m, &x[LEFT].text, &x[LEFT].bytes, &x[RIGHT].text, &x[RIGHT].bytes);
        char *whole = wholes + in_block * longest;
        memcpy(whole, x[LEFT].text, x[LEFT].bytes);
        memcpy(whole + x[LEFT].bytes, x[RIGHT].text, x[RIGHT].bytes);
        x[WHOLE] = (lookup){.text = whole, .bytes = x[LEFT].bytes + x[RIGHT].bytes};
        if (++in_block < BLOCK) continue;
        KS_TRY(add_merges(b, block, in_block, rank, where));
        rank += BLOCK;
        in_block = 0;
    }
    KS_TRY(add_merges(b, block, in_block, rank, where));
done:
    free(wholes);
    return rc;
}

static int load_options(ks_tok_bpe *b, const cJSON *model, const char *where)
{
    int rc = KS_OK;
    const ks_json_ctx ctx = {KS_EINPUT, where};
    const char *type = "BPE", *prefix = "", *suffix = "", *unk = NULL;
    double dropout = 0;
    KS_TRY(ks_json_string(&ctx, model, "type", false, &type));
    KS_REQUIRE(!strcmp(type, "BPE"), KS_EINPUT, "%s: the model %s is not supported, only BPE", where, type);
    KS_TRY(ks_json_number(&ctx, model, "dropout", false, &dropout));
    KS_REQUIRE(dropout == 0, KS_EINPUT, "%s: dropout %g is not supported: tokens would be random", where, dropout);
    KS_TRY(ks_json_string(&ctx, model, "continuing_subword_prefix", false, &prefix));
    KS_TRY(ks_json_string(&ctx, model, "end_of_word_suffix", false, &suffix));
    KS_REQUIRE(!*prefix, KS_EINPUT, "%s: continuing_subword_prefix \"%s\" is not supported", where, prefix);
    KS_REQUIRE(!*suffix, KS_EINPUT, "%s: end_of_word_suffix \"%s\" is not supported", where, suffix);
    KS_TRY(ks_json_string(&ctx, model, "unk_token", false, &unk));
    KS_TRY(ks_json_bool(&ctx, model, "fuse_unk", false, &b->fuse_unk));
    KS_TRY(ks_json_bool(&ctx, model, "byte_fallback", false, &b->byte_fallback));
    KS_TRY(ks_json_bool(&ctx, model, "ignore_merges", false, &b->ignore_merges));
    if (unk) KS_GET(b->unk, ks_strdup(unk));
done:
    return rc;
}

int ks_tok_bpe_new(ks_tok_bpe **out, const cJSON *model, const char *where)
{
    int rc = KS_OK;
    ks_tok_bpe *b = NULL;
    KS_REQUIRE(cJSON_IsObject(model), KS_EINPUT, "%s: expected an object, found %s", where, ks_json_kind(model));
    KS_NEW(b, 1);
    KS_TRY(load_options(b, model, where));
    const cJSON *vocab = NULL, *merges = NULL;
    for (const cJSON *item = model->child; item; item = item->next) {
        if (!strcmp(item->string, "vocab")) vocab = item;
        if (!strcmp(item->string, "merges")) merges = item;
    }
    KS_TRY(load_vocab(b, vocab, where));
    KS_TRY(load_merges(b, merges, where));
    for (int i = 0; i < 128; i++) b->ascii[i] = ks_tok_bpe_id(b, &(char){(char)i}, 1);
    for (int i = 0; i < 256; i++) {
        static const char digits[] = "0123456789ABCDEF";
        const char name[6] = {'<', '0', 'x', digits[i >> 4], digits[i & 15], '>'};
        b->byte_id[i] = ks_tok_bpe_id(b, name, 6);
    }
    b->unk_id = b->unk ? ks_tok_bpe_id(b, b->unk, strlen(b->unk)) : -1;
done:
    if (rc) ks_tok_bpe_free(b);
    else *out = b;
    return rc;
}

void ks_tok_bpe_free(ks_tok_bpe *b)
{
    if (!b) return;
    free(b->arena);
    free(b->slots);
    free(b->by_id);
    free(b->merges);
    free(b->unk);
    free(b);
}

/* ---- one word ---- */

typedef struct symbol {
    int32_t id;
    uint32_t bytes;     /* 0: merged into the one before */
    int32_t prev, next; /* indices, -1 at the ends */
} symbol;

/* A merge that may be done. rank << 32 | place: the heap's least is the lowest rank, then the leftmost. */
typedef struct candidate {
    uint64_t order;
    int32_t id;
} candidate;

struct ks_tok_bpe_scratch {
    size_t n_symbols, symbols_capacity, n_heap, heap_capacity;
    symbol *symbols;
    candidate *heap;
};

void ks_tok_bpe_scratch_free(ks_tok_bpe_scratch *s)
{
    if (!s) return;
    free(s->symbols);
    free(s->heap);
    free(s);
}

static void heap_down(candidate *heap, size_t n, size_t i)
{
    const candidate x = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1].order < heap[child].order) child++;
        if (heap[child].order >= x.order) break;
        heap[i] = heap[child];
    }
    heap[i] = x;
}

static void heap_up(candidate *heap, size_t i)
{
    const candidate x = heap[i];
    for (size_t parent; i && heap[parent = (i - 1) / 2].order > x.order; i = parent) heap[i] = heap[parent];
    heap[i] = x;
}

static candidate heap_pop(ks_tok_bpe_scratch *s)
{
    const candidate top = s->heap[0];
    s->heap[0] = s->heap[--s->n_heap];
    if (s->n_heap) heap_down(s->heap, s->n_heap, 0);
    return top;
}

/* If the symbols at left and its next make a merge, puts it at the heap's end; the caller restores the order. */
static bool offer(const ks_tok_bpe *b, ks_tok_bpe_scratch *s, int32_t left)
{
    const merge *m = find_merge(b, s->symbols[left].id, s->symbols[s->symbols[left].next].id);
    if (m->pair == NO_PAIR) return false;
    s->heap[s->n_heap++] = (candidate){(uint64_t)m->rank << 32 | (uint32_t)left, m->id};
    return true;
}

static void merge_symbols(const ks_tok_bpe *b, ks_tok_bpe_scratch *s)
{
    symbol *y = s->symbols;
    s->n_heap = 0;
    for (size_t i = 0; i + 1 < s->n_symbols; i++) offer(b, s, (int32_t)i);
    for (size_t i = s->n_heap / 2; i-- > 0;) heap_down(s->heap, s->n_heap, i);
    while (s->n_heap) {
        const candidate top = heap_pop(s);
        const int32_t at = (int32_t)(uint32_t)top.order, right = y[at].next;
        if (!y[at].bytes || right < 0) continue;
        /* Stale if the pair has changed since. A pair that now makes the same token by another merge still counts: the reference
         * compares the new ids too, not the pairs. */
        const merge *m = find_merge(b, y[at].id, y[right].id);
        if (m->pair == NO_PAIR || m->id != top.id) continue;
        y[at].id = top.id;
        y[at].bytes += y[right].bytes;
        y[at].next = y[right].next;
        y[right].bytes = 0;
        if (y[at].next >= 0) y[y[at].next].prev = at;
        if (y[at].prev >= 0 && offer(b, s, y[at].prev)) heap_up(s->heap, s->n_heap - 1);
        if (y[at].next >= 0 && offer(b, s, at)) heap_up(s->heap, s->n_heap - 1);
    }
}

static void add_symbol(ks_tok_bpe_scratch *s, int32_t id, uint32_t bytes)
{
    const int32_t i = (int32_t)s->n_symbols++;
    s->symbols[i] = (symbol){id, bytes, i - 1, -1};
    if (i) s->symbols[i - 1].next = i;
}

/* All bytes of a character as "<0xNN>" tokens, or false if one of them is missing. */
static bool add_bytes(const ks_tok_bpe *b, ks_tok_bpe_scratch *s, const char *c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (b->byte_id[(unsigned char)c[i]] < 0) return false;
    for (size_t i = 0; i < n; i++) add_symbol(s, b->byte_id[(unsigned char)c[i]], 1);
    return true;
}

/* The word's characters as symbols. Unknown ones: bytes, else the unknown token (fused or one each), else they vanish. An unknown
 * token is written when the next known character (not: byte) comes, as in the reference. */
static int add_symbols(const ks_tok_bpe *b, ks_tok_bpe_scratch *s, const char *word, size_t n)
{
    uint32_t unknown = 0; /* bytes of the unknown token that waits */
    for (size_t i = 0, bytes; i < n; i += bytes) {
        bytes = ks_tok_utf8_length(word[i]);
        const int32_t id = bytes == 1 ? b->ascii[(int)word[i]] : ks_tok_bpe_id(b, word + i, bytes);
        if (id >= 0) {
            if (unknown) add_symbol(s, b->unk_id, unknown);
            unknown = 0;
            add_symbol(s, id, (uint32_t)bytes);
        } else if (!(b->byte_fallback && add_bytes(b, s, word + i, bytes)) && b->unk) {
            if (b->unk_id < 0)
                return ks_error(KS_EINPUT, "the tokenizer's unk_token \"%s\", needed for this text, is not in its vocabulary", b->unk);
            if (unknown && !b->fuse_unk) {
                add_symbol(s, b->unk_id, unknown);
                unknown = 0;
            }
            unknown += (uint32_t)bytes;
        }
    }
    if (unknown) add_symbol(s, b->unk_id, unknown);
    return KS_OK;
}

static int reserve(ks_tok_bpe_scratch *s, size_t bytes)
{
    if (bytes > s->symbols_capacity) {
        /* Every symbol begins with one candidate and every merge, at most one a symbol, adds two. */
        symbol *symbols = ks_realloc(s->symbols, bytes * 2, sizeof *symbols);
        if (!symbols) return KS_EMACHINE;
        s->symbols = symbols;
        candidate *heap = ks_realloc(s->heap, bytes * 6, sizeof *heap);
        if (!heap) return KS_EMACHINE;
        s->heap = heap;
        s->symbols_capacity = bytes * 2;
    }
    return KS_OK;
}

static int push_token(const ks_tok_bpe *b, const ks_tok_text *text, size_t at, size_t bytes, int32_t id, ks_tok_tokens *out)
{
    size_t length = 0;
    const char *own = ks_tok_bpe_token(b, id, &length);
    return ks_tok_tokens_push(out, id, text->from[at], text->to[at + bytes - 1], own, length);
}

int ks_tok_bpe_encode(const ks_tok_bpe *b, ks_tok_bpe_scratch **scratch, const ks_tok_text *text, size_t begin, size_t end,
                      ks_tok_tokens *out)
{
    int rc = KS_OK;
    const char *word = text->bytes + begin;
    const size_t n = end - begin;
    if (b->ignore_merges) {
        const int32_t id = ks_tok_bpe_id(b, word, n);
        if (id >= 0) return push_token(b, text, begin, n, id, out);
    }
    if (!*scratch) KS_NEW(*scratch, 1);
    ks_tok_bpe_scratch *s = *scratch;
    KS_TRY(reserve(s, n));
    s->n_symbols = 0;
    KS_TRY(add_symbols(b, s, word, n));
    merge_symbols(b, s);
    size_t at = begin;
    for (size_t i = 0; i < s->n_symbols; i++) {
        if (!s->symbols[i].bytes) continue;
        KS_TRY(push_token(b, text, at, s->symbols[i].bytes, s->symbols[i].id, out));
        at += s->symbols[i].bytes; /* bytes that vanished shift what follows: so does the reference */
    }
done:
    return rc;
}
