#include "tests/support/naive.h"

#include "base/mem.h"
#include "input/config.h"
#include "model/rope.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float *foreign_cos, *foreign_sin;
static bool round_stream;

void ks_naive_round_stream(bool on)
{
    round_stream = on;
}

/* The nearest bf16, ties to even. */
static double to_bf16(double x)
{
    const float y = (float)x;
    uint32_t bits;
    memcpy(&bits, &y, sizeof bits);
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
    float z;
    memcpy(&z, &bits, sizeof z);
    return (double)z;
}

void ks_naive_tables(const float *cos_t, const float *sin_t)
{
    foreign_cos = cos_t;
    foreign_sin = sin_t;
}

/* The decimal number that a configuration file meant by x: 1e-6, not its float's 9.99999997e-7. */
static double meant(float x)
{
    char text[32];
    for (int digits = 1; digits < 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x) return strtod(text, NULL);
    }
    return x;
}

/* x, which is the fp32 neighbour of `exact` where the model means that. */
static double unrounded(float x, double exact)
{
    return (float)exact == x ? exact : x;
}

static double dot(const double *x, const double *y, size_t n)
{
    double s[4] = {0}, rest = 0;
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (size_t j = 0; j < 4; j++) s[j] += x[i + j] * y[i + j];
    for (; i < n; i++) rest += x[i] * y[i];
    return ((s[0] + s[1]) + (s[2] + s[3])) + rest;
}

/* y [R, rows] = x [R, cols] W^T + bias. row: scratch [cols]. */
static void linear(double *y, const double *x, const ks_tensor *w, const float *bias, int32_t R, double *row)
{
    const size_t N = (size_t)w->rows, K = (size_t)w->cols;
    for (size_t n = 0; n < N; n++) {
        for (size_t k = 0; k < K; k++) row[k] = ks_f32_at(w->data, w->dtype, n * (size_t)w->ld + k);
        for (size_t r = 0; r < (size_t)R; r++) y[r * N + n] = dot(x + r * K, row, K) + (bias ? bias[n] : 0);
    }
}

/* y [R, D] = RMS or layer norm of x. */
static void norm(double *y, const double *x, const ks_arch *a, const float *w, const float *bias, int32_t R)
{
    const size_t D = (size_t)a->D;
    for (size_t r = 0; r < (size_t)R; r++) {
        const double *h = x + r * D;
        double mean = 0, var = 0;
        if (a->norm == KS_NORM_LAYER) {
            for (size_t i = 0; i < D; i++) mean += h[i];
            mean /= (double)D;
        }
        for (size_t i = 0; i < D; i++) var += (h[i] - mean) * (h[i] - mean);
        const double s = 1 / sqrt(var / (double)D + meant(a->norm_eps));
        for (size_t i = 0; i < D; i++) y[r * D + i] = (h[i] - mean) * s * w[i] + (bias ? bias[i] : 0);
    }
}

/* x [T, heads, E], in place: dimension i < dim/2 turns with i + dim/2. */
static void rotate(double *x, const ks_arch *a, int32_t heads, int32_t T, const float *cos_t, const float *sin_t)
{
    const size_t E = (size_t)a->E, half = (size_t)a->rope.dim / 2;
    for (size_t t = 0; t < (size_t)T; t++)
        for (size_t h = 0; h < (size_t)heads; h++) {
            double *v = x + (t * (size_t)heads + h) * E;
            for (size_t i = 0; i < half; i++) {
                const double c = cos_t[t * half + i], s = sin_t[t * half + i], lo = v[i], hi = v[i + half];
                v[i] = lo * c - hi * s;
                v[i + half] = hi * c + lo * s;
            }
        }
}

static double activate(double x, int act)
{
    switch (act) {
    case KS_ACT_SILU:
        return x / (1 + exp(-x));
    case KS_ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    default:
        return 0.5 * x * (1 + erf(x * M_SQRT1_2));
    }
}

