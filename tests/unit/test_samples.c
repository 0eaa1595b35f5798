/* Choosing samples and mapping characters to tokens, with a tiny tokenizer whose tokens can be read off (fixtures/corpus): letters,
 * "def", ">>", "#[", " a"; an accented letter is two byte tokens; a letter it does not know vanishes; "<s>" is put in front. */
#include "base/error.h"
#include "base/mem.h"
#include "input/samples.h"
#include "input/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static ks_tokenizer *tiny;

static int load_tokenizer(void **state)
{
    (void)state;
    return ks_tokenizer_load(&tiny, "fixtures/corpus/tiny_tokenizer");
}

static int free_tokenizer(void **state)
{
    (void)state;
    ks_tokenizer_free(tiny);
    return 0;
}

static ks_corpus *corpus(const char *text)
{
    ks_corpus *c = NULL;
    if (ks_corpus_parse(&c, text, strlen(text), "t.json")) fail_msg("%s", ks_error_text());
    return c;
}

static ks_corpus *shipped(void)
{
    ks_corpus *c = NULL;
    assert_int_equal(ks_corpus_load(&c, "../corpus/attention_samples_universal.json"), KS_OK);
    return c;
}

static void assert_mask(const uint8_t *mask, int32_t T, const char *expected)
{
    char found[256] = "";
    for (int32_t t = 0; t < T; t++) found[t] = mask[t] ? 'x' : '.';
    assert_string_equal(found, expected);
}

static ks_sample *only(ks_samples *s)
{
    assert_int_equal(s->n, 1);
    return &s->v[0];
}

#define ACCENT                                                                                                           \
    "{\"g\": [{\"id\": \"s\", \"code\": \"def \\u00e9(a): >>>\", \"marker_char_pos\": 10, \"marker_pattern\": \">>>\", " \
    "\"target_char_positions\": [0, 2, 4, 6]}]}"

static void characters(void **state)
{
    (void)state;
    ks_corpus *c = corpus(ACCENT);
    ks_config cfg = {.special_tokens = KS_SPECIAL_TOKENIZER, .marker = KS_MARKER_FIRST_TOKEN};
    ks_samples *samples = NULL;
    assert_int_equal(ks_samples_resolve(&samples, c, &cfg, tiny, 100), KS_OK);
    ks_sample *s = only(samples);
    /* <s> def _ C3 A9 ( a ) : _ >> > */
    assert_int_equal(s->T, 12);
    assert_memory_equal(s->start, ((int32_t[]){0, 0, 3, 4, 4, 5, 6, 7, 8, 9, 10, 12}), 12 * 4);
    assert_memory_equal(s->end, ((int32_t[]){0, 3, 4, 5, 5, 6, 7, 8, 9, 10, 12, 13}), 12 * 4);
    assert_mask(s->marker, s->T, "..........x.");
    assert_mask(s->target, s->T, ".x.x..x....."); /* one of the two tokens of the accented letter: the first that holds it */
    assert_string_equal(s->token_text[0], "<s>");
    assert_string_equal(s->token_text[1], "def");
    assert_string_equal(s->token_text[3], "\xc3\xa9");
    assert_string_equal(s->token_text[10], ">>");
    assert_string_equal(s->group, "g");
    ks_samples_free(samples);

    cfg = (ks_config){.special_tokens = KS_SPECIAL_NONE, .marker = KS_MARKER_SPAN};
    assert_int_equal(ks_samples_resolve(&samples, c, &cfg, tiny, 100), KS_OK);
    s = only(samples);
    assert_int_equal(s->T, 11);
    assert_mask(s->marker, s->T, ".........xx");
    assert_mask(s->target, s->T, "x.x..x.....");
    ks_samples_free(samples);

    /* The vocabulary of the model is the tokenizer's or larger; an id beyond it is refused. */
    assert_int_equal(ks_samples_resolve(&samples, c, &cfg, tiny, 20), KS_EINPUT);
    assert_non_null(strstr(ks_error_text(), "t.json: sample \"s\": token 0 has the id 22, beyond the model's vocabulary of 20"));
    assert_int_equal(ks_samples_resolve(&samples, c, &cfg, NULL, 100), KS_EINPUT);
    assert_non_null(strstr(ks_error_text(), "no tokenizer"));
    ks_corpus_free(c);
}

