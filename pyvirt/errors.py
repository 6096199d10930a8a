"""Everything pyvirt raises: the type says who is at fault, attributes hold the facts.

``OSError`` of the host passes through untouched, and every time limit is also a
built-in ``TimeoutError``.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar


class PyvirtError(Exception):
    """The base of all errors that pyvirt raises itself.

    They can be pickled, and copied: who waits together for what fails gets an error each,
    or their tracebacks would pile up in one.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, self.__dict__)


E = TypeVar("E", bound=BaseException)


def own(error: E) -> E:
    """`error` for one of many who wait for what failed."""
    if not isinstance(error, PyvirtError):
        return error
    mine = copy.copy(error)
    mine.__cause__, mine.__suppress_context__ = error.__cause__, error.__suppress_context__
    return mine


def _again(kind: type[PyvirtError], args: tuple[Any, ...], facts: dict[str, Any]) -> PyvirtError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class SpecError(PyvirtError, ValueError):
    """A description is wrong: `field` holds `value`, which does not fit `reason`."""

    def __init__(self, field: str, reason: str, value: Any) -> None:
        super().__init__(f"{field} {reason}, got {value!r}")
        self.field, self.reason, self.value = field, reason, value

    def inside(self, owner: str) -> SpecError:
        """The same fault, of the field inside `owner` ("disks[0]")."""
        return SpecError(f"{owner}.{self.field}", self.reason, self.value)


class UnsupportedError(PyvirtError):
    """This QEMU, or this host, lacks what a description needs."""

    def __init__(self, what: str, where: str, hint: str = "") -> None:
        super().__init__(f"{what} is not available in {where}" + (f"; {hint}" if hint else ""))
        self.what, self.where, self.hint = what, where, hint


class ProtocolError(PyvirtError):
    """A peer broke its protocol at byte `offset` of its stream."""

    def __init__(self, peer: str, reason: str, offset: int) -> None:
        super().__init__(f"{peer} {reason} at byte {offset}")
        self.peer, self.reason, self.offset = peer, reason, offset


class ClosedError(PyvirtError, ConnectionError):
    """The other end is gone; `why` says what is known of its end."""

    def __init__(self, peer: str, why: str) -> None:
        super().__init__(f"{peer} is closed: {why}")
        self.peer, self.why = peer, why


class CommandError(PyvirtError):
    """QEMU refused a command."""

    def __init__(self, command: str, kind: str, desc: str) -> None:
        super().__init__(f"{command}: {desc} ({kind})")
        self.command, self.kind, self.desc = command, kind, desc


class TimedOut(PyvirtError, TimeoutError):
    """`what` took longer than `seconds`."""

    def __init__(self, what: str, seconds: float, detail: str = "") -> None:
        more = f": {detail}" if detail else ""
        super().__init__(f"{what} took longer than {seconds:g} s{more}")
        self.what, self.seconds, self.detail = what, seconds, detail


class RunError(PyvirtError):
    """A command in the guest failed; `result` holds its end and its output."""

    def __init__(self, result: Any) -> None:
        said = _last_line(result.stderr) or _last_line(result.stdout)
        super().__init__(f"{result.command!r}: {result.end}" + (f": {said}" if said else ""))
        self.result = result


class RunTimedOut(TimedOut):
    """A command in the guest was ended at its time limit; what it had written is kept.

    `ended` is False when the guest did not confirm that the command is gone.
    """

    def __init__(
        self, command: Any, seconds: float, stdout: Any, stderr: Any, ended: bool = True
    ) -> None:
        detail = "it was killed" if ended else "the guest did not confirm its end"
        super().__init__(f"{command!r}", seconds, detail)
        self.command, self.stdout, self.stderr, self.ended = command, stdout, stderr, ended


class GuestError(PyvirtError):
    """The guest could not do `what`. `errno` is the guest's error number where it is known."""

    def __init__(self, what: str, reason: str, errno: int | None = None) -> None:
        super().__init__(f"{what} failed in the guest: {reason}")
        self.what, self.reason, self.errno = what, reason, errno


def _last_line(output: str | bytes) -> str:
    """The last words of a command that failed, at most 200 characters of them."""
    text = output[-1000:]
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    lines = text.strip().splitlines()
    return lines[-1][-200:] if lines else ""


class JobError(PyvirtError):
    """A block job or a migration ended with an error."""

    def __init__(self, job: str, reason: str) -> None:
        super().__init__(f"job {job} failed: {reason}")
        self.job, self.reason = job, reason


