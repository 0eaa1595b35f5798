/* supply.h - the weights of one pass in the order of their use: layers, then the head's blocks as often as need be. Hides what is held,
 * released and brought ahead.
 *
 * A backend that computes where the weights lie (CPU) gets each item as the provider has it. For one that copies them to a device, what
 * comes next is on its way while the item at hand is computed: streamed items through the two buffers of the provider into two places on
 * the device, one streamed item ahead; resident ones for good, at their first use, one item ahead. Sharded layers are kept by one of n
 * devices each, and come from there into the two places of the others, one layer ahead; so all n ranks walk through the layers together.
 *
 *     device   computes 0 | 1 (resident) | 2          | 3            streamed: 0, 2, 3
 *     copy     2          |              | 3          |
 *     reader   3             ...          | ...
 */
#ifndef KS_SWEEP_SUPPLY_H
#define KS_SWEEP_SUPPLY_H

#include "compute/backend.h"
#include "model/weights.h"

/* Layer l is kept by rank l % n. */
typedef struct ks_shards {
    int n, mine; /* 0: not sharded; of this rank */
} ks_shards;

typedef struct ks_supplied {
    int32_t item; /* of weights.h; NONE: none */
    ks_layer layer;
    ks_tensor rows; /* of the head */
    int64_t first_row;
} ks_supplied;

typedef struct ks_supply {
    const ks_backend *backend;
    ks_device *device;
    ks_weights *weights;
    ks_shards shards;
    int32_t L, items;
    int32_t at;       /* item at hand, or the last one; -1: none yet */
    int32_t own;      /* this rank's next layer to be kept */
    ks_supplied held; /* streamed, and held from the provider */
} ks_supply;

/* Within a pass of the provider. The first streamed item is on its way. */
int ks_supply_begin(ks_supply *s, const ks_backend *be, ks_device *dev, ks_weights *w, ks_shards shards);
/* The next item's weights, for operations until ks_supply_queued. */
int ks_supply_layer(ks_supply *s, ks_layer *out);
int ks_supply_head(ks_supply *s, ks_tensor *rows, int64_t *first_row);
/* All that uses the item has been called. more: behind the head's last block its first one follows. */
int ks_supply_queued(ks_supply *s, bool more);
/* In any state; a zeroed supply, too. */
void ks_supply_end(ks_supply *s);

/* Sharded weights, all ranks: the head comes to every device, for good, each block from one of them. Once, before the first pass. */
int ks_supply_spread_head(const ks_backend *be, ks_device *dev, ks_weights *w, ks_shards shards);
/* Sharded weights: the pass of a rank that has nothing to compute while others do. */
int ks_supply_walk(const ks_backend *be, ks_device *dev, ks_weights *w, ks_shards shards);

#endif
