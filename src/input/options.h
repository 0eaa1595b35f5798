/* options.h - the command line of run, plan and tokens: [CONFIG.json] [options]. Options override the configuration. */
#ifndef KS_INPUT_OPTIONS_H
#define KS_INPUT_OPTIONS_H

#include "input/config.h"

/* All options, one aligned block of lines, for --help. */
extern const char ks_options_help[];

/* Parses argv[1..argc-1] of a command ("run", "plan", "tokens": an option of another command is an error). With --help or --version
 * only that flag is set. Otherwise at least one model is there, and one sweep. Scan options replace the configuration's sweeps; --edges,
 * --kind, --heads and --positions apply to every sweep. `--option value` and `--option=value` are the same. KS_EUSAGE for all errors
 * but a model's path where no directory is (KS_EINPUT). */
int ks_options_parse(ks_config **out, const char *command, int argc, char **argv);

#endif
