/* replay.c - main of a fuzz target where there is no libFuzzer: runs it once on every file that is named, or that a named folder holds.
 * Fails where there is none: a regression test without inputs would test nothing. */
#define _GNU_SOURCE
#include "fuzz.h"

#include "base/json.h"

#include <dirent.h>
#include <string.h>

static int replay(const char *path)
{
    char *text = NULL;
    size_t bytes = 0;
    const int rc = ks_file_read(&text, &bytes, path);
    if (rc) return rc;
    /* At its exact size, so that a sanitizer sees a byte too far. */
    uint8_t *exact = malloc(bytes ? bytes : 1);
    FUZZ_CHECK(exact);
    memcpy(exact, text, bytes);
    free(text);
    LLVMFuzzerTestOneInput(exact, bytes);
    free(exact);
    return KS_OK;
}

int main(int argc, char **argv)
{
    int rc = KS_OK;
    size_t n = 0;
    for (int i = 1; i < argc && !rc; i++) {
        struct dirent **list = NULL;
        const int entries = scandir(argv[i], &list, NULL, alphasort);
        for (int k = 0; k < entries; k++) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", argv[i], list[k]->d_name);
            if (!rc && list[k]->d_name[0] != '.') rc = replay(path), n++;
            free(list[k]);
        }
        free(list);
        if (entries < 0) rc = replay(argv[i]), n++;
    }
    if (rc) fprintf(stderr, "error: %s\n", ks_error_text());
    printf("%zu inputs\n", n);
    return rc ? rc : n ? 0 : 1;
}
