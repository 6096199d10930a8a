/* Tables of blocks against an obvious decoder: any rule, any table, any room, in any pieces; and
 * bitmaps, and the checksum. Built with -DFUZZ it is a libFuzzer target instead. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pv_blocks.h"
#include "pv_crc32c.h"
#include "taps.h"

enum { ROOM = 600 };

typedef struct {
    uint64_t start[ROOM], length[ROOM], host[ROOM];
    uint32_t stored[ROOM];
    uint16_t depth[ROOM], file[ROOM];
    uint8_t flags[ROOM];
    pv_columns columns;
} memory;

static pv_columns *columns_of(memory *m, size_t room)
{
    memset(m, 0, sizeof *m);
    m->columns = (pv_columns){m->start, m->length, m->host, m->stored, m->depth,
                              m->file,  m->flags,  room,    0};
    return &m->columns;
}

static pv_blocks any_rule(taps *from)
{
    static const uint8_t flags[] = {0, PV_PRESENT | PV_ZERO, PV_PRESENT | PV_ALLOCATED | PV_OFFSET,
                                    PV_PRESENT | PV_ALLOCATED | PV_COMPRESSED, PV_INVALID,
                                    PV_PRESENT | PV_ALLOCATED | PV_OFFSET | PV_DIVIDED};
    pv_blocks rule = {0};
    const uint64_t bits = tap(from, 1);

    rule.block = 1 + tap(from, 1 + (int)(bits & 7));
    rule.base = tap(from, 3);
    rule.unit = 1 + tap(from, 2);
    rule.limit = tap(from, 4);
    rule.mask = bits & 8 ? ~UINT64_C(0) : tap(from, 8);
    rule.high_mask = bits & 16 ? tap(from, 8) : 0;
    rule.reserved = bits & 32 ? tap(from, 8) : 0;
    rule.stored = (uint32_t)tap(from, 4);
    rule.period = bits & 64 ? tap(from, 1) : 0;
    rule.specials = (uint8_t)(tap(from, 1) % 3);
    rule.special[0].entry = 0;
    rule.special[0].flags = flags[tap(from, 1) % 6];
    rule.special[1].entry = tap(from, 2);
    rule.special[1].flags = flags[tap(from, 1) % 6];
    rule.width = bits & 128 ? 8 : 4;
    const uint64_t more = tap(from, 1);
    rule.big = more & 1;
    rule.chained = more & 2;
    rule.shift = (uint8_t)(tap(from, 1) % 64);
    rule.high_shift = (uint8_t)(tap(from, 1) % 64);
    rule.packed = (uint8_t)(tap(from, 1) % 64);
    rule.packed_bits = (uint8_t)(tap(from, 1) % 32);
    rule.state_shift = (uint8_t)(tap(from, 1) % 64);
    rule.state_mask = (uint8_t)((1 << more / 4 % 5) - 1);
    for (int i = 0; i < PV_BLOCK_STATES; i++)
        rule.flags[i] = flags[tap(from, 1) % 6];
    rule.file = (uint16_t)(more >> 7);
    return rule;
}

static uint64_t entry_of(const pv_blocks *rule, const uint8_t *table, uint64_t index)
{
    uint64_t value = 0;

    for (int i = 0; i < rule->width; i++)
        value |= (uint64_t)table[index * rule->width + (rule->big ? rule->width - 1 - i : i)]
                 << 8 * i;
    return value;
}

/* Whether extents agree with each entry of the table, looked at on its own. */
static void agree(const pv_blocks *rule, const uint8_t *table, uint64_t entries, uint64_t guest,
                  uint64_t end, const pv_columns *found)
{
    size_t at = 0;

    for (uint64_t index = 0; index < entries && guest < end; index++) {
        if (rule->period && index % (rule->period + 1) == rule->period)
            continue;
        const uint64_t entry = entry_of(rule, table, index);
        const uint64_t length = end - guest < rule->block ? end - guest : rule->block;
        uint8_t flags = rule->flags[entry >> rule->state_shift & rule->state_mask];
        for (int i = rule->specials - 1; i >= 0; i--)
            if (entry == rule->special[i].entry)
                flags = rule->special[i].flags;
        while (at < found->count && found->start[at] + found->length[at] <= guest)
            at++;
        assert(at < found->count && found->start[at] <= guest);
        assert(found->start[at] + found->length[at] >= guest + length);
        assert(found->flags[at] == flags && found->file[at] == rule->file);
        if (flags & PV_OFFSET && !(flags & PV_COMPRESSED)) {
            const uint64_t host = found->host[at] + (guest - found->start[at]);
            const uint64_t value = (entry >> rule->shift & rule->mask) |
                                   (entry & rule->high_mask) << rule->high_shift;
            assert(host == rule->base + value * rule->unit);
            assert(host + length <= rule->limit && host >= rule->base);
            assert(!(entry & rule->reserved));
        }
        if (flags & PV_COMPRESSED) {
            assert(found->start[at] == guest && found->length[at] == length);
            assert(found->host[at] < rule->limit);
            assert(found->host[at] + found->stored[at] <= rule->limit);
        }
        guest += length;
    }
}

