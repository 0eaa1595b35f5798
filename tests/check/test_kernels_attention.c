/* attention.cu, attention_diff.cu and edge_weights.cu against their CPU twins on random batches: grouped heads, sliding windows, partial
 * positions, attention sinks, every kind of intervention, effects from 1e-30 to 1e2; and a row's bits against all that lies beside it. */
#include "check/device.h"
#include "check/parts.h"
#include "check/tolerances.h"
#include "input/config.h"
#include "kernels/kernels.h"
#include "support/numbers.h"

#include <math.h>
#include <stdio.h>

enum { SAMPLES = 2, BRANCHES = 4, LIST = 1 << 20 };

/* ---- a random batch: samples, and branches beside them ---- */

typedef struct batch {
    ks_attention at;
    bool sink;
    double effect;
    ks_attention_item sample[SAMPLES];
    ks_branch_item branch[BRANCHES];
    ks_edges edges[BRANCHES];
    ks_k_sample k_sample[SAMPLES];
    ks_k_branch k_branch[BRANCHES];
    int32_t *lists, n_lists; /* [LIST] */
    size_t rows, n_logp, n_in, n_q, n_out;
    int32_t longest, most_out;
    float *q, *k, *v, *logp, *out, *dq, *dk, *dv, *da; /* logp, out, da: the twin's */
    struct {
        const float *q, *k, *v, *logp, *dq, *dk, *dv;
        const int32_t *lists;
        const ks_k_sample *sample;
        const ks_k_branch *branch;
    } on; /* the device */
} batch;

static float *random_floats(rng *r, size_t n, double scale)
{
    return host_own(rng_floats(r, n, scale));
}

static float *on_device(const float *from, size_t n)
{
    return device_new(from, n * sizeof *from);
}

/* Appends ascending positions from `from` on, a share of them; returns their offset. */
static int32_t positions(batch *b, rng *r, int32_t from, int32_t T, double share, int32_t *n)
{
    const int32_t at = b->n_lists;
    for (int32_t t = from; t < T; t++) {
        if (rng_uniform(r) < share) b->lists[b->n_lists++] = t;
    }
    *n = b->n_lists - at;
    assert_true(b->n_lists < LIST);
    return at;
}

static void branch_new(batch *b, rng *r, int i, int kind)
{
    static const double factors[] = {0, 1e-8, 0.3, 0.999, 1, 4, 1e4};
    const int s = (int)rng_below(r, SAMPLES);
    const int32_t T = b->sample[s].T, W = b->at.window;
    ks_k_branch *k = &b->k_branch[i];
    *k = (ks_k_branch){.trunk = b->k_sample[s], .in_row = (int64_t)b->n_in, .out_row = (int64_t)b->n_out, .q_row = (int64_t)b->n_q};
    k->edge_start = k->heads = -1;
    k->kind = kind < 0 ? 0 : kind;
    k->in_pos = positions(b, r, (int32_t)rng_below(r, (size_t)T), T, b->effect == 0 ? 0 : rng_below(r, 2) ? 1 : 0.4, &k->n_in);
    k->out_pos = positions(b, r, (int32_t)rng_below(r, (size_t)T), T, rng_below(r, 2) ? 1 : 0.5, &k->n_out);
    int32_t *start = NULL;
    if (kind >= 0) {
        const double density = (double[]){0.05, 0.5, 1}[rng_below(r, 3)];
        int32_t most = 1;
        start = b->lists + (k->edge_start = b->n_lists);
        b->n_lists += T + 1;
        k->edge_keys = b->n_lists;
        start[0] = 0;
        for (int32_t t = 0; t < T; t++) {
            int32_t n;
            const int32_t at = positions(b, r, 0, T, density == 1 && !rng_below(r, 20) ? 0.95 : density, &n);
            int32_t seen = 0;
            for (int32_t j = 0; j < n; j++) seen += b->lists[at + j] <= t && (!W || b->lists[at + j] > t - W);
            start[t + 1] = start[t] + n;
            most = seen > most ? seen : most;
        }
        if (kind == KS_SCALE) k->value = factors[rng_below(r, 7)];
        if (kind == KS_SET) k->value = rng_below(r, 3) ? rng_uniform(r) / most : rng_below(r, 2) ? 0 : 1.0 / most;
    }
    b->edges[i] = (ks_edges){start, b->lists + k->edge_keys};
    b->branch[i] = (ks_branch_item){.trunk = b->sample[s],
                                    .in_pos = b->lists + k->in_pos,
                                    .n_in = k->n_in,
                                    .in_row = k->in_row,
                                    .out_pos = b->lists + k->out_pos,
                                    .n_out = k->n_out,
                                    .out_row = k->out_row,
                                    .q_row = k->q_row,
                                    .edges = kind >= 0 ? &b->edges[i] : NULL,
                                    .kind = k->kind,
                                    .value = k->value};
    if (kind >= 0 && rng_below(r, 2)) { /* heads: bytes for the twin, numbers for the kernel */
        k->heads = b->n_lists;
        uint8_t *heads = (uint8_t *)(b->lists + b->n_lists + b->at.H);
        for (int32_t h = 0; h < b->at.H; h++) b->lists[k->heads + h] = heads[h] = rng_below(r, 2) != 0;
        b->branch[i].heads = heads;
        b->n_lists += 2 * b->at.H;
    }
    for (int32_t o = 0, in = 0; o < k->n_out; o++) {
        while (in < k->n_in && b->branch[i].in_pos[in] < b->branch[i].out_pos[o]) in++;
        b->n_q += in < k->n_in && b->branch[i].in_pos[in] == b->branch[i].out_pos[o];
    }
    b->n_in += (size_t)k->n_in;
    b->n_out += (size_t)k->n_out;
    b->most_out = k->n_out > b->most_out ? k->n_out : b->most_out;
}

