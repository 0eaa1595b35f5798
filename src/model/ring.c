#define _GNU_SOURCE
#include "model/ring.h"

#include "base/error.h"
#include "base/mem.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { NONE = -1, PAGE = 4096, MADE = 0x6b73726e, PATIENCE = 60 /* seconds */ };

typedef struct slot {
    int32_t item;     /* what it holds; NONE: nothing that is whole */
    int64_t position; /* the last of the round that it serves; NONE: no member needs it any more */
} slot;

typedef struct walker {
    bool in;              /* takes part in the round and has not left it */
    int64_t at, released; /* positions acquired and released so far: released..at-1 are held */
} walker;

/* In the memory that all members see; buffers follow. All but `made` and the buffers is guarded by the mutex. A buffer is the reader's
 * while its item is NONE, else the members'. */
typedef struct shared {
    _Atomic uint32_t made;
    pthread_mutex_t mutex;
    pthread_cond_t work, done; /* for the reader, for members */
    bool closed;
    uint32_t round;
    int64_t next;  /* position that is read next: all before it are there */
    int64_t limit; /* positions from here on are not read before somebody asks */
    slot slots[KS_RING_SLOTS];
    walker members[KS_RING_MEMBERS];
    int code; /* of the read of `next`, and its text */
    char error[2048];
} shared;

/* What a member has for itself. */
struct ks_ring {
    shared *s;
    ks_ring_source source;
    int member, members;
    pthread_t reader; /* member 0 */
    bool running;
    uint32_t reading; /* the round that the reader reads for */
};

static size_t header_bytes(void)
{
    return (sizeof(shared) + PAGE - 1) / PAGE * PAGE;
}

size_t ks_ring_bytes(size_t slot_bytes)
{
    return header_bytes() + KS_RING_SLOTS * slot_bytes;
}

static unsigned char *buffer_of(const ks_ring *r, int32_t item)
{
    return (unsigned char *)r->s + header_bytes() + (size_t)(item % KS_RING_SLOTS) * r->source.slot_bytes;
}

/* NONE: the walk is over. */
static int32_t item_at(const ks_ring *r, int64_t position)
{
    const int32_t n = r->source.items, tail = r->source.tail;
    if (position >= n && !tail) return NONE;
    return (int32_t)(position < n ? position : n - tail + (position - n) % tail);
}

static bool anybody_in(const ks_ring *r)
{
    for (int i = 0; i < r->members; i++)
        if (r->s->members[i].in) return true;
    return false;
}

static bool wanted(const ks_ring *r)
{
    return !r->s->closed && r->s->round == r->reading && anybody_in(r);
}

bool ks_ring_wanted(ks_ring *r)
{
    pthread_mutex_lock(&r->s->mutex);
    const bool yes = wanted(r);
    pthread_mutex_unlock(&r->s->mutex);
    return yes;
}

/* Whether there is something to read and its buffer is free, or holds it already. */
static bool may_read(const ks_ring *r, int32_t item)
{
    const shared *s = r->s;
    if (s->code || s->next >= s->limit || !anybody_in(r)) return false;
    const slot *to = &s->slots[item % KS_RING_SLOTS];
    if (to->item == item) return true;
    for (int i = 0; i < r->members; i++)
        if (s->members[i].in && s->members[i].released <= to->position) return false;
    return true;
}

