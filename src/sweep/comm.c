#define _GNU_SOURCE
#include "sweep/comm.h"

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <mpi.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ALL = -1, NAME = 64, TEXT = 1024 };
static const double BEAT_SECONDS = 1, SILENCE_SECONDS = 8, ANSWER_SECONDS = 2;
static const double START_SILENCES = 40; /* as long as so many silences MPI may take to start or to end */
static const double POLL_BUSY = 50e-6, POLL_IDLE = 1e-3, BUSY_SECONDS = 0.01; /* polling: often while messages come */

/* A message on its way. Out: the buffer lives until every receiver has it. In: until it is complete. */
typedef struct letter {
    struct letter *next;
    ks_message m;
    int to;                /* rank or ALL */
    MPI_Request *requests; /* [n]; NULL: not started */
    int n;
} letter;

typedef struct list {
    letter *first, **end;
} list;

/* A rank's last words, and a verdict. */
typedef struct words {
    int code;
    char text[TEXT];
} words;

static struct {
    bool mpi;
    int rank, size, local_rank, local_size;
    char (*hosts)[NAME]; /* [size] */
    int *leaders;        /* [size] */

    /* Guarded by the mutex. */
    pthread_mutex_t mutex;
    pthread_cond_t arrived, posted; /* inbox, outbox */
    list inbox, outbox;
    bool ended;       /* the program has returned */
    bool broken;      /* a rank failed; the words are its own */
    double broken_at; /* seconds */
    words failure;
    int abort_code; /* -1: none */
    int stops;      /* most signals that another rank had */

    /* The main thread's. */
    list out, in;  /* in MPI's hands */
    double *heard; /* [size] seconds, when a rank was last heard of; < 0: it said goodbye */
    double beat_at, looked_at;
    double silence;
    int goodbyes, told_stops;
} comm = {.size = 1,
          .local_size = 1,
          .mutex = PTHREAD_MUTEX_INITIALIZER,
          .arrived = PTHREAD_COND_INITIALIZER,
          .posted = PTHREAD_COND_INITIALIZER,
          .inbox = {NULL, &comm.inbox.first},
          .outbox = {NULL, &comm.outbox.first},
          .out = {NULL, &comm.out.first},
          .in = {NULL, &comm.in.first},
          .abort_code = -1};

static _Atomic int own_stops;
static _Atomic bool answers_signals;

int ks_comm_rank(void)
{
    return comm.rank;
}

int ks_comm_size(void)
{
    return comm.size;
}

int ks_comm_local_rank(void)
{
    return comm.local_rank;
}

int ks_comm_local_size(void)
{
    return comm.local_size;
}

int ks_comm_leader(int rank)
{
    return comm.leaders ? comm.leaders[rank] : 0;
}

const char *ks_comm_host(int rank)
{
    static char own[NAME];
    if (comm.hosts) return comm.hosts[rank];
    gethostname(own, sizeof own - 1);
    return own;
}

/* ---- lists ---- */

static void append(list *l, letter *x)
{
    x->next = NULL;
    *l->end = x;
    l->end = &x->next;
}

static letter *take(list *l, letter **at)
{
    letter *x = *at;
    *at = x->next;
    if (l->end == &x->next) l->end = at;
    return x;
}

static void letter_free(letter *x)
{
    if (!x) return;
    free(x->m.data);
    free(x->requests);
    free(x);
}

/* By the clock that nobody sets: after a jump of the other one by an hour this would sleep for an hour, heartbeats included. */
static void wait_until(pthread_cond_t *cond, double seconds)
{
    const double at = ks_seconds() + seconds;
    struct timespec t = {.tv_sec = (time_t)at};
    t.tv_nsec = (long)((at - (double)t.tv_sec) * 1e9);
    pthread_cond_clockwait(cond, &comm.mutex, CLOCK_MONOTONIC, &t);
}

/* ---- messages, for the program's threads ---- */

