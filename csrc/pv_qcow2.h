/* qcow2, versions 2 and 3: guest to host by L1 and L2 tables, and reference counts. */
#ifndef PV_QCOW2_H
#define PV_QCOW2_H

#include <stdbool.h>

#include "pv_image.h"

/* Offsets in entries of L1, L2, refcount and bitmap tables, and their other bits. */
#define PV_QCOW2_OFFSET 0x00fffffffffffe00u
#define PV_QCOW2_COPIED 0x8000000000000000u
#define PV_QCOW2_PACKED 0x4000000000000000u

enum pv_qcow2_table {
    PV_QCOW2_NO_TABLE,
    PV_QCOW2_HEADER,
    PV_QCOW2_L1,
    PV_QCOW2_L2,
    PV_QCOW2_REFCOUNT_TABLE,
    PV_QCOW2_REFCOUNT_BLOCK,
    PV_QCOW2_SNAPSHOTS,
    PV_QCOW2_BITMAP_DIRECTORY,
    PV_QCOW2_BITMAP_TABLE,
    PV_QCOW2_BITMAP,
    PV_QCOW2_CRYPTO,
    PV_QCOW2_DATA,
};

/* What the header says, already found to be possible. */
typedef struct {
    uint64_t size;         /* guest bytes of the active disk, or of the snapshot */
    uint8_t cluster_bits;  /* 9 to 21; with extended L2 entries 14 to 21 */
    uint8_t refcount_bits; /* 1 to 64 */
    bool zero_flag;        /* bit 0 of an L2 entry means zeros: not in version 2 */
    bool extended;         /* L2 entries have 16 bytes, with subclusters */
    bool external;         /* clusters are in source 1, at their guest offset */
    bool encrypted;
} pv_qcow2;

/* Extents of guest bytes [start, stop), in whole clusters, the last cut at image->size. `l1`
 * is the table's `entries` as they are in the file, at `l1_offset`; `table` is lent memory of
 * one cluster. */
pv_status pv_qcow2_extents(const pv_qcow2 *image, const pv_reader *reader, const uint8_t *l1,
                           size_t entries, uint64_t l1_offset, uint64_t start, uint64_t stop,
                           uint8_t *table, pv_columns *to, pv_where *where);

/* One image of a chain whose images all have the same shape. */
typedef struct {
    const pv_reader *reader;
    const uint8_t *l1;
    size_t entries;
    uint64_t l1_offset;
} pv_qcow2_layer;

/* The same for a whole chain, top first, none of whose images ends before `stop`: standard L2
 * entries, no data file. `lent` has room for three clusters. `layer` is the one at fault. */
pv_status pv_qcow2_flatten(const pv_qcow2 *image, const pv_qcow2_layer *layers, size_t count,
                           uint64_t start, uint64_t stop, uint8_t *lent, pv_columns *to,
                           size_t *layer, pv_where *where);

/* `size` bytes of a persistent bitmap, whose table of `entries` is at `table_offset`. */
pv_status pv_qcow2_bitmap(const pv_qcow2 *image, const pv_reader *reader, const uint8_t *table,
                          size_t entries, uint64_t table_offset, uint8_t *bits, size_t size,
                          pv_where *where);

/* Starts and lengths of the runs of set bits, the least significant of a byte first, up to guest
 * byte `end`; a bit stands for 1 << granularity_bits bytes, at most 31, and bits for less than
 * 2^63. Room for one more than half of the bits is always enough. */
pv_status pv_qcow2_dirty(const uint8_t *bits, size_t size, unsigned granularity_bits,
                         uint64_t end, pv_columns *to);

/* The place and the size of a compressed cluster, from its L2 entry. */
static inline uint64_t pv_qcow2_packed(const pv_qcow2 *image, uint64_t entry, uint32_t *stored)
{
    const unsigned shift = 62 - (image->cluster_bits - 8u);
    const uint64_t sectors = (entry & (PV_QCOW2_PACKED - 1)) >> shift;
    const uint64_t offset = entry & (((uint64_t)1 << shift) - 1);

    *stored = (uint32_t)((sectors + 1) * 512 - offset % 512);
    return offset;
}

#endif
