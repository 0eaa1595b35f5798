/* Plots: ticks and scales against numbers worked out by hand, exact places in the SVG, and figures of a file with every kind of sweep. */
#include "analysis/figures.h"
#include "analysis/plot.h"
#include "analysis/tables.h"
#include "support/results_file.h"

#include "base/error.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* fontconfig keeps what it read of fonts until the program ends; that is not ours to mend. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libfontconfig";
}

#define N(v) (sizeof(v) / sizeof *(v))

static void ticks_are(ks_scale s, size_t most, const double *expected, size_t n)
{
    double at[KS_TICKS];
    const size_t found = ks_scale_ticks(&s, most, at);
    if (found != n) fail_msg("%g to %g: %zu ticks, expected %zu (first %g)", s.low, s.high, found, n, found ? at[0] : (double)NAN);
    for (size_t i = 0; i < n; i++)
        if (!(fabs(at[i] - expected[i]) <= 1e-12 * fabs(expected[i]))) fail_msg("tick %zu is %g, expected %g", i, at[i], expected[i]);
}

static void test_ticks(void **state)
{
    (void)state;
    ticks_are((ks_scale){KS_SCALE_LINEAR, 0, 10, false}, 6, (double[]){0, 2, 4, 6, 8, 10}, 6);
    ticks_are((ks_scale){KS_SCALE_LINEAR, -0.6, 29.6, false}, 8, (double[]){0, 5, 10, 15, 20, 25}, 6);
    ticks_are((ks_scale){KS_SCALE_LINEAR, -1, 1, false}, 5, (double[]){-1, -0.5, 0, 0.5, 1}, 5);
    ticks_are((ks_scale){KS_SCALE_LINEAR, 0, 3.1e-9, false}, 5, (double[]){0, 1e-9, 2e-9, 3e-9}, 4);
    ticks_are((ks_scale){KS_SCALE_LOG, 1e-6, 1e-2, false}, 8, (double[]){1e-6, 1e-5, 1e-4, 1e-3, 1e-2}, 5);
    ticks_are((ks_scale){KS_SCALE_LOG, 1e-6, 1e-2, false}, 4, (double[]){1e-6, 1e-4, 1e-2}, 3);
    ticks_are((ks_scale){KS_SCALE_LOG, 1.5, 40, false}, 6, (double[]){2, 5, 10, 20}, 4);
    ticks_are((ks_scale){KS_SCALE_LOG, 1.5, 8.5, false}, 9, (double[]){2, 3, 4, 5, 6, 7, 8}, 7);
    ticks_are((ks_scale){KS_SCALE_LOG, NAN, NAN, true}, 9, NULL, 0);
    ticks_are((ks_scale){KS_SCALE_LINEAR, 3, 3, false}, 9, NULL, 0);
    /* Never more than asked for or than there is room, and all inside, over ranges of any size. */
    for (int from = -300; from < 300; from += 7)
        for (int decades = 0; decades < 300 - from; decades += 11)
            for (size_t most = 1; most < 40; most += 6) {
                double at[KS_TICKS];
                const ks_scale s = {KS_SCALE_LOG, 1.3 * pow(10, from), 4.1 * pow(10, from + decades), false};
                const size_t n = ks_scale_ticks(&s, most, at);
                assert_true(n <= most && n <= KS_TICKS);
                for (size_t i = 0; i < n; i++) assert_true(at[i] >= s.low && at[i] <= s.high && (!i || at[i] > at[i - 1]));
            }
}

static void text_is(ks_scale_kind kind, double v, const char *expected)
{
    char text[64];
    const ks_scale s = {kind, 1e-9, 1, false};
    ks_tick_text(text, sizeof text, &s, v);
    assert_string_equal(text, expected);
}

static void test_tick_texts(void **state)
{
    (void)state;
    text_is(KS_SCALE_LOG, 1e-5, "10⁻⁵");
    text_is(KS_SCALE_LOG, 2e-12, "2·10⁻¹²");
    text_is(KS_SCALE_LOG, 1e-3, "0.001");
    text_is(KS_SCALE_LOG, 1e4, "10⁴");
    text_is(KS_SCALE_LOG, 0, "0");
    text_is(KS_SCALE_LINEAR, 0.25, "0.25");
    text_is(KS_SCALE_LINEAR, 3e-9, "3e-09");
}

