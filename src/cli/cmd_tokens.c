#include "cli/cli.h"

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "input/options.h"
#include "input/samples.h"
#include "input/tokenizer.h"
#include "model/hub.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "kosweep tokens [CONFIG.json] [options]\n"
    "\n"
    "Prints every sample's tokens with marker and targets marked, and the edges that each sweep removes.\n"
    "Needs only tokenizer.json in the model's directory. With --json: one object a line and sample,\n"
    "{\"model\", \"id\", \"ids\", \"ranges\": [[start, end], ..], \"marker\": [token, ..], \"targets\": [token, ..]}.\n"
    "\n"
    "Examples\n"
    "  kosweep tokens config/demo.json\n"
    "  kosweep tokens --model models/box --corpus corpus/attention_samples_universal.json --samples py_simple_add\n"
    "  kosweep tokens --model models/box --texts texts.jsonl    a JSON string a line; - reads stdin\n"
    "\n";

/* ---- pretty ---- */

/* How tokens are set apart: colours on a terminal, brackets elsewhere. */
typedef struct look {
    const char *marker, *target, *other, *end_marker, *end_target, *end_other, *dim, *plain;
} look;

#define SEPARATOR "\x1b[2m\xc2\xb7\x1b[0m"
static const look brackets = {"{", "[", "", "}", "]", "\xc2\xb7", "", ""};
static const look colours = {"\x1b[30;43m", "\x1b[30;46m", "", "\x1b[0m" SEPARATOR, "\x1b[0m" SEPARATOR, SEPARATOR, "\x1b[2m", "\x1b[0m"};

static const look *choose_look(void)
{
    const char *term = getenv("TERM");
    const bool colour = isatty(STDOUT_FILENO) && !getenv("NO_COLOR") && term && strcmp(term, "dumb") != 0;
    return colour ? &colours : &brackets;
}

/* The text of a token on one line; what could steer a terminal is written out. */
static void print_visible(const char *text)
{
    for (const char *p = text; *p; p++) {
        const unsigned char c = (unsigned char)*p;
        if (c == '\n') fputs("\xe2\x86\xb5", stdout);
        else if (c == '\t') fputs("\\t", stdout);
        else if (c == '\r') fputs("\\r", stdout);
        else if (c < 0x20 || c == 0x7f) printf("\\x%02X", c);
        else if (c == 0xc2 && (unsigned char)p[1] >= 0x80 && (unsigned char)p[1] < 0xa0) printf("\\x%02X", (unsigned char)*++p);
        else putchar(c);
    }
}

static void print_tokens(const ks_sample *s, const look *k)
{
    bool fresh = true;
    for (int32_t t = 0; t < s->T; t++) {
        const bool marker = s->marker[t], target = s->target[t];
        if (fresh) printf("%s%6d  %s", k->dim, (int)t, k->plain);
        fputs(marker ? k->marker : target ? k->target : k->other, stdout);
        const bool rest = t > 0 && s->end[t] > s->start[t] && s->start[t] == s->start[t - 1] && s->end[t] == s->end[t - 1];
        if (rest) fputs("\xe2\x80\xa6", stdout); /* a further byte of the character before */
        else if (*s->token_text[t]) print_visible(s->token_text[t]);
        else printf("<%d>", (int)s->ids[t]);
        fresh = strchr(s->token_text[t], '\n') || t + 1 == s->T || (!s->text && t % 16 == 15);
        if (marker || target) fputs(marker ? k->end_marker : k->end_target, stdout);
        else if (!fresh) fputs(k->end_other, stdout);
        if (fresh) putchar('\n');
    }
}

/* " 1 4 5-9" */
static void print_positions(const uint8_t *mask, int32_t T)
{
    for (int32_t t = 0; t < T; t++) {
        if (!mask[t]) continue;
        const int32_t first = t;
        while (t + 1 < T && mask[t + 1]) t++;
        if (t == first) printf(" %d", (int)t);
        else printf(" %d-%d", (int)first, (int)t);
    }
}

/* The visible edges (key <= query) of an edge set, in one line. */
static void print_edges(const ks_sample *s, const ks_config *c, int edges)
{
    int64_t n = 0;
    for (int32_t q = 0; q < s->T; q++)
        for (int32_t k = 0; k <= q; k++) n += edges == KS_EDGES_ALL_MARKER ? s->marker[k] : s->marker[q] && s->target[k];
    printf("        %s:", ks_edges_names[edges]);
    if (edges == KS_EDGES_ALL_MARKER) {
        int32_t first = 0;
        while (!s->marker[first]) first++;
        printf(" queries %d to %d -> keys", (int)first, (int)s->T - 1);
        print_positions(s->marker, s->T);
    } else {
        fputs(" queries", stdout);
        print_positions(s->marker, s->T);
        fputs(" -> keys", stdout);
        print_positions(s->target, s->T);
    }
    printf(": %" PRId64 " edge%s", n, n == 1 ? "" : "s");
    fputs(n ? "" : " (no target stands before the marker: nothing to remove)", stdout);
    fputs(" (", stdout);
    bool first = true;
    for (size_t i = 0; i < c->n_sweeps; i++) {
        if (c->sweeps[i].edges != edges) continue;
        printf("%s%s", first ? "" : ", ", c->sweeps[i].name);
        first = false;
    }
    puts(")");
}

