/* Virtqueues that are followed while a guest uses them. A driver and a device act as a stream of
 * bytes tells, between looks; every request of an honest guest is recorded as it was or counted as
 * lost, and a hostile guest may write anything anywhere. Built with -DFUZZ it is a libFuzzer
 * target instead. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pv_trace.h"

enum {
    SIZE = 8,
    MEMORY = 1 << 14,
    HALF = MEMORY / 2, /* two regions, with a hole between them */
    FAR = 1 << 20,
    DESC = 0x000,
    DRIVER = 0x200,
    DEVICE = 0x300,
    TABLES = 0x400,         /* for each id an indirect table of two descriptors */
    HEADERS = 0x800,        /* for each id the request's number, and its complement */
    RESULTS = HALF + 0x100, /* the same, by the device */
    SNAP = 24,
    ROOM = 1 << 11,
    MOST = 4096, /* requests whose numbers are remembered */
};

#define INDIRECT (UINT64_C(1) << 28)

typedef struct {
    uint16_t id, slots;
    uint64_t number;
} request;

/* What has happened to a ring, from both its sides, and what was seen of it. */
typedef struct {
    uint8_t memory[MEMORY];
    bool packed, indirect, hostile, blurred;
    request made[SIZE], taken[SIZE]; /* by the driver; by the device */
    uint16_t made_count, taken_count, free[SIZE], free_count;
    uint16_t avail, used, reaped, room;             /* split: indexes; packed: slots */
    bool avail_wrap, used_wrap, reaped_wrap;
    int stage;
    uint64_t number, records, unseen, before;

    pv_region regions[2];
    pv_memory map;
    pv_traced queue;
    pv_flight flights[SIZE];
    uint8_t bytes[2 * SNAP * SIZE], ring[ROOM], again[SNAP];
    pv_desc chain[PV_TRACE_CHAIN];
    uint16_t held[SIZE];
    pv_trace trace;
    uint64_t now;
    uint8_t recorded[MOST];
} world;

