#include "pv_frame.h"

#include <string.h>

const uint8_t pv_frame_preamble[PV_FRAME_PREAMBLE] = {
    0xff, 'p', 'y', 'v', 'i', 'r', 't', ' ', 'a', 'g', 'e', 'n', 't', '\r', '\n', 0,
};

uint16_t pv_frame_u16(const uint8_t *data)
{
    return (uint16_t)(data[0] | data[1] << 8);
}

uint32_t pv_frame_u32(const uint8_t *data)
{
    return (uint32_t)pv_frame_u16(data) | (uint32_t)pv_frame_u16(data + 2) << 16;
}

static void put(uint8_t *out, uint64_t value, int size)
{
    for (int i = 0; i < size; i++)
        out[i] = (uint8_t)(value >> 8 * i);
}

size_t pv_frame_hunt(const uint8_t *data, size_t size, bool *found)
{
    size_t at = 0;

    *found = false;
    while (at < size) {
        const uint8_t *first = memchr(data + at, pv_frame_preamble[0], size - at);
        if (first == NULL)
            return size;
        at = (size_t)(first - data);
        const size_t have = size - at < PV_FRAME_PREAMBLE ? size - at : PV_FRAME_PREAMBLE;
        if (memcmp(first, pv_frame_preamble, have) == 0) {
            *found = have == PV_FRAME_PREAMBLE;
            return *found ? at + have : at;
        }
        at++;
    }
    return size;
}

pv_frame_status pv_frame_read(const uint8_t *data, size_t size, pv_frame *frame)
{
    if (size < PV_FRAME_HEADER)
        return PV_FRAME_MORE;
    frame->length = pv_frame_u32(data);
    frame->stream = pv_frame_u32(data + 4);
    frame->kind = data[8];
    frame->channel = data[9];
    if (frame->length > PV_FRAME_PAYLOAD || frame->kind == 0 || frame->kind >= PV_KINDS ||
        frame->channel > 2 || pv_frame_u16(data + 10) != 0)
        return PV_FRAME_BAD;
    return size - PV_FRAME_HEADER < frame->length ? PV_FRAME_MORE : PV_FRAME_OK;
}

void pv_frame_write(uint8_t header[PV_FRAME_HEADER], const pv_frame *frame)
{
    put(header, frame->length, 4);
    put(header + 4, frame->stream, 4);
    header[8] = frame->kind;
    header[9] = frame->channel;
    put(header + 10, 0, 2);
}

pv_frame_status pv_field_next(const uint8_t *data, size_t size, size_t *offset, pv_field *field)
{
    const size_t left = size - *offset;

    if (left == 0)
        return PV_FRAME_MORE;
    if (left < PV_FIELD_HEADER)
        return PV_FRAME_BAD;
    data += *offset;
    field->tag = data[0];
    field->size = pv_frame_u32(data) >> 8;
    field->data = data + PV_FIELD_HEADER;
    if (field->size > left - PV_FIELD_HEADER)
        return PV_FRAME_BAD;
    *offset += PV_FIELD_HEADER + field->size;
    return PV_FRAME_OK;
}

bool pv_field_check(const uint8_t *data, size_t size)
{
    pv_frame_status status;
    pv_field field;
    size_t offset = 0;

    do
        status = pv_field_next(data, size, &offset, &field);
    while (status == PV_FRAME_OK);
    return status == PV_FRAME_MORE;
}

uint64_t pv_field_number(const pv_field *field)
{
    if (field->size != 8)
        return 0;
    return pv_frame_u32(field->data) | (uint64_t)pv_frame_u32(field->data + 4) << 32;
}

void pv_fields_bytes(pv_fields *fields, uint8_t tag, const void *data, size_t size)
{
    const size_t left = fields->room - fields->size;

    if (left < PV_FIELD_HEADER || size > left - PV_FIELD_HEADER || size >> 24) {
        fields->full = true;
        return;
    }
    uint8_t *at = fields->data + fields->size;
    put(at, tag | (uint64_t)size << 8, 4);
    if (size > 0)
        memcpy(at + PV_FIELD_HEADER, data, size);
    fields->size += PV_FIELD_HEADER + size;
}

void pv_fields_text(pv_fields *fields, uint8_t tag, const char *text)
{
    pv_fields_bytes(fields, tag, text, strlen(text));
}

void pv_fields_number(pv_fields *fields, uint8_t tag, uint64_t number)
{
    uint8_t bytes[8];

    put(bytes, number, 8);
    pv_fields_bytes(fields, tag, bytes, sizeof bytes);
}

size_t pv_fields_begin(pv_fields *fields, uint8_t tag)
{
    const size_t begun = fields->size;

    pv_fields_bytes(fields, tag, NULL, 0);
    return begun;
}

/* A field whose inside did not fit whole is taken out again, so that the rest stays true. */
void pv_fields_end(pv_fields *fields, size_t begun)
{
    if (fields->full)
        fields->size = begun;
    else
        put(fields->data + begun + 1, fields->size - begun - PV_FIELD_HEADER, 3);
}