class UnplugError(PyvirtError):
    """A device stayed in the guest."""

    def __init__(self, device: str, why: str) -> None:
        super().__init__(f"{device} was not unplugged: {why}")
        self.device, self.why = device, why


class ResultsError(PyvirtError, ValueError):
    """The file `path` holds no benchmark results that can be read."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{shown(path)} holds no benchmark results: {reason}")
        self.path, self.reason = path, reason


class StartError(PyvirtError):
    """A VM did not start: QEMU, or a program beside it, ended or never got ready."""

    def __init__(self, program: str, why: str, words: str = "") -> None:
        super().__init__(f"{program} did not start: {why}" + (f": {words}" if words else ""))
        self.program, self.why, self.words = program, why, words


class BusyError(PyvirtError):
    """Somebody else works on `what`: process `holder`, as far as that is known."""

    def __init__(self, what: str, holder: str = "", seconds: float = 0.0) -> None:
        who = f"process {holder}" if holder else "another process"
        waited = f" after {seconds:g} s" if seconds else ""
        super().__init__(f"{who} still works on {what}{waited}")
        self.what, self.holder, self.seconds = what, holder, seconds


class LimitError(PyvirtError):
    """The kernel did not take a limit: it says `found` where `wanted` was written to `file`."""

    def __init__(self, field: str, file: str, wanted: str, found: str) -> None:
        super().__init__(
            f"{field} did not bite: {file} says {found.strip() or 'nothing'!r}, not {wanted!r}"
        )
        self.field, self.file, self.wanted, self.found = field, file, wanted, found


class ContainerError(PyvirtError):
    """liblxc refused `what` of a container; `words` are its last ones."""

    def __init__(self, name: str, what: str, words: str = "") -> None:
        super().__init__(f"{what} of container {name} failed" + (f": {words}" if words else ""))
        self.name, self.what, self.words = name, what, words


class ToolError(PyvirtError):
    """A program beside QEMU failed at its command `what`; `words` are its last ones."""

    def __init__(self, program: str, what: str, end: str, words: str = "") -> None:
        super().__init__(f"{program} {what} failed: {words or end}")
        self.program, self.what, self.end, self.words = program, what, end, words


class HeldError(PyvirtError):
    """Another process holds the image `path`; `holder` names it where that can be known."""

    def __init__(self, path: str, holder: str = "") -> None:
        who = holder or "another process, such as a QEMU that runs,"
        super().__init__(f"{shown(path)} is in use: {who} holds it; end that first")
        self.path, self.holder = path, holder


class DownloadError(PyvirtError):
    """What the default guest is made of could not be fetched; `why` is apt's complaint."""

    def __init__(self, package: str, why: str) -> None:
        super().__init__(
            f"{package} could not be downloaded: {why}; "
            "check the network, or run `apt-get update` as root if the lists are old"
        )
        self.package, self.why = package, why


