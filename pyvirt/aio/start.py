"""One word for the start of a VM and of a container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from pyvirt.aio import container, vm
from pyvirt.container import Container
from pyvirt.running.guest.apt import Progress
from pyvirt.vm import VM

if TYPE_CHECKING:
    from pyvirt.running.lxc.store import Store
    from pyvirt.running.rootfs.watch import Progress as Making


@overload
def start(
    described: VM, *, timeout: float = 30.0, progress: Progress | None = None
) -> vm.Starting: ...


@overload
def start(
    described: Container,
    *,
    timeout: float = 30.0,
    progress: Making | None = None,
    detach: bool = False,
    store: Store | None = None,
) -> container.Starting: ...


def start(described: Any, **how: Any) -> Any:
    """Start a `VM` or a `Container`, with the arguments of its own `start`.

    ``async with start(it) as running``, or await it. A start whose task is cancelled leaves
    nothing behind.
    """
    begin = container.contain if isinstance(described, Container) else vm.start
    return begin(described, **how)
