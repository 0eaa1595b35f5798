/* Drawing of plots with cairo. Everything is measured without hinting, so that SVG and PNG of any size have one layout. */
#include "analysis/plot_private.h"
#include "analysis/table.h"

#include "base/mem.h"

#include <cairo-svg.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EDGE 10.0 /* around the picture */
#define GAP 14.0  /* between panels */
#define KEY 22.0  /* a sample in the legend */

/* ---- the legend ---- */

typedef struct legend {
    double x, y, left, right;
    bool any, dry;
} legend;

/* Room for a sample and its name; the sample's left end. */
static double entry(cairo_t *c, legend *l, const char *name)
{
    ks_font(c, SMALL, false, false);
    const double width = KEY + 4 + ks_text_width(c, name) + 14;
    if (l->any && l->x + width - 14 > l->right) l->x = l->left, l->y += SMALL * 1.5;
    const double x = l->x;
    l->any = true;
    l->x += width;
    if (!l->dry) {
        ks_ink(c, ks_black);
        ks_text_at(c, x + KEY + 4, l->y + SMALL, 0, name);
    }
    return x;
}

static bool seen_before(const ks_plot *p, size_t panel, size_t series)
{
    const ks_series *s = p->panels[panel]->series[series];
    for (size_t i = 0; i <= panel; i++)
        for (size_t k = 0; k < (i < panel ? p->panels[i]->n_series : series); k++)
            if (p->panels[i]->series[k]->look == s->look && !strcmp(p->panels[i]->series[k]->name, s->name)) return true;
    return false;
}

static double draw_legend(const ks_plot *p, cairo_t *c, double y, bool dry)
{
    legend l = {.x = EDGE, .y = y, .left = EDGE, .right = p->width - EDGE, .dry = dry};
    bool zero = false, unknown = false;
    for (size_t i = 0; i < p->n_panels; i++) {
        const ks_panel *q = p->panels[i];
        for (size_t k = 0; k < q->n_series; k++) {
            const ks_series *s = q->series[k];
            if (!*s->name || seen_before(p, i, k)) continue;
            const double x = entry(c, &l, s->name), middle = l.y + SMALL * 0.65;
            if (dry) continue;
            ks_look_line(c, s->look);
            if (s->line) ks_line(c, x, middle, x + KEY, middle);
            if (s->bars) cairo_rectangle(c, x + 4, middle - 4, KEY - 8, 8), cairo_fill(c);
            else if (s->marker) ks_marker(c, x + KEY / 2, middle, s->look, s->n && s->points[0].hollow && !p->hollow_name);
        }
        for (size_t k = 0; k < q->rows * q->columns; k++) {
            zero |= q->cell_kind[k] != KS_CELL_ABSENT && q->cell_kind[k] != KS_CELL_UNKNOWN && q->cells[k] == 0;
            unknown |= q->cell_kind[k] == KS_CELL_UNKNOWN;
        }
    }
    if (p->hollow_name) {
        const double x = entry(c, &l, p->hollow_name);
        if (!dry) ks_marker(c, x + KEY / 2, l.y + SMALL * 0.65, 12, true); /* a black circle */
    }
    if (p->floor_name) {
        const double x = entry(c, &l, p->floor_name);
        if (!dry) {
            cairo_rectangle(c, x, l.y + 1, KEY, SMALL - 1);
            ks_ink(c, ks_pale);
            cairo_fill(c);
            ks_floor_line(c, x, x + KEY, l.y + SMALL * 0.6, ks_grey);
        }
    }
    if (p->shade_name) {
        const double x = entry(c, &l, p->shade_name);
        if (!dry) cairo_rectangle(c, x, l.y + 1, KEY, SMALL - 1), ks_ink(c, ks_pale), cairo_fill(c);
    }
    const struct {
        const char *name;
        uint8_t kind;
    } cells[] = {
        {zero ? "exactly 0" : NULL, KS_CELL_VALUE}, {unknown ? "no value" : NULL, KS_CELL_UNKNOWN}, {p->marked_name, KS_CELL_MARKED}};
    for (size_t i = 0; i < 3; i++)
        if (cells[i].name) {
            const double x = entry(c, &l, cells[i].name);
            if (!dry) ks_cell(c, &p->colour, x + KEY - 11, l.y + 0.5, 10, 10, 0, cells[i].kind);
        }
    const char *const boxes[] = {p->marker_name, p->target_name};
    for (size_t i = 0; i < 2; i++)
        if (boxes[i]) {
            const double x = entry(c, &l, boxes[i]);
            if (!dry) ks_token_box(c, x + KEY - 13, l.y + 0.5, 11, 10, i ? KS_MARK_TARGET : KS_MARK_MARKER);
        }
    return l.any ? l.y + SMALL * 1.5 + 4 : y;
}

