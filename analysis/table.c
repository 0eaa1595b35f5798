#define _GNU_SOURCE
#include "analysis/table.h"

#include "base/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

const char *const ks_format_names[] = {"text", "md", "csv", "latex", "json", NULL};

static void append(ks_table *t, char ***list, size_t *n, const char *format, va_list args)
{
    char *s = NULL;
    char **grown = ks_realloc(*list, *n + 1, sizeof *grown);
    if (grown) *list = grown;
    if (!grown || vasprintf(&s, format, args) < 0) {
        t->failed = true;
        return;
    }
    (*list)[(*n)++] = s;
}

void ks_table_title(ks_table *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    free(t->title);
    if (vasprintf(&t->title, format, args) < 0) {
        t->title = NULL;
        t->failed = true;
    }
    va_end(args);
}

void ks_table_column(ks_table *t, bool left, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bool *grown = ks_realloc(t->left, t->n_columns + 1, sizeof *grown);
    if (grown) {
        t->left = grown;
        t->left[t->n_columns] = left;
        append(t, &t->columns, &t->n_columns, format, args);
    } else {
        t->failed = true;
    }
    va_end(args);
}

void ks_table_cell(ks_table *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    append(t, &t->cells, &t->n_cells, format, args);
    va_end(args);
}

void ks_table_note(ks_table *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    append(t, &t->notes, &t->n_notes, format, args);
    va_end(args);
    for (size_t i = 0; i + 1 < t->n_notes; i++)
        if (!strcmp(t->notes[i], t->notes[t->n_notes - 1])) {
            free(t->notes[--t->n_notes]);
            break;
        }
}

void ks_table_number(ks_table *t, double x, const char *mark)
{
    if (isnan(x)) ks_table_cell(t, "-");
    else if (x == 0) ks_table_cell(t, "0%s", mark);
    else ks_table_cell(t, "%.4e%s", x, mark);
}

void ks_table_plain(ks_table *t, double x, int decimals)
{
    if (isnan(x)) ks_table_cell(t, "-");
    else ks_table_cell(t, "%.*f", decimals, x);
}

void ks_table_free(ks_table *t)
{
    for (size_t i = 0; i < t->n_columns; i++) free(t->columns[i]);
    for (size_t i = 0; i < t->n_cells; i++) free(t->cells[i]);
    for (size_t i = 0; i < t->n_notes; i++) free(t->notes[i]);
    free(t->columns);
    free(t->left);
    free(t->cells);
    free(t->notes);
    free(t->title);
    *t = (ks_table){0};
}

int ks_table_list_add(ks_table_list *list, ks_table *t)
{
    int rc = KS_OK;
    KS_REQUIRE(!t->failed && t->title, KS_EMACHINE, "out of memory for a table");
    KS_REQUIRE(t->n_columns && t->n_cells % t->n_columns == 0, KS_EMACHINE, "table \"%s\" has a row of the wrong length", t->title);
    ks_table *grown = ks_realloc(list->v, list->n + 1, sizeof *grown);
    KS_REQUIRE(grown, KS_EMACHINE, "out of memory for a table");
    list->v = grown;
    list->v[list->n++] = *t;
    *t = (ks_table){0};
done:
    ks_table_free(t);
    return rc;
}

void ks_table_list_free(ks_table_list *list)
{
    for (size_t i = 0; i < list->n; i++) ks_table_free(&list->v[i]);
    free(list->v);
    *list = (ks_table_list){0};
}

/* ---- formats ---- */

/* Columns on a terminal: characters, not bytes. */
static int width(const char *s)
{
    int n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

static void pad(FILE *out, int n)
{
    while (n-- > 0) fputc(' ', out);
}

void ks_print_csv(FILE *out, const char *s)
{
    if (!s[strcspn(s, ",\"\r\n")]) {
        fputs(s, out);
        return;
    }
    fputc('"', out);
    for (; *s; s++) {
        if (*s == '"') fputc('"', out);
        fputc(*s, out);
    }
    fputc('"', out);
}

void ks_print_json(FILE *out, const char *s)
{
    fputc('"', out);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') fprintf(out, "\\%c", *s);
        else if ((unsigned char)*s < 0x20) fprintf(out, "\\u%04x", (unsigned)*s);
        else fputc(*s, out);
    }
    fputc('"', out);
}

/* The bytes of the UTF-8 character that s begins with, and its number; 0 where s begins with none. */
static size_t character(const unsigned char *s, uint32_t *number)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    const size_t more = s[0] < 0x80 ? 0 : (s[0] & 0xE0) == 0xC0 ? 1 : (s[0] & 0xF0) == 0xE0 ? 2 : (s[0] & 0xF8) == 0xF0 ? 3 : 4;
    if (more == 4) return 0;
    uint32_t c = more ? s[0] & (0x3Fu >> more) : s[0];
    for (size_t i = 1; i <= more; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0;
        c = c << 6 | (s[i] & 0x3Fu);
    }
    if (c < least[more] || (c >= 0xD800 && c < 0xE000) || c > 0x10FFFF) return 0;
    *number = c;
    return more + 1;
}