static batch batch_new(rng *r, const int32_t shape[3], int32_t T, int kind, double effect, bool sink)
{
    batch b = {.sink = sink, .effect = effect, .at = {.H = shape[0], .G = shape[1], .E = shape[2]}};
    b.lists = host_own(calloc(LIST, sizeof *b.lists));
    b.at.scale = (float)(1 / sqrt((double)b.at.E));
    b.at.window = rng_below(r, 3) ? 0 : 1 + (int32_t)rng_below(r, (size_t)T);
    for (int i = 0; i < SAMPLES; i++) {
        const int32_t t = i ? 1 + (int32_t)rng_below(r, (size_t)T) : T;
        b.sample[i] = (ks_attention_item){.row0 = (int64_t)b.rows, .T = t, .logp = (int64_t)b.n_logp};
        b.k_sample[i] = (ks_k_sample){.row0 = (int64_t)b.rows, .T = t, .logp = (int64_t)b.n_logp};
        b.rows += (size_t)t;
        b.n_logp += (size_t)(b.at.H * t * KS_PADDED(t));
    }
    b.longest = T;
    const size_t E = (size_t)b.at.E, Q = (size_t)b.at.H * E, KV = (size_t)b.at.G * E;
    b.q = random_floats(r, b.rows * Q, 1.5);
    b.k = random_floats(r, b.rows * KV, 1.5);
    b.v = random_floats(r, b.rows * KV, 1);
    if (sink) { /* all queries look at key 0 with a weight of about 1 - 1e-6 */
        for (size_t h = 0; h < b.rows * (size_t)b.at.H; h++) b.q[h * E] = 4;
        for (int i = 0; i < SAMPLES; i++) {
            for (size_t g = 0; g < (size_t)b.at.G; g++) b.k[((size_t)b.sample[i].row0 * (size_t)b.at.G + g) * E] += 4.5f * sqrtf((float)E);
        }
    }
    for (int i = 0; i < BRANCHES; i++) branch_new(&b, r, i, kind);
    b.dq = random_floats(r, b.n_q * Q, effect);
    b.dk = random_floats(r, b.n_in * KV, effect);
    b.dv = random_floats(r, b.n_in * KV, effect);
    b.out = host_new(NULL, b.rows * Q * sizeof(float));
    b.logp = host_new(NULL, b.n_logp * sizeof(float));
    b.da = host_new(NULL, b.n_out * Q * sizeof(float));
    assert_int_equal(all_devices.b->attention(all_devices.dev[0], b.out, KS_FORM_F32, b.logp, b.q, b.k, b.v, b.sample, SAMPLES, &b.at), 0);
    assert_int_equal(all_devices.b->attention_diff(all_devices.dev[0], b.da, KS_FORM_F32, b.dq, b.dk, b.dv, b.q, b.k, b.v, b.logp, b.branch,
                                                   BRANCHES, &b.at),
                     0);
    b.on.q = on_device(b.q, b.rows * Q);
    b.on.k = on_device(b.k, b.rows * KV);
    b.on.v = on_device(b.v, b.rows * KV);
    b.on.logp = on_device(b.logp, b.n_logp);
    b.on.dq = on_device(b.dq, b.n_q * Q);
    b.on.dk = on_device(b.dk, b.n_in * KV);
    b.on.dv = on_device(b.dv, b.n_in * KV);
    b.on.lists = device_new(b.lists, (size_t)b.n_lists * sizeof *b.lists);
    b.on.sample = device_new(b.k_sample, sizeof b.k_sample);
    b.on.branch = device_new(b.k_branch, sizeof b.k_branch);
    return b;
}

