/* Finds and tells apart QMP messages in a stream of bytes. */
#ifndef PV_QMP_H
#define PV_QMP_H

#include <stddef.h>
#include <stdint.h>

/* QEMU's own JSON parser nests this deep and no deeper (json-streamer.c). */
#define PV_QMP_MAX_DEPTH 1024

typedef enum {
    PV_QMP_OK,
    PV_QMP_GARBAGE,  /* a byte that no message has there */
    PV_QMP_DEEP,     /* nested deeper than allowed */
    PV_QMP_LONG,     /* longer than allowed */
    PV_QMP_UTF8,     /* not UTF-8 */
    PV_QMP_KIND,     /* neither greeting, reply nor event, or two of them */
} pv_qmp_status;

typedef enum { PV_QMP_NOTHING, PV_QMP_GREETING, PV_QMP_RETURN, PV_QMP_ERROR, PV_QMP_EVENT } pv_qmp_kind;

/* One whole message; offsets count from the start of the buffer, an `_end` is the byte
 * after. A range that is not there has both its ends 0. */
typedef struct {
    uint32_t kind;
    uint32_t depth;              /* how deep it nests */
    uint32_t start, end;
    uint32_t value, value_end;   /* what "QMP", "return", "error" or "event" holds */
    uint32_t id, id_end;
} pv_qmp_message;

/* Where the reader stands. All zero is a good beginning; the buffer may move between
 * calls when `start` and `at` are lowered by the same amount (pv_qmp_moved). */
typedef struct {
    uint64_t unwanted;           /* events passed over because nobody wants them */
    uint32_t at;                 /* the next byte to look at */
    uint32_t start;              /* where the unfinished message begins; == at between two */
    uint32_t depth, deepest;
    uint32_t place;
    uint32_t expect;
    uint32_t wide;               /* the message has bytes beyond ASCII */
    uint32_t key, key_end, value;/* the member under way; from here on relative to `start` */
    pv_qmp_message found;
    uint64_t shape[PV_QMP_MAX_DEPTH / 64];  /* a bit a level: 1 is an array */
} pv_qmp_state;

typedef struct {
    uint32_t size;               /* most bytes of one message */
    uint32_t depth;              /* deepest nesting, at most PV_QMP_MAX_DEPTH */
} pv_qmp_limits;

/* Read on in `buffer` from state->at and store whole messages in `out`, at most `cap`.
 * Events are stored only when `wanted`, names each ended by a newline, holds theirs; NULL
 * wants all. Stops when the bytes are used up, when `out` is full, or at the first fault:
 * then `where` is its offset, and the state is of no further use. */
pv_qmp_status pv_qmp_scan(pv_qmp_state *state, const pv_qmp_limits *limits,
                          const uint8_t *buffer, size_t size,
                          const uint8_t *wanted, size_t wanted_size,
                          pv_qmp_message *out, size_t cap, size_t *count, size_t *where);

/* The caller dropped the bytes before state->start. */
void pv_qmp_moved(pv_qmp_state *state);

#endif
