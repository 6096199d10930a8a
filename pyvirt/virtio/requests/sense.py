"""SCSI sense data: why a command failed (SPC-5, 4.5)."""

from __future__ import annotations

from attrs import frozen

KEYS = (
    "NO SENSE", "RECOVERED ERROR", "NOT READY", "MEDIUM ERROR", "HARDWARE ERROR",
    "ILLEGAL REQUEST", "UNIT ATTENTION", "DATA PROTECT", "BLANK CHECK", "VENDOR SPECIFIC",
    "COPY ABORTED", "ABORTED COMMAND", "RESERVED", "VOLUME OVERFLOW", "MISCOMPARE", "COMPLETED",
)  # fmt: skip

#: Additional sense codes and their qualifiers.
TEXTS = {
    (0x00, 0x00): "no additional sense information", (0x00, 0x06): "I/O process terminated",
    (0x03, 0x00): "peripheral device write fault", (0x04, 0x00): "not ready, cause not reportable",
    (0x04, 0x01): "becoming ready", (0x04, 0x02): "initializing command required",
    (0x04, 0x03): "manual intervention required", (0x04, 0x04): "format in progress",
    (0x04, 0x0B): "target port in standby state", (0x04, 0x0C): "target port unavailable",
    (0x08, 0x00): "logical unit communication failure", (0x0C, 0x00): "write error",
    (0x0E, 0x01): "information unit too short", (0x10, 0x00): "ID CRC or ECC error",
    (0x10, 0x01): "logical block guard check failed",
    (0x10, 0x02): "logical block application tag check failed",
    (0x10, 0x03): "logical block reference tag check failed",
    (0x11, 0x00): "unrecovered read error", (0x11, 0x01): "read retries exhausted",
    (0x14, 0x00): "recorded entity not found", (0x1A, 0x00): "parameter list length error",
    (0x1B, 0x00): "synchronous data transfer error",
    (0x1D, 0x00): "miscompare during verify operation",
    (0x20, 0x00): "invalid command operation code", (0x21, 0x00): "LBA out of range",
    (0x21, 0x01): "invalid element address", (0x24, 0x00): "invalid field in CDB",
    (0x25, 0x00): "logical unit not supported", (0x26, 0x00): "invalid field in parameter list",
    (0x26, 0x01): "parameter not supported", (0x26, 0x02): "parameter value invalid",
    (0x27, 0x00): "write protected", (0x27, 0x07): "space allocation failed, write protect",
    (0x28, 0x00): "medium may have changed",
    (0x29, 0x00): "power on, reset, or bus device reset occurred",
    (0x29, 0x01): "power on occurred", (0x29, 0x02): "SCSI bus reset occurred",
    (0x29, 0x03): "bus device reset function occurred", (0x29, 0x04): "device internal reset",
    (0x29, 0x07): "I_T nexus loss occurred", (0x2A, 0x01): "mode parameters changed",
    (0x2A, 0x03): "reservations preempted", (0x2A, 0x04): "reservations released",
    (0x2A, 0x05): "registrations preempted", (0x2A, 0x09): "capacity data has changed",
    (0x2C, 0x00): "command sequence error", (0x2F, 0x00): "commands cleared by another initiator",
    (0x30, 0x00): "incompatible medium installed", (0x31, 0x00): "medium format corrupted",
    (0x35, 0x00): "enclosure services failure", (0x39, 0x00): "saving parameters not supported",
    (0x3A, 0x00): "medium not present", (0x3A, 0x01): "medium not present, tray closed",
    (0x3A, 0x02): "medium not present, tray open",
    (0x3F, 0x00): "target operating conditions have changed",
    (0x3F, 0x01): "microcode has been changed", (0x3F, 0x03): "inquiry data has changed",
    (0x3F, 0x0E): "reported LUNs data has changed", (0x44, 0x00): "internal target failure",
    (0x45, 0x00): "select or reselect failure", (0x47, 0x00): "SCSI parity error",
    (0x49, 0x00): "invalid message error", (0x4B, 0x00): "data phase error",
    (0x53, 0x00): "media load or eject failed", (0x53, 0x02): "medium removal prevented",
    (0x55, 0x00): "system resource failure", (0x5D, 0x00): "failure prediction threshold exceeded",
    (0x64, 0x00): "illegal mode for this track",
}  # fmt: skip


@frozen
class Sense:
    """Why a command failed: a key, and a code with a qualifier."""

    key: int
    asc: int
    ascq: int

    def __str__(self) -> str:
        text = TEXTS.get((self.asc, self.ascq), f"{self.asc:#04x}/{self.ascq:#04x}")
        return f"{KEYS[self.key & 15]}: {text}"


def sense(data: bytes) -> Sense | None:
    """Sense data in one of its two formats; None where it is cut, or neither."""
    code = data[0] & 0x7F if data else 0
    if code in (0x70, 0x71) and len(data) >= 3:
        asc, ascq = (data[12], data[13]) if len(data) >= 14 else (0, 0)
        return Sense(data[2] & 15, asc, ascq)
    if code in (0x72, 0x73) and len(data) >= 4:
        return Sense(data[1] & 15, data[2], data[3])
    return None
