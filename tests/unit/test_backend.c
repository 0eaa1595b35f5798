/* The backend table: names, memory, rows, products, and attention over many items whose rows lie anywhere. */
#include "base/error.h"
#include "input/config.h"
#include "support/numbers.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void test_names(void **state)
{
    (void)state;
    const ks_backend *b = NULL, *c = NULL;
    assert_int_equal(ks_backend_find(&b, "cpu"), KS_OK);
    assert_int_equal(ks_backend_find(&c, "auto"), KS_OK);
    assert_non_null(b);
    assert_non_null(c);
    assert_string_equal(b->name, "cpu");
    assert_int_equal(ks_backend_find(&b, "gpu"), KS_EUSAGE);
    assert_non_null(strstr(ks_error_text(), "\"gpu\""));

    ks_device *dev = NULL;
    assert_int_equal(all_devices.b->open(&dev, &(ks_device_options){.threads = 1, .isa = "sse9"}), KS_EUSAGE);
    assert_non_null(strstr(ks_error_text(), "sse9"));
    assert_int_equal(all_devices.b->open(&dev, &(ks_device_options){.threads = 0}), KS_EUSAGE);
    assert_non_null(strstr(all_devices.b->describe(all_devices.dev[0]), "generic"));
    assert_non_null(strstr(all_devices.b->describe(all_devices.dev[1]), "3 threads"));
}

static void test_memory(void **state)
{
    (void)state;
    float *p = NULL, host[3] = {1, 2, 3}, back[3] = {0};
    assert_int_equal(all_devices.b->alloc(all_devices.dev[0], &p, 3), KS_OK);
    assert_int_equal(all_devices.b->upload(all_devices.dev[0], p, host, 3), KS_OK);
    assert_int_equal(all_devices.b->copy(all_devices.dev[0], p, p + 2, 1), KS_OK);
    assert_int_equal(all_devices.b->zero(all_devices.dev[0], p + 1, 1), KS_OK);
    assert_int_equal(all_devices.b->download(all_devices.dev[0], back, p, 3), KS_OK);
    assert_true(back[0] == 3 && back[1] == 0 && back[2] == 3);
    all_devices.b->free(all_devices.dev[0], p);
    assert_int_equal(all_devices.b->alloc(all_devices.dev[0], &p, SIZE_MAX / 2), KS_EMACHINE);
    assert_int_equal(all_devices.b->alloc(all_devices.dev[0], &p, 0), KS_OK);
    all_devices.b->free(all_devices.dev[0], p);
}

/* bf16 by long division of the value, not of the bits: the nearest number with eight significant bits, ties to even. */
static float bf16_of(float x)
{
    int e;
    if (x == 0 || !isfinite(x)) return x;
    const double m = frexp((double)x, &e);
    return (float)ldexp(nearbyint(ldexp(m, 8)), e - 8);
}

static void test_rows(void **state)
{
    (void)state;
    enum { R = 97, D = 700, N = 300 };
    rng r = {11};
    float *x = rng_floats(&r, R * D, 1), *add = rng_floats(&r, R * D, 1), *d0 = rng_floats(&r, N * D, 1e-3);
    int64_t pick[N], once[R], slot[R];
    for (size_t i = 0; i < N; i++) pick[i] = (int64_t)rng_below(&r, R);
    for (size_t i = 0; i < R; i++) {
        once[i] = (int64_t)(i * 5 % R);
        slot[i] = (int64_t)(i * 3);
    }
    for (int t = 0; t < all_devices.n; t++) {
        float *y = malloc(N * D * sizeof *y), *s = malloc(R * D * sizeof *s), *d = malloc(N * D * sizeof *d),
              *z = malloc(R * D * sizeof *z);
        memcpy(s, x, R * D * sizeof *s);
        memcpy(d, d0, N * D * sizeof *d);
        assert_int_equal(all_devices.b->gather(all_devices.dev[t], y, x, pick, N, D * sizeof *y), 0);
        assert_int_equal(all_devices.b->add(all_devices.dev[t], s, s, add, once, R, D), 0);
        assert_int_equal(all_devices.b->add(all_devices.dev[t], z, x, add, NULL, R, D), 0);
        assert_int_equal(all_devices.b->round_diff(all_devices.dev[t], d, slot, x, once, R, D), 0);
        for (size_t i = 0; i < N; i++) assert_true(same_bits(y + i * D, x + (size_t)pick[i] * D, D * sizeof *y));
        for (size_t i = 0; i < R; i++) {
            for (size_t k = 0; k < D; k++) {
                const size_t at = (size_t)once[i] * D + k, ds = (size_t)slot[i] * D + k;
                assert_true(s[at] == x[at] + add[i * D + k]);
                assert_true(z[i * D + k] == x[i * D + k] + add[i * D + k]);
                assert_true(d[ds] == bf16_of(x[at] + d0[ds]) - x[at]);
            }
        }
        for (size_t i = 1; i < N; i += 3) assert_true(same_bits(d + i * D, d0 + i * D, D * sizeof *d)); /* no slot: untouched */
        free(y), free(s), free(d), free(z);
    }
    free(x), free(add), free(d0);
}

