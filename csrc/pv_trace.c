#include "pv_trace.h"

#include <string.h>

enum { FREE, FLIGHT, HELD };

static uint32_t least(uint64_t a, uint64_t b)
{
    return (uint32_t)(a < b ? a : b);
}

/* -- The ring of records ----------------------------------------------------------------------
 *
 * An entry is a record and its bytes, padded to 8, in one piece. Where the end of the ring has no
 * room for it, the rest is skipped: a record of no queue says so, if there is room for one. */

enum { NO_QUEUE = 0xffff };

static void le(uint8_t *to, uint64_t value, int size)
{
    for (int i = 0; i < size; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t from_le(const uint8_t *p, int size)
{
    uint64_t value = 0;
    for (int i = 0; i < size; i++)
        value |= (uint64_t)p[i] << (8 * i);
    return value;
}

static uint64_t entry_size(uint64_t bytes)
{
    return PV_TRACE_RECORD + ((bytes + 7) & ~UINT64_C(7));
}

/* Room for an entry, or NULL; `*end` is what `head` becomes when it is written. */
static uint8_t *reserve(pv_trace *trace, uint64_t size, uint64_t *end)
{
    const uint64_t head = atomic_load_explicit(&trace->head, memory_order_relaxed);
    const uint64_t tail = atomic_load_explicit(&trace->tail, memory_order_acquire);
    const uint64_t at = head % trace->room, rest = trace->room - at;
    const uint64_t skip = rest < size ? rest : 0;

    if (size > trace->room || head + skip + size - tail > trace->room)
        return NULL;
    if (skip >= PV_TRACE_RECORD)
        le(trace->ring + at + 52, NO_QUEUE, 2);
    *end = head + skip + size;
    return trace->ring + (skip ? 0 : at);
}

static void write_record(uint8_t *to, const pv_traced *q, const pv_flight *f, uint16_t id)
{
    le(to, f->made, 8);
    le(to + 8, f->done, 8);
    le(to + 16, f->order, 8);
    le(to + 24, 0, 8);
    le(to + 32, f->readable, 4);
    le(to + 36, f->writable, 4);
    le(to + 40, f->written, 4);
    le(to + 44, f->snapped_readable, 4);
    le(to + 48, f->snapped_writable, 4);
    le(to + 52, q->number, 2);
    le(to + 54, id, 2);
    le(to + 56, f->depth, 2);
    le(to + 58, f->flags, 2);
    le(to + 60, f->descriptors, 2);
    to[62] = f->tail;
    to[63] = 0;
}

static void emit(pv_trace *trace, pv_traced *q, pv_flight *f, uint16_t id)
{
    const uint8_t *bytes = q->bytes + 2 * (size_t)trace->snap * id;
    const uint64_t size = (uint64_t)f->snapped_readable + f->snapped_writable;
    uint64_t end;
    uint8_t *to;

    f->state = FREE;
    if (f->blind || !q->recorded)
        return;
    if (q->blurred)
        f->flags |= PV_TRACE_CHAIN_UNCERTAIN;
    if (f->flags & PV_TRACE_CHAIN_UNCERTAIN)
        q->counts.uncertain++;
    if (f->readable > f->snapped_readable || least(f->written, f->writable) > f->snapped_writable)
        f->flags |= PV_TRACE_SNAP_CUT;
    to = reserve(trace, entry_size(size), &end);
    if (to == NULL) {
        trace->dropped++;
        return;
    }
    write_record(to, q, f, id);
    memcpy(to + PV_TRACE_RECORD, bytes, f->snapped_readable);
    memcpy(to + PV_TRACE_RECORD + f->snapped_readable, bytes + trace->snap, f->snapped_writable);
    atomic_store_explicit(&trace->head, end, memory_order_release);
}

size_t pv_trace_take(pv_trace *trace, uint8_t *records, size_t records_room, uint8_t *payload,
                     size_t payload_room, uint64_t base, size_t *size)
{
    const uint64_t head = atomic_load_explicit(&trace->head, memory_order_acquire);
    uint64_t tail = atomic_load_explicit(&trace->tail, memory_order_relaxed);
    size_t count = 0;

    *size = 0;
    while (tail != head && (count + 1) * PV_TRACE_RECORD <= records_room) {
        const uint64_t at = tail % trace->room, rest = trace->room - at;
        const uint8_t *from = trace->ring + at;
        if (rest < PV_TRACE_RECORD || from_le(from + 52, 2) == NO_QUEUE) {
            tail += rest;
            continue;
        }
        const uint64_t bytes = from_le(from + 44, 4) + from_le(from + 48, 4);
        if (bytes > payload_room - *size)
            break;
        memcpy(records + count * PV_TRACE_RECORD, from, PV_TRACE_RECORD);
        le(records + count++ * PV_TRACE_RECORD + 24, base + *size, 8);
        memcpy(payload + *size, from + PV_TRACE_RECORD, bytes);
        *size += bytes;
        tail += entry_size(bytes);
    }
    atomic_store_explicit(&trace->tail, tail, memory_order_release);
    return count;
}

void pv_trace_rebase(uint8_t *records, size_t count, uint64_t base)
{
    for (uint8_t *at = records + 24; count > 0; count--, at += PV_TRACE_RECORD)
        le(at, from_le(at, 8) + base, 8);
}

/* -- Copies of what a chain says --------------------------------------------------------------- */

/* The first bytes of one part of the chain in trace->chain, as many as can be read. */
static uint32_t copy_part(const pv_trace *trace, const pv_traced *q, uint32_t count, bool writable,
                          uint8_t *to)
{
    uint32_t size = 0;

    for (uint32_t i = 0; i < count && size < trace->snap; i++) {
        const pv_desc *desc = &trace->chain[i];
        const uint32_t part = least(desc->length, trace->snap - size);
        if (!!(desc->flags & PV_DESC_WRITE) != writable)
            continue;
        if (!pv_memory_read(q->queue.memory, desc->address, to + size, part))
            break;
        size += part;
    }
    return size;
}

/* Where the first bytes of the writable part are, and its last one. */
static void note_writable(const pv_trace *trace, pv_flight *f, uint32_t count)
{
    uint64_t size = 0;

    f->spans = 0;
    for (uint32_t i = 0; i < count; i++) {
        const pv_desc *desc = &trace->chain[i];
        if (!(desc->flags & PV_DESC_WRITE) || desc->length == 0)
            continue;
        if (size < trace->snap && f->spans < PV_TRACE_SPANS)
            f->span[f->spans++] = (pv_span){desc->address, desc->length};
        size += desc->length;
        f->last = desc->address + desc->length - 1;
    }
}

static void describe(const pv_trace *trace, pv_traced *q, pv_flight *f, const pv_chain *chain,
                     uint8_t *bytes)
{
    f->readable = least(chain->readable, UINT32_MAX);
    f->writable = least(chain->writable, UINT32_MAX);
    f->descriptors = (uint16_t)chain->count;
    f->slots = chain->slots;
    f->snapped_readable = q->recorded ? copy_part(trace, q, chain->count, false, bytes) : 0;
    note_writable(trace, f, chain->count);
}

/* The request `id` has been made; its chain is described in the next step. */
static pv_flight *make(pv_traced *q, uint16_t id, uint64_t now)
{
    pv_flight *f = &q->flights[id];
    const uint64_t named = f->named;
    const bool often = f->often;

    if (f->state == FLIGHT) { /* made again, so its end was not seen */
        if (!f->early)
            q->counts.lost += !f->blind;
        q->counts.depth--;
    }
    *f = (pv_flight){.made = now, .order = q->order++, .state = FLIGHT};
    f->named = named;
    f->often = often;
    q->counts.made++;
    f->depth = (uint16_t)least(++q->counts.depth, UINT16_MAX);
    return f;
}

static void blind(pv_traced *q, pv_flight *f, bool broken)
{
    f->blind = true;
    q->counts.lost++;
    q->counts.broken += broken;
}

static void copy_result(const pv_trace *trace, const pv_traced *q, pv_flight *f, uint8_t *to)
{
    const uint32_t wanted = least(least(f->written, f->writable), trace->snap);
    uint32_t size = 0;

    for (uint32_t i = 0; i < f->spans && size < wanted; i++) {
        const uint32_t part = least(f->span[i].length, wanted - size);
        if (!pv_memory_read(q->queue.memory, f->span[i].address, to + size, part))
            break;
        size += part;
    }
    f->snapped_writable = size;
    if (f->writable && !pv_memory_read(q->queue.memory, f->last, &f->tail, 1))
        f->tail = 0;
}

/* The request `id`, which is in flight, is done; its record is not written yet. */
static pv_flight *complete(pv_trace *trace, pv_traced *q, uint16_t id, uint32_t written,
                           uint64_t now)
{
    pv_flight *f = &q->flights[id];

    if (q->blurred)
        f->flags |= PV_TRACE_CHAIN_UNCERTAIN | PV_TRACE_RESULT_UNCERTAIN;
    f->done = now;
    f->written = written;
    q->counts.done++;
    q->counts.depth--;
    if (!f->blind) {
        q->counts.readable += f->readable;
        q->counts.writable += least(written, f->writable);
        if (q->recorded)
            copy_result(trace, q, f, q->bytes + (2 * (size_t)id + 1) * trace->snap);
    }
    return f;
}

/* Those in flight are not followed any more. */
static void forget(pv_traced *q)
{
    for (uint32_t id = 0; id < q->queue.ring.size; id++) {
        q->counts.lost += q->flights[id].state == FLIGHT && !q->flights[id].blind;
        q->flights[id].state = FREE;
    }
    q->counts.depth = 0;
}

/* -- Split rings --------------------------------------------------------------------------------
 *
 * The used index is read before the avail index, so each used entry has its avail entry. They
 * are merged: a used entry whose head is not in flight takes avail entries until it is. Of those
 * that name one head twice only the last can be described. */

static uint64_t name_of(const pv_trace *trace, uint16_t index)
{
    return trace->steps << 16 | index;
}

static bool is_named(const pv_trace *trace, const pv_flight *f)
{
    return f->named >> 16 == trace->steps;
}

/* Who names each head last: the entries up to avail index `avail`. */
static void name_heads(pv_trace *trace, pv_traced *q, uint16_t avail)
{
    pv_ring_where where;
    uint16_t head;

    for (uint16_t i = q->avail; i != avail; i++)
        if (pv_ring_avail(&q->queue, i, &head, &where) == PV_RING_OK &&
            head < q->queue.ring.size) {
            pv_flight *f = &q->flights[head];
            f->often = is_named(trace, f);
            f->named = name_of(trace, i);
        }
}

/* The next avail entry becomes a request. */
static void take_avail(pv_trace *trace, pv_traced *q, uint64_t now)
{
    const uint16_t index = q->avail++;
    pv_ring_where where;
    pv_chain chain;
    pv_flight *f;
    uint16_t head;

    if (pv_ring_avail(&q->queue, index, &head, &where) != PV_RING_OK ||
        head >= q->queue.ring.size || q->flights[head].state == HELD) {
        q->counts.lost++;
        q->counts.broken++;
        return;
    }
    f = make(q, head, now);
    if (f->named != name_of(trace, index))
        blind(q, f, false);
    else if (pv_ring_chain(&q->queue, head, false, trace->chain, PV_TRACE_CHAIN, &chain, &where) !=
             PV_RING_OK)
        blind(q, f, true);
    else
        describe(trace, q, f, &chain, q->bytes + 2 * (size_t)trace->snap * head);
}

/* The next used entry. It may be of a request from before the trace, and then is passed. */
static void take_used(pv_trace *trace, pv_traced *q, uint16_t avail, uint64_t now)
{
    const uint16_t index = q->used++;
    pv_ring_where where;
    uint32_t id, written;
    pv_flight *f;

    if (pv_ring_used(&q->queue, index, &id, &written, &where) != PV_RING_OK ||
        id >= q->queue.ring.size)
        return;
    f = &q->flights[id];
    while (f->state != FLIGHT && q->avail != avail)
        take_avail(trace, q, now);
    if (f->state != FLIGHT)
        return;
    complete(trace, q, (uint16_t)id, written, now);
    if (f->made == now && !f->early)
        f->flags |= PV_TRACE_COMPLETED_FIRST_SEEN;
    if (f->flags & PV_TRACE_COMPLETED_FIRST_SEEN && !f->blind) {
        f->state = HELD;
        q->held[q->held_count++] = (uint16_t)id;
        return;
    }
    if (is_named(trace, f) && f->made != now)
        f->flags |= PV_TRACE_RESULT_UNCERTAIN;
    emit(trace, q, f, (uint16_t)id);
}

/* Whether the device has given `id` back since the last step, as far as can be known. */
static bool used_again(const pv_traced *q, uint16_t id)
{
    pv_ring_sample s = {0};
    pv_ring_where where;
    uint32_t used, written;

    atomic_thread_fence(memory_order_acquire);
    pv_ring_sample_all(&q->queue, 1, &s);
    if (s.bits & PV_STATE_UNREADABLE || (uint16_t)(s.used_idx - q->used) > q->queue.ring.size)
        return true;
    for (uint16_t i = q->used; i != s.used_idx; i++)
        if (pv_ring_used(&q->queue, i, &used, &written, &where) != PV_RING_OK || used == id)
            return true;
    return false;
}

/* Whether the chain in trace->chain has the readable bytes that were copied. */
static bool same_bytes(const pv_trace *trace, const pv_traced *q, const pv_flight *f, uint16_t id,
                       uint32_t count)
{
    const uint32_t size = copy_part(trace, q, count, false, trace->again);

    return size == f->snapped_readable &&
           memcmp(q->bytes + 2 * (size_t)trace->snap * id, trace->again, size) == 0;
}

/* Whether the chain and the bytes of a request that has been named again are those that were
 * copied; see pv_trace.h. Bytes that differ now were copied before the next request's were written,
 * if it is the only one since and its buffers cannot be filled again yet. */
static bool is_certain(const pv_trace *trace, const pv_traced *q, const pv_flight *f, uint16_t id)
{
    pv_ring_where where;
    pv_chain chain;

    return !f->often &&
           pv_ring_chain(&q->queue, id, false, trace->chain, PV_TRACE_CHAIN, &chain, &where) ==
               PV_RING_OK &&
           chain.count == f->descriptors && !same_bytes(trace, q, f, id, chain.count) &&
           !used_again(q, id);
}

/* Write the records that were held back, of those whose heads are named again, or that stood
 * still for long enough. */
static void settle(pv_trace *trace, pv_traced *q, uint64_t now, bool all)
{
    uint16_t kept = 0;

    for (uint16_t i = 0; i < q->held_count; i++) {
        const uint16_t id = q->held[i];
        pv_flight *f = &q->flights[id];
        const bool named = is_named(trace, f), stood = now - f->done >= trace->settle;
        if (!named && !stood && !all) {
            q->held[kept++] = id;
            continue;
        }
        if (named ? q->recorded && !is_certain(trace, q, f, id) : !stood)
            f->flags |= PV_TRACE_CHAIN_UNCERTAIN | PV_TRACE_RESULT_UNCERTAIN;
        emit(trace, q, f, id);
    }
    q->held_count = kept;
}

/* More is new than the ring has room for. All of it is passed, and what was in flight is not
 * followed any more: used entries that come later may be theirs, so that until as many are in
 * flight as are known, nothing is certain. */
static void split_lapped(pv_traced *q, uint16_t avail, uint16_t used)
{
    const uint16_t made = (uint16_t)(avail - q->avail), done = (uint16_t)(used - q->used);

    forget(q);
    q->counts.lost += made;
    q->counts.made += made;
    q->counts.done += done;
    q->order += made;
    q->avail = avail;
    q->used = used;
    q->blurred = avail != used;
}

static bool split_indexes(const pv_traced *q, uint16_t *avail, uint16_t *used)
{
    pv_ring_sample s = {0}, again = {0};

    pv_ring_sample_all(&q->queue, 1, &s);
    *used = s.used_idx;
    *avail = s.avail_idx;
    if (s.bits & PV_STATE_TORN) { /* an avail index that is no older than the used one */
        atomic_thread_fence(memory_order_acquire);
        pv_ring_sample_all(&q->queue, 1, &again);
        *avail = again.avail_idx;
    }
    return !((s.bits | again.bits) & PV_STATE_UNREADABLE);
}

static size_t split_step(pv_trace *trace, pv_traced *q, uint64_t now)
{
    const uint32_t size = q->queue.ring.size;
    uint16_t avail, used;
    size_t moved;

    if (!split_indexes(q, &avail, &used))
        return 0;
    moved = (size_t)(uint16_t)(avail - q->avail) + (uint16_t)(used - q->used);
    if (moved == 0 && q->held_count == 0)
        return 0;
    atomic_thread_fence(memory_order_acquire);
    if ((uint16_t)(avail - q->avail) > size || (uint16_t)(used - q->used) > size) {
        settle(trace, q, now, true);
        split_lapped(q, avail, used);
        return moved;
    }
    name_heads(trace, q, avail);
    settle(trace, q, now, false);
    while (q->used != used)
        take_used(trace, q, avail, now);
    while (q->avail != avail)
        take_avail(trace, q, now);
    if (q->counts.depth == (uint16_t)(avail - used))
        q->blurred = false;
    return moved;
}

static void split_end(pv_trace *trace, pv_traced *q, uint64_t now)
{
    uint16_t avail, used;

    if (split_indexes(q, &avail, &used) && (uint16_t)(avail - q->avail) <= q->queue.ring.size)
        name_heads(trace, q, avail);
    settle(trace, q, now, true);
}

/* What was in flight before the trace is taken to be the last entries of the avail ring, as it is
 * where a device keeps the order. */
static void split_begin(pv_trace *trace, pv_traced *q, uint64_t now)
{
    const uint32_t size = q->queue.ring.size;
    uint16_t avail, used;

    q->avail = q->used = 0;
    if (!split_indexes(q, &avail, &used))
        return;
    q->used = used;
    q->avail = (uint16_t)(avail - least((uint16_t)(avail - used), size));
    name_heads(trace, q, avail);
    while (q->avail != avail)
        take_avail(trace, q, now);
}

/* -- Packed rings -------------------------------------------------------------------------------
 *
 * Driver and device write to the same slots, one after the other, and a slot says by its wrap bits
 * who wrote to it last. The device overwrites the first slot of a chain: what was used before it
 * was seen available has lost its length, and cannot be described. Whose end that was is lost as
 * well: until nothing is in flight, all is uncertain. Two things are not told apart: a used slot from
 * one that the driver is just writing to, whose bits it writes last, and two laps from none. */

#define INDIRECT_FEATURE (UINT64_C(1) << 28)

static void forward(const pv_traced *q, uint16_t *slot, bool *wrap, uint32_t slots)
{
    const uint32_t size = q->queue.ring.size, to = *slot + (slots < size ? slots : size);

    *slot = (uint16_t)(to >= size ? to - size : to);
    *wrap ^= to >= size;
}

static bool caught_up(const pv_traced *q)
{
    return q->used == q->avail && q->used_wrap == q->avail_wrap;
}

/* Slots of the chain in slot `at` whose first was overwritten when it was used: those after it
 * that are as the driver left them and have its id. Where indirect tables are agreed on, chains are
 * taken to be no longer than those that were seen, because a driver may give one that follows the
 * same id; without, such a one is missed. */
static uint32_t used_slots(const pv_traced *q, uint16_t at, bool wrap, uint16_t id)
{
    pv_ring_where where;
    pv_desc desc;
    uint32_t slots = 1;

    for (; slots < q->longest; slots++) {
        forward(q, &at, &wrap, 1);
        if (pv_ring_desc(&q->queue, at, &desc, &where) != PV_RING_OK || desc.id != id ||
            !pv_packed_available(desc.flags, wrap))
            break;
    }
    return slots;
}

/* Who has been made available again, of those whose end is about to be seen. True if it may be
 * anybody, because the device has overwritten some of it. */
static bool name_ids(const pv_trace *trace, pv_traced *q)
{
    uint16_t at = q->avail;
    bool wrap = q->avail_wrap;
    pv_ring_where where;
    pv_desc desc;

    for (uint32_t n = 0; n < q->queue.ring.size; n++, forward(q, &at, &wrap, 1)) {
        if (pv_ring_desc(&q->queue, at, &desc, &where) != PV_RING_OK ||
            !!(desc.flags & PV_DESC_AVAIL) != wrap)
            return false;
        if (pv_packed_used(desc.flags, wrap))
            return true;
        if (desc.id < q->queue.ring.size)
            q->flights[desc.id].named = name_of(trace, 0);
    }
    return false;
}

/* The slot where the driver wrote was used before it was seen: its chain is lost. The device may
 * have completed that one or another there, so what follows is not certain. */
static void packed_late(pv_trace *trace, pv_traced *q, const pv_desc *used, uint64_t now)
{
    pv_flight *f = used->id < q->queue.ring.size ? &q->flights[used->id] : NULL;

    q->blurred = true;
    q->order++;
    q->counts.made++;
    q->counts.lost++;
    if (f != NULL && f->state == FLIGHT) {
        complete(trace, q, used->id, used->length, now);
        emit(trace, q, f, used->id);
    } else {
        q->counts.done++;
    }
    forward(q, &q->avail, &q->avail_wrap, used_slots(q, q->avail, q->avail_wrap, used->id));
    q->used = q->avail;
    q->used_wrap = q->avail_wrap;
}

/* The chain that begins where the driver wrote; false where it is broken. */
static bool packed_make(pv_trace *trace, pv_traced *q, uint64_t now)
{
    pv_ring_where where;
    pv_chain chain;
    pv_desc desc;
    const pv_ring_status status = pv_ring_chain(&q->queue, q->avail, q->avail_wrap, trace->chain,
                                                PV_TRACE_CHAIN, &chain, &where);
    pv_flight *f;

    atomic_thread_fence(memory_order_acquire);
    if (pv_ring_desc(&q->queue, q->avail, &desc, &where) != PV_RING_OK)
        return false;
    if (!pv_packed_available(desc.flags, q->avail_wrap)) { /* used while it was copied */
        packed_late(trace, q, &desc, now);
        return true;
    }
    if (chain.slots == 0 || chain.id >= q->queue.ring.size)
        return false;
    f = make(q, chain.id, now);
    f->slots = chain.slots;
    if (chain.slots > q->longest)
        q->longest = chain.slots;
    if (status == PV_RING_OK)
        describe(trace, q, f, &chain, q->bytes + 2 * (size_t)trace->snap * chain.id);
    else
        blind(q, f, true);
    forward(q, &q->avail, &q->avail_wrap, chain.slots);
    return true;
}

/* The request `id`, of those in flight or of those that the driver has made since; or NULL. */
static pv_flight *packed_flight(pv_trace *trace, pv_traced *q, uint16_t id, uint64_t now)
{
    pv_flight *f = id < q->queue.ring.size ? &q->flights[id] : NULL;
    pv_ring_where where;
    pv_desc desc;

    for (uint32_t n = 0; f != NULL && f->state != FLIGHT && n < q->queue.ring.size; n++)
        if (pv_ring_desc(&q->queue, q->avail, &desc, &where) != PV_RING_OK ||
            !pv_packed_available(desc.flags, q->avail_wrap) || !packed_make(trace, q, now))
            break;
    return f != NULL && f->state == FLIGHT ? f : NULL;
}

/* The slot where the device writes next is used, by a chain that may be known. */
static bool packed_used(pv_trace *trace, pv_traced *q, uint64_t now, bool all_named)
{
    pv_ring_where where;
    pv_desc desc;
    pv_flight *f;
    uint32_t slots;

    if (caught_up(q) || pv_ring_desc(&q->queue, q->used, &desc, &where) != PV_RING_OK ||
        !pv_packed_used(desc.flags, q->used_wrap))
        return false;
    f = packed_flight(trace, q, desc.id, now);
    if (f != NULL) {
        slots = f->slots;
        complete(trace, q, desc.id, desc.length, now);
        if (all_named || is_named(trace, f))
            f->flags |= PV_TRACE_RESULT_UNCERTAIN;
        if (f->made == now && !f->early)
            f->flags |= PV_TRACE_COMPLETED_FIRST_SEEN | PV_TRACE_CHAIN_UNCERTAIN;
        emit(trace, q, f, desc.id);
    } else {
        slots = used_slots(q, q->used, q->used_wrap, desc.id);
    }
    forward(q, &q->used, &q->used_wrap, slots ? slots : 1);
    return true;
}

/* Whether slot `at` was last written in the lap of `wrap`. */
static bool in_lap(const pv_traced *q, uint16_t at, bool wrap)
{
    pv_ring_where where;
    pv_desc desc;

    return pv_ring_desc(&q->queue, at, &desc, &where) == PV_RING_OK &&
           !!(desc.flags & PV_DESC_AVAIL) == wrap;
}

/* Whether the driver has written neither to the slot before the one where it was seen, nor to that
 * where the device was, which is as long ago as nothing of either is lost. */
static bool in_step(const pv_traced *q)
{
    const bool first = q->avail == 0;
    const uint16_t before = (uint16_t)(first ? q->queue.ring.size - 1 : q->avail - 1u);

    return in_lap(q, before, first ? !q->avail_wrap : q->avail_wrap) &&
           (caught_up(q) || in_lap(q, q->used, q->used_wrap));
}

/* Find driver and device where they are, without knowing where they were. */
static bool packed_find(pv_traced *q)
{
    pv_ring_sample s = {0};

    pv_ring_sample_all(&q->queue, 1, &s);
    if (s.bits & PV_STATE_UNREADABLE)
        return false;
    q->avail = s.avail_idx;
    q->avail_wrap = s.bits & PV_STATE_AVAIL_WRAP;
    q->used = s.used_idx;
    q->used_wrap = s.bits & PV_STATE_USED_WRAP;
    return true;
}

/* The driver has written over what was not seen: as many requests are lost as it can have made in
 * less than two laps. */
static void packed_lapped(pv_traced *q)
{
    const uint32_t size = q->queue.ring.size, before = q->avail + (q->avail_wrap ? 0 : size);
    uint32_t lost;

    if (!packed_find(q))
        return;
    forget(q);
    lost = (q->avail + (q->avail_wrap ? 0 : size) + 2 * size - before) % (2 * size) / q->longest;
    q->counts.lost += lost;
    q->counts.made += lost;
    q->counts.done += lost;
    q->order += lost;
    q->blurred = !caught_up(q);
}

/* Where nothing is in flight, driver and device are at one place, which is certain. */
static void packed_clear(pv_traced *q)
{
    pv_ring_sample s = {0};

    pv_ring_sample_all(&q->queue, 1, &s);
    if (s.bits & (PV_STATE_UNREADABLE | PV_STATE_TORN) || !(s.bits & PV_STATE_USED_KNOWN) ||
        s.in_flight != 0)
        return;
    forget(q);
    q->avail = q->used = s.avail_idx;
    q->avail_wrap = q->used_wrap = s.bits & PV_STATE_AVAIL_WRAP;
    q->blurred = false;
}

static size_t packed_step(pv_trace *trace, pv_traced *q, uint64_t now)
{
    const size_t most = 2 * (size_t)q->queue.ring.size;
    size_t moved = 0;
    pv_ring_where where;
    pv_desc desc;
    bool all_named;

    if (q->blurred)
        packed_clear(q);
    if (!in_step(q)) {
        packed_lapped(q);
        return 1;
    }
    all_named = name_ids(trace, q);
    while (moved < most && packed_used(trace, q, now, all_named))
        moved++;
    while (moved < most && pv_ring_desc(&q->queue, q->avail, &desc, &where) == PV_RING_OK) {
        if (pv_packed_used(desc.flags, q->avail_wrap)) {
            while (moved < 2 * most && packed_used(trace, q, now, all_named)) /* those before it are, too */
                moved++;
            packed_late(trace, q, &desc, now);
        } else if (!pv_packed_available(desc.flags, q->avail_wrap)) {
            break;
        } else if (!packed_make(trace, q, now)) {
            q->counts.lost++;
            q->counts.broken++;
            forward(q, &q->avail, &q->avail_wrap, 1);
        }
        moved++;
    }
    return moved;
}

/* What is in flight is between device and driver; which of it has ended there is not known. */
static void packed_begin(pv_trace *trace, pv_traced *q, uint64_t now)
{
    const uint32_t size = q->queue.ring.size;

    q->longest = q->queue.ring.features & INDIRECT_FEATURE ? 1 : (uint16_t)size;
    if (!packed_find(q))
        return;
    q->avail = q->used;
    q->avail_wrap = q->used_wrap;
    for (uint32_t n = 0; n < size; n++) {
        pv_ring_where where;
        pv_desc desc;
        if (pv_ring_desc(&q->queue, q->avail, &desc, &where) != PV_RING_OK ||
            !pv_packed_available(desc.flags, q->avail_wrap) || !packed_make(trace, q, now))
            break;
    }
}

/* -- All of them ------------------------------------------------------------------------------- */

void pv_trace_begin(pv_trace *trace, size_t number, uint64_t now)
{
    pv_traced *q = &trace->queues[number];

    q->number = (uint16_t)number;
    trace->steps++;
    if (q->queue.ring.packed)
        packed_begin(trace, q, now);
    else
        split_begin(trace, q, now);
    for (uint32_t id = 0; id < q->queue.ring.size; id++)
        q->flights[id].early = q->flights[id].state == FLIGHT;
    q->counts.lost = q->counts.broken = 0;
}

size_t pv_trace_step(pv_trace *trace, uint64_t now)
{
    size_t moved = 0;

    trace->steps++;
    for (size_t i = 0; i < trace->count; i++) {
        pv_traced *q = &trace->queues[i];
        moved += q->queue.ring.packed ? packed_step(trace, q, now) : split_step(trace, q, now);
    }
    return moved;
}

void pv_trace_end(pv_trace *trace, uint64_t now)
{
    trace->steps++;
    for (size_t i = 0; i < trace->count; i++) {
        pv_traced *q = &trace->queues[i];
        if (!q->queue.ring.packed)
            split_end(trace, q, now);
        for (uint32_t id = 0; id < q->queue.ring.size; id++)
            if (q->flights[id].state == FLIGHT)
                emit(trace, q, &q->flights[id], (uint16_t)id);
    }
}

/* -- Pace ---------------------------------------------------------------------------------------- */

uint64_t pv_pace_next(pv_pace *pace, uint64_t now, uint64_t spent, bool moved)
{
    uint64_t sleep = pace->interval;

    pace->looks++;
    if (moved)
        pace->moved = now;
    if (spent != 0) {
        if (pace->spent != 0 && spent > pace->spent) {
            const uint64_t cost = (spent - pace->spent) / pace->looks;
            pace->cost = pace->cost ? (3 * pace->cost + cost) / 4 : cost;
        }
        pace->spent = spent;
        pace->looks = 0;
    }
    if (now - pace->moved > pace->quiet)
        sleep = pace->idle > sleep ? pace->idle : sleep;
    if (pace->share != 0 && pace->share < 1000000) {
        const uint64_t period = pace->cost * 1000000 / pace->share;
        sleep = period > sleep + pace->cost ? period - pace->cost : sleep;
    }
    return sleep;
}
