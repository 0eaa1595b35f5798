/* devices.h - GPUs that a sweep can be planned for without having one: their makers' figures, as docs/costs.md names the sources. */
#ifndef KS_PLAN_DEVICES_H
#define KS_PLAN_DEVICES_H

#include <stdint.h>

typedef struct ks_gpu_facts {
    const char *name, *title;
    double bf16, fp32, fp64;   /* peak FLOP/s: dense bf16 on tensor cores, summed in fp32; fp32 and fp64 beside them */
    int64_t memory;            /* bytes */
    double bandwidth;          /* bytes/s of its memory */
    double host, interconnect; /* bytes/s in one direction: from the host, from another GPU; interconnect 0: by way of the host */
} ks_gpu_facts;

extern const ks_gpu_facts ks_gpus[]; /* by name; ends with name NULL */

/* *out is the GPU of that name, whatever the case of its letters. KS_EUSAGE lists the known ones, and the nearest. */
int ks_gpu_find(const ks_gpu_facts **out, const char *name);

#endif
