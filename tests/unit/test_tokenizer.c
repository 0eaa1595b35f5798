/* The tokenizer against Hugging Face's answers (tests/fixtures/tokenizers, made by make_tokenizers.py): ids and ranges of every text.
 * KS_TOKENIZER_DATA may name a directory with texts.jsonl and MODEL/{tokenizer.json, expected.tsv} of whole models, tested alike. */
#define _GNU_SOURCE
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "input/tokenizer.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define FIXTURES "fixtures/tokenizers/"

static ks_tokenizer *load(const char *dir)
{
    ks_tokenizer *t = NULL;
    if (ks_tokenizer_load(&t, dir)) fail_msg("%s", ks_error_text());
    return t;
}

/* Number of the character that begins at a byte. */
static int32_t character(const char *text, long byte)
{
    int32_t n = 0;
    for (long i = 0; i < byte; i++) n += (text[i] & 0xc0) != 0x80;
    return n;
}

/* One line of expected.tsv: ids, a tab, ranges in bytes. False, with a message, if the encoding differs. */
static bool matches(const ks_encoding *e, const char *text, size_t bytes, const char *line, size_t length)
{
    const char *ids = line, *ranges = memchr(line, '\t', length), *end = line + length;
    assert_non_null(ranges);
    ranges++;
    size_t n = 0;
    for (;; n++) {
        char *next;
        if (ranges == end || *ranges == '\n') break;
        const long id = strtol(ids, &next, 10);
        ids = next;
        const long from = strtol(ranges, &next, 10);
        const long to = strtol(next + 1, &next, 10);
        ranges = *next == ' ' ? next + 1 : next;
        assert_in_range(to, from, bytes);
        if (n >= e->n) continue;
        if (e->ids[n] == id && e->start[n] == character(text, from) && e->end[n] == character(text, to)) continue;
        print_error("token %zu: expected %ld [%d, %d), found %d [%d, %d)\n", n, id, character(text, from), character(text, to), e->ids[n],
                    e->start[n], e->end[n]);
        return false;
    }
    if (n != e->n) print_error("expected %zu tokens, found %zu\n", n, e->n);
    return n == e->n;
}

/* Every text of texts_path with the tokenizer of dir, against the lines of expected_path. Returns the number of texts compared. */
static size_t compare(const char *dir, const char *texts_path, const char *expected_path, bool special)
{
    char *texts, *expected;
    size_t texts_bytes, expected_bytes, count = 0, wrong = 0;
    ks_tokenizer *t = load(dir);
    assert_int_equal(ks_file_read(&texts, &texts_bytes, texts_path), KS_OK);
    assert_int_equal(ks_file_read(&expected, &expected_bytes, expected_path), KS_OK);
    const char *line = texts, *want = expected;
    double seconds = 0;
    for (; *line && *want; count++) {
        const char *line_end = strchr(line, '\n'), *want_end = strchr(want, '\n');
        char *text;
        size_t bytes;
        ks_encoding e;
        assert_true(line_end && want_end);
        assert_int_equal(ks_json_text(&text, &bytes, line, (size_t)(line_end - line), texts_path), KS_OK);
        seconds -= ks_seconds();
        if (ks_tokenizer_encode(t, text, bytes, special, &e)) fail_msg("%s: text %zu: %s", dir, count, ks_error_text());
        seconds += ks_seconds();
        if (!matches(&e, text, bytes, want, (size_t)(want_end - want))) {
            print_error("%s: text %zu: %.*s\n", dir, count, (int)(line_end - line), line);
            wrong++;
        }
        for (size_t i = 0; i < e.n; i++) assert_in_range(e.ids[i], 0, ks_tokenizer_vocab_size(t) - 1);
        ks_encoding_free(&e);
        free(text);
        line = line_end + 1;
        want = want_end + 1;
    }
    free(texts);
    free(expected);
    ks_tokenizer_free(t);
    if (wrong) fail_msg("%s: %zu of %zu texts differ", dir, wrong, count);
    if (getenv("KS_TOKENIZER_DATA")) print_message("%s: %zu texts equal, %.3f s\n", dir, count, seconds);
    return count;
}

