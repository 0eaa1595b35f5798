#include "plan/queue.h"

#include "base/error.h"
#include "base/mem.h"

#include <stdlib.h>

struct ks_queue {
    const ks_problem *problem;
    const ks_unit *units;
    size_t n, left;
    double flops;
    int64_t budget;
    size_t *next; /* [n + 1] a unit at or behind this one, itself if it is not handed out; n: the end */
};

void ks_queue_free(ks_queue *q)
{
    if (!q) return;
    free(q->next);
    free(q);
}

int ks_queue_new(ks_queue **out, const ks_problem *problem, const ks_unit *units, size_t n, int64_t budget)
{
    int rc = KS_OK;
    ks_queue *q = NULL;
    KS_NEW(q, 1);
    KS_NEW(q->next, n + 1);
    q->problem = problem;
    q->units = units;
    q->n = q->left = n;
    q->budget = budget;
    for (size_t i = 0; i <= n; i++) q->next[i] = i;
    for (size_t i = n; i-- > 0;) q->flops += units[i].flops; /* smallest first: what is left at the end is no rounding error */
done:
    if (rc) ks_queue_free(q);
    else *out = q;
    return rc;
}

double ks_queue_flops(const ks_queue *q)
{
    return q->left && q->flops > 0 ? q->flops : 0;
}

size_t ks_queue_units(const ks_queue *q)
{
    return q->left;
}

/* The first unit at or behind i that is not handed out; paths are halved on the way. */
static size_t waiting(ks_queue *q, size_t i)
{
    while (q->next[i] != i) i = q->next[i] = q->next[q->next[i]];
    return i;
}

/* The first unit worth at most `flops`, handed out or not. */
static size_t at_most(const ks_queue *q, double flops)
{
    size_t lo = 0, hi = q->n;
    while (lo < hi) {
        const size_t middle = lo + (hi - lo) / 2;
        if (q->units[middle].flops > flops) lo = middle + 1;
        else hi = middle;
    }
    return lo;
}

size_t ks_queue_take(ks_queue *q, double flops, int32_t *out)
{
    size_t n = 0;
    ks_pass_size size = {0};
    for (size_t i = waiting(q, 0); i < q->n; i = waiting(q, at_most(q, flops))) {
        const ks_unit *u = &q->units[i];
        ks_pass_size with = size;
        ks_pass_size_add(&with, q->problem, u);
        if (n && ks_pass_bytes(&with, q->problem->arch, &q->problem->forms) > q->budget) {
            flops = (u->flops < flops ? u->flops : flops) / 2; /* a much smaller one may still fit */
            continue;
        }
        size = with;
        out[n++] = (int32_t)i;
        q->next[i] = i + 1;
        q->left--;
        q->flops -= u->flops;
        flops -= u->flops;
    }
    return n;
}

double ks_queue_share(double left, double speed, double all, double max_seconds)
{
    const bool alone = speed >= 0.999999 * all;
    const double seconds = alone ? left / speed : left / (2 * all);
    return speed * (seconds < max_seconds ? seconds : max_seconds);
}
