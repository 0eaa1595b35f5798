/* Attention of effects; twin: src/compute/cpu/isa/attention_diff.c, whose header names the details that have caused bugs; formulas and
 * their derivation: docs/method.md, "Attention". A row's changes of scores ds, then of weights dp, lie in one place in shared memory. */
#include "kernels/kernels.h"

#include "input/config.h"
#include "kernels/attention.cuh"

/* As the twin's. */
#define LARGE_RISE 60.0f
#define SMALL_SHARE 0.25f
#define SMALL_REST 0x1p-40f

struct effects {
    ks_operand da;
    const float *dq, *dk, *dv, *q, *k, *v, *logp;
    const ks_k_branch *branches;
    const int32_t *lists;
    int H, G, E, window, tiles, R, ldx;
    float scale;
};

/* What acts on one row. */
struct action {
    int kind;           /* KS_SCALE (a knockout is scale 0), KS_SET, or -1: nothing */
    float f, f_less_1;  /* KS_SCALE; f - 1 rounded once */
    double v;           /* KS_SET */
    int n;              /* visible edges */
    const unsigned *on; /* bit j: key j is an edge */
    __device__ bool edge(int j) const
    {
        return kind >= 0 && (on[j / 32] >> (j % 32) & 1);
    }
    __device__ bool drops() const /* edges do not take part in the softmax */
    {
        return kind == KS_SET || (kind == KS_SCALE && f == 0);
    }
};

/* A row in the hands of one warp: x holds changes of q.k at the visible keys [lo, t], then dp. Lane l has keys l, l + 32, .. */
struct row {
    float *x;
    const float *logp;
    int lo, t;
    __device__ int begin() const
    {
        const int j = lo / 32 * 32 + (int)threadIdx.x % 32;
        return j < lo ? j + 32 : j;
    }
};

/* The reference: the first key of largest p among those that are not dropped. */
static __device__ int reference(const row &r, const action &a)
{
    const bool drop = a.drops();
    float best = -INFINITY;
    int at = r.t;
    for (int j = r.begin(); j <= r.t; j += 32) {
        if (r.logp[j] > best && !(drop && a.edge(j))) {
            best = r.logp[j];
            at = j;
        }
    }
    for (int o = 16; o; o >>= 1) {
        const float other = __shfl_xor_sync(KS_FULL_WARP, best, o);
        const int other_at = __shfl_xor_sync(KS_FULL_WARP, at, o);
        if (other > best || (other == best && other_at < at)) {
            best = other;
            at = other_at;
        }
    }
    return at;
}

/* Changes of scores against the reference's, 0 where dropped: a common shift changes nothing, and at the reference nothing is left to
 * cancel. Returns the largest, at least 0. */
static __device__ float against_reference(const row &r, const action &a, float scale)
{
    const bool drop = a.drops();
    const float ref = r.x[reference(r, a)] * scale;
    float rise = 0;
    __syncwarp();
    for (int j = r.begin(); j <= r.t; j += 32) {
        const float d = drop && a.edge(j) ? 0 : r.x[j] * scale - ref;
        r.x[j] = d;
        rise = d > rise ? d : rise;
    }
    return ks_warp_max(rise);
}

/* The row in log space: p' from logp + ds, dp = p' - p. */
static __device__ void row_large(const row &r, const action &a)
{
    const bool drop = a.drops();
    float m = -INFINITY, total = 0;
    for (int j = r.begin(); j <= r.t; j += 32) {
        const float t = drop && a.edge(j) ? -INFINITY : r.logp[j] + r.x[j];
        r.x[j] = t;
        m = t > m ? t : m;
    }
    m = ks_warp_max(m);
    for (int j = r.begin(); j <= r.t; j += 32) {
        float e = expf(r.x[j] - m);
        if (a.kind == KS_SCALE && a.edge(j)) e *= a.f;
        r.x[j] = e;
        total += e;
    }
    total = ks_warp_sum(total);
    const float share = a.kind == KS_SET ? (float)(1 - (double)a.n * a.v) : 1;
    for (int j = r.begin(); j <= r.t; j += 32) r.x[j] = r.x[j] / total * share - expf(r.logp[j]);
}

/* A row that nothing acts on. */
static __device__ void row_free(const row &r, const action &a, float scale)
{
    const float rise = against_reference(r, a, scale);
    float loss = 0;
    for (int j = r.begin(); j <= r.t; j += 32) loss += expf(r.logp[j]) * expm1f(r.x[j]);
    loss = ks_warp_sum(loss);
    const float D = 1 + loss; /* all p sum to 1 */
    if (!(rise <= LARGE_RISE) || D < SMALL_SHARE) {
        row_large(r, a);
        return;
    }
    const float inv = 1 / D;
    for (int j = r.begin(); j <= r.t; j += 32) r.x[j] = expf(r.logp[j]) * ((expm1f(r.x[j]) - loss) * inv);
}

