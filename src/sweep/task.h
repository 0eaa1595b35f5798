/* task.h - everything a rank needs to compute one model's part of a problem. Root makes it from the configuration; the others get it by
 * broadcast and read nothing but the model's directory. */
#ifndef KS_SWEEP_TASK_H
#define KS_SWEEP_TASK_H

#include "input/corpus.h"
#include "input/samples.h"
#include "input/tokenizer.h"
#include "sweep/engine.h"
#include "sweep/wire.h"

/* The program itself: libraries, packed operands of products, tokenizer, rows of the embedding, results. Measured with a vocabulary of
 * 49,152; bench/sweep.sh compares the whole prediction with what is used. */
enum { KS_PROGRAM_BYTES = 48 << 20 };

/* The memory where weights and arrays lie: the host's, or a device's. */
typedef struct ks_memory {
    int64_t bytes, own; /* that a rank may use; of them for the program, or the backend, itself */
    bool device;
    int shards; /* over so many ranks' devices weights can be sharded; 0: they cannot */
} ks_memory;

typedef struct ks_task {
    char *name, *dir;
    ks_model *model;
    int precision; /* KS_PRECISION_* */
    ks_streamed streamed;
    bool sharded; /* over all ranks */
    bool save_logits;
    char weights_sha256[65], config_sha256[65]; /* root's */
    ks_tokens *tokens;                          /* [problem.n_samples] */
    ks_grid *grid;
    ks_problem problem;     /* its done and baseline_done are these: */
    uint64_t *done;         /* [n_samples, ks_done_words] or NULL */
    uint8_t *baseline_done; /* [n_samples] or NULL */

    /* Root only. */
    int64_t budget; /* bytes of arrays of a pass */
    ks_plan *plan;
    int weights; /* KS_SOURCE_*: what was asked for */
    const ks_model_ref *ref;
    ks_samples *samples;
    ks_tokenizer *tokenizer; /* NULL where the directory has none and no text needs it */
} ks_task;

/* Model i of the configuration, resolved, checked, tokenised and planned for `ranks` ranks with that memory each and this backend (NULL:
 * none that wants operands in parts). Root. */
int ks_task_prepare(ks_task **out, const ks_config *cfg, size_t i, const ks_corpus *corpus, const ks_backend *be, int ranks,
                    const ks_memory *memory);
/* Plans once more, for what is not done by now; the former plan is freed. Chooses what of the weights is resident. Root. */
int ks_task_plan(ks_task *t, int ranks, const ks_memory *memory);
/* Collective: root's task to every rank; the others get a new one in *task. */
int ks_task_share(ks_task **task);
void ks_task_free(ks_task *t);

/* Memory of the host that a rank may use: what the configuration says, else a share of what is free. */
ks_memory ks_task_memory(const ks_config *cfg, int local_ranks);

#endif
