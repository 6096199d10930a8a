"""SCSI command blocks by name, with the blocks that they name (SPC-5, SBC-4, MMC-6)."""

from __future__ import annotations

from attrs import frozen

OPCODES = {
    0x00: "TEST UNIT READY", 0x01: "REZERO UNIT", 0x03: "REQUEST SENSE", 0x04: "FORMAT UNIT",
    0x05: "READ BLOCK LIMITS", 0x07: "REASSIGN BLOCKS", 0x08: "READ(6)", 0x0A: "WRITE(6)",
    0x0B: "SEEK(6)", 0x10: "WRITE FILEMARKS(6)", 0x11: "SPACE(6)", 0x12: "INQUIRY",
    0x13: "VERIFY(6)", 0x15: "MODE SELECT(6)", 0x16: "RESERVE(6)", 0x17: "RELEASE(6)",
    0x19: "ERASE(6)", 0x1A: "MODE SENSE(6)", 0x1B: "START STOP UNIT",
    0x1C: "RECEIVE DIAGNOSTIC RESULTS", 0x1D: "SEND DIAGNOSTIC",
    0x1E: "PREVENT ALLOW MEDIUM REMOVAL", 0x23: "READ FORMAT CAPACITIES",
    0x25: "READ CAPACITY(10)", 0x28: "READ(10)", 0x2A: "WRITE(10)", 0x2B: "SEEK(10)",
    0x2E: "WRITE AND VERIFY(10)", 0x2F: "VERIFY(10)", 0x34: "PRE-FETCH(10)",
    0x35: "SYNCHRONIZE CACHE(10)", 0x37: "READ DEFECT DATA(10)", 0x3B: "WRITE BUFFER",
    0x3C: "READ BUFFER(10)", 0x3E: "READ LONG(10)", 0x3F: "WRITE LONG(10)",
    0x41: "WRITE SAME(10)", 0x42: "UNMAP", 0x43: "READ TOC/PMA/ATIP", 0x46: "GET CONFIGURATION",
    0x48: "SANITIZE", 0x4A: "GET EVENT STATUS NOTIFICATION", 0x4C: "LOG SELECT",
    0x4D: "LOG SENSE", 0x51: "READ DISC INFORMATION", 0x52: "READ TRACK INFORMATION",
    0x55: "MODE SELECT(10)", 0x56: "RESERVE(10)", 0x57: "RELEASE(10)", 0x5A: "MODE SENSE(10)",
    0x5B: "CLOSE TRACK/SESSION", 0x5E: "PERSISTENT RESERVE IN", 0x5F: "PERSISTENT RESERVE OUT",
    0x7F: "VARIABLE LENGTH", 0x83: "THIRD PARTY COPY OUT", 0x84: "THIRD PARTY COPY IN",
    0x85: "ATA PASS-THROUGH(16)", 0x88: "READ(16)", 0x89: "COMPARE AND WRITE",
    0x8A: "WRITE(16)", 0x8C: "READ ATTRIBUTE", 0x8D: "WRITE ATTRIBUTE",
    0x8E: "WRITE AND VERIFY(16)", 0x8F: "VERIFY(16)", 0x90: "PRE-FETCH(16)",
    0x91: "SYNCHRONIZE CACHE(16)", 0x93: "WRITE SAME(16)", 0x94: "ZBC OUT", 0x95: "ZBC IN",
    0x9B: "READ BUFFER(16)", 0x9C: "WRITE ATOMIC(16)", 0x9E: "SERVICE ACTION IN(16)",
    0xA0: "REPORT LUNS", 0xA1: "ATA PASS-THROUGH(12)", 0xA2: "SECURITY PROTOCOL IN",
    0xA3: "MAINTENANCE IN", 0xA4: "MAINTENANCE OUT", 0xA8: "READ(12)", 0xAA: "WRITE(12)",
    0xAC: "GET PERFORMANCE", 0xAD: "READ DVD STRUCTURE", 0xAE: "WRITE AND VERIFY(12)",
    0xAF: "VERIFY(12)", 0xB5: "SECURITY PROTOCOL OUT", 0xBB: "SET CD SPEED", 0xBE: "READ CD",
}  # fmt: skip

#: The second word of commands that share an opcode: of SERVICE ACTION IN(16), MAINTENANCE IN.
SERVICE_ACTIONS = {
    (0x9E, 0x10): "READ CAPACITY(16)",
    (0x9E, 0x12): "GET LBA STATUS",
    (0xA3, 0x05): "REPORT IDENTIFYING INFORMATION",
    (0xA3, 0x0A): "REPORT TARGET PORT GROUPS",
    (0xA3, 0x0C): "REPORT SUPPORTED OPERATION CODES",
    (0x7F, 0x09): "READ(32)",
    (0x7F, 0x0B): "WRITE(32)",
    (0x7F, 0x0D): "WRITE SAME(32)",
}

