/* report.h - everything about result files in one HTML page that needs nothing else. docs/statistics.md says which findings it words. */
#ifndef KS_ANALYSIS_REPORT_H
#define KS_ANALYSIS_REPORT_H

#include "analysis/select.h"

#include <stdbool.h>
#include <stdio.h>

/* Writes the page about the chosen models, sweeps, windows and groups of the files to path (NULL: the first file's name with .html for
 * .h5) and says so on say. The same files give the same bytes. A path that is there already is KS_EUSAGE without force; a page is there
 * whole or not at all. KS_EINPUT for result files, KS_EUSAGE for a choice that fits nothing, KS_EMACHINE for memory and disk. */
int ks_report_write(FILE *say, const char *const *paths, size_t n, const ks_table_options *opt, const char *path, bool force);

#endif