static int post(int to, int kind, void *data, size_t bytes)
{
    int rc = KS_OK;
    letter *x = NULL;
    KS_REQUIRE(bytes <= INT_MAX, KS_EMACHINE, "a message of %zu bytes is larger than MPI can send", bytes);
    KS_NEW(x, 1);
    *x = (letter){.m = {kind, comm.rank, data, bytes}, .to = to};
    data = NULL;
    pthread_mutex_lock(&comm.mutex);
    if (to == comm.rank) {
        append(&comm.inbox, x);
        pthread_cond_broadcast(&comm.arrived);
    } else {
        append(&comm.outbox, x);
        pthread_cond_signal(&comm.posted);
    }
    pthread_mutex_unlock(&comm.mutex);
done:
    free(data);
    return rc;
}

int ks_comm_send(int to, int kind, void *data, size_t bytes)
{
    return post(to, kind, data, bytes);
}

int ks_comm_send_copy(int to, int kind, const void *data, size_t bytes)
{
    int rc = KS_OK;
    void *copy;
    KS_GET(copy, ks_calloc(bytes ? bytes : 1, 1));
    if (bytes) memcpy(copy, data, bytes);
    rc = post(to, kind, copy, bytes);
done:
    return rc;
}

int ks_comm_send_host(int kind, const void *data, size_t bytes)
{
    int rc = KS_OK;
    const int leader = ks_comm_leader(comm.rank);
    for (int r = leader; r < comm.size && !rc; r++)
        if (r != comm.rank && ks_comm_leader(r) == leader) rc = ks_comm_send_copy(r, kind, data, bytes);
    return rc;
}

/* Mutex held. The failing rank's words, with its address: root's own need none. */
static void note_failure(int rank, int code, const char *text)
{
    if (comm.broken) return;
    comm.broken = true;
    comm.broken_at = ks_seconds();
    comm.failure.code = code;
    if (rank) snprintf(comm.failure.text, TEXT, "rank %d on %s: %s", rank, ks_comm_host(rank), text);
    else snprintf(comm.failure.text, TEXT, "%s", text);
    pthread_cond_broadcast(&comm.arrived);
}

int ks_comm_receive(unsigned kinds, double seconds, ks_message *m)
{
    int rc = KS_OK;
    const double deadline = ks_seconds() + seconds;
    *m = (ks_message){.kind = -1};
    pthread_mutex_lock(&comm.mutex);
    while (!comm.broken) {
        letter **at = &comm.inbox.first;
        while (*at && !(kinds & KS_KIND((*at)->m.kind))) at = &(*at)->next;
        if (*at) {
            letter *x = take(&comm.inbox, at);
            *m = x->m;
            x->m.data = NULL;
            letter_free(x);
            break;
        }
        const double left = deadline - ks_seconds();
        if (!(left > 0)) break;
        wait_until(&comm.arrived, left < 3600 ? left : 3600);
    }
    if (comm.broken) rc = ks_error(comm.failure.code, "%s", comm.failure.text);
    pthread_mutex_unlock(&comm.mutex);
    return rc;
}

int ks_comm_broadcast(void **data, size_t *bytes)
{
    int rc = KS_OK;
    ks_message m;
    if (comm.size == 1) return rc;
    if (comm.rank) {
        KS_TRY(ks_comm_receive(KS_KIND(KS_MSG_SHARE), INFINITY, &m));
        *data = m.data;
        *bytes = m.bytes;
    } else {
        KS_TRY(ks_comm_send_copy(ALL, KS_MSG_SHARE, *data, *bytes));
    }
done:
    return rc;
}

static int send_words(int to, int kind, int code)
{
    words w = {.code = code};
    if (code) snprintf(w.text, TEXT, "%s", ks_error_text());
    return ks_comm_send_copy(to, kind, &w, sizeof w);
}

