/* Measures over the vocabulary; twin: src/compute/cpu/isa/measure.c; formulas: docs/method.md, "Measures". One block a row, all in double;
 * token i belongs to thread i % THREADS. p is computed anew in every pass: a pass over memory would cost more than an exp. */
#include "kernels/kernels.h"

#include "compute/backend.h"
#include "kernels/launch.h"

#include <float.h>
#include <math.h>

enum { THREADS = 256, WARPS = THREADS / 32 };

/* As the twin's: above this change exp would overflow, below LOW exp(u) is 0. */
#define HUGE_CHANGE 600.0
#define LOW -700.0

/* ---- over the block ---- */

struct add {
    static __device__ double join(double a, double b)
    {
        return a + b;
    }
};
struct larger {
    static __device__ double join(double a, double b)
    {
        return b > a ? b : a;
    }
};

/* Joins v over the block by a fixed tree; the same on all threads. All of them call it. */
template <class F> static __device__ double over_block(double v)
{
    KS_SHARED(double, part, [WARPS]);
    for (int o = 16; o; o >>= 1) v = F::join(v, __shfl_xor_sync(0xffffffffu, v, o));
    __syncthreads();
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    double all = part[0];
    for (int w = 1; w < WARPS; w++) all = F::join(all, part[w]);
    return all;
}

/* The largest values with the lowest ids, largest first. Threads see ids in ascending order, so an equal value stays behind. */
template <int N> struct top {
    double value[N];
    int32_t id[N];
    __device__ void clear()
    {
#pragma unroll
        for (int k = 0; k < N; k++) {
            value[k] = -INFINITY;
            id[k] = -1;
        }
    }
    __device__ void insert(double v, int32_t i)
    {
        if (!(v > value[N - 1])) return;
        value[N - 1] = v;
        id[N - 1] = i;
#pragma unroll
        for (int k = N - 1; k > 0; k--) {
            if (!(value[k] > value[k - 1])) break;
            const double v1 = value[k - 1];
            const int32_t i1 = id[k - 1];
            value[k - 1] = value[k];
            id[k - 1] = id[k];
            value[k] = v1;
            id[k] = i1;
        }
    }
    __device__ void drop_first()
    {
#pragma unroll
        for (int k = 1; k < N; k++) {
            value[k - 1] = value[k];
            id[k - 1] = id[k];
        }
        value[N - 1] = -INFINITY;
        id[N - 1] = -1;
    }
};

/* Larger value first, then lower id; no token (-1) comes last. */
static __device__ bool before(double v, int32_t i, double w, int32_t j)
{
    return v > w || (v == w && (unsigned)i < (unsigned)j);
}

/* The block's first: what the threads' own lists hold, joined. The same on all threads; all of them call it. */
template <int N> static __device__ void over_block(top<N> *t)
{
    KS_SHARED(double, values, [WARPS]);
    KS_SHARED(int32_t, ids, [WARPS]);
    top<N> all;
#pragma unroll
    for (int k = 0; k < N; k++) {
        double v = t->value[0];
        int32_t i = t->id[0];
        for (int o = 16; o; o >>= 1) {
            const double w = __shfl_xor_sync(0xffffffffu, v, o);
            const int32_t j = __shfl_xor_sync(0xffffffffu, i, o);
            if (before(w, j, v, i)) {
                v = w;
                i = j;
            }
        }
        __syncthreads();
        if (threadIdx.x % 32 == 0) {
            values[threadIdx.x / 32] = v;
            ids[threadIdx.x / 32] = i;
        }
        __syncthreads();
        v = values[0];
        i = ids[0];
        for (int w = 1; w < WARPS; w++) {
            if (before(values[w], ids[w], v, i)) {
                v = values[w];
                i = ids[w];
            }
        }
        all.value[k] = v;
        all.id[k] = i;
        if (i >= 0 && t->id[0] == i) t->drop_first();
    }
    *t = all;
}

/* ---- functions ---- */

/* e^x - 1 - x: x^2/2 + x^3 q(x) near 0. */
static __device__ double expm1_minus_x(double x)
{
    if (!(x >= -1 && x <= 1.25)) return expm1(x) - x;
    const double z = x * x, rest = fma(x, x, -z) * 0.5; /* what rounding took from x^2 / 2 */
    double q = 0x1.b6d129ef51709p-45;
    q = fma(q, x, 0x1.b7dddf9b5b981p-41);
    q = fma(q, x, 0x1.9383bb719ad54p-37);
    q = fma(q, x, 0x1.610e588b651a3p-33);
    q = fma(q, x, 0x1.1eeda6609dd31p-29);
    q = fma(q, x, 0x1.ae648b2e491a9p-26);
    q = fma(q, x, 0x1.27e4fb59a059bp-22);
    q = fma(q, x, 0x1.71de3a1202f5bp-19);
    q = fma(q, x, 0x1.a01a01a041491p-16);
    q = fma(q, x, 0x1.a01a01a072883p-13);
    q = fma(q, x, 0x1.6c16c16c16aabp-10);
    q = fma(q, x, 0x1.1111111110dddp-7);
    q = fma(q, x, 0x1.5555555555556p-5);
    q = fma(q, x, 0x1.5555555555557p-3);
    return 0.5 * z + fma(z * x, q, rest);
}

