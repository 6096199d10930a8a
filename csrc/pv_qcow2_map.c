/* L1 and L2 tables of qcow2 to extents.
 *
 * Clusters in random order end an extent every other entry, so no branch could be predicted:
 * each entry writes its extent into the next free place, and the place is kept only if the
 * entry does not continue the extent before it. Where the disk is nearly empty, the beginnings
 * are looked for first. Lengths follow from the starts, table by table.
 */
#include "pv_qcow2.h"

#include <string.h>

/* The extent under way is the last in the columns; `expect` is the host that continues it. */
typedef struct {
    uint64_t *start, *host;
    uint8_t *flags;
    uint64_t expect;
    size_t count;
    uint8_t last;
} writer;

static const uint8_t NEVER = 0xff; /* flags that nothing continues */

static inline void put(writer *w, uint64_t guest, uint64_t host, uint64_t expect, uint8_t flags)
{
    const size_t next = w->count;

    w->start[next] = guest;
    w->host[next] = host;
    w->flags[next] = flags;
    w->count += (flags != w->last) | (host != w->expect);
    w->last = flags;
    w->expect = expect;
}

static writer begin(const pv_columns *to, uint64_t guest)
{
    writer w = {to->start, to->host, to->flags, 0, to->count, NEVER};

    if (to->count > 0) {
        const size_t i = to->count - 1;
        if (!(to->flags[i] & PV_COMPRESSED) && to->start[i] + to->length[i] == guest) {
            w.last = to->flags[i];
            w.expect = w.last & PV_OFFSET ? to->host[i] + to->length[i] : 0;
        }
    }
    return w;
}

/* Take over what was written, which ends at guest byte `end`. */
static void finish(writer *w, uint64_t end, bool external, pv_columns *to)
{
    const uint64_t *start = to->start;
    uint64_t *length = to->length;

    while (w->count > 0 && start[w->count - 1] >= end)
        w->count--; /* subclusters beyond the end of the disk */
    if (w->count == 0)
        return;
    const size_t first = to->count > 0 ? to->count - 1 : 0, last = w->count - 1;
    for (size_t i = first; i < last; i++)
        length[i] = start[i + 1] - start[i];
    length[last] = end - start[last];
    if (external)
        for (size_t i = first; i <= last; i++)
            to->file[i] = (to->flags[i] & PV_OFFSET) != 0;
    to->count = w->count;
}

/* -- One table ------------------------------------------------------------------------------- */

typedef struct {
    const pv_qcow2 *image;
    const uint8_t *table;
    size_t count;    /* entries of interest, from the table's first */
    uint64_t guest;  /* where the first one's cluster begins */
    uint64_t offset; /* of the table, for faults */
} l2;

/* All bits that are set in some entry: tells whether a table needs care at all. */
__attribute__((target_clones("avx512f", "avx2", "default")))
static uint64_t any_bits(const uint8_t *table, size_t words)
{
    uint64_t all = 0;

    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, table + 8 * i, sizeof word);
        all |= word;
    }
    return pv_be64((const uint8_t *)&all);
}

static inline uint64_t entry_at(const uint8_t *table, size_t i)
{
    uint64_t word;
    memcpy(&word, table + 8 * i, sizeof word);
    return pv_be64((const uint8_t *)&word);
}

/* Which of BLOCK entries begin another extent, as bits: those of another kind than the entry
 * before, which must be in the table too, or that do not follow it in the file. */
enum { BLOCK = 64 };

__attribute__((target_clones("avx2", "default")))
static uint64_t beginnings(const uint8_t *table, uint64_t size, uint64_t zero)
{
    uint64_t found = 0;

    for (size_t i = 0; i < BLOCK; i++) {
        const uint64_t before = entry_at(table - 8, i), entry = entry_at(table, i);
        const uint64_t host = before & PV_QCOW2_OFFSET;
        const uint64_t expect = host + (host ? size : 0);
        const uint64_t more = (expect ^ (entry & PV_QCOW2_OFFSET)) | ((before ^ entry) & zero);
        found |= (uint64_t)(more != 0) << i;
    }
    return found;
}

