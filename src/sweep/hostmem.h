/* hostmem.h - memory that all ranks of a host see. */
#ifndef KS_SWEEP_HOSTMEM_H
#define KS_SWEEP_HOSTMEM_H

#include <stddef.h>

/* Collective over the ranks of a host: zeroed memory of this size, the same for all of them; no other host is asked. Page aligned. If the
 * host has not that much shared memory (/dev/shm), or its ranks do not see the same, *out is NULL on all of them and that is no error:
 * the reason has been logged. */
int ks_hostmem_new(void **out, size_t bytes);
void ks_hostmem_free(void *memory, size_t bytes);

#endif
