#include "pv_vring.h"

#include <stdatomic.h>
#include <string.h>

#include "pv_image.h"

static pv_ring_status fail(pv_ring_where *where, pv_ring_status status, uint64_t address,
                           uint64_t found, uint64_t expected)
{
    *where = (pv_ring_where){address, found, expected};
    return status;
}

/* -- Guest memory ---------------------------------------------------------------------------- */

/* The region that has `guest`, or `count`. */
static inline size_t region_of(const pv_memory *memory, uint64_t guest)
{
    size_t low = 0, high = memory->count;

    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (guest - memory->regions[middle].guest < memory->regions[middle].size)
            return middle;
        if (memory->regions[middle].guest < guest)
            low = middle + 1;
        else
            high = middle;
    }
    return memory->count;
}

const uint8_t *pv_memory_at(const pv_memory *memory, uint64_t guest, uint64_t size)
{
    const size_t i = region_of(memory, guest);

    if (i == memory->count || memory->regions[i].at == NULL)
        return NULL;
    const uint64_t offset = guest - memory->regions[i].guest;
    return size <= memory->regions[i].size - offset ? memory->regions[i].at + offset : NULL;
}

uint64_t pv_memory_reach(const pv_memory *memory, uint64_t guest, uint64_t size)
{
    uint64_t reach = 0;

    for (size_t i = region_of(memory, guest); i < memory->count && reach < size; i++) {
        const pv_region *region = &memory->regions[i];
        if (guest + reach - region->guest >= region->size)
            break; /* a hole, or the end of the address space */
        reach += region->size - (guest + reach - region->guest);
    }
    return reach < size ? reach : size;
}

static bool read_region(const pv_memory *memory, size_t i, uint64_t offset, void *to, size_t size)
{
    const pv_region *region = &memory->regions[i];

    if (region->at != NULL)
        memcpy(to, region->at + offset, size);
    return region->at != NULL || memory->read(memory->context, i, offset, to, size);
}

bool pv_memory_read(const pv_memory *memory, uint64_t guest, void *to, size_t size)
{
    uint8_t *next = to;

    if (size == 0)
        return true;
    for (size_t i = region_of(memory, guest); i < memory->count; i++) {
        const pv_region *region = &memory->regions[i];
        const uint64_t offset = guest - region->guest;
        if (offset >= region->size)
            return false;
        const uint64_t rest = region->size - offset;
        const size_t part = rest < size ? (size_t)rest : size;
        if (!read_region(memory, i, offset, next, part))
            return false;
        if (part == size)
            return true;
        next += part;
        guest += part;
        size -= part;
    }
    return false;
}

/* -- Single copies ----------------------------------------------------------------------------
 *
 * The compiler could read guest memory again instead of keeping what it read. What went through
 * an empty asm has no origin that it knows. */

static inline uint16_t once16(const uint8_t *p)
{
    uint16_t value;
    memcpy(&value, p, sizeof value);
    __asm__("" : "+r"(value));
    return pv_le16((const uint8_t *)&value);
}

/* What stood in memory as `value`. On little-endian hosts it must not go through memory again: what
 * follows a chain waits for it. */
static inline uint64_t le64_of(uint64_t value)
{
    return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? value : pv_le64((const uint8_t *)&value);
}

/* Split descriptors end in flags and next, packed ones in id and flags (2.7.5, 2.8.13). */
static inline pv_desc desc_once(const uint8_t *p, bool packed)
{
    uint64_t low, high;
    memcpy(&low, p, 8);
    memcpy(&high, p + 8, 8);
    __asm__("" : "+r"(low), "+r"(high));
    low = le64_of(low);
    high = le64_of(high);
    const uint16_t third = (uint16_t)(high >> 32), fourth = (uint16_t)(high >> 48);
    return (pv_desc){low, (uint32_t)high, packed ? fourth : third, packed ? third : fourth};
}

/* The two bytes at `offset` of an area; false where its memory went away. */
static inline bool area16(const pv_queue *queue, const uint8_t *area, uint64_t address,
                          uint32_t offset, uint16_t *value)
{
    uint8_t copy[2];

    if (area != NULL) {
        *value = once16(area + offset);
        return true;
    }
    if (!pv_memory_read(queue->memory, address + offset, copy, sizeof copy))
        return false;
    *value = pv_le16(copy);
    return true;
}

