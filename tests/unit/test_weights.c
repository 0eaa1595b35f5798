/* Models from files to layers: binding by role, what is refused, and the weights provider's two sources. */
#include "base/error.h"
#include "base/sha256.h"
#include "model/weights.h"
#include "support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[SCRATCH_PATH];

static const char *const names[] = {"a_qwen2",  "b_qwen2_tied", "c_starcoder2",    "d_gemma",  "e_llama",
                                    "f_llama3", "g_phi3",       "h_phi3_longrope", "i_mistral"};
enum { NAMES = sizeof names / sizeof *names, MATRICES = 7 };
static const size_t fields[MATRICES] = {offsetof(ks_layer, q),    offsetof(ks_layer, k),  offsetof(ks_layer, v),   offsetof(ks_layer, o),
                                        offsetof(ks_layer, gate), offsetof(ks_layer, up), offsetof(ks_layer, down)};

static const ks_tensor *matrix(const ks_layer *layer, int i)
{
    return (const ks_tensor *)((const char *)layer + fields[i]);
}

static ks_model *open_model(const char *path)
{
    ks_model *m = NULL;
    if (ks_model_open(&m, path)) fail_msg("%s", ks_error_text());
    return m;
}

static ks_model *open_golden(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "goldens/models/%s", name);
    return open_model(path);
}

/* The rows of a stored tensor from first_row on are what t shows. */
static void assert_view(const ks_model *m, const ks_tensor *t, const char *name, int64_t first_row, int64_t rows, int64_t cols)
{
    const ks_st_tensor *s = ks_st_find(ks_model_files(m), name);
    assert_non_null(s);
    assert_int_equal(t->rows, rows);
    assert_int_equal(t->cols, cols);
    assert_int_equal(t->ld, cols);
    assert_int_equal(t->dtype, s->dtype);
    assert_ptr_equal(t->data, (const char *)s->data + (size_t)(first_row * cols) * ks_dtype_size(s->dtype));
}

static void assert_vector(const ks_model *m, const float *v, const char *name, int64_t n, float plus)
{
    const ks_st_tensor *s = ks_st_find(ks_model_files(m), name);
    assert_non_null(s);
    assert_non_null(v);
    assert_int_equal(s->shape[0], n);
    for (int64_t i = 0; i < n; i++) assert_true(v[i] == ks_f32_at(s->data, s->dtype, (size_t)i) + plus);
}

static void test_binds_every_golden_model(void **state)
{
    (void)state;
    for (int i = 0; i < NAMES; i++) {
        ks_model *m = open_golden(names[i]);
        const ks_arch *a = ks_model_arch(m);
        const int64_t sizes[MATRICES][2] = {{a->H * a->E, a->D}, {a->G * a->E, a->D}, {a->G * a->E, a->D}, {a->D, a->H * a->E},
                                            {a->F, a->D},        {a->F, a->D},        {a->D, a->F}};
        for (int32_t l = 0; l < a->L; l++) {
            const ks_layer *layer = ks_model_layer(m, l);
            for (int k = 0; k < MATRICES; k++) {
                const ks_tensor *t = matrix(layer, k);
                if (k == 4 && !a->gated) {
                    assert_null(t->data);
                    continue;
                }
                assert_non_null(t->data);
                assert_int_equal(t->rows, sizes[k][0]);
                assert_int_equal(t->cols, sizes[k][1]);
            }
            assert_true(layer->norm1 && layer->norm2);
            assert_int_equal(layer->norm1_bias != NULL, a->norm == KS_NORM_LAYER);
            assert_int_equal(layer->q_bias && layer->k_bias && layer->v_bias, a->qkv_bias);
            assert_int_equal(layer->o_bias != NULL, a->o_bias);
            assert_int_equal(layer->up_bias && layer->down_bias, a->mlp_bias);
        }
        const ks_tensor e = ks_model_embedding(m), h = ks_model_head(m);
        assert_int_equal(e.rows, a->V);
        assert_int_equal(h.rows, a->V);
        assert_int_equal(h.data == e.data, a->tied);
        assert_non_null(ks_model_final_norm(m));
        assert_int_equal(ks_model_final_norm_bias(m) != NULL, a->norm == KS_NORM_LAYER);
        char *bad = NULL;
        assert_int_equal(ks_model_find_nonfinite(m, &bad), KS_OK);
        assert_null(bad);
        ks_model_close(m);
    }
}

