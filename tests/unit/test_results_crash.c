/* The result file when things go wrong under the writer: it is killed, the disk fills, somebody removes or replaces the file, two write it.
 * At any moment the file opens, and a cell whose status says done holds all its values. */
#define _GNU_SOURCE
#include "analysis/reader.h"
#include "support/results_file.h"

#include "base/error.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <math.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* So many windows that the samples stand in blocks of 3, the last one with 1. */
enum { MODELS = 2, WINDOWS = 56, CELLS = WINDOWS * RF_H * RF_S, FLUSH_EVERY = 140 };

static char folder[] = "/tmp/kosweep-crash-XXXXXX";
static char path[128], tmp[160], other[128], saved[160];

/* What the writer has been promised, in memory shared with the process that kills it. */
typedef struct promise {
    int models;                           /* published */
    int baselines[MODELS], cells[MODELS]; /* flushed */
    bool closed;
} promise;
static promise *kept;

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/r.h5", folder);
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    snprintf(saved, sizeof saved, "%s.saved", path);
    snprintf(other, sizeof other, "%s/other.h5", folder);
    kept = mmap(NULL, sizeof *kept, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return kept == MAP_FAILED ? -1 : 0;
}

static int clean(void **state)
{
    (void)state;
    char command[160];
    snprintf(command, sizeof command, "rm -rf '%s'/*", folder);
    memset(kept, 0, sizeof *kept);
    return system(command);
}

static int teardown(void **state)
{
    (void)state;
    return rmdir(folder);
}

static off_t size_of(const char *p)
{
    struct stat st;
    return lstat(p, &st) ? -1 : st.st_size;
}

static int same_bytes(const char *a, const char *b)
{
    char command[400];
    snprintf(command, sizeof command, "cmp -s '%s' '%s'", a, b);
    return !system(command);
}

/* ---- known contents ---- */

/* The n-th cell that is put: an order without order. */
static size_t place(size_t n)
{
    return n * 187 % CELLS; /* no common factor */
}

static ks_cell cell(size_t m, size_t i)
{
    const double x = 1 + (double)(i + 10000 * m);
    ks_cell c = {KS_CELL_DONE, i % 2, x, 2 * x, 3 * x, 4 * x, 5 * x, 6 * x, {0}, {0}, {0}};
    for (int k = 0; k < KS_TOP_K; k++) {
        c.top_ids[k] = (int32_t)(i * 7 + (size_t)k) % RF_V;
        c.top_p_baseline[k] = x / (k + 2);
        c.top_p_ablated[k] = x / (k + 3);
    }
    return c;
}

static double position(size_t m, size_t i, int32_t t)
{
    return (double)(i + 10000 * m) + t / 8.0;
}

static double strength(size_t m, size_t l, size_t s)
{
    return (double)(l + 10 * s + 100 * m);
}

static int add_model(ks_results *r, size_t m)
{
    int rc = KS_OK;
    size_t index = 0;
    ks_window w[WINDOWS];
    const ks_model_info info = {.name = m ? "second" : "first", .n_layers = RF_L, .n_heads = RF_H, .vocab = RF_V, .save_logits = true};
    const ks_sweep sweep = {.name = (char[]){"s"}, .heads = KS_HEADS_EACH, .positions = KS_POSITIONS_ALL};
    for (int i = 0; i < WINDOWS; i++) w[i] = (ks_window){i % RF_L, RF_L - 1};
    KS_TRY(ks_results_add_model(r, &info, rf_samples(), &index));
    KS_TRY(ks_results_add_sweep(r, index, &sweep, w, WINDOWS, RF_H, &index));
    for (size_t s = 0; s < RF_S; s++) KS_TRY(ks_results_put_edges(r, m, 0, s, (int32_t)s));
done:
    return rc;
}

static int put_baseline(ks_results *r, size_t m, size_t s)
{
    const ks_baseline b = rf_baseline(s);
    float logits[RF_V], by_head[RF_L * RF_H] = {0};
    double by_layer[RF_L];
    for (int v = 0; v < RF_V; v++) logits[v] = (float)v;
    for (size_t l = 0; l < RF_L; l++) by_layer[l] = strength(m, l, s);
    return ks_results_put_baseline(r, m, s, &b, logits, by_head, 0.5, by_layer);
}

