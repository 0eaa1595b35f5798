/* comm.h - the ranks of a sweep. The only file that knows MPI.
 *
 * Started by a launcher (mpirun, srun) there are many ranks; started alone the program is rank 0 of 1 and MPI is not even initialised.
 * Messages are bytes between ranks of one machine type. Rank 0 is the root. */
#ifndef KS_SWEEP_COMM_H
#define KS_SWEEP_COMM_H

#include <stdbool.h>
#include <stddef.h>

/* Collective. Reads the launcher's environment; KS_EMACHINE if MPI cannot start. */
int ks_comm_start(void);
/* Collective; the last call. */
void ks_comm_finish(void);

int ks_comm_rank(void);
int ks_comm_size(void);
/* Ranks on this host. */
int ks_comm_local_size(void);

/* Root's bytes to every rank. On other ranks *data is new memory (free). Collective. */
int ks_comm_broadcast(void **data, size_t *bytes);

/* Sends bytes to root, without waiting for it to take them; takes ownership of data. Not root. */
int ks_comm_send(void *data, size_t bytes);
/* Waits until everything sent has been taken. Not root. */
int ks_comm_drain(void);
/* Root: the next message of any rank. *data is new memory (free), NULL if there is none and wait is false. */
int ks_comm_receive(bool wait, int *from, void **data, size_t *bytes);

/* The first failing rank's status, with its error text on every rank; KS_OK if all are. Collective: ranks agree before they go on. */
int ks_comm_agree(int rc);

/* Ends every rank at once with this exit code, after the thread's error text was logged. Does not return. */
_Noreturn void ks_comm_abort(int code);

#endif
