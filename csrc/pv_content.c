/* Guest bytes through a flat map of the chain. */
#include "pv_content.h"

#include <string.h>

void pv_content_index(const pv_columns *map, unsigned shift, uint64_t size, uint32_t *buckets)
{
    const uint64_t count = size == 0 ? 0 : ((size - 1) >> shift) + 1;
    size_t extent = 0;

    for (uint64_t i = 0; i < count; i++) {
        while (extent + 1 < map->count && map->start[extent + 1] <= i << shift)
            extent++;
        buckets[i] = (uint32_t)extent;
    }
    buckets[count] = map->count > 0 ? (uint32_t)(map->count - 1) : 0;
}

size_t pv_content_find(const pv_content *content, uint64_t guest)
{
    const uint64_t *start = content->map->start;
    const uint64_t bucket = guest >> content->shift;
    size_t low = content->buckets[bucket], high = (size_t)content->buckets[bucket + 1] + 1;

    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (start[middle] <= guest)
            low = middle;
        else
            high = middle;
    }
    return low;
}

pv_status pv_origin_read(const pv_origin *origin, uint8_t *to, size_t size, uint64_t offset,
                         pv_where *where)
{
    const uint64_t end = origin->reader.size;
    const size_t there = offset >= end ? 0 : end - offset < size ? (size_t)(end - offset) : size;

    if (there < size) {
        if (offset > origin->limit || size > origin->limit - offset)
            return pv_fail(where, PV_TRUNCATED, offset, size, 0);
        memset(to + there, 0, size - there);
    }
    return there ? origin->reader.read(origin->reader.context, to, there, offset, where) : PV_OK;
}

pv_status pv_origin_unpack(const pv_origin *origin, const pv_work *work, uint64_t host,
                           uint32_t stored, uint8_t *to, pv_where *where)
{
    const uint64_t end = origin->reader.size;
    pv_status status;

    /* The last sector of the last block may be cut. */
    if (host >= end)
        return pv_fail(where, PV_TRUNCATED, host, stored, 0);
    if (stored > end - host)
        stored = (uint32_t)(end - host);
    if (stored > work->room)
        return pv_fail(where, PV_CORRUPT, host, stored, 0);
    status = origin->reader.read(origin->reader.context, work->stored, stored, host, where);
    if (status != PV_OK)
        return status;
    status = work->unpack(work->context, origin->codec, work->stored, stored, to, origin->block);
    return status == PV_OK ? PV_OK : pv_fail(where, status, host, stored, 0);
}

/* -- Encrypted bytes ------------------------------------------------------------------------- */

enum { MOST_SECTOR = 4096 };

typedef struct {
    const pv_origin *origin;
    const pv_work *work;
    uint64_t host;  /* of the first byte that is wanted */
    uint64_t place; /* the same byte, as the cipher counts */
} secret;

/* Whole sectors, from `into` bytes after the first on. */
static pv_status sectors(const secret *s, uint64_t into, uint8_t *to, size_t size,
                         pv_where *where)
{
    const pv_status status = pv_origin_read(s->origin, to, size, s->host + into, where);

    if (status != PV_OK)
        return status;
    return s->work->decrypt(s->work->context, s->origin->cipher, to, size, s->place + into);
}

static pv_status decrypted(const secret *s, uint8_t *to, size_t size, pv_where *where)
{
    const uint32_t sector = s->origin->sector;
    uint8_t one[MOST_SECTOR];
    size_t at = 0;

    while (at < size) {
        const size_t cut = (size_t)((s->place + at) % sector);
        const size_t whole = (size - at) / sector * sector;
        const size_t part = sector - cut < size - at ? sector - cut : size - at;
        pv_status status;

        if (cut == 0 && whole > 0) {
            status = sectors(s, at, to + at, whole, where);
            at += whole;
        } else {
            const secret begin = {s->origin, s->work, s->host + at - cut, s->place + at - cut};
            status = sectors(&begin, 0, one, sector, where);
            memcpy(to + at, one + cut, part);
            at += part;
        }
        if (status != PV_OK)
            return status;
    }
    return PV_OK;
}

/* -- Reading --------------------------------------------------------------------------------- */

/* Whether [guest, guest + size) begins with a whole packed block that C can unpack. */
static int whole(const pv_origin *origin, const pv_work *work, uint64_t guest, uint64_t size)
{
    return origin->codec != 0 && work != NULL && guest % origin->block == 0 &&
           size >= origin->block;
}

/* Bytes of one extent. */
static pv_status part(const pv_content *content, const pv_work *work, size_t i, uint64_t guest,
                      size_t size, uint8_t *to, pv_where *where)
{
    const pv_columns *map = content->map;
    const uint8_t flags = map->flags[i];
    const pv_origin *origin;
    uint64_t host;

    if (flags & PV_ZERO || !(flags & PV_ALLOCATED)) {
        memset(to, 0, size);
        return PV_OK;
    }
    origin = pv_content_origin(content, i);
    if (flags & PV_COMPRESSED)
        return whole(origin, work, guest, size)
                   ? pv_origin_unpack(origin, work, map->host[i], map->stored[i], to, where)
                   : PV_BLOCK;
    host = map->host[i] + (guest - map->start[i]);
    if (flags & PV_ENCRYPTED) {
        const secret s = {origin, work, host,
                          origin->by_guest ? guest : host - origin->payload};
        if (origin->cipher == NULL || work == NULL)
            return pv_fail(where, PV_BUSY, host, size, 0);
        return decrypted(&s, to, size, where);
    }
    return pv_origin_read(origin, to, size, host, where);
}

