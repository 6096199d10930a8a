"""Acquiring what options need: fds, files, companions. All of it is given back in one place."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pyvirt.boot import GuestImage
from pyvirt.errors import StartError, UnsupportedError
from pyvirt.machine.firmware import UefiFiles
from pyvirt.qemu import overlay
from pyvirt.qemu.need import (
    Companion,
    CopiedFile,
    GivenFds,
    HostPath,
    InputPipe,
    Need,
    Peer,
    Socketpair,
    TapFds,
    TemporaryFile,
    TemporaryOverlay,
    TemporaryPath,
    VhostFds,
)
from pyvirt.running.children.companion import start as start_companion
from pyvirt.running.children.peer import start as start_peer
from pyvirt.running.children.process import spawn
from pyvirt.running.guest.apt import Progress
from pyvirt.running.guest.build import build
from pyvirt.running.host import firmware
from pyvirt.running.host.hostpath import check
from pyvirt.running.host.tap import open_tap, tap_name


class Held:
    """What was acquired for one need: `values` for options, `fds` that QEMU must inherit."""

    def __init__(self, need: Need, progress: Progress | None = None) -> None:
        self.need, self.progress = need, progress
        self.values: dict[str, str] = {}
        self.fds: list[int] = []
        self.socket: socket.socket | None = None
        self._stack = ExitStack()
        self._stack.callback(self.given)

    def give(self, *fds: int) -> None:
        """More descriptors for QEMU; ours until `given`."""
        self.fds.extend(fds)
        self.values[self.need.name] = ":".join(str(fd) for fd in self.fds)

    def given(self) -> None:
        """QEMU has the descriptors: close this process's copies."""
        while self.fds:
            os.close(self.fds.pop())

    def take_socket(self) -> socket.socket:
        """This process's end of a pair; it is the caller's from now on."""
        assert self.socket is not None
        taken, self.socket = self.socket, None
        return taken

    def close_socket(self) -> None:
        if self.socket is not None:
            self.socket.close()

    def on_close(self, callback: Callable[..., Any], *arguments: Any) -> None:
        self._stack.callback(callback, *arguments)

    def close(self) -> None:
        """Give everything back, the last first."""
        self._stack.close()


def acquire(
    need: Need, directory: Path, supplied: Mapping[str, str], progress: Progress | None = None
) -> Held:
    """Acquire `need`; temporary files go into `directory`.

    `supplied` holds the values of needs acquired before; `progress` is told of what takes
    long. Raises `PyvirtError` or `OSError`, with nothing left behind.
    """
    held = Held(need, progress)
    try:
        _ACQUIRE[type(need)](held, need, directory, supplied)
    except BaseException:
        held.close()
        raise
    return held


def _socketpair(held: Held, need: Socketpair, *_: Any) -> None:
    ours, theirs = socket.socketpair()
    held.socket = ours
    held.on_close(held.close_socket)
    held.give(theirs.detach())


def _file(held: Held, need: TemporaryFile, directory: Path, *_: Any) -> None:
    path = directory / f"{need.name}{need.suffix}"
    path.touch(mode=0o600)
    path.write_bytes(need.content)
    _supply_path(held, path)


def _path(held: Held, need: TemporaryPath, directory: Path, *_: Any) -> None:
    _supply_path(held, directory / f"{need.name}{need.suffix}")


def _input_pipe(held: Held, need: InputPipe, directory: Path, *_: Any) -> None:
    path = directory / need.name
    inward, outward = (path.with_name(f"{need.name}.{way}") for way in ("in", "out"))
    os.mkfifo(inward, 0o600)
    held.on_close(lambda: inward.unlink(missing_ok=True))
    outward.symlink_to(os.devnull)
    held.on_close(lambda: outward.unlink(missing_ok=True))
    held.values[need.name] = str(path)


def _copy(held: Held, need: CopiedFile, directory: Path, *_: Any) -> None:
    held.values[need.name] = str(_writable(need, directory, held))


def _writable(need: CopiedFile, directory: Path, held: Held) -> Path:
    """The writable copy: temporary, or made once and kept."""
    if need.path is None:
        path = directory / need.name
        held.on_close(lambda: path.unlink(missing_ok=True))
        shutil.copyfile(need.source, path)
        return path
    if not need.path.exists():
        draft = need.path.with_name(f".{need.path.name}.{os.getpid()}")
        try:
            shutil.copyfile(need.source, draft)
            draft.replace(need.path)
        finally:
            draft.unlink(missing_ok=True)
    return need.path