/* All tokenizers in the directories of `root`, which has one texts.jsonl. Returns their number. */
static size_t compare_all(const char *root, size_t least_texts)
{
    DIR *dir = opendir(root);
    size_t found = 0;
    assert_non_null(dir);
    for (const struct dirent *d; (d = readdir(dir));) {
        char *texts = ks_format("%s/texts.jsonl", root), *model = ks_format("%s/%s", root, d->d_name);
        char *expected = ks_format("%s/expected.tsv", model), *special = ks_format("%s/special.tsv", model);
        if (d->d_name[0] != '.' && !access(expected, R_OK)) {
            found++;
            assert_true(compare(model, texts, expected, false) >= least_texts);
            if (!access(special, R_OK)) assert_true(compare(model, texts, special, true) >= 50);
        }
        free(texts);
        free(model);
        free(expected);
        free(special);
    }
    closedir(dir);
    return found;
}

static void real_models(void **state)
{
    (void)state;
    assert_int_equal(compare_all(FIXTURES "models", 280), 7);
}

static void whole_models(void **state)
{
    (void)state;
    const char *data = getenv("KS_TOKENIZER_DATA");
    if (!data) skip();
    assert_true(compare_all(data, 1) > 0);
}

static void components(void **state)
{
    (void)state;
    assert_int_equal(compare_all(FIXTURES "variants", 90), 26);
}

static void box(void **state)
{
    (void)state;
    assert_true(compare("../models/box", FIXTURES "box/texts.jsonl", FIXTURES "box/expected.tsv", false) >= 70);
}

/* A comparison that cannot fail would prove nothing: an encoding with one wrong number must not match. */
static void the_comparison_sees_errors(void **state)
{
    (void)state;
    int32_t ids[] = {7, 8, 9}, start[] = {0, 1, 2}, end[] = {1, 2, 3};
    ks_encoding e = {3, ids, start, end};
    const char *text = "a\xc3\xa9z", *line = "7 8 9\t0:1 1:3 3:4\n";
    assert_true(matches(&e, text, 4, line, strlen(line)));
    for (size_t i = 0; i < 9; i++) {
        int32_t *x = i < 3 ? &ids[i] : i < 6 ? &start[i - 3] : &end[i - 6];
        ++*x;
        assert_false(matches(&e, text, 4, line, strlen(line)));
        --*x;
    }
    e.n = 2;
    assert_false(matches(&e, text, 4, line, strlen(line)));
}

static void special_tokens(void **state)
{
    (void)state;
    static const struct {
        const char *dir;
        int32_t first;
    } cases[] = {{FIXTURES "models/codellama-7b-hf", 1}, {FIXTURES "models/codegemma-7b-it", 2}, {"../models/box", -1}};
    for (size_t i = 0; i < 3; i++) {
        ks_tokenizer *t = load(cases[i].dir);
        ks_encoding with, without;
        assert_int_equal(ks_tokenizer_encode(t, " ", 1, true, &with), KS_OK);
        assert_int_equal(ks_tokenizer_encode(t, " ", 1, false, &without), KS_OK);
        if (cases[i].first >= 0) {
            assert_int_equal(with.n, without.n + 1);
            assert_int_equal(with.ids[0], cases[i].first);
            assert_int_equal(with.start[0], 0);
            assert_int_equal(with.end[0], 0);
        } else {
            assert_int_equal(with.n, without.n);
        }
        ks_encoding_free(&with);
        assert_int_equal(ks_tokenizer_encode(t, NULL, 0, true, &with), KS_OK);
        assert_int_equal(with.n, cases[i].first >= 0);
        ks_encoding_free(&with);
        ks_encoding_free(&without);
        ks_tokenizer_free(t);
    }
}

static void expect_token(const ks_tokenizer *t, int32_t id, const char *expected)
{
    char *text = NULL;
    if (ks_tokenizer_token_text(t, id, &text)) fail_msg("%s", ks_error_text());
    assert_string_equal(text, expected);
    free(text);
}

