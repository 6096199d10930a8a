/* Reading through any maps, against one byte at a time; the files are in memory. Built with
 * -DFUZZ it is a libFuzzer target instead. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pv_content.h"
#include "taps.h"

/* -- Anything -------------------------------------------------------------------------------- */

enum { MOST = 24, ORIGINS = 4 };

typedef struct {
    uint64_t start[MOST], length[MOST], host[MOST];
    uint32_t stored[MOST];
    uint16_t depth[MOST], file[MOST];
    uint8_t flags[MOST];
    pv_columns columns;
} any;

static const uint32_t first_of[2] = {0, 2};

/* Its `size` is the file's, and at `broken` the disk below fails. */
typedef struct {
    uint64_t size, broken;
} medium;

static uint8_t stored_at(uint64_t offset)
{
    return (uint8_t)(offset * 7 ^ offset >> 8);
}

static pv_status from_medium(void *context, void *buffer, size_t size, uint64_t offset,
                             pv_where *where)
{
    const medium *m = context;
    uint8_t *to = buffer;

    assert(size > 0 && offset <= m->size && size <= m->size - offset);
    if (m->broken - offset < size)
        return pv_fail(where, PV_IO, offset, 5, 0);
    for (size_t i = 0; i < size; i++)
        to[i] = stored_at(offset + i);
    return PV_OK;
}

/* An extent of each kind with a place that may be anywhere, also beyond the file. */
static uint64_t any_map(taps *from, const pv_origin *origins, any *map)
{
    static const uint8_t kinds[] = {
        0, PV_PRESENT | PV_ZERO, PV_PRESENT | PV_ALLOCATED | PV_OFFSET,
        PV_PRESENT | PV_ALLOCATED | PV_COMPRESSED, PV_ZERO | PV_ALLOCATED | PV_OFFSET,
        PV_PRESENT | PV_ALLOCATED | PV_OFFSET | PV_ENCRYPTED,
    };
    const size_t count = 1 + tap(from, 1) % MOST;
    uint64_t at = 0;

    memset(map, 0, sizeof *map);
    map->columns = (pv_columns){map->start, map->length, map->host, map->stored, map->depth,
                                map->file, map->flags, MOST, count};
    for (size_t i = 0; i < count; i++) {
        const uint64_t how = tap(from, 1);
        map->flags[i] = kinds[how % 6];
        map->depth[i] = how >> 6 & 1;
        map->file[i] = how >> 7;
        map->start[i] = at;
        map->length[i] = 1 + tap(from, 2) % 400;
        map->host[i] = how & 32 ? tap(from, 8) : tap(from, 2);
        map->stored[i] = 1 + (uint32_t)tap(from, 2);
        const uint64_t block = origins[first_of[map->depth[i]] + map->file[i]].block;
        if (map->flags[i] & PV_COMPRESSED && map->length[i] > block)
            map->length[i] = block;
        at += map->length[i];
    }
    return at;
}

static void any_origin(taps *from, pv_origin *origin, medium *below)
{
    const uint64_t how = tap(from, 1);

    *below = (medium){how & 1 ? tap(from, 8) : tap(from, 2), UINT64_MAX};
    if (how & 2)
        below->broken = tap(from, 2);
    *origin = (pv_origin){
        .reader = {from_medium, below, below->size}, .limit = below->size + tap(from, 1),
        .block = (uint64_t)1 << how / 32, .codec = how >> 2 & 1,
        .cipher = how & 8 ? origin : NULL, .sector = 16u << tap(from, 1) % 9,
        .by_guest = how >> 4 & 1, .payload = tap(from, 2),
    };
    if (origin->limit < below->size)
        origin->limit = UINT64_MAX;
}

static pv_status unpack_any(void *context, int codec, const uint8_t *from, size_t stored,
                            uint8_t *to, size_t size)
{
    (void)context, (void)codec;
    assert(stored > 0);
    if (from[0] % 8 == 0)
        return PV_CORRUPT;
    memset(to, from[0], size);
    return PV_OK;
}

static pv_status decrypt_any(void *context, void *cipher, uint8_t *data, size_t size,
                             uint64_t place)
{
    const pv_origin *origin = cipher;

    (void)context;
    assert(size > 0 && size % origin->sector == 0 && place % origin->sector == 0);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(data[i] + (place + i) / origin->sector);
    return PV_OK;
}