static void decode_any(const uint8_t *data, size_t size)
{
    static memory whole_memory, piece_memory;
    taps from = {data, size};
    const pv_blocks rule = any_rule(&from);
    const uint64_t guest = tap(&from, 2), end = guest + tap(&from, 4);
    const size_t room = 1 + tap(&from, 1) % 64, piece = 1 + tap(&from, 1) % 16;
    const size_t entries = from.size / rule.width - (rule.chained && from.size >= rule.width);
    uint8_t *table = malloc(from.size ? from.size : 1); /* exact, for AddressSanitizer */
    pv_columns *whole = columns_of(&whole_memory, ROOM), *pieces = columns_of(&piece_memory, room);
    pv_blocks_at at = {0, guest, end}, again = at;
    pv_where where = {0};

    memcpy(table, from.data, from.size);
    const pv_status status = pv_blocks_decode(&rule, table, 0, entries, &at, whole, &where);
    assert(at.index <= entries && at.guest <= end);
    agree(&rule, table, at.index, guest, at.guest, whole);
    if (status != PV_OK)
        assert(where.offset == at.index && where.value == entry_of(&rule, table, at.index));

    /* The same in pieces, with more room whenever there is too little. */
    pv_status last = PV_OK;
    while (last == PV_OK && again.index < entries && again.guest < end) {
        const uint64_t first = again.index;
        const size_t count = entries - first < piece ? entries - first : piece;
        last = pv_blocks_decode(&rule, table + first * rule.width, first, count, &again, pieces,
                                &where);
        if (last == PV_FULL && pieces->room < ROOM) {
            pieces->room++;
            last = PV_OK;
        }
    }
    if (status != PV_FULL) {
        assert(last == status && pieces->count == whole->count);
        assert(!memcmp(pieces->start, whole->start, whole->count * 8));
        assert(!memcmp(pieces->length, whole->length, whole->count * 8));
        assert(!memcmp(pieces->host, whole->host, whole->count * 8));
        assert(!memcmp(pieces->stored, whole->stored, whole->count * 4));
        assert(!memcmp(pieces->flags, whole->flags, whole->count));
    }
    free(table);
}

