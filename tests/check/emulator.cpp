/* Fibers, the order in which they run, barriers, and what is checked about them. */
#include <cuda_runtime.h>

#include "tests/check/check.h"
#include "tests/check/emulator.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define ASAN 1
#else
#define ASAN 0
#endif

#ifndef __x86_64__
#error "the emulator's fibers are written for x86-64"
#endif

namespace ks_emu
{
/* ---- fibers ---- */

/* Saves the callee's registers and the stack pointer in *from, goes on where `to` was saved. No system call, unlike swapcontext. */
extern "C" void ks_emu_switch(void **from, void *to);
__asm__(".text\n"
        ".globl ks_emu_switch\n"
        ".hidden ks_emu_switch\n"
        ".type ks_emu_switch, @function\n"
        "ks_emu_switch:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
        "    ret\n"
        ".size ks_emu_switch, . - ks_emu_switch\n");

enum { STACK = (ASAN ? 512 : 128) << 10, GUARD = 4096 };

/* A stack and where its owner stands on it; kept for the next thread that starts. */
struct fiber {
    char *stack;
    void *at;
    void *fake; /* ASan's */
};

enum state { READY, AT_BLOCK, AT_WARP, ENDED };

struct thread {
    uint3 index;
    unsigned number; /* in the block */
    state at;
    fiber f;           /* stack NULL: none yet or no more */
    const char *where; /* it waits */
    /* Of the warp's operation that it waits in. */
    unsigned mask, source;
    uint64_t offer, got;
};

/* One launch runs at a time; it owns all of this. */
static std::recursive_mutex lock; /* as a test goes on after a kernel that ended in a segmentation fault */
static std::vector<thread> threads;
static std::vector<unsigned> ready;
static std::vector<fiber> idle;
static thread *self;
static fiber scheduler;
#if ASAN
static const void *scheduler_stack;
static size_t scheduler_stack_bytes;
#endif
static const char *kernel_name;
static const std::function<void()> *kernel_body;
static unsigned left, at_block; /* threads that have not ended; that wait at the block's barrier */
static uint64_t launch_number, random_state = 1;
static bool seeded, skewed; /* skewed: in this block warps run ahead of others as far as they can */

uint3 *thread_index;
uint3 block_index;
dim3 block_size, grid_size;
void (*submit)(void *stream, std::function<void()> work);
void (*look)(const launched &l);
uint64_t blocks;

static uint64_t random_next() /* SplitMix64 */
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static size_t random_below(size_t n)
{
    return (size_t)((unsigned __int128)random_next() * n >> 64);
}

void seed(uint64_t value)
{
    std::lock_guard<std::recursive_mutex> held(lock);
    random_state = value * 0x9e3779b97f4a7c15u;
    seeded = true;
}

static void run_body()
{
    (*kernel_body)();
}

static void to_scheduler(bool for_good)
{
    fiber *f = &self->f;
#if ASAN
    __sanitizer_start_switch_fiber(for_good ? nullptr : &f->fake, scheduler_stack, scheduler_stack_bytes);
#endif
    (void)for_good;
    ks_emu_switch(&f->at, scheduler.at);
#if ASAN
    __sanitizer_finish_switch_fiber(f->fake, nullptr, nullptr);
#endif
}

/* The first frame of every fiber; it is left and never returns, so ASan must not put red zones into it. */
extern "C" __attribute__((no_sanitize("address"), used)) void ks_emu_enter()
{
#if ASAN
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
    run_body();
    self->at = ENDED;
    to_scheduler(true);
    abort();
}

static fiber fiber_new()
{
    void *memory = mmap(nullptr, STACK + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, GUARD, PROT_NONE)) {
        perror("emulator: a thread's stack");
        abort();
    }
    return {(char *)memory + GUARD, nullptr, nullptr};
}

static void run_thread(thread *t)
{
    if (!t->f.stack) {
        if (idle.empty()) idle.push_back(fiber_new());
        t->f = idle.back();
        idle.pop_back();
        /* As if ks_emu_switch had been called from where a return leads to ks_emu_enter. */
        void **top = (void **)(t->f.stack + STACK);
        *--top = nullptr;
        *--top = (void *)ks_emu_enter;
        for (int i = 0; i < 6; i++) *--top = nullptr;
        t->f.at = top;
    }
    self = t;
    thread_index = &t->index;
#if ASAN
    __sanitizer_start_switch_fiber(&scheduler.fake, t->f.stack, STACK);
#endif
    ks_emu_switch(&scheduler.at, t->f.at);
#if ASAN
    __sanitizer_finish_switch_fiber(scheduler.fake, nullptr, nullptr);
#endif
    if (t->at == ENDED) {
        idle.push_back(t->f);
        t->f = fiber();
        left--;
    }
}