int ks_comm_agree(int rc)
{
    if (comm.size == 1) return rc;
    ks_message m;
    if (comm.rank == 0) {
        words worst = {.code = rc};
        int worst_rank = rc ? 0 : comm.size;
        snprintf(worst.text, TEXT, "%s", ks_error_text());
        for (int i = 1; i < comm.size; i++) {
            const int broken = ks_comm_receive(KS_KIND(KS_MSG_REPORT), INFINITY, &m);
            if (broken) return broken;
            const words *w = m.data;
            if (w->code && m.from < worst_rank) {
                worst_rank = m.from;
                worst.code = w->code;
                snprintf(worst.text, TEXT, "rank %d on %s: %.900s", m.from, ks_comm_host(m.from), w->text);
            }
            free(m.data);
        }
        if (worst.code) ks_error(worst.code, "%s", worst.text);
        const int lost = send_words(ALL, KS_MSG_VERDICT, worst.code);
        return lost ? lost : worst.code;
    }
    rc = send_words(0, KS_MSG_REPORT, rc);
    if (!rc) rc = ks_comm_receive(KS_KIND(KS_MSG_VERDICT), INFINITY, &m);
    if (rc) return rc;
    const words *w = m.data;
    if (w->code) rc = ks_error(w->code, "%s", w->text);
    free(m.data);
    return rc;
}

void ks_comm_fail(int rc)
{
    if (comm.rank == 0) {
        pthread_mutex_lock(&comm.mutex);
        note_failure(0, rc, ks_error_text());
        pthread_mutex_unlock(&comm.mutex);
    } else if (send_words(0, KS_MSG_FAILED, rc)) {
        ks_comm_abort(rc);
    }
}

bool ks_comm_broken(void)
{
    pthread_mutex_lock(&comm.mutex);
    const bool broken = comm.broken;
    pthread_mutex_unlock(&comm.mutex);
    return broken;
}

_Noreturn void ks_comm_abort(int code)
{
    fflush(stdout);
    if (!comm.mpi) _exit(code);
    pthread_mutex_lock(&comm.mutex);
    comm.abort_code = code;
    pthread_cond_signal(&comm.posted);
    pthread_mutex_unlock(&comm.mutex);
    for (;;) pause();
}

/* ---- signals ---- */

/* One request may come as several signals, from a launcher, a batch system and a wrapper: those that come together count once. */
static void on_signal(int signal)
{
    static _Atomic int64_t last;
    const int64_t together = 500000000;
    struct timespec t;
    (void)signal;
    clock_gettime(CLOCK_MONOTONIC, &t);
    const int64_t now = t.tv_sec * (int64_t)1000000000 + t.tv_nsec;
    if (atomic_load(&own_stops) && now - atomic_exchange(&last, now) < together) return;
    atomic_store(&last, now);
    if (atomic_fetch_add(&own_stops, 1) > 0 && !atomic_load(&answers_signals)) _exit(KS_ESTOPPED);
}

/* Weights are mapped files: one that is cut short or lies on a failing disk shows itself as this signal. */
static char bus_text[256];

static void on_bus_error(int signal)
{
    (void)signal;
    (void)!write(STDERR_FILENO, bus_text, strlen(bus_text));
    _exit(KS_EMACHINE);
}

void ks_comm_catch_signals(void)
{
    snprintf(bus_text, sizeof bus_text,
             "kosweep: error: rank %d on %s: a model's file cannot be read any more: it was changed under the run, or its disk fails\n",
             comm.rank, ks_comm_host(comm.rank));
    sigaction(SIGBUS, &(struct sigaction){.sa_handler = on_bus_error}, NULL);
    const int signals[] = {SIGINT, SIGTERM, SIGUSR1};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct sigaction former;
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, NULL);
    if (!sigaction(SIGHUP, NULL, &former) && former.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, NULL); /* nohup ignores it */
    signal(SIGPIPE, SIG_IGN); /* a sweep does not end because nobody reads its progress any more */
}

int ks_comm_stops(void)
{
    pthread_mutex_lock(&comm.mutex);
    const int others = comm.stops;
    pthread_mutex_unlock(&comm.mutex);
    const int own = atomic_load(&own_stops);
    return own > others ? own : others;
}

void ks_comm_answers_signals(bool answers)
{
    atomic_store(&answers_signals, answers);
}

/* ---- the main thread under a launcher ---- */

static int mpi_failed(int code, const char *statement)
{
    char text[MPI_MAX_ERROR_STRING];
    int n = 0;
    MPI_Error_string(code, text, &n);
    return ks_error(KS_EMACHINE, "MPI: %s: %.*s", statement, n, text);
}

