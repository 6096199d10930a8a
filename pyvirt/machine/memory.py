"""Guest memory: what the host keeps it in, how much there is, and what can be added."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, field

from pyvirt.errors import SpecError
from pyvirt.fields import (
    between,
    choice,
    each,
    frozen,
    kind,
    name,
    optional,
    positive,
    to_path,
    to_size,
    to_tuple,
)
from pyvirt.machine.numa import Cache, Locality, NumaNode, check_nodes, numa
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At, Slot

_switch = optional(kind(bool))
_POLICIES = ("default", "preferred", "bind", "interleave")

# QEMU rounds -m up to this and then refuses a back end of another size.
_GRAIN = 8192


@frozen(kw_only=True)
class Backing:
    """What the host keeps a piece of guest memory in.

    `backend` is "memfd", "anonymous" or "file" (then `path` is a file, or a directory on
    tmpfs or hugetlbfs). `share` lets other processes map it (memfd and file do so by
    default). `hugepages` is the size of huge pages to take from the host's pool.
    `host_nodes` and `policy` bind it to NUMA nodes of the host. `merge` (KSM) and `dump`
    (core dumps) are QEMU's own words.
    """

    # Shared memory lets virtio rings be read from outside, and costs nothing under TCG (CPU
    # seconds of a 6.1 kernel's boot in 512 MiB, medians of 10: memfd shared 1.32, memfd
    # private 1.34, anonymous 1.42). Under KVM, transparent huge pages need the host's
    # shmem_enabled for it; anonymous memory gets them without.
    backend: str = field(default="memfd", validator=choice("memfd", "anonymous", "file"))
    path: Path | None = field(default=None, converter=to_path)
    share: bool | None = field(default=None, validator=_switch)
    hugepages: int | None = field(default=None, converter=to_size, validator=optional(positive))
    prealloc: bool = field(default=False, validator=kind(bool))
    prealloc_threads: int | None = field(default=None, validator=optional(positive))
    reserve: bool | None = field(default=None, validator=_switch)
    merge: bool | None = field(default=None, validator=_switch)
    dump: bool | None = field(default=None, validator=_switch)
    host_nodes: tuple[int, ...] = field(
        default=(), converter=to_tuple, validator=each(between(0, 127))
    )
    policy: str = field(default="default", validator=choice(*_POLICIES))

    def __attrs_post_init__(self) -> None:
        self._check_backing()

    def _check_backing(self) -> None:
        if (self.path is not None) != (self.backend == "file"):
            raise SpecError("path", "belongs to backend file, and to no other", self.path)
        if self.hugepages is not None and self.backend != "memfd":
            reason = "needs backend memfd; for file, path is a directory on hugetlbfs"
            raise SpecError("hugepages", reason, self.hugepages)
        if self.hugepages is not None and self.hugepages & (self.hugepages - 1):
            raise SpecError("hugepages", "must be a power of two", self.hugepages)
        if bool(self.host_nodes) != (self.policy != "default"):
            raise SpecError("policy", "and host_nodes go together", self.policy)
        if self.prealloc_threads is not None and not self.prealloc:
            raise SpecError("prealloc_threads", "needs prealloc", self.prealloc_threads)
        if self.prealloc and self.reserve is False:
            raise SpecError("reserve", "cannot be off with prealloc", False)

    @property
    def shared(self) -> bool:
        """Whether other processes can map it."""
        return self.backend != "anonymous" if self.share is None else self.share

    def memory(self, id: str, size: int, **more: Any) -> Option:
        """The object `id` that holds `size` bytes."""
        return Option("object", {**self._kind(id), "size": size, **self._given(), **more})

    def _kind(self, id: str) -> dict[str, Any]:
        kind = "ram" if self.backend == "anonymous" else self.backend
        properties: dict[str, Any] = {"qom-type": f"memory-backend-{kind}", "id": id}
        if self.path is not None:
            properties["mem-path"] = str(self.path)
        if self.hugepages is not None:
            properties |= {"hugetlb": True, "hugetlbsize": self.hugepages}
        return properties

    def _given(self) -> dict[str, Any]:
        properties: dict[str, Any] = {
            "share": self.shared,
            "prealloc": self.prealloc or None,
            "prealloc-threads": self.prealloc_threads,
            "reserve": self.reserve,
            "merge": self.merge,
            "dump": self.dump,
        }
        if self.host_nodes:
            properties |= {"host-nodes": list(self.host_nodes), "policy": self.policy}
        return {key: value for key, value in properties.items() if value is not None}


def _whole(size: int, grain: int | None, field: str = "size") -> None:
    if not isinstance(size, int) or size <= 0 or size % (grain or _GRAIN):
        raise SpecError(field, f"must be a positive multiple of {grain or _GRAIN} bytes", size)


def _written(size: int) -> str:
    """A size as a person writes it, where that loses nothing; -m alone means megabytes."""
    return f"{size >> 20}M" if size % (1 << 20) == 0 else f"{size}B"


@frozen
class Memory(Backing):
    """The memory that a guest starts with: `size` in bytes or as text ("512M").

    `nodes` splits it into NUMA nodes; `size` is then their sum, and may be left out.
    `maximum` and `slots` leave room for more: slots for DIMMs, address space for them and
    for virtio-mem. The objects are called ram0, ram1, … one for each node.
    """

    size: int = field(default=None, converter=to_size)
    nodes: tuple[NumaNode, ...] = field(
        default=(), converter=to_tuple, validator=each(kind(NumaNode)), kw_only=True
    )
    hmat: tuple[Locality | Cache, ...] = field(
        default=(), converter=to_tuple, validator=each(kind(Locality, Cache)), kw_only=True
    )
    slots: int = field(default=0, validator=between(0, 256), kw_only=True)
    maximum: int | None = field(
        default=None, converter=to_size, validator=optional(positive), kw_only=True
    )

    def __attrs_post_init__(self) -> None:
        self._check_backing()
        held = sum(node.size for node in self.nodes)
        if self.size is None:
            object.__setattr__(self, "size", held or 512 << 20)
        _whole(self.size, self.hugepages)
        if self.nodes and held != self.size:
            raise SpecError("size", f"must be the sum of its nodes, {held}", self.size)
        check_nodes(self.nodes)
        self._check_room()

    def _check_room(self) -> None:
        if self.slots and self.maximum is None:
            raise SpecError("slots", "needs a maximum", self.slots)
        if self.maximum is not None:
            _whole(self.maximum, None, "maximum")
        if self.maximum is not None and self.maximum <= self.size:
            raise SpecError("maximum", "must be above size, which it makes room for", self.maximum)

    def options(self) -> Iterator[Option]:
        """``-m``, the objects, and ``-numa``."""
        size: dict[str, Any] = {"size": _written(self.size)}
        if self.maximum is not None:
            size |= {"slots": self.slots or None, "maxmem": _written(self.maximum)}
        yield Option("m", {k: v for k, v in size.items() if v is not None}, source="size")
        if not self.nodes:
            yield self.memory("ram0", self.size)
            yield Option("machine", {"memory-backend": "ram0"}, source="backend")
        for number, node in enumerate(self.nodes):
            if node.size:
                bound = evolve(self, nodes=(), size=node.size, **node.binding)
                yield bound.memory(f"ram{number}", node.size)
        for option in numa(self.nodes, self.hmat):
            yield evolve(option, source="nodes")


@frozen
class DIMM(Backing):
    """A memory module, at start or plugged later; the guest's `Memory` has a slot for it."""

    size: int = field(converter=to_size)
    id: str | None = field(default=None, validator=optional(name), kw_only=True)
    node: int | None = field(default=None, validator=optional(between(0, 127)), kw_only=True)
    number: int | None = field(default=None, validator=optional(between(0, 255)), kw_only=True)

    prefix = "dimm"
    slot = Slot()

    def __attrs_post_init__(self) -> None:
        self._check_backing()
        # ACPI hot-plug tells the guest of memory in blocks of 128 MiB on Linux; QEMU itself
        # wants whole pages.
        _whole(self.size, self.hugepages)

    def options(self, at: At) -> Iterator[Option]:
        yield self.memory(f"{at.name}-memory", self.size)
        places = {"slot": self.number, "node": self.node}
        yield Option("device", _module("pc-dimm", at, places))