/* ---- reports ---- */

static void report(const char *what)
{
    fprintf(stderr, "emulator: kernel %s, block (%u,%u,%u) of %ux%ux%u threads: %s\n", kernel_name, block_index.x, block_index.y,
            block_index.z, block_size.x, block_size.y, block_size.z, what);
}

[[noreturn]] static void fail_thread(const char *where, const std::string &what)
{
    report((what + ", thread (" + std::to_string(self->index.x) + "," + std::to_string(self->index.y) + "," +
            std::to_string(self->index.z) + "), " + where)
               .c_str());
    abort();
}

/* Nobody can go on, or not as one: says who is where. */
[[noreturn]] static void fail_divergent()
{
    report("divergent barrier");
    std::vector<bool> told(threads.size());
    for (size_t i = 0; i < threads.size(); i++) {
        if (told[i]) continue;
        const thread &t = threads[i];
        size_t n = 0;
        for (size_t j = i; j < threads.size(); j++) {
            const thread &o = threads[j];
            if (o.at != t.at || (t.at != ENDED && (strcmp(o.where, t.where) || (t.at == AT_WARP && o.mask != t.mask)))) continue;
            told[j] = true;
            n++;
        }
        fprintf(stderr, "  thread (%u,%u,%u)", t.index.x, t.index.y, t.index.z);
        if (n > 1) fprintf(stderr, " and %zu more", n - 1);
        if (t.at == ENDED) fprintf(stderr, " ended\n");
        else if (t.at == AT_WARP) fprintf(stderr, " waits in %s, mask %08x\n", t.where, t.mask);
        else fprintf(stderr, " waits in %s\n", t.where);
    }
    abort();
}

/* ---- barriers ---- */

static void make_ready(thread *t)
{
    t->at = READY;
    ready.push_back(t->number);
}

/* All threads; by warps in random order, which matters where the block is skewed. */
static void make_all_ready()
{
    unsigned warps[32];
    const unsigned n = (unsigned)(threads.size() + 31) / 32;
    for (unsigned w = 0; w < n; w++) {
        const size_t at = random_below(w + 1);
        warps[w] = warps[at];
        warps[at] = w;
    }
    for (unsigned w = 0; w < n; w++) {
        for (unsigned i = warps[w] * 32; i < std::min<size_t>(warps[w] * 32 + 32, threads.size()); i++) make_ready(&threads[i]);
    }
}

static bool same_place(const char *a, const char *b)
{
    return a == b || !strcmp(a, b);
}

void block_barrier(const char *where)
{
    thread *me = self;
    me->at = AT_BLOCK;
    me->where = where;
    if (++at_block == threads.size()) {
        for (thread &t : threads) {
            if (!same_place(t.where, where)) fail_divergent();
        }
        make_all_ready();
        at_block = 0;
    }
    to_scheduler(false);
}

int block_count(int predicate, const char *where)
{
    self->offer = predicate != 0;
    block_barrier(where);
    int n = 0;
    for (const thread &t : threads) n += t.offer != 0;
    block_barrier(where); /* nobody may offer anew before all have counted */
    return n;
}

unsigned lane()
{
    return self->number % 32;
}

/* Waits until every lane of mask (that the block has) is in the same operation; then each has what its source offered, or, where source is
 * 32, a bit for each lane whose offer is not 0. */
static uint64_t warp_meet(unsigned mask, uint64_t offer, unsigned source, const char *where)
{
    thread *me = self;
    const unsigned first = me->number / 32 * 32, n = std::min<unsigned>(32, (unsigned)threads.size() - first);
    thread *warp = threads.data() + first;
    if (!(mask >> (me->number - first) & 1)) fail_thread(where, "a lane outside the mask that it gives");
    if (source < 32 && (source >= n || !(mask >> source & 1))) {
        fail_thread(where, "reads lane " + std::to_string(source) + ", which takes no part");
    }
    me->at = AT_WARP;
    me->where = where;
    me->mask = mask;
    me->offer = offer;
    me->source = source;

    bool all = true;
    uint64_t bits = 0;
    for (unsigned l = 0; l < n; l++) {
        if (!(mask >> l & 1)) continue;
        const thread &t = warp[l];
        all = all && t.at == AT_WARP && t.mask == mask && same_place(t.where, where);
        bits |= (uint64_t)(t.offer != 0) << l;
    }
    if (all) {
        for (unsigned l = 0; l < n; l++) {
            if (mask >> l & 1) warp[l].got = warp[l].source < 32 ? warp[warp[l].source].offer : bits;
        }
        for (unsigned l = 0; l < n; l++) {
            if (mask >> l & 1) make_ready(warp + l);
        }
    }
    to_scheduler(false);
    return me->got;
}

