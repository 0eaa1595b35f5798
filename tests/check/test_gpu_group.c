/* Groups of GPUs (compute/cuda/group.h) as the check GPU plays them: members are processes, each with device memory of its own. What is
 * broadcast arrives, whoever sends it and however much it is; a member that is killed, stopped or never joins is an error for the others,
 * soon. */
#include "base/error.h"
#include "base/log.h"
#include "compute/cuda/kept.h"
#include "kernels/kernels.h"
#include "tests/check/check.h"
#include "tests/check/gpu_check.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { MOST = 5, ROOM = (1 << 20) + 4096, WELL = 0 };
static const double PATIENCE = 1, SOON = 30;

/* A member's program; WELL, or the line that went wrong. */
typedef int member_fn(ks_gpu *g, const ks_gpu_group_id *id, int member, int members);

#define CHECK(condition)                             \
    do {                                             \
        if (!(condition)) return __LINE__ % 199 + 1; \
    } while (0)

/* Runs all members as processes, and ends those that are still there when all others have ended. ended [members]: exit status, or minus
 * the signal. `lost`: the member that will not end by itself, -1: none. */
static void run_members(member_fn *fn, int members, int lost, int *ended)
{
    ks_gpu_group_id id;
    pid_t pids[MOST];
    assert_int_equal(ks_gpu_group_new_id(&id), KS_OK);
    for (int i = 0; i < members; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i]) continue;
        ks_gpu *g;
        for (int s = 1; s < 32; s++) signal(s, SIG_DFL);
        alarm(120);
        if (ks_gpu_open(&g, i)) _exit(1);
        const int line = fn(g, &id, i, members);
        if (line == WELL) ks_gpu_close(g);
        _exit(line);
    }
    for (int n = 0; n < members; n++) {
        const int i = lost < 0 ? n : (lost + 1 + n) % members; /* the lost one last */
        int status;
        if (i == lost) kill(pids[i], SIGKILL);
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        ended[i] = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    }
}

static unsigned char byte_of(size_t i, int from, size_t bytes)
{
    return (unsigned char)(i * 31 + i / 256 * 7 + (size_t)from * 101 + bytes);
}

static int everything_arrives(ks_gpu *g, const ks_gpu_group_id *id, int member, int members)
{
    static const size_t sizes[] = {1, 255, 4096, (1 << 18), (1 << 18) + 1, (1 << 20) + 17};
    ks_gpu_group *group;
    void *device, *pinned;
    CHECK(!ks_gpu_alloc(g, &device, ROOM) && !ks_gpu_alloc_host(g, &pinned, ROOM));
    unsigned char *host = pinned;
    CHECK(!ks_gpu_group_join(&group, g, id, member, members, SOON));
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int from = 0; from < members; from++) {
            const size_t n = sizes[s];
            memset(host, 0xee, ROOM);
            for (size_t i = 0; i < n && from == member; i++) host[i] = byte_of(i, from, n);
            CHECK(!ks_gpu_upload(g, KS_GPU_SIDE, device, host, ROOM));
            CHECK(!ks_gpu_group_broadcast(group, device, n, from));
            CHECK(!ks_gpu_mark(g, KS_GPU_SIDE, 0) && !ks_gpu_after(g, KS_GPU_MAIN, 0));
            CHECK(!ks_gpu_wait(g));
            CHECK(!ks_gpu_download(g, host, device, ROOM) && !ks_gpu_wait(g));
            for (size_t i = 0; i < ROOM; i++) CHECK(host[i] == (i < n ? byte_of(i, from, n) : 0xee));
        }
    ks_gpu_group_leave(group);
    ks_gpu_free(g, device);
    ks_gpu_free_host(g, pinned);
    return WELL;
}

static void what_is_broadcast_arrives(void **state)
{
    (void)state;
    static const int sizes[] = {1, 2, 3, MOST};
    int ended[MOST];
    for (size_t s = 0; s < 4; s++) {
        run_members(everything_arrives, sizes[s], -1, ended);
        for (int i = 0; i < sizes[s]; i++) assert_int_equal(ended[i], WELL);
    }
}

/* Rounds through layers that members keep in turn, one ahead, as weights are shared: whatever the order in which the queues run, each layer
 * is there when it is used, and nothing comes to its place before. */
static int layers_are_there_when_used(ks_gpu *g, const ks_gpu_group_id *id, int member, int members)
{
    enum { L = 7, N = 1000, ROUNDS = 12 };
    static float layers[L][2][N];
    ks_kept kept = {0};
    ks_gpu_group *group;
    void *device, *pinned;
    ks_tensor w[L][2];
    const size_t bytes = sizeof layers;
    for (int l = 0; l < L; l++)
        for (int i = 0; i < 2; i++) {
            for (int j = 0; j < N; j++) layers[l][i][j] = (float)(l * 10000 + i * 5000 + j);
            w[l][i] = (ks_tensor){layers[l][i], KS_F32, 1, N, N};
        }
    ks_check_seed((uint64_t)member + 5);
    CHECK(!ks_gpu_alloc(g, &device, bytes) && !ks_gpu_alloc_host(g, &pinned, bytes));
    CHECK(!ks_kept_open(&kept, g, 4096) && !ks_gpu_group_join(&group, g, id, member, members, SOON));
    for (int round = 0; round < ROUNDS; round++) {
        CHECK(!ks_gpu_zero(g, device, bytes));
        for (int l = -1; l < L; l++) {
            for (int i = 0; i < 2 && l >= 0; i++) {
                const void *at;
                CHECK(!ks_kept_matrix(&kept, &w[l][i], KS_K_F32, &at));
                CHECK(!ks_gpu_copy(g, (float *)device + (2 * l + i) * N, at, sizeof layers[l][i]));
            }
            const int next = l + 1, from = next % members;
            if (next < L) CHECK(!ks_kept_share(&kept, group, w[next], 2, from, from == member, false));
        }
        CHECK(!ks_gpu_download(g, pinned, device, bytes) && !ks_gpu_wait(g));
        CHECK(!memcmp(pinned, layers, bytes));
    }
    ks_gpu_group_leave(group);
    ks_kept_close(&kept);
    ks_gpu_free(g, device);
    ks_gpu_free_host(g, pinned);
    return WELL;
}

