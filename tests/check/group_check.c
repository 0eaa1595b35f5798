/* group.h between processes of one host: a piece of what is broadcast at a time goes through shared memory. It is the call that
 * sends and receives, and waits, `patience` seconds at most, for members that do not come; on the device it is later (queues.h). */
#define _GNU_SOURCE
#include "compute/cuda/group.h"

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "tests/check/gpu_check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MEMBERS = 64, PIECE = 1 << 18 };

/* Seen by all members. A piece is written when every member has seen the one before. */
typedef struct board {
    _Atomic int joined;
    _Atomic uint64_t posted; /* pieces so far; the last of them is in `piece` */
    size_t bytes;            /* of the broadcast that it is part of, and by whom */
    int from;
    _Atomic uint64_t seen[MEMBERS];
    char piece[PIECE];
} board;

struct ks_gpu_group {
    ks_gpu *gpu;
    board *b;
    int member, members;
    double patience;
    uint64_t pieces;
    char why[256]; /* it is broken; "": it is not */
};

int ks_gpu_group_probe(char *by, size_t bytes)
{
    snprintf(by, bytes, "shared memory: check");
    return KS_OK;
}

int ks_gpu_group_new_id(ks_gpu_group_id *id)
{
    static int count;
    int rc = KS_OK;
    *id = (ks_gpu_group_id){0};
    snprintf(id->bytes, sizeof id->bytes, "/kosweep-check-%ld-%d", (long)getpid(), ++count);
    const int fd = shm_open(id->bytes, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    const int error = fd < 0 ? errno : posix_fallocate(fd, 0, sizeof(board));
    if (fd >= 0) close(fd);
    KS_REQUIRE(!error, KS_EMACHINE, "check GPU: no shared memory for a group: %s", strerror(error));
done:
    return rc;
}

static int __attribute__((format(printf, 2, 3))) break_off(ks_gpu_group *q, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(q->why, sizeof q->why, format, args);
    va_end(args);
    return ks_error(KS_EMACHINE, "%s", q->why);
}

/* Until *count is at least n. */
static int await(ks_gpu_group *q, _Atomic uint64_t *count, uint64_t n)
{
    const struct timespec pause = {.tv_nsec = 50000};
    const double begin = ks_seconds();
    while (atomic_load(count) < n) {
        if (ks_seconds() - begin > q->patience)
            return break_off(q, "GPU %d of %d waited for %.3g s: one of them has not come to a broadcast", q->member, q->members,
                             q->patience);
        nanosleep(&pause, NULL);
    }
    return KS_OK;
}

int ks_gpu_group_join(ks_gpu_group **out, ks_gpu *g, const ks_gpu_group_id *id, int member, int members, double patience)
{
    int rc = KS_OK, fd = -1;
    ks_gpu_group *q = NULL;
    const struct timespec pause = {.tv_nsec = 1000000};
    const double begin = ks_seconds();
    KS_NEW(q, 1);
    *q = (ks_gpu_group){.gpu = g, .member = member, .members = members, .patience = patience};
    KS_REQUIRE(members <= MEMBERS && member >= 0 && member < members, KS_EMACHINE, "check GPU: member %d of %d", member, members);
    fd = shm_open(id->bytes, O_RDWR | O_CLOEXEC, 0600);
    void *p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *q->b, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    KS_REQUIRE(p != MAP_FAILED, KS_EMACHINE, "check GPU: there is no group %s: %s", id->bytes, strerror(errno));
    q->b = p;
    atomic_fetch_add(&q->b->joined, 1);
    while (atomic_load(&q->b->joined) < members) {
        if (ks_seconds() - begin > patience) {
            shm_unlink(id->bytes);
            rc = break_off(q, "GPU %d of %d waited for %.3g s: not all of them came", member, members, patience);
            goto done;
        }
        nanosleep(&pause, NULL);
    }
    if (!member) shm_unlink(id->bytes);
done:
    if (fd >= 0) close(fd);
    if (rc) ks_gpu_group_leave(q);
    else *out = q;
    return rc;
}

void ks_gpu_group_leave(ks_gpu_group *q)
{
    if (!q) return;
    if (q->b) munmap(q->b, sizeof *q->b);
    free(q);
}

int ks_gpu_group_broadcast(ks_gpu_group *q, void *device, size_t bytes, int from)
{
    int rc = KS_OK;
    board *b = q->b;
    for (size_t at = 0, n; at < bytes; at += n) {
        KS_REQUIRE(!*q->why, KS_EMACHINE, "%s", q->why);
        n = bytes - at < PIECE ? bytes - at : PIECE;
        char *mine = (char *)device + at;
        const uint64_t now = ++q->pieces;
        if (from == q->member) {
            for (int i = 0; i < q->members; i++) KS_TRY(await(q, &b->seen[i], now - 1));
            ks_gpu_check_leave(q->gpu, b->piece, mine, n);
            b->bytes = bytes;
            b->from = from;
            atomic_store(&b->posted, now);
        } else {
            KS_TRY(await(q, &b->posted, now));
            if (b->bytes != bytes || b->from != from) {
                fprintf(stderr, "check GPU: member %d awaits %zu bytes from member %d, and member %d sends %zu\n", q->member, bytes, from,
                        b->from, b->bytes);
                abort();
            }
            KS_TRY(ks_gpu_check_arrive(q->gpu, mine, b->piece, n));
        }
        atomic_store(&b->seen[q->member], now);
    }
done:
    return rc;
}
