#include "analysis/plot.h"

#include "base/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- scales ---- */

/* A foot for exact zeros takes this part of a log axis; zero stands in its middle. */
#define FOOT 0.10
#define ZERO 0.04

double ks_scale_place(const ks_scale *s, double v)
{
    if (!isfinite(v)) return NAN;
    if (s->kind != KS_SCALE_LOG) return s->high > s->low ? (v - s->low) / (s->high - s->low) : (double)NAN;
    if (v == 0) return s->zero ? ZERO : (double)NAN;
    if (v < 0 || isnan(s->low)) return NAN;
    const double p = (log10(v) - log10(s->low)) / (log10(s->high) - log10(s->low));
    return s->zero ? FOOT + (1 - FOOT) * p : p;
}

static size_t linear_ticks(const ks_scale *s, size_t most, double *at)
{
    const double span = s->high - s->low;
    if (!(span > 0) || !isfinite(span) || !most) return 0;
    const double decade = pow(10, floor(log10(span / (double)most)));
    static const double steps[] = {1, 2, 5, 10, 20, 50, 100};
    for (size_t k = 0; k < sizeof steps / sizeof *steps; k++) {
        const double step = steps[k] * decade;
        const double first = ceil(s->low / step - 1e-9), last = floor(s->high / step + 1e-9);
        if (last - first + 1 > (double)most) continue;
        size_t n = 0;
        for (; first + (double)n <= last; n++) at[n] = first + (double)n == 0 ? 0 : (first + (double)n) * step;
        return n;
    }
    return 0;
}

static size_t log_ticks(const ks_scale *s, size_t most, double *at)
{
    if (isnan(s->low) || !most) return 0;
    const double a = log10(s->low) - 1e-9, b = log10(s->high) + 1e-9;
    const int first = (int)ceil(a), last = (int)floor(b);
    size_t n = 0;
    if (last - first >= 2) {
        const int every = (last - first) / (int)most + 1;
        /* Whole multiples, so that the ticks do not jump when the range grows by a decade. */
        for (int k = first; k <= last; k++)
            if (((k % every) + every) % every == 0 && n < most) at[n++] = pow(10, k);
        return n;
    }
    static const double parts[3][9] = {{1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 2, 5}, {1}};
    static const size_t counts[] = {9, 3, 1};
    for (int choice = 0; choice < 3; choice++) {
        n = 0;
        for (int k = (int)floor(a); k <= last; k++)
            for (size_t i = 0; i < counts[choice]; i++) {
                const double v = parts[choice][i] * pow(10, k);
                if (log10(v) < a || log10(v) > b) continue;
                if (n < KS_TICKS) at[n] = v;
                n++;
            }
        if (n <= most) return n;
    }
    return 0;
}

size_t ks_scale_ticks(const ks_scale *s, size_t most, double at[KS_TICKS])
{
    if (most > KS_TICKS) most = KS_TICKS;
    return s->kind == KS_SCALE_LOG ? log_ticks(s, most, at) : linear_ticks(s, most, at);
}

static void power_text(char *text, size_t bytes, int exponent)
{
    static const char *const digits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
    char plain[16];
    snprintf(plain, sizeof plain, "%d", exponent);
    snprintf(text, bytes, "10");
    for (const char *c = plain; *c; c++) {
        const size_t n = strlen(text);
        snprintf(text + n, bytes - n, "%s", *c == '-' ? "⁻" : digits[*c - '0']);
    }
}

void ks_tick_text(char *text, size_t bytes, const ks_scale *s, double v)
{
    if (s->kind != KS_SCALE_LOG || v == 0 || (v >= 0.00095 && v < 9500)) {
        snprintf(text, bytes, "%.6g", v);
        return;
    }
    const int exponent = (int)floor(log10(v) + 1e-9);
    const double part = v / pow(10, exponent);
    char power[64];
    power_text(power, sizeof power, exponent);
    if (fabs(part - 1) < 1e-6) snprintf(text, bytes, "%s", power);
    else snprintf(text, bytes, "%.3g·%s", part, power);
}

/* ---- texts ---- */

/* Bytes of the UTF-8 character at s, 0 where there is none that XML and cairo take. */
static size_t utf8_length(const unsigned char *s)
{
    if (s[0] < 0x80) return s[0] >= 0x20 && s[0] != 0x7f;
    const size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4) return 0;
    uint32_t c = s[0] & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    return c >= least[n] && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff) && c != 0xfffe && c != 0xffff && (c > 0x9f) ? n : 0;
}

