/* The corpus parser: the shipped corpus, each kind of mistake with its message, and hostile bytes. */
#include "base/error.h"
#include "base/json.h"
#include "input/corpus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SHIPPED "../corpus/attention_samples_universal.json"

static void shipped(void **state)
{
    (void)state;
    ks_corpus *c = NULL;
    assert_int_equal(ks_corpus_load(&c, SHIPPED), KS_OK);
    assert_int_equal(c->n, 50);
    assert_int_equal(c->n_groups, 6);
    assert_string_equal(c->groups[0], "python_doctest");
    assert_int_equal(strlen(c->sha256), 64);
    assert_string_equal(c->samples[0].id, "py_simple_add");
    assert_string_equal(c->samples[0].marker_pattern, ">>>");
    assert_memory_equal(c->samples[0].text + c->samples[0].marker_char, ">>>", 3); /* ASCII up to there */
    assert_int_equal(c->samples[0].target_chars[0], 0);
    /* Positions are characters: behind the accents of this text, bytes are ahead of them. */
    const ks_corpus_sample *s = &c->samples[1];
    assert_string_equal(s->id, "py_string_manipulation");
    size_t n = 0, *offset = ks_char_offsets(s->text, s->text_bytes, &n);
    assert_true(n < s->text_bytes);
    assert_int_equal(offset[n], s->text_bytes);
    assert_true(offset[s->marker_char] > (size_t)s->marker_char);
    assert_memory_equal(s->text + offset[s->marker_char], ">>>", 3);
    free(offset);
    ks_corpus_free(c);
}

static void token_ids(void **state)
{
    (void)state;
    const char *text =
        "\xef\xbb\xbf{\"_x\": 1, \"ids\": [{\"id\": \"raw\", \"_note\": \"n\", \"token_ids\": [5, 9, 9, 2], \"marker_tokens\": [3, 2],"
        " \"target_tokens\": [1, 0]}]}";
    ks_corpus *c = NULL;
    assert_int_equal(ks_corpus_parse(&c, text, strlen(text), "t.json"), KS_OK);
    const ks_corpus_sample *s = &c->samples[0];
    assert_null(s->text);
    assert_int_equal(s->marker_char, -1);
    assert_int_equal(s->n_tokens, 4);
    assert_memory_equal(s->token_ids, ((int32_t[]){5, 9, 9, 2}), 16);
    assert_memory_equal(s->marker_tokens, ((int32_t[]){2, 3}), 8);
    assert_memory_equal(s->target_tokens, ((int32_t[]){0, 1}), 8);
    ks_corpus_free(c);
}

#define SAMPLE(rest) "{\"g\": [{\"id\": \"s1\", " rest "}]}"
#define TEXT "\"code\": \"def \\u00e9(): >>>\", "
#define MARKER "\"marker_char_pos\": 9, \"marker_pattern\": \">>>\", "
#define TARGETS "\"target_char_positions\": [0, 4]"

