/* gpu_nccl.c over an NCCL and a CUDA that are played here: what it does when calls take their time, fail, or never end. */
#include "base/error.h"
#include "base/log.h"
#include "compute/cuda/gpu_cuda.h"
#include "compute/cuda/group.h"

#include <dlfcn.h>
#include <nccl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const double PATIENCE = 0.3, SOON = 20;

/* ---- what is played ---- */

static struct {
    bool installed;
    const char *missing; /* a function that the library does not have */
    int version;
    ncclResult_t call;  /* what the next calls return */
    ncclResult_t state; /* what they come to ... */
    int slow;           /* ... after so many questions; < 0: never */
    bool busy;          /* the last broadcast is not over */
    int joined, broadcasts, aborted, finalized, destroyed, waits;
    size_t bytes;
    int from;
    int (*watch)(void *ctx, double seconds);
    void *watch_ctx;
} p;

static char a_comm, an_event;

static void play(void)
{
    memset(&p, 0, sizeof p);
    p.installed = true;
    p.version = 22809;
}

static ncclResult_t get_version(int *version)
{
    *version = p.version;
    return ncclSuccess;
}

static const char *get_error_string(ncclResult_t r)
{
    return r == ncclRemoteError ? "remote error" : "some error";
}

static const char *get_last_error(ncclComm_t comm)
{
    return comm ? "connection closed" : "";
}

static ncclResult_t get_unique_id(ncclUniqueId *id)
{
    memset(id, 7, sizeof *id);
    return p.call;
}

static ncclResult_t init(ncclComm_t *comm, int n, ncclUniqueId id, int rank, ncclConfig_t *config)
{
    assert_int_equal(config->blocking, 0);
    assert_int_equal(id.internal[100], 7);
    assert_true(rank >= 0 && rank < n);
    if (p.call && p.call != ncclInProgress) return p.call;
    *comm = (ncclComm_t)&a_comm;
    p.joined++;
    return p.call;
}

static ncclResult_t get_async_error(ncclComm_t comm, ncclResult_t *state)
{
    assert_ptr_equal(comm, &a_comm);
    *state = p.slow ? ncclInProgress : p.state;
    if (p.slow > 0) p.slow--;
    return ncclSuccess;
}

static ncclResult_t finalize(ncclComm_t comm)
{
    assert_ptr_equal(comm, &a_comm);
    p.finalized++;
    return p.call;
}

static ncclResult_t destroy(ncclComm_t comm)
{
    assert_ptr_equal(comm, &a_comm);
    p.destroyed++;
    return ncclSuccess;
}

static ncclResult_t do_abort(ncclComm_t comm)
{
    assert_ptr_equal(comm, &a_comm);
    assert_null(p.watch); /* or a wait would ask about a communicator that has gone */
    p.aborted++;
    return ncclSuccess;
}

static ncclResult_t broadcast(const void *from, void *to, size_t n, ncclDataType_t type, int root, ncclComm_t comm, cudaStream_t stream)
{
    assert_ptr_equal(from, to);
    assert_ptr_equal(comm, &a_comm);
    assert_ptr_equal(stream, &p);
    assert_int_equal(type, ncclUint8);
    p.broadcasts++;
    p.bytes = n;
    p.from = root;
    return p.call;
}

void *dlopen(const char *name, int flags)
{
    (void)flags;
    assert_string_equal(name, "libnccl.so.2");
    return p.installed ? &p : NULL;
}

char *dlerror(void)
{
    return "libnccl.so.2: cannot open shared object file";
}

int dlclose(void *library)
{
    assert_ptr_equal(library, &p);
    return 0;
}

