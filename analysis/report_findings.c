/* Findings in words. Every sentence has its numbers and names its test; what the test does not say stands beside it as a caveat. */
#define _GNU_SOURCE
#include "analysis/report_private.h"

#include "analysis/choice.h"
#include "analysis/correlation.h"
#include "analysis/many_cells.h"
#include "analysis/power.h"
#include "analysis/resample.h"
#include "analysis/two_groups.h"

#include "base/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALPHA 0.05
enum {
    MAX_CELLS = 20000,    /* of a sweep that is tested as a whole */
    MAX_WORK = 300000000, /* cells x splits x samples of a group: beyond it splits are drawn, not counted */
    MAX_NAMED = 6,        /* windows that a sentence names */
    FEW = 5,              /* samples of a group below which intervals are called too narrow */
    MAX_POWER = 2000,     /* samples a group up to which the power is simulated */
    POWER_DRAWS = 1000,
    LEAST_DRAWS = 1000,  /* of a permutation test of many cells */
    MAX_CHOICE = 200000, /* values up to which the choice is tried without each sample */
};

/* ---- lists ---- */

static void append(ks_findings *f, char ***list, size_t *n, const char *format, va_list args)
{
    char *s = NULL;
    char **grown = ks_realloc(*list, *n + 1, sizeof *grown);
    if (grown) *list = grown;
    if (!grown || vasprintf(&s, format, args) < 0) f->failed = true;
    else (*list)[(*n)++] = s;
}

static void vfinding(ks_findings *f, bool warning, const char *format, va_list args)
{
    ks_finding *grown = ks_realloc(f->v, f->n + 1, sizeof *grown);
    if (grown) f->v = grown;
    char *s = NULL;
    if (!grown || vasprintf(&s, format, args) < 0) f->failed = true;
    else f->v[f->n++] = (ks_finding){.warning = warning, .text = s};
}

__attribute__((format(printf, 2, 3))) static void finding(ks_findings *f, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfinding(f, false, format, args);
    va_end(args);
}

__attribute__((format(printf, 2, 3))) static void warning(ks_findings *f, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfinding(f, true, format, args);
    va_end(args);
}

/* Lengthens the last finding. */
__attribute__((format(printf, 2, 3))) static void finding_more(ks_findings *f, const char *format, ...)
{
    va_list args;
    char *more = NULL, *whole = NULL;
    va_start(args, format);
    if (!f->n || vasprintf(&more, format, args) < 0 || asprintf(&whole, "%s%s", f->v[f->n - 1].text, more) < 0) {
        f->failed = true;
    } else {
        free(f->v[f->n - 1].text);
        f->v[f->n - 1].text = whole;
    }
    va_end(args);
    free(more);
}

/* To the last finding. */
__attribute__((format(printf, 2, 3))) static void caveat(ks_findings *f, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (f->n) append(f, &f->v[f->n - 1].caveats, &f->v[f->n - 1].n_caveats, format, args);
    va_end(args);
}

void ks_findings_free(ks_findings *f)
{
    for (size_t i = 0; i < f->n; i++) {
        for (size_t k = 0; k < f->v[i].n_caveats; k++) free(f->v[i].caveats[k]);
        free(f->v[i].caveats);
        free(f->v[i].text);
    }
    free(f->v);
    *f = (ks_findings){0};
}

/* ---- words ---- */

typedef struct words {
    char text[512];
} words;

static ks_label number(double x)
{
    ks_label l;
    if (isnan(x)) snprintf(l.text, sizeof l.text, "not known");
    else snprintf(l.text, sizeof l.text, "%.3g", x);
    return l;
}

static ks_label p_words(double p)
{
    ks_label l;
    if (isnan(p)) snprintf(l.text, sizeof l.text, "p not known");
    else snprintf(l.text, sizeof l.text, p < 1e-4 ? "p = %.1e" : "p = %.4f", p);
    return l;
}

static words interval_words(const ks_interval *i)
{
    words w;
    if (isnan(i->low)) snprintf(w.text, sizeof w.text, "no interval: %s", i->why ? i->why : "it does not exist");
    else snprintf(w.text, sizeof w.text, "95 %% interval %.3g to %.3g", i->low, i->high);
    return w;
}

static const char *plural(size_t n)
{
    return n == 1 ? "" : "s";
}

