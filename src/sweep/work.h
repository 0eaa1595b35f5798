/* work.h - what every rank does with one model: it takes units from root, a pass of them at a time, and sends results back. */
#ifndef KS_SWEEP_WORK_H
#define KS_SWEEP_WORK_H

#include "sweep/task.h"

/* A pass for a worker, KS_MSG_WORK: this, `members` bytes (which of those that it takes passes with have one), `units` times ks_unit; no
 * unit: only the weights are walked through (KS_ROUNDS_ALL). */
typedef struct ks_work_order {
    uint32_t round; /* see ks_weights_begin */
    int32_t members, units;
} ks_work_order;

/* A worker is free again, KS_MSG_PASS. The first one says that it is ready. */
typedef struct ks_work_report {
    double seconds;     /* of the pass; 0 in the first report */
    int64_t bytes_read; /* weights, from files, since the last report */
    int32_t threads;
} ks_work_report;

/* Works until root sends KS_MSG_END. A failure has been told to root (ks_comm_fail). On root it runs in a thread of its own. */
int ks_work(const ks_task *t, const ks_backend *be, ks_device *dev, ks_weights *weights, int threads);

#endif
