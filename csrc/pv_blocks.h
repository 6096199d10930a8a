/* Block maps: tables whose entries say where each block of a disk lies in its file.
 *
 * All formats but qcow2 have the same table in other clothes: entry i maps guest bytes
 * [i * block, (i + 1) * block); its value, times a unit, plus a base, is an offset in the file,
 * unless the entry is a special number or has a state that says what the block is instead.
 * A directory of tables is a block map as well: its blocks are the tables.
 *
 * Decoded blocks are appended to columns of extents. Neighbours become one extent where nothing
 * tells them apart; a compressed block, or one that a bitmap divides further, stays alone.
 */
#ifndef PV_BLOCKS_H
#define PV_BLOCKS_H

#include <stdbool.h>

#include "pv_image.h"

/* More flags, in rules and not in what users see. */
enum {
    PV_DIVIDED = 0x80, /* a bitmap says which sectors of the block are there */
    PV_INVALID = 0xff, /* no image may have this entry */
};

enum { PV_BLOCK_STATES = 16, PV_BLOCK_SPECIALS = 2 };

/* How to read an entry. value = (entry >> shift & mask) | (entry & high_mask) << high_shift;
 * of a compressed block it is the bits below `packed`, and those above are the size stored. */
typedef struct {
    uint64_t block;      /* guest bytes that an entry maps, not 0 */
    uint64_t base, unit; /* offset of value v: base + v * unit; unit is not 0 */
    uint64_t limit;      /* bytes of the file: no block reaches beyond */
    uint64_t mask, high_mask;
    uint64_t reserved; /* bits that are zero in the entry of every plain block */
    uint32_t stored; /* size of compressed blocks whose entries do not tell it, at most */
    uint64_t period; /* after so many entries one is left out; 0: none */
    struct {
        uint64_t entry;
        uint8_t flags;
    } special[PV_BLOCK_SPECIALS];
    uint8_t specials;
    uint8_t width; /* 4 or 8 bytes */
    bool big;      /* big-endian */
    bool chained;  /* the size stored is the way to the next entry's offset; one more follows */
    uint8_t shift, high_shift;
    uint8_t packed, packed_bits; /* size stored = entry >> packed & (1 << packed_bits) - 1 */
    uint8_t state_shift, state_mask;  /* state = entry >> state_shift & state_mask, at most 15 */
    uint8_t flags[PV_BLOCK_STATES];   /* of a block in each state */
    uint16_t file;                    /* which of the layer's files */
} pv_blocks;

/* Where decoding is, to go on from there with more room or more of the table. */
typedef struct {
    uint64_t index; /* entry, counted from the first of the whole table */
    uint64_t guest; /* where the block of this entry begins */
    uint64_t end;   /* guest bytes end here: the last block may be cut short */
} pv_blocks_at;

/* Decode entries [at->index, first + count), of which `table` holds those from `first` on; stop
 * at at->end. PV_CORRUPT: the entry at->index is one that no image may have; PV_TRUNCATED:
 * its block reaches beyond the file (where: its number, its value). Those before it are done. */
pv_status pv_blocks_decode(const pv_blocks *rule, const uint8_t *table, uint64_t first,
                           size_t count, pv_blocks_at *at, pv_columns *to, pv_where *where);

/* A bitmap of a divided block: a bit for each `sector` bytes from at->guest to at->end, the
 * first one's number is at->index; most significant bit first if `big`. Sectors whose bits are
 * set have the flags `set` and lie from `host` (that of bit 0) on; the others have `clear`.
 * Bits that the bitmap does not hold are clear. */
typedef struct {
    uint64_t sector, host;
    bool big;
    uint8_t set, clear;
    uint16_t file;
} pv_blocks_bitmap;
pv_status pv_blocks_divide(const pv_blocks_bitmap *rule, const uint8_t *bitmap, size_t size,
                           pv_blocks_at *at, pv_columns *to);

#endif
