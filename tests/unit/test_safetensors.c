/* Weight files: what is well-formed opens, everything else is one clear error. */
#include "base/error.h"
#include "model/safetensors.h"
#include "support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char dir[SCRATCH_PATH];

/* A file of this header text and data_bytes bytes of data; announced: what the first eight bytes say. */
static void write_file(const char *name, const char *header, uint64_t announced, size_t data_bytes)
{
    const size_t n = strlen(header);
    unsigned char *file = calloc(1, 8 + n + data_bytes);
    assert_non_null(file);
    for (int k = 0; k < 8; k++) file[k] = (unsigned char)(announced >> 8 * k);
    memcpy(file + 8, header, n);
    scratch_write(dir, name, file, 8 + n + data_bytes);
    free(file);
}

/* The path must be refused with KS_EINPUT and a text that holds both parts. */
static void refused(const char *path, const char *part, const char *other)
{
    ks_st *st = NULL;
    const int rc = ks_st_open(&st, path);
    if (rc != KS_EINPUT || !strstr(ks_error_text(), part) || !strstr(ks_error_text(), other))
        fail_msg("expected an error with \"%s\" and \"%s\"; status %d, \"%s\"", part, other, rc, ks_error_text());
    assert_null(st);
}

static void header_refused(const char *header, size_t data_bytes, const char *part)
{
    write_file("bad.safetensors", header, strlen(header), data_bytes);
    refused(scratch_path(dir, "bad.safetensors"), part, "bad.safetensors");
}

static void test_reads_one_file(void **state)
{
    (void)state;
    ks_st *st = NULL;
    assert_int_equal(ks_st_open(&st, "goldens/models/b_qwen2_tied"), KS_OK);
    assert_int_equal(ks_st_count(st), 4 * 12 + 2);
    assert_int_equal(ks_st_files(st), 1);
    for (size_t i = 1; i < ks_st_count(st); i++) assert_true(strcmp(ks_st_at(st, i - 1)->name, ks_st_at(st, i)->name) < 0);
    const ks_st_tensor *t = ks_st_find(st, "model.layers.3.mlp.down_proj.weight");
    assert_non_null(t);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->shape[0], 64);
    assert_int_equal(t->shape[1], 144);
    assert_int_equal(t->bytes, 64 * 144 * 2);
    assert_true(t->has_dtype && t->dtype == KS_BF16);
    assert_null(ks_st_find(st, "model.layers.3.mlp.down_proj"));
    assert_null(ks_st_find(st, ""));
    ks_st_close(st);
}

static void test_reads_shards(void **state)
{
    (void)state;
    ks_st *st = NULL;
    assert_int_equal(ks_st_open(&st, "goldens/models/e_llama"), KS_OK);
    assert_int_equal(ks_st_files(st), 3);
    assert_int_equal(ks_st_count(st), 5 * 9 + 3);
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "model-0000%d-of-00003.safetensors", i + 1);
        assert_non_null(strstr(ks_st_file_at(st, i)->path, name));
    }
    for (size_t i = 0; i < ks_st_count(st); i++) {
        const ks_st_tensor *t = ks_st_at(st, i);
        assert_ptr_equal(t->data, ks_st_file_at(st, t->file)->map + t->offset);
    }
    ks_st_close(st);
}

