/* Columns of extents: appended to, laid over each other, written as JSON. */
#include "pv_image.h"

#include <string.h>

static int continues(uint64_t length, uint64_t before, uint8_t flags, uint64_t host)
{
    if (flags & PV_COMPRESSED)
        return 0;
    return !(flags & PV_OFFSET) || before + length == host;
}

pv_status pv_columns_add(pv_columns *to, uint64_t start, uint64_t length, uint64_t host,
                         uint8_t flags, uint16_t depth, uint16_t file)
{
    const size_t n = to->count;

    if (length == 0)
        return PV_OK;
    if (n > 0 && to->flags[n - 1] == flags && to->depth[n - 1] == depth &&
        to->file[n - 1] == file && to->start[n - 1] + to->length[n - 1] == start &&
        continues(to->length[n - 1], to->host[n - 1], flags, host)) {
        to->length[n - 1] += length;
        return PV_OK;
    }
    if (n == to->room)
        return PV_FULL;
    to->start[n] = start;
    to->length[n] = length;
    to->host[n] = host;
    to->flags[n] = flags;
    if (depth)
        to->depth[n] = depth;
    if (file)
        to->file[n] = file;
    to->count = n + 1;
    return PV_OK;
}

/* A part of extent `i`: bytes [start, end) of the guest. */
static pv_status copy(const pv_columns *from, size_t i, uint64_t start, uint64_t end,
                      unsigned deeper, pv_columns *to)
{
    const uint8_t flags = from->flags[i];
    const uint64_t into = flags & PV_OFFSET ? start - from->start[i] : 0;
    const size_t before = to->count;
    const pv_status status =
        pv_columns_add(to, start, end - start, from->host[i] + into, flags,
                       (uint16_t)(from->depth[i] + deeper), from->file[i]);

    if (flags & PV_COMPRESSED && to->count > before)
        to->stored[before] = from->stored[i];
    return status;
}

/* Extent `i` of `top` as `below` has it; `*at` is the extent to begin to look at. */
static pv_status copy_below(const pv_columns *top, size_t i, const pv_columns *below, size_t *at,
                            uint64_t below_end, pv_columns *to)
{
    uint64_t start = top->start[i];
    const uint64_t end = start + top->length[i];
    pv_status status = PV_OK;

    while (status == PV_OK && start < end && start < below_end && *at < below->count) {
        const uint64_t stop = below->start[*at] + below->length[*at];
        const uint64_t until = stop < end ? stop : end;
        if (stop > start) {
            status = copy(below, *at, start, until, 1, to);
            start = until;
        }
        if (stop <= end)
            (*at)++;
    }
    if (status == PV_OK && start < end) {
        /* Space may be reserved that nothing was written to. */
        const uint8_t offset = top->flags[i] & PV_OFFSET;
        const uint64_t host = offset ? top->host[i] + (start - top->start[i]) : 0;
        status = pv_columns_add(to, start, end - start, host, PV_ZERO | offset, 0, top->file[i]);
    }
    return status;
}

pv_status pv_columns_merge(const pv_columns *top, const pv_columns *below, uint64_t below_end,
                           pv_columns *to)
{
    size_t at = 0;

    for (size_t i = 0; i < top->count; i++) {
        const uint64_t start = top->start[i], end = start + top->length[i];
        const pv_status status = top->flags[i] & PV_PRESENT
                                     ? copy(top, i, start, end, 0, to)
                                     : copy_below(top, i, below, &at, below_end, to);
        if (status != PV_OK)
            return status;
        while (at < below->count && below->start[at] + below->length[at] <= end)
            at++;
    }
    return PV_OK;
}

/* Static, because clang 14 gives clones of others a name that no other file finds. */
__attribute__((target_clones("avx2", "default")))
static void ground(uint8_t *flags, size_t count)
{
    for (size_t i = 0; i < count; i++)
        flags[i] |= flags[i] & PV_PRESENT ? 0 : PV_ZERO;
}

void pv_columns_ground(pv_columns *columns)
{
    ground(columns->flags, columns->count);
}

