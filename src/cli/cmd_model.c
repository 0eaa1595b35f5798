#include "cli/cli.h"

#include "base/error.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/hub.h"
#include "model/weights.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char help[] =
    "usage: kosweep model DIR|ID [options]\n"
    "\n"
    "Says what a Hugging Face model directory holds: family, sizes, number type, memory by precision; or why it is refused.\n"
    "ID is looked up in the local hub cache (HF_HUB_CACHE, HF_HOME, ~/.cache/huggingface/hub); nothing is downloaded.\n"
    "\n"
    "  --revision R   branch, tag or snapshot of an ID (default: main)\n"
    "  --check        also read every weight: are all finite, and their SHA-256\n"
    "  --json         one JSON object instead of text\n"
    "  --help, --version\n"
    "\n"
    "examples:\n"
    "  kosweep model models/box\n"
    "  kosweep model Qwen/Qwen2.5-Coder-7B-Instruct --json\n";

typedef struct report {
    const ks_model *model;
    const char *model_name; /* as the user wrote it */
    bool checked, tokenizer;
    char *nonfinite; /* tensor, or NULL */
    char sha256[65];
} report;

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Decimal units, as disks and model cards count. */
static const char *human(char text[32], int64_t bytes)
{
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
    double x = (double)bytes;
    int u = 0;
    while (x >= 999.5 && u < 4) x /= 1000, u++;
    snprintf(text, 32, "%.*f %s", !u || x >= 99.5 ? 0 : x >= 9.95 ? 1 : 2, x, units[u]);
    return text;
}

/* "4096 in layers 0-29", "full"; runs of layers with the same window. */
static void print_windows(const ks_arch *a)
{
    printf("attention      ");
    for (int32_t l = 0; l < a->L;) {
        int32_t end = l;
        while (end < a->L && a->window[end] == a->window[l]) end++;
        if (l) printf(", ");
        if (a->window[l]) printf("sliding window %d", a->window[l]);
        else printf("full");
        if (end - l == a->L) printf(" in every layer");
        else if (end - l == 1) printf(" in layer %d", l);
        else printf(" in layers %d-%d", l, end - 1);
        l = end;
    }
    printf("\n");
}

static void print_rope(const ks_arch *a)
{
    const ks_rope *r = &a->rope;
    printf("rope           %s, theta %g", ks_rope_name(r->kind), r->theta);
    if (r->dim != a->E) printf(", %d of %d dimensions", r->dim, a->E);
    if (r->kind == KS_ROPE_LLAMA3) printf(", factor %g (low %g, high %g, original length %d)", r->factor, r->low, r->high, r->original);
    if (r->kind == KS_ROPE_LONGROPE) printf(", long factors beyond %d positions, attention factor %g", r->original, r->attn_factor);
    printf("\n");
}

static void print_text(const report *p)
{
    const ks_model *m = p->model;
    const ks_arch *a = ks_model_arch(m);
    const ks_st *st = ks_model_files(m);
    char x[32], y[32], z[32];
    printf("model          %s (%s)\n", a->architecture, a->family);
    printf("directory      %s\n", ks_model_dir(m));
    printf("layers         %d\n", a->L);
    printf("hidden         %d\n", a->D);
    printf("heads          %d query, %d key/value, of %d\n", a->H, a->G, a->E);
    printf("feed-forward   %d, %s%s\n", a->F, ks_act_name(a->act), a->gated ? ", gated" : "");
    printf("vocabulary     %d, %s head\n", a->V, a->tied ? "tied" : "separate");
    printf("norm           %s, eps %g%s\n", ks_norm_name(a->norm), (double)a->norm_eps, a->norm_one_plus ? ", 1 + weight" : "");
    printf("biases         %s%s%s%s\n", a->qkv_bias ? "q k v " : "", a->o_bias ? "o " : "", a->mlp_bias ? "mlp" : "",
           a->qkv_bias || a->o_bias || a->mlp_bias ? "" : "none");
    print_windows(a);
    print_rope(a);
    printf("positions      %d\n", a->max_positions);
    printf("weights        %s, %" PRId64 " parameters\n", ks_dtype_name(a->dtype), ks_model_parameters(m));
    printf("memory         %s as stored, %s in fp32, %s streamed (two buffers)\n", human(x, ks_weights_predict(m, KS_ALL_RESIDENT, false)),
           human(y, 4 * ks_model_parameters(m)), human(z, ks_weights_predict(m, KS_ALL_STREAMED, false)));
    for (int i = 0; i < ks_st_files(st); i++)
        printf("%-15s%s, %s\n", i ? "" : "files", base_name(ks_st_file_at(st, i)->path), human(x, ks_st_file_at(st, i)->bytes));
    printf("tokenizer      %s\n", p->tokenizer ? "tokenizer.json" : "none: samples must give token ids");
    if (p->checked)
        printf("values         %s%s\nsha256         %s\n", p->nonfinite ? "not finite in " : "all finite", p->nonfinite ? p->nonfinite : "",
               p->sha256);
}

