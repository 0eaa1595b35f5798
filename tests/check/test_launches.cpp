/* Every launcher of kernels.h for models of every family at the sizes that sweeps have: what it launches is legal on every GPU that the
 * kernels are compiled for, and the last block finds the last row. The arrays are address space of the real sizes, of which only what that
 * block touches becomes memory: an index that is computed in too few bits ends in a segmentation fault, or elsewhere than in the last
 * element. A launcher that is not in this test fails it. */
#include "kernels/kernels.h"

extern "C" {
#include "base/dtype.h"
#include "compute/backend.h"
#include "check/shapes.h"
}
#include "kernels/launch.h"

#include <cmath>
#include <csetjmp>
#include <cstdarg>
#include <cstdio>
#include <fstream>
#include <set>
#include <string>
#include <sys/mman.h>
#include <vector>

extern "C" {
#include <cmocka.h>
}

/* What a block may have everywhere: 99 KB of shared memory on sm_86, 89 and 120 (163 on 80, 227 on 90 and 100). */
enum { THREADS_MOST = 1024, SHARED_MOST = 99 << 10 };

/* ---- launches ---- */

static std::vector<ks_emu::launched> seen;
static std::set<std::string> called;
static const char *of; /* a family's name */

static std::string illegal(const ks_emu::launched &l)
{
    const uint64_t threads = (uint64_t)l.block.x * l.block.y * l.block.z, shared = l.dynamic_shared + l.static_shared;
    if (l.grid.x > 0x7fffffff || l.grid.y > 65535 || l.grid.z > 65535) return "grid";
    if (threads < 1 || threads > THREADS_MOST || l.block.z > 64) return std::to_string(threads) + " threads in a block";
    if (shared > SHARED_MOST) return std::to_string(shared) + " bytes of shared memory";
    return "";
}

/* What the launcher returned, and launched: one kernel or more, all of them legal. */
static void check(const char *launcher, int error)
{
    called.insert(launcher);
    if (error) fail_msg("%s of %s: error %d", launcher, of, error);
    if (seen.empty()) fail_msg("%s of %s launches nothing", launcher, of);
    for (const ks_emu::launched &l : seen) {
        const std::string why = illegal(l);
        if (!why.empty()) fail_msg("%s of %s: %s: %s", launcher, of, l.kernel, why.c_str());
    }
    seen.clear();
}
#define CALL(launcher, ...) check(#launcher, launcher(__VA_ARGS__, nullptr))

/* ---- arrays ---- */

/* n elements of which nothing is there yet: zeros. */
template <class T> struct array {
    T *v;
    size_t n;

    explicit array(size_t count) : n(count)
    {
        v = (T *)mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (v == MAP_FAILED) fail_msg("no address space for %zu bytes", bytes());
    }
    array(const array &) = delete;
    array &operator=(const array &) = delete;
    ~array()
    {
        munmap(v, bytes());
    }
    size_t bytes() const
    {
        return n * sizeof(T);
    }
    operator T *() const
    {
        return v;
    }
    T &last() const
    {
        return v[n - 1];
    }
};

/* Results: the last element is NaN until it is written. */
struct results : array<float> {
    explicit results(size_t count) : array(count)
    {
        last() = NAN;
    }
    ~results()
    {
        if (std::isnan(last())) fail_msg("%s: the last of %zu results was not written", of, n);
    }
};

/* Rows 0, .., the last of which (as many as a block has, and more) lead to the last rows of what has `among` rows. */
struct indices : array<int64_t> {
    indices(size_t count, size_t among) : array(count)
    {
        for (size_t i = 0; i < 64 && i < count; i++) v[count - 1 - i] = (int64_t)(among - 1 - i);
    }
};

/* ---- operations of rows ---- */

