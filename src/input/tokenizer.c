#include "input/tokenizer.h"

#include "base/mem.h"
#include "base/sha256.h"
#include "input/tokenizer_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ks_tokenizer {
    char sha256[65];
    ks_tok_bpe *bpe;
    ks_tok_steps *normalizer, *pre_tokenizer;
    ks_tok_added *added;
    ks_tok_post *post;
};

static int load(ks_tokenizer *t, const cJSON *root, const char *path)
{
    static const char *const names[] = {"model", "normalizer", "pre_tokenizer", "added_tokens", "post_processor"};
    enum { MODEL, NORMALIZER, PRE_TOKENIZER, ADDED, POST, MEMBERS };
    int rc = KS_OK;
    const cJSON *member[MEMBERS];
    char *where[MEMBERS] = {NULL};
    KS_REQUIRE(cJSON_IsObject(root), KS_EINPUT, "%s: a tokenizer is a JSON object, this is %s", path, ks_json_kind(root));
    for (int i = 0; i < MEMBERS; i++) {
        member[i] = cJSON_GetObjectItemCaseSensitive(root, names[i]);
        KS_GET(where[i], ks_format("%s: %s", path, names[i]));
    }
    KS_TRY(ks_tok_bpe_new(&t->bpe, member[MODEL], where[MODEL]));
    KS_TRY(ks_tok_steps_new(&t->normalizer, member[NORMALIZER], false, where[NORMALIZER]));
    KS_TRY(ks_tok_steps_new(&t->pre_tokenizer, member[PRE_TOKENIZER], true, where[PRE_TOKENIZER]));
    KS_TRY(ks_tok_added_new(&t->added, member[ADDED], t->bpe, t->normalizer, where[ADDED]));
    KS_TRY(ks_tok_post_new(&t->post, member[POST], where[POST]));
done:
    for (int i = 0; i < MEMBERS; i++) free(where[i]);
    return rc;
}

int ks_tokenizer_parse(ks_tokenizer **out, const char *text, size_t bytes, const char *name)
{
    int rc = KS_OK;
    cJSON *root = NULL;
    ks_tokenizer *t = NULL;
    KS_NEW(t, 1);
    ks_sha256_hex(t->sha256, text, bytes);
    const size_t bad = ks_tok_utf8_check(text, bytes);
    KS_REQUIRE(bad == bytes, KS_EINPUT, "%s: not UTF-8 at byte %zu", name, bad);
    KS_TRY(ks_json_parse(&root, text, bytes, name));
    KS_TRY(load(t, root, name));
done:
    cJSON_Delete(root);
    if (rc) ks_tokenizer_free(t);
    else *out = t;
    return rc;
}

int ks_tokenizer_load(ks_tokenizer **out, const char *model_dir)
{
    int rc = KS_OK;
    char *path = NULL, *text = NULL;
    size_t bytes = 0;
    KS_GET(path, ks_format("%s/tokenizer.json", model_dir));
    KS_TRY(ks_file_read(&text, &bytes, path));
    KS_TRY(ks_tokenizer_parse(out, text, bytes, path));
done:
    free(text);
    free(path);
    return rc;
}

void ks_tokenizer_free(ks_tokenizer *t)
{
    if (!t) return;
    ks_tok_bpe_free(t->bpe);
    ks_tok_steps_free(t->normalizer);
    ks_tok_steps_free(t->pre_tokenizer);
    ks_tok_added_free(t->added);
    ks_tok_post_free(t->post);
    free(t);
}

const char *ks_tokenizer_sha256(const ks_tokenizer *t)
{
    return t->sha256;
}

size_t ks_tokenizer_vocab_size(const ks_tokenizer *t)
{
    int32_t max = ks_tok_bpe_max_id(t->bpe);
    if (ks_tok_added_max_id(t->added) > max) max = ks_tok_added_max_id(t->added);
    if (ks_tok_post_max_id(t->post) > max) max = ks_tok_post_max_id(t->post);
    return (size_t)max + 1;
}

/* ---- encoding ---- */

/* Ranges from bytes to characters. */
static int to_characters(ks_tok_tokens *tokens, const char *text, size_t bytes)
{
    int rc = KS_OK;
    uint32_t *character = NULL, n = 0;
    KS_NEW(character, bytes + 1);
    for (size_t i = 0; i < bytes; i++) {
        character[i] = n; /* in the middle of a character: the next one */
        n += (text[i] & 0xc0) != 0x80;
    }
    character[bytes] = n;
    for (size_t i = 0; i < tokens->n; i++) {
        tokens->list[i].start = character[tokens->list[i].start];
        tokens->list[i].end = character[tokens->list[i].end];
    }
done:
    free(character);
    return rc;
}

