#include "compute/cpu/dispatch.h"

#include "base/error.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool has_generic(void)
{
    return true;
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

static const struct {
    const ks_cpu_ops *ops;
    bool (*available)(void);
} tables[] = {{&ks_cpu_ops_avx512, has_avx512}, {&ks_cpu_ops_avx2, has_avx2}, {&ks_cpu_ops_generic, has_generic}}; /* best first */

enum { N_TABLES = sizeof tables / sizeof *tables };

const ks_cpu_ops *ks_cpu_ops_best(void)
{
    int i = 0;
    while (!tables[i].available()) i++;
    return tables[i].ops;
}

int ks_cpu_ops_find(const ks_cpu_ops **out, const char *name)
{
    const char *where = "instruction set";
    if (!name) {
        name = getenv("KS_CPU_ISA");
        where = "KS_CPU_ISA";
    }
    if (!name || !*name) {
        *out = ks_cpu_ops_best();
        return KS_OK;
    }
    for (int i = 0; i < N_TABLES; i++) {
        if (strcmp(name, tables[i].ops->name)) continue;
        if (!tables[i].available())
            return ks_error(KS_EMACHINE, "%s: this processor has no %s, the best it has is %s", where, name, ks_cpu_ops_best()->name);
        *out = tables[i].ops;
        return KS_OK;
    }
    return ks_error(KS_EUSAGE, "%s: generic, avx2 or avx512 expected, \"%s\" found", where, name);
}