static void rows_of(const shape &f, size_t R)
{
    const indices rows(R, R);
    for (int type : {KS_K_BF16, KS_K_F16, KS_K_F32}) {
        const results y(R * f.D);
        const array<float> table(f.V * f.D);
        const array<int32_t> ids(R);
        ids.last() = (int32_t)f.V - 1;
        CALL(ks_k_embed, y, table, type, ids, R, f.D, 1.0f);
    }
    const array<float> x(R * f.D), d(R * f.D), weight(f.D), bias(f.D);
    {
        const results y(R * f.D);
        CALL(ks_k_gather, y, x, rows, R, f.D * sizeof(float));
    }
    x.last() = 1;
    d.last() = 2;
    CALL(ks_k_add, x, x, d, rows, R, f.D);
    assert_true(x.last() == 3);
    d.last() = 0.001f;
    CALL(ks_k_round_diff, d, rows, x, rows, R, f.D);
    assert_true(d.last() == 0);
    for (size_t N : {f.H * f.E, f.D, f.F}) {
        const array<float> y(R * N), b(N);
        b.last() = 1;
        CALL(ks_k_add_bias, y, N, b, R, N);
        assert_true(y.last() == 1);
    }
    {
        const results y(R * f.D), inv(R);
        const array<float> mean(R);
        CALL(ks_k_norm, y, KS_FORM_F32, f.norm == KS_NORM_LAYER ? (float *)mean : nullptr, inv, x, rows, R, f.D, f.norm, 1e-5f, weight,
             bias);
        const results dy(R * f.D);
        CALL(ks_k_norm_diff, dy, KS_FORM_F32, d, rows, x, rows, R, f.D, f.norm, 1e-5f, weight);
    }
    {
        const array<float> q(R * f.H * f.E), cosine(R * f.E / 2), sine(R * f.E / 2);
        q.last() = 1;
        cosine.last() = 0.5;
        CALL(ks_k_rope, q, R, f.H, f.E, f.E, cosine, sine, rows);
        assert_true(q.last() == 0.5);
    }
    const array<float> g(R * f.F), u(R * f.F), dg(R * f.F), du(R * f.F);
    for (int act : {KS_ACT_SILU, KS_ACT_GELU_TANH, KS_ACT_GELU_ERF}) {
        const results a(R * f.F), da(R * f.F);
        CALL(ks_k_activate, a, KS_FORM_F32, f.gate ? (float *)g : nullptr, u, R, f.F, act);
        CALL(ks_k_activate_diff, da, KS_FORM_F32, f.gate ? (float *)dg : nullptr, du, f.gate ? (float *)g : nullptr, u, rows, R, f.F, act);
        const array<uint16_t> parts(R * f.F * 3);
        parts.last() = 1;
        CALL(ks_k_activate, parts, 3, f.gate ? (float *)g : nullptr, u, R, f.F, act);
        assert_true(parts.last() == 0);
    }
}

/* ---- attention ---- */

/* S samples of T tokens; branches of n rows each, R rows in all. */
static void attention_of(const shape &f, int32_t T, size_t S, size_t R, int32_t n)
{
    const size_t rows = S * (size_t)T, P = (size_t)KS_PADDED(T), branches = R / (size_t)n;
    const int32_t H = (int32_t)f.H, G = (int32_t)f.G, E = (int32_t)f.E;
    const array<float> q(rows * f.H * f.E), k(rows * f.G * f.E), v(rows * f.G * f.E), logp(S * f.H * (size_t)T * P);
    const array<ks_k_sample> samples(S);
    const ks_k_sample last = {(int64_t)(rows - (size_t)T), (int64_t)((S - 1) * f.H * (size_t)T * P), T};
    samples.last() = last;
    logp.last() = NAN;
    {
        const results out(rows * f.H * f.E);
        CALL(ks_k_attention, out, KS_FORM_F32, logp, q, k, v, samples, S, T, H, G, E, f.window, 0.1f);
    }
    assert_false(std::isnan(logp.last()));
    {
        const array<double> strength(f.H);
        const array<int32_t> pair(2);
        const array<ks_k_edge_item> edges(S);
        edges.last() = {last, 0, 0, 1, 1, 1};
        pair[0] = pair[1] = T - 1;
        CALL(ks_k_edge_weights, strength, logp, edges, pair, S, H, f.window);
        assert_true(strength.last() > 0);
    }

    /* Masked from the first of its n rows on. */
    const size_t in = branches * (size_t)n;
    const array<float> dq(in * f.H * f.E), dk(in * f.G * f.E), dv(in * f.G * f.E);
    const array<ks_k_branch> items(branches);
    const array<int32_t> lists((size_t)n + (size_t)T + 1 + (size_t)T);
    const int64_t first = (int64_t)(in - (size_t)n);
    ks_k_branch &b = items.last();
    b = {last, first, first, first, n, n, 0, 0, n, n + T + 1, -1, KS_SCALE, 0.5};
    for (int32_t i = 0; i < n; i++) lists[i] = T - n + i;
    for (int32_t t = T - n; t < T; t++) lists[n + t + 1] = t - (T - n) + 1; /* one edge a row, to key 0 */
    const results da(in * f.H * f.E);
    CALL(ks_k_attention_diff, da, KS_FORM_F32, dq, dk, dv, q, k, v, logp, items, lists, branches, T, n, H, G, E, f.window, 0.1f);
}