/* Softmax of visible scores p [n], in place, as the edit leaves them; edge [n] marks its keys, NULL: no edit here. The flags only rise
 * (nothing: only falls). */
static void attend(double *p, size_t n, const ks_naive_edit *edit, const uint8_t *edge, bool *nothing, bool *empty, bool *impossible)
{
    double top = -INFINITY, sum = 0, on = 0, off = 0;
    size_t edges = 0;
    for (size_t i = 0; i < n; i++) {
        edges += edge && edge[i];
        if (!(edge && edge[i] && edit->kind == KS_KNOCKOUT)) top = fmax(top, p[i]);
    }
    if (edges) *nothing = false;
    if (edges == n && edit && edit->kind == KS_KNOCKOUT) {
        memset(p, 0, n * sizeof *p);
        *empty = true;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        p[i] = edges && edge[i] && edit->kind == KS_KNOCKOUT ? 0 : exp(p[i] - top);
        sum += p[i];
    }
    for (size_t i = 0; i < n; i++) {
        p[i] /= sum;
        if (edges && edge[i]) on += p[i];
        else off += p[i];
    }
    if (!edges || edit->kind == KS_KNOCKOUT) return;
    if (edit->kind == KS_SCALE) {
        if (edges == n) return;
        const double total = off + edit->value * on;
        for (size_t i = 0; i < n; i++) p[i] *= (edge[i] ? edit->value : 1) / total;
        return;
    }
    const double taken = edit->value * (double)edges;
    if (taken > 1) *impossible = true;
    if (edges == n && edit->value == 0) *empty = true;
    for (size_t i = 0; i < n; i++) p[i] = edge[i] ? edit->value : p[i] * (1 - taken) / off;
}

