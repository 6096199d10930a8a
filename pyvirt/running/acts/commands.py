"""Commands, files and facts inside, through whichever agent answers."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pyvirt.errors import SpecError
from pyvirt.flows.steps import Act
from pyvirt.guest.carrier import LIMIT, Command, GuestInfo, Progress, Sink
from pyvirt.guest.command import check_command
from pyvirt.guest.process import GuestProcess
from pyvirt.guest.result import Result
from pyvirt.guest.traffic import Traffic, traffic
from pyvirt.running.acts.base import BOOT, PATIENCE, Answering

Source = bytes | str | Path | BinaryIO


class Commands(Answering):
    """What a VM and a container answer alike.

    Each waits until an agent answers, at most `boot` seconds where it takes that.
    """

    def run(
        self,
        command: Command,
        *,
        input: bytes | str | None = None,
        timeout: float | None = None,
        check: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        limit: int = LIMIT,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
        encoding: str | None = "utf-8",
        boot: float | None = BOOT,
    ) -> Act[Result[Any]]:
        """Run `command` in the guest to its end: a `str` by /bin/sh, a list as it is.

        The `Result` has the exit code or signal, the output and the duration in seconds.
        At most `limit` bytes of each stream are kept, and the result then says that it is
        cut; a stream with a sink goes there whole instead. After `timeout` seconds the
        command and all its children are killed in the guest, and `RunTimedOut` holds what
        they had written. With `check`, `RunError` is raised unless the exit code is 0.
        `encoding=None` gives bytes.
        """
        check_command(command, env)
        carrier = yield from self.agent(boot)
        result: Result[Any] = yield carrier.run(
            command,
            input=input.encode() if isinstance(input, str) else input,
            timeout=timeout,
            env=env,
            cwd=cwd,
            user=user,
            limit=limit,
            stdout=stdout,
            stderr=stderr,
            encoding=encoding,
        )
        return result.check() if check else result

    def spawn(
        self,
        command: Command,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        pty: bool = False,
        boot: float | None = BOOT,
    ) -> Act[GuestProcess]:
        """Start `command` in the guest, with live streams; `pty` gives it a terminal."""
        check_command(command, env)
        carrier = yield from self.agent(boot)
        begun = carrier.spawn(command, env=env, cwd=cwd, user=user, pty=pty)
        return (yield from self.answered(begun, PATIENCE, "starting a command"))

    def put(
        self,
        source: Source,
        path: str,
        *,
        mode: int | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
        boot: float | None = BOOT,
    ) -> Act[int]:
        """Copy into the guest: bytes, a file object, or a file or directory of the host.

        A file appears under its name whole or not at all, with permissions `mode` (by
        default those of the host's file, or 0o644). `progress` is called with the bytes
        done and the bytes in all. The bytes sent.
        """
        carrier = yield from self.agent(boot)
        if isinstance(source, str | Path):
            origin = Path(source)
            if origin.is_dir():
                sent = carrier.put_tree(str(origin), path, progress=progress)
                return (yield from self.answered(sent, timeout, f"copying to {path}"))
            mode = origin.stat().st_mode & 0o7777 if mode is None else mode
            with origin.open("rb") as file:
                sent = carrier.put(file, path, mode=mode, progress=progress)
                return (yield from self.answered(sent, timeout, f"copying to {path}"))
        mode = 0o644 if mode is None else mode
        sent = carrier.put(source, path, mode=mode, progress=progress)
        return (yield from self.answered(sent, timeout, f"copying to {path}"))

    def get(
        self,
        path: str,
        target: str | Path | BinaryIO,
        *,
        tree: bool = False,
        progress: Progress | None = None,
        timeout: float | None = None,
        boot: float | None = BOOT,
    ) -> Act[int]:
        """Copy a file of the guest (with `tree`, a directory) to the host. The bytes read.

        A file of the host appears whole or not at all. It is given up after `timeout` seconds.
        """
        carrier = yield from self.agent(boot)
        what = f"copying from {path}"
        if not isinstance(target, str | Path):
            got = carrier.get(path, target, progress=progress)
            return (yield from self.answered(got, timeout, what))
        if tree:
            got = carrier.get_tree(path, str(target), progress=progress)
            return (yield from self.answered(got, timeout, what))
        draft = Path(target).with_name(f".{Path(target).name}.part")
        try:
            with draft.open("wb") as file:
                got = carrier.get(path, file, progress=progress)
                done = yield from self.answered(got, timeout, what)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        return done

    def read_text(
        self, path: str, encoding: str = "utf-8", *, timeout: float | None = None
    ) -> Act[str]:
        """A file of the guest as text."""
        return (yield from self.read_bytes(path, timeout=timeout)).decode(encoding)

    def read_bytes(self, path: str, *, timeout: float | None = None) -> Act[bytes]:
        """A file of the guest."""
        buffer = io.BytesIO()
        yield from self.get(path, buffer, timeout=timeout)
        return buffer.getvalue()

    def write_text(
        self,
        path: str,
        text: str,
        *,
        mode: int = 0o644,
        encoding: str = "utf-8",
        timeout: float | None = None,
    ) -> Act[int]:
        """Write `text` to a file of the guest; the bytes written."""
        data = text.encode(encoding)
        return (yield from self.put(data, path, mode=mode, timeout=timeout))

    def ping(self, *, timeout: float = 10.0) -> Act[float]:
        """How long the guest's agent takes to answer, in seconds."""
        carrier = yield from self.agent(timeout)
        return (yield from self.answered(carrier.ping(), timeout, "a ping"))

    def guest_info(self, *, timeout: float | None = PATIENCE) -> Act[GuestInfo]:
        """What the guest says of itself: system, interfaces, file systems, users, time."""
        carrier = yield from self.agent()
        return (yield from self.answered(carrier.info(), timeout, "asking for facts"))

    def network_statistics(self, *, timeout: float | None = PATIENCE) -> Act[Mapping[str, Traffic]]:
        """Bytes, packets, errors and drops of each interface, as the guest counts them."""
        table = yield from self.run(["cat", "/proc/net/dev"], check=True, timeout=timeout)
        return traffic(table.stdout)

    def set_time(
        self, seconds: float | None = None, *, timeout: float | None = PATIENCE
    ) -> Act[None]:
        """Set the guest's clock to `seconds` since 1970, or to the host's."""
        if seconds is not None and not isinstance(seconds, int | float):
            raise SpecError("seconds", "must be a number of seconds since 1970", seconds)
        carrier = yield from self.agent()
        yield from self.answered(carrier.set_time(seconds), timeout, "setting the clock")
