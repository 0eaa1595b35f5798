/* The emulator against kernels whose answer is known, and against kernels with the mistakes that it must see. */
#include "kernels/launch.h"

#include <csetjmp>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

extern "C" {
#include <cmocka.h>
}

enum { SEEDS = 8 };

/* ---- a block sum, right and with one barrier less ---- */

template <bool MISSING> static __device__ float block_sum(float v)
{
    KS_SHARED(float, part, [32]);
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    if (!MISSING) __syncthreads();
    v = 0;
    for (unsigned w = 0; w < blockDim.x / 32; w++) v += part[w];
    __syncthreads();
    return v;
}

template <bool MISSING> static __global__ void row_sum(float *y, const float *x, int D)
{
    float v = 0;
    for (int i = (int)threadIdx.x; i < D; i += (int)blockDim.x) v += x[(size_t)blockIdx.x * (size_t)D + (size_t)i];
    v = block_sum<MISSING>(v);
    if (threadIdx.x == 0) y[blockIdx.x] = v;
}

static void test_barrier(void **)
{
    const int R = 20, D = 300;
    std::vector<float> x(R * D, 1.0f), y(R);
    for (uint64_t s = 1; s <= SEEDS; s++) {
        ks_emu::seed(s);
        KS_LAUNCH(row_sum<false>, R, 128, 0, nullptr, y.data(), x.data(), D);
        assert_int_equal(cudaGetLastError(), 0);
        for (float v : y) assert_true(v == (float)D);
    }
}

/* Every seed must show the barrier that is not there: shared memory is NaN before it is written. */
static void test_missing_barrier_shows(void **)
{
    const int R = 20, D = 300;
    std::vector<float> x(R * D, 1.0f), y(R);
    for (uint64_t s = 1; s <= SEEDS; s++) {
        int wrong = 0;
        ks_emu::seed(s);
        KS_LAUNCH(row_sum<true>, R, 128, 0, nullptr, y.data(), x.data(), D);
        for (float v : y) wrong += !(v == (float)D);
        assert_true(wrong > R / 2);
    }
}

/* Shared memory that is written again before all have read it: only a warp that runs ahead of others shows it. */
static __global__ void sums_in_a_row(float *y, int n)
{
    KS_SHARED(float, part, [32]);
    for (int i = 0; i < n; i++) {
        float v = (float)i;
        for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
        if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
        __syncthreads();
        v = 0;
        for (unsigned w = 0; w < blockDim.x / 32; w++) v += part[w];
        if (v != (float)(i * (int)blockDim.x)) y[blockIdx.x] = 1; /* here one barrier is missing */
    }
}

static void test_missing_second_barrier_shows(void **)
{
    for (uint64_t s = 1; s <= SEEDS; s++) {
        float y[20] = {0};
        int wrong = 0;
        ks_emu::seed(s);
        KS_LAUNCH(sums_in_a_row, 20, 256, 0, nullptr, y, 4);
        for (float v : y) wrong += v != 0;
        assert_true(wrong > 0);
    }
}

/* ---- indices of three dimensions; order of threads and blocks ---- */

static __global__ void indices(int *y, int *order, int *next)
{
    const unsigned b = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    const unsigned i = b * blockDim.x * blockDim.y * blockDim.z + t;
    y[i]++;
    order[atomicAdd(next, 1)] = (int)i;
}

static void test_indices_and_order(void **)
{
    const int n = 2 * 3 * 4 * 5 * 6 * 7;
    std::vector<std::vector<int>> orders;
    for (uint64_t s : {1, 2, 1}) {
        std::vector<int> y(n), order(n);
        int next = 0;
        ks_emu::seed(s);
        KS_LAUNCH(indices, dim3(2, 3, 4), dim3(5, 6, 7), 0, nullptr, y.data(), order.data(), &next);
        assert_int_equal(cudaGetLastError(), 0);
        assert_int_equal(next, n);
        for (int v : y) assert_int_equal(v, 1);
        orders.push_back(order);
    }
    assert_true(orders[0] != orders[1]);
    assert_true(orders[0] == orders[2]);
    int in_order = 0;
    for (int i = 1; i < n; i++) in_order += orders[0][(size_t)i] == orders[0][(size_t)i - 1] + 1;
    assert_true(in_order < n / 20);
}