static void test_binds_the_other_fixtures(void **state)
{
    (void)state;
    ks_model *m = open_model("fixtures/hf/models/r_llama_bias"); /* attention_bias and mlp_bias */
    const ks_layer *l = ks_model_layer(m, 1);
    assert_true(l->q_bias && l->o_bias && l->gate_bias && l->up_bias && l->down_bias);
    ks_model_close(m);
    m = open_model("fixtures/hf/models/t_qwen2_sliding");
    assert_true(ks_model_arch(m)->window[0] == 0 && ks_model_arch(m)->window[1] == 7);
    ks_model_close(m);
    m = open_model("fixtures/hf/models/u_phi3_partial");
    assert_true(ks_model_arch(m)->rope.dim == 12 && ks_model_arch(m)->E == 16);
    ks_model_close(m);
    m = open_model("fixtures/hf/models/s_gemma_erf");
    assert_int_equal(ks_model_arch(m)->act, KS_ACT_GELU_ERF);
    ks_model_close(m);
    m = open_model("fixtures/hf/models/v_mistral_wide"); /* H*E is not D */
    assert_true(ks_model_arch(m)->H * ks_model_arch(m)->E != ks_model_arch(m)->D);
    ks_model_close(m);
    m = open_model("fixtures/hf/models/w_starcoder2_plain"); /* use_bias is false */
    l = ks_model_layer(m, 0);
    assert_true(!l->q_bias && !l->o_bias && !l->up_bias && !l->down_bias && l->norm1_bias);
    ks_model_close(m);
}

static void test_roles(void **state)
{
    (void)state;
    ks_model *m = open_golden("h_phi3_longrope"); /* H 4, G 2, E 16, F 128: q, k, v and gate, up lie one under the other */
    const ks_layer *l = ks_model_layer(m, 2);
    assert_view(m, &l->q, "model.layers.2.self_attn.qkv_proj.weight", 0, 64, 64);
    assert_view(m, &l->k, "model.layers.2.self_attn.qkv_proj.weight", 64, 32, 64);
    assert_view(m, &l->v, "model.layers.2.self_attn.qkv_proj.weight", 96, 32, 64);
    assert_view(m, &l->gate, "model.layers.2.mlp.gate_up_proj.weight", 0, 128, 64);
    assert_view(m, &l->up, "model.layers.2.mlp.gate_up_proj.weight", 128, 128, 64);
    ks_model_close(m);

    m = open_golden("d_gemma"); /* 1 + w */
    assert_vector(m, ks_model_layer(m, 3)->norm1, "model.layers.3.input_layernorm.weight", 64, 1);
    assert_vector(m, ks_model_layer(m, 3)->norm2, "model.layers.3.post_attention_layernorm.weight", 64, 1);
    assert_vector(m, ks_model_final_norm(m), "model.norm.weight", 64, 1);
    ks_model_close(m);

    m = open_golden("c_starcoder2");
    l = ks_model_layer(m, 4);
    assert_view(m, &l->up, "model.layers.4.mlp.c_fc.weight", 0, 192, 64);
    assert_view(m, &l->down, "model.layers.4.mlp.c_proj.weight", 0, 64, 192);
    assert_vector(m, l->norm1_bias, "model.layers.4.input_layernorm.bias", 64, 0);
    assert_vector(m, l->o_bias, "model.layers.4.self_attn.o_proj.bias", 64, 0);
    assert_vector(m, l->k_bias, "model.layers.4.self_attn.k_proj.bias", 32, 0);
    assert_vector(m, l->up_bias, "model.layers.4.mlp.c_fc.bias", 192, 0);
    assert_vector(m, ks_model_final_norm_bias(m), "model.norm.bias", 64, 0);
    ks_model_close(m);
}

