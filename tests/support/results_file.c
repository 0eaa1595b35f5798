#include "support/results_file.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ks_sample sample(const char *id, const char *group, const char *text, int32_t T)
{
    static int32_t ids[RF_S][RF_T_MAX], start[RF_S][RF_T_MAX], end[RF_S][RF_T_MAX];
    static uint8_t marker[RF_S][RF_T_MAX], target[RF_S][RF_T_MAX];
    static char letters[RF_S][RF_T_MAX][8], *texts[RF_S][RF_T_MAX];
    static int n;
    const int i = n++ % RF_S;
    for (int32_t t = 0; t < T; t++) {
        ids[i][t] = 10 * i + t;
        start[i][t] = 2 * t;
        end[i][t] = 2 * t + 2;
        marker[i][t] = t == T - 1;
        target[i][t] = t < 2;
        snprintf(letters[i][t], sizeof letters[i][t], "%.2s", text + 2 * t);
        texts[i][t] = letters[i][t];
    }
    return (ks_sample){.id = (char *)(uintptr_t)id,
                       .group = (char *)(uintptr_t)group,
                       .text = (char *)(uintptr_t)text,
                       .T = T,
                       .ids = ids[i],
                       .start = start[i],
                       .end = end[i],
                       .marker = marker[i],
                       .target = target[i],
                       .token_text = texts[i]};
}

const ks_samples *rf_samples(void)
{
    static ks_sample v[RF_S];
    static ks_samples all = {v, RF_S};
    if (!v[0].id) {
        v[0] = sample("py_simple_add", "python_doctest", "def f():>>>", 5);
        v[1] = sample("py_long_name", "python_doctest", "def long_name>>>", 6);
        v[2] = sample("py_default", "python_doctest", "lambda", 3);
        v[3] = sample("rust_simple_add", "rust_test", "fn f() #[", 4);
        v[4] = sample("rust_result", "rust_test", "fn result#[t", 6);
        v[5] = sample("rust_vec", "rust_test", "fn vec#[", 4);
        v[6] = sample("py_base", "python_baseline", "x = 1 # y", 4);
    }
    return &all;
}

static const ks_sweep *sweep_of(int sweep)
{
    static char names[RF_SWEEPS][12] = {"layers", "all_edge", "triangle", "slide", "windows", "heads", "dose", "shape"};
    static double dose[] = {0, 0.5, 2}, two[] = {0.25, 4};
    static const ks_sweep v[RF_SWEEPS] = {
        [RF_LAYERS] = {.name = names[RF_LAYERS], .windows = KS_WINDOWS_EACH_LAYER},
        [RF_ALL_EDGE] = {.name = names[RF_ALL_EDGE], .edges = KS_EDGES_ALL_MARKER, .windows = KS_WINDOWS_EACH_LAYER},
        [RF_TRIANGLE] = {.name = names[RF_TRIANGLE], .windows = KS_WINDOWS_ALL},
        [RF_SLIDE] = {.name = names[RF_SLIDE], .windows = KS_WINDOWS_SLIDE, .slide = 2, .positions = KS_POSITIONS_ALL},
        [RF_AROUND] = {.name = names[RF_AROUND], .windows = KS_WINDOWS_AROUND, .center = 1, .max_radius = 2},
        [RF_HEADS] = {.name = names[RF_HEADS], .windows = KS_WINDOWS_EACH_LAYER, .heads = KS_HEADS_EACH},
        [RF_DOSE] = {.name = names[RF_DOSE],
                     .windows = KS_WINDOWS_LIST,
                     .kind = KS_SCALE,
                     .values = dose,
                     .n_values = 3,
                     .positions = KS_POSITIONS_ALL},
        [RF_SHAPE] = {.name = names[RF_SHAPE],
                      .windows = KS_WINDOWS_LIST,
                      .kind = KS_SCALE,
                      .values = two,
                      .n_values = 2,
                      .heads = KS_HEADS_EACH,
                      .positions = KS_POSITIONS_ALL},
    };
    return &v[sweep];
}

