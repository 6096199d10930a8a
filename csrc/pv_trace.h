/* Follows virtqueues from outside while the guest uses them: each request once, with its first
 * bytes, and the times at which it was seen made and completed (virtio 1.2, sections 2.7, 2.8).
 *
 * One step looks at every queue. What it finds is paired: a chain is copied when it is seen
 * available, and becomes a record when it is seen used. Nobody waits for a step, so a guest may be
 * faster; what that costs is counted, never guessed:
 *
 *   lost       requests that cannot be described: the avail ring, or the descriptors that it
 *              names, were used again before they were copied, or are broken
 *   uncertain  records that may describe a later request than theirs
 *   dropped    records that found no room in the ring of records
 *
 * A chain that is copied while the device has it is certain: the driver may not touch it. One that
 * was used already when it was first seen is held back until its head is named again, and certain
 * where its first readable bytes have changed by then, for one later request that the device still
 * has: drivers fill buffers before descriptors. It is also certain when for `settle` nanoseconds
 * nothing was made of it: longer than a driver takes from a buffer to its publication.
 *
 * The guest may be hostile: each loop is bounded by the sizes of rings or by PV_TRACE_CHAIN.
 */
#ifndef PV_TRACE_H
#define PV_TRACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pv_vring.h"

enum {
    PV_TRACE_RECORD = 64,  /* bytes; the layout is told in pyvirt/virtio/records.py */
    PV_TRACE_CHAIN = 1024, /* descriptors of a chain: more, and QEMU gives the device up */
    PV_TRACE_SPANS = 8,    /* pieces of a writable part whose first bytes are kept */
    PV_TRACE_SNAP = 65536, /* the most bytes of one part that are kept */

    PV_TRACE_CHAIN_UNCERTAIN = 1,
    PV_TRACE_SNAP_CUT = 2,
    PV_TRACE_COMPLETED_FIRST_SEEN = 4,
    PV_TRACE_RESULT_UNCERTAIN = 8, /* the writable part may have been used again */
};

typedef struct {
    uint64_t address;
    uint32_t length;
} pv_span;

/* A request under way, in the place of its head (split) or buffer id (packed). */
typedef struct {
    uint64_t made, done, order, named; /* `named`: the entry and the step that last named it */
    uint64_t last;                     /* guest address of the last writable byte */
    uint32_t readable, writable, written, snapped_readable, snapped_writable;
    uint16_t depth, flags, descriptors, slots;
    uint8_t state, spans, tail;
    bool blind, early, often; /* without a description; from before the trace; named twice */
    pv_span span[PV_TRACE_SPANS];
} pv_flight;

/* What a queue did since the trace began, for whoever only counts. */
typedef struct {
    uint64_t made, done, readable, writable; /* requests; bytes of parts, written ones at done */
    uint64_t lost, uncertain, broken;        /* broken: of the lost, those that break the rules */
    uint32_t depth;                          /* in flight now */
} pv_trace_counts;

/* One queue. The caller lends a flight and two snaps of bytes for each entry of the ring, and
 * a held index; flights begin as zeros. */
typedef struct {
    pv_queue queue;
    pv_flight *flights;
    uint8_t *bytes;
    uint16_t *held;
    pv_trace_counts counts;
    uint64_t order;
    uint16_t number, avail, used, held_count;
    uint16_t longest;           /* packed: slots that chains take at most */
    bool avail_wrap, used_wrap; /* packed: `avail` and `used` are slots */
    bool blurred;               /* used entries may be of requests that are not followed */
    bool recorded;              /* else only counted */
} pv_traced;

typedef struct {
    pv_traced *queues;
    size_t count;
    pv_desc *chain;  /* lent: PV_TRACE_CHAIN of them */
    uint8_t *again;  /* lent: PV_TRACE_SNAP bytes */
    uint32_t snap;   /* first bytes that are kept of each part */
    uint64_t settle;
    uint64_t steps, dropped;

    /* The ring of records, each with its bytes behind it. `room` is a multiple of 8. One writes
     * (`head`), one takes (`tail`). */
    uint8_t *ring;
    uint64_t room;
    _Atomic uint64_t head, tail;
} pv_trace;

/* Begin to follow queue `number`, whose `queue` and lent memory are there. Requests that are in
 * flight already get `now` as the time at which they were made. */
void pv_trace_begin(pv_trace *trace, size_t number, uint64_t now);

/* Look at every queue once, at `now` nanoseconds. Returns how many entries have moved. */
size_t pv_trace_step(pv_trace *trace, uint64_t now);

/* No step will follow: what is in flight becomes records without an end. */
void pv_trace_end(pv_trace *trace, uint64_t now);

/* Take what has been recorded: as many records as both buffers have room for. The bytes of all
 * stand in `payload` one after another, and `base` is where its first byte will stand in all.
 * Returns records; `*size` has the bytes of payload. */
size_t pv_trace_take(pv_trace *trace, uint8_t *records, size_t records_room, uint8_t *payload,
                     size_t payload_room, uint64_t base, size_t *size);

/* Records whose bytes move by `base` behind others. */
void pv_trace_rebase(uint8_t *records, size_t count, uint64_t base);

/* Bytes of the ring of records that wait to be taken. */
static inline uint64_t pv_trace_waiting(pv_trace *trace)
{
    return atomic_load_explicit(&trace->head, memory_order_acquire) -
           atomic_load_explicit(&trace->tail, memory_order_relaxed);
}

/* How long to sleep between looks: all in nanoseconds, `share` of a processor in millionths. */
typedef struct {
    uint64_t interval, idle, quiet; /* after `quiet` without a move it sleeps for `idle` */
    uint32_t share;
    uint64_t moved, spent, looks, cost; /* cost of a look: its moving mean */
} pv_pace;

/* The sleep after a look at `now` that moved something or not. `spent` is the processor time of
 * this thread at some look, or 0 where it was not measured. */
uint64_t pv_pace_next(pv_pace *pace, uint64_t now, uint64_t spent, bool moved);

#endif
