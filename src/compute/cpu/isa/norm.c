#include "compute/cpu/isa/norm.h"

#include "compute/cpu/isa/vec.h"

#include <math.h>

/* Sums run over 16 double lanes, element i in lane i % 16, joined by one tree: the order is part of the result. */
enum { N = KS_LANES / 2, UNITS = 16 / N }; /* doubles of a vector, vectors of a block */

/* v = sixteen elements x[i] - mean; 0 beyond n. */
KS_INLINE void block(ks_vd v[UNITS], const float *x, double mean, size_t i, size_t n)
{
    if (i + 16 <= n) {
        for (size_t u = 0; u < UNITS; u++) v[u] = ks_widen(x + i + u * N) - mean;
    } else {
        double buf[16] = {0};
        for (size_t l = 0; i + l < n; l++) buf[l] = (double)x[i + l] - mean;
        for (size_t u = 0; u < UNITS; u++) v[u] = ks_loadd(buf + u * N);
    }
}

KS_INLINE void store_block(float *y, const ks_vd v[UNITS], size_t i, size_t n)
{
    float buf[16], *to = i + 16 <= n ? y + i : buf;
    for (size_t u = 0; u < UNITS; u++) ks_store_narrow(to + u * N, v[u]);
    if (to == buf) memcpy(y + i, buf, (n - i) * sizeof *y);
}

/* sum of x[i] */
static double sum(const float *x, size_t n)
{
    ks_sum16d s = {{{0}}};
    for (size_t i = 0; i < n; i += 16) {
        ks_vd v[UNITS];
        block(v, x, 0, i, n);
        for (size_t u = 0; u < UNITS; u++) s.v[u] += v[u];
    }
    return ks_sum16d_total(&s);
}

/* sum of (x[i] - mean)^2 */
static double sum_squares(const float *x, double mean, size_t n)
{
    ks_sum16d s = {{{0}}};
    for (size_t i = 0; i < n; i += 16) {
        ks_vd v[UNITS];
        block(v, x, mean, i, n);
        for (size_t u = 0; u < UNITS; u++) s.v[u] = ks_fmad(v[u], v[u], s.v[u]);
    }
    return ks_sum16d_total(&s);
}

void KS_FN(ks_norm_rows)(float *y, const ks_norm_tape *tape, const float *x, const int64_t *rows, size_t from, size_t to, size_t D,
                         const ks_norm *p)
{
    const double n = (double)D, eps = (double)p->eps;
    for (size_t r = from; r < to; r++) {
        const size_t row = rows ? (size_t)rows[r] : r;
        const float *h = x + row * D;
        const double mean = p->kind == KS_NORM_LAYER ? sum(h, D) / n : 0;
        const double inv = 1 / sqrt(sum_squares(h, mean, D) / n + eps);
        if (tape) tape->inv_rms[row] = (float)inv;
        if (tape && tape->mean) tape->mean[row] = (float)mean;
        float *out = y + r * D;
        if (p->bias) {
            for (size_t i = 0; i < D; i++) out[i] = (float)(((double)h[i] - mean) * inv * (double)p->weight[i] + (double)p->bias[i]);
        } else {
            for (size_t i = 0; i < D; i++) out[i] = (float)(((double)h[i] - mean) * inv * (double)p->weight[i]);
        }
    }
}

/* One row of norm_diff; h and d less their means. */
KS_INLINE void diff_row(float *dy, const float *d, double mean_d, const float *h, double mean_h, size_t D, const ks_norm *p)
{
    const double n = (double)D, eps = (double)p->eps;
    ks_sum16d before = {{{0}}}, change = {{{0}}}, after = {{{0}}}; /* of h^2, (2h + d) d, (h + d)^2 */
    for (size_t i = 0; i < D; i += 16) {
        ks_vd x[UNITS], e[UNITS];
        block(x, h, mean_h, i, D);
        block(e, d, mean_d, i, D);
        for (size_t u = 0; u < UNITS; u++) {
            const ks_vd both = x[u] + e[u];
            before.v[u] = ks_fmad(x[u], x[u], before.v[u]);
            change.v[u] = ks_fmad(x[u] + both, e[u], change.v[u]);
            after.v[u] = ks_fmad(both, both, after.v[u]);
        }
    }

    /* 1/rms before and after may come from the rows themselves; only their difference must not be one:
     * 1/s2^2 - 1/s^2 = change / n, so s2 - s = -(change / n) s^2 s2^2 / (s + s2). The tape's s has too few digits: where d lies
     * along h, d s2 and h (s2 - s) cancel. */
    const double s = 1 / sqrt(ks_sum16d_total(&before) / n + eps), s2 = 1 / sqrt(ks_sum16d_total(&after) / n + eps);
    const double ds = -(ks_sum16d_total(&change) / n) * (s * s) * (s2 * s2) / (s + s2);
    for (size_t i = 0; i < D; i += 16) {
        ks_vd x[UNITS], e[UNITS], w[UNITS];
        block(x, h, mean_h, i, D);
        block(e, d, mean_d, i, D);
        block(w, p->weight, 0, i, D);
        for (size_t u = 0; u < UNITS; u++) w[u] *= ks_fmad(e[u], ks_splatd(s2), x[u] * ds);
        store_block(dy, w, i, D);
    }
}

void KS_FN(ks_norm_diff_rows)(float *dy, const float *d, const int64_t *d_rows, const float *x, const ks_norm_tape *tape,
                              const int64_t *x_rows, size_t from, size_t to, size_t D, const ks_norm *p)
{
    (void)tape;
    for (size_t r = from; r < to; r++) {
        const float *h = x + (size_t)x_rows[r] * D, *e = d + (size_t)d_rows[r] * D;
        if (p->kind == KS_NORM_LAYER) diff_row(dy + r * D, e, sum(e, D) / (double)D, h, sum(h, D) / (double)D, D, p);
        else diff_row(dy + r * D, e, 0, h, 0, D, p);
    }
}