static void token_texts(void **state)
{
    (void)state;
    char *text;
    ks_tokenizer *t = load(FIXTURES "models/gpt-2");
    expect_token(t, 220, " ");
    expect_token(t, 198, "\n");
    expect_token(t, 18435, " Hello");
    expect_token(t, 157, "\\xE1");
    expect_token(t, 50256, "<|endoftext|>");
    assert_int_equal(ks_tokenizer_token_text(t, 50257, &text), KS_EINPUT);
    assert_int_equal(ks_tokenizer_token_text(t, -1, &text), KS_EINPUT);
    assert_non_null(strstr(ks_error_text(), "-1"));
    assert_int_equal(ks_tokenizer_vocab_size(t), 50257);
    ks_tokenizer_free(t);
    t = load(FIXTURES "models/codellama-7b-hf");
    expect_token(t, 29871, " ");
    expect_token(t, 15043, " Hello");
    expect_token(t, 1, "<s>");
    expect_token(t, 3 + 0x41, "A");
    expect_token(t, 3 + 0xe2, "\\xE2");
    assert_int_equal(strlen(ks_tokenizer_sha256(t)), 64);
    ks_tokenizer_free(t);
}

static void invalid_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *offset;
    } cases[] = {{"ab\xff", "byte 2"},
                 {"\x80", "byte 0"},
                 {"a\xc3", "byte 1"},
                 {"\xc0\x80", "byte 0"},
                 {"\xe0\x80\x80", "byte 0"},
                 {"x\xed\xa0\x80", "byte 1"},
                 {"\xf4\x90\x80\x80", "byte 0"},
                 {"\xc3\xa9\xe2\x82", "byte 2"},
                 {"\xf0\x80\x80\x80", "byte 0"},
                 {"\xe2\x28\xa1", "byte 0"}};
    ks_tokenizer *t = load("../models/box");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ks_encoding e;
        assert_int_equal(ks_tokenizer_encode(t, cases[i].text, strlen(cases[i].text), false, &e), KS_EINPUT);
        assert_non_null(strstr(ks_error_text(), cases[i].offset));
    }
    ks_tokenizer_free(t);
}

/* ---- damaged files ---- */

static char directory[] = "/tmp/ks-tokenizer-XXXXXX";

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
    (void)state;
    char *path = ks_format("%s/tokenizer.json", directory);
    remove(path);
    free(path);
    return rmdir(directory);
}