#define MPI_TRY(call)                        \
    do {                                     \
        const int mpi_rc_ = (call);          \
        if (mpi_rc_ != MPI_SUCCESS) {        \
            rc = mpi_failed(mpi_rc_, #call); \
            goto done;                       \
        }                                    \
    } while (0)

/* Starts what was posted, frees what has arrived. */
static int move_out(bool *busy)
{
    int rc = KS_OK;
    letter *x = NULL;
    for (;;) {
        pthread_mutex_lock(&comm.mutex);
        x = comm.outbox.first ? take(&comm.outbox, &comm.outbox.first) : NULL;
        pthread_mutex_unlock(&comm.mutex);
        if (!x) break;
        *busy = true;
        KS_NEW(x->requests, comm.size);
        for (int to = 0; to < comm.size; to++)
            if (to != comm.rank && (x->to == ALL || x->to == to))
                MPI_TRY(MPI_Isend(x->m.data, (int)x->m.bytes, MPI_BYTE, to, x->m.kind, MPI_COMM_WORLD, &x->requests[x->n++]));
        append(&comm.out, x);
        x = NULL;
    }
    for (letter **at = &comm.out.first; *at;) {
        int taken = 0;
        MPI_TRY(MPI_Testall((*at)->n, (*at)->requests, &taken, MPI_STATUSES_IGNORE));
        if (taken) letter_free(take(&comm.out, at));
        else at = &(*at)->next;
    }
done:
    letter_free(x);
    return rc;
}

/* What a complete message means to this thread; the rest is the program's. */
static void deliver(letter *x)
{
    pthread_mutex_lock(&comm.mutex);
    const words *w = x->m.data;
    switch (x->m.kind) {
    case KS_MSG_BEAT:
        break;
    case KS_MSG_BYE:
        comm.heard[x->m.from] = -1;
        comm.goodbyes++;
        break;
    case KS_MSG_STOP:
        if (w->code > comm.stops) comm.stops = w->code;
        break;
    case KS_MSG_FAILED:
        note_failure(x->m.from, w->code, w->text);
        break;
    default:
        append(&comm.inbox, x);
        x = NULL;
        pthread_cond_broadcast(&comm.arrived);
    }
    pthread_mutex_unlock(&comm.mutex);
    letter_free(x);
}

/* Takes what has come. Nothing waits for a message to be complete: its sender may have been stopped in the middle. */
static int move_in(bool *busy)
{
    int rc = KS_OK;
    letter *x = NULL;
    for (;;) {
        MPI_Status status;
        int there = 0, n = 0;
        MPI_TRY(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &there, &status));
        if (!there) break;
        MPI_TRY(MPI_Get_count(&status, MPI_BYTE, &n));
        KS_NEW(x, 1);
        x->m = (ks_message){.kind = status.MPI_TAG, .from = status.MPI_SOURCE, .bytes = (size_t)n};
        x->n = 1;
        KS_NEW(x->requests, 1);
        if (n) KS_GET(x->m.data, ks_calloc((size_t)n, 1));
        MPI_TRY(MPI_Irecv(x->m.data, n, MPI_BYTE, x->m.from, x->m.kind, MPI_COMM_WORLD, x->requests));
        *busy |= x->m.kind != KS_MSG_BEAT;
        if (comm.heard[x->m.from] >= 0) comm.heard[x->m.from] = ks_seconds();
        append(&comm.in, x);
        x = NULL;
    }
    while (comm.in.first) {
        int complete = 0;
        MPI_TRY(MPI_Test(comm.in.first->requests, &complete, MPI_STATUS_IGNORE));
        if (!complete) break; /* the order of messages is kept */
        deliver(take(&comm.in, &comm.in.first));
    }
done:
    letter_free(x);
    return rc;
}