/* ---- warps ---- */

enum { WARP_RESULTS = 13 };
static __global__ void warp_operations(double *out)
{
    const unsigned all = 0xffffffffu, t = threadIdx.x, half = t % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
    double *y = out + t * WARP_RESULTS;
    y[0] = __shfl_sync(all, (int)t, 3);
    y[1] = __shfl_sync(all, 0.5 * t, 3, 8);
    y[2] = __shfl_up_sync(all, (float)t, 2);
    y[3] = (double)__shfl_down_sync(all, (long long)t, 2, 16);
    y[4] = __shfl_xor_sync(all, t, 5);
    y[5] = __ballot_sync(all, t % 3 == 0);
    y[6] = __any_sync(all, t == 33);
    y[7] = __all_sync(all, t != 33);
    y[8] = __reduce_add_sync(all, t);
    y[9] = __reduce_max_sync(half, (int)t);
    if (t % 32 < 16) y[10] = __shfl_xor_sync(0x0000ffffu, t, 1); /* two halves apart */
    else y[10] = __shfl_xor_sync(0xffff0000u, t, 2);
    __syncwarp();
    __syncwarp(half);
    y[11] = __syncthreads_count(t % 2);
    y[12] = __syncthreads_or(t == 5) + 2 * __syncthreads_and(t != 5);
}

static void test_warp_operations(void **)
{
    const unsigned n = 64;
    for (uint64_t s = 1; s <= SEEDS; s++) {
        std::vector<double> out(n * WARP_RESULTS);
        ks_emu::seed(s);
        KS_LAUNCH(warp_operations, 1, n, 0, nullptr, out.data());
        for (unsigned t = 0; t < n; t++) {
            const unsigned warp = t / 32 * 32, l = t % 32;
            unsigned thirds = 0;
            for (unsigned i = 0; i < 32; i++) thirds |= (unsigned)((warp + i) % 3 == 0) << i;
            const double want[WARP_RESULTS] = {warp + 3.0,
                                               0.5 * (warp + l / 8 * 8 + 3),
                                               l < 2 ? t : t - 2.0,
                                               l % 16 < 14 ? t + 2.0 : t,
                                               (double)(t ^ 5),
                                               (double)thirds,
                                               (double)(warp == 32),
                                               (double)(warp == 0),
                                               32.0 * warp + 31 * 16,
                                               warp + (l < 16 ? 15.0 : 31.0),
                                               (double)(t ^ (l < 16 ? 1 : 2)),
                                               n / 2,
                                               1};
            for (int i = 0; i < WARP_RESULTS; i++) {
                if (out[t * WARP_RESULTS + (unsigned)i] != want[i]) {
                    fail_msg("thread %u, result %d: %g, expected %g", t, i, out[t * WARP_RESULTS + (unsigned)i], want[i]);
                }
            }
        }
    }
}

/* ---- shared memory ---- */

static __global__ void look_at_shared(int *not_poisoned, int n)
{
    KS_SHARED(unsigned char, a, [100]);
    KS_SHARED(unsigned char, b, [3][5]);
    KS_DYNAMIC_SHARED(unsigned char, c);
    if (threadIdx.x == 0) {
        int bad = 0;
        for (int i = 0; i < 100; i++) bad += a[i] != 0xff;
        for (int i = 0; i < 15; i++) bad += b[i / 5][i % 5] != 0xff;
        for (int i = 0; i < n; i++) bad += c[i] != 0xff;
        atomicAdd(not_poisoned, bad + ((size_t)a % 16 != 0) + ((size_t)c % 16 != 0));
        memset(a, 1, 100);
        memset(b, 2, 15);
        memset(c, 3, (size_t)n);
    }
    __syncthreads();
    if (a[99] != 1 || b[2][4] != 2 || c[n - 1] != 3) atomicAdd(not_poisoned, 1);
}

