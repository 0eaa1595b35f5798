/* tables.h - the published tables of result files, chosen by what each sweep is. docs/statistics.md lists them. */
#ifndef KS_ANALYSIS_TABLES_H
#define KS_ANALYSIS_TABLES_H

#include "analysis/select.h"

#include <stdio.h>

/* Reads the files and prints every table that fits the chosen sweeps. KS_EINPUT for files, KS_EUSAGE for a choice that fits nothing. */
int ks_tables_print(FILE *out, const char *const *paths, size_t n, const ks_table_options *opt);

/* The table of models alone, the last one of ks_tables_print: one line per model and sweep. The same errors. */
int ks_models_print(FILE *out, const char *const *paths, size_t n, const ks_table_options *opt);

/* One CSV line per cell of the chosen sweeps and windows, with a header: for other programs. NaN is empty. */
int ks_cells_csv_write(FILE *out, const char *const *paths, size_t n, const ks_table_options *opt);

/* Reads n files into studies [n] (NULL at first). All or none. */
int ks_studies_read(ks_study **studies, const char *const *paths, size_t n);
void ks_studies_free(ks_study **studies, size_t n);

#endif
