/* kosweep-stats: tables, JSON, CSV, figures and reports from result files. */
#include "analysis/figures.h"
#include "analysis/json.h"
#include "analysis/report.h"
#include "analysis/table.h"
#include "analysis/tables.h"

#include "base/json.h"
#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "kosweep-stats - tables, JSON, CSV, figures and reports from result files of kosweep\n"
    "\n"
    "  kosweep-stats tables FILE.h5 ... [options]   the published tables that fit what the files hold\n"
    "  kosweep-stats json   FILE.h5 ... [options]   the published experiments' JSON; one object, or {\"experiments\": [...]}\n"
    "  kosweep-stats csv    FILE.h5 ... [options]   one line per cell, for other programs\n"
    "  kosweep-stats compare FILE.h5 ... [options]  the models of all files in one table, a line per model and sweep\n"
    "  kosweep-stats figures FILE.h5 ... [options]  every figure that fits, as files; prints a line with the caption for each\n"
    "  kosweep-stats report FILE.h5 ... [options]   one HTML page of all that: findings in words, figures, samples, tables\n"
    "\n"
    "  --model NAME     only this model (its name in the file or its id)\n"
    "  --sweep NAME     only this sweep\n"
    "  --window A-B     only this window of layers, both inclusive; A alone is the layer A: tables then shows each sample\n"
    "  --groups a,b     only these groups, in this order; the first two are compared\n"
    "  --format F       tables, compare: text (default), md, csv, latex, json; figures: svg (default), png, both\n"
    "  --only a,b       tables, compare: only tables of these kinds, or all; figures: only figures of these kinds (see below)\n"
    "  --seed N, --draws N   of resampling (default 1; as each table says)\n"
    "  --output PATH    figures: the folder; default FILE-figures/; report: the page; default FILE.html\n"
    "  --force          figures, report: replace files that are there\n"
    "  --help, --version\n"
    "\n"
    "Examples\n"
    "  kosweep-stats tables results.h5\n"
    "  kosweep-stats tables results.h5 --sweep layers --window 4\n"
    "  kosweep-stats tables qwen.h5 gemma.h5 --format md > tables.md\n"
    "  kosweep-stats compare qwen.h5 gemma.h5 --sweep layers\n"
    "  kosweep-stats json results.h5 --sweep around2 --window 1-3 > experiment.json\n"
    "  kosweep-stats csv results.h5 --groups python_doctest,python_baseline\n"
    "  kosweep-stats figures results.h5 --format both --only layer-scan,samples\n"
    "  kosweep-stats report results.h5 --output results.html\n"
    "\n"
    "  kosweep-stats tables results.h5 --only tests,power --window 4\n"
    "\n"
    "Exit codes: 0 done, 2 usage, 3 a file is missing, damaged or foreign, 4 memory or disk.\n";

static void print_help(void)
{
    fputs(help, stdout);
    puts("\nTables (* only where --only asks, since they take time or room)");
    for (const ks_table_kind *k = ks_table_kinds; k->name; k++) printf("  %-11s%c %s\n", k->name, k->asked ? '*' : ' ', k->what);
    fputs("\nFigures:", stdout);
    for (size_t i = 0; ks_figure_kinds[i]; i++) printf(" %s", ks_figure_kinds[i]);
    puts("");
}

typedef struct arguments {
    const char *command;
    const char **paths; /* [n] */
    size_t n;
    const char *format;
    ks_table_options o;
    ks_figure_files figures;
    bool help, version;
} arguments;

static int parse_window(ks_table_options *o, const char *text)
{
    int rc = KS_OK;
    char *end = NULL;
    KS_REQUIRE(text[0] >= '0' && text[0] <= '9', KS_EUSAGE, "--window: expected A-B or A, found \"%s\"", text);
    const long a = strtol(text, &end, 10);
    long b = a;
    if (*end == '-') {
        const char *second = end + 1;
        KS_REQUIRE(*second >= '0' && *second <= '9', KS_EUSAGE, "--window: expected A-B or A, found \"%s\"", text);
        b = strtol(second, &end, 10);
    }
    KS_REQUIRE(!*end && a <= b && b <= 1000000, KS_EUSAGE, "--window: expected A-B with A <= B, or A, found \"%s\"", text);
    o->has_window = true;
    o->window_start = (int32_t)a;
    o->window_end = (int32_t)b;
done:
    return rc;
}