ks_label ks_place_label(const ks_study_sweep *s, const ks_place *p)
{
    ks_label l;
    const bool one = s->layer_start[p->window] == s->layer_end[p->window];
    int n = snprintf(l.text, sizeof l.text, "layer%s %.20s", one ? "" : "s", ks_window_label(s, p->window).text);
    if (s->has_head) n += snprintf(l.text + n, sizeof l.text - (size_t)n, ", head %zu", p->head);
    if (s->has_factor) snprintf(l.text + n, sizeof l.text - (size_t)n, ", %.8s %.4g", s->kind, s->values[p->factor]);
    return l;
}

size_t ks_group_size(const ks_study_model *m, const char *group)
{
    size_t n = 0;
    for (size_t i = 0; i < m->S; i++) n += !strcmp(m->groups[i], group);
    return n;
}

int ks_report_peak(ks_place *out, const ks_view *v)
{
    int rc = KS_OK;
    double best = NAN;
    *out = (ks_place){0};
    for (size_t f = 0; f < v->s->F; f++)
        for (size_t w = 0; w < v->s->W; w++)
            for (size_t h = 0; ks_chosen_window(v->opt, v->s, w) && h < v->s->H; h++) {
                double mean;
                KS_TRY(ks_tests_mean(v, f, w, h, &mean));
                if (isnan(mean) || (out->found && mean <= best)) continue;
                best = mean;
                *out = (ks_place){f, w, h, true};
            }
done:
    return rc;
}

/* ---- the chosen cells ---- */

typedef struct data {
    const ks_view *v;
    size_t n, na, nb; /* samples of the test groups; the first group's come first */
    size_t *sample;   /* [n] */
    uint8_t *group;   /* [n] 0 or 1 */
    double *floor;    /* [n] */
    size_t cells;
    ks_place *at; /* [cells] */
    double *kl;   /* [cells, n] */
    size_t peak;  /* its place in `at`; cells where there is none */
    size_t values, zeros, nothing, absent, infinite, emptied;
} data;

static void free_data(data *d)
{
    free(d->sample);
    free(d->group);
    free(d->floor);
    free(d->at);
    free(d->kl);
}

static int gather(data *d, const ks_view *v)
{
    int rc = KS_OK;
    const ks_study_model *m = v->m;
    const ks_study_sweep *s = v->s;
    ks_place peak;
    *d = (data){.v = v};
    KS_NEW(d->sample, m->S);
    KS_NEW(d->group, m->S);
    KS_NEW(d->floor, m->S);
    for (int k = 0; k < 2 && v->g->tests[k]; k++)
        for (size_t i = 0; i < m->S; i++) {
            if (strcmp(m->groups[i], v->g->tests[k]) != 0) continue;
            d->sample[d->n] = i;
            d->floor[d->n] = m->floor[i];
            d->group[d->n++] = (uint8_t)k;
            *(k ? &d->nb : &d->na) += 1;
        }
    KS_NEW(d->at, s->F * s->W * s->H);
    for (size_t f = 0; f < s->F; f++)
        for (size_t w = 0; w < s->W; w++)
            for (size_t h = 0; ks_chosen_window(v->opt, s, w) && h < s->H; h++) d->at[d->cells++] = (ks_place){f, w, h, true};
    KS_NEW(d->kl, d->cells * d->n);
    KS_TRY(ks_report_peak(&peak, v));
    d->peak = d->cells;
    for (size_t c = 0; c < d->cells; c++) {
        const ks_place *p = &d->at[c];
        if (peak.found && p->factor == peak.factor && p->window == peak.window && p->head == peak.head) d->peak = c;
        for (size_t i = 0; i < d->n; i++) {
            const size_t at = ks_study_at(m, s, p->factor, p->window, p->head, d->sample[i]);
            const double kl = d->kl[c * d->n + i] = s->kl[at];
            d->values += !isnan(kl);
            d->zeros += kl == 0;
            d->nothing += s->status[at] == KS_STATUS_NOTHING;
            d->absent += s->status[at] == KS_STATUS_NOT_COMPUTED;
            d->infinite += isnan(kl) && s->status[at] != KS_STATUS_NOT_COMPUTED;
            d->emptied += s->status[at] == KS_STATUS_EMPTY_ROW;
        }
    }
done:
    return rc;
}

static const char *group_name(const data *d, int k)
{
    return d->v->g->tests[k];
}

/* "windows", "heads", "cells": what a sweep is searched over. */
static const char *searched(const data *d)
{
    const ks_study_sweep *s = d->v->s;
    if (s->has_factor) return "cells";
    if (s->has_head) return "heads";
    for (size_t c = 0; c < d->cells; c++)
        if (s->layer_start[d->at[c].window] != s->layer_end[d->at[c].window]) return "windows";
    return "layers";
}

static ks_label place(const data *d, size_t cell)
{
    return ks_place_label(d->v->s, &d->at[cell]);
}

