#include "input/samples.h"

#include "base/error.h"
#include "base/json.h"
#include "base/mem.h"
#include "input/tokenizer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 12 }; /* characters of text shown on either side of a position in a message */

/* ---- choosing ---- */

static bool has(char *const *list, size_t n, const char *s)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i], s)) return true;
    return false;
}

static int unknown(const ks_corpus *c, const char *what, const char *name, const char *const *known)
{
    const char *near = ks_nearest(name, known);
    if (near) return ks_error(KS_EUSAGE, "%s: has no %s \"%s\"; did you mean \"%s\"?", c->path, what, name, near);
    return ks_error(KS_EUSAGE, "%s: has no %s \"%s\"", c->path, what, name);
}

/* python_doctest -> python_baseline: the part before the last "_" names the language. */
static bool is_twin(const char *group, const char *of)
{
    const char *end = strrchr(of, '_');
    if (!end || !strcmp(end, "_baseline")) return false;
    const size_t n = (size_t)(end - of);
    return !strncmp(group, of, n) && !strcmp(group + n, "_baseline");
}

/* wanted [c->n_groups]. */
static int choose_groups(bool *wanted, const ks_corpus *c, const ks_config *cfg)
{
    static char *const defaults[] = {"python_doctest", "rust_test"};
    int rc = KS_OK;
    bool any = false, twins = false;
    const char **names = NULL;
    KS_NEW(names, c->n_groups + 1);
    for (size_t g = 0; g < c->n_groups; g++) names[g] = c->groups[g];
    for (size_t i = 0; i < cfg->n_groups; i++)
        if (!has(c->groups, c->n_groups, cfg->groups[i])) KS_TRY(unknown(c, "group", cfg->groups[i], names));
    for (size_t g = 0; g < c->n_groups; g++) {
        wanted[g] = cfg->n_groups ? has(cfg->groups, cfg->n_groups, c->groups[g]) : has(defaults, 2, c->groups[g]);
        any |= wanted[g];
    }
    for (size_t g = 0; g < c->n_groups && !any; g++) wanted[g] = true;
    if (!cfg->include_baselines) goto done;
    for (size_t g = 0; g < c->n_groups; g++)
        for (size_t of = 0; of < c->n_groups; of++)
            if (wanted[of] && is_twin(c->groups[g], c->groups[of])) wanted[g] = twins = true;
    KS_REQUIRE(twins, KS_EUSAGE, "%s: baselines are asked for, but no chosen group has a *_baseline twin", c->path);
done:
    free(names);
    return rc;
}

/* Without groups of their own, ids are looked for in every group; with groups, an id outside them is an error. */
static int choose(const ks_corpus_sample ***out, size_t *n, const ks_corpus *c, const ks_config *cfg)
{
    int rc = KS_OK;
    bool *wanted = NULL;
    const ks_corpus_sample **chosen = NULL;
    const char **ids = NULL;
    size_t g = 0;
    *n = 0;
    KS_NEW(wanted, c->n_groups);
    KS_NEW(chosen, c->n);
    KS_NEW(ids, c->n + 1);
    KS_TRY(choose_groups(wanted, c, cfg));
    if (cfg->n_samples && !cfg->n_groups)
        for (size_t i = 0; i < c->n_groups; i++) wanted[i] = true;
    for (size_t i = 0; i < c->n; i++) ids[i] = c->samples[i].id;
    for (size_t i = 0; i < cfg->n_samples; i++) {
        size_t at = 0;
        while (at < c->n && strcmp(c->samples[at].id, cfg->samples[i]) != 0) at++;
        if (at == c->n) KS_TRY(unknown(c, "sample", cfg->samples[i], ids));
        size_t group = 0;
        while (strcmp(c->groups[group], c->samples[at].group) != 0) group++;
        KS_REQUIRE(wanted[group], KS_EUSAGE, "%s: the sample \"%s\" is in the group \"%s\", which is not among the chosen groups", c->path,
                   cfg->samples[i], c->groups[group]);
    }
    for (size_t i = 0; i < c->n; i++) {
        while (strcmp(c->groups[g], c->samples[i].group) != 0) g++; /* both lists are in file order */
        if (wanted[g] && (!cfg->n_samples || has(cfg->samples, cfg->n_samples, c->samples[i].id))) chosen[(*n)++] = &c->samples[i];
    }
    *out = chosen;
    chosen = NULL;
done:
    free(wanted);
    free(chosen);
    free(ids);
    return rc;
}

