/* ring.h - items of a fixed sequence, read once by one thread into two buffers that all members use: threads of a process, or processes
 * that share the memory.
 *
 * A round is a walk over items 0..items-1 and then, as often as a member likes, over the last `tail` of them again. All members of a
 * round walk the same way, each at its own pace. A buffer is filled anew when every member still in the round has released what is in it,
 * so the slowest sets the pace and nothing is read twice. What is still in its buffer is not read again: a tail of one or two items is read
 * once a round.
 *
 *     position       0   1   2   3   4 | 5   6   7 | 8 ...        5 items, tail 3
 *     item           0   1   2   3   4 | 2   3   4 | 2
 *     buffer         0   1   0   1   0 | 0   1   0 | 0            item % 2
 *                            ^   ^   ^
 *                      slowest fastest reader, which waits: buffer 0 is in use
 *
 * The first walk is read ahead; each further one only when a member has asked for its first item, so nothing is read in vain. Nobody spins:
 * all wait on condition variables. A process that dies leaves the others waiting; ending them is the caller's business. */
#ifndef KS_MODEL_RING_H
#define KS_MODEL_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KS_RING_SLOTS = 2, KS_RING_MEMBERS = 1024 };

typedef struct ks_ring ks_ring;

typedef struct ks_ring_source {
    int32_t items, tail; /* 0 <= tail <= items, 1 <= items; tail 0: one walk a round */
    size_t slot_bytes;   /* of the largest item */
    /* Fills slot with an item, on the reader's thread. A long read asks ks_ring_wanted from time to time and returns KS_OK if it is not. */
    int (*read)(void *ctx, ks_ring *r, int32_t item, unsigned char *slot);
    void *ctx;
} ks_ring_source;

/* Bytes of memory that a ring needs. */
size_t ks_ring_bytes(size_t slot_bytes);

/* Joins the ring in `memory`: aligned to 64 bytes, seen by all members, zero in its first ks_ring_bytes(0) bytes before the first one
 * comes, and outliving all of them. Sources have the same sizes; only member 0's reads. Member 0 makes the ring and starts the reader's
 * thread, others wait up to a minute for that. */
int ks_ring_open(ks_ring **out, void *memory, const ks_ring_source *source, int member, int members);
/* Leaves the round. Member 0's ends the reader, too: members that still wait get an error. NULL is fine. */
void ks_ring_close(ks_ring *r);

/* Enters a round. round (not 0, not that of the round before) and who [members] are the same for all members with who[member] != 0, which
 * are those that enter; the others wait for one that does not come. All must have left the round before. */
int ks_ring_begin(ks_ring *r, uint32_t round, const uint8_t *who);
/* Leaves the round, whatever is held; outside a round it does nothing. */
void ks_ring_end(ks_ring *r);

/* Waits for the item, which must be the walk's next. *data is valid until its release. At most two may be held, in two buffers; they are
 * released in the order in which they were acquired. A read that fails gives its status and text to every member that comes to it. */
int ks_ring_acquire(ks_ring *r, int32_t item, unsigned char **data);
void ks_ring_release(ks_ring *r, int32_t item);

/* For the source: whether anybody still waits for what is being read. */
bool ks_ring_wanted(ks_ring *r);

#endif