/* The kernel on n branches from `first` on, beside the twin's logp. da on the device. */
static void run_diff(const batch *b, void *da, int form, int first, size_t n, int32_t longest, int32_t most_out)
{
    device_run(ks_k_attention_diff, da, form, b->on.dq, b->on.dk, b->on.dv, b->on.q, b->on.k, b->on.v, b->on.logp, b->on.branch + first,
               b->on.lists, n, longest, most_out, b->at.H, b->at.G, b->at.E, b->at.window, b->at.scale);
}

/* out and logp on the device. */
static void run_states(const batch *b, void *out, int form, float *logp, int first, size_t n, int32_t longest)
{
    device_run(ks_k_attention, out, form, logp, b->on.q, b->on.k, b->on.v, b->on.sample + first, n, longest, b->at.H, b->at.G, b->at.E,
               b->at.window, b->at.scale);
}

/* Largest distance of a row of n numbers from the twin's; a row of zeros must be one. */
static void compare(worst *w, const float *got, const float *twin, size_t rows, size_t n, const char *what)
{
    long double *want = malloc((n ? n : 1) * sizeof *want);
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < n; j++) want[j] = (long double)twin[i * n + j];
        worst_of(w, distance(got + i * n, want, n), "%s, row %zu", what, i);
    }
    free(want);
}

/* Changes of scores above 1: effects are what long double judges by another limit (tests/unit/test_attention.c). */
static bool large(const batch *b)
{
    return b->effect > 0.02;
}

static const int32_t SHAPES[][3] = {{4, 2, 64},  {2, 2, 80}, {3, 1, 96}, {4, 4, 16}, {2, 1, 128},
                                    {2, 1, 256}, {5, 1, 1},  {3, 3, 20}, {2, 1, 33}, {7, 1, 8}};
enum { N_SHAPES = sizeof SHAPES / sizeof *SHAPES };

/* ---- tests ---- */

static void check_states(batch *b, worst *w_out, worst *w_logp, const char *what)
{
    const size_t n_out = b->rows * (size_t)(b->at.H * b->at.E), bytes = n_out * sizeof(float), logp_bytes = b->n_logp * sizeof(float);
    float *d_out = device_new(NULL, bytes), *d_logp = device_new(NULL, logp_bytes);
    run_states(b, d_out, KS_FORM_F32, d_logp, 0, SAMPLES, b->longest);
    const float *out = device_read(d_out, bytes), *logp = device_read(d_logp, logp_bytes);
    compare(w_out, out, b->out, b->rows, n_out / b->rows, what);
    for (size_t i = 0; i < b->n_logp; i++) {
        if (isinf(b->logp[i])) assert_true(isinf(logp[i]) && logp[i] < 0);
        else worst_of(w_logp, fabs((double)logp[i] - (double)b->logp[i]) / (1 + fabs((double)b->logp[i])), "%s, %zu", what, i);
    }
    /* Alone, in tiles of another size, with threads and blocks in another order. */
    d_out = device_new(NULL, bytes);
    d_logp = device_new(NULL, logp_bytes);
    device_shuffle(2);
    for (int i = 0; i < SAMPLES; i++) run_states(b, d_out, KS_FORM_F32, d_logp, i, 1, i ? b->sample[i].T : 4096);
    assert_true(same_bits(out, device_read(d_out, bytes), bytes));
    assert_true(same_bits(logp, device_read(d_logp, logp_bytes), logp_bytes));
    for (int form = 1; form <= 3; form++) {
        void *parts = device_new(NULL, n_out * ks_form_bytes(form));
        run_states(b, parts, form, d_logp, 0, SAMPLES, b->longest);
        assert_parts(what, parts, form, out, b->rows, n_out / b->rows);
    }
}