static ks_resample how_of(const data *d)
{
    return ks_view_resample(d->v, 10000);
}

/* All splits where that is quick, else draws. */
static ks_resample how_many(const data *d, uint64_t splits)
{
    ks_resample how = how_of(d);
    const double each = (double)d->cells * (double)d->n;
    if ((double)splits * each > MAX_WORK) how.exact = 0;
    if ((double)how.draws * each > MAX_WORK) how.draws = (uint64_t)fmax(LEAST_DRAWS, MAX_WORK / each);
    return how;
}

static words splits_words(const ks_max_t *m)
{
    words w;
    if (m->exact) snprintf(w.text, sizeof w.text, "all %llu splits", (unsigned long long)m->total);
    else snprintf(w.text, sizeof w.text, "%llu random splits, error of p at most %.4f", (unsigned long long)m->total, m->error);
    return w;
}

/* ": layer 1; layer 3": the cells with adjusted p at most ALPHA, t of the wanted sign (0: any). At most MAX_NAMED are named, and none
 * where they are all. */
static words named(const data *d, const double *p, const double *t, int sign, size_t *count)
{
    words w = {""};
    size_t n = 0, tests = 0;
    for (size_t c = 0; c < d->cells; c++) {
        tests += !isnan(p[c]);
        if (!(p[c] <= ALPHA) || (sign && !(t[c] * sign > 0))) continue;
        const size_t at = strlen(w.text);
        if (n < MAX_NAMED) snprintf(w.text + at, sizeof w.text - at, "%s%s", n ? "; " : ": ", place(d, c).text);
        else if (n == MAX_NAMED) snprintf(w.text + at, sizeof w.text - at, "; ...");
        n++;
    }
    *count = n;
    if (n == tests) *w.text = 0;
    return w;
}

static size_t smallest(const double *p, size_t n)
{
    size_t best = n;
    for (size_t i = 0; i < n; i++)
        if (!isnan(p[i]) && (best == n || p[i] < p[best])) best = i;
    return best;
}

/* ---- findings ---- */

/* What is missing, before anything is said about the rest. */
static void about_data(ks_findings *out, const data *d)
{
    const size_t all = d->cells * d->n;
    if (d->absent)
        warning(out, "Unfinished: %zu of %zu values are not computed yet. Everything below is about the rest and may change.", d->absent,
                all);
    if (d->infinite) warning(out, "%zu of %zu values are not finite and are left out.", d->infinite, all);
    for (int k = 0; k < 2 && group_name(d, k); k++) {
        const size_t n = k ? d->nb : d->na;
        if (n < 2) warning(out, "%s has %zu sample%s: nothing can be tested or generalised from it.", group_name(d, k), n, plural(n));
    }
    if (!group_name(d, 1)) warning(out, "There is one group (%s) to test, so no two groups are compared.", group_name(d, 0));
    if (d->emptied)
        warning(out, "In %zu of %zu values a row had nothing left to attend to: its attention output is 0, which no ordinary input does.",
                d->emptied, all);
}

/* A test group in one cell. */
typedef struct member {
    const char *name;
    size_t from, n;     /* its samples in data */
    size_t with, above; /* that have a value and a floor; that lie above it */
    bool under;         /* its mean is at or under the mean floor */
    double floor;
    words text; /* "python_test: mean KL 0.0123 nats (95 % interval 0.01 to 0.02; n = 10; 9 above their floor)" */
} member;

static int describe(member *out, const data *d, size_t cell, int k)
{
    int rc = KS_OK;
    const double *v = d->kl + cell * d->n + (k ? d->na : 0);
    const ks_resample how = how_of(d);
    char above[64] = "";
    double mean = 0;
    ks_summary s;
    ks_interval interval;
    *out = (member){.name = group_name(d, k), .from = k ? d->na : 0, .n = k ? d->nb : d->na};
    for (size_t i = 0; i < out->n; i++) {
        const double floor = d->floor[out->from + i];
        if (isnan(v[i]) || isnan(floor)) continue;
        out->with++;
        out->above += v[i] > floor;
        out->floor += floor;
        mean += v[i];
    }
    out->under = out->with && mean <= out->floor;
    out->floor /= (double)out->with;
    KS_TRY(ks_summarize(&s, v, out->n));
    KS_TRY(ks_centre_interval(&interval, v, out->n, KS_CENTRE_MEAN, &how));
    if (out->with) snprintf(above, sizeof above, "; %zu above their own floor", out->above);
    snprintf(out->text.text, sizeof out->text.text, "%.200s: mean KL %s nats (%.120s; n = %zu%s)", out->name, number(s.mean).text,
             interval_words(&interval).text, s.n, above);
done:
    return rc;
}