static const char good[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                           "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                           "\"b\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[24,26]},"
                           "\"c\":{\"dtype\":\"I64\",\"shape\":[0,5],\"data_offsets\":[26,26]}}   ";

static void test_scalars_empty_tensors_and_foreign_types(void **state)
{
    (void)state;
    ks_st *st = NULL;
    write_file("good.safetensors", good, strlen(good), 26);
    assert_int_equal(ks_st_open(&st, scratch_path(dir, "good.safetensors")), KS_OK);
    assert_int_equal(ks_st_count(st), 3);
    assert_int_equal(ks_st_find(st, "b")->n_dims, 0);
    assert_false(ks_st_find(st, "c")->has_dtype);
    assert_string_equal(ks_st_find(st, "c")->dtype_name, "I64");
    ks_st_close(st);
}

static void test_refuses_every_truncation(void **state)
{
    (void)state;
    const size_t whole = 8 + strlen(good) + 26;
    unsigned char file[1024] = {0};
    file[0] = (unsigned char)strlen(good);
    file[1] = (unsigned char)(strlen(good) >> 8);
    memcpy(file + 8, good, strlen(good));
    for (size_t n = 0; n <= whole; n++) {
        ks_st *st = NULL;
        scratch_write(dir, "cut.safetensors", file, n);
        if (n < whole) {
            refused(scratch_path(dir, "cut.safetensors"), "cut.safetensors", "");
            continue;
        }
        assert_int_equal(ks_st_open(&st, scratch_path(dir, "cut.safetensors")), KS_OK);
        ks_st_close(st);
    }
}

/* Any byte of length and header replaced by any of a few others: opens or is refused, and never reads outside (the sanitizers watch). */
static void test_survives_damage(void **state)
{
    (void)state;
    static const unsigned char others[] = {0, 1, '"', '{', '}', '[', ']', ',', ':', '-', '0', '9', '\\', 0x7f, 0xff};
    const size_t whole = 8 + strlen(good) + 26;
    unsigned char file[1024] = {0};
    int refusals = 0;
    for (size_t i = 0; i < whole - 26; i++)
        for (size_t k = 0; k < sizeof others; k++) {
            memset(file, 0, sizeof file);
            file[0] = (unsigned char)strlen(good);
            file[1] = (unsigned char)(strlen(good) >> 8);
            memcpy(file + 8, good, strlen(good));
            file[i] = others[k];
            scratch_write(dir, "hurt.safetensors", file, whole);
            ks_st *st = NULL;
            const int rc = ks_st_open(&st, scratch_path(dir, "hurt.safetensors"));
            assert_true(rc == KS_OK || rc == KS_EINPUT);
            refusals += rc != KS_OK;
            for (size_t t = 0; st && t < ks_st_count(st); t++) {
                const ks_st_tensor *x = ks_st_at(st, t);
                assert_true(x->offset >= 8 && x->bytes >= 0 && x->offset + x->bytes <= (int64_t)whole);
            }
            ks_st_close(st);
        }
    assert_true(refusals > 1000);
}

static void test_refuses_header_lengths(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {
        0, 1, 1000, 99999999, 100000001, UINT64_C(1) << 32, INT64_MAX, UINT64_C(1) << 63, UINT64_MAX - 7, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        write_file("length.safetensors", good, lengths[i], 26);
        refused(scratch_path(dir, "length.safetensors"), "length.safetensors", "header");
    }
}

#define T(name, dtype, shape, range) "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" range "}"

static void test_refuses_bad_headers(void **state)
{
    (void)state;
    header_refused("[1,2]", 8, "must be an object");
    header_refused("{" T("w", "F32", "[2]", "[0,8]") "} x", 8, "something follows");
    header_refused("{\"w\":7}", 8, "\"w\": expected an object");
    header_refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "\"w\": expected exactly the keys");
    header_refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8, "\"w\": expected exactly the keys");
    header_refused("{" T("w", "F31", "[2]", "[0,8]") "}", 8, "no dtype \"F31\"");
    header_refused("{" T("w", "F32", "[-2]", "[0,8]") "}", 8, "\"w\": shape[0]");
    header_refused("{" T("w", "F32", "[2,0.5]", "[0,8]") "}", 8, "\"w\": shape[1]");
    header_refused("{" T("w", "F32", "[1e300]", "[0,8]") "}", 8, "\"w\": shape[0]");
    header_refused("{" T("w", "F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]") "}", 8, "9 dimensions");
    header_refused("{" T("w", "F32", "[4294967296,4294967296]", "[0,8]") "}", 8, "64 bits");
    header_refused("{" T("w", "F32", "[4503599627370496,4503599627370496,0]", "[0,0]") "}", 8, "64 bits");
    header_refused("{" T("w", "F32", "[3]", "[0,8]") "}", 8, "need 12 bytes, data_offsets hold 8");
    header_refused("{" T("w", "F4", "[3]", "[0,1]") "}", 8, "\"w\"");
    header_refused("{" T("w", "F32", "[2]", "[8,0]") "}", 8, "begin <= end");
    header_refused("{" T("w", "F32", "[2]", "[0,8,9]") "}", 8, "data_offsets");
    header_refused("{" T("w", "F32", "[2]", "[-8,0]") "}", 8, "data_offsets");
    header_refused("{" T("w", "F32", "[2]", "[8,16]") "}", 8, "ends at byte 16");
    header_refused("{" T("w", "F32", "[2]", "[0,8]") "," T("w", "F32", "[2]", "[8,16]") "}", 16, "\"w\" is there twice");
    header_refused("{" T("w", "F32", "[2]", "[0,8]") "," T("v", "F32", "[2]", "[4,12]") "}", 16, "overlap");
    header_refused("{" T("w", "F32", "[2]", "[0,8]") "," T("v", "F32", "[2]", "[0,8]") "}", 16, "overlap");
    /* An empty tensor between two that overlap does not hide them. */
    header_refused("{" T("w", "F32", "[4]", "[0,16]") "," T("e", "F32", "[0]", "[8,8]") "," T("v", "F32", "[2]", "[12,20]") "}", 24,
                   "overlap");
    /* JSON that is deep enough to end a careless parser's stack. */
    char *deep = malloc(200001);
    assert_non_null(deep);
    memset(deep, '[', 200000);
    deep[200000] = 0;
    header_refused(deep, 0, "not valid JSON");
    free(deep);
}

