#define _GNU_SOURCE
#include "sweep/hostmem.h"

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "sweep/comm.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME = 64 };

/* Room is reserved at once: a page that is missing later would end the process. */
static int make(const char *name, size_t bytes)
{
    const int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    const int error = fd < 0 ? errno : posix_fallocate(fd, 0, (off_t)bytes);
    if (!error) return fd;
    ks_log(KS_LOG_WARN, "on %s: no %.1f MB of shared memory (%s): every rank reads weights for itself", ks_comm_host(ks_comm_rank()),
           (double)bytes / 1e6, strerror(error));
    if (fd >= 0) {
        close(fd);
        shm_unlink(name);
    }
    return -1;
}

static void *map(int fd, size_t bytes)
{
    struct stat st;
    if (fd < 0 || fstat(fd, &st) || (size_t)st.st_size != bytes) return NULL;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* The leader makes the memory and tells its name; each member opens it and says whether that worked; the leader removes the name, so that
 * nothing is left behind by a rank that is killed, and tells all whether to use it. "" means that there is none. */
int ks_hostmem_new(void **out, size_t bytes)
{
    int rc = KS_OK;
    static int count = 0;
    const int members = ks_comm_local_size(), leader = ks_comm_leader(ks_comm_rank());
    const bool leads = leader == ks_comm_rank();
    char name[NAME] = "";
    int fd = -1;
    void *p = NULL;
    ks_message m = {0};
    bool all = true;
    if (leads) {
        snprintf(name, sizeof name, "/kosweep-%ld-%d", (long)getpid(), ++count);
        fd = make(name, bytes);
        if (fd < 0) name[0] = 0;
        KS_TRY(ks_comm_send_host(KS_MSG_HOST, name, NAME));
    } else {
        KS_TRY(ks_comm_receive(KS_KIND(KS_MSG_HOST), INFINITY, &m));
        memcpy(name, m.data, NAME - 1);
        free(m.data);
        if (name[0]) fd = shm_open(name, O_RDWR | O_CLOEXEC, 0600);
    }
    p = map(fd, bytes);
    if (leads) {
        all = p != NULL;
        for (int i = 1; i < members; i++) {
            KS_TRY(ks_comm_receive(KS_KIND(KS_MSG_HOST), INFINITY, &m));
            all = all && *(bool *)m.data;
            free(m.data);
        }
        KS_TRY(ks_comm_send_host(KS_MSG_HOST, &all, sizeof all));
    } else {
        const bool mine = p != NULL;
        KS_TRY(ks_comm_send_copy(leader, KS_MSG_HOST, &mine, sizeof mine));
        KS_TRY(ks_comm_receive(KS_KIND(KS_MSG_HOST), INFINITY, &m));
        all = *(bool *)m.data;
        free(m.data);
    }
done:
    if (leads && name[0]) shm_unlink(name);
    if (fd >= 0) close(fd);
    if (p && (rc || !all)) {
        munmap(p, bytes);
        p = NULL;
    }
    *out = p;
    return rc;
}

void ks_hostmem_free(void *memory, size_t bytes)
{
    if (memory) munmap(memory, bytes);
}
