#include "pv_blocks.h"

/* An extent that grows in registers. While there is one, the columns have room for it. */
typedef struct {
    uint64_t start, length, host;
    uint32_t stored;
    uint16_t file;
    uint8_t flags;
} growing;

static inline growing pop(pv_columns *to)
{
    if (to->count == 0)
        return (growing){0, 0, 0, 0, 0, 0};
    const size_t last = --to->count;
    return (growing){to->start[last],  to->length[last], to->host[last],
                     to->stored[last], to->file[last],   to->flags[last]};
}

static inline void push(pv_columns *to, const growing *now)
{
    if (now->length == 0)
        return;
    to->start[to->count] = now->start;
    to->length[to->count] = now->length;
    to->host[to->count] = now->host;
    if (now->stored)
        to->stored[to->count] = now->stored;
    if (now->file)
        to->file[to->count] = now->file;
    to->flags[to->count++] = now->flags;
}

static inline bool goes_on(const growing *now, const growing *more)
{
    return now->length && more->flags == now->flags && more->file == now->file &&
           more->start == now->start + now->length &&
           !(more->flags & (PV_COMPRESSED | PV_DIVIDED)) &&
           (!(more->flags & PV_OFFSET) || more->host == now->host + now->length);
}

/* Add to the extent that grows, or begin another one; false without room for it. */
static inline bool grow(pv_columns *to, growing *now, const growing *more)
{
    if (goes_on(now, more)) {
        now->length += more->length;
        return true;
    }
    if (to->room - to->count < 1 + (size_t)(now->length != 0))
        return false;
    push(to, now);
    *now = *more;
    return true;
}

static inline uint8_t flags_of(const pv_blocks *rule, uint64_t entry)
{
    for (unsigned i = 0; i < rule->specials; i++)
        if (entry == rule->special[i].entry)
            return rule->special[i].flags;
    return rule->flags[entry >> rule->state_shift & rule->state_mask];
}

/* The greatest value whose block may begin inside the file; dividing once is enough. */
static uint64_t most_of(const pv_blocks *rule)
{
    return rule->limit < rule->base ? 0 : (rule->limit - rule->base) / rule->unit;
}

static inline bool place(const pv_blocks *rule, uint64_t most, uint64_t value, growing *block)
{
    block->host = rule->base + value * rule->unit;
    return (value <= most) & (block->host <= rule->limit);
}

/* Where a plain block lies; false when it reaches beyond the file. */
static inline bool mapped(const pv_blocks *rule, uint64_t most, uint64_t entry, growing *block)
{
    const uint64_t value =
        (entry >> rule->shift & rule->mask) | (entry & rule->high_mask) << rule->high_shift;

    return place(rule, most, value, block) & (rule->limit - block->host >= block->length);
}

/* Where a compressed block lies, and how much of the file it takes at most. */
static bool packed(const pv_blocks *rule, uint64_t most, uint64_t entry, uint64_t next,
                   growing *block)
{
    const uint64_t below = ((uint64_t)1 << rule->packed) - 1;
    uint64_t stored = rule->stored;

    if (!place(rule, most, entry & below, block) || block->host >= rule->limit)
        return false;
    const uint64_t left = rule->limit - block->host;
    if (rule->chained) {
        if (next < entry || next - entry > left || next - entry > UINT32_MAX)
            return false;
        stored = next - entry;
    } else if (rule->packed_bits) {
        stored = entry >> rule->packed & (((uint64_t)1 << rule->packed_bits) - 1);
    }
    block->stored = (uint32_t)(stored < left ? stored : left);
    return true;
}

static inline uint64_t load(const uint8_t *slot, bool wide, bool big)
{
    return wide ? big ? pv_be64(slot) : pv_le64(slot) : big ? pv_be32(slot) : pv_le32(slot);
}

/* The loop, compiled once for each width and byte order. */
static inline __attribute__((always_inline)) pv_status
decode(const pv_blocks *rule, const uint8_t *table, uint64_t first, size_t count,
       pv_blocks_at *at, pv_columns *to, pv_where *where, bool wide, bool big)
{
    const uint64_t most = most_of(rule);
    growing now = pop(to);
    pv_status status = PV_OK;

    for (; at->index - first < count && at->guest < at->end; at->index++) {
        if (rule->period && at->index % (rule->period + 1) == rule->period)
            continue;
        const uint8_t *slot = table + (size_t)(at->index - first) * (wide ? 8 : 4);
        const uint64_t entry = load(slot, wide, big);
        const uint64_t left = at->end - at->guest;
        growing block = {at->guest, rule->block < left ? rule->block : left, 0, 0, rule->file,
                         flags_of(rule, entry)};

        if (block.flags == PV_INVALID || (block.flags & PV_OFFSET && entry & rule->reserved))
            status = PV_CORRUPT;
        else if (block.flags & PV_COMPRESSED) {
            const uint64_t next = rule->chained ? load(slot + (wide ? 8 : 4), wide, big) : 0;
            status = packed(rule, most, entry, next, &block) ? PV_OK : PV_TRUNCATED;
        } else if (block.flags & PV_OFFSET)
            status = mapped(rule, most, entry, &block) ? PV_OK : PV_TRUNCATED;
        if (status == PV_OK && !grow(to, &now, &block))
            status = PV_FULL;
        if (status != PV_OK) {
            pv_fail(where, status, at->index, entry, 0);
            break;
        }
        at->guest += block.length;
    }
    push(to, &now);
    return status;
}

pv_status pv_blocks_decode(const pv_blocks *rule, const uint8_t *table, uint64_t first,
                           size_t count, pv_blocks_at *at, pv_columns *to, pv_where *where)
{
    if (rule->width == 8)
        return rule->big ? decode(rule, table, first, count, at, to, where, true, true)
                         : decode(rule, table, first, count, at, to, where, true, false);
    return rule->big ? decode(rule, table, first, count, at, to, where, false, true)
                     : decode(rule, table, first, count, at, to, where, false, false);
}

static inline bool bit(const uint8_t *bitmap, size_t size, bool big, uint64_t index)
{
    const unsigned place = index % 8;

    return index / 8 < size && (bitmap[index / 8] >> (big ? 7 - place : place) & 1);
}

pv_status pv_blocks_divide(const pv_blocks_bitmap *rule, const uint8_t *bitmap, size_t size,
                           pv_blocks_at *at, pv_columns *to)
{
    growing now = pop(to);
    pv_status status = PV_OK;

    for (; at->guest < at->end; at->index++) {
        const uint64_t left = at->end - at->guest;
        const uint64_t length = rule->sector < left ? rule->sector : left;
        const bool there = bit(bitmap, size, rule->big, at->index);
        const uint8_t flags = there ? rule->set : rule->clear;
        const uint64_t host = flags & PV_OFFSET ? rule->host + at->index * rule->sector : 0;
        const growing part = {at->guest, length, host, 0, rule->file, flags};

        if (!grow(to, &now, &part)) {
            status = PV_FULL;
            break;
        }
        at->guest += length;
    }
    push(to, &now);
    return status;
}
