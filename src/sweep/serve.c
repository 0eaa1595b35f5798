#include "sweep/serve.h"

#include "base/log.h"
#include "plan/queue.h"
#include "sweep/comm.h"
#include "sweep/work.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A worker whose speed is not known yet is taken for one of FIRST_SPEED FLOP/s a thread, and its first pass is a trial: FIRST_SHARE of the
 * usual length. Should it be slow, little hangs on it. */
static const double FIRST_SPEED = 5e10, FIRST_SHARE = 0.125, TICK_SECONDS = 0.2;
static const double SAVE_PAUSE = 20; /* times as long as saving takes, so that it costs at most 5 % of root's time */

typedef struct worker {
    bool ready, busy;
    double speed; /* FLOP/s */
    double flops; /* of the running pass, and when it began */
    double begin;
    int64_t passes;
    double all_flops, all_seconds, last_seconds, end; /* of ended passes; how long the last one took, and when it ended */
} worker;

typedef struct server {
    const ks_task *task;
    ks_collector *collector;
    ks_results *results;
    ks_queue *queue;
    const ks_serve_options *options;
    worker *workers; /* [ranks] */
    int ranks, busy, ready;
    uint32_t round;
    bool stopping, unsaved;
    int64_t passes, cells, done_before;
    int64_t bytes_read;
    int circles;                          /* of ranks that take their passes together; without rounds: hosts */
    double shortest;                      /* seconds of the shortest pass so far; 0: none has ended */
    double begin, save_again, show_again; /* seconds */
    double total, done;                   /* FLOPs */

    /* Scratch of serve_circle. */
    uint8_t *who;   /* [members] gets a pass */
    int *members;   /* [members] ranks of the circle */
    size_t *counts; /* [members] units of each */
    int32_t *units; /* of member 0, 1 ... */
} server;

/* ---- progress ---- */

static void show_progress(server *s, double now)
{
    double done = s->done;
    for (int r = 0; r < s->ranks; r++) {
        const worker *w = &s->workers[r];
        if (w->busy) done += fmin((now - w->begin) * w->speed, 0.95 * w->flops);
    }
    const double share = s->total > 0 ? done / s->total : 1, spent = now - s->begin;
    if (share < 0.002 || spent < 0.1) return;
    const int64_t cells = ks_collector_done(s->collector);
    const double left = spent / share - spent, rate = share * (double)(s->cells - s->done_before) / spent;
    ks_log_progress("%s: %3.0f %%, %lld of %lld cells, %.3g cells/s, %d:%02d:%02d left, pass %lld%s", s->task->name, 100 * share,
                    (long long)cells, (long long)s->cells, rate, (int)(left / 3600), (int)(left / 60) % 60, (int)left % 60,
                    (long long)s->passes, s->stopping ? ", stopping" : "");
}

/* ---- handing out ---- */

/* The first rank of those that a rank takes its passes with. */
static int first_of(const server *s, int rank)
{
    return s->options->rounds == KS_ROUNDS_ALL ? 0 : ks_comm_leader(rank);
}

/* Sends a pass of n units to a rank. who: [members] which of those that it takes passes with have one in this round. */
static int send_pass(server *s, int rank, const int32_t *units, size_t n, const uint8_t *who, int members)
{
    int rc = KS_OK;
    ks_wire w = {0};
    worker *k = &s->workers[rank];
    const ks_work_order o = {s->round, members, (int32_t)n};
    KS_TRY(KS_PUT(&w, o));
    KS_TRY(ks_wire_put(&w, who, (size_t)members));
    k->flops = 0;
    for (size_t i = 0; i < n; i++) {
        const ks_unit *u = &s->task->plan->units[units[i]];
        KS_TRY(KS_PUT(&w, *u));
        k->flops += u->flops;
    }
    k->begin = ks_seconds();
    k->busy = true;
    s->busy++;
    s->passes++;
    rc = ks_comm_send(rank, KS_MSG_WORK, w.data, w.bytes);
    w.data = NULL;
done:
    free(w.data);
    return rc;
}

static double speed_of_all(const server *s)
{
    double all = 0, known = 0;
    int n = 0;
    for (int r = 0; r < s->ranks; r++) {
        if (!s->workers[r].ready) continue;
        known += s->workers[r].speed;
        n++;
    }
    all = n ? known / n * s->ranks : 1; /* those that are not ready yet will be like the others */
    return all;
}