char *ks_plain_text(const char *text, size_t most, bool blanks)
{
    char *out = ks_calloc(strlen(text) + 1, 4); /* a mark takes up to 3 bytes */
    if (!out) return NULL;
    size_t n = 0, characters = 0, before = 0;
    for (const unsigned char *s = (const unsigned char *)text; *s; characters++) {
        if (characters == most) {
            memcpy(out + before, "…", sizeof "…");
            return out;
        }
        before = n;
        const size_t length = utf8_length(s);
        const char *mark = *s == '\n' ? "↵" : *s == '\t' ? "⇥" : *s == ' ' && blanks ? "␣" : length ? NULL : "\xef\xbf\xbd";
        if (mark) n += (size_t)snprintf(out + n, 4, "%s", mark);
        else memcpy(out + n, s, length), n += length;
        s += length ? length : 1;
    }
    out[n] = 0;
    return out;
}

static void set_text(ks_plot *p, char **text, const char *format, va_list args)
{
    char raw[2048];
    vsnprintf(raw, sizeof raw, format, args);
    free(*text);
    *text = ks_plain_text(raw, sizeof raw, false);
    if (!*text) p->failed = true;
}

void ks_plot_text(ks_plot *p, char **text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set_text(p, text, format, args);
    va_end(args);
}

void ks_plot_note(ks_plot *p, const char *format, ...)
{
    if (p->n_notes == sizeof p->notes / sizeof *p->notes) return;
    va_list args;
    va_start(args, format);
    set_text(p, &p->notes[p->n_notes++], format, args);
    va_end(args);
}

/* ---- building ---- */

ks_plot *ks_plot_new(void)
{
    ks_plot *p = ks_calloc(1, sizeof *p);
    if (!p) return NULL;
    p->width = 468; /* 6.5 inches: the text of a letter page */
    p->columns = 1;
    p->colour = (ks_scale){KS_SCALE_LOG, NAN, NAN, false};
    return p;
}

static void axis_free(ks_axis *a)
{
    free(a->label);
    for (size_t i = 0; i < a->n_names; i++) free(a->names[i]);
    free(a->names);
    free(a->marks);
}

void ks_plot_free(ks_plot *p)
{
    if (!p) return;
    for (size_t i = 0; i < p->n_panels; i++) {
        ks_panel *q = p->panels[i];
        for (size_t k = 0; k < q->n_series; k++) {
            free(q->series[k]->name);
            free(q->series[k]->points);
            free(q->series[k]);
        }
        axis_free(&q->x);
        axis_free(&q->y);
        free(q->title);
        free(q->text);
        free(q->cells);
        free(q->cell_kind);
        free(q);
    }
    for (size_t i = 0; i < p->n_notes; i++) free(p->notes[i]);
    free(p->title);
    free(p->subtitle);
    free(p->colour_label);
    free(p->floor_name);
    free(p->shade_name);
    free(p->hollow_name);
    free(p->marked_name);
    free(p->marker_name);
    free(p->target_name);
    free(p);
}

ks_panel *ks_plot_panel(ks_plot *p, ks_scale_kind x, ks_scale_kind y)
{
    if (p->n_panels == sizeof p->panels / sizeof *p->panels) return NULL;
    ks_panel *q = ks_calloc(1, sizeof *q);
    if (!q) {
        p->failed = true;
        return NULL;
    }
    q->x.scale = (ks_scale){x, NAN, NAN, false};
    q->y.scale = (ks_scale){y, NAN, NAN, false};
    q->floor_low = q->floor_high = q->shade_low = q->shade_high = NAN;
    q->height = 200;
    p->panels[p->n_panels++] = q;
    return q;
}

ks_series *ks_panel_series(ks_plot *p, ks_panel *panel, int look, const char *name)
{
    if (!panel || panel->n_series == sizeof panel->series / sizeof *panel->series) return NULL;
    ks_series *s = ks_calloc(1, sizeof *s);
    if (s) s->name = ks_plain_text(name, 64, false);
    if (!s || !s->name) {
        free(s);
        p->failed = true;
        return NULL;
    }
    s->look = look;
    s->marker = true;
    panel->series[panel->n_series++] = s;
    return s;
}

void ks_series_point(ks_plot *p, ks_series *s, ks_point point)
{
    if (!s) return;
    if (s->n == s->room) {
        const size_t room = s->room ? 2 * s->room : 16;
        ks_point *points = ks_realloc(s->points, room, sizeof *points);
        if (!points) {
            p->failed = true;
            return;
        }
        s->points = points;
        s->room = room;
    }
    s->points[s->n++] = point;
}

void ks_axis_name(ks_plot *p, ks_axis *a, uint8_t mark, const char *name)
{
    char **names = ks_realloc(a->names, a->n_names + 1, sizeof *names);
    if (names) a->names = names;
    uint8_t *marks = ks_realloc(a->marks, a->n_names + 1, sizeof *marks);
    if (marks) a->marks = marks;
    char *text = ks_plain_text(name, a->upright ? 14 : 32, a->upright);
    if (!names || !marks || !text) {
        free(text);
        p->failed = true;
        return;
    }
    names[a->n_names] = text;
    marks[a->n_names++] = mark;
}

