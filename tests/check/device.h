/* device.h - a GPU for tests of kernels: the check GPU, or a real one where the program is linked with gpu_cuda.c. All memory that a case
 * takes here, of the device and of the host, goes with device_end. What fails, fails the test. */
#ifndef KS_TESTS_CHECK_DEVICE_H
#define KS_TESTS_CHECK_DEVICE_H

#include "compute/cuda/gpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { DEVICE_SKIP = 77 }; /* exit code of a test that has no GPU */

/* Runs a group of tests, unless there is no GPU: prints why and is DEVICE_SKIP. */
#define device_run_tests(tests) (device_absent() ? DEVICE_SKIP : cmocka_run_group_tests(tests, device_setup, device_teardown))
int device_absent(void);
/* The GPU, and the CPU's devices for the twins (all_devices of support/numbers.h). */
int device_setup(void **state);
int device_teardown(void **state);
ks_gpu *device_gpu(void);

/* Memory of just that size, on the device and on the host, with what is at `from` (NULL: NaN bytes). Each may be 0 bytes. */
void *device_new(const void *from, size_t bytes);
void *host_new(const void *from, size_t bytes);
void *host_own(void *p);                                  /* memory of malloc, which goes with the rest; p */
void device_set(void *p, const void *from, size_t bytes); /* waits */
void device_get(void *host, const void *p, size_t bytes); /* waits */
void *device_read(const void *p, size_t bytes);           /* the same into host_new */
void device_end(void);

/* A launcher of kernels.h with its arguments but for the stream; KS_OK, or KS_EMACHINE where it says no. Arguments must not call the
 * device. */
#define device_launch(launcher, ...) ks_gpu_launched(device_gpu(), launcher(__VA_ARGS__, ks_gpu_stream(device_gpu())), #launcher)
#define device_run(launcher, ...) assert_int_equal(device_launch(launcher, __VA_ARGS__), 0)

/* The check GPU runs threads and blocks in another order from here on; a real one has an order of its own. */
void device_shuffle(uint64_t seed);

#endif