static inline bool driver16(const pv_queue *queue, uint32_t offset, uint16_t *value)
{
    return area16(queue, queue->driver, queue->ring.driver, offset, value);
}

static inline bool device16(const pv_queue *queue, uint32_t offset, uint16_t *value)
{
    return area16(queue, queue->device, queue->ring.device, offset, value);
}

/* Packed. */
static inline bool slot_flags(const pv_queue *queue, uint32_t slot, uint16_t *flags)
{
    return area16(queue, queue->desc, queue->ring.desc, slot * PV_DESC_SIZE + 14, flags);
}

/* -- Rings ----------------------------------------------------------------------------------- */

/* Bytes of the three areas, virtio 1.2, 2.7 and 2.8; the event fields are there by agreement. */
static void area_sizes(const pv_ring *ring, uint64_t sizes[3])
{
    const uint64_t size = ring->size, event = ring->features & PV_RING_EVENT_IDX ? 2 : 0;

    sizes[0] = PV_DESC_SIZE * size;
    sizes[1] = ring->packed ? 4 : 4 + 2 * size + event;
    sizes[2] = ring->packed ? 4 : 4 + 8 * size + event;
}

pv_ring_status pv_queue_open(const pv_memory *memory, const pv_ring *ring, pv_queue *queue,
                             pv_ring_where *where)
{
    const uint64_t address[3] = {ring->desc, ring->driver, ring->device};
    uint64_t sizes[3];

    if (ring->size == 0 || ring->size > PV_RING_LARGEST)
        return fail(where, PV_RING_SIZE, ring->desc, ring->size, PV_RING_LARGEST);
    area_sizes(ring, sizes);
    for (int i = 0; i < 3; i++)
        if (pv_memory_reach(memory, address[i], sizes[i]) < sizes[i])
            return fail(where, PV_RING_MEMORY, address[i], sizes[i], 0);
    *queue = (pv_queue){NULL, NULL, *ring, memory, pv_memory_at(memory, ring->desc, sizes[0]),
                        pv_memory_at(memory, ring->driver, sizes[1]),
                        pv_memory_at(memory, ring->device, sizes[2])};
    if (!ring->packed && queue->driver != NULL && queue->device != NULL) {
        queue->avail_idx = queue->driver + 2;
        queue->used_idx = queue->device + 2;
    }
    return PV_RING_OK;
}

/* -- States of split rings ------------------------------------------------------------------- */

/* Where the used index is the same before and after the avail index was read, both were true at
 * the moment between. */
static inline pv_ring_sample split_sample(const pv_queue *queue)
{
    pv_ring_sample s = {0, 0, 0, PV_STATE_UNREADABLE};
    uint16_t again;

    if (!device16(queue, 2, &s.used_idx))
        return s;
    for (int tries = PV_STATE_TRIES;; s.used_idx = again) {
        atomic_thread_fence(memory_order_acquire);
        if (!driver16(queue, 2, &s.avail_idx))
            return s;
        atomic_thread_fence(memory_order_acquire);
        if (!device16(queue, 2, &again))
            return s;
        s.bits = 0;
        if (again == s.used_idx)
            break;
        s.bits = PV_STATE_TORN;
        if (tries-- == 0)
            break;
    }
    s.in_flight = (uint16_t)(s.avail_idx - s.used_idx);
    if (s.in_flight > queue->ring.size)
        s.bits |= PV_STATE_JUMPED;
    return s;
}

/* The same with nothing but loads. More in flight than there is room for can be a moment between
 * the two loads: false, for it must be looked at again. */
static inline bool split_quick(const pv_queue *queue, pv_ring_sample *sample)
{
    if (queue->avail_idx == NULL)
        return false;
    const uint16_t used = once16(queue->used_idx);
    atomic_thread_fence(memory_order_acquire);
    const uint16_t avail = once16(queue->avail_idx), in_flight = (uint16_t)(avail - used);
    if (in_flight > queue->ring.size)
        return false;
    sample->avail_idx = avail;
    sample->used_idx = used;
    sample->in_flight = in_flight;
    sample->bits = 0;
    return true;
}

