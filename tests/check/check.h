/* check.h - what tests of kernels that are written in C use of the emulator. */
#ifndef KS_TESTS_CHECK_CHECK_H
#define KS_TESTS_CHECK_CHECK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The order of threads and blocks from here on. At the start: KS_CHECK_SEED from the environment, or 1. */
void ks_check_seed(uint64_t seed);

#ifdef __cplusplus
}
#endif

#endif
