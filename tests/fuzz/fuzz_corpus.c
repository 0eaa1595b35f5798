/* The corpus, and its samples as tokens of a small tokenizer. */
#include "fuzz.h"

#include "input/samples.h"
#include "input/tokenizer.h"

#include <string.h>

static void check(const ks_samples *s, int64_t vocab)
{
    for (size_t i = 0; i < s->n; i++) {
        const ks_sample *p = &s->v[i];
        int markers = 0, targets = 0;
        FUZZ_CHECK(p->id && p->group && p->T > 0);
        for (int32_t t = 0; t < p->T; t++) {
            FUZZ_CHECK(p->ids[t] >= 0 && p->ids[t] < vocab && p->token_text[t]);
            FUZZ_CHECK(p->text ? p->start[t] >= 0 && p->start[t] <= p->end[t] : p->start[t] == -1 && p->end[t] == -1);
            markers += p->marker[t];
            targets += p->target[t];
        }
        FUZZ_CHECK(markers > 0 && targets > 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static ks_tokenizer *tokenizer;
    static ks_config *config;
    enum { VOCAB = 1000 };
    ks_corpus *c = NULL;
    ks_samples *s = NULL;
    bool needed = false;
    if (!tokenizer) FUZZ_CHECK(ks_tokenizer_load(&tokenizer, KS_TESTS_DIR "/fixtures/corpus/tiny_tokenizer") == KS_OK);
    if (!config) FUZZ_CHECK(ks_config_new(&config) == KS_OK);
    char *json = fuzz_text(data, size);
    int rc = ks_corpus_parse(&c, json, size, "corpus.json");
    free(json);
    FUZZ_ANSWER(rc, KS_EINPUT);
    if (rc) return 0;
    FUZZ_CHECK(c->n && c->n_groups);
    for (int span = 0; span < 2 && !rc; span++) {
        config->marker = span ? KS_MARKER_SPAN : KS_MARKER_FIRST_TOKEN;
        config->include_baselines = span;
        rc = ks_samples_need_tokenizer(&needed, c, config);
        FUZZ_CHECK(!rc || rc == KS_EUSAGE); /* no group has a twin */
        if (rc) break;
        rc = ks_samples_resolve(&s, c, config, needed ? tokenizer : NULL, VOCAB);
        FUZZ_ANSWER(rc, KS_EINPUT);
        if (!rc) check(s, VOCAB);
        ks_samples_free(s);
        s = NULL;
    }
    ks_corpus_free(c);
    return 0;
}