static void split_look(const pv_queue *queue, pv_ring_state *state)
{
    const uint32_t size = queue->ring.size;
    bool there;

    state->indexes = split_sample(queue);
    there = driver16(queue, 0, &state->avail_flags) && device16(queue, 0, &state->used_flags);
    state->used_event = state->avail_event = 0;
    if (queue->ring.features & PV_RING_EVENT_IDX)
        there = there && driver16(queue, 4 + 2 * size, &state->used_event) &&
                device16(queue, 4 + 8 * size, &state->avail_event);
    if (!there)
        state->indexes.bits |= PV_STATE_UNREADABLE;
}

/* -- States of packed rings -------------------------------------------------------------------
 *
 * No index is in memory. The driver writes every slot in turn and its AVAIL bit is the wrap
 * counter, so the slots of this lap are those before the one whose AVAIL bit differs from the
 * first's. The device writes one slot per chain and skips the rest of it, so what it skipped
 * looks as the driver left it: its place is known for certain where nothing is in flight, or
 * where it was known before and that slot is not used yet. */

typedef struct {
    uint32_t slot;
    bool wrap;
} place;

enum { NEAR = 16 }; /* slots that are worth following before all are looked at */

static inline place after(place p, uint32_t slots, uint32_t size)
{
    p.slot += slots;
    if (p.slot >= size) {
        p.slot -= size;
        p.wrap = !p.wrap;
    }
    return p;
}

/* Slots from `from` to `to`, at most one lap. */
static inline uint32_t distance(place from, place to, uint32_t size)
{
    return from.wrap == to.wrap ? to.slot - from.slot : to.slot + size - from.slot;
}

static inline bool within(place from, place to, uint32_t size)
{
    return from.wrap == to.wrap ? from.slot <= to.slot : to.slot <= from.slot && from.slot < size;
}

/* Where the driver writes next. *torn where there is more than one border: a chain is being
 * made, whose first slot is written last. */
static bool driver_place(const pv_queue *queue, place *found, bool *torn)
{
    const uint32_t size = queue->ring.size;
    uint16_t flags;
    uint32_t border = size, borders = 0;
    bool first, last;

    if (!slot_flags(queue, 0, &flags))
        return false;
    first = last = flags & PV_DESC_AVAIL;
    for (uint32_t slot = 1; slot < size; slot++) {
        if (!slot_flags(queue, slot, &flags))
            return false;
        const bool bit = flags & PV_DESC_AVAIL;
        if (bit != last && borders++ == 0)
            border = slot;
        last = bit;
    }
    *torn = borders > 1;
    *found = border == size ? (place){0, !first} : (place){border, first};
    return true;
}

/* The same from where it was before: exact, because a border between written and unwritten slots
 * is where the driver is. False where it moved far, and all slots must be looked at. */
static bool driver_near(const pv_queue *queue, const pv_ring_sample *before, place *found)
{
    const uint32_t size = queue->ring.size;
    place p = {before->avail_idx, before->bits & PV_STATE_AVAIL_WRAP};
    uint16_t flags;

    if (before->bits == 0 || before->bits & (PV_STATE_UNREADABLE | PV_STATE_TORN) ||
        p.slot >= size)
        return false;
    const place last = p.slot > 0 ? (place){p.slot - 1, p.wrap} : (place){size - 1, !p.wrap};
    if (!slot_flags(queue, last.slot, &flags) || !!(flags & PV_DESC_AVAIL) != last.wrap)
        return false;
    for (int n = 0; n < NEAR; n++, p = after(p, 1, size)) {
        if (!slot_flags(queue, p.slot, &flags))
            return false;
        if (!!(flags & PV_DESC_AVAIL) != p.wrap) {
            *found = p;
            return true;
        }
    }
    return false;
}

/* Slots that the chain in slot `at` takes beyond the first, which the device overwrote: those
 * that follow and lead to a last descriptor of the same id, if they are no chain of their own to
 * which the driver gave the id again. */
