/* Persistent dirty bitmaps of qcow2: their clusters put together, and runs of set bits. */
#include "pv_qcow2.h"

#include <string.h>

pv_status pv_qcow2_bitmap(const pv_qcow2 *image, const pv_reader *reader, const uint8_t *table,
                          size_t entries, uint64_t table_offset, uint8_t *bits, size_t size,
                          pv_where *where)
{
    const size_t cluster = (size_t)1 << image->cluster_bits;
    const size_t needed = size / cluster + (size % cluster != 0);

    if (entries < needed)
        return pv_fail(where, PV_TRUNCATED, table_offset, 8 * needed, PV_QCOW2_BITMAP_TABLE);
    for (size_t i = 0; i < needed; i++) {
        const uint64_t entry = pv_be64(table + 8 * i), offset = entry & PV_QCOW2_OFFSET;
        const size_t at = i * cluster, part = size - at < cluster ? size - at : cluster;
        pv_status status = PV_OK;

        if (entry & ~(PV_QCOW2_OFFSET | 1) || offset % cluster != 0 || (offset && entry & 1))
            return pv_fail(where, PV_CORRUPT, table_offset + 8 * i, entry, PV_QCOW2_BITMAP_TABLE);
        where->table = PV_QCOW2_BITMAP;
        if (offset)
            status = reader->read(reader->context, bits + at, part, offset, where);
        else
            memset(bits + at, entry & 1 ? 0xff : 0, part);
        if (status != PV_OK)
            return status;
    }
    return PV_OK;
}

/* Up to eight bytes, the first one's bits lowest, zeros behind the last. */
static uint64_t load(const uint8_t *bits, size_t size)
{
    uint8_t last[8] = {0};

    if (size >= 8)
        return pv_le64(bits);
    memcpy(last, bits, size);
    return pv_le64(last);
}

pv_status pv_qcow2_dirty(const uint8_t *bits, size_t size, unsigned granularity_bits,
                         uint64_t end, pv_columns *to)
{
    uint64_t start = 0, before = 0; /* of the run under way; the last bit of the word before */

    for (size_t at = 0; at < size || before; at += 8) {
        const uint64_t word = at < size ? load(bits + at, size - at) : 0;
        uint64_t edges = word ^ (word << 1 | before);

        for (; edges != 0; edges &= edges - 1) {
            const unsigned bit = (unsigned)__builtin_ctzll(edges);
            const uint64_t guest = ((uint64_t)at * 8 + bit) << granularity_bits;
            const uint64_t stop = guest < end ? guest : end;
            if (word >> bit & 1) {
                start = stop;
            } else if (start < stop) {
                if (to->count == to->room)
                    return PV_FULL;
                to->start[to->count] = start;
                to->length[to->count++] = stop - start;
            }
        }
        before = word >> 63;
    }
    return PV_OK;
}
