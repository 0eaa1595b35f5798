/* fuzz.h - what the fuzz targets share. A target is one function: it gets any bytes, hands them to one of the program's readers, and
 * aborts where the reader breaks its contract. README.md says how targets are run. */
#ifndef KS_TESTS_FUZZ_H
#define KS_TESTS_FUZZ_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* The name that libFuzzer (or replay.c) calls; 0 for "keep this input if it covers something new". */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(cond)                                                                                    \
    do {                                                                                                    \
        if (!(cond)) {                                                                                      \
            fprintf(stderr, "%s:%d: does not hold: %s (%s)\n", __FILE__, __LINE__, #cond, ks_error_text()); \
            abort();                                                                                        \
        }                                                                                                   \
    } while (0)

/* A reader's answer: KS_OK, or `refusal` with a text that says why. The machine's own failures are not the input's. */
#define FUZZ_ANSWER(rc, refusal) FUZZ_CHECK((rc) == KS_OK || ((rc) == (refusal) && ks_error_text()[0]))

/* Reads every byte, so that a sanitizer sees one that is not there. */
void fuzz_read(const void *p, size_t bytes);

/* A copy with a NUL behind it, like a file that was read; free with free(). */
char *fuzz_text(const uint8_t *data, size_t size);

/* The input's parts, which NUL bytes divide: part [n] and bytes [n], n <= room; the last takes what is left. They lie in data. */
size_t fuzz_parts(const uint8_t *data, size_t size, const uint8_t **part, size_t *bytes, size_t room);

/* A new file of that name in a folder of this process (in memory where there is /dev/shm), which goes away when the program ends well. */
typedef struct fuzz_file {
    const char *folder;
    char path[96];
    int fd;
} fuzz_file;
const fuzz_file *fuzz_file_new(const char *name);
void fuzz_file_write(const fuzz_file *f, uint64_t at, const void *data, size_t bytes);
void fuzz_file_size(const fuzz_file *f, uint64_t bytes); /* 0 empties it; what is added reads as zeros and takes no room */

#endif
