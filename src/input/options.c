#include "input/options.h"

#include "base/error.h"
#include "base/json.h"
#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const char ks_options_help[] =
    "Models and texts\n"
    "  --model DIR|ID         a Hugging Face directory or a hub id in the local cache; repeatable\n"
    "  --revision REV         revision of the ids (default main)\n"
    "  --corpus FILE          samples with markers and targets\n"
    "  --groups A,B           groups of the corpus (default python_doctest,rust_test)\n"
    "  --samples ID,ID        only these samples\n"
    "  --include-baselines    also the *_baseline twins of the groups\n"
    "  --special-tokens P     tokenizer: BOS where the tokenizer adds it (default); none\n"
    "  --marker M             first-token: the marker is its first token (default); span: all its tokens\n"
    "Which layers (these combine, each is one sweep; default --scan-layers)\n"
    "  --scan-layers          one window [l, l] per layer\n"
    "  --layer N              one window [N, N]\n"
    "  --layer-start A        one window [A, B], with --layer-end\n"
    "  --layer-end B\n"
    "  --scan-windows         windows [C-r, C+r] for r = 0 to R, with --window-center\n"
    "  --window-center C\n"
    "  --max-radius R         (default 5)\n"
    "  --slide-window W       windows of W layers from every layer on\n"
    "  --all-windows          every [a, b]\n"
    "What is done to which edges\n"
    "  --edges SET            marker-targets: from the marker to its targets (default); all-marker: from every token to the marker\n"
    "  --all-edges            the same as --edges all-marker\n"
    "  --kind KIND            knockout (default); scale=F[,F...]; set=V[,V...]\n"
    "  --heads HEADS          all (default); each: one variant a head; 0,3,5\n"
    "  --positions WHERE      the effect is measured at the last position (default) or all\n"
    "How it is computed\n"
    "  --precision P          full (default) or fast\n"
    "  --backend B            auto (default: a GPU where one answers), cpu or cuda\n"
    "  --weights W            resident (mapped), streamed (two layers in memory at a time), sharded (over the ranks' GPUs) or auto\n"
    "                         (default: what fits is resident)\n"
    "  --threads N            threads of a rank (default 0: the cores it is bound to, or its share of them)\n"
    "  --memory BYTES         limit of a rank's memory: 1500000000, 512M, 2G (default: 60 % of what is free, shared by a host's ranks)\n"
    "  --checkpoint SECONDS   how much work of a rank a kill may cost, about; 0: as little as can be (default 20)\n"
    "  --ranks N              plan: the number of ranks to plan for (default 1)\n"
    "  --device NAME          plan: predict time and memory on a GPU that need not be here: h100, h200 ...; list: all that are known\n"
    "Result\n"
    "  --output FILE.h5       (default results.h5); FILE.json writes FILE.h5 and its JSON\n"
    "  --resume               go on with the output file: compute what is missing in it; no file: begin\n"
    "  --force                overwrite the output file\n"
    "  --save-logits          keep the baseline's logits\n"
    "  --floor on|off         also measure what bf16 would bury, one forward a sample (default on)\n"
    "  --json                 plan, tokens: one object a line, for scripts\n"
    "  --texts FILE.jsonl     tokens: tokenise these texts (a JSON string a line)\n"
    "  --verbose, --quiet     more or less on stderr\n"
    "  --help, --version\n";

enum opt {
    O_MODEL,
    O_REVISION,
    O_CORPUS,
    O_GROUPS,
    O_SAMPLES,
    O_BASELINES,
    O_SPECIAL,
    O_MARKER,
    O_SCAN_LAYERS,
    O_LAYER,
    O_LAYER_START,
    O_LAYER_END,
    O_SCAN_WINDOWS,
    O_CENTER,
    O_RADIUS,
    O_SLIDE,
    O_ALL_WINDOWS,
    O_EDGES,
    O_ALL_EDGES,
    O_KIND,
    O_HEADS,
    O_POSITIONS,
    O_PRECISION,
    O_BACKEND,
    O_WEIGHTS,
    O_THREADS,
    O_CHECKPOINT,
    O_MEMORY,
    O_RANKS,
    O_DEVICE,
    O_OUTPUT,
    O_RESUME,
    O_FORCE,
    O_LOGITS,
    O_FLOOR,
    O_JSON,
    O_TEXTS,
    O_VERBOSE,
    O_QUIET,
    O_HELP,
    O_VERSION,
    N_OPTIONS
};

