/* The result file: what was put is there, under the published names and axes, and nothing is lost when the disk fails. */
#include "support/results_file.h"

#include "base/error.h"
#include "base/log.h"

#include <hdf5.h>
#include <hdf5_hl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/kosweep-results-XXXXXX";
static char path[128], other[128];

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/r.h5", folder);
    snprintf(other, sizeof other, "%s/other.h5", folder);
    return rf_write(path);
}

static int teardown(void **state)
{
    (void)state;
    char command[160];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static off_t size_of(const char *p)
{
    struct stat st;
    return stat(p, &st) ? -1 : st.st_size;
}

/* Reads a whole data set and checks its axes' names and lengths ("window:4 sample:7"). Caller frees. */
static void *read_all(const char *name, hid_t type, size_t bytes, const char *axes)
{
    const hid_t f = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), d = H5Dopen2(f, name, H5P_DEFAULT), space = H5Dget_space(d);
    assert_true(f >= 0 && d >= 0 && space >= 0);
    hsize_t dims[8];
    const int rank = H5Sget_simple_extent_dims(space, dims, NULL);
    char found[256] = "";
    for (int i = 0; H5DSis_scale(d) <= 0 && i < rank; i++) {
        char label[32];
        assert_true(H5DSget_label(d, (unsigned)i, label, sizeof label) > 0);
        assert_int_equal(H5DSget_num_scales(d, (unsigned)i), 1);
        snprintf(found + strlen(found), sizeof found - strlen(found), "%s%s:%d", i ? " " : "", label, (int)dims[i]);
    }
    assert_string_equal(found, axes);
    void *v = malloc((size_t)H5Sget_simple_extent_npoints(space) * bytes);
    assert_non_null(v);
    assert_true(H5Dread(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, v) >= 0);
    H5Sclose(space);
    H5Dclose(d);
    H5Fclose(f);
    return v;
}

static void same(double found, double expected)
{
    if (isnan(expected) ? !isnan(found) : !(found == expected)) fail_msg("found %.17g, expected %.17g", found, expected);
}

static void test_cells(void **state)
{
    (void)state;
    double *kl = read_all("/models/tiny/sweeps/layers/kl", H5T_NATIVE_DOUBLE, 8, "window:4 sample:7");
    unsigned char *status = read_all("/models/tiny/sweeps/layers/status", H5T_NATIVE_UINT8, 1, "window:4 sample:7");
    ks_window w[16];
    assert_int_equal(rf_windows(RF_LAYERS, w), 4);
    for (size_t i = 0; i < 4; i++)
        for (size_t s = 0; s < RF_S; s++) {
            const ks_cell c = rf_cell(RF_LAYERS, 0, &w[i], 0, s);
            same(kl[i * RF_S + s], c.kl);
            assert_int_equal(status[i * RF_S + s], c.status);
        }
    assert_true(isnan(kl[3 * RF_S + 2]) && status[3 * RF_S + 2] == KS_CELL_NOT_COMPUTED); /* never put */
    assert_true(isnan(kl[2 * RF_S + 5]) && status[2 * RF_S + 5] == KS_CELL_NOT_FINITE);
    assert_true(kl[6] == 0 && status[6] == KS_CELL_NOTHING);
    free(status);
    free(kl);
}

static void test_every_axis(void **state)
{
    (void)state;
#define AXES "factor:2 window:2 head:3 sample:7"
    double *kl = read_all("/models/tiny/sweeps/shape/kl", H5T_NATIVE_DOUBLE, 8, AXES);
    int32_t *ids = read_all("/models/tiny/sweeps/shape/top_ids", H5T_NATIVE_INT32, 4, AXES " k:5");
    double *at = read_all("/models/tiny/sweeps/shape/kl_positions", H5T_NATIVE_DOUBLE, 8, AXES " token:6");
    double *next = read_all("/models/tiny/sweeps/shape/p_next_positions", H5T_NATIVE_DOUBLE, 8, AXES " token:6");
    double *factor = read_all("/models/tiny/sweeps/shape/factor", H5T_NATIVE_DOUBLE, 8, "");
    assert_true(factor[0] == 0.25 && factor[1] == 4);
    ks_window w[16];
    rf_windows(RF_SHAPE, w);
    size_t i = 0;
    for (size_t f = 0; f < 2; f++)
        for (size_t k = 0; k < 2; k++)
            for (size_t h = 0; h < 3; h++)
                for (size_t s = 0; s < RF_S; s++, i++) {
                    const ks_cell c = rf_cell(RF_SHAPE, f, &w[k], h, s);
                    same(kl[i], c.kl);
                    for (int n = 0; n < KS_TOP_K; n++) assert_int_equal(ids[i * KS_TOP_K + (size_t)n], c.top_ids[n]);
                    for (int32_t t = 0; t < RF_T_MAX; t++) {
                        const bool in = t < rf_samples()->v[s].T;
                        const ks_position_cell p = rf_position(RF_SHAPE, f, &w[k], h, s, t);
                        same(at[i * RF_T_MAX + (size_t)t], in ? p.kl : (double)NAN);
                        same(next[i * RF_T_MAX + (size_t)t], in ? p.p_next : (double)NAN);
                    }
                }
    free(factor);
    free(next);
    free(at);
    free(ids);
    free(kl);
}