@frozen
class NVDIMM:
    """Persistent memory on the memory bus, kept in the file `path` on the host.

    The machine needs ``nvdimm=True``. `label_size` keeps room for namespaces at its end.
    `pmem` says that the file itself is on persistent memory.
    """

    path: Path = field(converter=Path)
    size: int = field(converter=to_size)
    id: str | None = field(default=None, validator=optional(name), kw_only=True)
    label_size: int | None = field(
        default=None, converter=to_size, validator=optional(positive), kw_only=True
    )
    share: bool = field(default=True, validator=kind(bool), kw_only=True)
    readonly: bool = field(default=False, validator=kind(bool), kw_only=True)
    pmem: bool = field(default=False, validator=kind(bool), kw_only=True)
    node: int | None = field(default=None, validator=optional(between(0, 127)), kw_only=True)
    uuid: str | None = field(default=None, kw_only=True)

    prefix = "nvdimm"
    slot = Slot()

    def __attrs_post_init__(self) -> None:
        _whole(self.size, None)
        if self.label_size is not None and self.label_size < 128 << 10:
            raise SpecError("label_size", "must be at least 128 KiB", self.label_size)
        if self.label_size is not None and self.label_size >= self.size:
            raise SpecError("label_size", "must be less than size", self.label_size)

    def options(self, at: At) -> Iterator[Option]:
        yield _file(f"{at.name}-memory", self.path, self.size, self)
        places = {"label-size": self.label_size, "node": self.node, "uuid": self.uuid}
        # What the guest may not write to has to say so itself.
        unarmed = {"unarmed": True} if self.readonly else {}
        yield Option("device", _module("nvdimm", at, places) | unarmed)


