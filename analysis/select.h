/* select.h - which models, sweeps, windows and groups of a file a command is about, and the numbers of a group. */
#ifndef KS_ANALYSIS_SELECT_H
#define KS_ANALYSIS_SELECT_H

#include "analysis/reader.h"
#include "analysis/stats.h"

/* What the command line chose. NULL and has_window = false: everything that fits. */
typedef struct ks_table_options {
    const char *model, *sweep;
    const char *groups; /* "a,b" */
    bool has_window;
    int32_t window_start, window_end;
    int format;       /* KS_FORMAT_... of table.h */
    const char *only; /* "name,name" of tables, or "all"; NULL: those that need no asking */
    uint64_t seed;    /* of resampling; 0: 1 */
    uint64_t draws;   /* of resampling; 0: as each table says */
} ks_table_options;

/* The groups of a model in order of their first sample; with options->groups only those, in that order (an unknown one is KS_EUSAGE).
 * tests: the first two that are no "*_baseline", or the first two chosen ones: tables compare these. */
typedef struct ks_groups {
    const char **names; /* [n] not owned: they live in the model */
    size_t n;
    const char *tests[2]; /* NULL where there is none */
} ks_groups;
int ks_groups_choose(ks_groups *out, const ks_study_model *m, const ks_table_options *o);
void ks_groups_free(ks_groups *g);

/* "python_test" and "x_baseline" -> whether the name ends in "_baseline". */
bool ks_is_baseline(const char *group);

bool ks_chosen_model(const ks_table_options *o, const ks_study_model *m);
bool ks_chosen_sweep(const ks_table_options *o, const ks_study_sweep *s);
bool ks_chosen_window(const ks_table_options *o, const ks_study_sweep *s, size_t window);

/* KS_EUSAGE when nothing in the files is chosen; names what there is. */
int ks_check_choice(ks_study *const *studies, size_t n, const ks_table_options *o);

/* KL of a group's samples in one (factor, window, head), and what stands beside them. */
typedef struct ks_group_cell {
    ks_summary kl;
    double floor; /* mean over the samples that count in kl and have one; NaN if none has */
    double above; /* share of these that lie above their own floor; NaN if none has one */
    size_t status[KS_STATUSES];
    size_t top_changed;
} ks_group_cell;
int ks_group_measure(ks_group_cell *out, const ks_study_model *m, const ks_study_sweep *s, size_t factor, size_t window, size_t head,
                     const char *group);

/* KL and floor of a group's samples in one (factor, window, head), in the file's order; NaN where there is none. kl and floor [m->S] are
 * the caller's; returns how many. */
size_t ks_group_values(double *kl, double *floor, const ks_study_model *m, const ks_study_sweep *s, size_t factor, size_t window,
                       size_t head, const char *group);

#endif
