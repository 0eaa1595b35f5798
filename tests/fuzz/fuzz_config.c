/* The configuration, and what is made of it: its canonical JSON, the windows of its sweeps. */
#include "fuzz.h"

#include "base/json.h"
#include "input/config.h"

#include <math.h>
#include <string.h>

static void check_sweep(const ks_sweep *s, int32_t L)
{
    ks_window *w = NULL;
    size_t n = 0;
    FUZZ_CHECK(s->name && (s->n_values > 0) == (s->kind != KS_KNOCKOUT));
    for (size_t i = 0; i < s->n_values; i++) FUZZ_CHECK(isfinite(s->values[i]) && s->values[i] >= 0);
    for (size_t i = 1; i < s->n_heads; i++) FUZZ_CHECK(s->head_list[i - 1] < s->head_list[i]);
    FUZZ_ANSWER(ks_sweep_check_heads(s, 4), KS_EUSAGE);
    const int rc = ks_sweep_windows(s, L, &w, &n);
    FUZZ_ANSWER(rc, KS_EUSAGE);
    FUZZ_CHECK(rc || n);
    for (size_t i = 0; i < n; i++) FUZZ_CHECK(w[i].a >= 0 && w[i].a <= w[i].b && w[i].b < L);
    free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int32_t layers[] = {1, 2, 7};
    ks_config *c = NULL;
    cJSON *again = NULL;
    char *json = fuzz_text(data, size);
    const int rc = ks_config_parse(&c, json, size, "folder/sweep.json");
    free(json);
    FUZZ_ANSWER(rc, KS_EUSAGE);
    if (rc) return 0;
    FUZZ_CHECK(c->n_sweeps && c->output);
    for (size_t i = 0; i < c->n_sweeps; i++)
        for (size_t k = 0; k < sizeof layers / sizeof *layers; k++) check_sweep(&c->sweeps[i], layers[k]);
    json = ks_config_json(c);
    FUZZ_CHECK(json && ks_json_parse(&again, json, strlen(json), "again") == KS_OK);
    cJSON_Delete(again);
    free(json);
    ks_config_free(c);
    return 0;
}
