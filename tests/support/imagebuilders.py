"""Small images of formats, and of kinds, that QEMU's tools read but do not write, or neither."""

from __future__ import annotations

import base64
import bz2
import hashlib
import json
import lzma
import struct
import uuid
import zlib
from collections.abc import Mapping, Sequence

from pyvirt._native.crc32c import crc32c

SECTOR = 512
MIB = 1 << 20


def padded(data: bytes, unit: int = SECTOR) -> bytes:
    return data + bytes(-len(data) % unit)


def bochs(blocks: Mapping[int, Mapping[int, bytes]], count: int, extent: int = 4096) -> bytes:
    """A growing redolog; `blocks` maps extents to their sectors' contents."""
    sectors = extent // SECTOR
    head = struct.pack(
        "<32s16s16sIIIIIIQ",
        b"Bochs Virtual HD Image",
        b"Redolog",
        b"Growing",
        0x20000,
        512,
        count,
        SECTOR,
        extent,
        0,
        count * extent,
    )
    catalog = [0xFFFFFFFF] * count
    data = b""
    for number, (block, content) in enumerate(blocks.items()):
        catalog[block] = number
        bits = sum(1 << sector for sector in content)
        data += padded(bits.to_bytes(sectors // 8 or 1, "little"))
        data += b"".join(content.get(n, b"\xee" * SECTOR) for n in range(sectors))
    return padded(head) + struct.pack(f"<{count}I", *catalog) + data


def cloop(content: bytes, block: int = 4096) -> bytes:
    """`content`, whole blocks of it, compressed."""
    script = (
        b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
    )
    blocks = [zlib.compress(content[n : n + block]) for n in range(0, len(content), block)]
    at = 136 + 8 * (len(blocks) + 1)
    offsets = [at + sum(map(len, blocks[:n])) for n in range(len(blocks) + 1)]
    head = script.ljust(128, b"\0") + struct.pack(">II", block, len(blocks))
    return head + struct.pack(f">{len(offsets)}Q", *offsets) + b"".join(blocks)


DMG_KINDS = {"zero": 0, "raw": 1, "ignore": 2, "adc": 0x80000004, "zlib": 0x80000005,
             "bzip2": 0x80000006, "lzfse": 0x80000007, "lzma": 0x80000008}  # fmt: skip


def dmg(chunks: Sequence[tuple[str, bytes]], *, resources: bool = False) -> bytes:
    """Chunks of whole sectors behind one another; kinds as in `DMG_KINDS`."""
    packers = {"raw": bytes, "zlib": zlib.compress, "bzip2": bz2.compress, "adc": adc_literal,
               "lzma": lzma.compress, "lzfse": bytes}  # fmt: skip
    fork, entries, sector = b"", [], 0
    for kind, content in chunks:
        stored = packers[kind](content) if kind in packers else b""
        count = len(content) // SECTOR
        entries.append((DMG_KINDS[kind], 0, sector, count, len(fork), len(stored)))
        fork += stored
        sector += count
    entries.append((0xFFFFFFFF, 0, sector, 0, len(fork), 0))
    table = b"mish" + struct.pack(">IQQQII", 1, 0, sector, 0, 0, 0)
    table = table.ljust(200, b"\0") + struct.pack(">I", len(entries))
    table += b"".join(struct.pack(">IIQQQQ", *entry) for entry in entries)
    if resources:
        tables = struct.pack(">I", len(table)) + table
        tables = struct.pack(">IIII", 256, 0, len(tables), 0).ljust(256, b"\0") + tables
    else:
        text = base64.encodebytes(table)
        tables = b"<plist><dict><key>blkx</key><array><data>\n" + text + b"</data></array></plist>"
    places = (len(fork), len(tables), 0, 0) if resources else (0, 0, len(fork), len(tables))
    koly = b"koly" + struct.pack(">III", 4, 512, 1)
    koly += struct.pack(">QQQQQII", 0, 0, len(fork), places[0], places[1], 1, 1)
    koly = koly.ljust(216, b"\0") + struct.pack(">QQ", places[2], places[3])
    koly = koly.ljust(488, b"\0") + struct.pack(">IQ", 1, sector)
    return fork + tables + koly.ljust(512, b"\0")


def adc_literal(content: bytes) -> bytes:
    """ADC: a literal byte, then copies of it where the content repeats it, else literals."""
    if content == content[:1] * len(content):
        out, left = b"\x80" + content[:1], len(content) - 1
        while left >= 4:
            count = min(left, 67)
            out += bytes([0x40 + count - 4, 0, 0])
            left -= count
        return out + b"".join(b"\x80" + content[:1] for _ in range(left))
    parts = [content[n : n + 128] for n in range(0, len(content), 128)]
    return b"".join(bytes([0x7F + len(part)]) + part for part in parts)


def cowd(grains: Mapping[int, bytes], count: int, grain: int = 8) -> bytes:
    """A sparse extent of ESX: one grain table for `count` grains of `grain` sectors."""
    head = b"COWD" + struct.pack("<IIIIIII", 1, 3, count * grain, grain, 4, 1, 0)
    entries = [0] * 4096
    data = b""
    first = 5 + 4096 * 4 // SECTOR
    for block, content in grains.items():
        entries[block] = first + len(data) // SECTOR
        data += content
    directory = padded(struct.pack("<I", 5))
    return head.ljust(4 * SECTOR, b"\0") + directory + struct.pack("<4096I", *entries) + data


def sesparse(grains: Mapping[int, bytes | None], count: int) -> bytes:
    """A seSparse extent of `count` grains of 4 KiB; None is a grain that was zeroed."""
    table = [0] * 4096
    data = b""
    for block, content in grains.items():
        number = len(data) // 4096
        if content is None:
            table[block] = 0x2 << 60
        else:
            table[block] = 0x3 << 60 | (number & 0xFFF) << 48 | number >> 12
            data += content
    # Sectors: header 0, volatile header 1, directory 8, table 16..79, grains from 80.
    sizes = (1, 1, 2, 1, 3, 1, 8, 8, 16, 64, 0, 0, 0, 0, 80, len(data) // SECTOR)
    head = struct.pack("<6Q", 0xCAFEBABE, 0x200000001, count * 8, 8, 64, 0) + bytes(32)
    head += struct.pack("<16Q", *sizes)
    volatile = struct.pack("<4Q", 0xCAFECAFE, 0, 0, 0)
    directory = struct.pack("<Q", 0x1 << 60).ljust(8 * SECTOR, b"\0")
    start = (padded(head) + padded(volatile)).ljust(8 * SECTOR, b"\0")
    return start + directory + struct.pack("<4096Q", *table) + data


def descriptor(
    create_type: str, lines: Sequence[str], *, cid: int = 1, parent: tuple[int, str] | None = None
) -> bytes:
    """The text of a VMDK descriptor."""
    hint = f'parentFileNameHint="{parent[1]}"\n' if parent else ""
    text = (
        f"# Disk DescriptorFile\nversion=1\nCID={cid:08x}\n"
        f"parentCID={parent[0] if parent else 0xFFFFFFFF:08x}\n"
        f'createType="{create_type}"\n{hint}' + "\n".join(lines) + '\nddb.adapterType = "ide"\n'
    )
    return text.encode()


def vdi(
    blocks: Mapping[int, bytes | None], count: int, *, block: int = 4096, link: uuid.UUID | None
) -> bytes:
    """A VDI image; None is a block of zeros. With `link` it is a differencing one."""
    entries = [0xFFFFFFFF] * count
    data = b""
    for number, content in blocks.items():
        entries[number] = 0xFFFFFFFE if content is None else len(data) // block
        data += content or b""
    offset = 512 + -(-4 * count // SECTOR) * SECTOR
    head = b"<<< builder >>>\n".ljust(64, b"\0")
    head += struct.pack("<IIIII", 0xBEDA107F, 0x10001, 400, 4 if link else 1, 0) + bytes(256)
    head += struct.pack("<IIIIIIIQIIII", 512, offset, 0, 0, 0, 512, 0, count * block, block, 0,
                        count, len(data) // block)  # fmt: skip
    head += uuid.UUID(int=1).bytes_le + bytes(16)
    head += (link.bytes_le if link else bytes(16)) + bytes(16)
    return padded(head) + padded(struct.pack(f"<{count}I", *entries)) + data


def _summed(data: bytes, field: int) -> bytes:
    value = ~(sum(data) - sum(data[field : field + 4])) & 0xFFFFFFFF
    return data[:field] + struct.pack(">I", value) + data[field + 4 :]


def vhd_differencing(
    blocks: Mapping[int, Mapping[int, bytes]], count: int, parent: str, block: int = 4096
) -> bytes:
    """A differencing VHD: `blocks` maps blocks to their sectors' contents."""
    size = count * block
    footer = b"conectix" + struct.pack(">IIQI4sI4sQQHBBI", 2, 0x10000, 512, 0, b"win ", 0x10000,
                                       b"Wi2k", size, size, 1, 1, 1, 4)  # fmt: skip
    footer = _summed((footer + bytes(4) + bytes(range(16))).ljust(512, b"\0"), 64)
    name = parent.encode("utf-16-le")
    bat_at, name_at = 2048, 2048 + -(-4 * count // SECTOR) * SECTOR
    head = b"cxsparse" + struct.pack(">QQIII", 0xFFFFFFFFFFFFFFFF, bat_at, 0x10000, count, block)
    head += bytes(4) + bytes(range(16, 32)) + bytes(8)
    head += parent.encode("utf-16-be").ljust(512, b"\0")
    head += b"W2ru" + struct.pack(">IIIQ", 512, len(name), 0, name_at)
    head = _summed(head.ljust(1024, b"\0"), 36)
    entries, data, first = [0xFFFFFFFF] * count, b"", (name_at + 512) // SECTOR
    for number, content in blocks.items():
        entries[number] = first + len(data) // SECTOR
        bits = sum(1 << sector // 8 * 8 + 7 - sector % 8 for sector in content)
        data += padded(bits.to_bytes(SECTOR, "little"))
        data += b"".join(content.get(n, b"\xee" * SECTOR) for n in range(block // SECTOR))
    table = padded(struct.pack(f">{count}I", *entries))
    start = (footer + head).ljust(bat_at, b"\0")
    return start + table + padded(name) + data + footer


_GUIDS = {
    "bat": "2dc27766-f623-4200-9d64-115e9bfd4a08",
    "metadata": "8b7ca206-4790-4b9a-b8fe-575f050f886e",
    "parameters": "caa16737-fa36-4d43-b3b6-33f0aa44e76b",
    "size": "2fa54224-cd1b-4876-b211-5dbed83bf4b8",
    "id": "beca12ab-b2e6-4523-93ef-c309e000c746",
    "logical": "8141bf1d-a96f-4709-ba47-f233a8faab5f",
    "physical": "cda348c7-445d-4471-9cc9-e9885251c556",
    "locator": "a8d35f2d-b30b-454d-abf7-d3d84834ab0c",
    "parent": "b04aefb7-d19e-4a81-b789-25b8e9445913",
}
GUID = {name: uuid.UUID(text).bytes_le for name, text in _GUIDS.items()}
LOG_GUID = uuid.UUID(int=77)


def checksummed(data: bytes) -> bytes:
    """A VHDX structure with its checksum at byte 4."""
    blank = data[:4] + bytes(4) + data[8:]
    return data[:4] + struct.pack("<I", crc32c(blank)) + data[8:]


def vhdx_header(sequence: int, log: tuple[int, int] | None) -> bytes:
    guid = LOG_GUID.bytes_le if log else bytes(16)
    offset, length = log or (MIB, MIB)
    head = b"head" + bytes(4) + struct.pack("<Q", sequence) + bytes(32) + guid
    return checksummed((head + struct.pack("<HHIQ", 0, 1, length, offset)).ljust(4096, b"\0"))


def vhdx_differencing(
    blocks: Mapping[int, bytes | Mapping[int, bytes] | None],
    size: int,
    parent: str,
    sector: int = 512,
) -> bytes:
    """A differencing VHDX of blocks of 1 MiB: whole, by sectors, or None for zeros.

    At MiB 1 the log, 2 the metadata, 3 the BAT, 4 a sector bitmap, 5 and on the blocks.
    """
    ratio = (1 << 23) * sector // MIB
    entries = [0] * (ratio + 1)
    bitmap = bytearray(MIB)
    data = b""
    for number, content in blocks.items():
        where = 5 + len(data) // MIB << 20
        if content is None:
            entries[number] = 2
        elif isinstance(content, bytes):
            entries[number] = where | 6
            data += content
        else:
            entries[number] = where | 7
            whole = bytearray(b"\xee" * MIB)
            for at, bytes_ in content.items():
                whole[at * sector : (at + 1) * sector] = bytes_
                bit = number * (MIB // sector) + at
                bitmap[bit // 8] |= 1 << bit % 8
            data += bytes(whole)
    entries[ratio] = 4 << 20 | 6
    pairs = {"parent_linkage": "{x}", "relative_path": parent}
    texts = [text.encode("utf-16-le") for pair in pairs.items() for text in pair]
    locator = GUID["parent"] + struct.pack("<HH", 0, len(pairs))
    at = 20 + 12 * len(pairs)
    for n in range(0, len(texts), 2):
        key, value = texts[n], texts[n + 1]
        before = at + sum(map(len, texts[:n]))
        locator += struct.pack("<IIHH", before, before + len(key), len(key), len(value))
    items = {
        "parameters": struct.pack("<II", MIB, 2),
        "size": struct.pack("<Q", size),
        "id": bytes(range(16)),
        "logical": struct.pack("<I", sector),
        "physical": struct.pack("<I", 4096),
        "locator": locator + b"".join(texts),
    }
    table = b"metadata" + struct.pack("<HH", 0, len(items)) + bytes(20)
    contents = b""
    for name, item in items.items():
        table += GUID[name] + struct.pack("<IIII", 65536 + len(contents), len(item), 4, 0)
        contents += item
    metadata = (table.ljust(65536, b"\0") + contents).ljust(MIB, b"\0")
    regions = b"regi" + bytes(4) + struct.pack("<II", 2, 0)
    regions += GUID["bat"] + struct.pack("<QII", 3 * MIB, MIB, 1)
    regions += GUID["metadata"] + struct.pack("<QII", 2 * MIB, MIB, 1)
    regions = checksummed(regions.ljust(65536, b"\0"))
    front = b"vhdxfile".ljust(65536, b"\0")
    front += vhdx_header(1, None).ljust(65536, b"\0") + vhdx_header(2, None).ljust(65536, b"\0")
    front = (front + regions + regions).ljust(2 * MIB, b"\0")
    bat = struct.pack(f"<{len(entries)}Q", *entries).ljust(MIB, b"\0")
    return front + metadata + bat + bytes(bitmap) + data


def vhdx_log_entry(
    pages: Mapping[int, bytes],
    zeros: Sequence[tuple[int, int]],
    *,
    sequence: int,
    tail: int,
    file_size: int,
) -> bytes:
    """A log entry that writes `pages` at their offsets, and zeros."""
    count = len(pages) + len(zeros)
    descriptors, sectors = b"", b""
    for offset, length in zeros:
        descriptors += b"zero" + struct.pack("<IQQQ", 0, length, offset, sequence)
    for offset, page in pages.items():
        descriptors += b"desc" + page[-4:] + page[:8] + struct.pack("<QQ", offset, sequence)
        sectors += b"data" + struct.pack("<I", sequence >> 32) + page[8:-4]
        sectors += struct.pack("<I", sequence & 0xFFFFFFFF)
    length = -(-(64 + 32 * count) // 4096) * 4096 + len(sectors)
    head = b"loge" + bytes(4) + struct.pack("<IIQII", length, tail, sequence, count, 0)
    head += LOG_GUID.bytes_le + struct.pack("<QQ", file_size, file_size)
    return checksummed(padded(head + descriptors, 4096) + sectors)


def luks2(payload: bytes, *, seqids: tuple[int, int] = (3, 3), metadata: object = None) -> bytes:
    """A LUKS2 image with both headers, of 16 KiB each."""
    if metadata is None:
        segment = {"type": "crypt", "offset": "32768", "size": "dynamic", "iv_tweak": "0",
                   "encryption": "aes-xts-plain64", "sector_size": 512}  # fmt: skip
        metadata = {"keyslots": {}, "segments": {"0": segment}, "digests": {}}
    text = json.dumps(metadata).encode().ljust(0x4000 - 4096, b"\0")
    copies = b""
    for magic, seqid in zip((b"LUKS\xba\xbe", b"SKUL\xba\xbe"), seqids, strict=True):
        binary = magic + struct.pack(">HQQ", 2, 0x4000, seqid) + b"label".ljust(48, b"\0")
        binary += b"sha256".ljust(32, b"\0") + bytes(64) + b"uuid".ljust(40, b"\0") + bytes(48)
        binary += struct.pack(">Q", len(copies))
        binary = binary.ljust(4096, b"\0")
        digest = hashlib.sha256(binary + text).digest()
        copies += binary[:448] + digest.ljust(64, b"\0") + binary[512:] + text
    return copies + payload


def qcow(clusters: Mapping[int, bytes], size: int) -> bytes:
    """A QCOW image of version 1 whose clusters, of 4 KiB, are all compressed."""
    bits, l2_bits = 12, 9
    data, entries = b"", [0] * (1 << l2_bits)
    first = 4096 + 8 * len(entries)
    for number, content in clusters.items():
        packer = zlib.compressobj(9, zlib.DEFLATED, -12)
        stored = packer.compress(content) + packer.flush()
        entries[number] = 1 << 63 | len(stored) << (63 - bits) | (first + len(data))
        data += stored
    head = b"QFI\xfb" + struct.pack(">IQIIQBBHIQ", 1, 0, 0, 0, size, bits, l2_bits, 0, 0, 48)
    head += struct.pack(">Q", 4096)
    return head.ljust(4096, b"\0") + struct.pack(f">{len(entries)}Q", *entries) + data
