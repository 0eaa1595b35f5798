/* Result files, as kosweep-stats reads them. The first byte chooses what is done with the file; the rest are the ways in which it, or
 * HDF5's answers, deviate from a right file: see fake_hdf5.h. */
#include "fake_hdf5.h"
#include "use_study.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size) return 0;
    const char *path = KS_TESTS_DIR "/fuzz/study.h5"; /* looked for, not read */
    fake_hdf5_begin(data + 1, size - 1);
    const int rc = fuzz_use_study(path, data[0]);
    FUZZ_CHECK(rc == KS_OK || size > 6); /* without deviations all is right; else the reader calls what fake_hdf5.c lacks */
    fake_hdf5_end();
    return 0;
}