void warp_barrier(unsigned mask, const char *where)
{
    warp_meet(mask, 0, 32, where);
}

unsigned ballot(unsigned mask, int predicate, const char *where)
{
    return (unsigned)warp_meet(mask, predicate != 0, 32, where);
}

uint64_t shuffle(unsigned mask, uint64_t value, unsigned source, const char *where)
{
    return warp_meet(mask, value, source, where);
}

/* ---- shared memory ---- */

enum { SHARED_GUARD = ASAN ? 0 : 64, SHARED_ALIGN = 128 };
struct shared_array {
    char *memory;
    size_t bytes;
    shared_site *site; /* NULL: the launch's own */
};
static std::vector<shared_array> shared_arrays; /* of the running launch, the dynamic one first */
static size_t shared_limit;

static void shared_fill(const shared_array &a)
{
    memset(a.memory, 0xff, a.bytes);
    memset(a.memory + a.bytes, 0x5a, SHARED_GUARD);
}

static void *shared_new(size_t bytes, shared_site *site)
{
    void *memory;
    if (posix_memalign(&memory, SHARED_ALIGN, bytes + SHARED_GUARD + !(bytes + SHARED_GUARD))) abort();
    shared_arrays.push_back({(char *)memory, bytes, site});
    shared_fill(shared_arrays.back());
    return memory;
}

static void shared_check_guards()
{
    for (const shared_array &a : shared_arrays) {
        for (size_t i = 0; i < SHARED_GUARD; i++) {
            if (a.memory[a.bytes + i] == 0x5a) continue;
            report(("wrote past " + std::to_string(a.bytes) + " bytes of " + (a.site ? "static" : "dynamic") + " shared memory").c_str());
            abort();
        }
    }
}

void *static_shared(shared_site *site, size_t bytes)
{
    if (site->launch == launch_number) return site->memory;
    size_t total = bytes;
    for (const shared_array &a : shared_arrays) total += a.bytes;
    if (total > shared_limit) fail_thread("KS_SHARED", std::to_string(total) + " bytes of shared memory, static and dynamic, are too many");
    site->launch = launch_number;
    return site->memory = shared_new(bytes, site);
}

void *dynamic_shared()
{
    return shared_arrays[0].memory;
}

/* ---- launches ---- */

static thread_local int last_error;
enum { OK = 0, INVALID_VALUE = 1, INVALID_CONFIGURATION = 9 }; /* cudaError_t */
enum { SHARED_DEFAULT = 48 << 10, SHARED_MOST = 227 << 10 };   /* of compute capability 9.0; 8.0: 163 KB, 8.6, 8.9 and 12.0: 99 KB */
static std::map<const void *, int> allowed_shared;

void set_error(int error)
{
    last_error = error;
}

cudaError_t allow_shared(const void *kernel, int bytes)
{
    std::lock_guard<std::recursive_mutex> held(lock);
    if (bytes < 0 || bytes > SHARED_MOST) {
        fprintf(stderr, "emulator: %d bytes of dynamic shared memory are asked for; a block has at most %d\n", bytes, SHARED_MOST);
        return (cudaError_t)(last_error = INVALID_VALUE);
    }
    allowed_shared[kernel] = bytes;
    return (cudaError_t)OK;
}

/* One block; all threads run to their end. */
static void run_block()
{
    const unsigned n = block_size.x * block_size.y * block_size.z;
    unsigned i = 0;
    for (unsigned z = 0; z < block_size.z; z++) {
        for (unsigned y = 0; y < block_size.y; y++) {
            for (unsigned x = 0; x < block_size.x; x++, i++) {
                thread *t = &threads[i];
                t->index.x = x;
                t->index.y = y;
                t->index.z = z;
                t->number = i;
            }
        }
    }
    left = n;
    at_block = 0;
    skewed = random_below(2);
    make_all_ready();
    while (!ready.empty()) {
        const size_t some = skewed ? std::min<size_t>(32, ready.size()) : ready.size();
        const size_t at = ready.size() - 1 - random_below(some);
        thread *t = &threads[ready[at]];
        ready[at] = ready.back();
        ready.pop_back();
        run_thread(t);
    }
    if (left) fail_divergent();
}

/* The seed of the environment, if there was no other. */
static void seed_once()
{
    if (seeded) return;
    const char *text = getenv("KS_CHECK_SEED");
    random_state = (text ? strtoull(text, nullptr, 10) : 1) * 0x9e3779b97f4a7c15u;
    seeded = true;
}

