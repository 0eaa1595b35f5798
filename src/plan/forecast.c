#include "plan/forecast.h"

#include "base/error.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

/* A rank that is free at some time, with the cells of the pass that it has just finished. */
typedef struct event {
    double time;
    int rank;
    int64_t cells;
} event;

static bool before(const event *x, const event *y)
{
    if (x->time != y->time) return x->time < y->time;
    return x->rank && (!y->rank || x->rank < y->rank); /* root last: it has others to serve */
}

/* The root of a heap of n events has changed. */
static void sift(event *heap, size_t n)
{
    const event e = heap[0];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(&heap[child + 1], &heap[child])) child++;
        if (!before(&heap[child], &e)) break;
        heap[i] = heap[child];
    }
    heap[i] = e;
}

void ks_forecast_free(ks_forecast *f)
{
    if (!f) return;
    free(f->flops);
    free(f->end);
    free(f->passes);
    free(f->cells);
    free(f->unit_end);
    free(f);
}

int ks_forecast_new(ks_forecast **out, const ks_problem *problem, const ks_unit *units, size_t n, int64_t budget, int ranks,
                    const double *speed, const ks_service *service)
{
    int rc = KS_OK;
    const ks_service cost = service ? *service : (ks_service){0};
    const double longest = cost.max_seconds > 0 ? cost.max_seconds : 1e300;
    double all = 0;
    double busy = 0, handed = 0;  /* root has done all that it was asked for; has handed out all passes that it was asked for */
    double message = 0, owed = 0; /* storing the last message; service that root's own pass has not yet waited for */
    event *heap = NULL;
    int32_t *pass = NULL;
    ks_queue *q = NULL;
    ks_forecast *f = NULL;
    KS_NEW(f, 1);
    f->ranks = ranks;
    KS_NEW(f->flops, ranks);
    KS_NEW(f->end, ranks);
    KS_NEW(f->passes, ranks);
    KS_NEW(f->cells, ranks);
    KS_NEW(f->unit_end, n);
    KS_NEW(heap, ranks);
    KS_NEW(pass, n);
    KS_TRY(ks_queue_new(&q, problem, units, n, budget));
    const int workers = ranks < KS_ROOT_ONLY_SERVES ? ranks : ranks - 1;
    for (int i = 0; i < workers; i++) {
        heap[i] = (event){.rank = (i + 1) % ranks};
        all += speed ? speed[heap[i].rank] : 1;
    }
    for (size_t left = (size_t)workers; left > 0;) {
        event *e = &heap[0];
        const int r = e->rank;
        if (r == 0 && e->cells && owed > 0) { /* root's own arithmetic has lost what it spent on the others meanwhile */
            e->time += owed;
            owed = 0;
            sift(heap, left);
            continue;
        }
        const double v = speed ? speed[r] : 1, store = (double)e->cells * cost.root_cell, hand_out = ks_queue_units(q) ? cost.root_pass : 0;
        if (busy <= e->time) message = 0;
        const double from = fmax(fmin(e->time + message, busy), fmax(e->time, handed)); /* a message that is being stored is not left */
        busy = fmax(busy, e->time) + store + hand_out;
        handed = from + hand_out;
        if (store > 0) message = store;
        owed += cost.root_loss * (store + hand_out);
        f->root_seconds += store + hand_out;
        f->end[r] = e->time;
        if (!ks_queue_units(q)) {
            heap[0] = heap[--left];
            if (left) sift(heap, left);
            continue;
        }
        ks_pass_size size = {0};
        double flops = 0;
        const size_t m = ks_queue_take(q, ks_queue_share(ks_queue_flops(q), v, all, longest), pass);
        e->cells = 0;
        for (size_t i = 0; i < m; i++) {
            const ks_unit *u = &units[pass[i]];
            ks_pass_size_add(&size, problem, u);
            flops += u->flops;
            e->cells += u->cells;
        }
        const int64_t bytes = ks_pass_bytes(&size, problem->arch, &problem->forms);
        if (bytes > f->peak_bytes) f->peak_bytes = bytes;
        f->flops[r] += flops;
        f->cells[r] += e->cells;
        f->passes[r]++;
        if (r == 0) owed = cost.root_loss * store; /* for the rest it has just waited */
        double seconds = flops / v;
        if (cost.pass) KS_TRY(cost.pass(cost.ctx, units, pass, m, r, &seconds));
        e->time = handed + seconds + (r ? cost.reply : 0);
        for (size_t i = 0; i < m; i++) f->unit_end[pass[i]] = e->time;
        sift(heap, left);
    }
    f->seconds = busy;
    for (int r = 0; r < ranks; r++)
        if (f->end[r] > f->seconds) f->seconds = f->end[r];
done:
    ks_queue_free(q);
    free(heap);
    free(pass);
    if (rc) ks_forecast_free(f);
    else *out = f;
    return rc;
}

double ks_forecast_top(const ks_forecast *f)
{
    double top = 0;
    for (int r = 0; r < f->ranks; r++)
        if (f->flops[r] > top) top = f->flops[r];
    return top;
}

int32_t ks_forecast_passes(const ks_forecast *f)
{
    int32_t most = 0;
    for (int r = 0; r < f->ranks; r++)
        if (f->passes[r] > most) most = f->passes[r];
    return most;
}
