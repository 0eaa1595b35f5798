#define _GNU_SOURCE
#include "sweep/same.h"

#include "sweep/comm.h"

#include <errno.h>
#include <math.h>
#include <sys/stat.h>

typedef struct identity {
    uint64_t device, inode;
    int64_t bytes, seconds, nanoseconds; /* of the last change */
} identity;

/* Which files these are. */
static int identify(const ks_model *m, ks_wire *w)
{
    int rc = KS_OK;
    const ks_st *st = ks_model_files(m);
    for (int i = 0; i < ks_st_files(st); i++) {
        struct stat s;
        const ks_st_file *f = ks_st_file_at(st, i);
        KS_REQUIRE(!fstat(f->fd, &s), KS_EMACHINE, "%s: %s", f->path, strerror(errno));
        const identity id = {s.st_dev, s.st_ino, s.st_size, s.st_mtim.tv_sec, s.st_mtim.tv_nsec};
        KS_TRY(KS_PUT(w, id));
    }
done:
    return rc;
}

static int compare(const ks_task *t, const char *what, const char *own, const char *roots)
{
    if (!strcmp(own, roots)) return KS_OK;
    return ks_error(KS_EINPUT, "%s: %s not those that root reads on %s: SHA-256 %s, expected %s", t->dir, what, ks_comm_host(0), own,
                    roots);
}

static int compare_weights(const ks_task *t)
{
    int rc = KS_OK;
    char own[65];
    KS_TRY(ks_model_weights_sha256(t->model, own));
    KS_TRY(compare(t, "the weights are", own, t->weights_sha256));
done:
    return rc;
}

int ks_same_model(const ks_task *t)
{
    int rc = KS_OK;
    const int rank = ks_comm_rank(), leader = ks_comm_leader(rank);
    char own[65];
    ks_wire w = {0};
    ks_message m = {0};
    if (ks_comm_size() == 1) return rc;
    KS_TRY(identify(t->model, &w));
    if (rank == leader) {
        /* Sent before anything can fail, since the others wait for it. */
        KS_TRY(ks_comm_send_host(KS_MSG_HOST, w.data, w.bytes));
        if (rank) KS_TRY(compare_weights(t));
    } else {
        KS_TRY(ks_comm_receive(KS_KIND(KS_MSG_HOST), INFINITY, &m));
        const bool same_files = m.bytes == w.bytes && !memcmp(m.data, w.data, w.bytes);
        if (!same_files) KS_TRY(compare_weights(t));
    }
    KS_TRY(ks_model_config_sha256(t->model, own));
    KS_TRY(compare(t, "config.json is", own, t->config_sha256));
done:
    free(m.data);
    free(w.data);
    return rc;
}
