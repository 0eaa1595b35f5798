/* tables.h - the published tables of result files, chosen by what each sweep is. docs/statistics.md lists them. */
#ifndef KS_ANALYSIS_TABLES_H
#define KS_ANALYSIS_TABLES_H

#include "analysis/select.h"
#include "analysis/table.h"

#include <stdio.h>

/* The kinds of tables, ended by a NULL name; asked: only where --only names it, since it takes time or room. */
typedef struct ks_table_kind {
    const char *name, *what;
    bool asked;
} ks_table_kind;
extern const ks_table_kind ks_table_kinds[];

/* Appends to the list every table that fits the chosen sweeps of studies that were read, as ks_tables_print prints them; options->only
 * says which kinds. A choice that fits nothing is KS_EUSAGE. Free the list with ks_table_list_free, also after an error. */
int ks_tables_build(ks_table_list *out, ks_study *const *studies, size_t n, const ks_table_options *opt);
/* The tables across models alone. */
int ks_models_build(ks_table_list *out, ks_study *const *studies, size_t n, const ks_table_options *opt);

/* Reads the files and prints every table that fits the chosen sweeps. KS_EINPUT for files, KS_EUSAGE for a choice that fits nothing. */
int ks_tables_print(FILE *out, const char *const *paths, size_t n, const ks_table_options *opt);

/* The tables across models alone, the last ones of ks_tables_print. The same errors. */
int ks_models_print(FILE *out, const char *const *paths, size_t n, const ks_table_options *opt);

/* One CSV line per cell of the chosen sweeps and windows, with a header: for other programs. NaN is empty. */
int ks_cells_csv_write(FILE *out, const char *const *paths, size_t n, const ks_table_options *opt);

/* Reads n files into studies [n] (NULL at first). All or none. */
int ks_studies_read(ks_study **studies, const char *const *paths, size_t n);
void ks_studies_free(ks_study **studies, size_t n);

#endif