static int finish(ks_encoding *out, const ks_tok_tokens *tokens)
{
    int rc = KS_OK;
    ks_encoding e = {.n = tokens->n};
    KS_NEW(e.ids, e.n);
    KS_NEW(e.start, e.n);
    KS_NEW(e.end, e.n);
    for (size_t i = 0; i < e.n; i++) {
        e.ids[i] = tokens->list[i].id;
        e.start[i] = (int32_t)tokens->list[i].start;
        e.end[i] = (int32_t)tokens->list[i].end;
    }
done:
    if (rc) ks_encoding_free(&e);
    else *out = e;
    return rc;
}

int ks_tokenizer_encode(const ks_tokenizer *t, const char *text, size_t bytes, bool add_special, ks_encoding *out)
{
    int rc = KS_OK;
    ks_tok_text now = ks_tok_text_for(bytes), spare = ks_tok_text_for(bytes);
    ks_tok_tokens tokens = {0};
    ks_tok_bpe_scratch *scratch = NULL;
    KS_REQUIRE(bytes <= INT32_MAX, KS_EINPUT, "a text of %zu bytes is too long to be tokenized", bytes);
    const size_t bad = ks_tok_utf8_check(text, bytes);
    KS_REQUIRE(bad == bytes, KS_EINPUT, "the text is not UTF-8 at byte %zu", bad);
    for (size_t i = 0, n; i < bytes; i += n) {
        n = ks_tok_utf8_length(text[i]);
        ks_tok_text_append(&now, text + i, n, (uint32_t)i, (uint32_t)(i + n));
    }
    ks_tok_text_split(&now, 0, bytes, -1);
    ks_tok_added_cut(t->added, false, &now, &spare);
    KS_TRY(ks_tok_steps_run(t->normalizer, &now, &spare));
    ks_tok_added_cut(t->added, true, &now, &spare);
    KS_TRY(ks_tok_steps_run(t->pre_tokenizer, &now, &spare));
    KS_TRY(now.failed);
    KS_TRY(spare.failed);
    for (size_t i = 0; i < now.n_splits; i++) {
        const ks_tok_split *w = &now.splits[i];
        if (w->id < 0) KS_TRY(ks_tok_bpe_encode(t->bpe, &scratch, &now, w->begin, w->end, &tokens));
        else KS_TRY(ks_tok_tokens_push(&tokens, w->id, now.from[w->begin], now.to[w->end - 1], now.bytes + w->begin, w->end - w->begin));
    }
    KS_TRY(to_characters(&tokens, text, bytes));
    KS_TRY(ks_tok_post_run(t->post, &tokens, add_special));
    KS_TRY(finish(out, &tokens));
done:
    ks_tok_text_free(&now);
    ks_tok_text_free(&spare);
    ks_tok_bpe_scratch_free(scratch);
    free(tokens.list);
    return rc;
}

void ks_encoding_free(ks_encoding *e)
{
    free(e->ids);
    free(e->start);
    free(e->end);
    *e = (ks_encoding){0};
}

/* ---- reading tokens ---- */

/* The bytes that a vocabulary token stands for, in place of s [n]; returns their number. */
static size_t undo_alphabet(const ks_tokenizer *t, char *s, size_t n)
{
    size_t out = 0;
    unsigned byte;
    if (ks_tok_bpe_byte_fallback(t->bpe) && n == 6 && sscanf(s, "<0x%2X>", &byte) == 1) {
        s[0] = (char)byte;
        return 1;
    }
    for (size_t i = 0, bytes; i < n; i += bytes) {
        const int32_t c = ks_tok_utf8_get(s + i, &bytes);
        const int undone = ks_tok_steps_byte_level(t->pre_tokenizer) ? ks_tok_byte_level_undo(c) : c == 0x2581 ? ' ' : -1;
        if (undone >= 0) {
            s[out++] = (char)undone;
        } else {
            memmove(s + out, s + i, bytes);
            out += bytes;
        }
    }
    return out;
}

int ks_tokenizer_token_text(const ks_tokenizer *t, int32_t id, char **out)
{
    int rc = KS_OK;
    size_t n = 0, at = 0;
    char *raw = NULL, *shown = NULL;
    const char *content = ks_tok_added_content(t->added, id);
    const char *token = content ? content : ks_tok_bpe_token(t->bpe, id, &n);
    KS_REQUIRE(token, KS_EINPUT, "token id %d is not in the tokenizer's vocabulary of %zu", (int)id, ks_tokenizer_vocab_size(t));
    KS_GET(raw, ks_strdup(token));
    n = content ? strlen(content) : undo_alphabet(t, raw, n);
    KS_NEW(shown, 4 * n + 1);
    for (size_t i = 0; i < n;) {
        const size_t good = ks_tok_utf8_check(raw + i, n - i);
        memcpy(shown + at, raw + i, good);
        at += good;
        i += good;
        if (i < n) at += (size_t)sprintf(shown + at, "\\x%02X", (unsigned char)raw[i++]);
    }
    shown[at] = 0;
done:
    free(raw);
    if (rc) free(shown);
    else *out = shown;
    return rc;
}