static void test_states(void **state)
{
    (void)state;
    rng r = {1};
    worst w_out = {0}, w_logp = {0};
    for (int c = 0; c < 3 * N_SHAPES; c++) {
        char what[60];
        const int32_t T = 1 + (int32_t)rng_below(&r, c % 10 ? 70 : 200);
        batch b = batch_new(&r, SHAPES[c % N_SHAPES], T, -1, 0, c % 4 == 0);
        snprintf(what, sizeof what, "case %d, E %d, T %d", c, b.at.E, T);
        check_states(&b, &w_out, &w_logp, what);
        device_end();
    }
    assert_below("attention of states", &w_out, KS_TOLERANCE_STATE);
    assert_below("log weights", &w_logp, KS_TOLERANCE_LOGP);
}

static void check_effects(batch *b, worst w[3], const char *what)
{
    const size_t Q = (size_t)(b->at.H * b->at.E), bytes = b->n_out * Q * sizeof(float);
    float *d_da = device_new(NULL, bytes);
    run_diff(b, d_da, KS_FORM_F32, 0, BRANCHES, b->longest, b->most_out);
    const float *da = device_read(d_da, bytes);
    compare(&w[large(b) ? 2 : b->sink || b->at.E == 1], da, b->da, b->n_out, Q, what);
    /* Alone, in tiles of another size, on a larger grid, with threads and blocks in another order. */
    d_da = device_new(NULL, bytes);
    device_shuffle(2);
    for (int i = 0; i < BRANCHES; i++) {
        const ks_k_branch *k = &b->k_branch[i];
        run_diff(b, d_da, KS_FORM_F32, i, 1, i % 2 ? k->trunk.T : 4096, i % 2 ? k->n_out : k->n_out + 9);
    }
    assert_true(same_bits(da, device_read(d_da, bytes), bytes));
    const int form = 1 + (int)(b->rows % 3);
    void *parts = device_new(NULL, b->n_out * Q * ks_form_bytes(form));
    run_diff(b, parts, form, 0, BRANCHES, b->longest, b->most_out);
    assert_parts(what, parts, form, da, b->n_out, Q);
}

static void test_effects(void **state)
{
    (void)state;
    static const double effects[] = {0, 1e-30, 1e-20, 1e-12, 1e-6, 1e-3, 2e-2, 0.3, 2, 100};
    static const int kinds[] = {-1, KS_KNOCKOUT, KS_SCALE, KS_SET};
    rng r = {2};
    worst w[3] = {{0}};
    for (int c = 0; c < 240; c++) {
        char what[80];
        const int32_t T = c % 60 ? 1 + (int32_t)rng_below(&r, 70) : 300;
        batch b = batch_new(&r, SHAPES[rng_below(&r, c % 60 ? N_SHAPES : 3)], T, kinds[c % 4], effects[c / 4 % 10], c / 40 % 2);
        snprintf(what, sizeof what, "case %d, kind %d, effect %g, sink %d, E %d, T %d", c, kinds[c % 4], b.effect, b.sink, b.at.E, T);
        check_effects(&b, w, what);
        device_end();
    }
    assert_below("effects, |ds| <= 1", &w[0], KS_TOLERANCE_DIFF);
    assert_below("effects, |ds| <= 1, sink", &w[1], KS_TOLERANCE_SINK);
    assert_below("effects, |ds| > 1 somewhere", &w[2], KS_TOLERANCE_LARGE);
}

