/* serve.h - root's part of one model's sweep: hand out passes, gather and store results, show progress, react to signals. */
#ifndef KS_SWEEP_SERVE_H
#define KS_SWEEP_SERVE_H

#include "sweep/collect.h"

/* Which ranks take their passes together, since they bring one another weights: each walks through the model once a round. */
enum {
    KS_ROUNDS_NONE,
    KS_ROUNDS_HOST, /* those of a host that share one stream of weights; one without work does not take part */
    KS_ROUNDS_ALL,  /* all, of sharded weights; one without work takes part, with a pass of no units */
};

typedef struct ks_serve_options {
    int rounds;        /* KS_ROUNDS_* */
    double checkpoint; /* seconds: a pass lasts at most about so long, and what is done is soon in the file */
} ks_serve_options;

typedef struct ks_served {
    bool stopped;       /* by a signal, with work left */
    int64_t bytes_read; /* weights, from files, on all ranks */
} ks_served;

/* Serves the workers of all ranks until every unit of the task's plan is done, or a signal asked to stop and all running passes have
 * ended; then every worker has been told the end. A second signal ends all ranks here (exit code 75), after what has come is in the file.
 * Errors: the file's, or the one of a rank that failed (KS_EMACHINE if it fell silent); the workers have not been told then. Root. */
int ks_serve(const ks_task *t, ks_collector *c, ks_results *results, const ks_serve_options *o, ks_served *served);

#endif