typedef struct option_spec {
    const char *name;
    bool takes_value;
    const char *only; /* the only commands that know it, or NULL */
} option_spec;

static const option_spec specs[N_OPTIONS] = {
    [O_MODEL] = {"--model", true, NULL},
    [O_REVISION] = {"--revision", true, NULL},
    [O_CORPUS] = {"--corpus", true, NULL},
    [O_GROUPS] = {"--groups", true, NULL},
    [O_SAMPLES] = {"--samples", true, NULL},
    [O_BASELINES] = {"--include-baselines", false, NULL},
    [O_SPECIAL] = {"--special-tokens", true, NULL},
    [O_MARKER] = {"--marker", true, NULL},
    [O_SCAN_LAYERS] = {"--scan-layers", false, NULL},
    [O_LAYER] = {"--layer", true, NULL},
    [O_LAYER_START] = {"--layer-start", true, NULL},
    [O_LAYER_END] = {"--layer-end", true, NULL},
    [O_SCAN_WINDOWS] = {"--scan-windows", false, NULL},
    [O_CENTER] = {"--window-center", true, NULL},
    [O_RADIUS] = {"--max-radius", true, NULL},
    [O_SLIDE] = {"--slide-window", true, NULL},
    [O_ALL_WINDOWS] = {"--all-windows", false, NULL},
    [O_EDGES] = {"--edges", true, NULL},
    [O_ALL_EDGES] = {"--all-edges", false, NULL},
    [O_KIND] = {"--kind", true, NULL},
    [O_HEADS] = {"--heads", true, NULL},
    [O_POSITIONS] = {"--positions", true, NULL},
    [O_PRECISION] = {"--precision", true, NULL},
    [O_BACKEND] = {"--backend", true, NULL},
    [O_WEIGHTS] = {"--weights", true, NULL},
    [O_THREADS] = {"--threads", true, NULL},
    [O_CHECKPOINT] = {"--checkpoint", true, NULL},
    [O_MEMORY] = {"--memory", true, NULL},
    [O_RANKS] = {"--ranks", true, "plan"},
    [O_DEVICE] = {"--device", true, "plan"},
    [O_OUTPUT] = {"--output", true, NULL},
    [O_RESUME] = {"--resume", false, NULL},
    [O_FORCE] = {"--force", false, NULL},
    [O_LOGITS] = {"--save-logits", false, NULL},
    [O_FLOOR] = {"--floor", true, NULL},
    [O_JSON] = {"--json", false, "plan tokens"},
    [O_TEXTS] = {"--texts", true, "tokens"},
    [O_VERBOSE] = {"--verbose", false, NULL},
    [O_QUIET] = {"--quiet", false, NULL},
    [O_HELP] = {"--help", false, NULL},
    [O_VERSION] = {"--version", false, NULL},
};

/* What the options say, before it is laid over the configuration. */
typedef struct asked {
    bool given[N_OPTIONS];
    const char *value[N_OPTIONS]; /* the last one given */
    const char **models;          /* [n_models] every --model */
    size_t n_models;
    const char *config; /* the positional argument */
} asked;

static int find_option(const char *command, const char *arg, size_t length, int *out)
{
    if (!strcmp(arg, "-h")) {
        *out = O_HELP;
        return KS_OK;
    }
    const char *names[N_OPTIONS + 1] = {0};
    for (int o = 0; o < N_OPTIONS; o++) {
        names[o] = specs[o].name;
        if (strlen(specs[o].name) != length || strncmp(specs[o].name, arg, length) != 0) continue;
        *out = o;
        if (!specs[o].only || strstr(specs[o].only, command)) return KS_OK;
        return ks_error(KS_EUSAGE, "%s is no option of %s (it belongs to: %s)", specs[o].name, command, specs[o].only);
    }
    const char *near = ks_nearest(arg, names);
    if (near) return ks_error(KS_EUSAGE, "unknown option %.*s; did you mean %s?", (int)length, arg, near);
    return ks_error(KS_EUSAGE, "unknown option %.*s; --help lists all", (int)length, arg);
}

