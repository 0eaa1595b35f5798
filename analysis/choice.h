/* choice.h - the effect at a layer that was chosen for its effect, said honestly. */
#ifndef KS_ANALYSIS_CHOICE_H
#define KS_ANALYSIS_CHOICE_H

#include "analysis/stats.h"

#include <stdbool.h>

/* What a layer is chosen for: the largest mean effect, each group counting once, or the largest |mean of group 0 - mean of group 1|. */
typedef enum ks_criterion { KS_CHOOSE_MEAN, KS_CHOOSE_DIFFERENCE } ks_criterion;

typedef struct ks_choice {
    size_t layer;              /* chosen on all samples; the first of equals */
    double same;               /* its effect on the same samples: too large, because it was chosen for it */
    ks_interval same_interval; /* blind to the choice */
    double left_out; /* mean over samples of the effect at the layer chosen without that sample (means of groups, or their difference) */
    ks_interval left_out_interval;
    size_t left_out_same; /* samples without which the same layer is chosen */
    size_t split_layer;   /* chosen on a random half of each group */
    double split;         /* its effect in the other halves */
    ks_interval split_interval;
    double split_same; /* share of how->draws (at most 1000) such halves that choose `layer` */
    const char *why;
} ks_choice;

/* v [layers, samples] (NaN is missing), group [samples]: 0 or 1, any other value leaves the sample out; NULL: one group, and only
 * KS_CHOOSE_MEAN. held_out [samples] or NULL: each sample's effect at the layer chosen without it (NaN for those left out), for any further
 * test. Intervals: bootstrap within groups. Leaving one out, the choices are taken as they are; in the split, choice and effect share no
 * sample, so its interval is valid without further ado, and wide. Signed differences keep the sign of the layer chosen (positive: group 0
 * larger). */
int ks_choose_layer(ks_choice *out, double *held_out, const double *v, size_t layers, const uint8_t *group, size_t samples,
                    ks_criterion criterion, const ks_resample *how);

#endif
