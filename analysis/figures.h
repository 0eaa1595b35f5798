/* figures.h - the pictures of result files, chosen by what each sweep is. docs/statistics.md lists them. */
#ifndef KS_ANALYSIS_FIGURES_H
#define KS_ANALYSIS_FIGURES_H

#include "analysis/select.h"

#include <stdint.h>
#include <stdio.h>

struct ks_plot;

typedef struct ks_figure {
    const char *kind;            /* "layer-scan": what --only chooses by */
    char *name;                  /* "layer-scan_layers": a file name without its ending, unique among the figures */
    const ks_study_model *model; /* not owned; NULL where the figure is about several */
    const ks_study_sweep *sweep; /* not owned; NULL likewise */
    char *title, *caption, *alt; /* alt: one sentence that says what is to be seen, with numbers */
    struct ks_plot *plot;
} ks_figure;

typedef struct ks_figures {
    ks_figure *list; /* [n], by model, then sweep; those over several models last */
    size_t n;
} ks_figures;

/* The kinds, NULL-terminated. */
extern const char *const ks_figure_kinds[];

/* Makes every figure that fits the chosen models, sweeps, windows and groups; only: "kind,kind" or NULL for all. KS_EUSAGE for an unknown
 * kind and for a choice that fits nothing; no figure that fits is no error. The studies must outlive the figures. */
int ks_figures_make(ks_figures *out, ks_study *const *studies, size_t n, const ks_table_options *opt, const char *only);
void ks_figures_free(ks_figures *f);

/* The figure as SVG: a whole file with title and description inside and ids that begin with its name, so that several may stand in one
 * page. The same figure gives the same bytes. 0-terminated; free with free(). KS_EMACHINE. */
int ks_figure_svg(const ks_figure *f, char **svg, size_t *bytes);
/* As PNG of so many dots per inch. Free with free(). */
int ks_figure_png(const ks_figure *f, double dots_per_inch, unsigned char **png, size_t *bytes);

/* kosweep-stats figures. */
typedef struct ks_figure_files {
    const char *folder; /* NULL: the first file's name without .h5 and "-figures" behind it; made where it is not there */
    const char *only;
    bool svg, png, force; /* force: files that are there are replaced */
} ks_figure_files;

/* Writes the figures' files and prints "FILE: caption" for each to out. Nothing is written where one file is there already and force is
 * off (KS_EUSAGE), or where no figure fits (KS_EUSAGE). KS_EINPUT for result files, KS_EMACHINE for the disk. */
int ks_figures_write(FILE *out, const char *const *paths, size_t n, const ks_table_options *opt, const ks_figure_files *how);

#endif
