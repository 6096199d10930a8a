"""Changes of an image that is there: how each is made whole or not at all.

- raw, resize: by the kernel in one step; what was added is taken away again on failure.
- qcow2, LUKS, and raw as the base of a commit: through a journal.
- All else (QED, and preallocation, which writes whole new images): on a copy, which then
  takes the image's place.

The external data file of a qcow2 image holds no metadata, and is written directly.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pyvirt.disk.node import BlockNode
from pyvirt.running.tools.claim import Claim
from pyvirt.running.tools.draft import Draft, copy
from pyvirt.running.tools.journal import Journal, bytes_of, recover
from pyvirt.running.tools.writing import Work

#: What a journal of a qcow2 image has in reserve beyond the file's end, beside an eighth of it.
ROOM = 256 << 20

JOURNALED = ("qcow2", "luks", "raw")

#: Something that runs ``qemu-img`` on a node in place of the image's file.
Act = Callable[[BlockNode], object]


class Place:
    """An image file that is claimed; `change` runs an act on it, whole or not at all."""

    def __init__(self, work: Work, path: Path, format: str) -> None:
        self.work, self.format = work, format
        self.path = Path(os.path.realpath(path))
        self.claim = Claim(self.path)
        try:
            recover(work, self.path, self.claim)
        except BaseException:
            self.claim.close()
            raise

    def close(self) -> None:
        self.claim.close()

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def journal(self, more: int = 0) -> Journal:
        """A journal for an image that may grow, by `more` bytes of data beside metadata."""
        room = 0
        if self.format == "qcow2":
            room = ROOM + more + self.path.stat().st_size // 8
        return Journal(self.work, self.path, self.claim, room)

    def change(self, act: Act, *, more: int = 0, copied: bool = False) -> None:
        """Have `act` write to the image's file."""
        if copied or self.format not in JOURNALED:
            self._on_copy(act)
            return
        with self.journal(more) as journal:
            act(journal.node)
            journal.apply()

    def _on_copy(self, act: Act) -> None:
        self.claim.close()  # The draft takes over.
        with Draft(self.path, replace=True) as draft:
            self.work.tell(None)
            copy(self.path, draft.path)
            self.work.step()
            act(bytes_of(draft.path))
            with self.work.unstoppable():
                draft.finish()

    def directly(self, act: Act) -> None:
        """Have `act` write to the file itself; at a failure, take away what it added."""
        size = self.path.stat().st_size
        self.claim.close()  # QEMU takes its own locks.
        try:
            act(bytes_of(self.path))
        except BaseException:
            if self.path.is_file() and self.path.stat().st_size > size:
                os.truncate(self.path, size)
            raise


@contextmanager
def places(work: Work, *images: tuple[Path, str]) -> Iterator[list[Place]]:
    """Several images at once, all claimed or none."""
    with ExitStack() as stack:
        yield [stack.enter_context(Place(work, path, format)) for path, format in images]
