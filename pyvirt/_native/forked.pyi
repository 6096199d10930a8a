def start(function: int, container: int, argv: int) -> bool | None:
    """What ``function(container, 0, argv)`` returned in a child of this process.

    All three are addresses. None when something else in this program reaped the child.
    """
