#include "compute/cpu/pool.h"

#include "base/error.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A job is a generation number and a range of items. `ticket` holds both: generation << 32 | next item. A thread takes an
 * item by advancing the ticket it has seen, so one that wakes late, in a later generation, fails to take and harms nothing;
 * nobody waits for it. fn, arg and n are read before the ticket is advanced: when that succeeds they were this job's. */
struct ks_pool {
    _Atomic uint64_t ticket;
    _Atomic uint32_t done; /* items of this generation that are finished */
    _Atomic uint32_t n;
    _Atomic(void (*)(void *, size_t, int)) fn;
    _Atomic(void *) arg;
    _Atomic size_t base; /* number of the job's item 0, for runs of more than ITEMS_MAX */
    _Atomic int sleepers;
    _Atomic bool caller_sleeps, quit;
    pthread_mutex_t lock;
    pthread_cond_t work, finished;
    pthread_t *threads; /* [n_threads - 1] */
    struct worker {
        ks_pool *pool;
        int index;
    } * workers; /* [n_threads - 1] */
    int n_threads, n_started;
};

#define ITEMS_MAX ((size_t)1 << 31)
#define SPINS 2000 /* some 20 to 50 us: products follow each other within that, and a shared machine does not mind */

static inline void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void take_items(ks_pool *p, uint32_t generation, int worker)
{
    uint64_t seen = atomic_load(&p->ticket);
    for (;;) {
        if ((uint32_t)(seen >> 32) != generation) return;
        const uint32_t n = atomic_load(&p->n), i = (uint32_t)seen;
        if (i >= n) return;
        void (*fn)(void *, size_t, int) = atomic_load(&p->fn);
        void *arg = atomic_load(&p->arg);
        const size_t base = atomic_load(&p->base);
        if (!atomic_compare_exchange_weak(&p->ticket, &seen, seen + 1)) continue;
        fn(arg, base + i, worker);
        if (atomic_fetch_add(&p->done, 1) + 1 == n && atomic_load(&p->caller_sleeps)) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->finished);
            pthread_mutex_unlock(&p->lock);
        }
        seen = atomic_load(&p->ticket);
    }
}

static void *worker_main(void *arg)
{
    const struct worker *w = arg;
    ks_pool *p = w->pool;
    uint32_t generation = 0;
    for (;;) {
        for (int i = 0; i < SPINS && (uint32_t)(atomic_load(&p->ticket) >> 32) == generation && !atomic_load(&p->quit); i++) pause_cpu();
        if ((uint32_t)(atomic_load(&p->ticket) >> 32) == generation) {
            pthread_mutex_lock(&p->lock);
            atomic_fetch_add(&p->sleepers, 1);
            while ((uint32_t)(atomic_load(&p->ticket) >> 32) == generation && !atomic_load(&p->quit)) pthread_cond_wait(&p->work, &p->lock);
            atomic_fetch_sub(&p->sleepers, 1);
            pthread_mutex_unlock(&p->lock);
        }
        if (atomic_load(&p->quit)) return NULL;
        generation = (uint32_t)(atomic_load(&p->ticket) >> 32);
        take_items(p, generation, w->index);
    }
}

static void run_slice(ks_pool *p, size_t base, uint32_t n)
{
    const uint32_t generation = (uint32_t)(atomic_load(&p->ticket) >> 32) + 1;
    /* The old ticket is used up (its item number is its n), so nobody can take while these change; but n may not grow before the
     * ticket changes. */
    atomic_store(&p->ticket, ((uint64_t)(generation - 1) << 32) | UINT32_MAX);
    atomic_store(&p->done, 0);
    atomic_store(&p->base, base);
    atomic_store(&p->n, n);
    atomic_store(&p->ticket, (uint64_t)generation << 32);
    if (atomic_load(&p->sleepers) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->lock);
    }
    take_items(p, generation, 0);
    for (int i = 0; i < SPINS && atomic_load(&p->done) < n; i++) pause_cpu();
    if (atomic_load(&p->done) < n) {
        pthread_mutex_lock(&p->lock);
        atomic_store(&p->caller_sleeps, true);
        while (atomic_load(&p->done) < n) pthread_cond_wait(&p->finished, &p->lock);
        atomic_store(&p->caller_sleeps, false);
        pthread_mutex_unlock(&p->lock);
    }
}

void ks_pool_run(ks_pool *p, void (*fn)(void *arg, size_t i, int worker), void *arg, size_t n)
{
    if (p->n_threads == 1 || n <= 1) {
        for (size_t i = 0; i < n; i++) fn(arg, i, 0);
        return;
    }
    atomic_store(&p->fn, fn);
    atomic_store(&p->arg, arg);
    for (size_t base = 0; base < n; base += ITEMS_MAX) run_slice(p, base, (uint32_t)(n - base < ITEMS_MAX ? n - base : ITEMS_MAX));
}

int ks_pool_threads(const ks_pool *p)
{
    return p->n_threads;
}

int ks_pool_new(ks_pool **out, int n_threads)
{
    int rc = KS_OK;
    ks_pool *p = NULL;
    KS_REQUIRE(n_threads >= 1, KS_EUSAGE, "threads: at least 1 expected, %d found", n_threads);
    KS_NEW(p, 1);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->finished, NULL);
    p->n_threads = n_threads;
    KS_NEW(p->threads, n_threads - 1);
    KS_NEW(p->workers, n_threads - 1);
    for (int i = 0; i < n_threads - 1; i++) {
        p->workers[i] = (struct worker){p, i + 1};
        const int err = pthread_create(&p->threads[i], NULL, worker_main, &p->workers[i]);
        KS_REQUIRE(err == 0, KS_EMACHINE, "thread %d of %d did not start: %s", i + 2, n_threads, strerror(err));
        p->n_started++;
    }
done:
    if (rc) ks_pool_free(p);
    else *out = p;
    return rc;
}

void ks_pool_free(ks_pool *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->quit, true);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_started; i++) pthread_join(p->threads[i], NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->finished);
    free(p->threads);
    free(p->workers);
    free(p);
}