/* Everything `full` asks for, accumulated over the vocabulary. */
struct sums {
    double reverse, js, tv;
    top<KS_TOP_K> changed; /* by |p' - p| */
    top<1> now;            /* by the new logit */
};

/* One token, u = log(p'/p) from exact differences; returns |p' - p|. */
static __device__ double add_small(sums *s, double p, double u)
{
    u = u < LOW ? LOW : u;
    const double half = 0.5 * u, a = fabs(half);
    const double x = expm1(a), r = 1 / (1 + x), grown = x * (x + 2); /* e^|u| - 1 */
    const double w = half < 0 ? -(grown * r * r) : grown;            /* e^u - 1 */
    const double log_cosh = log1p(0.5 * (x * x * r)), tv = p * fabs(w);
    s->tv += tv;
    s->js += p * (half * w - log_cosh * (2 + w));
    /* e^u u - (e^u - 1) */
    const double near = u * u * (0.5 + u * (0x1.5555555555555p-2 + u * (0.125 + u * (0x1.1111111111111p-5 + u * 0x1.c71c71c71c71cp-8))));
    s->reverse += p * (a < 0x1p-9 ? near : w * u - (w - u));
    return tv;
}

/* The same by plain formulas, q = p'. */
static __device__ double add_huge(sums *s, double p, double q, double u)
{
    const double ln2 = 0x1.62e42fefa39efp-1, h = log1p(exp(-fabs(u))) - ln2;
    const double log_p = u > 0 ? -(u + h) : -h, log_q = u > 0 ? -h : u - h; /* log 2p/(p+q), log 2q/(p+q) */
    const double tv = fabs(q - p);
    s->tv += tv;
    s->js += p * log_p + q * log_q;
    s->reverse += q * u;
    return tv;
}

static __device__ void not_finite(ks_measure *out)
{
    ks_cell *c = &out->cell;
    c->status = KS_CELL_NOT_FINITE;
    c->top_changed = 0;
    c->kl = c->kl_reverse = c->js = c->tv = c->p_top = c->dlogit_top = out->p_next = out->dlogit_next = NAN;
    for (int k = 0; k < KS_TOP_K; k++) {
        c->top_ids[k] = -1;
        c->top_p_baseline[k] = c->top_p_ablated[k] = NAN;
    }
}

/* ---- kernels ---- */