static cJSON *rope_json(const ks_rope *r)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "type", ks_rope_name(r->kind));
    cJSON_AddNumberToObject(o, "theta", r->theta);
    cJSON_AddNumberToObject(o, "dimensions", r->dim);
    if (r->kind != KS_ROPE_PLAIN) cJSON_AddNumberToObject(o, "original_positions", r->original);
    if (r->kind == KS_ROPE_LLAMA3) {
        cJSON_AddNumberToObject(o, "factor", r->factor);
        cJSON_AddNumberToObject(o, "low", r->low);
        cJSON_AddNumberToObject(o, "high", r->high);
    }
    if (r->kind == KS_ROPE_LONGROPE) cJSON_AddNumberToObject(o, "attention_factor", r->attn_factor);
    return o;
}

static cJSON *warnings_json(const char *lines)
{
    cJSON *list = cJSON_CreateArray();
    while (*lines) {
        char line[512];
        const size_t n = strcspn(lines, "\n");
        snprintf(line, sizeof line, "%.*s", (int)n, lines);
        cJSON_AddItemToArray(list, cJSON_CreateString(line));
        lines += n + (lines[n] == '\n');
    }
    return list;
}

static int print_json(const report *p)
{
    const ks_model *m = p->model;
    const ks_arch *a = ks_model_arch(m);
    const ks_st *st = ks_model_files(m);
    cJSON *o = cJSON_CreateObject(), *list;
    cJSON_AddStringToObject(o, "model", p->model_name);
    cJSON_AddStringToObject(o, "directory", ks_model_dir(m));
    cJSON_AddStringToObject(o, "family", a->family);
    cJSON_AddStringToObject(o, "architecture", a->architecture);
    const struct {
        const char *key;
        int32_t value;
    } sizes[] = {{"n_layers", a->L}, {"d_model", a->D}, {"n_heads", a->H}, {"n_kv_heads", a->G},
                 {"head_dim", a->E}, {"d_ff", a->F},    {"vocab", a->V},   {"max_positions", a->max_positions}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) cJSON_AddNumberToObject(o, sizes[i].key, sizes[i].value);
    cJSON_AddStringToObject(o, "activation", ks_act_name(a->act));
    cJSON_AddBoolToObject(o, "gated", a->gated);
    cJSON_AddStringToObject(o, "norm", ks_norm_name(a->norm));
    cJSON_AddBoolToObject(o, "tied", a->tied);
    cJSON_AddBoolToObject(o, "qkv_bias", a->qkv_bias);
    cJSON_AddBoolToObject(o, "o_bias", a->o_bias);
    cJSON_AddBoolToObject(o, "mlp_bias", a->mlp_bias);
    list = cJSON_AddArrayToObject(o, "sliding_window");
    for (int32_t l = 0; l < a->L; l++) cJSON_AddItemToArray(list, cJSON_CreateNumber(a->window[l]));
    cJSON_AddItemToObject(o, "rope", rope_json(&a->rope));
    cJSON_AddStringToObject(o, "weight_dtype", ks_dtype_name(a->dtype));
    cJSON_AddNumberToObject(o, "parameters", (double)ks_model_parameters(m));
    cJSON *memory = cJSON_AddObjectToObject(o, "memory_bytes");
    cJSON_AddNumberToObject(memory, "as_stored", (double)ks_weights_predict(m, KS_ALL_RESIDENT, false));
    cJSON_AddNumberToObject(memory, "fp32", 4 * (double)ks_model_parameters(m));
    cJSON_AddNumberToObject(memory, "streamed", (double)ks_weights_predict(m, KS_ALL_STREAMED, false));
    list = cJSON_AddArrayToObject(o, "files");
    for (int i = 0; i < ks_st_files(st); i++) {
        cJSON *file = cJSON_CreateObject();
        cJSON_AddStringToObject(file, "name", base_name(ks_st_file_at(st, i)->path));
        cJSON_AddNumberToObject(file, "bytes", (double)ks_st_file_at(st, i)->bytes);
        cJSON_AddItemToArray(list, file);
    }
    cJSON_AddBoolToObject(o, "tokenizer", p->tokenizer);
    cJSON_AddItemToObject(o, "warnings", warnings_json(a->warnings));
    if (p->checked) {
        cJSON_AddBoolToObject(o, "finite", !p->nonfinite);
        cJSON_AddStringToObject(o, "weights_sha256", p->sha256);
    }
    char *text = cJSON_Print(o);
    cJSON_Delete(o);
    if (!text) return ks_error(KS_EMACHINE, "out of memory");
    printf("%s\n", text);
    cJSON_free(text);
    return KS_OK;
}