static void test_embed_and_rope(void **state)
{
    (void)state;
    enum { V = 30, D = 52, LD = 60, R = 400, HEADS = 3, E = 10, DIM = 6, TABLE = 50 };
    rng r = {12};
    float *w = rng_floats(&r, V * LD, 1), *x0 = rng_floats(&r, R * HEADS * E, 1), cs[TABLE * DIM / 2], sn[TABLE * DIM / 2];
    uint16_t half[V * LD];
    unsigned char odd[V * LD * 4 + 1]; /* weights lie at any byte */
    int32_t ids[R];
    int64_t rows[R];
    for (size_t i = 0; i < V * LD; i++) {
        uint32_t u;
        memcpy(&u, w + i, 4);
        half[i] = (uint16_t)(u >> 16);
    }
    for (size_t i = 0; i < TABLE * DIM / 2; i++) {
        const double a = rng_uniform(&r) * 7;
        cs[i] = (float)cos(a), sn[i] = (float)sin(a);
    }
    for (size_t i = 0; i < R; i++) {
        ids[i] = (int32_t)rng_below(&r, V);
        rows[i] = (int64_t)rng_below(&r, TABLE);
    }
    for (int t = 0; t < all_devices.n; t++) {
        for (int type = 0; type < 2; type++) {
            memcpy(odd + 1, type ? (void *)w : (void *)half, V * LD * (type ? 4 : 2));
            const ks_tensor e = {odd + 1, type ? KS_F32 : KS_BF16, V, D, LD};
            float *y = malloc(R * D * sizeof *y);
            assert_int_equal(all_devices.b->embed(all_devices.dev[t], y, &e, ids, R, 1.5f), 0);
            for (size_t i = 0; i < R; i++) {
                for (size_t k = 0; k < D; k++) {
                    const size_t at = (size_t)ids[i] * LD + k;
                    assert_true(y[i * D + k] == (type ? w[at] : ks_f32_of_bf16(half[at])) * 1.5f);
                }
            }
            free(y);
        }
        float *x = malloc(R * HEADS * E * sizeof *x);
        memcpy(x, x0, R * HEADS * E * sizeof *x);
        assert_int_equal(all_devices.b->rope(all_devices.dev[t], x, R, HEADS, E, DIM, cs, sn, rows), 0);
        for (size_t i = 0; i < R * HEADS; i++) {
            const float *a = x0 + i * E, *b = x + i * E;
            for (size_t k = 0; k < DIM / 2; k++) {
                const double c = (double)cs[(size_t)rows[i / HEADS] * DIM / 2 + k], s = (double)sn[(size_t)rows[i / HEADS] * DIM / 2 + k];
                const double u = (double)a[k], v = (double)a[k + DIM / 2];
                assert_true(fabs((double)b[k] - (u * c - v * s)) <= 2e-7 * (fabs(u) + fabs(v)));
                assert_true(fabs((double)b[k + DIM / 2] - (v * c + u * s)) <= 2e-7 * (fabs(u) + fabs(v)));
            }
            assert_true(same_bits(a + DIM, b + DIM, (E - DIM) * sizeof *a)); /* beyond dim: as it was */
        }
        free(x);
    }
    free(w), free(x0);
}

