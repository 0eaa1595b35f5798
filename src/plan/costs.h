/* costs.h - what passes cost on a GPU of the table, predicted from the rows that the plan knows. The formulas and what is assumed:
 * docs/costs.md. Nothing of this has been held against a GPU yet.
 *
 * An operation takes the longest of arithmetic, memory traffic and copies from the host (a roofline), and each launch its latency. */
#ifndef KS_PLAN_COSTS_H
#define KS_PLAN_COSTS_H

#include "model/weights.h"
#include "plan/devices.h"
#include "plan/forecast.h"

/* Assumptions: what large products reach of the tensor cores' (or fp32) peak; what the other kernels reach of arithmetic's; what is reached
 * of bandwidths; seconds of a launch, and of a result's way to the host; operations in double for a logit's measures. */
#define KS_SHARE_PRODUCTS 0.70
#define KS_SHARE_KERNELS 0.25
#define KS_SHARE_BANDWIDTH 0.80
#define KS_LAUNCH_SECONDS 4e-6
#define KS_WAIT_SECONDS 3e-5
#define KS_MEASURE_FLOPS 150.0
/* The CUDA context, cuBLASLt, staging: bytes of the GPU that no plan can use. */
#define KS_GPU_FIXED_BYTES (1LL << 30)

/* Parts of the work, and what they wait for. */
enum { KS_COST_PRODUCTS, KS_COST_ATTENTION, KS_COST_ELEMENTWISE, KS_COST_HEAD, KS_COST_WEIGHTS, KS_COST_LAUNCHES, KS_COST_PARTS };
enum { KS_BY_ARITHMETIC, KS_BY_MEMORY, KS_BY_HOST, KS_BY_LATENCY, KS_COST_BOUNDS };
extern const char *const ks_cost_parts[], *const ks_cost_bounds[]; /* their names; end with NULL */

typedef struct ks_cost_model {
    const ks_gpu_facts *gpu;
    const ks_arch *arch;  /* dtype: of the weights */
    int precision;        /* KS_PRECISION_* of the effects */
    ks_streamed streamed; /* weights that come from the host in every pass, not in a rank's first alone */
} ks_cost_model;

/* What a pass computes. */
typedef struct ks_pass_work {
    ks_pass_size size;
    ks_layer_rows *trunk, *effects; /* [L] */
} ks_pass_work;

typedef struct ks_cost {
    double seconds;
    double part[KS_COST_PARTS], bound[KS_COST_BOUNDS]; /* seconds; each sums to `seconds` */
    double products;                                   /* FLOPs of products, each bf16 product of a split operand counted */
    double copied;                                     /* bytes of weights from the host */
} ks_cost;

int ks_pass_work_new(ks_pass_work **out, const ks_arch *arch);
void ks_pass_work_free(ks_pass_work *w);
/* Empties it. */
void ks_pass_work_clear(ks_pass_work *w, const ks_arch *arch);
/* Adds a unit's rows, walking its branches once. */
int ks_pass_work_add(ks_pass_work *w, const ks_problem *problem, const ks_unit *u);

/* Adds the cost of a pass. cold: resident weights are copied to the GPU in it. */
void ks_cost_pass(ks_cost *c, const ks_cost_model *m, const ks_pass_work *w, bool cold);
/* FLOP/s of the plan's (one product) that effects reach at best. */
double ks_cost_speed(const ks_cost_model *m);
/* FLOP/s of the peak that products run at: bf16 or fp32. */
double ks_cost_peak(const ks_cost_model *m);

/* A sweep acted out on `ranks` such GPUs (forecast.h). */
typedef struct ks_gpu_forecast {
    ks_forecast *forecast;
    ks_cost all, longest; /* of all passes of all GPUs; of the longest pass */
    double busiest;       /* seconds of the GPU that computes longest */
} ks_gpu_forecast;

/* service: its max_seconds and what root costs; the passes' times are the model's. Free with ks_gpu_forecast_free. */
int ks_gpu_forecast_new(ks_gpu_forecast **out, const ks_cost_model *m, const ks_problem *problem, const ks_unit *units, size_t n,
                        int64_t budget, int ranks, const ks_service *service);
void ks_gpu_forecast_free(ks_gpu_forecast *f);

#endif
