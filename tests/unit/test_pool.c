/* Every item once, results visible, workers distinct, for many pool sizes and runs of all lengths. */
#include "base/error.h"
#include "compute/cpu/pool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { ITEMS = 1000, THREADS = 5 };

typedef struct counts {
    _Atomic int calls[ITEMS];
    int plain[ITEMS];
    _Atomic int busy[THREADS]; /* a worker number is never used by two threads at once */
    _Atomic int wrong;
    int threads;
} counts;

static void count(void *arg, size_t i, int worker)
{
    counts *c = arg;
    if (worker < 0 || worker >= c->threads || i >= ITEMS) {
        atomic_fetch_add(&c->wrong, 1);
        return;
    }
    if (atomic_fetch_add(&c->busy[worker], 1) != 0) atomic_fetch_add(&c->wrong, 1);
    atomic_fetch_add(&c->calls[i], 1);
    c->plain[i] += (int)i; /* must be seen by the caller after the run */
    atomic_fetch_sub(&c->busy[worker], 1);
}

static void every_item_once(void **state)
{
    (void)state;
    for (int threads = 1; threads <= THREADS; threads++) {
        ks_pool *p;
        assert_int_equal(ks_pool_new(&p, threads), KS_OK);
        assert_int_equal(ks_pool_threads(p), threads);
        static const size_t lengths[] = {0, 1, 2, 3, 7, 64, ITEMS};
        for (int round = 0; round < 300; round++) {
            static counts c;
            memset(&c, 0, sizeof c);
            c.threads = threads;
            const size_t n = lengths[round % 7];
            if (round % 100 == 99) usleep(2000); /* let the workers fall asleep */
            ks_pool_run(p, count, &c, n);
            assert_int_equal(c.wrong, 0);
            for (size_t i = 0; i < ITEMS; i++) {
                assert_int_equal(c.calls[i], i < n);
                assert_int_equal(c.plain[i], i < n ? (int)i : 0);
            }
        }
        ks_pool_free(p);
    }
}

static void slow(void *arg, size_t i, int worker)
{
    (void)worker;
    usleep(i % 4 == 0 ? 3000 : 10);
    atomic_fetch_add((_Atomic int *)arg, 1);
}

/* The caller finishes first and has to sleep; the workers do as well. */
static void waits_for_slow_items(void **state)
{
    (void)state;
    ks_pool *p;
    assert_int_equal(ks_pool_new(&p, 4), KS_OK);
    for (int n = 1; n < 12; n++) {
        _Atomic int done = 0;
        ks_pool_run(p, slow, &done, (size_t)n);
        assert_int_equal(done, n);
    }
    ks_pool_free(p);
}

typedef struct threads_seen {
    pthread_t who[4];
    _Atomic int n, waiting;
} threads_seen;

static void meet(void *arg, size_t i, int worker)
{
    (void)i;
    threads_seen *t = arg;
    t->who[worker] = pthread_self();
    atomic_fetch_add(&t->waiting, 1);
    while (atomic_load(&t->waiting) < 4) usleep(10); /* returns only if four threads are here at once */
}

static void all_threads_take_part(void **state)
{
    (void)state;
    ks_pool *p;
    threads_seen t = {0};
    assert_int_equal(ks_pool_new(&p, 4), KS_OK);
    ks_pool_run(p, meet, &t, 4);
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < i; j++) assert_false(pthread_equal(t.who[i], t.who[j]));
    }
    assert_true(pthread_equal(t.who[0], pthread_self()));
    ks_pool_free(p);
}

static void refuses_no_threads(void **state)
{
    (void)state;
    ks_pool *p = NULL;
    assert_int_equal(ks_pool_new(&p, 0), KS_EUSAGE);
    assert_null(p);
    assert_non_null(strstr(ks_error_text(), "0 found"));
    ks_pool_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_once),
        cmocka_unit_test(waits_for_slow_items),
        cmocka_unit_test(all_threads_take_part),
        cmocka_unit_test(refuses_no_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
