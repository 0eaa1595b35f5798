#include "base/sincos.h"

#include <math.h>
#include <stdint.h>

/* The polynomials are fits of tests/fixtures/make_vmath.py. */
void ks_sincos(double x, double *s, double *c)
{
    static const double sin_q[] = {-0x1.5555555555555p-3,  0x1.111111111111p-7,   -0x1.a01a01a019937p-13, 0x1.71de3a54607fap-19,
                                   -0x1.ae6454129f078p-26, 0x1.61217eed1c04ap-33, -0x1.ab17c21adf462p-41};
    static const double cos_q[] = {0x1.5555555555555p-5,  -0x1.6c16c16c16c16p-10, 0x1.a01a01a019d0ap-16, -0x1.27e4fb7712cc8p-22,
                                   0x1.1eed8deb869afp-29, -0x1.9394b9f1ce104p-37, 0x1.ab784b1122af7p-45};
    if (!(fabs(x) < 0x1p40)) x = (double)NAN;

    /* x = n pi/2 + r + low, |r| <= 0.7854, pi/2 in three parts. The first difference is exact: x and n pi/2 are near each other. */
    const double n = (x * 0x1.45f306dc9c883p-1 + 0x1.8p52) - 0x1.8p52;
    const double a = fma(-n, 0x1.921fb54442d18p+0, x);
    const double b = n * 0x1.1a62633145c07p-54;
    const double r = a - b;
    const double low = ((a - r) - b) - (fma(n, 0x1.1a62633145c07p-54, -b) - n * 0x1.f1976b7ed8fbcp-110);

    const double z = r * r;
    double sq = sin_q[6], cq = cos_q[6];
    for (int i = 5; i >= 0; i--) {
        sq = fma(sq, z, sin_q[i]);
        cq = fma(cq, z, cos_q[i]);
    }
    /* sin(r + low) = sin r + low cos r, cos(r + low) = cos r - low r; 1 - z/2 is split into what it rounds to and the rest. */
    const double sine = r + fma(r * z, sq, low * (1 - 0.5 * z));
    const double h = 1 - 0.5 * z;
    const double cosine = h + (((1 - h) - 0.5 * z) + fma(z * z, cq, -r * low));

    const uint64_t quarter = x == x ? (uint64_t)(int64_t)n & 3 : 0;
    *s = quarter & 1 ? cosine : sine;
    *c = quarter & 1 ? sine : cosine;
    if (quarter & 2) *s = -*s;
    if ((quarter + 1) & 2) *c = -*c;
}