static void put(world *w, size_t at, uint64_t value, int size)
{
    for (int i = 0; i < size; i++)
        w->memory[at + i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *p, int size)
{
    uint64_t value = 0;
    for (int i = 0; i < size; i++)
        value |= (uint64_t)p[i] << (8 * i);
    return value;
}

static void put_desc(world *w, size_t at, uint64_t address, uint32_t length, uint16_t flags,
                     uint16_t id)
{
    put(w, at, address, 8);
    put(w, at + 8, length, 4);
    put(w, at + 12, w->packed ? id : flags, 2);
    put(w, at + 14, w->packed ? flags : id, 2);
}

/* -- The driver -------------------------------------------------------------------------------- */

static uint16_t lap(const world *w, uint16_t slot)
{
    const bool wrap = slot < SIZE ? w->avail_wrap : !w->avail_wrap;
    return wrap ? PV_DESC_AVAIL : PV_DESC_USED;
}

static uint64_t result_of(uint16_t id)
{
    return FAR + (RESULTS - HALF) + 32 * id;
}

/* Two descriptors: in an indirect table, or in the ring (split: those of an even index and the
 * next one; packed: the next two slots). `flags` is what the first must get last, if packed. */
static void write_chain(world *w, uint16_t id, uint16_t *flags)
{
    const uint64_t header = HEADERS + 16 * id;
    const uint64_t at = w->indirect ? TABLES + 32 * id : DESC;

    *flags = lap(w, w->avail) | (w->indirect ? PV_DESC_INDIRECT : PV_DESC_NEXT);
    if (w->indirect) {
        put_desc(w, at, header, 16, w->packed ? 0 : PV_DESC_NEXT, w->packed ? id : 1);
        put_desc(w, at + 16, result_of(id), 17, PV_DESC_WRITE, w->packed ? id : 0);
    } else if (w->packed) {
        const uint16_t second = (uint16_t)(w->avail + 1);
        put_desc(w, DESC + 16 * (second % SIZE), result_of(id), 17,
                 PV_DESC_WRITE | lap(w, second), id);
    } else {
        put_desc(w, DESC + 16 * (id + 1), result_of(id), 17, PV_DESC_WRITE, 0);
        put_desc(w, DESC + 16 * id, header, 16, PV_DESC_NEXT, id + 1);
    }
    if (w->indirect && !w->packed)
        put_desc(w, DESC + 16 * id, TABLES + 32 * id, 32, PV_DESC_INDIRECT, 0);
    if (w->packed) { /* all but the flags */
        const size_t first = DESC + 16 * (w->avail % SIZE);
        put(w, first, w->indirect ? TABLES + 32u * id : header, 8);
        put(w, first + 8, w->indirect ? 32 : 16, 4);
        put(w, first + 12, id, 2);
    }
}

static void publish(world *w, uint16_t id, uint16_t flags)
{
    const uint16_t slots = w->indirect ? 1 : 2;

    w->made[w->made_count++] = (request){id, slots, w->number++};
    w->unseen++;
    if (w->packed) {
        put(w, DESC + 16 * (w->avail % SIZE) + 14, flags, 2);
        w->avail += slots;
        w->room -= slots;
        if (w->avail >= SIZE) {
            w->avail -= SIZE;
            w->avail_wrap = !w->avail_wrap;
        }
        return;
    }
    put(w, DRIVER + 4 + 2 * (w->avail++ % SIZE), id, 2);
    put(w, DRIVER + 2, w->avail, 2);
}

/* One step of making a request: its buffer, its descriptors, its publication. */
static void drive(world *w)
{
    uint16_t id, flags = 0;

    if (w->free_count == 0 || (w->packed && w->room < 2))
        return;
    if (w->packed && w->unseen * (w->indirect ? 1 : 2) >= 2 * SIZE - 2)
        return; /* two laps cannot be told from none */
    id = w->free[w->free_count - 1];
    if (w->stage == 0) {
        put(w, HEADERS + 16 * id, w->number, 8);
        put(w, HEADERS + 16 * id + 8, ~w->number, 8);
    } else if (w->stage == 1 && !w->packed) {
        write_chain(w, id, &flags);
    } else if (w->stage == 2) {
        if (w->packed) /* slots that are half written cannot be told from used ones */
            write_chain(w, id, &flags);
        w->free_count--;
        publish(w, id, flags);
    }
    w->stage = (w->stage + 1) % 3;
}

/* -- The device -------------------------------------------------------------------------------- */

static void finish(world *w, uint8_t which)
{
    request r;

    while (w->taken_count < SIZE && w->made_count > 0) {
        w->taken[w->taken_count++] = w->made[0];
        memmove(w->made, w->made + 1, --w->made_count * sizeof *w->made);
    }
    if (w->taken_count == 0)
        return;
    which %= w->taken_count;
    r = w->taken[which];
    memmove(w->taken + which, w->taken + which + 1, (--w->taken_count - which) * sizeof r);
    put(w, RESULTS + 32 * r.id, r.number, 8);
    put(w, RESULTS + 32 * r.id + 8, ~r.number, 8);
    put(w, RESULTS + 32 * r.id + 16, r.number, 1);
    if (w->packed) {
        const uint16_t wrap = w->used_wrap ? PV_DESC_AVAIL | PV_DESC_USED : 0;
        put(w, DESC + 16 * w->used + 8, 17, 4);
        put(w, DESC + 16 * w->used + 12, r.id, 2);
        put(w, DESC + 16 * w->used + 14, wrap, 2);
        w->used += r.slots;
        if (w->used >= SIZE) {
            w->used -= SIZE;
            w->used_wrap = !w->used_wrap;
        }
        return;
    }
    put(w, DEVICE + 4 + 8 * (w->used % SIZE), r.id, 4);
    put(w, DEVICE + 8 + 8 * (w->used % SIZE), 17, 4);
    put(w, DEVICE + 2, ++w->used, 2);
}

/* The driver takes back one request; its descriptors are the next to be used again. */
static void reap(world *w)
{
    if (w->stage != 0 || w->free_count >= SIZE)
        return;
    if (w->packed) {
        const uint8_t *slot = w->memory + DESC + 16 * w->reaped;
        const uint16_t slots = w->indirect ? 1 : 2;
        if (!pv_packed_used((uint16_t)get(slot + 14, 2), w->reaped_wrap) || w->room == SIZE)
            return;
        w->free[w->free_count++] = (uint16_t)get(slot + 12, 2) % SIZE;
        w->room += slots;
        w->reaped += slots;
        if (w->reaped >= SIZE) {
            w->reaped -= SIZE;
            w->reaped_wrap = !w->reaped_wrap;
        }
    } else if (w->reaped != w->used) {
        const size_t entry = DEVICE + 4 + 8 * (w->reaped++ % SIZE);
        w->free[w->free_count++] = (uint16_t)get(w->memory + entry, 2) % (SIZE - 1);
    }
}

/* -- The observer ------------------------------------------------------------------------------ */

static void check_record(world *w, const uint8_t *record, const uint8_t *payload)
{
    const uint64_t order = get(record + 16, 8), done = get(record + 8, 8);
    const uint32_t readable = (uint32_t)get(record + 44, 4);
    const uint16_t flags = (uint16_t)get(record + 58, 2);

    w->records++;
    assert(get(record, 8) <= w->now && done <= w->now && (done == 0 || done >= get(record, 8)));
    assert(readable <= SNAP && get(record + 48, 4) <= SNAP && get(record + 54, 2) < SIZE);
    if (w->hostile)
        return;
    assert(w->blurred || (order < MOST && !w->recorded[order]++));
    if (flags & PV_TRACE_CHAIN_UNCERTAIN)
        return;
    const uint64_t number = get(payload, 8);
    assert(readable == 16 && get(payload + 8, 8) == ~number && get(record + 60, 2) == 2);
    assert(w->blurred || number == order);
    if (done == 0 || flags & PV_TRACE_RESULT_UNCERTAIN)
        return;
    assert(get(record + 40, 4) == 17 && get(record + 48, 4) == 17);
    assert(get(payload + 16, 8) == number && get(payload + 24, 8) == ~number);
    assert(record[62] == (uint8_t)number);
}

static void take(world *w)
{
    uint8_t records[3 * PV_TRACE_RECORD], payload[100];
    size_t size, count;

    do {
        count = pv_trace_take(&w->trace, records, sizeof records, payload, sizeof payload, 400,
                              &size);
        pv_trace_rebase(records, count, 600);
        assert(count <= 3 && size <= sizeof payload);
        for (size_t i = 0; i < count; i++) {
            const uint64_t at = get(records + i * PV_TRACE_RECORD + 24, 8) - 1000;
            assert(at <= size);
            check_record(w, records + i * PV_TRACE_RECORD, payload + at);
        }
    } while (count > 0);
    assert(pv_trace_waiting(&w->trace) == 0 || w->trace.room < 2 * PV_TRACE_RECORD);
}

static void look(world *w, bool taken)
{
    w->now += 10;
    w->blurred |= w->packed && w->unseen >= (w->indirect ? 2 * SIZE : SIZE / 2);
    pv_trace_step(&w->trace, w->now);
    /* Chains of several slots are counted as at least so many. */
    w->blurred |= w->packed && (w->queue.blurred || (!w->indirect && w->queue.counts.lost));
    w->unseen = 0;
    if (taken)
        take(w);
}

static void begin(world *w)
{
    const pv_ring ring = {DESC, DRIVER, DEVICE, w->indirect ? INDIRECT : 0, SIZE, w->packed};
    pv_ring_where where;

    w->regions[0] = (pv_region){0, HALF, w->memory};
    w->regions[1] = (pv_region){FAR, HALF, w->memory + HALF};
    w->map = (pv_memory){.regions = w->regions, .count = 2};
    w->queue = (pv_traced){.flights = w->flights, .bytes = w->bytes, .held = w->held,
                           .recorded = true};
    assert(pv_queue_open(&w->map, &ring, &w->queue.queue, &where) == PV_RING_OK);
    w->trace = (pv_trace){.queues = &w->queue, .count = 1, .chain = w->chain, .again = w->again,
                          
                          .snap = SNAP, .settle = UINT64_MAX, .ring = w->ring, .room = ROOM};
    w->before = w->number;
    w->unseen = 0;
    pv_trace_begin(&w->trace, 0, ++w->now);
    w->queue.order = w->number;
    w->queue.counts.made = 0;
}

static world *new_world(bool packed, bool indirect, bool hostile)
{
    world *w = calloc(1, sizeof *w);

    assert(w);
    w->packed = packed, w->indirect = indirect, w->hostile = hostile;
    w->avail_wrap = w->used_wrap = w->reaped_wrap = true;
    w->room = SIZE;
    for (uint16_t id = 0; id < SIZE; id += packed || indirect ? 1 : 2)
        if (packed || id < SIZE - 1)
            w->free[w->free_count++] = id;
    return w;
}

static void act(world *w, uint8_t what, uint8_t more)
{
    switch (what % 8) {
    case 0:
    case 1:
        drive(w);
        break;
    case 2:
        for (int i = 0; i < 3; i++)
            drive(w);
        break;
    case 3:
        finish(w, more);
        break;
    case 4:
        reap(w);
        break;
    case 5:
        look(w, true);
        break;
    case 6:
        look(w, more & 1);
        break;
    default:
        if (w->hostile)
            w->memory[(more * 37u + what * 11u) % 0x500] = (uint8_t)(more ^ what);
        else if (w->queue.flights != NULL)
            finish(w, more), reap(w), drive(w), drive(w), drive(w);
    }
}

/* Every request was recorded, lost or dropped; nothing is told twice. */
static void settle_up(world *w)
{
    look(w, true);
    pv_trace_end(&w->trace, w->now);
    take(w);
    const pv_trace_counts *counts = &w->queue.counts;
    if (!w->hostile && !w->blurred)
        assert(w->records + counts->lost + w->trace.dropped == w->number - w->before);
    if (!w->hostile && !w->blurred && !w->packed)
        assert(counts->made == w->number - w->before && counts->broken == 0);
}

static void play(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 4000)
        return;
    world *w = new_world(data[0] & 1, data[0] & 2, data[0] & 4);

    begin(w);
    for (size_t i = 1; i + 1 < size; i += 2)
        act(w, data[i], data[i + 1]);
    settle_up(w);
    free(w);
}