static void test_sha256_is_over_the_files_in_order(void **state)
{
    (void)state;
    ks_model *m = open_golden("e_llama");
    ks_sha256 s;
    char expected[65], found[65];
    ks_sha256_init(&s);
    for (int i = 0; i < 3; i++)
        ks_sha256_update(&s, ks_st_file_at(ks_model_files(m), i)->map, (size_t)ks_st_file_at(ks_model_files(m), i)->bytes);
    ks_sha256_final_hex(&s, expected);
    assert_int_equal(ks_model_weights_sha256(m, found), KS_OK);
    assert_string_equal(found, expected);
    ks_model_close(m);
}

/* A copy of a golden model under `name` with tensors of its own, which the caller edits between begin and end. */
typedef struct copy {
    ks_model *from;
    const char *name;
    ks_st_tensor t[200];
    size_t n;
} copy;

static void begin(copy *c, const char *golden, const char *name)
{
    char path[256];
    c->from = open_golden(golden);
    c->name = name;
    c->n = ks_st_count(ks_model_files(c->from));
    for (size_t i = 0; i < c->n; i++) c->t[i] = *ks_st_at(ks_model_files(c->from), i);
    snprintf(path, sizeof path, "%s/config.json", ks_model_dir(c->from));
    char to[128];
    snprintf(to, sizeof to, "%s/config.json", name);
    scratch_copy(dir, to, path);
}

static ks_st_tensor *edit(copy *c, const char *tensor)
{
    for (size_t i = 0; i < c->n; i++)
        if (!strcmp(c->t[i].name, tensor)) return &c->t[i];
    fail_msg("no tensor %s", tensor);
    return NULL;
}

static void drop(copy *c, const char *tensor)
{
    *edit(c, tensor) = c->t[c->n - 1];
    c->n--;
}

static const char *end(copy *c)
{
    char to[128];
    snprintf(to, sizeof to, "%s/model.safetensors", c->name);
    scratch_safetensors(dir, to, c->t, c->n);
    ks_model_close(c->from);
    return scratch_path(dir, c->name);
}

static void refused(const char *path, const char *part, const char *other)
{
    ks_model *m = NULL;
    const int rc = ks_model_open(&m, path);
    if (rc != KS_EINPUT || !strstr(ks_error_text(), part) || !strstr(ks_error_text(), other))
        fail_msg("expected an error with \"%s\" and \"%s\"; status %d, \"%s\"", part, other, rc, ks_error_text());
    assert_null(m);
}

static void test_refuses_weights_that_do_not_fit(void **state)
{
    (void)state;
    static char up[] = "model.layers.1.mlp.up_proj.weight", bias[] = "model.layers.1.self_attn.o_proj.bias";
    copy c;
    begin(&c, "b_qwen2_tied", "missing");
    drop(&c, up);
    refused(end(&c), up, "[144, 64] is missing");

    begin(&c, "b_qwen2_tied", "unexpected");
    c.t[c.n] = *edit(&c, "model.norm.weight");
    c.t[c.n++].name = bias;
    refused(end(&c), bias, "has no place in a qwen2 model");

    begin(&c, "b_qwen2_tied", "more_layers");
    c.t[c.n] = *edit(&c, "model.layers.0.mlp.up_proj.weight");
    c.t[c.n++].name = (char[]){"model.layers.4.mlp.up_proj.weight"};
    refused(end(&c), "model.layers.4.mlp.up_proj.weight", "4 layers");

    begin(&c, "b_qwen2_tied", "shape");
    edit(&c, up)->shape[0] = 64;
    edit(&c, up)->shape[1] = 144;
    refused(end(&c), up, "[144, 64] by config.json, found [64, 144]");

    begin(&c, "b_qwen2_tied", "dimensions");
    edit(&c, up)->n_dims = 3;
    edit(&c, up)->shape[2] = 1;
    refused(end(&c), up, "found [144, 64, 1]");

    begin(&c, "b_qwen2_tied", "dtype");
    edit(&c, up)->dtype_name = "I16";
    refused(end(&c), up, "I16");

    begin(&c, "a_qwen2", "headless"); /* not tied: the head is needed */
    drop(&c, "lm_head.weight");
    refused(end(&c), "lm_head.weight", "missing");
}

