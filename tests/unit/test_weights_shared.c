/* Processes that stream one model together: what each of them computes from, what is read from the files, and how failures reach all. */
#define _GNU_SOURCE
#include "base/error.h"
#include "model/weights.h"
#include "support/scratch.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[SCRATCH_PATH];

/* The head of 3000 rows comes in 5 blocks of 640: an odd number, so blocks of one sweep and the next share buffers. */
enum { L = 5, D = 64, F = 128, V = 3000, BLOCKS = 5, UNITS = L + BLOCKS, MEMBERS = 4, ROUNDS = 8 };
static const int64_t layer_bytes = 2 * (4 * D * D + 3 * D * F), head_bytes = 2 * V * D;

/* What a member did in a round. */
typedef struct record {
    int rc, good; /* units whose bytes were right */
    char error[512];
} record;

/* Memory that the processes share, beside the weights'. */
typedef struct board {
    pthread_barrier_t barrier;
    record records[ROUNDS + 1][MEMBERS];
    int64_t bytes_read[MEMBERS], rchar[MEMBERS]; /* by the provider's count, and by the kernel's */
    size_t weights_bytes;
    char weights[] __attribute__((aligned(4096)));
} board;

/* A test is a script that every member runs in a process of its own. */
typedef struct self {
    board *b;
    ks_weights *w;
    const ks_model *whole, *m; /* an intact twin, and the one that is streamed */
    int member;
} self;

typedef struct manner {
    int sweeps;  /* over the head; 0 counts as 1 */
    int leave;   /* units after which it ends with the last one held; 0: at the end */
    int slow_us; /* it holds each unit for so long */
} manner;

static bool same(const ks_tensor *x, const ks_tensor *y)
{
    return x->rows == y->rows && x->cols == y->cols && x->ld == y->ld && x->data != y->data &&
           memcmp(x->data, y->data, (size_t)(x->rows * x->ld) * ks_dtype_size(x->dtype)) == 0;
}

static bool same_layer(const ks_layer *x, const ks_layer *y)
{
    return same(&x->q, &y->q) && same(&x->k, &y->k) && same(&x->v, &y->v) && same(&x->o, &y->o) && same(&x->gate, &y->gate) &&
           same(&x->up, &y->up) && same(&x->down, &y->down);
}

/* A member's pass, as the engine makes it; every unit is looked at after it was held for a while. */
static int pass(const self *me, uint32_t round, const uint8_t *who, manner how, int *good)
{
    int rc = KS_OK;
    ks_weights *w = me->w;
    KS_TRY(ks_weights_begin(w, round, who));
    for (int32_t l = 0; l < L; l++) {
        ks_layer x;
        KS_TRY(ks_weights_acquire(w, l, &x));
        usleep((useconds_t)how.slow_us);
        *good += same_layer(&x, ks_model_layer(me->whole, l));
        if (l + 1 == how.leave) goto done;
        ks_weights_release(w, l);
    }
    for (int sweep = 0; sweep < (how.sweeps ? how.sweeps : 1); sweep++) {
        int64_t next = 0;
        for (int32_t b = 0; b < ks_weights_head_blocks(w); b++) {
            ks_tensor x, y = ks_model_head(me->whole);
            int64_t first;
            KS_TRY(ks_weights_acquire_head(w, b, &x, &first));
            usleep((useconds_t)how.slow_us);
            y.data = (const char *)y.data + first * 2 * D;
            y.rows = x.rows;
            *good += first == next && same(&x, &y);
            next = first + x.rows;
            ks_weights_release_head(w, b);
        }
        if (next != V) *good = -1;
    }
done:
    ks_weights_end(w);
    return rc;
}

static void take_part(const self *me, uint32_t round, const uint8_t *who, manner how)
{
    record *r = &me->b->records[round][me->member];
    if (who[me->member]) {
        r->rc = pass(me, round, who, how, &r->good);
        if (r->rc) snprintf(r->error, sizeof r->error, "%s", ks_error_text());
    }
    pthread_barrier_wait(&me->b->barrier);
}

/* Bytes that this process has read by system calls; -1 where the kernel does not say. */
static int64_t read_characters(void)
{
    char line[128];
    long long n = -1;
    FILE *f = fopen("/proc/self/io", "r");
    if (!f || !fgets(line, sizeof line, f) || sscanf(line, "rchar: %lld", &n) != 1) n = -1;
    if (f) fclose(f);
    return n;
}

