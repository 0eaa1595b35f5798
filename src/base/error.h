/* error.h - the one status convention of the project.
 *
 * Every function that can fail returns int: KS_OK (0) or one of the codes below, which are also the exit codes of the
 * programs. The text of the last failure is kept per thread. A function that owns resources has `int rc = KS_OK;` and
 * one label `done:`; KS_TRY and KS_REQUIRE go there. */
#ifndef KS_BASE_ERROR_H
#define KS_BASE_ERROR_H

enum {
    KS_OK = 0,
    KS_EUSAGE = 2,    /* command line or configuration */
    KS_EINPUT = 3,    /* an input file is missing, damaged or unsupported */
    KS_EMACHINE = 4,  /* memory, disk, device, a rank */
    KS_ESTOPPED = 75, /* stopped by a signal with work left */
};

/* Sets the thread's error text (printf style) and returns `code`. Text: what was wrong, what was expected, what was found. */
int ks_error(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "context: " in front of the thread's error text and returns `code`, for callers that know more than the callee. */
int ks_error_context(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The thread's last error text; "" if there was none. Valid until the thread's next failure. */
const char *ks_error_text(void);

#define KS_TRY(expr)       \
    do {                   \
        rc = (expr);       \
        if (rc) goto done; \
    } while (0)

#define KS_REQUIRE(cond, code, ...)    \
    do {                               \
        if (!(cond)) {                 \
            rc = (code);               \
            ks_error(rc, __VA_ARGS__); \
            goto done;                 \
        }                              \
    } while (0)

#endif
