/* Tables of qcow2 as a stranger may have written them: whole, cut at every length, damaged;
 * extents, chains, checks, holes, bitmaps, JSON. Built with -DFUZZ it is a libFuzzer target instead. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pv_qcow2.h"
#include "pv_qcow2_check.h"

enum { BITS = 9, CLUSTER = 1 << BITS, CLUSTERS = 8, FILE_SIZE = CLUSTERS * CLUSTER };

typedef struct {
    const uint8_t *data;
    size_t size;
} file;

static pv_status read_file(void *context, void *buffer, size_t size, uint64_t offset,
                           pv_where *where)
{
    const file *f = context;

    if (offset > f->size || size > f->size - offset)
        return pv_fail(where, PV_TRUNCATED, offset, size, where->table);
    memcpy(buffer, f->data + offset, size);
    return PV_OK;
}

static pv_columns lend(size_t room)
{
    pv_columns c = {
        calloc(room, 8), calloc(room, 8), calloc(room, 8), calloc(room, 4),
        calloc(room, 2), calloc(room, 2), calloc(room, 1), room, 0,
    };
    assert(c.start && c.length && c.host && c.stored && c.depth && c.file && c.flags);
    return c;
}

static void give_back(pv_columns *c)
{
    free(c->start), free(c->length), free(c->host), free(c->stored);
    free(c->depth), free(c->file), free(c->flags);
}

/* Extents cover a range without gaps or overlaps. */
static void check_columns(const pv_columns *c, uint64_t end)
{
    uint64_t at = 0;

    for (size_t i = 0; i < c->count; i++) {
        assert(c->start[i] == at && c->length[i] > 0);
        at += c->length[i];
    }
    assert(at == end);
}

/* Every walk over the columns, from extents that are sane in themselves. */
static void walk(const pv_columns *c, const uint8_t *data, size_t size)
{
    uint64_t pairs[4] = {0, size > 0 ? data[0] * 64u : 64, 0, 0};
    pv_columns_totals totals;
    pv_json_state state = {0};
    uint8_t text[600];
    size_t at = 0, rounds = 0;

    pairs[2] = pairs[1] + 100;
    pairs[3] = pairs[2] + (size > 1 ? data[1] * 64u : 640);
    const pv_holes holes[2] = {{pairs, 2}, {pairs, 1}};
    pv_columns marked = lend(4 * c->count + 64), merged = lend(2 * c->count + 64);
    pv_columns other = lend(2 * c->count + 64);
    assert(pv_columns_merge(c, c, c->count ? c->length[0] : 0, &merged) == PV_OK);
    const size_t more = pv_columns_mark(&merged, holes, 2, 0);
    pv_columns whole = lend(merged.count + more + 1);
    assert(pv_columns_split(&merged, holes, 2, 0, &whole) == PV_OK);
    (void)pv_columns_diff(c, &merged, &other);
    pv_columns_sum(&whole, 4096, &totals);
    assert(totals.pieces <= whole.count);
    pv_columns_ground(&merged);
    while (at < whole.count || state.open) {
        const size_t put = pv_columns_json(&whole, &at, &state, 1, text, sizeof text);
        assert(put <= sizeof text && (put > 0 || at == whole.count));
        assert(++rounds <= whole.count + 2);
    }
    give_back(&marked), give_back(&merged), give_back(&other), give_back(&whole);
}

static void map(const pv_qcow2 *image, const pv_reader *reader, const uint8_t *l1,
                size_t entries, const uint8_t *data, size_t size)
{
    const uint64_t cluster = (uint64_t)1 << image->cluster_bits;
    const size_t clusters = (size_t)((image->size + cluster - 1) / cluster);
    uint8_t *lent = malloc(3 * cluster);
    pv_where where = {0};

    for (size_t room = 1; room <= 64 * clusters + 64; room = room * 3 + 1) {
        pv_columns c = lend(room);
        const pv_status status = pv_qcow2_extents(image, reader, l1, entries, 0, 0, image->size,
                                                  lent, &c, &where);
        assert(c.count <= room);
        if (status == PV_OK) {
            check_columns(&c, image->size);
            walk(&c, data, size);
        }
        give_back(&c);
    }
    if (!image->extended && !image->external) {
        const pv_qcow2_layer layers[3] = {
            {reader, l1, entries, 0}, {reader, l1, entries / 2, 0}, {reader, l1, entries, 0}};
        pv_columns c = lend(clusters + cluster / 8);
        size_t layer;
        const pv_status status = pv_qcow2_flatten(image, layers, 3, 0, image->size, lent, &c,
                                                  &layer, &where);
        if (status == PV_OK)
            check_columns(&c, image->size);
        give_back(&c);
    }
    free(lent);
}