static int run_member(board *b, int member, const char *name, void (*script)(const self *me))
{
    int rc = KS_OK;
    ks_model *m = NULL, *whole = NULL;
    ks_weights *w = NULL;
    KS_TRY(ks_model_open(&whole, scratch_path(dir, "whole")));
    KS_TRY(ks_model_open(&m, scratch_path(dir, name)));
    const int64_t before = read_characters();
    KS_TRY(ks_weights_open_shared(&w, m, KS_ALL_STREAMED, b->weights, member, MEMBERS));
    const self me = {b, w, whole, m, member};
    script(&me);
    b->bytes_read[member] = ks_weights_bytes_read(w);
    b->rchar[member] = before < 0 ? -1 : read_characters() - before;
done:
    if (rc) fprintf(stderr, "member %d: %s\n", member, ks_error_text());
    ks_weights_close(w);
    ks_model_close(m);
    ks_model_close(whole);
    return rc;
}

/* Runs the script in MEMBERS processes, the reader's last, so that others wait for it. Free with free_board. */
static board *run_script(const char *name, void (*script)(const self *me))
{
    ks_model *m = NULL;
    if (ks_model_open(&m, scratch_path(dir, name))) fail_msg("%s", ks_error_text());
    const size_t bytes = ks_weights_shared_bytes(m);
    assert_in_range(bytes, ks_weights_predict(m, KS_ALL_STREAMED, false), ks_weights_predict(m, KS_ALL_STREAMED, false) + 64 * 1024);
    ks_model_close(m);
    board *b = mmap(NULL, sizeof *b + bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(b != MAP_FAILED);
    b->weights_bytes = bytes;
    pthread_barrierattr_t shared;
    pthread_barrierattr_init(&shared);
    pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    assert_int_equal(pthread_barrier_init(&b->barrier, &shared, MEMBERS), 0);
    pthread_barrierattr_destroy(&shared);
    fflush(NULL);
    pid_t child[MEMBERS];
    for (int i = MEMBERS; i-- > 0;) {
        child[i] = fork();
        assert_true(child[i] >= 0);
        if (child[i]) continue;
        alarm(100); /* members that wait for each other for ever must not hold the suite up */
        _exit(run_member(b, i, name, script));
    }
    int bad = 0, status;
    for (int i = 0; i < MEMBERS; i++) bad += waitpid(child[i], &status, 0) != child[i] || status != 0;
    assert_int_equal(bad, 0);
    return b;
}

static void free_board(board *b)
{
    munmap(b, sizeof *b + b->weights_bytes);
}

static void assert_good(const board *b, int round, int member, int units)
{
    const record *r = &b->records[round][member];
    if (r->rc || r->good != units)
        fail_msg("round %d, member %d: %d of %d units were right, status %d, %s", round, member, r->good, units, r->rc, r->error);
}

/* Member 0 has read so many bytes, nobody else has read any. */
static void assert_read(const board *b, int64_t bytes)
{
    for (int i = 0; i < MEMBERS; i++) {
        assert_int_equal(b->bytes_read[i], i ? 0 : bytes);
        if (b->rchar[i] >= 0) assert_in_range(b->rchar[i], b->bytes_read[i], b->bytes_read[i] + 4096);
        else print_message("/proc/self/io: not there, the kernel's count was not looked at\n");
    }
}

/* Everybody, then all kinds of groups, some without the reader. */
static const uint8_t groups[ROUNDS][MEMBERS] = {{1, 1, 1, 1}, {0, 1, 1, 1}, {1, 0, 0, 0}, {0, 0, 0, 1},
                                                {1, 0, 1, 0}, {0, 1, 0, 1}, {1, 1, 1, 1}, {0, 0, 1, 1}};
static const uint8_t *const everybody = groups[0];

static void script_groups(const self *me)
{
    for (int r = 0; r < ROUNDS; r++)
        take_part(me, (uint32_t)r + 1, groups[r], (manner){.slow_us = me->member == r % MEMBERS ? 3000 : 100 * me->member});
}

static void test_each_byte_is_read_once_a_round_whoever_takes_part(void **state)
{
    (void)state;
    board *b = run_script("whole_twin", script_groups);
    for (int r = 0; r < ROUNDS; r++)
        for (int i = 0; i < MEMBERS; i++)
            if (groups[r][i]) assert_good(b, r + 1, i, UNITS);
    assert_read(b, ROUNDS * (L * layer_bytes + head_bytes));
    free_board(b);
}

static void script_sweeps(const self *me)
{
    for (uint32_t r = 1; r <= 3; r++) take_part(me, r, everybody, (manner){.sweeps = me->member == 2 ? 4 : 1 + me->member % 2});
}

static void test_a_member_may_walk_over_the_head_more_often(void **state)
{
    (void)state;
    board *b = run_script("whole_twin", script_sweeps);
    for (int r = 1; r <= 3; r++)
        for (int i = 0; i < MEMBERS; i++) assert_good(b, r, i, L + BLOCKS * (i == 2 ? 4 : 1 + i % 2));
    assert_read(b, 3 * (L * layer_bytes + 4 * head_bytes));
    free_board(b);
}

static void script_leave(const self *me)
{
    for (uint32_t r = 1; r <= L; r++)
        take_part(me, r, everybody, (manner){.leave = me->member == 1 ? (int)r : me->member == 0 ? 1 : 0, .slow_us = 200});
}

static void test_a_member_that_ends_early_holds_nobody_up(void **state)
{
    (void)state;
    board *b = run_script("whole_twin", script_leave);
    for (int r = 1; r <= L; r++) {
        assert_good(b, r, 0, 1);
        assert_good(b, r, 1, r);
        assert_good(b, r, 2, UNITS);
        assert_good(b, r, 3, UNITS);
    }
    assert_read(b, L * (L * layer_bytes + head_bytes));
    free_board(b);
}

/* All of the round have this error and had all units before it. */
static void assert_failed(const board *b, int round, const char *part, const char *other)
{
    const record *r = b->records[round];
    for (int i = 0; i < MEMBERS; i++) {
        assert_int_equal(r[i].rc, KS_EMACHINE);
        assert_string_equal(r[i].error, r[0].error);
        assert_int_equal(r[i].good, r[0].good);
        if (!strstr(r[i].error, part) || !strstr(r[i].error, other)) fail_msg("\"%s\" and \"%s\" are not in: %s", part, other, r[i].error);
    }
}

static void script_cut(const self *me)
{
    take_part(me, 1, everybody, (manner){0});
    const ks_st_file *f = ks_st_file_at(ks_model_files(me->m), 0);
    if (me->member == 3 && truncate(f->path, f->bytes - 3 * layer_bytes)) abort();
    pthread_barrier_wait(&me->b->barrier);
    take_part(me, 2, everybody, (manner){.slow_us = 500 * me->member});
    take_part(me, 3, everybody, (manner){0});
}

static void test_a_file_cut_short_is_an_error_for_all(void **state)
{
    (void)state;
    scratch_llama(dir, "cut", L, D, F, V);
    board *b = run_script("cut", script_cut);
    for (int i = 0; i < MEMBERS; i++) assert_good(b, 1, i, UNITS);
    assert_failed(b, 2, "cut/model.safetensors", "ends at byte");
    assert_failed(b, 3, "cut/model.safetensors", "ends at byte");
    assert_in_range(b->records[2][0].good, 1, L - 1);
    free_board(b);
}

static void script_broken(const self *me)
{
    const int fd = ks_st_file_at(ks_model_files(me->m), 0)->fd, spare = dup(fd), folder = open("/", O_RDONLY);
    for (uint32_t r = 1; r <= 4; r++) {
        if (me->member == 0 && dup2(r == 2 ? folder : spare, fd) != fd) abort();
        pthread_barrier_wait(&me->b->barrier);
        take_part(me, r, everybody, (manner){0});
    }
    close(spare);
    close(folder);
}

static void test_a_read_that_fails_is_an_error_for_all_and_may_be_tried_again(void **state)
{
    (void)state;
    board *b = run_script("whole_twin", script_broken);
    assert_failed(b, 2, "whole_twin/model.safetensors", "cannot be read");
    for (int r = 1; r <= 4; r++)
        for (int i = 0; i < MEMBERS && r != 2; i++) assert_good(b, r, i, UNITS);
    assert_int_equal(b->records[2][0].good, 0);
    assert_read(b, 3 * (L * layer_bytes + head_bytes));
    free_board(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_byte_is_read_once_a_round_whoever_takes_part),
        cmocka_unit_test(test_a_member_may_walk_over_the_head_more_often),
        cmocka_unit_test(test_a_member_that_ends_early_holds_nobody_up),
        cmocka_unit_test(test_a_file_cut_short_is_an_error_for_all),
        cmocka_unit_test(test_a_read_that_fails_is_an_error_for_all_and_may_be_tried_again),
    };
    scratch_make(dir);
    scratch_llama(dir, "whole", L, D, F, V);
    scratch_llama(dir, "whole_twin", L, D, F, V);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_remove(dir);
    return failed;
}
