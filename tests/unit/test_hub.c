/* Model ids in a hub cache made here. */
#include "base/error.h"
#include "model/hub.h"
#include "support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char root[SCRATCH_PATH];
static const char hash[] = "0123456789abcdef0123456789abcdef01234567", other[] = "76543210fedcba9876543210fedcba9876543210";

static void set(const char *variable, const char *below)
{
    unsetenv("HF_HUB_CACHE");
    unsetenv("HF_HOME");
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", "/nonexistent", 1);
    if (variable) setenv(variable, scratch_path(root, below), 1);
}

static void found(const char *id, const char *revision, const char *end)
{
    char *dir = NULL;
    if (ks_hub_resolve(&dir, id, revision)) fail_msg("%s", ks_error_text());
    const size_t n = strlen(dir), k = strlen(end);
    if (n < k || strcmp(dir + n - k, end)) fail_msg("%s: found %s, expected ...%s", id, dir, end);
    free(dir);
}

static void refused(int code, const char *id, const char *revision, const char *part, const char *more)
{
    char *dir = NULL;
    const int rc = ks_hub_resolve(&dir, id, revision);
    if (rc != code || !strstr(ks_error_text(), part) || !strstr(ks_error_text(), more))
        fail_msg("%s: expected %d with \"%s\" and \"%s\"; status %d, \"%s\"", id, code, part, more, rc, ks_error_text());
    assert_null(dir);
}

static void make_cache(const char *below)
{
    char name[SCRATCH_PATH];
    snprintf(name, sizeof name, "%s/models--org--tiny/refs/main", below);
    scratch_text(root, name, "0123456789abcdef0123456789abcdef01234567\n");
    snprintf(name, sizeof name, "%s/models--org--tiny/refs/refs/pr/1", below);
    scratch_text(root, name, other);
    snprintf(name, sizeof name, "%s/models--org--tiny/snapshots/%s/config.json", below, hash);
    scratch_text(root, name, "{}");
    snprintf(name, sizeof name, "%s/models--org--tiny/snapshots/%s/config.json", below, other);
    scratch_text(root, name, "{}");
    snprintf(name, sizeof name, "%s/models--gpt2/refs/main", below);
    scratch_text(root, name, hash);
    snprintf(name, sizeof name, "%s/models--gpt2/snapshots/%s/config.json", below, hash);
    scratch_text(root, name, "{}");
}

static void test_finds_ids_and_revisions(void **state)
{
    (void)state;
    make_cache("cache");
    set("HF_HUB_CACHE", "cache");
    found("org/tiny", NULL, "models--org--tiny/snapshots/0123456789abcdef0123456789abcdef01234567");
    found("org/tiny", "main", hash);
    found("org/tiny", "refs/pr/1", other);
    found("org/tiny", other, other);
    found("gpt2", NULL, "models--gpt2/snapshots/0123456789abcdef0123456789abcdef01234567");
}

static void test_looks_where_the_hub_library_does(void **state)
{
    (void)state;
    make_cache("home/hub");
    make_cache("xdg/huggingface/hub");
    make_cache("user/.cache/huggingface/hub");
    set("HF_HOME", "home");
    found("org/tiny", NULL, hash);
    set("XDG_CACHE_HOME", "xdg");
    found("org/tiny", NULL, hash);
    set("HOME", "user");
    found("org/tiny", NULL, hash);
    /* HF_HUB_CACHE wins. */
    setenv("HF_HUB_CACHE", scratch_path(root, "empty"), 1);
    refused(KS_EINPUT, "org/tiny", NULL, "empty", "does not exist");
    set(NULL, "");
    unsetenv("HOME");
    refused(KS_EINPUT, "org/tiny", NULL, "HF_HUB_CACHE", "HOME");
}

static void test_says_where_it_looked_and_what_is_there(void **state)
{
    (void)state;
    make_cache("cache");
    set("HF_HUB_CACHE", "cache");
    refused(KS_EINPUT, "org/tinny", NULL, "cache/models--org--tinny", "org/tiny");
    refused(KS_EINPUT, "org/tiny", "v2", "\"v2\"", hash);
    refused(KS_EINPUT, "org/tiny", "v2", "refs: ", "main");
    scratch_text(root, "cache/models--org--broken/refs/main", "../../../etc");
    refused(KS_EINPUT, "org/broken", NULL, "refs/main", "../../../etc");
    scratch_text(root, "cache/models--org--broken/refs/main", "abc");
    refused(KS_EINPUT, "org/broken", NULL, "snapshots/abc", "does not exist");
    scratch_text(root, "cache/models--org--broken/refs/main", "");
    refused(KS_EINPUT, "org/broken", NULL, "refs/main", "snapshot");
}

static void test_refuses_names_that_are_none(void **state)
{
    (void)state;
    set("HF_HUB_CACHE", "cache");
    static const char *const ids[] = {"", "/", "a/", "/a", "a/b/c", "../a", "a/..", ".", "a b", "a/b;c", "a\nb", "https://x"};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) refused(KS_EUSAGE, ids[i], NULL, "neither a directory nor a model id", ids[i]);
    refused(KS_EUSAGE, "org/tiny", "../../x", "cannot be a revision", "../../x");
    refused(KS_EUSAGE, "org/tiny", "", "cannot be a revision", "");
}

static void test_a_directory_is_taken_as_it_is(void **state)
{
    (void)state;
    set("HF_HUB_CACHE", "cache");
    char *dir = NULL;
    assert_int_equal(ks_hub_find(&dir, "goldens/models/a_qwen2", NULL), KS_OK);
    assert_string_equal(dir, "goldens/models/a_qwen2");
    free(dir);
    dir = NULL;
    assert_int_equal(ks_hub_find(&dir, "goldens/models/a_qwen2", "main"), KS_EUSAGE);
    assert_int_equal(ks_hub_find(&dir, "org/tiny", NULL), KS_OK);
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds_ids_and_revisions),
        cmocka_unit_test(test_looks_where_the_hub_library_does),
        cmocka_unit_test(test_says_where_it_looked_and_what_is_there),
        cmocka_unit_test(test_refuses_names_that_are_none),
        cmocka_unit_test(test_a_directory_is_taken_as_it_is),
    };
    scratch_make(root);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_remove(root);
    return failed;
}
