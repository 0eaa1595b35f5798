/* Configuration file and command line: every key and option, what overrides what, and each mistake with its message. */
#include "base/error.h"
#include "input/options.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/ks_test_config_XXXXXX";
static char file[64];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return 1;
    snprintf(file, sizeof file, "%s/c.json", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(file);
    return rmdir(folder);
}

static int load(ks_config **c, const char *text)
{
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    return ks_config_load(c, file);
}

/* Splits a line at its blanks and parses it as the arguments of `command`; @ stands for the configuration file. */
static int parse(ks_config **c, const char *command, const char *line)
{
    char copy[512], *argv[64] = {"kosweep"};
    int argc = 1;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) argv[argc++] = strcmp(word, "@") ? word : file;
    return ks_options_parse(c, command, argc, argv);
}

static void full_file(void **state)
{
    (void)state;
    ks_config *c = NULL;
    const char *text =
        "{\"_comment\": [1], \"models\": [{\"name\": \"small\", \"path\": \"models/x\"}, {\"id\": \"Org/Big-7B\", \"revision\": \"v2\"}, "
        "{\"path\": "
        "\"/abs/last/\"}],"
        "\"corpus\": \"c.json\", \"groups\": [\"a\", \"b\"], \"samples\": [\"s\"], \"include_baselines\": true, \"special_tokens\": "
        "\"none\","
        "\"marker\": \"span\", \"precision\": \"fast\", \"save_logits\": true, \"floor\": false, \"backend\": \"cpu\", \"threads\": 3,"
        "\"memory\": \"2G\", \"output\": \"r.json\", \"sweeps\": ["
        "{\"windows\": \"each-layer\"}, {\"name\": \"all_edge\", \"edges\": \"all-marker\"}, {\"windows\": {\"slide\": 3}},"
        "{\"windows\": {\"center\": 2, \"max_radius\": 10}}, {\"name\": \"early\", \"windows\": [[0, 4], [1, 3]]}, {\"windows\": \"all\"},"
        "{\"name\": \"h\", \"heads\": \"each\", \"positions\": \"all\"}, {\"name\": \"l\", \"heads\": [5, 0, 3], \"_\": 0},"
        "{\"name\": \"dose\", \"kind\": \"scale\", \"values\": [0, 0.5, 4], \"windows\": [[2, 2]]},"
        "{\"name\": \"forced\", \"kind\": \"set\", \"values\": [0, 1]}]}";
    assert_int_equal(load(&c, text), KS_OK);
    char expected[128];
    assert_int_equal(c->n_models, 3);
    snprintf(expected, sizeof expected, "%s/models/x", folder);
    assert_string_equal(c->models[0].path, expected);
    assert_string_equal(c->models[0].name, "small");
    assert_string_equal(c->models[1].name, "Big-7B");
    assert_string_equal(c->models[1].revision, "v2");
    assert_null(c->models[1].path);
    assert_string_equal(c->models[2].path, "/abs/last/");
    assert_string_equal(c->models[2].name, "last");
    snprintf(expected, sizeof expected, "%s/c.json", folder);
    assert_string_equal(c->corpus, expected);
    snprintf(expected, sizeof expected, "%s/r.h5", folder);
    assert_string_equal(c->output, expected);
    snprintf(expected, sizeof expected, "%s/r.json", folder);
    assert_string_equal(c->output_json, expected);
    assert_int_equal(c->n_groups, 2);
    assert_string_equal(c->samples[0], "s");
    assert_true(c->include_baselines && c->save_logits && !c->floor);
    assert_int_equal(c->special_tokens, KS_SPECIAL_NONE);
    assert_int_equal(c->marker, KS_MARKER_SPAN);
    assert_int_equal(c->precision, KS_PRECISION_FAST);
    assert_int_equal(c->backend, KS_BACKEND_CPU);
    assert_int_equal(c->threads, 3);
    assert_true(c->memory_bytes == (uint64_t)2 << 30);
    assert_int_equal(c->n_sweeps, 10);
    static const char *const names[] = {"layers", "all_edge", "slide", "windows", "early", "triangle", "h", "l", "dose", "forced"};
    for (size_t i = 0; i < 10; i++) assert_string_equal(c->sweeps[i].name, names[i]);
    assert_int_equal(c->sweeps[1].edges, KS_EDGES_ALL_MARKER);
    assert_int_equal(c->sweeps[6].heads, KS_HEADS_EACH);
    assert_int_equal(c->sweeps[6].positions, KS_POSITIONS_ALL);
    assert_memory_equal(c->sweeps[7].head_list, ((int32_t[]){0, 3, 5}), 12);
    assert_int_equal(c->sweeps[8].kind, KS_SCALE);
    assert_true(c->sweeps[8].n_values == 3 && c->sweeps[8].values[2] == 4);

    char *json = ks_config_json(c);
    assert_string_equal(
        json, "{\"models\":[{\"name\":\"small\"},{\"name\":\"Big-7B\",\"id\":\"Org/Big-7B\",\"revision\":\"v2\"},{\"name\":\"last\"}],"
              "\"groups\":[\"a\",\"b\"],\"samples\":[\"s\"],\"include_baselines\":true,\"special_tokens\":\"none\",\"marker\":\"span\","
              "\"precision\":\"fast\",\"save_logits\":true,\"floor\":false,\"sweeps\":["
              "{\"name\":\"layers\",\"kind\":\"knockout\",\"edges\":\"marker-targets\",\"heads\":\"all\",\"positions\":\"last\","
              "\"windows\":\"each-layer\"},"
              "{\"name\":\"all_edge\",\"kind\":\"knockout\",\"edges\":\"all-marker\",\"heads\":\"all\",\"positions\":\"last\","
              "\"windows\":\"each-layer\"},"
              "{\"name\":\"slide\",\"kind\":\"knockout\",\"edges\":\"marker-targets\",\"heads\":\"all\",\"positions\":\"last\","
              "\"windows\":{\"slide\":3}},"
              "{\"name\":\"windows\",\"kind\":\"knockout\",\"edges\":\"marker-targets\",\"heads\":\"all\",\"positions\":\"last\","
              "\"windows\":{\"center\":2,\"max_radius\":10}},"
              "{\"name\":\"early\",\"kind\":\"knockout\",\"edges\":\"marker-targets\",\"heads\":\"all\",\"positions\":\"last\","
              "\"windows\":[[0,4],[1,3]]},"
              "{\"name\":\"triangle\",\"kind\":\"knockout\",\"edges\":\"marker-targets\",\"heads\":\"all\",\"positions\":\"last\","
              "\"windows\":\"all\"},"
              "{\"name\":\"h\",\"kind\":\"knockout\",\"edges\":\"marker-targets\",\"heads\":\"each\",\"positions\":\"all\","
              "\"windows\":\"each-layer\"},"
              "{\"name\":\"l\",\"kind\":\"knockout\",\"edges\":\"marker-targets\",\"heads\":[0,3,5],\"positions\":\"last\","
              "\"windows\":\"each-layer\"},"
              "{\"name\":\"dose\",\"kind\":\"scale\",\"values\":[0,0.5,4],\"edges\":\"marker-targets\",\"heads\":\"all\","
              "\"positions\":\"last\",\"windows\":[[2,2]]},"
              "{\"name\":\"forced\",\"kind\":\"set\",\"values\":[0,1],\"edges\":\"marker-targets\",\"heads\":\"all\","
              "\"positions\":\"last\",\"windows\":\"each-layer\"}]}");
    free(json);
    ks_config_free(c);
}

