/* The command line, one argument a line. The first byte chooses the command; CONFIG is the path of a small configuration. */
#include "fuzz.h"

#include "input/options.h"

#include <string.h>

enum { ARGUMENTS = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const commands[] = {"run", "plan", "tokens"};
    static const char config[] =
        "{\"models\": [{\"path\": \"m\"}], \"corpus\": \"c.json\", \"sweeps\": [{\"name\": \"a\"}, {\"name\": \"b\"}]}";
    static char program[] = "kosweep", config_path[96];
    char *argv[ARGUMENTS + 1] = {program};
    int argc = 1;
    ks_config *c = NULL;
    if (!size) return 0;
    if (!config_path[0]) {
        const fuzz_file *f = fuzz_file_new("config.json");
        snprintf(config_path, sizeof config_path, "%s", f->path);
        fuzz_file_write(f, 0, config, sizeof config - 1);
    }
    char *text = fuzz_text(data + 1, size - 1), *rest = text, *line;
    while (argc < ARGUMENTS && (line = strsep(&rest, "\n"))) argv[argc++] = strcmp(line, "CONFIG") ? line : config_path;
    /* Other paths would be files of this machine. */
    bool foreign = false;
    for (int i = 1; i < argc; i++) foreign |= argv[i] != config_path && strchr(argv[i], '/');
    if (!foreign) {
        const int rc = ks_options_parse(&c, commands[data[0] % 3], argc, argv);
        if (rc != KS_EINPUT) FUZZ_ANSWER(rc, KS_EUSAGE); /* KS_EINPUT: a model's path that is no directory */
        if (!rc && !c->help && !c->version) FUZZ_CHECK(c->n_models && c->n_sweeps && c->output);
        ks_config_free(c);
    }
    free(text);
    return 0;
}