int ks_naive_forward(const ks_model *m, const int32_t *ids, int32_t T, const ks_naive_edit *edit, int32_t first, double *logits,
                     double *weights, int *status)
{
    const ks_arch *a = ks_model_arch(m);
    const size_t D = (size_t)a->D, H = (size_t)a->H, G = (size_t)a->G, E = (size_t)a->E, F = (size_t)a->F, n = (size_t)T;
    const size_t widest = D > F ? (D > H * E ? D : H * E) : (F > H * E ? F : H * E);
    double *h = NULL, *x = NULL, *q = NULL, *k = NULL, *v = NULL, *mix = NULL, *y = NULL, *gate = NULL, *up = NULL, *p = NULL, *row = NULL;
    float *cos_t = NULL, *sin_t = NULL;
    const double embed_scale = unrounded(a->embed_scale, sqrt((double)a->D)),
                 score_scale = unrounded(a->attn_scale, 1 / sqrt((double)a->E));
    bool nothing = true, empty = false, impossible = false;
    int rc = KS_OK;

    KS_NEW(h, n * D); /* [T, D] residual stream */
    KS_NEW(x, n * D); /* [T, D] normed */
    KS_NEW(q, n * H * E);
    KS_NEW(k, n * G * E);
    KS_NEW(v, n * G * E);
    KS_NEW(mix, n * H * E); /* [T, H, E] what attention gathers */
    KS_NEW(y, n * D);       /* [T, D] what is added to the stream */
    KS_NEW(gate, n * F);
    KS_NEW(up, n * F);
    KS_NEW(p, n); /* [T] one row of weights */
    KS_NEW(row, widest);
    KS_NEW(cos_t, n * (size_t)a->rope.dim / 2);
    KS_NEW(sin_t, n * (size_t)a->rope.dim / 2);
    KS_TRY(ks_rope_tables(a, T, cos_t, sin_t));

    const ks_tensor embedding = ks_model_embedding(m);
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0; i < D; i++)
            h[t * D + i] = ks_f32_at(embedding.data, embedding.dtype, (size_t)ids[t] * (size_t)embedding.ld + i) * embed_scale;

    for (size_t i = 0; round_stream && i < n * D; i++) h[i] = to_bf16(h[i]);
    for (int32_t l = 0; l < a->L; l++) {
        const ks_layer *w = ks_model_layer(m, l);
        const ks_naive_edit *acts = edit && l >= edit->a && l <= edit->b ? edit : NULL;
        norm(x, h, a, w->norm1, w->norm1_bias, T);
        linear(q, x, &w->q, w->q_bias, T, row);
        linear(k, x, &w->k, w->k_bias, T, row);
        linear(v, x, &w->v, w->v_bias, T, row);
        rotate(q, a, a->H, T, foreign_cos ? foreign_cos : cos_t, foreign_cos ? foreign_sin : sin_t);
        rotate(k, a, a->G, T, foreign_cos ? foreign_cos : cos_t, foreign_cos ? foreign_sin : sin_t);

        memset(mix, 0, n * H * E * sizeof *mix);
        for (size_t head = 0; head < H; head++) {
            const size_t kv = head / (H / G);
            const bool here = acts && (!acts->heads || acts->heads[head]);
            for (size_t i = 0; i < n; i++) {
                const size_t from = a->window[l] && i + 1 > (size_t)a->window[l] ? i + 1 - (size_t)a->window[l] : 0;
                for (size_t j = from; j <= i; j++) p[j - from] = dot(q + (i * H + head) * E, k + (j * G + kv) * E, E) * score_scale;
                attend(p, i + 1 - from, acts, here ? acts->edges + i * n + from : NULL, &nothing, &empty, &impossible);
                for (size_t j = from; j <= i; j++) {
                    if (weights) weights[(((size_t)l * H + head) * n + i) * n + j] = p[j - from];
                    for (size_t e = 0; e < E; e++) mix[(i * H + head) * E + e] += p[j - from] * v[(j * G + kv) * E + e];
                }
            }
        }
        linear(y, mix, &w->o, w->o_bias, T, row);
        for (size_t i = 0; i < n * D; i++) h[i] += y[i];

        norm(x, h, a, w->norm2, w->norm2_bias, T);
        linear(up, x, &w->up, w->up_bias, T, row);
        if (a->gated) linear(gate, x, &w->gate, w->gate_bias, T, row);
        for (size_t i = 0; i < n * F; i++) up[i] = a->gated ? activate(gate[i], a->act) * up[i] : activate(up[i], a->act);
        linear(y, up, &w->down, w->down_bias, T, row);
        for (size_t i = 0; i < n * D; i++) h[i] += y[i];
        for (size_t i = 0; round_stream && i < n * D; i++) h[i] = to_bf16(h[i]);
    }
    norm(x, h, a, ks_model_final_norm(m), ks_model_final_norm_bias(m), T);
    const ks_tensor head = ks_model_head(m);
    linear(logits, x + (size_t)first * D, &head, NULL, T - first, row);
    if (status) *status = impossible ? KS_CELL_NOT_FINITE : nothing ? KS_CELL_NOTHING : empty ? KS_CELL_EMPTY_ROW : KS_CELL_DONE;
done:
    free(h), free(x), free(q), free(k), free(v), free(mix), free(y), free(gate), free(up), free(p), free(row), free(cos_t), free(sin_t);
    return rc;
}

/* ln of the normaliser. */
static double log_sum_exp(const double *x, size_t n)
{
    double top = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++) top = fmax(top, x[i]);
    for (size_t i = 0; i < n; i++) sum += exp(x[i] - top);
    return top + log(sum);
}

/* exp(-d) - 1 + d without cancellation. */
static double kl_term(double d)
{
    if (fabs(d) > 0.05) return expm1(-d) + d;
    double term = d * d / 2, sum = 0;
    for (int i = 3; i < 14; i++) {
        sum += term;
        term *= -d / i;
    }
    return sum;
}

/* ln((1 + e^d)/2) - d/2, the even part of it, without cancellation. */
static double log_cosh_half(double d)
{
    const double s = sinh(fabs(d) / 4);
    return fabs(d) > 600 ? fabs(d) / 2 - M_LN2 : log1p(2 * s * s);
}