/* ---- one panel ---- */

static double at_x(const ks_panel *q, double v)
{
    return q->frame[0] + q->frame[2] * ks_scale_place(&q->x.scale, v);
}

/* Cells and names of a vertical axis count from the top, numbers from the bottom. */
static double at_y(const ks_panel *q, double v)
{
    const double p = ks_scale_place(&q->y.scale, v);
    return q->frame[1] + q->frame[3] * (q->y.scale.kind == KS_SCALE_NAMES ? p : 1 - p);
}

static double clamped(double v, double low, double high)
{
    return fmin(fmax(v, low), high);
}

static size_t whole_ticks(const ks_axis *a, size_t most, double at[KS_TICKS])
{
    size_t n = ks_scale_ticks(&a->scale, most, at), kept = 0;
    for (size_t i = 0; i < n; i++)
        if (!a->whole || at[i] == floor(at[i])) at[kept++] = at[i];
    return kept;
}

static size_t ticks_up(const ks_panel *q, double at[KS_TICKS])
{
    return whole_ticks(&q->y, (size_t)fmax(q->height / 24, 2), at);
}

/* Every k-th name of an axis of so many points, for names of that size. */
static size_t name_step(size_t n, double length, double size)
{
    size_t step = 1, shown = n;
    while (n && (double)shown * size > length) step++, shown = 1 + (n - 1) / step;
    return step;
}

static double widest(cairo_t *c, char *const *names, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, ks_text_width(c, names[i]));
    return most;
}

/* Room left of the frame. */
static double left_room(const ks_panel *q, cairo_t *c)
{
    double at[KS_TICKS], most = 0;
    ks_font(c, SMALL, false, false);
    if (q->y.scale.kind == KS_SCALE_NAMES) most = widest(c, q->y.names, q->y.n_names);
    else {
        const size_t n = ticks_up(q, at);
        for (size_t i = 0; i < n; i++) {
            char text[64];
            ks_tick_text(text, sizeof text, &q->y.scale, at[i]);
            most = fmax(most, ks_text_width(c, text));
        }
        if (q->y.scale.zero) most = fmax(most, ks_text_width(c, "0"));
    }
    return most + 8 + (q->y.label ? MEDIUM * 1.5 : 0);
}

static bool slanted(const ks_panel *q, cairo_t *c, double width)
{
    ks_font(c, SMALL, false, false);
    return !q->x.upright && q->x.n_names && widest(c, q->x.names, q->x.n_names) + 6 > width / (double)q->x.n_names;
}

/* Room below the frame. Long names that are few become slanted; window names like "10-12" are thinned out instead. */
static double bottom_room(const ks_panel *q, cairo_t *c, double width)
{
    double room = SMALL + 6;
    if (q->x.upright) {
        ks_font(c, SMALL, false, true);
        room = widest(c, q->x.names, q->x.n_names) + 10;
    } else if (slanted(q, c, width)) {
        room = widest(c, q->x.names, q->x.n_names) * 0.6 + SMALL + 6;
    }
    return room + (q->x.label ? MEDIUM * 1.5 : 0);
}

static double title_room(const ks_panel *q, cairo_t *c, double width)
{
    ks_font(c, MEDIUM, true, false);
    return q->title && *q->title ? ks_text_lines(c, 0, 0, width, MEDIUM, q->title, true) + 3 : 2;
}

