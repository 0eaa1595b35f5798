/* The result file: what was put is there, under the published names and axes, and nothing is lost when the disk fails. */
#include "support/results_file.h"

#include "base/error.h"

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

/* ---- blocks of samples ---- */

/* How many samples of an array lie together. */
static size_t block_of(const char *name, int axis)
{
    const hid_t f = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), d = H5Dopen2(f, name, H5P_DEFAULT), p = H5Dget_create_plist(d);
    hsize_t chunk[8] = {0};
    assert_true(f >= 0 && d >= 0 && p >= 0);
    if (H5Pget_layout(p) == H5D_CHUNKED) assert_true(H5Pget_chunk(p, 8, chunk) > axis);
    H5Pclose(p);
    H5Dclose(d);
    H5Fclose(f);
    return chunk[axis] ? chunk[axis] : RF_S;
}

/* However many samples a block holds, and with a last block that is not full, every value stands where its axes say. */
static void test_blocks(void **state)
{
    (void)state;
    enum { F = 2, H = 3, W_MAX = 120 };
    static const struct {
        size_t W, block;
    } cases[] = {{3, RF_S}, {15, 4}, {20, 4}, {30, 2}, {W_MAX, 1}};
    double factors[F] = {0.5, 2};
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        const size_t W = cases[n].W, rows = F * W * H;
        const ks_model_info info = {.name = "m", .n_layers = (int32_t)W, .n_heads = F * H, .vocab = RF_V};
        const ks_sweep sweep = {.name = (char[]){"s"},
                                .kind = KS_SCALE,
                                .values = factors,
                                .n_values = F,
                                .heads = KS_HEADS_EACH,
                                .positions = KS_POSITIONS_ALL};
        ks_window windows[W_MAX] = {{0, 0}};
        ks_results *r = NULL;
        size_t m = 0, k = 0;
        assert_int_equal(ks_results_create(&r, path, KS_RESULTS_FORCE, "{}", ""), KS_OK);
        assert_int_equal(ks_results_add_model(r, &info, rf_samples(), &m), KS_OK);
        assert_int_equal(ks_results_add_sweep(r, m, &sweep, windows, W, H, &k), KS_OK);
        assert_int_equal(ks_results_publish(r), KS_OK);
        for (size_t s = 0; s < RF_S; s++) {
            const ks_baseline b = rf_baseline(s);
            float by_head[W_MAX * F * H];
            double strength[W_MAX];
            for (size_t i = 0; i < rows; i++) by_head[i] = (float)(i * 10 + s);
            for (size_t i = 0; i < W; i++) strength[i] = (double)(i * 10 + s);
            assert_int_equal(ks_results_put_baseline(r, m, s, &b, NULL, by_head, 0.5, strength), KS_OK);
            assert_int_equal(ks_results_put_edges(r, m, k, s, (int32_t)s + 3), KS_OK);
            for (size_t i = 0; i < rows; i++) {
                const ks_cell c = {.status = KS_CELL_DONE, .kl = (double)(i * 10 + s), .top_ids = {0, 1, 2, 3, (int32_t)(i * 10 + s)}};
                ks_position_cell at[RF_T_MAX];
                for (int32_t t = 0; t < RF_T_MAX; t++) at[t] = (ks_position_cell){.kl = c.kl + t / 8.0};
                assert_int_equal(ks_results_put_cell(r, m, k, i / H / W, i / H % W, i % H, s, &c, at), KS_OK);
            }
        }
        assert_int_equal(ks_results_flush(r), KS_OK);
        ks_results_abandon(r); /* so that only what the flush wrote is there */

        char axes[64], layers[64], at_axes[96], ids_axes[96];
        snprintf(axes, sizeof axes, "factor:2 window:%zu head:3 sample:7", W);
        snprintf(at_axes, sizeof at_axes, "%s token:6", axes);
        snprintf(ids_axes, sizeof ids_axes, "%s k:5", axes);
        double *kl = read_all("/models/m/sweeps/s/kl", H5T_NATIVE_DOUBLE, 8, axes);
        uint8_t *status = read_all("/models/m/sweeps/s/status", H5T_NATIVE_UINT8, 1, axes);
        int32_t *ids = read_all("/models/m/sweeps/s/top_ids", H5T_NATIVE_INT32, 4, ids_axes);
        double *at = read_all("/models/m/sweeps/s/kl_positions", H5T_NATIVE_DOUBLE, 8, at_axes);
        int32_t *edges = read_all("/models/m/sweeps/s/edges_removed", H5T_NATIVE_INT32, 4, "sample:7");
        snprintf(layers, sizeof layers, "layer:%zu sample:7", W);
        double *strength = read_all("/models/m/attention/strength", H5T_NATIVE_DOUBLE, 8, layers);
        snprintf(layers, sizeof layers, "layer:%zu head:6 sample:7", W);
        float *by_head = read_all("/models/m/attention/by_head", H5T_NATIVE_FLOAT, 4, layers);
        for (size_t i = 0; i < rows; i++)
            for (size_t s = 0; s < RF_S; s++) {
                const size_t e = i * RF_S + s;
                const double x = (double)(i * 10 + s);
                same(kl[e], x);
                same(by_head[e], x);
                assert_int_equal(status[e], KS_CELL_DONE);
                assert_int_equal(ids[e * KS_TOP_K + 4], i * 10 + s);
                for (int32_t t = 0; t < RF_T_MAX; t++)
                    same(at[e * RF_T_MAX + (size_t)t], t < rf_samples()->v[s].T ? x + t / 8.0 : (double)NAN);
                if (i < W) same(strength[e], x);
            }
        for (size_t s = 0; s < RF_S; s++) assert_int_equal(edges[s], s + 3);
        assert_int_equal(block_of("/models/m/sweeps/s/kl", 3), cases[n].block);
        assert_int_equal(block_of("/models/m/sweeps/s/kl_positions", 3), cases[n].block);
        assert_int_equal(block_of("/models/m/attention/by_head", 2), cases[n].block);
        free(by_head);
        free(strength);
        free(edges);
        free(at);
        free(ids);
        free(status);
        free(kl);
    }
    assert_int_equal(rf_write(path), 0);
}

