"""Where devices go on PCI: pure plans of the boards, and who sits where.

A *seat* is one slot of one bus, perhaps behind a root port or bridge that has to be made
first. A plan lists the seats for each group of devices in the order in which they are
taken, each group in a region of its own: one more disk moves no network card. Functions
of a slot are shared by root ports only, or where a user pins them.

q35: what may be unplugged sits behind a root port of its own, conventional devices behind
one bridge for each group, what stays is on pcie.0 itself. (A Linux guest takes an interrupt
vector for every port, of some 200 that each vCPU has, unless told pcie_ports=compat.)
pc: everything is on pci.0 while there is room, then behind one bridge for each group. A
last region takes what spills over.

    slot    0  1  2     3..5  6..a  b  c  d  e  f..12      13..17 18 19 1a..1c  1d  1e  1f
    q35   mch  v  <-- nic -> disk  other  spare controller other  spill bridges usb bri lpc
    slot    0  1   2     3..a  b..12  13..17  18..1b      1c..1e  1f
    pc    440 isa  video nic   disk   other   controller  bridges spill
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import define, evolve, field, frozen

from pyvirt.errors import SpecError
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import Slot

# What implements QEMU's interface "conventional-pci-device" and not "pci-express-device":
# express ports refuse some of these, and guests dislike the others there.
CONVENTIONAL = frozenset({
    "AC97", "AMDVI-PCI", "ES1370", "VGA", "acpi-erst", "am53c974", "ati-vga", "cirrus-vga",
    "ctucan_pci", "dc390", "e1000", "e1000-82540em", "e1000-82544gc", "e1000-82545em", "edu",
    "i6300esb", "i82550", "i82551", "i82557a", "i82557b", "i82557c", "i82558a", "i82558b",
    "i82559a", "i82559b", "i82559c", "i82559er", "i82562", "i82801", "i82801b11-bridge",
    "ich9-ahci", "ich9-intel-hda", "ich9-usb-ehci1", "ich9-usb-ehci2", "ich9-usb-uhci1",
    "ich9-usb-uhci2", "ich9-usb-uhci3", "ich9-usb-uhci4", "ich9-usb-uhci5", "ich9-usb-uhci6",
    "intel-hda", "ivshmem-doorbell", "ivshmem-plain", "kvaser_pci", "lsi53c810", "lsi53c895a",
    "megasas", "mioe3680_pci", "mptsas1068", "ne2k_pci", "pci-bridge", "pci-bridge-seat",
    "pci-ipmi-bt", "pci-ipmi-kcs", "pci-ohci", "pci-serial", "pci-serial-2x", "pci-serial-4x",
    "pci-testdev", "pcm3680_pci", "pcnet", "piix3-ide", "piix3-usb-uhci", "piix4-ide",
    "piix4-usb-uhci", "pvpanic-pci", "pvrdma", "pxb", "pxb-cxl", "pxb-pcie", "qxl", "qxl-vga",
    "rocker", "rtl8139", "sdhci-pci", "secondary-vga", "tpci200", "tulip", "usb-ehci",
    "vfio-pci-igd-lpc-bridge", "vmware-svga", "x-pci-proxy-dev",
    # Aliases
    "ahci", "es1370", "ac97", "lsi",
})  # fmt: skip

# Made for the root bus only: some express devices, and the IDE controllers, whose fixed ISA
# ports no guest looks for behind a bridge.
ROOT_ONLY = frozenset({
    "pcie-root-port", "ioh3420", "cxl-rp", "intel-iommu", "amd-iommu", "piix3-ide", "piix4-ide",
})  # fmt: skip


def conventional(driver: str) -> bool:
    """Whether `driver` belongs on a conventional PCI bus, not in an express port."""
    if driver.endswith("-transitional"):
        return not driver.endswith("-non-transitional")
    return driver in CONVENTIONAL


@frozen
class Bridge:
    """A root port or bridge at `slot`.`function` of the root bus, made when first needed.

    Its id is the name of the bus behind it, which has the slots `slots`.
    """

    driver: str
    slot: int
    function: int = 0
    slots: range = range(1, 32)

    @property
    def id(self) -> str:
        kind = "port" if self.driver == "pcie-root-port" else "bridge"
        return f"{kind}{self.slot:x}" + (f".{self.function}" if kind == "port" else "")

    @property
    def number(self) -> int:
        """The chassis number, which no two ports or bridges may share."""
        return self.slot * 8 + self.function

    def option(self, root: str) -> Option:
        """The option that makes it on bus `root`."""
        properties: dict[str, Any] = {"driver": self.driver, "id": self.id, "bus": root}
        properties["addr"] = address(self.slot, self.function)
        if self.driver == "pcie-root-port":
            properties |= {"chassis": self.number, "port": self.number}
            if self.function == 0:
                properties["multifunction"] = True
        elif self.driver == "pci-bridge":
            properties["chassis_nr"] = self.number
        return Option("device", properties)


@frozen
class Seat:
    """One place for a device: slot `slot` of `bus`, behind `bridge` when it is not the root."""

    bus: str
    slot: int
    function: int = 0
    bridge: Bridge | None = None

    @property
    def place(self) -> dict[str, Any]:
        """The properties that put a device here."""
        return {"bus": self.bus, "addr": address(self.slot, self.function)}

    @property
    def key(self) -> tuple[str, int, int]:
        return self.bus, self.slot, self.function


def address(slot: int, function: int = 0) -> str:
    """A PCI address as QEMU's property ``addr`` takes it."""
    return f"{slot:#x}.{function:#x}" if function else f"{slot:#x}"


