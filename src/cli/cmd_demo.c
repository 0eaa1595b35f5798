/* kosweep demo: a first sweep on the model in the box, and two pictures of it in text. */
#include "analysis/reader.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "input/options.h"
#include "input/samples.h"
#include "input/tokenizer.h"
#include "sweep/comm.h"
#include "sweep/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void help(void)
{
    puts("usage: kosweep demo [--output FILE.h5] [--threads N]\n\n"
         "Runs config/demo.json on the model in the box (models/box): what happens to the prediction when the attention from a test\n"
         "marker to the function's tokens is cut, layer by layer, in texts that end at the marker and in finished texts. Takes about a\n"
         "second. Prints the mean effect per layer and group, and for one text where the effect lives. Works from any folder of a\n"
         "checkout; KOSWEEP_HOME names the folder that holds models/, corpus/ and config/ elsewhere. The result file is kept only with\n"
         "--output.\n\n"
         "Examples\n"
         "  kosweep demo\n"
         "  kosweep demo --output demo.h5 && kosweep-stats tables demo.h5");
}

/* The folder that holds config/demo.json: $KOSWEEP_HOME, else a folder above the program, else above the working directory. */
static int find_home(char **home)
{
    int rc = KS_OK;
    char program[4096] = "", here[4096] = "";
    const ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n > 0) program[n] = 0;
    if (!getcwd(here, sizeof here)) here[0] = 0;
    const char *const starts[] = {getenv("KOSWEEP_HOME"), program, here};
    for (size_t i = 0; i < 3; i++) {
        char *folder = NULL;
        if (!starts[i] || !starts[i][0]) continue;
        KS_GET(folder, ks_strdup(starts[i]));
        for (char *cut = folder + strlen(folder); cut; cut = strrchr(folder, '/')) {
            *cut = 0;
            char *path = ks_format("%s/config/demo.json", folder);
            const bool found = path && access(path, R_OK) == 0;
            free(path);
            if (found) {
                *home = folder;
                return KS_OK;
            }
        }
        free(folder);
    }
    rc = ks_error(KS_EINPUT,
                  "config/demo.json is in no folder above the program or the working directory: set KOSWEEP_HOME to the checkout");
done:
    return rc;
}

/* A bar of up to `width` cells, one per half decade above 1e-8 nats. */
static void bar(double kl, int width)
{
    int n = kl > 0 ? (int)lround(2 * (log10(kl) + 8)) : 0;
    n = n < 0 ? 0 : n > width ? width : n;
    for (int i = 0; i < width; i++) fputs(i < n ? "█" : " ", stdout);
}

static const ks_study_sweep *sweep_named(const ks_study_model *m, const char *name)
{
    for (size_t i = 0; i < m->n_sweeps; i++)
        if (!strcmp(m->sweeps[i].name, name)) return &m->sweeps[i];
    return NULL;
}

static double group_mean(const ks_study_model *m, const ks_study_sweep *s, size_t window, const char *group)
{
    double sum = 0;
    int n = 0;
    for (size_t i = 0; i < m->S; i++)
        if (!strcmp(m->groups[i], group)) {
            sum += s->kl[ks_study_at(m, s, 0, window, 0, i)];
            n++;
        }
    return n ? sum / n : NAN;
}

static void print_layers(const ks_study_model *m, const ks_study_sweep *s)
{
    static const char *const groups[] = {"python_prompt", "rust_prompt", "python_doctest", "rust_test"};
    printf("Cut the attention from the test marker to the function's tokens in one layer: how far does the next-token\n"
           "distribution move? Mean KL(baseline || ablated) in nats; a bar's cell is half a power of ten above 1e-8.\n\n"
           "         texts that end at the marker                      finished texts, measured at their end\n"
           "layer    %-24s  %-24s  %-24s  %-24s\n",
           groups[0], groups[1], groups[2], groups[3]);
    for (size_t w = 0; w < s->W; w++) {
        printf("%5d   ", s->layer_start[w]);
        for (size_t g = 0; g < 4; g++) {
            const double kl = group_mean(m, s, w, groups[g]);
            printf(" %7.1e ", kl);
            bar(kl, 16);
        }
        puts("");
    }
}

