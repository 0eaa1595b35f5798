/* device.h - memory for tests of kernels: blocks of exactly the size asked for, filled with NaN bytes. */
#ifndef KS_TESTS_CHECK_DEVICE_H
#define KS_TESTS_CHECK_DEVICE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* from NULL: not set. */
static inline void *device_new(const void *from, size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    assert_non_null(p);
    if (from) memcpy(p, from, bytes);
    else memset(p, 0xff, bytes);
    return p;
}

#endif
