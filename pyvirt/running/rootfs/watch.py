"""Long acts: told how far they are, and given up when that is asked for."""

from __future__ import annotations

from collections.abc import Callable

from pyvirt.errors import Cancelled

Progress = Callable[[str, float | None], object]
"""Called with what is being done, and how much of it is done (0 to 1, None: not known)."""

Cancel = Callable[[], bool]
"""Asked again and again from the thread that works; true gives the work up."""


class Watch:
    """Whom to tell, and whom to ask; `what` is the act that may be cancelled."""

    def __init__(self, what: str, progress: Progress | None = None, cancel: Cancel | None = None):
        self.what = what
        self._progress, self._cancel = progress, cancel

    def tell(self, what: str, done: float | None = None) -> None:
        """`what` is being done; and go on, or not."""
        if self._progress is not None:
            self._progress(what, done)
        self.go_on()

    def go_on(self) -> None:
        """Raises `Cancelled` when that was asked for."""
        if self._cancel is not None and self._cancel():
            raise Cancelled(self.what)

    def __repr__(self) -> str:
        return f"<Watch of {self.what}>"
