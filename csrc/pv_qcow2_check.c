/* The reference counts of a qcow2 image: read, rebuilt from what refers to each cluster, and
 * compared.
 *
 * A cell for each cluster of the file holds the count that is stored and the one that is found.
 * An L2 table that several L1 tables share is read once and counts as often as it is shared, so
 * the work is bounded by the size of the file.
 *
 *   1. refcount table and blocks       → stored
 *   2. header, tables, bitmaps, L1 tables → found; how often each L2 table is referred to
 *   3. L2 tables: of the active L1 first, whose COPIED flags count, then of the snapshots
 *   4. stored and found, compared
 */
#include "pv_qcow2_check.h"

#include <string.h>

#define STANDARD_RESERVED 0x3f000000000001feu
#define L1_RESERVED 0x7f000000000001ffu
#define REFCOUNT_RESERVED 0x1ffu
#define BITMAP_RESERVED 0xff000000000001feu

/* The owner of a cluster is kept above its count. */
enum { OWNER_SHIFT = 28 };
#define COUNT_MASK ((UINT32_C(1) << OWNER_SHIFT) - 1)

static uint64_t cluster_size(const pv_qcow2_check *c)
{
    return (uint64_t)1 << c->image.cluster_bits;
}

static void tell(pv_qcow2_check *c, enum pv_qcow2_fault fault, enum pv_qcow2_table table,
                 uint64_t offset, uint64_t found, uint64_t expected)
{
    if (c->findings_count < c->findings_room)
        c->findings[c->findings_count++] =
            (pv_qcow2_finding){offset, found, expected, fault, table};
    else
        c->findings_lost++;
}

static void corrupt(pv_qcow2_check *c, enum pv_qcow2_fault fault, enum pv_qcow2_table table,
                    uint64_t offset, uint64_t found, uint64_t times)
{
    c->corruptions += times;
    tell(c, fault, table, offset, found, 0);
}

/* Read what the file has of [offset, offset + size); beyond its end are zeros. */
static pv_status read_padded(pv_qcow2_check *c, uint8_t *buffer, uint64_t size, uint64_t offset,
                             enum pv_qcow2_table table)
{
    const uint64_t left = offset < c->reader->size ? c->reader->size - offset : 0;
    const uint64_t there = left < size ? left : size;

    memset(buffer + there, 0, (size_t)(size - there));
    c->where.table = table;
    return there ? c->reader->read(c->reader->context, buffer, (size_t)there, offset, &c->where)
                 : PV_OK;
}

/* The table in which references to something stand; what the header names stands for itself. */
static enum pv_qcow2_table referring(enum pv_qcow2_table owner)
{
    switch (owner) {
    case PV_QCOW2_DATA: return PV_QCOW2_L2;
    case PV_QCOW2_L2: return PV_QCOW2_L1;
    case PV_QCOW2_REFCOUNT_BLOCK: return PV_QCOW2_REFCOUNT_TABLE;
    case PV_QCOW2_BITMAP: return PV_QCOW2_BITMAP_TABLE;
    default: return owner;
    }
}

static uint64_t refcount_max(const pv_qcow2_check *c)
{
    const unsigned bits = c->image.refcount_bits;
    return bits >= OWNER_SHIFT ? COUNT_MASK : ((uint64_t)1 << bits) - 1;
}

/* One of `times` references to the cluster of a cell. */
static inline void refer(pv_qcow2_check *c, uint64_t cluster, uint32_t times,
                         enum pv_qcow2_table owner, uint64_t from, uint64_t most)
{
    pv_qcow2_cell *cell = &c->cells[cluster];
    const uint32_t count = cell->found & COUNT_MASK, was = cell->found >> OWNER_SHIFT;
    uint64_t sum = (uint64_t)count + times;

    if (sum > most) {
        corrupt(c, PV_QCOW2_OVERFLOW, referring(owner), from, sum, sum - most);
        sum = most;
    }
    if (was != 0 && (was != owner || (owner != PV_QCOW2_DATA && owner != PV_QCOW2_L2))) {
        c->overlaps++;
        tell(c, PV_QCOW2_OVERLAP, referring(owner), from, cluster << c->image.cluster_bits, was);
    }
    cell->found = (uint32_t)sum | (uint32_t)(was ? was : owner) << OWNER_SHIFT;
}

/* References to all clusters that bytes [offset, offset + size) touch; `from` is where the
 * reference stands. A last cluster that the file only begins is fine. */
