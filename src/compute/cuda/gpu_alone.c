/* group.h in builds without NCCL. */
#include "compute/cuda/group.h"

#include "base/error.h"

static int alone(void)
{
    return ks_error(KS_EMACHINE, "GPUs cannot share weights: this build is without NCCL");
}

int ks_gpu_group_probe(char *by, size_t bytes)
{
    (void)by, (void)bytes;
    return alone();
}

int ks_gpu_group_new_id(ks_gpu_group_id *id)
{
    (void)id;
    return alone();
}

int ks_gpu_group_join(ks_gpu_group **out, ks_gpu *g, const ks_gpu_group_id *id, int member, int members, double patience)
{
    (void)out, (void)g, (void)id, (void)member, (void)members, (void)patience;
    return alone();
}

void ks_gpu_group_leave(ks_gpu_group *group)
{
    (void)group;
}

int ks_gpu_group_broadcast(ks_gpu_group *group, void *device, size_t bytes, int from)
{
    (void)group, (void)device, (void)bytes, (void)from;
    return alone();
}