/* A row with edges of an intervention, and others. */
static __device__ void row_diff(const row &r, const action &a, float scale)
{
    const bool set = a.kind == KS_SET, drop = a.drops();
    const float rise = against_reference(r, a, scale);

    /* Sums of p y, y = expm1(ds), and of p, over edges and over the rest. */
    float ye = 0, yr = 0, edges = 0, rest = 0;
    for (int j = r.begin(); j <= r.t; j += 32) {
        const float p = expf(r.logp[j]), py = p * expm1f(r.x[j]);
        const bool on = a.edge(j);
        ye += on ? py : 0;
        yr += on ? 0 : py;
        edges += on ? p : 0;
        rest += on ? 0 : p;
    }
    ye = ks_warp_sum(ye);
    yr = ks_warp_sum(yr);
    edges = ks_warp_sum(edges);
    rest = ks_warp_sum(rest);

    /* p'/p - 1 = (w y + gain - loss) / D at edges and at the rest; gain: what the other class hands over. */
    const double left = 1 - (double)a.n * a.v;
    const float w_edge = set ? 1 : a.f, w_rest = set ? (float)left : 1;
    const float before = set ? rest : w_edge * edges + rest, loss = set ? yr : w_edge * ye + yr, D = before + loss;
    const float gain_edge = a.f_less_1 * rest, gain_rest = set ? (float)((double)edges - (double)a.n * a.v) : -a.f_less_1 * edges;
    if (!(rise <= LARGE_RISE) || D < SMALL_SHARE * before || (drop && rest < SMALL_REST)) {
        row_large(r, a);
    } else {
        for (int j = r.begin(); j <= r.t; j += 32) {
            const float y = expm1f(r.x[j]), n = a.edge(j) ? y * w_edge + gain_edge : y * w_rest + gain_rest;
            r.x[j] = expf(r.logp[j]) * ((n - loss) / D);
        }
    }

    /* What is known exactly is written exactly. */
    if (!drop) return;
    const bool nothing_left = set && left <= 0;
    for (int j = r.begin(); j <= r.t; j += 32) {
        const float p = expf(r.logp[j]);
        if (a.edge(j)) r.x[j] = set ? (float)(a.v - (double)p) : -p;
        else if (nothing_left) r.x[j] = -p;
    }
}

/* A row whose every visible key is an edge: knockout leaves nothing, set leaves v. */
static __device__ void row_all_edges(const row &r, const action &a)
{
    for (int j = r.begin(); j <= r.t; j += 32) {
        const float p = expf(r.logp[j]);
        r.x[j] = a.kind == KS_SET ? (float)(a.v - (double)p) : -p;
    }
}

/* What the branch's intervention does to query t of head h, which sees keys [lo, t]. on: the warp's bits, of which it sets those of keys
 * 0 .. t. */
static __device__ action action_of(const effects &s, const ks_k_branch &b, int h, int lo, int t, unsigned *on)
{
    action a = {-1, 1, 0, 0, 0, on};
    if (b.edge_start < 0 || (b.heads >= 0 && !s.lists[b.heads + h]) || (b.kind == KS_SCALE && b.value == 1)) return a;
    const int lane = (int)threadIdx.x % 32, end = s.lists[b.edge_start + t + 1];
    int n = 0;
    __syncwarp(); /* the row before may still look at its bits */
    for (int w = lane; w <= t / 32; w += 32) on[w] = 0;
    __syncwarp();
    for (int i = s.lists[b.edge_start + t] + lane; i < end; i += 32) {
        const int j = s.lists[b.edge_keys + i];
        if (j < lo || j > t) continue;
        atomicOr(on + j / 32, 1u << (j % 32));
        n++;
    }
    __syncwarp();
    a.n = ks_warp_sum(n);
    if (a.n == 0 || (b.kind == KS_SCALE && a.n == t + 1 - lo)) return a; /* a row of nothing but edges stays as it is when scaled */
    a.kind = b.kind == KS_SET ? KS_SET : KS_SCALE;
    if (b.kind == KS_KNOCKOUT) {
        a.f = 0;
        a.f_less_1 = -1;
    } else if (b.kind == KS_SCALE) {
        a.f = (float)b.value;
        a.f_less_1 = (float)(b.value - 1);
    } else {
        a.v = b.value;
    }
    return a;
}