static int about_choice(ks_findings *out, const data *d)
{
    int rc = KS_OK;
    const ks_resample how = how_of(d);
    ks_choice c;
    KS_TRY(ks_choose_layer(&c, NULL, d->kl, d->cells, d->nb ? d->group : NULL, d->n, KS_CHOOSE_MEAN, &how));
    if (c.why || c.layer != d->peak) goto done;
    caveat(out,
           "Chosen without the sample that is measured (leaving out one at a time) the mean over the groups is %s nats (%s); the choice "
           "stays the same for "
           "%zu of "
           "%zu samples.",
           number(c.left_out).text, interval_words(&c.left_out_interval).text, c.left_out_same, d->n);
done:
    return rc;
}

static int about_size(ks_findings *out, const data *d)
{
    int rc = KS_OK;
    member groups[2] = {{.name = NULL}, {.name = NULL}};
    size_t changed = 0, n = 0, under = 0, with = 0, count = 0;
    const ks_study_sweep *s = d->v->s;
    const ks_place *p = &d->at[d->peak];
    if (d->zeros == d->values) {
        finding(out, "Nothing changed: KL is exactly 0 in all %zu values%s.", d->values,
                d->nothing == d->values ? ", because there was no visible edge to remove" : "");
        if (d->nothing && d->nothing < d->values) caveat(out, "In %zu of them there was no visible edge to remove.", d->nothing);
        goto done;
    }
    for (size_t i = 0; i < d->n; i++) {
        if (isnan(d->kl[d->peak * d->n + i])) continue;
        n++;
        changed += s->top_changed[ks_study_at(d->v->m, s, p->factor, p->window, p->head, d->sample[i])] != 0;
    }
    for (int k = 0; k < 2 && group_name(d, k); k++) {
        KS_TRY(describe(&groups[k], d, d->peak, k));
        with += groups[k].with;
        under += groups[k].under;
        count++;
    }
    finding(out, "%s%s. %s%s%s. The most probable next token changed in %zu of %zu sample%s.",
            under == count && d->cells > 1 ? "Even the largest mean effect lies under the floor. It is at "
            : under == count               ? "The mean effect lies under the floor, at "
            : d->cells > 1                 ? "The effect is largest at "
                                           : "The effect was measured at ",
            place(d, d->peak).text, groups[0].text.text, count > 1 ? "; " : "", groups[1].text.text, changed, n, plural(n));
    for (size_t k = 0; k < count; k++)
        if (groups[k].under)
            caveat(out, "%s's mean is at or under its floor of %s nats: rounding to bf16 alone would change the predictions as much.",
                   groups[k].name, number(groups[k].floor).text);
    if (!with)
        caveat(out, "The floor was not measured, so it is not known whether bf16 rounding alone would change the predictions as much.");
    if (d->cells > 1)
        caveat(out, "This was chosen as the largest of %zu %s on these same samples, so its numbers flatter it.", d->cells, searched(d));
    if (d->cells > 1 && d->cells * d->n <= MAX_CHOICE) KS_TRY(about_choice(out, d));
    if (d->na < FEW || (d->nb && d->nb < FEW)) caveat(out, "Bootstrap intervals of fewer than %d samples are too narrow.", FEW);
    if (d->zeros)
        caveat(out, "%zu of %zu values of the sweep are exactly 0%s; means include them, logarithms leave them out.", d->zeros, d->values,
               !strcmp(s->kind, "knockout") ? ": causality leaves no edge to remove there, or no way to the position that is measured"
                                            : "");
done:
    return rc;
}

