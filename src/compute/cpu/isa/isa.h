/* isa.h - the sources of this directory are compiled three times: KS_ISA is generic, avx2 or avx512.
 *
 * KS_FN(name) is the name of this compilation's copy of a function: KS_FN(ks_exp) is ks_exp_avx2. To add an operation:
 *   1. a header gives its type and its three names:   typedef void ks_exp_fn(float *y, const float *x, size_t n);
 *                                                     KS_DECLARE(ks_exp_fn, ks_exp);
 *   2. a source here defines                          void KS_FN(ks_exp)(float *y, const float *x, size_t n) {...}
 *   3. ks_cpu_ops (compute/cpu/dispatch.h) gets       ks_exp_fn *exp;
 *   4. table.c gets                                   .exp = KS_FN(ks_exp),
 * The three copies must give the same bits; vmath.h says how. */
#ifndef KS_COMPUTE_CPU_ISA_H
#define KS_COMPUTE_CPU_ISA_H

#define KS_JOIN2(a, b) a##_##b
#define KS_JOIN(a, b) KS_JOIN2(a, b)
#define KS_TEXT2(a) #a
#define KS_TEXT(a) KS_TEXT2(a)

#define KS_FN(name) KS_JOIN(name, KS_ISA)
#define KS_DECLARE(type, name) extern type name##_generic, name##_avx2, name##_avx512

#define KS_INLINE static inline __attribute__((always_inline))

#endif