static int load_text(const char *json, size_t bytes, ks_tokenizer **out)
{
    char *path = ks_format("%s/tokenizer.json", directory);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(json, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
    free(path);
    *out = NULL;
    return ks_tokenizer_load(out, directory);
}

#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}"
#define NORMALIZER(x) "{" MODEL ",\"normalizer\":" x "}"
#define PRE(x) "{" MODEL ",\"pre_tokenizer\":" x "}"
#define POST(x) "{" MODEL ",\"post_processor\":" x "}"
#define ADDED(x) "{" MODEL ",\"added_tokens\":[" x "]}"
#define REGEX(x) PRE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" x "\"},\"behavior\":\"Isolated\"}")
#define FLAGS "\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":false"
#define BPE(x) "{\"model\":{\"type\":\"BPE\"," x "}}"

static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *json, *message;
    } cases[] = {
        {"", "line 1"},
        {"[]", "an array"},
        {"{}", "model: expected an object, found nothing"},
        {"{\"model\":7}", "model: expected an object"},
        {"{\"model\":{\"type\":\"Unigram\"}}", "Unigram"},
        {"{\"model\":{\"type\":\"WordPiece\"}}", "WordPiece"},
        {"{\"model\":{\"type\":3}}", "\"type\" must be a string"},
        {BPE("\"vocab\":[],\"merges\":[]"), "\"vocab\" must be an object"},
        {BPE("\"merges\":[]"), "\"vocab\" must be an object, found nothing"},
        {BPE("\"vocab\":{}"), "\"merges\" must be an array, found nothing"},
        {BPE("\"vocab\":{\"a\":\"0\"},\"merges\":[]"), "the id of \"a\""},
        {BPE("\"vocab\":{\"a\":-1},\"merges\":[]"), "the id of \"a\""},
        {BPE("\"vocab\":{\"a\":1.5},\"merges\":[]"), "the id of \"a\""},
        {BPE("\"vocab\":{\"a\":4000000000},\"merges\":[]"), "the id of \"a\""},
        {BPE("\"vocab\":{\"a\":1e300},\"merges\":[]"), "the id of \"a\""},
        {BPE("\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]"), "id 0 is given to \"a\" and to \"b\""},
        {BPE("\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]"), "\"a\" is there twice"},
        {BPE("\"vocab\":{\"a\\u0000\":0},\"merges\":[]"), "U+0000"},
        {BPE("\"vocab\":{\"a\":0},\"merges\":[\"a b\"]"), "\"b\" of merge 0"},
        {BPE("\"vocab\":{\"a\":0},\"merges\":[\"a a\"]"), "\"aa\" of merge 0"},
        {BPE("\"vocab\":{\"a\":0},\"merges\":[\"aa\"]"), "merges[0]: expected"},
        {BPE("\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]"), "merges[0]: expected"},
        {BPE("\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]"), "merges[0]: expected"},
        {BPE("\"vocab\":{\"a\":0},\"merges\":[[\"a\",1]]"), "merges[0]: expected"},
        {BPE("\"vocab\":{\"a\":0},\"merges\":[{\"x\":\"a\",\"y\":\"a\"}]"), "merges[0]: expected"},
        {BPE("\"dropout\":0.1,\"vocab\":{},\"merges\":[]"), "dropout 0.1"},
        {BPE("\"continuing_subword_prefix\":\"##\",\"vocab\":{},\"merges\":[]"), "continuing_subword_prefix"},
        {BPE("\"end_of_word_suffix\":\"</w>\",\"vocab\":{},\"merges\":[]"), "end_of_word_suffix"},
        {NORMALIZER("{\"type\":\"BertNormalizer\"}"), "normalizer: the normalizer BertNormalizer is not supported"},
        {NORMALIZER("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Strip\"}]}"),
         "normalizer.normalizers[1]: the normalizer Strip"},
        {NORMALIZER("{\"type\":\"Sequence\"}"), "\"normalizers\" must be an array"},
        {NORMALIZER("\"NFC\""), "normalizer: expected an object, found a string"},
        {NORMALIZER("{\"type\":\"Replace\",\"pattern\":\"x\",\"content\":\"\"}"), "\"pattern\" must be"},
        {NORMALIZER("{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"}"), "empty pattern"},
        {NORMALIZER("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x*\"},\"content\":\"\"}"), "matches nothing"},
        {NORMALIZER("{\"type\":\"Replace\",\"pattern\":{\"String\":\"x\"}}"), "\"content\" is missing"},
        {PRE("{\"type\":\"BertPreTokenizer\"}"), "pre_tokenizer: the pre-tokenizer BertPreTokenizer"},
        {PRE("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Whitespace\"}]}"),
         "pre_tokenizer.pretokenizers[0]: the pre-tokenizer Whitespace"},
        {PRE("{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},\"behavior\":\"Deleted\"}"), "behavior Deleted"},
        {PRE("{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},\"behavior\":\"Isolated\",\"invert\":1}"),
         "\"invert\" must be true or false"},
        {PRE("{\"type\":\"Metaspace\",\"replacement\":\"xy\"}"), "one character"},
        {PRE("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"last\"}"), "prepend_scheme last"},
        {REGEX("("), "does not compile"},
        {REGEX("a**b)"), "does not compile"},
        {REGEX("\\\\p{Klingon}"), "does not compile"},
        {REGEX("[a"), "a set without an end"},
        {REGEX("[a[b]]"), "a set in a set"},
        {REGEX("[a&&b]"), "an intersection of sets"},
        {REGEX("\\\\p{N}{1,3}+"), "a repeated repeat"},
        {REGEX("(?m:a)"), "this group"},
        {REGEX("a(?i)b"), "this group"},
        {REGEX("\\\\bx"), "this escape"},
        {REGEX("(a)\\\\1"), "this escape"},
        {REGEX("\\\\"), "this escape"},
        {REGEX("\\\\x{110000000}"), "does not compile"},
        {POST("{\"type\":\"RobertaProcessing\"}"), "post_processor: the post-processor RobertaProcessing"},
        {POST("{\"type\":\"TemplateProcessing\",\"single\":[]}"), "the sequence A must be there once, found 0"},
        {POST("{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"B\"}}]}"), "Sequence B is not supported"},
        {POST("{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}}]}"), "special_tokens: \"<s>\" is missing"},
        {POST("{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}],\"special_tokens\":{\"x\":{\"ids\":[1,2],"
              "\"tokens\":[\"x\"]}}}"),
         "arrays of one length"},
        {POST("{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}],\"special_tokens\":{\"x\":{\"ids\":[-1],"
              "\"tokens\":[\"x\"]}}}"),
         "whole numbers"},
        {ADDED("{\"id\":3," FLAGS "}"), "added_tokens[0]: \"content\" is missing"},
        {ADDED("{\"id\":3,\"content\":\"\"," FLAGS "}"), "\"content\" is empty"},
        {ADDED("{\"id\":99999999,\"content\":\"x\"," FLAGS "}"), "\"id\" must be"},
        {ADDED("{\"id\":0,\"content\":\"x\"," FLAGS "}"), "id 0 of \"x\" is that of \"a\""},
        {ADDED("{\"id\":1,\"content\":\"a\"," FLAGS "}"), "\"a\" has id 1 here, but 0"},
        {ADDED("{\"id\":3,\"content\":\"x\"," FLAGS "},{\"id\":3,\"content\":\"y\"," FLAGS "}"), "id 3 is given to \"x\" and to \"y\""},
        {ADDED("{\"id\":3,\"content\":\"x\"," FLAGS "},{\"id\":4,\"content\":\"x\"," FLAGS "}"), "\"x\" is there twice"},
        {ADDED("{\"id\":3,\"content\":\"x\"}"), "\"single_word\" is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ks_tokenizer *t;
        if (load_text(cases[i].json, strlen(cases[i].json), &t) != KS_EINPUT) fail_msg("accepted: %s", cases[i].json);
        if (!strstr(ks_error_text(), cases[i].message) || !strstr(ks_error_text(), "tokenizer.json"))
            fail_msg("%s\n  expected: %s\n  found: %s", cases[i].json, cases[i].message, ks_error_text());
    }
    ks_tokenizer *t;
    assert_int_equal(ks_tokenizer_load(&t, "/nonexistent"), KS_EINPUT);
}

/* Eight steps that each make fifty bytes of one would take all memory for a text of one letter. */
static void growth_has_an_end(void **state)
{
    (void)state;
    char *json = NULL;
    size_t bytes;
    ks_tokenizer *t;
    ks_encoding e;
    FILE *f = open_memstream(&json, &bytes);
    fprintf(f, "{" MODEL ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 8; i++)
        fprintf(f, "%s{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"%050d\"}", i ? "," : "", 0);
    fprintf(f, "]}}");
    fclose(f);
    for (char *c = strstr(json, "normalizers"); *c; c++)
        if (*c == '0') *c = 'a';
    assert_int_equal(load_text(json, bytes, &t), KS_OK);
    assert_int_equal(ks_tokenizer_encode(t, "a", 1, true, &e), KS_EINPUT);
    assert_non_null(strstr(ks_error_text(), "a hundred for one"));
    ks_tokenizer_free(t);
    free(json);
}

static void nested_without_end(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "normalizer\":", "normalizers", "pre_tokenizer\":", "pretokenizers", "post_processor\":", "processors"};
    for (int kind = 0; kind < 3; kind++)
        for (int depth = 20; depth <= 3000; depth += 2980) {
            char *json = NULL;
            size_t bytes;
            ks_tokenizer *t;
            FILE *f = open_memstream(&json, &bytes);
            fprintf(f, "{" MODEL ",\"%s", parts[2 * kind]);
            for (int i = 0; i < depth; i++) fprintf(f, "{\"type\":\"Sequence\",\"%s\":[", parts[2 * kind + 1]);
            for (int i = 0; i < depth; i++) fputs("]}", f);
            fputc('}', f);
            fclose(f);
            assert_int_equal(load_text(json, bytes, &t), KS_EINPUT);
            if (depth == 20) assert_non_null(strstr(ks_error_text(), "nested deeper"));
            free(json);
        }
}