double ks_naive_kl(const double *baseline, const double *ablated, int32_t V)
{
    const size_t n = (size_t)V;
    const double a = log_sum_exp(baseline, n), b = log_sum_exp(ablated, n);
    double kl = 0;
    for (size_t i = 0; i < n; i++) kl += exp(baseline[i] - a) * kl_term((baseline[i] - a) - (ablated[i] - b));
    return kl;
}

void ks_naive_measure(const double *baseline, const double *ablated, int32_t V, int status, ks_cell *out)
{
    const size_t n = (size_t)V;
    const double a = log_sum_exp(baseline, n), b = log_sum_exp(ablated, n);
    size_t top = 0, top_ablated = 0;
    memset(out, 0, sizeof *out);
    out->status = (uint8_t)status;
    if (status == KS_CELL_NOT_FINITE) {
        out->kl = out->kl_reverse = out->js = out->tv = out->p_top = out->dlogit_top = NAN;
        for (size_t k = 0; k < KS_TOP_K; k++) out->top_ids[k] = -1, out->top_p_baseline[k] = out->top_p_ablated[k] = NAN;
        return;
    }
    double change[KS_TOP_K] = {-1, -1, -1, -1, -1};
    for (size_t i = 0; i < n; i++) {
        const double lp = baseline[i] - a, lq = ablated[i] - b, d = lp - lq, p = exp(lp), q = exp(lq), step = q * expm1(d) /* p - q */,
                     moved = fabs(step);
        out->kl += p * kl_term(d);
        out->kl_reverse += q * kl_term(-d);
        out->tv += moved / 2;
        /* p ln(p/m) + q ln(q/m) with m = (p+q)/2 is (p-q) d/2 - (p+q) ln cosh(d/2). */
        out->js += (step * d / 2 - (p + q) * log_cosh_half(d)) / 2;
        if (baseline[i] > baseline[top]) top = i;
        if (ablated[i] > ablated[top_ablated]) top_ablated = i;
        for (size_t k = 0; k < KS_TOP_K; k++)
            if (moved > change[k]) {
                for (size_t j = KS_TOP_K - 1; j > k; j--) {
                    change[j] = change[j - 1], out->top_ids[j] = out->top_ids[j - 1];
                    out->top_p_baseline[j] = out->top_p_baseline[j - 1], out->top_p_ablated[j] = out->top_p_ablated[j - 1];
                }
                change[k] = moved, out->top_ids[k] = (int32_t)i, out->top_p_baseline[k] = p, out->top_p_ablated[k] = q;
                break;
            }
    }
    out->top_changed = top != top_ablated;
    out->p_top = exp(ablated[top] - b);
    out->dlogit_top = ablated[top] - baseline[top];
}

int ks_naive_cell(const ks_model *m, const int32_t *ids, int32_t T, const ks_naive_edit *edit, ks_cell *out)
{
    const int32_t V = ks_model_arch(m)->V;
    double *rows = NULL; /* [2, V] */
    int status, rc = KS_OK;
    KS_NEW(rows, 2 * (size_t)V);
    KS_TRY(ks_naive_forward(m, ids, T, NULL, T - 1, rows, NULL, NULL));
    KS_TRY(ks_naive_forward(m, ids, T, edit, T - 1, rows + V, NULL, &status));
    ks_naive_measure(rows, rows + V, V, status, out);
done:
    free(rows);
    return rc;
}

void ks_naive_edges(uint8_t *edges, int set, const uint8_t *marker, const uint8_t *target, int32_t T)
{
    for (int32_t q = 0; q < T; q++)
        for (int32_t k = 0; k < T; k++)
            edges[(size_t)q * (size_t)T + (size_t)k] = set == KS_EDGES_ALL_MARKER ? marker[k] : marker[q] && target[k];
}
