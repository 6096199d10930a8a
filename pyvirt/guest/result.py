"""What a command in a guest did: its end, its output, its time."""

from __future__ import annotations

import shlex
from typing import Any, AnyStr, Generic

from attrs import frozen

from pyvirt import html
from pyvirt.errors import RunError

_SHOWN = 200  # characters of output that a repr shows


@frozen(repr=False)
class Result(Generic[AnyStr]):
    """One finished command.

    Exactly one of `exit_code` and `signal` is set. `duration` is in seconds. `cut` says that
    output was lost because it passed the limit; it never is otherwise. Text is UTF-8 with
    ``surrogateescape``, so that any bytes survive the way through `str` and back.
    """

    command: str | tuple[str, ...]
    exit_code: int | None
    signal: int | None
    stdout: AnyStr
    stderr: AnyStr
    duration: float
    cut: bool = False

    @property
    def ok(self) -> bool:
        """Whether the command ended by itself, with exit code 0."""
        return self.exit_code == 0

    @property
    def end(self) -> str:
        """How it ended, in words: ``exit code 2`` or ``signal 9``."""
        return f"signal {self.signal}" if self.exit_code is None else f"exit code {self.exit_code}"

    def check(self) -> Result[AnyStr]:
        """This result; `RunError` unless the command ended with exit code 0."""
        if not self.ok:
            raise RunError(self)
        return self

    def __repr__(self) -> str:
        cut = ", cut" if self.cut else ""
        return (
            f"<Result {self.command!r}: {self.end} after {self.duration:.3f} s, "
            f"stdout={_short(self.stdout)}, stderr={_short(self.stderr)}{cut}>"
        )

    def _repr_html_(self) -> str:
        rows: dict[str, Any] = {"ended": f"{self.end} after {self.duration:.3f} s"}
        for name in ("stdout", "stderr"):
            output = getattr(self, name)
            if output:
                rows[name] = html.Output(output if isinstance(output, str) else repr(output))
        if self.cut:
            rows["cut"] = "there was more than was kept"
        words = self.command if isinstance(self.command, str) else shlex.join(self.command)
        return html.card(words, rows)


def _short(output: str | bytes) -> str:
    if len(output) <= _SHOWN:
        return repr(output)
    return f"{output[:_SHOWN]!r}... ({len(output)} in all)"


def decoded(result: Result[bytes], encoding: str | None) -> Result[Any]:
    """`result` with its output as text in `encoding`; None leaves bytes."""
    if encoding is None:
        return result
    return Result(
        result.command,
        result.exit_code,
        result.signal,
        result.stdout.decode(encoding, "surrogateescape"),
        result.stderr.decode(encoding, "surrogateescape"),
        result.duration,
        result.cut,
    )
