#include "sweep/supply.h"

#include "base/error.h"

enum { NONE = -1, MATRICES = 7 };

/* The item's matrices as one list. */
static size_t list(const ks_supply *s, const ks_supplied *x, ks_tensor out[MATRICES])
{
    const ks_layer *l = &x->layer;
    const ks_tensor all[MATRICES] = {l->q, l->k, l->v, l->o, l->gate, l->up, l->down};
    size_t n = 0;
    if (x->item >= s->L) out[n++] = x->rows;
    for (int i = 0; i < MATRICES && x->item < s->L; i++)
        if (all[i].data) out[n++] = all[i];
    return n;
}

static int acquire(ks_supply *s, int32_t item, ks_supplied *out)
{
    out->item = item;
    if (item < s->L) return ks_weights_acquire(s->weights, item, &out->layer);
    return ks_weights_acquire_head(s->weights, item - s->L, &out->rows, &out->first_row);
}

static void release(ks_supply *s, int32_t item)
{
    if (item < s->L) ks_weights_release(s->weights, item);
    else ks_weights_release_head(s->weights, item - s->L);
}

/* Behind the item; items: the end. */
static int32_t next_of(const ks_supply *s, int32_t item, bool more)
{
    return item + 1 == s->items && more ? s->L : item + 1;
}

/* A streamed item comes into the provider's buffer, and from there, where the backend has a device, into a place there. */
static int bring(ks_supply *s, int32_t item)
{
    int rc = KS_OK;
    ks_tensor w[MATRICES];
    s->held.item = NONE;
    KS_TRY(acquire(s, item, &s->held));
    if (s->backend->fetch) rc = s->backend->fetch(s->device, w, list(s, &s->held, w));
done:
    if (rc) s->held.item = NONE;
    return rc;
}

/* The host memory of what is held may be read anew. */
static int let_go(ks_supply *s)
{
    int rc = KS_OK;
    if (s->held.item == NONE) return rc;
    if (s->backend->fetched) rc = s->backend->fetched(s->device);
    release(s, s->held.item);
    s->held.item = NONE;
    return rc;
}

/* Brings the first streamed item from `item` on. */
static int bring_ahead(ks_supply *s, int32_t item, bool more)
{
    while (item < s->items && ks_weights_stay(s->weights, item)) item = next_of(s, item, false);
    if (item == s->items && more && !ks_weights_stay(s->weights, s->L)) item = s->L;
    return item < s->items ? bring(s, item) : KS_OK;
}

/* A resident item comes to the device. */
static int keep(ks_supply *s, int32_t item)
{
    int rc = KS_OK;
    ks_supplied x;
    ks_tensor w[MATRICES];
    bool copied = false;
    if (!s->backend->keep || item >= s->items || !ks_weights_stay(s->weights, item)) return rc;
    KS_TRY(acquire(s, item, &x));
    rc = s->backend->keep(s->device, w, list(s, &x, w), &copied);
    release(s, item);
    if (copied) ks_weights_copied(s->weights, item);
done:
    return rc;
}

/* An item that rank `from` keeps comes to the others. */
static int share(ks_supply *s, int32_t item, int from, bool stays)
{
    int rc = KS_OK;
    ks_supplied x;
    ks_tensor w[MATRICES];
    if (from == s->shards.mine) KS_TRY(keep(s, item));
    KS_TRY(acquire(s, item, &x));
    rc = s->backend->share(s->device, w, list(s, &x, w), from, stays);
    release(s, item);
done:
    return rc;
}

/* What follows the queued item, or the first one. Of its own layers a rank keeps one more each time, so that all are on the devices long
 * before they are needed, and while others are computed. */
static int share_ahead(ks_supply *s, int32_t item)
{
    int rc = KS_OK;
    if (item < s->L) KS_TRY(share(s, item, item % s->shards.n, false));
    if (s->own < s->L) KS_TRY(keep(s, s->own));
    s->own += s->shards.n;
    if (item >= s->L) KS_TRY(keep(s, item));
done:
    return rc;
}

static ks_supply supply_of(const ks_backend *be, ks_device *dev, ks_weights *w, ks_shards shards)
{
    const int32_t items = ks_weights_items(w);
    return (ks_supply){be, dev, w, shards, items - ks_weights_head_blocks(w), items, NONE, shards.mine, {.item = NONE}};
}

int ks_supply_begin(ks_supply *s, const ks_backend *be, ks_device *dev, ks_weights *w, ks_shards shards)
{
    int rc = KS_OK;
    *s = supply_of(be, dev, w, shards);
    if (shards.n) return share_ahead(s, 0);
    if (be->fetch) KS_TRY(bring_ahead(s, 0, false));
    KS_TRY(keep(s, 0));
done:
    return rc;
}

int ks_supply_spread_head(const ks_backend *be, ks_device *dev, ks_weights *w, ks_shards shards)
{
    int rc = KS_OK;
    ks_supply s = supply_of(be, dev, w, shards);
    for (int32_t item = s.L; item < s.items; item++) KS_TRY(share(&s, item, item % shards.n, true));
done:
    return rc;
}

int ks_supply_walk(const ks_backend *be, ks_device *dev, ks_weights *w, ks_shards shards)
{
    int rc = KS_OK;
    ks_supply s;
    ks_layer layer;
    KS_TRY(ks_supply_begin(&s, be, dev, w, shards));
    for (int32_t l = 0; l < s.L; l++) {
        KS_TRY(ks_supply_layer(&s, &layer));
        KS_TRY(ks_supply_queued(&s, false));
    }
done:
    ks_supply_end(&s);
    return rc;
}

/* Steps to the next item. */
static int step(ks_supply *s, ks_supplied *out)
{
    int rc = KS_OK;
    s->at = next_of(s, s->at, true);
    if (ks_weights_stay(s->weights, s->at)) {
        KS_TRY(acquire(s, s->at, out));
        release(s, s->at); /* it stays in its place */
    } else {
        if (s->held.item != s->at) { /* else it was brought ahead */
            KS_TRY(let_go(s));
            KS_TRY(bring(s, s->at));
        }
        *out = s->held;
    }
done:
    return rc;
}

int ks_supply_layer(ks_supply *s, ks_layer *out)
{
    ks_supplied x;
    const int rc = step(s, &x);
    if (!rc) *out = x.layer;
    return rc;
}

int ks_supply_head(ks_supply *s, ks_tensor *rows, int64_t *first_row)
{
    ks_supplied x;
    const int rc = step(s, &x);
    if (!rc) *rows = x.rows;
    if (!rc) *first_row = x.first_row;
    return rc;
}

int ks_supply_queued(ks_supply *s, bool more)
{
    int rc = KS_OK;
    const int32_t next = next_of(s, s->at, more);
    if (s->shards.n) return share_ahead(s, next);
    if (s->held.item == s->at) {
        KS_TRY(let_go(s));
        if (s->backend->fetch) KS_TRY(bring_ahead(s, s->at + 1, more));
    }
    KS_TRY(keep(s, next));
done:
    return rc;
}

void ks_supply_end(ks_supply *s)
{
    if (s->weights) let_go(s);
    s->weights = NULL;
}