/* One byte of an extent that is not packed, or -1 where there is none. */
static int byte_of(const pv_origin *origins, const any *map, size_t i, uint64_t guest)
{
    const pv_origin *origin = origins + first_of[map->depth[i]] + map->file[i];
    const uint64_t host = map->host[i] + (guest - map->start[i]);
    const uint64_t place = origin->by_guest ? guest : host - origin->payload;

    if (map->flags[i] & PV_ZERO || !(map->flags[i] & PV_ALLOCATED))
        return 0;
    if (host >= origin->reader.size && host >= origin->limit)
        return -1;
    const uint8_t byte = host < origin->reader.size ? stored_at(host) : 0;
    return map->flags[i] & PV_ENCRYPTED ? (uint8_t)(byte + place / origin->sector) : byte;
}

static void check_bytes(const pv_origin *origins, const any *map, uint64_t offset,
                        const uint8_t *to, size_t size)
{
    size_t i = 0;

    for (size_t at = 0; at < size; at++) {
        while (map->start[i] + map->length[i] <= offset + at)
            i++;
        if (!(map->flags[i] & PV_COMPRESSED))
            assert(byte_of(origins, map, i, offset + at) == to[at]);
        else if (at > 0 && map->start[i] < offset + at)
            assert(to[at] == to[at - 1]); /* packed blocks are one byte, again and again */
    }
}

static void read_any(taps *from)
{
    static medium media[ORIGINS];
    static pv_origin origins[ORIGINS];
    static any map;
    uint8_t packed[600];
    const pv_work work = {unpack_any, decrypt_any, NULL, packed, sizeof packed};
    pv_where where;
    size_t done, extent;

    for (int i = 0; i < ORIGINS; i++)
        any_origin(from, origins + i, media + i);
    const uint64_t size = any_map(from, origins, &map);
    const unsigned shift = 4 + (unsigned)tap(from, 1) % 12;
    uint32_t *buckets = malloc((((size - 1) >> shift) + 2) * sizeof *buckets);
    pv_content_index(&map.columns, shift, size, buckets);
    const pv_content content = {&map.columns, buckets, shift, size, origins, first_of};
    for (int i = 0; i < 4; i++) {
        const uint64_t offset = tap(from, 2) % size;
        const size_t wanted = tap(from, 2) % (size - offset + 1);
        uint8_t *to = malloc(wanted ? wanted : 1); /* exact, for AddressSanitizer */
        const pv_status status = pv_content_read(&content, i & 1 ? &work : NULL, offset, wanted,
                                                 to, &done, &extent, &where);
        assert(status == PV_OK ? done == wanted : done < wanted);
        if (status != PV_OK) {
            assert(map.start[extent] <= offset + done);
            assert(offset + done < map.start[extent] + map.length[extent]);
            assert(status != (pv_status)PV_BLOCK || map.flags[extent] & PV_COMPRESSED);
        }
        check_bytes(origins, &map, offset, to, done);
        free(to);
    }
    free(buckets);
}

/* What two maps say of one byte: where it lies, or 0 where it is zero. */
static uint8_t tells(const any *map, uint64_t guest, size_t *at)
{
    for (*at = 0; *at < map->columns.count; ++*at)
        if (guest < map->start[*at] + map->length[*at])
            break;
    if (*at == map->columns.count)
        return 0;
    return map->flags[*at] & PV_ALLOCATED && !(map->flags[*at] & PV_ZERO);
}

static void suspect_any(taps *from)
{
    static any a, b, found;
    static pv_origin origins[ORIGINS];
    const uint32_t same_a[ORIGINS] = {1, 2, 3, 4};
    uint32_t same_b[ORIGINS];
    const uint64_t room = 1 + tap(from, 1) % MOST;

    for (int i = 0; i < ORIGINS; i++)
        origins[i].block = 64, same_b[i] = 1 + tap(from, 1) % 8;
    const uint64_t one = any_map(from, origins, &a), other = any_map(from, origins, &b);
    const uint64_t end = one > other ? one : other;
    memset(&found, 0, sizeof found);
    found.columns = (pv_columns){found.start, found.length, found.host, found.stored, found.depth,
                                 found.file, found.flags, room, 0};
    const pv_side left = {&a.columns, first_of, same_a}, right = {&b.columns, first_of, same_b};
    if (pv_content_suspects(&left, &right, end, &found.columns) != PV_OK) {
        assert(found.columns.count == room);
        return;
    }
    for (uint64_t at = 0, n = 0; at < end; at++) {
        size_t i, j;
        const uint8_t both = tells(&a, at, &i) | (uint8_t)(tells(&b, at, &j) << 1);
        while (n < found.columns.count && found.start[n] + found.length[n] <= at)
            n++;
        const int listed = n < found.columns.count && found.start[n] <= at;
        if (listed)
            assert(found.flags[n] == both);
        else if (both)
            assert(both == 3 && same_a[first_of[a.depth[i]] + a.file[i]] ==
                                    same_b[first_of[b.depth[j]] + b.file[j]]);
    }
}

