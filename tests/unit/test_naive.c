/* The oracle against the golden answers: logits, attention, a spread of cells of every sweep, KL at every position. */
#include "base/error.h"
#include "base/mem.h"
#include "input/config.h"
#include "support/naive.h"

#include <hdf5.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CELLS_OF_A_SWEEP = 17 };

static const struct {
    const char *root, *name;
} models[] = {
    {"goldens", "a_qwen2"},
    {"goldens", "b_qwen2_tied"},
    {"goldens", "c_starcoder2"},
    {"goldens", "d_gemma"},
    {"goldens", "e_llama"},
    {"goldens", "f_llama3"},
    {"goldens", "g_phi3"},
    {"goldens", "h_phi3_longrope"},
    {"goldens", "i_mistral"},
    {"fixtures/hf", "r_llama_bias"},
    {"fixtures/hf", "s_gemma_erf"},
    {"fixtures/hf", "t_qwen2_sliding"},
    {"fixtures/hf", "u_phi3_partial"},
    {"fixtures/hf", "v_mistral_wide"},
    {"fixtures/hf", "w_starcoder2_plain"},
};
enum { MODELS = sizeof models / sizeof *models, GOLDENS = 9 };

static const struct sweep {
    const char *name;
    int kind, edges;
    const char *marker; /* dataset of /samples */
    bool each_head;
} sweeps[] = {
    {"triangle_mt_first", KS_KNOCKOUT, KS_EDGES_MARKER_TARGETS, "marker_first", false},
    {"triangle_mt_span", KS_KNOCKOUT, KS_EDGES_MARKER_TARGETS, "marker_span", false},
    {"triangle_all_first", KS_KNOCKOUT, KS_EDGES_ALL_MARKER, "marker_first", false},
    {"triangle_all_span", KS_KNOCKOUT, KS_EDGES_ALL_MARKER, "marker_span", false},
    {"heads_mt_first", KS_KNOCKOUT, KS_EDGES_MARKER_TARGETS, "marker_first", true},
    {"heads_all_first", KS_KNOCKOUT, KS_EDGES_ALL_MARKER, "marker_first", true},
    {"scale_mt_first", KS_SCALE, KS_EDGES_MARKER_TARGETS, "marker_first", false},
    {"scale_all_first", KS_SCALE, KS_EDGES_ALL_MARKER, "marker_first", false},
    {"set_mt_first", KS_SET, KS_EDGES_MARKER_TARGETS, "marker_first", false},
    {"set_mt_span", KS_SET, KS_EDGES_MARKER_TARGETS, "marker_span", false},
    {"nudge_mt_first", KS_SCALE, KS_EDGES_MARKER_TARGETS, "marker_first", false},
};

/* A golden file and the model it speaks of. */
struct golden {
    hid_t file;
    ks_model *model;
    size_t S, T;              /* samples, width of the token axis */
    int *n_tokens, *ids;      /* [S], [S, T] */
    double *logits, *by_head; /* [S, V], [L, H, S] */
    float *cos_t, *sin_t;     /* [short_T, dim/2] as the answers' own library rounds them */
    float *cos_long, *sin_long;
    size_t short_T; /* longrope: longer samples take the long tables; else all positions there are */
};