typedef struct {
    uint64_t size, zero;
    uint8_t kind[4]; /* flags; bit 0: it has a place, bit 1: it is zero */
} plainly;

static inline void put_plain(const l2 *t, const plainly *p, size_t i, writer *w)
{
    const uint64_t entry = entry_at(t->table, i), host = entry & PV_QCOW2_OFFSET;
    const unsigned placed = host != 0;

    put(w, t->guest + i * p->size, host, host + (-(uint64_t)placed & p->size),
        p->kind[((entry & p->zero) << 1) | placed]);
}

/* A block that follows other entries. Disks have long runs of clusters that are not there: where
 * little begins, only that is written. */
static inline void put_block(const l2 *t, const plainly *p, size_t first, writer *w)
{
    uint64_t begins = beginnings(t->table + 8 * first, p->size, p->zero);

    if (__builtin_popcountll(begins) > BLOCK / 2) {
        for (size_t i = first; i < first + BLOCK; i++)
            put_plain(t, p, i, w);
        return;
    }
    for (; begins != 0; begins &= begins - 1) {
        w->last = NEVER;
        put_plain(t, p, first + (size_t)__builtin_ctzll(begins), w);
    }
    const uint64_t host = entry_at(t->table, first + BLOCK - 1) & PV_QCOW2_OFFSET;
    w->expect = host ? host + p->size : 0;
}

/* Standard clusters only, all aligned. */
static void plain(const l2 *t, writer *out)
{
    const uint8_t secret = t->image->encrypted ? PV_ENCRYPTED : 0;
    const plainly p = {
        (uint64_t)1 << t->image->cluster_bits,
        t->image->zero_flag,
        {0, PV_PRESENT | PV_ALLOCATED | PV_OFFSET | secret, PV_PRESENT | PV_ZERO,
         PV_PRESENT | PV_ZERO | PV_OFFSET},
    };
    const size_t odd = t->count == 0 ? 0 : (t->count - 1) % BLOCK + 1;
    writer w = *out;
    size_t i = 0;

    for (; i < odd; i++)
        put_plain(t, &p, i, &w);
    for (; i < t->count; i += BLOCK)
        put_block(t, &p, i, &w);
    *out = w;
}

static pv_status packed(const l2 *t, size_t i, uint64_t entry, uint32_t *stored, writer *w,
                        pv_where *where)
{
    const uint64_t guest = t->guest + ((uint64_t)i << t->image->cluster_bits);
    const uint64_t host = pv_qcow2_packed(t->image, entry, stored + w->count);

    if (t->image->external)
        return pv_fail(where, PV_CORRUPT, t->offset, entry, PV_QCOW2_L2);
    w->last = NEVER;
    put(w, guest, host, 0, PV_PRESENT | PV_ALLOCATED | PV_COMPRESSED |
        (t->image->encrypted ? PV_ENCRYPTED : 0));
    w->last = NEVER;
    return PV_OK;
}

/* Subclusters: runs of equal allocation and zero bits. */
static pv_status divided(const l2 *t, size_t i, uint64_t host, bool placed, writer *w)
{
    const uint64_t bitmap = entry_at(t->table, 2 * i + 1);
    const uint32_t stored = (uint32_t)bitmap, zero = (uint32_t)(bitmap >> 32);
    const unsigned bits = t->image->cluster_bits - 5u;
    const uint64_t guest = t->guest + ((uint64_t)i << t->image->cluster_bits);
    const uint8_t offset = placed ? PV_OFFSET : 0;

    if ((stored & zero) != 0 || (stored != 0 && !placed))
        return PV_CORRUPT;
    for (unsigned at = 0; at < 32;) {
        const uint32_t is = stored >> at & 1 ? UINT32_MAX : 0, nil = zero >> at & 1 ? UINT32_MAX : 0;
        const uint64_t change = (uint64_t)(((stored ^ is) | (zero ^ nil)) >> at) | ((uint64_t)1 << (32 - at));
        const unsigned end = at + (unsigned)__builtin_ctzll(change);
        const uint8_t flags = is    ? PV_PRESENT | PV_ALLOCATED | PV_OFFSET |
                                       (t->image->encrypted ? PV_ENCRYPTED : 0)
                              : nil ? (uint8_t)(PV_PRESENT | PV_ZERO | offset)
                                    : offset;
        const uint64_t place = placed ? host + ((uint64_t)at << bits) : 0;
        put(w, guest + ((uint64_t)at << bits), place,
            placed ? host + ((uint64_t)end << bits) : 0, flags);
        at = end;
    }
    return PV_OK;
}