static int put_cell(ks_results *r, size_t m, size_t i)
{
    const ks_cell c = cell(m, i);
    ks_position_cell at[RF_T_MAX];
    for (int32_t t = 0; t < RF_T_MAX; t++) at[t] = (ks_position_cell){position(m, i, t), 1, 0.5};
    return ks_results_put_cell(r, m, 0, 0, i / RF_S / RF_H, i / RF_S % RF_H, i % RF_S, &c, at);
}

static int put_cells(ks_results *r, size_t m, size_t from, size_t to)
{
    int rc = KS_OK;
    for (size_t n = from; n < to && !rc; n++) rc = put_cell(r, m, place(n));
    return rc;
}

/* create, provenance, the first model, published. */
static int begin(ks_results **out, const char *where, int mode)
{
    int rc = KS_OK;
    ks_results *r = NULL;
    KS_TRY(ks_results_create(&r, where, mode, "{}", ""));
    KS_TRY(ks_results_set_provenance(r, &(ks_provenance){.time = "now", .ranks = 1}));
    KS_TRY(add_model(r, 0));
    KS_TRY(ks_results_publish(r));
done:
    if (rc) ks_results_abandon(r);
    else *out = r;
    return rc;
}

/* A whole sweep of two models. Every promise is written down after it was given. */
static int write_all(int mode)
{
    int rc = KS_OK;
    ks_results *r = NULL;
    KS_TRY(ks_results_create(&r, path, mode, "{}", ""));
    for (size_t m = 0; m < MODELS; m++) {
        KS_TRY(ks_results_set_provenance(r, &(ks_provenance){.time = "now", .ranks = (int32_t)m}));
        KS_TRY(add_model(r, m));
        KS_TRY(ks_results_publish(r));
        kept->models = (int)m + 1;
        for (size_t s = 0; s < RF_S; s++) {
            KS_TRY(put_baseline(r, m, s));
            if (s % 3 < 2) continue;
            KS_TRY(ks_results_flush(r));
            kept->baselines[m] = (int)s + 1;
        }
        for (size_t n = 0; n < CELLS; n += FLUSH_EVERY) {
            const size_t end = n + FLUSH_EVERY < CELLS ? n + FLUSH_EVERY : CELLS;
            KS_TRY(put_cells(r, m, n, end));
            KS_TRY(ks_results_flush(r));
            kept->cells[m] = (int)end;
        }
        KS_TRY(ks_results_put_token_text(r, m, (int32_t[]){3}, (char *[]){(char[]){"three"}}, 1));
    }
    KS_TRY(ks_results_close(r));
    kept->closed = true;
done:
    return rc;
}

static void same(double found, double expected, const char *what, size_t i)
{
    if (!(found == expected)) fail_msg("%s of cell %zu: found %.17g, expected %.17g", what, i, found, expected);
}

/* What stands at `where` against what was put; returns the finished cells. */
static size_t check_values(const char *where)
{
    ks_study *study = NULL;
    size_t finished = 0;
    if (ks_study_read(&study, where)) fail_msg("%s", ks_error_text());
    for (size_t m = 0; m < study->n_models; m++) {
        const ks_study_model *M = &study->models[m];
        const ks_study_sweep *s = &M->sweeps[0];
        for (size_t i = 0; i < RF_S; i++) {
            const bool done = M->baseline_status[i];
            if (done) same(M->floor[i], rf_baseline(i).floor, "floor", i);
            for (size_t l = 0; done && l < RF_L; l++) same(M->strength[l * RF_S + i], strength(m, l, i), "strength", i);
            if (!done) assert_true(isnan(M->floor[i]) && isnan(M->entropy[i]) && isnan(M->uniform[i]) && isnan(M->strength[i]));
        }
        for (size_t i = 0; i < CELLS; i++) {
            const ks_cell c = cell(m, i);
            if (!s->status[i]) {
                assert_true(isnan(s->kl[i]) && isnan(s->p_top[i]) && s->top_ids[i * KS_TOP_K] == -1 && isnan(s->kl_positions[i * M->T]));
                continue;
            }
            finished++;
            const double found[] = {s->kl[i], s->kl_reverse[i], s->js[i], s->tv[i], s->p_top[i], s->dlogit_top[i]};
            for (int a = 0; a < 6; a++) same(found[a], (a + 1) * c.kl, "a value", i);
            assert_int_equal(s->top_changed[i], c.top_changed);
            for (size_t k = 0; k < KS_TOP_K; k++) {
                assert_int_equal(s->top_ids[i * KS_TOP_K + k], c.top_ids[k]);
                same(s->top_p_baseline[i * KS_TOP_K + k], c.top_p_baseline[k], "top_p_baseline", i);
                same(s->top_p_ablated[i * KS_TOP_K + k], c.top_p_ablated[k], "top_p_ablated", i);
            }
            for (int32_t t = 0; t < M->n_tokens[i % RF_S]; t++)
                same(s->kl_positions[i * M->T + (size_t)t], position(m, i, t), "kl_positions", i);
        }
    }
    ks_study_free(study);
    return finished;
}