def parse_address(text: Any) -> tuple[int, int]:
    """Slot and function of a pinned ``addr``: "5", "0x5", "5.1" (hexadecimal, as QEMU reads)."""
    try:
        if isinstance(text, int):
            return divmod(text, 8)
        slot, _, function = str(text).partition(".")
        found = int(slot, 16), int(function or "0", 16)
    except ValueError:
        raise SpecError("address", "must be a PCI address such as '0x5' or '5.1'", text) from None
    if not (0 <= found[0] < 32 and 0 <= found[1] < 8):
        raise SpecError("address", "must have a slot below 0x20 and a function below 8", text)
    return found


def _ports(first: int, last: int) -> tuple[Bridge, ...]:
    """Root ports, eight to a slot, in the slots from `first` to `last`."""
    slots = range(first, last + 1)
    return tuple(Bridge("pcie-root-port", s, f, range(1)) for s in slots for f in range(8))


@frozen
class Plan:
    """A board's regions: group → slots of the root bus, and → bridges and ports."""

    root: str
    builtin: Mapping[tuple[int, int], str]
    slots: Mapping[str, Iterable[int]]
    bridges: Mapping[str, tuple[Bridge, ...]] = field(factory=dict)
    ports: Mapping[str, tuple[Bridge, ...]] = field(factory=dict)
    plugs_root: bool = False

    def seats(self, slot: Slot) -> Iterator[Seat]:
        """Seats fit for `slot`, in the order in which they should be taken."""
        stays = not slot.unpluggable or slot.driver in ROOT_ONLY
        if stays or self.plugs_root or not self.bridges:
            yield from self._direct(slot.group)
        if slot.driver in ROOT_ONLY:
            return
        express = self.ports and not conventional(slot.driver)
        yield from self._behind(self.ports if express else self.bridges, slot.group)

    def _direct(self, group: str) -> Iterator[Seat]:
        # A group with a bridge of its own spills there: the slots of "" are for others.
        own = (group,) if group in self.slots else ("",)
        for name in own if group in self.bridges else dict.fromkeys((*own, "")):
            for number in self.slots.get(name, ()):
                yield Seat(self.root, number)

    def _behind(self, bridges: Mapping[str, tuple[Bridge, ...]], group: str) -> Iterator[Seat]:
        for name in (group if group in bridges else "", "spill"):
            for bridge in bridges.get(name, ()):
                for number in bridge.slots:
                    yield Seat(bridge.id, number, bridge=bridge)

    def spares(self) -> tuple[Bridge, ...]:
        """Ports kept free for what is plugged later."""
        return self.ports.get("spare", ())


PC = Plan(
    root="pci.0",
    builtin={(0, 0): "the host bridge", (1, 0): "the PIIX3"},
    slots={
        "video": (2,),
        "nic": range(0x3, 0xB),
        "disk": range(0xB, 0x13),
        "": range(0x13, 0x18),
        "controller": range(0x18, 0x1C),
    },
    bridges={
        "nic": (Bridge("pci-bridge", 0x1C),),
        "disk": (Bridge("pci-bridge", 0x1D),),
        "": (Bridge("pci-bridge", 0x1E),),
        "spill": (Bridge("pci-bridge", 0x1F),),
    },
    plugs_root=True,
)

Q35 = Plan(
    root="pcie.0",
    builtin={
        (0, 0): "the host bridge",
        (0x1D, 0): "the machine's USB controller",
        (0x1F, 0): "the ICH9",
    },
    slots={"video": (1,), "controller": range(0xF, 0x13), "": range(0x13, 0x18)},
    bridges={
        "nic": (Bridge("pcie-pci-bridge", 0x1A),),
        "disk": (Bridge("pcie-pci-bridge", 0x1B),),
        "": (Bridge("pcie-pci-bridge", 0x1C),),
        "spill": (Bridge("pcie-pci-bridge", 0x1E),),
    },
    ports={
        "nic": _ports(0x2, 0x5),
        "disk": _ports(0x6, 0xA),
        "": _ports(0xB, 0xC),
        "spare": _ports(0xD, 0xE),
        "spill": _ports(0x18, 0x19),
    },
)