/* Marks of direction, and what is there but not to be seen. */
static bool hidden(uint32_t c)
{
    return c == 0x061C || c == 0xAD || (c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) ||
           c == 0xFEFF || (c >= 0xE0000 && c < 0xE0080);
}

void ks_print_html(FILE *out, const char *s)
{
    const unsigned char *p = (const unsigned char *)s;
    while (*p) {
        uint32_t c = 0;
        const size_t n = character(p, &c);
        const bool forbidden = !n || (c < 0x20 && !strchr("\t\n\r", (int)c)) || (c >= 0x7F && c < 0xA0) || (c & 0xFFFE) == 0xFFFE ||
                               (c >= 0xFDD0 && c < 0xFDF0);
        if (forbidden) fputs("\xEF\xBF\xBD", out);
        else if (hidden(c)) fprintf(out, "[U+%04X]", (unsigned)c);
        else if (c == '&') fputs("&amp;", out);
        else if (c == '<') fputs("&lt;", out);
        else if (c == '>') fputs("&gt;", out);
        else if (c == '"') fputs("&quot;", out);
        else if (c == '\'') fputs("&#39;", out);
        else if (c == '\r') fputs("\xE2\x90\x8D", out); /* U+240D: parsers take CR for LF */
        else fwrite(p, 1, n, out);
        p += n ? n : 1;
    }
}

static void print_latex(FILE *out, const char *s)
{
    for (; *s; s++) {
        if (strchr("#$%&_{}", *s)) fprintf(out, "\\%c", *s);
        else if (*s == '\\') fputs("\\textbackslash{}", out);
        else if (*s == '~' || *s == '^') fprintf(out, "\\%c{}", *s);
        else if (*s == '<' || *s == '>' || *s == '|') fprintf(out, "$%c$", *s);
        else fputc(*s, out);
    }
}

static void print_md(FILE *out, const char *s)
{
    for (; *s; s++) {
        if (*s == '|' || *s == '*' || *s == '_') fputc('\\', out);
        fputc(*s, out);
    }
}

static void print_text(const ks_table *t, FILE *out, const int *widths)
{
    int blanks = 0; /* owed: none at the end of a line */
    fprintf(out, "%s\n", t->title);
    for (size_t i = 0; i < t->n_columns + t->n_cells; i++) {
        const size_t c = i < t->n_columns ? i : (i - t->n_columns) % t->n_columns;
        const char *s = i < t->n_columns ? t->columns[i] : t->cells[i - t->n_columns];
        const int spare = widths[c] - width(s);
        pad(out, *s ? blanks + (t->left[c] ? 0 : spare) : 0);
        fputs(s, out);
        blanks = !*s ? blanks + widths[c] + 2 : t->left[c] ? spare + 2 : 2;
        if (c + 1 == t->n_columns) {
            fputc('\n', out);
            blanks = 0;
        }
        if (i + 1 == t->n_columns) { /* a rule under the heads */
            for (size_t k = 0; k < t->n_columns; k++) {
                for (int n = 0; n < widths[k]; n++) fputc('-', out);
                fputs(k + 1 == t->n_columns ? "\n" : "  ", out);
            }
        }
    }
    for (size_t i = 0; i < t->n_notes; i++) fprintf(out, "  %s\n", t->notes[i]);
}

static void print_markdown(const ks_table *t, FILE *out)
{
    fputs("### ", out);
    print_md(out, t->title);
    fputs("\n\n", out);
    for (size_t i = 0; i < t->n_columns + t->n_cells; i++) {
        const bool last = (i + 1) % t->n_columns == 0;
        fputs("| ", out);
        print_md(out, i < t->n_columns ? t->columns[i] : t->cells[i - t->n_columns]);
        fputs(last ? " |\n" : " ", out);
        for (size_t c = 0; i + 1 == t->n_columns && c < t->n_columns; c++)
            fprintf(out, "%s%s", t->left[c] ? "|---" : "|---:", c + 1 == t->n_columns ? "|\n" : "");
    }
    if (t->n_notes) fputc('\n', out);
    for (size_t i = 0; i < t->n_notes; i++) {
        print_md(out, t->notes[i]);
        fputs(i + 1 < t->n_notes ? "  \n" : "\n", out);
    }
}

/* Title and notes as comment lines. */
static void print_table_csv(const ks_table *t, FILE *out)
{
    fprintf(out, "# %s\n", t->title);
    for (size_t i = 0; i < t->n_columns + t->n_cells; i++) {
        ks_print_csv(out, i < t->n_columns ? t->columns[i] : t->cells[i - t->n_columns]);
        fputc((i + 1) % t->n_columns ? ',' : '\n', out);
    }
    for (size_t i = 0; i < t->n_notes; i++) fprintf(out, "# %s\n", t->notes[i]);
}