/* Root hears every rank, every rank hears root. */
static int beat_and_listen(void)
{
    int rc = KS_OK;
    const double now = ks_seconds();
    /* Whoever was stopped itself has heard nobody meanwhile, and nobody is to blame for that. */
    if (now - comm.looked_at > comm.silence / 4)
        for (int r = 0; r < comm.size; r++)
            if (comm.heard[r] >= 0) comm.heard[r] = now;
    comm.looked_at = now;
    if (now - comm.beat_at >= BEAT_SECONDS) {
        comm.beat_at = now;
        KS_TRY(post(comm.rank ? 0 : ALL, KS_MSG_BEAT, NULL, 0));
    }
    const int stops = atomic_load(&own_stops);
    if (comm.rank && stops > comm.told_stops) {
        comm.told_stops = stops;
        KS_TRY(send_words(0, KS_MSG_STOP, stops));
    }
    for (int r = comm.rank ? 0 : 1; r < (comm.rank ? 1 : comm.size); r++) {
        /* One of root's hearers is enough to say it; the others wait to be ended. */
        if (comm.heard[r] < 0 || now - comm.heard[r] < comm.silence + (comm.rank > 1)) continue;
        char text[128];
        snprintf(text, sizeof text, "not heard of for %.0f s: it hangs, was stopped or killed, or its host is cut off", comm.silence);
        pthread_mutex_lock(&comm.mutex);
        if (comm.rank && !comm.broken) ks_log(KS_LOG_ERROR, "rank 0 on %s: %s", ks_comm_host(0), text);
        note_failure(r, KS_EMACHINE, text);
        pthread_mutex_unlock(&comm.mutex);
    }
done:
    return rc;
}

/* Ends the job if the program asks for it, or does not answer a failure in time. */
static void end_if_asked(void)
{
    pthread_mutex_lock(&comm.mutex);
    int code = comm.abort_code;
    if (code < 0 && comm.broken && (comm.rank || ks_seconds() - comm.broken_at > ANSWER_SECONDS)) {
        code = comm.failure.code;
        if (comm.rank == 0) ks_log(KS_LOG_ERROR, "%s", comm.failure.text);
    }
    pthread_mutex_unlock(&comm.mutex);
    if (code < 0) return;
    MPI_Abort(MPI_COMM_WORLD, code);
    _exit(code);
}

static int move_messages(void)
{
    int rc = KS_OK;
    double busy_at = ks_seconds();
    for (bool farewell = false;;) {
        bool busy = false;
        KS_TRY(move_out(&busy));
        KS_TRY(move_in(&busy));
        KS_TRY(beat_and_listen());
        end_if_asked();
        if (busy) busy_at = ks_seconds();
        pthread_mutex_lock(&comm.mutex);
        const bool idle = !comm.outbox.first && !comm.out.first;
        if (comm.ended && idle && (comm.rank ? farewell : comm.goodbyes == comm.size - 1)) break;
        const bool leave = comm.ended && idle && comm.rank;
        if (!comm.outbox.first && !leave) wait_until(&comm.posted, ks_seconds() - busy_at < BUSY_SECONDS ? POLL_BUSY : POLL_IDLE);
        pthread_mutex_unlock(&comm.mutex);
        if (leave) {
            farewell = true;
            KS_TRY(post(0, KS_MSG_BYE, NULL, 0));
        }
    }
    pthread_mutex_unlock(&comm.mutex);
    return rc;
done:
    ks_log(KS_LOG_ERROR, "on %s: %s", ks_comm_host(comm.rank), ks_error_text());
    MPI_Abort(MPI_COMM_WORLD, rc);
    _exit(rc);
}

typedef struct start {
    int (*program)(void *ctx);
    void *ctx;
    int rc;
    char text[TEXT];
} start;

static void *run_program(void *arg)
{
    start *s = arg;
    s->rc = s->program(s->ctx);
    snprintf(s->text, TEXT, "%s", ks_error_text());
    pthread_mutex_lock(&comm.mutex);
    comm.ended = true;
    pthread_cond_signal(&comm.posted);
    pthread_mutex_unlock(&comm.mutex);
    return NULL;
}

