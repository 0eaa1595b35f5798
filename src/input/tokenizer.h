/* tokenizer.h - Hugging Face's tokenizer.json: BPE models with their normalizer, pre-tokenizer and post-processor.
 *
 * The tokens are those of Hugging Face's `tokenizers`, or the file is refused (KS_EINPUT) with the path of the component that
 * is not supported. "truncation" and "padding" of the file have no effect, as in a plain call of transformers' tokenizers. */
#ifndef KS_INPUT_TOKENIZER_H
#define KS_INPUT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ks_tokenizer ks_tokenizer; /* immutable after loading: threads may share it */

typedef struct ks_encoding {
    size_t n;       /* tokens */
    int32_t *ids;   /* [n] */
    int32_t *start; /* [n] first character (Unicode scalar values) of the token's range in the text */
    int32_t *end;   /* [n] end, exclusive. Special tokens that were added have (0, 0) */
} ks_encoding;

/* Reads model_dir/tokenizer.json. KS_EINPUT names file, component, what was expected and found. Free with ks_tokenizer_free. */
int ks_tokenizer_load(ks_tokenizer **out, const char *model_dir);
/* The same from memory; `name` begins every message. */
int ks_tokenizer_parse(ks_tokenizer **out, const char *text, size_t bytes, const char *name);
void ks_tokenizer_free(ks_tokenizer *t);

/* Tokens of UTF-8 text [bytes]; add_special: with the tokens that the post-processor adds (BOS). KS_EINPUT names the offset of
 * invalid UTF-8. On success *out is overwritten and owned by the caller (ks_encoding_free); on failure it is left alone. */
int ks_tokenizer_encode(const ks_tokenizer *t, const char *text, size_t bytes, bool add_special, ks_encoding *out);
void ks_encoding_free(ks_encoding *e);

/* SHA-256 of tokenizer.json's bytes, 64 hex digits. Lives as long as t. */
const char *ks_tokenizer_sha256(const ks_tokenizer *t);

/* The text of one token made readable: byte-level alphabet undone, U+2581 as a space, bytes that are not UTF-8 as \xNN.
 * KS_EINPUT if the id is unknown. Free *out with free(). */
int ks_tokenizer_token_text(const ks_tokenizer *t, int32_t id, char **out);

/* Highest id + 1, added tokens included: every id of an encoding is below it. */
size_t ks_tokenizer_vocab_size(const ks_tokenizer *t);

#endif
