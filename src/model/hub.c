#define _GNU_SOURCE
#include "model/hub.h"

#include "base/error.h"
#include "base/json.h"
#include "base/mem.h"

#include <ctype.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool is_directory(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Letters, digits and . _ - in parts divided by slashes; no part empty or of dots only, so that no name leaves the cache. */
static bool plain_name(const char *s, int max_slashes)
{
    int slashes = 0;
    for (;;) {
        const size_t part = strcspn(s, "/");
        if (!part || strspn(s, ".") == part) return false;
        for (size_t i = 0; i < part; i++)
            if (!isalnum((unsigned char)s[i]) && !strchr("._-", s[i])) return false;
        if (!s[part]) return true;
        if (++slashes > max_slashes) return false;
        s += part + 1;
    }
}

/* NULL with the error text set when there is neither a variable nor a home. */
static char *cache_directory(void)
{
    static const struct {
        const char *variable, *below;
    } places[] = {{"HF_HUB_CACHE", ""}, {"HF_HOME", "/hub"}, {"XDG_CACHE_HOME", "/huggingface/hub"}, {"HOME", "/.cache/huggingface/hub"}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *value = getenv(places[i].variable);
        if (value && value[0]) return ks_format("%s%s", value, places[i].below);
    }
    ks_error(KS_EINPUT, "no hub cache: none of HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME and HOME is set");
    return NULL;
}

/* Up to a few names in dir that begin with `prefix`, without it, divided by commas; "nothing" if none. `dashes` turns -- into /. */
static void list(char *text, size_t room, const char *dir, const char *prefix, bool dashes)
{
    size_t used = 0;
    int shown = 0, more = 0;
    snprintf(text, room, "nothing");
    DIR *d = opendir(dir);
    for (const struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] == '.' || strncmp(e->d_name, prefix, strlen(prefix))) continue;
        if (shown == 8) {
            more++;
            continue;
        }
        char name[300];
        snprintf(name, sizeof name, "%s", e->d_name + strlen(prefix));
        char *dash = dashes ? strstr(name, "--") : NULL;
        if (dash) {
            *dash = '/';
            memmove(dash + 1, dash + 2, strlen(dash + 2) + 1);
        }
        const int n = snprintf(text + used, room - used, "%s%s", shown ? ", " : "", name);
        if (n < 0 || (size_t)n >= room - used) break;
        used += (size_t)n;
        shown++;
    }
    if (d) closedir(d);
    if (more) snprintf(text + used, room - used, " and %d more", more);
}

int ks_hub_resolve(char **dir, const char *id, const char *revision)
{
    int rc = KS_OK;
    char *cache = NULL, *model = NULL, *ref = NULL, *snapshot = NULL, *text = NULL;
    char there[600], snapshots[600];
    if (!revision) revision = "main";
    KS_REQUIRE(plain_name(id, 1), KS_EUSAGE, "\"%s\" is neither a directory nor a model id (such as Qwen/Qwen2.5-Coder-3B)", id);
    KS_REQUIRE(plain_name(revision, 8), KS_EUSAGE, "\"%s\" cannot be a revision", revision);

    cache = cache_directory();
    if (!cache) return KS_EINPUT;
    const char *slash = strchr(id, '/');
    if (slash) KS_GET(model, ks_format("%s/models--%.*s--%s", cache, (int)(slash - id), id, slash + 1));
    else KS_GET(model, ks_format("%s/models--%s", cache, id));
    if (!is_directory(model)) {
        list(there, sizeof there, cache, "models--", true);
        KS_REQUIRE(false, KS_EINPUT, "%s: not a directory, and not in the hub cache: %s is not there. The cache %s holds %s", id, model,
                   cache, is_directory(cache) ? there : "nothing (it does not exist)");
    }

    KS_GET(ref, ks_format("%s/refs/%s", model, revision));
    struct stat st;
    if (stat(ref, &st) == 0 && S_ISREG(st.st_mode)) {
        size_t n = 0;
        KS_TRY(ks_file_read(&text, &n, ref));
        while (n && isspace((unsigned char)text[n - 1])) text[--n] = 0;
        KS_REQUIRE(plain_name(text, 0), KS_EINPUT, "%s: expected the name of a snapshot, found \"%.80s\"", ref, text);
        KS_GET(snapshot, ks_format("%s/snapshots/%s", model, text));
    } else {
        KS_GET(snapshot, ks_format("%s/snapshots/%s", model, revision));
    }
    if (!is_directory(snapshot)) {
        char *below = NULL;
        KS_GET(below, ks_format("%s/refs", model));
        list(there, sizeof there, below, "", false);
        free(below);
        KS_GET(below, ks_format("%s/snapshots", model));
        list(snapshots, sizeof snapshots, below, "", false);
        free(below);
        KS_REQUIRE(false, KS_EINPUT, "%s: revision \"%s\" is not in the hub cache: %s does not exist. refs: %s; snapshots: %s", id,
                   revision, snapshot, there, snapshots);
    }
done:
    free(cache);
    free(model);
    free(ref);
    free(text);
    if (rc) free(snapshot);
    else *dir = snapshot;
    return rc;
}

int ks_hub_find(char **dir, const char *dir_or_id, const char *revision)
{
    if (!is_directory(dir_or_id)) {
        if (!plain_name(dir_or_id, 1))
            return ks_error(KS_EINPUT, "there is no directory %s, and a model id is such as Qwen/Qwen2.5-Coder-3B", dir_or_id);
        return ks_hub_resolve(dir, dir_or_id, revision);
    }
    if (revision) return ks_error(KS_EUSAGE, "%s is a directory: a revision (\"%s\") belongs to a model id", dir_or_id, revision);
    *dir = ks_strdup(dir_or_id);
    return *dir ? KS_OK : KS_EMACHINE;
}
