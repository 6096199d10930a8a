"""What a decoder is given of a request: the first bytes, and how many there were."""

from __future__ import annotations

from attrs import frozen


@frozen
class Captured:
    """One request as it was seen in guest memory; lengths in bytes.

    The bytes of all its descriptors stand one after another, as the framing of virtio 1.2,
    2.7.4 wants it: where a header ends and data begin is not told by descriptors.
    """

    #: First bytes of the device-readable part, and the whole length of that part.
    readable: bytes = b""
    readable_length: int = 0
    #: First bytes of the device-writable part, as seen at completion; nothing before.
    writable: bytes = b""
    writable_length: int = 0
    #: What the device says it has written; None while in flight.
    written: int | None = None
    #: The last byte of the device-writable part (virtio-blk's status); None while in flight.
    tail: int | None = None

    @property
    def done(self) -> bool:
        """Whether the device has given it back."""
        return self.written is not None

    @property
    def filled(self) -> int:
        """Bytes of the writable part that the device has written.

        QEMU's virtio-scsi counts the data of writes too: more than there is room for is no news.
        """
        return min(self.written or 0, self.writable_length)
