#include "plan/devices.h"

#include "base/error.h"
#include "base/json.h"

#include <stdio.h>
#include <strings.h>

#define T 1e12
#define GB 1000000000

/* Memory in GB of 10^9 bytes: data sheets leave open which GB they mean, and a plan for a little less fits. */
const ks_gpu_facts ks_gpus[] = {
    /* name, title, bf16, fp32, fp64 FLOP/s, memory, bandwidth, host, interconnect */
    {"a10", "NVIDIA A10 24 GB", 125 * T, 31.2 * T, 0.49 * T, 24LL * GB, 0.6 * T, 32e9, 0},
    {"a100", "NVIDIA A100 SXM 80 GB", 312 * T, 19.5 * T, 9.7 * T, 80LL * GB, 2.039 * T, 32e9, 300e9},
    {"a100-40", "NVIDIA A100 SXM 40 GB", 312 * T, 19.5 * T, 9.7 * T, 40LL * GB, 1.555 * T, 32e9, 300e9},
    {"a6000", "NVIDIA RTX A6000 48 GB", 154.8 * T, 38.7 * T, 0.6 * T, 48LL * GB, 0.768 * T, 32e9, 56e9},
    {"b200", "NVIDIA B200 SXM 180 GB", 2250 * T, 75 * T, 37 * T, 180LL * GB, 8 * T, 64e9, 900e9},
    {"gh200", "NVIDIA GH200 96 GB", 989 * T, 67 * T, 34 * T, 96LL * GB, 4 * T, 450e9, 450e9},
    {"h100", "NVIDIA H100 SXM 80 GB", 989 * T, 67 * T, 34 * T, 80LL * GB, 3.35 * T, 64e9, 450e9},
    {"h100-nvl", "NVIDIA H100 NVL 94 GB", 835 * T, 60 * T, 30 * T, 94LL * GB, 3.9 * T, 64e9, 300e9},
    {"h100-pcie", "NVIDIA H100 PCIe 80 GB", 756 * T, 51 * T, 26 * T, 80LL * GB, 2 * T, 64e9, 300e9},
    {"h200", "NVIDIA H200 SXM 141 GB", 989 * T, 67 * T, 34 * T, 141LL * GB, 4.8 * T, 64e9, 450e9},
    {"l4", "NVIDIA L4 24 GB", 121 * T, 30.3 * T, 0.47 * T, 24LL * GB, 0.3 * T, 32e9, 0},
    {"l40s", "NVIDIA L40S 48 GB", 362 * T, 91.6 * T, 1.43 * T, 48LL * GB, 0.864 * T, 32e9, 0},
    {"rtx3090", "NVIDIA GeForce RTX 3090 24 GB", 71 * T, 35.6 * T, 0.56 * T, 24LL * GB, 0.936 * T, 32e9, 0},
    {"rtx4090", "NVIDIA GeForce RTX 4090 24 GB", 165.2 * T, 82.6 * T, 1.29 * T, 24LL * GB, 1.008 * T, 32e9, 0},
    {"rtx5090", "NVIDIA GeForce RTX 5090 32 GB", 209.5 * T, 104.8 * T, 1.64 * T, 32LL * GB, 1.792 * T, 64e9, 0},
    {NULL, NULL, 0, 0, 0, 0, 0, 0, 0},
};

int ks_gpu_find(const ks_gpu_facts **out, const char *name)
{
    enum { N = sizeof ks_gpus / sizeof *ks_gpus };
    const char *names[N] = {0};
    char known[256] = "";
    size_t used = 0;
    for (size_t i = 0; ks_gpus[i].name; i++) {
        if (!strcasecmp(ks_gpus[i].name, name)) {
            *out = &ks_gpus[i];
            return KS_OK;
        }
        names[i] = ks_gpus[i].name;
        if (used < sizeof known) used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", names[i]);
    }
    const char *near = ks_nearest(name, names);
    return ks_error(KS_EUSAGE, "--device: there is no \"%.60s\" in the table%s%s%s; known: %s (--device list)", name,
                    near ? "; did you mean " : "", near ? near : "", near ? "?" : "", known);
}
