/* group.h - GPUs of several processes that hand memory to one another, for weights that are sharded over them. Beside gpu.h, and with two
 * implementations as well: gpu_nccl.c (NCCL) and, for tests, tests/check/group_check.c (processes of a host, shared memory); gpu_alone.c is
 * for builds without NCCL.
 *
 * All members make the same broadcasts in the same order. Where a member dies or hangs, nobody waits for ever: a wait of the host (also
 * ks_gpu_reach, ks_gpu_wait and freeing) that is behind a broadcast for longer than `patience` seconds ends, the group is broken from then
 * on, and that wait and all further broadcasts are KS_EMACHINE with the reason. One thread at a time uses a group and its GPU. */
#ifndef KS_COMPUTE_CUDA_GROUP_H
#define KS_COMPUTE_CUDA_GROUP_H

#include "compute/cuda/gpu.h"

typedef struct ks_gpu_group ks_gpu_group;

/* A group to be: made by one process, sent to the others as bytes. */
typedef struct ks_gpu_group_id {
    char bytes[128];
} ks_gpu_group_id;

/* KS_OK if GPUs can form groups here, and by what (NCCL's version); else KS_EMACHINE with the reason. */
int ks_gpu_group_probe(char *by, size_t bytes);
int ks_gpu_group_new_id(ks_gpu_group_id *id);

/* Member `member` of `members`, each on a GPU of its own. Waits for all of them, `patience` seconds at most; patience is as long, too, as
 * one of them may come to a broadcast later than another. g outlives the group. */
int ks_gpu_group_join(ks_gpu_group **out, ks_gpu *g, const ks_gpu_group_id *id, int member, int members, double patience);
/* Waits for what is queued; all members leave. NULL is fine. */
void ks_gpu_group_leave(ks_gpu_group *group);

/* In the side queue: bytes > 0 of member `from`'s device memory become the other members' at `device`, each inside one allocation. */
int ks_gpu_group_broadcast(ks_gpu_group *group, void *device, size_t bytes, int from);

#endif
