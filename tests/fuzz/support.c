#define _GNU_SOURCE
#include "fuzz.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static volatile unsigned char sum;

void fuzz_read(const void *p, size_t bytes)
{
    unsigned char x = 0;
    for (size_t i = 0; i < bytes; i++) x ^= ((const unsigned char *)p)[i];
    sum = x;
}

char *fuzz_text(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    FUZZ_CHECK(text);
    if (size) memcpy(text, data, size);
    text[size] = 0;
    return text;
}

size_t fuzz_parts(const uint8_t *data, size_t size, const uint8_t **part, size_t *bytes, size_t room)
{
    size_t n = 0;
    for (;;) {
        const uint8_t *nul = n + 1 < room && size ? memchr(data, 0, size) : NULL;
        part[n] = data;
        bytes[n] = nul ? (size_t)(nul - data) : size;
        if (!nul) return n + 1;
        size -= bytes[n++] + 1;
        data = nul + 1;
    }
}

enum { FILES = 4 };
static fuzz_file files[FILES];
static int n_files;
static char folder[40];

static void remove_files(void)
{
    for (int i = 0; i < n_files; i++) unlink(files[i].path);
    rmdir(folder);
}

const fuzz_file *fuzz_file_new(const char *name)
{
    fuzz_file *f = &files[n_files];
    FUZZ_CHECK(n_files < FILES);
    if (!n_files++) {
        snprintf(folder, sizeof folder, "%s/kosweep-fuzz-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
        FUZZ_CHECK(mkdtemp(folder));
        atexit(remove_files);
    }
    f->folder = folder;
    snprintf(f->path, sizeof f->path, "%s/%s", folder, name);
    f->fd = open(f->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FUZZ_CHECK(f->fd >= 0);
    return f;
}

void fuzz_file_write(const fuzz_file *f, uint64_t at, const void *data, size_t bytes)
{
    FUZZ_CHECK(!bytes || pwrite(f->fd, data, bytes, (off_t)at) == (ssize_t)bytes);
}

void fuzz_file_size(const fuzz_file *f, uint64_t bytes)
{
    FUZZ_CHECK(ftruncate(f->fd, (off_t)bytes) == 0);
}
