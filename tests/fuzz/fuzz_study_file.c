/* Result files, as kosweep-stats reads them. HDF5 itself crashes on some damaged files, so an input does not stand for a file but for
 * changes of study.h5 at places where HDF5 survives them (study.map): the first byte chooses what is done with the file, then follow
 * changes of 3 bytes each: which of the places (2), and the new value. */
#include "use_study.h"

#include "base/json.h"

#include <hdf5.h>
#include <string.h>

enum { CHANGES = 64 };

static const fuzz_file *file;
static uint8_t *image;   /* study.h5 */
static uint64_t *places; /* [n_places] offsets in it */
static size_t n_places;

static void load(void)
{
    char *text = NULL, *map = NULL;
    size_t bytes = 0, map_bytes = 0;
    FUZZ_CHECK(ks_file_read(&text, &bytes, KS_TESTS_DIR "/fuzz/study.h5") == KS_OK);
    FUZZ_CHECK(ks_file_read(&map, &map_bytes, KS_TESTS_DIR "/fuzz/study.map") == KS_OK);
    image = (uint8_t *)text;
    file = fuzz_file_new("study.h5");
    fuzz_file_write(file, 0, image, bytes);
    char *rest = map, *line;
    while ((line = strsep(&rest, "\n")) && *line) {
        char *end;
        const uint64_t begin = strtoull(line, &end, 10), length = strtoull(end, NULL, 10);
        FUZZ_CHECK(begin + length <= bytes);
        places = realloc(places, (n_places + length) * sizeof *places);
        FUZZ_CHECK(places);
        for (uint64_t i = 0; i < length; i++) places[n_places++] = begin + i;
    }
    free(map);
    FUZZ_CHECK(n_places);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!file) load();
    if (!size) return 0;
    uint64_t changed[CHANGES];
    size_t n = 0;
    for (size_t i = 1; i + 3 <= size && n < CHANGES; i += 3) {
        changed[n] = places[(data[i] | (size_t)data[i + 1] << 8) % n_places];
        fuzz_file_write(file, changed[n++], &data[i + 2], 1);
    }
    fuzz_use_study(file->path, data[0]);
    FUZZ_CHECK(H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL) == 0);
    while (n) fuzz_file_write(file, changed[n - 1], image + changed[n - 1], 1), n--;
    return 0;
}