static int read_arguments(asked *a, const char *command, int argc, char **argv)
{
    int rc = KS_OK;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (arg[0] != '-') {
            KS_REQUIRE(!a->config, KS_EUSAGE, "two configurations: %s and %s; expected one", a->config, arg);
            KS_REQUIRE(*arg, KS_EUSAGE, "an empty argument where a configuration or an option was expected");
            a->config = arg;
            continue;
        }
        int o = 0;
        const char *equals = strchr(arg, '=');
        KS_TRY(find_option(command, arg, equals ? (size_t)(equals - arg) : strlen(arg), &o));
        a->given[o] = true;
        if (!specs[o].takes_value) {
            KS_REQUIRE(!equals, KS_EUSAGE, "%s takes no value, found \"%s\"", specs[o].name, equals + 1);
            continue;
        }
        const char *value = equals ? equals + 1 : i + 1 < argc && strncmp(argv[i + 1], "--", 2) != 0 ? argv[++i] : NULL;
        KS_REQUIRE(value && *value, KS_EUSAGE, "%s needs a value", specs[o].name);
        a->value[o] = value;
        if (o == O_MODEL) a->models[a->n_models++] = value;
    }
done:
    return rc;
}

static int whole_number(const char *where, const char *text, int64_t min, int64_t max, int32_t *out)
{
    char *end = NULL;
    errno = 0;
    const long long x = strtoll(text, &end, 10);
    if (end == text || *end || errno || x < min || x > max)
        return ks_error(KS_EUSAGE, "%s: must be a whole number from %lld to %lld, found \"%s\"", where, (long long)min, (long long)max,
                        text);
    *out = (int32_t)x;
    return KS_OK;
}

/* "a,b,c" -> [n] strings. */
static int split(const char *where, const char *text, char ***out, size_t *n)
{
    int rc = KS_OK;
    size_t count = 1;
    for (const char *p = text; *p; p++) count += *p == ',';
    KS_NEW(*out, count);
    *n = 0;
    for (const char *p = text;;) {
        const size_t length = strcspn(p, ",");
        KS_REQUIRE(length, KS_EUSAGE, "%s: an empty entry in \"%s\"", where, text);
        KS_GET((*out)[*n], ks_format("%.*s", (int)length, p));
        for (size_t i = 0; i < *n; i++)
            KS_REQUIRE(strcmp((*out)[i], (*out)[*n]) != 0, KS_EUSAGE, "%s: \"%s\" stands there twice", where, (*out)[i]);
        ++*n;
        if (!p[length]) break;
        p += length + 1;
    }
done:
    if (rc && *out) {
        for (size_t i = 0; i < count; i++) free((*out)[i]);
        free(*out);
        *out = NULL;
        *n = 0;
    }
    return rc;
}

static void free_texts(char **texts, size_t n)
{
    for (size_t i = 0; i < n; i++) free(texts[i]);
    free(texts);
}

/* Replaces a list of the configuration by the option's, if it is given. */
static int set_list(const asked *a, int o, char ***list, size_t *n)
{
    if (!a->given[o]) return KS_OK;
    free_texts(*list, *n);
    *list = NULL;
    *n = 0;
    return split(specs[o].name, a->value[o], list, n);
}

static int set_word(const asked *a, int o, const char *const *names, int *out)
{
    return a->given[o] ? ks_config_word(specs[o].name, a->value[o], names, out) : KS_OK;
}

static int set_text(const asked *a, int o, char **out)
{
    if (!a->given[o]) return KS_OK;
    free(*out);
    *out = ks_strdup(a->value[o]);
    return *out ? KS_OK : KS_EMACHINE;
}