static pv_status standard(const l2 *t, size_t i, uint64_t entry, writer *w)
{
    const pv_qcow2 *image = t->image;
    const uint64_t size = (uint64_t)1 << image->cluster_bits;
    const uint64_t guest = t->guest + i * size, host = entry & PV_QCOW2_OFFSET;
    const bool zero = image->zero_flag && (entry & 1);
    const bool placed = host != 0 || (image->external && entry & PV_QCOW2_COPIED && !zero);

    if (host & (size - 1) || (image->external && placed && host != guest))
        return PV_CORRUPT;
    if (entry & 1 && !image->zero_flag && !image->extended)
        return PV_CORRUPT; /* no zero clusters in version 2 */
    if (image->extended)
        return divided(t, i, host, placed, w);
    put(w, guest, host, placed ? host + size : 0,
        zero     ? PV_PRESENT | PV_ZERO | (placed ? PV_OFFSET : 0)
        : placed ? PV_PRESENT | PV_ALLOCATED | PV_OFFSET | (image->encrypted ? PV_ENCRYPTED : 0)
                 : 0);
    return PV_OK;
}

/* Any table: entry by entry. */
static pv_status careful(const l2 *t, uint32_t *stored, writer *w, size_t room, pv_where *where)
{
    const size_t words = t->image->extended ? 2 : 1;
    const size_t most = t->image->extended ? 32 : 1;

    for (size_t i = 0; i < t->count; i++) {
        const uint64_t entry = entry_at(t->table, words * i);
        pv_status status;
        if (room - w->count < most)
            return pv_fail(where, PV_FULL, t->offset, 0, PV_QCOW2_L2);
        status = entry & PV_QCOW2_PACKED ? packed(t, i, entry, stored, w, where)
                                         : standard(t, i, entry, w);
        if (status != PV_OK)
            return pv_fail(where, status, t->offset + 8 * words * i, entry, PV_QCOW2_L2);
    }
    return PV_OK;
}

/* `bits` are all that some entry of the table has. */
static pv_status decode(const l2 *t, uint64_t bits, pv_columns *to, pv_where *where)
{
    const pv_qcow2 *image = t->image;
    const uint64_t size = (uint64_t)1 << image->cluster_bits;
    const uint64_t end = t->guest + t->count * size;
    const uint64_t odd = PV_QCOW2_PACKED | ((size - 1) & ~511u) | !image->zero_flag;
    const bool simple = !image->extended && !image->external &&
                        to->room - to->count >= t->count && !(bits & odd);
    writer w = begin(to, t->guest);
    pv_status status = PV_OK;

    if (simple)
        plain(t, &w);
    else
        status = careful(t, to->stored, &w, to->room, where);
    if (status == PV_OK)
        finish(&w, end < image->size ? end : image->size, image->external, to);
    return status;
}

/* -- All tables ------------------------------------------------------------------------------ */

/* No image needs more: each table is reachable from one entry of an L1 table. Other programs
 * may share tables, so a few times as many are read. */
static uint64_t most_tables(const pv_qcow2 *image, const pv_reader *reader)
{
    return 4 * (reader->size >> image->cluster_bits) + 64;
}