static void test_shared_is_poisoned_for_each_block(void **)
{
    int bad = 0;
    for (int launch = 0; launch < 2; launch++) KS_LAUNCH(look_at_shared, 5, 64, 1000, nullptr, &bad, 1000);
    assert_int_equal(cudaGetLastError(), 0);
    assert_int_equal(bad, 0);
}

/* ---- launches ---- */

static __global__ void nothing(int *ran)
{
    atomicAdd(ran, 1);
}

static __global__ void nothing_much(int *ran)
{
    atomicAdd(ran, 1);
}

static void test_limits(void **)
{
    int ran = 0;
    const struct {
        dim3 grid, block;
        size_t shared;
        int error;
    } launches[] = {
        {1, 1024, 0, 0},        {1, 1025, 0, 9},     {1, dim3(32, 33), 0, 9},   {1, dim3(1, 1, 65), 0, 9}, {1, dim3(16, 1, 64), 0, 0},
        {0, 1, 0, 9},           {1, 0, 0, 9},        {dim3(1, 65535), 1, 0, 0}, {dim3(1, 65536), 1, 0, 9}, {dim3(1, 1, 65536), 1, 0, 9},
        {0x80000000u, 1, 0, 9}, {1, 1, 48 << 10, 0}, {1, 1, (48 << 10) + 1, 1},
    };
    for (const auto &l : launches) {
        ran = 0;
        KS_LAUNCH(nothing, l.grid, l.block, l.shared, nullptr, &ran);
        assert_int_equal(cudaPeekAtLastError(), l.error);
        assert_int_equal(cudaGetLastError(), l.error);
        assert_int_equal(cudaGetLastError(), 0);
        if (l.error) assert_int_equal(ran, 0);
        else assert_int_equal(ran, l.grid.y * l.block.x * l.block.z);
    }
    assert_int_equal(KS_ALLOW_SHARED(nothing_much, 227 << 10), 0);
    KS_LAUNCH(nothing_much, 1, 1, 227 << 10, nullptr, &ran);
    assert_int_equal(cudaGetLastError(), 0);
    KS_LAUNCH(nothing_much, 1, 1, (227 << 10) + 1, nullptr, &ran);
    assert_int_equal(cudaGetLastError(), 1);
    assert_int_equal(KS_ALLOW_SHARED(nothing_much, (227 << 10) + 1), 1);
    assert_int_equal(cudaGetLastError(), 1);
}

static std::vector<std::function<void()>> queue;
static void *queued_stream;

static __global__ void store(int *to, long long value)
{
    *to = (int)value;
}

/* A launch that is handed on keeps its arguments as they were. */
static void test_submit(void **)
{
    int y = 0, value = 7;
    ks_emu::submit = [](void *stream, std::function<void()> work) {
        queued_stream = stream;
        queue.push_back(std::move(work));
    };
    KS_LAUNCH(store, 1, 1, 0, &queue, &y, value);
    ks_emu::submit = nullptr;
    value = 8;
    assert_int_equal(y, 0);
    assert_ptr_equal(queued_stream, &queue);
    assert_int_equal(queue.size(), 1);
    queue[0]();
    assert_int_equal(y, 7);
}

/* ---- mistakes that end the program ---- */

