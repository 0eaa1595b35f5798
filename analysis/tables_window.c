/* Tables of one window: the full experiment and each sample. */
#include "analysis/tables_private.h"

#include "analysis/resample.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int ks_table_groups(const ks_view *v, size_t window, bool selected)
{
    int rc = KS_OK;
    ks_table t = {0};
    size_t status[KS_STATUSES] = {0};
    double *kl = NULL, *floor = NULL;
    const ks_resample how = ks_view_resample(v, 10000);
    KS_NEW(kl, v->m->S);
    KS_NEW(floor, v->m->S);
    ks_view_title(&t, v, "Full experiment", ks_where(v, window).text);
    ks_table_column(&t, true, "group");
    ks_summary_columns(&t);
    ks_table_column(&t, false, "floor");
    for (size_t i = 0; i < v->g->n; i++) {
        ks_group_cell c;
        ks_interval interval;
        KS_TRY(ks_group_measure(&c, v->m, v->s, 0, window, 0, v->g->names[i]));
        const size_t n = ks_group_values(kl, floor, v->m, v->s, 0, window, 0, v->g->names[i]);
        KS_TRY(ks_centre_interval(&interval, kl, n, KS_CENTRE_MEAN, &how));
        for (int k = 0; k < KS_STATUSES; k++) status[k] += c.status[k];
        ks_table_cell(&t, "%s", v->g->names[i]);
        ks_summary_cells(&t, &c, &interval);
        ks_table_number(&t, c.floor, "");
        if (interval.why) ks_table_note(&t, "%s: no interval of the mean: %s", v->g->names[i], interval.why);
        if (c.kl.zeros) ks_table_note(&t, "%s: %zu exact zeros, not in the geometric mean", v->g->names[i], c.kl.zeros);
    }
    ks_table_note(&t, "KL(baseline || ablated) at the last position in nats; floor: mean over the group's samples");
    ks_note_bootstrap(&t, &how);
    ks_table_note(&t, "above floor: share of the samples above their own");
    ks_note_floor(&t, v);
    ks_note_missing(&t, status);
    ks_note_selected(&t, selected);
    KS_TRY(ks_view_add(v, &t, "groups"));
done:
    ks_table_free(&t);
    free(floor);
    free(kl);
    return rc;
}

/* Levels by Pinsker's inequality, TV <= sqrt(KL / 2): what share of the probability can have moved. */
static const char *impact(double kl)
{
    return isnan(kl) ? "-" : kl < 1e-3 ? "negligible" : kl < 1e-2 ? "weak" : kl < 1e-1 ? "moderate" : "strong";
}

int ks_table_samples(const ks_view *v, size_t window, bool selected)
{
    static const char *const words[KS_STATUSES] = {"not computed", "", "a row was left empty", "not finite", "nothing to remove"};
    ks_table t = {0};
    ks_view_title(&t, v, "Samples", ks_where(v, window).text);
    ks_table_column(&t, true, "sample");
    ks_table_column(&t, true, "group");
    ks_table_column(&t, false, "edges");
    ks_table_column(&t, false, "KL");
    ks_table_column(&t, false, "floor");
    ks_table_column(&t, true, "impact");
    ks_table_column(&t, true, "top token");
    ks_table_column(&t, false, "its p after");
    ks_table_column(&t, true, "remark");
    for (size_t g = 0; g < v->g->n; g++)
        for (size_t i = 0; i < v->m->S; i++) {
            if (strcmp(v->m->groups[i], v->g->names[g])) continue;
            const size_t at = ks_study_at(v->m, v->s, 0, window, 0, i);
            const double kl = v->s->kl[at];
            ks_table_cell(&t, "%s", v->m->ids[i]);
            ks_table_cell(&t, "%s", v->m->groups[i]);
            ks_table_cell(&t, "%d", (int)v->s->edges_removed[i]);
            ks_table_number(&t, kl, ks_floor_mark(kl, v->m->floor[i]));
            ks_table_number(&t, v->m->floor[i], "");
            ks_table_cell(&t, "%s", impact(kl));
            ks_table_cell(&t, "%s", isnan(kl) ? "-" : v->s->top_changed[at] ? "changed" : "same");
            ks_table_plain(&t, v->s->p_top[at], 4);
            ks_table_cell(&t, "%s", words[v->s->status[at]]);
        }
    ks_table_note(&t, "KL(baseline || ablated) at the last position in nats; p of the baseline's top token after the intervention");
    ks_table_note(&t, "impact: negligible below 1e-3 nats, weak below 1e-2, moderate below 1e-1, strong from there on");
    ks_table_note(&t, "(at most 2.2 %%, 7 %%, 22 %% of the probability can have moved: Pinsker's inequality)");
    ks_note_floor(&t, v);
    ks_note_selected(&t, selected);
    return ks_view_add(v, &t, "samples");
}