static void mark(pv_qcow2_check *c, uint64_t offset, uint64_t size, uint32_t times,
                 enum pv_qcow2_table owner, uint64_t from)
{
    const unsigned bits = c->image.cluster_bits;
    const uint64_t end = offset + size;

    if (size == 0)
        return;
    if (end < offset || (end > c->reader->size && end - c->reader->size >= cluster_size(c))) {
        corrupt(c, PV_QCOW2_OUTSIDE, referring(owner), from, offset, times);
        return;
    }
    for (uint64_t cluster = offset >> bits; cluster <= (end - 1) >> bits; cluster++) {
        refer(c, cluster, times, owner, from, refcount_max(c));
        if (cluster >= c->clusters)
            c->clusters = cluster + 1;
    }
}

/* -- 1. Stored refcounts ----------------------------------------------------------------------- */

static inline uint64_t refcount_at(const uint8_t *block, size_t i, unsigned bits)
{
    switch (bits) {
    case 8: return block[i];
    case 16: return pv_be16(block + 2 * i);
    case 32: return pv_be32(block + 4 * i);
    case 64: return pv_be64(block + 8 * i);
    default: return block[i * bits / 8] >> (i * bits % 8) & ((1u << bits) - 1);
    }
}

static void store(pv_qcow2_check *c, const uint8_t *block, uint64_t first, uint64_t count)
{
    const unsigned bits = c->image.refcount_bits;
    pv_qcow2_cell *cells = c->cells + first;

    if (bits == 16) {
        for (size_t i = 0; i < count; i++)
            cells[i].stored = pv_be16(block + 2 * i);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const uint64_t value = refcount_at(block, i, bits);
        cells[i].stored = value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
    }
}

/* The offset of a refcount block whose entry is fit to be followed, or 0. */
static uint64_t block_at(const pv_qcow2_check *c, uint64_t index)
{
    const uint64_t entry = pv_be64(c->refcount_table + 8 * index);
    const uint64_t offset = entry & ~(uint64_t)REFCOUNT_RESERVED;

    if (offset & (cluster_size(c) - 1) || offset >= c->reader->size)
        return 0;
    return offset;
}

pv_status pv_qcow2_check_stored(pv_qcow2_check *c)
{
    const uint64_t per_block = cluster_size(c) * 8 / c->image.refcount_bits;

    for (uint64_t index = 0; index < c->refcount_entries; index++) {
        const uint64_t first = index * per_block, offset = block_at(c, index);
        if (first >= c->room)
            break;
        if (offset == 0)
            continue;
        const pv_status status =
            read_padded(c, c->table, cluster_size(c), offset, PV_QCOW2_REFCOUNT_BLOCK);
        if (status != PV_OK)
            return status;
        const uint64_t rest = c->room - first;
        store(c, c->table, first, rest < per_block ? rest : per_block);
    }
    return PV_OK;
}

/* How many of `count` refcounts are not 0. */
static uint64_t count_used(const uint8_t *block, size_t count, unsigned bits)
{
    uint64_t used = 0;

    if (bits == 16) {
        for (size_t i = 0; i < count; i++)
            used += (block[2 * i] | block[2 * i + 1]) != 0;
        return used;
    }
    for (size_t i = 0; i < count; i++)
        used += refcount_at(block, i, bits) != 0;
    return used;
}

pv_status pv_qcow2_used(pv_qcow2_check *c, uint64_t enough, uint64_t *used)
{
    const uint64_t per_block = cluster_size(c) * 8 / c->image.refcount_bits;

    *used = 0;
    for (uint64_t index = 0; index < c->refcount_entries && *used < enough; index++) {
        const uint64_t first = index * per_block, offset = block_at(c, index);
        if (first >= c->clusters)
            break;
        if (offset == 0)
            continue;
        const pv_status status =
            read_padded(c, c->table, cluster_size(c), offset, PV_QCOW2_REFCOUNT_BLOCK);
        if (status != PV_OK)
            return status;
        const uint64_t rest = c->clusters - first;
        *used += count_used(c->table, (size_t)(rest < per_block ? rest : per_block),
                            c->image.refcount_bits);
    }
    return PV_OK;
}

