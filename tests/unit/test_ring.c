/* One reader, many members: what each member sees, what is read and how often, and how members leave. Members are threads here, so that a
 * thread sanitizer sees all of it; test_weights_shared has processes. */
#include "base/error.h"
#include "base/mem.h"
#include "model/ring.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { WORDS = 1000, MOST = 6, ITEMS = 16 };

/* A source that fills a slot with its item's number, counts, and does what a test wants. */
typedef struct source {
    ks_ring_source ring;
    atomic_int reads[ITEMS];
    atomic_int fail_at, hang_at;          /* item, or -1 */
    atomic_int hanging, linger, given_up; /* a read notices late that nobody wants it while linger is set */
    int pause_us;
} source;

static int read_item(void *ctx, ks_ring *r, int32_t item, unsigned char *slot)
{
    source *s = ctx;
    int32_t *to = (int32_t *)(void *)slot;
    if (item == s->hang_at) {
        s->hanging = 1;
        while (ks_ring_wanted(r) || s->linger) usleep(1000);
        s->given_up = 1;
        return KS_OK;
    }
    for (int i = 0; i < WORDS; i++) {
        to[i] = item;
        if (i == WORDS / 2 && s->pause_us) usleep((useconds_t)s->pause_us);
    }
    s->reads[item]++;
    return item == s->fail_at ? ks_error(KS_EMACHINE, "item %d: the disk burns", item) : KS_OK;
}

typedef struct party {
    source s;
    void *memory;
    int members;
    ks_ring *ring[MOST];
} party;

static void open_party(party *p, int members, int items, int tail)
{
    *p = (party){.members = members, .s = {.fail_at = -1, .hang_at = -1}};
    p->s.ring = (ks_ring_source){items, tail, WORDS * sizeof(int32_t), read_item, &p->s};
    assert_non_null(p->memory = ks_big_alloc(ks_ring_bytes(p->s.ring.slot_bytes)));
    memset(p->memory, 0, ks_ring_bytes(0));
    for (int i = 0; i < members; i++)
        if (ks_ring_open(&p->ring[i], p->memory, &p->s.ring, i, members)) fail_msg("%s", ks_error_text());
}

static void close_party(party *p)
{
    for (int i = p->members; i-- > 0;) ks_ring_close(p->ring[i]);
    ks_big_free(p->memory);
}

/* Reads of items first..last-1 are all `times`. */
static void assert_reads(const party *p, int first, int last, int times)
{
    for (int i = first; i < last; i++)
        if (p->s.reads[i] != times) fail_msg("item %d was read %d times, not %d", i, p->s.reads[i], times);
}

static bool holds(const unsigned char *data, int32_t item)
{
    const int32_t *x = (const int32_t *)(const void *)data;
    for (int i = 0; i < WORDS; i++)
        if (x[i] != item) return false;
    return true;
}

/* What one member does in a round, and how it went. */
typedef struct walk {
    party *p;
    int member;
    uint32_t round;
    const uint8_t *who;
    int tails;   /* walks over the tail in all, 1 or more */
    int leave;   /* positions after which it leaves with the last one held; 0: at the end */
    int slow_us; /* it holds each item for so long */
    int rc, good;
    char error[256];
} walk;

static void *run_walk(void *arg)
{
    walk *w = arg;
    ks_ring *r = w->p->ring[w->member];
    const int items = w->p->s.ring.items, tail = w->p->s.ring.tail, n = items + (w->tails - 1) * tail;
    w->rc = ks_ring_begin(r, w->round, w->who);
    for (int i = 0; i < n && !w->rc; i++) {
        const int32_t item = i < items ? i : items - tail + (i - items) % tail;
        unsigned char *data = NULL;
        w->rc = ks_ring_acquire(r, item, &data);
        if (w->rc) break;
        if (w->slow_us) usleep((useconds_t)w->slow_us);
        w->good += holds(data, item);
        if (i + 1 == w->leave) break;
        ks_ring_release(r, item);
    }
    if (w->rc) snprintf(w->error, sizeof w->error, "%s", ks_error_text());
    ks_ring_end(r);
    return NULL;
}