/* What the product itself computes is tested in test_gemm; here: bias, leading dimension, and the grade. */
static void test_linear(void **state)
{
    (void)state;
    enum { M = 33, N = 45, K = 300, LDY = 50 };
    rng r = {13};
    float *x = rng_floats(&r, M * K, 1), *w = rng_floats(&r, N * K, 1), *bias = rng_floats(&r, N, 1), *y0 = rng_floats(&r, M * LDY, 1);
    float *rounded = malloc(M * K * sizeof *rounded);
    for (size_t i = 0; i < M * K; i++) rounded[i] = bf16_of(x[i]);
    const ks_tensor t = {w, KS_F32, N, K, K};
    for (int d = 0; d < all_devices.n; d++) {
        for (int grade = KS_GRADE_STATE; grade <= KS_GRADE_FAST; grade++) {
            float *y = malloc(M * LDY * sizeof *y), *plain = malloc(M * LDY * sizeof *plain);
            memcpy(y, y0, M * LDY * sizeof *y);
            assert_int_equal(all_devices.b->linear(all_devices.dev[d], plain, LDY, x, KS_FORM_F32, &t, NULL, M, grade), 0);
            assert_int_equal(all_devices.b->linear(all_devices.dev[d], y, LDY, x, KS_FORM_F32, &t, bias, M, grade), 0);
            const float *in = grade == KS_GRADE_FAST ? rounded : x;
            for (size_t m = 0; m < M; m++) {
                for (size_t n = 0; n < N; n++) {
                    double sum = 0, size = 0;
                    for (size_t k = 0; k < K; k++) {
                        sum += (double)in[m * K + k] * (double)w[n * K + k];
                        size += fabs((double)in[m * K + k] * (double)w[n * K + k]);
                    }
                    const size_t at = m * LDY + n;
                    assert_true(fabs((double)plain[at] - sum) <= 2e-7 * size);
                    assert_true(y[at] == plain[at] + bias[n]);
                }
                assert_true(same_bits(y + m * LDY + N, y0 + m * LDY + N, (LDY - N) * sizeof *y)); /* beyond N: untouched */
            }
            free(y), free(plain);
        }
    }
    free(x), free(w), free(bias), free(y0), free(rounded);
}

/* Several samples and branches in one call, their rows shuffled, give each the bits that it has alone; a knockout of everything gives
 * minus the trunk's output; where nothing reaches a row the effect is 0; weights of edges are the baseline's. */