#: microvm with pcie=on: a bare express root, on which nothing can be plugged later.
MICROVM = Plan(
    root="pcie.0", builtin={(0, 0): "the host bridge"}, slots={"": range(1, 32)}
)  # fmt: skip


@define
class Seating:
    """Who sits where on the PCI buses of one board."""

    plan: Plan
    taken: dict[tuple[str, int, int], str] = field(factory=dict)
    bridges: dict[str, Bridge] = field(factory=dict)
    shared: set[tuple[str, int]] = field(factory=set)

    def __attrs_post_init__(self) -> None:
        for (slot, function), who in self.plan.builtin.items():
            self.taken.setdefault((self.plan.root, slot, function), who)

    def copy(self) -> Seating:
        return evolve(
            self,
            taken=dict(self.taken),
            bridges=dict(self.bridges),
            shared=set(self.shared),
        )

    def choose(self, slot: Slot, plugged: bool) -> Seat | None:
        """The first free seat for `slot`; when `plugged`, without making a bridge first."""
        seats = self._open(slot) if plugged else self.plan.seats(slot)
        return next((seat for seat in seats if self._free(seat)), None)

    def pinned(self, where: Mapping[str, Any]) -> Seat:
        """The seat at which a user pinned a device."""
        bus = str(where.get("bus", self.plan.root))
        number, function = parse_address(where.get("addr", "0"))
        known = (*self.bridges.values(), *self._all())
        bridge = next((b for b in known if b.id == bus), None)
        return Seat(bus, number, function, bridge)

    def sit(self, seat: Seat, name: str) -> tuple[Option, ...]:
        """Take `seat` for `name`: the bridge that had to be made for it, if any."""
        made = self.make(seat.bridge) if seat.bridge is not None else ()
        self.taken[seat.key] = name
        return made

    def make(self, bridge: Bridge) -> tuple[Option, ...]:
        """Make `bridge` unless it is there. Functions count only when function 0 exists."""
        if bridge.id in self.bridges:
            return ()
        first = self.make(evolve(bridge, function=0)) if bridge.function else ()
        self.bridges[bridge.id] = bridge
        self.taken[self.plan.root, bridge.slot, bridge.function] = bridge.id
        return (*first, bridge.option(self.plan.root))

    def pin(self, seat: Seat, name: str, multifunction: bool) -> tuple[Option, ...]:
        """Take a pinned seat; raises `SpecError` naming who is in the way."""
        holder = self._in_the_way(seat, multifunction)
        if holder is not None:
            raise SpecError("address", f"of {name} is held by {holder}", seat.place)
        if multifunction and seat.function == 0:
            self.shared.add((seat.bus, seat.slot))
        return self.sit(seat, name)

    def _in_the_way(self, seat: Seat, multifunction: bool) -> str | None:
        if seat.key in self.taken:
            return self.taken[seat.key]
        if seat.function == 0:
            return None if multifunction else self._neighbour(seat.bus, seat.slot)
        # QEMU lets other functions be added only where function 0 says multifunction=on.
        shared = (seat.bus, seat.slot) in self.shared
        return None if shared else self.taken.get((seat.bus, seat.slot, 0))

    def _open(self, slot: Slot) -> Iterator[Seat]:
        """Seats for what is plugged into a running guest: behind bridges that are there."""
        kind = "pcie-pci-bridge" if conventional(slot.driver) else "pcie-root-port"
        there = [bridge for bridge in self.bridges.values() if bridge.driver == kind]
        spares = set(self.plan.spares())
        for bridge in sorted(there, key=lambda bridge: bridge not in spares):
            yield from (Seat(bridge.id, number, bridge=bridge) for number in bridge.slots)
        if self.plan.plugs_root:
            for seat in self.plan.seats(slot):
                if seat.bridge is None or seat.bridge.id in self.bridges:
                    yield seat

    def _free(self, seat: Seat) -> bool:
        bridge = seat.bridge
        if bridge is not None and bridge.id not in self.bridges and not self._makable(bridge):
            return False
        return self._neighbour(seat.bus, seat.slot) is None

    def _makable(self, bridge: Bridge) -> bool:
        """Whether the bridge's slot holds nothing but ports of ours."""
        root = self.plan.root
        held = (self.taken.get((root, bridge.slot, f)) for f in range(8))
        return all(who is None or who in self.bridges for who in held)

    def _neighbour(self, bus: str, slot: int) -> str | None:
        """Who holds any function of a slot."""
        held = (self.taken.get((bus, slot, f)) for f in range(8))
        return next((who for who in held if who is not None), None)

    def _all(self) -> Iterator[Bridge]:
        for groups in (self.plan.ports, self.plan.bridges):
            for bridges in groups.values():
                yield from bridges