static void print_sample(const ks_sample *s, const ks_config *c, const char *model, const look *k)
{
    printf("%s  %s/%s  %d tokens\n", model, s->group, s->id, (int)s->T);
    print_tokens(s, k);
    for (int edges = KS_EDGES_MARKER_TARGETS; edges <= KS_EDGES_ALL_MARKER; edges++)
        for (size_t i = 0; i < c->n_sweeps; i++) {
            if (c->sweeps[i].edges != edges) continue;
            print_edges(s, c, edges);
            break;
        }
    putchar('\n');
}

/* ---- JSON ---- */

static void json_ids(const int32_t *ids, size_t n)
{
    fputs("\"ids\": [", stdout);
    for (size_t i = 0; i < n; i++) printf("%s%d", i ? ", " : "", (int)ids[i]);
    putchar(']');
}

static void json_ranges(const int32_t *start, const int32_t *end, size_t n)
{
    fputs("\"ranges\": [", stdout);
    for (size_t i = 0; i < n; i++) printf("%s[%d, %d]", i ? ", " : "", (int)start[i], (int)end[i]);
    putchar(']');
}

static void json_mask(const char *key, const uint8_t *mask, int32_t T)
{
    const char *comma = "";
    printf("\"%s\": [", key);
    for (int32_t t = 0; t < T; t++) {
        if (!mask[t]) continue;
        printf("%s%d", comma, (int)t);
        comma = ", ";
    }
    putchar(']');
}

static int json_text(const char *key, const char *text)
{
    cJSON *v = cJSON_CreateStringReference(text);
    char *quoted = v ? cJSON_PrintUnformatted(v) : NULL;
    cJSON_Delete(v);
    if (!quoted) return ks_error(KS_EMACHINE, "no memory for a line of JSON");
    printf("\"%s\": %s, ", key, quoted);
    cJSON_free(quoted);
    return KS_OK;
}

static int json_sample(const ks_sample *s, const char *model)
{
    int rc = KS_OK;
    putchar('{');
    KS_TRY(json_text("model", model));
    KS_TRY(json_text("id", s->id));
    json_ids(s->ids, (size_t)s->T);
    fputs(", ", stdout);
    json_ranges(s->start, s->end, (size_t)s->T);
    fputs(", ", stdout);
    json_mask("marker", s->marker, s->T);
    fputs(", ", stdout);
    json_mask("targets", s->target, s->T);
    puts("}");
done:
    return rc;
}

/* ---- --texts ---- */

static int hex4(const char *p, const char *end, uint32_t *out)
{
    *out = 0;
    if (end - p < 4) return 0;
    for (int i = 0; i < 4; i++) {
        const char *digits = "0123456789abcdef0123456789ABCDEF", *d = p[i] ? strchr(digits, p[i]) : NULL;
        if (!d) return 0;
        *out = *out * 16 + (uint32_t)(d - digits) % 16;
    }
    return 4;
}

/* Decodes one JSON string in place, U+0000 included (which cJSON would take for the end). False: it is none. */
static bool decode_string(char *line, size_t length, size_t *bytes)
{
    const char *p = line, *end = line + length;
    while (end > p && end[-1] && strchr(" \t\r\n", end[-1])) end--;
    while (p < end && (*p == ' ' || *p == '\t')) p++;
    if (end - p < 2 || *p != '"' || end[-1] != '"') return false;
    p++;
    end--;
    char *o = line; /* never ahead of p */
    while (p < end) {
        if (*p == '"' || (unsigned char)*p < 0x20) return false;
        if (*p != '\\') {
            *o++ = *p++;
            continue;
        }
        if (++p == end) return false;
        static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
        const char *name = *p ? strchr(names, *p) : NULL;
        if (name) {
            *o++ = values[name - names];
            p++;
            continue;
        }
        uint32_t c, low;
        if (*p != 'u' || !hex4(p + 1, end, &c)) return false;
        p += 5;
        if (c >= 0xdc00 && c < 0xe000) return false;
        if (c >= 0xd800 && c < 0xdc00) {
            if (end - p < 6 || p[0] != '\\' || p[1] != 'u' || !hex4(p + 2, end, &low) || low < 0xdc00 || low > 0xdfff) return false;
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
            p += 6;
        }
        if (c < 0x80) {
            *o++ = (char)c;
        } else if (c < 0x800) {
            *o++ = (char)(0xc0 | c >> 6);
            *o++ = (char)(0x80 | (c & 63));
        } else if (c < 0x10000) {
            *o++ = (char)(0xe0 | c >> 12);
            *o++ = (char)(0x80 | (c >> 6 & 63));
            *o++ = (char)(0x80 | (c & 63));
        } else {
            *o++ = (char)(0xf0 | c >> 18);
            *o++ = (char)(0x80 | (c >> 12 & 63));
            *o++ = (char)(0x80 | (c >> 6 & 63));
            *o++ = (char)(0x80 | (c & 63));
        }
    }
    *bytes = (size_t)(o - line);
    return true;
}