/* The last query of T sees scores `score` and their changes `ds`; key `removed` is knocked out (-1: none). */
static void special(worst *w, int32_t T, const float *score, const float *ds, int32_t removed, const char *what)
{
    enum { E = 4 };
    const ks_attention at = {.H = 1, .G = 1, .E = E, .scale = 1};
    rng r = {5};
    const size_t n = (size_t)T * E, n_logp = (size_t)(T * KS_PADDED(T)), n_lists = (size_t)(2 * T + 2);
    float *q = host_own(calloc(n, sizeof *q)), *k = host_own(calloc(n, sizeof *k)), *v = random_floats(&r, n, 1);
    float *dk = host_own(calloc(n, sizeof *dk)), *dv = host_own(calloc(n, sizeof *dv));
    float *out = host_new(NULL, n * sizeof *out), *logp = host_new(NULL, n_logp * sizeof *logp), da[E], twin[E];
    /* In the lists: positions, the start of each query's edges, the edge. */
    int32_t *lists = host_own(calloc(n_lists, sizeof *lists)), *start = lists + T;
    for (int32_t j = 0; j < T; j++) {
        q[j * E] = 1;
        k[j * E] = score[j];
        dk[j * E] = ds[j];
        lists[j] = j;
    }
    start[T] = removed >= 0;
    start[T + 1] = removed;
    const ks_edges edges = {start, start + T + 1};
    const ks_attention_item item = {.T = T};
    const ks_branch_item branch = {
        .trunk = item, .in_pos = lists, .n_in = T - 1, .out_pos = lists + T - 1, .n_out = 1, .edges = &edges, .kind = KS_KNOCKOUT};
    const ks_k_branch b = {.trunk = {.T = T},
                           .n_in = T - 1,
                           .n_out = 1,
                           .out_pos = T - 1,
                           .edge_start = T,
                           .edge_keys = 2 * T + 1,
                           .heads = -1,
                           .kind = KS_KNOCKOUT};
    assert_int_equal(all_devices.b->attention(all_devices.dev[0], out, KS_FORM_F32, logp, q, k, v, &item, 1, &at), 0);
    assert_int_equal(all_devices.b->attention_diff(all_devices.dev[0], twin, KS_FORM_F32, NULL, dk, dv, q, k, v, logp, &branch, 1, &at), 0);
    const float *d_q = on_device(q, n), *d_k = on_device(k, n), *d_v = on_device(v, n), *d_dk = on_device(dk, n), *d_dv = on_device(dv, n);
    const float *d_logp = on_device(logp, n_logp);
    const int32_t *d_lists = device_new(lists, n_lists * sizeof *lists);
    const ks_k_branch *d_b = device_new(&b, sizeof b);
    float *d_da = device_new(NULL, sizeof da);
    device_run(ks_k_attention_diff, d_da, KS_FORM_F32, NULL, d_dk, d_dv, d_q, d_k, d_v, d_logp, d_b, d_lists, 1, T, 1, 1, 1, E, 0,
               at.scale);
    device_get(da, d_da, sizeof da);
    compare(w, da, twin, 1, E, what);
    device_end();
}

/* Rows that the plain formulas lose; where random batches seldom come. */
static void test_special_rows(void **state)
{
    (void)state;
    enum { T = 1000 };
    float score[T] = {0}, ds[T] = {0};
    worst w = {0};
    ds[0] = 50; /* one key takes all from a thousand equal ones */
    special(&w, T, score, ds, -1, "little is left");
    ds[0] = 0;
    score[0] = 100; /* the rest of what is removed is below the smallest normal float */
    for (int j = 1; j < T; j++) score[j] = (float)(j % 7);
    special(&w, T, score, ds, 0, "nearly all is removed");
    score[0] = -40; /* a removed key of no weight moves a lot, the others hardly */
    ds[0] = 100;
    for (int j = 1; j < T; j++) ds[j] = 1e-9f * (float)(j % 11);
    special(&w, T, score, ds, 0, "a removed key rises");
    assert_below("special rows", &w, KS_TOLERANCE_DIFF);
}

