/* samples.h - the chosen samples of a corpus as tokens: what the plan and the engine see. */
#ifndef KS_INPUT_SAMPLES_H
#define KS_INPUT_SAMPLES_H

#include "input/config.h"
#include "input/corpus.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ks_tokenizer ks_tokenizer; /* tokenizer.h */

typedef struct ks_sample {
    char *id, *group;
    char *text;           /* UTF-8; NULL in a token-id sample */
    int32_t T;            /* tokens */
    int32_t *ids;         /* [T] */
    int32_t *start, *end; /* [T] characters, end exclusive; -1 in a token-id sample */
    uint8_t *marker;      /* [T] 1 where a token belongs to the marker: its first token only, or all of them (ks_config.marker) */
    uint8_t *target;      /* [T] 1 where a token holds a target character */
    char **token_text;    /* [T] the token as a person reads it: its slice of the text, else the tokenizer's text, else "" */
} ks_sample;

typedef struct ks_samples {
    ks_sample *v; /* [n] in corpus order */
    size_t n;
} ks_samples;

/* Chooses the samples (groups, ids, baselines of cfg), tokenises them and maps characters to tokens: a character belongs to the first
 * token whose [start, end) holds it. Nothing is dropped: a character that no token holds is KS_EINPUT naming sample, position and
 * text; an unknown group or id is KS_EUSAGE naming the nearest.
 * Groups by default: python_doctest and rust_test where the corpus has them, all groups where it has neither. --include-baselines adds
 * the twin of each chosen group <x>_<word>, <x>_baseline; that no chosen group has one is KS_EUSAGE.
 * tok may be NULL if all chosen samples are token ids. Token ids must be in [0, vocab). Free with ks_samples_free. */
int ks_samples_resolve(ks_samples **out, const ks_corpus *c, const ks_config *cfg, const ks_tokenizer *tok, int64_t vocab);

/* Whether any chosen sample is a text, that is, whether a tokenizer is needed. Errors as above. */
int ks_samples_need_tokenizer(bool *out, const ks_corpus *c, const ks_config *cfg);

/* NULL is allowed. */
void ks_samples_free(ks_samples *s);

#endif
