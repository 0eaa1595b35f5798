/* mem.h - memory that is checked when asked for. */
#ifndef KS_BASE_MEM_H
#define KS_BASE_MEM_H

#include "base/error.h"

#include <stddef.h>

/* n * size zeroed bytes, never NULL for n = 0; NULL with the error text set when memory or the product's range ends.
 * Free with free(). */
void *ks_calloc(size_t n, size_t size);

/* Grows an array made by ks_calloc (or NULL) to n elements; new ones are not set. NULL leaves `old` alone. */
void *ks_realloc(void *old, size_t n, size_t size);

/* Copy of a string; NULL with the error text set. Free with free(). */
char *ks_strdup(const char *s);

/* Large uninitialised array: 64-byte aligned, huge pages advised (first touch is ten times slower without). Free with ks_big_free. */
void *ks_big_alloc(size_t bytes);
void ks_big_free(void *p);

/* printf into a new string; NULL with the error text set. Free with free(). */
char *ks_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ptr = n zeroed elements, or to `done` with rc = KS_EMACHINE. */
#define KS_NEW(ptr, n)                                 \
    do {                                               \
        (ptr) = ks_calloc((size_t)(n), sizeof *(ptr)); \
        if (!(ptr)) {                                  \
            rc = KS_EMACHINE;                          \
            goto done;                                 \
        }                                              \
    } while (0)

/* ptr = an expression that returns memory or NULL with the error text set, or to `done` with rc = KS_EMACHINE. */
#define KS_GET(ptr, expr)     \
    do {                      \
        (ptr) = (expr);       \
        if (!(ptr)) {         \
            rc = KS_EMACHINE; \
            goto done;        \
        }                     \
    } while (0)

#endif