def _supply_path(held: Held, path: Path) -> None:
    held.values[held.need.name] = str(path)
    held.on_close(lambda: path.unlink(missing_ok=True))


def _tap(held: Held, need: TapFds, *_: Any) -> None:
    held.give(*open_tap(need))
    held.values[f"{need.name}.ifname"] = tap_name(held.fds[0])


def _vhost(held: Held, need: VhostFds, *_: Any) -> None:
    held.values[need.name] = ""
    for _queue in range(need.queues):
        try:
            held.give(os.open(need.path, os.O_RDWR | os.O_CLOEXEC))
        except OSError:
            # QEMU 7.2 aborts when it opens the device itself in vain, so it is not asked to.
            if not need.optional or held.fds:
                raise
            return


def _given(held: Held, need: GivenFds, *_: Any) -> None:
    for fd in need.fds:
        held.give(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))


def _peer(held: Held, need: Peer, directory: Path, supplied: Mapping[str, str]) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        held.give(ours.detach())
        held.on_close(start_peer(need, theirs.fileno(), supplied).close)


def _host_path(held: Held, need: HostPath, *_: Any) -> None:
    held.values[need.name] = check(need)


def _overlay(
    held: Held, need: TemporaryOverlay, directory: Path, supplied: Mapping[str, str]
) -> None:
    path = directory / f"{need.name}.qcow2"
    held.on_close(lambda: path.unlink(missing_ok=True))
    size = overlay.virtual_size(_qemu_img(overlay.measure(need, supplied)))
    _qemu_img(overlay.create(str(path), size))
    held.values[need.name] = str(path)


def _qemu_img(words: list[str]) -> bytes:
    """What ``qemu-img`` printed; `StartError` with its last words when it failed."""
    if shutil.which(words[0]) is None:
        raise UnsupportedError(words[0], "this host", f"install the package {overlay.PACKAGE}")
    reader, writer = os.pipe()
    with open(reader, "rb") as printed:
        try:
            process = spawn(words, stdout=writer)
        finally:
            os.close(writer)
        with process:
            answer = printed.read()
            end = process.wait()
    if not end.ok:
        raise StartError(words[0], str(end), process.last_words)
    return answer


def _uefi(held: Held, need: UefiFiles, directory: Path, *_: Any) -> None:
    chosen = firmware.find(need)
    assert chosen.template is not None
    held.values[f"{need.name}.code"] = str(chosen.code)
    _copy(held, CopiedFile(f"{need.name}.vars", chosen.template, need.store), directory)


def _companion(
    held: Held, need: Companion, directory: Path, supplied: Mapping[str, str]
) -> None:
    companion = start_companion(need, directory, supplied)
    held.on_close(companion.close)
    held.values[need.name] = str(companion.socket)


def _guest(held: Held, need: GuestImage, *_: Any) -> None:
    built = build(need.guest, progress=held.progress)
    held.values |= {
        f"{need.name}.kernel": str(_efi(built.packed) if need.efi else built.kernel),
        f"{need.name}.initramfs": str(built.initramfs),
        f"{need.name}.append": need.append(
            built.append, built.initramfs.stat().st_size, _clock() if need.clock else None
        ),
    }


def _efi(kernel: Path) -> Path:
    """`kernel`, if UEFI can start it: then it is a program of Windows' kind as well."""
    with kernel.open("rb") as file:
        if file.read(2) != b"MZ":
            hint = "name a bzImage in Guest.kernel"
            raise UnsupportedError("an EFI stub", str(kernel), hint)
    return kernel


def _clock() -> int | None:
    """The host's time-stamp counter in kHz, as far as it tells (proc(5))."""
    speed = re.search(r"^cpu MHz\s*: ([\d.]+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return round(float(speed[1]) * 1000) if speed else None


_ACQUIRE: dict[type[Need], Callable[..., None]] = {
    Socketpair: _socketpair,
    TemporaryFile: _file,
    TemporaryPath: _path,
    InputPipe: _input_pipe,
    CopiedFile: _copy,
    TapFds: _tap,
    GivenFds: _given,
    Peer: _peer,
    VhostFds: _vhost,
    TemporaryOverlay: _overlay,
    UefiFiles: _uefi,
    HostPath: _host_path,
    Companion: _companion,
    GuestImage: _guest,
}