static bool rest_of_used(const pv_queue *queue, place at, place end, uint32_t *slots)
{
    const uint32_t size = queue->ring.size;
    const uint32_t most = distance(at, end, size);
    pv_desc used, next;
    pv_ring_where where;

    *slots = 1;
    if (pv_ring_desc(queue, at.slot, &used, &where) != PV_RING_OK)
        return false;
    for (uint32_t n = 1; n < most; n++) {
        const place p = after(at, n, size);
        if (pv_ring_desc(queue, p.slot, &next, &where) != PV_RING_OK)
            return false;
        if (pv_packed_used(next.flags, p.wrap))
            return true;
        if (!(next.flags & PV_DESC_NEXT)) {
            if (next.id == used.id)
                *slots = n + 1;
            return true;
        }
    }
    return true;
}

/* Past the chain in slot `at`, which is used. Certain only where nothing follows: chains complete
 * out of order, so what follows may be the rest of another one. */
static bool past_used(const pv_queue *queue, place at, place end, place *found, bool *sure)
{
    uint32_t slots;

    if (!rest_of_used(queue, at, end, &slots))
        return false;
    *found = after(at, slots, queue->ring.size);
    *sure = slots == 1 && distance(*found, end, queue->ring.size) == 0;
    return true;
}

/* Where the device writes next, if it is past the last slot of the last lap that it wrote to. */
static bool guess_place(const pv_queue *queue, place end, place *found, bool *sure)
{
    const uint32_t size = queue->ring.size;
    place p = end;
    uint16_t flags;

    for (uint32_t n = 0; n < size; n++) {
        const place before = p.slot > 0 ? (place){p.slot - 1, p.wrap} : (place){size - 1, !p.wrap};
        if (!slot_flags(queue, before.slot, &flags))
            return false;
        if (pv_packed_used(flags, before.wrap))
            return past_used(queue, before, end, found, sure);
        p = before;
    }
    *found = p; /* every slot is in flight, or the rest of a chain whose first slot is taken again */
    *sure = false;
    return true;
}

static inline uint16_t bits_of(place avail, place used)
{
    return (uint16_t)((avail.wrap ? PV_STATE_AVAIL_WRAP : 0) | (used.wrap ? PV_STATE_USED_WRAP : 0));
}

/* What was known before is of use where the device has written nothing since. */
static bool known_place(const pv_queue *queue, const pv_ring_sample *before, place avail, place *p)
{
    uint16_t flags;

    *p = (place){before->used_idx, before->bits & PV_STATE_USED_WRAP};
    if (!(before->bits & PV_STATE_USED_KNOWN))
        return false;
    if (p->slot >= queue->ring.size || !within(*p, avail, queue->ring.size))
        return false;
    return slot_flags(queue, p->slot, &flags) &&
           (distance(*p, avail, queue->ring.size) == 0 || !pv_packed_used(flags, p->wrap));
}

static bool driver_now(const pv_queue *queue, const pv_ring_sample *before, place *p, bool *torn)
{
    *torn = false;
    return driver_near(queue, before, p) || driver_place(queue, p, torn);
}

static bool packed_once(const pv_queue *queue, const pv_ring_sample *before, pv_ring_sample *s)
{
    place avail, used;
    bool torn, sure = true;

    if (!driver_now(queue, before, &avail, &torn))
        return false;
    if (!known_place(queue, before, avail, &used) && !guess_place(queue, avail, &used, &sure))
        return false;
    s->avail_idx = (uint16_t)avail.slot;
    s->used_idx = (uint16_t)used.slot;
    s->in_flight = (uint16_t)distance(used, avail, queue->ring.size);
    s->bits = (uint16_t)(bits_of(avail, used) | (sure ? PV_STATE_USED_KNOWN : 0) |
                         (torn ? PV_STATE_TORN : 0));
    return true;
}

/* True of one moment where the driver was at the same place before and after. */
static bool packed_twice(const pv_queue *queue, const pv_ring_sample *before, pv_ring_sample *s)
{
    place again;
    bool torn;

    if (!packed_once(queue, before, s))
        return false;
    atomic_thread_fence(memory_order_acquire);
    if (!driver_now(queue, s, &again, &torn))
        return false;
    if (torn || again.slot != s->avail_idx || again.wrap != !!(s->bits & PV_STATE_AVAIL_WRAP))
        s->bits |= PV_STATE_TORN;
    return true;
}

