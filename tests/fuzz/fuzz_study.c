/* Result files, as kosweep-stats reads them. The first byte chooses what is done with the file; the rest are the ways in which it, or
 * HDF5's answers, deviate from a right file: see fake_hdf5.h. */
#include "fake_hdf5.h"
#include "fuzz.h"

#include "analysis/json.h"
#include "analysis/tables.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *nowhere;
    if (!nowhere) FUZZ_CHECK(nowhere = fopen("/dev/null", "w"));
    if (!size) return 0;
    const char *path = KS_TESTS_DIR "/fuzz/study.h5"; /* looked for, not read */
    const ks_table_options options = {.format = data[0] / 5 % 5};
    ks_study *s = NULL;
    int rc;
    fake_hdf5_begin(data + 1, size - 1);
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
    FUZZ_CHECK(rc == KS_OK || size > 6);             /* without deviations all is right; else the reader calls what fake_hdf5.c lacks */
    fake_hdf5_end();
    return 0;
}
