/* A former result file, as --resume reads it, compares it with what is asked for now, and takes its cells over. The input is the ways in
 * which the file, or HDF5's answers, deviate from one that fits: see fake_hdf5.h. The first byte changes what is asked for. */
#include "fake_hdf5.h"
#include "fuzz.h"

#include "base/log.h"
#include "sweep/resume.h"

#include <string.h>

enum { S = 4, T = 4, L = 2, H = 2 };

static char config_text[] =
    "{\"models\": [{\"name\": \"m\", \"path\": \"m\"}], \"save_logits\": true, \"sweeps\": [{\"name\": \"a\"}, {\"name\": \"c\", "
    "\"windows\": \"all\"}, {\"name\": \"b\", \"kind\": \"scale\", \"values\": [0.001, 0.5, 0.002], \"heads\": \"each\", \"positions\": "
    "\"all\"}]}";

/* The linker puts this in place of ks_study_probe (CMakeLists.txt): a process for each input would take all the time. */
int __wrap_ks_study_probe(const char *path, bool whole);
int __wrap_ks_study_probe(const char *path, bool whole)
{
    (void)path, (void)whole;
    return KS_OK;
}

static ks_sample sample_of(int i)
{
    static char ids[S][4], groups[S][4], texts[S][8];
    static int32_t tokens[T] = {7, 7, 7, 7};
    static uint8_t all[T] = {1, 1, 1, 1};
    snprintf(ids[i], sizeof ids[i], "s%d", i);
    snprintf(groups[i], sizeof groups[i], "g%d", i / 2);
    snprintf(texts[i], sizeof texts[i], "def f%d", i);
    return (ks_sample){.id = ids[i], .group = groups[i], .text = texts[i], .T = 3, .ids = tokens, .marker = all, .target = all};
}

typedef struct received {
    size_t cells, baselines;
    const ks_grid *grid;
} received;

static int take_baseline(void *ctx, int32_t sample, const ks_baseline *b, const float *logits, const float *by_head, double uniform,
                         const double *strength)
{
    received *r = ctx;
    (void)uniform;
    FUZZ_CHECK(sample >= 0 && sample < S);
    fuzz_read(b, sizeof *b);
    if (logits) fuzz_read(logits, 9 * sizeof *logits);
    fuzz_read(by_head, L * H * sizeof *by_head);
    fuzz_read(strength, L * sizeof *strength);
    r->baselines++;
    return KS_OK;
}

static int take_cell(void *ctx, int32_t sample, int32_t variant, const ks_cell *cell, const ks_position_cell *positions)
{
    received *r = ctx;
    FUZZ_CHECK(sample >= 0 && sample < S && variant >= 0 && (size_t)variant < r->grid->n_variants);
    FUZZ_CHECK(cell->status > KS_CELL_NOT_COMPUTED && cell->status <= KS_CELL_NOTHING);
    FUZZ_CHECK((positions != NULL) == (r->grid->variants[variant].positions == KS_POSITIONS_ALL));
    if (positions) fuzz_read(positions, 3 * sizeof *positions);
    r->cells++;
    return KS_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static ks_config *config;
    static ks_grid *grid;
    static ks_sample v[S];
    const ks_model_info info = {.name = "m",
                                .architecture = "llama",
                                .weight_dtype = "bf16",
                                .precision = "full",
                                .weights_sha256 = "w",
                                .tokenizer_sha256 = "t",
                                .config_sha256 = "c",
                                .n_layers = L,
                                .n_heads = H,
                                .n_kv_heads = 1,
                                .d_model = 8,
                                .vocab = 9,
                                .save_logits = true};
    ks_former *f = NULL;
    ks_known known = {0};
    char *history = NULL;
    if (!grid) {
        ks_log_set_level(KS_LOG_ERROR);
        FUZZ_CHECK(ks_config_parse(&config, config_text, strlen(config_text), "now.json") == KS_OK);
        FUZZ_CHECK(ks_grid_new(&grid, config->sweeps, config->n_sweeps, L, H) == KS_OK);
        for (int i = 0; i < S; i++) v[i] = sample_of(i);
    }
    if (!size) return 0;
    const ks_samples samples = {.v = v, .n = data[0] & 1 ? S : S - 1};
    const ks_former_task task = {&info, &samples, grid};
    received got = {.grid = grid};
    const ks_former_sink sink = {&got, take_baseline, take_cell};
    fake_hdf5_begin(data + 1, size - 1);
    int rc = ks_former_open(&f, KS_TESTS_DIR "/fuzz/study.h5", config);
    fake_hdf5_end();
    if (rc != KS_EUSAGE) FUZZ_ANSWER(rc, KS_EINPUT);
    if (!rc) {
        rc = ks_former_import(f, &task, &sink, &known);
        FUZZ_ANSWER(rc, KS_EUSAGE);
    }
    if (!rc) {
        size_t cells = 0, baselines = 0;
        const size_t words = (grid->n_variants + 63) / 64;
        for (size_t i = 0; i < samples.n * words; i++) cells += (size_t)__builtin_popcountll(known.done[i]);
        for (size_t i = 0; i < samples.n; i++) baselines += known.baseline_done[i];
        FUZZ_CHECK((size_t)known.cells == got.cells && cells == got.cells);
        FUZZ_CHECK((size_t)known.baselines == got.baselines && baselines == got.baselines);
        FUZZ_CHECK(ks_former_history(f, &history) == KS_OK && history);
    }
    FUZZ_CHECK(size > 6 || (!rc && got.cells && got.baselines == 3)); /* a file without deviations fits */
    ks_known_clear(&known);
    free(history);
    ks_former_free(f);
    return 0;
}
