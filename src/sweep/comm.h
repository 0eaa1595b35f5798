/* comm.h - the ranks of a sweep and the messages between them. The only file that knows MPI.
 *
 * Started by a launcher (mpirun, srun --mpi=pmix) there are many ranks; started alone the program is rank 0 of 1 and MPI is not even
 * initialised. Under a launcher a rank's main thread owns MPI and does nothing but move messages and heartbeats; the rank's program runs in
 * a thread of its own and never waits in MPI. So a rank that computes, reads or writes for minutes is still known to be alive, and a rank
 * that was killed, stopped or cut off is noticed within seconds, whatever the others do at that time.
 *
 * Messages are bytes between ranks of one machine type, of one kind, in order between two ranks. Rank 0 is the root. All functions but
 * ks_comm_run may be called from any thread. */
#ifndef KS_SWEEP_COMM_H
#define KS_SWEEP_COMM_H

#include <stdbool.h>
#include <stddef.h>

/* What a message is about; ks_comm_receive waits for a set of them, made by KS_KIND. */
enum {
    KS_MSG_SHARE,   /* root's bytes for every rank (ks_comm_broadcast) */
    KS_MSG_REPORT,  /* a rank's status (ks_comm_agree) */
    KS_MSG_VERDICT, /* root's answer to all of them */
    KS_MSG_HOST,    /* between the ranks of a host (hostmem.c, same.c) */
    KS_MSG_MEMORY,  /* a rank's device memory, for root */
    KS_MSG_WORK,    /* units for a worker */
    KS_MSG_END,     /* no more units of this model */
    KS_MSG_RECORDS, /* results of a worker */
    KS_MSG_PASS,    /* a worker has ended a pass, or is ready for its first */
    KS_MSG_FAILED,  /* a rank's last words: never received, see ks_comm_receive */
    KS_MSG_STOP,    /* a rank was asked by signals to stop; never received, see ks_comm_stops */
    KS_MSG_BEAT,    /* alive; never received */
    KS_MSG_BYE,     /* the rank's program has ended; never received */
};
#define KS_KIND(kind) (1u << (kind))

typedef struct ks_message {
    int kind, from;
    void *data; /* the receiver frees it */
    size_t bytes;
} ks_message;

/* Starts MPI if a launcher asks for it, runs the program of this rank, ends MPI when all ranks' programs have ended. Returns what the
 * program returned; KS_EMACHINE if MPI cannot start, KS_EUSAGE if a launcher started ranks that cannot find each other. Main thread. */
int ks_comm_run(int (*program)(void *ctx), void *ctx);

int ks_comm_rank(void);
int ks_comm_size(void);
/* Ranks of one host are numbered 0 .. local_size - 1 in the order of their ranks; leader: the rank of the first of them. */
int ks_comm_local_rank(void);
int ks_comm_local_size(void);
int ks_comm_leader(int rank);
const char *ks_comm_host(int rank);

/* Takes ownership of data (NULL with 0 bytes is fine), also when it fails. Does not wait. to: any rank, oneself included. */
int ks_comm_send(int to, int kind, void *data, size_t bytes);
/* The same with a copy of the data; and to every other rank of this host. */
int ks_comm_send_copy(int to, int kind, const void *data, size_t bytes);
int ks_comm_send_host(int kind, const void *data, size_t bytes);
/* Waits up to `seconds` (INFINITY: for ever) for the first message of the kinds; m->data is NULL and m->kind -1 if none came. On root it
 * fails with the status and text of a rank that failed or fell silent: ks_comm_broken is true from then on. */
int ks_comm_receive(unsigned kinds, double seconds, ks_message *m);

/* Root's bytes to every rank. On other ranks *data is new memory (free). Collective. */
int ks_comm_broadcast(void **data, size_t *bytes);
/* The status of the lowest rank that failed, with its error text on every rank; KS_OK if none did. Collective: ranks agree before they
 * go on. */
int ks_comm_agree(int rc);

/* Tells root why this rank cannot go on (its status and the thread's error text), which ends the job. The caller returns. */
void ks_comm_fail(int rc);
/* Root: a rank failed or is lost, so that ranks may be anywhere: only ks_comm_abort can end them. */
bool ks_comm_broken(void);
/* Ends every rank at once with this exit code. Does not return. */
_Noreturn void ks_comm_abort(int code);

/* From here on SIGINT, SIGTERM, SIGUSR1 and (unless it is ignored) SIGHUP ask to stop: the first one to stop soon, a second one, half a
 * second later or more, at once. SIGPIPE is ignored; SIGBUS, from a mapped file that cannot be read, ends the
 * program with words and KS_EMACHINE. Under a launcher that is so from the start. */
void ks_comm_catch_signals(void);
/* How often this rank, or on root any rank, was asked to stop. */
int ks_comm_stops(void);
/* While `answers` is true the program looks at ks_comm_stops many times a second; else a second signal ends it here and now. */
void ks_comm_answers_signals(bool answers);

#endif
