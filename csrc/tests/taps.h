/* Numbers from a fuzzer's bytes, zeros behind their end. */
#ifndef TAPS_H
#define TAPS_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint8_t *data;
    size_t size;
} taps;

static uint64_t tap(taps *from, int bytes)
{
    uint64_t value = 0;

    for (int i = 0; i < bytes; i++) {
        if (from->size == 0)
            return value;
        value = value << 8 | *from->data++;
        from->size--;
    }
    return value;
}

#endif