static pv_ring_sample packed_sample(const pv_queue *queue, const pv_ring_sample *before)
{
    pv_ring_sample s = {0, 0, 0, PV_STATE_UNREADABLE};

    for (int tries = PV_STATE_TRIES; tries > 0; tries--) {
        if (!packed_twice(queue, before, &s)) {
            s.bits = PV_STATE_UNREADABLE;
            break;
        }
        if (!(s.bits & PV_STATE_TORN))
            break;
    }
    return s;
}

static void packed_look(const pv_queue *queue, pv_ring_state *state)
{
    const pv_ring_sample before = state->indexes;

    state->indexes = packed_sample(queue, &before);
    if (!driver16(queue, 0, &state->used_event) || !driver16(queue, 2, &state->avail_flags) ||
        !device16(queue, 0, &state->avail_event) || !device16(queue, 2, &state->used_flags))
        state->indexes.bits |= PV_STATE_UNREADABLE;
}

void pv_ring_sample_all(const pv_queue *queues, size_t count, pv_ring_sample *samples)
{
    for (size_t i = 0; i < count; i++)
        if (!split_quick(&queues[i], &samples[i]))
            samples[i] = queues[i].ring.packed ? packed_sample(&queues[i], &samples[i])
                                               : split_sample(&queues[i]);
}

void pv_ring_look(const pv_queue *queue, pv_ring_state *state)
{
    if (queue->ring.packed)
        packed_look(queue, state);
    else
        split_look(queue, state);
}

/* -- Entries --------------------------------------------------------------------------------- */

pv_ring_status pv_ring_avail(const pv_queue *queue, uint16_t index, uint16_t *head,
                             pv_ring_where *where)
{
    const uint32_t offset = 4 + 2 * (index % queue->ring.size);

    if (!driver16(queue, offset, head))
        return fail(where, PV_RING_MEMORY, queue->ring.driver + offset, 2, 0);
    return PV_RING_OK;
}

pv_ring_status pv_ring_used(const pv_queue *queue, uint16_t index, uint32_t *id,
                            uint32_t *length, pv_ring_where *where)
{
    const uint32_t offset = 4 + 8 * (index % queue->ring.size);
    uint8_t copy[8];

    if (queue->device != NULL)
        memcpy(copy, queue->device + offset, sizeof copy);
    else if (!pv_memory_read(queue->memory, queue->ring.device + offset, copy, sizeof copy))
        return fail(where, PV_RING_MEMORY, queue->ring.device + offset, sizeof copy, 0);
    *id = pv_le32(copy);
    *length = pv_le32(copy + 4);
    return PV_RING_OK;
}

/* Descriptor `i` of a table: mapped, or at a guest address. */
static inline bool table_desc(const pv_queue *queue, const uint8_t *table, uint64_t address,
                              uint32_t i, pv_desc *desc)
{
    uint8_t copy[PV_DESC_SIZE];

    if (table != NULL) {
        *desc = desc_once(table + (size_t)i * PV_DESC_SIZE, queue->ring.packed);
        return true;
    }
    if (!pv_memory_read(queue->memory, address + (uint64_t)i * PV_DESC_SIZE, copy, sizeof copy))
        return false;
    *desc = desc_once(copy, queue->ring.packed);
    return true;
}

pv_ring_status pv_ring_desc(const pv_queue *queue, uint32_t slot, pv_desc *desc,
                            pv_ring_where *where)
{
    if (slot >= queue->ring.size)
        return fail(where, PV_RING_HEAD, queue->ring.desc, slot, queue->ring.size);
    if (!table_desc(queue, queue->desc, queue->ring.desc, slot, desc))
        return fail(where, PV_RING_MEMORY, queue->ring.desc + (uint64_t)slot * PV_DESC_SIZE,
                    PV_DESC_SIZE, 0);
    return PV_RING_OK;
}

/* -- Chains ---------------------------------------------------------------------------------- */

typedef struct {
    pv_desc *out;
    size_t room;
    pv_chain *chain;
} writer;

static inline bool put(writer *w, const pv_desc *desc)
{
    pv_chain *chain = w->chain;

    if (chain->count >= w->room)
        return false;
    w->out[chain->count++] = *desc;
    if (desc->flags & PV_DESC_WRITE)
        chain->writable += desc->length;
    else
        chain->readable += desc->length;
    return true;
}

/* An indirect table: split, from its first descriptor along NEXT (2.7.5.3); packed, all of it in
 * turn (2.8.7). */
