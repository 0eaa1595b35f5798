/* results_disk.h - the result file as bytes on a disk: one writer at a time, a whole image under its name at once, then writes in place.
 * Private to the results writer; knows nothing of HDF5. One thread. Functions that return int give KS_EMACHINE with path and reason. */
#ifndef KS_SWEEP_RESULTS_DISK_H
#define KS_SWEEP_RESULTS_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ks_disk {
    char *path, *tmp; /* tmp: path.tmp */
    int fd;           /* the file at path, locked: the former one until the first ks_disk_publish; -1 where there is none */
    int stage;        /* the file at tmp, locked; -1 between publications */
    bool ours;        /* published */
    bool fresh;       /* there was no file before */
    int64_t written;  /* bytes, for measurements */
} ks_disk;

/* What stands at the path, against what this writer left there. */
enum { KS_DISK_SAME, KS_DISK_GONE, KS_DISK_REPLACED };

/* Locks the file, if there is one, and the place where the next one will be built, and shows that it can be written. Nothing at the path
 * changes. may_exist: a file at the path is no error (else KS_EUSAGE). d comes with fd and stage -1; ks_disk_close in any case. */
int ks_disk_open(ks_disk *d, const char *path, bool may_exist);

/* Puts a whole file at the path: space reserved, written, on the disk, renamed. On failure the path is as before and tmp is gone. */
int ks_disk_publish(ks_disk *d, const void *image, size_t bytes);

int ks_disk_state(const ks_disk *d);

/* Puts a whole file beside one that is not ours: under the path if nothing is there, else under the next free of PATH.saved, PATH.saved-2,
 * ... From then on that is the path. */
int ks_disk_rescue(ks_disk *d, const void *image, size_t bytes);

/* Writes into the published file. */
int ks_disk_write(ks_disk *d, const void *data, size_t bytes, size_t offset);
/* Returns when what was written is on the disk. */
int ks_disk_sync(ks_disk *d);

/* Gives the lock back and removes tmp; remove: the published file, too. */
void ks_disk_close(ks_disk *d, bool remove);

#endif