static int parse_format(arguments *a)
{
    static const char *const pictures[] = {"svg", "png", "both", NULL};
    const bool figures = !strcmp(a->command, "figures");
    const char *const *names = figures ? pictures : ks_format_names, *text = a->format ? a->format : names[0];
    for (int i = 0; names[i]; i++) {
        if (strcmp(text, names[i]) != 0) continue;
        if (!figures) a->o.format = i;
        a->figures.svg = i != 1;
        a->figures.png = i != 0;
        return KS_OK;
    }
    const char *near = ks_nearest(text, names);
    return ks_error(KS_EUSAGE, "--format: \"%s\" is not %s%s%s%s", text, figures ? "svg, png or both" : "text, md, csv, latex or json",
                    near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

static int parse_number(uint64_t *out, const char *name, const char *text, uint64_t least, uint64_t most)
{
    char *end = NULL;
    errno = 0;
    const uint64_t v = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || v < least || v > most)
        return ks_error(KS_EUSAGE, "%s: expected a whole number from %llu to %llu, found \"%s\"", name, (unsigned long long)least,
                        (unsigned long long)most, text);
    *out = v;
    return KS_OK;
}

static int parse_option(arguments *a, const char *name, const char *value)
{
    if (!strcmp(name, "--model")) a->o.model = value;
    else if (!strcmp(name, "--sweep")) a->o.sweep = value;
    else if (!strcmp(name, "--groups")) a->o.groups = value;
    else if (!strcmp(name, "--only")) a->o.only = value;
    else if (!strcmp(name, "--seed")) return parse_number(&a->o.seed, name, value, 1, INT64_MAX);
    else if (!strcmp(name, "--draws")) return parse_number(&a->o.draws, name, value, 100, 10000000);
    else if (!strcmp(name, "--window")) return parse_window(&a->o, value);
    else if (!strcmp(name, "--output")) a->figures.folder = value;
    else a->format = value;
    return KS_OK;
}

static int parse(arguments *a, int argc, char **argv)
{
    static const char *const options[] = {"--model", "--sweep",  "--window", "--groups", "--format",  "--only", "--seed",
                                          "--draws", "--output", "--force",  "--help",   "--version", NULL};
    static const char *const commands[] = {"tables", "json", "csv", "compare", "figures", "report", NULL};
    int rc = KS_OK;
    char *name = NULL;
    KS_NEW(a->paths, argc);
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (!strcmp(arg, "--help") || !strcmp(arg, "-h") || (i == 1 && !strcmp(arg, "help"))) {
            a->help = true;
        } else if (!strcmp(arg, "--version")) {
            a->version = true;
        } else if (!strcmp(arg, "--force")) {
            a->figures.force = true;
        } else if (arg[0] == '-' && arg[1]) {
            const char *equals = strchr(arg, '=');
            free(name);
            KS_GET(name, ks_strdup(arg));
            if (equals) name[equals - arg] = 0;
            size_t k = 0;
            while (options[k] && strcmp(options[k], name)) k++;
            const char *near = options[k] ? NULL : ks_nearest(name, options);
            KS_REQUIRE(options[k] && k < 9, KS_EUSAGE, "unknown option \"%s\"%s%s%s", name, near ? "; did you mean \"" : "; see --help",
                       near ? near : "", near ? "\"?" : "");
            KS_REQUIRE(equals || i + 1 < argc, KS_EUSAGE, "%s needs a value", name);
            KS_TRY(parse_option(a, name, equals ? equals + 1 : argv[++i]));
        } else if (!a->command) {
            size_t k = 0;
            while (commands[k] && strcmp(commands[k], arg)) k++;
            const char *near = commands[k] ? NULL : ks_nearest(arg, commands);
            KS_REQUIRE(commands[k], KS_EUSAGE, "unknown command \"%s\"%s%s%s", arg, near ? "; did you mean \"" : "; see --help",
                       near ? near : "", near ? "\"?" : "");
            a->command = commands[k];
        } else {
            a->paths[a->n++] = arg;
        }
    }
    if (a->help || a->version) goto done;
    KS_REQUIRE(a->command, KS_EUSAGE, "a command is missing: tables, json, csv, compare, figures or report; see --help");
    KS_REQUIRE(a->n, KS_EUSAGE, "%s: a result file is missing; see --help", a->command);
    const bool report = !strcmp(a->command, "report");
    KS_REQUIRE(report || !strcmp(a->command, "figures") || (!a->figures.folder && !a->figures.force), KS_EUSAGE,
               "%s: --output and --force are options of figures and report", a->command);
    KS_REQUIRE(!report || (!a->format && !a->o.only), KS_EUSAGE, "report: is one HTML page of all that fits; it has no %s",
               a->format ? "--format" : "--only");
    KS_TRY(parse_format(a));
    a->figures.only = a->o.only;
done:
    free(name);
    return rc;
}

int main(int argc, char **argv)
{
    int rc = KS_OK;
    arguments a = {0};
    KS_TRY(parse(&a, argc, argv));
    for (size_t i = 0; !a.help && !a.version && i < a.n; i++) KS_TRY(ks_study_probe(a.paths[i], false));
    if (a.help) print_help();
    else if (a.version) puts("kosweep-stats " KS_VERSION);
    else if (!strcmp(a.command, "tables")) KS_TRY(ks_tables_print(stdout, a.paths, a.n, &a.o));
    else if (!strcmp(a.command, "compare")) KS_TRY(ks_models_print(stdout, a.paths, a.n, &a.o));
    else if (!strcmp(a.command, "json")) KS_TRY(ks_stats_json_write(stdout, a.paths, a.n, &a.o));
    else if (!strcmp(a.command, "figures")) KS_TRY(ks_figures_write(stdout, a.paths, a.n, &a.o, &a.figures));
    else if (!strcmp(a.command, "report")) KS_TRY(ks_report_write(stdout, a.paths, a.n, &a.o, a.figures.folder, a.figures.force));
    else KS_TRY(ks_cells_csv_write(stdout, a.paths, a.n, &a.o));
    KS_REQUIRE(!fflush(stdout), KS_EMACHINE, "stdout cannot be written: %s", strerror(errno));
done:
    free(a.paths);
    if (rc) fprintf(stderr, "kosweep-stats: error: %s\n", ks_error_text());
    return rc;
}
