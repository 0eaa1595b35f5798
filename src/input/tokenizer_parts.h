/* tokenizer_parts.h - what the tokenizer's files share; private to src/input/tokenizer*.c.
 *
 * A text goes through flat steps. Between two steps it is one byte array, for every byte the range of source bytes that it
 * stands for, and a list of splits, the pieces that later steps treat each on its own:
 *
 *   tokenizer.c        added tokens (raw) -> normalizer steps -> added tokens (normalized) -> pre-tokenizer steps -> BPE -> post
 *   tokenizer_text.c   the array with its source ranges; tokenizer_unicode.c  UTF-8, normal forms, classes of characters
 *   tokenizer_regex.c  patterns                           tokenizer_steps.c   normalizers and pre-tokenizers
 *   tokenizer_bpe.c    vocabulary and merges              tokenizer_added.c   added tokens
 *   tokenizer_post.c   template and offsets              tokenizer_tables.c  Unicode versions */
#ifndef KS_INPUT_TOKENIZER_PARTS_H
#define KS_INPUT_TOKENIZER_PARTS_H

#include "base/error.h"
#include "base/json.h"
#include "input/tokenizer.h"

enum { KS_TOK_MAX_ID = (1 << 24) - 1 }; /* tables are indexed by id: a damaged id may not ask for all memory */

/* ---- text ---- */

typedef struct ks_tok_split {
    uint32_t begin, end; /* bytes */
    int32_t id;          /* an added token's id, final; -1 for text */
} ks_tok_split;

typedef struct ks_tok_text {
    size_t n, capacity, limit;
    char *bytes;         /* [n] UTF-8 */
    uint32_t *from, *to; /* [n] bytes [from, to) of the source that a byte stands for; the same for all bytes of a character */
    size_t n_splits, splits_capacity;
    ks_tok_split *splits; /* [n_splits], in order, never empty */
    int failed;           /* a status: KS_EMACHINE without memory, KS_EINPUT beyond the limit; everything appended since is lost */
} ks_tok_text;

/* An empty text that may hold what normalizers make of so many bytes. A damaged file may not ask for all memory here, either. */
ks_tok_text ks_tok_text_for(size_t bytes);
void ks_tok_text_free(ks_tok_text *t);
void ks_tok_text_clear(ks_tok_text *t);
void ks_tok_text_append(ks_tok_text *t, const char *bytes, size_t n, uint32_t from, uint32_t to);
void ks_tok_text_copy(ks_tok_text *t, const ks_tok_text *source, size_t begin, size_t end);
void ks_tok_text_split(ks_tok_text *t, size_t begin, size_t end, int32_t id); /* an empty one is dropped */

/* ---- Unicode ---- */

enum { KS_TOK_NFC, KS_TOK_NFD, KS_TOK_NFKC, KS_TOK_NFKD };

/* Bytes of the character that begins with this byte of valid UTF-8. */
size_t ks_tok_utf8_length(char first);
/* One character of valid UTF-8; *bytes is its length. And back: the length of out. */
int32_t ks_tok_utf8_get(const char *s, size_t *bytes);
size_t ks_tok_utf8_put(char out[4], int32_t c);
/* Offset of the first byte that is not UTF-8 (surrogates and overlong forms are not), n if all are. */
size_t ks_tok_utf8_check(const char *s, size_t n);
/* Differences between Unicode versions: an older character that patterns treat as the reference treats c (c itself if it is old);
 * whether the reference's normal forms know c; the lower case of a capital of late, c for all others. */
int32_t ks_tok_older(int32_t c);
bool ks_tok_normal_forms_know(int32_t c);
int32_t ks_tok_newer_lowercase(int32_t c);
bool ks_tok_is_space(int32_t c); /* White_Space */
bool ks_tok_is_word(int32_t c);  /* \w of UTS 18 */
/* Appends the normal form of source's bytes [begin, end) to t. */
int ks_tok_normal_form(ks_tok_text *t, const ks_tok_text *source, size_t begin, size_t end, int form);
void ks_tok_lowercase(ks_tok_text *t, const ks_tok_text *source, size_t begin, size_t end);

/* ---- patterns ---- */

typedef struct ks_tok_regex ks_tok_regex;
typedef struct ks_tok_scan ks_tok_scan; /* one walk's state */