/* The refcount of a cluster beyond the file: blocks go on where it ends, and QEMU looks there. */
static uint64_t stored_beyond(pv_qcow2_check *c, uint64_t cluster)
{
    const unsigned bits = c->image.refcount_bits;
    const uint64_t per_block = cluster_size(c) * 8 / bits;
    const uint64_t index = cluster / per_block, within = cluster % per_block * bits / 8;
    const uint64_t block = index < c->refcount_entries ? block_at(c, index) : 0;
    uint8_t some[8];

    if (block == 0)
        return 0;
    const uint64_t size = bits < 8 ? 1 : bits / 8;
    const pv_status status = read_padded(c, some, size, block + within, PV_QCOW2_REFCOUNT_BLOCK);
    if (status != PV_OK) {
        c->failed = status;
        return 0;
    }
    return refcount_at(some, bits < 8 ? cluster % (8 / bits) : 0, bits);
}

static bool stored_is_one(pv_qcow2_check *c, uint64_t offset)
{
    const uint64_t cluster = offset >> c->image.cluster_bits;
    return (cluster < c->room ? c->cells[cluster].stored : stored_beyond(c, cluster)) == 1;
}

/* -- 2. Everything but L2 tables ----------------------------------------------------------------- */

void pv_qcow2_check_mark(pv_qcow2_check *c, uint64_t offset, uint64_t size,
                         enum pv_qcow2_table owner)
{
    mark(c, offset, size, 1, owner, offset);
}

void pv_qcow2_check_bitmap(pv_qcow2_check *c, const uint8_t *table, size_t entries,
                           uint64_t table_offset)
{
    for (size_t i = 0; i < entries; i++) {
        const uint64_t entry = pv_be64(table + 8 * i), offset = entry & PV_QCOW2_OFFSET;
        const uint64_t at = table_offset + 8 * i;
        if (entry & BITMAP_RESERVED || (offset && entry & 1) || offset & (cluster_size(c) - 1))
            corrupt(c, PV_QCOW2_RESERVED, PV_QCOW2_BITMAP_TABLE, at, entry, 1);
        else if (offset)
            mark(c, offset, cluster_size(c), 1, PV_QCOW2_BITMAP, at);
    }
}

/* Count references to L2 tables before any is read. */
void pv_qcow2_check_l1(pv_qcow2_check *c, const uint8_t *l1, size_t entries, uint64_t l1_offset)
{
    for (size_t i = 0; i < entries; i++) {
        const uint64_t entry = pv_be64(l1 + 8 * i), offset = entry & PV_QCOW2_OFFSET;
        const uint64_t at = l1_offset + 8 * i;
        if (entry == 0)
            continue;
        if (entry & L1_RESERVED)
            corrupt(c, PV_QCOW2_RESERVED, PV_QCOW2_L1, at, entry, 1);
        if (offset & (cluster_size(c) - 1))
            corrupt(c, PV_QCOW2_MISALIGNED, PV_QCOW2_L1, at, offset, 1);
        mark(c, offset, cluster_size(c), 1, PV_QCOW2_L2, at);
        if (offset >> c->image.cluster_bits < c->room)
            c->shared[offset >> c->image.cluster_bits]++;
    }
}

void pv_qcow2_check_blocks(pv_qcow2_check *c)
{
    for (uint64_t i = 0; i < c->refcount_entries; i++) {
        const uint64_t entry = pv_be64(c->refcount_table + 8 * i);
        const uint64_t offset = entry & ~(uint64_t)REFCOUNT_RESERVED;
        const uint64_t at = c->refcount_offset + 8 * i;
        const uint64_t cluster = offset >> c->image.cluster_bits;
        if (entry & REFCOUNT_RESERVED) {
            corrupt(c, PV_QCOW2_RESERVED, PV_QCOW2_REFCOUNT_TABLE, at, entry, 1);
        } else if (offset & (cluster_size(c) - 1)) {
            corrupt(c, PV_QCOW2_MISALIGNED, PV_QCOW2_REFCOUNT_TABLE, at, offset, 1);
        } else if (cluster >= c->clusters) {
            corrupt(c, PV_QCOW2_OUTSIDE, PV_QCOW2_REFCOUNT_TABLE, at, offset, 1);
        } else if (offset != 0) {
            mark(c, offset, cluster_size(c), 1, PV_QCOW2_REFCOUNT_BLOCK, at);
            if ((c->cells[cluster].found & COUNT_MASK) != 1)
                corrupt(c, PV_QCOW2_SHARED_BLOCK, PV_QCOW2_REFCOUNT_TABLE, at, offset, 1);
        }
    }
}

