/* cuda.h - the backend that runs on a GPU. Its host code (here) needs gpu.h and kernels/kernels.h and nothing else of CUDA, so that tests
 * run it with both compiled for the processor (tests/check/). docs/cuda.md is its page. */
#ifndef KS_COMPUTE_CUDA_CUDA_H
#define KS_COMPUTE_CUDA_CUDA_H

#include "compute/backend.h"

extern const ks_backend ks_backend_cuda;

#endif
