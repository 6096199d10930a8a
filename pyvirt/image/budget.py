"""What reading an image of a stranger may cost at most."""

from __future__ import annotations

from attrs import frozen

#: Bytes of one extent in the columns.
EXTENT = 29


@frozen(kw_only=True)
class Budget:
    """Limits that hold whatever an image says."""

    #: Bytes of tables and results of one operation.
    memory: int = 512 << 20
    #: Images in one backing chain.
    depth: int = 64

    def extents(self, most: int) -> int:
        """Room for extents: `most` are needed, and never more than the memory holds."""
        return max(1, min(most, self.memory // EXTENT))
