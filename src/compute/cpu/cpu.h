/* cpu.h - the backend that runs on the processor and defines what every operation means. Its numbers come from isa/: the same bits for
 * any number of threads and every instruction set. */
#ifndef KS_COMPUTE_CPU_CPU_H
#define KS_COMPUTE_CPU_CPU_H

#include "compute/backend.h"

extern const ks_backend ks_backend_cpu;

#endif