static const struct {
    const char *text, *says, *also;
} mistakes[] = {
    {SAMPLE(TEXT MARKER "\"targets\": [0], " TARGETS), "sample \"s1\": unknown key \"targets\"", "bad.json: group \"g\""},
    {SAMPLE(TEXT MARKER "\"markr_pattern\": 1, " TARGETS), "did you mean \"marker_pattern\"", "s1"},
    {SAMPLE(TEXT MARKER TARGETS ", \"token_ids\": [1]"), "both \"code\" and \"token_ids\"", "s1"},
    {SAMPLE("\"_\": 1"), "neither \"code\" nor \"token_ids\"", "s1"},
    {SAMPLE(MARKER TARGETS), "neither \"code\" nor \"token_ids\"", "s1"},
    {SAMPLE("\"code\": \"\", " MARKER TARGETS), "\"code\" is empty", "s1"},
    {SAMPLE("\"code\": 7, " MARKER TARGETS), "\"code\" must be a string, found a number", "s1"},
    {SAMPLE(TEXT "\"marker_char_pos\": 8, \"marker_pattern\": \">>>\", " TARGETS), "is not at character 8: there stands \" >>>\"",
     "its first place is 9"},
    {SAMPLE(TEXT "\"marker_char_pos\": 4, \"marker_pattern\": \"#[t]\", " TARGETS), "there stands \"\xc3\xa9(): >>>\"", "nowhere else"},
    {SAMPLE(TEXT "\"marker_char_pos\": 12, \"marker_pattern\": \">>>\", " TARGETS),
     "\"marker_char_pos\" is 12, beyond the text's 12 characters", "s1"},
    {SAMPLE(TEXT "\"marker_char_pos\": -1, \"marker_pattern\": \">>>\", " TARGETS), "\"marker_char_pos\" must be a whole number", "s1"},
    {SAMPLE(TEXT "\"marker_char_pos\": 1.5, \"marker_pattern\": \">>>\", " TARGETS), "\"marker_char_pos\" must be a whole number", "s1"},
    {SAMPLE(TEXT "\"marker_pattern\": \">>>\", " TARGETS), "\"marker_char_pos\" is missing", "s1"},
    {SAMPLE(TEXT "\"marker_char_pos\": 9, " TARGETS), "\"marker_pattern\" is missing", "s1"},
    {SAMPLE(TEXT "\"marker_char_pos\": 9, \"marker_pattern\": \"\", " TARGETS), "\"marker_pattern\" is empty", "s1"},
    {SAMPLE(TEXT MARKER "\"target_char_positions\": []"), "\"target_char_positions\" is empty", "s1"},
    {SAMPLE(TEXT MARKER "\"target_char_positions\": 3"), "must be an array of whole numbers, found a number", "s1"},
    {SAMPLE(TEXT MARKER "\"target_char_positions\": [0, 12]"), "[1] is 12, beyond the text's characters (12)", "s1"},
    {SAMPLE(TEXT MARKER "\"target_char_positions\": [0, 1e300]"), "beyond the text's characters", "s1"},
    {SAMPLE(TEXT MARKER "\"target_char_positions\": [0, \"a\"]"), "[1] must be a whole number, found a string", "s1"},
    {SAMPLE(TEXT MARKER "\"target_char_positions\": [4, 0, 4]"), "holds 4 twice", "s1"},
    {SAMPLE(TEXT MARKER TARGETS ", \"code\": \"x\""), "\"code\" stands there twice", "s1"},
    {SAMPLE("\"token_ids\": [1, -2], \"marker_tokens\": [0], \"target_tokens\": [1]"),
     "\"token_ids\"[1] must be a whole number from 0, found -2", "s1"},
    {SAMPLE("\"token_ids\": [1, 4294967296], \"marker_tokens\": [0], \"target_tokens\": [1]"), "beyond the largest token id", "s1"},
    {SAMPLE("\"token_ids\": [], \"marker_tokens\": [0], \"target_tokens\": [1]"), "\"token_ids\" is empty", "s1"},
    {SAMPLE("\"token_ids\": [1, 2], \"marker_tokens\": [2], \"target_tokens\": [1]"),
     "\"marker_tokens\"[0] is 2, beyond the sample's tokens (2)", "s1"},
    {SAMPLE("\"token_ids\": [1, 2], \"marker_tokens\": [1], \"target_tokens\": []"), "\"target_tokens\" is empty", "s1"},
    {SAMPLE("\"token_ids\": [1, 2], \"marker_tokens\": [1]"), "\"target_tokens\" is missing", "s1"},
    {SAMPLE("\"token_ids\": [1], \"marker_tokens\": [0], \"target_tokens\": [0], \"marker_pattern\": \"x\""),
     "unknown key \"marker_pattern\"", "s1"},
    {"{\"g\": [{\"id\": \"\"}]}", "sample 0: \"id\" is empty", "g"},
    {"{\"g\": [{\"code\": \"x\"}]}", "sample 0: \"id\" is missing", "g"},
    {"{\"g\": [{\"id\": 3}]}", "\"id\" must be a string", "g"},
    {"{\"g\": [7]}", "a sample is an object, this is a number", "g"},
    {"{\"g\": {}}", "group \"g\" must be an array of samples, found an object", "bad.json"},
    {"{\"g\": []}", "group \"g\" is empty", "bad.json"},
    {"{\"_a\": 1}", "has no group", "bad.json"},
    {"[]", "a corpus is an object of groups, this is an array", "bad.json"},
    {"{\"_format_version\": \"3.0\"}", "must be \"2.0\", found 3.0", "bad.json"},
    {"{\"_format_version\": 2.0}", "must be \"2.0\", found a number", "bad.json"},
    {"{\"g\": [\"\\u0000\"]}", "\\u0000", "bad.json"},
    {"{\"g\": [\"\xff\"]}", "not valid UTF-8 at byte 8", "bad.json"},
    {"{\"g\": [\"\xed\xa0\x80\"]}", "not valid UTF-8 at byte 8", "bad.json"},
    {"{\"g\": [\"\\ud800\"]}", "not valid JSON", "bad.json"},
    {"{\"g\": 1} x", "something follows the value", "bad.json"},
    {"", "not valid JSON", "truncated"},
    {"{\"g\": [{\"id\": \"a\", \"token_ids\": [1], \"marker_tokens\": [0], \"target_tokens\": [0]}], \"h\": [{\"id\": \"a\", "
     "\"token_ids\": [1], "
     "\"marker_tokens\": [0], \"target_tokens\": [0]}]}",
     "the id \"a\" stands there twice", "\"g\" and \"h\""},
    {"{\"g\": [{\"id\": \"a\", \"token_ids\": [1], \"marker_tokens\": [0], \"target_tokens\": [0]}], \"g\": [{\"id\": \"b\", "
     "\"token_ids\": [1], "
     "\"marker_tokens\": [0], \"target_tokens\": [0]}]}",
     "the group \"g\" stands there twice", "bad.json"},
};