int ks_cmd_model(int argc, char **argv)
{
    int rc = KS_OK;
    const char *name = NULL, *revision = NULL;
    bool json = false;
    char *dir = NULL, *path = NULL;
    ks_model *model = NULL;
    report p = {0};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(help, stdout);
            goto done;
        }
        if (!strcmp(argv[i], "--version")) {
            printf("kosweep %s\n", KS_VERSION);
            goto done;
        }
        if (!strcmp(argv[i], "--json")) json = true;
        else if (!strcmp(argv[i], "--check")) p.checked = true;
        else if (!strcmp(argv[i], "--revision")) {
            KS_REQUIRE(i + 1 < argc, KS_EUSAGE, "--revision needs a value");
            revision = argv[++i];
        } else {
            static const char *const options[] = {"--json", "--check", "--revision", "--help", "--version", NULL};
            const char *near = ks_nearest(argv[i], options);
            KS_REQUIRE(argv[i][0] != '-', KS_EUSAGE, "model: unknown option %s%s%s", argv[i], near ? "; did you mean " : "",
                       near ? near : "");
            KS_REQUIRE(!name, KS_EUSAGE, "model: one DIR or ID is expected, found %s and %s", name, argv[i]);
            name = argv[i];
        }
    }
    KS_REQUIRE(name, KS_EUSAGE, "model: a DIR or ID is expected (kosweep model --help)");
    KS_TRY(ks_hub_find(&dir, name, revision));
    KS_TRY(ks_model_open(&model, dir));
    p.model = model;
    p.model_name = name;
    KS_GET(path, ks_format("%s/tokenizer.json", dir));
    struct stat st;
    p.tokenizer = stat(path, &st) == 0;
    if (p.checked) {
        KS_TRY(ks_model_find_nonfinite(model, &p.nonfinite));
        KS_TRY(ks_model_weights_sha256(model, p.sha256));
    }
    if (json) KS_TRY(print_json(&p));
    else print_text(&p);
done:
    free(p.nonfinite);
    ks_model_close(model);
    free(path);
    free(dir);
    return rc;
}