/* What may differ between two equal runs is not in the canonical JSON. */
static void canonical(void **state)
{
    (void)state;
    ks_config *a = NULL, *b = NULL;
    assert_int_equal(parse(&a, "run", "--model ../models/box --heads 3,0 --kind scale=2,0.5"), KS_OK);
    assert_int_equal(
        parse(&b, "run",
              "--threads 2 --memory 1G --backend cpu --output o.h5 --force --quiet --corpus x --model ../models/../models/box/ "
              "--scan-layers --kind scale=2.0,0.5 --heads 0,3"),
        KS_OK);
    char *ja = ks_config_json(a), *jb = ks_config_json(b);
    assert_string_equal(ja, jb);
    free(ja);
    free(jb);
    ks_config_free(a);
    ks_config_free(b);
}

static void shipped_files(void **state)
{
    (void)state;
    DIR *d = opendir("../config");
    assert_non_null(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (!strstr(e->d_name, ".json")) continue;
        char path[300];
        snprintf(path, sizeof path, "../config/%s", e->d_name);
        ks_config *c = NULL;
        if (ks_config_load(&c, path)) fail_msg("%s", ks_error_text());
        assert_int_equal(access(c->corpus, R_OK), 0);
        for (size_t i = 0; i < c->n_models; i++)
            if (c->models[i].path) assert_int_equal(access(c->models[i].path, R_OK), 0);
        ks_config_free(c);
        n++;
    }
    closedir(d);
    assert_true(n >= 9);
}

