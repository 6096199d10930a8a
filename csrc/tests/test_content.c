/* Reading through random maps, against one byte at a time; the file is in memory. */
#include "pv_content.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int main(void)
{
    for (size_t i = 0; i < FILE_SIZE; i++)
        file[i] = (uint8_t)rand();
    check_maps();
    check_ends();
    check_changes();
    puts("content: ok");
    return 0;
}