static int set_kind(const char *text, ks_sweep *s)
{
    static const char where[] = "--kind";
    int rc = KS_OK;
    char *word = NULL, **values = NULL;
    size_t n = 0;
    const char *equals = strchr(text, '=');
    KS_GET(word, ks_format("%.*s", equals ? (int)(equals - text) : (int)strlen(text), text));
    KS_TRY(ks_config_word(where, word, ks_kind_names, &s->kind));
    free(s->values);
    s->values = NULL;
    s->n_values = 0;
    if (!equals) goto done; /* ks_sweep_finish says when values are missing */
    KS_TRY(split(where, equals + 1, &values, &n));
    KS_NEW(s->values, n);
    for (size_t i = 0; i < n; i++) {
        char *end = NULL;
        s->values[s->n_values++] = strtod(values[i], &end);
        KS_REQUIRE(end != values[i] && !*end, KS_EUSAGE, "%s: must be numbers behind the =, found \"%s\"", where, values[i]);
    }
done:
    free(word);
    free_texts(values, n);
    return rc;
}

static int set_heads(const char *text, ks_sweep *s)
{
    static const char where[] = "--heads";
    int rc = KS_OK;
    char **heads = NULL;
    size_t n = 0;
    free(s->head_list);
    s->head_list = NULL;
    s->n_heads = 0;
    s->heads = !strcmp(text, "all") ? KS_HEADS_ALL : !strcmp(text, "each") ? KS_HEADS_EACH : KS_HEADS_LIST;
    if (s->heads != KS_HEADS_LIST) goto done;
    KS_REQUIRE(text[strspn(text, "0123456789,")] == 0, KS_EUSAGE, "%s: must be all, each or heads such as 0,3,5, found \"%s\"", where,
               text);
    KS_TRY(split(where, text, &heads, &n));
    KS_NEW(s->head_list, n);
    for (size_t i = 0; i < n; i++) KS_TRY(whole_number(where, heads[i], 0, INT32_MAX - 1, &s->head_list[s->n_heads++]));
done:
    free_texts(heads, n);
    return rc;
}

static int set_models(const asked *a, ks_config *c)
{
    int rc = KS_OK;
    if (a->n_models) {
        for (size_t i = 0; i < c->n_models; i++) ks_model_ref_clear(&c->models[i]);
        free(c->models);
        c->n_models = 0;
        KS_NEW(c->models, a->n_models);
    }
    for (size_t i = 0; i < a->n_models; i++) {
        const char *text = a->models[i];
        ks_model_ref *m = &c->models[c->n_models++];
        struct stat st;
        const bool directory = stat(text, &st) == 0 && S_ISDIR(st.st_mode);
        const char *slash = strchr(text, '/');
        if (!directory && (strchr("./~", text[0]) || (slash && (!slash[1] || strchr(slash + 1, '/')))))
            KS_REQUIRE(false, KS_EINPUT, "--model: there is no directory %s", text);
        KS_GET(m->name, ks_config_model_name(text));
        if (directory) {
            KS_GET(m->path, ks_strdup(text));
            if (!strcmp(m->name, ".") || !strcmp(m->name, "..")) {
                char *real = realpath(text, NULL);
                KS_REQUIRE(real, KS_EINPUT, "--model: %s cannot be resolved: %s", text, strerror(errno));
                free(m->name);
                m->name = ks_config_model_name(real);
                free(real);
                KS_REQUIRE(m->name, KS_EMACHINE, "no memory for a model's name");
            }
        } else {
            KS_TRY(ks_config_check_id("--model", text));
            KS_GET(m->id, ks_strdup(text));
            KS_GET(m->revision, ks_strdup("main"));
        }
        KS_TRY(ks_config_check_name("--model", "a model's name", m->name));
    }
    if (a->given[O_REVISION]) {
        bool used = false;
        for (size_t i = 0; i < c->n_models; i++) {
            if (!c->models[i].id) continue;
            used = true;
            KS_TRY(set_text(a, O_REVISION, &c->models[i].revision));
        }
        KS_REQUIRE(used, KS_EUSAGE, "--revision: no model is given by its id");
    }
done:
    return rc;
}

