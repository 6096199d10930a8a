"""Feature bits by their names, per device and of the rings (virtio 1.2, 5.x.3 and 6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pyvirt.virtio.kinds import kind_of

# Bits that no device owns: of rings and transports. 30 was taken before there was a standard.
RING = {
    24: "NOTIFY_ON_EMPTY", 27: "ANY_LAYOUT", 28: "RING_INDIRECT_DESC", 29: "RING_EVENT_IDX",
    30: "BAD_FEATURE", 32: "VERSION_1", 33: "ACCESS_PLATFORM", 34: "RING_PACKED",
    35: "IN_ORDER", 36: "ORDER_PLATFORM", 37: "SR_IOV", 38: "NOTIFICATION_DATA",
    39: "NOTIF_CONFIG_DATA", 40: "RING_RESET", 41: "ADMIN_VQ",
}  # fmt: skip

DEVICES: Mapping[str, Mapping[int, str]] = {
    "virtio-net": {
        0: "CSUM", 1: "GUEST_CSUM", 2: "CTRL_GUEST_OFFLOADS", 3: "MTU", 5: "MAC", 6: "GSO",
        7: "GUEST_TSO4", 8: "GUEST_TSO6", 9: "GUEST_ECN", 10: "GUEST_UFO", 11: "HOST_TSO4",
        12: "HOST_TSO6", 13: "HOST_ECN", 14: "HOST_UFO", 15: "MRG_RXBUF", 16: "STATUS",
        17: "CTRL_VQ", 18: "CTRL_RX", 19: "CTRL_VLAN", 20: "CTRL_RX_EXTRA",
        21: "GUEST_ANNOUNCE", 22: "MQ", 23: "CTRL_MAC_ADDR", 50: "DEVICE_STATS",
        51: "HASH_TUNNEL", 52: "VQ_NOTF_COAL", 53: "NOTF_COAL", 54: "GUEST_USO4",
        55: "GUEST_USO6", 56: "HOST_USO", 57: "HASH_REPORT", 59: "GUEST_HDRLEN", 60: "RSS",
        61: "RSC_EXT", 62: "STANDBY", 63: "SPEED_DUPLEX",
    },
    "virtio-blk": {
        0: "BARRIER", 1: "SIZE_MAX", 2: "SEG_MAX", 4: "GEOMETRY", 5: "RO", 6: "BLK_SIZE",
        7: "SCSI", 9: "FLUSH", 10: "TOPOLOGY", 11: "CONFIG_WCE", 12: "MQ", 13: "DISCARD",
        14: "WRITE_ZEROES", 15: "LIFETIME", 16: "SECURE_ERASE", 17: "ZONED",
    },
    "virtio-serial": {0: "SIZE", 1: "MULTIPORT", 2: "EMERG_WRITE"},
    "virtio-rng": {},
    "virtio-balloon": {
        0: "MUST_TELL_HOST", 1: "STATS_VQ", 2: "DEFLATE_ON_OOM", 3: "FREE_PAGE_HINT",
        4: "PAGE_POISON", 5: "REPORTING",
    },
    "virtio-scsi": {0: "INOUT", 1: "HOTPLUG", 2: "CHANGE", 3: "T10_PI"},
    "virtio-9p": {0: "MOUNT_TAG"},
    "virtio-gpu": {
        0: "VIRGL", 1: "EDID", 2: "RESOURCE_UUID", 3: "RESOURCE_BLOB", 4: "CONTEXT_INIT",
    },
    "virtio-crypto": {
        0: "REVISION_1", 1: "CIPHER_STATELESS_MODE", 2: "HASH_STATELESS_MODE",
        3: "MAC_STATELESS_MODE", 4: "AEAD_STATELESS_MODE", 5: "AKCIPHER_STATELESS_MODE",
    },
    "virtio-vsock": {0: "STREAM", 1: "SEQPACKET", 2: "NO_IMPLIED_STREAM"},
    "virtio-iommu": {
        0: "INPUT_RANGE", 1: "DOMAIN_RANGE", 2: "MAP_UNMAP", 3: "BYPASS", 4: "PROBE", 5: "MMIO",
        6: "BYPASS_CONFIG",
    },
    "virtio-mem": {0: "ACPI_PXM", 1: "UNPLUGGED_INACCESSIBLE"},
    "virtio-fs": {0: "NOTIFICATION"},
}  # fmt: skip


def names(device: str, bits: int) -> tuple[str, ...]:
    """What the bits of `features` mean for a device: ("MRG_RXBUF", "VERSION_1"), lowest first.

    A bit that has no name is "bit 61".
    """
    known = DEVICES.get(kind_of(device), {})
    return tuple(known.get(bit) or RING.get(bit) or f"bit {bit}" for bit in _set(bits))


def bit(device: str, name: str) -> int:
    """The mask of a feature: the reverse of `names`. Raises `KeyError` for names unknown."""
    for table in (DEVICES.get(kind_of(device), {}), RING):
        for place, known in table.items():
            if known == name:
                return 1 << place
    raise KeyError(name)


def _set(bits: int) -> Iterator[int]:
    """The places of the bits that are set, lowest first."""
    while bits > 0:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