static void divide_any(const uint8_t *data, size_t size)
{
    static memory m;
    taps from = {data, size};
    const pv_blocks_bitmap rule = {1 + tap(&from, 1), tap(&from, 4), tap(&from, 1) & 1,
                                   PV_PRESENT | PV_ALLOCATED | PV_OFFSET, 0, 3};
    pv_columns *found = columns_of(&m, ROOM);
    const uint64_t guest = tap(&from, 2), sectors = tap(&from, 1) * 2;
    pv_blocks_at at = {0, guest, guest + sectors * rule.sector};
    uint8_t *bitmap = malloc(from.size ? from.size : 1);

    memcpy(bitmap, from.data, from.size);
    assert(pv_blocks_divide(&rule, bitmap, from.size, &at, found) == PV_OK);
    assert(at.index == sectors && at.guest == at.end);
    for (uint64_t i = 0; i < sectors; i++) {
        const int there = i / 8 < from.size &&
                          bitmap[i / 8] >> (rule.big ? 7 - i % 8 : i % 8) & 1;
        const uint64_t byte = guest + i * rule.sector;
        size_t n = 0;
        while (found->start[n] + found->length[n] <= byte)
            n++;
        assert(n < found->count && found->flags[n] == (there ? rule.set : 0));
        assert(!there || found->host[n] + byte - found->start[n] == rule.host + i * rule.sector);
    }
    free(bitmap);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size && size < 2048) {
        if (data[0] & 1)
            decode_any(data + 1, size - 1);
        else
            divide_any(data + 1, size - 1);
    }
    return 0;
}

#ifndef FUZZ
static void test_neighbours_are_joined(void)
{
    static memory m;
    static const uint8_t table[] = {5, 0, 0, 0, 6, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 8, 0, 0, 0};
    const pv_blocks rule = {.block = 4096, .base = 512, .unit = 4096, .limit = 40000,
                            .mask = ~UINT64_C(0), .width = 4, .specials = 1,
                            .special = {{0xffffffff, 0}},
                            .flags = {PV_PRESENT | PV_ALLOCATED | PV_OFFSET}};
    pv_columns *to = columns_of(&m, 4);
    pv_blocks_at at = {0, 0, 3 * 4096 + 100};
    pv_where where;

    assert(pv_blocks_decode(&rule, table, 0, 4, &at, to, &where) == PV_OK);
    assert(to->count == 3 && to->length[0] == 8192 && to->host[0] == 512 + 5 * 4096);
    assert(to->flags[1] == 0 && to->length[2] == 100 && to->host[2] == 512 + 8 * 4096);
}

static void test_a_block_cut_by_the_end_of_the_file_is_truncated(void)
{
    static memory m;
    static const uint8_t table[] = {0, 0, 0, 1};
    pv_blocks rule = {.block = 512, .unit = 512, .limit = 1024, .mask = ~UINT64_C(0), .width = 4,
                      .big = true, .flags = {PV_PRESENT | PV_ALLOCATED | PV_OFFSET}};
    pv_blocks_at at = {0, 0, 512};
    pv_where where;

    assert(pv_blocks_decode(&rule, table, 0, 1, &at, columns_of(&m, 4), &where) == PV_OK);
    rule.limit = 1023;
    at = (pv_blocks_at){0, 0, 512};
    assert(pv_blocks_decode(&rule, table, 0, 1, &at, columns_of(&m, 4), &where) == PV_TRUNCATED);
    assert(where.offset == 0 && where.value == 1);
}

static void test_anything(void)
{
    uint8_t data[400];

    srand(1);
    for (int round = 0; round < 200000; round++) {
        const size_t size = 1 + (size_t)rand() % sizeof data;
        for (size_t i = 0; i < size; i++)
            data[i] = rand() % 3 ? 0 : (uint8_t)rand();
        LLVMFuzzerTestOneInput(data, size);
    }
}

static void test_checksum(void)
{
    pv_crc32c_tables tables;
    uint8_t data[100];

    pv_crc32c_prepare(&tables);
    assert(pv_crc32c(&tables, 0, (const uint8_t *)"123456789", 9) == 0xe3069283);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 37);
    const uint32_t whole = pv_crc32c(&tables, 0, data, sizeof data);
    for (size_t cut = 0; cut <= sizeof data; cut++) {
        const uint32_t first = pv_crc32c(&tables, 0, data, cut);
        assert(pv_crc32c(&tables, first, data + cut, sizeof data - cut) == whole);
    }
}

int main(void)
{
    test_neighbours_are_joined();
    test_a_block_cut_by_the_end_of_the_file_is_truncated();
    test_anything();
    test_checksum();
    puts("blocks: ok");
    return 0;
}
#endif
