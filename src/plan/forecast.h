/* forecast.h - a sweep acted out: the queue of a plan, ranks that take a pass whenever they are free, and root that serves them. */
#ifndef KS_PLAN_FORECAST_H
#define KS_PLAN_FORECAST_H

#include "plan/queue.h"

/* What handing out and gathering cost, in seconds. All 0: only the arithmetic counts. Root hands passes out before it stores what has come
 * meanwhile, so a rank waits for at most the message that is being stored. Root's own first pass is handed out last. */
typedef struct ks_service {
    double root_pass;   /* root's work for a pass: taking it from the queue, messages */
    double root_cell;   /* root's work for a cell: unpacking, storing, writing */
    double reply;       /* a rank other than root waits so long for a message's way to root and back */
    double root_loss;   /* what root's own pass loses of a second of service: 1 / threads of a rank */
    double max_seconds; /* longest pass; 0: any */
    /* *seconds of a pass of units[of[0]] .. units[of[n - 1]] on a rank. NULL: its FLOPs at the rank's speed. */
    int (*pass)(void *ctx, const ks_unit *units, const int32_t *of, size_t n, int rank, double *seconds);
    void *ctx;
} ks_service;

typedef struct ks_forecast {
    int ranks;
    double *flops;       /* [ranks] */
    double *end;         /* [ranks] seconds until it has nothing left to do */
    int32_t *passes;     /* [ranks] */
    int64_t *cells;      /* [ranks] */
    double *unit_end;    /* [units] seconds until the pass that it is in has been computed */
    double seconds;      /* until the last cell is stored */
    double root_seconds; /* root's service in all */
    int64_t peak_bytes;  /* activations of the largest pass */
} ks_forecast;

/* units: most FLOPs first. speed: [ranks] FLOP/s, or NULL for 1 each. service: or NULL for none. Free with ks_forecast_free. */
int ks_forecast_new(ks_forecast **out, const ks_problem *problem, const ks_unit *units, size_t n, int64_t budget, int ranks,
                    const double *speed, const ks_service *service);
void ks_forecast_free(ks_forecast *f);

/* Largest of the ranks' FLOPs and passes. */
double ks_forecast_top(const ks_forecast *f);
int32_t ks_forecast_passes(const ks_forecast *f);

#endif
