/* group.h on NCCL, which is loaded when it is asked for: the module starts where it is not installed.
 *
 * The communicator does not block: a call returns before what it asks for is under way, and how that went is asked for again and again, so
 * that time can run out. Where it does, or NCCL finds an error, ncclCommAbort ends what is queued, and the waits behind it with it. */
#include "compute/cuda/group.h"

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "compute/cuda/gpu_cuda.h"

#include <dlfcn.h>
#include <nccl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FUNCTIONS(X)      \
    X(GetVersion)         \
    X(GetErrorString)     \
    X(GetLastError)       \
    X(GetUniqueId)        \
    X(CommInitRankConfig) \
    X(CommGetAsyncError)  \
    X(CommFinalize)       \
    X(CommDestroy)        \
    X(CommAbort)          \
    X(Broadcast)

static struct {
    void *library;
    int version;
#define POINTER(name) __typeof__(&nccl##name) name;
    FUNCTIONS(POINTER)
} nccl;

enum { OLDEST = 21400 }; /* the first that does not block */

struct ks_gpu_group {
    ks_gpu *gpu;
    ncclComm_t comm; /* NULL: the group is broken */
    int member, members;
    double patience;
    cudaEvent_t last; /* behind the last broadcast */
    char why[768];    /* it is broken */
};

static int load(void)
{
    int rc = KS_OK;
    void *so = NULL;
    int version = 0;
    if (nccl.library) return rc;
    so = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    KS_REQUIRE(so, KS_EMACHINE, "GPUs cannot share weights without NCCL: %s", dlerror());
#define FIND(name)                                              \
    nccl.name = (__typeof__(nccl.name))dlsym(so, "nccl" #name); \
    KS_REQUIRE(nccl.name, KS_EMACHINE, "GPUs cannot share weights: NCCL is too old: libnccl.so.2 has no nccl" #name);
    FUNCTIONS(FIND)
    KS_REQUIRE(!nccl.GetVersion(&version) && version >= OLDEST, KS_EMACHINE,
               "GPUs cannot share weights: NCCL 2.14 or later is needed, found version code %d", version);
    nccl.version = version;
    nccl.library = so;
done:
    if (rc && so) dlclose(so);
    return rc;
}

int ks_gpu_group_probe(char *by, size_t bytes)
{
    const int rc = load();
    if (!rc) snprintf(by, bytes, "NCCL %d.%d.%d", nccl.version / 10000, nccl.version / 100 % 100, nccl.version % 100);
    return rc;
}

int ks_gpu_group_new_id(ks_gpu_group_id *id)
{
    int rc = KS_OK;
    _Static_assert(sizeof(ncclUniqueId) <= sizeof *id, "an id does not fit");
    memset(id, 0, sizeof *id);
    KS_TRY(load());
    const ncclResult_t r = nccl.GetUniqueId((ncclUniqueId *)id);
    KS_REQUIRE(!r, KS_EMACHINE, "NCCL: no id for a group of GPUs: %s (%s)", nccl.GetErrorString(r), nccl.GetLastError(NULL));
done:
    return rc;
}

/* ---- a broken group ---- */

/* Ends what is queued. The text is for this wait and for whatever is asked of the group later. */
static int __attribute__((format(printf, 2, 3))) break_off(ks_gpu_group *q, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(q->why, sizeof q->why, format, args);
    va_end(args);
    ks_gpu_watch(q->gpu, NULL, NULL);
    if (q->comm) nccl.CommAbort(q->comm);
    q->comm = NULL;
    return ks_error(KS_EMACHINE, "%s", q->why);
}

static int nccl_failed(ks_gpu_group *q, ncclResult_t r, const char *what)
{
    char detail[512];
    snprintf(detail, sizeof detail, "%s", nccl.GetLastError(q->comm)); /* the text goes with the communicator */
    return break_off(q, "NCCL: GPU %d of %d: %s: %s%s%s", q->member, q->members, what, nccl.GetErrorString(r), *detail ? ": " : "", detail);
}

static int too_late(ks_gpu_group *q, const char *what)
{
    return break_off(q, "GPU %d of %d waited for %.3g s: %s", q->member, q->members, q->patience, what);
}

/* What a call that returned r has begun is under way on this member when this returns KS_OK. */
static int settled(ks_gpu_group *q, ncclResult_t r, const char *what)
{
    const struct timespec pause = {.tv_nsec = 50000};
    const double begin = ks_seconds();
    while (!r || r == ncclInProgress) {
        ncclResult_t state = ncclSuccess;
        r = nccl.CommGetAsyncError(q->comm, &state);
        if (!r) r = state;
        if (!r) return KS_OK;
        if (r != ncclInProgress) break;
        if (ks_seconds() - begin > q->patience) return too_late(q, "not all of them came");
        nanosleep(&pause, NULL);
    }
    return nccl_failed(q, r, what);
}

/* While the host waits for the GPU. */
static int watch(void *ctx, double seconds)
{
    ks_gpu_group *q = ctx;
    ncclResult_t state = ncclSuccess, r = nccl.CommGetAsyncError(q->comm, &state);
    if (!r && state != ncclInProgress) r = state;
    if (r) return nccl_failed(q, r, "broadcast");
    if (seconds <= q->patience || cudaEventQuery(q->last) != cudaErrorNotReady) return KS_OK;
    cudaGetLastError(); /* "not ready" is not found again behind the next kernel */
    return too_late(q, "one of them has not come to a broadcast");
}

/* ---- members ---- */

int ks_gpu_group_join(ks_gpu_group **out, ks_gpu *g, const ks_gpu_group_id *id, int member, int members, double patience)
{
    int rc = KS_OK;
    ks_gpu_group *q = NULL;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId unique;
    KS_TRY(load());
    KS_NEW(q, 1);
    *q = (ks_gpu_group){.gpu = g, .member = member, .members = members, .patience = patience};
    memcpy(&unique, id, sizeof unique);
    config.blocking = 0;
    ks_gpu_queue(g, KS_GPU_SIDE);
    KS_REQUIRE(!cudaEventCreateWithFlags(&q->last, cudaEventDisableTiming), KS_EMACHINE, "CUDA: no event for a group of GPUs");
    KS_TRY(settled(q, nccl.CommInitRankConfig(&q->comm, members, unique, member, &config), "joining"));
    ks_gpu_watch(g, watch, q);
done:
    if (rc) ks_gpu_group_leave(q);
    else *out = q;
    return rc;
}

void ks_gpu_group_leave(ks_gpu_group *q)
{
    if (!q) return;
    if (q->comm && !ks_gpu_wait(q->gpu) && !settled(q, nccl.CommFinalize(q->comm), "leaving")) {
        nccl.CommDestroy(q->comm);
        q->comm = NULL;
    }
    if (q->comm) nccl.CommAbort(q->comm);
    ks_gpu_watch(q->gpu, NULL, NULL);
    if (q->last) cudaEventDestroy(q->last);
    free(q);
}

int ks_gpu_group_broadcast(ks_gpu_group *q, void *device, size_t bytes, int from)
{
    int rc = KS_OK;
    cudaStream_t side = ks_gpu_queue(q->gpu, KS_GPU_SIDE);
    KS_REQUIRE(q->comm, KS_EMACHINE, "%s", q->why);
    /* Before it is under way it is not in the queue, and a mark would not be behind it. */
    KS_TRY(settled(q, nccl.Broadcast(device, device, bytes, ncclUint8, from, q->comm, side), "broadcast"));
    KS_REQUIRE(!cudaEventRecord(q->last, side), KS_EMACHINE, "CUDA: a broadcast cannot be marked");
done:
    return rc;
}
