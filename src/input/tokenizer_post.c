#include "input/tokenizer_parts.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 16 };

/* One special token of a template, with its text; id -1 for the place of the sequence. */
typedef struct piece {
    int32_t id;
    char *text;
} piece;

typedef struct processor {
    bool is_template;
    size_t n;
    piece *pieces;               /* [n] a template's */
    bool trim, add_prefix_space; /* ByteLevel */
} processor;

struct ks_tok_post {
    size_t n, capacity;
    processor *list; /* [n] */
    int32_t max_id;
};

static int append(ks_tok_post *p, processor **out)
{
    if (p->n == p->capacity) {
        const size_t capacity = p->capacity * 2 + 2;
        processor *list = ks_realloc(p->list, capacity, sizeof *list);
        if (!list) return KS_EMACHINE;
        p->list = list;
        p->capacity = capacity;
    }
    *out = &p->list[p->n++];
    **out = (processor){0};
    return KS_OK;
}

/* Appends the ids of special_tokens[name] to a template. */
static int add_special(ks_tok_post *p, processor *t, const cJSON *specials, const char *name, const char *where)
{
    int rc = KS_OK;
    const cJSON *special = cJSON_GetObjectItemCaseSensitive(specials, name);
    KS_REQUIRE(cJSON_IsObject(special), KS_EINPUT, "%s.special_tokens: \"%s\" is missing", where, name);
    const cJSON *ids = cJSON_GetObjectItemCaseSensitive(special, "ids"), *texts = cJSON_GetObjectItemCaseSensitive(special, "tokens");
    KS_REQUIRE(cJSON_IsArray(ids) && cJSON_IsArray(texts) && cJSON_GetArraySize(ids) == cJSON_GetArraySize(texts), KS_EINPUT,
               "%s.special_tokens.%s: \"ids\" and \"tokens\" must be arrays of one length", where, name);
    const cJSON *text = texts->child;
    for (const cJSON *id = ids->child; id; id = id->next, text = text->next) {
        const double x = cJSON_IsNumber(id) ? id->valuedouble : -1;
        KS_REQUIRE(x >= 0 && x <= KS_TOK_MAX_ID && x == (double)(int32_t)x && cJSON_IsString(text), KS_EINPUT,
                   "%s.special_tokens.%s: \"ids\" must be whole numbers from 0 to %d, \"tokens\" strings", where, name, KS_TOK_MAX_ID);
        piece *pieces = ks_realloc(t->pieces, t->n + 1, sizeof *pieces);
        if (!pieces) return KS_EMACHINE;
        t->pieces = pieces;
        pieces[t->n++] = (piece){(int32_t)x, NULL};
        KS_GET(pieces[t->n - 1].text, ks_strdup(text->valuestring));
        if ((int32_t)x > p->max_id) p->max_id = (int32_t)x;
    }
done:
    return rc;
}

static int new_template(ks_tok_post *p, const cJSON *c, const char *where)
{
    int rc = KS_OK, sequences = 0;
    processor *t = NULL;
    KS_TRY(append(p, &t));
    t->is_template = true;
    const cJSON *single = cJSON_GetObjectItemCaseSensitive(c, "single"), *specials = cJSON_GetObjectItemCaseSensitive(c, "special_tokens");
    KS_REQUIRE(cJSON_IsArray(single), KS_EINPUT, "%s: \"single\" must be an array, found %s", where, ks_json_kind(single));
    for (const cJSON *item = single->child; item; item = item->next) {
        const cJSON *body = cJSON_IsObject(item) ? item->child : NULL, *id = cJSON_GetObjectItemCaseSensitive(body, "id");
        KS_REQUIRE(body && !body->next && cJSON_IsString(id), KS_EINPUT,
                   "%s.single: expected {\"SpecialToken\": {\"id\": ...}} or {\"Sequence\": ...}", where);
        if (!strcmp(body->string, "SpecialToken")) {
            KS_TRY(add_special(p, t, specials, id->valuestring, where));
        } else {
            KS_REQUIRE(!strcmp(body->string, "Sequence") && !strcmp(id->valuestring, "A"), KS_EINPUT, "%s.single: %s %s is not supported",
                       where, body->string, id->valuestring);
            sequences++;
            piece *pieces = ks_realloc(t->pieces, t->n + 1, sizeof *pieces);
            if (!pieces) return KS_EMACHINE;
            t->pieces = pieces;
            pieces[t->n++] = (piece){-1, NULL};
        }
    }
    KS_REQUIRE(sequences == 1, KS_EINPUT, "%s.single: the sequence A must be there once, found %d times", where, sequences);
done:
    return rc;
}