static void test_places(void **state)
{
    (void)state;
    const ks_scale linear = {KS_SCALE_LINEAR, -1, 3, false}, log = {KS_SCALE_LOG, 1e-8, 1e-4, false},
                   foot = {KS_SCALE_LOG, 1e-8, 1e-4, true}, none = {KS_SCALE_LOG, NAN, NAN, true};
    assert_true(ks_scale_place(&linear, -1) == 0 && ks_scale_place(&linear, 3) == 1 && ks_scale_place(&linear, 0) == 0.25);
    assert_true(fabs(ks_scale_place(&log, 1e-6) - 0.5) < 1e-15 && fabs(ks_scale_place(&log, 1e-4) - 1) < 1e-15);
    assert_true(isnan(ks_scale_place(&log, 0)) && isnan(ks_scale_place(&log, -1e-6)) && isnan(ks_scale_place(&log, NAN)));
    assert_true(isnan(ks_scale_place(&log, INFINITY)));
    /* With a foot every value above 0 stands above it, and 0 below them. */
    assert_true(ks_scale_place(&foot, 1e-8) > ks_scale_place(&foot, 0) + 0.05 && ks_scale_place(&foot, 0) > 0);
    assert_true(fabs(ks_scale_place(&foot, 1e-6) - (ks_scale_place(&foot, 1e-8) + 1) / 2) < 1e-15);
    assert_true(ks_scale_place(&none, 0) > 0 && isnan(ks_scale_place(&none, 1e-6)));
}

static void test_plain_texts(void **state)
{
    (void)state;
    static const struct {
        const char *text, *plain;
        size_t most;
        bool blanks;
    } cases[] = {{"a b", "a b", 9, false},
                 {" a\n\tb", "␣a↵⇥b", 9, true},
                 {"é日𝄞", "é日𝄞", 9, false},
                 {"\x01\x7f", "\xef\xbf\xbd\xef\xbf\xbd", 9, false},
                 {"\xc3", "\xef\xbf\xbd", 9, false},                                 /* cut off */
                 {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 9, false}, /* a surrogate */
                 {"\xc0\xaf\xff", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 9, false}, /* too long a form */
                 {"\xef\xbf\xbf", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 9, false}, /* no character of XML */
                 {"abcdef", "abc…", 4, false},
                 {"abcd", "abcd", 4, false},
                 {"", "", 4, false}};
    for (size_t i = 0; i < N(cases); i++) {
        char *found = ks_plain_text(cases[i].text, cases[i].most, cases[i].blanks);
        assert_non_null(found);
        assert_string_equal(found, cases[i].plain);
        free(found);
    }
}

static ks_plot *one_line(const double *y, size_t n, ks_scale_kind kind)
{
    ks_plot *p = ks_plot_new();
    assert_non_null(p);
    ks_plot_text(p, &p->title, "Title & <more>");
    ks_panel *q = ks_plot_panel(p, KS_SCALE_LINEAR, kind);
    ks_series *s = ks_panel_series(p, q, 0, "series");
    s->line = true;
    s->marker = false;
    for (size_t i = 0; i < n; i++) ks_series_point(p, s, (ks_point){(double)i, y[i], NAN, NAN, false});
    return p;
}

/* The path of the first series: the one of its colour and width. */
static size_t path_points(const char *svg, double x[16], double y[16])
{
    const char *stroke = strstr(svg, "stroke-width:1.4");
    if (stroke) stroke = strstr(stroke + 1, "stroke-width:1.4"); /* the first is the legend's */
    if (!stroke) return 0;
    const char *path = strstr(stroke, " d=\"");
    size_t n = 0;
    for (path += 4; *path && *path != '"' && n < 16;) {
        char *end = NULL;
        if (*path == 'M' || *path == 'L' || *path == ' ') {
            path++;
            continue;
        }
        x[n] = strtod(path, &end);
        if (end == path) break;
        y[n++] = strtod(end, &end);
        path = end;
    }
    return n;
}