/* Row r of the tile is head r's of the group at position pos[r]. */
struct query_rows {
    const float *q; /* of the sample's first position and the group's first head */
    const int *pos;
    size_t H, E;
    int first, n, group;
    __device__ const float *row(int r) const
    {
        return r < n ? q + ((size_t)pos[r] * H + (size_t)((first + r) % group)) * E : NULL;
    }
};

/* The same for dq: row at[r], none where at[r] < 0. */
struct dq_rows {
    const float *dq; /* of the group's first head */
    const int64_t *at;
    size_t H, E;
    int first, n, group;
    __device__ const float *row(int r) const
    {
        return r < n && at[r] >= 0 ? dq + ((size_t)at[r] * H + (size_t)((first + r) % group)) * E : NULL;
    }
};

/* dk or dv by position: row in_at[j] of the branch's inputs, none where in_at[j] < 0. */
struct input_rows {
    const float *base;
    const int16_t *in_at;
    size_t ld;
    int T;
    __device__ const float *row(int j) const
    {
        return j < T && in_at[j] >= 0 ? base + (size_t)in_at[j] * ld : NULL;
    }
};

template <int ROWS> static __global__ void __launch_bounds__(KS_TILE_THREADS, 4) effects_kernel(effects s)
{
    KS_DYNAMIC_SHARED(float, shared);
    const int keys_room = s.ldx - 4, words = keys_room / 32;
    float *x = shared, *b = x + (size_t)s.R * s.ldx, *a = b + KS_TILE_B;
    int64_t *q_at = (int64_t *)(a + s.R * KS_LD_K); /* [R] */
    int *pos = (int *)(q_at + s.R);                 /* [R] */
    unsigned *on = (unsigned *)(pos + s.R);
    int16_t *in_at = (int16_t *)(on + KS_TILE_WARPS * words);

    const int tile = (int)(blockIdx.x % (unsigned)s.tiles), g = (int)(blockIdx.x / (unsigned)s.tiles % (unsigned)s.G);
    const ks_k_branch branch = s.branches[blockIdx.x / (unsigned)s.tiles / (unsigned)s.G];
    const ks_k_sample trunk = branch.trunk;
    const int group = s.H / s.G, first = tile * s.R, T = trunk.T, P = (T + 15) / 16 * 16, E = s.E;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    if (first >= branch.n_out * group) return;
    const int n = branch.n_out * group - first < s.R ? branch.n_out * group - first : s.R;
    const int32_t *in_pos = s.lists + branch.in_pos, *out_pos = s.lists + branch.out_pos;

    for (int j = (int)threadIdx.x; j < T; j += KS_TILE_THREADS) in_at[j] = -1;
    __syncthreads();
    for (int i = (int)threadIdx.x; i < branch.n_in; i += KS_TILE_THREADS) in_at[in_pos[i]] = (int16_t)i;
    __syncthreads();
    for (int r = warp; r < n; r += KS_TILE_WARPS) {
        const int i = (first + r) / group, t = out_pos[i];
        int before = 0; /* output positions that have a row of dq */
        for (int l = lane; l < i; l += 32) before += in_at[out_pos[l]] >= 0;
        before = ks_warp_sum(before);
        if (lane == 0) {
            pos[r] = t;
            q_at[r] = in_at[t] >= 0 ? branch.q_row + before : -1;
        }
    }
    __syncthreads();
    bool any_dq = false;
    for (int r = 0; r < n; r++) any_dq |= q_at[r] >= 0;
    const int to = pos[n - 1] + 1, from = ks_first_key(pos[0], s.window) / 32 * 32; /* keys that some row sees */
    const int in_from = branch.n_in ? in_pos[0] : to;                               /* dk = dv = 0 before it */

    const size_t kv = ((size_t)trunk.row0 * s.G + g) * E, ld = (size_t)s.G * E, head0 = (size_t)g * group;
    const size_t in = ((size_t)branch.in_row * s.G + g) * E;
    const query_rows query = {s.q + ((size_t)trunk.row0 * s.H + head0) * E, pos, (size_t)s.H, (size_t)E, first, n, group};
    const dq_rows dq = {s.dq + head0 * E, q_at, (size_t)s.H, (size_t)E, first, n, group};
    const ks_trunk_rows keys = {s.k + kv, ld, T}, values = {s.v + kv, ld, T};
    const input_rows dkeys = {s.dk + in, in_at, ld, T}, dvalues = {s.dv + in, in_at, ld, T};

    /* q'.k' - q.k = dq.k + (q + dq).dk */
    for (int j = from / KS_TILE_N * KS_TILE_N; j < to; j += KS_TILE_N) {
        float sum[ROWS][4] = {};
        if (any_dq) ks_add_scores<ROWS>(sum, a, b, dq, ks_no_rows(), keys, j, to, s.R, E);
        if (in_from < j + KS_TILE_N) ks_add_scores<ROWS>(sum, a, b, query, dq, dkeys, j, to, s.R, E);
        ks_keep_scores<ROWS>(x, s.ldx, sum, j, s.R);
    }
    __syncthreads();

    const int to32 = (to + 31) / 32 * 32;
    for (int r = warp; r < n; r += KS_TILE_WARPS) {
        const int t = pos[r], h = (int)head0 + (first + r) % group, lo = ks_first_key(t, s.window);
        const row one = {x + (size_t)r * s.ldx, s.logp + (size_t)trunk.logp + ((size_t)h * T + t) * P, lo, t};
        const action act = action_of(s, branch, h, lo, t, on + warp * words);
        if (act.kind < 0) row_free(one, act, s.scale);
        else if (act.n == t + 1 - lo) row_all_edges(one, act);
        else row_diff(one, act, s.scale);
        for (int j = from + lane; j < to32; j += 32) {
            if (j < lo || j > t) one.x[j] = 0;
        }
    }

    /* sum dp v + p' dv; p' of 32 keys at a time takes the place of queries. */
    const int in32 = in_from >= to ? to : in_from / 32 * 32 > from ? in_from / 32 * 32 : from;
    for (int c = 0; c < E; c += KS_TILE_N) {
        float sum[ROWS][4] = {};
        ks_add_outputs<ROWS>(sum, x, s.ldx, b, values, from, to, c, s.R, E);
        for (int j = in32; j < to; j += KS_TILE_K) {
            __syncthreads();
            ks_stage(b, KS_LD_N, KS_TILE_K, KS_TILE_N, dvalues, ks_no_rows(), j, c, E);
            for (int r = warp; r < s.R; r += KS_TILE_WARPS) {
                const int key = j + lane, t = r < n ? pos[r] : -1, h = (int)head0 + (first + r) % group;
                float after = 0;
                if (key <= t) after = x[(size_t)r * s.ldx + key] + expf(s.logp[(size_t)trunk.logp + ((size_t)h * T + t) * P + key]);
                a[r * KS_LD_K + lane] = after;
            }
            __syncthreads();
            ks_tile_outputs<ROWS>(sum, a, KS_LD_K, b, s.R);
        }
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const int r = (int)threadIdx.x / KS_TILE_X + KS_TILE_Y * i, e = c + (int)(threadIdx.x % KS_TILE_X) * 4;
            if (r >= n) continue;
            ks_store_outputs(s.da, (size_t)branch.out_row + (size_t)((first + r) / group), (int)head0 + (first + r) % group, sum[i], e, E);
        }
    }
}

