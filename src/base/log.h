/* log.h - what the program says on stderr, one line per event. stdout carries results only. Any thread may call. */
#ifndef KS_BASE_LOG_H
#define KS_BASE_LOG_H

enum { KS_LOG_ERROR, KS_LOG_WARN, KS_LOG_INFO, KS_LOG_DEBUG };

/* Highest level that is printed; default KS_LOG_INFO (--quiet: KS_LOG_WARN, --verbose: KS_LOG_DEBUG). */
void ks_log_set_level(int level);

/* Rank that is put in front of every line ("[rank 3] "); -1, the default, for none. Ranks other than 0 print only warnings and errors. */
void ks_log_set_rank(int rank);

/* The same error twice in a row is said once: two threads may see the end of a rank. */
void ks_log(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Progress, called as often as one likes: on a terminal a line that overwrites itself, elsewhere one plain line a minute (or every
 * KOSWEEP_PROGRESS seconds, from the environment). An empty text ends it. */
void ks_log_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Seconds since an arbitrary start, monotonic. */
double ks_seconds(void);

#endif
