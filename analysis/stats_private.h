/* stats_private.h - sums in double-double (Knuth's two-sum), shared by the statistics. */
#ifndef KS_ANALYSIS_STATS_PRIVATE_H
#define KS_ANALYSIS_STATS_PRIVATE_H

#include <math.h>

/* A standard error below this is made of values whose differences run out of digits. */
#define KS_TINY 0x1p-960

/* high + low, |low| at most half a unit of high's last place. */
typedef struct ks_dd {
    double high, low;
} ks_dd;

static inline ks_dd ks_two_sum(double a, double b)
{
    const double s = a + b, t = s - a;
    return (ks_dd){s, (a - (s - t)) + (b - t)};
}

/* Relative error 2^-104 of |a| + |b|. */
static inline ks_dd ks_dd_plus(ks_dd a, ks_dd b)
{
    ks_dd s = ks_two_sum(a.high, b.high);
    const ks_dd t = ks_two_sum(a.low, b.low);
    s = ks_two_sum(s.high, s.low + t.high);
    return ks_two_sum(s.high, s.low + t.low);
}

static inline ks_dd ks_dd_add(ks_dd a, double b)
{
    return ks_dd_plus(a, (ks_dd){b, 0});
}

static inline ks_dd ks_dd_over(ks_dd a, double n)
{
    const double q = a.high / n;
    return ks_two_sum(q, (fma(-q, n, a.high) + a.low) / n);
}

/* a * b without rounding. */
static inline ks_dd ks_dd_product(double a, double b)
{
    const double p = a * b;
    return (ks_dd){p, fma(a, b, -p)};
}

#endif
