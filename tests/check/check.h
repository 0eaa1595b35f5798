/* check.h - what C uses of the emulator. */
#ifndef KS_TESTS_CHECK_CHECK_H
#define KS_TESTS_CHECK_CHECK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The order of threads and blocks from here on. At the start: KS_CHECK_SEED from the environment, or 1. */
void ks_check_seed(uint64_t seed);
/* A number of that seed's. */
uint64_t ks_check_random(void);

/* A launch that has passed its checks, with its arguments. Launches into streams that are not NULL go to `later`, which calls ks_check_run
 * once for each, in the order of the stream and before what the arguments point to is gone; other launches run at once. */
typedef struct ks_check_work ks_check_work;
void ks_check_submit(void (*later)(void *stream, ks_check_work *work));
void ks_check_run(ks_check_work *work);

#ifdef __cplusplus
}
#endif

#endif
