"""One container as liblxc knows it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from pyvirt.errors import BusyError, ContainerError
from pyvirt.running.lxc.library import library


class Handle:
    """The container `name` in the store `root`. liblxc reads its ``config`` there at birth.

    All methods may be called from any thread; liblxc's own structure is for one at a time.
    """

    def __init__(self, name: str, root: Path) -> None:
        self._ffi, self._lib = library()
        self.name, self.root = name, root
        self._lock = threading.RLock()
        self._own: Any = self._lib.lxc_container_new(name.encode(), os.fsencode(root))
        if not self._own:
            why = "liblxc knows no such value; what is in raw is not checked before"
            raise ContainerError(name, "reading the configuration", why)

    def state(self) -> str:
        """LXC's word in lower case: "running", "frozen", "stopped", ..."""
        with self._lock:
            word = self._own.state(self._own)
        return str(self._ffi.string(word).decode().lower()) if word else "unknown"

    def init_pid(self) -> int:
        """The pid of its first process on this host; -1 without one."""
        with self._lock:
            return int(self._own.init_pid(self._own))

    def freeze(self) -> bool:
        """Stop all its processes where they are."""
        with self._lock:
            return bool(self._own.freeze(self._own))

    def thaw(self) -> bool:
        """Let them go on."""
        with self._lock:
            return bool(self._own.unfreeze(self._own))

    def item(self, key: str) -> str:
        """What the configuration says of `key`."""
        with self._lock:
            size = self._own.get_config_item(self._own, key.encode(), self._ffi.NULL, 0)
            if size <= 0:
                return ""
            room = self._ffi.new("char[]", size + 1)
            self._own.get_config_item(self._own, key.encode(), room, size + 1)
        return str(self._ffi.string(room).decode())

    def set_group(self, name: str, value: str) -> bool:
        """Write a cgroup file of the running container."""
        with self._lock:
            return bool(self._own.set_cgroup_item(self._own, name.encode(), value.encode()))

    def attach_interface(self, device: str, name: str) -> bool:
        """Give it the host's interface `device`, to be called `name` there."""
        with self._lock:
            return bool(self._own.attach_interface(self._own, device.encode(), name.encode()))

    def detach_interface(self, device: str, name: str) -> bool:
        """Take its interface `device` back, to be called `name` here."""
        with self._lock:
            return bool(self._own.detach_interface(self._own, device.encode(), name.encode()))

    def console(self) -> tuple[int, int]:
        """A descriptor of its console, to type on, and one that keeps that connected."""
        number, fd = self._ffi.new("int *", 0), self._ffi.new("int *", -1)
        with self._lock:
            keep = self._own.console_getfd(self._own, number, fd)
        if keep < 0:
            raise BusyError(f"the console of container {self.name}")
        return int(fd[0]), int(keep)

    def offset(self, function: str) -> str:
        """Where the pointer to a function of liblxc lies in its structure."""
        return str(self._ffi.offsetof("struct lxc_container", function))

    def close(self) -> None:
        """Let go of liblxc's structure."""
        with self._lock:
            if self._own is not None:
                self._lib.lxc_container_put(self._own)
                self._own = None

    def __repr__(self) -> str:
        return f"<Handle {self.name}{'' if self._own else ', closed'}>"
