/* corpus.h - the corpus file (JSON, format 2.0): groups of samples, each a text with a marker and target characters, or token ids.
 *
 * Top-level keys that begin with "_" are metadata; every other key is a group. Inside a sample, keys that begin with "_" are
 * comments and any other unknown key is an error. Positions count Unicode scalar values of the decoded text from 0. */
#ifndef KS_INPUT_CORPUS_H
#define KS_INPUT_CORPUS_H

#include <stddef.h>
#include <stdint.h>

typedef struct ks_corpus_sample {
    char *id, *group;
    char *text; /* UTF-8, valid and without NUL; NULL when the sample is given as token ids */
    size_t text_bytes;
    int64_t marker_char;   /* -1 in a token-id sample */
    char *marker_pattern;  /* stands in text at marker_char; NULL in a token-id sample */
    int64_t *target_chars; /* [n_targets] inside the text, ascending, no two equal */
    size_t n_targets;
    int32_t *token_ids; /* [n_tokens], >= 0; NULL in a text sample, and so the two below */
    size_t n_tokens;
    int32_t *marker_tokens; /* [n_marker_tokens] positions in token_ids, ascending, no two equal */
    size_t n_marker_tokens;
    int32_t *target_tokens; /* [n_target_tokens] likewise */
    size_t n_target_tokens;
} ks_corpus_sample;

typedef struct ks_corpus {
    char *path;
    char sha256[65];           /* of the file's bytes, lower-case hexadecimal */
    ks_corpus_sample *samples; /* [n] in file order: a group's samples stand together */
    size_t n;
    char **groups; /* [n_groups] in file order */
    size_t n_groups;
} ks_corpus;

/* Reads and validates a whole corpus. Everything that is wrong with it is KS_EINPUT, naming file, group, id and key. */
int ks_corpus_load(ks_corpus **out, const char *path);

/* The same from memory; `path` is the name in messages. */
int ks_corpus_parse(ks_corpus **out, const char *data, size_t bytes, const char *path);

/* Byte offsets of a valid UTF-8 text's characters: a new array of *n + 1, the last one is `bytes`. NULL with the error text set when
 * memory ends. Free with free(). */
size_t *ks_char_offsets(const char *text, size_t bytes, size_t *n);

/* NULL is allowed. */
void ks_corpus_free(ks_corpus *c);

#endif