static void *read_ahead(void *arg)
{
    ks_ring *r = arg;
    shared *s = r->s;
    pthread_mutex_lock(&s->mutex);
    while (!s->closed) {
        const int32_t item = item_at(r, s->next);
        if (!may_read(r, item)) {
            pthread_cond_wait(&s->work, &s->mutex);
            continue;
        }
        slot *to = &s->slots[item % KS_RING_SLOTS];
        if (to->item != item) {
            to->item = NONE;
            r->reading = s->round;
            pthread_mutex_unlock(&s->mutex);
            const int rc = r->source.read(r->source.ctx, r, item, buffer_of(r, item));
            pthread_mutex_lock(&s->mutex);
            if (!wanted(r)) continue; /* may have given up; the next round begins from its own beginning */
            if (rc) {
                s->code = rc;
                snprintf(s->error, sizeof s->error, "%s", ks_error_text());
            } else {
                to->item = item;
            }
        }
        if (!s->code) to->position = s->next++;
        pthread_cond_broadcast(&s->done);
    }
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

static int make(ks_ring *r)
{
    int rc = KS_OK;
    shared *s = r->s;
    pthread_mutexattr_t mutex;
    pthread_condattr_t cond;
    pthread_mutexattr_init(&mutex);
    pthread_condattr_init(&cond);
    int failed = pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
    if (!failed) failed = pthread_condattr_setpshared(&cond, PTHREAD_PROCESS_SHARED);
    if (!failed) failed = pthread_mutex_init(&s->mutex, &mutex);
    if (!failed) failed = pthread_cond_init(&s->work, &cond);
    if (!failed) failed = pthread_cond_init(&s->done, &cond);
    pthread_mutexattr_destroy(&mutex);
    pthread_condattr_destroy(&cond);
    KS_REQUIRE(!failed, KS_EMACHINE, "weights: cannot make a lock that processes share: %s", strerror(failed));
    for (int i = 0; i < KS_RING_SLOTS; i++) s->slots[i].item = NONE;

    /* Signals are the main thread's. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&r->reader, NULL, read_ahead, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    KS_REQUIRE(!failed, KS_EMACHINE, "cannot start a thread: %s", strerror(failed));
    r->running = true;
    atomic_store_explicit(&s->made, MADE, memory_order_release);
done:
    return rc;
}

static int await_made(const ks_ring *r)
{
    int rc = KS_OK;
    const struct timespec pause = {.tv_nsec = 1000000};
    struct timespec begin, now;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    while (atomic_load_explicit(&r->s->made, memory_order_acquire) != MADE) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        KS_REQUIRE(now.tv_sec - begin.tv_sec < PATIENCE, KS_EMACHINE,
                   "weights: the process that reads them for this host did not come within %d s", PATIENCE);
        nanosleep(&pause, NULL);
    }
done:
    return rc;
}

int ks_ring_open(ks_ring **out, void *memory, const ks_ring_source *source, int member, int members)
{
    int rc = KS_OK;
    ks_ring *r = NULL;
    KS_REQUIRE(members >= 1 && members <= KS_RING_MEMBERS && member >= 0 && member < members, KS_EMACHINE,
               "weights: member %d of %d: at most %d processes of a host can share them", member, members, KS_RING_MEMBERS);
    KS_NEW(r, 1);
    r->s = memory;
    r->source = *source;
    r->member = member;
    r->members = members;
    KS_TRY(member ? await_made(r) : make(r));
done:
    if (rc) free(r);
    else *out = r;
    return rc;
}

/* The locks are not destroyed: they own nothing, and destroying waits for members that may be dead. */
void ks_ring_close(ks_ring *r)
{
    if (!r) return;
    ks_ring_end(r);
    if (r->running) {
        pthread_mutex_lock(&r->s->mutex);
        r->s->closed = true;
        pthread_cond_signal(&r->s->work);
        pthread_cond_broadcast(&r->s->done);
        pthread_mutex_unlock(&r->s->mutex);
        pthread_join(r->reader, NULL);
    }
    free(r);
}

int ks_ring_begin(ks_ring *r, uint32_t round, const uint8_t *who)
{
    int rc = KS_OK;
    shared *s = r->s;
    pthread_mutex_lock(&s->mutex);
    if (round != s->round) { /* the first to come opens it for all */
        for (int i = 0; i < r->members; i++)
            KS_REQUIRE(!s->members[i].in, KS_EMACHINE, "weights: pass %u begins while member %d is in pass %u", round, i, s->round);
        s->round = round;
        s->next = 0;
        s->limit = r->source.items;
        s->code = KS_OK;
        for (int i = 0; i < KS_RING_SLOTS; i++) s->slots[i].position = NONE;
        for (int i = 0; i < r->members; i++) s->members[i] = (walker){.in = who[i] != 0};
        pthread_cond_signal(&s->work);
    }
    KS_REQUIRE(s->members[r->member].in, KS_EMACHINE, "weights: member %d is not in pass %u, or no longer", r->member, round);
done:
    pthread_mutex_unlock(&s->mutex);
    return rc;
}

void ks_ring_end(ks_ring *r)
{
    pthread_mutex_lock(&r->s->mutex);
    r->s->members[r->member].in = false;
    pthread_cond_signal(&r->s->work);
    pthread_mutex_unlock(&r->s->mutex);
}

int ks_ring_acquire(ks_ring *r, int32_t item, unsigned char **data)
{
    int rc = KS_OK;
    shared *s = r->s;
    pthread_mutex_lock(&s->mutex);
    walker *m = &s->members[r->member];
    KS_REQUIRE(m->in, KS_EMACHINE, "weights: asked for outside a pass");
    KS_REQUIRE(item_at(r, m->at) != NONE, KS_EMACHINE, "weights: item %d is asked for, the walk is over", item);
    KS_REQUIRE(item == item_at(r, m->at), KS_EMACHINE, "weights: item %d is asked for, the next one is %d", item, item_at(r, m->at));
    for (int64_t held = m->released; held < m->at; held++)
        KS_REQUIRE(item_at(r, held) == item || (item_at(r, held) - item) % KS_RING_SLOTS, KS_EMACHINE,
                   "weights: item %d is held; it must be released before item %d is acquired", item_at(r, held), item);
    if (m->at >= s->limit) {
        s->limit += r->source.tail;
        pthread_cond_signal(&s->work);
    }
    while (m->at >= s->next && !s->code && !s->closed) pthread_cond_wait(&s->done, &s->mutex);
    if (m->at >= s->next) {
        rc = s->code ? ks_error(s->code, "%s", s->error) : ks_error(KS_EMACHINE, "weights: the process that reads them has ended");
        goto done;
    }
    *data = buffer_of(r, item);
    m->at++;
done:
    pthread_mutex_unlock(&s->mutex);
    return rc;
}

void ks_ring_release(ks_ring *r, int32_t item)
{
    pthread_mutex_lock(&r->s->mutex);
    walker *m = &r->s->members[r->member];
    if (m->released < m->at && item_at(r, m->released) == item) m->released++;
    pthread_cond_signal(&r->s->work);
    pthread_mutex_unlock(&r->s->mutex);
}