static void defaults(void **state)
{
    (void)state;
    ks_config *c = NULL;
    assert_int_equal(parse(&c, "run", "--model Org/m"), KS_OK);
    assert_string_equal(c->models[0].id, "Org/m");
    assert_string_equal(c->models[0].revision, "main");
    assert_string_equal(c->output, "results.h5");
    assert_true(!c->output_json && !c->corpus && !c->n_groups && !c->n_samples && c->floor && !c->save_logits);
    assert_int_equal(c->ranks, 1);
    assert_int_equal(c->n_sweeps, 1);
    assert_string_equal(c->sweeps[0].name, "layers");
    ks_config_free(c);
    assert_int_equal(load(&c, "{}"), KS_OK); /* models may come from the command line */
    assert_int_equal(c->n_sweeps, 1);
    ks_config_free(c);
    assert_int_equal(parse(&c, "run", "--help --nonsense"), KS_OK);
    assert_true(c->help);
    ks_config_free(c);
}

static void options_override(void **state)
{
    (void)state;
    ks_config *c = NULL;
    const char *text =
        "{\"models\": [{\"id\": \"a/b\"}], \"groups\": [\"g\"], \"floor\": true, \"threads\": 2, \"memory\": 1024, \"sweeps\": ["
        "{\"name\": \"one\", \"kind\": \"scale\", \"values\": [2]}, {\"name\": \"two\", \"heads\": [1]}]}";
    assert_int_equal(load(&c, text), KS_OK);
    ks_config_free(c);

    /* Without scan options the file's sweeps stay, and the others change each of them. */
    assert_int_equal(parse(&c, "run", "@ --all-edges --kind=set=0,0.25 --heads each --positions all --revision r1 --floor off"), KS_OK);
    assert_int_equal(c->n_sweeps, 2);
    for (int i = 0; i < 2; i++) {
        const ks_sweep *s = &c->sweeps[i];
        assert_true(s->kind == KS_SET && s->n_values == 2 && s->values[1] == 0.25 && s->edges == KS_EDGES_ALL_MARKER);
        assert_true(s->heads == KS_HEADS_EACH && s->n_heads == 0 && s->positions == KS_POSITIONS_ALL);
    }
    assert_string_equal(c->models[0].revision, "r1");
    assert_string_equal(c->groups[0], "g");
    assert_true(!c->floor && c->threads == 2 && c->memory_bytes == 1024);
    ks_config_free(c);

    /* Scan options replace the file's sweeps; each is one. */
    assert_int_equal(parse(&c, "plan",
                           "--scan-layers --layer-start 1 --layer-end 2 --scan-windows --window-center 3 --slide-window 2 --all-windows @ "
                           "--groups x,y --samples s1,s2 --model c/d --model ../models/box --ranks 4 --json --threads 0 --memory 1.5K "
                           "--include-baselines --special-tokens none --marker span --precision fast --backend cuda --save-logits --resume "
                           "--output out/t.json --corpus q.json --verbose"),
                     KS_OK);
    static const char *const names[] = {"layers", "window", "windows", "slide", "triangle"};
    assert_int_equal(c->n_sweeps, 5);
    for (size_t i = 0; i < 5; i++) assert_string_equal(c->sweeps[i].name, names[i]);
    assert_true(c->sweeps[1].list[0].a == 1 && c->sweeps[1].list[0].b == 2);
    assert_true(c->sweeps[2].center == 3 && c->sweeps[2].max_radius == 5 && c->sweeps[3].slide == 2);
    assert_int_equal(c->n_models, 2);
    assert_string_equal(c->models[1].path, "../models/box");
    assert_string_equal(c->models[1].name, "box");
    assert_int_equal(c->n_groups, 2);
    assert_int_equal(c->n_samples, 2);
    assert_true(c->ranks == 4 && c->json && c->threads == 0 && c->memory_bytes == 1536 && c->include_baselines && c->resume && !c->force);
    assert_true(c->special_tokens == KS_SPECIAL_NONE && c->marker == KS_MARKER_SPAN && c->precision == KS_PRECISION_FAST);
    assert_true(c->backend == KS_BACKEND_CUDA && c->save_logits && c->verbosity == 1);
    assert_string_equal(c->output, "out/t.h5");
    assert_string_equal(c->output_json, "out/t.json");
    assert_string_equal(c->corpus, "q.json");
    ks_config_free(c);

    assert_int_equal(parse(&c, "tokens", "--model ../models/box/. --texts t.jsonl --layer 4"), KS_OK);
    assert_string_equal(c->models[0].name, "box");
    assert_string_equal(c->texts, "t.jsonl");
    assert_true(c->sweeps[0].list[0].a == 4 && c->sweeps[0].list[0].b == 4);
    ks_config_free(c);
}