/* All walks at once, on threads. */
static void run_walks(walk *w, int n)
{
    pthread_t threads[MOST];
    for (int i = 0; i < n; i++) assert_int_equal(pthread_create(&threads[i], NULL, run_walk, &w[i]), 0);
    for (int i = 0; i < n; i++) pthread_join(threads[i], NULL);
}

static void assert_good(const walk *w, int positions)
{
    if (w->rc) fail_msg("member %d, round %u: %s", w->member, w->round, w->error);
    if (w->good != positions) fail_msg("member %d, round %u: %d of %d items were right", w->member, w->round, w->good, positions);
}

static void test_every_member_sees_every_item_and_each_is_read_once(void **state)
{
    (void)state;
    enum { ROUNDS = 30, N = 11 };
    party p;
    open_party(&p, MOST, N, 4);
    unsigned seed = 1;
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        uint8_t who[MOST] = {0};
        walk w[MOST];
        int n = 0;
        seed = seed * 1103515245u + 12345u;
        const unsigned mask = (seed >> 16) % ((1 << MOST) - 1) + 1; /* member 0 is often absent */
        for (int i = 0; i < MOST; i++) who[i] = mask >> i & 1;
        for (int i = 0; i < MOST; i++) {
            const bool slow = (seed >> 24) % 8 == (unsigned)i;
            if (who[i]) w[n++] = (walk){.p = &p, .member = i, .round = round, .who = who, .tails = 1, .slow_us = slow ? 300 : 0};
        }
        run_walks(w, n);
        for (int i = 0; i < n; i++) assert_good(&w[i], N);
        assert_reads(&p, 0, N, (int)round);
    }
    close_party(&p);
}

static void test_further_walks_over_the_tail_are_read_when_asked_for(void **state)
{
    (void)state;
    static const int cases[][2] = {{8, 3}, {9, 4}, {7, 5}, {8, 2}, {9, 2}, {8, 1}, {1, 1}, {4, 4}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const int n = cases[k][0], tail = cases[k][1];
        static const uint8_t who[3] = {1, 1, 1};
        party p;
        open_party(&p, 3, n, tail);
        for (uint32_t round = 1; round <= 2; round++) {
            for (int i = 0; i < ITEMS; i++) p.s.reads[i] = 0;
            walk w[3];
            for (int i = 0; i < 3; i++)
                w[i] =
                    (walk){.p = &p, .member = i, .round = round, .who = who, .tails = i == 1 ? 4 : 1 + i / 2, .slow_us = i == 2 ? 200 : 0};
            run_walks(w, 3);
            for (int i = 0; i < 3; i++) assert_good(&w[i], n + (w[i].tails - 1) * tail);
            if (n <= KS_RING_SLOTS && round > 1) continue; /* all of it is still there from the round before */
            assert_reads(&p, 0, n - tail, 1);
            /* An item that has its buffer to itself within the tail stays there; the others are read for each of member 1's walks. */
            for (int i = n - tail; i < n; i++) assert_reads(&p, i, i + 1, i - 2 < n - tail && i + 2 >= n ? 1 : 4);
        }
        close_party(&p);
    }
}

static void test_a_member_that_leaves_early_holds_nobody_up(void **state)
{
    (void)state;
    static const uint8_t who[4] = {1, 1, 1, 1};
    party p;
    open_party(&p, 4, 10, 2);
    for (uint32_t round = 1; round <= 10; round++) {
        walk w[4];
        for (int i = 0; i < 4; i++)
            w[i] = (walk){.p = &p, .member = i, .round = round, .who = who, .tails = 1, .leave = i == 3 ? (int)round : i == 0 ? 2 : 0};
        run_walks(w, 4);
        for (int i = 0; i < 4; i++) assert_good(&w[i], w[i].leave ? w[i].leave : 10);
        assert_reads(&p, 0, 10, (int)round);
    }
    close_party(&p);
}