static void run(const char *name, size_t limit, dim3 grid, dim3 block, size_t shared, const std::function<void()> &body)
{
    std::lock_guard<std::recursive_mutex> held(lock);
    seed_once();
    launch_number++;
    kernel_name = name;
    kernel_body = &body;
    grid_size = grid;
    block_size = block;
    shared_limit = limit;
    ready.clear(); /* of a launch that did not end */
    shared_arrays.clear();
    threads.assign((size_t)block.x * block.y * block.z, thread());
    shared_new(shared, nullptr);

    /* Blocks in an order without pattern: i -> (a i + b) mod n with a prime to n. */
    const uint64_t all = (uint64_t)grid.x * grid.y * grid.z, n = look ? std::min(all, blocks) : all, b = random_below(n);
    uint64_t a = random_below(n) | 1;
    for (uint64_t u = a, v = n;; u = a, v = n) {
        while (v) {
            const uint64_t rest = u % v;
            u = v;
            v = rest;
        }
        if (u == 1) break;
        a++;
    }
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t at = all - n + (uint64_t)(((unsigned __int128)a * i + b) % n);
        block_index.x = (unsigned)(at % grid.x);
        block_index.y = (unsigned)(at / grid.x % grid.y);
        block_index.z = (unsigned)(at / grid.x / grid.y);
        if (i) {
            for (const shared_array &s : shared_arrays) shared_fill(s);
        }
        run_block();
        shared_check_guards();
    }
    size_t of_arrays = 0;
    for (const shared_array &s : shared_arrays) {
        if (s.site) of_arrays += s.bytes;
        free(s.memory);
    }
    shared_arrays.clear();
    if (look) look({name, grid, block, shared, of_arrays});
}

void launch(const char *name, const void *kernel, dim3 grid, dim3 block, size_t shared, void *stream, std::function<void()> body)
{
    size_t limit = SHARED_DEFAULT;
    {
        std::lock_guard<std::recursive_mutex> held(lock);
        const auto found = allowed_shared.find(kernel);
        if (found != allowed_shared.end()) limit = std::max<size_t>(limit, (size_t)found->second);
    }
    const struct {
        const char *what;
        unsigned long long found, least, most;
        int error;
    } rules[] = {
        {"block.x", block.x, 1, 1024, INVALID_CONFIGURATION},
        {"block.y", block.y, 1, 1024, INVALID_CONFIGURATION},
        {"block.z", block.z, 1, 64, INVALID_CONFIGURATION},
        {"threads of a block", (unsigned long long)block.x * block.y * block.z, 1, 1024, INVALID_CONFIGURATION},
        {"grid.x", grid.x, 1, 0x7fffffff, INVALID_CONFIGURATION},
        {"grid.y", grid.y, 1, 65535, INVALID_CONFIGURATION},
        {"grid.z", grid.z, 1, 65535, INVALID_CONFIGURATION},
        {"bytes of dynamic shared memory (see KS_ALLOW_SHARED)", shared, 0, limit, INVALID_VALUE},
    };
    for (const auto &r : rules) {
        if (r.found >= r.least && r.found <= r.most) continue;
        fprintf(stderr, "emulator: launch of %s: %s is %llu, %llu to %llu expected\n", name, r.what, r.found, r.least, r.most);
        last_error = r.error;
        return;
    }
    auto work = [=] { run(name, limit, grid, block, shared, body); };
    if (submit) submit(stream, work);
    else work();
}
} // namespace ks_emu

extern "C" void ks_check_seed(uint64_t seed)
{
    ks_emu::seed(seed);
}

extern "C" uint64_t ks_check_random()
{
    std::lock_guard<std::recursive_mutex> held(ks_emu::lock);
    ks_emu::seed_once();
    return ks_emu::random_next();
}

struct ks_check_work {
    std::function<void()> run;
};
static void (*run_later)(void *stream, ks_check_work *work);

extern "C" void ks_check_submit(void (*later)(void *stream, ks_check_work *work))
{
    run_later = later;
    ks_emu::submit = [](void *stream, std::function<void()> work) {
        if (stream) run_later(stream, new ks_check_work{std::move(work)});
        else work();
    };
}

extern "C" void ks_check_run(ks_check_work *work)
{
    work->run();
    delete work;
}

extern "C" cudaError_t cudaGetLastError()
{
    const int error = ks_emu::last_error;
    ks_emu::last_error = 0;
    return (cudaError_t)error;
}

extern "C" cudaError_t cudaPeekAtLastError()
{
    return (cudaError_t)ks_emu::last_error;
}