/* The same, and every promise is kept. */
static void check_promises(const char *where)
{
    if (!kept->models && access(where, F_OK)) return;
    check_values(where);
    ks_study *study = NULL;
    assert_int_equal(ks_study_read(&study, where), KS_OK);
    assert_true(study->n_models >= (size_t)kept->models);
    for (size_t m = 0; m < (size_t)kept->models; m++) {
        for (int s = 0; s < kept->baselines[m]; s++) assert_int_equal(study->models[m].baseline_status[s], 1);
        for (size_t n = 0; n < (size_t)kept->cells[m]; n++) assert_int_equal(study->models[m].sweeps[0].status[place(n)], KS_CELL_DONE);
    }
    ks_study_free(study);
}

/* ---- kills ---- */

/* Offsets of the status arrays in the finished file. */
static void status_offsets(size_t *out)
{
    static const char *const names[] = {"/models/first/baseline/status", "/models/first/sweeps/s/status", "/models/second/baseline/status",
                                        "/models/second/sweeps/s/status"};
    const hid_t f = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    for (size_t i = 0; i < 4; i++) {
        const hid_t d = H5Dopen2(f, names[i], H5P_DEFAULT);
        assert_true(d >= 0);
        out[i] = H5Dget_offset(d);
        if (i % 2) { /* a sweep's: in blocks */
            haddr_t at = HADDR_UNDEF;
            hsize_t bytes = 0;
            unsigned filters = 0;
            assert_true(H5Dget_chunk_info_by_coord(d, (const hsize_t[]){0, 0, 0}, &filters, &at, &bytes) >= 0);
            assert_true(bytes == (hsize_t)3 * WINDOWS * RF_H);
            out[i] = at;
        }
        assert_true(out[i] > 0 && out[i] != HADDR_UNDEF);
        H5Dclose(d);
    }
    H5Fclose(f);
}

static bool matters(uint64_t nr)
{
    static const long v[] = {SYS_pwrite64,  SYS_write,    SYS_fsync,    SYS_fdatasync, SYS_ftruncate, SYS_fallocate, SYS_openat, SYS_close,
#ifdef SYS_rename
                             SYS_rename,    SYS_unlink,
#endif
                             SYS_renameat2, SYS_renameat, SYS_unlinkat, SYS_exit_group};
    for (size_t i = 0; i < sizeof v / sizeof *v; i++)
        if ((uint64_t)v[i] == nr) return true;
    return false;
}

/* The writer stops before every call that can change a file: what is there then is what a kill at that moment would leave. And no status is
 * written before the disk has all values, so that a power loss finds the same. */
static void test_every_moment(void **state)
{
    (void)state;
    enum { MAX = 20000 };
    static struct {
        uint64_t nr, offset;
    } calls[MAX];
    size_t n = 0;
    const pid_t child = fork();
    if (!child) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL)) _exit(77);
        raise(SIGSTOP);
        _exit(write_all(KS_RESULTS_NEW));
    }
    int status = 0;
    for (bool first = true;; first = false) {
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFSTOPPED(status)) break;
        struct __ptrace_syscall_info info = {0};
        if (first) {
            if (ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL))) break;
        } else if (ptrace(PTRACE_GET_SYSCALL_INFO, child, (void *)sizeof info, &info) <= 0) {
            break;
        }
        if (info.op == PTRACE_SYSCALL_INFO_ENTRY && matters(info.entry.nr)) {
            check_promises(path);
            assert_true(n < MAX);
            calls[n].nr = info.entry.nr;
            calls[n++].offset = info.entry.args[3];
        }
        if (ptrace(PTRACE_SYSCALL, child, NULL, NULL)) break;
    }
    if (WIFSTOPPED(status)) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        skip(); /* an old kernel */
    }
    if (WEXITSTATUS(status) == 77) skip(); /* tracing is not allowed here */
    assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
    assert_true(kept->closed);
    check_promises(path);
    assert_int_equal(check_values(path), MODELS * CELLS);

    size_t offsets[4], statuses = 0;
    bool pending = false;
    status_offsets(offsets);
    for (size_t i = 0; i < n; i++) {
        bool is_status = false;
        for (int k = 0; k < 4; k++) is_status |= calls[i].nr == SYS_pwrite64 && calls[i].offset == offsets[k];
        statuses += is_status;
        if (is_status) assert_false(pending);
        else if (calls[i].nr == SYS_pwrite64) pending = true;
        if (calls[i].nr == SYS_fsync || calls[i].nr == SYS_fdatasync) pending = false;
    }
    assert_true(statuses >= 2 * CELLS / FLUSH_EVERY);
    print_message("%zu moments\n", n);
}

