#include "compute/cpu/isa/attention.h"

#include "compute/cpu/isa/attention_tile.h"
#include "compute/cpu/isa/vmath.h"

/* Scores s [.., to) of query t, of which [lo, t] are visible, [lo16, to) are set: logp [P] = log softmax, w [lo16, to) = softmax. */
static void softmax_row(float *w, float *logp, float *s, size_t lo, size_t t, size_t to, size_t P, float scale)
{
    const size_t lo16 = lo / 16 * 16;
    for (size_t j = 0; j < P; j++) {
        if (j < lo || j > t) logp[j] = -INFINITY;
    }
    for (size_t j = lo16; j < lo; j++) s[j] = -INFINITY;
    for (size_t j = t + 1; j < to; j++) s[j] = -INFINITY;

    ks_vf top = ks_splat(-INFINITY);
    for (size_t j = lo16; j < to; j += KS_LANES) {
        const ks_vf x = ks_load(s + j) * scale;
        ks_store(s + j, x);
        top = ks_max(x, top);
    }
    float m = top[0];
    for (size_t l = 1; l < KS_LANES; l++) m = top[l] > m ? top[l] : m;

    ks_sum16 sum = {{{0}}};
    for (size_t j = lo16; j < to; j += 16) {
        for (size_t u = 0; u < UNIT; u++) {
            const ks_vf x = ks_load(s + j + u * KS_LANES) - m, e = ks_v_expf(x);
            ks_store(s + j + u * KS_LANES, x);
            ks_store(w + j + u * KS_LANES, e);
            sum.v[u] += e;
        }
    }
    /* The largest score adds exactly 1, so the sum's log is a log1p. */
    const float total = ks_sum16_total(&sum), log_total = (float)ks_v_log1p(ks_splatd((double)total - 1))[0];
    for (size_t j = lo16; j < to; j += KS_LANES) ks_store(w + j, ks_load(w + j) / total);
    for (size_t j = lo; j <= t; j++) logp[j] = s[j] - log_total;
}

void KS_FN(ks_attention_head)(float *out, float *logp, const float *q, const float *k, const float *v, const ks_attention_item *item,
                              size_t g, const ks_attention *p, float *scratch)
{
    const size_t T = (size_t)item->T, P = (size_t)KS_PADDED(T), E = (size_t)p->E, Q = (size_t)KS_PADDED(E), H = (size_t)p->H,
                 G = (size_t)p->G, group = H / G;
    float *kt = scratch, *vp = kt + E * P, *s = vp + T * Q, *w = s + TILE_ROWS * P, *o = w + TILE_ROWS * P;
    transpose_keys(kt, P, k + ((size_t)item->row0 * G + g) * E, G * E, T, E);
    pad_values(vp, Q, v + ((size_t)item->row0 * G + g) * E, G * E, T, E);

    /* Rows of the group's heads, position by position: a block spans few positions. */
    for (size_t i0 = 0; i0 < T * group; i0 += TILE_ROWS) {
        const size_t n = min_size(TILE_ROWS, T * group - i0);
        const float *a[TILE_ROWS], *b[TILE_ROWS];
        for (size_t r = 0; r < TILE_ROWS; r++) {
            const size_t i = i0 + min_size(r, n - 1), t = i / group, h = g * group + i % group;
            a[r] = q + (((size_t)item->row0 + t) * H + h) * E;
        }
        const size_t from = first_key(i0 / group, p->window) / 16 * 16, last = (i0 + n - 1) / group, to = (size_t)KS_PADDED(last + 1);
        tile(s, P, a, E, kt, P, false, from, to);
        for (size_t r = 0; r < n; r++) {
            const size_t t = (i0 + r) / group, h = g * group + (i0 + r) % group, lo = first_key(t, p->window);
            memset(w + r * P + from, 0, (to - from) * sizeof *w);
            softmax_row(w + r * P, logp + (size_t)item->logp + (h * T + t) * P, s + r * P, lo, t, to, P, p->scale);
        }
        for (size_t r = 0; r < TILE_ROWS; r++) b[r] = w + min_size(r, n - 1) * P + from;
        tile(o, Q, b, last + 1 - from, vp + from * Q, Q, false, 0, Q);
        for (size_t r = 0; r < n; r++) {
            const size_t t = (i0 + r) / group, h = g * group + (i0 + r) % group;
            memcpy(out + (((size_t)item->row0 + t) * H + h) * E, o + r * Q, E * sizeof *out);
        }
    }
}
