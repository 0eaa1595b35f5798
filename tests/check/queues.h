/* queues.h - the check GPU's two queues: lists of work that runs as late as can be, or far ahead of the other queue. Nothing runs before
 * something is waited for. Then a seed (KS_CHECK_SEED) decides, anew each time, which queue runs ahead as far as marks let it, or that they
 * take turns; the other one runs only as far as it must. So an order that no mark gives comes out both ways sooner or later.
 *
 * A mark lies in the past when something waits for it, so queues never wait for each other in a ring. */
#ifndef KS_TESTS_CHECK_QUEUES_H
#define KS_TESTS_CHECK_QUEUES_H

#include "compute/cuda/gpu.h"

typedef struct ks_queues ks_queues;

/* What is done with an operation's arguments; context: ks_queues_new's. */
typedef void ks_step(void *context, void *args);

int ks_queues_new(ks_queues **out, void *context);
void ks_queues_free(ks_queues *s); /* waits; NULL is fine */

/* An operation, with a copy of its arguments. run: when the queue comes to it; over: later, when the host knows that it has run (NULL:
 * nothing to do). */
int ks_queues_add(ks_queues *s, int queue, ks_step *run, ks_step *over, const void *args, size_t bytes);

/* As ks_gpu_mark, _after, _reach, _wait. */
void ks_queues_mark(ks_queues *s, int queue, int i);
int ks_queues_after(ks_queues *s, int queue, int i);
void ks_queues_reach(ks_queues *s, int i);
void ks_queues_wait(ks_queues *s);
void ks_queues_run(ks_queues *s, int queue); /* to its end, which the host does not know of */

#endif