#ifdef FUZZ
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    play(data, size);
    return 0;
}
#else

/* An observer who looks after each act sees everything. */
static void test_nothing_is_missed(bool packed, bool indirect)
{
    world *w = new_world(packed, indirect, false);
    unsigned seed = 7;

    begin(w);
    for (int i = 0; i < 3000; i++) {
        seed = seed * 1103515245 + 12345;
        act(w, (uint8_t)((seed >> 16) % 5), (uint8_t)(seed >> 24));
        look(w, true);
    }
    settle_up(w);
    assert(w->number > 300 && w->records == w->number && !w->blurred);
    assert(w->queue.counts.lost == 0 && w->queue.counts.uncertain == 0);
    free(w);
}

/* What is made and done between two looks is described, unless it was used again. */
static void test_done_before_it_was_seen(void)
{
    world *w = new_world(false, true, false);

    begin(w);
    for (int i = 0; i < 3; i++)
        drive(w);
    finish(w, 0);
    look(w, true);
    assert(w->records == 0);
    w->trace.settle = 10;
    look(w, true);
    assert(w->records == 1 && w->queue.counts.uncertain == 0);
    for (int i = 0; i < 4; i++) {
        reap(w);
        for (int stage = 0; stage < 3; stage++)
            drive(w);
        finish(w, 0);
    }
    look(w, true);
    assert(w->queue.counts.lost == 3);
    settle_up(w);
    assert(w->records == 2);
    free(w);
}

