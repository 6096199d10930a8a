/* Virtqueues in guest memory, split and packed (virtio 1.2, sections 2.7 and 2.8).
 *
 * The guest writes while this reads, and may be hostile: each index, entry and descriptor is
 * copied once and only the copy is trusted; chains are bounded by the size of the ring or of
 * the lent buffer; an address is followed only where all of it is guest memory. Fields are
 * little-endian, as in every device that negotiated VIRTIO_F_VERSION_1 and as on x86.
 */
#ifndef PV_VRING_H
#define PV_VRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    PV_RING_OK,
    PV_RING_MEMORY,   /* where->address, found bytes from there on: not all guest memory */
    PV_RING_SIZE,     /* a ring of `found` entries cannot be */
    PV_RING_HEAD,     /* descriptor `found` of a table of `expected` */
    PV_RING_LOOP,     /* a chain longer than its table of `expected` descriptors */
    PV_RING_TABLE,    /* an indirect table of `found` bytes: empty, no multiple of 16, too long */
    PV_RING_NESTED,   /* an indirect descriptor (flags `found`) inside an indirect table */
    PV_RING_BOTH,     /* INDIRECT and NEXT in the flags `found` */
    PV_RING_UNREADY,  /* no chain is available there: flags `found` (packed) */
    PV_RING_CUT,      /* slot of a packed chain that the driver has not made available */
    PV_RING_FULL,     /* the lent buffer has no room for `expected` records */
} pv_ring_status;

/* Where a ring was broken: a guest address, what was there, and the limit it broke. */
typedef struct {
    uint64_t address, found, expected;
} pv_ring_where;

/* -- Guest memory ---------------------------------------------------------------------------- */

/* `at` is NULL where the bytes cannot be mapped safely: then pv_memory.read gets them. */
typedef struct {
    uint64_t guest, size;
    const uint8_t *at;
} pv_region;

/* Regions ascend and do not overlap. `read` fills all of `to` from region `region`, byte
 * `offset` on, or returns false; it is NULL where every region is mapped. */
typedef struct {
    const pv_region *regions;
    size_t count;
    bool (*read)(void *context, size_t region, uint64_t offset, void *to, size_t size);
    void *context;
} pv_memory;

/* False where [guest, guest + size) is not all memory; it may lie across regions. */
bool pv_memory_read(const pv_memory *memory, uint64_t guest, void *to, size_t size);

/* The bytes themselves, where they lie in one mapped region; else NULL. The guest may change
 * them at any time. */
const uint8_t *pv_memory_at(const pv_memory *memory, uint64_t guest, uint64_t size);

/* How many bytes from `guest` on are memory, at most `size`. */
uint64_t pv_memory_reach(const pv_memory *memory, uint64_t guest, uint64_t size);

/* -- Rings ----------------------------------------------------------------------------------- */

enum {
    PV_DESC_NEXT = 1,
    PV_DESC_WRITE = 2,
    PV_DESC_INDIRECT = 4,
    PV_DESC_AVAIL = 1 << 7, /* packed */
    PV_DESC_USED = 1 << 15, /* packed */

    PV_RING_LARGEST = 32768, /* entries; of an indirect table as well */
    PV_DESC_SIZE = 16,
};

#define PV_RING_EVENT_IDX (UINT64_C(1) << 29)

/* Addresses of the descriptor, driver and device areas. */
typedef struct {
    uint64_t desc, driver, device, features;
    uint32_t size;
    uint8_t packed;
} pv_ring;

/* In memory, flags and id stand the other way around in packed rings. `id` is the index of the
 * next descriptor (split), the buffer's id (packed). */
typedef struct {
    uint64_t address;
    uint32_t length;
    uint16_t flags, id;
} pv_desc;

/* A ring whose areas were found once. An area that lies across regions, or in one that is
 * not mapped, has NULL here and is read piece by piece. `memory` must stay. */
typedef struct {
    const uint8_t *avail_idx, *used_idx; /* of mapped split rings, for who reads no more */
    pv_ring ring;
    const pv_memory *memory;
    const uint8_t *desc, *driver, *device;
} pv_queue;

/* PV_RING_SIZE or PV_RING_MEMORY where the ring cannot be there. */
pv_ring_status pv_queue_open(const pv_memory *memory, const pv_ring *ring, pv_queue *queue,
                             pv_ring_where *where);