static void test_baseline(void **state)
{
    (void)state;
    double *floors = read_all("/models/tiny/baseline/floor", H5T_NATIVE_DOUBLE, 8, "sample:7");
    float *logits = read_all("/models/tiny/baseline/logits", H5T_NATIVE_FLOAT, 4, "sample:7 vocab:50");
    float *by_head = read_all("/models/tiny/attention/by_head", H5T_NATIVE_FLOAT, 4, "layer:4 head:3 sample:7");
    double *strength = read_all("/models/tiny/attention/strength", H5T_NATIVE_DOUBLE, 8, "layer:4 sample:7");
    int32_t *token_ids = read_all("/models/tiny/samples/token_ids", H5T_NATIVE_INT32, 4, "sample:7 token:6");
    int32_t *edges = read_all("/models/tiny/sweeps/layers/edges_removed", H5T_NATIVE_INT32, 4, "sample:7");
    assert_true(floors[3] == rf_baseline(3).floor);
    assert_true(logits[2 * RF_V + 9] == 7.0F);
    assert_true(by_head[(3 * RF_H + 2) * RF_S + 1] == 0.125F * 3 / 5);
    assert_true(fabs(strength[1 * RF_S + 0] - 0.125) < 1e-8);
    assert_true(token_ids[1 * RF_T_MAX + 5] == 15 && token_ids[2 * RF_T_MAX + 3] == -1);
    assert_true(edges[0] == 2 && edges[6] == 0);
    free(edges);
    free(token_ids);
    free(strength);
    free(by_head);
    free(logits);
    free(floors);
}

static void test_foreign_reader(void **state)
{
    (void)state;
    if (system("/usr/bin/python3 -c 'import h5py, numpy' 2>/dev/null")) skip();
    char command[256];
    snprintf(command, sizeof command, "/usr/bin/python3 cli/check_results.py '%s'", path);
    assert_int_equal(system(command), 0);
}

/* Two files of equal runs are equal. */
static void test_same_bytes(void **state)
{
    (void)state;
    sleep(1); /* a time stamp inside would show */
    assert_int_equal(rf_write(other), 0);
    char command[400];
    snprintf(command, sizeof command, "cmp '%s' '%s'", path, other);
    assert_int_equal(system(command), 0);
}

static void test_existing_file(void **state)
{
    (void)state;
    ks_results *r = NULL;
    const off_t before = size_of(path);
    assert_int_equal(ks_results_create(&r, path, KS_RESULTS_NEW, "{}", ""), KS_EUSAGE);
    assert_non_null(strstr(ks_error_text(), "exists; --resume goes on with it, --force overwrites it, --output names another"));
    /* With force the old file stays until there is a new one. */
    assert_int_equal(ks_results_create(&r, path, KS_RESULTS_FORCE, "{}", ""), KS_OK);
    ks_results_abandon(r);
    assert_int_equal(size_of(path), before);
}

static void test_bad_places(void **state)
{
    (void)state;
    ks_results *r = NULL;
    char p[256];
    snprintf(p, sizeof p, "%s/none/r.h5", folder);
    assert_int_equal(ks_results_create(&r, p, KS_RESULTS_NEW, "{}", ""), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "No such file"));
    snprintf(p, sizeof p, "%s/r.h5/r.h5", folder);
    assert_int_equal(ks_results_create(&r, p, KS_RESULTS_NEW, "{}", ""), KS_EMACHINE);
    assert_int_equal(ks_results_create(&r, "/dev/null", KS_RESULTS_FORCE, "{}", ""), KS_EUSAGE);
    assert_int_equal(ks_results_create(&r, folder, KS_RESULTS_FORCE, "{}", ""), KS_EUSAGE);
    assert_int_equal(ks_results_create(&r, "/proc/r.h5", KS_RESULTS_NEW, "{}", ""), KS_EMACHINE);
}