static __global__ void __launch_bounds__(THREADS) measure_kernel(ks_measure *outs, const float *es, const float *all_logits,
                                                                 const ks_baseline_row *bases, const ks_measure_item *items, int V)
{
    const ks_measure_item item = items[blockIdx.x];
    const ks_baseline_row *base = bases + item.base_row;
    const float *e = es + (size_t)blockIdx.x * V, *logits = all_logits + (size_t)item.base_row * V;
    ks_measure *out = outs + blockIdx.x;
    const bool writes = threadIdx.x == 0;
    const int first = base->top_ids[0], me = (int)threadIdx.x;

    if (writes) not_finite(out);
    if (!base->finite) return;
    const double lse0 = base->lse;

    /* A change that all logits share changes nothing: e counts from that of the most probable token on, so that nothing cancels where its
     * p is nearly 1. */
    const double ref = (double)e[first];
    double sum = 0, most = 0;
    for (int i = me; i < V; i += THREADS) {
        const double x = (double)e[i] - ref;
        sum += exp((double)logits[i] - lse0) * x;
        most = x > most ? x : most;
    }
    const double mu = over_block<add>(sum);
    most = over_block<larger>(most);
    if (!isfinite(mu)) return;

    const bool huge = most - mu > HUGE_CHANGE;
    double kl, lse = 0;
    if (huge) { /* log sum exp of logits + e - ref */
        double z = -INFINITY;
        for (int i = me; i < V; i += THREADS) z = larger::join(z, (double)logits[i] + ((double)e[i] - ref));
        z = over_block<larger>(z);
        sum = 0;
        for (int i = me; i < V; i += THREADS) sum += exp((double)logits[i] + ((double)e[i] - ref) - z);
        lse = z + log(over_block<add>(sum));
        kl = lse - lse0 - mu;
    } else {
        sum = 0;
        for (int i = me; i < V; i += THREADS) sum += exp((double)logits[i] - lse0) * expm1_minus_x((double)e[i] - ref - mu);
        kl = log1p(over_block<add>(sum));
    }
    if (!isfinite(kl)) return;
    ks_cell *cell = &out->cell;
    if (writes) {
        cell->status = KS_CELL_DONE;
        cell->kl = kl;
        if (item.next >= 0) {
            out->dlogit_next = (double)e[item.next];
            out->p_next = exp((double)logits[item.next] - lse0 + ((double)e[item.next] - ref - mu - kl));
        }
    }
    if (!item.full) return;

    sums s;
    s.reverse = s.js = s.tv = 0;
    s.changed.clear();
    s.now.clear();
    for (int i = me; i < V; i += THREADS) {
        const double l = (double)logits[i], p = exp(l - lse0), x = (double)e[i] - ref, u = x - mu - kl;
        s.changed.insert(huge ? add_huge(&s, p, exp(l + x - lse), u) : add_small(&s, p, u), i);
        s.now.insert(l + x, i);
    }
    const double reverse = over_block<add>(s.reverse), js = over_block<add>(s.js), tv = over_block<add>(s.tv);
    over_block(&s.changed);
    over_block(&s.now);
    if (!writes) return;
    cell->kl_reverse = reverse;
    cell->js = 0.5 * js;
    cell->tv = 0.5 * tv;
    cell->top_changed = s.now.id[0] != first;
    cell->dlogit_top = ref;
    cell->p_top = exp((double)logits[first] - lse0 + (0 - mu - kl));
#pragma unroll
    for (int k = 0; k < KS_TOP_K; k++) {
        const int32_t id = s.changed.id[k];
        if (id < 0) continue;
        cell->top_ids[k] = id;
        cell->top_p_baseline[k] = exp((double)logits[id] - lse0);
        cell->top_p_ablated[k] = exp((double)logits[id] - lse0 + ((double)e[id] - ref - mu - kl));
    }
}

static __global__ void __launch_bounds__(THREADS) baseline_kernel(ks_baseline_row *outs, const float *all_logits, int V)
{
    const float *logits = all_logits + (size_t)blockIdx.x * V;
    ks_baseline_row *out = outs + blockIdx.x;
    const int me = (int)threadIdx.x;
    top<KS_TOP_K> t;
    double bad = 0;
    t.clear();
    for (int i = me; i < V; i += THREADS) {
        const double x = (double)logits[i];
        if (!isfinite(x)) bad = 1;
        t.insert(x, i);
    }
    const bool finite = over_block<add>(bad) == 0;
    over_block(&t);

    /* The largest logit adds exactly 1 and is left out: where it has nearly all of p, the rest decides. */
    const double most = t.value[0];
    double sum = 0, lost = 0, ties = 0;
    for (int i = me; finite && i < V; i += THREADS) {
        const double x = (double)logits[i] - most, w = exp(x);
        if (x == 0) ties += 1;
        else sum += w;
        lost -= w * x;
    }
    sum = over_block<add>(sum);
    lost = over_block<add>(lost);
    ties = over_block<add>(ties);
    if (me != 0) return;
    const double others = ties - 1 + sum, log_total = log1p(others), lse = finite ? most + log_total : NAN;
    out->lse = lse;
    out->entropy = finite ? log_total + lost / (1 + others) : NAN;
    out->finite = finite;
#pragma unroll
    for (int k = 0; k < KS_TOP_K; k++) {
        out->top_ids[k] = finite ? t.id[k] : -1;
        out->top_p[k] = finite && t.id[k] >= 0 ? exp(t.value[k] - lse) : NAN;
    }
}

extern "C" int ks_k_measure(void *out, const float *e, const float *logits, const void *base, const void *items, size_t n, size_t V,
                            void *stream)
{
    if (n == 0) return 0;
    if (n > 0x7fffffff || V > 0x7fffffff - THREADS) return (int)cudaErrorInvalidValue;
    KS_LAUNCH(measure_kernel, (unsigned)n, THREADS, 0, stream, (ks_measure *)out, e, logits, (const ks_baseline_row *)base,
              (const ks_measure_item *)items, (int)V);
    return (int)cudaGetLastError();
}

extern "C" int ks_k_baseline(void *out, const float *logits, size_t n, size_t V, void *stream)
{
    if (n == 0) return 0;
    if (n > 0x7fffffff || V > 0x7fffffff - THREADS) return (int)cudaErrorInvalidValue;
    KS_LAUNCH(baseline_kernel, (unsigned)n, THREADS, 0, stream, (ks_baseline_row *)out, logits, (int)V);
    return (int)cudaGetLastError();
}