static int new_component(ks_tok_post *p, const cJSON *c, int depth, const char *where)
{
    int rc = KS_OK;
    char *path = NULL;
    const char *type = NULL;
    const ks_json_ctx ctx = {KS_EINPUT, where};
    KS_REQUIRE(cJSON_IsObject(c), KS_EINPUT, "%s: expected an object, found %s", where, ks_json_kind(c));
    KS_TRY(ks_json_string(&ctx, c, "type", true, &type));
    if (!strcmp(type, "TemplateProcessing")) return new_template(p, c, where);
    if (!strcmp(type, "ByteLevel")) {
        processor *b = NULL;
        KS_TRY(append(p, &b));
        b->trim = b->add_prefix_space = true;
        KS_TRY(ks_json_bool(&ctx, c, "trim_offsets", true, &b->trim));
        KS_TRY(ks_json_bool(&ctx, c, "add_prefix_space", true, &b->add_prefix_space));
        return rc;
    }
    KS_REQUIRE(!strcmp(type, "Sequence"), KS_EINPUT, "%s: the post-processor %s is not supported", where, type);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(c, "processors");
    KS_REQUIRE(cJSON_IsArray(list), KS_EINPUT, "%s: \"processors\" must be an array, found %s", where, ks_json_kind(list));
    KS_REQUIRE(depth < MAX_DEPTH, KS_EINPUT, "%s: sequences are nested deeper than %d", where, MAX_DEPTH);
    int i = 0;
    for (const cJSON *item = list->child; item; item = item->next, i++) {
        KS_GET(path, ks_format("%s.processors[%d]", where, i));
        KS_TRY(new_component(p, item, depth + 1, path));
        free(path);
        path = NULL;
    }
done:
    free(path);
    return rc;
}

int ks_tok_post_new(ks_tok_post **out, const cJSON *component, const char *where)
{
    int rc = KS_OK;
    ks_tok_post *p = NULL;
    KS_NEW(p, 1);
    p->max_id = -1;
    if (component && !cJSON_IsNull(component)) KS_TRY(new_component(p, component, 0, where));
done:
    if (rc) ks_tok_post_free(p);
    else *out = p;
    return rc;
}

void ks_tok_post_free(ks_tok_post *p)
{
    if (!p) return;
    for (size_t i = 0; i < p->n; i++) {
        for (size_t k = 0; k < p->list[i].n; k++) free(p->list[i].pieces[k].text);
        free(p->list[i].pieces);
    }
    free(p->list);
    free(p);
}

int32_t ks_tok_post_max_id(const ks_tok_post *p)
{
    return p->max_id;
}

static int run_template(const processor *t, ks_tok_tokens *tokens)
{
    int rc = KS_OK;
    ks_tok_tokens whole = {0};
    for (size_t i = 0; i < t->n; i++) {
        const piece *x = &t->pieces[i];
        if (x->id >= 0) {
            KS_TRY(ks_tok_tokens_push(&whole, x->id, 0, 0, x->text, strlen(x->text)));
            continue;
        }
        for (size_t k = 0; k < tokens->n; k++) {
            KS_TRY(ks_tok_tokens_push(&whole, 0, 0, 0, "", 0));
            whole.list[whole.n - 1] = tokens->list[k];
        }
    }
    const ks_tok_tokens old = *tokens;
    *tokens = whole;
    whole = old;
done:
    free(whole.list); // NOLINT(clang-analyzer-unix.Malloc): clang 14 loses track of the exchange above
    return rc;
}

/* Takes white space off the ranges. One space at the front of the first token stays where a prefix space may have been put: that
 * one has no character in the text. Two were not put there. */
static void trim(const processor *b, ks_tok_tokens *tokens)
{
    for (size_t i = 0; i < tokens->n; i++) {
        ks_tok_token *t = &tokens->list[i];
        const bool kept = t->lead == 1 && b->add_prefix_space && (i == 0 || t->start == 0);
        if (!kept) t->start = t->end - t->start < t->lead ? t->end : t->start + t->lead;
        if (t->trail && t->end >= t->trail) t->end = t->end - t->start < t->trail ? t->start : t->end - t->trail;
    }
}

int ks_tok_post_run(const ks_tok_post *p, ks_tok_tokens *tokens, bool add_special)
{
    int rc = KS_OK;
    for (size_t i = 0; i < p->n; i++) {
        const processor *x = &p->list[i];
        if (!x->is_template) {
            if (x->trim) trim(x, tokens);
        } else if (add_special) {
            KS_TRY(run_template(x, tokens));
        }
    }
done:
    return rc;
}