class Cancelled(PyvirtError):
    """`what` was given up because that was asked for; it left nothing behind."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} was cancelled")
        self.what = what


class RootFSError(PyvirtError):
    """A root file system cannot be made of `source`: of its `layer`, and the `entry` in that."""

    def __init__(
        self, source: Any, reason: str, *, layer: str | None = None, entry: str | None = None
    ) -> None:
        where = f", layer {shown(layer)}" if layer else ""
        what = "" if entry is None else f"the entry '{shown(entry)}' "
        super().__init__(f"{shown(source)}{where}: {what}{reason}")
        self.source, self.reason, self.layer, self.entry = str(source), reason, layer, entry


class RunsError(PyvirtError):
    """The container `name` runs, and `act` needs it to stand still."""

    def __init__(self, name: str, act: str) -> None:
        super().__init__(f"container {name} runs; stop it before {act}")
        self.name, self.act = name, act


class DiskFullError(PyvirtError, OSError):
    """There is no room at `place` for `what`; what had been written there is removed."""

    def __init__(self, what: str, place: Any, errno: int) -> None:
        super().__init__(errno, f"{what} does not fit on the file system of {shown(place)}")
        self.what, self.place = what, str(place)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.what, self.place, self.errno)

    def __str__(self) -> str:
        return str(self.strerror)


def shown(name: Any) -> str:
    """A name that a stranger may have chosen, without what a terminal would obey."""
    text = name if isinstance(name, str) else str(name)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class ImageError(PyvirtError):
    """A disk image is not what it should be: `found` in its `table` at byte `offset`."""

    def __init__(
        self,
        path: Any,
        reason: str,
        *,
        format: str | None = None,
        table: str | None = None,
        offset: int | None = None,
        found: Any = None,
        expected: Any = None,
    ) -> None:
        facts = [
            f" in the {table}" if table else "",
            "" if offset is None else f" at byte {offset}",
            "" if found is None else f", found {shown(found)}",
            "" if expected is None else f", expected {shown(expected)}",
        ]
        super().__init__(f"{shown(path)}: {reason}{''.join(facts)}")
        self.path, self.reason, self.format, self.table = path, reason, format, table
        self.offset, self.found, self.expected = offset, found, expected


class FeatureError(ImageError):
    """A disk image needs features that pyvirt does not know or does not have."""

    def __init__(self, path: Any, format: str, features: tuple[str, ...]) -> None:
        super().__init__(path, f"needs {', '.join(map(shown, features))}", format=format)
        self.features = features


class PassphraseError(ImageError):
    """No key slot of an encrypted disk image opens with the passphrase that was given."""

    def __init__(self, path: Any) -> None:
        super().__init__(path, "the passphrase opens no key slot", format="luks")


class BudgetError(PyvirtError, MemoryError):
    """`what` needs more memory than the budget of `bytes` allows."""

    def __init__(self, what: str, size: int) -> None:
        more = f" of {size} bytes" if size else ""
        super().__init__(f"{shown(what)} is more than the budget{more}; raise Budget.memory")
        self.what, self.size = what, size


class PolicyError(PyvirtError):
    """An image names another file, `reference`, that may not be opened; `trail` led there."""

    def __init__(self, reference: Any, reason: str, trail: tuple[str, ...] = ()) -> None:
        super().__init__(f"{shown(reference)} was not opened{_led(trail)}: {reason}")
        self.reference, self.reason, self.trail = reference, reason, trail


class ChainError(ImageError):
    """A file that an image needs is missing, is its own backing image, or one too many."""

    def __init__(self, path: Any, reason: str, trail: tuple[str, ...] = ()) -> None:
        super().__init__(path, reason + _led(trail))
        self.reason, self.trail = reason, trail


def _led(trail: tuple[str, ...]) -> str:
    """The names that led to a file, of a long chain its two ends."""
    names = [shown(one) for one in trail]
    if len(names) > 8:
        names[4:-3] = [f"{len(names) - 7} more"]
    return f" (named by {' -> '.join(names)})" if names else ""


class AddressError(PyvirtError, LookupError):
    """Not all of `size` bytes from guest address `address` on is guest memory.

    `hole` is the first address that is not, and `end` where memory begins again, or None.
    """

    def __init__(
        self, address: int, size: int, *, hole: int | None = None, end: int | None = None
    ) -> None:
        first = address if hole is None else hole
        until = "to the end" if end is None else f"up to {end:#x}"
        super().__init__(
            f"{size} bytes at guest address {address:#x} are not all memory: "
            f"there is none from {first:#x} {until}"
        )
        self.address, self.size, self.hole, self.end = address, size, first, end


class RingError(PyvirtError):
    """A virtqueue breaks the specification, or cannot be read.

    `found` was at guest address `place` where `expected` (a limit, mostly) had to be; `index` is
    the descriptor, slot or index it is about, and `device` and `queue` say whose it is.
    """

    def __init__(
        self,
        reason: str,
        *,
        place: int | None = None,
        index: int | None = None,
        found: Any = None,
        expected: Any = None,
        device: str | None = None,
        queue: int | None = None,
    ) -> None:
        whose = "" if device is None else f"{shown(device)} queue {queue}: "
        facts = [
            "" if index is None else f" (index {index})",
            "" if place is None else f" at guest address {place:#x}",
            "" if found is None else f", found {shown(found)}",
            "" if expected is None else f", expected {shown(expected)}",
        ]
        super().__init__(f"{whose}{reason}{''.join(facts)}")
        self.reason, self.place, self.index = reason, place, index
        self.found, self.expected, self.device, self.queue = found, expected, device, queue


class TraceError(PyvirtError):
    """The file `path` is no trace, or a damaged one, as byte `offset` shows."""

    def __init__(self, path: Any, reason: str, offset: int) -> None:
        super().__init__(f"{shown(path)} {reason}, at byte {offset}")
        self.path, self.reason, self.offset = path, reason, offset


class ImageInUse(UserWarning):
    """Another process holds the image `path` for writing: what is read may be torn."""

    def __init__(self, path: Any, holder: str = "") -> None:
        super().__init__(
            f"{shown(path)} is being written by {holder or 'another process'}: "
            "what is read of it may be torn"
        )
        self.path, self.holder = path, holder