pv_status pv_qcow2_extents(const pv_qcow2 *image, const pv_reader *reader, const uint8_t *l1,
                           size_t entries, uint64_t l1_offset, uint64_t start, uint64_t stop,
                           uint8_t *table, pv_columns *to, pv_where *where)
{
    const unsigned bits = image->cluster_bits;
    const unsigned l2_bits = bits - (image->extended ? 4u : 3u);
    const uint64_t size = (uint64_t)1 << bits, per_table = (uint64_t)1 << l2_bits;
    const uint64_t clusters = stop == 0 ? 0 : ((stop - 1) >> bits) + 1;
    uint64_t left = most_tables(image, reader), empty = 0;

    for (uint64_t cluster = start >> bits; cluster < clusters;) {
        const uint64_t index = cluster >> l2_bits, within = cluster & (per_table - 1);
        const uint64_t rest = clusters - cluster;
        const uint64_t count = per_table - within < rest ? per_table - within : rest;
        const uint64_t offset = index < entries ? pv_be64(l1 + 8 * index) & PV_QCOW2_OFFSET : 0;
        const uint64_t guest = cluster << bits;
        const l2 t = {image, table + within * (image->extended ? 16 : 8), count, guest, offset};
        pv_status status = PV_OK;

        if (offset & (size - 1))
            return pv_fail(where, PV_CORRUPT, l1_offset + 8 * index, offset, PV_QCOW2_L1);
        if (offset == 0 || offset == empty) {
            const uint64_t end = guest + count * size;
            status = pv_columns_add(to, guest, (end < image->size ? end : image->size) - guest, 0,
                                    0, 0, 0);
        } else {
            if (left-- == 0)
                return pv_fail(where, PV_BUSY, l1_offset + 8 * index, offset, PV_QCOW2_L1);
            where->table = PV_QCOW2_L2;
            status = reader->read(reader->context, table, size, offset, where);
            if (status != PV_OK)
                return status;
            const uint64_t any = any_bits(table, size / 8);
            if (any == 0)
                empty = offset;
            status = decode(&t, any, to, where);
        }
        if (status != PV_OK)
            return status;
        cluster += count;
    }
    return PV_OK;
}

/* -- Chains ---------------------------------------------------------------------------------- */

/* Take from a lower table what no image above has. `mask`, in the byte order of the file, has the
 * bits without which an entry says nothing; depths are as wide as entries, so that both are
 * chosen by the same lanes. */
__attribute__((target_clones("avx512f", "avx2", "default")))
static void choose(uint64_t *chosen, uint64_t *depths, const uint8_t *table, size_t count,
                   uint64_t mask, uint64_t depth)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t below;
        memcpy(&below, table + 8 * i, sizeof below);
        below = below & mask ? below : 0;
        const int empty = chosen[i] == 0;
        depths[i] = empty ? depth : depths[i];
        chosen[i] = empty ? below : chosen[i];
    }
}

static pv_status decode_flat(const l2 *t, const uint64_t *depths, pv_columns *to,
                             pv_where *where)
{
    const pv_qcow2 *image = t->image;
    const uint64_t size = (uint64_t)1 << image->cluster_bits;
    const uint8_t secret = image->encrypted ? PV_ENCRYPTED : 0;
    writer w = begin(to, t->guest);
    uint64_t last_depth = to->count > 0 ? to->depth[to->count - 1] : 0;

    if (to->room - to->count < t->count)
        return pv_fail(where, PV_FULL, 0, 0, PV_QCOW2_L2);
    for (size_t i = 0; i < t->count; i++) {
        const uint64_t entry = entry_at(t->table, i), guest = t->guest + i * size;
        const uint64_t host = entry & PV_QCOW2_OFFSET, depth = depths[i];
        const bool zero = entry & 1 && image->zero_flag;
        if (depth != last_depth)
            w.last = NEVER;
        to->depth[w.count] = (uint16_t)depth;
        last_depth = depth;
        if (entry & PV_QCOW2_PACKED) {
            uint32_t stored;
            const uint64_t place = pv_qcow2_packed(image, entry, &stored);
            w.last = NEVER;
            to->stored[w.count] = stored;
            put(&w, guest, place, 0, PV_PRESENT | PV_ALLOCATED | PV_COMPRESSED | secret);
            w.last = NEVER;
            continue;
        }
        if (host & (size - 1) || (entry & 1 && !image->zero_flag))
            return pv_fail(where, PV_CORRUPT, guest, entry, PV_QCOW2_L2);
        put(&w, guest, host, host ? host + size : 0,
            zero   ? PV_PRESENT | PV_ZERO | (host ? PV_OFFSET : 0)
            : host ? PV_PRESENT | PV_ALLOCATED | PV_OFFSET | secret
                   : 0);
    }
    const uint64_t end = t->guest + t->count * size;
    finish(&w, end < image->size ? end : image->size, false, to);
    return PV_OK;
}