/* The first pair that ends after `place`. */
static size_t pair_after(const uint64_t *data, size_t pairs, uint64_t place)
{
    size_t low = 0, high = pairs;

    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (data[2 * middle + 1] <= place)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static pv_status split(const pv_columns *from, size_t i, const uint64_t *data, size_t pairs,
                       pv_columns *to)
{
    const uint64_t host = from->host[i], length = from->length[i];
    size_t pair = pair_after(data, pairs, host);

    for (uint64_t done = 0; done < length;) {
        const uint64_t begin = pair < pairs ? data[2 * pair] : UINT64_MAX;
        const uint64_t end = pair < pairs ? data[2 * pair + 1] : UINT64_MAX;
        const int hole = host + done < begin;
        const uint64_t until = (hole ? begin : end) - host;
        const uint64_t stop = until < length ? until : length;
        const pv_status status =
            pv_columns_add(to, from->start[i] + done, stop - done, host + done,
                           from->flags[i] | (hole ? PV_ZERO : 0), from->depth[i], from->file[i]);
        if (status != PV_OK)
            return status;
        pair += !hole;
        done = stop;
    }
    return PV_OK;
}

/* The map of the file that extent `i` is in, if it is plain data, and of a known file. */
static const pv_holes *map_of(const pv_columns *from, size_t i, const pv_holes *holes,
                              size_t depths, uint16_t file)
{
    const uint8_t mask = PV_ALLOCATED | PV_OFFSET | PV_COMPRESSED | PV_ZERO | PV_ENCRYPTED;
    const uint16_t depth = from->depth[i];

    if ((from->flags[i] & mask) != (PV_ALLOCATED | PV_OFFSET) || from->file[i] != file)
        return NULL;
    return depth < depths && holes[depth].data != NULL ? &holes[depth] : NULL;
}

size_t pv_columns_mark(pv_columns *columns, const pv_holes *holes, size_t depths, uint16_t file)
{
    size_t more = 0;

    for (size_t i = 0; i < columns->count; i++) {
        const pv_holes *map = map_of(columns, i, holes, depths, file);
        const uint64_t host = columns->host[i], end = host + columns->length[i];
        if (map == NULL)
            continue;
        const size_t pair = pair_after(map->data, map->pairs, host);
        if (pair == map->pairs || map->data[2 * pair] >= end)
            columns->flags[i] |= PV_ZERO;
        else if (map->data[2 * pair] > host || map->data[2 * pair + 1] < end)
            more += 2 * (pair_after(map->data, map->pairs, end - 1) - pair + 1);
    }
    return more;
}

pv_status pv_columns_split(const pv_columns *from, const pv_holes *holes, size_t depths,
                           uint16_t file, pv_columns *to)
{
    for (size_t i = 0; i < from->count; i++) {
        const pv_holes *map = map_of(from, i, holes, depths, file);
        const pv_status status =
            map ? split(from, i, map->data, map->pairs, to)
                : copy(from, i, from->start[i], from->start[i] + from->length[i], 0, to);
        if (status != PV_OK)
            return status;
    }
    return PV_OK;
}

/* -- JSON ------------------------------------------------------------------------------------ */

/* The longest object: three numbers of 20 digits, one of 5, and the keys. */
enum { LONGEST = 256 };

/* The eight digits of a value below 10^8, the first one in the lowest byte: two halves of four
 * digits, four pairs, eight digits, each split in all lanes at once. */
static uint64_t eight(uint32_t value)
{
    const uint64_t halves = value / 10000 | (uint64_t)(value % 10000) << 32;
    const uint64_t over = (halves * 10486 >> 20) & UINT64_C(0x7f0000007f);
    const uint64_t pairs = over | (halves - 100 * over) << 16;
    const uint64_t tens = (pairs * 103 >> 10) & UINT64_C(0xf000f000f000f);

    return (tens | (pairs - 10 * tens) << 8) + UINT64_C(0x3030303030303030);
}

static void put_le64(uint8_t *p, uint64_t word)
{
    p[0] = (uint8_t)word;
    p[1] = (uint8_t)(word >> 8);
    p[2] = (uint8_t)(word >> 16);
    p[3] = (uint8_t)(word >> 24);
    p[4] = (uint8_t)(word >> 32);
    p[5] = (uint8_t)(word >> 40);
    p[6] = (uint8_t)(word >> 48);
    p[7] = (uint8_t)(word >> 56);
}

/* The digits without leading zeros; writes eight bytes. A 1 above the last digit keeps one. */
static uint8_t *put_first(uint8_t *p, uint32_t value)
{
    const uint64_t digits = eight(value);
    const uint64_t known = (digits ^ UINT64_C(0x3030303030303030)) | UINT64_C(1) << 56;
    const unsigned zeros = (unsigned)__builtin_ctzll(known) / 8;

    put_le64(p, digits >> (8 * zeros));
    return p + (8 - zeros);
}

/* Writes up to 24 bytes and returns the end of the number. */
static uint8_t *put_number(uint8_t *p, uint64_t value)
{
    const uint64_t part = UINT64_C(100000000);

    if (value < 10) {
        *p = (uint8_t)('0' + value);
        return p + 1;
    }
    if (value < part)
        return put_first(p, (uint32_t)value);
    if (value / part < part) {
        p = put_first(p, (uint32_t)(value / part));
    } else {
        p = put_first(p, (uint32_t)(value / part / part));
        put_le64(p, eight((uint32_t)(value / part % part)));
        p += 8;
    }
    put_le64(p, eight((uint32_t)(value % part)));
    return p + 8;
}

#define PUT(p, text) (memcpy(p, text, sizeof(text) - 1), (p) + sizeof(text) - 1)

/* QEMU's "data" and "offset" as far as its map tells them: zeros without a hole in the file
 * are no data, and neither compressed nor encrypted bytes have an offset. */
enum { TOLD = PV_ALLOCATED | PV_ZERO | PV_PRESENT | PV_OFFSET };

static uint8_t told(uint8_t flags)
{
    if (flags & (PV_COMPRESSED | PV_ENCRYPTED))
        flags &= (uint8_t)~PV_OFFSET;
    return flags & (TOLD | PV_COMPRESSED);
}

/* What is known of an extent, by its flags: bit 0 data, bit 1 zero, bit 2 present. */
typedef struct {
    char text[56];
    size_t size;
} words;

#define KNOWN(present, zero, data)                                                            \
    {", \"present\": " present ", \"zero\": " zero ", \"data\": " data,                           \
     sizeof(", \"present\": " present ", \"zero\": " zero ", \"data\": " data) - 1}

static const words WORDS[8] = {
    KNOWN("false", "false", "false"), KNOWN("false", "false", "true"),
    KNOWN("false", "true", "false"),  KNOWN("false", "true", "true"),
    KNOWN("true", "false", "false"),  KNOWN("true", "false", "true"),
    KNOWN("true", "true", "false"),   KNOWN("true", "true", "true"),
};

static uint8_t *put_extent(uint8_t *p, const pv_json_state *one, int compressed)
{
    p = PUT(p, "{ \"start\": ");
    p = put_number(p, one->start);
    p = PUT(p, ", \"length\": ");
    p = put_number(p, one->length);
    p = PUT(p, ", \"depth\": ");
    p = put_number(p, one->depth);
    const words *known = &WORDS[(one->flags & PV_PRESENT) >> 1 | (one->flags & 3)];
    memcpy(p, known->text, sizeof known->text);
    p += known->size;
    if (compressed)
        p = one->flags & PV_COMPRESSED ? PUT(p, ", \"compressed\": true")
                                       : PUT(p, ", \"compressed\": false");
    if (one->flags & PV_OFFSET) {
        p = PUT(p, ", \"offset\": ");
        p = put_number(p, one->host);
    }
    return PUT(p, "}");
}

size_t pv_columns_json(const pv_columns *from, size_t *at, pv_json_state *state,
                       int compressed, uint8_t *text, size_t room)
{
    uint8_t *p = text;
    const uint8_t mask = compressed ? TOLD | PV_COMPRESSED : TOLD;

    for (; *at < from->count; (*at)++) {
        const size_t i = *at;
        const uint8_t flags = told(from->flags[i]) & mask;
        if (state->open && state->flags == flags && state->depth == from->depth[i] &&
            state->file == from->file[i] &&
            (!(flags & PV_OFFSET) || state->host + state->length == from->host[i])) {
            state->length += from->length[i];
            continue;
        }
        if (room - (size_t)(p - text) < LONGEST)
            return (size_t)(p - text);
        if (state->open) {
            p = put_extent(p, state, compressed);
            p = PUT(p, ",\n");
        }
        *state = (pv_json_state){from->start[i], from->length[i], from->host[i],
                                 from->depth[i], from->file[i], flags, 1};
    }
    if (state->open && room - (size_t)(p - text) >= LONGEST) {
        p = put_extent(p, state, compressed);
        state->open = 0;
    }
    return (size_t)(p - text);
}