/* -- States ---------------------------------------------------------------------------------- */

/* What a state says of itself. */
enum {
    PV_STATE_TORN = 1,        /* the ring moved during every try: the indexes may not match */
    PV_STATE_JUMPED = 2,      /* more in flight than the ring has entries: the ring is broken */
    PV_STATE_UNREADABLE = 4,  /* the memory went away */
    PV_STATE_USED_KNOWN = 8,  /* packed: used_idx is certain, else the best guess */
    PV_STATE_AVAIL_WRAP = 16, /* packed: the driver's wrap counter */
    PV_STATE_USED_WRAP = 32,  /* packed: the device's wrap counter */
    PV_STATE_TRIES = 8,       /* how often a moving ring is read again */
};

/* The start of every record. Split: the indexes as they are in memory. Packed: the slots where
 * driver and device write next, and `in_flight` counts slots, not chains. */
typedef struct {
    uint16_t avail_idx, used_idx, in_flight, bits;
} pv_ring_sample;

typedef struct {
    pv_ring_sample indexes;
    uint16_t avail_flags, used_flags; /* packed: flags of the driver's and device's events */
    uint16_t used_event, avail_event; /* packed: offset and wrap bit of the same */
} pv_ring_state;

/* The indexes of `count` queues, for polling. Of a split ring, each index is read once, used first:
 * chains that are made meanwhile count as in flight, and none is missed. Packed rings start from
 * what `samples` had before (bits 0 and indexes 0 do for a fresh buffer). */
void pv_ring_sample_all(const pv_queue *queues, size_t count, pv_ring_sample *samples);

/* All of one ring. `state` holds the state before, or zeros. */
void pv_ring_look(const pv_queue *queue, pv_ring_state *state);

/* -- Entries and chains ---------------------------------------------------------------------- */

/* Split: the head that avail index `index` names, and what used index `index` says. */
pv_ring_status pv_ring_avail(const pv_queue *queue, uint16_t index, uint16_t *head,
                             pv_ring_where *where);
pv_ring_status pv_ring_used(const pv_queue *queue, uint16_t index, uint32_t *id,
                            uint32_t *length, pv_ring_where *where);

/* One slot of the descriptor area, copied. */
pv_ring_status pv_ring_desc(const pv_queue *queue, uint32_t slot, pv_desc *desc,
                            pv_ring_where *where);

/* Packed: whether the driver (the device) has written to a slot in the lap of `wrap`. */
static inline bool pv_packed_available(uint16_t flags, bool wrap)
{
    return !!(flags & PV_DESC_AVAIL) == wrap && !!(flags & PV_DESC_USED) != wrap;
}

static inline bool pv_packed_used(uint16_t flags, bool wrap)
{
    return !!(flags & PV_DESC_AVAIL) == wrap && !!(flags & PV_DESC_USED) == wrap;
}

/* A chain, as bytes that the device reads and writes. */
typedef struct {
    uint64_t readable, writable; /* bytes */
    uint32_t count;              /* descriptors that carry data, indirect tables resolved */
    uint16_t slots;              /* of the ring's own table that it takes */
    uint16_t id;                 /* split: its head; packed: the buffer's id */
    uint32_t first;              /* of them in the lent buffer; see pv_ring_walk */
    uint32_t status;             /* pv_ring_status */
} pv_chain;

/* Split: the chain of head `head`. Packed: the chain that begins in slot `head`, in the lap of
 * `wrap`. Descriptors go to `out`, at most `room`; on a fault those before it are there. */
pv_ring_status pv_ring_chain(const pv_queue *queue, uint16_t head, bool wrap, pv_desc *out,
                             size_t room, pv_chain *chain, pv_ring_where *where);

/* Many chains in one call: split, those of avail indexes [from, to); packed, those in slots from
 * `from` on, with `wrap` its lap's, until one is not available, and at most one lap (`to` is not
 * used). A broken split chain is recorded with its status and the walk goes on; a broken packed
 * one ends it. Stops when either buffer is full. Returns chains; `*used` has the descriptors. */
size_t pv_ring_walk(const pv_queue *queue, uint16_t from, uint16_t to, bool wrap,
                    pv_chain *chains, size_t chains_room, pv_desc *out, size_t room,
                    size_t *used);

#endif
