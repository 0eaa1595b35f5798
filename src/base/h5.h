/* h5.h - the check macro for HDF5, shared by the two files that own that library: the results writer and the results reader.
 * Header only, so that this room does not link HDF5. */
#ifndef KS_BASE_H5_H
#define KS_BASE_H5_H

#include "base/error.h"

#include <hdf5.h>
#include <stdio.h>

typedef struct ks_h5_cause {
    char text[256];
} ks_h5_cause;

/* Walking from the API call inwards, the last entry seen is the innermost cause. */
static inline herr_t ks_h5_entry(unsigned n, const H5E_error2_t *e, void *cause)
{
    (void)n;
    if (e->desc && e->desc[0]) snprintf(((ks_h5_cause *)cause)->text, sizeof((ks_h5_cause *)cause)->text, "%s", e->desc);
    return 0;
}

/* Turns HDF5's error stack into one line. `where` is the file's path. */
static inline int ks_h5_error(int code, const char *where, const char *statement)
{
    ks_h5_cause cause = {"no reason given"};
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, ks_h5_entry, &cause);
    H5Eclear2(H5E_DEFAULT);
    return ks_error(code, "%s: HDF5: %s (in %.120s)", where, cause.text, statement);
}

/* Runs an HDF5 call whose negative result is a failure; keeps the failing statement in the message. */
#define KS_H5(expr, code, where)                      \
    do {                                              \
        if ((expr) < 0) {                             \
            rc = ks_h5_error((code), (where), #expr); \
            goto done;                                \
        }                                             \
    } while (0)

#endif
