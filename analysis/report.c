#define _GNU_SOURCE
#include "analysis/report.h"

#include "analysis/figures.h"
#include "analysis/report_private.h"

#include "base/mem.h"
#include "base/sha256.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What the page is made of. */
typedef struct page {
    FILE *out;
    ks_study **studies; /* [n] */
    size_t n;
    const ks_table_options *opt;
    ks_figures figures;
    size_t findings, tables, pictures;
} page;

void ks_report_text(FILE *out, const char *format, ...)
{
    va_list args;
    char *s = NULL;
    va_start(args, format);
    if (vasprintf(&s, format, args) < 0) fputs("(out of memory)", out);
    else ks_print_html(out, s);
    va_end(args);
    free(s);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* "smollm2", and with several files "smollm2 of x.h5". */
static void print_model(const page *p, const ks_study *study, const ks_study_model *m)
{
    if (p->n > 1) ks_report_text(p->out, "%s of %s", m->name, base_name(study->path));
    else ks_print_html(p->out, m->name);
}

/* ---- the counts that say whether all is there ---- */

typedef struct tally {
    size_t cells, absent, infinite;
} tally;

static void count(tally *t, const ks_study_model *m, const ks_study_sweep *s, const ks_groups *g, const ks_table_options *opt)
{
    for (size_t f = 0; f < s->F; f++)
        for (size_t w = 0; w < s->W; w++)
            for (size_t h = 0; ks_chosen_window(opt, s, w) && h < s->H; h++)
                for (size_t i = 0; i < m->S; i++) {
                    size_t k = 0;
                    while (k < g->n && strcmp(g->names[k], m->groups[i]) != 0) k++;
                    if (k == g->n) continue;
                    const size_t at = ks_study_at(m, s, f, w, h, i);
                    t->cells++;
                    t->absent += s->status[at] == KS_STATUS_NOT_COMPUTED;
                    t->infinite += isnan(s->kl[at]) && s->status[at] != KS_STATUS_NOT_COMPUTED;
                }
}

static int count_all(const page *p, tally *t)
{
    int rc = KS_OK;
    ks_groups g = {0};
    for (size_t f = 0; f < p->n; f++)
        for (size_t i = 0; i < p->studies[f]->n_models; i++) {
            const ks_study_model *m = &p->studies[f]->models[i];
            if (!ks_chosen_model(p->opt, m)) continue;
            KS_TRY(ks_groups_choose(&g, m, p->opt));
            for (size_t k = 0; k < m->n_sweeps; k++)
                if (ks_chosen_sweep(p->opt, &m->sweeps[k])) count(t, m, &m->sweeps[k], &g, p->opt);
            ks_groups_free(&g);
        }
done:
    ks_groups_free(&g);
    return rc;
}

/* ---- head ---- */

/* The script's fingerprint as a content security policy names it. */
static void print_fingerprint(FILE *out, const char *text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    ks_sha256 s;
    uint8_t d[33] = {0};
    ks_sha256_init(&s);
    ks_sha256_update(&s, text, strlen(text));
    ks_sha256_final(&s, d);
    for (size_t i = 0; i < 33; i += 3) {
        const uint32_t v = (uint32_t)d[i] << 16 | (uint32_t)d[i + 1] << 8 | d[i + 2];
        for (unsigned k = 0; k < 4; k++) fputc(i == 30 && k == 3 ? '=' : digits[v >> (18 - 6 * k) & 63], out);
    }
}

static int print_head(page *p)
{
    int rc = KS_OK;
    FILE *out = p->out;
    tally t = {0};
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\" />\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src &#39;none&#39;; style-src &#39;unsafe-inline&#39;; "
          "base-uri &#39;none&#39;; form-action &#39;none&#39;; script-src &#39;sha256-",
          out);
    print_fingerprint(out, ks_report_script);
    fputs("&#39;\" />\n<meta name=\"generator\" content=\"kosweep-stats " KS_VERSION "\" />\n<title>", out);
    for (size_t f = 0; f < p->n; f++) ks_report_text(out, "%s%s", f ? ", " : "", base_name(p->studies[f]->path));
    fprintf(out,
            " - kosweep report</title>\n<style>\n%s</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#main\">Skip to the report</a>\n"
            "<header>\n<h1>Attention knockout: ",
            ks_report_style);
    for (size_t f = 0; f < p->n; f++) ks_report_text(out, "%s%s", f ? ", " : "", base_name(p->studies[f]->path));
    fputs("</h1>\n<p>What a language model predicts next when one place of a text may no longer look at others, layer by layer, compared "
          "with the model left alone.</p>\n",
          out);
    KS_TRY(count_all(p, &t));
    if (t.absent)
        fprintf(out,
                "<p class=\"warning\" role=\"note\"><strong>Unfinished: %zu of %zu values (%.3g %%) are not computed yet.</strong> "
                "Every number here is about the rest and may change.</p>\n",
                t.absent, t.cells, 100 * (double)t.absent / (double)t.cells);
    if (t.infinite)
        fprintf(out, "<p class=\"warning\" role=\"note\"><strong>%zu of %zu values are not finite</strong> and are left out.</p>\n",
                t.infinite, t.cells);
    for (size_t f = 0; f < p->n; f++)
        if (p->studies[f]->config && !*p->studies[f]->run.ended) {
            fputs("<p class=\"warning\" role=\"note\">", out);
            ks_report_text(out, "%s does not say that its run ended: it was killed, is still going on, or another program wrote the file.",
                           base_name(p->studies[f]->path));
            fputs("</p>\n", out);
        }
    fputs("</header>\n<nav aria-label=\"Contents\"><ul>\n"
          "<li><a href=\"#asked\">What was asked</a></li>\n<li><a href=\"#found\">What was found</a></li>\n"
          "<li><a href=\"#reading\">How to read this</a></li>\n<li><a href=\"#samples\">Samples</a></li>\n"
          "<li><a href=\"#tables\">Tables</a></li>\n<li><a href=\"#run\">What was run</a></li>\n</ul></nav>\n<main id=\"main\">\n",
          out);
done:
    return rc;
}