static pv_ring_status indirect(const pv_queue *queue, const pv_desc *to, writer *w,
                               pv_ring_where *where)
{
    const uint32_t size = to->length / PV_DESC_SIZE;
    const uint8_t *table = pv_memory_at(queue->memory, to->address, to->length);
    uint32_t i = 0;

    if (to->length == 0 || to->length % PV_DESC_SIZE || size > PV_RING_LARGEST)
        return fail(where, PV_RING_TABLE, to->address, to->length, PV_RING_LARGEST * PV_DESC_SIZE);
    for (uint32_t n = 0; n < size; n++) {
        pv_desc desc;
        const uint64_t address = to->address + (uint64_t)i * PV_DESC_SIZE;
        if (!table_desc(queue, table, to->address, i, &desc))
            return fail(where, PV_RING_MEMORY, address, PV_DESC_SIZE, 0);
        if (desc.flags & PV_DESC_INDIRECT)
            return fail(where, PV_RING_NESTED, address, desc.flags, 0);
        if (!put(w, &desc))
            return fail(where, PV_RING_FULL, address, w->room, (uint64_t)w->chain->count + 1);
        if (queue->ring.packed) {
            i++;
            continue;
        }
        if (!(desc.flags & PV_DESC_NEXT))
            return PV_RING_OK;
        if (desc.id >= size)
            return fail(where, PV_RING_HEAD, address, desc.id, size);
        i = desc.id;
    }
    return queue->ring.packed ? PV_RING_OK : fail(where, PV_RING_LOOP, to->address, size, size);
}

/* One descriptor of the ring's own table, whatever it is. */
static inline pv_ring_status follow(const pv_queue *queue, const pv_desc *desc, uint32_t slot,
                                    writer *w, pv_ring_where *where)
{
    const uint64_t address = queue->ring.desc + (uint64_t)slot * PV_DESC_SIZE;

    if (!(desc->flags & PV_DESC_INDIRECT))
        return put(w, desc) ? PV_RING_OK
                            : fail(where, PV_RING_FULL, address, w->room,
                                   (uint64_t)w->chain->count + 1);
    if (desc->flags & PV_DESC_NEXT)
        return fail(where, PV_RING_BOTH, address, desc->flags, 0);
    return indirect(queue, desc, w, where);
}

static inline pv_ring_status split_chain(const pv_queue *queue, uint16_t head, writer *w,
                                         pv_ring_where *where)
{
    const uint32_t size = queue->ring.size;
    uint32_t slot = head;
    uint64_t named = queue->ring.driver;

    w->chain->id = head;
    for (uint32_t n = 0; n < size; n++) {
        pv_desc desc;
        const uint64_t address = queue->ring.desc + (uint64_t)slot * PV_DESC_SIZE;
        pv_ring_status status;
        if (slot >= size)
            return fail(where, PV_RING_HEAD, named, slot, size);
        if (!table_desc(queue, queue->desc, queue->ring.desc, slot, &desc))
            return fail(where, PV_RING_MEMORY, address, PV_DESC_SIZE, 0);
        w->chain->slots++;
        status = follow(queue, &desc, slot, w, where);
        if (status != PV_RING_OK || !(desc.flags & PV_DESC_NEXT))
            return status;
        named = address;
        slot = desc.id;
    }
    /* The last descriptor may also name one that is not there. */
    if (slot >= size)
        return fail(where, PV_RING_HEAD, named, slot, size);
    return fail(where, PV_RING_LOOP, named, size, size);
}

static pv_ring_status packed_chain(const pv_queue *queue, uint16_t head, bool wrap, writer *w,
                                   pv_ring_where *where)
{
    const uint32_t size = queue->ring.size;
    place p = {head, wrap};

    if (head >= size)
        return fail(where, PV_RING_HEAD, queue->ring.desc, head, size);
    for (uint32_t n = 0; n < size; n++, p = after(p, 1, size)) {
        pv_desc desc;
        const uint64_t address = queue->ring.desc + (uint64_t)p.slot * PV_DESC_SIZE;
        pv_ring_status status;
        if (!table_desc(queue, queue->desc, queue->ring.desc, p.slot, &desc))
            return fail(where, PV_RING_MEMORY, address, PV_DESC_SIZE, 0);
        if (!pv_packed_available(desc.flags, p.wrap))
            return fail(where, n == 0 ? PV_RING_UNREADY : PV_RING_CUT, address, desc.flags, 0);
        w->chain->slots++;
        w->chain->id = desc.id;
        status = follow(queue, &desc, p.slot, w, where);
        if (status != PV_RING_OK || !(desc.flags & PV_DESC_NEXT))
            return status;
        if (n == 0) /* the other descriptors are written before the first one's flags */
            atomic_thread_fence(memory_order_acquire);
    }
    return fail(where, PV_RING_LOOP, queue->ring.desc + (uint64_t)head * PV_DESC_SIZE, size, size);
}