@frozen
class VirtioPmem:
    """Persistent memory as a virtio device: a file on the host that the guest maps (DAX)."""

    path: Path = field(converter=Path)
    size: int = field(converter=to_size)
    id: str | None = field(default=None, validator=optional(name), kw_only=True)
    share: bool = field(default=True, validator=kind(bool), kw_only=True)
    address: Mapping[str, Any] = field(factory=dict, kw_only=True)

    prefix = "pmem"
    readonly = False
    pmem = False

    def __attrs_post_init__(self) -> None:
        _whole(self.size, None)

    @property
    def slot(self) -> Slot:
        return Slot("pci", address=self.address, driver="virtio-pmem-pci")

    def options(self, at: At) -> Iterator[Option]:
        yield _file(f"{at.name}-memory", self.path, self.size, self)
        yield Option("device", _module("virtio-pmem-pci", at, {}))


@frozen
class VirtioMem(Backing):
    """Memory that grows and shrinks while the guest runs, up to `size`, in blocks.

    `requested` is how much the guest should have now; it takes part of `Memory.maximum`,
    and no slot.
    """

    size: int = field(converter=to_size)
    requested: int = field(default=0, converter=to_size, kw_only=True)
    block_size: int | None = field(
        default=None, converter=to_size, validator=optional(positive), kw_only=True
    )
    node: int | None = field(default=None, validator=optional(between(0, 127)), kw_only=True)
    id: str | None = field(default=None, validator=optional(name), kw_only=True)
    address: Mapping[str, Any] = field(factory=dict, kw_only=True)

    prefix = "vmem"

    def __attrs_post_init__(self) -> None:
        self._check_backing()
        # 2 MiB is the smallest block that QEMU takes on x86.
        block = self.block_size or 2 << 20
        if block & (block - 1) or block < 1 << 20:
            raise SpecError("block_size", "must be a power of two from 1 MiB on", block)
        _whole(self.size, block)
        if not 0 <= self.requested <= self.size or self.requested % block:
            reason = f"must be a multiple of {block} bytes and at most size"
            raise SpecError("requested", reason, self.requested)

    @property
    def slot(self) -> Slot:
        return Slot("pci", address=self.address, driver="virtio-mem-pci")

    def options(self, at: At) -> Iterator[Option]:
        # Blocks are given back one by one, so the host must not reserve them all.
        more = {} if self.reserve is not None or self.prealloc else {"reserve": False}
        yield self.memory(f"{at.name}-memory", self.size, **more)
        places = {"requested-size": self.requested, "block-size": self.block_size}
        yield Option("device", _module("virtio-mem-pci", at, places | {"node": self.node}))


def _module(driver: str, at: At, more: Mapping[str, Any]) -> dict[str, Any]:
    properties = {"driver": driver, "id": at.name, "memdev": f"{at.name}-memory"}
    return properties | {k: v for k, v in more.items() if v is not None} | dict(at.place)


def _file(id: str, path: Path, size: int, part: NVDIMM | VirtioPmem) -> Option:
    properties = {"qom-type": "memory-backend-file", "id": id, "mem-path": str(path)}
    switches = {"readonly": part.readonly or None, "pmem": part.pmem or None}
    more = {k: v for k, v in switches.items() if v is not None}
    return Option("object", {**properties, "size": size, "share": part.share, **more})