/* A buffer that was filled for the next request before it was copied. */
static void test_a_reused_buffer_is_uncertain(void)
{
    world *w = new_world(false, false, false);

    begin(w);
    for (int i = 0; i < 3; i++)
        drive(w);
    finish(w, 0);
    reap(w);
    drive(w); /* the header of the next one */
    look(w, true);
    drive(w);
    drive(w);
    look(w, true);
    assert(w->records == 1 && w->queue.counts.uncertain == 1);
    settle_up(w);
    assert(w->records == 2);
    free(w);
}

static void test_a_full_ring_drops(void)
{
    world *w = new_world(false, true, false);

    begin(w);
    for (int i = 0; i < 200; i++) {
        for (int stage = 0; stage < 3; stage++)
            drive(w);
        look(w, false);
        finish(w, 0);
        look(w, false);
        reap(w);
    }
    assert(w->trace.dropped > 100);
    settle_up(w);
    free(w);
}

static void test_what_was_in_flight_before(bool packed)
{
    world *w = new_world(packed, true, false);

    for (int i = 0; i < 9; i++)
        drive(w);
    finish(w, 0);
    begin(w);
    w->queue.order = 3;
    assert(w->queue.counts.depth == 2);
    finish(w, 0);
    finish(w, 0);
    look(w, false);
    assert(w->queue.counts.depth == 0 && w->queue.counts.done == 2);
    free(w);
}

static void test_pace(void)
{
    pv_pace pace = {.interval = 100, .idle = 1000, .quiet = 5000, .share = 250000};

    assert(pv_pace_next(&pace, 1, 1000, true) == 100);
    assert(pv_pace_next(&pace, 2, 1040, true) == 120); /* 40 a look, a quarter of 160 */
    assert(pv_pace_next(&pace, 6000, 0, false) == 1000);
    assert(pv_pace_next(&pace, 6001, 0, true) == 120);
}

int main(void)
{
    static uint8_t data[3000];
    unsigned seed = 1;

    for (int kind = 0; kind < 4; kind++)
        test_nothing_is_missed(kind & 1, kind & 2);
    test_done_before_it_was_seen();
    test_a_reused_buffer_is_uncertain();
    test_a_full_ring_drops();
    test_what_was_in_flight_before(false);
    test_what_was_in_flight_before(true);
    test_pace();
    for (int round = 0; round < 1500; round++) {
        const size_t size = 2 + (unsigned)round * 2 % sizeof data;
        for (size_t i = 0; i < size; i++) {
            seed = seed * 1103515245 + 12345;
            data[i] = (uint8_t)(seed >> 16);
        }
        play(data, size);
    }
    puts("trace: ok");
    return 0;
}
#endif