static __global__ void one_ends(int *)
{
    if (threadIdx.x == 37) return;
    __syncthreads();
}
static __global__ void two_places(int *)
{
    if (threadIdx.x < 32) __syncthreads();
    else __syncthreads();
}
static __global__ void block_and_warp(int *)
{
    if (threadIdx.x % 32 == 4) __syncthreads();
    else __syncwarp();
}
static __global__ void lane_ends(int *y)
{
    if (threadIdx.x == 3) return;
    *y = __shfl_xor_sync(0xffffffffu, *y, 1);
}
static __global__ void not_in_mask(int *)
{
    __syncwarp(0x7fffffffu);
}
static __global__ void reads_outside(int *y)
{
    if (threadIdx.x < 16) *y = __shfl_sync(0xffffu, *y, 20);
}
static __global__ void past_shared(int *)
{
    KS_DYNAMIC_SHARED(char, a);
    volatile size_t at = 40;
    a[at] = 1;
}
static __global__ void past_static_shared(int *)
{
    KS_SHARED(char, a, [40]);
    char *volatile p = a; /* the compiler must not know the array's size */
    p[40] = 1;
}
static __global__ void much_static_shared(int *)
{
    KS_SHARED(char, a, [40 << 10]);
    a[0] = 1;
}

/* Runs the kernel in a child; what it wrote to stderr before it was aborted, "" if it was not. */
static std::string last_words(const char *name, void (*kernel)(int *), size_t shared)
{
    int fd[2], status, value = 0;
    assert_int_equal(pipe(fd), 0);
    fflush(nullptr);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        dup2(fd[1], 2);
        alarm(60);
        ks_emu::launch_kernel(name, kernel, 2, 64, shared, nullptr, &value);
        _exit(0);
    }
    close(fd[1]);
    std::string text;
    char buf[512];
    for (ssize_t n; (n = read(fd[0], buf, sizeof buf)) > 0;) text.append(buf, (size_t)n);
    close(fd[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return "";
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) return "hung";
    return text;
}

static void test_mistakes_are_reported(void **)
{
#if defined(__SANITIZE_ADDRESS__)
    const char *past[] = {"heap-buffer-overflow"};
#else
    const char *past[] = {"wrote past 40 bytes"};
#endif
    const struct {
        const char *name;
        void (*kernel)(int *);
        size_t shared;
        std::vector<const char *> words;
    } mistakes[] = {
        {"one_ends",
         one_ends,
         0,
         {"kernel one_ends", "divergent barrier", "thread (37,0,0) ended", "and 62 more waits in __syncthreads", "test_emulator.cpp:"}},
        {"two_places",
         two_places,
         0,
         {"kernel two_places", "divergent barrier", "thread (0,0,0) and 31 more waits", "thread (32,0,0) and 31 more waits"}},
        {"block_and_warp", block_and_warp, 0, {"divergent barrier", "thread (4,0,0) and 1 more waits in __syncthreads", "mask ffffffff"}},
        {"lane_ends", lane_ends, 0, {"divergent barrier", "thread (3,0,0) and", " ended", "and 30 more waits in __shfl_xor_sync"}},
        {"not_in_mask", not_in_mask, 0, {"a lane outside the mask"}},
        {"reads_outside", reads_outside, 0, {"reads lane 20, which takes no part"}},
        {"past_shared", past_shared, 40, {past[0]}},
        {"past_static_shared", past_static_shared, 0, {past[0]}},
        {"much_static_shared", much_static_shared, 10 << 10, {"51200 bytes of shared memory, static and dynamic, are too many"}},
    };
    for (const auto &m : mistakes) {
        const std::string text = last_words(m.name, m.kernel, m.shared);
        for (const char *word : m.words) {
            if (text.find(word) == std::string::npos) fail_msg("%s: '%s' expected in '%s'", m.name, word, text.c_str());
        }
    }
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_barrier),
        cmocka_unit_test(test_missing_barrier_shows),
        cmocka_unit_test(test_missing_second_barrier_shows),
        cmocka_unit_test(test_indices_and_order),
        cmocka_unit_test(test_warp_operations),
        cmocka_unit_test(test_shared_is_poisoned_for_each_block),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_submit),
        cmocka_unit_test(test_mistakes_are_reported),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