/* The entries of one L2 table, chosen from all layers. */
static pv_status gather(const pv_qcow2 *image, const pv_qcow2_layer *layers, size_t count,
                        uint64_t index, uint64_t mask, uint8_t *lent, size_t *layer,
                        pv_where *where)
{
    const uint64_t size = (uint64_t)1 << image->cluster_bits;
    uint64_t *chosen = (uint64_t *)lent, *depths = (uint64_t *)(lent + size);

    memset(chosen, 0, size);
    for (size_t i = 0; i < size / 8; i++)
        depths[i] = count - 1;
    for (*layer = 0; *layer < count; (*layer)++) {
        const pv_qcow2_layer *one = &layers[*layer];
        const uint64_t offset =
            index < one->entries ? pv_be64(one->l1 + 8 * index) & PV_QCOW2_OFFSET : 0;
        pv_status status;
        if (offset & (size - 1))
            return pv_fail(where, PV_CORRUPT, one->l1_offset + 8 * index, offset, PV_QCOW2_L1);
        if (offset == 0)
            continue;
        where->table = PV_QCOW2_L2;
        status = one->reader->read(one->reader->context, lent + 2 * size, size, offset, where);
        if (status != PV_OK)
            return status;
        choose(chosen, depths, lent + 2 * size, size / 8, mask, *layer);
    }
    *layer = 0;
    for (size_t i = 0; i < size / 8; i++)
        depths[i] = chosen[i] ? depths[i] : count - 1;
    return PV_OK;
}

pv_status pv_qcow2_flatten(const pv_qcow2 *image, const pv_qcow2_layer *layers, size_t count,
                           uint64_t start, uint64_t stop, uint8_t *lent, pv_columns *to,
                           size_t *layer, pv_where *where)
{
    const unsigned bits = image->cluster_bits, l2_bits = bits - 3u;
    const uint64_t per_table = (uint64_t)1 << l2_bits;
    const uint64_t clusters = stop == 0 ? 0 : ((stop - 1) >> bits) + 1;
    const uint64_t wanted = PV_QCOW2_OFFSET | PV_QCOW2_PACKED | 1;
    uint64_t left = 0, mask;
    uint8_t swapped[8];

    for (unsigned i = 0; i < 8; i++)
        swapped[i] = (uint8_t)(wanted >> (56 - 8 * i));
    memcpy(&mask, swapped, sizeof mask);
    for (*layer = 0; *layer < count; (*layer)++)
        left += most_tables(image, layers[*layer].reader);
    *layer = 0;
    for (uint64_t cluster = start >> bits; cluster < clusters;) {
        const uint64_t within = cluster & (per_table - 1), rest = clusters - cluster;
        const uint64_t some = per_table - within < rest ? per_table - within : rest;
        const l2 t = {image, lent + 8 * within, some, cluster << bits, 0};
        pv_status status;
        if (left-- == 0)
            return pv_fail(where, PV_BUSY, 0, 0, PV_QCOW2_L1);
        status = gather(image, layers, count, cluster >> l2_bits, mask, lent, layer, where);
        if (status == PV_OK)
            status = decode_flat(&t, (const uint64_t *)(lent + (8 * per_table)) + within, to, where);
        if (status != PV_OK)
            return status;
        cluster += some;
    }
    return PV_OK;
}
