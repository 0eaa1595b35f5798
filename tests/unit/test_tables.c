/* Tables, CSV and JSON against expected texts (fixtures/tables), and the reader against damaged files.
 * KS_UPDATE=1 writes the expected texts anew; look at what changed. */
#include "analysis/json.h"
#include "analysis/reader.h"
#include "analysis/table.h"
#include "analysis/tables.h"
#include "support/results_file.h"

#include "base/error.h"
#include "base/json.h"

#include <hdf5.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* HDF5 loses memory where it meets damage; that is not ours to mend. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5";
}

static char folder[] = "/tmp/kosweep-tables-XXXXXX";
static char path[128], broken[128];

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/r.h5", folder);
    snprintf(broken, sizeof broken, "%s/broken.h5", folder);
    return rf_write(path);
}

static int teardown(void **state)
{
    (void)state;
    char command[160];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

typedef int printer(FILE *out, const char *const *paths, size_t n, const ks_table_options *opt);

static char *printed(printer *print, const ks_table_options *o)
{
    char *text = NULL;
    size_t bytes = 0;
    const char *paths[] = {path};
    FILE *f = open_memstream(&text, &bytes);
    assert_non_null(f);
    const int rc = print(f, paths, 1, o);
    fclose(f);
    if (rc) fail_msg("%s", ks_error_text());
    return text;
}

static void same_as_file(const char *name, printer *print, const ks_table_options *o)
{
    char file[128], *expected = NULL, *found = printed(print, o);
    size_t bytes = 0;
    snprintf(file, sizeof file, "fixtures/tables/%s", name);
    if (getenv("KS_UPDATE")) {
        FILE *f = fopen(file, "w");
        assert_non_null(f);
        fputs(found, f);
        fclose(f);
    }
    if (ks_file_read(&expected, &bytes, file)) fail_msg("%s", ks_error_text());
    if (strcmp(found, expected)) fail_msg("%s differs; found:\n%s", file, found);
    free(expected);
    free(found);
}

static void test_expected_texts(void **state)
{
    (void)state;
    same_as_file("all.txt", ks_tables_print, &(ks_table_options){.model = "tiny"});
    same_as_file("models.txt", ks_tables_print, &(ks_table_options){.sweep = "layers"});
    same_as_file("window.txt", ks_tables_print,
                 &(ks_table_options){.model = "other", .has_window = true, .window_start = 2, .window_end = 2});
    same_as_file("baselines.txt", ks_tables_print, &(ks_table_options){.model = "other", .groups = "python_doctest,python_baseline"});
    same_as_file("positions.txt", ks_tables_print, &(ks_table_options){.sweep = "slide"});
    same_as_file("layers.md", ks_tables_print, &(ks_table_options){.model = "other", .format = KS_FORMAT_MARKDOWN});
    same_as_file("layers.csv", ks_tables_print, &(ks_table_options){.model = "other", .format = KS_FORMAT_CSV});
    same_as_file("layers.tex", ks_tables_print, &(ks_table_options){.model = "other", .format = KS_FORMAT_LATEX});
    same_as_file("asked.txt", ks_tables_print,
                 &(ks_table_options){.model = "tiny", .only = "cells,power,synergy,attention,pairs", .draws = 200});
    same_as_file("pairs.txt", ks_models_print, &(ks_table_options){.sweep = "layers", .only = "pairs"});
    same_as_file("cells.csv", ks_cells_csv_write, &(ks_table_options){.model = "tiny", .sweep = "shape", .groups = "rust_test"});
    same_as_file("experiment.json", ks_stats_json_write,
                 &(ks_table_options){.model = "tiny", .sweep = "layers", .has_window = true, .window_start = 1, .window_end = 1});
}

static double at(const cJSON *o, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    assert_non_null(v);
    assert_true(cJSON_IsNumber(v) || cJSON_IsNull(v));
    return cJSON_IsNull(v) ? (double)NAN : v->valuedouble;
}

/* The published keys, and numbers that agree with those put into the file. */
static void test_json(void **state)
{
    (void)state;
    char *text = printed(ks_stats_json_write, &(ks_table_options){.model = "tiny", .sweep = "layers"});
    cJSON *root = NULL;
    assert_int_equal(ks_json_parse(&root, text, strlen(text), "json"), 0);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "experiments");
    assert_int_equal(cJSON_GetArraySize(list), RF_L);
    const cJSON *e = cJSON_GetArrayItem(list, 0);
    static const char *const keys[] = {"model",
                                       "layer",
                                       "n_heads",
                                       "sample_results",
                                       "python_stats",
                                       "rust_stats",
                                       "welch_t_statistic",
                                       "welch_p_value",
                                       "significant_difference"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) assert_true(cJSON_HasObjectItem(e, keys[i]));
    static const char *const sample_keys[] = {"id",
                                              "language",
                                              "is_baseline",
                                              "kl_divergence",
                                              "marker_token_pos",
                                              "target_token_positions",
                                              "edges_knocked_out",
                                              "top_changed_tokens"};
    const cJSON *samples = cJSON_GetObjectItemCaseSensitive(e, "sample_results");
    assert_int_equal(cJSON_GetArraySize(samples), RF_S);
    for (int s = 0; s < RF_S; s++) {
        const cJSON *p = cJSON_GetArrayItem(samples, s);
        for (size_t i = 0; i < sizeof sample_keys / sizeof *sample_keys; i++) assert_true(cJSON_HasObjectItem(p, sample_keys[i]));
        assert_true(at(p, "kl_divergence") == rf_cell(RF_LAYERS, 0, &(ks_window){0, 0}, 0, (size_t)s).kl);
        assert_true(at(p, "marker_token_pos") == rf_samples()->v[s].T - 1);
        const cJSON *token = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(p, "top_changed_tokens"), 0);
        assert_true(fabs(at(token, "diff") - (at(token, "ablated_prob") - at(token, "baseline_prob"))) < 1e-15);
        assert_true(cJSON_HasObjectItem(token, "token"));
    }
    const cJSON *stats = cJSON_GetObjectItemCaseSensitive(e, "python_stats");
    assert_true(at(stats, "n_samples") == 3 && at(stats, "max_kl") == 2.5e-4 && at(stats, "mean_kl") > 0 && at(stats, "std_kl") > 0);
    /* A value that is not finite is null, never a number. */
    const cJSON *broken_sample = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(list, 2), "sample_results"), 5);
    assert_true(isnan(at(broken_sample, "kl_divergence")));
    cJSON_Delete(root);
    free(text);
}

