#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_BYTES = 2048 };
static _Thread_local char text[TEXT_BYTES];

int ks_error(int code, const char *format, ...)
{
    /* Formatted aside first: an argument may be the old text itself. */
    char fresh[TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(fresh, sizeof fresh, format, args);
    va_end(args);
    memcpy(text, fresh, sizeof text);
    return code;
}

int ks_error_context(int code, const char *format, ...)
{
    char context[TEXT_BYTES / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(context, sizeof context, format, args);
    va_end(args);
    return ks_error(code, "%s: %s", context, text);
}

const char *ks_error_text(void)
{
    return text;
}
