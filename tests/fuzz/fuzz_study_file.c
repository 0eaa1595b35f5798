/* Result files, as kosweep-stats reads them. HDF5 itself crashes on some damaged files, so an input does not stand for a file but for
 * changes of study.h5 at places where HDF5 survives them (study.map): the first byte chooses what is done with the file, then follow
 * changes of 3 bytes each: which of the places (2), and the new value. */
#include "fuzz.h"

#include "analysis/json.h"
#include "analysis/tables.h"
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
    static FILE *nowhere;
    if (!nowhere) {
        load();
        FUZZ_CHECK(nowhere = fopen("/dev/null", "w"));
    }
    if (!size) return 0;
    uint64_t changed[CHANGES];
    size_t n = 0;
    for (size_t i = 1; i + 3 <= size && n < CHANGES; i += 3) {
        changed[n] = places[(data[i] | (size_t)data[i + 1] << 8) % n_places];
        fuzz_file_write(file, changed[n++], &data[i + 2], 1);
    }
    const char *path = file->path;
    const ks_table_options options = {.format = data[0] / 5 % 5};
    ks_study *s = NULL;
    int rc;
    switch (data[0] % 5) {
    case 0:
        rc = ks_tables_print(nowhere, &path, 1, &options);
        break;
    case 1:
        rc = ks_stats_json_write(nowhere, &path, 1, &options);
        break;
    case 2:
        rc = ks_cells_csv_write(nowhere, &path, 1, &options);
        break;
    case 3:
        rc = ks_study_read_whole(&s, path);
        ks_study_free(s);
        break;
    default:
        rc = ks_study_read(&s, path);
        ks_study_free(s);
    }
    if (rc != KS_EUSAGE) FUZZ_ANSWER(rc, KS_EINPUT); /* KS_EUSAGE: no table fits, another schema */
    FUZZ_CHECK(H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL) == 0);
    while (n) fuzz_file_write(file, changed[n - 1], image + changed[n - 1], 1), n--;
    return 0;
}