pv_status pv_content_read(const pv_content *content, const pv_work *work, uint64_t offset,
                          size_t size, uint8_t *to, size_t *done, size_t *extent,
                          pv_where *where)
{
    const pv_columns *map = content->map;
    size_t i, at = 0;

    *done = 0;
    if (size == 0)
        return PV_OK;
    for (i = pv_content_find(content, offset); at < size; i++) {
        const uint64_t guest = offset + at, end = map->start[i] + map->length[i];
        const size_t most = end - guest < size - at ? (size_t)(end - guest) : size - at;
        const pv_status status = part(content, work, i, guest, most, to + at, where);

        if (status != PV_OK) {
            *extent = i;
            return status;
        }
        at += most;
        *done = at;
    }
    return PV_OK;
}

/* -- Looking at bytes ------------------------------------------------------------------------ */

enum { STEP = 4096 };

__attribute__((target_clones("avx512f", "avx2", "default")))
static int is_zero(const uint8_t *data, size_t size)
{
    uint64_t all = 0;
    size_t i = 0;

    for (; i + 8 <= size; i += 8) {
        uint64_t word;
        memcpy(&word, data + i, sizeof word);
        all |= word;
    }
    for (; i < size; i++)
        all |= data[i];
    return all == 0;
}

/* Most data betrays itself in its first bytes. */
static int step_zero(const uint8_t *data, size_t size)
{
    return is_zero(data, size < 64 ? size : 64) && is_zero(data, size);
}

size_t pv_content_run(const uint8_t *data, size_t size, int *zero)
{
    size_t at = 0;

    *zero = size > 0 && step_zero(data, size < STEP ? size : STEP);
    while (at < size) {
        const size_t step = size - at < STEP ? size - at : STEP;
        if (step_zero(data + at, step) != *zero)
            break;
        at += step;
    }
    return at;
}

size_t pv_content_differs(const uint8_t *a, const uint8_t *b, size_t size)
{
    size_t at = 0;

    while (size - at >= STEP && memcmp(a + at, b + at, STEP) == 0)
        at += STEP;
    while (at < size && a[at] == b[at])
        at++;
    return at;
}

/* -- Comparing ------------------------------------------------------------------------------- */

static int has_data(const pv_columns *map, size_t i)
{
    return i < map->count && map->flags[i] & PV_ALLOCATED && !(map->flags[i] & PV_ZERO);
}

static uint32_t file_of(const pv_side *side, size_t i)
{
    return side->same[side->first[side->map->depth[i]] + side->map->file[i]];
}

/* Whether extents i and j, which both have data, are the same bytes of the same file. */
static int shared(const pv_side *a, size_t i, const pv_side *b, size_t j)
{
    const pv_columns *x = a->map, *y = b->map;
    const uint8_t kind = PV_COMPRESSED | PV_ENCRYPTED;

    if (file_of(a, i) != file_of(b, j) || (x->flags[i] ^ y->flags[j]) & kind)
        return 0;
    if (x->flags[i] & PV_COMPRESSED)
        return x->host[i] == y->host[j] && x->start[i] == y->start[j] &&
               x->length[i] == y->length[j];
    return x->host[i] - x->start[i] == y->host[j] - y->start[j];
}

static uint64_t end_of(const pv_columns *map, size_t i, uint64_t most)
{
    const uint64_t end = i < map->count ? map->start[i] + map->length[i] : most;
    return end < most ? end : most;
}

pv_status pv_content_suspects(const pv_side *a, const pv_side *b, uint64_t end, pv_columns *to)
{
    size_t i = 0, j = 0;

    for (uint64_t at = 0; at < end;) {
        const uint64_t x = end_of(a->map, i, end), y = end_of(b->map, j, end);
        const uint64_t stop = x < y ? x : y;
        const int one = has_data(a->map, i), other = has_data(b->map, j);
        pv_status status = PV_OK;

        if ((one || other) && !(one && other && shared(a, i, b, j)))
            status = pv_columns_add(to, at, stop - at, 0, (uint8_t)(one | other << 1), 0, 0);
        if (status != PV_OK)
            return status;
        at = stop;
        i += i < a->map->count && x == stop;
        j += j < b->map->count && y == stop;
    }
    return PV_OK;
}

pv_status pv_content_changes(const uint8_t *a, const uint8_t *b, size_t size, uint64_t guest,
                             pv_columns *to)
{
    enum { SECTOR = 512 };

    for (size_t at = 0; at < size; at += SECTOR) {
        const size_t step = size - at < SECTOR ? size - at : SECTOR;
        if (memcmp(a + at, b + at, step) != 0) {
            const pv_status status = pv_columns_add(to, guest + at, step, 0, 0, 0, 0);
            if (status != PV_OK)
                return status;
        }
    }
    return PV_OK;
}