/* -- 3. L2 tables ------------------------------------------------------------------------------- */

/* An L2 table under way. */
typedef struct {
    uint64_t offset, next; /* next: where the cluster would be that continues the one before */
    uint32_t times;
    bool active;
} l2;

static void packed(pv_qcow2_check *c, l2 *t, uint64_t entry, uint64_t bitmap, uint64_t at)
{
    uint32_t size;
    const uint64_t offset = pv_qcow2_packed(&c->image, entry, &size);

    if (entry & PV_QCOW2_COPIED)
        corrupt(c, PV_QCOW2_WRONG_COPIED, PV_QCOW2_L2, at, entry, t->times);
    if (c->image.external || bitmap) {
        corrupt(c, PV_QCOW2_IMPOSSIBLE, PV_QCOW2_L2, at, entry, t->times);
        return;
    }
    mark(c, offset, size, t->times, PV_QCOW2_DATA, at);
    if (t->active) {
        c->allocated++;
        c->compressed++;
        c->fragmented++;
    }
}

static void standard(pv_qcow2_check *c, l2 *t, uint64_t entry, uint64_t bitmap, uint64_t at)
{
    const uint64_t offset = entry & PV_QCOW2_OFFSET, size = cluster_size(c);
    const bool zero = c->image.zero_flag && entry & 1;
    const bool placed = offset != 0 || (c->image.external && entry & PV_QCOW2_COPIED && !zero);

    if (entry & STANDARD_RESERVED || (entry & 1 && !c->image.zero_flag))
        corrupt(c, PV_QCOW2_RESERVED, PV_QCOW2_L2, at, entry, t->times);
    if (!placed) {
        if (!zero && bitmap & UINT32_MAX)
            corrupt(c, PV_QCOW2_IMPOSSIBLE, PV_QCOW2_L2, at, bitmap, t->times);
        return;
    }
    if (bitmap >> 32 & bitmap)
        corrupt(c, PV_QCOW2_IMPOSSIBLE, PV_QCOW2_L2, at, bitmap, t->times);
    if (offset & (size - 1))
        corrupt(c, PV_QCOW2_MISALIGNED, PV_QCOW2_L2, at, offset, t->times);
    if (t->active) {
        const bool one = c->image.external || stored_is_one(c, offset);
        c->allocated++;
        c->fragmented += t->next != 0 && offset != t->next;
        t->next = offset + size;
        /* A table at offset 0 is none, and its flags mean nothing. */
        if (t->offset != 0 && one != ((entry & PV_QCOW2_COPIED) != 0))
            corrupt(c, PV_QCOW2_WRONG_COPIED, PV_QCOW2_L2, at, entry, 1);
    }
    if (!c->image.external)
        mark(c, offset, size, t->times, PV_QCOW2_DATA, at);
}

/* What nearly all entries are: a cluster in the file, aligned, and right. */
static inline bool usual(pv_qcow2_check *c, l2 *t, uint64_t entry, uint64_t most)
{
    const uint64_t offset = entry & PV_QCOW2_OFFSET;
    pv_qcow2_cell *cell = &c->cells[offset >> c->image.cluster_bits];
    const uint32_t none = cell->found >> OWNER_SHIFT == 0;

    if ((entry ^ offset) != PV_QCOW2_COPIED || offset & (cluster_size(c) - 1) ||
        cell->stored != 1 || !none || t->times > most)
        return false;
    cell->found = t->times | (uint32_t)PV_QCOW2_DATA << OWNER_SHIFT;
    c->fragmented += t->next != 0 && offset != t->next;
    t->next = offset + cluster_size(c);
    c->allocated++;
    return true;
}

/* Cells are far apart: ask for them before they are needed. */
static inline void ask(const pv_qcow2_check *c, uint64_t entry)
{
    const uint64_t cluster = (entry & PV_QCOW2_OFFSET) >> c->image.cluster_bits;

    if (entry && cluster < c->room)
        __builtin_prefetch(&c->cells[cluster], 1);
}

enum { AHEAD = 24 };

static inline uint64_t entry_at(const uint8_t *table, size_t i)
{
    uint64_t word;
    memcpy(&word, table + 8 * i, sizeof word);
    return pv_be64((const uint8_t *)&word);
}

