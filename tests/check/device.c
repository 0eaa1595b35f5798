#include "check/device.h"

#include "base/error.h"
#include "support/numbers.h"

#ifdef KS_CHECK_GPU
#include "check/check.h"
#endif

#include <stdio.h>

enum { PINNED_BYTES = 4 << 20 };

static ks_gpu *gpu;
static void *pinned;

static struct owned {
    void *p;
    bool device;
} * owned;
static size_t n_owned, room;

int device_absent(void)
{
    if (!ks_gpu_probe()) return 0;
    printf("skipped: %s\n", ks_error_text());
    return 1;
}

int device_setup(void **state)
{
    if (ks_gpu_open(&gpu, 0) || ks_gpu_alloc_host(gpu, &pinned, PINNED_BYTES)) {
        fprintf(stderr, "%s\n", ks_error_text());
        return 1;
    }
    printf("on %s\n", ks_gpu_name(gpu));
    return devices_setup(state);
}

int device_teardown(void **state)
{
    device_end();
    free(owned);
    owned = NULL;
    room = 0;
    ks_gpu_free_host(gpu, pinned);
    ks_gpu_close(gpu);
    return devices_teardown(state);
}

ks_gpu *device_gpu(void)
{
    return gpu;
}

static void *own(void *p, bool device)
{
    if (n_owned == room) {
        room = 2 * room + 64;
        owned = realloc(owned, room * sizeof *owned);
        assert_non_null(owned);
    }
    owned[n_owned++] = (struct owned){p, device};
    return p;
}

void device_end(void)
{
    while (n_owned) {
        const struct owned o = owned[--n_owned];
        if (o.device) ks_gpu_free(gpu, o.p);
        else free(o.p);
    }
}

void *host_own(void *p)
{
    assert_non_null(p);
    return own(p, false);
}

void *host_new(const void *from, size_t bytes)
{
    void *p = host_own(malloc(bytes ? bytes : 1));
    if (from && bytes) memcpy(p, from, bytes);
    else memset(p, 0xff, bytes);
    return p;
}

/* from NULL: NaN bytes. */
static void fill(void *p, const void *from, size_t bytes)
{
    for (size_t at = 0, step; at < bytes; at += step) {
        step = bytes - at < PINNED_BYTES ? bytes - at : PINNED_BYTES;
        if (from) memcpy(pinned, (const char *)from + at, step);
        else memset(pinned, 0xff, step);
        assert_int_equal(ks_gpu_upload(gpu, KS_GPU_MAIN, (char *)p + at, pinned, step), 0);
        assert_int_equal(ks_gpu_wait(gpu), 0);
    }
}

void *device_new(const void *from, size_t bytes)
{
    void *p;
    if (ks_gpu_alloc(gpu, &p, bytes ? bytes : 1)) fail_msg("%s", ks_error_text());
    own(p, true);
    fill(p, from, bytes);
    return p;
}

void device_set(void *p, const void *from, size_t bytes)
{
    assert_non_null(from);
    fill(p, from, bytes);
}

void device_get(void *host, const void *p, size_t bytes)
{
    for (size_t at = 0, step; at < bytes; at += step) {
        step = bytes - at < PINNED_BYTES ? bytes - at : PINNED_BYTES;
        assert_int_equal(ks_gpu_download(gpu, pinned, (const char *)p + at, step), 0);
        if (ks_gpu_wait(gpu)) fail_msg("%s", ks_error_text()); /* where a kernel's fault shows */
        memcpy((char *)host + at, pinned, step);
    }
}

void *device_read(const void *p, size_t bytes)
{
    void *host = host_new(NULL, bytes);
    device_get(host, p, bytes);
    return host;
}

void device_shuffle(uint64_t seed)
{
#ifdef KS_CHECK_GPU
    ks_check_seed(seed);
#else
    (void)seed;
#endif
}
