/* plot.h - a picture as data: panels of axes, series, bars and cells, drawn as SVG or PNG.
 * Lengths are points (1/72 inch). Texts are copied; what is no UTF-8 and control characters in them become visible marks.
 * Builders note a failure of memory in `failed`, so that only ks_plot_draw needs to be checked. */
#ifndef KS_ANALYSIS_PLOT_H
#define KS_ANALYSIS_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KS_TICKS = 32 };

typedef enum ks_scale_kind {
    KS_SCALE_LINEAR,
    KS_SCALE_LOG,
    KS_SCALE_NAMES /* 0, 1, ... are names */
} ks_scale_kind;

typedef struct ks_scale {
    ks_scale_kind kind;
    double low, high; /* the values at the ends; both NaN: a log scale without any value above 0 */
    bool zero;        /* log: exact zeros stand at a foot of their own, behind a break of the axis */
} ks_scale;

/* Where v stands, 0 at the beginning and 1 at the end (beyond these where v is outside); NaN where v has no place: NaN, infinite, and on a
 * log scale what is below 0, or is 0 without a foot. */
double ks_scale_place(const ks_scale *s, double v);
/* At most min(most, KS_TICKS) round values inside the scale, ascending; on a log scale the foot's 0 is not among them. */
size_t ks_scale_ticks(const ks_scale *s, size_t most, double at[KS_TICKS]);
/* "0.25", "10⁻³", "2·10⁻⁵" */
void ks_tick_text(char *text, size_t bytes, const ks_scale *s, double v);

typedef struct ks_axis {
    char *label; /* with its unit */
    ks_scale scale;
    bool fixed; /* low and high are given; else ks_plot_draw finds them from what is shown */
    bool whole; /* only whole numbers are ticks */
    char **names;
    uint8_t *marks; /* [n_names] KS_MARK_... */
    size_t n_names;
    bool upright; /* names stand at right angles to a horizontal axis, in a font of fixed width */
} ks_axis;
enum { KS_MARK_NONE, KS_MARK_MARKER = 1, KS_MARK_TARGET = 2 };

typedef struct ks_point {
    double x, y;
    double low, high; /* of an interval of y; NaN: none */
    bool hollow;
} ks_point;

typedef struct ks_series {
    char *name; /* in the legend; "": not there. Series of one name and look stand there once */
    int look;   /* colour, dashes and marker */
    bool line, marker, bars;
    ks_point *points;
    size_t n, room;
} ks_series;

enum { KS_CELL_ABSENT, KS_CELL_VALUE, KS_CELL_UNKNOWN, KS_CELL_MARKED };

typedef struct ks_panel {
    char *title, *text; /* text: in a corner of the panel */
    ks_axis x, y;
    ks_series *series[64];
    size_t n_series;
    double floors[16]; /* horizontal lines in the colours of these looks */
    int floor_looks[16];
    size_t n_floors;
    double floor_low, floor_high; /* a horizontal band; NaN: none */
    double shade_low, shade_high; /* a vertical band behind everything; NaN: none */
    double *cells;                /* [rows, columns] at y = 0 .. rows - 1 from the top, x = 0 .. columns - 1; NULL: none */
    uint8_t *cell_kind;           /* [rows, columns] */
    size_t rows, columns;
    double height;   /* of the frame */
    double frame[4]; /* left, top, width, height: set by drawing */
} ks_panel;

typedef struct ks_plot {
    char *title, *subtitle;
    ks_panel *panels[64];
    size_t n_panels, columns; /* of the grid of panels */
    double width;
    bool share_x, share_y; /* all panels get the same range */
    ks_scale colour;       /* of cells, found from them */
    char *colour_label;
    char *floor_name, *shade_name, *hollow_name, *marked_name, *marker_name, *target_name; /* in the legend; NULL: not there */
    char *notes[16];
    size_t n_notes;
    bool failed;
} ks_plot;

/* NULL where memory ends. */
ks_plot *ks_plot_new(void);
void ks_plot_free(ks_plot *p);

/* *text = the formatted text, cleaned. */
void ks_plot_text(ks_plot *p, char **text, const char *format, ...) __attribute__((format(printf, 3, 4)));
void ks_plot_note(ks_plot *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The next panel or series; NULL after a failure or where the array is full, which the other builders take. */
ks_panel *ks_plot_panel(ks_plot *p, ks_scale_kind x, ks_scale_kind y);
ks_series *ks_panel_series(ks_plot *p, ks_panel *panel, int look, const char *name);
void ks_series_point(ks_plot *p, ks_series *s, ks_point point);
void ks_axis_name(ks_plot *p, ks_axis *a, uint8_t mark, const char *name);
/* All absent. */
void ks_panel_cells(ks_plot *p, ks_panel *panel, size_t rows, size_t columns);
void ks_panel_cell(ks_panel *panel, size_t row, size_t column, double value, uint8_t kind);

/* Finds the ranges of all scales; ks_plot_draw does it. */
void ks_plot_fit(ks_plot *p);

/* Draws the picture. png: of dots_per_inch; else SVG with the title, description and prefix of ids given. *out is 0-terminated and the
 * caller's to free. KS_EMACHINE. */
int ks_plot_svg(ks_plot *p, const char *prefix, const char *title, const char *description, char **out, size_t *bytes);
int ks_plot_png(ks_plot *p, double dots_per_inch, unsigned char **out, size_t *bytes);

/* Copy of a text that is valid UTF-8 without control characters: line ends, tabs and, with blanks, spaces become ↵ ⇥ ␣, all else that does
 * not belong there U+FFFD. At most `most` characters, the last then being "…". NULL where memory ends. */
char *ks_plain_text(const char *text, size_t most, bool blanks);

#endif
