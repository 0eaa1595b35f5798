/* The outer loops of the product.
 *
 *   for a chunk of rows            X as it lies, or copied into 16 MiB of scratch, K block by K block
 *     for each panel of 64 columns (x part of the chunk)                                    <- items of the pool
 *       for each K block of 256    W's 64 x 256 are converted and transposed into 64 KiB, which stay in L2   } isa/gemm.c
 *         for 6 rows at a time     24 accumulators, X's rows stream by from L2 or L3                          }
 *
 * W is packed anew for every chunk; that costs as much as a few rows of it. */
#include "compute/cpu/gemm.h"

#include "base/error.h"
#include "base/mem.h"
#include "compute/cpu/dispatch.h"

#include <stdlib.h>
#include <string.h>

enum {
    KB = KS_GEMM_KB,
    NR = KS_GEMM_NR,
    AS = KS_GEMM_AS,
    ROWS_MAX = 1020,       /* rows of a chunk; 6 divides it */
    A_FLOATS = 4 << 20,    /* packed X */
    SERIAL_WORK = 1 << 18, /* products of fewer multiplications are not worth waking threads for */
    ITEM_WORK = 1 << 19,   /* multiplications of one pool item, at least */
};
_Static_assert((KS_GEMM_K_MAX / KB + 1) * AS <= A_FLOATS, "one row of the largest K must fit");

struct ks_gemm {
    ks_pool *pool;
    const ks_cpu_ops *ops;
    float *a; /* [A_FLOATS] */
    struct scratch {
        float panel[KS_GEMM_PANEL];
        float c[ROWS_MAX * NR]; /* for results that may not go straight to Y */
    } * scratch;                /* [threads] */
};

int ks_gemm_new(ks_gemm **out, ks_pool *pool, const char *isa)
{
    int rc = KS_OK;
    ks_gemm *g = NULL;
    KS_NEW(g, 1);
    g->pool = pool;
    KS_TRY(ks_cpu_ops_find(&g->ops, isa));
    KS_GET(g->a, ks_big_alloc(A_FLOATS * sizeof *g->a));
    KS_GET(g->scratch, ks_big_alloc((size_t)ks_pool_threads(pool) * sizeof *g->scratch));
done:
    if (rc) ks_gemm_free(g);
    else *out = g;
    return rc;
}

void ks_gemm_free(ks_gemm *g)
{
    if (!g) return;
    ks_big_free(g->a);
    ks_big_free(g->scratch);
    free(g);
}

struct job {
    ks_gemm *g;
    float *Y;       /* [rows, ldy] of this chunk */
    const float *X; /* [rows, ldx] of this chunk */
    ks_gemm_x x;    /* X itself, or its packed copy */
    const char *W;  /* [N, ldw] */
    size_t ldy, ldx, ldw, rows, N, K;
    size_t pack_rows;        /* rows of one packing item */
    size_t parts, part_rows; /* the chunk is cut into this many parts of so many rows */
    size_t group;            /* panels of one item */
    ks_dtype wtype;
    bool accumulate;
};

/* Item i copies rows [i, i + 1) * pack_rows of the chunk. */
static void pack_x(void *arg, size_t i, int worker)
{
    (void)worker;
    const struct job *j = arg;
    const size_t r0 = i * j->pack_rows, r1 = r0 + j->pack_rows < j->rows ? r0 + j->pack_rows : j->rows;
    for (size_t r = r0; r < r1; r++) {
        for (size_t k = 0; k < j->K; k += KB) {
            const size_t n = j->K - k < KB ? j->K - k : KB;
            memcpy(j->g->a + (k / KB * j->rows + r) * AS, j->X + r * j->ldx + k, n * sizeof(float));
        }
    }
}