static void draw_x_names(const ks_panel *q, cairo_t *c)
{
    const double bottom = q->frame[1] + q->frame[3], step = q->frame[2] / (double)q->x.n_names;
    if (q->x.upright) {
        ks_font(c, SMALL, false, true);
        for (size_t i = 0; i < q->x.n_names; i++) {
            const double x = at_x(q, (double)i);
            if (q->x.marks[i])
                ks_token_box(c, x - step / 2 + 0.6, bottom + 3, step - 1.2, ks_text_width(c, q->x.names[i]) + 5, q->x.marks[i]);
            ks_ink(c, ks_black);
            ks_text_up(c, x + SMALL * 0.34, bottom + 5.5, 1, q->x.names[i]);
        }
        return;
    }
    const bool slant = slanted(q, c, q->frame[2]);
    ks_font(c, SMALL, false, false);
    const size_t every = name_step(q->x.n_names, q->frame[2], slant ? SMALL * 1.5 : 1);
    ks_ink(c, ks_black);
    for (size_t i = 0; i < q->x.n_names; i += every) {
        const double x = at_x(q, (double)i);
        ks_line(c, x, bottom, x, bottom + 3);
        if (!slant) {
            ks_text_at(c, x, bottom + 4 + SMALL, 0.5, q->x.names[i]);
            continue;
        }
        cairo_save(c);
        cairo_translate(c, x + 3, bottom + 5 + SMALL * 0.6);
        cairo_rotate(c, -M_PI / 5);
        ks_text_at(c, 0, 0, 1, q->x.names[i]);
        cairo_restore(c);
    }
}

static void draw_axes(const ks_panel *q, cairo_t *c)
{
    const double left = q->frame[0], top = q->frame[1], right = left + q->frame[2], bottom = top + q->frame[3];
    double at[KS_TICKS];
    char text[64];
    cairo_set_line_width(c, 0.6);
    cairo_set_dash(c, NULL, 0, 0);
    ks_font(c, SMALL, false, false);
    if (q->y.scale.kind == KS_SCALE_NAMES) {
        const size_t every = name_step(q->y.n_names, q->frame[3], SMALL * 1.2);
        for (size_t i = 0; i < q->y.n_names; i += every) {
            ks_ink(c, ks_black);
            ks_text_at(c, left - 5, at_y(q, (double)i) + SMALL * 0.36, 1, q->y.names[i]);
        }
    } else {
        size_t n = ticks_up(q, at);
        for (size_t i = 0; i < n; i++) {
            const double y = at_y(q, at[i]);
            ks_tick_text(text, sizeof text, &q->y.scale, at[i]);
            ks_ink(c, ks_pale);
            ks_line(c, left, y, right, y);
            ks_ink(c, ks_black);
            ks_line(c, left - 3, y, left, y);
            ks_text_at(c, left - 5, y + SMALL * 0.36, 1, text);
        }
        if (q->y.scale.zero) {
            const double y = at_y(q, 0);
            ks_ink(c, ks_pale);
            ks_line(c, left, y, right, y);
            ks_ink(c, ks_black);
            ks_line(c, left - 3, y, left, y);
            ks_text_at(c, left - 5, y + SMALL * 0.36, 1, "0");
        }
    }
    if (q->x.n_names) {
        draw_x_names(q, c);
    } else {
        ks_font(c, SMALL, false, false);
        double room = 18;
        for (int again = 0; again < 2; again++) { /* as many ticks as their texts leave room for */
            const size_t n = whole_ticks(&q->x, (size_t)clamped(q->frame[2] / room, 2, 16), at);
            for (size_t i = 0; i < n; i++) {
                ks_tick_text(text, sizeof text, &q->x.scale, at[i]);
                if (!again) room = fmax(room, ks_text_width(c, text) + 8);
            }
        }
        const size_t n = whole_ticks(&q->x, (size_t)clamped(q->frame[2] / room, 2, 16), at);
        for (size_t i = 0; i < n + q->x.scale.zero; i++) {
            const double v = i < n ? at[i] : 0, x = at_x(q, v);
            ks_tick_text(text, sizeof text, &q->x.scale, v);
            if (!q->cells) {
                ks_ink(c, ks_pale);
                ks_line(c, x, top, x, bottom);
            }
            ks_ink(c, ks_black);
            ks_line(c, x, bottom, x, bottom + 3);
            ks_text_at(c, x, bottom + 4 + SMALL, 0.5, text);
        }
    }
}

