#include "compute/backend.h"

#include "base/error.h"
#include "compute/cpu/cpu.h"

#include <string.h>

int ks_backend_find(const ks_backend **out, const char *name)
{
    if (!strcmp(name, "auto") || !strcmp(name, ks_backend_cpu.name)) {
        *out = &ks_backend_cpu;
        return KS_OK;
    }
    if (!strcmp(name, "cuda")) return ks_error(KS_EMACHINE, "backend cuda: this build has no CUDA backend; cpu is there");
    return ks_error(KS_EUSAGE, "backend: auto, cpu or cuda expected, \"%s\" found", name);
}