/* A group's KL - floor in every cell. */
static int about_floor(ks_findings *out, const data *d, int k)
{
    int rc = KS_OK;
    double *v = NULL, *t = NULL, *p = NULL; /* [cells, n of the group], [cells] */
    ks_max_t m;
    const size_t from = k ? d->na : 0, n = k ? d->nb : d->na;
    size_t with = 0, above, below;
    for (size_t i = from; i < from + n; i++) with += !isnan(d->floor[i]);
    if (with < 2 || d->cells > MAX_CELLS) goto done;
    KS_NEW(v, d->cells * n);
    KS_NEW(t, d->cells);
    KS_NEW(p, d->cells);
    for (size_t c = 0; c < d->cells; c++)
        for (size_t i = 0; i < n; i++) v[c * n + i] = d->kl[c * d->n + from + i] - d->floor[from + i];
    const ks_resample how = how_many(d, n < 40 ? (uint64_t)1 << n : UINT64_MAX);
    KS_TRY(ks_max_t_pairs(&m, t, p, v, d->cells, n, &how));
    if (m.why) goto done;
    const words where = named(d, p, t, 1, &above);
    (void)named(d, p, t, -1, &below);
    const double least = 2 / pow(2, (double)with);
    if (above)
        finding(out, "%s: the mean effect is above the floor in %zu of %zu %s%s", group_name(d, k), above, m.cells, searched(d),
                where.text);
    else finding(out, "%s: the mean effect is not shown to be above the floor in any of %zu %s", group_name(d, k), m.cells, searched(d));
    finding_more(out,
                 ", and shown to be below it in %zu (KL minus floor over %zu samples, sign permutation%s, adjusted p at most 0.05; %s).",
                 below, with, m.cells > 1 ? " with max-T correction over all of them" : "", splits_words(&m).text);
    if (least > ALPHA)
        caveat(out, "With %zu samples no such p can be below %s: this test could not have shown it.", with, number(least).text);
    caveat(out, "The test takes KL minus floor to be symmetric about 0 where the mean is at the floor.");
done:
    free(v);
    free(t);
    free(p);
    return rc;
}

/* How large a difference the data leave room for, where none was shown. */
static int about_no_difference(ks_findings *out, const data *d, size_t cell, const ks_two_groups *g)
{
    int rc = KS_OK;
    const double *a = d->kl + cell * d->n, *b = a + d->na;
    ks_resample how = how_of(d);
    ks_power power;
    caveat(out, "That is no evidence that the groups are equal: at %s the ratio of their means is %s (%s).", place(d, cell).text,
           number(g->ratio.ratio).text, interval_words(&g->ratio.interval).text);
    const size_t closed = ks_power_t_needed(g->hedges.d, ALPHA, 0.8);
    if (!closed) goto done;
    if (closed > MAX_POWER) {
        caveat(out, "A difference as small as the one seen there would need about %zu samples a group (t-test, power 80 %%, as if normal).",
               closed);
        goto done;
    }
    how.draws = POWER_DRAWS;
    KS_TRY(ks_power_needed(&power, a, d->na, b, d->nb, ALPHA, 0.8, &how));
    if (!power.why && power.needed)
        caveat(
            out,
            "A new study would need about %zu samples a group to detect the difference seen there (Welch's test, power 80 %%, bootstrap of "
            "these data), %zu as if values were normal.",
            power.needed, closed);
done:
    return rc;
}

/* A difference between effects that lie under the floor is one that bf16 would not show. */
static int about_buried(ks_findings *out, const data *d, size_t cell)
{
    int rc = KS_OK;
    const ks_place *p = &d->at[cell];
    bool buried = true;
    for (int k = 0; k < 2; k++) {
        ks_group_cell c;
        KS_TRY(ks_group_measure(&c, d->v->m, d->v->s, p->factor, p->window, p->head, group_name(d, k)));
        buried &= c.kl.mean <= c.floor;
    }
    if (buried) caveat(out, "At %s both means lie at or under the floor: a model in bf16 would not show this.", place(d, cell).text);
done:
    return rc;
}