/* Samples so long that blocks have fewer rows, up to those of which a block holds one; then an error. */
static void test_lengths(void **state)
{
    (void)state;
    static const int32_t lengths[] = {700, 1500, 3000, 5000};
    rng r = {3};
    worst w = {0};
    for (int c = 0; c < 4; c++) {
        enum { E = 4, N = 3 };
        const int32_t T = lengths[c];
        const size_t P = (size_t)KS_PADDED(T);
        const ks_attention at = {.H = 1, .G = 1, .E = E, .scale = 0.5f};
        const float *x[3], *d[3], *d_x[3], *d_d[3];
        float *logp = host_new(NULL, (size_t)T * P * sizeof *logp), *out = host_new(NULL, (size_t)T * E * sizeof *out);
        float da[N * E], twin[N * E];
        for (int i = 0; i < 3; i++) {
            x[i] = random_floats(&r, (size_t)T * E, 1);
            d[i] = random_floats(&r, N * E, 0.1);
            d_x[i] = on_device(x[i], (size_t)T * E);
            d_d[i] = on_device(d[i], N * E);
        }
        int32_t pos[N] = {T / 3, T - 2, T - 1};
        const ks_attention_item item = {.T = T};
        const ks_branch_item branch = {.trunk = item, .in_pos = pos, .n_in = N, .out_pos = pos, .n_out = N};
        const ks_k_branch k = {.trunk = {.T = T}, .n_in = N, .n_out = N, .edge_start = -1, .heads = -1};
        assert_int_equal(all_devices.b->attention(all_devices.dev[0], out, KS_FORM_F32, logp, x[0], x[1], x[2], &item, 1, &at), 0);
        assert_int_equal(
            all_devices.b->attention_diff(all_devices.dev[0], twin, KS_FORM_F32, d[0], d[1], d[2], x[0], x[1], x[2], logp, &branch, 1, &at),
            0);
        const float *d_logp = on_device(logp, (size_t)T * P);
        const ks_k_branch *d_k = device_new(&k, sizeof k);
        const int32_t *d_pos = device_new(pos, sizeof pos);
        float *d_da = device_new(NULL, sizeof da);
        device_run(ks_k_attention_diff, d_da, KS_FORM_F32, d_d[0], d_d[1], d_d[2], d_x[0], d_x[1], d_x[2], d_logp, d_k, d_pos, 1, T, N, 1,
                   1, E, 0, at.scale);
        device_get(da, d_da, sizeof da);
        compare(&w, da, twin, N, E, "long");
        device_end();
    }
    assert_below("effects in long samples", &w, KS_TOLERANCE_SINK);
    /* Nothing is touched before the refusal. */
    assert_int_not_equal(device_launch(ks_k_attention_diff, NULL, KS_FORM_F32, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1,
                                       1 << 20, 1, 1, 1, 8, 0, 1),
                         0);
    assert_int_not_equal(device_launch(ks_k_attention, NULL, KS_FORM_F32, NULL, NULL, NULL, NULL, NULL, 1, 1 << 20, 1, 1, 8, 0, 1), 0);
    device_run(ks_k_attention_diff, NULL, KS_FORM_F32, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 8, 1, 1, 1, 8, 0, 1);
}

static void test_edge_weights(void **state)
{
    (void)state;
    rng r = {4};
    worst w = {0};
    for (int c = 0; c < 20; c++) {
        batch b = batch_new(&r, SHAPES[c % N_SHAPES], 1 + (int32_t)rng_below(&r, 60), -1, 0, c % 2);
        ks_edge_item items[SAMPLES];
        ks_k_edge_item k_items[SAMPLES];
        double twin[SAMPLES * 8];
        const size_t bytes = SAMPLES * (size_t)b.at.H * sizeof *twin;
        assert_true(b.at.H <= 8);
        for (int s = 0; s < SAMPLES; s++) {
            ks_k_edge_item *k = &k_items[s];
            *k = (ks_k_edge_item){.trunk = b.k_sample[s], .to = (1 - s) * b.at.H};
            k->queries = positions(&b, &r, 0, b.sample[s].T, c ? 0.2 : 0, &k->n_queries);
            k->keys = positions(&b, &r, 0, b.sample[s].T, c == 1 ? 0 : 0.5, &k->n_keys);
            items[s] = (ks_edge_item){.trunk = b.sample[s],
                                      .to = (size_t)(1 - s),
                                      .queries = b.lists + k->queries,
                                      .keys = b.lists + k->keys,
                                      .n_queries = k->n_queries,
                                      .n_keys = k->n_keys};
        }
        const ks_k_edge_item *d_items = device_new(k_items, sizeof k_items);
        const int32_t *d_lists = device_new(b.lists, (size_t)b.n_lists * sizeof *b.lists);
        double *d_got = device_new(NULL, bytes), *d_alone = device_new(NULL, bytes);
        assert_int_equal(all_devices.b->edge_weights(all_devices.dev[0], twin, b.logp, items, SAMPLES, &b.at), 0);
        device_run(ks_k_edge_weights, d_got, b.on.logp, d_items, d_lists, SAMPLES, b.at.H, b.at.window);
        const double *got = device_read(d_got, bytes);
        for (int32_t h = 0; h < SAMPLES * b.at.H; h++) worst_of(&w, relative(got[h], (long double)twin[h]), "case %d, %d", c, h);
        device_shuffle(2);
        for (int s = 0; s < SAMPLES; s++) device_run(ks_k_edge_weights, d_alone, b.on.logp, d_items + s, d_lists, 1, b.at.H, b.at.window);
        assert_true(same_bits(got, device_read(d_alone, bytes), bytes));
        device_end();
    }
    assert_below("weights of edges", &w, KS_TOLERANCE_MEASURE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states),  cmocka_unit_test(test_effects),      cmocka_unit_test(test_special_rows),
        cmocka_unit_test(test_lengths), cmocka_unit_test(test_edge_weights),
    };
    return device_run_tests(tests);
}