/* A thousand cells of one sample are written as little more than what they hold, however many samples there are. */
static void test_bytes_of_a_sample(void **state)
{
    (void)state;
    enum { S = 300, W = 1000, ARRAYS = 11, PAGE = 4096, CELL = 6 * 8 + 2 + KS_TOP_K * (4 + 8 + 8) };
    ks_samples samples = {calloc(S, sizeof(ks_sample)), S};
    ks_window *windows = calloc(W, sizeof *windows);
    static char ids[S][16];
    for (size_t s = 0; s < S; s++) {
        samples.v[s] = rf_samples()->v[s % RF_S];
        snprintf(ids[s], sizeof ids[s], "s%zu", s);
        samples.v[s].id = ids[s];
    }
    const ks_model_info info = {.name = "m", .n_layers = 30, .n_heads = 9, .vocab = RF_V};
    const ks_sweep sweep = {.name = (char[]){"s"}};
    const ks_cell c = {.status = KS_CELL_DONE, .kl = 1};
    ks_results *r = NULL;
    size_t m = 0, k = 0;
    assert_int_equal(ks_results_create(&r, other, KS_RESULTS_FORCE, "{}", ""), KS_OK);
    assert_int_equal(ks_results_add_model(r, &info, &samples, &m), KS_OK);
    assert_int_equal(ks_results_add_sweep(r, m, &sweep, windows, W, 0, &k), KS_OK);
    assert_int_equal(ks_results_publish(r), KS_OK);
    assert_true(size_of(other) < (off_t)S * (W * CELL + 20000)); /* the structure is small */
    for (size_t s = 17; s < S; s += 100) {
        const int64_t before = ks_results_written(r);
        for (size_t w = 0; w < W; w++) assert_int_equal(ks_results_put_cell(r, m, k, 0, w, 0, s, &c, NULL), KS_OK);
        assert_int_equal(ks_results_flush(r), KS_OK);
        const int64_t written = ks_results_written(r) - before;
        assert_true(written >= W * CELL);
        assert_true(written <= W * CELL + ARRAYS * 2 * PAGE);
    }
    ks_results_abandon(r);
    free(windows);
    free(samples.v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cells),          cmocka_unit_test(test_every_axis),    cmocka_unit_test(test_baseline),
        cmocka_unit_test(test_same_bytes),     cmocka_unit_test(test_existing_file), cmocka_unit_test(test_bad_places),
        cmocka_unit_test(test_abandon),        cmocka_unit_test(test_disk_full),     cmocka_unit_test(test_wrong_indices),
        cmocka_unit_test(test_foreign_reader), cmocka_unit_test(test_blocks),        cmocka_unit_test(test_bytes_of_a_sample),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
