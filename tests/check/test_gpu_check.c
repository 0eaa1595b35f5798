/* The check GPU itself: it finds what it is there to find. And what of the CUDA backend only it can show: memory that runs out, what is
 * uploaded. */
#include "base/error.h"
#include "compute/cuda/cuda.h"
#include "kernels/kernels.h"
#include "tests/check/gpu_check.h"

#include <math.h>
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

/* ---- the check GPU finds faults ---- */

static int touch(ks_gpu *g, char *device, char *pinned)
{
    (void)g;
    (void)pinned;
    return *(volatile char *)device;
}

static int change_before_upload_is_over(ks_gpu *g, char *device, char *pinned)
{
    ks_gpu_upload(g, KS_GPU_MAIN, device, pinned, 64);
    pinned[5] ^= 1;
    return ks_gpu_wait(g);
}

static int upload_from_the_stack(ks_gpu *g, char *device, char *pinned)
{
    char mine[64] = {0};
    (void)pinned;
    return ks_gpu_upload(g, KS_GPU_MAIN, device, mine, sizeof mine);
}

static int copy_past_the_end(ks_gpu *g, char *device, char *pinned)
{
    (void)pinned;
    return ks_gpu_zero(g, device, 4097);
}

static int write_past_the_end(ks_gpu *g, char *device, char *pinned)
{
    (void)pinned;
    const int error = ks_k_embed((float *)device, device, KS_K_F32, (int32_t *)device, 2, 1024, 1, ks_gpu_stream(g));
    ks_gpu_launched(g, error, "ks_k_embed");
    return ks_gpu_wait(g);
}

static int leave_memory_behind(ks_gpu *g, char *device, char *pinned)
{
    (void)device;
    (void)pinned;
    ks_gpu_close(g);
    return 0;
}

static void faults_are_found(void **state)
{
    (void)state;
    static const struct {
        int (*fn)(ks_gpu *g, char *device, char *pinned);
        int signal;
    } faults[] = {
        {touch, SIGSEGV},
        {change_before_upload_is_over, SIGABRT},
        {upload_from_the_stack, SIGABRT},
        {copy_past_the_end, SIGABRT},
        {write_past_the_end, SIGSEGV},
        {leave_memory_behind, SIGABRT},
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        const pid_t child = fork();
        if (!child) {
            ks_gpu *g;
            void *device, *pinned;
            signal(SIGSEGV, SIG_DFL);
            signal(SIGABRT, SIG_DFL);
            if (!freopen("/dev/null", "w", stderr)) _exit(1);
            if (ks_gpu_open(&g, 0) || ks_gpu_alloc(g, &device, 4096) || ks_gpu_alloc_host(g, &pinned, 4096)) _exit(1);
            faults[i].fn(g, device, pinned);
            _exit(0);
        }
        int status = 0;
        assert_true(child > 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), faults[i].signal);
    }
}

/* Memory is NaN until something is written, on the device and, before the queue is waited for, on the host. */
static void unwritten_is_nan(void **state)
{
    (void)state;
    ks_gpu *g;
    void *device, *pinned;
    assert_int_equal(ks_gpu_open(&g, 0), KS_OK);
    assert_int_equal(ks_gpu_alloc(g, &device, 1000), KS_OK);
    assert_int_equal(ks_gpu_alloc_host(g, &pinned, 1000), KS_OK);
    const float *x = pinned;
    assert_int_equal(ks_gpu_download(g, pinned, device, 1000), KS_OK);
    assert_int_equal(ks_gpu_wait(g), KS_OK);
    for (int i = 0; i < 250; i++) assert_true(isnan(x[i]));
    assert_int_equal(ks_gpu_zero(g, device, 1000), KS_OK);
    assert_int_equal(ks_gpu_download(g, pinned, device, 1000), KS_OK);
    assert_true(isnan(x[0]));
    assert_int_equal(ks_gpu_mark(g, KS_GPU_MAIN, 0), KS_OK);
    assert_int_equal(ks_gpu_reach(g, 0), KS_OK);
    for (int i = 0; i < 250; i++) assert_true(x[i] == 0);
    ks_gpu_free(g, device);
    ks_gpu_free_host(g, pinned);
    ks_gpu_close(g);
}

/* ---- the backend ---- */

/* Weights that are on the device already are not uploaded again. */
static void weights_are_found_again(void **state)
{
    (void)state;
    enum { N = 1 << 10 };
    static float weights[N];
    const ks_tensor w = {weights, KS_F32, 1, N, N};
    ks_device *dev;
    float *x, *y;
    assert_int_equal(ks_backend_cuda.open(&dev, &(ks_device_options){.threads = 1}), KS_OK);
    assert_int_equal(ks_backend_cuda.alloc(dev, &x, N), KS_OK);
    assert_int_equal(ks_backend_cuda.alloc(dev, &y, 1), KS_OK);
    assert_int_equal(ks_backend_cuda.zero(dev, x, N), KS_OK);
    assert_string_equal(ks_backend_cuda.algorithms(dev), "check: cpu gemm");
    for (int i = 0; i < 3; i++) {
        if (i == 2) ks_backend_cuda.forget(dev);
        const size_t before = ks_gpu_check_counted().uploaded_bytes;
        assert_int_equal(ks_backend_cuda.linear(dev, y, 1, x, KS_FORM_F32, &w, NULL, 1, KS_GRADE_STATE), KS_OK);
        assert_true((ks_gpu_check_counted().uploaded_bytes - before >= sizeof weights) == (i != 1));
    }
    ks_backend_cuda.free(dev, x);
    ks_backend_cuda.free(dev, y);
    ks_backend_cuda.close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_are_found),
        cmocka_unit_test(unwritten_is_nan),
        cmocka_unit_test(weights_are_found_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