static int about_groups(ks_findings *out, const data *d)
{
    int rc = KS_OK;
    double *t = NULL, *p = NULL;
    ks_max_t m;
    ks_two_groups g;
    size_t count;
    const char *a = group_name(d, 0), *b = group_name(d, 1);
    KS_NEW(t, d->cells);
    KS_NEW(p, d->cells);
    if (!d->na || !d->nb || d->cells > MAX_CELLS) goto done;
    const uint64_t splits = ks_choose(d->n, d->na, (uint64_t)1 << 62);
    const ks_resample how = how_many(d, splits), all = how_of(d);
    KS_TRY(ks_max_t_groups(&m, t, p, d->kl, d->cells, d->group, d->n, &how));
    if (m.why || !m.cells) {
        finding(out, "%s and %s cannot be compared: %s.", a, b, m.why ? m.why : "no window has a test");
        goto done;
    }
    out->tests++;
    const words where = named(d, p, t, 0, &count);
    const size_t best = smallest(p, d->cells);
    const size_t cell = count ? best : d->peak;
    const double *va = d->kl + cell * d->n, *fa = isnan(d->floor[0]) ? NULL : d->floor;
    KS_TRY(ks_compare_groups(&g, va, fa, d->na, va + d->na, fa ? fa + d->na : NULL, d->nb, &all));
    const char *corrected = m.cells > 1 ? ", max-T correction over all of them" : "";
    if (count)
        finding(out,
                "%s and %s differ in %zu of %zu %s%s (permutation test of Welch's t%s, adjusted p at most 0.05; %s). Clearest at %s, "
                "adjusted %s: %s has the larger mean; ratio of means %s/%s %s (%s), Hedges' g %s (%s).",
                a, b, count, m.cells, searched(d), where.text, corrected, splits_words(&m).text, place(d, cell).text, p_words(p[cell]).text,
                t[cell] > 0 ? a : b, a, b, number(g.ratio.ratio).text, interval_words(&g.ratio.interval).text, number(g.hedges.g).text,
                interval_words(&g.hedges.interval).text);
    else
        finding(out,
                "No difference between %s and %s is shown in any of %zu %s: smallest adjusted %s, at %s (permutation test of Welch's t%s; "
                "%s).",
                a, b, m.cells, searched(d), p_words(p[best]).text, place(d, best).text, corrected, splits_words(&m).text);
    const double least = (d->na == d->nb ? 2.0 : 1.0) / (double)splits;
    if (least > ALPHA)
        caveat(out, "With %zu and %zu samples no such p can be below %s: this test could not have shown a difference.", d->na, d->nb,
               number(least).text);
    if (!count) KS_TRY(about_no_difference(out, d, cell, &g));
    caveat(out,
           "At %s alone, not corrected: Welch's t %s, Mann-Whitney %s, permutation of means %s. The verdict above does not rest on them.",
           place(d, cell).text, p_words(g.welch.p).text, p_words(g.mann_whitney.p).text, p_words(g.permutation.p).text);
    if (!g.logs.why) {
        caveat(out, "On logarithms there, %zu exact zeros left out: ratio of geometric means %s (%s), permutation %s.",
               g.logs.zeros_a + g.logs.zeros_b, number(g.logs.ratio).text, interval_words(&g.logs.interval).text,
               p_words(g.logs.permutation.p).text);
    }
    if (fa && !g.censored.why)
        caveat(out, "With values under the floor taken as only \"at most the floor\": Gehan's test %s.", p_words(g.censored.p).text);
    if (count) KS_TRY(about_buried(out, d, cell));
    if (count && !isnan(g.ratio.interval.low) && d->cells > 1)
        caveat(out, "Ratio and g were read at the clearest of %zu %s, so they flatter the difference.", m.cells, searched(d));
done:
    free(t);
    free(p);
    return rc;
}

/* ---- a window against its layers ---- */

static bool same_intervention(const ks_study_sweep *a, const ks_study_sweep *b)
{
    return !strcmp(a->kind, b->kind) && !strcmp(a->edges, b->edges) && !strcmp(a->heads, b->heads) && a->F == 1 && b->F == 1 && a->H == 1 &&
           b->H == 1 && (a->values[0] == b->values[0] || (isnan(a->values[0]) && isnan(b->values[0])));
}

/* KL of a single layer on the samples, from any sweep of the model with the same intervention; NULL where there is none. */
static const double *single_layer(const ks_view *v, int32_t layer)
{
    for (size_t k = 0; k < v->m->n_sweeps; k++) {
        const ks_study_sweep *s = &v->m->sweeps[k];
        for (size_t w = 0; same_intervention(s, v->s) && w < s->W; w++)
            if (s->layer_start[w] == layer && s->layer_end[w] == layer) return s->kl + w * v->m->S;
    }
    return NULL;
}

/* The same samples under two conditions, in many cells. */
typedef struct pairs {
    double *t, *p; /* [cells] */
    ks_max_t m;
    size_t more, less; /* cells with adjusted p at most ALPHA */
} pairs;

static void free_pairs(pairs *q)
{
    free(q->t);
    free(q->p);
}

/* Of a [cells, n] against b [cells, n]; q->m.cells is 0 where there is nothing to test. */
static int test_pairs(pairs *q, const data *d, const double *a, const double *b)
{
    int rc = KS_OK;
    double *v = NULL;
    *q = (pairs){.m.cells = 0};
    KS_NEW(v, d->cells * d->n);
    KS_NEW(q->t, d->cells);
    KS_NEW(q->p, d->cells);
    for (size_t i = 0; i < d->cells * d->n; i++) v[i] = a[i] - b[i];
    const ks_resample how = how_many(d, d->n < 40 ? (uint64_t)1 << d->n : UINT64_MAX);
    KS_TRY(ks_max_t_pairs(&q->m, q->t, q->p, v, d->cells, d->n, &how));
    if (q->m.why) q->m.cells = 0;
    for (size_t c = 0; c < d->cells; c++) {
        q->more += q->p[c] <= ALPHA && q->t[c] > 0;
        q->less += q->p[c] <= ALPHA && q->t[c] < 0;
    }
done:
    free(v);
    return rc;
}