static void spans(void **state)
{
    (void)state;
    /* A span starts inside a token and takes both tokens of a character. */
    ks_corpus *c = corpus("{\"g\": [{\"id\": \"s\", \"code\": \"de\\u00e9f>>>\", \"marker_char_pos\": 1, \"marker_pattern\": \"e\\u00e9\","
                          "\"target_char_positions\": [6]}]}");
    ks_config cfg = {.special_tokens = KS_SPECIAL_NONE, .marker = KS_MARKER_SPAN};
    ks_samples *samples = NULL;
    assert_int_equal(ks_samples_resolve(&samples, c, &cfg, tiny, 100), KS_OK);
    ks_sample *s = only(samples); /* de C3 A9 f >> > */
    assert_mask(s->marker, s->T, "xxx...");
    assert_mask(s->target, s->T, ".....x");
    ks_samples_free(samples);
    ks_corpus_free(c);
}

static void no_token(void **state)
{
    (void)state;
    /* Z has no token, and the ranges behind it stand one character early: the last character belongs to no token. */
    ks_corpus *c = corpus("{\"g\": [{\"id\": \"s\", \"code\": \"def a(Z):\\n>>>\", \"marker_char_pos\": 10, \"marker_pattern\": \">>>\","
                          "\"target_char_positions\": [0, 12]}]}");
    ks_config cfg = {0};
    ks_samples *samples = NULL;
    assert_int_equal(ks_samples_resolve(&samples, c, &cfg, tiny, 100), KS_EINPUT);
    assert_non_null(strstr(ks_error_text(), "t.json: sample \"s\": no token holds character 12 (a target), in \"def a(Z):\\n>>|>\""));
    assert_null(samples);
    cfg.marker = KS_MARKER_SPAN;
    assert_int_equal(ks_samples_resolve(&samples, c, &cfg, tiny, 100), KS_EINPUT);
    assert_non_null(strstr(ks_error_text(), "character 12 (of the marker)"));
    ks_corpus_free(c);
}

static void token_ids(void **state)
{
    (void)state;
    ks_corpus *c = corpus("{\"raw\": [{\"id\": \"r\", \"token_ids\": [1, 22, 99], \"marker_tokens\": [2, 1], \"target_tokens\": [0]}]}");
    ks_config cfg = {.marker = KS_MARKER_FIRST_TOKEN};
    ks_samples *samples = NULL;
    bool needed = true;
    assert_int_equal(ks_samples_need_tokenizer(&needed, c, &cfg), KS_OK);
    assert_false(needed);
    assert_int_equal(ks_samples_resolve(&samples, c, &cfg, NULL, 100), KS_OK);
    ks_sample *s = only(samples);
    assert_null(s->text);
    assert_memory_equal(s->ids, ((int32_t[]){1, 22, 99}), 12);
    assert_memory_equal(s->start, ((int32_t[]){-1, -1, -1}), 12);
    assert_mask(s->marker, s->T, ".x.");
    assert_mask(s->target, s->T, "x..");
    assert_string_equal(s->token_text[1], "");
    ks_samples_free(samples);
    cfg.marker = KS_MARKER_SPAN;
    assert_int_equal(ks_samples_resolve(&samples, c, &cfg, tiny, 100), KS_OK);
    s = only(samples);
    assert_mask(s->marker, s->T, ".xx");
    assert_string_equal(s->token_text[1], "def");
    assert_string_equal(s->token_text[2], ""); /* the model has the id, the tokenizer has not */
    ks_samples_free(samples);
    assert_int_equal(ks_samples_resolve(&samples, c, &cfg, NULL, 99), KS_EINPUT);
    assert_non_null(strstr(ks_error_text(), "token 2 has the id 99, beyond the model's vocabulary of 99"));
    ks_corpus_free(c);
}

/* Which samples a configuration chooses, by count and first id. The box's tokenizer takes every text. */
static void expect_choice(const ks_corpus *c, ks_config cfg, size_t n, const char *first, const char *last)
{
    static ks_tokenizer *box;
    if (!box) assert_int_equal(ks_tokenizer_load(&box, "../models/box"), KS_OK);
    ks_samples *s = NULL;
    if (ks_samples_resolve(&s, c, &cfg, box, (int64_t)ks_tokenizer_vocab_size(box))) fail_msg("%s", ks_error_text());
    assert_int_equal(s->n, n);
    assert_string_equal(s->v[0].id, first);
    assert_string_equal(s->v[n - 1].id, last);
    for (size_t i = 0; i < n; i++) {
        int32_t markers = 0, targets = 0, marker = 0, last_target = 0;
        for (int32_t t = 0; t < s->v[i].T; t++) {
            if (s->v[i].marker[t]) markers++, marker = t;
            if (s->v[i].target[t]) targets++, last_target = t;
        }
        assert_true(markers == 1 && targets >= 4 && last_target < marker);
        assert_true(s->v[i].T <= 256); /* the box's context */
    }
    ks_samples_free(s);
    if (n == 50) {
        ks_tokenizer_free(box);
        box = NULL;
    }
}

