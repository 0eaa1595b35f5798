/* tolerances.h - how far kernels may lie from their CPU twins: the grade that the twins themselves are held to against long double
 * (tests/unit/test_attention.c, test_measures.c). Largest relative errors of a row in the Euclidean norm; beside each what was measured. */
#ifndef KS_TESTS_CHECK_TOLERANCES_H
#define KS_TESTS_CHECK_TOLERANCES_H

/* norm, norm_diff; activate, activate_diff. All else of rows is the same bits. */
#define KS_TOLERANCE_NORM 1e-7     /* 2.5e-8 */
#define KS_TOLERANCE_ACTIVATE 4e-7 /* 1.9e-7 */

/* attention, attention_diff */
#define KS_TOLERANCE_STATE 2e-6
#define KS_TOLERANCE_LOGP 2e-6   /* of 1 + |logp| */
#define KS_TOLERANCE_DIFF 2e-6   /* |ds| <= 1 or so */
#define KS_TOLERANCE_SINK 1.5e-5 /* one key has nearly all weight, or E = 1: a head's output may nearly cancel */
#define KS_TOLERANCE_LARGE 1e-4  /* |ds| beyond 1000, of which fp32 holds no more digits */

/* measure, baseline, edge_weights */
#define KS_TOLERANCE_MEASURE 1e-12
#define KS_TOLERANCE_MEASURE_FAR 1e-9 /* logits change by hundreds: their rounding alone is that much */

/* Products, of the sum of |x w|. TF32 would be at 2e-6 and more. */
#define KS_TOLERANCE_PRODUCT 1e-6
#define KS_TOLERANCE_PRODUCT_BF16 4e-6 /* tensor cores cut where they sum */

/* A row of products against double, any K up to 18944: three or two bf16 parts, one, fp32: 4e-5 by bench/product_error.py's
 * model of tensor cores, on the check GPU 4e-7 and 6e-6. */
#define KS_TOLERANCE_PARTS 1e-4
#define KS_TOLERANCE_ONE_PART 5e-3
#define KS_TOLERANCE_F32 1e-5

#endif
