/* The check GPU's two queues: a mark that is missing or in the wrong place is found with nearly every seed, and nothing in a program
 * without such a mistake. */
#include "base/error.h"
#include "kernels/kernels.h"
#include "tests/check/check.h"
#include "tests/check/gpu_check.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* A program as the backend is one: weights come in the side queue, through two parts of pinned memory in turn, into two places of the
 * device in turn; the main queue computes with them. Round r's weight is r + 1. */
enum { ROUNDS = 40, PARTS = 2, N = 64, SEEDS = 24 };
enum { HOST_MARK = 0, BROUGHT_MARK = 2, USED_MARK = 4, END_MARK = 6 };

/* What is left out, or done in the wrong order. */
typedef enum mistake {
    NONE,
    REACH_BEFORE_REFILL, /* host memory is filled again while its upload may be ahead */
    MARK_IN_OTHER_QUEUE, /* the same: the mark reached says nothing of the upload */
    AFTER_BROUGHT,       /* the main queue uses what may not be there yet */
    AFTER_USED,          /* the side queue overwrites what may be in use */
    MARK_BEHIND_UPLOAD,  /* the mark is set in front of it */
    MARK_BEHIND_USE,     /* the same in the main queue */
    WAIT_BEFORE_READ,    /* the host reads what has not come */
    MISTAKES,
} mistake;

#define MUST(call)          \
    do {                    \
        if (call) _exit(2); \
    } while (0)

/* Whether the numbers are right. */
static bool rounds(ks_gpu *g, mistake m)
{
    void *host, *landing, *device, *out;
    bool right = true;
    MUST(ks_gpu_alloc_host(g, &host, PARTS * N * sizeof(float)));
    MUST(ks_gpu_alloc_host(g, &landing, ROUNDS * N * sizeof(float)));
    MUST(ks_gpu_alloc(g, &device, PARTS * N * sizeof(float)));
    MUST(ks_gpu_alloc(g, &out, ROUNDS * N * sizeof(float)));
    for (int r = 0; r < ROUNDS; r++) {
        const int part = r % PARTS;
        float *from = (float *)host + part * N, *place = (float *)device + part * N, *to = (float *)out + r * N;
        if (m != REACH_BEFORE_REFILL) MUST(ks_gpu_reach(g, HOST_MARK + part));
        for (int i = 0; i < N; i++) from[i] = (float)(r + 1);
        if (m != AFTER_USED) MUST(ks_gpu_after(g, KS_GPU_SIDE, USED_MARK + part));
        if (m == MARK_BEHIND_UPLOAD) MUST(ks_gpu_mark(g, KS_GPU_SIDE, BROUGHT_MARK + part));
        MUST(ks_gpu_upload(g, KS_GPU_SIDE, place, from, N * sizeof(float)));
        if (m != MARK_BEHIND_UPLOAD) MUST(ks_gpu_mark(g, KS_GPU_SIDE, BROUGHT_MARK + part));
        MUST(ks_gpu_mark(g, m == MARK_IN_OTHER_QUEUE ? KS_GPU_MAIN : KS_GPU_SIDE, HOST_MARK + part));

        MUST(ks_gpu_zero(g, to, N * sizeof(float)));
        if (m != AFTER_BROUGHT) MUST(ks_gpu_after(g, KS_GPU_MAIN, BROUGHT_MARK + part));
        if (m == MARK_BEHIND_USE) MUST(ks_gpu_mark(g, KS_GPU_MAIN, USED_MARK + part));
        MUST(ks_gpu_launched(g, ks_k_add_bias(to, N, place, 1, N, ks_gpu_stream(g)), "ks_k_add_bias"));
        if (m != MARK_BEHIND_USE) MUST(ks_gpu_mark(g, KS_GPU_MAIN, USED_MARK + part));
    }
    MUST(ks_gpu_download(g, landing, out, ROUNDS * N * sizeof(float)));
    MUST(ks_gpu_mark(g, KS_GPU_MAIN, END_MARK));
    if (m != WAIT_BEFORE_READ) MUST(ks_gpu_reach(g, END_MARK));
    for (int i = 0; i < ROUNDS * N; i++) right = right && ((float *)landing)[i] == (float)(i / N + 1);
    ks_gpu_free(g, device);
    ks_gpu_free(g, out);
    ks_gpu_free_host(g, host);
    ks_gpu_free_host(g, landing);
    return right;
}

static void orders_that_are_not_given_are_found(void **state)
{
    (void)state;
    for (mistake m = NONE; m < MISTAKES; m++) {
        int found = 0;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            const pid_t child = fork();
            if (!child) {
                ks_gpu *g;
                signal(SIGABRT, SIG_DFL);
                if (!freopen("/dev/null", "w", stderr)) _exit(2);
                ks_check_seed(seed);
                MUST(ks_gpu_open(&g, 0));
                const bool right = rounds(g, m);
                ks_gpu_close(g);
                _exit(!right);
            }
            int status = 0;
            assert_true(child > 0);
            assert_int_equal(waitpid(child, &status, 0), child);
            assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 2);
            if (WIFSIGNALED(status)) assert_int_equal(WTERMSIG(status), SIGABRT);
            found += !WIFEXITED(status) || WEXITSTATUS(status);
        }
        print_message("mistake %d: found with %d of %d seeds\n", m, found, SEEDS);
        if (m == NONE) assert_int_equal(found, 0);
        else assert_true(found > SEEDS * 9 / 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(orders_that_are_not_given_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