static void test_attention_items(void **state)
{
    (void)state;
    enum { S = 5, H = 4, G = 2, E = 24, Q = H * E, KV = G * E, B = 12 };
    static const int32_t T[S] = {17, 3, 40, 1, 28};
    rng r = {14};
    const ks_attention at = {H, G, E, 0, 0.2f};
    ks_attention_item items[S];
    int64_t rows = 0, logs = 5;
    for (int s = 0; s < S; s++) {
        items[s] = (ks_attention_item){.row0 = rows + 2, .T = T[s], .logp = logs};
        rows += T[s] + 2;
        logs += H * T[s] * KS_PADDED(T[s]) + 3;
    }
    float *q = rng_floats(&r, (size_t)rows * Q, 1), *k = rng_floats(&r, (size_t)rows * KV, 1), *v = rng_floats(&r, (size_t)rows * KV, 1);
    float *dq = rng_floats(&r, 1000 * Q, 1e-3), *dk = rng_floats(&r, 1000 * KV, 1e-3), *dv = rng_floats(&r, 1000 * KV, 1e-3);

    /* Every query loses every key, except in branches 9 to 11, where nothing at all happens below position 2. */
    int32_t start[41], key[40 * 40], pos[40], n = 0;
    for (int32_t t = 0; t < 40; t++) {
        start[t] = n;
        for (int32_t j = 0; j < 40; j++) key[n++] = j;
        pos[t] = t;
    }
    start[40] = n;
    const ks_edges every = {start, key};
    ks_branch_item branch[B];
    int64_t next = 7, out_next = 3;
    for (int b = 0; b < B; b++) {
        const int s = b % S;
        const int32_t from = T[s] > 2 ? 2 : 0;
        branch[b] = (ks_branch_item){.trunk = items[s],
                                     .in_pos = pos + from,
                                     .n_in = T[s] - from,
                                     .in_row = next,
                                     .out_pos = pos,
                                     .n_out = T[s],
                                     .out_row = out_next,
                                     .q_row = next + 1};
        if (b < 9) {
            branch[b].edges = &every;
            branch[b].kind = b % 3 == 0 ? KS_KNOCKOUT : b % 3 == 1 ? KS_SCALE : KS_SET;
            branch[b].value = b % 3 == 2 ? 0.01 : 0.5;
        }
        next += T[s] + 1;
        out_next += T[s] + 1;
    }

    for (int d = 0; d < all_devices.n; d++) {
        float *out = calloc((size_t)rows * Q, sizeof *out), *logp = calloc((size_t)logs, sizeof *logp),
              *da = calloc((size_t)out_next * Q, sizeof *da);
        assert_int_equal(all_devices.b->attention(all_devices.dev[d], out, KS_FORM_F32, logp, q, k, v, items, S, &at), 0);
        assert_int_equal(all_devices.b->attention_diff(all_devices.dev[d], da, KS_FORM_F32, dq, dk, dv, q, k, v, logp, branch, B, &at), 0);
        for (int s = 0; s < S; s++) { /* each sample alone */
            float *o1 = calloc((size_t)rows * Q, sizeof *o1), *l1 = calloc((size_t)logs, sizeof *l1);
            const size_t o0 = (size_t)items[s].row0 * Q, l0 = (size_t)items[s].logp, ln = (size_t)(H * T[s] * KS_PADDED(T[s]));
            assert_int_equal(all_devices.b->attention(all_devices.dev[d], o1, KS_FORM_F32, l1, q, k, v, items + s, 1, &at), 0);
            assert_true(same_bits(o1 + o0, out + o0, (size_t)T[s] * Q * sizeof *out));
            assert_true(same_bits(l1 + l0, logp + l0, ln * sizeof *logp));
            assert_true(out[o0 - 1] == 0 && logp[l0 - 1] == 0 && logp[l0 + ln] == 0); /* nothing beside it was touched */
            free(o1), free(l1);
        }
        for (int b = 0; b < B; b++) {
            const int s = b % S;
            float *a1 = calloc((size_t)out_next * Q, sizeof *a1), *mine = da + (size_t)branch[b].out_row * Q;
            assert_int_equal(
                all_devices.b->attention_diff(all_devices.dev[d], a1, KS_FORM_F32, dq, dk, dv, q, k, v, logp, branch + b, 1, &at), 0);
            assert_true(same_bits(a1 + (size_t)branch[b].out_row * Q, mine, (size_t)T[s] * Q * sizeof *da));
            assert_true(mine[-1] == 0);
            if (b < 9 && b % 3 == 0) { /* nothing left: the output goes */
                for (size_t i = 0; i < (size_t)T[s] * Q; i++) {
                    assert_true(fabsf(mine[i] + out[(size_t)items[s].row0 * Q + i]) <= 5e-6f);
                }
            }
            if (b < 9 && b % 3 == 1) { /* scale of a whole row: as if there were no edges */
                ks_branch_item none = branch[b];
                none.edges = NULL;
                assert_int_equal(
                    all_devices.b->attention_diff(all_devices.dev[d], a1, KS_FORM_F32, dq, dk, dv, q, k, v, logp, &none, 1, &at), 0);
                assert_true(same_bits(a1 + (size_t)branch[b].out_row * Q, mine, (size_t)T[s] * Q * sizeof *da));
            }
            if (b >= 9) {
                for (size_t i = 0; i < (T[s] > 2 ? 2 * (size_t)Q : 0); i++) assert_true(mine[i] == 0);
                if (T[s] > 2) assert_true(mine[2 * Q] != 0);
            }
            free(a1);
        }
        /* The first sample: pairs that are seen, and some that are not; no keys; no queries. */
        const int32_t query[] = {5, 16}, keys[] = {0, 4, 16};
        const ks_edge_item edges[] = {{items[0], 2, query, keys, 2, 3}, {items[0], 0, query, keys, 2, 0}, {items[0], 1, query, keys, 0, 3}};
        double strength[3][H];
        assert_int_equal(all_devices.b->edge_weights(all_devices.dev[d], strength[0], logp, edges, 3, &at), 0);
        for (int h = 0; h < H; h++) {
            const int64_t P = KS_PADDED(T[0]), pairs[] = {5 * P, 5 * P + 4, 16 * P, 16 * P + 4, 16 * P + 16};
            double want = 0;
            for (int i = 0; i < 5; i++) want += exp((double)logp[items[0].logp + h * T[0] * P + pairs[i]]) / 6;
            assert_true(fabs(strength[2][h] - want) <= 1e-12);
            assert_true(strength[0][h] == 0 && strength[1][h] == 0);
        }
        free(out), free(logp), free(da);
    }
    free(q), free(k), free(v), free(dq), free(dk), free(dv);
}