static void test_a_failed_read_reaches_all_and_the_next_round_is_whole(void **state)
{
    (void)state;
    static const uint8_t who[5] = {0, 1, 1, 1, 1};
    party p;
    open_party(&p, 5, 9, 3);
    for (uint32_t round = 1; round <= 6; round++) {
        const bool fails = round % 2 != 0;
        p.s.fail_at = fails ? 5 : -1;
        walk w[4];
        for (int i = 0; i < 4; i++)
            w[i] = (walk){
                .p = &p, .member = i + 1, .round = round, .who = who, .tails = 1, .slow_us = 100 * i, .leave = fails && i == 2 ? 3 : 0};
        run_walks(w, 4);
        for (int i = 0; i < 4; i++) {
            if (w[i].leave || !fails) {
                assert_good(&w[i], w[i].leave ? 3 : 9);
                continue;
            }
            assert_int_equal(w[i].rc, KS_EMACHINE);
            assert_string_equal(w[i].error, "item 5: the disk burns");
            assert_int_equal(w[i].good, 5);
        }
    }
    close_party(&p);
}

static void test_a_read_that_nobody_wants_any_more_is_given_up(void **state)
{
    (void)state;
    static const uint8_t first[2] = {1, 0};
    party p;
    open_party(&p, 2, 6, 1);
    ks_ring *r = p.ring[0];
    unsigned char *data = NULL;
    p.s.hang_at = 2;
    p.s.linger = 1;
    assert_int_equal(ks_ring_begin(r, 1, first), KS_OK);
    assert_int_equal(ks_ring_acquire(r, 0, &data), KS_OK);
    ks_ring_release(r, 0);
    while (!p.s.hanging) usleep(1000);
    ks_ring_end(r);
    /* The next round begins while the reader is still at item 2, and is whole. */
    assert_int_equal(ks_ring_begin(r, 2, first), KS_OK);
    p.s.hang_at = -1;
    p.s.linger = 0;
    for (int i = 0; i < 6; i++) {
        assert_int_equal(ks_ring_acquire(r, i, &data), KS_OK);
        assert_true(holds(data, i));
        ks_ring_release(r, i);
    }
    ks_ring_end(r);
    assert_int_equal(p.s.given_up, 1);

    /* Closing does not wait for a read either. */
    p.s.hang_at = 0;
    p.s.hanging = p.s.given_up = 0;
    assert_int_equal(ks_ring_begin(r, 3, first), KS_OK);
    while (!p.s.hanging) usleep(1000);
    close_party(&p);
    assert_int_equal(p.s.given_up, 1);
}

static void refused(int rc, const char *part)
{
    if (rc != KS_EMACHINE || !strstr(ks_error_text(), part)) fail_msg("status %d, \"%s\"; expected \"%s\"", rc, ks_error_text(), part);
}

static void test_wrong_use_is_refused(void **state)
{
    (void)state;
    static const uint8_t both[2] = {1, 1}, first[2] = {1, 0};
    party p;
    unsigned char *data;
    open_party(&p, 2, 5, 3);
    ks_ring *r = p.ring[0], *other = NULL;
    refused(ks_ring_acquire(r, 0, &data), "outside a pass");
    assert_int_equal(ks_ring_begin(r, 1, first), KS_OK);
    refused(ks_ring_begin(p.ring[1], 1, first), "member 1 is not in pass 1");
    refused(ks_ring_begin(p.ring[1], 2, both), "while member 0 is in pass 1");
    refused(ks_ring_acquire(r, 1, &data), "item 1 is asked for, the next one is 0");
    assert_int_equal(ks_ring_acquire(r, 0, &data), KS_OK);
    ks_ring_release(r, 3); /* is not held */
    assert_int_equal(ks_ring_acquire(r, 1, &data), KS_OK);
    refused(ks_ring_acquire(r, 2, &data), "item 0 is held");
    ks_ring_release(r, 0);
    ks_ring_release(r, 1);
    for (int i = 2; i < 5; i++) {
        assert_int_equal(ks_ring_acquire(r, i, &data), KS_OK);
        if (i < 4) ks_ring_release(r, i);
    }
    refused(ks_ring_acquire(r, 2, &data), "item 4 is held"); /* they share a buffer */
    ks_ring_end(r);
    refused(ks_ring_acquire(r, 2, &data), "outside a pass");
    refused(ks_ring_begin(r, 1, first), "member 0 is not in pass 1");
    refused(ks_ring_open(&other, p.memory, &p.s.ring, 0, KS_RING_MEMBERS + 1), "at most");
    assert_null(other);
    close_party(&p);

    /* Without a tail a walk ends, and another round begins anew. */
    open_party(&p, 1, 3, 0);
    for (uint32_t round = 1; round <= 3; round++) {
        assert_int_equal(ks_ring_begin(p.ring[0], round, first), KS_OK);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(ks_ring_acquire(p.ring[0], i, &data), KS_OK);
            assert_true(holds(data, i));
            ks_ring_release(p.ring[0], i);
        }
        refused(ks_ring_acquire(p.ring[0], 0, &data), "the walk is over");
        ks_ring_end(p.ring[0]);
    }
    close_party(&p);
}

