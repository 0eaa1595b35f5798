/* queue.h - the units of a plan, handed out in passes to whoever is free.
 *
 * Guided self-scheduling (Polychronopoulos & Kuck 1987): a pass is worth a fixed share of what is left, weighted with the speed of the rank
 * that asks. Passes begin large, so that there are few of them, and end as single small units, so that all ranks end together. */
#ifndef KS_PLAN_QUEUE_H
#define KS_PLAN_QUEUE_H

#include "plan/plan.h"

typedef struct ks_queue ks_queue;

/* With so many ranks root only serves: what its own passes would add is less than what the others would wait. */
enum { KS_ROOT_ONLY_SERVES = 128 };

/* units: most FLOPs first; they and the problem are borrowed. budget: bytes of activations of a pass. Free with ks_queue_free. */
int ks_queue_new(ks_queue **out, const ks_problem *problem, const ks_unit *units, size_t n, int64_t budget);
void ks_queue_free(ks_queue *q);

/* Not yet handed out. */
double ks_queue_flops(const ks_queue *q);
size_t ks_queue_units(const ks_queue *q);

/* The next pass: the indices of units worth about `flops` together that fit the budget together, the largest first, and one unit at
 * least if any is left. Returns how many; out has room for all units. */
size_t ks_queue_take(ks_queue *q, double flops, int32_t *out);

/* FLOPs of the next pass of a rank of this speed, when `left` FLOPs are left for ranks whose speeds (FLOP/s) sum to `all`: half of what it
 * would do until all end together, all of it for a rank that is alone, and at most max_seconds' worth. */
double ks_queue_share(double left, double speed, double all, double max_seconds);

#endif