/* --layer, or --layer-start with --layer-end. */
static int set_window(const asked *a, ks_sweep *s)
{
    int rc = KS_OK;
    ks_window w = {0, 0};
    const bool start = a->given[O_LAYER_START], end = a->given[O_LAYER_END];
    KS_REQUIRE(!a->given[O_LAYER] || !(start || end), KS_EUSAGE, "--layer and --layer-start, --layer-end: give one or the other");
    if (a->given[O_LAYER]) {
        KS_TRY(whole_number("--layer", a->value[O_LAYER], 0, INT32_MAX - 1, &w.a));
        w.b = w.a;
    } else {
        KS_REQUIRE(start && end, KS_EUSAGE, "%s needs %s beside it", start ? "--layer-start" : "--layer-end",
                   start ? "--layer-end" : "--layer-start");
        KS_TRY(whole_number("--layer-start", a->value[O_LAYER_START], 0, INT32_MAX - 1, &w.a));
        KS_TRY(whole_number("--layer-end", a->value[O_LAYER_END], 0, INT32_MAX - 1, &w.b));
        KS_REQUIRE(w.a <= w.b, KS_EUSAGE, "--layer-end %d lies before --layer-start %d", (int)w.b, (int)w.a);
    }
    s->windows = KS_WINDOWS_LIST;
    KS_NEW(s->list, 1);
    s->list[0] = w;
    s->n_list = 1;
done:
    return rc;
}

/* The scan options, one sweep each; without any, the configuration's sweeps stay, or the default one. */
static int set_scans(const asked *a, ks_config *c)
{
    int rc = KS_OK;
    ks_sweep scans[5] = {0};
    size_t n = 0;
    KS_REQUIRE(a->given[O_SCAN_WINDOWS] == a->given[O_CENTER], KS_EUSAGE, "%s needs %s beside it",
               a->given[O_CENTER] ? "--window-center" : "--scan-windows", a->given[O_CENTER] ? "--scan-windows" : "--window-center");
    KS_REQUIRE(a->given[O_SCAN_WINDOWS] || !a->given[O_RADIUS], KS_EUSAGE, "--max-radius needs --scan-windows beside it");
    if (a->given[O_SCAN_LAYERS]) scans[n++].windows = KS_WINDOWS_EACH_LAYER;
    if (a->given[O_LAYER] || a->given[O_LAYER_START] || a->given[O_LAYER_END]) KS_TRY(set_window(a, &scans[n++]));
    if (a->given[O_SCAN_WINDOWS]) {
        ks_sweep *s = &scans[n++];
        s->windows = KS_WINDOWS_AROUND;
        s->max_radius = KS_DEFAULT_RADIUS;
        KS_TRY(whole_number("--window-center", a->value[O_CENTER], 0, INT32_MAX - 1, &s->center));
        if (a->given[O_RADIUS]) KS_TRY(whole_number("--max-radius", a->value[O_RADIUS], 0, KS_MAX_RADIUS, &s->max_radius));
    }
    if (a->given[O_SLIDE]) {
        ks_sweep *s = &scans[n++];
        s->windows = KS_WINDOWS_SLIDE;
        KS_TRY(whole_number("--slide-window", a->value[O_SLIDE], 1, INT32_MAX - 1, &s->slide));
    }
    if (a->given[O_ALL_WINDOWS]) scans[n++].windows = KS_WINDOWS_ALL;
    if (!n && !c->n_sweeps) scans[n++].windows = KS_WINDOWS_EACH_LAYER;
    if (n) {
        for (size_t i = 0; i < c->n_sweeps; i++) ks_sweep_clear(&c->sweeps[i]);
        free(c->sweeps);
        c->n_sweeps = 0;
        KS_NEW(c->sweeps, n);
        memcpy(c->sweeps, scans, n * sizeof *scans);
        c->n_sweeps = n;
        n = 0;
    }
    for (size_t i = 0; i < c->n_sweeps; i++) {
        ks_sweep *s = &c->sweeps[i];
        if (a->given[O_ALL_EDGES]) s->edges = KS_EDGES_ALL_MARKER;
        KS_TRY(set_word(a, O_EDGES, ks_edges_names, &s->edges));
        KS_TRY(set_word(a, O_POSITIONS, ks_positions_names, &s->positions));
        if (a->given[O_KIND]) KS_TRY(set_kind(a->value[O_KIND], s));
        if (a->given[O_HEADS]) KS_TRY(set_heads(a->value[O_HEADS], s));
        KS_TRY(ks_sweep_finish(s, a->given[O_KIND] ? "--kind" : "command line"));
    }
done:
    for (size_t i = 0; i < n; i++) ks_sweep_clear(&scans[i]);
    return rc;
}

