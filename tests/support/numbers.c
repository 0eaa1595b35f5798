#include "support/numbers.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t next(rng *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

double rng_uniform(rng *r)
{
    return (double)(next(r) >> 11) * 0x1p-53;
}

double rng_normal(rng *r)
{
    const double a = 1 - rng_uniform(r), b = rng_uniform(r);
    return sqrt(-2 * log(a)) * cos(6.283185307179586 * b);
}

size_t rng_below(rng *r, size_t n)
{
    return (size_t)(rng_uniform(r) * (double)n);
}

float *rng_floats(rng *r, size_t n, double scale)
{
    float *x = malloc((n ? n : 1) * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) x[i] = (float)(rng_normal(r) * scale);
    return x;
}

double distance(const float *got, const long double *want, size_t n)
{
    long double d = 0, w = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(got[i])) return INFINITY;
        d += ((long double)got[i] - want[i]) * ((long double)got[i] - want[i]);
        w += want[i] * want[i];
    }
    if (w == 0) return d == 0 ? 0 : (double)INFINITY;
    return (double)sqrtl(d / w);
}

double relative(double got, long double want)
{
    if (!isfinite(got)) return (double)INFINITY;
    if (want == 0) return got == 0 ? 0 : (double)INFINITY;
    return (double)fabsl(((long double)got - want) / want);
}

bool same_bits(const void *a, const void *b, size_t bytes)
{
    return bytes == 0 || !memcmp(a, b, bytes);
}

void devices_open(devices *d)
{
    static const char *const isas[] = {"generic", "avx2", "avx512"};
    d->n = 0;
    assert_int_equal(ks_backend_find(&d->b, "cpu"), 0);
    for (int i = 0; i < 3; i++) {
        for (int threads = 1; threads <= 3; threads += 2) {
            if (!d->b->open(&d->dev[d->n], &(ks_device_options){.threads = threads, .isa = isas[i]})) d->n++;
        }
    }
    assert_true(d->n >= 2);
}

void devices_close(devices *d)
{
    for (int i = 0; i < d->n; i++) d->b->close(d->dev[i]);
}

void worst_of(worst *w, double value, const char *format, ...)
{
    if (!(value <= w->value) || !w->where[0]) {
        va_list args;
        va_start(args, format);
        vsnprintf(w->where, sizeof w->where, format, args);
        va_end(args);
        w->value = value;
    }
}

void assert_below(const char *what, const worst *w, double limit)
{
    print_message("%-44s %.2e (limit %.1e) at %s\n", what, w->value, limit, w->where);
    if (!(w->value <= limit)) fail_msg("%s: %.3e is above %.3e at %s", what, w->value, limit, w->where);
}

devices all_devices;

int devices_setup(void **state)
{
    (void)state;
    devices_open(&all_devices);
    return 0;
}

int devices_teardown(void **state)
{
    (void)state;
    devices_close(&all_devices);
    return 0;
}