/* Real kills, also in the middle of a call; each next writer meets what the one before left: a half-written PATH.tmp, no lock. */
static void test_kills(void **state)
{
    (void)state;
    enum { KILLS = 48 };
    int ended = 0, unpublished = 0;
    uint64_t random = 12345;
    useconds_t spans[2] = {30000, 30000}; /* microseconds that a writer takes, learnt on the way */
    for (int i = 0; i < KILLS; i++) {
        memset(kept, 0, sizeof *kept);
        if (i % 3 == 0) unlink(path);
        const pid_t child = fork();
        if (!child) _exit(write_all(i % 3 == 0 ? KS_RESULTS_NEW : KS_RESULTS_FORCE));
        /* The first publication waits for the disk longer than all that follows: every second kill comes after it. */
        for (int waits = 0; i % 2 && !((volatile promise *)kept)->models && waits < 20000; waits++) usleep(100);
        random = random * 6364136223846793005U + 1442695040888963407U;
        useconds_t *span = &spans[i % 2];
        usleep((useconds_t)(random >> 33) % *span);
        kill(child, SIGKILL);
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) || !WEXITSTATUS(status));
        *span = WIFSIGNALED(status) ? *span + *span / 16 : *span - *span / 8;
        ended += !WIFSIGNALED(status);
        unpublished += !kept->models;
        check_promises(path);
    }
    print_message("%d kills, %d before the file was there, %d too late\n", KILLS - ended, unpublished, ended);
    assert_true(ended < KILLS);
    assert_int_equal(write_all(KS_RESULTS_FORCE), KS_OK);
    assert_int_equal(check_values(path), MODELS * CELLS);
    assert_int_equal(size_of(tmp), -1);
}

/* ---- a disk that is full or fails ---- */

static void test_flush_fails(void **state)
{
    (void)state;
    ks_results *r = NULL;
    struct rlimit old, small;
    assert_int_equal(begin(&r, path, KS_RESULTS_NEW), KS_OK);
    assert_int_equal(put_cells(r, 0, 0, 100), KS_OK);
    assert_int_equal(ks_results_flush(r), KS_OK);
    assert_int_equal(put_cells(r, 0, 100, CELLS), KS_OK);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = (rlim_t)size_of(path) / 2; /* some arrays get through */
    setrlimit(RLIMIT_FSIZE, &small);
    const int rc = ks_results_flush(r);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(rc, KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "cannot be written"));
    assert_non_null(strstr(ks_error_text(), path));
    assert_int_equal(check_values(path), 100);
    assert_int_equal(ks_results_flush(r), KS_OK);
    assert_int_equal(check_values(path), CELLS);
    ks_results_abandon(r);
}

