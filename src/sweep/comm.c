#define _GNU_SOURCE
#include "sweep/comm.h"

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"

#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TAG_RESULT = 1, BROADCAST_STEP = 1 << 30 };

/* A message on its way to root; its buffer lives until root has it. */
typedef struct pending {
    struct pending *next;
    MPI_Request request;
    void *data;
} pending;

static struct {
    bool mpi;
    int rank, size, local_size;
    pending *sent;
} comm = {.size = 1, .local_size = 1};

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

/* A launcher leaves its mark in the environment; without one MPI's start would only cost time. */
static bool launched(void)
{
    static const char *const marks[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (getenv(marks[i])) return true;
    return false;
}

int ks_comm_start(void)
{
    int rc = KS_OK;
    if (!launched()) return KS_OK;
    int provided = 0;
    MPI_Comm local = MPI_COMM_NULL;
    MPI_TRY(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided));
    comm.mpi = true;
    MPI_TRY(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    MPI_TRY(MPI_Comm_rank(MPI_COMM_WORLD, &comm.rank));
    MPI_TRY(MPI_Comm_size(MPI_COMM_WORLD, &comm.size));
    MPI_TRY(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, comm.rank, MPI_INFO_NULL, &local));
    MPI_TRY(MPI_Comm_size(local, &comm.local_size));
done:
    if (local != MPI_COMM_NULL) MPI_Comm_free(&local);
    return rc;
}

void ks_comm_finish(void)
{
    if (!comm.mpi) return;
    ks_comm_drain();
    MPI_Finalize();
    comm.mpi = false;
}

int ks_comm_rank(void)
{
    return comm.rank;
}

int ks_comm_size(void)
{
    return comm.size;
}

int ks_comm_local_size(void)
{
    return comm.local_size;
}

int ks_comm_broadcast(void **data, size_t *bytes)
{
    int rc = KS_OK;
    if (comm.size == 1) return rc;
    uint64_t n = *bytes;
    MPI_TRY(MPI_Bcast(&n, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD));
    if (comm.rank) {
        *bytes = (size_t)n;
        KS_GET(*data, ks_calloc((size_t)n, 1));
    }
    for (uint64_t at = 0; at < n; at += BROADCAST_STEP)
        MPI_TRY(MPI_Bcast((char *)*data + at, (int)(n - at < BROADCAST_STEP ? n - at : BROADCAST_STEP), MPI_BYTE, 0, MPI_COMM_WORLD));
done:
    return rc;
}

/* Frees messages that root has; waits for them if asked to. */
static int reap(bool wait)
{
    int rc = KS_OK;
    for (pending **at = &comm.sent; *at;) {
        pending *m = *at;
        int taken = 0;
        if (wait) {
            MPI_TRY(MPI_Wait(&m->request, MPI_STATUS_IGNORE));
            taken = 1;
        } else {
            MPI_TRY(MPI_Test(&m->request, &taken, MPI_STATUS_IGNORE));
        }
        if (!taken) {
            at = &m->next;
            continue;
        }
        *at = m->next;
        free(m->data);
        free(m);
    }
done:
    return rc;
}

int ks_comm_send(void *data, size_t bytes)
{
    int rc = KS_OK;
    pending *m = NULL;
    KS_REQUIRE(bytes <= INT_MAX, KS_EMACHINE, "a message of %zu bytes is larger than MPI can send", bytes);
    KS_NEW(m, 1);
    m->data = data;
    MPI_TRY(MPI_Isend(data, (int)bytes, MPI_BYTE, 0, TAG_RESULT, MPI_COMM_WORLD, &m->request));
    m->next = comm.sent;
    comm.sent = m;
    m = NULL;
    data = NULL;
    KS_TRY(reap(false));
done:
    free(m);
    if (rc) free(data);
    return rc;
}

int ks_comm_drain(void)
{
    return comm.mpi ? reap(true) : KS_OK;
}

int ks_comm_receive(bool wait, int *from, void **data, size_t *bytes)
{
    int rc = KS_OK;
    *data = NULL;
    if (comm.size == 1) return rc;
    MPI_Status status;
    int there = 1, n = 0;
    if (wait) MPI_TRY(MPI_Probe(MPI_ANY_SOURCE, TAG_RESULT, MPI_COMM_WORLD, &status));
    else MPI_TRY(MPI_Iprobe(MPI_ANY_SOURCE, TAG_RESULT, MPI_COMM_WORLD, &there, &status));
    if (!there) return rc;
    MPI_TRY(MPI_Get_count(&status, MPI_BYTE, &n));
    KS_GET(*data, ks_calloc((size_t)n, 1));
    *bytes = (size_t)n;
    *from = status.MPI_SOURCE;
    MPI_TRY(MPI_Recv(*data, n, MPI_BYTE, status.MPI_SOURCE, TAG_RESULT, MPI_COMM_WORLD, MPI_STATUS_IGNORE));
done:
    if (rc) {
        free(*data);
        *data = NULL;
    }
    return rc;
}

int ks_comm_agree(int rc)
{
    if (comm.size == 1) return rc;
    char text[1024] = "", host[256] = "";
    struct {
        int failed, rank;
    } mine = {rc != KS_OK, comm.rank}, worst;
    if (MPI_Allreduce(&mine, &worst, 1, MPI_2INT, MPI_MAXLOC, MPI_COMM_WORLD) != MPI_SUCCESS) ks_comm_abort(KS_EMACHINE);
    if (!worst.failed) return KS_OK;
    gethostname(host, sizeof host - 1);
    if (comm.rank == worst.rank) {
        /* Root's own failure needs no address: it speaks for all. */
        if (comm.rank) snprintf(text, sizeof text, "rank %d on %s: %s", comm.rank, host, ks_error_text());
        else snprintf(text, sizeof text, "%s", ks_error_text());
    }
    MPI_Bcast(text, sizeof text, MPI_CHAR, worst.rank, MPI_COMM_WORLD);
    MPI_Bcast(&rc, 1, MPI_INT, worst.rank, MPI_COMM_WORLD);
    return ks_error(rc, "%s", text);
}

_Noreturn void ks_comm_abort(int code)
{
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    if (comm.rank) ks_log(KS_LOG_ERROR, "on %s: %s", host, ks_error_text());
    else ks_log(KS_LOG_ERROR, "%s", ks_error_text());
    if (comm.mpi) MPI_Abort(MPI_COMM_WORLD, code);
    exit(code);
}