template <int ROWS> static int launch(const effects &s, size_t blocks, size_t shared, void *stream)
{
    const int err = KS_ALLOW_SHARED(effects_kernel<ROWS>, shared);
    if (err) return err;
    KS_LAUNCH(effects_kernel<ROWS>, (unsigned)blocks, KS_TILE_THREADS, shared, stream, s);
    return (int)cudaGetLastError();
}

extern "C" int ks_k_attention_diff(void *da, int form, const float *dq, const float *dk, const float *dv, const float *q, const float *k,
                                   const float *v, const float *logp, const ks_k_branch *branches, const int32_t *lists, size_t n,
                                   int32_t longest, int32_t most_out, int32_t H, int32_t G, int32_t E, int32_t window, float scale,
                                   void *stream)
{
    if (n == 0 || most_out <= 0) return 0;
    const size_t keys = ((size_t)longest + KS_TILE_N - 1) / KS_TILE_N * KS_TILE_N, rows = (size_t)most_out * (size_t)(H / G);
    const size_t row = (keys + 4 + KS_LD_K) * sizeof(float) + sizeof(int64_t) + sizeof(int);
    const size_t fixed = KS_TILE_B * sizeof(float) + KS_TILE_WARPS * keys / 8 + keys * sizeof(int16_t);
    const int R = ks_tile_choose(fixed, row, rows);
    if (R == 0) return (int)cudaErrorInvalidValue;
    const size_t tiles = (rows + R - 1) / R, blocks = n * (size_t)G * tiles, shared = fixed + R * row;
    if (blocks > 0x7fffffff) return (int)cudaErrorInvalidValue;
    const effects s = {
        {da, form, (size_t)H * E}, dq, dk, dv, q, k, v, logp, branches, lists, H, G, E, window, (int)tiles, R, (int)keys + 4, scale};
    return R == 32   ? launch<4>(s, blocks, shared, stream)
           : R == 16 ? launch<2>(s, blocks, shared, stream)
                     : launch<1>(s, blocks, shared, stream);
}