static void mistakes_are_named(void **state)
{
    (void)state;
    /* The pieces the mistakes are made of are right. */
    ks_corpus *c = NULL;
    const char *good = SAMPLE(TEXT MARKER TARGETS);
    assert_int_equal(ks_corpus_parse(&c, good, strlen(good), "good.json"), KS_OK);
    ks_corpus_free(c);
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        c = NULL;
        const int rc = ks_corpus_parse(&c, mistakes[i].text, strlen(mistakes[i].text), "bad.json");
        if (rc != KS_EINPUT || !strstr(ks_error_text(), mistakes[i].says) || !strstr(ks_error_text(), mistakes[i].also))
            fail_msg("%s\n  expected: %s ... %s\n  found: %d %s", mistakes[i].text, mistakes[i].says, mistakes[i].also, rc,
                     ks_error_text());
        assert_null(c);
    }
    assert_int_equal(ks_corpus_load(&c, "fixtures/corpus/not_there.json"), KS_EINPUT);
    assert_non_null(strstr(ks_error_text(), "not_there.json"));
    assert_int_equal(ks_corpus_parse(&c, "{\"g\"\0: 1}", 9, "nul.json"), KS_EINPUT);
    assert_non_null(strstr(ks_error_text(), "NUL byte at offset 4"));
    /* \\u0000 is a backslash and five letters, not U+0000. */
    const char *escaped =
        SAMPLE("\"code\": \"a\\\\u0000>\", \"marker_char_pos\": 7, \"marker_pattern\": \">\", \"target_char_positions\": [0]");
    assert_int_equal(ks_corpus_parse(&c, escaped, strlen(escaped), "escaped.json"), KS_OK);
    assert_int_equal(c->samples[0].text_bytes, 8);
    ks_corpus_free(c);
}

/* Every truncation fails with a message; every flipped byte is either refused or still a whole corpus. */
static void damaged(void **state)
{
    (void)state;
    char *data = NULL;
    size_t bytes = 0;
    assert_int_equal(ks_file_read(&data, &bytes, SHIPPED), KS_OK);
    while (bytes && data[bytes - 1] != '}') bytes--;
    for (size_t n = 0; n < bytes; n += 1 + n / 40) {
        ks_corpus *c = NULL;
        char *cut = malloc(n + 1); /* exactly as long, so that a sanitizer sees reads beyond it */
        memcpy(cut, data, n);
        assert_int_equal(ks_corpus_parse(&c, cut, n, "cut.json"), KS_EINPUT);
        assert_true(strlen(ks_error_text()) > 8);
        free(cut);
    }
    uint32_t random = 1;
    for (int i = 0; i < 400; i++) {
        random = random * 1664525u + 1013904223u;
        const size_t at = (random >> 4) % bytes;
        const char was = data[at];
        data[at] = (char)(random >> 24);
        ks_corpus *c = NULL;
        const int rc = ks_corpus_parse(&c, data, bytes, "flipped.json");
        assert_true(rc == KS_EINPUT || (rc == KS_OK && c->n > 0));
        if (!rc) ks_corpus_free(c);
        data[at] = was;
    }
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shipped), cmocka_unit_test(token_ids), cmocka_unit_test(mistakes_are_named),
                                       cmocka_unit_test(damaged)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