void ks_panel_cells(ks_plot *p, ks_panel *panel, size_t rows, size_t columns)
{
    if (!panel) return;
    panel->cells = ks_calloc(rows * columns, sizeof *panel->cells);
    panel->cell_kind = ks_calloc(rows * columns, 1);
    if (panel->cells && panel->cell_kind) panel->rows = rows, panel->columns = columns;
    else p->failed = true;
}

void ks_panel_cell(ks_panel *panel, size_t row, size_t column, double value, uint8_t kind)
{
    if (!panel || row >= panel->rows || column >= panel->columns) return;
    panel->cells[row * panel->columns + column] = value;
    panel->cell_kind[row * panel->columns + column] = isfinite(value) && value >= 0 ? kind : KS_CELL_UNKNOWN;
}

/* ---- ranges ---- */

typedef struct range {
    double low, high;
    bool zero; /* an exact zero was met on a log scale */
} range;

static void widen(range *r, ks_scale_kind kind, double v)
{
    if (!isfinite(v)) return;
    if (kind == KS_SCALE_LOG && v <= 0) {
        r->zero |= v == 0;
        return;
    }
    if (isnan(r->low) || v < r->low) r->low = v;
    if (isnan(r->high) || v > r->high) r->high = v;
}

static void finish(ks_scale *s, range r)
{
    s->zero = r.zero;
    s->low = r.low;
    s->high = r.high;
    if (s->kind == KS_SCALE_LOG) {
        if (isnan(r.low)) return;
        /* At least a decade, so that noise does not look like a mountain. */
        const double a = log10(r.low), b = log10(r.high), span = b - a < 1 ? 1 : b - a, middle = (a + b) / 2;
        s->low = fmax(pow(10, middle - span * 0.53), 1e-307);
        s->high = fmin(pow(10, middle + span * 0.53), 1e307);
        return;
    }
    if (isnan(r.low)) s->low = 0, s->high = 1;
    double span = s->high - s->low;
    if (!(span > 0)) span = s->low != 0 ? fabs(s->low) : 1;
    if (s->kind == KS_SCALE_NAMES) return;
    if (s->low != 0) s->low -= span * 0.04; /* a scale that begins at 0 stays there */
    s->high += span * 0.04;
}

static range axis_range(const ks_panel *q, bool vertical, range r)
{
    const ks_axis *a = vertical ? &q->y : &q->x;
    for (size_t i = 0; i < q->n_series; i++)
        for (size_t k = 0; k < q->series[i]->n; k++) {
            const ks_point *c = &q->series[i]->points[k];
            /* What will not be drawn asks for no room. */
            if (isnan(c->x) || isnan(c->y)) continue;
            widen(&r, a->scale.kind, vertical ? c->y : c->x);
            if (vertical && q->series[i]->bars) widen(&r, a->scale.kind, 0);
            if (vertical) widen(&r, a->scale.kind, c->low), widen(&r, a->scale.kind, c->high);
        }
    if (vertical) widen(&r, a->scale.kind, q->floor_low), widen(&r, a->scale.kind, q->floor_high);
    for (size_t i = 0; vertical && i < q->n_floors; i++) widen(&r, a->scale.kind, q->floors[i]);
    return r;
}

static void fit_axis(ks_plot *p, bool vertical, bool share)
{
    range all = {NAN, NAN, false};
    for (size_t i = 0; share && i < p->n_panels; i++) all = axis_range(p->panels[i], vertical, all);
    for (size_t i = 0; i < p->n_panels; i++) {
        ks_axis *a = vertical ? &p->panels[i]->y : &p->panels[i]->x;
        if (a->fixed) continue;
        if (a->scale.kind == KS_SCALE_NAMES) a->scale.low = -0.5, a->scale.high = (double)a->n_names - 0.5;
        else finish(&a->scale, share ? all : axis_range(p->panels[i], vertical, (range){NAN, NAN, false}));
    }
}

void ks_plot_fit(ks_plot *p)
{
    range colour = {NAN, NAN, false};
    fit_axis(p, false, p->share_x);
    fit_axis(p, true, p->share_y);
    for (size_t i = 0; i < p->n_panels; i++)
        for (size_t k = 0; k < p->panels[i]->rows * p->panels[i]->columns; k++)
            if (p->panels[i]->cell_kind[k] == KS_CELL_VALUE || p->panels[i]->cell_kind[k] == KS_CELL_MARKED)
                widen(&colour, KS_SCALE_LOG, p->panels[i]->cells[k]);
    finish(&p->colour, colour);
}
