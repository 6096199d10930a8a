/* The framing of the agent protocol: whole, cut at every length, damaged. Built with
 * -DFUZZ it is a libFuzzer target instead. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pv_frame.h"

/* Follow a stream the way the agent does; every byte is either dropped or part of a frame. */
static size_t follow(const uint8_t *data, size_t size)
{
    size_t at = 0, frames = 0;
    bool found;

    while (at < size) {
        pv_frame frame;
        at += pv_frame_hunt(data + at, size - at, &found);
        assert(at <= size);
        if (!found)
            return frames;
        while (pv_frame_read(data + at, size - at, &frame) == PV_FRAME_OK) {
            size_t offset = 0, fields = 0;
            pv_field field;
            const uint8_t *payload = data + at + PV_FRAME_HEADER;
            while (pv_field_next(payload, frame.length, &offset, &field) == PV_FRAME_OK) {
                assert(field.data + field.size == payload + offset);
                (void)pv_field_number(&field);
                fields++;
            }
            assert(fields <= frame.length / PV_FIELD_HEADER);
            assert(!pv_field_check(payload, frame.length) || offset == frame.length);
            at += PV_FRAME_HEADER + frame.length;
            frames++;
        }
    }
    return frames;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    follow(data, size);
    return 0;
}

#ifndef FUZZ
static size_t build(uint8_t *out, size_t room)
{
    uint8_t payload[200];
    pv_fields fields = {payload, sizeof payload, 0, false};
    size_t size = 0;

    memcpy(out, pv_frame_preamble, PV_FRAME_PREAMBLE);
    size += PV_FRAME_PREAMBLE;
    pv_fields_number(&fields, PV_TAG_VERSION, 0x0123456789abcdef);
    size_t begun = pv_fields_begin(&fields, PV_TAG_INTERFACE);
    pv_fields_text(&fields, PV_TAG_NAME, "eth0");
    pv_fields_end(&fields, begun);
    assert(!fields.full && pv_field_check(payload, fields.size));
    for (uint32_t stream = 1; stream <= 3; stream++) {
        pv_frame frame = {(uint32_t)fields.size, stream, PV_EXEC, 0};
        assert(size + PV_FRAME_HEADER + fields.size <= room);
        pv_frame_write(out + size, &frame);
        memcpy(out + size + PV_FRAME_HEADER, payload, fields.size);
        size += PV_FRAME_HEADER + fields.size;
    }
    return size;
}

/* An exact copy on the heap, so that AddressSanitizer sees a read behind its end. */
static size_t follow_copy(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    assert(copy != NULL);
    memcpy(copy, data, size);
    size_t frames = follow(copy, size);
    free(copy);
    return frames;
}

static void test_nested_fields_read_back(void)
{
    uint8_t stream[600];
    pv_field field, inner;
    size_t offset = 0, within = 0;

    build(stream, sizeof stream);
    const uint8_t *payload = stream + PV_FRAME_PREAMBLE + PV_FRAME_HEADER;
    const size_t size = pv_frame_u32(stream + PV_FRAME_PREAMBLE);
    assert(pv_field_next(payload, size, &offset, &field) == PV_FRAME_OK);
    assert(pv_field_number(&field) == 0x0123456789abcdef);
    assert(pv_field_next(payload, size, &offset, &field) == PV_FRAME_OK);
    assert(field.tag == PV_TAG_INTERFACE);
    assert(pv_field_next(field.data, field.size, &within, &inner) == PV_FRAME_OK);
    assert(inner.tag == PV_TAG_NAME && inner.size == 4 && !memcmp(inner.data, "eth0", 4));
    assert(pv_field_next(payload, size, &offset, &field) == PV_FRAME_MORE);
}

static void test_cut_at_every_length(void)
{
    uint8_t stream[600];
    const size_t size = build(stream, sizeof stream);
    const size_t one = (size - PV_FRAME_PREAMBLE) / 3;

    for (size_t cut = 0; cut <= size; cut++) {
        size_t whole = cut < PV_FRAME_PREAMBLE ? 0 : (cut - PV_FRAME_PREAMBLE) / one;
        assert(follow_copy(stream, cut) == whole);
    }
}

static void test_preamble_is_found_behind_anything(void)
{
    uint8_t stream[700];

    for (size_t junk = 0; junk < 64; junk++) {
        memset(stream, 0xff, junk);
        memcpy(stream + junk / 2, pv_frame_preamble, junk - junk / 2 < 9 ? junk - junk / 2 : 9);
        const size_t size = build(stream + junk, sizeof stream - junk);
        assert(follow_copy(stream, junk + size) == 3);
    }
}

static void test_preamble_is_no_header(void)
{
    pv_frame frame;
    assert(pv_frame_read(pv_frame_preamble, PV_FRAME_PREAMBLE, &frame) == PV_FRAME_BAD);
}

static void test_damage(void)
{
    uint8_t stream[600];

    srand(1);
    for (int round = 0; round < 20000; round++) {
        size_t size = build(stream, sizeof stream);
        for (int hit = 0; hit < 3; hit++)
            stream[(size_t)rand() % size] = (uint8_t)rand();
        follow_copy(stream, size);
    }
}

static void test_full_buffer_keeps_what_fitted(void)
{
    for (size_t room = 0; room < 40; room++) {
        uint8_t *data = malloc(room ? room : 1);
        pv_fields fields = {data, room, 0, false};
        pv_fields_number(&fields, PV_TAG_PID, 1);
        size_t begun = pv_fields_begin(&fields, PV_TAG_LOGIN);
        pv_fields_text(&fields, PV_TAG_NAME, "root");
        pv_fields_end(&fields, begun);
        assert(fields.full == (room < 24));
        assert(fields.size == (room >= 24 ? 24 : room >= 12 ? 12 : 0) || room < 12);
        assert(pv_field_check(data, fields.size));
        free(data);
    }
}

int main(void)
{
    test_nested_fields_read_back();
    test_cut_at_every_length();
    test_preamble_is_found_behind_anything();
    test_preamble_is_no_header();
    test_damage();
    test_full_buffer_keeps_what_fitted();
    puts("frame: ok");
    return 0;
}
#endif
