/* Reference counts of qcow2 images, rebuilt and compared. Call the steps in the order of this
 * file; the caller reads the tables that Python has anyway, and lends all memory. */
#ifndef PV_QCOW2_CHECK_H
#define PV_QCOW2_CHECK_H

#include "pv_qcow2.h"

enum pv_qcow2_fault {
    PV_QCOW2_LEAK = 1,     /* stored more than referred to: found, expected */
    PV_QCOW2_TOO_LOW,      /* stored less than referred to: found, expected */
    PV_QCOW2_OVERLAP,      /* two things that cannot share a cluster do: expected is the other */
    PV_QCOW2_OUTSIDE,      /* refers to what is beyond the file */
    PV_QCOW2_MISALIGNED,
    PV_QCOW2_RESERVED,     /* bits are set that must not be */
    PV_QCOW2_WRONG_COPIED, /* bit 63 and the stored refcount do not agree */
    PV_QCOW2_OVERFLOW,     /* more references than the width of refcounts can tell */
    PV_QCOW2_SHARED_BLOCK, /* a refcount block that something else uses as well */
    PV_QCOW2_IMPOSSIBLE,   /* an L2 entry whose parts contradict each other */
};

typedef struct {
    uint64_t offset, found, expected; /* where it stands; of a refcount: the cluster */
    uint32_t fault, table;
} pv_qcow2_finding;

typedef struct {
    uint32_t stored;
    uint32_t found; /* the owner's table number from bit 28 on, references below */
} pv_qcow2_cell;

typedef struct {
    pv_qcow2 image;
    const pv_reader *reader;
    pv_where where;
    pv_status failed; /* of a read amid a table */

    /* Lent, all zero: a cell for each cluster of the file and one more (`room`), as many
     * numbers, and memory for one cluster. */
    pv_qcow2_cell *cells;
    uint32_t *shared;
    uint8_t *table;
    uint64_t room, clusters; /* clusters: of the file, grows to the last that is referred to */

    const uint8_t *refcount_table;
    uint64_t refcount_entries, refcount_offset;

    pv_qcow2_finding *findings;
    uint64_t findings_room, findings_count, findings_lost;

    uint64_t corruptions, leaks, overlaps;
    uint64_t allocated, fragmented, compressed, end_offset;
} pv_qcow2_check;

pv_status pv_qcow2_check_stored(pv_qcow2_check *c);

/* A reference to all clusters of [offset, offset + size): header, tables of a fixed place. */
void pv_qcow2_check_mark(pv_qcow2_check *c, uint64_t offset, uint64_t size,
                         enum pv_qcow2_table owner);
void pv_qcow2_check_bitmap(pv_qcow2_check *c, const uint8_t *table, size_t entries,
                           uint64_t table_offset);

/* First every L1 table by this, then every one again by the next, the active one first. */
void pv_qcow2_check_l1(pv_qcow2_check *c, const uint8_t *l1, size_t entries, uint64_t l1_offset);
pv_status pv_qcow2_check_l2(pv_qcow2_check *c, const uint8_t *l1, size_t entries,
                            uint64_t l1_offset, bool active);
void pv_qcow2_check_blocks(pv_qcow2_check *c);
void pv_qcow2_check_compare(pv_qcow2_check *c);

/* How many clusters of the file have a refcount; counting ends at `enough`. */
pv_status pv_qcow2_used(pv_qcow2_check *c, uint64_t enough, uint64_t *used);

#endif
