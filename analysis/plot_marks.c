#include "analysis/plot_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Okabe and Ito's colours, those first that are far apart in lightness, too. */
const ks_rgb ks_colours[KS_COLOURS] = {{0, 0.447, 0.698},     {0.835, 0.369, 0}, {0, 0.620, 0.451}, {0.800, 0.475, 0.655},
                                       {0.337, 0.706, 0.914}, {0, 0, 0},         {0.902, 0.624, 0}};
enum { MARKERS = 6 };

/* Viridis at nine places, dark to light. */
static const ks_rgb viridis[] = {{0.267, 0.005, 0.329}, {0.280, 0.166, 0.476}, {0.230, 0.322, 0.546},
                                 {0.173, 0.449, 0.558}, {0.128, 0.567, 0.551}, {0.158, 0.684, 0.502},
                                 {0.369, 0.789, 0.383}, {0.678, 0.864, 0.190}, {0.993, 0.906, 0.144}};

const ks_rgb ks_black = {0.1, 0.1, 0.1}, ks_grey = {0.45, 0.45, 0.45}, ks_pale = {0.90, 0.90, 0.90}, ks_white = {1, 1, 1};

void ks_ink(cairo_t *c, ks_rgb v)
{
    cairo_set_source_rgb(c, v.r, v.g, v.b);
}

/* Dark is much: on white paper that is what is seen first. */
ks_rgb ks_shade(const ks_scale *s, double v)
{
    if (v == 0 || isnan(ks_scale_place(s, v))) return ks_white;
    const double low = log10(s->low), p = fmin(fmax((log10(v) - low) / (log10(s->high) - low), 0), 1);
    const double x = (1 - p) * 8;
    const int i = x >= 8 ? 7 : (int)x;
    const double f = x - i;
    const ks_rgb a = viridis[i], b = viridis[i + 1];
    return (ks_rgb){a.r + f * (b.r - a.r), a.g + f * (b.g - a.g), a.b + f * (b.b - a.b)};
}

/* ---- text ---- */

