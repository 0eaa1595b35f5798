/* sincos.h - sine and cosine with the same bits on every machine. */
#ifndef KS_BASE_SINCOS_H
#define KS_BASE_SINCOS_H

/* *s = sin x, *c = cos x, absolute error below 2^-53 for |x| <= 1e6 (2^-40 to 1e9); NaN for infinities and NaN.
 * Plain arithmetic and fma only. The largest |x| for which it is meant is 2^31. */
void ks_sincos(double x, double *s, double *c);

#endif