static void draw_frame(const ks_panel *q, cairo_t *c)
{
    const double left = q->frame[0], top = q->frame[1], right = left + q->frame[2], bottom = top + q->frame[3];
    ks_ink(c, ks_black);
    cairo_set_line_width(c, 0.8);
    cairo_set_dash(c, NULL, 0, 0);
    cairo_rectangle(c, left, top, q->frame[2], q->frame[3]);
    cairo_stroke(c);
    /* The break between 0 and the logarithmic part: two strokes over a gap of white. */
    if (q->y.scale.zero) {
        const double y = bottom - 0.075 * q->frame[3];
        ks_ink(c, ks_white);
        cairo_rectangle(c, left - 2, y - 1.5, 4, 3);
        cairo_fill(c);
        ks_ink(c, ks_black);
        ks_line(c, left - 3, y + 0.5, left + 3, y - 2.5);
        ks_line(c, left - 3, y + 2.5, left + 3, y - 0.5);
    }
    if (q->x.scale.zero) {
        const double x = left + 0.075 * q->frame[2];
        ks_ink(c, ks_white);
        cairo_rectangle(c, x - 1.5, bottom - 2, 3, 4);
        cairo_fill(c);
        ks_ink(c, ks_black);
        ks_line(c, x - 2.5, bottom + 3, x + 0.5, bottom - 3);
        ks_line(c, x - 0.5, bottom + 3, x + 2.5, bottom - 3);
    }
    ks_font(c, MEDIUM, false, false);
    if (q->y.label) ks_text_up(c, left - left_room(q, c) + MEDIUM, (top + bottom) / 2, 0.5, (ks_font(c, MEDIUM, false, false), q->y.label));
    if (q->x.label) {
        const double y = bottom + bottom_room(q, c, q->frame[2]) - 3;
        ks_font(c, MEDIUM, false, false);
        ks_text_at(c, (left + right) / 2, y, 0.5, q->x.label);
    }
    if (q->title && *q->title) {
        const double room = title_room(q, c, q->frame[2]);
        ks_font(c, MEDIUM, true, false);
        ks_text_lines(c, left, top - room, q->frame[2], MEDIUM, q->title, false);
    }
    if (q->text && *q->text) {
        ks_font(c, SMALL, false, false);
        double height = 0, width = 0;
        for (const char *s = q->text; *s; s += strcspn(s, "|"), s += *s == '|') {
            char part[200];
            snprintf(part, sizeof part, "%.*s", (int)strcspn(s, "|"), s);
            width = fmax(width, ks_text_width(c, part));
            height += SMALL * 1.35;
        }
        cairo_set_source_rgba(c, 1, 1, 1, 0.85);
        cairo_rectangle(c, left + 3, top + 3, width + 8, height + 5);
        cairo_fill(c);
        ks_ink(c, ks_black);
        double y = top + 5;
        for (const char *s = q->text; *s; s += strcspn(s, "|"), s += *s == '|', y += SMALL * 1.35) {
            char part[200];
            snprintf(part, sizeof part, "%.*s", (int)strcspn(s, "|"), s);
            ks_text_at(c, left + 7, y + SMALL, 0, part);
        }
    }
}

static void draw_behind(const ks_panel *q, cairo_t *c)
{
    const double left = q->frame[0], top = q->frame[1], right = left + q->frame[2], bottom = top + q->frame[3];
    const double x0 = at_x(q, q->shade_low), x1 = at_x(q, q->shade_high);
    ks_ink(c, ks_pale);
    if (!isnan(x0) && !isnan(x1)) {
        cairo_rectangle(c, clamped(x0, left, right), top, clamped(x1, left, right) - clamped(x0, left, right), bottom - top);
        cairo_fill(c);
    }
    const double y0 = clamped(at_y(q, q->floor_low), top, bottom), y1 = clamped(at_y(q, q->floor_high), top, bottom);
    if (!isnan(at_y(q, q->floor_low)) && !isnan(at_y(q, q->floor_high))) {
        cairo_rectangle(c, left, y1, right - left, y0 - y1);
        cairo_fill(c);
    }
}