static void test_accepts_harmless_tensors(void **state)
{
    (void)state;
    static float table[8];
    copy c;
    begin(&c, "b_qwen2_tied", "harmless");
    c.t[c.n] = *edit(&c, "model.embed_tokens.weight");
    c.t[c.n++].name = (char[]){"lm_head.weight"};
    c.t[c.n] =
        (ks_st_tensor){.name = (char[]){"model.layers.0.self_attn.rotary_emb.inv_freq"}, .dtype_name = "F32", .n_dims = 1, .shape = {8}};
    c.t[c.n].data = table;
    c.t[c.n++].bytes = sizeof table;
    ks_model *m = open_model(end(&c));
    assert_ptr_equal(ks_model_head(m).data, ks_model_embedding(m).data);
    assert_int_equal(ks_model_parameters(m), 197696);
    assert_string_equal(ks_model_arch(m)->warnings, "");
    ks_model_close(m);

    /* A second head of its own is not used either, but said. */
    begin(&c, "b_qwen2_tied", "second_head");
    c.t[c.n] = *edit(&c, "model.embed_tokens.weight");
    c.t[c.n].data = (const char *)c.t[c.n].data + 2;
    c.t[c.n++].name = (char[]){"lm_head.weight"};
    m = open_model(end(&c));
    assert_non_null(strstr(ks_model_arch(m)->warnings, "lm_head.weight differs"));
    ks_model_close(m);
}

