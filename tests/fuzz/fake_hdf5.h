/* fake_hdf5.h - stands in for the HDF5 library in a program that reads result files. There is one file: a right one, but for the
 * deviations that an input asks for. So whatever HDF5 could answer is answered to our reader, without a file, and without HDF5's own
 * faults. */
#ifndef KS_TESTS_FAKE_HDF5_H
#define KS_TESTS_FAKE_HDF5_H

#include <stddef.h>
#include <stdint.h>

/* The configuration of the right file, in canonical form. */
#define FAKE_HDF5_CONFIG                                                                                                            \
    "{\"models\":[{\"name\":\"m\"}],\"groups\":null,\"samples\":null,\"include_baselines\":false,\"special_tokens\":\"tokenizer\"," \
    "\"marker\":"                                                                                                                   \
    "\"first-token\",\"precision\":\"full\",\"save_logits\":true,\"floor\":true,\"sweeps\":[]}"

/* What a deviation does. All but FAKE_FAIL are about one member of the file (a group, a data set or an attribute). */
enum {
    FAKE_FAIL,     /* the place-th call that can fail does */
    FAKE_MISSING,  /* not there */
    FAKE_DANGLING, /* a link that leads nowhere */
    FAKE_KIND,     /* a group instead of a data set, or the other way round */
    FAKE_CLASS,    /* of its type: value */
    FAKE_SIZE,     /* of its type, in bytes */
    FAKE_VARIABLE, /* texts of variable length */
    FAKE_RANK,     /* number of axes */
    FAKE_LENGTH,   /* of axis place: value, or with its highest bit 2 to the power of it */
    FAKE_STORAGE,  /* bytes that it takes in the file: as FAKE_LENGTH */
    FAKE_VALUE,    /* its element place: small numbers as they are, and what is special; a byte of a text */
    FAKE_MEMBERS,  /* a group's number of groups */
    FAKE_WHATS
};

/* The input is a list of deviations of 6 bytes: what, member, place (2), value (2). It must live as long as the file is read. */
void fake_hdf5_begin(const uint8_t *input, size_t size);

/* Aborts where an object is still open. */
void fake_hdf5_end(void);

#endif