pv_ring_status pv_ring_chain(const pv_queue *queue, uint16_t head, bool wrap, pv_desc *out,
                             size_t room, pv_chain *chain, pv_ring_where *where)
{
    writer w = {out, room, chain};
    pv_ring_status status;

    *chain = (pv_chain){0};
    status = queue->ring.packed ? packed_chain(queue, head, wrap, &w, where)
                                : split_chain(queue, head, &w, where);
    chain->status = status;
    return status;
}

/* -- Many chains ------------------------------------------------------------------------------
 *
 * Chains without a fault, in mapped memory, need little: what is odd in any way is followed once
 * more by pv_ring_chain, which knows what to say of it. */

typedef struct {
    uint64_t bytes, writable;
    uint32_t count, slots;
} tally;

typedef enum { ENDED, TABLE, ODD } turn;

/* A descriptor of a split ring, in two registers. */
typedef struct {
    uint64_t low, high;
} halves;

static inline halves halves_once(const uint8_t *from)
{
    uint64_t low, high;
    memcpy(&low, from, 8);
    memcpy(&high, from + 8, 8);
    __asm__("" : "+r"(low), "+r"(high));
    return (halves){le64_of(low), le64_of(high)};
}

/* On little-endian hosts pv_desc is what stands in memory: two stores instead of four. */
static inline void put_halves(halves h, pv_desc *to)
{
    if (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__) {
        memcpy(to, &h.low, 8);
        memcpy((uint8_t *)to + 8, &h.high, 8);
    } else {
        *to = (pv_desc){h.low, (uint32_t)h.high, (uint16_t)(h.high >> 32),
                        (uint16_t)(h.high >> 48)};
    }
}

/* What walks keep: the region of the table before, where the next one mostly is too. */
typedef struct {
    const pv_queue *queue;
    const pv_region *near;
} walker;

/* Where `size` bytes are mapped, in one region; else NULL. */
static inline const uint8_t *mapped(walker *w, uint64_t guest, uint64_t size)
{
    const pv_memory *memory = w->queue->memory;
    uint64_t offset = guest - w->near->guest;

    if (offset >= w->near->size) {
        const size_t i = region_of(memory, guest);
        if (i == memory->count)
            return NULL;
        w->near = &memory->regions[i];
        offset = guest - w->near->guest;
    }
    if (w->near->at == NULL || size > w->near->size - offset)
        return NULL;
    return w->near->at + offset;
}

/* Along NEXT from `slot` on in one table, until the end or an indirect descriptor, which *table
 * then is. */
static inline turn links(const uint8_t *from, uint32_t size, uint32_t slot, pv_desc *out,
                         size_t room, tally *t, halves *table)
{
    const size_t most = room < size ? room : size;
    uint64_t bytes = 0, writable = 0;
    turn end = ODD;
    size_t n = 0;

    while (n < most && slot < size) {
        const halves h = halves_once(from + (size_t)slot * PV_DESC_SIZE);
        const uint32_t length = (uint32_t)h.high, flags = (uint32_t)(h.high >> 32);
        if (flags & PV_DESC_INDIRECT) {
            *table = h;
            end = TABLE;
            break;
        }
        put_halves(h, &out[n++]);
        bytes += length;
        writable += length & -(flags >> 1 & 1);
        if (!(flags & PV_DESC_NEXT)) {
            end = ENDED;
            break;
        }
        slot = (uint32_t)(h.high >> 48);
    }
    t->bytes += bytes;
    t->writable += writable;
    t->count += (uint32_t)n;
    return end;
}