/* FLOPs of a round, for ranks whose speeds sum to `speed`. Every round walks through the whole model, which takes no longer than the
 * shortest pass so far: it should compute at least as long, better several times. Where all ranks are in one circle the passes of a round
 * end together, so there is no need for small ones, and all that is left is divided. */
static double round_of(const server *s, double speed, double all)
{
    const double left = ks_queue_flops(s->queue) / all / (s->circles > 1 ? 2 : 1);
    return speed * fmax(s->shortest, fmin(left, fmax(s->options->checkpoint, 4 * s->shortest)));
}

/* A pass for each idle rank of the circle whose first rank is `first`; in rounds, only once all of them are idle. */
static int serve_circle(server *s, int first)
{
    int rc = KS_OK;
    const bool rounds = s->options->rounds != KS_ROUNDS_NONE;
    int members = 0;
    size_t at = 0;
    double speed = 0, all = speed_of_all(s), round = 0; /* speed: of idle members; round: FLOPs still to be divided among them */
    for (int r = first; r < s->ranks; r++) {
        if (first_of(s, r) != first) continue;
        const worker *k = &s->workers[r];
        s->who[members] = k->ready && !k->busy && (r || s->ranks < KS_ROOT_ONLY_SERVES);
        if (s->who[members]) speed += k->speed;
        else if (rounds && (k->busy || !k->ready)) return rc;
        s->members[members++] = r;
    }
    s->round++;
    if (rounds && speed > 0) round = round_of(s, speed, all);
    for (int i = 0; i < members; i++) {
        s->counts[i] = 0;
        if (!s->who[i]) continue;
        const worker *k = &s->workers[s->members[i]];
        double share = 1.000001 * round * k->speed / speed; /* the last one takes all, whatever the rounding */
        if (!rounds) {
            share = ks_queue_share(ks_queue_flops(s->queue), k->speed, all, s->options->checkpoint * (k->passes ? 1 : FIRST_SHARE));
            if (!k->passes && s->ranks > 1) share *= FIRST_SHARE;
        }
        const double before = ks_queue_flops(s->queue);
        s->counts[i] = ks_queue_take(s->queue, share, s->units + at);
        at += s->counts[i];
        s->who[i] = s->counts[i] > 0;
        round = fmax(0, round - (before - ks_queue_flops(s->queue)));
        speed -= k->speed;
    }
    const bool everybody = s->options->rounds == KS_ROUNDS_ALL && at > 0;
    at = 0;
    for (int i = 0; i < members; at += s->counts[i++])
        if (s->who[i] || everybody) KS_TRY(send_pass(s, s->members[i], s->units + at, s->counts[i], s->who, members));
done:
    return rc;
}

/* ---- the loop ---- */

static void take_report(server *s, int from, const ks_work_report *r)
{
    worker *k = &s->workers[from];
    if (!k->ready) {
        k->ready = true;
        k->speed = FIRST_SPEED * r->threads;
        s->ready++;
        return;
    }
    k->busy = false;
    s->busy--;
    s->done += k->flops;
    s->bytes_read += r->bytes_read;
    k->passes++;
    k->all_flops += k->flops;
    k->all_seconds += r->seconds;
    k->last_seconds = r->seconds;
    s->shortest = s->shortest > 0 ? fmin(s->shortest, r->seconds) : r->seconds;
    k->end = ks_seconds();
    if (k->flops > 0 && r->seconds > 0) k->speed = k->flops / r->seconds;
}

static int save(server *s)
{
    const double begin = ks_seconds();
    const int rc = ks_results_flush(s->results);
    s->unsaved = false;
    const double now = ks_seconds();
    s->save_again = now + fmax(s->options->checkpoint / 4, SAVE_PAUSE * (now - begin));
    return rc;
}

/* What signals ask for. */
static int check_signals(server *s)
{
    int rc = KS_OK;
    const int stops = ks_comm_stops();
    if (stops && !s->stopping) {
        s->stopping = true;
        ks_log(KS_LOG_WARN, "asked to stop: %d running pass%s will be finished; asked once more, they are not", s->busy,
               s->busy == 1 ? "" : "es");
        KS_TRY(save(s)); /* whoever asks may not wait */
    }
    if (stops > 1) {
        KS_TRY(save(s));
        ks_log(KS_LOG_WARN, "stopped at once with %lld of %lld cells of %s done; --resume goes on",
               (long long)ks_collector_done(s->collector), (long long)s->cells, s->task->name);
        ks_comm_abort(KS_ESTOPPED);
    }
done:
    return rc;
}