static int apply(const asked *a, ks_config *c)
{
    static const char *const on_off[] = {"off", "on", NULL};
    int rc = KS_OK, floor_on = c->floor;
    int32_t threads = c->threads, checkpoint = c->checkpoint, ranks = c->ranks;
    KS_TRY(set_models(a, c));
    KS_TRY(set_text(a, O_CORPUS, &c->corpus));
    KS_TRY(set_list(a, O_GROUPS, &c->groups, &c->n_groups));
    KS_TRY(set_list(a, O_SAMPLES, &c->samples, &c->n_samples));
    c->include_baselines |= a->given[O_BASELINES];
    KS_TRY(set_word(a, O_SPECIAL, ks_special_names, &c->special_tokens));
    KS_TRY(set_word(a, O_MARKER, ks_marker_names, &c->marker));
    KS_TRY(set_scans(a, c));
    KS_TRY(set_word(a, O_PRECISION, ks_precision_names, &c->precision));
    KS_TRY(set_word(a, O_BACKEND, ks_backend_names, &c->backend));
    KS_TRY(set_word(a, O_WEIGHTS, ks_source_names, &c->weights));
    if (a->given[O_THREADS]) KS_TRY(whole_number("--threads", a->value[O_THREADS], 0, KS_MAX_THREADS, &threads));
    if (a->given[O_CHECKPOINT]) KS_TRY(whole_number("--checkpoint", a->value[O_CHECKPOINT], 0, KS_MAX_CHECKPOINT, &checkpoint));
    if (a->given[O_RANKS]) KS_TRY(whole_number("--ranks", a->value[O_RANKS], 1, KS_MAX_RANKS, &ranks));
    if (a->given[O_MEMORY]) KS_TRY(ks_config_bytes("--memory", a->value[O_MEMORY], &c->memory_bytes));
    c->threads = threads;
    c->checkpoint = checkpoint;
    c->ranks = ranks;
    if (a->given[O_OUTPUT]) KS_TRY(ks_config_set_output(c, a->value[O_OUTPUT]));
    KS_REQUIRE(!(a->given[O_RESUME] && a->given[O_FORCE]), KS_EUSAGE,
               "--resume keeps the output file, --force overwrites it: give one of them");
    c->resume = a->given[O_RESUME];
    c->force = a->given[O_FORCE];
    c->save_logits |= a->given[O_LOGITS];
    KS_TRY(set_word(a, O_FLOOR, on_off, &floor_on));
    c->floor = floor_on;
    c->json = a->given[O_JSON];
    KS_TRY(set_text(a, O_TEXTS, &c->texts));
    KS_REQUIRE(!(a->given[O_VERBOSE] && a->given[O_QUIET]), KS_EUSAGE, "--verbose and --quiet: give one of them");
    c->verbosity = a->given[O_VERBOSE] - a->given[O_QUIET];
    KS_TRY(set_text(a, O_DEVICE, &c->device));
    if (c->device && !strcmp(c->device, "list")) goto done;
    KS_REQUIRE(c->n_models, KS_EUSAGE, "no model: give --model DIR or ID, or a configuration with \"models\"");
    KS_TRY(ks_config_check(c));
done:
    return rc;
}

int ks_options_parse(ks_config **out, const char *command, int argc, char **argv)
{
    int rc = KS_OK;
    asked a = {0};
    ks_config *c = NULL;
    KS_NEW(a.models, argc);
    for (int i = 1; i < argc; i++) { /* help is given whatever else is wrong */
        a.given[O_HELP] |= !strcmp(argv[i], "--help") || !strcmp(argv[i], "-h");
        a.given[O_VERSION] |= !strcmp(argv[i], "--version");
    }
    if (a.given[O_HELP] || a.given[O_VERSION]) {
        KS_TRY(ks_config_new(&c));
        c->help = a.given[O_HELP];
        c->version = a.given[O_VERSION];
        goto done;
    }
    KS_TRY(read_arguments(&a, command, argc, argv));
    KS_TRY(a.config ? ks_config_load(&c, a.config) : ks_config_new(&c));
    KS_TRY(apply(&a, c));
done:
    free(a.models);
    if (rc) ks_config_free(c);
    else *out = c;
    return rc;
}
