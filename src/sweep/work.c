#include "sweep/work.h"

#include "base/log.h"
#include "sweep/collect.h"
#include "sweep/comm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* A baseline that is not finite comes from the weights or from an overflow: say which. */
static int explain_not_finite(const ks_task *t, int rc)
{
    char *tensor = NULL, text[1024];
    snprintf(text, sizeof text, "%s", ks_error_text());
    if (ks_model_find_nonfinite(t->model, &tensor) == KS_OK && tensor)
        ks_error(rc, "%s: %s: tensor %s holds a value that is not finite", t->dir, text, tensor);
    else ks_error(rc, "%s: %s: all weights are finite, so a state overflows fp32", t->dir, text);
    free(tensor);
    return rc;
}

static int report(double seconds, int64_t bytes_read, int threads)
{
    const ks_work_report r = {seconds, bytes_read, threads};
    return ks_comm_send_copy(0, KS_MSG_PASS, &r, sizeof r);
}

/* One pass of an order. */
static int run_pass(const ks_job *job, ks_wire *w, ks_packer *packer)
{
    int rc = KS_OK;
    ks_work_order o = {0};
    uint8_t *who = NULL;
    ks_unit *units = NULL;
    bool begun = false;
    KS_TRY(KS_TAKE(w, o));
    KS_NEW(who, o.members);
    KS_TRY(ks_wire_get(w, who, (size_t)o.members));
    KS_NEW(units, o.units);
    KS_TRY(ks_wire_get(w, units, (size_t)o.units * sizeof *units));
    KS_TRY(ks_weights_begin(job->weights, o.round, who));
    begun = true;
    const ks_sink sink = ks_packer_sink(packer);
    rc =
        o.units ? ks_engine_pass(job, units, (size_t)o.units, &sink) : ks_supply_walk(job->backend, job->device, job->weights, job->shards);
    if (rc == KS_EINPUT) rc = explain_not_finite(packer->task, rc);
    if (rc) goto done;
    KS_TRY(ks_packer_flush(packer));
done:
    if (begun) ks_weights_end(job->weights);
    free(units);
    free(who);
    return rc;
}

int ks_work(const ks_task *t, const ks_backend *be, ks_device *dev, ks_weights *weights, int threads)
{
    int rc = KS_OK;
    ks_packer packer = {.task = t};
    int64_t read = ks_weights_bytes_read(weights);
    const ks_shards shards = {t->sharded ? ks_comm_size() : 0, ks_comm_rank()};
    const ks_job job = {be, dev, t->model, weights, shards, &t->problem, t->tokens, t->precision, t->save_logits};
    size_t bytes;
    void *buffers = ks_weights_buffers(weights, &bytes);
    if (be->pin && buffers) KS_TRY(be->pin(dev, buffers, bytes));
    if (shards.n) KS_TRY(ks_supply_spread_head(be, dev, weights, shards));
    KS_TRY(report(0, 0, threads));
    for (;;) {
        ks_message m;
        KS_TRY(ks_comm_receive(KS_KIND(KS_MSG_WORK) | KS_KIND(KS_MSG_END), INFINITY, &m));
        if (m.kind == KS_MSG_END) break;
        const double begin = ks_seconds();
        ks_wire w = {.data = m.data, .bytes = m.bytes};
        rc = run_pass(&job, &w, &packer);
        free(m.data);
        if (rc) goto done;
        const int64_t so_far = ks_weights_bytes_read(weights);
        KS_TRY(report(ks_seconds() - begin, so_far - read, threads));
        read = so_far;
    }
done:
    free(packer.wire.data);
    if (rc && !ks_comm_broken()) ks_comm_fail(rc);
    if (be->forget) be->forget(dev); /* the model may be closed next */
    return rc;
}