static const struct {
    const char *text, *says;
} wrong_files[] = {
    {"{\"model\": []}", "unknown key \"model\"; did you mean \"models\"?"},
    {"{\"models\": [{\"paht\": \"x\"}]}", "models[0]: unknown key \"paht\"; did you mean \"path\"?"},
    {"{\"models\": []}", "\"models\" is empty"},
    {"{\"models\": {}}", "\"models\" must be an array, found an object"},
    {"{\"models\": [\"x\"]}", "models[0]: expected an object, found a string"},
    {"{\"models\": [{}]}", "neither"},
    {"{\"models\": [{\"id\": \"a/b\", \"path\": \"c\"}]}", "both"},
    {"{\"models\": [{\"path\": \"c\", \"revision\": \"x\"}]}", "\"revision\" belongs to an \"id\""},
    {"{\"models\": [{\"path\": \"\"}]}", "\"path\" is empty"},
    {"{\"models\": [{\"id\": \"../x\"}]}", "a model id is"},
    {"{\"models\": [{\"id\": \"a/b/c\"}]}", "a model id is"},
    {"{\"models\": [{\"id\": \"a/b\", \"name\": \"x/y\"}]}", "a model's name may hold"},
    {"{\"models\": [{\"id\": \"a/b\"}, {\"id\": \"c/b\"}]}", "two models have the name \"b\""},
    {"{\"groups\": \"a\"}", "\"groups\" must be an array, found a string"},
    {"{\"groups\": []}", "\"groups\" is empty"},
    {"{\"groups\": [\"\"]}", "\"groups\"[0] must be a string that is not empty"},
    {"{\"groups\": [\"a\", 1]}", "\"groups\"[1] must be a string"},
    {"{\"groups\": [\"a\", \"a\"]}", "\"groups\" holds \"a\" twice"},
    {"{\"marker\": \"first\"}", "\"marker\": must be one of first-token, span, found \"first\""},
    {"{\"precision\": \"ful\"}", "did you mean \"full\"?"},
    {"{\"precision\": 1}", "\"precision\" must be a string, found a number"},
    {"{\"floor\": \"on\"}", "\"floor\" must be true or false, found a string"},
    {"{\"threads\": -1}", "\"threads\" must be a whole number"},
    {"{\"memory\": \"2X\"}", "\"memory\": must be bytes"},
    {"{\"output\": \"\"}", "\"output\" is empty"},
    {"{\"sweeps\": []}", "\"sweeps\" is empty"},
    {"{\"sweeps\": [{\"window\": 1}]}", "sweeps[0]: unknown key \"window\"; did you mean \"windows\"?"},
    {"{\"sweeps\": [{\"name\": \"a\"}, {\"name\": \"a\"}]}", "two sweeps have the name \"a\""},
    {"{\"sweeps\": [{}, {}]}", "two sweeps have the name \"layers\""},
    {"{\"sweeps\": [{\"name\": \"a b\"}]}", "a sweep's name may hold"},
    {"{\"sweeps\": [{\"windows\": \"each\"}]}", "\"windows\": must be one of each-layer, all"},
    {"{\"sweeps\": [{\"windows\": 3}]}", "found a number"},
    {"{\"sweeps\": [{\"windows\": []}]}", "\"windows\" is empty"},
    {"{\"sweeps\": [{\"windows\": [[1]]}]}", "a window is [first layer, last layer]"},
    {"{\"sweeps\": [{\"windows\": [[1, 2, 3]]}]}", "a window is"},
    {"{\"sweeps\": [{\"windows\": [[0, 1], [-1, 2]]}]}", "\"windows\"[1]: a window is"},
    {"{\"sweeps\": [{\"windows\": [[0.5, 2]]}]}", "a window is"},
    {"{\"sweeps\": [{\"windows\": [[3, 2]]}]}", "[3, 2] ends before it begins"},
    {"{\"sweeps\": [{\"windows\": {}}]}", "{\"slide\": W} or {\"center\": C"},
    {"{\"sweeps\": [{\"windows\": {\"slide\": 0}}]}", "\"slide\" must be a whole number from 1"},
    {"{\"sweeps\": [{\"windows\": {\"slide\": 2, \"center\": 1}}]}", "{\"slide\": W} or"},
    {"{\"sweeps\": [{\"windows\": {\"slide\": 2, \"max_radius\": 1}}]}", "{\"slide\": W} or"},
    {"{\"sweeps\": [{\"windows\": {\"centre\": 2}}]}", "did you mean \"center\"?"},
    {"{\"sweeps\": [{\"kind\": \"scale\"}]}", "the kind scale needs at least one value"},
    {"{\"sweeps\": [{\"values\": [1]}]}", "a knockout has no values"},
    {"{\"sweeps\": [{\"kind\": \"scale\", \"values\": [-1]}]}", "a factor of scale must be finite and at least 0, found -1"},
    {"{\"sweeps\": [{\"kind\": \"scale\", \"values\": [1e999]}]}", "must be finite"},
    {"{\"sweeps\": [{\"kind\": \"set\", \"values\": [0, 1.5]}]}", "a weight of set must be from 0 to 1, found 1.5"},
    {"{\"sweeps\": [{\"kind\": \"set\", \"values\": [0, 0]}]}", "the value 0 stands there twice"},
    {"{\"sweeps\": [{\"kind\": \"set\", \"values\": 0.5}]}", "\"values\" must be an array"},
    {"{\"sweeps\": [{\"heads\": \"some\"}]}", "\"heads\": must be one of all, each"},
    {"{\"sweeps\": [{\"heads\": []}]}", "\"heads\" is empty"},
    {"{\"sweeps\": [{\"heads\": [-1]}]}", "a head is a whole number"},
    {"{\"sweeps\": [{\"heads\": [1, 1]}]}", "the head 1 stands there twice"},
    {"[1]", "expected an object, found an array"},
    {"{\"models\": [", "not valid JSON"},
    {"", "not valid JSON"},
};

