#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int max_level = KS_LOG_INFO;
static int log_rank = -1;
static int progress_shown = 0; /* on the terminal */
static char last_error[4096];  /* guarded by stderr's lock */
static double plain_since = 0; /* seconds, of the last plain line or the first call */

void ks_log_set_level(int level)
{
    max_level = level;
}

void ks_log_set_rank(int rank)
{
    log_rank = rank;
}

static void clear_progress(void)
{
    if (progress_shown) fputs("\r\033[K", stderr);
    progress_shown = 0;
}

void ks_log(int level, const char *format, ...)
{
    static const char *const prefix[] = {"error: ", "warning: ", "", ""};
    if (level > max_level || (log_rank > 0 && level > KS_LOG_WARN)) return;

    /* One write per line, so that lines of different ranks do not mix. */
    char line[sizeof last_error] = "";
    int n = log_rank > 0 ? snprintf(line, sizeof line, "[rank %d] ", log_rank) : 0;
    n += snprintf(line + n, sizeof line - (size_t)n, "kosweep: %s", prefix[level]);
    va_list args;
    va_start(args, format);
    vsnprintf(line + n, sizeof line - (size_t)n, format, args);
    va_end(args);
    flockfile(stderr);
    if (level != KS_LOG_ERROR || strcmp(line, last_error)) {
        clear_progress();
        fprintf(stderr, "%s\n", line);
    }
    if (level == KS_LOG_ERROR) memcpy(last_error, line, sizeof line);
    funlockfile(stderr);
}

/* Without a terminal: whether the next line is due. */
static int plain_due(int ends)
{
    enum { MINUTE = 60 };
    const char *set = getenv("KOSWEEP_PROGRESS");
    const double every = set && atof(set) > 0 ? atof(set) : MINUTE, now = ks_seconds();
    if (ends) plain_since = 0;
    else if (plain_since == 0) plain_since = now;
    if (ends || now - plain_since < every) return 0;
    plain_since = now;
    return 1;
}

void ks_log_progress(const char *format, ...)
{
    if (max_level < KS_LOG_INFO || log_rank > 0) return;
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    flockfile(stderr);
    if (!isatty(STDERR_FILENO)) {
        if (plain_due(!line[0])) ks_log(KS_LOG_INFO, "%s", line);
    } else {
        clear_progress();
        progress_shown = line[0] != 0;
        if (line[0]) fprintf(stderr, "\r%s", line);
        fflush(stderr);
    }
    funlockfile(stderr);
}

double ks_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