static void test_finds_what_is_not_finite(void **state)
{
    (void)state;
    static const struct {
        const char *golden;
        uint32_t bits;
        size_t size;
        bool bad;
    } cases[] = {{"b_qwen2_tied", 0x7f80, 2, true}, {"b_qwen2_tied", 0xffc1, 2, true}, {"b_qwen2_tied", 0x7f7f, 2, false},
                 {"i_mistral", 0x7c00, 2, true},    {"i_mistral", 0xfe00, 2, true},    {"i_mistral", 0x7bff, 2, false},
                 {"f_llama3", 0x7f800000, 4, true}, {"f_llama3", 0x7f7fffff, 4, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static char down[] = "model.layers.2.mlp.down_proj.weight";
        copy c;
        begin(&c, cases[i].golden, "values");
        ks_st_tensor *t = edit(&c, down);
        char *data = malloc((size_t)t->bytes);
        assert_non_null(data);
        memcpy(data, t->data, (size_t)t->bytes);
        memcpy(data + (i % 2 ? (size_t)t->bytes - cases[i].size : 0), &cases[i].bits,
               cases[i].size); /* little-endian, first or last element */
        t->data = data;
        ks_model *m = open_model(end(&c));
        char *bad = NULL;
        assert_int_equal(ks_model_find_nonfinite(m, &bad), KS_OK);
        if (cases[i].bad) assert_string_equal(bad, down);
        else assert_null(bad);
        free(bad);
        free(data);
        ks_model_close(m);
    }
}

static void test_widening_is_exact(void **state)
{
    (void)state;
    /* Every f16 against its definition: sign, exponent, fraction. */
    for (uint32_t h = 0; h < 0x10000; h++) {
        const int e = (int)(h >> 10 & 31);
        const float f = (float)(h & 1023);
        const float x = ks_f32_of_f16((uint16_t)h);
        if (e == 31) {
            assert_true(f != 0 ? x != x : x == (h >> 15 ? -1 : 1) * __builtin_inff());
            continue;
        }
        float y = e ? 1024 + f : f;
        for (int k = e ? e : 1; k < 25; k++) y /= 2;
        for (int k = 25; k < e; k++) y *= 2;
        assert_true(x == (h >> 15 ? -y : y) && !!__builtin_signbit(x) == (h >> 15));
    }
    assert_true(ks_f32_of_bf16(0x3f80) == 1 && ks_f32_of_bf16(0xc000) == -2 && ks_f32_of_bf16(1) == 0x1p-133f);
}

static void assert_same_layer(ks_weights *streamed, const ks_model *m, int32_t l)
{
    ks_layer s;
    const ks_layer *r = ks_model_layer(m, l);
    if (ks_weights_acquire(streamed, l, &s)) fail_msg("layer %d: %s", l, ks_error_text());
    for (int k = 0; k < MATRICES; k++) {
        const ks_tensor *x = matrix(&s, k), *y = matrix(r, k);
        assert_true(x->rows == y->rows && x->cols == y->cols && x->ld == y->ld && x->dtype == y->dtype);
        if (!y->data) {
            assert_null(x->data);
            continue;
        }
        assert_ptr_not_equal(x->data, y->data);
        assert_memory_equal(x->data, y->data, (size_t)(x->rows * x->ld) * ks_dtype_size(x->dtype));
    }
    assert_true(s.norm1 == r->norm1 && s.q_bias == r->q_bias && s.down_bias == r->down_bias);
    ks_weights_release(streamed, l);
}

static void assert_same_head(ks_weights *streamed, const ks_model *m, int32_t block, int64_t *next)
{
    ks_tensor t;
    int64_t first = -1;
    const ks_tensor head = ks_model_head(m);
    if (ks_weights_acquire_head(streamed, block, &t, &first)) fail_msg("head block %d: %s", block, ks_error_text());
    assert_int_equal(first, *next);
    assert_true(t.rows > 0 && first + t.rows <= head.rows && t.cols == head.cols);
    const size_t row = (size_t)head.ld * ks_dtype_size(head.dtype);
    assert_memory_equal(t.data, (const char *)head.data + (size_t)first * row, (size_t)t.rows * row);
    *next = first + t.rows;
    ks_weights_release_head(streamed, block);
}

static void test_streamed_equals_resident(void **state)
{
    (void)state;
    for (int i = 0; i < NAMES; i++) {
        ks_model *m = open_golden(names[i]);
        const ks_arch *a = ks_model_arch(m);
        ks_weights *w = NULL, *resident = NULL;
        assert_int_equal(ks_weights_open(&w, m, KS_ALL_STREAMED), KS_OK);
        assert_int_equal(ks_weights_open(&resident, m, KS_ALL_RESIDENT), KS_OK);
        assert_int_equal(ks_weights_head_blocks(resident), ks_weights_head_blocks(w));
        assert_true(ks_weights_head_blocks(w) >= 1);

        ks_layer l;
        assert_int_equal(ks_weights_acquire(resident, a->L - 1, &l), KS_OK);
        assert_memory_equal(&l, ks_model_layer(m, a->L - 1), sizeof l);
        ks_weights_release(resident, a->L - 1);

        /* Passes; within each the head goes round twice, as for two chunks of rows. */
        int64_t bytes = 0;
        for (int pass = 0; pass < 3; pass++) {
            assert_int_equal(ks_weights_begin(w, 0, NULL), KS_OK);
            for (int32_t k = 0; k < a->L; k++) assert_same_layer(w, m, k);
            for (int chunk = 0; chunk < 2; chunk++) {
                int64_t next = 0;
                for (int32_t b = 0; b < ks_weights_head_blocks(w); b++) assert_same_head(w, m, b, &next);
                assert_int_equal(next, a->V);
            }
            ks_weights_end(w);
            if (!pass) bytes = ks_weights_bytes_read(w);
        }
        assert_true(bytes > 0 && ks_weights_bytes_read(w) == 3 * bytes);
        assert_int_equal(ks_weights_bytes_read(resident), 0);
        assert_int_equal(ks_weights_acquire(w, 0, &l), KS_EMACHINE); /* outside a pass */
        assert_int_equal(ks_weights_acquire(w, a->L, &l), KS_EMACHINE);
        assert_int_equal(ks_weights_acquire(w, -1, &l), KS_EMACHINE);
        ks_weights_close(w);
        ks_weights_close(resident);
        ks_model_close(m);
    }
}

/* Any part of a model may be streamed: every item is right, stays where it should, and only what is streamed is read. */
static void test_a_part_is_streamed(void **state)
{
    (void)state;
    for (int i = 0; i < NAMES; i++) {
        ks_model *m = open_golden(names[i]);
        const ks_arch *a = ks_model_arch(m);
        int64_t before = -1;
        for (int32_t n = 0; n <= a->L; n++)
            for (int head = 0; head < 2; head++) {
                ks_weights *w = NULL;
                const ks_streamed s = {n, head};
                assert_int_equal(ks_weights_open(&w, m, s), KS_OK);
                assert_int_equal(ks_weights_any(s), n || head);
                assert_int_equal(ks_weights_items(w), a->L + ks_weights_head_blocks(w));
                int32_t streamed = 0, since = 0, gap = 0;
                int64_t bytes = 0;
                for (int pass = 0; pass < 2; pass++) {
                    assert_int_equal(ks_weights_begin(w, 0, NULL), KS_OK);
                    for (int32_t l = 0; l < a->L; l++) {
                        ks_layer x;
                        if (!ks_weights_stay(w, l)) {
                            assert_same_layer(w, m, l);
                            streamed++;
                            if (since > gap) gap = since;
                            since = 0;
                            continue;
                        }
                        since++;
                        assert_int_equal(ks_weights_acquire(w, l, &x), KS_OK);
                        assert_memory_equal(&x, ks_model_layer(m, l), sizeof x);
                        ks_weights_release(w, l);
                    }
                    for (int chunk = 0; chunk < 2; chunk++) {
                        int64_t next = 0;
                        for (int32_t b = 0; b < ks_weights_head_blocks(w); b++) {
                            assert_int_equal(ks_weights_stay(w, a->L + b), !head);
                            assert_same_head(w, m, b, &next);
                        }
                        assert_int_equal(next, a->V);
                    }
                    ks_weights_end(w);
                    if (!pass) bytes = ks_weights_bytes_read(w);
                }
                assert_int_equal(streamed, 2 * n);
                if (n) assert_true(gap == (a->L + n - 1) / n - 1); /* evenly */
                size_t buffers;
                assert_true(!ks_weights_buffers(w, &buffers) == !ks_weights_any(s) && !buffers == !ks_weights_any(s));
                assert_true(!bytes == !ks_weights_any(s));
                if (n > 3) assert_true(ks_weights_bytes_read(w) == 2 * bytes || head); /* fewer have buffers of their own */
                ks_weights_close(w);

                /* The less is streamed, the more memory it takes; a choice for that memory streams no more than this. */
                const int64_t device = ks_weights_predict(m, s, true), host = ks_weights_predict(m, s, false);
                const ks_streamed chosen = ks_weights_choose(m, device, true), other = ks_weights_choose(m, host, false);
                assert_true(ks_weights_predict(m, chosen, true) <= device && ks_weights_predict(m, other, false) <= host);
                assert_true(chosen.head <= s.head && (chosen.layers <= n || chosen.head < s.head));
                if (!head && n > 1) assert_true(before < 0 || device < before);
                if (!head && n) before = device;
            }
        const ks_streamed none = ks_weights_choose(m, 0, true);
        assert_true(none.head && none.layers == a->L);
        ks_model_close(m);
    }
}

static void test_two_may_be_held(void **state)
{
    (void)state;
    ks_model *m = open_golden("a_qwen2");
    ks_weights *w = NULL;
    ks_layer x, y, z;
    assert_int_equal(ks_weights_open(&w, m, KS_ALL_STREAMED), KS_OK);
    assert_int_equal(ks_weights_begin(w, 0, NULL), KS_OK);
    assert_int_equal(ks_weights_acquire(w, 0, &x), KS_OK);
    assert_int_equal(ks_weights_acquire(w, 1, &y), KS_OK);
    assert_int_equal(ks_weights_acquire(w, 2, &z), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "held"));
    const ks_tensor *q = &ks_model_layer(m, 0)->q;
    assert_memory_equal(x.q.data, q->data, (size_t)(q->rows * q->ld) * 2);
    ks_weights_release(w, 0);
    assert_int_equal(ks_weights_acquire(w, 2, &z), KS_OK);
    q = &ks_model_layer(m, 1)->q;
    assert_memory_equal(y.q.data, q->data, (size_t)(q->rows * q->ld) * 2);
    ks_weights_close(w); /* with two held: the engine may leave by an error */
    ks_model_close(m);
}

