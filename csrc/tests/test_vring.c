/* Virtqueues: rings made by hand, and any bytes as memory and layout. Built with -DFUZZ it is a
 * libFuzzer target instead. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pv_image.h"
#include "pv_vring.h"

enum { DESCS = 70000 };

static pv_desc out[DESCS], again[DESCS];
static pv_chain chains[256];

/* -- Any bytes ------------------------------------------------------------------------------- */

/* The last region is not mapped: it comes through this. */
typedef struct {
    const uint8_t *at;
    uint64_t size;
    unsigned left; /* reads until it fails */
} store;

static bool fetch(void *context, size_t region, uint64_t offset, void *to, size_t size)
{
    store *s = context;

    assert(region == 2 && offset <= s->size && size <= s->size - offset);
    memcpy(to, s->at + offset, size);
    return s->left == 0 || --s->left > 0;
}

static void check_chain(const pv_chain *chain, const pv_desc *descs, size_t room)
{
    uint64_t bytes = 0;

    assert(chain->count <= room);
    for (uint32_t i = 0; i < chain->count; i++)
        bytes += descs[i].length;
    assert(bytes == chain->readable + chain->writable);
}

/* Many chains in one call are found as each of them alone is. */
static void check_walked(const pv_queue *queue, const pv_chain *walked)
{
    pv_ring_where where;
    pv_chain alone;

    (void)pv_ring_chain(queue, walked->id, false, again, DESCS, &alone, &where);
    assert(alone.status == walked->status && alone.count == walked->count);
    assert(alone.slots == walked->slots);
    assert(alone.readable == walked->readable && alone.writable == walked->writable);
    for (uint32_t i = 0; i < alone.count; i++) {
        const pv_desc *one = &again[i], *other = &out[walked->first + i];
        assert(one->address == other->address && one->length == other->length);
        assert(one->flags == other->flags && one->id == other->id);
    }
}

