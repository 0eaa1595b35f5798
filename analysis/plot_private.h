/* plot_private.h - text, colours and marks on a cairo context: plot_marks.c draws them, plot_draw.c says where. */
#ifndef KS_ANALYSIS_PLOT_PRIVATE_H
#define KS_ANALYSIS_PLOT_PRIVATE_H

#include "analysis/plot.h"

#include <cairo.h>

#define SMALL 9.0 /* sizes of type, in points */
#define MEDIUM 9.5
#define LARGE 11.0

typedef struct ks_rgb {
    double r, g, b;
} ks_rgb;

enum { KS_COLOURS = 7 };
extern const ks_rgb ks_colours[KS_COLOURS], ks_black, ks_grey, ks_pale, ks_white;

void ks_ink(cairo_t *c, ks_rgb v);
/* The colour of a cell. */
ks_rgb ks_shade(const ks_scale *s, double v);

void ks_font(cairo_t *c, double size, bool bold, bool fixed);
double ks_text_width(cairo_t *c, const char *text);
/* at: 0 the text begins at x, 0.5 its middle is there, 1 it ends there. y is its base line. ks_text_up turns it to the left by 90 degrees.
 */
void ks_text_at(cairo_t *c, double x, double y, double at, const char *text);
void ks_text_up(cairo_t *c, double x, double y, double at, const char *text);
/* Text in lines no wider than `width`, from y on; where the next text may begin. A word that is too long stands as it is. */
double ks_text_lines(cairo_t *c, double x, double y, double width, double size, const char *text, bool dry);

/* Colour, width and dashes of a look's lines, for what is stroked next. */
void ks_look_line(cairo_t *c, int look);
void ks_line(cairo_t *c, double x0, double y0, double x1, double y1);
void ks_marker(cairo_t *c, double x, double y, int look, bool hollow);
void ks_cell(cairo_t *c, const ks_scale *colour, double x, double y, double w, double h, double value, uint8_t kind);
void ks_floor_line(cairo_t *c, double x0, double x1, double y, ks_rgb colour);
/* Behind a token that is marker or target. */
void ks_token_box(cairo_t *c, double x, double y, double w, double h, uint8_t mark);

#endif