static const struct {
    const char *command, *line, *says;
} wrong_lines[] = {
    {"run", "", "no model"},
    {"run", "--modle x", "unknown option --modle; did you mean --model?"},
    {"run", "--model", "--model needs a value"},
    {"run", "--model=", "--model needs a value"},
    {"run", "--model --resume", "--model needs a value"},
    {"run", "--model a/b --model x/b", "two models have the name \"b\""},
    {"run", "--model a/../c", "no directory a/../c"},
    {"run", "--model ./nowhere", "no directory ./nowhere"},
    {"run", "--model a/b --resume=1", "--resume takes no value"},
    {"run", "--model a/b --ranks 2", "--ranks is no option of run (it belongs to: plan)"},
    {"plan", "--model a/b --texts x", "--texts is no option of plan"},
    {"run", "--model ../models/box --revision x", "--revision: no model is given by its id"},
    {"run", "--model a/b --groups a,,b", "--groups: an empty entry in \"a,,b\""},
    {"run", "--model a/b --groups a,a", "\"a\" stands there twice"},
    {"run", "--model a/b --layer x", "--layer: must be a whole number from 0"},
    {"run", "--model a/b --layer -1", "found \"-1\""},
    {"run", "--model a/b --layer 99999999999999999999", "--layer: must be a whole number"},
    {"run", "--model a/b --layer 1 --layer-end 3", "give one or the other"},
    {"run", "--model a/b --layer-start 1", "--layer-start needs --layer-end"},
    {"run", "--model a/b --layer-end 1", "--layer-end needs --layer-start"},
    {"run", "--model a/b --layer-start 3 --layer-end 1", "lies before"},
    {"run", "--model a/b --scan-windows", "--scan-windows needs --window-center"},
    {"run", "--model a/b --window-center 2", "--window-center needs --scan-windows"},
    {"run", "--model a/b --max-radius 2", "--max-radius needs --scan-windows"},
    {"run", "--model a/b --slide-window 0", "--slide-window: must be a whole number from 1"},
    {"run", "--model a/b --kind scale", "--kind: the kind scale needs at least one value"},
    {"run", "--model a/b --kind knockout=1", "a knockout has no values"},
    {"run", "--model a/b --kind scal=1", "did you mean \"scale\"?"},
    {"run", "--model a/b --kind scale=1,x", "must be numbers behind the =, found \"x\""},
    {"run", "--model a/b --kind scale=inf", "must be finite"},
    {"run", "--model a/b --kind scale=nan", "must be finite"},
    {"run", "--model a/b --kind set=2", "from 0 to 1, found 2"},
    {"run", "--model a/b --heads some", "--heads: must be all, each or heads"},
    {"run", "--model a/b --heads 1,,2", "an empty entry"},
    {"run", "--model a/b --heads 1,1", "stands there twice"},
    {"run", "--model a/b --heads 1,01", "the head 1 stands there twice"},
    {"run", "--model a/b --positions first", "--positions: must be one of last, all"},
    {"run", "--model a/b --floor maybe", "--floor: must be one of off, on"},
    {"run", "--model a/b --memory 0", "--memory: must be bytes"},
    {"run", "--model a/b --memory 2GB", "--memory: must be bytes"},
    {"run", "--model a/b --memory -2G", "--memory: must be bytes"},
    {"run", "--model a/b --threads 1.5", "--threads: must be a whole number"},
    {"run", "--model a/b --resume --force", "give one of them"},
    {"run", "--model a/b --quiet --verbose", "give one of them"},
    {"run", "nowhere.json", "nowhere.json: cannot be opened"},
    {"run", "a.json b.json", "two configurations: a.json and b.json"},
};

