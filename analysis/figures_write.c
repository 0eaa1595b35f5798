/* kosweep-stats figures: the files. */
#include "analysis/figures.h"
#include "analysis/tables.h"

#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DOTS_PER_INCH = 200 };

/* "results.h5" -> "results-figures" */
static char *default_folder(const char *path)
{
    const size_t n = strlen(path), cut = n > 3 && !strcmp(path + n - 3, ".h5") ? n - 3 : n;
    return ks_format("%.*s-figures", (int)cut, path);
}

static int write_file(const char *path, const void *data, size_t bytes)
{
    int rc = KS_OK;
    FILE *f = fopen(path, "wb");
    KS_REQUIRE(f, KS_EMACHINE, "%s: cannot be written: %s", path, strerror(errno));
    const bool whole = fwrite(data, 1, bytes, f) == bytes, closed = !fclose(f);
    KS_REQUIRE(whole && closed, KS_EMACHINE, "%s: cannot be written: %s", path, strerror(errno));
done:
    return rc;
}

static int write_figure(FILE *out, const char *folder, const ks_figure *figure, bool png)
{
    int rc = KS_OK;
    char *path = NULL, *data = NULL;
    unsigned char *image = NULL;
    size_t bytes = 0;
    KS_GET(path, ks_format("%s/%s.%s", folder, figure->name, png ? "png" : "svg"));
    KS_TRY(png ? ks_figure_png(figure, DOTS_PER_INCH, &image, &bytes) : ks_figure_svg(figure, &data, &bytes));
    KS_TRY(write_file(path, png ? (void *)image : data, bytes));
    fprintf(out, "%s: %s\n", path, figure->caption);
done:
    free(image);
    free(data);
    free(path);
    return rc;
}

static int refuse_existing(const char *folder, const ks_figures *figures, const ks_figure_files *how)
{
    int rc = KS_OK;
    char *path = NULL;
    for (size_t i = 0; i < figures->n; i++)
        for (int png = 0; png < 2; png++) {
            if (!(png ? how->png : how->svg)) continue;
            free(path);
            KS_GET(path, ks_format("%s/%s.%s", folder, figures->list[i].name, png ? "png" : "svg"));
            KS_REQUIRE(access(path, F_OK) != 0, KS_EUSAGE, "%s: is there already; --force replaces it, --output names another folder",
                       path);
        }
done:
    free(path);
    return rc;
}

int ks_figures_write(FILE *out, const char *const *paths, size_t n, const ks_table_options *opt, const ks_figure_files *how)
{
    int rc = KS_OK;
    ks_study **studies = NULL;
    ks_figures figures = {0};
    char *folder = NULL;
    KS_NEW(studies, n);
    KS_TRY(ks_studies_read(studies, paths, n));
    KS_TRY(ks_figures_make(&figures, studies, n, opt, how->only));
    KS_REQUIRE(figures.n, KS_EUSAGE, "%s: no figure fits the chosen sweeps%s%s; figures need computed cells, most also several windows",
               paths[0], how->only ? " and --only " : "", how->only ? how->only : "");
    KS_GET(folder, how->folder ? ks_strdup(how->folder) : default_folder(paths[0]));
    if (mkdir(folder, 0777)) {
        struct stat s;
        KS_REQUIRE(errno == EEXIST, KS_EMACHINE, "%s: the folder cannot be made: %s", folder, strerror(errno));
        KS_REQUIRE(!stat(folder, &s) && S_ISDIR(s.st_mode), KS_EUSAGE, "%s: expected a folder, found a file; --output names another",
                   folder);
    }
    if (!how->force) KS_TRY(refuse_existing(folder, &figures, how));
    for (size_t i = 0; i < figures.n; i++) {
        if (how->svg) KS_TRY(write_figure(out, folder, &figures.list[i], false));
        if (how->png) KS_TRY(write_figure(out, folder, &figures.list[i], true));
    }
    KS_REQUIRE(!fflush(out) && !ferror(out), KS_EMACHINE, "the list of figures cannot be written: %s", strerror(errno));
done:
    free(folder);
    ks_figures_free(&figures);
    ks_studies_free(studies, n);
    return rc;
}