/* Which of 64 words are not 0, as bits. */
__attribute__((target_clones("avx2", "default")))
static uint64_t filled(const uint8_t *words)
{
    uint64_t found = 0;

    for (size_t i = 0; i < 64; i++) {
        uint64_t word;
        memcpy(&word, words + 8 * i, sizeof word);
        found |= (uint64_t)(word != 0) << i;
    }
    return found;
}

enum { SOME = 4096 }; /* entries that are listed at once */

/* The numbers of `count` entries of one word or two that say something. */
static size_t list_filled(const uint8_t *table, size_t count, bool pairs, uint16_t *list)
{
    size_t listed = 0;

    for (size_t i = 0; i < count; i += pairs ? 32 : 64) {
        uint64_t bits = filled(table + (pairs ? 16 : 8) * i);
        if (pairs)
            bits = (bits | bits >> 1) & UINT64_C(0x5555555555555555);
        for (; bits != 0; bits &= bits - 1)
            list[listed++] = (uint16_t)(i + ((unsigned)__builtin_ctzll(bits) >> pairs));
    }
    return listed;
}

static void scan_some(pv_qcow2_check *c, l2 *t, size_t first, size_t count)
{
    const size_t words = c->image.extended ? 2 : 1;
    const uint8_t *table = c->table + 8 * words * first;
    const uint64_t most = refcount_max(c), size = c->reader->size;
    const uint64_t last = size >= cluster_size(c) ? size - cluster_size(c) : 0;
    const bool quick = t->active && !c->image.external && !c->image.extended;
    uint16_t list[SOME];
    const size_t listed = list_filled(table, count, c->image.extended, list);

    for (size_t i = 0; i < listed; i++) {
        const size_t index = list[i] * words;
        const uint64_t entry = entry_at(table, index);
        const uint64_t at = t->offset + 8 * (words * first + index);
        if (i + AHEAD < listed)
            ask(c, entry_at(table, list[i + AHEAD] * words));
        if (quick && (entry & PV_QCOW2_OFFSET) <= last && usual(c, t, entry, most))
            continue;
        const uint64_t bitmap = words == 2 ? entry_at(table, index + 1) : 0;
        if (entry & PV_QCOW2_PACKED)
            packed(c, t, entry, bitmap, at);
        else
            standard(c, t, entry, bitmap, at);
    }
}

static void scan(pv_qcow2_check *c, l2 *t)
{
    const size_t count = cluster_size(c) / (c->image.extended ? 16 : 8);

    for (size_t first = 0; first < count; first += SOME)
        scan_some(c, t, first, count - first < SOME ? count - first : SOME);
}

pv_status pv_qcow2_check_l2(pv_qcow2_check *c, const uint8_t *l1, size_t entries,
                            uint64_t l1_offset, bool active)
{
    for (size_t i = 0; i < entries; i++) {
        const uint64_t entry = pv_be64(l1 + 8 * i), offset = entry & PV_QCOW2_OFFSET;
        const uint64_t cluster = offset >> c->image.cluster_bits;
        const bool inside = cluster < c->room;
        l2 t = {offset, 0, 0, active};
        if (active && offset && stored_is_one(c, offset) != ((entry & PV_QCOW2_COPIED) != 0))
            corrupt(c, PV_QCOW2_WRONG_COPIED, PV_QCOW2_L1, l1_offset + 8 * i, entry, 1);
        if (entry == 0 || !inside || c->shared[cluster] == 0)
            continue;
        t.times = c->shared[cluster];
        c->shared[cluster] = 0;
        const pv_status status =
            read_padded(c, c->table, cluster_size(c), offset, PV_QCOW2_L2);
        if (status != PV_OK)
            return status;
        scan(c, &t);
        if (c->failed != PV_OK)
            return c->failed;
    }
    return c->failed;
}

/* -- 4. Compared ---------------------------------------------------------------------------------- */

void pv_qcow2_check_compare(pv_qcow2_check *c)
{
    uint64_t used = 0;

    for (uint64_t i = 0; i < c->clusters; i++) {
        const uint32_t stored = c->cells[i].stored, found = c->cells[i].found & COUNT_MASK;
        if (stored | found)
            used = i + 1;
        if (stored == found)
            continue;
        if (stored < found)
            c->corruptions++;
        else
            c->leaks++;
        tell(c, stored < found ? PV_QCOW2_TOO_LOW : PV_QCOW2_LEAK, PV_QCOW2_REFCOUNT_BLOCK,
             i << c->image.cluster_bits, stored, found);
    }
    c->end_offset = used << c->image.cluster_bits;
}