/* The room is taken at the publication: a disk that fills up later stops no cell. */
static void test_full_disk(void **state)
{
    (void)state;
    ks_results *r = NULL;
    char disk[128], file[160], filler[160], name[160];
    snprintf(disk, sizeof disk, "%s/disk", folder);
    snprintf(file, sizeof file, "%s/r.h5", disk);
    snprintf(name, sizeof name, "%s/r.h5.tmp", disk);
    snprintf(filler, sizeof filler, "%s/filler", disk);
    assert_int_equal(mkdir(disk, 0777), 0);
    if (mount("tmpfs", disk, "tmpfs", 0, "size=3m")) skip();
    assert_int_equal(begin(&r, file, KS_RESULTS_NEW), KS_OK);
    const int fd = open(filler, O_WRONLY | O_CREAT, 0666);
    char block[4096] = {0};
    while (write(fd, block, sizeof block) > 0) {
    }
    close(fd);
    assert_int_equal(put_cells(r, 0, 0, CELLS), KS_OK);
    assert_int_equal(ks_results_flush(r), KS_OK);
    assert_int_equal(check_values(file), CELLS);
    assert_int_equal(ks_results_publish(r), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "No space left"));
    assert_non_null(strstr(ks_error_text(), "stay in the file"));
    assert_int_equal(size_of(name), -1);
    assert_int_equal(put_baseline(r, 0, 0), KS_OK);
    assert_int_equal(ks_results_close(r), KS_EMACHINE); /* its last flush succeeds */
    assert_non_null(strstr(ks_error_text(), "No space left"));
    ks_study *study = NULL;
    assert_int_equal(ks_study_read(&study, file), KS_OK);
    assert_int_equal(study->models[0].baseline_status[0], 1);
    ks_study_free(study);
    assert_int_equal(begin(&r, filler, KS_RESULTS_FORCE), KS_EMACHINE);
    assert_true(size_of(filler) > 0);
    assert_int_equal(mount("tmpfs", disk, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL), 0);
    assert_int_equal(begin(&r, file, KS_RESULTS_FORCE), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "Read-only file system"));
    assert_int_equal(umount(disk), 0);
}

static void test_read_only_folder(void **state)
{
    (void)state;
    ks_results *r = NULL;
    assert_int_equal(begin(&r, path, KS_RESULTS_NEW), KS_OK);
    assert_int_equal(put_cells(r, 0, 0, 10), KS_OK);
    assert_int_equal(chmod(folder, 0555), 0);
    const bool root = geteuid() == 0; /* who may write everywhere */
    if (root) assert_int_equal(seteuid(65534), 0);
    ks_results *second = NULL;
    const int at_create = ks_results_create(&second, other, KS_RESULTS_NEW, "{}", "");
    const int at_flush = ks_results_flush(r), at_publish = ks_results_publish(r);
    if (root) assert_int_equal(seteuid(0), 0);
    assert_int_equal(chmod(folder, 0755), 0);
    assert_int_equal(at_create, KS_EMACHINE);
    assert_int_equal(at_flush, KS_OK);
    assert_int_equal(at_publish, KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "Permission denied"));
    assert_int_equal(check_values(path), 10);
    ks_results_abandon(r);
}

/* ---- a file that is taken away ---- */

static void test_removed(void **state)
{
    (void)state;
    ks_results *r = NULL, *second = NULL;
    assert_int_equal(begin(&r, path, KS_RESULTS_NEW), KS_OK);
    assert_int_equal(put_cells(r, 0, 0, 50), KS_OK);
    assert_int_equal(ks_results_flush(r), KS_OK);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(put_cells(r, 0, 50, 70), KS_OK);
    assert_int_equal(ks_results_flush(r), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "removed or renamed"));
    assert_non_null(strstr(ks_error_text(), "70 cells"));
    assert_int_equal(check_values(path), 70);
    /* The writer goes on there. */
    assert_int_equal(put_cells(r, 0, 70, 80), KS_OK);
    assert_int_equal(ks_results_flush(r), KS_OK);
    assert_int_equal(check_values(path), 80);
    /* Renamed; and another sweep has begun under the name. */
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(ks_results_create(&second, path, KS_RESULTS_NEW, "{}", ""), KS_OK);
    assert_int_equal(put_cells(r, 0, 80, 90), KS_OK);
    assert_int_equal(ks_results_flush(r), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), saved));
    assert_int_equal(check_values(saved), 90);
    assert_int_equal(check_values(other), 80);
    assert_int_equal(size_of(path), -1);
    ks_results_abandon(second);
    ks_results_abandon(r);
}

static void test_replaced(void **state)
{
    (void)state;
    ks_results *r = NULL;
    char second[180];
    snprintf(second, sizeof second, "%s-2", saved);
    FILE *f = fopen(saved, "w"); /* of an earlier accident */
    assert_true(f && fputs("earlier", f) >= 0 && !fclose(f));
    assert_int_equal(begin(&r, path, KS_RESULTS_NEW), KS_OK);
    assert_int_equal(put_cells(r, 0, 0, 50), KS_OK);
    f = fopen(other, "w");
    assert_true(f && fputs("somebody's", f) >= 0 && !fclose(f));
    assert_int_equal(rename(other, path), 0);
    ks_error(KS_EINPUT, "the first error");
    ks_results_abandon(r); /* saves, too */
    assert_string_equal(ks_error_text(), "the first error");
    assert_int_equal(size_of(path), strlen("somebody's"));
    assert_int_equal(size_of(saved), strlen("earlier"));
    assert_int_equal(check_values(second), 50);
}