static void check(const pv_qcow2 *image, const pv_reader *reader, const uint8_t *l1,
                  size_t entries, const uint8_t *table, size_t table_entries)
{
    const uint64_t cluster = (uint64_t)1 << image->cluster_bits;
    const uint64_t clusters = (reader->size + cluster - 1) / cluster;
    pv_qcow2_finding findings[16];
    pv_qcow2_check c = {
        .image = *image, .reader = reader, .room = clusters + 1, .clusters = clusters,
        .cells = calloc(clusters + 1, sizeof(pv_qcow2_cell)),
        .shared = calloc(clusters + 1, sizeof(uint32_t)), .table = malloc(cluster),
        .refcount_table = table, .refcount_entries = table_entries, .findings = findings,
        .findings_room = 16,
    };
    uint64_t used;

    assert(c.cells && c.shared && c.table);
    if (pv_qcow2_used(&c, clusters, &used) == PV_OK)
        assert(used <= clusters + cluster * 8);
    if (pv_qcow2_check_stored(&c) == PV_OK) {
        pv_qcow2_check_mark(&c, 0, cluster, PV_QCOW2_HEADER);
        pv_qcow2_check_mark(&c, UINT64_MAX - 5, 100, PV_QCOW2_SNAPSHOTS);
        pv_qcow2_check_bitmap(&c, l1, entries, 0);
        pv_qcow2_check_l1(&c, l1, entries, 0);
        if (pv_qcow2_check_l2(&c, l1, entries, 0, true) == PV_OK)
            pv_qcow2_check_blocks(&c);
        pv_qcow2_check_compare(&c);
    }
    assert(c.clusters <= c.room && c.findings_count <= c.findings_room);
    free(c.cells), free(c.shared), free(c.table);
}

/* Bits by a table, and the runs of them: ascending, apart, within the disk. */
static void bitmap(const pv_qcow2 *image, const pv_reader *reader, const uint8_t *table,
                   size_t entries, const uint8_t *data)
{
    const size_t size = 1 + data[2] + 256u * (data[3] & 7);
    const uint64_t end = image->size << 9;
    uint8_t *bits = malloc(size);
    pv_columns c = lend(4 * size + 1);
    pv_where where = {0};

    assert(bits);
    if (pv_qcow2_bitmap(image, reader, table, entries, 0, bits, size, &where) == PV_OK) {
        assert(pv_qcow2_dirty(bits, size, 9 + data[1] % 23, end, &c) == PV_OK);
        for (size_t i = 0; i < c.count; i++) {
            assert(c.length[i] > 0 && c.length[i] <= end - c.start[i] && c.start[i] < end);
            assert(i == 0 || c.start[i] > c.start[i - 1] + c.length[i - 1]);
        }
        c.count = 0, c.room = 1;
        pv_qcow2_dirty(bits, size, 9, end, &c);
        assert(c.count <= 1);
    }
    give_back(&c);
    free(bits);
}