int rf_windows(int sweep, ks_window *out)
{
    int n = 0;
    switch (sweep) {
    case RF_TRIANGLE:
        for (int32_t a = 0; a < RF_L; a++)
            for (int32_t b = a; b < RF_L; b++) out[n++] = (ks_window){a, b};
        break;
    case RF_SLIDE:
        for (int32_t a = 0; a + 1 < RF_L; a++) out[n++] = (ks_window){a, a + 1};
        break;
    case RF_AROUND:
        out[n++] = (ks_window){1, 1};
        out[n++] = (ks_window){0, 2};
        out[n++] = (ks_window){0, 3};
        break;
    case RF_DOSE:
        out[n++] = (ks_window){2, 2};
        break;
    case RF_SHAPE:
        out[n++] = (ks_window){1, 3};
        out[n++] = (ks_window){0, 0};
        break;
    default:
        for (int32_t l = 0; l < RF_L; l++) out[n++] = (ks_window){l, l};
    }
    return n;
}

/* Only sums, products and divisions, so that every machine gives the same digits. */
ks_cell rf_cell(int sweep, size_t factor, const ks_window *w, size_t head, size_t s)
{
    const double scale = 1e-3 / (double)((s + 2) * (s + 2)) * (double)(1 + w->b - w->a) / (double)(1 + w->a * w->a);
    ks_cell c = {.status = KS_CELL_DONE, .top_changed = s == 1 && w->a == 1};
    c.kl = scale * (sweep == RF_ALL_EDGE ? 3 : 1) * (double)(1 + factor) / (double)(1 + 2 * head);
    if (s == 4) c.kl /= 4096; /* far below its floor */
    if (sweep == RF_ALL_EDGE && s == 3) c.status = KS_CELL_EMPTY_ROW;
    if (sweep == RF_LAYERS && s == 5 && w->a == 2) c.status = KS_CELL_NOT_FINITE, c.kl = NAN;
    if (s == 6) c.status = KS_CELL_NOTHING, c.kl = 0;
    if (sweep == RF_LAYERS && s == 2 && w->a == 3)
        return (ks_cell){.kl = NAN,
                         .kl_reverse = NAN,
                         .js = NAN,
                         .tv = NAN,
                         .p_top = NAN,
                         .dlogit_top = NAN,
                         .top_ids = {-1, -1, -1, -1, -1},
                         .top_p_baseline = {NAN, NAN, NAN, NAN, NAN},
                         .top_p_ablated = {NAN, NAN, NAN, NAN, NAN}};
    c.kl_reverse = c.kl * 1.25;
    c.js = c.kl / 4;
    c.tv = c.kl * 8;
    c.p_top = 0.5 - c.tv;
    c.dlogit_top = -c.tv * 2;
    for (int k = 0; k < KS_TOP_K; k++) {
        c.top_ids[k] = (int32_t)((s + (size_t)k * 7 + head) % RF_V);
        c.top_p_baseline[k] = 0.5 / (k + 1);
        c.top_p_ablated[k] = 0.5 / (k + 1) - c.tv / (k + 1);
    }
    return c;
}

ks_position_cell rf_position(int sweep, size_t factor, const ks_window *w, size_t head, size_t s, int32_t t)
{
    const ks_sample *p = &rf_samples()->v[s];
    const double kl = rf_cell(sweep, factor, w, head, s).kl;
    if (t < 1) return (ks_position_cell){NAN, NAN, NAN};
    const double d = (double)(p->T - t);
    if (t == p->T - 1) return (ks_position_cell){kl, NAN, NAN};
    return (ks_position_cell){kl * d, -kl * d, 0.5 / d};
}

ks_baseline rf_baseline(size_t s)
{
    ks_baseline b = {.entropy = 1.5 + 0.25 * (double)s, .floor = 2e-5 * (double)(s + 1)};
    for (int k = 0; k < KS_TOP_K; k++) {
        b.top_ids[k] = (int32_t)((s + (size_t)k * 7) % RF_V);
        b.top_p[k] = 0.5 / (k + 1);
    }
    return b;
}

static int put_baselines(ks_results *r, size_t m)
{
    int rc = KS_OK;
    for (size_t s = 0; s < RF_S && !rc; s++) {
        float logits[RF_V], by_head[RF_L * RF_H];
        double strength[RF_L];
        for (int v = 0; v < RF_V; v++) logits[v] = (float)v - (float)s;
        for (int l = 0; l < RF_L; l++) {
            strength[l] = 0;
            for (int h = 0; h < RF_H; h++) {
                by_head[l * RF_H + h] = 0.125F * (float)(1 + h) / (float)(1 + l + (int)s);
                strength[l] += by_head[l * RF_H + h] / (double)RF_H;
            }
        }
        const ks_baseline b = rf_baseline(s);
        rc = ks_results_put_baseline(r, m, s, &b, logits, by_head, 1.0 / rf_samples()->v[s].T, strength);
    }
    return rc;
}