/* ---- measures ---- */

static void measures_of(const shape &f, size_t R)
{
    const array<float> e(R * f.V), logits(R * f.V);
    const array<ks_baseline_row> base(R);
    const array<ks_measure_item> items(R);
    const array<ks_measure> out(R);
    base.last().lse = NAN;
    CALL(ks_k_baseline, base, logits, R, f.V);
    assert_true(std::fabs(base.last().lse - std::log((double)f.V)) < 1e-9);
    items.last() = {(int64_t)R - 1, (int32_t)f.V - 1, true};
    out.last().cell.kl = NAN;
    e.last() = 1;
    CALL(ks_k_measure, out, e, logits, base, items, R, f.V);
    assert_int_equal(out.last().cell.status, KS_CELL_DONE);
    assert_true(out.last().cell.kl > 0 && out.last().dlogit_next == 1);
}

/* ---- tests ---- */

static void every_family(void **)
{
    ks_emu::look = [](const ks_emu::launched &l) { seen.push_back(l); };
    ks_emu::blocks = 1;
    for (const shape &f : shapes) {
        of = f.name;
        for (size_t R : {1, 1000, 1000000}) rows_of(f, R);
        for (int32_t T : {20, 300, 4096}) {
            attention_of(f, T, 1, 1000, 1);
            attention_of(f, T, T > 300 ? 10 : 1000, 1000000, T > 300 ? T - 1 : T);
        }
        for (size_t R : {1, 100000}) measures_of(f, R);
    }
    ks_emu::look = nullptr;
}

/* After every_family. */
static void every_launcher(void **)
{
    std::ifstream file("../kernels/kernels.h");
    size_t n = 0;
    for (std::string line; std::getline(file, line);) {
        const std::string before = "int ks_k_"; /* as every declaration begins */
        if (line.compare(0, before.size(), before)) continue;
        const std::string name = line.substr(4, line.find('(') - 4);
        if (!called.count(name)) fail_msg("%s is not in this test: add it above, with its real sizes", name.c_str());
        n++;
    }
    assert_int_equal(n, called.size());
}

static __global__ void of_any_kind()
{
}

static void what_is_illegal_is_seen(void **)
{
    static std::string why;
    ks_emu::look = [](const ks_emu::launched &l) { why = illegal(l); };
    assert_int_equal(KS_ALLOW_SHARED(of_any_kind, SHARED_MOST + 1), 0);
    ks_emu::launch("of_any_kind", (const void *)of_any_kind, 1, 1024, SHARED_MOST, nullptr, of_any_kind);
    assert_string_equal(why.c_str(), "");
    ks_emu::launch("of_any_kind", (const void *)of_any_kind, 1, 1, SHARED_MOST + 1, nullptr, of_any_kind);
    assert_string_equal(why.c_str(), "101377 bytes of shared memory");
    ks_emu::look = nullptr;
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family),
        cmocka_unit_test(every_launcher),
        cmocka_unit_test(what_is_illegal_is_seen),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