/* One finding of that: `what` ("windows against ..."), and of the cell of the largest effect the figures. */
static int say_pairs(ks_findings *out, const data *d, const double *a, const double *b, const char *what)
{
    int rc = KS_OK;
    pairs q = {0};
    ks_paired at;
    char peak[512] = "";
    const ks_resample how = how_of(d);
    KS_TRY(test_pairs(&q, d, a, b));
    if (!q.m.cells) goto done;
    if (!isnan(q.p[d->peak])) {
        KS_TRY(ks_compare_paired(&at, a + d->peak * d->n, b + d->peak * d->n, d->n, &how));
        snprintf(peak, sizeof peak, " At %s the means are %s and %s nats, difference %s (%.120s), adjusted %s.", place(d, d->peak).text,
                 number(at.a.mean).text, number(at.b.mean).text, number(at.d.mean).text, interval_words(&at.difference).text,
                 p_words(q.p[d->peak]).text);
    }
    finding(out,
            "%s: of %zu, %zu ha%s more effect, %zu less, %zu are not shown to differ (paired over %zu samples, sign permutation%s, "
            "adjusted p at "
            "most 0.05; %s).%s",
            what, q.m.cells, q.more, q.more == 1 ? "s" : "ve", q.less, q.m.cells - q.more - q.less, d->n,
            q.m.cells > 1 ? " with max-T correction over all of them" : "", splits_words(&q.m).text, peak);
    if (*peak && d->cells > 1)
        caveat(
            out,
            "The window named was chosen for its effect on these same samples; its p is corrected for that, means and interval are not.");
    const double least = 2 / pow(2, (double)d->n);
    if (least > ALPHA)
        caveat(out, "With %zu samples no such p can be below %s: this test could not have shown it.", d->n, number(least).text);
done:
    free_pairs(&q);
    return rc;
}

static int about_parts(ks_findings *out, const data *d)
{
    int rc = KS_OK;
    const ks_view *v = d->v;
    const ks_study_sweep *s = v->s;
    const double **single = NULL;     /* [n_layers] of every sample of the model */
    double *sum = NULL, *most = NULL; /* [cells, n] NaN where there is nothing to add */
    size_t windows = 0;
    if (s->has_factor || s->has_head || d->cells > MAX_CELLS) goto done;
    KS_NEW(single, v->m->n_layers);
    KS_NEW(sum, d->cells * d->n);
    KS_NEW(most, d->cells * d->n);
    for (int32_t l = 0; l < v->m->n_layers; l++) single[l] = single_layer(v, l);
    for (size_t c = 0; c < d->cells; c++) {
        const int32_t first = s->layer_start[d->at[c].window], last = s->layer_end[d->at[c].window];
        bool whole = first < last;
        for (int32_t l = first; l <= last; l++) whole &= single[l] != NULL;
        windows += whole;
        for (size_t i = 0; i < d->n; i++) {
            double *total = &sum[c * d->n + i], *largest = &most[c * d->n + i];
            *total = *largest = whole ? 0 : (double)NAN;
            for (int32_t l = first; whole && l <= last; l++) {
                const double kl = single[l][d->sample[i]];
                *total += kl;
                *largest = isnan(*total) ? (double)NAN : fmax(*largest, kl);
            }
        }
    }
    if (!windows) goto done;
    KS_TRY(say_pairs(out, d, d->kl, sum, "Windows against the sum of their single layers' effects"));
    KS_TRY(say_pairs(out, d, d->kl, most, "Windows against the largest of their single layers' effects in each sample"));
    caveat(out, "The largest layer is chosen within each sample, which favours \"less\".");
done:
    free(single);
    free(sum);
    free(most);
    return rc;
}

/* ---- edge sets, values ---- */

