/* What a guest reads: its bytes, found by a map of extents that covers the whole chain. */
#ifndef PV_CONTENT_H
#define PV_CONTENT_H

#include "pv_image.h"

/* How many more statuses reading has. */
enum { PV_BLOCK = 100 /* only a part of a block is wanted, or the caller must unpack it */ };

/* Libraries that the caller found, with the state of one thread in `context`. */
typedef struct {
    /* Unpack to exactly `size` bytes, or fail with PV_CORRUPT. */
    pv_status (*unpack)(void *context, int codec, const uint8_t *from, size_t stored,
                        uint8_t *to, size_t size);
    /* Decrypt in place; the first byte is the cipher's byte `place`. */
    pv_status (*decrypt)(void *context, void *cipher, uint8_t *data, size_t size,
                         uint64_t place);
    void *context;
    uint8_t *stored; /* lent memory for a packed block */
    size_t room;
} pv_work;

/* One file of the chain, as the columns `depth` and `file` name it. */
typedef struct {
    pv_reader reader;
    /* Bytes from the file's end up to here are zeros: the last block may be cut short. */
    uint64_t limit;
    uint64_t block;    /* bytes that a packed block unpacks to */
    int codec;         /* 0: the caller unpacks */
    void *cipher;      /* NULL: encrypted bytes cannot be read */
    uint32_t sector;   /* bytes that are decrypted together */
    uint8_t by_guest;  /* the cipher counts guest bytes, not those of the file */
    uint64_t payload;  /* where the cipher begins to count */
} pv_origin;

typedef struct {
    const pv_columns *map;
    const uint32_t *buckets; /* the extent of byte i << shift, one more at the end */
    unsigned shift;
    uint64_t size;
    const pv_origin *origins;
    const uint32_t *first; /* origin of file 0 of each depth */
} pv_content;

/* Fill `buckets`: (size - 1 >> shift) + 2 of them. */
void pv_content_index(const pv_columns *map, unsigned shift, uint64_t size, uint32_t *buckets);

/* The extent that `guest`, less than the size, lies in. */
size_t pv_content_find(const pv_content *content, uint64_t guest);

static inline const pv_origin *pv_content_origin(const pv_content *content, size_t extent)
{
    const pv_columns *map = content->map;
    return content->origins + content->first[map->depth[extent]] + map->file[extent];
}

/* Guest bytes [offset, offset + size), which end within the disk, to `to`; `*done` of them
 * are there when this fails. PV_BLOCK: the next bytes lie in a packed block, `*extent`, which
 * the caller must unpack. */
pv_status pv_content_read(const pv_content *content, const pv_work *work, uint64_t offset,
                          size_t size, uint8_t *to, size_t *done, size_t *extent,
                          pv_where *where);

/* `size` bytes at `offset` of a file; what lies between its end and its limit are zeros. */
pv_status pv_origin_read(const pv_origin *origin, uint8_t *to, size_t size, uint64_t offset,
                         pv_where *where);

/* A packed block: `stored` bytes at `host` to all of its bytes. */
pv_status pv_origin_unpack(const pv_origin *origin, const pv_work *work, uint64_t host,
                           uint32_t stored, uint8_t *to, pv_where *where);

/* One of two contents that are compared: its map, and numbers that are equal where files are
 * the same, as `first` counts them. */
typedef struct {
    const pv_columns *map;
    const uint32_t *first;
    const uint32_t *same;
} pv_side;

/* The parts of guest bytes [0, end) that may differ, as far as the maps tell: not those that
 * are zeros on both sides, or the same bytes of the same file. Flag 1: `a` has data; 2: `b`. */
pv_status pv_content_suspects(const pv_side *a, const pv_side *b, uint64_t end, pv_columns *to);

/* Add the sectors in which `a` and `b`, both guest bytes from `guest` on, differ. */
pv_status pv_content_changes(const uint8_t *a, const uint8_t *b, size_t size, uint64_t guest,
                             pv_columns *to);

/* The length of the run of zeros (`*zero` is 1) or of other bytes that `data` begins with, in
 * steps of 4096 bytes. */
size_t pv_content_run(const uint8_t *data, size_t size, int *zero);

/* The first byte that differs, or `size`. */
size_t pv_content_differs(const uint8_t *a, const uint8_t *b, size_t size);

#endif