/* An intervention that changes nothing gives exactly 0 in every head, and heads that are not chosen stay 0. */
static void test_nothing_changes(void **state)
{
    (void)state;
    enum { T = 30, H = 3, G = 1, E = 16, Q = H * E };
    rng r = {15};
    const ks_attention at = {H, G, E, 8, 0.25f};
    float *q = rng_floats(&r, T * Q, 1), *k = rng_floats(&r, T * E, 1), *v = rng_floats(&r, T * E, 1);
    float *logp = malloc(H * T * 32 * sizeof *logp), *out = malloc(T * Q * sizeof *out), *da = malloc(T * Q * sizeof *da);
    float *zero = calloc(T * Q, sizeof *zero);
    const ks_attention_item item = {.T = T};
    int32_t pos[T], start[T + 1], key[T], hidden[T + 1];
    for (int32_t t = 0; t < T; t++) {
        pos[t] = t;
        start[t] = t, key[t] = t > 3 ? t - 2 : 0;
        hidden[t] = 0;
    }
    start[T] = T, hidden[T] = 0;
    const ks_edges edges = {start, key}, none = {hidden, key};
    const uint8_t second[H] = {0, 1, 0};
    for (int d = 0; d < all_devices.n; d++) {
        assert_int_equal(all_devices.b->attention(all_devices.dev[d], out, KS_FORM_F32, logp, q, k, v, &item, 1, &at), 0);
        const ks_branch_item b[] = {
            {.trunk = item, .out_pos = pos, .n_out = T, .edges = &edges, .kind = KS_SCALE, .value = 1},
            {.trunk = item, .out_pos = pos, .n_out = T, .edges = &none, .kind = KS_KNOCKOUT},
            {.trunk = item, .out_pos = pos, .n_out = T, .in_pos = pos, .n_in = T, .edges = &edges, .kind = KS_SCALE, .value = 1},
            {.trunk = item, .out_pos = pos, .n_out = T, .edges = &edges, .kind = KS_KNOCKOUT, .heads = second},
        };
        for (int c = 0; c < 4; c++) {
            memset(da, 0xff, T * Q * sizeof *da);
            assert_int_equal(
                all_devices.b->attention_diff(all_devices.dev[d], da, KS_FORM_F32, zero, zero, zero, q, k, v, logp, b + c, 1, &at), 0);
            for (size_t i = 0; i < T * Q; i++) {
                const bool acts = c == 3 && i % Q / E == 1;
                if (!acts) assert_true(da[i] == 0);
                else assert_true(da[i] != 0 && isfinite(da[i]));
            }
        }
    }
    free(q), free(k), free(v), free(logp), free(out), free(da), free(zero);
}

/* Empty batches are no work. */
static void test_empty(void **state)
{
    (void)state;
    const ks_tensor w = {"", KS_BF16, 0, 8, 8};
    const ks_attention at = {2, 1, 4, 0, 1};
    const ks_norm p = {.weight = (const float[8]){0}};
    for (int d = 0; d < all_devices.n; d++) {
        ks_device *dev = all_devices.dev[d];
        assert_int_equal(all_devices.b->linear(dev, NULL, 8, NULL, KS_FORM_F32, &w, NULL, 0, KS_GRADE_FAST), 0);
        assert_int_equal(all_devices.b->norm(dev, NULL, KS_FORM_F32, NULL, NULL, NULL, 0, 8, &p), 0);
        assert_int_equal(all_devices.b->gather(dev, NULL, NULL, NULL, 0, 8), 0);
        assert_int_equal(all_devices.b->attention(dev, NULL, KS_FORM_F32, NULL, NULL, NULL, NULL, NULL, 0, &at), 0);
        assert_int_equal(all_devices.b->attention_diff(dev, NULL, KS_FORM_F32, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, &at), 0);
        assert_int_equal(all_devices.b->measure(dev, NULL, NULL, NULL, NULL, NULL, 0, 100), 0);
        assert_int_equal(all_devices.b->baseline(dev, NULL, NULL, 0, 100), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),           cmocka_unit_test(test_memory), cmocka_unit_test(test_rows),
        cmocka_unit_test(test_embed_and_rope),  cmocka_unit_test(test_linear), cmocka_unit_test(test_attention_items),
        cmocka_unit_test(test_nothing_changes), cmocka_unit_test(test_empty),
    };
    return cmocka_run_group_tests(tests, devices_setup, devices_teardown);
}
