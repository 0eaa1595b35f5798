/* Weight files. One text: a header, to which its length and DATA zeros are added. Two texts or three: an index, and the headers of
 * a.safetensors and b.safetensors. Anything that does not begin with "{": a file as it is. */
#include "fuzz.h"

#include "model/safetensors.h"

#include <string.h>

enum { DATA = 256, SHARDS = 2 };

static void write_shard(const fuzz_file *f, const uint8_t *header, size_t bytes)
{
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)bytes >> 8 * i);
    fuzz_file_size(f, 0);
    fuzz_file_write(f, 0, length, 8);
    fuzz_file_write(f, 8, header, bytes);
    fuzz_file_size(f, 8 + bytes + DATA);
}

static void check(const ks_st *st)
{
    for (size_t i = 0; i < ks_st_count(st); i++) {
        const ks_st_tensor *t = ks_st_at(st, i);
        FUZZ_CHECK(ks_st_find(st, t->name) == t);
        FUZZ_CHECK(t->file >= 0 && t->file < ks_st_files(st));
        const ks_st_file *f = ks_st_file_at(st, t->file);
        FUZZ_CHECK(t->offset >= 8 && t->bytes >= 0 && t->bytes <= f->bytes - t->offset && t->data == f->map + t->offset);
        FUZZ_CHECK(ks_st_check_file(f) == KS_OK);
        int64_t elements = 1;
        for (int d = 0; d < t->n_dims; d++) elements *= t->shape[d];
        if (t->has_dtype) FUZZ_CHECK(elements * (int64_t)ks_dtype_size(t->dtype) == t->bytes);
        fuzz_read(t->data, (size_t)t->bytes);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const fuzz_file *index, *shard[SHARDS];
    const uint8_t *part[1 + SHARDS];
    size_t bytes[1 + SHARDS];
    ks_st *st = NULL;
    int rc;
    if (!index) {
        index = fuzz_file_new("model.safetensors.index.json");
        shard[0] = fuzz_file_new("a.safetensors");
        shard[1] = fuzz_file_new("b.safetensors");
    }
    const size_t n = size && data[0] == '{' ? fuzz_parts(data, size, part, bytes, 1 + SHARDS) : 0;
    if (n >= 2) {
        fuzz_file_size(index, 0);
        fuzz_file_write(index, 0, part[0], bytes[0]);
        for (size_t i = 1; i < n; i++) write_shard(shard[i - 1], part[i], bytes[i]);
        rc = ks_st_open(&st, index->folder);
    } else {
        if (n) {
            write_shard(shard[0], data, size);
        } else {
            fuzz_file_size(shard[0], 0);
            fuzz_file_write(shard[0], 0, data, size);
        }
        rc = ks_st_open(&st, shard[0]->path);
    }
    FUZZ_ANSWER(rc, KS_EINPUT);
    if (!rc) check(st);
    ks_st_close(st);
    return 0;
}