static void mistakes_are_named(void **state)
{
    (void)state;
    ks_config *c = NULL;
    for (size_t i = 0; i < sizeof wrong_files / sizeof *wrong_files; i++) {
        const int rc = load(&c, wrong_files[i].text);
        if (rc != KS_EUSAGE || !strstr(ks_error_text(), wrong_files[i].says) || !strstr(ks_error_text(), "c.json"))
            fail_msg("%s\n  expected: %s\n  found: %d %s", wrong_files[i].text, wrong_files[i].says, rc, ks_error_text());
    }
    for (size_t i = 0; i < sizeof wrong_lines / sizeof *wrong_lines; i++) {
        const int rc = parse(&c, wrong_lines[i].command, wrong_lines[i].line);
        const int expected = strstr(wrong_lines[i].says, "no directory") ? KS_EINPUT : KS_EUSAGE;
        if (rc != expected || !strstr(ks_error_text(), wrong_lines[i].says))
            fail_msg("%s\n  expected: %s\n  found: %d %s", wrong_lines[i].line, wrong_lines[i].says, rc, ks_error_text());
    }
    assert_null(c);
}

/* A file cut anywhere is refused with a message; one flipped byte is refused or still gives at least one sweep. */
static void damaged(void **state)
{
    (void)state;
    const char *text = "{\"models\":[{\"id\":\"a/b\"}],\"groups\":[\"g\"],\"memory\":\"2G\",\"sweeps\":[{\"name\":\"x\",\"kind\":\"set\","
                       "\"values\":[0,0.5],\"heads\":[1,2],\"windows\":[[0,4],[1,3]]},{\"windows\":{\"center\":1}}]}";
    char copy[512];
    ks_config *c = NULL;
    const size_t bytes = strlen(text);
    for (size_t n = 0; n < bytes; n++) {
        snprintf(copy, sizeof copy, "%.*s", (int)n, text);
        assert_int_equal(load(&c, copy), KS_EUSAGE);
        assert_true(strlen(ks_error_text()) > 8);
    }
    static const char bytes_to_try[] = "\"{}[]:,-9eE.x\\\xff";
    for (size_t at = 0; at < bytes; at += 5)
        for (const char *b = bytes_to_try; *b; b++) {
            memcpy(copy, text, bytes + 1);
            copy[at] = *b;
            const int rc = load(&c, copy);
            assert_true(rc == KS_EUSAGE || (rc == KS_OK && c->n_sweeps > 0));
            if (!rc) ks_config_free(c);
            c = NULL;
        }
}