void ks_font(cairo_t *c, double size, bool bold, bool fixed)
{
    cairo_select_font_face(c, fixed ? "DejaVu Sans Mono" : "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(c, size);
}

double ks_text_width(cairo_t *c, const char *text)
{
    cairo_text_extents_t e;
    cairo_text_extents(c, text, &e);
    return e.x_advance;
}

void ks_text_at(cairo_t *c, double x, double y, double at, const char *text)
{
    cairo_move_to(c, x - at * ks_text_width(c, text), y);
    cairo_show_text(c, text);
}

void ks_text_up(cairo_t *c, double x, double y, double at, const char *text)
{
    cairo_save(c);
    cairo_translate(c, x, y);
    cairo_rotate(c, -M_PI / 2);
    ks_text_at(c, 0, 0, at, text);
    cairo_restore(c);
}

/* The width of the first n bytes. */
static double part_width(cairo_t *c, const char *text, size_t n, char part[512])
{
    snprintf(part, 512, "%.*s", (int)(n < 511 ? n : 511), text);
    return ks_text_width(c, part);
}

double ks_text_lines(cairo_t *c, double x, double y, double width, double size, const char *text, bool dry)
{
    char part[512];
    do {
        size_t fits = strcspn(text, " ");
        while (text[fits]) {
            const size_t longer = fits + 1 + strcspn(text + fits + 1, " ");
            if (part_width(c, text, longer, part) > width) break;
            fits = longer;
        }
        part_width(c, text, fits, part);
        if (!dry) ks_text_at(c, x, y + size, 0, part);
        y += size * 1.3;
        text += fits;
        while (*text == ' ') text++;
    } while (*text);
    return y;
}

/* ---- marks ---- */

void ks_look_line(cairo_t *c, int look)
{
    static const double dashes[][4] = {{0}, {5, 2.5}, {1.2, 1.8}, {6, 2, 1.2, 2}, {9, 2}};
    static const int counts[] = {0, 2, 2, 4, 2};
    ks_ink(c, ks_colours[look % KS_COLOURS]);
    cairo_set_line_width(c, 1.4);
    cairo_set_dash(c, dashes[look % 5], counts[look % 5], 0);
}

void ks_marker(cairo_t *c, double x, double y, int look, bool hollow)
{
    const double r = 2.9;
    cairo_new_path(c);
    switch (look % MARKERS) {
    case 0:
        cairo_arc(c, x, y, r, 0, 2 * M_PI);
        break;
    case 1:
        cairo_rectangle(c, x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8);
        break;
    case 2:
        cairo_move_to(c, x, y - r * 1.2), cairo_line_to(c, x + r * 1.1, y + r * 0.8), cairo_line_to(c, x - r * 1.1, y + r * 0.8);
        break;
    case 3:
        cairo_move_to(c, x, y - r * 1.3), cairo_line_to(c, x + r * 1.3, y), cairo_line_to(c, x, y + r * 1.3),
            cairo_line_to(c, x - r * 1.3, y);
        break;
    case 4:
        cairo_move_to(c, x, y + r * 1.2), cairo_line_to(c, x + r * 1.1, y - r * 0.8), cairo_line_to(c, x - r * 1.1, y - r * 0.8);
        break;
    default:
        cairo_move_to(c, x - r, y - r), cairo_line_to(c, x + r, y - r), cairo_line_to(c, x, y), cairo_line_to(c, x + r, y + r),
            cairo_line_to(c, x - r, y + r), cairo_line_to(c, x, y);
        break;
    }
    cairo_close_path(c);
    ks_ink(c, hollow ? ks_white : ks_colours[look % KS_COLOURS]);
    cairo_fill_preserve(c);
    cairo_set_dash(c, NULL, 0, 0);
    cairo_set_line_width(c, 1);
    ks_ink(c, ks_colours[look % KS_COLOURS]);
    cairo_stroke(c);
}

void ks_line(cairo_t *c, double x0, double y0, double x1, double y1)
{
    cairo_move_to(c, x0, y0);
    cairo_line_to(c, x1, y1);
    cairo_stroke(c);
}

void ks_cell(cairo_t *c, const ks_scale *colour, double x, double y, double w, double h, double value, uint8_t kind)
{
    const double inset = fmin(w, h) > 5 ? 0.4 : fmin(w, h) > 2.5 ? 0.15 : 0;
    cairo_rectangle(c, x + inset, y + inset, w - 2 * inset, h - 2 * inset);
    ks_ink(c, kind == KS_CELL_UNKNOWN ? ks_pale : ks_shade(colour, value));
    cairo_fill(c);
    cairo_set_dash(c, NULL, 0, 0);
    cairo_set_line_width(c, 0.5);
    ks_ink(c, ks_grey);
    if (kind == KS_CELL_UNKNOWN) {
        ks_line(c, x + inset, y + inset, x + w - inset, y + h - inset);
        ks_line(c, x + inset, y + h - inset, x + w - inset, y + inset);
    } else if (value == 0) {
        cairo_rectangle(c, x + inset + 0.25, y + inset + 0.25, w - 2 * inset - 0.5, h - 2 * inset - 0.5);
        cairo_stroke(c);
    }
    if (kind == KS_CELL_MARKED) {
        const double r = fmin(fmin(w, h) * 0.22, 2.5);
        cairo_arc(c, x + w / 2, y + h / 2, r, 0, 2 * M_PI);
        ks_ink(c, ks_white);
        cairo_fill_preserve(c);
        ks_ink(c, ks_black);
        cairo_stroke(c);
    }
}

void ks_floor_line(cairo_t *c, double x0, double x1, double y, ks_rgb colour)
{
    static const double dash[] = {3, 2};
    ks_ink(c, colour);
    cairo_set_line_width(c, 1);
    cairo_set_dash(c, dash, 2, 0);
    ks_line(c, x0, y, x1, y);
    cairo_set_dash(c, NULL, 0, 0);
}

void ks_token_box(cairo_t *c, double x, double y, double w, double h, uint8_t mark)
{
    static const double dash[] = {2, 1.5};
    cairo_rectangle(c, x, y, w, h);
    ks_ink(c, mark & KS_MARK_MARKER ? (ks_rgb){1, 0.85, 0.55} : (ks_rgb){0.80, 0.90, 0.97});
    cairo_fill_preserve(c);
    ks_ink(c, mark & KS_MARK_MARKER ? ks_colours[1] : ks_colours[0]);
    cairo_set_line_width(c, mark & KS_MARK_MARKER ? 1.2 : 0.8);
    cairo_set_dash(c, dash, mark & KS_MARK_MARKER ? 0 : 2, 0);
    cairo_stroke(c);
    cairo_set_dash(c, NULL, 0, 0);
}