static void compare_any(const uint8_t *data, size_t size)
{
    static any found;
    const size_t half = size / 2;
    const uint8_t *a = data, *b = data + half;
    size_t differs = 0;
    int zero;

    while (differs < half && a[differs] == b[differs])
        differs++;
    assert(pv_content_differs(a, b, half) == differs);
    const size_t run = pv_content_run(a, half, &zero);
    assert(run <= half && (half == 0 || run > 0));
    for (size_t i = 0; zero && i < run; i++)
        assert(a[i] == 0);
    memset(&found, 0, sizeof found);
    found.columns = (pv_columns){found.start, found.length, found.host, found.stored, found.depth,
                                 found.file, found.flags, MOST, 0};
    if (pv_content_changes(a, b, half, 512, &found.columns) != PV_OK)
        return;
    assert((found.columns.count == 0) == (differs == half));
    if (found.columns.count > 0)
        assert(found.start[0] == 512 + differs / 512 * 512);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    taps from = {data + 1, size - 1};

    if (size == 0)
        return 0;
    if (data[0] % 4 == 0)
        compare_any(data + 1, size - 1);
    else if (data[0] % 4 == 1)
        suspect_any(&from);
    else
        read_any(&from);
    return 0;
}

#ifndef FUZZ
enum { FILE_SIZE = 40000, DISK = 30000, EXTENTS = 200, BLOCK = 512 };

static uint8_t file[FILE_SIZE];

static pv_status from_memory(void *context, void *buffer, size_t size, uint64_t offset,
                             pv_where *where)
{
    (void)context;
    if (offset > FILE_SIZE || size > FILE_SIZE - offset)
        return pv_fail(where, PV_TRUNCATED, offset, size, 0);
    memcpy(buffer, file + offset, size);
    return PV_OK;
}

/* "Unpacking" repeats the first byte; "decrypting" adds the number of the sector. */
static pv_status unpack(void *context, int codec, const uint8_t *from, size_t stored, uint8_t *to,
                        size_t size)
{
    (void)context;
    assert(codec == 1 && stored > 0);
    memset(to, from[0], size);
    return PV_OK;
}

static pv_status decrypt(void *context, void *cipher, uint8_t *data, size_t size, uint64_t place)
{
    (void)context;
    assert(cipher != NULL && size % BLOCK == 0 && place % BLOCK == 0);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(data[i] + (place + i) / BLOCK);
    return PV_OK;
}

static uint64_t start[EXTENTS], length[EXTENTS], host[EXTENTS];
static uint32_t stored[EXTENTS];
static uint16_t depth[EXTENTS], number[EXTENTS];
static uint8_t flags[EXTENTS];

static void random_map(pv_columns *map, uint64_t size)
{
    uint64_t at = 0;

    for (map->count = 0; at < size; map->count++) {
        const size_t i = map->count;
        const unsigned kind = (unsigned)rand() % 4;
        const uint64_t blocks = kind == 2 ? 1 : 1 + (uint64_t)rand() % 6;
        start[i] = at;
        length[i] = blocks * BLOCK < size - at ? blocks * BLOCK : size - at;
        host[i] = (uint64_t)rand() % 70 * BLOCK;
        stored[i] = kind == 2 ? 100 : 0;
        flags[i] = kind == 0   ? PV_ZERO | PV_PRESENT
                   : kind == 1 ? PV_ALLOCATED | PV_PRESENT | PV_OFFSET
                   : kind == 2 ? PV_ALLOCATED | PV_PRESENT | PV_COMPRESSED
                               : PV_ALLOCATED | PV_PRESENT | PV_OFFSET | PV_ENCRYPTED;
        at += length[i];
    }
}