/* Takes the next message: a rank that waits comes before results that can. *came: there was one. */
static int take_message(server *s, double seconds, bool *came)
{
    int rc = KS_OK;
    ks_message m;
    KS_TRY(ks_comm_receive(KS_KIND(KS_MSG_PASS), 0, &m));
    if (m.kind < 0) KS_TRY(ks_comm_receive(KS_KIND(KS_MSG_RECORDS) | KS_KIND(KS_MSG_PASS), seconds, &m));
    *came = m.kind >= 0;
    if (m.kind == KS_MSG_RECORDS) {
        rc = ks_collector_take(s->collector, m.from, m.data, m.bytes);
        s->unsaved = true;
    } else if (m.kind == KS_MSG_PASS) {
        take_report(s, m.from, m.data);
        if (!s->stopping) rc = serve_circle(s, first_of(s, m.from));
    }
    free(m.data);
done:
    return rc;
}

static int step(server *s)
{
    int rc = KS_OK;
    bool came;
    KS_TRY(check_signals(s));
    KS_TRY(take_message(s, TICK_SECONDS, &came));
    const double now = ks_seconds();
    if (s->unsaved && now >= s->save_again) KS_TRY(save(s));
    if (now >= s->show_again) {
        show_progress(s, now);
        s->show_again = now + TICK_SECONDS;
    }
done:
    return rc;
}

/* How even the load was. */
static void tell_balance(const server *s)
{
    double last = s->begin;
    for (int r = 0; r < s->ranks; r++) last = fmax(last, s->workers[r].end);
    for (int r = 0; r < s->ranks && s->ranks > 1; r++) {
        const worker *w = &s->workers[r];
        ks_log(KS_LOG_DEBUG,
               "%s: rank %d on %s: %lld passes, %.3g FLOPs in %.2f s, the last pass in %.2f s, ended %.2f s before the last rank",
               s->task->name, r, ks_comm_host(r), (long long)w->passes, w->all_flops, w->all_seconds, w->last_seconds,
               last - fmax(w->end, s->begin));
    }
}

int ks_serve(const ks_task *t, ks_collector *c, ks_results *results, const ks_serve_options *o, ks_served *served)
{
    int rc = KS_OK;
    server s = {.task = t,
                .collector = c,
                .results = results,
                .options = o,
                .ranks = ks_comm_size(),
                .cells = ks_collector_cells(c),
                .done_before = ks_collector_done(c)};
    KS_NEW(s.workers, s.ranks);
    KS_NEW(s.who, s.ranks);
    KS_NEW(s.members, s.ranks);
    KS_NEW(s.counts, s.ranks);
    KS_NEW(s.units, t->plan->n_units);
    KS_TRY(ks_queue_new(&s.queue, &t->problem, t->plan->units, t->plan->n_units, t->budget));
    s.total = ks_queue_flops(s.queue);
    s.begin = ks_seconds();
    s.save_again = s.begin + o->checkpoint / 4;
    for (int r = 0; r < s.ranks; r++) s.circles += first_of(&s, r) == r;
    ks_comm_answers_signals(true);
    while (s.ready < s.ranks || s.busy || (ks_queue_units(s.queue) && !s.stopping)) KS_TRY(step(&s));
    for (bool more = true; more;) KS_TRY(take_message(&s, 0, &more)); /* a pass is reported after its results */
    for (int r = 0; r < s.ranks; r++) KS_TRY(ks_comm_send(r, KS_MSG_END, NULL, 0));
    if (s.unsaved) KS_TRY(save(&s));
    tell_balance(&s);
    served->stopped = s.stopping && ks_queue_units(s.queue);
    served->bytes_read = s.bytes_read;
done:
    ks_comm_answers_signals(false);
    ks_log_progress("%s", "");
    ks_queue_free(s.queue);
    free(s.workers);
    free(s.who);
    free(s.members);
    free(s.counts);
    free(s.units);
    return rc;
}