static void test_folder_removed(void **state)
{
    (void)state;
    ks_results *r = NULL;
    char inner[128], file[160];
    snprintf(inner, sizeof inner, "%s/inner", folder);
    snprintf(file, sizeof file, "%s/r.h5", inner);
    assert_int_equal(mkdir(inner, 0777), 0);
    assert_int_equal(begin(&r, file, KS_RESULTS_NEW), KS_OK);
    assert_int_equal(put_cells(r, 0, 0, 50), KS_OK);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(rmdir(inner), 0);
    assert_int_equal(ks_results_flush(r), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "cannot be saved"));
    assert_non_null(strstr(ks_error_text(), "No such file"));
    assert_int_equal(mkdir(inner, 0777), 0); /* and back */
    assert_int_equal(ks_results_flush(r), KS_EMACHINE);
    assert_int_equal(check_values(file), 50);
    ks_results_abandon(r);
}

/* Somebody makes a file at the path between create and the first publication. */
static void test_came_between(void **state)
{
    (void)state;
    ks_results *r = NULL;
    assert_int_equal(ks_results_create(&r, path, KS_RESULTS_NEW, "{}", ""), KS_OK);
    assert_int_equal(add_model(r, 0), KS_OK);
    FILE *f = fopen(path, "w");
    assert_true(f && fputs("somebody's", f) >= 0 && !fclose(f));
    assert_int_equal(ks_results_publish(r), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "another file has come"));
    ks_results_abandon(r);
    assert_int_equal(size_of(path), strlen("somebody's"));
    assert_int_equal(size_of(tmp), -1);
}

/* ---- one writer, many readers ---- */

static void refuse_second(const char *where, int mode)
{
    ks_results *second = NULL;
    assert_int_equal(ks_results_create(&second, where, mode, "{}", ""), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), "is being written by another kosweep"));
}

static void test_lock(void **state)
{
    (void)state;
    ks_results *r = NULL, *second = NULL;
    char link[128], command[300];
    snprintf(link, sizeof link, "%s/link.h5", folder);
    assert_int_equal(ks_results_create(&r, path, KS_RESULTS_NEW, "{}", ""), KS_OK);
    refuse_second(path, KS_RESULTS_NEW); /* before there is a file */
    assert_int_equal(add_model(r, 0), KS_OK);
    assert_int_equal(put_cells(r, 0, 0, 10), KS_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ks_results_publish(r), KS_OK);
        refuse_second(path, KS_RESULTS_FORCE);
        refuse_second(path, KS_RESULTS_RESUME);
    }
    assert_int_equal(symlink(path, link), 0);
    refuse_second(link, KS_RESULTS_FORCE);
    assert_int_equal(ks_results_create(&second, path, KS_RESULTS_NEW, "{}", ""), KS_EUSAGE);
    /* Readers do not meet it. */
    assert_int_equal(check_values(path), 10);
    if (!system("/usr/bin/python3 -c 'import h5py' 2>/dev/null")) {
        snprintf(
            command, sizeof command,
            "/usr/bin/python3 -c \"import h5py, sys; f = h5py.File('%s'); sys.exit(int((f['models/first/sweeps/s/status'][()] == 1).sum() "
            "!= 10))\"",
            path);
        assert_int_equal(system(command), 0);
    }
    assert_int_equal(put_cells(r, 0, 10, 20), KS_OK);
    assert_int_equal(ks_results_close(r), KS_OK);
    assert_int_equal(check_values(path), 20);
    /* The lock has gone; while a file is being replaced it is locked, too, and stays as it is. */
    assert_int_equal(ks_results_create(&r, path, KS_RESULTS_FORCE, "{}", ""), KS_OK);
    refuse_second(path, KS_RESULTS_RESUME);
    assert_int_equal(check_values(path), 20);
    ks_results_abandon(r);
    assert_int_equal(check_values(path), 20);
}