static void try_to_use(ks_tokenizer *t)
{
    static const char text[] = "def add(a, b): <mask> e\xcc\x81 12\n\xef\xac\x81 \xf0\x9f\xa6\x99";
    ks_encoding e;
    if (!ks_tokenizer_encode(t, text, sizeof text - 1, true, &e)) {
        for (size_t i = 0; i < e.n; i++) {
            assert_in_range(e.ids[i], 0, ks_tokenizer_vocab_size(t) - 1);
            assert_true(e.start[i] >= 0 && e.end[i] <= (int32_t)sizeof text);
        }
        ks_encoding_free(&e);
    }
    ks_tokenizer_free(t);
}

/* Cut off anywhere, a file is refused; with bytes changed, it is refused or works. */
static void damaged(void **state)
{
    (void)state;
    static const char *const files[] = {FIXTURES "variants/trim-prefix/tokenizer.json", FIXTURES "variants/metaspace-first/tokenizer.json",
                                        FIXTURES "variants/replace-regex/tokenizer.json"};
    uint64_t random = 1;
    for (size_t k = 0; k < 3; k++) {
        char *json;
        size_t bytes, end;
        ks_tokenizer *t;
        assert_int_equal(ks_file_read(&json, &bytes, files[k]), KS_OK);
        end = bytes - 2; /* without it and the newline it is no JSON */
        for (size_t n = 0; n <= end; n += n < end - 40 ? 37 : 1) assert_int_equal(load_text(json, n, &t), KS_EINPUT);
        for (int round = 0; round < 600; round++) {
            char saved[3];
            size_t at[3];
            for (int i = 0; i < 3; i++) {
                random = random * 6364136223846793005u + 1442695040888963407u;
                at[i] = (random >> 33) % bytes;
                saved[i] = json[at[i]];
                json[at[i]] = "\"{}[],:0123456789aeltfnr\\\xff\x01 "[(random >> 20) % 28];
            }
            const int rc = load_text(json, bytes, &t);
            assert_true(rc == KS_OK || rc == KS_EINPUT);
            if (!rc) try_to_use(t);
            for (int i = 3; i-- > 0;) json[at[i]] = saved[i];
        }
        free(json);
    }
}