int ks_samples_need_tokenizer(bool *out, const ks_corpus *c, const ks_config *cfg)
{
    int rc = KS_OK;
    const ks_corpus_sample **chosen = NULL;
    size_t n = 0;
    KS_TRY(choose(&chosen, &n, c, cfg));
    *out = false;
    for (size_t i = 0; i < n; i++) *out |= chosen[i]->text != NULL;
done:
    free(chosen);
    return rc;
}

/* ---- tokens ---- */

static int new_tokens(ks_sample *s, size_t T)
{
    int rc = KS_OK;
    s->T = (int32_t)T;
    KS_NEW(s->ids, T);
    KS_NEW(s->start, T);
    KS_NEW(s->end, T);
    KS_NEW(s->marker, T);
    KS_NEW(s->target, T);
    KS_NEW(s->token_text, T);
done:
    return rc;
}

static int check_vocabulary(const ks_sample *s, const char *path, int64_t vocab)
{
    for (int32_t t = 0; t < s->T; t++)
        if (s->ids[t] < 0 || s->ids[t] >= vocab)
            return ks_error(KS_EINPUT, "%s: sample \"%s\": token %d has the id %d, beyond the model's vocabulary of %" PRId64, path, s->id,
                            (int)t, (int)s->ids[t], vocab);
    return KS_OK;
}

/* The first token that holds character p, or -1. */
static int32_t token_at(const ks_sample *s, int64_t p)
{
    for (int32_t t = 0; t < s->T; t++)
        if (s->start[t] <= p && p < s->end[t]) return t;
    return -1;
}

/* A text with its line ends shown, for one-line messages. NULL with the error text set. */
static char *one_line(const char *text, size_t bytes)
{
    char *line = ks_calloc(2 * bytes + 1, 1), *p = line;
    for (size_t i = 0; line && i < bytes; i++) {
        if (text[i] == '\n') *p++ = '\\', *p++ = 'n';
        else *p++ = text[i];
    }
    return line;
}

static int no_token(const ks_sample *s, const char *path, const char *what, int64_t p, const size_t *offset, size_t n_chars)
{
    int rc = KS_OK;
    char *before = NULL, *after = NULL;
    const size_t at = (size_t)p, a = at > CONTEXT ? at - CONTEXT : 0, b = at + 1 + CONTEXT < n_chars ? at + 1 + CONTEXT : n_chars;
    KS_GET(before, one_line(s->text + offset[a], offset[at] - offset[a]));
    KS_GET(after, one_line(s->text + offset[at], offset[b] - offset[at]));
    rc = ks_error(KS_EINPUT, "%s: sample \"%s\": no token holds character %" PRId64 " (%s), in \"%s|%s\"", path, s->id, p, what, before,
                  after);
done:
    free(before);
    free(after);
    return rc;
}

