"""How virtio-scsi names a logical unit (virtio 1.2, 5.6.6.1)."""

from __future__ import annotations

from attrs import frozen

#: Well-known: what answers REPORT LUNS for the whole adapter.
_REPORT_LUNS = b"\xc1\x01\x00\x00\x00\x00\x00\x00"


@frozen
class Lun:
    """A logical unit of a target; both None for the one that reports all of them."""

    target: int | None
    lun: int | None
    #: Its eight bytes.
    address: bytes

    def __str__(self) -> str:
        if self.target is None:
            return "report-luns" if self.address == _REPORT_LUNS else self.address.hex()
        return f"{self.target}:{self.lun}"


def lun(address: bytes) -> Lun:
    """The unit of an address; without numbers where it is none of this virtio."""
    if len(address) != 8 or address[0] != 1:
        return Lun(None, None, address)
    # A single level LUN structure: 14 bits behind the method, which is flat or peripheral.
    return Lun(address[1], (address[2] & 0x3F) << 8 | address[3], address)
