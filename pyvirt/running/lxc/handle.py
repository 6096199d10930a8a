"""One container as liblxc knows it."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyvirt._native import forked
from pyvirt.errors import BusyError, ContainerError
from pyvirt.running.lxc.library import library

_CLEAR_ENV = 1
_ALL_DEFAULTS = 0xFFFF
_NOBODY = 0xFFFF_FFFF  # (uid_t)-1: liblxc chooses


class Handle:
    """The container `name` in the store `root`. liblxc reads its ``config`` there at birth.

    All methods may be called from any thread; liblxc's own structure is for one at a time.
    """

    def __init__(self, name: str, root: Path) -> None:
        self._ffi, self._lib = library()
        self.name = name
        self._lock = threading.RLock()
        self._own: Any = self._lib.lxc_container_new(name.encode(), os.fsencode(root))
        if not self._own:
            raise ContainerError(name, "reading the configuration")

    def start(self, command: Sequence[str] | None = None) -> bool:
        """Start it in the background; whether its first process runs.

        In a child: liblxc moves whoever starts a container into its monitor's control group.
        """
        argv, _keep = self._words(command) if command else (self._ffi.NULL, None)
        with self._lock:
            self._own.want_daemonize(self._own, True)
            started = forked.start(*map(self._address, (self._own.start, self._own, argv)))
        return self.init_pid() > 0 if started is None else started

    def _address(self, pointer: Any) -> int:
        return int(self._ffi.cast("uintptr_t", pointer))

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
        with self._lock:
            return bool(self._own.freeze(self._own))

    def thaw(self) -> bool:
        with self._lock:
            return bool(self._own.unfreeze(self._own))

    def reboot(self) -> bool:
        with self._lock:
            return bool(self._own.reboot(self._own))

    def may_control(self) -> bool:
        with self._lock:
            return bool(self._own.may_control(self._own))

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
        with self._lock:
            return bool(self._own.attach_interface(self._own, device.encode(), name.encode()))

    def detach_interface(self, device: str, name: str) -> bool:
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

    def attach(
        self,
        words: Sequence[str],
        fds: tuple[int, int, int],
        env: Mapping[str, str],
        *,
        root: bool,
    ) -> int:
        """Run a program in it, as its user 0 where it has one; its pid on this host.

        It is a child of this process. It inherits every descriptor that is not close-on-exec.
        """
        command = self._ffi.new("lxc_attach_command_t *")
        argv, keep = self._words(words)
        command.program, command.argv = keep[0], argv
        options, kept = self._options(fds, env, root)
        pid = self._ffi.new("pid_t *")
        run = self._ffi.addressof(self._lib, "lxc_attach_run_command")
        with self._lock:
            failed = self._own.attach(self._own, run, command, options, pid)
        del kept
        return -1 if failed else int(pid[0])

    def close(self) -> None:
        """Let go of liblxc's structure."""
        with self._lock:
            if self._own is not None:
                self._lib.lxc_container_put(self._own)
                self._own = None

    def _options(self, fds: Sequence[int], env: Mapping[str, str], root: bool) -> tuple[Any, Any]:
        options = self._ffi.new("lxc_attach_options_t *")
        options.attach_flags, options.namespaces, options.personality = _ALL_DEFAULTS, -1, -1
        options.uid = options.gid = 0 if root else _NOBODY
        options.env_policy = _CLEAR_ENV
        cwd = self._ffi.new("char[]", b"/")
        extra, keep = self._words([f"{name}={value}" for name, value in env.items()])
        options.initial_cwd, options.extra_env_vars = cwd, extra
        options.stdin_fd, options.stdout_fd, options.stderr_fd = fds
        options.log_fd = -1
        return options, (cwd, extra, keep)

    def _words(self, words: Sequence[str]) -> tuple[Any, list[Any]]:
        """A vector of C strings, and what must live as long as it."""
        kept = [self._ffi.new("char[]", os.fsencode(word)) for word in words]
        return self._ffi.new("char *[]", [*kept, self._ffi.NULL]), kept

    def __repr__(self) -> str:
        return f"<Handle {self.name}{'' if self._own else ', closed'}>"
