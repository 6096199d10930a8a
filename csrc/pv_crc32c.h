/* CRC-32C (Castagnoli), as VHDX, btrfs and iSCSI use it: eight bytes at a time by tables. */
#ifndef PV_CRC32C_H
#define PV_CRC32C_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t table[8][256];
} pv_crc32c_tables;

void pv_crc32c_prepare(pv_crc32c_tables *tables);

/* `crc` is 0, or the result for the bytes in front of `data`. */
uint32_t pv_crc32c(const pv_crc32c_tables *tables, uint32_t crc, const uint8_t *data, size_t size);

#endif