/* ---- what was asked ---- */

static void print_table(page *p, ks_table *t, int *rc)
{
    if (!*rc) *rc = ks_table_print(t, p->out, KS_FORMAT_HTML, true);
    ks_table_free(t);
    p->tables++;
}

static int asked_model(page *p, const ks_study *study, const ks_study_model *m)
{
    int rc = KS_OK;
    ks_groups g = {0};
    ks_table t = {0}, u = {0};
    bool floor = false;
    KS_TRY(ks_groups_choose(&g, m, p->opt));
    for (size_t i = 0; i < m->S; i++) floor |= !isnan(m->floor[i]);
    fputs("<h3>Model ", p->out);
    print_model(p, study, m);
    fputs("</h3>\n<dl class=\"facts\">\n", p->out);
    fprintf(p->out, "<dt>size</dt><dd>%d layers of %d heads</dd>\n<dt>marker</dt><dd>", (int)m->n_layers, (int)m->n_heads);
    ks_print_html(p->out, *study->marker ? study->marker : "not in the file");
    fputs("</dd>\n<dt>special tokens</dt><dd>", p->out);
    ks_print_html(p->out, *study->special_tokens ? study->special_tokens : "not in the file");
    fputs("</dd>\n<dt>precision</dt><dd>", p->out);
    ks_print_html(p->out, m->precision);
    fprintf(p->out, "</dd>\n<dt>floor</dt><dd>%s</dd>\n</dl>\n", floor ? "measured" : "not measured");

    ks_table_title(&t, "Sweeps of %s", m->name);
    static const char *const columns[] = {"sweep", "what is done", "edges", "heads", "windows", "positions", "values there"};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) ks_table_column(&t, i < 6, "%s", columns[i]);
    for (size_t k = 0; k < m->n_sweeps; k++) {
        const ks_study_sweep *s = &m->sweeps[k];
        tally c = {0};
        char values[200] = "";
        size_t windows = 0;
        if (!ks_chosen_sweep(p->opt, s)) continue;
        count(&c, m, s, &g, p->opt);
        for (size_t w = 0; w < s->W; w++) windows += ks_chosen_window(p->opt, s, w);
        for (size_t f = 0; f < s->F && !isnan(s->values[f]); f++)
            snprintf(values + strlen(values), sizeof values - strlen(values), "%s%.4g", f ? ", " : " ", s->values[f]);
        ks_table_cell(&t, "%s", s->name);
        ks_table_cell(&t, "%s%s", s->kind, values);
        ks_table_cell(&t, "%s", s->edges);
        ks_table_cell(&t, "%s", s->heads);
        ks_table_cell(&t, "%zu%s%s%s", windows, *s->windows ? " (" : "", s->windows, *s->windows ? ")" : "");
        ks_table_cell(&t, "%s", s->positions);
        ks_table_cell(&t, "%zu of %zu", c.cells - c.absent - c.infinite, c.cells);
    }
    print_table(p, &t, &rc);
    if (rc) goto done;
    ks_table_title(&u, "Groups of samples");
    ks_table_column(&u, true, "group");
    ks_table_column(&u, false, "samples");
    ks_table_column(&u, true, "part");
    for (size_t i = 0; i < g.n; i++) {
        ks_table_cell(&u, "%s", g.names[i]);
        ks_table_cell(&u, "%zu", ks_group_size(m, g.names[i]));
        ks_table_cell(&u, "%s", g.names[i] == g.tests[0] || g.names[i] == g.tests[1] ? "tested" : "shown only");
    }
    print_table(p, &u, &rc);