static void test_abandon(void **state)
{
    (void)state;
    ks_results *r = NULL;
    unlink(other);
    assert_int_equal(ks_results_create(&r, other, KS_RESULTS_NEW, "{}", ""), KS_OK);
    assert_int_equal(size_of(other), -1);
    assert_int_equal(rf_fill(r), KS_OK);
    assert_int_equal(ks_results_publish(r), KS_OK);
    ks_results_abandon(r);
    assert_true(H5Fis_hdf5(other) > 0); /* what was finished stays */
    unlink(other);
    assert_int_equal(ks_results_create(&r, other, KS_RESULTS_NEW, "{}", ""), KS_OK);
    assert_int_equal(rf_fill(r), KS_OK);
    ks_results_abandon(r);
    assert_int_equal(size_of(other), -1);
    ks_results_abandon(NULL);
}

/* A full disk: one message, the former file untouched, no rubbish beside it, and the writer goes on when there is room again. */
static void test_disk_full(void **state)
{
    (void)state;
    ks_results *r = NULL;
    struct rlimit old, small;
    char tmp[160];
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    const off_t before = size_of(path);
    assert_int_equal(ks_results_create(&r, path, KS_RESULTS_FORCE, "{}", ""), KS_OK);
    assert_int_equal(rf_fill(r), KS_OK);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 10000;
    setrlimit(RLIMIT_FSIZE, &small);
    const int rc = ks_results_publish(r);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(rc, KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "cannot be written"));
    assert_int_equal(size_of(path), before);
    assert_int_equal(size_of(tmp), -1);
    assert_int_equal(ks_results_publish(r), KS_OK);
    ks_results_abandon(r);
    assert_int_equal(rf_write(path), 0);
}

static void test_wrong_indices(void **state)
{
    (void)state;
    ks_results *r = NULL;
    const ks_cell c = {.status = KS_CELL_DONE};
    assert_int_equal(ks_results_create(&r, other, KS_RESULTS_FORCE, "{}", ""), KS_OK);
    assert_int_equal(rf_fill(r), KS_OK);
    assert_int_equal(ks_results_put_cell(r, 0, 0, 0, 4, 0, 0, &c, NULL), KS_EMACHINE);
    assert_int_equal(ks_results_put_cell(r, 0, 0, 1, 0, 0, 0, &c, NULL), KS_EMACHINE);
    assert_int_equal(ks_results_put_cell(r, 0, 0, 0, 0, 1, 0, &c, NULL), KS_EMACHINE);
    assert_int_equal(ks_results_put_cell(r, 0, 0, 0, 0, 0, RF_S, &c, NULL), KS_EMACHINE);
    assert_int_equal(ks_results_put_cell(r, 2, 0, 0, 0, 0, 0, &c, NULL), KS_EMACHINE);
    size_t m;
    assert_int_equal(ks_results_add_model(r, &(ks_model_info){.name = "tiny", .n_layers = 1, .n_heads = 1, .vocab = 1}, rf_samples(), &m),
                     KS_EUSAGE);
    ks_results_abandon(r);
}

/* The bar: one model, 20 samples, 30 windows in less than 30 ms. */
static void test_speed(void **state)
{
    (void)state;
    ks_samples samples = {calloc(20, sizeof(ks_sample)), 20};
    char ids[20][16];
    for (size_t s = 0; s < 20; s++) {
        samples.v[s] = rf_samples()->v[s % RF_S];
        snprintf(ids[s], sizeof ids[s], "s%zu", s);
        samples.v[s].id = ids[s];
    }
    const ks_model_info info = {.name = "m", .n_layers = 30, .n_heads = 9, .n_kv_heads = 3, .d_model = 576, .vocab = 49152};
    const ks_sweep sweep = {.name = (char[]){"layers"}};
    ks_window w[30];
    for (int32_t l = 0; l < 30; l++) w[l] = (ks_window){l, l};
    double best = 1;
    for (int n = 0; n < 3; n++) {
        ks_results *r = NULL;
        size_t m, k;
        const double t = ks_seconds();
        assert_int_equal(ks_results_create(&r, other, KS_RESULTS_FORCE, "{}", ""), KS_OK);
        assert_int_equal(ks_results_add_model(r, &info, &samples, &m), KS_OK);
        assert_int_equal(ks_results_add_sweep(r, m, &sweep, w, 30, 0, &k), KS_OK);
        assert_int_equal(ks_results_close(r), KS_OK);
        const double seconds = ks_seconds() - t;
        if (seconds < best) best = seconds;
    }
    print_message("a small file takes %.1f ms\n", best * 1e3);
    assert_true(best < 0.2); /* measured 0.006; wide, for loaded machines and sanitizers */
    free(samples.v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cells),      cmocka_unit_test(test_every_axis),     cmocka_unit_test(test_baseline),
        cmocka_unit_test(test_same_bytes), cmocka_unit_test(test_existing_file),  cmocka_unit_test(test_bad_places),
        cmocka_unit_test(test_abandon),    cmocka_unit_test(test_disk_full),      cmocka_unit_test(test_wrong_indices),
        cmocka_unit_test(test_speed),      cmocka_unit_test(test_foreign_reader),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
