/* ks_json_text: one JSON string, U+0000 included. */
#include "base/error.h"
#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void good(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text;
        size_t bytes;
    } cases[] = {
        {"\"\"", "", 0},
        {" \"a b\"\r\n", "a b", 3},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t", 8},
        {"\"a\\u0000b\"", "a\0b", 3},
        {"\"\\u007f\\u0080\\u07ff\\u0800\\uffff\"", "\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf", 11},
        {"\"\\ud83e\\uDD99\\udbff\\udfff\"", "\xf0\x9f\xa6\x99\xf4\x8f\xbf\xbf", 8},
        {"\"\xc3\xa9\"", "\xc3\xa9", 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = NULL;
        size_t bytes = 0;
        assert_int_equal(ks_json_text(&text, &bytes, cases[i].json, strlen(cases[i].json), "t"), KS_OK);
        assert_int_equal(bytes, cases[i].bytes);
        assert_memory_equal(text, cases[i].text, bytes + 1);
        free(text);
    }
}

static void bad(void **state)
{
    (void)state;
    static const char *const cases[] = {"",
                                        "a",
                                        "\"",
                                        "\"a",
                                        "\"a\" b",
                                        "\"\n\"",
                                        "\"\\x\"",
                                        "\"\\",
                                        "\"\\u12\"",
                                        "\"\\u12g4\"",
                                        "\"\\ud83e\"",
                                        "\"\\udd99\"",
                                        "\"\\ud83e\\u0041\"",
                                        "\"\\ud83ex\"",
                                        "\"\\u+123\"",
                                        "7"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = NULL, *copy = malloc(strlen(cases[i]) + 1); /* exactly as long as it is, for the sanitizer */
        size_t bytes = 0;
        assert_non_null(copy);
        memcpy(copy, cases[i], strlen(cases[i]) + 1);
        assert_int_equal(ks_json_text(&text, &bytes, copy, strlen(cases[i]), "name"), KS_EINPUT);
        assert_non_null(strstr(ks_error_text(), "name"));
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(good), cmocka_unit_test(bad)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
