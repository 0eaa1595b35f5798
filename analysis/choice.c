#include "analysis/choice.h"

#include "analysis/resample.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

typedef struct choosing {
    const double *v; /* [layers, stride] */
    size_t layers, stride, n[2];
    const uint32_t *member[2]; /* [n[g]] columns of each group */
    ks_criterion criterion;
} choosing;

/* The effect of two groups' values: the mean of the groups that there are, or the difference. */
static double effect(const choosing *c, double mean_0, double mean_1)
{
    if (!c->n[1]) return mean_0;
    return c->criterion == KS_CHOOSE_DIFFERENCE ? mean_0 - mean_1 : mean_0 / 2 + mean_1 / 2;
}

/* Mean over the members of a group with in[k], less the one at `without`. NaN where nothing is left. */
static double mean_over(const choosing *c, size_t layer, size_t g, const bool *in, size_t without)
{
    double sum = 0;
    size_t n = 0;
    for (size_t k = 0; k < c->n[g]; k++) {
        const uint32_t at = c->member[g][k];
        const double x = c->v[layer * c->stride + at];
        if ((in && !in[at]) || at == without || isnan(x)) continue;
        sum += x;
        n++;
    }
    return n ? sum / (double)n : (double)NAN;
}

/* The layer of largest effect; c->layers where no layer has one. */
static size_t choose(const choosing *c, const bool *in, size_t without)
{
    size_t best = c->layers;
    double most = -INFINITY;
    for (size_t l = 0; l < c->layers; l++) {
        double x = effect(c, mean_over(c, l, 0, in, without), mean_over(c, l, 1, in, without));
        if (c->criterion == KS_CHOOSE_DIFFERENCE) x = fabs(x);
        if (x > most) {
            most = x;
            best = l;
        }
    }
    return best;
}

typedef struct values {
    const choosing *c;
    const double *v[2]; /* [n of each group] */
} values;

static double effect_of(void *context, const uint32_t *a, size_t na, const uint32_t *b, size_t nb)
{
    const values *u = context;
    double mean[2] = {0, 0};
    for (size_t i = 0; i < na; i++) mean[0] += u->v[0][a[i]];
    for (size_t i = 0; i < nb; i++) mean[1] += u->v[1][b[i]];
    return effect(u->c, mean[0] / (double)na, nb ? mean[1] / (double)nb : 0);
}

/* The effect of one value a sample (value [samples], NaN: none) and its interval. room [2 * samples]. */
static int measure(double *found, ks_interval *interval, const choosing *c, const double *value, double *room, const ks_resample *how)
{
    size_t n[2] = {0, 0};
    bool flat[2] = {true, true};
    double *v[2] = {room, room + c->n[0]};
    for (size_t g = 0; g < 2; g++)
        for (size_t k = 0; k < c->n[g]; k++) {
            const double x = value[c->member[g][k]];
            if (isnan(x)) continue;
            v[g][n[g]++] = x;
            flat[g] &= x == v[g][0];
        }
    *found = NAN;
    *interval = (ks_interval){NAN, NAN, NULL};
    if (!n[0] || (c->n[1] && !n[1])) interval->why = KS_WHY_NONE;
    else *found = effect(c, ks_mean(v[0], n[0]), n[1] ? ks_mean(v[1], n[1]) : 0);
    if (!interval->why && flat[0] && flat[1]) interval->why = KS_WHY_FLAT;
    if (interval->why) return KS_OK;
    return ks_bootstrap(interval, effect_of, &(values){c, {v[0], v[1]}}, n[0], c->n[1] ? n[1] : 0, how);
}

/* A random half of each group, the larger one where it is odd. */
static void halve(const choosing *c, bool *in, uint32_t *order, uint64_t seed, uint64_t turn)
{
    ks_random r = ks_random_at(seed, turn);
    for (size_t i = 0; i < c->stride; i++) in[i] = false;
    for (size_t g = 0; g < 2; g++) {
        for (size_t k = 0; k < c->n[g]; k++) order[k] = c->member[g][k];
        ks_random_choose(&r, order, c->n[g], (c->n[g] + 1) / 2);
        for (size_t k = 0; k < (c->n[g] + 1) / 2; k++) in[order[k]] = true;
    }
}

int ks_choose_layer(ks_choice *out, double *held_out, const double *v, size_t layers, const uint8_t *group, size_t samples,
                    ks_criterion criterion, const ks_resample *how)
{
    int rc = KS_OK;
    const ks_resample h = how ? *how : KS_RESAMPLE;
    choosing c = {.v = v, .layers = layers, .stride = samples, .criterion = criterion};
    uint32_t *member[2] = {NULL, NULL}, *order = NULL;
    double *value = NULL, *room = NULL;
    bool *in = NULL, finite = true;
    const size_t turns = h.draws < 1000 ? h.draws : 1000;
    *out = (ks_choice){.layer = layers, .split_layer = layers, .same = NAN, .left_out = NAN, .split = NAN, .split_same = NAN};
    KS_NEW(member[0], samples);
    KS_NEW(member[1], samples);
    KS_NEW(order, samples);
    KS_NEW(value, samples);
    KS_NEW(room, 2 * samples);
    KS_NEW(in, samples);
    for (size_t i = 0; i < samples; i++) {
        const uint8_t g = group ? group[i] : 0;
        if (held_out) held_out[i] = NAN;
        if (g > 1) continue;
        member[g][c.n[g]++] = (uint32_t)i;
        for (size_t l = 0; l < layers; l++) finite &= !isinf(v[l * samples + i]);
    }
    c.member[0] = member[0];
    c.member[1] = member[1];
    out->why = c.n[0] < 2 || c.n[1] == 1 || (criterion == KS_CHOOSE_DIFFERENCE && !c.n[1]) ? KS_WHY_FEW : !finite ? KS_WHY_INFINITE : NULL;
    if (!out->why) out->layer = choose(&c, NULL, samples);
    if (!out->why && out->layer == layers) out->why = KS_WHY_NONE;
    out->same_interval = out->left_out_interval = out->split_interval = (ks_interval){NAN, NAN, out->why};
    if (out->why) goto done;

    KS_TRY(measure(&out->same, &out->same_interval, &c, v + out->layer * samples, room, how));

    for (size_t i = 0; i < samples; i++) value[i] = NAN;
    for (size_t g = 0; g < 2; g++)
        for (size_t k = 0; k < c.n[g]; k++) {
            const uint32_t i = member[g][k];
            const size_t l = choose(&c, NULL, i);
            out->left_out_same += l == out->layer;
            if (l < layers) value[i] = v[l * samples + i];
        }
    for (size_t i = 0; held_out && i < samples; i++) held_out[i] = value[i];
    KS_TRY(measure(&out->left_out, &out->left_out_interval, &c, value, room, how));

    /* Both halves of every group need two samples for an interval. */
    out->split_same = 0;
    for (size_t turn = turns; turn-- > 0;) {
        halve(&c, in, order, h.seed, turn);
        out->split_layer = choose(&c, in, samples);
        out->split_same += (double)(out->split_layer == out->layer) / (double)turns;
    }
    if (out->split_layer == layers) {
        out->split_interval.why = KS_WHY_NONE;
        goto done;
    }
    for (size_t i = 0; i < samples; i++) value[i] = in[i] ? (double)NAN : v[out->split_layer * samples + i];
    KS_TRY(measure(&out->split, &out->split_interval, &c, value, room, how));
done:
    free(member[0]);
    free(member[1]);
    free(order);
    free(value);
    free(room);
    free(in);
    return rc;
}