static void print_table_latex(const ks_table *t, FILE *out)
{
    fputs("\\begin{table} % \\usepackage{booktabs}\n\\caption{", out);
    print_latex(out, t->title);
    fputs("}\n\\begin{tabular}{", out);
    for (size_t c = 0; c < t->n_columns; c++) fputc(t->left[c] ? 'l' : 'r', out);
    fputs("}\n\\toprule\n", out);
    for (size_t i = 0; i < t->n_columns + t->n_cells; i++) {
        print_latex(out, i < t->n_columns ? t->columns[i] : t->cells[i - t->n_columns]);
        fputs((i + 1) % t->n_columns ? " & " : " \\\\\n", out);
        if (i + 1 == t->n_columns) fputs("\\midrule\n", out);
    }
    fputs("\\bottomrule\n\\end{tabular}\n", out);
    for (size_t i = 0; i < t->n_notes; i++) {
        fputs("\n", out);
        print_latex(out, t->notes[i]);
    }
    fputs(t->n_notes ? "\n\\end{table}\n" : "\\end{table}\n", out);
}

static void print_list_json(FILE *out, char *const *v, size_t n)
{
    fputc('[', out);
    for (size_t i = 0; i < n; i++) {
        if (i) fputs(", ", out);
        ks_print_json(out, v[i]);
    }
    fputc(']', out);
}

static void print_table_json(const ks_table *t, FILE *out)
{
    fprintf(out, "{\"table\": \"%s\", \"title\": ", t->name ? t->name : "");
    ks_print_json(out, t->title);
    fputs(", \"columns\": ", out);
    print_list_json(out, t->columns, t->n_columns);
    fputs(", \"rows\": [", out);
    for (size_t i = 0; i < t->n_cells; i += t->n_columns) {
        if (i) fputs(", ", out);
        print_list_json(out, t->cells + i, t->n_columns);
    }
    fputs("], \"notes\": ", out);
    print_list_json(out, t->notes, t->n_notes);
    fputs("}\n", out);
}

/* In a group that scrolls by itself, so that a wide table leaves the page narrow; the first column names its row. */
static void print_table_html(const ks_table *t, FILE *out)
{
    fputs("<div class=\"scroll\" role=\"group\" tabindex=\"0\" aria-label=\"", out);
    ks_print_html(out, t->title);
    fputs("\">\n<table>\n<caption><span>", out);
    ks_print_html(out, t->title);
    fputs("</span></caption>\n<thead><tr>", out);
    for (size_t i = 0; i < t->n_columns; i++) {
        fprintf(out, "<th scope=\"col\"%s>", t->left[i] ? " class=\"left\"" : "");
        ks_print_html(out, t->columns[i]);
        fputs("</th>", out);
    }
    fputs("</tr></thead>\n<tbody>\n", out);
    for (size_t i = 0; i < t->n_cells; i++) {
        const size_t c = i % t->n_columns;
        const char *tag = c ? "td" : "th";
        fprintf(out, "%s<%s%s%s>", c ? "" : "<tr>", tag, c ? "" : " scope=\"row\"", t->left[c] ? " class=\"left\"" : "");
        ks_print_html(out, t->cells[i]);
        fprintf(out, "</%s>%s", tag, c + 1 == t->n_columns ? "</tr>\n" : "");
    }
    fputs("</tbody>\n</table>\n</div>\n", out);
    if (t->n_notes) fputs("<ul class=\"notes\">\n", out);
    for (size_t i = 0; i < t->n_notes; i++) {
        fputs("<li>", out);
        ks_print_html(out, t->notes[i]);
        fputs("</li>\n", out);
    }
    if (t->n_notes) fputs("</ul>\n", out);
}

int ks_table_print(const ks_table *t, FILE *out, int format, bool first)
{
    int rc = KS_OK;
    int *widths = NULL; /* [n_columns] */
    KS_REQUIRE(t->n_columns, KS_EMACHINE, "a table without columns");
    KS_NEW(widths, t->n_columns);
    for (size_t i = 0; i < t->n_columns + t->n_cells; i++) {
        const int w = width(i < t->n_columns ? t->columns[i] : t->cells[i - t->n_columns]);
        int *widest = &widths[i < t->n_columns ? i : (i - t->n_columns) % t->n_columns];
        if (w > *widest) *widest = w;
    }
    if (!first && format != KS_FORMAT_JSON) fputc('\n', out);
    if (format == KS_FORMAT_MARKDOWN) print_markdown(t, out);
    else if (format == KS_FORMAT_CSV) print_table_csv(t, out);
    else if (format == KS_FORMAT_LATEX) print_table_latex(t, out);
    else if (format == KS_FORMAT_JSON) print_table_json(t, out);
    else if (format == KS_FORMAT_HTML) print_table_html(t, out);
    else print_text(t, out, widths);
done:
    free(widths);
    return rc;
}