/* The first bytes say which features; the rest is the file, with L1 and refcount table in it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    const uint8_t how = data[0];
    const bool extended = how & 1;
    const pv_qcow2 image = {
        .size = 1 + (uint64_t)(data[2] | data[3] << 8) * (extended ? 64 : 7),
        .cluster_bits = extended ? 14 : (uint8_t)(9 + (data[1] & 1)),
        .refcount_bits = (uint8_t)(1u << ((data[1] >> 1) % 7)),
        .zero_flag = !extended && how & 2, .extended = extended, .external = how & 4,
        .encrypted = how & 8,
    };
    uint8_t *copy = malloc(size - 4 ? size - 4 : 1);
    assert(copy != NULL);
    memcpy(copy, data + 4, size - 4);
    file f = {copy, size - 4};
    const pv_reader reader = {read_file, &f, f.size};
    const size_t entries = f.size / 8 < 16 ? f.size / 8 : 16;
    map(&image, &reader, copy, entries, data, size);
    check(&image, &reader, copy, entries, copy + (f.size >= 256 ? 128 : 0),
          f.size >= 256 ? 16 : 0);
    bitmap(&image, &reader, copy, entries, data);
    free(copy);
    return 0;
}

#ifndef FUZZ
static void put(uint8_t *p, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(value >> (56 - 8 * i));
}

/* The same input that the fuzzer gets: L1 at 0, refcount table at 128, block and L2 behind. */
static size_t build(uint8_t *out)
{
    uint8_t *f = out + 4;

    memset(out, 0, 4 + FILE_SIZE);
    out[0] = 2, out[1] = 4 << 1, out[2] = 0xff, out[3] = 0x10;
    put(f, 2 * CLUSTER | PV_QCOW2_COPIED);
    put(f + 8, 3 * CLUSTER | PV_QCOW2_COPIED);
    put(f + 128, 1 * CLUSTER);
    for (int i = 0; i < 6; i++)
        f[CLUSTER + 2 * i + 1] = 1;
    put(f + 2 * CLUSTER, 4 * CLUSTER | PV_QCOW2_COPIED);
    put(f + 2 * CLUSTER + 8, 5 * CLUSTER | PV_QCOW2_COPIED);
    put(f + 2 * CLUSTER + 24, 1);
    put(f + 2 * CLUSTER + 32, 6 * CLUSTER | 1);
    put(f + 3 * CLUSTER + 40, PV_QCOW2_PACKED | 6 * CLUSTER);
    return 4 + FILE_SIZE;
}

static void test_extents_of_a_small_image(void)
{
    uint8_t input[4 + FILE_SIZE], table[CLUSTER];
    const size_t size = build(input);
    file f = {input + 4, size - 4};
    const pv_reader reader = {read_file, &f, f.size};
    const pv_qcow2 image = {.size = 64 * CLUSTER, .cluster_bits = BITS, .refcount_bits = 16,
                            .zero_flag = true};
    pv_columns c = lend(64);
    pv_where where;

    assert(pv_qcow2_extents(&image, &reader, input + 4, 1, 0, 0, image.size, table, &c,
                            &where) == PV_OK);
    check_columns(&c, image.size);
    assert(c.count == 5);
    assert(c.length[0] == 2 * CLUSTER && c.host[0] == 4 * CLUSTER);
    assert(c.flags[0] == (PV_PRESENT | PV_ALLOCATED | PV_OFFSET) && c.flags[1] == 0);
    assert(c.flags[2] == (PV_PRESENT | PV_ZERO));
    assert(c.flags[3] == (PV_PRESENT | PV_ZERO | PV_OFFSET) && c.host[3] == 6 * CLUSTER);
    give_back(&c);
}

static void test_cut_at_every_length(void)
{
    uint8_t input[4 + FILE_SIZE];
    const size_t size = build(input);

    for (size_t cut = 0; cut <= size; cut += cut < 1200 ? 1 : 61)
        LLVMFuzzerTestOneInput(input, cut);
}

static void test_damage(void)
{
    uint8_t input[4 + FILE_SIZE];

    srand(1);
    for (int round = 0; round < 3000; round++) {
        const size_t size = build(input);
        for (int hit = 0; hit < 6; hit++)
            input[(size_t)rand() % (hit < 3 ? size : 200)] = (uint8_t)rand();
        LLVMFuzzerTestOneInput(input, size);
    }
}

int main(void)
{
    test_extents_of_a_small_image();
    test_cut_at_every_length();
    test_damage();
    puts("qcow2: ok");
    return 0;
}
#endif
