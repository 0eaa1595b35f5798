/* numbers.h - what numerical tests share: random numbers, distances, a device for every instruction set. */
#ifndef KS_TESTS_NUMBERS_H
#define KS_TESTS_NUMBERS_H

#include "compute/backend.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* SplitMix64; the same numbers everywhere. */
typedef struct rng {
    uint64_t state;
} rng;

double rng_uniform(rng *r);                        /* [0, 1) */
double rng_normal(rng *r);                         /* mean 0, variance 1 */
size_t rng_below(rng *r, size_t n);                /* 0 .. n - 1 */
float *rng_floats(rng *r, size_t n, double scale); /* n new normal numbers times scale; free with free() */

/* |got - want| / |want| in the Euclidean norm; 0 where both are exactly 0, infinite where only want is or got is not finite. */
double distance(const float *got, const long double *want, size_t n);

/* Relative error of one number by the same rules. */
double relative(double got, long double want);

/* True if all bits are equal. */
bool same_bits(const void *a, const void *b, size_t bytes);

/* The CPU backend with its instruction sets that this processor can run, each with one and with three threads. devices[0] is generic
 * with one thread. */
enum { DEVICES_MAX = 6 };
typedef struct devices {
    const ks_backend *b;
    ks_device *dev[DEVICES_MAX];
    int n;
} devices;
void devices_open(devices *d);
void devices_close(devices *d);

/* Set-up and tear-down of a cmocka group that runs on all of them. */
extern devices all_devices;
int devices_setup(void **state);
int devices_teardown(void **state);

/* Keeps the largest of what it is shown and where that was. */
typedef struct worst {
    double value;
    char where[120];
} worst;
void worst_of(worst *w, double value, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Prints the figure beside its limit and fails the test when it is above. */
void assert_below(const char *what, const worst *w, double limit);

#endif
