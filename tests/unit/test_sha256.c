/* SHA-256 against the examples of FIPS 180-4 and NIST's test vectors, and streams against whole arrays. */
#include "base/sha256.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void expect(const char *text, const char *hex)
{
    char out[65];
    ks_sha256_hex(out, text, strlen(text));
    assert_string_equal(out, hex);
}

static void published_vectors(void **state)
{
    (void)state;
    expect("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    expect("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    expect("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    expect("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
           "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
}

static void a_million_a(void **state)
{
    (void)state;
    char piece[1000], out[65];
    ks_sha256 s;
    memset(piece, 'a', sizeof piece);
    ks_sha256_init(&s);
    for (int i = 0; i < 1000; i++) ks_sha256_update(&s, piece, sizeof piece);
    ks_sha256_final_hex(&s, out);
    assert_string_equal(out, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

/* Every length around the block boundaries, cut at every place: the digest may not depend on the cut. */
static void cuts_do_not_matter(void **state)
{
    (void)state;
    uint8_t data[200];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * 7 + 3);
    for (size_t n = 50; n <= sizeof data; n++) {
        char whole[65], parts[65];
        ks_sha256_hex(whole, data, n);
        for (size_t cut = 0; cut <= n; cut++) {
            ks_sha256 s;
            ks_sha256_init(&s);
            ks_sha256_update(&s, data, cut);
            ks_sha256_update(&s, data + cut, n - cut);
            ks_sha256_final_hex(&s, parts);
            assert_string_equal(parts, whole);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_vectors),
        cmocka_unit_test(a_million_a),
        cmocka_unit_test(cuts_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