static void test_positions_in_svg(void **state)
{
    (void)state;
    const double values[] = {1e-6, 1e-2, 1e-4, 0};
    char *svg = NULL, *again = NULL;
    size_t bytes = 0, more = 0;
    double x[16], y[16];
    ks_plot *p = one_line(values, 4, KS_SCALE_LOG);
    if (ks_plot_svg(p, "name", "A \"title\" & <more>", "Description", &svg, &bytes)) fail_msg("%s", ks_error_text());
    assert_int_equal(strlen(svg), bytes);
    assert_non_null(strstr(svg, "<title>A &quot;title&quot; &amp; &lt;more&gt;</title>"));
    assert_non_null(strstr(svg, "<desc>Description</desc>"));
    assert_null(strstr(svg, "id=\"glyph"));
    assert_int_equal(path_points(svg, x, y), 4);
    const double *f = p->panels[0]->frame;
    /* x from 0 to 3 begins at the frame's edge (0 stays) and ends 4 % before its end; y in decades. */
    for (int i = 0; i < 4; i++) assert_true(fabs(x[i] - (f[0] + f[2] * i / 3.12)) < 0.01);
    assert_true(fabs(y[2] - (y[0] + y[1]) / 2) < 0.01);
    assert_true(y[1] < y[2] && y[2] < y[0] && y[0] < y[3] && y[3] < f[1] + f[3]);
    /* The range is 53 % of four decades on either side of the middle, above a foot of a tenth. */
    assert_true(fabs(y[2] - (f[1] + f[3] * 0.45)) < 0.01);
    assert_true(fabs((y[0] - y[1]) - f[3] * 0.9 / 1.06) < 0.01);
    assert_true(fabs(y[3] - (f[1] + f[3] * 0.96)) < 0.01);
    if (ks_plot_svg(p, "name", "A \"title\" & <more>", "Description", &again, &more)) fail_msg("%s", ks_error_text());
    assert_string_equal(svg, again);
    free(svg);
    free(again);
    ks_plot_free(p);
}

/* A missing value breaks the line; it is not bridged and not 0. */
static void test_gap(void **state)
{
    (void)state;
    const double values[] = {1, 2, NAN, 3, 4};
    char *svg = NULL;
    size_t bytes = 0;
    double x[16], y[16];
    ks_plot *p = one_line(values, 5, KS_SCALE_LINEAR);
    if (ks_plot_svg(p, "n", "", "", &svg, &bytes)) fail_msg("%s", ks_error_text());
    assert_int_equal(path_points(svg, x, y), 4);
    const double step = p->panels[0]->frame[2] / 4.16;
    assert_true(fabs(x[1] - x[0] - step) < 0.01 && fabs(x[2] - x[1] - 2 * step) < 0.01);
    const char *path = strstr(strstr(strstr(svg, "stroke-width:1.4") + 1, "stroke-width:1.4"), " d=\"") + 4;
    size_t moves = 0;
    for (; *path != '"'; path++) moves += *path == 'M';
    assert_int_equal(moves, 2);
    free(svg);
    ks_plot_free(p);
}

static void test_nothing_to_draw(void **state)
{
    (void)state;
    static const double sets[][3] = {{NAN, NAN, NAN}, {0, 0, 0}, {-1, -2, -3}, {INFINITY, NAN, 0}, {1e-300, 1e300, 0}, {5e-324, 0, 1e308}};
    for (size_t i = 0; i < N(sets); i++)
        for (int kind = KS_SCALE_LINEAR; kind <= KS_SCALE_LOG; kind++) {
            char *svg = NULL;
            unsigned char *png = NULL;
            size_t bytes = 0;
            ks_plot *p = one_line(sets[i], 3, (ks_scale_kind)kind);
            if (ks_plot_svg(p, "n", "", "", &svg, &bytes)) fail_msg("%s", ks_error_text());
            assert_null(strstr(svg, "nan"));
            assert_null(strstr(svg, "inf"));
            if (ks_plot_png(p, 72, &png, &bytes)) fail_msg("%s", ks_error_text());
            assert_memory_equal(png, "\x89PNG\r\n\x1a\n", 8);
            free(png);
            free(svg);
            ks_plot_free(p);
        }
}

/* ---- figures ---- */