static void unknown_without_token(void **state)
{
    (void)state;
    static const char json[] = BPE("\"unk_token\":\"?\",\"vocab\":{\"a\":0},\"merges\":[]");
    ks_tokenizer *t;
    ks_encoding e;
    assert_int_equal(load_text(json, strlen(json), &t), KS_OK);
    assert_int_equal(ks_tokenizer_encode(t, "aa", 2, false, &e), KS_OK);
    assert_int_equal(e.n, 2);
    ks_encoding_free(&e);
    assert_int_equal(ks_tokenizer_encode(t, "ab", 2, false, &e), KS_EINPUT);
    assert_non_null(strstr(ks_error_text(), "unk_token \"?\""));
    ks_tokenizer_free(t);
}

/* A megabyte as one word: quadratic merging would take hours. */
static void one_long_word(void **state)
{
    (void)state;
    const size_t n = 1000000;
    ks_tokenizer *t = load(FIXTURES "models/codellama-7b-hf");
    char *text = ks_calloc(n, 1);
    ks_encoding e;
    for (size_t i = 0; i < n; i++) text[i] = "return the\n"[i % 11];
    const double start = ks_seconds();
    assert_int_equal(ks_tokenizer_encode(t, text, n, false, &e), KS_OK);
    assert_true(ks_seconds() - start < 60);
    assert_int_equal(e.end[e.n - 1], n);
    for (size_t i = 1; i < e.n; i++) assert_true(e.start[i] == e.end[i - 1]);
    ks_encoding_free(&e);
    free(text);
    ks_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_comparison_sees_errors),
        cmocka_unit_test(real_models),
        cmocka_unit_test(whole_models),
        cmocka_unit_test(components),
        cmocka_unit_test(box),
        cmocka_unit_test(special_tokens),
        cmocka_unit_test(token_texts),
        cmocka_unit_test(invalid_utf8),
        cmocka_unit_test(refused),
        cmocka_unit_test(growth_has_an_end),
        cmocka_unit_test(nested_without_end),
        cmocka_unit_test(damaged),
        cmocka_unit_test(unknown_without_token),
        cmocka_unit_test(one_long_word),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