/* A whole dataset as `type`; *n elements. Fails the test where it is missing. */
static void *read_all(hid_t file, const char *path, hid_t type, size_t bytes, size_t *n)
{
    const hid_t set = H5Dopen2(file, path, H5P_DEFAULT);
    assert_true(set >= 0);
    const hid_t space = H5Dget_space(set);
    *n = (size_t)H5Sget_simple_extent_npoints(space);
    void *data = ks_calloc(*n, bytes);
    assert_non_null(data);
    assert_true(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Sclose(space);
    H5Dclose(set);
    return data;
}

static double *read_f64(hid_t file, const char *path, size_t *n)
{
    return read_all(file, path, H5T_NATIVE_DOUBLE, sizeof(double), n);
}

static int *read_int(hid_t file, const char *path, size_t *n)
{
    return read_all(file, path, H5T_NATIVE_INT, sizeof(int), n);
}

static bool exists(hid_t file, const char *path)
{
    return H5Lexists(file, path, H5P_DEFAULT) > 0;
}

static void read_tables(struct golden *g, const char *name)
{
    const hid_t file = H5Fopen("fixtures/hf/rope.h5", H5F_ACC_RDONLY, H5P_DEFAULT);
    const size_t half = (size_t)ks_model_arch(g->model)->rope.dim / 2;
    const struct {
        const char *key;
        float **table;
    } all[] = {{"cos", &g->cos_t}, {"sin", &g->sin_t}, {"cos_long", &g->cos_long}, {"sin_long", &g->sin_long}};
    size_t n;
    assert_true(file >= 0);
    for (size_t i = 0; i < 4; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", name, all[i].key);
        *all[i].table = i < 2 || exists(file, path) ? read_all(file, path, H5T_NATIVE_FLOAT, sizeof(float), &n) : NULL;
        if (i < 2) g->short_T = n / half;
    }
    H5Fclose(file);
}

/* The tables for a sample of T tokens. */
static void use_tables(const struct golden *g, size_t T)
{
    const bool is_long = T > g->short_T;
    assert_true(!is_long || g->cos_long);
    ks_naive_tables(is_long ? g->cos_long : g->cos_t, is_long ? g->sin_long : g->sin_t);
}

static void golden_open(struct golden *g, size_t model)
{
    const char *root = models[model].root, *name = models[model].name;
    char path[256];
    size_t n;
    snprintf(path, sizeof path, "%s/golden/%s.h5", root, name);
    g->file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(g->file >= 0);
    snprintf(path, sizeof path, "%s/models/%s", root, name);
    if (ks_model_open(&g->model, path)) fail_msg("%s: %s", path, ks_error_text());
    g->n_tokens = read_int(g->file, "samples/n_tokens", &g->S);
    g->ids = read_int(g->file, "samples/token_ids", &n);
    g->T = n / g->S;
    g->logits = read_f64(g->file, "baseline/logits", &n);
    assert_int_equal(n, g->S * (size_t)ks_model_arch(g->model)->V);
    g->by_head = read_f64(g->file, "attention/by_head", &n);
    read_tables(g, name);
}

static void golden_close(struct golden *g)
{
    ks_naive_tables(NULL, NULL);
    ks_model_close(g->model);
    H5Fclose(g->file);
    free(g->n_tokens), free(g->ids), free(g->logits), free(g->by_head);
    free(g->cos_t), free(g->sin_t), free(g->cos_long), free(g->sin_long);
}

/* edges [T, T] of sample s, T its own length. */
static uint8_t *edges_of(const struct golden *g, size_t s, int set, const char *marker_name)
{
    char path[64];
    size_t n;
    const size_t T = (size_t)g->n_tokens[s];
    uint8_t *edges = ks_calloc(T * T, 1), *mask = ks_calloc(2 * T, 1); /* marker, target */
    snprintf(path, sizeof path, "samples/%s", marker_name);
    int *marker = read_int(g->file, path, &n), *target = read_int(g->file, "samples/target", &n);
    for (size_t t = 0; t < T; t++) {
        mask[t] = (uint8_t)marker[s * g->T + t];
        mask[T + t] = (uint8_t)target[s * g->T + t];
    }
    ks_naive_edges(edges, set, mask, mask + T, (int32_t)T);
    free(marker), free(target), free(mask);
    return edges;
}

static void baseline_agrees(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        struct golden g;
        golden_open(&g, i);
        const ks_arch *a = ks_model_arch(g.model);
        const size_t V = (size_t)a->V, H = (size_t)a->H;
        double *logits = ks_calloc(V, sizeof *logits);
        for (size_t s = 0; s < g.S; s++) {
            const size_t T = (size_t)g.n_tokens[s];
            size_t n;
            double *weights = ks_calloc((size_t)a->L * H * T * T, sizeof *weights), off = 0, size = 0;
            use_tables(&g, T);
            assert_int_equal(ks_naive_forward(g.model, g.ids + s * g.T, (int32_t)T, NULL, (int32_t)T - 1, logits, weights, NULL), KS_OK);
            for (size_t v = 0; v < V; v++) {
                off += pow(logits[v] - g.logits[s * V + v], 2);
                size += pow(g.logits[s * V + v], 2);
            }
            if (!(sqrt(off / size) <= 1e-12))
                fail_msg("%s sample %zu: logits off by %.3g of their norm", models[i].name, s, sqrt(off / size));

            int *marker = read_int(g.file, "samples/marker_first", &n), *target = read_int(g.file, "samples/target", &n);
            size_t query = 0, targets = 0;
            while (!marker[s * g.T + query]) query++;
            for (size_t t = 0; t < T; t++) targets += (size_t)target[s * g.T + t];
            for (size_t lh = 0; lh < (size_t)a->L * H; lh++) {
                double mean = 0;
                for (size_t t = 0; t < T; t++)
                    if (target[s * g.T + t]) mean += weights[(lh * T + query) * T + t] / (double)targets;
                const double want = g.by_head[lh * g.S + s];
                if (!(fabs(mean - want) <= 1e-12 + 1e-11 * want))
                    fail_msg("%s sample %zu layer*H+head %zu: weight %.17g, expected %.17g", models[i].name, s, lh, mean, want);
            }
            free(marker), free(target), free(weights);
        }
        free(logits);
        golden_close(&g);
    }
}