/* pattern: Oniguruma's syntax as tokenizer files use it, or literal text. KS_EINPUT says what is not supported, after `where`. */
int ks_tok_regex_new(ks_tok_regex **out, const char *pattern, bool literal, const char *where);
bool ks_tok_regex_may_be_empty(const ks_tok_regex *r); /* it may match no characters */
void ks_tok_regex_free(ks_tok_regex *r);
/* Matches of r in s [n], first to last: *found false at the end. start_scan's result is freed by free_scan. */
int ks_tok_scan_new(ks_tok_scan **out, const ks_tok_regex *r);
int ks_tok_scan_start(ks_tok_scan *scan, const char *s, size_t n);
int ks_tok_scan_next(ks_tok_scan *scan, bool *found, size_t *begin, size_t *end);
void ks_tok_scan_free(ks_tok_scan *scan);

/* ---- steps ---- */

typedef struct ks_tok_steps ks_tok_steps;

/* The flat steps of a file's "normalizer" or "pre_tokenizer" member (NULL or JSON null: none). */
int ks_tok_steps_new(ks_tok_steps **out, const cJSON *component, bool pre_tokenizer, const char *where);
void ks_tok_steps_free(ks_tok_steps *s);
/* Runs them on *text; *spare is scratch, and the two may be swapped. */
int ks_tok_steps_run(const ks_tok_steps *s, ks_tok_text *text, ks_tok_text *spare);
/* True if tokens are written in the byte-level alphabet. */
bool ks_tok_steps_byte_level(const ks_tok_steps *s);
/* The byte that a character of the byte-level alphabet stands for, -1 for other characters. */
int ks_tok_byte_level_undo(int32_t c);

/* ---- model ---- */

typedef struct ks_tok_bpe ks_tok_bpe;

int ks_tok_bpe_new(ks_tok_bpe **out, const cJSON *model, const char *where);
void ks_tok_bpe_free(ks_tok_bpe *b);
/* -1 if it is not in the vocabulary. */
int32_t ks_tok_bpe_id(const ks_tok_bpe *b, const char *token, size_t bytes);
/* NULL if the id is unknown; *bytes is its length. */
const char *ks_tok_bpe_token(const ks_tok_bpe *b, int32_t id, size_t *bytes);
int32_t ks_tok_bpe_max_id(const ks_tok_bpe *b);
/* True if "<0xNN>" tokens stand for bytes. */
bool ks_tok_bpe_byte_fallback(const ks_tok_bpe *b);

/* Tokens while they are made; ranges in bytes of the source, then (post) in characters. */
typedef struct ks_tok_token {
    int32_t id;
    uint32_t start, end;
    uint32_t lead, trail; /* characters of white space (or of the byte-level space) at the ends of the token's own text */
} ks_tok_token;

typedef struct ks_tok_tokens {
    size_t n, capacity;
    ks_tok_token *list; /* [n] */
} ks_tok_tokens;

/* text [bytes]: the token's own text. */
int ks_tok_tokens_push(ks_tok_tokens *t, int32_t id, uint32_t start, uint32_t end, const char *text, size_t bytes);
/* Appends the tokens of the word in text's bytes [begin, end). *scratch is kept between calls, freed by ks_tok_bpe_scratch_free. */
typedef struct ks_tok_bpe_scratch ks_tok_bpe_scratch;
int ks_tok_bpe_encode(const ks_tok_bpe *b, ks_tok_bpe_scratch **scratch, const ks_tok_text *text, size_t begin, size_t end,
                      ks_tok_tokens *out);
void ks_tok_bpe_scratch_free(ks_tok_bpe_scratch *s);

/* ---- added tokens ---- */

typedef struct ks_tok_added ks_tok_added;

int ks_tok_added_new(ks_tok_added **out, const cJSON *list, const ks_tok_bpe *bpe, const ks_tok_steps *normalizer, const char *where);
void ks_tok_added_free(ks_tok_added *a);
/* Cuts the added tokens (those that match normalized text, or the others) out of text's splits. *spare is scratch and may be swapped. */
void ks_tok_added_cut(const ks_tok_added *a, bool normalized, ks_tok_text *text, ks_tok_text *spare);
/* Content by id; NULL if it is not an added token's. */
const char *ks_tok_added_content(const ks_tok_added *a, int32_t id);
int32_t ks_tok_added_max_id(const ks_tok_added *a); /* -1 if there is none */

/* ---- post-processor ---- */

typedef struct ks_tok_post ks_tok_post;

int ks_tok_post_new(ks_tok_post **out, const cJSON *component, const char *where);
void ks_tok_post_free(ks_tok_post *p);
int32_t ks_tok_post_max_id(const ks_tok_post *p); /* -1 if it adds nothing */
/* Ranges are in characters. */
int ks_tok_post_run(const ks_tok_post *p, ks_tok_tokens *tokens, bool add_special);

#endif