static int put_sweep(ks_results *r, size_t m, int sweep)
{
    int rc = KS_OK;
    size_t index = 0;
    ks_window windows[16];
    const ks_sweep *p = sweep_of(sweep);
    const int W = rf_windows(sweep, windows);
    const size_t F = p->n_values > 1 ? p->n_values : 1, H = p->heads == KS_HEADS_EACH ? RF_H : 1;
    KS_TRY(ks_results_add_sweep(r, m, p, windows, (size_t)W, p->heads == KS_HEADS_EACH ? RF_H : 0, &index));
    for (size_t s = 0; s < RF_S; s++) {
        KS_TRY(ks_results_put_edges(r, m, index, s, s == 6 ? 0 : p->edges == KS_EDGES_ALL_MARKER ? 1 : 2));
        for (size_t f = 0; f < F; f++)
            for (size_t w = 0; w < (size_t)W; w++)
                for (size_t h = 0; h < H; h++) {
                    const ks_cell c = rf_cell(sweep, f, &windows[w], h, s);
                    ks_position_cell at[RF_T_MAX];
                    for (int32_t t = 0; t < rf_samples()->v[s].T; t++) at[t] = rf_position(sweep, f, &windows[w], h, s, t);
                    if (c.status) KS_TRY(ks_results_put_cell(r, m, index, f, w, h, s, &c, at));
                }
    }
done:
    return rc;
}

ks_model_info rf_info(void)
{
    return (ks_model_info){.name = "tiny",
                           .id = "someone/tiny",
                           .revision = "main",
                           .architecture = "llama",
                           .weight_dtype = "bf16",
                           .precision = "full",
                           .weights_sha256 = "00ff",
                           .tokenizer_sha256 = "ff00",
                           .config_sha256 = "0ff0",
                           .n_layers = RF_L,
                           .n_heads = RF_H,
                           .n_kv_heads = 1,
                           .d_model = 24,
                           .vocab = RF_V,
                           .save_logits = true};
}

int rf_fill(ks_results *r)
{
    int rc = KS_OK;
    const ks_model_info info[] = {
        rf_info(),
        {.name = "other",
         .architecture = "qwen2",
         .weight_dtype = "f32",
         .precision = "fast",
         .n_layers = RF_L,
         .n_heads = RF_H,
         .n_kv_heads = 3,
         .d_model = 12,
         .vocab = RF_V},
    };
    int32_t *ids = NULL;
    char **texts = NULL;
    size_t n = 0;
    for (int m = 0; m < 2; m++) {
        size_t index = 0;
        KS_TRY(ks_results_add_model(r, &info[m], rf_samples(), &index));
        KS_TRY(put_baselines(r, index));
        for (int s = 0; s < (m ? 1 : RF_SWEEPS); s++) KS_TRY(put_sweep(r, index, s));
    }
    KS_TRY(ks_results_top_ids(r, 0, &ids, &n));
    KS_NEW(texts, n);
    for (size_t i = 0; i < n; i++) KS_GET(texts[i], ks_format(ids[i] == 7 ? "\n" : ids[i] == 8 ? "\xc3" : " t%d", (int)ids[i]));
    KS_TRY(ks_results_put_token_text(r, 0, ids, texts, n));
done:
    for (size_t i = 0; texts && i < n; i++) free(texts[i]);
    free(texts);
    free(ids);
    return rc;
}

int rf_write(const char *path)
{
    int rc = KS_OK;
    ks_results *r = NULL;
    const ks_provenance p = {
        .time = "2025-01-01T00:00:00Z", .host = "host", .backend = "cpu", .command_line = "test", .ranks = 1, .threads = 1};
    KS_TRY(ks_results_create(&r, path, KS_RESULTS_FORCE, "{\"sweeps\": []}", "abcd"));
    rc = rf_fill(r);
    if (!rc) rc = ks_results_set_provenance(r, &p);
    if (rc) ks_results_abandon(r);
    else rc = ks_results_close(r);
done:
    return rc;
}
