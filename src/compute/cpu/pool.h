/* pool.h - a persistent pool of threads.
 *
 * One thread at a time may use a pool, and not from inside one of its own items. */
#ifndef KS_COMPUTE_CPU_POOL_H
#define KS_COMPUTE_CPU_POOL_H

#include <stddef.h>

typedef struct ks_pool ks_pool;

/* n_threads >= 1; the caller of ks_pool_run counts as one of them. KS_EUSAGE for n_threads < 1, KS_EMACHINE when threads cannot start. */
int ks_pool_new(ks_pool **out, int n_threads);

/* Ends the threads. NULL is allowed. */
void ks_pool_free(ks_pool *p);

int ks_pool_threads(const ks_pool *p);

/* Calls fn(arg, i, worker) for every i in [0, n), each once, on all threads, in any order; returns when all are done.
 * worker in [0, threads) names the thread, for scratch; the caller is 0. */
void ks_pool_run(ks_pool *p, void (*fn)(void *arg, size_t i, int worker), void *arg, size_t n);

#endif