static uint8_t byte_at(const pv_columns *map, uint64_t guest)
{
    size_t i = 0;

    while (start[i] + length[i] <= guest)
        i++;
    (void)map;
    if (flags[i] & PV_ZERO)
        return 0;
    if (flags[i] & PV_COMPRESSED)
        return file[host[i]];
    const uint64_t place = host[i] + guest - start[i];
    return (uint8_t)(file[place] + (flags[i] & PV_ENCRYPTED ? place / BLOCK : 0));
}

static void check_read(const pv_content *content, const pv_work *work, uint64_t offset,
                       size_t size)
{
    static uint8_t to[DISK];
    size_t done = 0;

    while (done < size) {
        size_t more = 0, extent = 0;
        pv_where where = {0, 0, 0};
        const pv_status status = pv_content_read(content, work, offset + done, size - done,
                                                 to + done, &more, &extent, &where);
        done += more;
        if (status == PV_OK)
            break;
        assert(status == (pv_status)PV_BLOCK && flags[extent] & PV_COMPRESSED);
        to[done++] = file[host[extent]];
    }
    for (size_t i = 0; i < size; i++)
        assert(to[i] == byte_at(content->map, offset + i));
}

static void check_maps(void)
{
    uint8_t packed[2 * BLOCK];
    const pv_work work = {unpack, decrypt, NULL, packed, sizeof packed};
    const pv_origin origin = {.reader = {from_memory, NULL, FILE_SIZE}, .limit = FILE_SIZE,
                              .block = BLOCK, .codec = 1, .cipher = file, .sector = BLOCK};
    const uint32_t first = 0;
    uint32_t buckets[DISK / 64 + 2];

    for (int round = 0; round < 300; round++) {
        const uint64_t size = 1 + (uint64_t)rand() % DISK;
        const unsigned shift = 6 + (unsigned)rand() % 10;
        pv_columns map = {start, length, host, stored, depth, number, flags, EXTENTS, 0};
        random_map(&map, size);
        pv_content_index(&map, shift, size, buckets);
        const pv_content content = {&map, buckets, shift, size, &origin, &first};
        for (int i = 0; i < 20; i++) {
            const uint64_t offset = (uint64_t)rand() % size;
            check_read(&content, &work, offset, (size_t)rand() % (size - offset + 1));
        }
    }
}

static void check_ends(void)
{
    pv_origin origin = {.reader = {from_memory, NULL, 1000}, .limit = 1024};
    pv_where where;
    uint8_t to[100];

    memset(to, 1, sizeof to);
    assert(pv_origin_read(&origin, to, 50, 974, &where) == PV_OK);
    assert(to[0] == file[974] && to[26] == 0 && to[49] == 0);
    assert(pv_origin_read(&origin, to, 50, 975, &where) == PV_TRUNCATED);
    assert(pv_origin_read(&origin, to, 1, UINT64_MAX, &where) == PV_TRUNCATED);
}

static void check_changes(void)
{
    uint64_t at[4], size[4], place[4] = {0};
    uint16_t none[4] = {0};
    uint8_t kind[4];
    uint32_t zero[4] = {0};
    pv_columns to = {at, size, place, zero, none, none, kind, 4, 0};
    static uint8_t a[2000], b[2000];

    b[0] = b[600] = b[1999] = 1;
    assert(pv_content_differs(a, b, sizeof a) == 0);
    assert(pv_content_changes(a, b, sizeof a, 4096, &to) == PV_OK);
    assert(to.count == 2 && at[0] == 4096 && size[0] == 1024);
    assert(at[1] == 4096 + 1536 && size[1] == 2000 - 1536);
}

static void check_anything(void)
{
    uint8_t input[400];

    for (int round = 0; round < 20000; round++) {
        for (size_t i = 0; i < sizeof input; i++)
            input[i] = (uint8_t)rand();
        LLVMFuzzerTestOneInput(input, (size_t)rand() % sizeof input);
    }
}

int main(void)
{
    for (size_t i = 0; i < FILE_SIZE; i++)
        file[i] = (uint8_t)rand();
    check_maps();
    check_ends();
    check_changes();
    check_anything();
    puts("content: ok");
    return 0;
}
#endif