done:
    ks_groups_free(&g);
    return rc;
}

/* ---- findings and figures ---- */

static int print_figure(page *p, const ks_figure *f)
{
    int rc = KS_OK;
    char *svg = NULL;
    size_t bytes;
    KS_TRY(ks_figure_svg(f, &svg, &bytes));
    const char *body = strstr(svg, "<svg"); /* behind the XML declaration */
    KS_REQUIRE(body, KS_EMACHINE, "figure %s is no SVG", f->name);
    fprintf(p->out, "<figure>\n<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"");
    ks_print_html(p->out, f->title);
    fprintf(p->out, "\">\n%s</div>\n<figcaption>", body);
    ks_print_html(p->out, f->caption);
    fputs("</figcaption>\n</figure>\n", p->out);
done:
    free(svg);
    return rc;
}

static int found_sweep(page *p, const ks_view *v, size_t *tests)
{
    int rc = KS_OK;
    ks_findings f = {0};
    KS_TRY(ks_findings_sweep(&f, v));
    fputs("<h3>", p->out);
    print_model(p, v->study, v->m);
    ks_report_text(p->out, ", sweep %s: %s of %s", v->s->name, v->s->kind, v->s->edges);
    fputs("</h3>\n<ul class=\"findings\">\n", p->out);
    for (size_t i = 0; i < f.n; i++) {
        fprintf(p->out, "<li%s><p>%s", f.v[i].warning ? " class=\"warning\"" : "", f.v[i].warning ? "<strong>" : "");
        ks_print_html(p->out, f.v[i].text);
        fputs(f.v[i].warning ? "</strong></p>" : "</p>", p->out);
        if (f.v[i].n_caveats) fputs("\n<ul class=\"caveats\">\n", p->out);
        for (size_t k = 0; k < f.v[i].n_caveats; k++) {
            fputs("<li>", p->out);
            ks_print_html(p->out, f.v[i].caveats[k]);
            fputs("</li>\n", p->out);
        }
        fputs(f.v[i].n_caveats ? "</ul></li>\n" : "</li>\n", p->out);
        p->findings += !f.v[i].warning;
    }
    fputs("</ul>\n", p->out);
    *tests += f.tests;
    for (size_t i = 0; i < p->figures.n; i++)
        if (p->figures.list[i].sweep == v->s) KS_TRY(print_figure(p, &p->figures.list[i]));
done:
    ks_findings_free(&f);
    return rc;
}

static int print_found(page *p)
{
    int rc = KS_OK;
    ks_groups g = {0};
    FILE *page_out = p->out;
    char *text = NULL; /* written first, printed after the warning that counts its tests */
    size_t tests = 0, rest = 0, bytes = 0;
    fputs("<section id=\"found\" aria-labelledby=\"found-h\">\n<h2 id=\"found-h\">What was found</h2>\n"
          "<p>Each statement comes from the named test or is a plain description; what it does not say stands below it.</p>\n",
          p->out);
    p->out = open_memstream(&text, &bytes);
    KS_REQUIRE(p->out, KS_EMACHINE, "out of memory for the findings");
    for (size_t f = 0; f < p->n; f++)
        for (size_t i = 0; i < p->studies[f]->n_models; i++) {
            const ks_study_model *m = &p->studies[f]->models[i];
            if (!ks_chosen_model(p->opt, m)) continue;
            KS_TRY(ks_groups_choose(&g, m, p->opt));
            for (size_t k = 0; k < m->n_sweeps; k++) {
                const ks_view v = {.m = m, .s = &m->sweeps[k], .g = &g, .opt = p->opt, .study = p->studies[f]};
                size_t windows = 0;
                for (size_t w = 0; w < v.s->W; w++) windows += ks_chosen_window(p->opt, v.s, w);
                if (ks_chosen_sweep(p->opt, v.s) && windows) KS_TRY(found_sweep(p, &v, &tests));
            }
            ks_groups_free(&g);
        }
    for (size_t i = 0; i < p->figures.n; i++) rest += !p->figures.list[i].sweep;
    if (rest) fputs("<h3>Further figures</h3>\n", p->out);
    for (size_t i = 0; i < p->figures.n; i++)
        if (!p->figures.list[i].sweep) KS_TRY(print_figure(p, &p->figures.list[i]));
    if (tests > 1)
        fprintf(page_out,
                "<p class=\"warning\">Groups are compared in %zu sweeps. Each comparison is corrected for the windows of its own sweep, "
                "none for "
                "the other sweeps: were the groups equal, one or more of %zu would come out at p &lt;= 0.05 with a chance of up to %.0f "
                "%%.</p>\n",
                tests, tests, 100 * fmin(1, 0.05 * (double)tests));
    fputs("</section>\n", p->out);
done:
    if (p->out && p->out != page_out && fclose(p->out) && !rc) rc = ks_error(KS_EMACHINE, "out of memory for the findings");
    p->out = page_out;
    if (!rc) fwrite(text, 1, bytes, page_out);
    free(text);
    ks_groups_free(&g);
    return rc;
}

/* ---- the rest ---- */

static const char reading[] =
    "<section id=\"reading\" aria-labelledby=\"reading-h\">\n<h2 id=\"reading-h\">How to read this</h2>\n<dl>\n"
    "<dt><strong>Effect</strong></dt><dd>KL(baseline || ablated) of the next-token distribution at the last position, in nats: 0 is no "
    "change; "
    "below 0.001 at most 2.2 % of the probability can have moved, below 0.01 at most 7 %, below 0.1 at most 22 % (Pinsker).</dd>\n"
    "<dt><strong>Floor</strong></dt><dd>The KL that comes of rounding the model&#39;s residual stream to bf16. An effect at or below it "
    "(marked *) "
    "is computed correctly, but the usual deployed precision would bury it.</dd>\n"
    "<dt><strong>Needed</strong></dt><dd>An effect says that this model, on these texts, uses these edges in these layers. A small effect "
    "of "
    "one layer does not say the edges are not needed: other layers can stand in. Only windows show that.</dd>\n"
    "<dt><strong>Correlated</strong></dt><dd>Attention strength is what the model left alone does. That it goes with an effect is no "
    "cause.</dd>\n"
    "<dt><strong>p</strong></dt><dd>How often chance alone, splitting the same samples at random, looks at least as different. It is "
    "neither the "
    "chance that groups are equal nor a size. <em>Adjusted</em>: corrected for all windows of the sweep that were looked at.</dd>\n"
    "<dt><strong>Interval</strong></dt><dd>95 %, by bootstrap of the samples (BCa, seeded). It speaks of samples like these.</dd>\n"
    "</dl>\n"
    "<p><strong>Method.</strong> Edges are removed before the softmax in the layers of a window, everything else is left; effects are "
    "computed as differences, not as two forward passes, so they are right relative to themselves however small. Groups are compared by "
    "permutation of Welch&#39;s t with the max-T correction of Westfall and Young (1993). Result schema kosweep-1; report by "
    "kosweep-stats " KS_VERSION ".</p>\n</section>\n";

static int print_samples(page *p)
{
    int rc = KS_OK;
    ks_groups g = {0};
    fputs("<section id=\"samples\" aria-labelledby=\"samples-h\">\n<h2 id=\"samples-h\">Samples</h2>\n"
          "<p>Token by token: <mark class=\"target\">target</mark> (underlined), <mark class=\"marker\">marker</mark> (bold, dark), "
          "effects at "
          "each sweep&#39;s largest mean effect. A token&#39;s number appears under the pointer.</p>\n",
          p->out);
    for (size_t f = 0; f < p->n; f++)
        for (size_t i = 0; i < p->studies[f]->n_models; i++) {
            const ks_study_model *m = &p->studies[f]->models[i];
            if (!ks_chosen_model(p->opt, m)) continue;
            KS_TRY(ks_groups_choose(&g, m, p->opt));
            fputs("<h3>Model ", p->out);
            print_model(p, p->studies[f], m);
            fputs("</h3>\n", p->out);
            KS_TRY(ks_report_samples(p->out, p->studies[f], m, &g, p->opt));
            ks_groups_free(&g);
        }
    fputs("</section>\n", p->out);
done:
    ks_groups_free(&g);
    return rc;
}

static int print_tables(page *p)
{
    int rc = KS_OK;
    ks_table_list list = {0};
    fputs("<section id=\"tables\" aria-labelledby=\"tables-h\">\n<h2 id=\"tables-h\">Tables</h2>\n", p->out);
    KS_TRY(ks_tables_build(&list, p->studies, p->n, p->opt));
    for (size_t i = 0; i < list.n; i++) KS_TRY(ks_table_print(&list.v[i], p->out, KS_FORMAT_HTML, true));
    p->tables += list.n;
    fputs("</section>\n", p->out);
done:
    ks_table_list_free(&list);
    return rc;
}

static void fact(page *p, const char *name, const char *text)
{
    fputs("<dt>", p->out);
    ks_print_html(p->out, name);
    fputs("</dt><dd>", p->out);
    ks_print_html(p->out, text && *text ? text : "not in the file");
    fputs("</dd>\n", p->out);
}

static void number_fact(page *p, const char *name, int32_t x)
{
    char text[16] = "";
    if (x) snprintf(text, sizeof text, "%d", (int)x);
    fact(p, name, text);
}

static void print_run(page *p)
{
    fputs("<section id=\"run\" aria-labelledby=\"run-h\">\n<h2 id=\"run-h\">What was run</h2>\n", p->out);
    for (size_t f = 0; f < p->n; f++) {
        const ks_study *s = p->studies[f];
        const ks_study_run *r = &s->run;
        fputs("<h3>", p->out);
        ks_report_text(p->out, "File %s", base_name(s->path));
        fputs("</h3>\n", p->out);
        if (s->config) {
            fputs("<dl class=\"facts\">\n", p->out);
            fact(p, "begun", r->time);
            fact(p, "ended", *r->ended ? r->ended : "the file does not say");
            fact(p, "host", r->host);
            number_fact(p, "ranks", r->ranks);
            number_fact(p, "threads", r->threads);
            fact(p, "backend", r->backend);
            fact(p, "device", r->device);
            fact(p, "instructions", r->isa);
            fact(p, "versions", r->versions);
            fact(p, "command", r->command_line);
            fact(p, "corpus SHA-256", s->corpus_sha256);
            fputs("</dl>\n", p->out);
            if (*r->history) {
                fputs("<p>The file goes on with earlier runs (time, host, ranks, threads, backend, command):</p>\n<pre>", p->out);
                ks_print_html(p->out, r->history);
                fputs("</pre>\n", p->out);
            }
        } else fputs("<p>The file does not say: it lacks what kosweep writes about its runs.</p>\n", p->out);
        for (size_t i = 0; i < s->n_models; i++) {
            const ks_study_model *m = &s->models[i];
            if (!ks_chosen_model(p->opt, m)) continue;
            fputs("<h4>", p->out);
            ks_report_text(p->out, "Model %s", m->name);
            fputs("</h4>\n<dl class=\"facts\">\n", p->out);
            fact(p, "id", *m->id ? m->id : "none: a directory");
            fact(p, "revision", *m->revision ? m->revision : "none");
            fact(p, "architecture", m->architecture);
            number_fact(p, "vocabulary", m->vocab);
            fact(p, "weights", m->weight_dtype);
            fact(p, "weights SHA-256", m->weights_sha256);
            fact(p, "tokenizer SHA-256", m->tokenizer_sha256);
            fact(p, "config SHA-256", m->config_sha256);
            fputs("</dl>\n", p->out);
        }
        if (s->config) {
            fputs("<details><summary>Configuration, as stored in the file</summary>\n<pre>", p->out);
            ks_print_html(p->out, s->config);
            fputs("</pre>\n</details>\n", p->out);
        }
    }
    fputs("</section>\n", p->out);
}

static int print_page(page *p)
{
    int rc = KS_OK;
    KS_TRY(ks_check_choice(p->studies, p->n, p->opt));
    KS_TRY(ks_figures_make(&p->figures, p->studies, p->n, p->opt, NULL));
    p->pictures = p->figures.n;
    KS_TRY(print_head(p));
    fputs("<section id=\"asked\" aria-labelledby=\"asked-h\">\n<h2 id=\"asked-h\">What was asked</h2>\n", p->out);
    for (size_t f = 0; f < p->n; f++)
        for (size_t i = 0; i < p->studies[f]->n_models; i++)
            if (ks_chosen_model(p->opt, &p->studies[f]->models[i])) KS_TRY(asked_model(p, p->studies[f], &p->studies[f]->models[i]));
    fputs("</section>\n", p->out);
    KS_TRY(print_found(p));
    fputs(reading, p->out);
    KS_TRY(print_samples(p));
    KS_TRY(print_tables(p));
    print_run(p);
    fprintf(p->out, "</main>\n<script>%s</script>\n</body>\n</html>\n", ks_report_script);
done:
    ks_figures_free(&p->figures);
    return rc;
}

/* ---- the file ---- */

/* Whole: by another name first. */
static int write_file(const char *path, const char *text, size_t bytes)
{
    int rc = KS_OK;
    char *temporary = NULL;
    FILE *f = NULL;
    KS_GET(temporary, ks_format("%s.tmp", path));
    f = fopen(temporary, "wb");
    KS_REQUIRE(f, KS_EMACHINE, "%s: cannot be written: %s", temporary, strerror(errno));
    const bool whole = fwrite(text, 1, bytes, f) == bytes;
    const bool closed = !fclose(f);
    if (!whole || !closed || rename(temporary, path)) {
        rc = ks_error(KS_EMACHINE, "%s: cannot be written: %s", path, strerror(errno));
        unlink(temporary);
    }
done:
    free(temporary);
    return rc;
}

static int check_output(const char *path, const char *const *inputs, size_t n, bool force)
{
    int rc = KS_OK;
    struct stat st, in;
    if (stat(path, &st)) goto done;
    for (size_t i = 0; i < n; i++)
        KS_REQUIRE(stat(inputs[i], &in) || in.st_dev != st.st_dev || in.st_ino != st.st_ino, KS_EUSAGE,
                   "%s: is a result file; --output must name another", path);
    KS_REQUIRE(!S_ISDIR(st.st_mode), KS_EUSAGE, "%s: is a folder; --output must name a file", path);
    KS_REQUIRE(force, KS_EUSAGE, "%s: exists; --force overwrites, --output names another", path);
done:
    return rc;
}

/* All of it, or what the tables need where the file was not written by kosweep. */
static int read_study(ks_study **out, const char *path)
{
    return ks_study_probe(path, true) || ks_study_read_whole(out, path) ? ks_study_read(out, path) : KS_OK;
}

int ks_report_write(FILE *say, const char *const *paths, size_t n, const ks_table_options *opt, const char *path, bool force)
{
    int rc = KS_OK;
    page p = {.n = n, .opt = opt};
    char *text = NULL, *own = NULL;
    size_t bytes = 0;
    if (!path) {
        const size_t length = strlen(paths[0]);
        const bool h5 = length > 3 && !strcmp(paths[0] + length - 3, ".h5");
        KS_GET(own, ks_format("%.*s.html", (int)(h5 ? length - 3 : length), paths[0]));
        path = own;
    }
    KS_TRY(check_output(path, paths, n, force));
    KS_NEW(p.studies, n);
    for (size_t i = 0; i < n; i++) KS_TRY(read_study(&p.studies[i], paths[i]));
    p.out = open_memstream(&text, &bytes);
    KS_REQUIRE(p.out, KS_EMACHINE, "out of memory for a report");
    rc = print_page(&p);
    const bool failed = ferror(p.out);
    KS_REQUIRE(!fclose(p.out) && !failed, rc ? rc : KS_EMACHINE, "out of memory for a report");
    KS_TRY(rc);
    KS_TRY(write_file(path, text, bytes));
    fprintf(say, "%s: %zu finding%s, %zu figure%s, %zu table%s\n", path, p.findings, p.findings == 1 ? "" : "s", p.pictures,
            p.pictures == 1 ? "" : "s", p.tables, p.tables == 1 ? "" : "s");
done:
    free(text);
    free(own);
    ks_studies_free(p.studies, n);
    return rc;
}
