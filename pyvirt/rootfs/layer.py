"""What the entries of an archive mean for a root file system, before anything is written.

Layers are as in the OCI image specification 1.1, "Image Layer Filesystem Changeset": an
entry ``.wh.NAME`` removes NAME of the layers below, ``.wh..wh..opq`` all that they have in
its directory.
"""

from __future__ import annotations

from collections.abc import Callable
from tarfile import TarInfo

from attrs import define, field

from pyvirt.errors import PyvirtError, RootFSError
from pyvirt.fields import frozen
from pyvirt.guest import tar
from pyvirt.rootfs.idmap import IdMap

_WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
_XATTR = "SCHILY.xattr."
NOBODY = 0xFFFF_FFFF  # (uid_t) -1
#: Deeper trees than what removes them reaches are not made; pyvirt's keeper goes 256 deep.
DEEPEST = 200
_LONGEST = 255  # bytes in one name: NAME_MAX


class Entries(tar.Entries):
    """The entries of the archive `source`, or of its `layer`."""

    def __init__(self, read: Callable[[int], bytes], source: str, layer: str | None = None) -> None:
        super().__init__(read)
        self.source, self.layer = source, layer

    def fault(self, info: TarInfo, reason: str) -> RootFSError:
        """What is wrong with one entry."""
        return RootFSError(self.source, reason, layer=self.layer, entry=info.name)

    def _error(self, reason: str) -> PyvirtError:
        where = f"{reason} at byte {self.offset}"
        return RootFSError(self.source, where, layer=self.layer)


def parts(info: TarInfo, name: str, fault: Callable[[TarInfo, str], RootFSError]) -> list[str]:
    """The parts of a name in the archive, which must lie below its root; none is the root."""
    if name.startswith("/"):
        raise fault(info, "has an absolute path")
    found = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in found:
        raise fault(info, "leads out of the root by '..'")
    if "\0" in name:
        raise fault(info, "has a NUL in its name")
    if any(len(part.encode("utf-8", "surrogateescape")) > _LONGEST for part in found):
        raise fault(info, f"has a name longer than {_LONGEST} bytes")
    return found


def hides(name: str) -> str | None:
    """The name that a whiteout removes; None for what is not one."""
    if name.startswith(_WHITEOUT) and name != OPAQUE:
        return name.removeprefix(_WHITEOUT)
    return None


def xattrs(info: TarInfo) -> dict[str, bytes]:
    """The extended attributes of an entry."""
    return {
        key.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape")
        for key, value in info.pax_headers.items()
        if key.startswith(_XATTR)
    }


@frozen
class Owners:
    """Whose the files are. With `shifted`, ids are written as the host's; else as they come.

    Ids as they come serve containers whose root file system is mounted with an id map.
    """

    idmap: IdMap | None = None
    shifted: bool = False

    def of(self, uid: int, gid: int) -> tuple[int, int]:
        """The owner to be written. Raises `LookupError` that says which id has none."""
        for kind, id in (("user", uid), ("group", gid)):
            if not 0 <= id < NOBODY:
                raise LookupError(f"belongs to {kind} {id}, which is no {kind}")
        if self.idmap is None:
            return uid, gid
        outside = self.idmap.uid(uid), self.idmap.gid(gid)
        for kind, id, found in zip(("user", "group"), (uid, gid), outside, strict=True):
            if found is None:
                raise LookupError(f"belongs to {kind} {id}, which the id map does not hold")
        host_uid, host_gid = outside
        assert host_uid is not None
        assert host_gid is not None
        return (host_uid, host_gid) if self.shifted else (uid, gid)


@define
class Allowance:
    """How much may still be unpacked: bytes, and entries. Layers of an image share it."""

    limit: int
    most: int
    bytes: int = field(init=False, default=0)
    entries: int = field(init=False, default=0)

    def take(self, bytes: int) -> str | None:
        """Use so many bytes; a reason why not."""
        self.bytes += bytes
        if self.bytes > self.limit:
            return f"unpacks to more than {self.limit} bytes; raise limit if that is right"
        return None

    def enter(self) -> str | None:
        """One entry more; a reason why not."""
        self.entries += 1
        if self.entries > self.most:
            return f"has more than {self.most} entries; raise entries if that is right"
        return None