static void draw_series(const ks_panel *q, const ks_series *s, cairo_t *c)
{
    const double top = q->frame[1], bottom = top + q->frame[3];
    bool pen = false;
    cairo_new_path(c);
    for (size_t i = 0; s->line && i < s->n; i++) {
        const double x = at_x(q, s->points[i].x), y = at_y(q, s->points[i].y);
        if (isnan(x) || isnan(y)) pen = false;
        else if (pen) cairo_line_to(c, x, y);
        else cairo_move_to(c, x, y), pen = true;
    }
    ks_look_line(c, s->look);
    cairo_stroke(c);
    cairo_set_dash(c, NULL, 0, 0);
    for (size_t i = 0; i < s->n; i++) {
        const ks_point *p = &s->points[i];
        const double x = at_x(q, p->x), y = at_y(q, p->y);
        if (isnan(x) || isnan(y)) continue;
        ks_ink(c, ks_colours[s->look % KS_COLOURS]);
        if (s->bars) {
            const double w = fmax(at_x(q, p->x + 0.4) - at_x(q, p->x - 0.4), 0.5);
            cairo_rectangle(c, x - w / 2, y, w, bottom - y);
            cairo_fill(c);
            continue;
        }
        double low = at_y(q, p->low), high = at_y(q, p->high);
        if (!isnan(p->low) && !isnan(high)) {
            low = isnan(low) ? bottom : clamped(low, top, bottom); /* an interval down to where the axis has no place */
            high = clamped(high, top, bottom);
            cairo_set_line_width(c, 1);
            ks_line(c, x, low, x, high);
            ks_line(c, x - 2, low, x + 2, low);
            ks_line(c, x - 2, high, x + 2, high);
        }
        if (s->marker) ks_marker(c, x, y, s->look, p->hollow);
    }
}

static void draw_panel(const ks_plot *p, const ks_panel *q, cairo_t *c)
{
    draw_behind(q, c);
    draw_axes(q, c);
    for (size_t i = 0; i < q->n_floors; i++) {
        const double y = at_y(q, q->floors[i]);
        if (!isnan(y)) ks_floor_line(c, q->frame[0], q->frame[0] + q->frame[2], y, ks_colours[q->floor_looks[i] % KS_COLOURS]);
    }
    const double w = q->columns ? q->frame[2] / (double)q->columns : 0, h = q->rows ? q->frame[3] / (double)q->rows : 0;
    for (size_t i = 0; i < q->rows; i++)
        for (size_t k = 0; k < q->columns; k++) {
            const size_t at = i * q->columns + k;
            if (q->cell_kind[at] != KS_CELL_ABSENT)
                ks_cell(c, &p->colour, q->frame[0] + (double)k * w, q->frame[1] + (double)i * h, w, h, q->cells[at], q->cell_kind[at]);
        }
    for (size_t i = 0; i < q->n_series; i++) draw_series(q, q->series[i], c);
    draw_frame(q, c);
}

static void draw_colour_bar(const ks_plot *p, cairo_t *c, double x, double y, double height)
{
    enum { STEPS = 64 };
    const double w = 12;
    ks_scale s = p->colour;
    s.zero = false;
    for (int i = 0; i < STEPS; i++) {
        const double f = (i + 0.5) / STEPS, v = pow(10, log10(s.low) + f * (log10(s.high) - log10(s.low)));
        ks_ink(c, ks_shade(&s, v));
        cairo_rectangle(c, x, y + height * (1 - (i + 1.0) / STEPS), w, height / STEPS + (i ? 0.3 : 0));
        cairo_fill(c);
    }
    ks_ink(c, ks_black);
    cairo_set_line_width(c, 0.8);
    cairo_rectangle(c, x, y, w, height);
    cairo_stroke(c);
    ks_font(c, SMALL, false, false);
    double at[KS_TICKS], most = 0;
    const size_t n = ks_scale_ticks(&s, (size_t)fmax(height / 24, 2), at);
    for (size_t i = 0; i < n; i++) {
        char text[64];
        const double ty = y + height * (1 - ks_scale_place(&s, at[i]));
        ks_tick_text(text, sizeof text, &s, at[i]);
        ks_line(c, x + w, ty, x + w + 3, ty);
        ks_text_at(c, x + w + 5, ty + SMALL * 0.36, 0, text);
        most = fmax(most, ks_text_width(c, text));
    }
    ks_font(c, MEDIUM, false, false);
    if (p->colour_label) ks_text_up(c, x + w + 5 + most + 4 + MEDIUM, y + height / 2, 0.5, p->colour_label);
}

