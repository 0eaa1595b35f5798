/* Rotary tables against the frequencies that transformers computed (goldens/golden/<name>.h5, /rope), and against double precision. */
#include "base/error.h"
#include "model/rope.h"

#include <hdf5.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const names[] = {"a_qwen2",  "b_qwen2_tied", "c_starcoder2",    "d_gemma",  "e_llama",
                                    "f_llama3", "g_phi3",       "h_phi3_longrope", "i_mistral"};
enum { NAMES = sizeof names / sizeof *names, MAX_HALF = 64 };

static ks_arch *read_arch(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "goldens/models/%s", name);
    ks_arch *a = NULL;
    if (ks_arch_read(&a, path)) fail_msg("%s", ks_error_text());
    return a;
}

static hid_t open_golden(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "goldens/golden/%s.h5", name);
    const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0) fail_msg("%s cannot be opened", path);
    return file;
}

static int read_inv_freq(hid_t file, const char *dataset, float out[MAX_HALF])
{
    const hid_t set = H5Dopen2(file, dataset, H5P_DEFAULT);
    if (set < 0) fail_msg("%s is missing", dataset);
    const hid_t space = H5Dget_space(set);
    const int n = (int)H5Sget_simple_extent_npoints(space);
    assert_in_range(n, 1, MAX_HALF);
    assert_true(H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) >= 0);
    H5Sclose(space);
    H5Dclose(set);
    return n;
}

static int32_t bits(float x)
{
    int32_t i;
    memcpy(&i, &x, sizeof i);
    return i;
}

/* Equal but for at most four entries that differ in the last bit. */
static void assert_table(const ks_arch *a, int32_t T, hid_t file, const char *dataset)
{
    float expected[MAX_HALF], found[MAX_HALF];
    int differ = 0;
    assert_int_equal(read_inv_freq(file, dataset, expected), a->rope.dim / 2);
    ks_rope_inv_freq(a, T, found);
    for (int i = 0; i < a->rope.dim / 2; i++) {
        if (found[i] == expected[i]) continue;
        if (abs(bits(found[i]) - bits(expected[i])) != 1)
            fail_msg("%s %s[%d]: %.9g, expected %.9g", a->family, dataset, i, (double)found[i], (double)expected[i]);
        differ++;
    }
    assert_true(differ <= 4);
    if (differ) print_message("%s %s: %d of %d differ in the last bit\n", a->family, dataset, differ, a->rope.dim / 2);
}

static void test_frequencies_of_every_golden_model(void **state)
{
    (void)state;
    for (int i = 0; i < NAMES; i++) {
        ks_arch *a = read_arch(names[i]);
        const hid_t file = open_golden(names[i]);
        if (a->rope.kind == KS_ROPE_LONGROPE) {
            /* The switch is by the whole length: up to the original one short, from one more on long. */
            assert_table(a, 1, file, "rope/rotary_emb_inv_freq_short");
            assert_table(a, a->rope.original, file, "rope/rotary_emb_inv_freq_short");
            assert_table(a, a->rope.original + 1, file, "rope/rotary_emb_inv_freq_long");
        } else {
            assert_table(a, 1, file, "rope/rotary_emb_inv_freq");
            assert_table(a, 1000, file, "rope/rotary_emb_inv_freq");
        }
        double scaling = 0;
        const hid_t attribute = H5Aopen_by_name(file, "rope", "rotary_emb_attention_scaling", H5P_DEFAULT, H5P_DEFAULT);
        assert_true(attribute >= 0 && H5Aread(attribute, H5T_NATIVE_DOUBLE, &scaling) >= 0);
        if (!(fabs(a->rope.attn_factor - scaling) < 1e-15))
            fail_msg("%s: attention factor %.17g, expected %.17g", names[i], a->rope.attn_factor, scaling);
        H5Aclose(attribute);
        H5Fclose(file);
        ks_arch_free(a);
    }
}