static void test_links(void **state)
{
    (void)state;
    ks_results *r = NULL;
    struct stat st;
    assert_int_equal(symlink(path, other), 0);
    assert_int_equal(ks_results_create(&r, other, KS_RESULTS_FORCE, "{}", ""), KS_EUSAGE);
    assert_non_null(strstr(ks_error_text(), "leads nowhere"));
    assert_int_equal(begin(&r, path, KS_RESULTS_NEW), KS_OK);
    assert_int_equal(put_cells(r, 0, 0, 1), KS_OK);
    assert_int_equal(ks_results_close(r), KS_OK);
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(begin(&r, other, KS_RESULTS_FORCE), KS_OK);
    assert_int_equal(put_cells(r, 0, 0, 7), KS_OK);
    assert_int_equal(ks_results_close(r), KS_OK);
    assert_int_equal(check_values(path), 7);
    assert_true(!lstat(other, &st) && S_ISLNK(st.st_mode));
    assert_true(!stat(path, &st) && (st.st_mode & 0777) == 0640);
}

/* PATH.tmp of a killed run is used again; what is not one is refused. */
static void test_rubbish(void **state)
{
    (void)state;
    ks_results *r = NULL;
    FILE *f = fopen(tmp, "w");
    assert_non_null(f);
    for (int i = 0; i < 1000000; i++) fputs("rubbish", f);
    fclose(f);
    assert_int_equal(begin(&r, path, KS_RESULTS_NEW), KS_OK);
    assert_int_equal(put_cells(r, 0, 0, 5), KS_OK);
    assert_int_equal(ks_results_close(r), KS_OK);
    assert_int_equal(check_values(path), 5);
    assert_true(size_of(path) < 2000000);
    assert_int_equal(size_of(tmp), -1);
    assert_int_equal(mkdir(tmp, 0777), 0);
    assert_int_equal(ks_results_create(&r, path, KS_RESULTS_FORCE, "{}", ""), KS_EMACHINE);
    assert_non_null(strstr(ks_error_text(), tmp));
    assert_int_equal(rmdir(tmp), 0);
    assert_int_equal(symlink(other, tmp), 0);
    assert_int_equal(ks_results_create(&r, path, KS_RESULTS_FORCE, "{}", ""), KS_EMACHINE);
    assert_int_equal(size_of(other), -1);
}

/* ---- resume ---- */

static void test_resume(void **state)
{
    (void)state;
    ks_results *r = NULL;
    assert_int_equal(begin(&r, path, KS_RESULTS_RESUME), KS_OK); /* there is none: the same as new */
    assert_int_equal(put_cells(r, 0, 0, 50), KS_OK);
    assert_int_equal(ks_results_close(r), KS_OK);
    /* Nothing to compute: the file stays byte for byte. */
    char command[400];
    snprintf(command, sizeof command, "cp '%s' '%s'", path, other);
    assert_int_equal(system(command), 0);
    assert_int_equal(ks_results_create(&r, path, KS_RESULTS_RESUME, "{\"more\": 1}", ""), KS_OK);
    assert_int_equal(add_model(r, 0), KS_OK);
    assert_int_equal(put_cells(r, 0, 0, 50), KS_OK);
    assert_int_equal(ks_results_flush(r), KS_OK);
    ks_results_abandon(r);
    assert_true(same_bytes(path, other));
    assert_int_equal(size_of(tmp), -1);
    /* The old cells come over with the first publication. */
    assert_int_equal(ks_results_create(&r, path, KS_RESULTS_RESUME, "{}", ""), KS_OK);
    assert_int_equal(add_model(r, 0), KS_OK);
    assert_int_equal(put_cells(r, 0, 0, 50), KS_OK);
    assert_int_equal(ks_results_publish(r), KS_OK);
    assert_int_equal(check_values(path), 50);
    ks_results_abandon(r);
    assert_int_equal(check_values(path), 50);
    /* A sweep that finished nothing leaves nothing, if nothing was there. */
    unlink(path);
    assert_int_equal(begin(&r, path, KS_RESULTS_NEW), KS_OK);
    assert_true(size_of(path) > 0);
    ks_results_abandon(r);
    assert_int_equal(size_of(path), -1);
}