/* Waits in acquire for a read that takes a while, and tells the processor time that it took. */
typedef struct waiting {
    ks_ring *ring;
    int rc;
    double cpu_seconds;
    char error[256];
} waiting;

static void *wait_for_first(void *arg)
{
    waiting *w = arg;
    unsigned char *data;
    struct timespec t0, t1;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t0);
    w->rc = ks_ring_acquire(w->ring, 0, &data);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t1);
    w->cpu_seconds = (double)(t1.tv_sec - t0.tv_sec) + 1e-9 * (double)(t1.tv_nsec - t0.tv_nsec);
    if (w->rc) snprintf(w->error, sizeof w->error, "%s", ks_error_text());
    return NULL;
}

static void test_members_wait_without_spinning_and_hear_of_the_end(void **state)
{
    (void)state;
    static const uint8_t who[2] = {0, 1};
    for (int end = 0; end < 2; end++) {
        party p;
        open_party(&p, 2, 4, 1);
        p.s.pause_us = 300000;
        p.s.hang_at = end ? 0 : -1;
        assert_int_equal(ks_ring_begin(p.ring[1], 1, who), KS_OK);
        waiting w = {.ring = p.ring[1]};
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, wait_for_first, &w), 0);
        if (end) {
            while (!p.s.hanging) usleep(1000);
            usleep(100000);
            ks_ring_close(p.ring[0]);
            p.ring[0] = NULL;
        }
        pthread_join(thread, NULL);
        assert_int_equal(w.rc, end ? KS_EMACHINE : KS_OK);
        if (end) assert_string_equal(w.error, "weights: the process that reads them has ended");
        assert_true(w.cpu_seconds < 0.05);
        close_party(&p);
    }
}

/* Members may come before the one that makes the ring. */
typedef struct opening {
    party *p;
    int member, rc;
} opening;

static void *open_one(void *arg)
{
    opening *o = arg;
    if (!o->member) usleep(50000);
    o->rc = ks_ring_open(&o->p->ring[o->member], o->p->memory, &o->p->s.ring, o->member, o->p->members);
    return NULL;
}

static void test_members_wait_for_the_one_that_makes_it(void **state)
{
    (void)state;
    static const uint8_t who[3] = {1, 1, 1};
    party p;
    open_party(&p, 3, 4, 1);
    for (int i = 3; i-- > 0;) ks_ring_close(p.ring[i]);
    memset(p.memory, 0, ks_ring_bytes(0));
    opening o[3];
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        o[i] = (opening){&p, i, -1};
        assert_int_equal(pthread_create(&threads[i], NULL, open_one, &o[i]), 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(o[i].rc, KS_OK);
    }
    walk w[3];
    for (int i = 0; i < 3; i++) w[i] = (walk){.p = &p, .member = i, .round = 1, .who = who, .tails = 1};
    run_walks(w, 3);
    for (int i = 0; i < 3; i++) assert_good(&w[i], 4);
    close_party(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_member_sees_every_item_and_each_is_read_once),
        cmocka_unit_test(test_further_walks_over_the_tail_are_read_when_asked_for),
        cmocka_unit_test(test_a_member_that_leaves_early_holds_nobody_up),
        cmocka_unit_test(test_a_failed_read_reaches_all_and_the_next_round_is_whole),
        cmocka_unit_test(test_a_read_that_nobody_wants_any_more_is_given_up),
        cmocka_unit_test(test_wrong_use_is_refused),
        cmocka_unit_test(test_members_wait_without_spinning_and_hear_of_the_end),
        cmocka_unit_test(test_members_wait_for_the_one_that_makes_it),
    };
    alarm(120); /* a ring that stands still must not hold the suite up */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