static void what_is_shared_is_there_in_time(void **state)
{
    (void)state;
    int ended[MOST];
    for (int members = 2; members <= 4; members++) {
        run_members(layers_are_there_when_used, members, -1, ended);
        for (int i = 0; i < members; i++) assert_int_equal(ended[i], WELL);
    }
}

/* Broadcasts until it fails, which must be soon after `how` has happened to member 1 behind its second broadcast. */
static int until_broken(ks_gpu *g, const ks_gpu_group_id *id, int member, int members, int how)
{
    ks_gpu_group *group;
    void *device;
    char text[256];
    CHECK(!ks_gpu_alloc(g, &device, 4096) && !ks_gpu_zero(g, device, 4096));
    CHECK(!ks_gpu_group_join(&group, g, id, member, members, PATIENCE));
    int rc = KS_OK, n = 0;
    double begin = ks_seconds();
    for (; !rc && n < 100; n++) {
        if (member == 1 && n == 2) raise(how);
        begin = ks_seconds();
        rc = ks_gpu_group_broadcast(group, device, 4096, n % members);
        if (!rc) rc = ks_gpu_wait(g);
    }
    CHECK(member != 1);
    CHECK(rc == KS_EMACHINE && n >= 2 && n < 100);
    CHECK(ks_seconds() - begin < PATIENCE + SOON);
    snprintf(text, sizeof text, "%s", ks_error_text());
    CHECK(strstr(text, "has not come to a broadcast"));
    /* From here on at once, and with the same words. */
    begin = ks_seconds();
    for (int i = 0; i < 100; i++) CHECK(ks_gpu_group_broadcast(group, device, 4096, 0) == KS_EMACHINE && !strcmp(ks_error_text(), text));
    CHECK(ks_seconds() - begin < 50 * PATIENCE);
    ks_gpu_group_leave(group);
    ks_gpu_free(g, device);
    return WELL;
}

static int killed(ks_gpu *g, const ks_gpu_group_id *id, int member, int members)
{
    return until_broken(g, id, member, members, SIGKILL);
}

static int stopped(ks_gpu *g, const ks_gpu_group_id *id, int member, int members)
{
    return until_broken(g, id, member, members, SIGSTOP);
}

static void a_member_that_dies_or_hangs_is_noticed(void **state)
{
    (void)state;
    static member_fn *const fns[] = {killed, stopped};
    for (size_t k = 0; k < 2; k++)
        for (int members = 2; members <= 3; members++) {
            int ended[MOST];
            run_members(fns[k], members, 1, ended);
            for (int i = 0; i < members; i++) assert_int_equal(ended[i], i == 1 ? -SIGKILL : WELL);
        }
}

static int does_not_join(ks_gpu *g, const ks_gpu_group_id *id, int member, int members)
{
    ks_gpu_group *group;
    if (member == 1) return WELL;
    const double begin = ks_seconds();
    CHECK(ks_gpu_group_join(&group, g, id, member, members, PATIENCE) == KS_EMACHINE);
    CHECK(ks_seconds() - begin < PATIENCE + SOON);
    CHECK(strstr(ks_error_text(), "not all of them came") || strstr(ks_error_text(), "there is no group"));
    return WELL;
}

static void a_member_that_never_joins_is_an_error(void **state)
{
    (void)state;
    int ended[MOST];
    run_members(does_not_join, 3, -1, ended);
    for (int i = 0; i < 3; i++) assert_int_equal(ended[i], WELL);
}

/* That is a fault of the program, not of a machine. */
static int disagree(ks_gpu *g, const ks_gpu_group_id *id, int member, int members)
{
    ks_gpu_group *group;
    void *device;
    CHECK(freopen("/dev/null", "w", stderr));
    CHECK(!ks_gpu_alloc(g, &device, 4096) && !ks_gpu_zero(g, device, 4096));
    CHECK(!ks_gpu_group_join(&group, g, id, member, members, PATIENCE));
    CHECK(!ks_gpu_group_broadcast(group, device, member ? 100 : 101, 0));
    ks_gpu_group_leave(group);
    ks_gpu_free(g, device);
    return WELL;
}

static void different_broadcasts_are_found(void **state)
{
    (void)state;
    int ended[MOST];
    run_members(disagree, 2, -1, ended);
    assert_int_equal(ended[0], WELL);
    assert_int_equal(ended[1], -SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_broadcast_arrives),
        cmocka_unit_test(what_is_shared_is_there_in_time),
        cmocka_unit_test(a_member_that_dies_or_hangs_is_noticed),
        cmocka_unit_test(a_member_that_never_joins_is_an_error),
        cmocka_unit_test(different_broadcasts_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
