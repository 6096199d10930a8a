/* What extents amount to, and where those of two moments differ. */
#include "pv_image.h"

/* A block is counted when data reaches into it the first time: extents come in guest order, so
 * all blocks before the last one counted are done with. */
void pv_columns_sum(const pv_columns *from, uint64_t block, pv_columns_totals *totals)
{
    pv_columns_totals t = {0};
    uint64_t counted = 0, next = 0;

    for (size_t i = 0; i < from->count; i++) {
        const uint64_t start = from->start[i], length = from->length[i];
        const uint8_t flags = from->flags[i];
        if (!(flags & PV_PRESENT))
            t.absent += length;
        if (flags & PV_ZERO)
            t.zero += length;
        if (!(flags & PV_ALLOCATED))
            continue;
        t.allocated += length;
        if (flags & PV_COMPRESSED) {
            t.compressed += length;
            t.stored += from->stored[i];
        }
        t.pieces += t.pieces == 0 || flags & PV_COMPRESSED || from->host[i] != next;
        next = from->host[i] + length;
        if (!(flags & PV_ZERO)) {
            const uint64_t first = start / block, end = (start + length - 1) / block + 1;
            const uint64_t fresh = first > counted ? first : counted;
            t.touched += end > fresh ? end - fresh : 0;
            counted = end;
        }
    }
    *totals = t;
}

/* One of the two sides: the extent at byte `place`, or zeros behind the last. */
typedef struct {
    uint64_t end, host;
    uint32_t stored;
    uint16_t file;
    uint8_t flags;
} piece;

static piece piece_at(const pv_columns *c, size_t i, uint64_t place)
{
    if (i >= c->count)
        return (piece){UINT64_MAX, 0, 0, 0, PV_ZERO};
    const uint8_t flags = c->flags[i];
    const uint64_t into = flags & PV_OFFSET ? place - c->start[i] : 0;
    return (piece){c->start[i] + c->length[i], c->host[i] + into,
                   flags & PV_COMPRESSED ? c->stored[i] : 0, c->file[i], flags};
}

static int same(const piece *a, const piece *b)
{
    if (a->flags & PV_ZERO || b->flags & PV_ZERO)
        return (a->flags & PV_ZERO) == (b->flags & PV_ZERO);
    if (!(a->flags & PV_ALLOCATED) || !(b->flags & PV_ALLOCATED))
        return (a->flags & PV_PRESENT) == (b->flags & PV_PRESENT) &&
               (a->flags & PV_ALLOCATED) == (b->flags & PV_ALLOCATED);
    return a->flags == b->flags && a->host == b->host && a->file == b->file;
}

pv_status pv_columns_diff(const pv_columns *a, const pv_columns *b, pv_columns *to)
{
    uint64_t place = b->count ? b->start[0] : 0;

    for (size_t i = 0, j = 0; j < b->count;) {
        const piece one = piece_at(a, i, place), two = piece_at(b, j, place);
        const uint64_t end = one.end < two.end ? one.end : two.end;
        if (!same(&one, &two)) {
            const size_t before = to->count;
            const pv_status status =
                pv_columns_add(to, place, end - place, two.host, two.flags, 0, two.file);
            if (status != PV_OK)
                return status;
            if (two.stored && to->count > before)
                to->stored[before] = two.stored;
        }
        place = end;
        i += one.end == end;
        j += two.end == end;
    }
    return PV_OK;
}
