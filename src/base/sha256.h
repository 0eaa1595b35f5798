/* sha256.h - SHA-256 (FIPS 180-4) of memory and of streams, for the fingerprints in result files. Nothing here fails. */
#ifndef KS_BASE_SHA256_H
#define KS_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct ks_sha256 {
    uint32_t state[8];
    uint64_t bytes;    /* taken so far */
    uint8_t block[64]; /* the unfinished block: bytes % 64 of them are set */
} ks_sha256;

/* init, any number of updates of any size, final. final ends the stream: init again before the next use. */
void ks_sha256_init(ks_sha256 *s);
void ks_sha256_update(ks_sha256 *s, const void *data, size_t bytes);
void ks_sha256_final(ks_sha256 *s, uint8_t digest[32]);

/* final, as 64 lower-case hex digits and a NUL. */
void ks_sha256_final_hex(ks_sha256 *s, char out[65]);

/* The whole of it for one array. */
void ks_sha256_hex(char out[65], const void *data, size_t bytes);

#endif