/* ---- the whole ---- */

/* Lays the picture out and, unless dry, draws it; its height. */
static double draw(ks_plot *p, cairo_t *c, bool dry)
{
    double y = EDGE;
    const double width = p->width - 2 * EDGE;
    ks_ink(c, ks_black);
    if (p->title) {
        ks_font(c, LARGE, true, false);
        y = ks_text_lines(c, EDGE, y, width, LARGE, p->title, dry);
    }
    if (p->subtitle) {
        ks_font(c, SMALL, false, false);
        ks_ink(c, ks_black);
        y = ks_text_lines(c, EDGE, y, width, SMALL, p->subtitle, dry);
    }
    y = draw_legend(p, c, y + 4, dry);

    const bool cells = p->n_panels && p->panels[0]->cells && !isnan(p->colour.low);
    const double bar = cells ? 68 : 0, slot = (width - bar - GAP * (double)(p->columns - 1)) / (double)p->columns;
    double frames_top = 0, frames_bottom = 0;
    for (size_t i = 0; i < p->n_panels; i += p->columns) {
        const size_t row = p->n_panels - i < p->columns ? p->n_panels - i : p->columns;
        double above = 0, below = 0, tall = 0;
        for (size_t k = 0; k < row; k++) {
            ks_panel *q = p->panels[i + k];
            double left = 0; /* frames of a column stand below one another */
            for (size_t n = k; n < p->n_panels; n += p->columns) left = fmax(left, left_room(p->panels[n], c));
            q->frame[0] = EDGE + (slot + GAP) * (double)k + left;
            q->frame[2] = slot - left - 6;
            q->frame[3] = q->height;
            above = fmax(above, title_room(q, c, q->frame[2]));
            below = fmax(below, bottom_room(q, c, q->frame[2]));
            tall = fmax(tall, q->height);
        }
        for (size_t k = 0; k < row; k++) {
            p->panels[i + k]->frame[1] = y + above;
            if (!dry) draw_panel(p, p->panels[i + k], c);
        }
        if (i == 0) frames_top = y + above;
        frames_bottom = y + above + tall;
        y = frames_bottom + below + 6;
    }
    if (cells && !dry) draw_colour_bar(p, c, p->width - EDGE - bar + 8, frames_top, fmin(frames_bottom - frames_top, 240));
    ks_font(c, SMALL, false, false);
    for (size_t i = 0; i < p->n_notes; i++) {
        ks_ink(c, ks_black);
        ks_font(c, SMALL, false, false);
        y = ks_text_lines(c, EDGE, y, width, SMALL, p->notes[i], dry);
    }
    return y + EDGE - 4;
}

typedef struct bytes {
    char *data;
    size_t n, room;
} bytes;

static cairo_status_t take(void *to, const unsigned char *data, unsigned n)
{
    bytes *b = to;
    if (b->n + n + 1 > b->room) {
        const size_t room = 2 * (b->n + n) + 4096;
        char *grown = ks_realloc(b->data, room, 1);
        if (!grown) return CAIRO_STATUS_NO_MEMORY;
        b->data = grown;
        b->room = room;
    }
    memcpy(b->data + b->n, data, n);
    b->n += n;
    b->data[b->n] = 0;
    return CAIRO_STATUS_SUCCESS;
}