/* Who is where. */
static int meet(void)
{
    int rc = KS_OK;
    MPI_Comm local = MPI_COMM_NULL;
    char own[NAME] = "";
    int provided = 0, leader = 0;
    MPI_TRY(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided));
    comm.mpi = true;
    MPI_TRY(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    MPI_TRY(MPI_Comm_rank(MPI_COMM_WORLD, &comm.rank));
    MPI_TRY(MPI_Comm_size(MPI_COMM_WORLD, &comm.size));
    MPI_TRY(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, comm.rank, MPI_INFO_NULL, &local));
    MPI_TRY(MPI_Comm_rank(local, &comm.local_rank));
    MPI_TRY(MPI_Comm_size(local, &comm.local_size));
    leader = comm.rank;
    MPI_TRY(MPI_Bcast(&leader, 1, MPI_INT, 0, local));
    KS_NEW(comm.hosts, comm.size);
    KS_NEW(comm.leaders, comm.size);
    KS_NEW(comm.heard, comm.size);
    gethostname(own, sizeof own - 1);
    MPI_TRY(MPI_Allgather(own, NAME, MPI_CHAR, comm.hosts, NAME, MPI_CHAR, MPI_COMM_WORLD));
    MPI_TRY(MPI_Allgather(&leader, 1, MPI_INT, comm.leaders, 1, MPI_INT, MPI_COMM_WORLD));
    comm.looked_at = comm.beat_at = ks_seconds();
    for (int r = 0; r < comm.size; r++) comm.heard[r] = comm.looked_at;
done:
    if (local != MPI_COMM_NULL) MPI_Comm_free(&local);
    return rc;
}

/* MPI starts and ends on all ranks together; one that hangs then would hold up the others for ever. */
static void on_alarm(int signal)
{
    static const char text[] = "kosweep: error: MPI does not start or end on all ranks: one of them hangs, or a host is cut off\n";
    (void)signal;
    if (comm.rank <= 1) (void)!write(STDERR_FILENO, text, sizeof text - 1); /* unless both hang, somebody says it */
    _exit(KS_EMACHINE);
}

static void set_alarm(bool on)
{
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    alarm(on ? (unsigned)ceil(START_SILENCES * comm.silence) : 0);
}

/* A launcher leaves its mark in the environment; without one MPI's start would only cost time. */
static bool launched(void)
{
    static const char *const marks[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (getenv(marks[i])) return true;
    return false;
}

/* srun without PMIx starts programs that know nothing of each other, and all would write the same file. Only srun's tasks have the number
 * of its tasks; a batch job's shell has the job's, SLURM_NTASKS, and a SLURM_PROCID, too. One of the programs speaks for all. */
static int refuse_strangers(void)
{
    const char *tasks = getenv("SLURM_STEP_NUM_TASKS"), *task = getenv("SLURM_PROCID");
    if (!tasks || atoi(tasks) < 2) return KS_OK;
    if (!task || atoi(task) == 0)
        ks_log(KS_LOG_ERROR,
               "srun started %s programs that do not know of each other: use srun --mpi=pmix (srun --mpi=list: what there is)", tasks);
    return KS_EUSAGE;
}

int ks_comm_run(int (*program)(void *ctx), void *ctx)
{
    int rc = KS_OK;
    if (!launched()) {
        rc = refuse_strangers();
        return rc ? rc : program(ctx);
    }
    start s = {program, ctx, 0, ""};
    pthread_t thread;
    ks_comm_catch_signals(); /* MPI's start takes a moment, and who is stopped in it should end as later */
    const char *silence = getenv("KOSWEEP_SILENCE"), *rank = getenv("PMIX_RANK");
    comm.silence = silence && atof(silence) > 0 ? atof(silence) : SILENCE_SECONDS;
    comm.rank = rank ? atoi(rank) : 0; /* until MPI says it */
    set_alarm(true);
    rc = meet();
    set_alarm(false);
    if (rc) {
        ks_log(KS_LOG_ERROR, "%s", ks_error_text());
        return rc;
    }
    if (comm.size > 1) {
        const int failed = pthread_create(&thread, NULL, run_program, &s);
        if (failed) {
            ks_log(KS_LOG_ERROR, "on %s: no thread: %s", ks_comm_host(comm.rank), strerror(failed));
            MPI_Abort(MPI_COMM_WORLD, KS_EMACHINE);
        }
        move_messages();
        pthread_join(thread, NULL);
        rc = s.rc;
        if (rc) ks_error(rc, "%s", s.text);
    } else {
        rc = program(ctx);
    }
    comm.mpi = false;
    set_alarm(true);
    MPI_Finalize();
    set_alarm(false);
    free(comm.hosts);
    free(comm.leaders);
    free(comm.heard);
    comm.hosts = NULL;
    comm.leaders = NULL;
    return rc;
}