/* An indirect table at the end of a chain of which `t` was found so far. */
static inline turn linked_table(walker *w, halves to, pv_desc *out, size_t room, tally *t)
{
    const uint32_t length = (uint32_t)to.high, size = length / PV_DESC_SIZE;
    const uint8_t *table = mapped(w, to.low, length);

    if (to.high >> 32 & PV_DESC_NEXT || t->slots == w->queue->ring.size || table == NULL ||
        length % PV_DESC_SIZE || size > PV_RING_LARGEST)
        return ODD;
    t->slots++;
    return links(table, size, 0, out + t->count, room - t->count, t, &to);
}

/* The chains of `count` avail entries from `slot` on, until one is odd or does not fit. */
static size_t walk_mapped(const pv_queue *queue, uint32_t slot, size_t count, pv_chain *chains,
                          pv_desc *out, size_t room, size_t *used)
{
    const uint32_t size = queue->ring.size;
    const uint8_t *table = queue->desc, *entries = queue->driver + 4;
    walker w = {queue, queue->memory->regions};
    size_t done = 0, at = *used;

    for (; done < count; done++) {
        const uint16_t head = once16(entries + 2 * (size_t)slot);
        tally t = {0};
        halves to;
        turn end = links(table, size, head, out + at, room - at, &t, &to);
        t.slots = t.count;
        if (end == TABLE)
            end = linked_table(&w, to, out + at, room - at, &t);
        if (end != ENDED)
            break;
        chains[done] = (pv_chain){t.bytes - t.writable, t.writable, t.count, (uint16_t)t.slots,
                                  head, (uint32_t)at, PV_RING_OK};
        at += t.count;
        slot = slot + 1 == size ? 0 : slot + 1;
    }
    *used = at;
    return done;
}

static size_t walk_split(const pv_queue *queue, uint16_t from, uint16_t to, pv_chain *chains,
                         size_t chains_room, pv_desc *out, size_t room, size_t *used)
{
    const bool mapped = queue->desc != NULL && queue->driver != NULL;
    size_t count = 0;
    pv_ring_where where;

    *used = 0;
    while (from != to && count < chains_room) {
        const size_t ahead = (uint16_t)(to - from), rest = chains_room - count;
        /* The index wraps at 65536, where sizes that are no power of two go back to slot 0. */
        const size_t most = 65536u - from, few = ahead < rest ? ahead : rest;
        const size_t done = mapped ? walk_mapped(queue, from % queue->ring.size,
                                                 few < most ? few : most, chains + count, out,
                                                 room, used)
                                   : 0;
        uint16_t head = 0;
        count += done;
        from += (uint16_t)done;
        if (from == to || count == chains_room)
            break;
        if (done == most)
            continue;
        if (pv_ring_avail(queue, from, &head, &where) != PV_RING_OK ||
            pv_ring_chain(queue, head, false, out + *used, room - *used, &chains[count],
                          &where) == PV_RING_FULL)
            break;
        chains[count].first = (uint32_t)*used;
        *used += chains[count++].count;
        from++;
    }
    return count;
}

static size_t walk_packed(const pv_queue *queue, place p, pv_chain *chains, size_t chains_room,
                          pv_desc *out, size_t room, size_t *used)
{
    size_t count = 0, at = 0;
    uint32_t slots = 0;
    pv_ring_where where;

    while (count < chains_room && slots < queue->ring.size) {
        pv_chain *chain = &chains[count];
        const pv_ring_status status =
            pv_ring_chain(queue, (uint16_t)p.slot, p.wrap, out + at, room - at, chain, &where);
        if (status == PV_RING_FULL || status == PV_RING_UNREADY)
            break;
        chain->first = (uint32_t)at;
        at += chain->count;
        count++;
        if (status != PV_RING_OK)
            break;
        slots += chain->slots;
        p = after(p, chain->slots, queue->ring.size);
    }
    *used = at;
    return count;
}

size_t pv_ring_walk(const pv_queue *queue, uint16_t from, uint16_t to, bool wrap,
                    pv_chain *chains, size_t chains_room, pv_desc *out, size_t room,
                    size_t *used)
{
    if (queue->ring.packed)
        return walk_packed(queue, (place){from, wrap}, chains, chains_room, out, room, used);
    return walk_split(queue, from, to, chains, chains_room, out, room, used);
}