static void test_tables(void **state)
{
    (void)state;
    enum { T = 200 };
    for (int i = 0; i < NAMES; i++) {
        ks_arch *a = read_arch(names[i]);
        const int half = a->rope.dim / 2;
        float inv_freq[MAX_HALF], *c = malloc(T * MAX_HALF * sizeof *c), *s = malloc(T * MAX_HALF * sizeof *s);
        assert_true(c && s);
        ks_rope_inv_freq(a, T, inv_freq);
        assert_int_equal(ks_rope_tables(a, T, c, s), KS_OK);
        for (int t = 0; t < T; t++)
            for (int k = 0; k < half; k++) {
                const double angle = (double)((float)t * inv_freq[k]), factor = a->rope.attn_factor;
                assert_true(fabs((double)c[t * half + k] - factor * cos(angle)) <= 2e-7);
                assert_true(fabs((double)s[t * half + k] - factor * sin(angle)) <= 2e-7);
            }
        for (int k = 0; k < half; k++) assert_true(c[k] == (float)a->rope.attn_factor && s[k] == 0);
        free(c);
        free(s);
        ks_arch_free(a);
    }
}

static float *read_table(hid_t file, const char *model, const char *table, int *T, int half)
{
    char name[128];
    hsize_t dims[2] = {0, 0};
    snprintf(name, sizeof name, "%s/%s", model, table);
    const hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    if (set < 0) fail_msg("%s is missing", name);
    const hid_t space = H5Dget_space(set);
    assert_int_equal(H5Sget_simple_extent_dims(space, dims, NULL), 2);
    assert_int_equal(dims[1], half);
    float *x = calloc(dims[0] * dims[1], sizeof *x);
    assert_non_null(x);
    assert_true(H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, x) >= 0);
    H5Sclose(space);
    H5Dclose(set);
    *T = (int)dims[0];
    return x;
}

/* torch's cos and sin are within one unit in the last place; so are ours, and the factor of longrope rounds once more. */
static void assert_tables(hid_t file, const char *model, const ks_arch *a, const char *cos_name, const char *sin_name, int *entries)
{
    int T, T_sin;
    const int half = a->rope.dim / 2;
    float *cosines = read_table(file, model, cos_name, &T, half), *sines = read_table(file, model, sin_name, &T_sin, half);
    assert_int_equal(T, T_sin);
    float *c = calloc((size_t)(T * half), sizeof *c), *s = calloc((size_t)(T * half), sizeof *s);
    assert_true(c && s);
    assert_int_equal(ks_rope_tables(a, T, c, s), KS_OK);
    const float tolerance = (float)a->rope.attn_factor * 0x1p-23f;
    for (int i = 0; i < T * half; i++) {
        if (!(fabsf(c[i] - cosines[i]) <= tolerance))
            fail_msg("%s %s[%d]: %.9g, expected %.9g", model, cos_name, i, (double)c[i], (double)cosines[i]);
        if (!(fabsf(s[i] - sines[i]) <= tolerance))
            fail_msg("%s %s[%d]: %.9g, expected %.9g", model, sin_name, i, (double)s[i], (double)sines[i]);
    }
    *entries += 2 * T * half;
    free(c);
    free(s);
    free(cosines);
    free(sines);
}

static void test_tables_as_transformers_makes_them(void **state)
{
    (void)state;
    static const char *const more[] = {"r_llama_bias",   "s_gemma_erf",    "t_qwen2_sliding",
                                       "u_phi3_partial", "v_mistral_wide", "w_starcoder2_plain"};
    const hid_t file = H5Fopen("fixtures/hf/rope.h5", H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(file >= 0);
    int entries = 0;
    for (int i = 0; i < NAMES + 6; i++) {
        const char *name = i < NAMES ? names[i] : more[i - NAMES];
        char path[128];
        snprintf(path, sizeof path, "%s/models/%s", i < NAMES ? "goldens" : "fixtures/hf", name);
        ks_arch *a = NULL;
        if (ks_arch_read(&a, path)) fail_msg("%s", ks_error_text());
        assert_tables(file, name, a, "cos", "sin", &entries);
        if (a->rope.kind == KS_ROPE_LONGROPE) assert_tables(file, name, a, "cos_long", "sin_long", &entries);
        ks_arch_free(a);
    }
    assert_true(entries > 15000);
    H5Fclose(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frequencies_of_every_golden_model),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_tables_as_transformers_makes_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
