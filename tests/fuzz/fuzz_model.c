/* config.json of a model; then, after a NUL, the header of its weight file, whose data are zeros. */
#include "fuzz.h"

#include "base/log.h"
#include "model/model.h"
#include "model/rope.h"

#include <string.h>

enum { DATA = 1 << 20, T = 5 };

static void check_arch(const ks_arch *a)
{
    FUZZ_CHECK(a->L > 0 && a->D > 0 && a->H > 0 && a->G > 0 && a->E > 0 && a->F > 0 && a->V > 0 && a->H % a->G == 0 && a->E % 2 == 0);
    FUZZ_CHECK(a->rope.dim > 0 && a->rope.dim <= a->E && a->rope.dim % 2 == 0 && a->max_positions > 0);
    for (int32_t l = 0; l < a->L; l++) FUZZ_CHECK(a->window[l] >= 0);
    float *tables = calloc((size_t)T * (size_t)a->rope.dim, sizeof *tables);
    FUZZ_CHECK(tables);
    FUZZ_CHECK(ks_rope_tables(a, T, tables, tables + T * a->rope.dim / 2) == KS_OK);
    free(tables);
}

static void read_tensor(ks_tensor t)
{
    const size_t width = ks_dtype_size(t.dtype);
    for (int64_t r = 0; t.data && r < t.rows; r++) fuzz_read((const char *)t.data + (size_t)(r * t.ld) * width, (size_t)t.cols * width);
}

static void check_model(const ks_model *m)
{
    const ks_arch *a = ks_model_arch(m);
    char *bad = NULL;
    read_tensor(ks_model_embedding(m));
    read_tensor(ks_model_head(m));
    fuzz_read(ks_model_final_norm(m), (size_t)a->D * sizeof(float));
    for (int32_t l = 0; l < a->L; l++) {
        const ks_layer *y = ks_model_layer(m, l);
        const ks_tensor t[] = {y->q, y->k, y->v, y->o, y->gate, y->up, y->down};
        for (size_t i = 0; i < sizeof t / sizeof *t; i++) read_tensor(t[i]);
        fuzz_read(y->norm1, (size_t)a->D * sizeof(float));
        if (y->k_bias) fuzz_read(y->k_bias, (size_t)a->G * (size_t)a->E * sizeof(float));
    }
    FUZZ_CHECK(ks_model_parameters(m) > 0);
    FUZZ_CHECK(ks_model_find_nonfinite(m, &bad) == KS_OK && !bad);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const fuzz_file *config, *weights;
    const uint8_t *part[2] = {NULL, NULL};
    size_t bytes[2] = {0, 0};
    ks_arch *a = NULL;
    ks_model *m = NULL;
    uint8_t length[8];
    const size_t n = fuzz_parts(data, size, part, bytes, 2);
    char *json = fuzz_text(part[0], bytes[0]);
    int rc = ks_arch_parse(&a, json, bytes[0], "config.json");
    free(json);
    FUZZ_ANSWER(rc, KS_EINPUT);
    if (!rc) check_arch(a);
    ks_arch_free(a);
    if (rc || n < 2) return 0;

    if (!config) {
        ks_log_set_level(KS_LOG_ERROR);
        config = fuzz_file_new("config.json");
        weights = fuzz_file_new("model.safetensors");
    }
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)bytes[1] >> 8 * i);
    fuzz_file_size(config, 0);
    fuzz_file_write(config, 0, part[0], bytes[0]);
    fuzz_file_size(weights, 0);
    fuzz_file_write(weights, 0, length, 8);
    fuzz_file_write(weights, 8, part[1], bytes[1]);
    fuzz_file_size(weights, 8 + bytes[1] + DATA);
    rc = ks_model_open(&m, config->folder);
    FUZZ_ANSWER(rc, KS_EINPUT);
    if (!rc) check_model(m);
    ks_model_close(m);
    return 0;
}
