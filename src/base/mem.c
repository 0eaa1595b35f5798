#define _GNU_SOURCE
#include "base/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void *checked(void *p, size_t n, size_t size)
{
    if (!p) ks_error(KS_EMACHINE, "out of memory: %zu x %zu bytes", n, size);
    return p;
}

void *ks_calloc(size_t n, size_t size)
{
    return checked(calloc(n ? n : 1, size ? size : 1), n, size);
}

void *ks_realloc(void *old, size_t n, size_t size)
{
    return checked(reallocarray(old, n ? n : 1, size ? size : 1), n, size);
}

char *ks_strdup(const char *s)
{
    return checked(strdup(s), strlen(s) + 1, 1);
}

void *ks_big_alloc(size_t bytes)
{
    const size_t huge = (size_t)2 << 20;
    const size_t align = bytes >= huge ? huge : 64;
    if (bytes > SIZE_MAX - align) return checked(NULL, bytes, 1);
    const size_t rounded = (bytes + align - 1) / align * align;
    void *p = checked(aligned_alloc(align, rounded ? rounded : align), bytes, 1);
    if (p && align == huge) madvise(p, rounded, MADV_HUGEPAGE);
    return p;
}

void ks_big_free(void *p)
{
    free(p);
}

char *ks_format(const char *format, ...)
{
    char *s = NULL;
    va_list args;
    va_start(args, format);
    const int n = vasprintf(&s, format, args);
    va_end(args);
    return checked(n < 0 ? NULL : s, 1, 1);
}
