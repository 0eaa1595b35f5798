#define _GNU_SOURCE
#include "sweep/results_disk.h"

#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- one writer ---- */

/* The lock is one byte far behind the data. It belongs to the open file, so the kernel drops it whatever kills the process; and it goes
 * with the file through a rename. Readers do not meet it: HDF5 locks with flock(). */
static int lock(int fd, const char *path)
{
    static bool warned;
    int rc = KS_OK;
    struct flock one = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)1 << 62, .l_len = 1};
    if (!fcntl(fd, F_OFD_SETLK, &one)) goto done;
    KS_REQUIRE(errno != EAGAIN && errno != EACCES, KS_EMACHINE, "%s: is being written by another kosweep; --output names another file",
               path);
    if (!warned) ks_log(KS_LOG_WARN, "%s: cannot be locked (%s): see to it that no other kosweep writes it", path, strerror(errno));
    warned = true;
done:
    return rc;
}

static bool same_file(int fd, const char *path)
{
    struct stat a, b;
    return !fstat(fd, &a) && !stat(path, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* *fd = the file at `name`, opened to write and locked; with O_CREAT made if need be. Nothing is truncated: until the lock is ours the
 * bytes may be another's. Without O_CREAT a missing file leaves -1. */
static int open_locked(int *fd, const char *name, int flags, const char *path)
{
    int rc = KS_OK;
    struct stat st;
    for (;;) {
        *fd = open(name, O_RDWR | O_CLOEXEC | flags, 0666);
        if (*fd < 0 && errno == ENOENT && !(flags & O_CREAT)) goto done;
        KS_REQUIRE(*fd >= 0, KS_EMACHINE, "%s: cannot be written: %s (opening %s)", path, strerror(errno), name);
        KS_TRY(lock(*fd, path));
        if (same_file(*fd, name)) break;
        close(*fd); /* renamed or removed before the lock came */
    }
    KS_REQUIRE(!fstat(*fd, &st) && S_ISREG(st.st_mode), KS_EMACHINE, "%s: cannot be written: %s is not a regular file", path, name);
done:
    if (rc && *fd >= 0) {
        close(*fd);
        *fd = -1;
    }
    return rc;
}

static int set_path(ks_disk *d, char *path)
{
    int rc = KS_OK;
    char *tmp = NULL;
    if (!path) return KS_EMACHINE;
    KS_GET(tmp, ks_format("%s.tmp", path));
    free(d->path);
    free(d->tmp);
    d->path = path;
    d->tmp = tmp;
done:
    if (rc) free(path);
    return rc;
}

int ks_disk_open(ks_disk *d, const char *path, bool may_exist)
{
    int rc = KS_OK;
    struct stat st;
    /* At a file size limit the kernel sends SIGXFSZ, which kills; an error from write() says more. */
    signal(SIGXFSZ, SIG_IGN);
    if (!stat(path, &st)) {
        KS_REQUIRE(S_ISREG(st.st_mode), KS_EUSAGE, "%s: exists and is not a regular file; --output names another", path);
        KS_REQUIRE(may_exist, KS_EUSAGE, "%s: exists; --resume goes on with it, --force overwrites it, --output names another", path);
        /* A rename would replace a symbolic link instead of the file it leads to. */
        char *real = realpath(path, NULL);
        KS_REQUIRE(real, KS_EMACHINE, "%s: %s", path, strerror(errno));
        KS_TRY(set_path(d, real));
        KS_TRY(open_locked(&d->fd, d->path, 0, path));
    } else {
        KS_REQUIRE(lstat(path, &st), KS_EUSAGE, "%s: is a symbolic link that leads nowhere; --output names another", path);
        KS_TRY(set_path(d, ks_strdup(path)));
    }
    d->fresh = d->fd < 0;
    /* Asking for permission is not enough: root and network file systems answer yes and refuse later. */
    KS_TRY(open_locked(&d->stage, d->tmp, O_CREAT | O_NOFOLLOW, path));
    KS_REQUIRE(!d->fresh || stat(path, &st), KS_EMACHINE, "%s: another kosweep has just begun to write it", path);
done:
    return rc;
}

void ks_disk_close(ks_disk *d, bool remove)
{
    if (d->stage >= 0) {
        unlink(d->tmp);
        close(d->stage);
    }
    if (d->fd >= 0) {
        if (remove && d->ours && ks_disk_state(d) == KS_DISK_SAME) unlink(d->path);
        close(d->fd);
    }
    free(d->path);
    free(d->tmp);
    *d = (ks_disk){.fd = -1, .stage = -1};
}

/* ---- a whole file ---- */

static int write_at(int fd, const char *data, size_t bytes, size_t offset)
{
    while (bytes) {
        const ssize_t n = pwrite(fd, data, bytes, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        data += n;
        offset += (size_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

/* All blocks now, so that a disk that is full later does not stop writes in place. */
static int reserve(int fd, size_t bytes)
{
    int failed;
    do failed = ftruncate(fd, 0) || fallocate(fd, 0, 0, (off_t)bytes);
    while (failed && errno == EINTR);
    /* Where the file system cannot, writing every byte does nearly the same. */
    return !failed || errno == EOPNOTSUPP || errno == ENOSYS ? 0 : errno;
}

/* A rename is on the disk when its folder is. */
static int sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? ks_format("%.*s", (int)(slash - path + 1), path) : ks_strdup(".");
    if (!folder) return ENOMEM;
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(folder);
    const int error = fd < 0 || !fsync(fd) || errno == EINVAL || errno == ENOTSUP ? 0 : errno; /* not every file system can */
    if (fd >= 0) close(fd);
    return error;
}

int ks_disk_publish(ks_disk *d, const void *image, size_t bytes)
{
    int rc = KS_OK, error = 0;
    struct stat former;
    if (d->stage < 0) KS_TRY(open_locked(&d->stage, d->tmp, O_CREAT | O_NOFOLLOW, d->path));
    if (d->fd >= 0 && !fstat(d->fd, &former)) fchmod(d->stage, former.st_mode & 07777);
    error = reserve(d->stage, bytes);
    if (!error) error = write_at(d->stage, image, bytes, 0);
    if (!error && fsync(d->stage)) error = errno;
    if (!error && rename(d->tmp, d->path)) error = errno;
    KS_REQUIRE(!error, KS_EMACHINE, "%s: cannot be written (%zu bytes): %s", d->path, bytes, strerror(error));
    if (d->fd >= 0) close(d->fd);
    d->fd = d->stage;
    d->stage = -1;
    d->ours = true;
    d->written += (int64_t)bytes;
    error = sync_folder(d->path);
    KS_REQUIRE(!error, KS_EMACHINE, "%s: its folder cannot be written: %s", d->path, strerror(error));
done:
    if (rc && d->stage >= 0) {
        unlink(d->tmp);
        close(d->stage);
        d->stage = -1;
    }
    return rc;
}

/* ---- a file that is not where it was ---- */

int ks_disk_state(const ks_disk *d)
{
    struct stat st;
    if (stat(d->path, &st)) return d->fd >= 0 ? KS_DISK_GONE : KS_DISK_SAME;
    return d->fd >= 0 && same_file(d->fd, d->path) ? KS_DISK_SAME : KS_DISK_REPLACED;
}

int ks_disk_rescue(ks_disk *d, const void *image, size_t bytes)
{
    int rc = KS_EMACHINE;
    struct stat st;
    char *former = NULL;
    /* A name that another kosweep has begun to write is not free either. */
    if (ks_disk_state(d) == KS_DISK_GONE) rc = ks_disk_publish(d, image, bytes);
    if (!rc) goto done;
    KS_GET(former, ks_strdup(d->path));
    KS_TRY(set_path(d, ks_format("%s.saved", former)));
    for (int i = 2; !lstat(d->path, &st); i++) KS_TRY(set_path(d, ks_format("%s.saved-%d", former, i)));
    rc = ks_disk_publish(d, image, bytes);
    if (rc) set_path(d, ks_strdup(former));
done:
    free(former);
    return rc;
}

/* ---- in place ---- */

int ks_disk_write(ks_disk *d, const void *data, size_t bytes, size_t offset)
{
    int rc = KS_OK;
    const int error = write_at(d->fd, data, bytes, offset);
    KS_REQUIRE(!error, KS_EMACHINE, "%s: cannot be written (%zu bytes at %zu): %s", d->path, bytes, offset, strerror(error));
    d->written += (int64_t)bytes;
done:
    return rc;
}

int ks_disk_sync(ks_disk *d)
{
    int rc = KS_OK;
    KS_REQUIRE(!fdatasync(d->fd), KS_EMACHINE, "%s: cannot be written to the disk: %s", d->path, strerror(errno));
done:
    return rc;
}