# Where the numbers of a command stand, as (offset, bytes): of its first block, of how many
# there are, and of the bytes that an answer may have.
_BLOCKS = {
    0x28: ((2, 4), (7, 2)), 0x2A: ((2, 4), (7, 2)), 0x2E: ((2, 4), (7, 2)),
    0x2F: ((2, 4), (7, 2)), 0x34: ((2, 4), (7, 2)), 0x35: ((2, 4), (7, 2)),
    0x41: ((2, 4), (7, 2)), 0x88: ((2, 8), (10, 4)), 0x89: ((2, 8), (13, 1)),
    0x8A: ((2, 8), (10, 4)), 0x8E: ((2, 8), (10, 4)), 0x8F: ((2, 8), (10, 4)),
    0x90: ((2, 8), (10, 4)), 0x91: ((2, 8), (10, 4)), 0x93: ((2, 8), (10, 4)),
    0x9C: ((2, 8), (12, 2)), 0xA8: ((2, 4), (6, 4)), 0xAA: ((2, 4), (6, 4)),
    0xAE: ((2, 4), (6, 4)), 0xAF: ((2, 4), (6, 4)),
}  # fmt: skip
_BLOCKS_32 = ((12, 8), (28, 4))
_ALLOCATION = {
    0x03: (4, 1), 0x12: (3, 2), 0x15: (4, 1), 0x1A: (4, 1), 0x42: (7, 2), 0x4D: (7, 2),
    0x55: (7, 2), 0x5A: (7, 2), 0x5E: (7, 2), 0x5F: (5, 4), 0x43: (7, 2), 0x46: (7, 2),
    0x4A: (7, 2), 0x9E: (10, 4), 0xA0: (6, 4), 0xA3: (6, 4), 0xAD: (8, 2),
}  # fmt: skip
_PAGES = {
    0x00: "supported pages", 0x80: "unit serial number", 0x83: "device identification",
    0x86: "extended data", 0xB0: "block limits", 0xB1: "block device characteristics",
    0xB2: "logical block provisioning", 0xB6: "zoned characteristics",
}  # fmt: skip
_UNMAP_BIT, _WRITES_SAME = 8, (0x41, 0x93)


@frozen
class Command:
    """A SCSI command: its name, and what it names; None where it names no such thing."""

    opcode: int
    name: str
    #: The first block, and how many there are.
    lba: int | None = None
    blocks: int | None = None
    #: Bytes that a parameter list or an answer may have.
    transfer: int | None = None
    #: Whether a WRITE SAME may give its blocks back.
    unmap: bool = False
    #: What an INQUIRY or a MODE SENSE asks for.
    page: str = ""


def command(cdb: bytes) -> Command:
    """The command of a block, with zeros for what is missing at its end."""
    cdb = cdb[:32] + bytes(max(0, 32 - len(cdb)))
    opcode = cdb[0]
    lba, blocks = _where(cdb)
    return Command(
        opcode,
        _name(cdb),
        lba,
        blocks,
        _number(cdb, *_ALLOCATION[opcode]) if opcode in _ALLOCATION else None,
        opcode in _WRITES_SAME and bool(cdb[1] & _UNMAP_BIT),
        _page(cdb),
    )


def _number(cdb: bytes, offset: int, size: int) -> int:
    return int.from_bytes(cdb[offset : offset + size], "big")


def _action(cdb: bytes) -> int:
    return _number(cdb, 8, 2) if cdb[0] == 0x7F else cdb[1] & 0x1F


def _name(cdb: bytes) -> str:
    special = SERVICE_ACTIONS.get((cdb[0], _action(cdb)))
    return special or OPCODES.get(cdb[0], f"opcode 0x{cdb[0]:02x}")


def _where(cdb: bytes) -> tuple[int | None, int | None]:
    opcode = cdb[0]
    if opcode in (0x08, 0x0A):  # 21 bits of a block, and 0 blocks are 256
        return _number(cdb, 1, 3) & 0x1FFFFF, cdb[4] or 256
    if (0x7F, _action(cdb)) in SERVICE_ACTIONS and opcode == 0x7F:
        first, count = _BLOCKS_32
    elif opcode in _BLOCKS:
        first, count = _BLOCKS[opcode]
    else:
        return None, None
    return _number(cdb, *first), _number(cdb, *count)


def _page(cdb: bytes) -> str:
    if cdb[0] == 0x12:
        return f"EVPD {_PAGES.get(cdb[2], f'0x{cdb[2]:02x}')}" if cdb[1] & 1 else "standard"
    if cdb[0] in (0x1A, 0x5A):
        page = cdb[2] & 0x3F
        return "all pages" if page == 0x3F else f"page 0x{page:02x}"
    return ""