/* Item i is part i % parts of the chunk's rows times group i / parts of panels. */
static void panels(void *arg, size_t i, int worker)
{
    const struct job *j = arg;
    struct scratch *s = &j->g->scratch[worker];
    const size_t r0 = i % j->parts * j->part_rows, rows = j->rows - r0 < j->part_rows ? j->rows - r0 : j->part_rows;
    const size_t n0 = i / j->parts * j->group * NR, n1 = j->N - n0 < j->group * NR ? j->N : n0 + j->group * NR;
    const size_t row_bytes = j->ldw * ks_dtype_size(j->wtype);
    for (size_t n = n0; n < n1; n += NR) {
        const size_t cols = n1 - n < NR ? n1 - n : NR;
        const bool direct = cols == NR && !j->accumulate;
        const char *w = j->W + n * row_bytes, *next = n + 2 * NR <= n1 ? w + NR * row_bytes : NULL;
        float *y = j->Y + r0 * j->ldy + n;
        j->g->ops->gemm_panel(direct ? y : s->c, direct ? j->ldy : NR, (ks_gemm_x){j->x.p + r0 * j->x.row, j->x.row, j->x.block}, w, next,
                              j->wtype, j->ldw, rows, cols, j->K, s->panel);
        if (direct) continue;
        for (size_t r = 0; r < rows; r++) {
            const float *c = s->c + r * NR;
            float *yr = y + r * j->ldy;
            if (j->accumulate) {
                for (size_t x = 0; x < cols; x++) yr[x] += c[x];
            } else {
                memcpy(yr, c, cols * sizeof(float));
            }
        }
    }
}

static void run_items(const struct job *j, void (*fn)(void *, size_t, int), size_t n, bool serial)
{
    if (!serial) {
        ks_pool_run(j->g->pool, fn, (void *)j, n);
    } else {
        for (size_t i = 0; i < n; i++) fn((void *)j, i, 0);
    }
}

static size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

void ks_gemm_run(ks_gemm *g, float *Y, size_t ldy, const float *X, size_t ldx, const void *W, ks_dtype wtype, size_t ldw, size_t M,
                 size_t N, size_t K, bool accumulate)
{
    if (M == 0 || N == 0) return;
    const size_t threads = (size_t)ks_pool_threads(g->pool), n_panels = ceil_div(N, NR);
    const size_t row_floats = (K ? ceil_div(K, KB) : 1) * AS; /* of packed X */
    const size_t fit = min_size(A_FLOATS / row_floats, ROWS_MAX), chunk = fit >= 6 ? fit / 6 * 6 : fit;

    /* Rows a multiple of 4 KiB apart would fall into the same cache sets: those are copied to a better distance. */
    const bool packs = ldx % 1024 == 0;

    for (size_t m = 0; m < M;) {
        /* Equal chunks: a short last one would pay for packing W as much as a long one. */
        const size_t rows = min_size(M - m, ceil_div(ceil_div(M - m, ceil_div(M - m, chunk)), 6) * 6);
        struct job j = {.g = g, .Y = Y + m * ldy, .X = X + m * ldx, .W = W, .ldy = ldy, .ldx = ldx, .ldw = ldw};
        j.rows = min_size(rows, chunk), j.N = N, j.K = K, j.wtype = wtype, j.accumulate = accumulate;
        const bool serial = threads == 1 || j.rows * N * K < SERIAL_WORK;

        if (packs) {
            j.x = (ks_gemm_x){g->a, AS, j.rows * AS};
            j.pack_rows = ceil_div(j.rows, serial ? 1 : min_size(threads, ceil_div(j.rows * K, 1 << 14)));
            run_items(&j, pack_x, ceil_div(j.rows, j.pack_rows), serial);
        } else {
            j.x = (ks_gemm_x){j.X, ldx, KB};
        }

        /* Items enough to keep all threads busy to the end, large enough to hide the taking of one. */
        j.parts = 1;
        if (!serial && n_panels < 4 * threads) j.parts = min_size(ceil_div(4 * threads, n_panels), ceil_div(j.rows, 48));
        j.part_rows = ceil_div(ceil_div(j.rows, j.parts), 6) * 6;
        j.parts = ceil_div(j.rows, j.part_rows);
        const size_t panel_work = j.part_rows * NR * (K ? K : 1);
        j.group = serial ? n_panels : min_size(ceil_div(ITEM_WORK, panel_work), ceil_div(n_panels, 4 * threads));
        run_items(&j, panels, ceil_div(n_panels, j.group) * j.parts, serial);
        m += j.rows;
    }
}