void *dlsym(void *library, const char *name)
{
    static const struct {
        const char *name;
        void (*fn)(void);
    } functions[] = {
        {"ncclGetVersion", (void (*)(void))get_version},      {"ncclGetErrorString", (void (*)(void))get_error_string},
        {"ncclGetLastError", (void (*)(void))get_last_error}, {"ncclGetUniqueId", (void (*)(void))get_unique_id},
        {"ncclCommInitRankConfig", (void (*)(void))init},     {"ncclCommGetAsyncError", (void (*)(void))get_async_error},
        {"ncclCommFinalize", (void (*)(void))finalize},       {"ncclCommDestroy", (void (*)(void))destroy},
        {"ncclCommAbort", (void (*)(void))do_abort},          {"ncclBroadcast", (void (*)(void))broadcast},
    };
    assert_ptr_equal(library, &p);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (!strcmp(name, functions[i].name)) return p.missing && !strcmp(p.missing, name) ? NULL : (void *)functions[i].fn;
    fail_msg("%s is asked for", name);
    return NULL;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    assert_int_equal(flags, cudaEventDisableTiming);
    *event = (cudaEvent_t)&an_event;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    assert_ptr_equal(event, &an_event);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    assert_ptr_equal(event, &an_event);
    assert_ptr_equal(stream, &p);
    assert_int_equal(p.slow, 0); /* the broadcast is in the queue */
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    assert_ptr_equal(event, &an_event);
    return p.busy ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}

void *ks_gpu_queue(ks_gpu *g, int queue)
{
    assert_ptr_equal(g, &an_event);
    assert_int_equal(queue, KS_GPU_SIDE);
    return &p;
}

void ks_gpu_watch(ks_gpu *g, int (*watch)(void *ctx, double seconds), void *ctx)
{
    assert_ptr_equal(g, &an_event);
    p.watch = watch;
    p.watch_ctx = ctx;
}

/* As gpu_cuda.c waits, a tenth of the patience at a time. */
int ks_gpu_wait(ks_gpu *g)
{
    assert_ptr_equal(g, &an_event);
    for (double seconds = 0; p.busy; seconds += PATIENCE / 10) {
        p.waits++;
        assert_true(p.watch && p.waits < 100);
        const int rc = p.watch(p.watch_ctx, seconds);
        if (rc) return rc;
    }
    return KS_OK;
}

/* ---- tests ---- */

static ks_gpu *gpu(void)
{
    return (ks_gpu *)&an_event;
}

static int join(ks_gpu_group **out)
{
    ks_gpu_group_id id;
    const ncclResult_t call = p.call;
    *out = NULL;
    p.call = ncclSuccess;
    assert_int_equal(ks_gpu_group_new_id(&id), KS_OK);
    p.call = call;
    return ks_gpu_group_join(out, gpu(), &id, 1, 3, PATIENCE);
}

/* First of all, since what was found is not looked for again. */
static void test_not_installed(void **state)
{
    (void)state;
    char by[64];
    ks_gpu_group_id id;
    play();
    p.installed = false;
    assert_int_equal(ks_gpu_group_probe(by, sizeof by), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "without NCCL: libnccl.so.2: cannot open"));
    assert_int_equal(ks_gpu_group_new_id(&id), KS_EMACHINE);
    play();
    p.missing = "ncclCommFinalize";
    assert_int_equal(ks_gpu_group_probe(by, sizeof by), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "too old: libnccl.so.2 has no ncclCommFinalize"));
    play();
    p.version = 21305;
    assert_int_equal(ks_gpu_group_probe(by, sizeof by), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "2.14 or later is needed, found version code 21305"));
    play();
    assert_int_equal(ks_gpu_group_probe(by, sizeof by), KS_OK);
    assert_string_equal(by, "NCCL 2.28.9");
}

static void test_usual(void **state)
{
    (void)state;
    ks_gpu_group *q;
    char x[100];
    for (int slow = 0; slow < 5; slow += 4) { /* calls that are done when they return, and calls that are not */
        play();
        p.slow = slow;
        p.call = slow ? ncclInProgress : ncclSuccess;
        assert_int_equal(join(&q), KS_OK);
        assert_non_null(p.watch);
        for (int i = 0; i < 3; i++) {
            p.slow = slow;
            assert_int_equal(ks_gpu_group_broadcast(q, x, 50 + (size_t)i, i), KS_OK);
            assert_true(p.bytes == 50 + (size_t)i && p.from == i);
        }
        p.slow = slow;
        ks_gpu_group_leave(q);
        assert_true(p.joined == 1 && p.broadcasts == 3 && p.finalized == 1 && p.destroyed == 1 && p.aborted == 0 && !p.watch);
    }
}