static int resolve_text(ks_sample *s, const ks_corpus_sample *from, const char *path, const ks_config *cfg, const ks_tokenizer *tok)
{
    int rc = KS_OK;
    ks_encoding e = {0};
    size_t *offset = NULL, *pattern = NULL, n_chars = 0, n_marker = 0;
    KS_REQUIRE(tok, KS_EINPUT, "%s: sample \"%s\" is a text, and there is no tokenizer for it", path, from->id);
    KS_GET(s->text, ks_strdup(from->text));
    KS_GET(offset, ks_char_offsets(from->text, from->text_bytes, &n_chars));
    rc = ks_tokenizer_encode(tok, from->text, from->text_bytes, cfg->special_tokens == KS_SPECIAL_TOKENIZER, &e);
    if (rc) {
        rc = ks_error_context(rc, "%s: sample \"%s\"", path, from->id);
        goto done;
    }
    KS_REQUIRE(e.n > 0 && e.n < INT32_MAX, KS_EINPUT, "%s: sample \"%s\": the tokenizer gives %zu tokens", path, from->id, e.n);
    KS_TRY(new_tokens(s, e.n));
    for (size_t t = 0; t < e.n; t++) {
        s->ids[t] = e.ids[t];
        s->start[t] = e.start[t];
        s->end[t] = e.end[t];
        KS_REQUIRE(e.start[t] >= 0 && e.start[t] <= e.end[t] && (size_t)e.end[t] <= n_chars, KS_EINPUT,
                   "%s: sample \"%s\": token %zu has the range [%d, %d), outside the text's %zu characters", path, from->id, t,
                   (int)e.start[t], (int)e.end[t], n_chars);
        const size_t a = offset[e.start[t]], b = offset[e.end[t]];
        if (b > a) KS_GET(s->token_text[t], ks_format("%.*s", (int)(b - a), from->text + a));
        else KS_TRY(ks_tokenizer_token_text(tok, e.ids[t], &s->token_text[t]));
    }

    KS_GET(pattern, ks_char_offsets(from->marker_pattern, strlen(from->marker_pattern), &n_marker));
    const int64_t marker_end = cfg->marker == KS_MARKER_SPAN ? from->marker_char + (int64_t)n_marker : from->marker_char + 1;
    for (int64_t p = from->marker_char; p < marker_end; p++) {
        const int32_t t = token_at(s, p);
        if (t < 0) KS_TRY(no_token(s, path, "of the marker", p, offset, n_chars));
        s->marker[t] = 1;
    }
    /* Several tokens may share one character (bytes of a character): a span takes them all. */
    for (int32_t t = 0; cfg->marker == KS_MARKER_SPAN && t < s->T; t++)
        if (s->end[t] > s->start[t] && s->end[t] > from->marker_char && s->start[t] < marker_end) s->marker[t] = 1;
    for (size_t i = 0; i < from->n_targets; i++) {
        const int32_t t = token_at(s, from->target_chars[i]);
        if (t < 0) KS_TRY(no_token(s, path, "a target", from->target_chars[i], offset, n_chars));
        s->target[t] = 1;
    }
done:
    free(offset);
    free(pattern);
    ks_encoding_free(&e);
    return rc;
}

static int resolve_tokens(ks_sample *s, const ks_corpus_sample *from, const ks_config *cfg, const ks_tokenizer *tok)
{
    int rc = KS_OK;
    KS_TRY(new_tokens(s, from->n_tokens));
    for (int32_t t = 0; t < s->T; t++) {
        s->ids[t] = from->token_ids[t];
        s->start[t] = s->end[t] = -1;
        /* An id of the model that the tokenizer does not know (padding of the vocabulary) has no text. */
        if (!tok || ks_tokenizer_token_text(tok, s->ids[t], &s->token_text[t]) != KS_OK) KS_GET(s->token_text[t], ks_strdup(""));
    }
    const size_t n_marker = cfg->marker == KS_MARKER_SPAN ? from->n_marker_tokens : 1;
    for (size_t i = 0; i < n_marker; i++) s->marker[from->marker_tokens[i]] = 1;
    for (size_t i = 0; i < from->n_target_tokens; i++) s->target[from->target_tokens[i]] = 1;
done:
    return rc;
}

int ks_samples_resolve(ks_samples **out, const ks_corpus *c, const ks_config *cfg, const ks_tokenizer *tok, int64_t vocab)
{
    int rc = KS_OK;
    const ks_corpus_sample **chosen = NULL;
    ks_samples *s = NULL;
    size_t n = 0;
    KS_TRY(choose(&chosen, &n, c, cfg));
    KS_NEW(s, 1);
    KS_NEW(s->v, n);
    for (size_t i = 0; i < n; i++) {
        ks_sample *v = &s->v[i];
        s->n = i + 1; /* first, so that a sample that fails halfway is freed */
        KS_GET(v->id, ks_strdup(chosen[i]->id));
        KS_GET(v->group, ks_strdup(chosen[i]->group));
        KS_TRY(chosen[i]->text ? resolve_text(v, chosen[i], c->path, cfg, tok) : resolve_tokens(v, chosen[i], cfg, tok));
        KS_TRY(check_vocabulary(v, c->path, vocab));
    }
done:
    free(chosen);
    if (rc) ks_samples_free(s);
    else *out = s;
    return rc;
}

void ks_samples_free(ks_samples *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->n; i++) {
        ks_sample *v = &s->v[i];
        for (int32_t t = 0; v->token_text && t < v->T; t++) free(v->token_text[t]);
        free(v->id);
        free(v->group);
        free(v->text);
        free(v->ids);
        free(v->start);
        free(v->end);
        free(v->marker);
        free(v->target);
        free(v->token_text);
    }
    free(s->v);
    free(s);
}