static int about_edges(ks_findings *out, const data *d)
{
    int rc = KS_OK;
    const ks_study_sweep *s = d->v->s;
    double *all = NULL; /* [cells, n] */
    char what[256];
    if (s->has_factor || s->has_head || strcmp(s->edges, "marker-targets") != 0 || d->cells > MAX_CELLS) goto done;
    for (size_t k = 0; k < d->v->m->n_sweeps; k++) {
        const ks_study_sweep *o = &d->v->m->sweeps[k];
        size_t found = 0;
        if (strcmp(o->edges, "all-marker") != 0 || strcmp(o->kind, s->kind) != 0 || strcmp(o->heads, s->heads) != 0 || o->has_factor ||
            o->has_head || o->W != s->W)
            continue;
        free(all);
        KS_NEW(all, d->cells * d->n);
        for (size_t c = 0; c < d->cells; c++) {
            const size_t w = d->at[c].window;
            const bool same = o->layer_start[w] == s->layer_start[w] && o->layer_end[w] == s->layer_end[w];
            found += same;
            for (size_t i = 0; i < d->n; i++)
                all[c * d->n + i] = same ? o->kl[ks_study_at(d->v->m, o, 0, w, 0, d->sample[i])] : (double)NAN;
        }
        if (!found) continue;
        snprintf(what, sizeof what, "All edges to the marker (sweep %.100s) against those from marker to targets alone, by %s", o->name,
                 searched(d));
        KS_TRY(say_pairs(out, d, all, d->kl, what));
    }
done:
    free(all);
    return rc;
}

static int about_values(ks_findings *out, const data *d)
{
    int rc = KS_OK;
    const ks_study_sweep *s = d->v->s;
    const ks_place *p = &d->at[d->peak];
    words w = {""};
    if (!s->has_factor) goto done;
    for (size_t f = 0; f < s->F && strlen(w.text) + 40 < sizeof w.text; f++) {
        double mean;
        const size_t at = strlen(w.text);
        KS_TRY(ks_tests_mean(d->v, f, p->window, p->head, &mean));
        snprintf(w.text + at, sizeof w.text - at, "%s%.4g: %s", f ? "; " : "", s->values[f], number(mean).text);
    }
    finding(out, "Mean effect over the groups by %s value, in the window of the largest: %s nats.", s->kind, w.text);
    caveat(out, "This describes; no test stands behind it.");
done:
    return rc;
}

/* ---- attention and effect ---- */

static int about_attention(ks_findings *out, const data *d)
{
    int rc = KS_OK;
    const ks_study_model *m = d->v->m;
    double *x = NULL;
    ks_cluster_correlation c;
    ks_resample how = how_of(d);
    how.draws = d->v->opt->draws ? d->v->opt->draws : 2000;
    if (strcmp(searched(d), "layers") != 0 || strcmp(d->v->s->edges, "marker-targets") != 0 || d->cells < 3 || d->cells * d->n > 5000)
        goto done;
    KS_NEW(x, d->cells * d->n);
    for (size_t l = 0; l < d->cells; l++)
        for (size_t i = 0; i < d->n; i++)
            x[l * d->n + i] = m->strength[(size_t)d->v->s->layer_start[d->at[l].window] * m->S + d->sample[i]];
    KS_TRY(ks_correlate_layers(&c, x, d->kl, d->cells, d->n, &how));
    if (c.why || isnan(c.rho)) goto done;
    const bool shown = !isnan(c.interval_rho.low) && (c.interval_rho.low > 0 || c.interval_rho.high < 0);
    finding(out,
            "Attention from marker to targets and the effect of removing it %s over %zu layers and %zu samples: Spearman's rho %s (%s, "
            "bootstrap of samples); within a sample over its layers %s on average (%s).",
            !shown      ? "are not shown to go together"
            : c.rho > 0 ? "go together"
                        : "go against each other",
            d->cells, c.samples, number(c.rho).text, interval_words(&c.interval_rho).text, number(c.within).text,
            interval_words(&c.interval_within).text);
    caveat(out, "Attention strength is what the model looks at, not what it needs: only the knockout says that, and a correlation explains "
                "neither.");
done:
    free(x);
    return rc;
}

int ks_findings_sweep(ks_findings *out, const ks_view *v)
{
    int rc = KS_OK;
    data d = {0};
    KS_TRY(gather(&d, v));
    about_data(out, &d);
    if (d.peak == d.cells) {
        warning(out, "No chosen value is there: nothing can be said.");
        goto done;
    }
    KS_TRY(about_size(out, &d));
    if (d.zeros < d.values) {
        for (int k = 0; k < 2 && group_name(&d, k); k++) KS_TRY(about_floor(out, &d, k));
        KS_TRY(about_groups(out, &d));
        KS_TRY(about_values(out, &d));
        KS_TRY(about_parts(out, &d));
        KS_TRY(about_edges(out, &d));
        KS_TRY(about_attention(out, &d));
    }
    if (d.cells > MAX_CELLS) warning(out, "%zu cells are too many to be tested as one family here; the tables have them.", d.cells);
    KS_REQUIRE(!out->failed, KS_EMACHINE, "out of memory for the findings");
done:
    free_data(&d);
    return rc;
}
