/* correlation.h - rank correlations, over samples and over layers and samples. */
#ifndef KS_ANALYSIS_CORRELATION_H
#define KS_ANALYSIS_CORRELATION_H

#include "analysis/stats.h"

#include <stdbool.h>

typedef struct ks_correlation {
    size_t n, missing;   /* complete pairs; pairs with a NaN */
    double rho, tau;     /* Spearman's (1904), Kendall's tau-b (1938, 1945); ties have midranks */
    double p_rho, p_tau; /* exact up to n = 9; else rho by Student's t with n - 2 degrees of freedom, tau by the normal with ties */
    bool exact;          /* p = hits / n!, every order counted */
    uint64_t hits_rho, hits_tau;
    double z_tau;                           /* tau's normal score, without correction for continuity */
    ks_interval interval_rho, interval_tau; /* bootstrap of the samples; none above 500 samples */
    const char *why;
} ks_correlation;

/* Of x [n] and y [n]. */
int ks_correlate(ks_correlation *out, const double *x, const double *y, size_t n, const ks_resample *how);

typedef struct ks_cluster_correlation {
    size_t samples, points, missing;        /* samples and points used; points with a NaN */
    double rho, tau;                        /* over all points */
    ks_interval interval_rho, interval_tau; /* bootstrap of whole samples: the layers of one sample are not independent */
    double within;                          /* mean over samples of Spearman's rho over that sample's layers */
    size_t within_samples;                  /* that have one */
    ks_interval interval_within;            /* bootstrap of the samples */
    const char *why;
} ks_cluster_correlation;

/* Of x and y [layers, samples]. At most 20,000 points. There is no p: points of one sample or of one layer may not be exchanged freely. */
int ks_correlate_layers(ks_cluster_correlation *out, const double *x, const double *y, size_t layers, size_t samples,
                        const ks_resample *how);

#endif