static void test_said_twice(void **state)
{
    (void)state;
    ks_results *r = NULL;
    char *history = NULL;
    int64_t bytes = 0;
    assert_int_equal(begin(&r, path, KS_RESULTS_NEW), KS_OK);
    for (int i = 0; i < 2; i++) {
        const ks_provenance p = {.time = "later", .history = i ? "a\nb" : NULL, .weights_bytes_read = i * ((int64_t)1 << 40)};
        char text[] = {i ? 'x' : 'y', 0};
        assert_int_equal(ks_results_set_provenance(r, &p), KS_OK);
        assert_int_equal(ks_results_put_token_text(r, 0, (int32_t[]){i + 3}, (char *[]){text}, 1), KS_OK);
        assert_int_equal(ks_results_publish(r), KS_OK);
    }
    assert_int_equal(put_cells(r, 0, 0, 5), KS_OK);
    assert_int_equal(ks_results_close(r), KS_OK);
    const hid_t f = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), g = H5Gopen2(f, "provenance", H5P_DEFAULT);
    const hid_t a = H5Aopen(g, "history", H5P_DEFAULT), b = H5Aopen(g, "weights_bytes_read", H5P_DEFAULT), t = H5Aget_type(a);
    assert_true(H5Aread(a, t, (void *)&history) >= 0 && H5Aread(b, H5T_NATIVE_INT64, &bytes) >= 0);
    assert_string_equal(history, "a\nb");
    assert_true(bytes == (int64_t)1 << 40);
    H5free_memory(history);
    H5Tclose(t);
    H5Aclose(a);
    H5Aclose(b);
    H5Gclose(g);
    H5Fclose(f);
    ks_study *study = NULL;
    assert_int_equal(ks_study_read(&study, path), KS_OK);
    assert_null(ks_study_token(&study->models[0], 3));
    assert_string_equal(ks_study_token(&study->models[0], 4), "x");
    ks_study_free(study);
}

/* ---- costs ---- */

/* A flush writes the pages that changed and no more. */
static void test_cost(void **state)
{
    (void)state;
    enum { ARRAYS = 15, PAGE = 4096 };
    ks_results *r = NULL;
    assert_int_equal(begin(&r, path, KS_RESULTS_NEW), KS_OK);
    int64_t before = ks_results_written(r);
    assert_true(before == (int64_t)size_of(path));
    assert_int_equal(ks_results_flush(r), KS_OK);
    assert_true(ks_results_written(r) == before);
    assert_int_equal(put_cell(r, 0, 77), KS_OK);
    assert_int_equal(ks_results_flush(r), KS_OK);
    assert_true(ks_results_written(r) > before);
    assert_true(ks_results_written(r) <= before + (int64_t)ARRAYS * PAGE);
    before = ks_results_written(r);
    assert_int_equal(ks_results_flush(r), KS_OK);
    assert_true(ks_results_written(r) == before);
    assert_int_equal(check_values(path), 1);
    ks_results_abandon(r);
}

/* ---- the reader ---- */

/* Numbers beside status 0 mean nothing: a killed run may leave them. */
static void test_masked(void **state)
{
    (void)state;
    ks_results *r = NULL;
    const uint8_t zero[CELLS] = {0};
    assert_int_equal(begin(&r, path, KS_RESULTS_NEW), KS_OK);
    assert_int_equal(put_cells(r, 0, 0, CELLS), KS_OK);
    for (size_t s = 0; s < RF_S; s++) assert_int_equal(put_baseline(r, 0, s), KS_OK);
    assert_int_equal(ks_results_close(r), KS_OK);
    assert_int_equal(check_values(path), CELLS);
    hid_t f = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    const char *const names[] = {"/models/first/sweeps/s/status", "/models/first/baseline/status"};
    for (int i = 0; i < 2; i++) {
        const hid_t d = H5Dopen2(f, names[i], H5P_DEFAULT);
        assert_true(H5Dwrite(d, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, zero) >= 0);
        H5Dclose(d);
    }
    H5Fclose(f);
    assert_int_equal(check_values(path), 0); /* checks that all is NaN and -1 */
    /* A file of before there was a status of baselines. */
    f = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(H5Ldelete(f, names[1], H5P_DEFAULT) >= 0);
    H5Fclose(f);
    ks_study *study = NULL;
    assert_int_equal(ks_study_read(&study, path), KS_OK);
    assert_null(study->models[0].baseline_status);
    assert_true(study->models[0].floor[2] == rf_baseline(2).floor);
    ks_study_free(study);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, clean)
    const struct CMUnitTest tests[] = {
        TEST(test_every_moment),     TEST(test_kills),      TEST(test_flush_fails), TEST(test_full_disk),
        TEST(test_read_only_folder), TEST(test_removed),    TEST(test_replaced),    TEST(test_folder_removed),
        TEST(test_came_between),     TEST(test_lock),       TEST(test_links),       TEST(test_rubbish),
        TEST(test_resume),           TEST(test_said_twice), TEST(test_cost),        TEST(test_masked),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