/* Two double forwards leave a few 1e-15 in every difference of log-probabilities, whose size is sqrt(2 KL). */
static void assert_effect(const char *what, double got, double want, double kl)
{
    if (want == 0 || isnan(want)) {
        if (!(got == want || (isnan(got) && isnan(want)))) fail_msg("%s: %.17g, expected %.17g", what, got, want);
    } else if (!(fabs(got - want) <= fabs(want) * (1e-9 + 1e-14 / sqrt(kl)))) {
        fail_msg("%s: %.17g, expected %.17g, off by %.3g", what, got, want, fabs(got - want) / fabs(want));
    }
}

static void check_sweep(const struct golden *g, const char *model, const struct sweep *w)
{
    static const char *const names[] = {"kl", "kl_reverse", "js", "tv", "p_top", "dlogit_top", "top_changed", "status"};
    enum { KL, KL_REVERSE, JS, TV, P_TOP, DLOGIT, TOP_CHANGED, STATUS, COUNT };
    const ks_arch *a = ks_model_arch(g->model);
    const size_t heads = w->each_head ? (size_t)a->H : 1;
    double *want[COUNT];
    size_t n, windows;
    char path[128];
    for (size_t k = 0; k < COUNT; k++) {
        snprintf(path, sizeof path, "sweeps/%s/%s", w->name, names[k]);
        want[k] = read_f64(g->file, path, &n);
    }
    snprintf(path, sizeof path, "sweeps/%s/layer_start", w->name);
    int *start = read_int(g->file, path, &windows);
    snprintf(path, sizeof path, "sweeps/%s/layer_end", w->name);
    int *end = read_int(g->file, path, &windows);
    double values[3] = {0};
    size_t n_values = 1;
    snprintf(path, sizeof path, "sweeps/%s", w->name);
    if (w->kind != KS_KNOCKOUT) {
        const hid_t attribute = H5Aopen_by_name(g->file, path, "values", H5P_DEFAULT, H5P_DEFAULT);
        const hid_t space = H5Aget_space(attribute);
        n_values = (size_t)H5Sget_simple_extent_npoints(space);
        assert_in_range(n_values, 1, 3);
        assert_true(H5Aread(attribute, H5T_NATIVE_DOUBLE, values) >= 0);
        H5Sclose(space);
        H5Aclose(attribute);
    }
    assert_int_equal(n, n_values * windows * heads * g->S);

    const size_t step = n / CELLS_OF_A_SWEEP | 1; /* odd, and so met with most samples in turn */
    for (size_t cell = step / 2; cell < n; cell += step) {
        const size_t s = cell % g->S, head = cell / g->S % heads, window = cell / g->S / heads % windows,
                     factor = cell / g->S / heads / windows;
        const size_t T = (size_t)g->n_tokens[s];
        uint8_t *edges = edges_of(g, s, w->edges, w->marker), *mask = ks_calloc((size_t)a->H, 1);
        mask[head] = 1;
        const ks_naive_edit edit = {start[window], end[window], w->kind, values[factor], w->each_head ? mask : NULL, edges};
        ks_cell c;
        use_tables(g, T);
        assert_int_equal(ks_naive_cell(g->model, g->ids + s * g->T, (int32_t)T, &edit, &c), KS_OK);

        snprintf(path, sizeof path, "%s %s cell %zu", model, w->name, cell);
        const double kl = want[KL][cell];
        if (c.status != want[STATUS][cell]) fail_msg("%s: status %d, expected %g", path, c.status, want[STATUS][cell]);
        if (isnan(kl) || kl == 0 || kl > 1e-20) {
            assert_effect(path, c.kl, kl, kl);
            assert_effect(path, c.kl_reverse, want[KL_REVERSE][cell], kl);
            assert_effect(path, c.js, want[JS][cell], kl);
            assert_effect(path, c.tv, want[TV][cell], kl);
        }
        if (isnan(kl)) {
            assert_true(isnan(c.p_top) && isnan(c.dlogit_top));
        } else {
            assert_true(fabs(c.p_top - want[P_TOP][cell]) <= 1e-12);
            assert_true(fabs(c.dlogit_top - want[DLOGIT][cell]) <= 1e-12);
            assert_int_equal(c.top_changed, (int)want[TOP_CHANGED][cell]);
        }
        free(edges), free(mask);
    }
    for (size_t k = 0; k < COUNT; k++) free(want[k]);
    free(start), free(end);
}

