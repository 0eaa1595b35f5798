#define _GNU_SOURCE /* memrchr */
#include "compute/backend.h"

#include "base/error.h"
#include "base/log.h"
#include "compute/cpu/cpu.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The CUDA backend is a module, loaded only where it is wanted: the program starts where there is no CUDA, and a run on the CPU does not
 * pay for loading it. The module takes ks_error and the like from this program. */
static const char module[] = "libkosweep_cuda.so";

/* The module that KOSWEEP_CUDA_MODULE names (tests use it), else the one beside the program, else from where the system looks for
 * libraries. */
static int load_cuda(const ks_backend **out)
{
    char path[4096];
    const char *chosen = getenv("KOSWEEP_CUDA_MODULE");
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path - sizeof module);
    char *name = n > 0 ? memrchr(path, '/', (size_t)n) : NULL;
    if (name) memcpy(name + 1, module, sizeof module);
    if (!chosen) chosen = name && !access(path, F_OK) ? path : module;
    void *so = dlopen(chosen, RTLD_NOW | RTLD_LOCAL);
    if (!so) return ks_error(KS_EMACHINE, "backend cuda: %s (is this build without CUDA?); cpu is there", dlerror());

    const ks_backend *table = dlsym(so, "ks_backend_cuda");
    int (*probe)(void) = (int (*)(void))dlsym(so, "ks_gpu_probe");
    if (!table || !probe) return ks_error(KS_EMACHINE, "backend cuda: %s is not of this version of kosweep", chosen);
    if (probe()) return ks_error_context(KS_EMACHINE, "backend cuda");
    *out = table;
    return KS_OK;
}

/* Whether the system has a GPU's device file: NVIDIA's driver, or that of Windows below Linux. */
static bool gpu_device(void)
{
    glob_t found = {0};
    const bool any = !glob("/dev/nvidia[0-9]*", 0, NULL, &found) || !access("/dev/dxg", F_OK);
    globfree(&found);
    return any;
}

int ks_backend_find(const ks_backend **out, const char *name)
{
    if (!strcmp(name, "cuda")) return load_cuda(out);
    *out = &ks_backend_cpu;
    if (!strcmp(name, ks_backend_cpu.name)) return KS_OK;
    if (strcmp(name, "auto")) return ks_error(KS_EUSAGE, "backend: auto, cpu or cuda expected, \"%s\" found", name);
    if (!gpu_device()) ks_log(KS_LOG_DEBUG, "backend cpu: there is no GPU (neither /dev/nvidia0 nor /dev/dxg)");
    else if (load_cuda(out)) ks_log(KS_LOG_DEBUG, "backend cpu, because of %s", ks_error_text());
    return KS_OK;
}
