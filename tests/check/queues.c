#include "tests/check/queues.h"

#include "base/error.h"
#include "base/mem.h"
#include "tests/check/check.h"

#include <stdlib.h>
#include <string.h>

/* A place in a queue: behind its first `number` tasks. */
typedef struct place {
    int queue;
    uint64_t number;
} place;

typedef struct task {
    struct task *next;
    uint64_t number; /* from 1 */
    place after;     /* runs when that has been reached */
    ks_step *run, *over;
    void *args;
} task;

typedef struct queue {
    task *first, *last; /* of those that the host does not know to be over */
    task *next;         /* to run; NULL: none */
    uint64_t ran, end;
} queue;

struct ks_queues {
    queue v[KS_GPU_QUEUES];
    place marks[KS_GPU_MARKS];
    void *context;
};

int ks_queues_new(ks_queues **out, void *context)
{
    int rc = KS_OK;
    ks_queues *s = NULL;
    KS_NEW(s, 1);
    s->context = context;
    *out = s;
done:
    return rc;
}

static int add(ks_queues *s, int queue_index, ks_step *run, ks_step *over, const void *args, size_t bytes, place after)
{
    int rc = KS_OK;
    queue *q = &s->v[queue_index];
    task *t = NULL;
    char *copy = NULL;
    KS_NEW(copy, bytes + 1);
    KS_NEW(t, 1);
    if (bytes) memcpy(copy, args, bytes);
    *t = (task){.number = ++q->end, .after = after, .run = run, .over = over, .args = copy};
    if (q->first) q->last->next = t;
    else q->first = t;
    q->last = t;
    if (!q->next) q->next = t;
done:
    if (rc) free(copy);
    return rc;
}

int ks_queues_add(ks_queues *s, int queue_index, ks_step *run, ks_step *over, const void *args, size_t bytes)
{
    return add(s, queue_index, run, over, args, bytes, (place){0});
}

void ks_queues_mark(ks_queues *s, int queue_index, int i)
{
    s->marks[i] = (place){queue_index, s->v[queue_index].end};
}

int ks_queues_after(ks_queues *s, int queue_index, int i)
{
    return add(s, queue_index, NULL, NULL, NULL, 0, s->marks[i]);
}

static bool passed(const ks_queues *s, place p)
{
    return s->v[p.queue].ran >= p.number;
}

static bool step(ks_queues *s, int i)
{
    queue *q = &s->v[i];
    task *t = q->next;
    if (!t || !passed(s, t->after)) return false;
    if (t->run) t->run(s->context, t->args);
    q->ran = t->number;
    q->next = t->next;
    return true;
}

/* The host knows that p has been passed, and so what tasks before it have waited for. */
static void settle(ks_queues *s, place p)
{
    queue *q = &s->v[p.queue];
    while (q->first && q->first->number <= p.number) {
        task *t = q->first;
        q->first = t->next;
        settle(s, t->after);
        if (t->over) t->over(s->context, t->args);
        free(t->args);
        free(t);
    }
}

/* Runs tasks until both places have been passed. */
static void pass(ks_queues *s, place one, place other)
{
    const uint64_t ahead = ks_check_random() % (KS_GPU_QUEUES + 1); /* the queue that runs ahead, or by turns */
    while (!passed(s, one) || !passed(s, other)) {
        const int i = (int)(ahead < KS_GPU_QUEUES ? ahead : ks_check_random() % KS_GPU_QUEUES);
        if (!step(s, i) && !step(s, !i)) abort(); /* cannot be: queues.h */
    }
}

static place end_of(const ks_queues *s, int i)
{
    return (place){i, s->v[i].end};
}

void ks_queues_reach(ks_queues *s, int i)
{
    pass(s, s->marks[i], s->marks[i]);
    settle(s, s->marks[i]);
}

void ks_queues_wait(ks_queues *s)
{
    pass(s, end_of(s, KS_GPU_MAIN), end_of(s, KS_GPU_SIDE));
    settle(s, end_of(s, KS_GPU_MAIN));
    settle(s, end_of(s, KS_GPU_SIDE));
}

void ks_queues_run(ks_queues *s, int queue_index)
{
    pass(s, end_of(s, queue_index), end_of(s, queue_index));
}

void ks_queues_free(ks_queues *s)
{
    if (s) ks_queues_wait(s);
    free(s);
}