static bool chosen_group(const ks_view *v, const char *group)
{
    for (size_t g = 0; g < v->g->n; g++)
        if (!strcmp(v->g->names[g], group)) return true;
    return false;
}

/* A token between quotes, its blanks and line ends visible. */
static void token_cell(ks_table *t, const char *text)
{
    char shown[128];
    size_t n = 0;
    shown[n++] = '"';
    for (const char *p = text; *p && n < sizeof shown - 8; p++) {
        const char *named = strchr("\nn\tt\rr", *p);
        if (named && (unsigned char)*p < 0x20) n += (size_t)snprintf(shown + n, sizeof shown - n, "\\%c", named[1]);
        else if ((unsigned char)*p < 0x20) n += (size_t)snprintf(shown + n, sizeof shown - n, "\\x%02x", (unsigned)*p);
        else shown[n++] = *p;
    }
    shown[n++] = '"';
    shown[n] = 0;
    ks_table_cell(t, "%s", shown);
}

int ks_table_positions(const ks_view *v, size_t window)
{
    const ks_study_model *m = v->m;
    ks_table t = {0};
    if (!v->s->kl_positions) return KS_OK;
    size_t best = m->S;
    double most = NAN;
    for (size_t i = 0; i < m->S; i++)
        for (size_t k = 0; chosen_group(v, m->groups[i]) && k < (size_t)m->n_tokens[i]; k++) {
            const double kl = v->s->kl_positions[ks_study_at(m, v->s, 0, window, 0, i) * m->T + k];
            if (isnan(kl) || (best < m->S && kl <= most)) continue;
            most = kl;
            best = i;
        }
    if (best == m->S) return KS_OK;
    const double *kl = v->s->kl_positions + ks_study_at(m, v->s, 0, window, 0, best) * m->T; /* [T] */
    char title[256];
    snprintf(title, sizeof title, "Positions of %.200s", m->ids[best]);
    ks_view_title(&t, v, title, ks_where(v, window).text);
    ks_table_column(&t, false, "position");
    if (m->token_text) ks_table_column(&t, true, "token");
    ks_table_column(&t, true, "role");
    ks_table_column(&t, false, "KL of what comes next");
    ks_table_column(&t, true, "of the largest");
    size_t begin = 0;
    while (isnan(kl[begin])) begin++; /* `most` is one of them */
    for (size_t k = begin; k < (size_t)m->n_tokens[best]; k++) {
        const bool marker = m->marker[best * m->T + k], target = m->target[best * m->T + k];
        ks_table_cell(&t, "%zu", k);
        if (m->token_text) token_cell(&t, m->token_text[best * m->T + k]);
        ks_table_cell(&t, "%s", marker && target ? "marker, target" : marker ? "marker" : target ? "target" : "");
        ks_table_number(&t, kl[k], "");
        ks_table_cell(&t, "%.*s", kl[k] > 0 && most > 0 ? (int)(20 * kl[k] / most + 0.5) : 0, "####################");
    }
    ks_table_note(&t, "The sample with the largest effect at any position; nothing changes in the %zu tokens before", begin);
    return ks_view_add(v, &t, "positions");
}