static void use(const pv_queue *queue, const uint8_t *data, bool lasting)
{
    const uint32_t size = queue->ring.size;
    const size_t room = data[0] & 1 ? DESCS : data[1];
    pv_ring_where where;
    pv_ring_state state;
    pv_ring_sample sample;
    pv_chain chain;
    size_t used;

    memcpy(&state, data, sizeof state);
    memcpy(&sample, data, sizeof sample);
    for (int i = 0; i < 3; i++) {
        pv_ring_look(queue, &state);
        pv_ring_sample_all(queue, 1, &sample);
    }
    if (queue->ring.packed && !(state.indexes.bits & PV_STATE_UNREADABLE)) {
        assert(state.indexes.avail_idx < size && state.indexes.used_idx < size);
        assert(state.indexes.in_flight <= size);
    }
    for (uint32_t head = 0; head <= size && head < 8; head++) {
        pv_desc desc;
        (void)pv_ring_desc(queue, head, &desc, &where);
        (void)pv_ring_chain(queue, (uint16_t)head, head & 1, out, room, &chain, &where);
        check_chain(&chain, out, room);
        if (!queue->ring.packed) {
            uint16_t named;
            uint32_t id, length;
            (void)pv_ring_avail(queue, (uint16_t)head, &named, &where);
            (void)pv_ring_used(queue, (uint16_t)(head + data[2]), &id, &length, &where);
        }
    }
    const size_t count = pv_ring_walk(queue, state.indexes.used_idx, state.indexes.avail_idx,
                                      data[3] & 1, chains, data[4], out, room, &used);
    assert(count <= data[4] && used <= room);
    for (size_t i = 0; i < count; i++) {
        check_chain(&chains[i], out + chains[i].first, used - chains[i].first);
        if (lasting && !queue->ring.packed)
            check_walked(queue, &chains[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { HEAD = 24 };
    pv_region regions[3];
    pv_memory memory = {regions, 3, fetch, NULL};
    pv_queue queue;
    pv_ring_where where;

    if (size < HEAD)
        return 0;
    const size_t rest = size - HEAD, third = rest / 3;
    const uint8_t *bytes = data + HEAD;
    store stored = {bytes + 2 * third, rest - 2 * third, data[23] >> 4};
    /* Two adjacent regions, a hole, and one at the end of what 64 bits address. */
    const uint64_t last = data[22] & 1 ? -(uint64_t)stored.size : 0x20000;
    regions[0] = (pv_region){0, third, bytes};
    regions[1] = (pv_region){third, third, bytes + third};
    regions[2] = (pv_region){last, stored.size, NULL};
    memory.context = &stored;
    const pv_ring ring = {
        data[22] & 2 ? last + pv_le16(data + 8) : pv_le16(data + 8),
        data[22] & 4 ? last + pv_le16(data + 10) : pv_le16(data + 10),
        data[22] & 8 ? last + pv_le16(data + 12) : pv_le16(data + 12),
        data[22] & 16 ? PV_RING_EVENT_IDX : 0,
        data[22] & 32 ? pv_le16(data + 14) : data[14] % 33,
        data[22] >> 6 & 1,
    };
    if (pv_queue_open(&memory, &ring, &queue, &where) == PV_RING_OK)
        use(&queue, data, stored.left == 0);
    return 0;
}

#ifndef FUZZ
/* -- Rings by hand --------------------------------------------------------------------------- */

enum { SIZE = 8, TABLE = 0, AVAIL = 0x100, USED = 0x140, MORE = 0x200, BYTES = 0x400 };

static uint8_t bytes[BYTES];
static pv_region region = {0x1000, BYTES, bytes};
static pv_memory memory = {&region, 1, NULL, NULL};
static pv_ring_where where;

static void put16(size_t at, uint16_t value)
{
    bytes[at] = (uint8_t)value;
    bytes[at + 1] = (uint8_t)(value >> 8);
}

static void put_desc(size_t at, uint64_t address, uint32_t length, uint16_t third, uint16_t fourth)
{
    for (int i = 0; i < 8; i++)
        bytes[at + (size_t)i] = (uint8_t)(address >> 8 * i);
    for (int i = 0; i < 4; i++)
        bytes[at + 8 + (size_t)i] = (uint8_t)(length >> 8 * i);
    put16(at + 12, third);
    put16(at + 14, fourth);
}

static pv_queue queue_of(bool packed)
{
    const pv_ring ring = {0x1000 + TABLE, 0x1000 + AVAIL, 0x1000 + USED, PV_RING_EVENT_IDX, SIZE,
                          packed};
    pv_queue queue;

    memset(bytes, 0, sizeof bytes);
    assert(pv_queue_open(&memory, &ring, &queue, &where) == PV_RING_OK);
    return queue;
}

static void reads_memory_across_regions(void)
{
    uint8_t first[4] = {1, 2, 3, 4}, second[4] = {5, 6, 7, 8}, copy[6] = {0};
    const pv_region two[] = {{0x10, 4, first}, {0x14, 4, second}, {0x20, 4, first}};
    const pv_memory m = {two, 3, NULL, NULL};

    assert(pv_memory_read(&m, 0x11, copy, 6) && !memcmp(copy, "\2\3\4\5\6\7", 6));
    assert(!pv_memory_read(&m, 0x14, copy, 5) && !pv_memory_read(&m, 0xf, copy, 1));
    assert(pv_memory_reach(&m, 0x11, 100) == 7 && pv_memory_reach(&m, 0x18, 1) == 0);
    assert(pv_memory_at(&m, 0x12, 2) == first + 2 && pv_memory_at(&m, 0x12, 3) == NULL);
    assert(!pv_memory_read(&m, UINT64_MAX, copy, 2));
}

static void refuses_rings_that_are_not_there(void)
{
    pv_ring ring = {0x1000, 0x1100, 0x1140, 0, 0, 0};
    pv_queue queue;

    assert(pv_queue_open(&memory, &ring, &queue, &where) == PV_RING_SIZE && where.found == 0);
    ring.size = 32769;
    assert(pv_queue_open(&memory, &ring, &queue, &where) == PV_RING_SIZE);
    ring.size = SIZE;
    ring.device = 0x1000 + BYTES - 4 - 8 * SIZE;
    assert(pv_queue_open(&memory, &ring, &queue, &where) == PV_RING_OK);
    ring.device += 1;
    assert(pv_queue_open(&memory, &ring, &queue, &where) == PV_RING_MEMORY);
    assert(where.address == ring.device);
}

static void follows_split_chains(void)
{
    const pv_queue queue = queue_of(false);
    pv_chain chain;

    put_desc(TABLE + 16, 0x5000, 16, PV_DESC_NEXT, 3);
    put_desc(TABLE + 48, 0x1000 + MORE, 32, PV_DESC_INDIRECT, 0);
    put_desc(MORE, 0x6000, 512, PV_DESC_NEXT | PV_DESC_WRITE, 1);
    put_desc(MORE + 16, 0x7000, 1, PV_DESC_WRITE, 0);
    assert(pv_ring_chain(&queue, 1, 0, out, DESCS, &chain, &where) == PV_RING_OK);
    assert(chain.count == 3 && chain.slots == 2 && chain.id == 1);
    assert(chain.readable == 16 && chain.writable == 513 && out[2].address == 0x7000);
    assert(pv_ring_chain(&queue, 1, 0, out, 2, &chain, &where) == PV_RING_FULL);
}

static void tells_what_breaks_a_split_chain(void)
{
    const pv_queue queue = queue_of(false);
    pv_chain chain;

    put_desc(TABLE, 0, 0, PV_DESC_NEXT, 0);
    assert(pv_ring_chain(&queue, 0, 0, out, DESCS, &chain, &where) == PV_RING_LOOP);
    put_desc(TABLE, 0, 0, PV_DESC_NEXT, SIZE);
    assert(pv_ring_chain(&queue, 0, 0, out, DESCS, &chain, &where) == PV_RING_HEAD);
    assert(where.address == 0x1000 + TABLE && where.found == SIZE && where.expected == SIZE);
    assert(pv_ring_chain(&queue, SIZE, 0, out, DESCS, &chain, &where) == PV_RING_HEAD);
    put_desc(TABLE, 0x1000 + MORE, 16, PV_DESC_INDIRECT | PV_DESC_NEXT, 1);
    assert(pv_ring_chain(&queue, 0, 0, out, DESCS, &chain, &where) == PV_RING_BOTH);
    put_desc(TABLE, 0x1000 + MORE, 24, PV_DESC_INDIRECT, 0);
    assert(pv_ring_chain(&queue, 0, 0, out, DESCS, &chain, &where) == PV_RING_TABLE);
    put_desc(TABLE, 0x1000 + BYTES - 16, 32, PV_DESC_INDIRECT, 0);
    put_desc(BYTES - 16, 0, 1, PV_DESC_NEXT, 1);
    assert(pv_ring_chain(&queue, 0, 0, out, DESCS, &chain, &where) == PV_RING_MEMORY);
    assert(where.address == 0x1000 + BYTES && chain.count == 1);
    put_desc(TABLE, 0x1000 + MORE, 32, PV_DESC_INDIRECT, 0);
    put_desc(MORE, 0x1000 + MORE, 16, PV_DESC_INDIRECT, 0);
    assert(pv_ring_chain(&queue, 0, 0, out, DESCS, &chain, &where) == PV_RING_NESTED);
    put_desc(MORE, 0, 1, PV_DESC_NEXT, 0);
    assert(pv_ring_chain(&queue, 0, 0, out, DESCS, &chain, &where) == PV_RING_LOOP);
}

static void looks_at_split_rings(void)
{
    const pv_queue queue = queue_of(false);
    pv_ring_state state = {0};
    pv_ring_sample sample = {0};

    put16(AVAIL + 2, 2);
    put16(USED + 2, 0xfffe);
    put16(AVAIL + 4 + 2 * SIZE, 77);
    put16(USED + 4 + 8 * SIZE, 78);
    pv_ring_look(&queue, &state);
    assert(state.indexes.in_flight == 4 && state.indexes.bits == 0);
    assert(state.used_event == 77 && state.avail_event == 78);
    put16(AVAIL + 2, 7);
    pv_ring_sample_all(&queue, 1, &sample);
    assert(sample.in_flight == 9 && sample.bits == PV_STATE_JUMPED);
}

/* A driver and a device that complete in order, beside what is found in their ring. */
static void follows_packed_rings(bool known)
{
    const pv_queue queue = queue_of(true);
    pv_ring_sample sample = {0, 0, 0, known ? PV_STATE_USED_KNOWN | PV_STATE_USED_WRAP |
                                                  PV_STATE_AVAIL_WRAP : 0};
    unsigned avail = 0, used = 0; /* slots since the beginning */
    pv_chain chain;

    for (unsigned turn = 0; turn < 200; turn++) {
        const unsigned length = 1 + turn % 3;
        while (avail + length - used > SIZE) {
            const bool wrap = !(used / SIZE & 1);
            assert(pv_ring_chain(&queue, used % SIZE, wrap, out, DESCS, &chain, &where) == 0);
            put_desc(16 * (used % SIZE), 0, 0, chain.id,
                     wrap ? PV_DESC_AVAIL | PV_DESC_USED : 0);
            used += chain.slots;
        }
        for (unsigned i = length; i-- > 0;) {
            const bool wrap = !((avail + i) / SIZE & 1);
            put_desc(16 * ((avail + i) % SIZE), turn, 16, (uint16_t)(turn % 50),
                     (uint16_t)((wrap ? PV_DESC_AVAIL : PV_DESC_USED) |
                                (i + 1 < length ? PV_DESC_NEXT : 0)));
        }
        avail += length;
        pv_ring_sample_all(&queue, 1, &sample);
        assert(sample.avail_idx == avail % SIZE);
        assert(!!(sample.bits & PV_STATE_AVAIL_WRAP) == !(avail / SIZE & 1));
        assert(!(sample.bits & PV_STATE_TORN));
        if (sample.bits & PV_STATE_USED_KNOWN) {
            assert(sample.used_idx == used % SIZE && sample.in_flight == avail - used);
            assert(!!(sample.bits & PV_STATE_USED_WRAP) == !(used / SIZE & 1));
        }
    }
}

static void walks_whole_rings(void)
{
    const pv_queue queue = queue_of(false);
    size_t used;

    for (uint16_t i = 0; i < SIZE; i++) {
        put_desc(TABLE + 16u * i, i, i, 0, 0);
        put16(AVAIL + 4u + 2u * i, i == 3 ? 99 : i);
    }
    assert(pv_ring_walk(&queue, 0, SIZE, 0, chains, 256, out, DESCS, &used) == SIZE);
    assert(used == SIZE - 1 && chains[3].status == PV_RING_HEAD && chains[7].first == 6);
    assert(pv_ring_walk(&queue, 0, SIZE, 0, chains, 2, out, DESCS, &used) == 2 && used == 2);
    assert(pv_ring_walk(&queue, 0, SIZE, 0, chains, 256, out, 5, &used) == 6 && used == 5);
}

static void survives_any_bytes(void)
{
    static uint8_t data[4096];

    srand(1);
    for (int round = 0; round < 20000; round++) {
        const size_t size = (size_t)rand() % sizeof data;
        for (size_t i = 0; i < size; i++)
            data[i] = rand() % 3 ? (uint8_t)(rand() % 8) : (uint8_t)rand();
        LLVMFuzzerTestOneInput(data, size);
    }
}

int main(void)
{
    reads_memory_across_regions();
    refuses_rings_that_are_not_there();
    follows_split_chains();
    tells_what_breaks_a_split_chain();
    looks_at_split_rings();
    follows_packed_rings(false);
    follows_packed_rings(true);
    walks_whole_rings();
    survives_any_bytes();
    puts("vring ok");
    return 0;
}
#endif
