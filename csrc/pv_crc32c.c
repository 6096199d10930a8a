#include "pv_crc32c.h"

void pv_crc32c_prepare(pv_crc32c_tables *tables)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0x82f63b78) : 0);
        tables->table[0][byte] = crc;
    }
    for (int slice = 1; slice < 8; slice++)
        for (int byte = 0; byte < 256; byte++) {
            const uint32_t before = tables->table[slice - 1][byte];
            tables->table[slice][byte] = before >> 8 ^ tables->table[0][before & 0xff];
        }
}

uint32_t pv_crc32c(const pv_crc32c_tables *tables, uint32_t crc, const uint8_t *data, size_t size)
{
    const uint32_t(*table)[256] = tables->table;

    crc = ~crc;
    for (; size >= 8; data += 8, size -= 8) {
        const uint32_t low = crc ^ ((uint32_t)data[0] | (uint32_t)data[1] << 8 |
                                    (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24);
        crc = table[7][low & 0xff] ^ table[6][low >> 8 & 0xff] ^ table[5][low >> 16 & 0xff] ^
              table[4][low >> 24] ^ table[3][data[4]] ^ table[2][data[5]] ^ table[1][data[6]] ^
              table[0][data[7]];
    }
    for (; size; data++, size--)
        crc = crc >> 8 ^ table[0][(crc ^ *data) & 0xff];
    return ~crc;
}
