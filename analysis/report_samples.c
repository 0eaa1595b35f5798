/* The samples' texts, token by token, with what was done to them and what came of it. */
#include "analysis/report_private.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SAMPLES = 200 };

/* KL of what comes next at every token, in the sweep that measured it; NULL where none did. */
static const double *at_positions(const ks_study_model *m, const ks_study_sweep *s, const ks_place *peak, size_t sample)
{
    if (!s || !s->kl_positions || !peak->found) return NULL;
    return s->kl_positions + ks_study_at(m, s, peak->factor, peak->window, peak->head, sample) * m->T;
}

static void print_token(FILE *out, const ks_study_model *m, size_t sample, size_t k, bool ids, double kl)
{
    const size_t at = sample * m->T + k;
    const bool marker = m->marker[at], target = m->target[at], marked = marker || target;
    if (marked) fprintf(out, "<mark class=\"%s\" title=\"", marker && target ? "both" : marker ? "marker" : "target");
    else fputs("<span title=\"", out);
    fprintf(out, "token %zu%s%s", k, marker ? ", marker" : "", target ? ", target" : "");
    if (!isnan(kl)) fprintf(out, ", KL %.3g nats", kl);
    fputs("\">", out);
    if (ids) fprintf(out, "%d", (int)m->token_ids[at]);
    else if (m->token_text) ks_print_html(out, m->token_text[at]);
    else fprintf(out, "[%zu]", k);
    fputs(marked ? "</mark>" : "</span>", out);
}

static void print_effect(FILE *out, const ks_study_model *m, const ks_study_sweep *s, const ks_place *p, size_t i)
{
    const size_t at = ks_study_at(m, s, p->factor, p->window, p->head, i);
    const double kl = s->kl[at];
    fputs("<li>", out);
    ks_report_text(out, "%s, %s: ", s->name, ks_place_label(s, p).text);
    if (s->status[at] == KS_STATUS_NOT_COMPUTED) fputs("<strong>not computed</strong>", out);
    else if (isnan(kl)) fputs("<strong>not finite</strong>", out);
    else fprintf(out, "KL %.3g nats", kl);
    if (!isnan(kl) && !isnan(m->floor[i]))
        fprintf(out, kl > m->floor[i] ? ", above its floor" : ", <strong>at or below its floor</strong>");
    if (s->status[at] == KS_STATUS_NOTHING) fputs(", nothing to remove", out);
    if (s->status[at] == KS_STATUS_EMPTY_ROW) fputs(", a row was left with nothing to attend to", out);
    if (!isnan(kl) && s->top_changed[at]) fputs(", <strong>the most probable next token changed</strong>", out);
    if (s->edges_removed[i] >= 0) fprintf(out, "; %d edge%s", (int)s->edges_removed[i], s->edges_removed[i] == 1 ? "" : "s");
    fputs("</li>\n", out);
}

static void print_sample(FILE *out, const ks_study_model *m, const ks_table_options *opt, const ks_place *peaks, size_t i)
{
    const ks_study_sweep *deep = NULL; /* the first sweep with an effect at every position */
    const ks_place *deep_peak = NULL;
    for (size_t k = 0; k < m->n_sweeps && !deep; k++)
        if (ks_chosen_sweep(opt, &m->sweeps[k]) && m->sweeps[k].kl_positions) deep = &m->sweeps[k], deep_peak = &peaks[k];
    const double *kl = at_positions(m, deep, deep_peak, i);
    const bool ids = !(m->sample_texts && *m->sample_texts[i]) && m->token_ids;
    fputs("<article>\n<h4>", out);
    ks_report_text(out, "%s (%s)", m->ids[i], m->groups[i]);
    fprintf(out, "</h4>\n<pre tabindex=\"0\" role=\"group\" aria-label=\"Tokens of ");
    ks_print_html(out, m->ids[i]);
    fputs("\">", out);
    for (size_t k = 0; k < (size_t)m->n_tokens[i]; k++) {
        print_token(out, m, i, k, ids, kl ? kl[k] : (double)NAN);
        if (ids || !m->token_text) fputc(' ', out);
    }
    fputs("</pre>\n<ul class=\"caveats\">\n", out);
    fprintf(out, "<li>%d token%s%s", (int)m->n_tokens[i], m->n_tokens[i] == 1 ? "" : "s", ids ? ", given as ids" : "");
    if (!isnan(m->floor[i])) fprintf(out, "; floor %.3g nats", m->floor[i]);
    fputs("</li>\n", out);
    for (size_t k = 0; k < m->n_sweeps; k++)
        if (ks_chosen_sweep(opt, &m->sweeps[k]) && peaks[k].found) print_effect(out, m, &m->sweeps[k], &peaks[k], i);
    fputs("</ul>\n</article>\n", out);
}

int ks_report_samples(FILE *out, const ks_study *study, const ks_study_model *m, const ks_groups *g, const ks_table_options *opt)
{
    int rc = KS_OK;
    ks_place *peaks = NULL; /* [n_sweeps] */
    size_t shown = 0, left = 0;
    KS_NEW(peaks, m->n_sweeps);
    for (size_t k = 0; k < m->n_sweeps; k++) {
        const ks_view v = {.m = m, .s = &m->sweeps[k], .g = g, .opt = opt, .study = study};
        if (ks_chosen_sweep(opt, v.s)) KS_TRY(ks_report_peak(&peaks[k], &v));
    }
    for (size_t k = 0; k < g->n; k++)
        for (size_t i = 0; i < m->S; i++) {
            if (strcmp(m->groups[i], g->names[k]) != 0) continue;
            if (shown++ < MAX_SAMPLES) print_sample(out, m, opt, peaks, i);
            else left++;
        }
    if (left) fprintf(out, "<p class=\"quiet\">%zu more samples are not shown here; kosweep-stats csv has all values.</p>\n", left);
done:
    free(peaks);
    return rc;
}