static int print_texts(const ks_config *c, const ks_tokenizer *tok)
{
    int rc = KS_OK;
    const bool from_stdin = !strcmp(c->texts, "-");
    const char *name = from_stdin ? "stdin" : c->texts;
    FILE *f = from_stdin ? stdin : fopen(name, "rb");
    char *line = NULL;
    size_t room = 0, number = 0, bytes = 0;
    ks_encoding e = {0};
    KS_REQUIRE(f, KS_EINPUT, "%s: cannot be opened: %s", name, strerror(errno));
    for (ssize_t n; (n = getline(&line, &room, f)) >= 0;) {
        number++;
        KS_REQUIRE(decode_string(line, (size_t)n, &bytes), KS_EINPUT, "%s: line %zu is not a JSON string", name, number);
        rc = ks_tokenizer_encode(tok, line, bytes, c->special_tokens == KS_SPECIAL_TOKENIZER, &e);
        if (rc) {
            rc = ks_error_context(rc, "%s: line %zu", name, number);
            goto done;
        }
        putchar('{');
        json_ids(e.ids, e.n);
        fputs(", ", stdout);
        json_ranges(e.start, e.end, e.n);
        puts("}");
        if (from_stdin) fflush(stdout); /* whoever asks over a pipe waits for the answer */
        ks_encoding_free(&e);
        e = (ks_encoding){0};
    }
    KS_REQUIRE(!ferror(f), KS_EINPUT, "%s: cannot be read: %s", name, strerror(errno));
done:
    ks_encoding_free(&e);
    free(line);
    if (f && !from_stdin) fclose(f);
    return rc;
}

/* ---- the command ---- */

static int print_model(const ks_config *c, const ks_model_ref *m, const ks_corpus *corpus)
{
    int rc = KS_OK;
    char *dir = NULL;
    ks_tokenizer *tok = NULL;
    ks_samples *samples = NULL;
    bool needed = true;
    if (corpus) KS_TRY(ks_samples_need_tokenizer(&needed, corpus, c));
    if (needed) {
        if (m->path) KS_GET(dir, ks_strdup(m->path));
        else KS_TRY(ks_hub_resolve(&dir, m->id, m->revision));
        KS_TRY(ks_tokenizer_load(&tok, dir));
    }
    if (!corpus) {
        KS_TRY(print_texts(c, tok));
        goto done;
    }
    /* A model's vocabulary is often padded beyond the tokenizer's, so that only the model, which is not opened here, could judge an id. */
    KS_TRY(ks_samples_resolve(&samples, corpus, c, tok, INT32_MAX));
    for (size_t i = 0; i < samples->n; i++) {
        if (c->json) KS_TRY(json_sample(&samples->v[i], m->name));
        else print_sample(&samples->v[i], c, m->name, choose_look());
    }
done:
    ks_samples_free(samples);
    ks_tokenizer_free(tok);
    free(dir);
    return rc;
}

int ks_cmd_tokens(int argc, char **argv)
{
    int rc = KS_OK;
    ks_config *c = NULL;
    ks_corpus *corpus = NULL;
    KS_TRY(ks_options_parse(&c, "tokens", argc, argv));
    if (c->help || c->version) {
        if (c->help) printf("%s%s", usage, ks_options_help);
        else puts("kosweep " KS_VERSION);
        goto done;
    }
    ks_log_set_level(KS_LOG_INFO + c->verbosity);
    if (c->texts) {
        KS_REQUIRE(c->n_models == 1, KS_EUSAGE, "--texts: give one model, found %zu", c->n_models);
    } else {
        KS_REQUIRE(c->corpus, KS_EUSAGE, "no corpus: give --corpus FILE, or a configuration with \"corpus\"");
        KS_TRY(ks_corpus_load(&corpus, c->corpus));
    }
    for (size_t i = 0; i < c->n_models; i++) KS_TRY(print_model(c, &c->models[i], corpus));
done:
    ks_corpus_free(corpus);
    ks_config_free(c);
    return rc;
}
