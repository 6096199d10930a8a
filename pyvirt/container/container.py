"""A container as a frozen value: described here, rendered in `render`, started elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from signal import Signals
from typing import TYPE_CHECKING, Any

import attrs
from attrs import field

from pyvirt import fields, html
from pyvirt.container import render
from pyvirt.container.autostart import Autostart
from pyvirt.container.device import HostDevice
from pyvirt.container.limits import Limits
from pyvirt.container.mount import Filesystem
from pyvirt.container.network import HostNetwork, Interface
from pyvirt.container.security import Seccomp, is_capability
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.lxc import line
from pyvirt.lxc.line import Line
from pyvirt.rootfs import Busybox, IdMap, RootFS

if TYPE_CHECKING:
    from pyvirt.running.kept import Kept
    from pyvirt.running.lxc.container import RunningContainer
    from pyvirt.running.lxc.store import Store
    from pyvirt.running.rootfs.watch import Cancel, Progress

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9-]{1,63})*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?")
_VARIABLE = re.compile(r"[^=\0\n]+")
_REALTIME = re.compile(r"SIGRT(MIN\+|MAX-)\d{1,2}|[1-9]|[1-5]\d|6[0-4]")
_SYSCTL = re.compile(r"[A-Za-z0-9_-]+([./][A-Za-z0-9_:.-]+)+")
_RLIMIT = re.compile(r"(\d+|unlimited)(:(\d+|unlimited))?")
_KEY = re.compile(r"lxc\.[A-Za-z0-9_.]+")

#: What liblxc knows (lxc_config_parse_arch).
ARCHITECTURES = (
    "aarch64", "amd64", "arm", "arm64", "armel", "armhf", "armv7l", "athlon", "i386", "i486",
    "i586", "i686", "linux32", "linux64", "loongarch64", "mips", "mips64", "mips64el", "mipsel",
    "powerpc", "powerpc64", "ppc", "ppc64", "ppc64el", "ppc64le", "riscv64", "s390x", "x86",
    "x86_64",
)  # fmt: skip

#: setrlimit(2), without RLIMIT_ and in lower case.
RLIMITS = (
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile",
    "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip

#: lxc.hook.* in the order in which they run.
HOOKS = ("pre-start", "pre-mount", "mount", "autodev", "start-host", "start", "stop",
         "post-stop", "clone", "destroy")  # fmt: skip


def _matches(pattern: re.Pattern[str], reason: str) -> fields.Validator:
    def check(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise SpecError(field.name, reason, value)

    return check


def _absolute(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not PurePosixPath(value).is_absolute() or "\0" in value:
        raise SpecError(field.name, "must be an absolute path in the container", value)


def _is_env(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    for name, text in value.items():
        if not isinstance(text, str) or "\0" in text or "\n" in text:
            raise SpecError(field.name, "must map names to text of one line", {name: text})
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise SpecError(field.name, "must have names without '='", {name: text})


def _is_signal(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    known = isinstance(value, str) and (value in Signals.__members__ or _REALTIME.fullmatch(value))
    if not known:
        raise SpecError(field.name, "must be a signal such as 'SIGTERM'", value)


def _is_rlimits(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    for name, limit in value.items():
        if name not in RLIMITS:
            raise SpecError(field.name, f"must be of {', '.join(RLIMITS)}", name)
        if isinstance(limit, bool) or not _RLIMIT.fullmatch(str(limit)):
            reason = "must be numbers, 'unlimited' or 'soft:hard'"
            raise SpecError(field.name, reason, {name: limit})


def _is_sysctls(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    for name, text in value.items():
        if not isinstance(name, str) or not _SYSCTL.fullmatch(name):
            raise SpecError(field.name, "must have names such as 'net.ipv4.ip_forward'", name)
        if isinstance(text, bool) or not isinstance(text, str | int):
            raise SpecError(field.name, "must map names to text or numbers", {name: text})


def _is_idmap(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if value != "auto" and value is not None and not isinstance(value, IdMap):
        raise SpecError(field.name, "must be 'auto', None or IdMap(...)", value)


def _is_hooks(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    for name in value:
        if name not in HOOKS:
            raise SpecError(field.name, f"must be of {', '.join(HOOKS)}", name)


def _is_raw(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    for key in value:
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise SpecError(field.name, "must have keys such as 'lxc.tty.max'", key)


def _to_texts(value: Any) -> Any:
    """A mapping to one text or to several, as one to tuples."""
    if not isinstance(value, Mapping):
        return value
    return {
        key: (each,) if isinstance(each, str | int) else tuple(each) for key, each in value.items()
    }


def _mapping(**more: Any) -> Any:
    return field(factory=dict, hash=False, **more)


@frozen(kw_only=True)
class Container(Limits):
    """A container. Without a `rootfs` it is a static busybox, so that ``run()`` works at once.

    `name`: by default one that nobody has. `rootfs`: a value of `pyvirt.container`, such as
    ``Debian("bookworm")``; `readonly` leaves it unchanged. `command`: what runs in it; its
    end is the container's. Without one, what the image names, else `init`. `env`, `cwd` and
    `user` ("name", "1000" or "1000:100") are those of the command. `hostname`: by default
    the name. `architecture` is its personality ("x86_64", "i686").

    `idmap`: which users of the host its users are. "auto" takes the range that
    ``/etc/subuid`` gives to whoever starts it; without one, root starts it privileged. None
    is privileged: its root is the host's.

    `nics`: none is a loopback interface and nothing else. `devices` of the host, `mounts`.
    `keep_capabilities` or `drop_capabilities`; `seccomp`; `apparmor`, a profile where the
    host has AppArmor; `nesting`: whether containers can be started in it. `rlimits`
    (setrlimit(2): "nofile" to a number, "unlimited" or "soft:hard"), `sysctls`, `autostart`,
    `hooks` (programs of the host by the hook's name), and `raw` for every other ``lxc.*``
    key. `stop_signal` asks its first process to end.

    The limits are those of `Limits`. Raises `SpecError` naming the field.
    """

    name: str | None = field(
        default=None,
        validator=fields.optional(
            _matches(_NAME, "must be 1 to 63 of [A-Za-z0-9_.-], a letter or digit first")
        ),
    )
    rootfs: RootFS = field(factory=Busybox)
    readonly: bool = field(default=False, validator=fields.kind(bool))
    architecture: str | None = field(
        default=None, validator=fields.optional(fields.choice(*ARCHITECTURES))
    )
    hostname: str | None = field(
        default=None, validator=fields.optional(_matches(_HOST, "must be a host's name"))
    )
    command: tuple[str, ...] | None = field(
        default=None,
        converter=fields.to_optional_tuple,
        validator=fields.optional(fields.each(fields.text)),
    )
    init: str = field(default="/sbin/init", validator=_absolute)
    env: Mapping[str, str] = _mapping(validator=_is_env)
    cwd: str | None = field(default=None, validator=fields.optional(_absolute))
    user: str | None = field(
        default=None,
        validator=fields.optional(_matches(_USER, "must be 'name', 'uid' or 'uid:gid'")),
    )
    idmap: IdMap | str | None = field(default="auto", validator=_is_idmap)
    devices: tuple[HostDevice, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(fields.kind(HostDevice))
    )
    mounts: tuple[Filesystem, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(fields.kind(Filesystem))
    )
    nics: tuple[Interface | HostNetwork, ...] = field(
        default=(),
        converter=fields.to_tuple,
        validator=fields.each(fields.kind(Interface, HostNetwork)),
    )
    keep_capabilities: tuple[str, ...] | None = field(
        default=None,
        converter=fields.to_optional_tuple,
        validator=fields.optional(fields.each(is_capability)),
    )
    drop_capabilities: tuple[str, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(is_capability)
    )
    seccomp: Seccomp | None = field(
        factory=Seccomp, validator=fields.optional(fields.kind(Seccomp))
    )
    apparmor: str | None = field(default=None, validator=fields.optional(fields.text))
    nesting: bool = field(default=False, validator=fields.kind(bool))
    rlimits: Mapping[str, int | str] = _mapping(validator=_is_rlimits)
    sysctls: Mapping[str, int | str] = _mapping(validator=_is_sysctls)
    autostart: Autostart | None = field(
        default=None, validator=fields.optional(fields.kind(Autostart))
    )
    hooks: Mapping[str, tuple[str, ...]] = _mapping(converter=_to_texts, validator=_is_hooks)
    stop_signal: str | None = field(default=None, validator=fields.optional(_is_signal))
    raw: Mapping[str, tuple[str, ...]] = _mapping(converter=_to_texts, validator=_is_raw)

    @rootfs.validator
    def _is_rootfs(self, field: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, RootFS):
            raise SpecError(field.name, "must be a root file system, such as Busybox()", value)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.command is not None and not (self.command and self.command[0]):
            raise SpecError("command", "must name a program", self.command)
        if self.keep_capabilities is not None and self.drop_capabilities:
            reason = "must not be given together with keep_capabilities"
            raise SpecError("drop_capabilities", reason, self.drop_capabilities)
        if len(self.nics) > 1 and any(isinstance(nic, HostNetwork) for nic in self.nics):
            raise SpecError("nics", "must be HostNetwork() alone, or without it", self.nics)
        self.lines()  # what only a whole configuration shows, such as text of two lines

    def lines(self, host: render.Host | None = None) -> tuple[Line, ...]:
        """The configuration for `host`, line by line, each with the field that made it.

        What only a start can know stands as ``<name>``.
        """
        return tuple(render.lines(self, host or render.Host()))

    def config(self, host: render.Host | None = None) -> str:
        """The configuration that liblxc will be given. Nothing is started."""
        return line.text(self.lines(host))

    def explain(self, host: render.Host | None = None) -> str:
        """For every line of the configuration, which field of the description made it."""
        made = self.lines(host)
        width = max(len(each.source) for each in made)
        return "\n".join(f"{each.source:{width}}  {each}" for each in made)

    def start(
        self,
        *,
        timeout: float = 30.0,
        progress: Progress | None = None,
        detach: bool = False,
        store: Store | None = None,
    ) -> RunningContainer:
        """Make its root file system, start it, and wait until its first process runs.

        Use it in a ``with``: it ends with this process, however that ends, and everything
        of it is removed. With `detach` it stays, and `RunningContainer.attach` finds it by
        its name. `timeout` bounds the seconds that somebody else may work on a container of
        that name, `progress` is told what is made or fetched first. It lives in `store`, by
        default $PYVIRT_STORE, else /var/lib/pyvirt/containers for root and the user's own
        state for others.

        Raises `UnsupportedError` when this host lacks something, and `StartError` with
        liblxc's last words; everything is undone then.
        """
        from pyvirt.running.lxc.container import RunningContainer

        return RunningContainer.start(
            self, timeout=timeout, progress=progress, detach=detach, store=store
        )

    def create(
        self,
        *,
        store: Store | None = None,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Kept:
        """Make it, to be kept under its name until `Kept.destroy`; it is not started.

        `Kept.start` starts it as often as is wanted, and each start goes on where the last
        one ended; `Kept.find` finds it again. See `Kept.create`.
        """
        from pyvirt.running.kept import Kept

        return Kept.create(self, store=store, progress=progress, cancel=cancel)

    def _repr_html_(self) -> str:
        given = {field.name: fields.written(value) for field, value in fields.given(self)}
        rows: dict[str, Any] = {name: given[name] for name in given if name != "name"}
        rows["configuration"] = self.config()
        return html.card(f"Container {self.name or '(unnamed)'}", rows)