static void test_gaps_are_no_error(void **state)
{
    (void)state;
    ks_st *st = NULL;
    const char *header = "{" T("w", "F32", "[2]", "[8,16]") "}";
    write_file("gap.safetensors", header, strlen(header), 32);
    assert_int_equal(ks_st_open(&st, scratch_path(dir, "gap.safetensors")), KS_OK);
    ks_st_close(st);
}

static void index_refused(const char *index, const char *part, const char *other)
{
    scratch_text(dir, "sharded/model.safetensors.index.json", index);
    refused(scratch_path(dir, "sharded"), part, other);
}

static void test_checks_the_index_both_ways(void **state)
{
    (void)state;
    const char *one = "{" T("a", "F32", "[2]", "[0,8]") "," T("b", "F32", "[2]", "[8,16]") "}",
               *two = "{" T("c", "F32", "[2]", "[0,8]") "}";
    write_file("sharded/1.safetensors", one, strlen(one), 16);
    write_file("sharded/2.safetensors", two, strlen(two), 8);
    write_file("sharded/3.safetensors", two, strlen(two), 8);
    write_file("outside.safetensors", two, strlen(two), 8);

    ks_st *st = NULL;
    scratch_text(dir, "sharded/model.safetensors.index.json",
                 "{\"weight_map\":{\"c\":\"2.safetensors\",\"a\":\"1.safetensors\",\"b\":\"1.safetensors\"}}");
    assert_int_equal(ks_st_open(&st, scratch_path(dir, "sharded")), KS_OK);
    assert_int_equal(ks_st_count(st), 3);
    assert_int_equal(ks_st_files(st), 2);
    ks_st_close(st);

    index_refused("{}", "weight_map", "nothing");
    index_refused("{\"weight_map\":{}}", "weight_map", "");
    index_refused("{\"weight_map\":{\"a\":1}}", "\"a\"", "a number");
    index_refused("{\"weight_map\":{\"a\":\"1.safetensors\"}", "index.json", "not valid JSON");
    index_refused("{\"weight_map\":{\"a\":\"../outside.safetensors\"}}", "same directory", "outside");
    index_refused("{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "same directory", "passwd");
    index_refused("{\"weight_map\":{\"a\":\"4.safetensors\"}}", "4.safetensors", "cannot be opened");
    index_refused("{\"weight_map\":{\"a\":\"1.safetensors\"}}", "\"b\"", "not listed");
    index_refused("{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"1.safetensors\",\"d\":\"2.safetensors\"}}", "\"d\"", "does not hold");
    index_refused("{\"weight_map\":{\"a\":\"2.safetensors\",\"b\":\"1.safetensors\",\"c\":\"2.safetensors\"}}", "\"a\"",
                  "found in 1.safetensors");
    index_refused("{\"weight_map\":{\"a\":\"1.safetensors\",\"a\":\"1.safetensors\",\"b\":\"1.safetensors\"}}", "\"a\"", "listed twice");
    index_refused("{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"1.safetensors\",\"c\":\"2.safetensors\",\"c\":\"3.safetensors\"}}",
                  "\"c\"", "twice");
}

static void test_says_what_is_there_instead(void **state)
{
    (void)state;
    scratch_text(dir, "torch/pytorch_model.bin", "x");
    refused(scratch_path(dir, "torch"), "neither model.safetensors", "pytorch_model.bin");
    refused(scratch_path(dir, "absent"), "absent", "cannot be opened");
    scratch_text(dir, "folder/model.safetensors/x", "x");
    refused(scratch_path(dir, "folder"), "model.safetensors", "not a regular file");
}

static void test_sees_a_file_that_became_shorter(void **state)
{
    (void)state;
    ks_st *st = NULL;
    write_file("shrinks.safetensors", good, strlen(good), 26);
    assert_int_equal(ks_st_open(&st, scratch_path(dir, "shrinks.safetensors")), KS_OK);
    assert_int_equal(ks_st_check_file(ks_st_file_at(st, 0)), KS_OK);
    write_file("shrinks.safetensors", "", 0, 0);
    assert_int_equal(ks_st_check_file(ks_st_file_at(st, 0)), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "shrinks.safetensors"));
    ks_st_close(st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_one_file),
        cmocka_unit_test(test_reads_shards),
        cmocka_unit_test(test_scalars_empty_tensors_and_foreign_types),
        cmocka_unit_test(test_refuses_every_truncation),
        cmocka_unit_test(test_survives_damage),
        cmocka_unit_test(test_refuses_header_lengths),
        cmocka_unit_test(test_refuses_bad_headers),
        cmocka_unit_test(test_gaps_are_no_error),
        cmocka_unit_test(test_checks_the_index_both_ways),
        cmocka_unit_test(test_says_what_is_there_instead),
        cmocka_unit_test(test_sees_a_file_that_became_shorter),
    };
    scratch_make(dir);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_remove(dir);
    return failed;
}
