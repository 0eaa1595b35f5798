/* kosweep run: the sweep, then its table. */
#include "analysis/json.h"
#include "analysis/tables.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "input/options.h"
#include "sweep/comm.h"
#include "sweep/run.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void help(void)
{
    printf("usage: kosweep run [CONFIG.json] [options]\n"
           "       mpirun -n 4 kosweep run [CONFIG.json] [options]\n\n"
           "Does the sweep, writes an HDF5 file, prints its table. Options override the configuration.\n\n%s\n"
           "Examples\n"
           "  kosweep run --model models/box --corpus corpus/attention_samples_universal.json --output box.h5\n"
           "  kosweep run config/layer_scan.json --threads 8\n"
           "  mpirun -n 2 kosweep run --model Qwen/Qwen2.5-Coder-3B-Instruct --corpus corpus/attention_samples_universal.json \\\n"
           "      --all-windows --all-edges --output qwen.h5\n",
           ks_options_help);
}

/* The command line as one string, for the provenance. */
static char *join(int argc, char **argv)
{
    char *all = ks_strdup("kosweep");
    for (int i = 0; all && i < argc; i++) {
        char *longer = ks_format("%s %s", all, argv[i]);
        free(all);
        all = longer;
    }
    return all;
}

/* PATH.tmp, then a rename: nobody sees half a file. */
static int write_json(const char *path, const char *h5)
{
    int rc = KS_OK;
    char *tmp = NULL;
    FILE *f = NULL;
    KS_GET(tmp, ks_format("%s.tmp", path));
    KS_REQUIRE(f = fopen(tmp, "w"), KS_EMACHINE, "%s: cannot be written: %s", path, strerror(errno));
    KS_TRY(ks_stats_json_write(f, &h5, 1, &(ks_table_options){0}));
    const bool whole = !fflush(f) && !ferror(f);
    KS_REQUIRE(whole && !rename(tmp, path), KS_EMACHINE, "%s: cannot be written: %s", path, strerror(errno));
done:
    if (f) fclose(f);
    if (f && rc) unlink(tmp);
    free(tmp);
    return rc;
}

int ks_cmd_run(int argc, char **argv)
{
    int rc = KS_OK;
    ks_config *cfg = NULL;
    char *command_line = NULL;
    KS_TRY(ks_comm_agree(ks_options_parse(&cfg, "run", argc, argv)));
    if (cfg->help || cfg->version) {
        if (ks_comm_rank() == 0 && cfg->help) help();
        if (ks_comm_rank() == 0 && cfg->version) puts("kosweep " KS_VERSION);
        goto done;
    }
    ks_log_set_level(cfg->verbosity < 0 ? KS_LOG_WARN : cfg->verbosity > 0 ? KS_LOG_DEBUG : KS_LOG_INFO);
    KS_GET(command_line, join(argc, argv));
    KS_TRY(ks_run(cfg, command_line));
    if (ks_comm_rank() == 0) {
        const char *path = cfg->output;
        const ks_table_options options = {.sweep = cfg->sweeps[0].name};
        KS_TRY(ks_tables_print(stdout, &path, 1, &options));
        if (cfg->output_json) KS_TRY(write_json(cfg->output_json, cfg->output));
        ks_log(KS_LOG_INFO, "results are in %s; see `kosweep-stats tables %s`", cfg->output, cfg->output);
    }
done:
    ks_config_free(cfg);
    free(command_line);
    return rc;
}