static void test_join_fails(void **state)
{
    (void)state;
    ks_gpu_group *q;
    play();
    p.call = ncclInvalidUsage;
    assert_int_equal(join(&q), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "NCCL: GPU 1 of 3: joining: some error"));
    assert_int_equal(p.aborted, 0); /* there is no communicator */

    play(); /* begins, and fails then */
    p.call = ncclInProgress;
    p.slow = 3;
    p.state = ncclRemoteError;
    assert_int_equal(join(&q), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "joining: remote error: connection closed"));
    assert_int_equal(p.aborted, 1);

    play(); /* and never ends */
    p.call = ncclInProgress;
    p.slow = -1;
    const double begin = ks_seconds();
    assert_int_equal(join(&q), KS_EMACHINE);
    assert_true(ks_seconds() - begin < PATIENCE + SOON);
    assert_non_null(strstr(ks_error_text(), "GPU 1 of 3 waited for 0.3 s: not all of them came"));
    assert_true(p.aborted == 1 && p.destroyed == 0);
}

/* What is asked of a broken group, and how it is left. */
static void assert_broken(ks_gpu_group *q, const char *why)
{
    char x[100];
    assert_non_null(strstr(ks_error_text(), why));
    assert_true(p.aborted == 1 && !p.watch);
    const int before = p.broadcasts;
    assert_int_equal(ks_gpu_group_broadcast(q, x, 50, 0), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), why));
    ks_gpu_group_leave(q);
    assert_true(p.broadcasts == before && p.aborted == 1 && p.finalized == 0 && p.destroyed == 0);
}

static void test_a_broadcast_fails(void **state)
{
    (void)state;
    ks_gpu_group *q;
    char x[100];
    play(); /* at once */
    assert_int_equal(join(&q), KS_OK);
    p.call = ncclSystemError;
    assert_int_equal(ks_gpu_group_broadcast(q, x, 50, 0), KS_EMACHINE);
    assert_broken(q, "broadcast: some error");

    play(); /* is never under way */
    assert_int_equal(join(&q), KS_OK);
    p.slow = -1;
    assert_int_equal(ks_gpu_group_broadcast(q, x, 50, 0), KS_EMACHINE);
    assert_broken(q, "not all of them came");

    play(); /* a member dies while the host waits, and NCCL sees it */
    assert_int_equal(join(&q), KS_OK);
    assert_int_equal(ks_gpu_group_broadcast(q, x, 50, 0), KS_OK);
    p.busy = true;
    p.state = ncclRemoteError;
    assert_int_equal(ks_gpu_wait(gpu()), KS_EMACHINE);
    assert_broken(q, "broadcast: remote error: connection closed");

    play(); /* and does not see it */
    assert_int_equal(join(&q), KS_OK);
    assert_int_equal(ks_gpu_group_broadcast(q, x, 50, 0), KS_OK);
    p.busy = true;
    assert_int_equal(ks_gpu_wait(gpu()), KS_EMACHINE);
    assert_true(p.waits > 9);
    assert_broken(q, "one of them has not come to a broadcast");
}

/* A wait for something else may last as long as it likes. */
static void test_patience_is_for_broadcasts(void **state)
{
    (void)state;
    ks_gpu_group *q;
    play();
    assert_int_equal(join(&q), KS_OK);
    assert_int_equal(p.watch(p.watch_ctx, 1000 * PATIENCE), KS_OK);
    p.busy = true;
    assert_int_equal(p.watch(p.watch_ctx, PATIENCE / 2), KS_OK);
    p.busy = false;
    ks_gpu_group_leave(q);
    assert_true(p.aborted == 0 && p.destroyed == 1);
}

/* Others have gone without a word: leaving gives up. */
static void test_leaving_alone(void **state)
{
    (void)state;
    ks_gpu_group *q;
    play();
    assert_int_equal(join(&q), KS_OK);
    p.slow = -1;
    ks_gpu_group_leave(q);
    assert_true(p.finalized == 1 && p.aborted == 1 && p.destroyed == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_installed),
        cmocka_unit_test(test_usual),
        cmocka_unit_test(test_join_fails),
        cmocka_unit_test(test_a_broadcast_fails),
        cmocka_unit_test(test_patience_is_for_broadcasts),
        cmocka_unit_test(test_leaving_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
