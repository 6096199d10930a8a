"""Acts that change the machine while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import attrs

from pyvirt import fields
from pyvirt.boot import Firmware
from pyvirt.devices import flows as device_flows
from pyvirt.devices.flows import BalloonStatistics
from pyvirt.disk import CDROM, Floppy, Throttle
from pyvirt.disk import flows as disk_flows
from pyvirt.disk.drive import Drive
from pyvirt.errors import PyvirtError, SpecError, UnsupportedError
from pyvirt.flows import plug
from pyvirt.flows.steps import Act, Release, Within
from pyvirt.machine import flows as machine_flows
from pyvirt.nic import Forward, Nic, Rate
from pyvirt.nic import flows as nic_flows
from pyvirt.nic.rate import to_rate
from pyvirt.qemu.composition import Placed, sort
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import Part
from pyvirt.qmp.flow import Command
from pyvirt.running.acts.base import BOOT, PATIENCE, Base, needing
from pyvirt.running.agents.native import NativeAgent
from pyvirt.running.host.tap import limit
from pyvirt.running.relay import open_relay


class Devices(Base):
    """Plugging, unplugging, changing. Parts are named as in the description: "disk0"."""

    def plug(self, part: Part) -> Act[str]:
        """Plug a part into the running VM; its name. One that fails leaves nothing behind.

        A disk that joins others on an lsi53c895a, lsi53c810, am53c974, dc390 or megasas is
        there once the guest looks again: ``echo '- - -' > /sys/class/scsi_host/hostN/scan``
        in Linux. On an mptsas1068 it is there after the guest's next boot. With its controller
        it comes at once.
        """
        if not isinstance(part, Part):
            reason = "must be a disk, a network card or another device"
            raise SpecError("part", reason, part)
        placed = self.engine.composition.plug(part, part.id or part.prefix)
        try:
            self.engine.check(placed)
            yield from plug.plug(placed)
        except BaseException:
            self.engine.composition.remove(placed, ports=True)
            raise
        return placed.name

    def unplug(self, name: str, *, timeout: float = PATIENCE) -> Act[None]:
        """Take the part `name` out, once the guest has let go of it.

        `UnplugError` when it does not within `timeout` seconds; the part then stays.
        """
        placed = self.placed(name)
        if name in self.engine.vm.channels:
            reason = "must not be the channel to an agent, by which commands are run"
            raise SpecError("name", reason, name)
        yield from plug.unplug(placed, timeout)
        self.engine.composition.remove(placed)

    def insert(
        self,
        name: str,
        medium: str | Path | Drive,
        *,
        force: bool = False,
        timeout: float | None = PATIENCE,
    ) -> Act[None]:
        """Put a medium into drive `name`: an image's path, or a `CDROM` or `Floppy` value.

        What was in it comes out first. A guest that has locked the tray gets `timeout`
        seconds to open it, or is not asked when `force`.
        """
        placed = self.placed(name)
        drive = self._drive(placed)
        if not isinstance(medium, Drive):
            medium = attrs.evolve(drive, file=medium)
        present = _nodes(placed)
        options, needs = sort(medium.medium(disk_flows.medium_name(name, present)), name)
        supplied: dict[str, str] = {}
        try:
            for need in needs:
                supplied |= yield from plug.acquire(need)
            yield from disk_flows.insert(
                name, options, supplied, present=present, force=force, timeout=timeout
            )
        except PyvirtError:
            yield from _release(needs)
            raise
        yield from self._now_holds(placed, options, needs)

    def eject(
        self, name: str, *, force: bool = False, timeout: float | None = PATIENCE
    ) -> Act[None]:
        """Take the medium out of drive `name`; its tray stays open."""
        placed = self.placed(name)
        self._drive(placed)
        yield from disk_flows.eject(name, present=_nodes(placed), force=force, timeout=timeout)
        yield from self._now_holds(placed, (), ())

    def resize(self, name: str, size: int | str, *, shrink: bool = False) -> Act[None]:
        """Give disk `name` a new size in bytes (or "10G"); the guest is told.

        A smaller size loses what lies beyond it, and has to be asked for with `shrink`.
        """
        yield from disk_flows.resize(name, fields.size(size, "size"), shrink=shrink)

    def throttle(self, name: str, limits: Throttle) -> Act[None]:
        """Limit disk `name` from now on."""
        yield from disk_flows.throttle(name, limits)

    def set_link(self, name: str, up: bool) -> Act[None]:
        """Plug the cable of network card `name` in, or pull it."""
        yield from nic_flows.set_link(name, up)

    def set_rate(self, name: str, rate: Rate | int | str | None) -> Act[None]:
        """Hold network card `name`, whose back end is a `Tap`, to `rate`; None is no limit.

        A number or a size is bytes a second, each way.
        """
        ifname = self.engine.supplied.get(f"{self.placed(name).name}-net.ifname")
        if ifname is None:
            raise SpecError("name", "must be a card on a Tap that pyvirt opened", name)
        limit(ifname, to_rate(rate))
        yield from ()  # An act is a generator; the kernel answers at once.

    def forward(self, port: int, *, host: int = 0, proto: str = "tcp") -> Act[Forward]:
        """Forward port `host` of this host (0: a free one) to `port` of the guest.

        The result's ``host`` is the port to connect to on 127.0.0.1. It goes through a
        network card with a `User` back end, to the guest's address; where there is none,
        through pyvirt's agent, to the guest's own 127.0.0.1.
        """
        wanted = Forward(host, port, proto)
        netdev = self._user_netdev()
        if netdev is not None:
            return (yield from nic_flows.add_forward(netdev, wanted))
        agent = yield from self._native_agent()
        relay = open_relay(wanted, partial(agent.dial, port=port, protocol=proto))
        self.engine.relays[relay.forward.listens] = relay
        return relay.forward

    def unforward(self, forward: Forward) -> Act[None]:
        """Forward that port no longer; what goes through an agent is cut off."""
        relay = self.engine.relays.pop(forward.listens, None)
        if relay is not None:
            relay.close()
            return
        netdev = self._user_netdev()
        if netdev is None:
            raise SpecError("forward", "must be one that is forwarded", forward.listens)
        yield from nic_flows.remove_forward(netdev, forward)

    def balloon(self, size: int | str, *, timeout: float | None = PATIENCE) -> Act[int]:
        """Have the guest live with `size` bytes; what it has at the end.

        `TimedOut` when it does not get there within `timeout` seconds.
        """
        flow = device_flows.settle_balloon(fields.size(size, "size"), timeout)
        return (yield from needing(flow, "a balloon", "describe one: devices=[Balloon()]"))

    def balloon_statistics(
        self, name: str = "balloon0", *, timeout: float = PATIENCE
    ) -> Act[BalloonStatistics]:
        """What the guest says of its memory through balloon `name`, asked for now.

        The balloon collects every second from the first call on.
        """
        self.placed(name)
        yield from device_flows.poll_balloon(name, 1)
        return (yield from device_flows.fresh_statistics(name, timeout))

    def set_watchdog_action(self, action: str) -> Act[None]:
        """What happens when a watchdog is not fed: "reset", "poweroff", "pause", ..."""
        yield from device_flows.set_watchdog_action(action)

    def plug_cpus(self, count: int = 1) -> Act[list[str]]:
        """Plug `count` more vCPUs, up to the maximum of `VM.cpus`; their ids."""
        return (yield from machine_flows.plug_cpus(count))

    def unplug_cpus(self, count: int = 1, *, timeout: float = PATIENCE) -> Act[list[str]]:
        """Take out `count` vCPUs that were plugged, the last first; their ids.

        `UnplugError` when the guest does not let go of one within `timeout` seconds.
        """
        ids = yield from machine_flows.plugged_cpus(count)
        for id in ids:
            yield from plug.let_go(id, timeout)
        return ids

    def resize_memory(
        self, name: str, size: int | str, *, timeout: float | None = PATIENCE
    ) -> Act[int]:
        """Have the guest hold `size` bytes of virtio-mem device `name`; what it holds then."""
        wanted = fields.size(size, "size")
        return (yield from machine_flows.resize_virtio_mem(name, wanted, timeout))

    def boot_from(self, *names: str) -> Act[None]:
        """Let the firmware try these parts first, in this order, from the next reset on."""
        wanted = [self.placed(name).name for name in names]
        # A kernel given to QEMU boots through an option ROM that holds the first place.
        first = 0 if isinstance(self.engine.vm.boots, Firmware) else 1
        for name, index in later(list(self.engine.composition.placed.values()), wanted):
            yield _boot_order(name, index)
        for order, name in enumerate(wanted, first):
            yield _boot_order(name, order)

    def set_vnc_password(
        self, password: str, *, display: str | None = None, expires: str | None = None
    ) -> Act[None]:
        """Set the password of a VNC server that asks for one.

        `expires` is "never", "now", "+seconds" or seconds since 1970.
        """
        flow = device_flows.set_vnc_password(password, display=display, expires=expires)
        hint = "describe one that asks for a password: displays=[Vnc(..., password=...)]"
        yield from needing(flow, "a VNC server with a password", hint)

    def set_spice_password(
        self, password: str, *, connected: str = "keep", expires: str | None = None
    ) -> Act[None]:
        """Set the password of the SPICE server; `connected` is "keep", "disconnect" or "fail".

        `expires` is as for VNC.
        """
        flow = device_flows.set_spice_password(password, connected=connected, expires=expires)
        hint = "describe one: displays=[Spice(...)]"
        yield from needing(flow, "a SPICE server", hint)

    def placed(self, name: str) -> Placed:
        """The part `name` with its place; `SpecError` when there is none of that name."""
        try:
            return self.engine.composition.placed[name]
        except KeyError:
            known = ", ".join(sorted(self.engine.composition.placed)) or "nothing"
            raise SpecError("name", f"must be one of {known}", name) from None

    def _drive(self, placed: Placed) -> Drive:
        if not isinstance(placed.part, CDROM | Floppy):
            raise SpecError("name", "must be a drive with a removable medium", placed.name)
        return placed.part

    def _now_holds(
        self, placed: Placed, medium: tuple[Option, ...], needs: tuple[Need, ...]
    ) -> Act[None]:
        """The drive has another medium, or none; what the old one needed is given back."""
        device = [option for option in placed.options if option.kind == "device"]
        now = attrs.evolve(placed, options=(*medium, *device), needs=needs)
        self.engine.composition.placed[placed.name] = now
        yield from _release(placed.needs)

    def _user_netdev(self) -> str | None:
        for placed in self.engine.composition.placed.values():
            netdev = placed.part.user_netdev(placed.name) if isinstance(placed.part, Nic) else None
            if netdev is not None:
                return netdev
        return None

    def _native_agent(self) -> Act[NativeAgent]:
        """pyvirt's own agent, once it has answered."""
        name = self.engine.vm.name
        for carrier in self.engine.carriers:
            if isinstance(carrier, NativeAgent):
                yield Within(carrier.ready, BOOT, f"waiting for pyvirt's agent in {name}")
                return carrier
        hint = "give it a Nic with a User back end, or agents=['pyvirt'] and that agent"
        raise UnsupportedError("a way to forward a port", f"VM {name}", hint)


def _release(needs: Iterable[Need]) -> Act[None]:
    for need in needs:
        yield Release(need.name)


def _nodes(placed: Placed) -> tuple[Option, ...]:
    return tuple(_medium(placed.options))


def _medium(options: tuple[Option, ...]) -> Iterator[Option]:
    for option in options:
        if option.kind != "device":
            yield option


def later(everything: Iterable[Placed], wanted: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Boot indexes behind all others, in today's order: QEMU refuses one that is held."""
    held = {p.name: p.device_property("bootindex") for p in everything}
    known = {name: int(index) for name, index in held.items() if index is not None}
    behind = max(known.values(), default=0) + len(held) + 1
    for name, index in known.items():
        if name not in wanted:
            yield name, behind + index
    for order, name in enumerate(wanted):
        yield name, 2 * behind + order


def _boot_order(name: str, index: int) -> Command:
    path = f"/machine/peripheral/{name}"
    return Command("qom-set", {"path": path, "property": "bootindex", "value": index})