static void test_reader(void **state)
{
    (void)state;
    ks_study *study = NULL;
    assert_int_equal(ks_study_read(&study, path), 0);
    assert_int_equal(study->n_models, 2);
    const ks_study_model *m = &study->models[0];
    assert_string_equal(m->name, "tiny");
    assert_string_equal(m->id, "someone/tiny");
    assert_int_equal(m->n_sweeps, RF_SWEEPS);
    assert_string_equal(m->sweeps[RF_SHAPE].name, "shape"); /* in order of creation */
    const ks_study_sweep *s = &m->sweeps[RF_SHAPE];
    ks_window w[16];
    rf_windows(RF_SHAPE, w);
    assert_true(s->F == 2 && s->W == 2 && s->H == RF_H && s->values[1] == 4 && s->kl_positions);
    for (size_t f = 0; f < s->F; f++)
        for (size_t i = 0; i < s->W; i++)
            for (size_t h = 0; h < s->H; h++)
                for (size_t k = 0; k < m->S; k++) assert_true(s->kl[ks_study_at(m, s, f, i, h, k)] == rf_cell(RF_SHAPE, f, &w[i], h, k).kl);
    assert_string_equal(ks_study_token(m, 7), "\n");
    assert_string_equal(ks_study_token(m, 8), "\xEF\xBF\xBD"); /* half a character */
    assert_null(ks_study_token(m, 999));
    assert_null(ks_study_token(&study->models[1], 7));
    ks_study_free(study);
}

static void test_wrong_choice(void **state)
{
    (void)state;
    FILE *f = fopen("/dev/null", "w");
    const char *paths[] = {path};
    assert_int_equal(ks_tables_print(f, paths, 1, &(ks_table_options){.model = "tini"}), KS_EUSAGE);
    assert_non_null(strstr(ks_error_text(), "there is tiny, other"));
    assert_int_equal(ks_tables_print(f, paths, 1, &(ks_table_options){.sweep = "layer"}), KS_EUSAGE);
    assert_non_null(strstr(ks_error_text(), "layers"));
    assert_int_equal(ks_tables_print(f, paths, 1, &(ks_table_options){.groups = "python_doctest,rust"}), KS_EUSAGE);
    assert_int_equal(ks_tables_print(f, paths, 1, &(ks_table_options){.groups = "rust_test,rust_test"}), KS_EUSAGE);
    assert_int_equal(
        ks_tables_print(f, paths, 1, &(ks_table_options){.sweep = "layers", .has_window = true, .window_start = 3, .window_end = 9}),
        KS_EUSAGE);
    fclose(f);
}

