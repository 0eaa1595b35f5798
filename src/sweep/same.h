/* same.h - one model, whatever host it is read on. */
#ifndef KS_SWEEP_SAME_H
#define KS_SWEEP_SAME_H

#include "sweep/task.h"

/* Collective, after ks_task_share: whether this rank's copy of the model is root's (task.h: its SHA-256 sums). KS_EINPUT where it is not.
 * On each host one rank reads the weights for that; the others only look whether they have opened the same files. */
int ks_same_model(const ks_task *t);

#endif