static void test_a_file_cut_short_is_an_error_not_a_crash(void **state)
{
    (void)state;
    copy c;
    begin(&c, "g_phi3", "cut");
    ks_model *m = open_model(end(&c));
    ks_weights *w = NULL, *resident = NULL;
    assert_int_equal(ks_weights_open(&w, m, KS_ALL_STREAMED), KS_OK);
    assert_int_equal(ks_weights_open(&resident, m, KS_ALL_RESIDENT), KS_OK);
    assert_int_equal(truncate(ks_st_file_at(ks_model_files(m), 0)->path, 100000), 0);
    ks_layer l;
    for (int again = 0; again < 2; again++) {
        int rc = ks_weights_begin(w, 0, NULL);
        for (int32_t i = 0; i < 4 && !rc; i++) {
            rc = ks_weights_acquire(w, i, &l);
            if (!rc) ks_weights_release(w, i);
        }
        assert_int_equal(rc, KS_EMACHINE);
        assert_non_null(strstr(ks_error_text(), "cut/model.safetensors"));
        ks_weights_end(w);
        assert_int_equal(ks_weights_acquire(resident, 3, &l), KS_EMACHINE);
        assert_non_null(strstr(ks_error_text(), "cut/model.safetensors"));
    }
    char *bad = NULL, hex[65];
    assert_int_equal(ks_model_find_nonfinite(m, &bad), KS_EMACHINE);
    assert_int_equal(ks_model_weights_sha256(m, hex), KS_EMACHINE);
    ks_weights_close(w);
    ks_weights_close(resident);
    ks_model_close(m);
}

