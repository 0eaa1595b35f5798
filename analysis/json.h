/* json.h - the published experiments' JSON, from result files. */
#ifndef KS_ANALYSIS_JSON_H
#define KS_ANALYSIS_JSON_H

#include "analysis/select.h"

#include <stdio.h>

/* One object per model, sweep, window (and factor and head where there are such axes), with the published keys and a few more
 * (docs/result-schema.md). One object alone stands bare; several stand in {"experiments": [...]}. NaN is null. Errors as in tables.h. */
int ks_stats_json_write(FILE *out, const char *const *paths, size_t n, const ks_table_options *opt);

#endif
