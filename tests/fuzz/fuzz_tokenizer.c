/* tokenizer.json, then, after a NUL, a text to encode. Some texts are encoded always. */
#include "fuzz.h"

#include "input/tokenizer.h"

#include <string.h>

static void encode(const ks_tokenizer *t, const char *text, size_t bytes, bool special)
{
    ks_encoding e;
    int64_t characters = 0;
    const int rc = ks_tokenizer_encode(t, text, bytes, special, &e);
    FUZZ_ANSWER(rc, KS_EINPUT);
    if (rc) return;
    for (size_t i = 0; i < bytes; i++) characters += (text[i] & 0xc0) != 0x80;
    for (size_t i = 0; i < e.n; i++) {
        char *shown = NULL;
        FUZZ_CHECK(e.ids[i] >= 0 && (size_t)e.ids[i] < ks_tokenizer_vocab_size(t));
        FUZZ_CHECK(e.start[i] >= 0 && e.start[i] <= e.end[i] && e.end[i] <= characters);
        FUZZ_ANSWER(ks_tokenizer_token_text(t, e.ids[i], &shown), KS_EINPUT); /* a template's token may have no text */
        free(shown);
    }
    ks_encoding_free(&e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const texts[] = {"", "def add(a, b):\n    \"\"\"\n    >>> add(1, 23)\n",
                                        " \xe2\x96\x81\xc3\xa9 e\xcc\x81\xe6\xbc\xa2\xf0\x9f\xa6\x99<s>\r\n\t x"};
    const uint8_t *part[2] = {NULL, NULL};
    size_t bytes[2] = {0, 0};
    ks_tokenizer *t = NULL;
    const size_t n = fuzz_parts(data, size, part, bytes, 2);
    char *json = fuzz_text(part[0], bytes[0]);
    const int rc = ks_tokenizer_parse(&t, json, bytes[0], "tokenizer.json");
    free(json);
    FUZZ_ANSWER(rc, KS_EINPUT);
    if (rc) return 0;
    FUZZ_CHECK(strlen(ks_tokenizer_sha256(t)) == 64);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) encode(t, texts[i], strlen(texts[i]), i % 2);
    if (n == 2) encode(t, (const char *)part[1], bytes[1], true);
    ks_tokenizer_free(t);
    return 0;
}
