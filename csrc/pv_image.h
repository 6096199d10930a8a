/* What everything that reads disk images shares: statuses, byte order, readers and columns.
 *
 * Files of strangers: each number is checked before it is used, each loop is bounded by the
 * size of the file or by the room in the columns, never by a field of a header.
 */
#ifndef PV_IMAGE_H
#define PV_IMAGE_H

#include <stddef.h>
#include <stdint.h>

typedef enum {
    PV_OK,
    PV_CORRUPT,   /* the image breaks its specification at where->offset */
    PV_TRUNCATED, /* the file ended before where->offset + where->value */
    PV_IO,        /* the reader failed; where->value is errno, 0 if the reader knows more */
    PV_FULL,      /* the columns, or another lent buffer, have no room */
    PV_BUSY,      /* more work than a file of this size can be worth */
} pv_status;

/* Where something was wrong: `table` is a number that the door translates into a name. */
typedef struct {
    uint64_t offset, value;
    uint32_t table;
} pv_where;

static inline pv_status pv_fail(pv_where *where, pv_status status, uint64_t offset,
                                uint64_t value, uint32_t table)
{
    where->offset = offset;
    where->value = value;
    where->table = table;
    return status;
}

/* The caller's way to the bytes: fills all of `buffer` or fails with PV_TRUNCATED or PV_IO. */
typedef struct pv_reader {
    pv_status (*read)(void *context, void *buffer, size_t size, uint64_t offset,
                      pv_where *where);
    void *context;
    uint64_t size; /* of the file, when it was opened */
} pv_reader;

/* Flags of an extent. Without PRESENT the layer says nothing about these bytes: the next one
 * decides, and behind the last one they are zeros. */
enum {
    PV_ALLOCATED = 1,  /* bytes are stored for it; QEMU calls it data */
    PV_ZERO = 2,       /* reads as zeros, whatever is stored */
    PV_COMPRESSED = 4, /* one block, `stored` bytes at `host` unpack to its block */
    PV_PRESENT = 8,    /* this layer decides */
    PV_OFFSET = 16,    /* `host` is a place in `file` where as many bytes belong to it */
    PV_ENCRYPTED = 32, /* what is stored must be decrypted */
};

/* Columns lent by the caller: extents in guest order without gaps or overlaps. All columns
 * begin as zeros, and one that would stay zero (depth, file, stored) is never touched. */
typedef struct {
    uint64_t *start, *length, *host;
    uint32_t *stored; /* bytes that a compressed block takes in the file */
    uint16_t *depth, *file;
    uint8_t *flags;
    size_t room, count;
} pv_columns;

/* One extent more, or a longer last one where it goes on. `host` is 0 where there is none. */
pv_status pv_columns_add(pv_columns *to, uint64_t start, uint64_t length, uint64_t host,
                         uint8_t flags, uint16_t depth, uint16_t file);

/* `top` over `below`, both from byte `start` on. Where `top` is not PRESENT, `below` decides
 * with its depths raised by one; beyond the end of `below` zeros are read, as QEMU does. */
pv_status pv_columns_merge(const pv_columns *top, const pv_columns *below, uint64_t below_end,
                           pv_columns *to);

/* There is nothing below: what is not PRESENT reads as zeros. */
void pv_columns_ground(pv_columns *columns);

/* The map of a file: pairs of first byte and end of what has data, ascending. */
typedef struct {
    const uint64_t *data;
    size_t pairs;
} pv_holes;

/* Extents whose bytes lie in a hole of their file get PV_ZERO: those in source `file` of each
 * layer whose map is given (data is not NULL). The first marks those that are all hole where
 * they are, and returns how many more there would be if the others were split; the second
 * splits those. */
size_t pv_columns_mark(pv_columns *columns, const pv_holes *holes, size_t depths, uint16_t file);
pv_status pv_columns_split(const pv_columns *from, const pv_holes *holes, size_t depths,
                           uint16_t file, pv_columns *to);

/* The objects of `qemu-img map --output=json` from extent `*at` on, as many as fit, without
 * the brackets around; returns the bytes written and moves `*at` on. All are written when `*at`
 * is the count and `state`, all zero at first, is no longer open. `compressed` adds the key of
 * QEMU 8.2. */
typedef struct {
    uint64_t start, length, host;
    uint16_t depth, file;
    uint8_t flags, open; /* `open`: an extent is held back because the next may continue it */
} pv_json_state;
size_t pv_columns_json(const pv_columns *from, size_t *at, pv_json_state *state,
                       int compressed, uint8_t *text, size_t room);

/* What the extents amount to, in bytes; `pieces` are places where stored data does not go on in
 * the file as it does in the guest, `touched` how many aligned blocks of `block` bytes have any
 * data that is not known to be zero. */
typedef struct {
    uint64_t allocated, zero, compressed, stored, absent;
    uint64_t pieces, touched;
} pv_columns_totals;
void pv_columns_sum(const pv_columns *from, uint64_t block, pv_columns_totals *totals);

/* The extents of `b` whose content may differ from that of `a`, as their metadata tells: both
 * begin at the same byte and are of the same file. Where one of them ended, it is zeros. */
pv_status pv_columns_diff(const pv_columns *a, const pv_columns *b, pv_columns *to);

static inline uint16_t pv_be16(const uint8_t *p)
{
    return (uint16_t)((p[0] << 8) | p[1]);
}

static inline uint32_t pv_be32(const uint8_t *p)
{
    return ((uint32_t)p[0] << 24) | ((uint32_t)p[1] << 16) | ((uint32_t)p[2] << 8) | p[3];
}

static inline uint64_t pv_be64(const uint8_t *p)
{
    return ((uint64_t)pv_be32(p) << 32) | pv_be32(p + 4);
}

static inline uint16_t pv_le16(const uint8_t *p)
{
    return (uint16_t)((p[1] << 8) | p[0]);
}

static inline uint32_t pv_le32(const uint8_t *p)
{
    return ((uint32_t)p[3] << 24) | ((uint32_t)p[2] << 16) | ((uint32_t)p[1] << 8) | p[0];
}

static inline uint64_t pv_le64(const uint8_t *p)
{
    return ((uint64_t)pv_le32(p + 4) << 32) | pv_le32(p);
}

#endif