static cairo_t *context(cairo_surface_t *surface)
{
    cairo_t *c = cairo_create(surface);
    cairo_font_options_t *o = cairo_font_options_create();
    cairo_font_options_set_hint_style(o, CAIRO_HINT_STYLE_NONE);
    cairo_font_options_set_hint_metrics(o, CAIRO_HINT_METRICS_OFF);
    cairo_font_options_set_antialias(o, CAIRO_ANTIALIAS_GRAY);
    cairo_set_font_options(c, o);
    cairo_font_options_destroy(o);
    return c;
}

/* Draws to an SVG (dots = 0) or PNG of the right height. */
static int render(ks_plot *p, double dots, bytes *out)
{
    int rc = KS_OK;
    KS_REQUIRE(!p->failed, KS_EMACHINE, "out of memory while a figure was made");
    ks_plot_fit(p);
    cairo_surface_t *s = cairo_image_surface_create(CAIRO_FORMAT_RGB24, 1, 1);
    cairo_t *c = context(s);
    const double height = ceil(draw(p, c, true)), scale = dots / 72;
    cairo_destroy(c);
    cairo_surface_destroy(s);

    if (dots > 0) s = cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)ceil(p->width * scale), (int)ceil(height * scale));
    else s = cairo_svg_surface_create_for_stream(take, out, p->width, height);
    c = context(s);
    if (dots > 0) cairo_scale(c, scale, scale);
    ks_ink(c, ks_white);
    cairo_paint(c);
    draw(p, c, false);
    cairo_status_t status = cairo_status(c);
    cairo_destroy(c);
    if (!status && dots > 0) status = cairo_surface_write_to_png_stream(s, take, out);
    cairo_surface_finish(s);
    if (!status) status = cairo_surface_status(s);
    cairo_surface_destroy(s);
    KS_REQUIRE(!status, KS_EMACHINE, "cairo cannot draw the figure \"%s\": %s", p->title ? p->title : "", cairo_status_to_string(status));
done:
    return rc;
}

int ks_plot_png(ks_plot *p, double dots_per_inch, unsigned char **out, size_t *n)
{
    bytes b = {0};
    const int rc = render(p, dots_per_inch, &b);
    if (rc) free(b.data);
    else *out = (unsigned char *)b.data, *n = b.n;
    return rc;
}

int ks_plot_svg(ks_plot *p, const char *prefix, const char *title, const char *description, char **out, size_t *n)
{
    int rc = KS_OK;
    bytes b = {0};
    char *text = NULL;
    size_t size = 0;
    FILE *f = NULL;
    KS_TRY(render(p, 0, &b));
    KS_GET(f, open_memstream(&text, &size));
    const char *s = b.data, *root = strstr(s, "<svg");
    KS_REQUIRE(root, KS_EMACHINE, "cairo made no SVG");
    root += strcspn(root, ">");
    for (; s < root; s++) fputc(*s, f);
    fputs(" role=\"img\">\n<title>", f);
    ks_print_html(f, title);
    fputs("</title>\n<desc>", f);
    ks_print_html(f, description);
    fputs("</desc>", f);
    s = root + 1;
    /* cairo's ids repeat from file to file, and the surface's counts the surfaces of the process. */
    static const char *const ids[] = {" id=\"", "href=\"#", "url(#"};
    while (*s) {
        size_t k = 0;
        while (k < 3 && strncmp(s, ids[k], strlen(ids[k])) != 0) k++;
        if (k == 3) {
            fputc(*s++, f);
            continue;
        }
        fputs(ids[k], f);
        ks_print_html(f, prefix);
        fputc('-', f);
        s += strlen(ids[k]);
        if (!strncmp(s, "surface", 7)) {
            s += 7;
            s += strspn(s, "0123456789");
            fputs("picture", f);
        }
    }
    const bool bad = ferror(f);
    KS_REQUIRE(!fclose(f) && !bad, KS_EMACHINE, "out of memory while a figure was written");
    f = NULL;
    *out = text;
    *n = size;
    text = NULL;
done:
    if (f) fclose(f);
    free(text);
    free(b.data);
    return rc;
}
