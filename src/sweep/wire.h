/* wire.h - values packed into bytes, for messages between ranks of one build on machines of one type. */
#ifndef KS_SWEEP_WIRE_H
#define KS_SWEEP_WIRE_H

#include "base/error.h"
#include "base/mem.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct ks_wire {
    char *data;   /* owned by the writer */
    size_t bytes; /* written, or of the message that is read */
    size_t room, at;
} ks_wire;

/* Appends n bytes. KS_EMACHINE without memory. */
static inline int ks_wire_put(ks_wire *w, const void *p, size_t n)
{
    if (w->bytes + n > w->room) {
        const size_t room = 2 * (w->bytes + n) + 256;
        char *grown = ks_realloc(w->data, room, 1);
        if (!grown) return KS_EMACHINE;
        w->data = grown;
        w->room = room;
    }
    if (n) memcpy(w->data + w->bytes, p, n);
    w->bytes += n;
    return KS_OK;
}

/* Takes n bytes. KS_EMACHINE when the message ends before. */
static inline int ks_wire_get(ks_wire *w, void *p, size_t n)
{
    if (n > w->bytes - w->at)
        return ks_error(KS_EMACHINE, "a message between ranks is shorter than expected: do all ranks run the same kosweep?");
    if (n) memcpy(p, w->data + w->at, n);
    w->at += n;
    return KS_OK;
}

#define KS_PUT(w, value) ks_wire_put((w), &(value), sizeof(value))
#define KS_TAKE(w, value) ks_wire_get((w), &(value), sizeof(value))

#endif
