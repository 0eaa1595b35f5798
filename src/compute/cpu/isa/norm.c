#include "compute/cpu/isa/norm.h"

#include <math.h>

/* Sums run over 16 double lanes, element i in lane i % 16, joined by one tree: the order is part of the result. */
typedef struct lanes {
    double v[16];
} lanes;

KS_INLINE double total(lanes *s)
{
    for (int h = 8; h > 0; h /= 2) {
        for (int i = 0; i < h; i++) s->v[i] += s->v[i + h];
    }
    return s->v[0];
}

/* sum of x[i] */
static double sum(const float *x, size_t n)
{
    lanes s = {{0}};
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (size_t l = 0; l < 16; l++) s.v[l] += (double)x[i + l];
    }
    for (size_t l = 0; i + l < n; l++) s.v[l] += (double)x[i + l];
    return total(&s);
}

/* sum of (x[i] - mean)^2 */
static double sum_squares(const float *x, double mean, size_t n)
{
    lanes s = {{0}};
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (size_t l = 0; l < 16; l++) {
            const double c = (double)x[i + l] - mean;
            s.v[l] += c * c;
        }
    }
    for (size_t l = 0; i + l < n; l++) {
        const double c = (double)x[i + l] - mean;
        s.v[l] += c * c;
    }
    return total(&s);
}

/* What the change d of a row x makes of its sum of squares, both centred. */
typedef struct changes {
    double before, change, after; /* sums of x^2, (2x + d) d, (x + d)^2 */
} changes;

static changes sum_changes(const float *x, double mean_x, const float *d, double mean_d, size_t n)
{
    lanes b = {{0}}, c = {{0}}, a = {{0}};
    for (size_t i = 0; i < n; i += 16) {
        const size_t m = n - i < 16 ? n - i : 16;
        double h[16] = {0}, e[16] = {0};
        for (size_t l = 0; l < m; l++) {
            h[l] = (double)x[i + l] - mean_x;
            e[l] = (double)d[i + l] - mean_d;
        }
        for (size_t l = 0; l < 16; l++) {
            const double both = h[l] + e[l];
            b.v[l] += h[l] * h[l];
            c.v[l] += (h[l] + both) * e[l];
            a.v[l] += both * both;
        }
    }
    return (changes){total(&b), total(&c), total(&a)};
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

void KS_FN(ks_norm_diff_rows)(float *dy, const float *d, const int64_t *d_rows, const float *x, const ks_norm_tape *tape,
                              const int64_t *x_rows, size_t from, size_t to, size_t D, const ks_norm *p)
{
    const double n = (double)D, eps = (double)p->eps;
    (void)tape;
    for (size_t r = from; r < to; r++) {
        const float *h = x + (size_t)x_rows[r] * D, *e = d + (size_t)d_rows[r] * D;
        const bool centre = p->kind == KS_NORM_LAYER;
        const double mean_h = centre ? sum(h, D) / n : 0, mean_e = centre ? sum(e, D) / n : 0;
        const changes c = sum_changes(h, mean_h, e, mean_e, D);

        /* 1/rms before and after may come from the rows themselves; only their difference must not be one:
         * 1/s2^2 - 1/s^2 = change / n, so s2 - s = -(change / n) s^2 s2^2 / (s + s2). The tape's s has too few digits: where d lies
         * along h, d s2 and h (s2 - s) cancel. */
        const double s = 1 / sqrt(c.before / n + eps), s2 = 1 / sqrt(c.after / n + eps);
        const double ds = -(c.change / n) * (s * s) * (s2 * s2) / (s + s2);
        float *out = dy + r * D;
        for (size_t i = 0; i < D; i++)
            out[i] = (float)((double)p->weight[i] * (((double)e[i] - mean_e) * s2 + ((double)h[i] - mean_h) * ds));
    }
}
