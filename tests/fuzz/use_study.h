/* use_study.h - a result file put to every use that kosweep-stats and --resume make of it. */
#ifndef KS_TESTS_FUZZ_USE_STUDY_H
#define KS_TESTS_FUZZ_USE_STUDY_H

#include "analysis/json.h"
#include "analysis/tables.h"
#include "fuzz.h"

/* choice: which use, and which format of a table. Aborts where the answer is neither a success nor a refusal with words. */
static inline int fuzz_use_study(const char *path, unsigned choice)
{
    static FILE *nowhere;
    if (!nowhere) FUZZ_CHECK(nowhere = fopen("/dev/null", "w"));
    const ks_table_options options = {.format = (int)(choice / 5 % 5)};
    ks_study *s = NULL;
    int rc;
    switch (choice % 5) {
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
        break;
    default:
        rc = ks_study_read(&s, path);
    }
    ks_study_free(s);
    if (rc != KS_EUSAGE) FUZZ_ANSWER(rc, KS_EINPUT); /* KS_EUSAGE: no table fits, another schema */
    return rc;
}

#endif
