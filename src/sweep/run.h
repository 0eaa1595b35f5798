/* run.h - a whole sweep: prepare, share, compute, gather, write. */
#ifndef KS_SWEEP_RUN_H
#define KS_SWEEP_RUN_H

#include "input/config.h"

/* Collective. Every rank calls it with the same command line; only root needs cfg to name files that it can read. command_line goes into
 * the provenance. A failure on one rank ends all of them with one message. */
int ks_run(const ks_config *cfg, const char *command_line);

/* Cores of this rank: those that the launcher bound it to, else its share of the host's. */
int ks_default_threads(void);

#endif
