/* report_private.h - shared by report*.c. Functions that print write HTML that is well-formed XML, too; texts of files go through
 * ks_print_html. */
#ifndef KS_ANALYSIS_REPORT_PRIVATE_H
#define KS_ANALYSIS_REPORT_PRIVATE_H

#include "analysis/tables_private.h"

#include <stdarg.h>

/* What a sweep says, in plain text. */
typedef struct ks_finding {
    bool warning;   /* about the data, not a result */
    char *text;     /* one sentence with its numbers and the test's name */
    char **caveats; /* [n_caveats] sentences */
    size_t n_caveats;
} ks_finding;
typedef struct ks_findings {
    ks_finding *v; /* [n] */
    size_t n;
    size_t tests; /* how many of them are tests of groups: over several sweeps there is no correction */
    bool failed;  /* memory ended; ks_findings_sweep says so */
} ks_findings;

/* Appends what the chosen cells of v's sweep say. v->list is not used. KS_EMACHINE. */
int ks_findings_sweep(ks_findings *out, const ks_view *v);
void ks_findings_free(ks_findings *f);

/* One factor, window and head: the cell of the largest mean effect over the test groups, each counting once (the first of equals). */
typedef struct ks_place {
    size_t factor, window, head;
    bool found; /* false where no chosen cell has a value */
} ks_place;
int ks_report_peak(ks_place *out, const ks_view *v);
/* "layer 3", "layers 2-4, head 5, scale 0.5" */
ks_label ks_place_label(const ks_study_sweep *s, const ks_place *p);
size_t ks_group_size(const ks_study_model *m, const char *group);

/* The texts of the chosen groups' samples of one model, with their effects; opt and g are the model's. */
int ks_report_samples(FILE *out, const ks_study *study, const ks_study_model *m, const ks_groups *g, const ks_table_options *opt);

/* The page's style sheet and script, without anything that XML or HTML would take for markup. */
extern const char ks_report_style[], ks_report_script[];

/* printf whose arguments %s are texts of files. */
void ks_report_text(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