static void cells_agree(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        struct golden g;
        golden_open(&g, i);
        size_t checked = 0;
        for (size_t w = 0; w < sizeof sweeps / sizeof *sweeps; w++) {
            char path[64];
            snprintf(path, sizeof path, "sweeps/%s", sweeps[w].name);
            if (!exists(g.file, path)) continue;
            check_sweep(&g, models[i].name, &sweeps[w]);
            checked++;
        }
        assert_int_equal(checked, i < GOLDENS ? sizeof sweeps / sizeof *sweeps : 5);
        golden_close(&g);
    }
}

static void positions_agree(void **state)
{
    (void)state;
    for (size_t i = 0; i < GOLDENS; i++) {
        struct golden g;
        golden_open(&g, i);
        const size_t V = (size_t)ks_model_arch(g.model)->V, s = i % 7 + 1, T = (size_t)g.n_tokens[s], layer = 1;
        size_t n;
        double *want = read_f64(g.file, "sweeps/layers_all_first_positions/kl_positions", &n); /* [L, S, T] */
        double *rows = ks_calloc(2 * T * V, sizeof *rows);
        uint8_t *edges = edges_of(&g, s, KS_EDGES_ALL_MARKER, "marker_first");
        const ks_naive_edit edit = {(int32_t)layer, (int32_t)layer, KS_KNOCKOUT, 0, NULL, edges};
        use_tables(&g, T);
        assert_int_equal(ks_naive_forward(g.model, g.ids + s * g.T, (int32_t)T, NULL, 0, rows, NULL, NULL), KS_OK);
        assert_int_equal(ks_naive_forward(g.model, g.ids + s * g.T, (int32_t)T, &edit, 0, rows + T * V, NULL, NULL), KS_OK);
        size_t counted = 0;
        for (size_t t = 0; t < T; t++) {
            const double kl = want[(layer * g.S + s) * g.T + t], got = ks_naive_kl(rows + t * V, rows + (T + t) * V, (int32_t)V);
            char what[64];
            snprintf(what, sizeof what, "%s sample %zu position %zu", models[i].name, s, t);
            assert_effect(what, got, isnan(kl) ? 0 : kl, kl);
            counted += kl > 0;
        }
        assert_true(counted > 0);
        free(want), free(rows), free(edges);
        golden_close(&g);
    }
}

/* Nothing removed is exactly nothing, and a forward has the same bits twice. */
static void null_is_zero(void **state)
{
    (void)state;
    struct golden g;
    golden_open(&g, 2);
    const size_t T = (size_t)g.n_tokens[3];
    uint8_t *edges = ks_calloc(T * T, 1);
    edges[1] = 1; /* query 0, key 1: causality forbids it */
    const ks_naive_edit edit = {0, 2, KS_KNOCKOUT, 0, NULL, edges};
    ks_cell c;
    use_tables(&g, T);
    assert_int_equal(ks_naive_cell(g.model, g.ids + 3 * g.T, (int32_t)T, &edit, &c), KS_OK);
    assert_int_equal(c.status, KS_CELL_NOTHING);
    assert_true(c.kl == 0 && c.kl_reverse == 0 && c.js == 0 && c.tv == 0 && c.dlogit_top == 0 && !c.top_changed);
    free(edges);
    golden_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(baseline_agrees),
        cmocka_unit_test(cells_agree),
        cmocka_unit_test(positions_agree),
        cmocka_unit_test(null_is_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