/* Kilobytes of /proc/self/status, for example "RssFile:". */
static long status_kb(const char *key)
{
    char line[256];
    long kb = -1;
    FILE *f = fopen("/proc/self/status", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key))) kb = strtol(line + strlen(key), NULL, 10);
    fclose(f);
    return kb;
}

/* 24 layers of 1.4 MB and a head as large as four of them: the process must hold two buffers, not the 43 MB of the file. */
static void test_streaming_holds_two_buffers(void **state)
{
    (void)state;
    enum { L = 24 };
    scratch_llama(dir, "large", L, 256, 512, 10000);
    ks_model *m = open_model(scratch_path(dir, "large"));
    const long file_before = status_kb("RssFile:"), before = status_kb("VmRSS:");
    ks_weights *w = NULL;
    assert_int_equal(ks_weights_open(&w, m, KS_ALL_STREAMED), KS_OK);
    const long buffers = (long)(ks_weights_predict(m, KS_ALL_STREAMED, false) / 1024);
    assert_in_range(buffers, 2 * 1200, 2 * 1500);
    assert_in_range(ks_weights_head_blocks(w), 4, 5);
    long most = 0;
    for (int pass = 0; pass < 2; pass++) {
        assert_int_equal(ks_weights_begin(w, 0, NULL), KS_OK);
        for (int32_t l = 0; l < L; l++) {
            ks_layer x;
            assert_int_equal(ks_weights_acquire(w, l, &x), KS_OK);
            ks_weights_release(w, l);
            if (status_kb("VmRSS:") > most) most = status_kb("VmRSS:");
        }
        for (int32_t b = 0; b < ks_weights_head_blocks(w); b++) {
            ks_tensor x;
            int64_t first;
            assert_int_equal(ks_weights_acquire_head(w, b, &x, &first), KS_OK);
            ks_weights_release_head(w, b);
        }
        ks_weights_end(w);
    }
    print_message("file %ld kB, buffers %ld kB, growth of RSS %ld kB, of its file pages %ld kB\n",
                  (long)(ks_st_file_at(ks_model_files(m), 0)->bytes / 1024), buffers, most - before, status_kb("RssFile:") - file_before);
    assert_true(most - before < buffers + 8 * 1024);
    assert_true(status_kb("RssFile:") - file_before < 1024);
    ks_weights_close(w);
    ks_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_binds_every_golden_model),
        cmocka_unit_test(test_binds_the_other_fixtures),
        cmocka_unit_test(test_roles),
        cmocka_unit_test(test_sha256_is_over_the_files_in_order),
        cmocka_unit_test(test_refuses_weights_that_do_not_fit),
        cmocka_unit_test(test_accepts_harmless_tensors),
        cmocka_unit_test(test_finds_what_is_not_finite),
        cmocka_unit_test(test_widening_is_exact),
        cmocka_unit_test(test_streamed_equals_resident),
        cmocka_unit_test(test_a_part_is_streamed),
        cmocka_unit_test(test_two_may_be_held),
        cmocka_unit_test(test_a_file_cut_short_is_an_error_not_a_crash),
        cmocka_unit_test(test_streaming_holds_two_buffers),
    };
    scratch_make(dir);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_remove(dir);
    return failed;
}
