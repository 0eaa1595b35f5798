#include "analysis/select.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool ks_is_baseline(const char *group)
{
    const size_t n = strlen(group), m = strlen("_baseline");
    return n > m && !strcmp(group + n - m, "_baseline");
}

static const char *find_group(const ks_study_model *m, const char *name, size_t length)
{
    for (size_t s = 0; s < m->S; s++)
        if (strlen(m->groups[s]) == length && !memcmp(m->groups[s], name, length)) return m->groups[s];
    return NULL;
}

int ks_groups_choose(ks_groups *out, const ks_study_model *m, const ks_table_options *o)
{
    int rc = KS_OK;
    *out = (ks_groups){0};
    KS_NEW(out->names, m->S);
    if (o->groups) {
        for (const char *p = o->groups; *p;) {
            const size_t length = strcspn(p, ",");
            const char *name = find_group(m, p, length);
            KS_REQUIRE(name, KS_EUSAGE, "--groups: model %s has no group \"%.*s\"; its first is \"%s\"", m->name, (int)length, p,
                       m->groups[0]);
            for (size_t i = 0; i < out->n; i++) KS_REQUIRE(strcmp(out->names[i], name), KS_EUSAGE, "--groups: \"%s\" stands twice", name);
            out->names[out->n++] = name;
            p += length + (p[length] == ',');
        }
        KS_REQUIRE(out->n, KS_EUSAGE, "--groups: names no group");
    }
    for (size_t s = 0; s < m->S && !o->groups; s++) {
        size_t i = 0;
        while (i < out->n && strcmp(out->names[i], m->groups[s])) i++;
        if (i == out->n) out->names[out->n++] = m->groups[s];
    }
    size_t tests = 0;
    for (size_t i = 0; i < out->n && tests < 2; i++)
        if (o->groups || !ks_is_baseline(out->names[i])) out->tests[tests++] = out->names[i];
    if (!tests) out->tests[0] = out->names[0]; /* nothing but baselines */
done:
    if (rc) ks_groups_free(out);
    return rc;
}

void ks_groups_free(ks_groups *g)
{
    free(g->names);
    *g = (ks_groups){0};
}

bool ks_chosen_model(const ks_table_options *o, const ks_study_model *m)
{
    return !o->model || !strcmp(o->model, m->name) || !strcmp(o->model, m->id);
}

bool ks_chosen_sweep(const ks_table_options *o, const ks_study_sweep *s)
{
    return !o->sweep || !strcmp(o->sweep, s->name);
}

bool ks_chosen_window(const ks_table_options *o, const ks_study_sweep *s, size_t w)
{
    return !o->has_window || (s->layer_start[w] == o->window_start && s->layer_end[w] == o->window_end);
}

int ks_check_choice(ks_study *const *studies, size_t n, const ks_table_options *o)
{
    bool model = false, sweep = false;
    for (size_t f = 0; f < n; f++)
        for (size_t i = 0; i < studies[f]->n_models; i++) {
            const ks_study_model *m = &studies[f]->models[i];
            if (!ks_chosen_model(o, m)) continue;
            model = true;
            for (size_t k = 0; k < m->n_sweeps; k++) {
                const ks_study_sweep *s = &m->sweeps[k];
                if (!ks_chosen_sweep(o, s)) continue;
                sweep = true;
                for (size_t w = 0; w < s->W; w++)
                    if (ks_chosen_window(o, s, w)) return KS_OK;
            }
        }
    char known[512] = "";
    for (size_t f = 0; f < n; f++)
        for (size_t i = 0; i < studies[f]->n_models; i++) {
            const ks_study_model *m = &studies[f]->models[i];
            if (model && !ks_chosen_model(o, m)) continue;
            for (size_t k = 0; k < (model ? m->n_sweeps : 1); k++) {
                const size_t at = strlen(known);
                snprintf(known + at, sizeof known - at, "%s%.60s", at ? ", " : "", model ? m->sweeps[k].name : m->name);
            }
        }
    if (!model) return ks_error(KS_EUSAGE, "--model: no model \"%s\"; there is %s", o->model, known);
    if (!sweep && o->sweep) return ks_error(KS_EUSAGE, "--sweep: no sweep \"%s\"; there is %s", o->sweep, known);
    if (!sweep) return ks_error(KS_EINPUT, "%s: holds no sweep", studies[0]->path);
    return ks_error(KS_EUSAGE, "--window: no chosen sweep has the window %d-%d", (int)o->window_start, (int)o->window_end);
}

size_t ks_group_values(double *kl, double *floor, const ks_study_model *m, const ks_study_sweep *s, size_t factor, size_t window,
                       size_t head, const char *group)
{
    size_t n = 0;
    for (size_t i = 0; i < m->S; i++) {
        if (m->groups[i] != group && strcmp(m->groups[i], group) != 0) continue;
        kl[n] = s->kl[ks_study_at(m, s, factor, window, head, i)];
        floor[n++] = m->floor[i];
    }
    return n;
}

int ks_group_measure(ks_group_cell *out, const ks_study_model *m, const ks_study_sweep *s, size_t factor, size_t window, size_t head,
                     const char *group)
{
    int rc = KS_OK;
    size_t n = 0, floors = 0;
    double *kl = NULL;
    *out = (ks_group_cell){.floor = 0};
    KS_NEW(kl, m->S);
    for (size_t i = 0; i < m->S; i++) {
        if (m->groups[i] != group && strcmp(m->groups[i], group) != 0) continue;
        const size_t at = ks_study_at(m, s, factor, window, head, i);
        kl[n++] = s->kl[at];
        out->status[s->status[at]]++;
        out->top_changed += s->top_changed[at] != 0;
        if (isnan(s->kl[at]) || isnan(m->floor[i])) continue;
        out->floor += m->floor[i];
        out->above += s->kl[at] > m->floor[i];
        floors++;
    }
    out->floor = floors ? out->floor / (double)floors : (double)NAN;
    out->above = floors ? out->above / (double)floors : (double)NAN;
    KS_TRY(ks_summarize(&out->kl, kl, n));
done:
    free(kl);
    return rc;
}
