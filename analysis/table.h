/* table.h - a table of texts, and the ways to print it. */
#ifndef KS_ANALYSIS_TABLE_H
#define KS_ANALYSIS_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { KS_FORMAT_TEXT, KS_FORMAT_MARKDOWN, KS_FORMAT_CSV, KS_FORMAT_LATEX, KS_FORMAT_JSON, KS_FORMAT_HTML };

/* The formats' names, in that order, NULL-terminated; HTML is for reports and has none. */
extern const char *const ks_format_names[];

typedef struct ks_table {
    const char *name; /* what kind of table: "scan", ... (ks_table_names of tables.h); a literal */
    char *title;
    char **columns; /* [n_columns] */
    bool *left;     /* [n_columns] names stand left, numbers right */
    size_t n_columns;
    char **cells; /* [n_cells] row by row */
    size_t n_cells;
    char **notes; /* [n_notes] lines under the table */
    size_t n_notes;
    bool failed; /* memory ended: print says so */
} ks_table;

/* The builders note a failure of memory in `failed`, so that only ks_table_print needs to be checked. printf style; texts are copied. */
void ks_table_title(ks_table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void ks_table_column(ks_table *t, bool left, const char *format, ...) __attribute__((format(printf, 3, 4)));
void ks_table_cell(ks_table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same note twice stands once. */
void ks_table_note(ks_table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A number in scientific notation with five digits; "0" for 0, "-" for NaN; `mark` (or "") stands behind it. */
void ks_table_number(ks_table *t, double x, const char *mark);
/* A ratio or a statistic of ordinary size; "-" for NaN. */
void ks_table_plain(ks_table *t, double x, int decimals);

void ks_table_free(ks_table *t); /* empties it */

/* Tables in order. */
typedef struct ks_table_list {
    ks_table *v; /* [n] */
    size_t n;
} ks_table_list;
/* Moves the table to the list's end and empties *t. A table whose memory ended or whose last row is not whole is KS_EMACHINE; *t is empty
 * then, too. */
int ks_table_list_add(ks_table_list *list, ks_table *t);
void ks_table_list_free(ks_table_list *list);

/* Prints the table. In JSON one object a line. first: whether this is the output's first table. */
int ks_table_print(const ks_table *t, FILE *out, int format, bool first);

/* A text as CSV, LaTeX, Markdown or HTML needs it; JSON strings with their quotes. */
void ks_print_csv(FILE *out, const char *s);
void ks_print_json(FILE *out, const char *s);
/* For HTML and XML, as content or in a quoted attribute, whatever the bytes: no markup comes of them; what is no UTF-8 and what may not
 * stand in XML is U+FFFD; characters that turn the direction of writing, or cannot be seen, are named ("[U+202E]"). */
void ks_print_html(FILE *out, const char *s);

#endif