static void check_windows(const ks_sweep *s, int32_t L, size_t n, const ks_window *expected)
{
    ks_window *w = NULL;
    size_t found = 0;
    if (ks_sweep_windows(s, L, &w, &found)) fail_msg("%s", ks_error_text());
    assert_int_equal(found, n);
    assert_memory_equal(w, expected, n * sizeof *w);
    free(w);
}

static void windows(void **state)
{
    (void)state;
    ks_window list[] = {{2, 3}, {0, 3}};
    ks_sweep s = {.name = (char[]){"t"}, .windows = KS_WINDOWS_EACH_LAYER};
    check_windows(&s, 3, 3, (ks_window[]){{0, 0}, {1, 1}, {2, 2}});
    s.windows = KS_WINDOWS_ALL;
    check_windows(&s, 3, 6, (ks_window[]){{0, 0}, {0, 1}, {0, 2}, {1, 1}, {1, 2}, {2, 2}});
    s.windows = KS_WINDOWS_SLIDE;
    s.slide = 3;
    check_windows(&s, 4, 2, (ks_window[]){{0, 2}, {1, 3}});
    check_windows(&s, 3, 1, (ks_window[]){{0, 2}});
    s.windows = KS_WINDOWS_AROUND;
    s.center = 1;
    s.max_radius = 3;
    check_windows(&s, 4, 4, (ks_window[]){{1, 1}, {0, 2}, {0, 3}, {0, 3}});
    s.windows = KS_WINDOWS_LIST;
    s.list = list;
    s.n_list = 2;
    check_windows(&s, 4, 2, list);

    ks_window *w = NULL;
    size_t n = 0;
    assert_int_equal(ks_sweep_windows(&s, 3, &w, &n), KS_EUSAGE);
    assert_non_null(strstr(ks_error_text(), "the window [2, 3] is beyond the model's 3 layers"));
    s.windows = KS_WINDOWS_SLIDE;
    assert_int_equal(ks_sweep_windows(&s, 2, &w, &n), KS_EUSAGE);
    assert_non_null(strstr(ks_error_text(), "a window of 3 layers is longer than the model's 2 layers"));
    s.windows = KS_WINDOWS_AROUND;
    assert_int_equal(ks_sweep_windows(&s, 1, &w, &n), KS_EUSAGE);
    assert_non_null(strstr(ks_error_text(), "the center layer 1 is beyond the model's 1 layers"));
    assert_null(w);

    s.heads = KS_HEADS_LIST;
    s.head_list = (int32_t[]){0, 4};
    s.n_heads = 2;
    assert_int_equal(ks_sweep_check_heads(&s, 5), KS_OK);
    assert_int_equal(ks_sweep_check_heads(&s, 4), KS_EUSAGE);
    assert_non_null(strstr(ks_error_text(), "head 4 is beyond the model's 4 heads"));
}

/* Every option is in the help, and every line fits a terminal of 132 columns. */
static void help(void **state)
{
    (void)state;
    static const char *const names[] = {"--model ",      "--corpus",        "--groups",       "--samples",     "--include-baselines",
                                        "--scan-layers", "--layer ",        "--layer-start",  "--layer-end",   "--scan-windows",
                                        "--max-radius",  "--window-center", "--slide-window", "--all-windows", "--all-edges",
                                        "--edges",       "--kind",          "--heads",        "--positions",   "--special-tokens",
                                        "--marker",      "--precision",     "--backend",      "--threads",     "--memory",
                                        "--output",      "--resume",        "--force",        "--save-logits", "--floor",
                                        "--verbose",     "--quiet",         "--ranks",        "--json",        "--texts",
                                        "--revision",    "--help",          "--version"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strstr(ks_options_help, names[i])) fail_msg("%s is not in the help", names[i]);
    for (const char *line = ks_options_help; *line; line += strcspn(line, "\n") + 1) assert_true(strcspn(line, "\n") <= 132);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_file), cmocka_unit_test(canonical),          cmocka_unit_test(shipped_files),
        cmocka_unit_test(defaults),  cmocka_unit_test(options_override),   cmocka_unit_test(windows),
        cmocka_unit_test(help),      cmocka_unit_test(mistakes_are_named), cmocka_unit_test(damaged),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
