#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/cli.h"
#include "sweep/comm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    bool collective; /* every rank runs it; root alone runs the others */
    const char *summary;
} command;

static const command commands[] = {
    {"run", ks_cmd_run, true, "do a sweep (alone, under mpirun, under srun)"},
    {"plan", ks_cmd_plan, false, "what a sweep would compute, and what it would cost"},
    {"tokens", ks_cmd_tokens, false, "samples as tokens, with marker, targets and removed edges"},
    {"model", ks_cmd_model, false, "what a model directory holds"},
    {"demo", ks_cmd_demo, true, "a first sweep on the model in the box"},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void help(FILE *out)
{
    fputs("kosweep: which attention edges does a code model's prediction depend on?\n\n"
          "usage: kosweep COMMAND [arguments]\n\n",
          out);
    for (size_t i = 0; i < N_COMMANDS; i++) fprintf(out, "  %-8s %s\n", commands[i].name, commands[i].summary);
    fputs("\n`kosweep COMMAND --help` shows a command's options and examples. `kosweep-stats` analyses result files.\n"
          "Exit codes: 0 done, 2 usage or configuration, 3 an input file, 4 the machine, 75 stopped with work left.\n",
          out);
}

static int dispatch(int argc, char **argv)
{
    const bool root = ks_comm_rank() == 0;
    if (argc < 2) {
        if (!root) return KS_OK;
        help(stderr);
        return ks_error(KS_EUSAGE, "no command given");
    }
    const char *names[N_COMMANDS + 1] = {0};
    for (size_t i = 0; i < N_COMMANDS; i++) {
        names[i] = commands[i].name;
        if (!strcmp(argv[1], names[i])) return root || commands[i].collective ? commands[i].run(argc - 1, argv + 1) : KS_OK;
    }
    if (!root) return KS_OK;
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        help(stdout);
        return KS_OK;
    }
    if (!strcmp(argv[1], "--version")) {
        puts("kosweep " KS_VERSION);
        return KS_OK;
    }
    const char *near = ks_nearest(argv[1], names);
    return ks_error(KS_EUSAGE, "unknown command \"%s\"%s%s%s", argv[1], near ? "; did you mean \"" : "; see kosweep --help",
                    near ? near : "", near ? "\"?" : "");
}

typedef struct arguments {
    int argc;
    char **argv;
} arguments;

/* What a rank does. Every rank ends with the same error text; root says it. */
static int program(void *ctx)
{
    const arguments *a = ctx;
    if (ks_comm_size() > 1) ks_log_set_rank(ks_comm_rank());
    int rc = dispatch(a->argc, a->argv);
    if (!rc && (fflush(stdout) || ferror(stdout))) rc = ks_error(KS_EMACHINE, "stdout cannot be written: %s", strerror(errno));
    if (rc && ks_comm_rank() == 0) ks_log(rc == KS_ESTOPPED ? KS_LOG_WARN : KS_LOG_ERROR, "%s", ks_error_text());
    return rc;
}

int main(int argc, char **argv)
{
    arguments a = {argc, argv};
    /* A result file must not become stdout or stderr because those were closed. What is read-only refuses writes, as if it were closed. */
    int fd;
    do fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) close(fd);
    /* At a file size limit this signal would kill; the error of write() says more. */
    signal(SIGXFSZ, SIG_IGN);
    return ks_comm_run(program, &a);
}