/* ---- damaged and hostile files ---- */

static void expect_refusal(const char *words)
{
    ks_study *study = NULL;
    if (ks_study_read(&study, broken) != KS_EINPUT) fail_msg("not refused: %s", words);
    if (!strstr(ks_error_text(), words)) fail_msg("\"%s\" does not say \"%s\"", ks_error_text(), words);
    assert_non_null(strstr(ks_error_text(), broken));
}

/* Copies the good file and lets python-free HDF5 calls change one thing. */
static hid_t damage(void)
{
    char command[400];
    snprintf(command, sizeof command, "cp '%s' '%s'", path, broken);
    assert_int_equal(system(command), 0);
    const hid_t f = H5Fopen(broken, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(f >= 0);
    return f;
}

static void replace(hid_t f, const char *name, hid_t type, int rank, const hsize_t *dims, const void *data)
{
    H5Ldelete(f, name, H5P_DEFAULT);
    const hid_t space = H5Screate_simple(rank, dims, NULL), d = H5Dcreate2(f, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(d >= 0);
    if (data) assert_true(H5Dwrite(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(d);
    H5Sclose(space);
}

static void test_damaged(void **state)
{
    (void)state;
    static const char kl[] = "/models/tiny/sweeps/layers/kl", status[] = "/models/tiny/sweeps/layers/status";
    double zeros[64] = {0};
    unsigned char nines[64];
    memset(nines, 9, sizeof nines);
    const int32_t far[RF_L] = {0, 1, 2, 99};

    unlink(broken);
    expect_refusal("cannot be opened");
    FILE *f = fopen(broken, "w");
    fputs("not this", f);
    fclose(f);
    expect_refusal("not an HDF5 file");

    hid_t h = damage();
    H5Adelete(h, "schema");
    H5Fclose(h);
    expect_refusal("schema");

    h = damage();
    H5Ldelete(h, kl, H5P_DEFAULT);
    H5Fclose(h);
    expect_refusal("/kl is missing");

    h = damage();
    replace(h, kl, H5T_NATIVE_DOUBLE, 1, (hsize_t[]){28}, zeros);
    H5Fclose(h);
    expect_refusal("must have 2 axes, found 1");

    h = damage();
    replace(h, kl, H5T_NATIVE_DOUBLE, 2, (hsize_t[]){4, 6}, zeros);
    H5Fclose(h);
    expect_refusal("must have length 7, found 6");

    h = damage();
    replace(h, kl, H5T_NATIVE_DOUBLE, 2, (hsize_t[]){4, 7}, NULL);
    H5Fclose(h);
    expect_refusal("no data behind its shape");

    h = damage();
    const hid_t fixed = H5Tcopy(H5T_C_S1);
    H5Tset_size(fixed, 8);
    replace(h, kl, fixed, 2, (hsize_t[]){4, 7}, zeros);
    H5Tclose(fixed);
    H5Fclose(h);
    expect_refusal("must hold numbers");

    h = damage();
    replace(h, status, H5T_NATIVE_UINT8, 2, (hsize_t[]){4, 7}, nines);
    H5Fclose(h);
    expect_refusal("status[0] is 9");

    h = damage();
    replace(h, "/models/tiny/sweeps/layers/layer_end", H5T_NATIVE_INT32, 1, (hsize_t[]){4}, far);
    H5Fclose(h);
    expect_refusal("layer_end[3] is 99");

    h = damage();
    H5Ldelete(h, "/models/tiny/samples/id", H5P_DEFAULT);
    H5Gclose(H5Gcreate2(h, "/models/tiny/samples/id", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Fclose(h);
    expect_refusal("is not a data set");

    h = damage();
    replace(h, "/models/tiny/samples/id", H5T_NATIVE_INT32, 1, (hsize_t[]){(hsize_t)1 << 40}, NULL);
    H5Fclose(h);
    expect_refusal("length");
}

/* Files cut anywhere, and files with a few bytes changed: an error or a reading, never a crash. */
static void test_hostile(void **state)
{
    (void)state;
    char *good = NULL;
    size_t bytes = 0, refused = 0;
    assert_int_equal(ks_file_read(&good, &bytes, path), 0);
    uint64_t seed = 1;
    for (int n = 0; n < 120; n++) {
        char *bad = malloc(bytes);
        assert_non_null(bad);
        memcpy(bad, good, bytes);
        size_t length = bytes;
        if (n < 30) length = bytes * (size_t)n / 30;
        for (int k = 0; n >= 30 && k < 8; k++) {
            seed = seed * 6364136223846793005U + 1442695040888963407U;
            bad[(seed >> 20) % (n < 75 ? 6000 : bytes)] = (char)(seed >> 56);
        }
        FILE *f = fopen(broken, "w");
        assert_non_null(f);
        assert_int_equal(fwrite(bad, 1, length, f), length);
        fclose(f);
        free(bad);
        int rc = ks_study_probe(broken, false);
        if (!rc) {
            ks_study *study = NULL;
            rc = ks_study_read(&study, broken);
            if (!rc) ks_study_free(study);
        }
        assert_true(rc == KS_OK || rc == KS_EINPUT);
        refused += rc == KS_EINPUT;
    }
    print_message("%zu of 120 refused\n", refused);
    assert_true(refused >= 30);
    free(good);
}

/* ---- numbers that tables cannot have ---- */

/* Tables of the broken file; every kind of table is asked for. */
static char *all_tables(const char *sweep, const char *groups)
{
    char *text = NULL;
    size_t bytes = 0;
    const char *paths[] = {broken};
    FILE *f = open_memstream(&text, &bytes);
    assert_non_null(f);
    const ks_table_options o = {.model = "tiny", .sweep = sweep, .groups = groups, .only = "all", .draws = 100};
    const int rc = ks_tables_print(f, paths, 1, &o);
    fclose(f);
    if (rc) fail_msg("%s", ks_error_text());
    return text;
}

static void says(const char *text, const char *words)
{
    if (!strstr(text, words)) fail_msg("no \"%s\" in\n%s", words, text);
}

static void fill(hid_t f, const char *name, double x)
{
    double v[RF_L * RF_S];
    for (size_t i = 0; i < RF_L * RF_S; i++) v[i] = x;
    replace(f, name, H5T_NATIVE_DOUBLE, 2, (hsize_t[]){RF_L, RF_S}, v);
}

/* A group of one, effects that are all zero, a sweep that has hardly begun: words, no number that means nothing. */
static void test_awkward(void **state)
{
    (void)state;
    static const char kl[] = "/models/tiny/sweeps/layers/kl", status[] = "/models/tiny/sweeps/layers/status";
    hid_t h = damage();
    H5Fclose(h);
    char *text = all_tables("layers", "rust_test,python_baseline");
    says(text, "none: a group has fewer than two values");
    says(text, "python_baseline: no interval of the mean: a group has fewer than two values");
    says(text, "no answer: a group has fewer than two values");
    assert_null(strstr(text, "nan"));
    free(text);

    h = damage();
    fill(h, kl, 0);
    H5Fclose(h);
    text = all_tables("layers", NULL);
    says(text, "none: no variance in either group");
    says(text, "none: a mean is zero");
    says(text, "log KL: exact zeros have no logarithm and are left out: 3 of A, 3 of B");
    says(text, "no correlation: ");
    assert_null(strstr(text, "nan"));
    free(text);

    h = damage();
    fill(h, kl, NAN);
    unsigned char none[RF_L * RF_S] = {0};
    replace(h, status, H5T_NATIVE_UINT8, 2, (hsize_t[]){RF_L, RF_S}, none);
    H5Fclose(h);
    text = all_tables("layers", NULL);
    says(text, "values are missing (not computed: 28, not finite: 0)");
    says(text, "0 of 4 tests");
    says(text, "no choice: ");
    assert_null(strstr(text, "nan"));
    free(text);

    text = printed(ks_tables_print, &(ks_table_options){.model = "tiny", .sweep = "layers"});
    says(text, "protocol: knockout of marker-targets, marker rule not in the file, special tokens not in the file; precision full");
    says(text, "samples: python_doctest 3, rust_test 3, python_baseline 1; mean floor: ");
    free(text);
}

/* A sample and its twin are known by name. */
static void test_twins(void **state)
{
    (void)state;
    const char *ids[RF_S] = {"py_simple_add", "py_long_name", "py_default", "r", "r_baseline", "rust_vec", "py_simple_add_baseline"};
    hid_t h = damage();
    const hid_t text_type = H5Tcopy(H5T_C_S1);
    H5Tset_size(text_type, H5T_VARIABLE);
    H5Tset_cset(text_type, H5T_CSET_UTF8);
    replace(h, "/models/tiny/samples/id", text_type, 1, (hsize_t[]){RF_S}, ids);
    H5Tclose(text_type);
    H5Fclose(h);
    ks_study *study = NULL;
    ks_table_list list = {0};
    assert_int_equal(ks_study_read(&study, broken), 0);
    const ks_table_options o = {.model = "tiny", .sweep = "triangle", .only = "pairs", .has_window = true};
    if (ks_tables_build(&list, &study, 1, &o)) fail_msg("%s", ks_error_text());
    assert_int_equal(list.n, 1);
    const ks_table *t = &list.v[0];
    assert_int_equal(t->n_cells, 2 * t->n_columns);
    for (size_t i = 0; i < 2; i++) { /* one pair each: means, but no test */
        const size_t s = i ? 3 : 0, twin = i ? 4 : 6;
        char a[32], b[32];
        const ks_window first = {0, 0};
        const double kl[2] = {rf_cell(RF_TRIANGLE, 0, &first, 0, s).kl, rf_cell(RF_TRIANGLE, 0, &first, 0, twin).kl};
        snprintf(a, sizeof a, "%.4e", kl[0]);
        snprintf(b, sizeof b, kl[1] > 0 ? "%.4e" : "0", kl[1]);
        char *const *row = t->cells + i * t->n_columns;
        assert_string_equal(row[0], "sample");
        assert_string_equal(row[1], "its twin");
        assert_string_equal(row[3], "1");
        assert_string_equal(row[4], a);
        assert_string_equal(row[5], b);
        assert_string_equal(row[9], "-");
    }
    ks_table_list_free(&list);
    ks_study_free(study);
}

/* Every table of every sweep says n, unit, protocol and floor; the names are those of the list. */
static void test_basis(void **state)
{
    (void)state;
    ks_study *study = NULL;
    ks_table_list list = {0};
    assert_int_equal(ks_study_read(&study, path), 0);
    if (ks_tables_build(&list, &study, 1, &(ks_table_options){.only = "all", .draws = 100})) fail_msg("%s", ks_error_text());
    bool seen[64] = {false};
    for (size_t i = 0; i < list.n; i++) {
        const ks_table *t = &list.v[i];
        size_t k = 0;
        while (ks_table_kinds[k].name && strcmp(ks_table_kinds[k].name, t->name) != 0) k++;
        assert_non_null(ks_table_kinds[k].name);
        seen[k] = true;
        for (size_t a = 0; a < t->n_columns; a++) /* programs find columns by name */
            for (size_t b = 0; b < a; b++)
                if (!strcmp(t->columns[a], t->columns[b])) fail_msg("\"%s\" has two columns \"%s\"", t->title, t->columns[a]);
        bool said[2] = {false, false};
        for (size_t n = 0; n < t->n_notes; n++) {
            said[0] |= strstr(t->notes[n], "samples: python_doctest 3") && strstr(t->notes[n], "floor");
            said[1] |= strstr(t->notes[n], "protocol: ") && strstr(t->notes[n], "unit: nats");
        }
        if (!said[0] || !said[1]) fail_msg("\"%s\" does not say what it rests on", t->title);
    }
    for (size_t k = 0; ks_table_kinds[k].name; k++)
        if (!seen[k]) fail_msg("no table of the kind %s", ks_table_kinds[k].name);
    ks_table_list_free(&list);
    assert_int_equal(ks_tables_build(&list, &study, 1, &(ks_table_options){.only = "scan,test"}), KS_EUSAGE);
    says(ks_error_text(), "did you mean \"tests\"");
    assert_int_equal(ks_tables_build(&list, &study, 1, &(ks_table_options){.sweep = "dose", .only = "synergy"}), KS_EUSAGE);
    ks_table_list_free(&list);
    ks_study_free(study);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expected_texts), cmocka_unit_test(test_json),    cmocka_unit_test(test_reader),
        cmocka_unit_test(test_wrong_choice),   cmocka_unit_test(test_damaged), cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_awkward),        cmocka_unit_test(test_twins),   cmocka_unit_test(test_basis),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