/* The finished text of `group` whose effect is largest anywhere behind the marker, token by token, in the layer where it is. */
static void print_positions(const ks_study_model *m, const ks_study_sweep *s, const ks_samples *samples, const char *group)
{
    size_t sample = 0, window = 0;
    double top = -1;
    for (size_t i = 0; i < m->S; i++)
        for (size_t w = 0; !strcmp(m->groups[i], group) && w < s->W; w++)
            for (int32_t t = 0; t < m->n_tokens[i]; t++) {
                const double kl = s->kl_positions[ks_study_at(m, s, 0, w, 0, i) * m->T + (size_t)t];
                if (!(kl > top)) continue;
                top = kl;
                sample = i;
                window = w;
            }
    const ks_sample *text = &samples->v[sample];
    printf("\nWhere the effect lives: %s, layer %d, every token from the marker on predicts its next one.\n"
           "The largest change is %.2g nats; at the end of the text, where published studies measure, it is %.1e.\n\n",
           text->id, s->layer_start[window], top, s->kl[ks_study_at(m, s, 0, window, 0, sample)]);
    for (int32_t t = 0; t < text->T; t++) {
        const double kl = s->kl_positions[ks_study_at(m, s, 0, window, 0, sample) * m->T + (size_t)t];
        if (isnan(kl)) continue;
        char shown[32];
        size_t n = 0;
        for (const char *c = text->token_text[t]; *c && n + 3 < sizeof shown; c++) {
            if (*c == '\n' || *c == '\t') {
                shown[n++] = '\\';
                shown[n++] = *c == '\n' ? 'n' : 't';
            } else {
                shown[n++] = *c;
            }
        }
        shown[n] = 0;
        printf("  %-16s %s  %7.1e ", shown, text->marker[t] ? "marker" : "      ", kl);
        bar(kl, 16);
        puts("");
    }
}

static int show(const ks_config *cfg)
{
    int rc = KS_OK;
    ks_study *study = NULL;
    ks_corpus *corpus = NULL;
    ks_tokenizer *tokenizer = NULL;
    ks_samples *samples = NULL;
    KS_TRY(ks_study_read(&study, cfg->output));
    const ks_study_model *m = &study->models[0];
    KS_TRY(ks_corpus_load(&corpus, cfg->corpus));
    KS_TRY(ks_tokenizer_load(&tokenizer, cfg->models[0].path));
    KS_TRY(ks_samples_resolve(&samples, corpus, cfg, tokenizer, m->vocab));
    const ks_study_sweep *layers = sweep_named(m, "layers"), *where = sweep_named(m, "where");
    KS_REQUIRE(layers && where && where->kl_positions, KS_EINPUT, "config/demo.json: the sweeps \"layers\" and \"where\" are expected");
    print_layers(m, layers);
    print_positions(m, where, samples, "python_doctest");
done:
    ks_samples_free(samples);
    ks_tokenizer_free(tokenizer);
    ks_corpus_free(corpus);
    ks_study_free(study);
    return rc;
}

/* The demo's configuration with the user's options over it. *folder: made for a result file that nobody asked for, else NULL. */
static int configure(ks_config **cfg, char **folder, int argc, char **argv)
{
    int rc = KS_OK;
    char *home = NULL, *config = NULL, *output = NULL, temporary[] = "/tmp/kosweep-demo-XXXXXX";
    char **args = NULL;
    int n = 0;
    bool keep = false;
    KS_TRY(find_home(&home));
    KS_GET(config, ks_format("%s/config/demo.json", home));
    KS_NEW(args, argc + 4);
    args[n++] = "run";
    args[n++] = config;
    for (int i = 1; i < argc; i++) {
        keep = keep || !strncmp(argv[i], "--output", 8);
        args[n++] = argv[i];
    }
    if (!keep) {
        KS_REQUIRE(mkdtemp(temporary), KS_EMACHINE, "no temporary folder can be made in /tmp");
        KS_GET(*folder, ks_strdup(temporary));
        KS_GET(output, ks_format("%s/demo.h5", temporary));
        args[n++] = "--output";
        args[n++] = output;
    }
    KS_TRY(ks_options_parse(cfg, "run", n, args));
done:
    free(output);
    free(args);
    free(config);
    free(home);
    return rc;
}

int ks_cmd_demo(int argc, char **argv)
{
    int rc = KS_OK;
    char *folder = NULL;
    ks_config *cfg = NULL;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            if (ks_comm_rank() == 0) help();
            return KS_OK;
        }
    KS_TRY(ks_comm_agree(configure(&cfg, &folder, argc, argv)));
    if (cfg->version) {
        if (ks_comm_rank() == 0) puts("kosweep " KS_VERSION);
        goto done;
    }
    if (cfg->verbosity == 0) ks_log_set_level(KS_LOG_WARN);
    KS_TRY(ks_run(cfg, "kosweep demo"));
    if (ks_comm_rank() == 0) KS_TRY(show(cfg));
done:
    if (folder) {
        if (cfg && cfg->output) unlink(cfg->output);
        rmdir(folder);
    }
    free(folder);
    ks_config_free(cfg);
    return rc;
}