static char folder[] = "/tmp/kosweep-plot-XXXXXX";
static char path[128];

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/r.h5", folder);
    return rf_write(path);
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static void test_figures(void **state)
{
    (void)state;
    ks_study *study = NULL;
    ks_figures f = {0};
    const ks_table_options opt = {.model = "tiny"};
    if (ks_study_read(&study, path)) fail_msg("%s", ks_error_text());
    if (ks_figures_make(&f, &study, 1, &opt, NULL)) fail_msg("%s", ks_error_text());
    static const char *const names[] = {"layer-scan_layers",
                                        "samples_layers",
                                        "attention-effect_layers",
                                        "layer-scan_all_edge",
                                        "samples_all_edge",
                                        "window-triangle_triangle",
                                        "samples_triangle",
                                        "sliding-windows_slide",
                                        "samples_slide",
                                        "positions_slide_python_doctest",
                                        "positions_slide_rust_test",
                                        "expanding-windows_windows",
                                        "samples_windows",
                                        "heads_heads",
                                        "dose-response_dose"};
    for (size_t i = 0; i < f.n && i < N(names); i++) assert_string_equal(f.list[i].name, names[i]);
    assert_int_equal(f.n, N(names));
    for (size_t i = 0; i < f.n; i++) {
        char *svg = NULL;
        size_t bytes = 0;
        if (ks_figure_svg(&f.list[i], &svg, &bytes)) fail_msg("%s", ks_error_text());
        assert_null(strstr(svg, "nan"));
        assert_true(strlen(f.list[i].caption) > 40 && strlen(f.list[i].alt) > 20);
        assert_true(f.list[i].model == &study->models[0] && f.list[i].sweep);
        free(svg);
    }
    /* The largest mean, worked out again from the cells, stands in the alt text. */
    const ks_study_model *m = &study->models[0];
    const ks_study_sweep *s = f.list[0].sweep;
    double best = NAN;
    for (size_t w = 0; w < s->W; w++)
        for (size_t i = 0; i < m->S; i++) {
            double sum = 0;
            int n = 0;
            for (size_t k = 0; k < m->S; k++) {
                const double kl = s->kl[ks_study_at(m, s, 0, w, 0, k)];
                if (!strcmp(m->groups[k], m->groups[i]) && !isnan(kl)) sum += kl, n++;
            }
            if (n && !(sum / n <= best)) best = sum / n;
        }
    char words[64];
    snprintf(words, sizeof words, "the largest value is %.3g nats", best);
    if (!strstr(f.list[0].alt, words)) fail_msg("\"%s\" is not in \"%s\"", words, f.list[0].alt);
    ks_figures_free(&f);

    if (ks_figures_make(&f, &study, 1, &(ks_table_options){0}, "models")) fail_msg("%s", ks_error_text());
    assert_int_equal(f.n, 1);
    assert_string_equal(f.list[0].name, "models_layers");
    assert_null(f.list[0].model);
    ks_figures_free(&f);
    assert_int_equal(ks_figures_make(&f, &study, 1, &opt, "layer-scn"), KS_EUSAGE);
    assert_non_null(strstr(ks_error_text(), "did you mean \"layer-scan\""));
    ks_study_free(study);
}

/* All zero, all missing, one sample, negative values: words, and never a crash or a "nan" in the picture. */
static void test_awkward_values(void **state)
{
    (void)state;
    static const double values[] = {0, NAN, -1e-3, INFINITY};
    static const char *const words[] = {"All effects are exactly 0", "Nothing was computed yet", "below 0", ""};
    for (size_t v = 0; v < N(values); v++) {
        ks_study *study = NULL;
        ks_figures f = {0};
        if (ks_study_read(&study, path)) fail_msg("%s", ks_error_text());
        ks_study_model *m = &study->models[0];
        for (size_t k = 0; k < m->n_sweeps; k++) {
            ks_study_sweep *s = &m->sweeps[k];
            const size_t cells = s->F * s->W * s->H * m->S;
            for (size_t i = 0; i < cells; i++) {
                s->kl[i] = values[v];
                s->status[i] = v == 1 ? KS_STATUS_NOT_COMPUTED : KS_STATUS_DONE;
            }
            for (size_t i = 0; s->kl_positions && i < cells * m->T; i++) s->kl_positions[i] = values[v];
        }
        if (ks_figures_make(&f, &study, 1, &(ks_table_options){.model = "tiny"}, NULL)) fail_msg("%s", ks_error_text());
        assert_true(f.n > 4);
        for (size_t i = 0; i < f.n; i++) {
            char *svg = NULL;
            size_t bytes = 0;
            if (ks_figure_svg(&f.list[i], &svg, &bytes)) fail_msg("%s", ks_error_text());
            assert_null(strstr(svg, "nan"));
            assert_null(strstr(svg, "inf"));
            if (!strstr(f.list[i].caption, words[v])) fail_msg("%s: no \"%s\" in \"%s\"", f.list[i].name, words[v], f.list[i].caption);
            free(svg);
        }
        ks_figures_free(&f);
        ks_study_free(study);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ticks),           cmocka_unit_test(test_tick_texts),       cmocka_unit_test(test_places),
        cmocka_unit_test(test_plain_texts),     cmocka_unit_test(test_positions_in_svg), cmocka_unit_test(test_gap),
        cmocka_unit_test(test_nothing_to_draw), cmocka_unit_test(test_figures),          cmocka_unit_test(test_awkward_values)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