static void choice(void **state)
{
    (void)state;
    ks_corpus *c = shipped();
    char *both[] = {"rust_test", "python_doctest"}, *prompts[] = {"python_prompt"}, *ids[] = {"rust_base_cold", "py_simple_add"};
    char *all[] = {"python_doctest", "rust_test", "python_baseline", "rust_baseline", "python_prompt", "rust_prompt"};
    expect_choice(c, (ks_config){0}, 20, "py_simple_add", "rust_reference_params");
    expect_choice(c, (ks_config){.groups = both, .n_groups = 2}, 20, "py_simple_add", "rust_reference_params");
    expect_choice(c, (ks_config){.include_baselines = true}, 30, "py_simple_add", "rust_base_cold");
    expect_choice(c, (ks_config){.groups = prompts, .n_groups = 1}, 10, "py_prompt_multiply", "py_prompt_celsius");
    expect_choice(c, (ks_config){.groups = prompts, .n_groups = 1, .include_baselines = true}, 15, "py_base_comment", "py_prompt_celsius");
    expect_choice(c, (ks_config){.samples = ids, .n_samples = 2}, 2, "py_simple_add", "rust_base_cold");
    expect_choice(c, (ks_config){.groups = all, .n_groups = 6}, 50, "py_simple_add", "rust_prompt_celsius");

    ks_samples *s = NULL;
    char *wrong_group[] = {"rust_tests"}, *wrong_id[] = {"py_simple_ad"}, *far[] = {"qqqqqqqq"};
    ks_config cfg = {.groups = wrong_group, .n_groups = 1};
    assert_int_equal(ks_samples_resolve(&s, c, &cfg, tiny, 100), KS_EUSAGE);
    assert_non_null(strstr(ks_error_text(), "has no group \"rust_tests\"; did you mean \"rust_test\"?"));
    cfg = (ks_config){.samples = wrong_id, .n_samples = 1};
    assert_int_equal(ks_samples_resolve(&s, c, &cfg, tiny, 100), KS_EUSAGE);
    assert_non_null(strstr(ks_error_text(), "has no sample \"py_simple_ad\"; did you mean \"py_simple_add\"?"));
    cfg = (ks_config){.samples = far, .n_samples = 1};
    assert_int_equal(ks_samples_resolve(&s, c, &cfg, tiny, 100), KS_EUSAGE);
    assert_null(strstr(ks_error_text(), "did you mean"));
    cfg = (ks_config){.groups = prompts, .n_groups = 1, .samples = ids, .n_samples = 2};
    assert_int_equal(ks_samples_resolve(&s, c, &cfg, tiny, 100), KS_EUSAGE);
    assert_non_null(strstr(ks_error_text(), "\"rust_base_cold\" is in the group \"rust_baseline\", which is not among the chosen groups"));
    assert_null(s);
    ks_corpus_free(c);

    /* Without the default groups, all. */
    c = corpus("{\"x\": [{\"id\": \"a\", \"token_ids\": [1, 2], \"marker_tokens\": [1], \"target_tokens\": [0]}],"
               "\"y\": [{\"id\": \"b\", \"token_ids\": [1, 2], \"marker_tokens\": [1], \"target_tokens\": [0]}]}");
    cfg = (ks_config){0};
    assert_int_equal(ks_samples_resolve(&s, c, &cfg, NULL, 100), KS_OK);
    assert_int_equal(s->n, 2);
    ks_samples_free(s);
    cfg.include_baselines = true;
    assert_int_equal(ks_samples_resolve(&s, c, &cfg, NULL, 100), KS_EUSAGE);
    assert_non_null(strstr(ks_error_text(), "no chosen group has a *_baseline twin"));
    ks_corpus_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(characters), cmocka_unit_test(spans), cmocka_unit_test(no_token),
                                       cmocka_unit_test(token_ids), cmocka_unit_test(choice)};
    return cmocka_run_group_tests(tests, load_tokenizer, free_tokenizer);
}
