"""Which system calls a container may make."""

from __future__ import annotations

import re
from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.lxc import seccomp

_CALL = re.compile(r"[a-z0-9_]+")


def _is_call(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not _CALL.fullmatch(value):
        raise SpecError(field.name, "must be names of system calls such as 'mount'", value)


@frozen(kw_only=True)
class Seccomp:
    """A profile: all calls but `deny`, or else none but `allow`; or liblxc's own `text`.

    What is refused fails with `errno` (1, EPERM). Without anything it denies what no
    container has a use for: loading code into the kernel, opening files by handle.
    """

    deny: tuple[str, ...] = field(
        default=seccomp.DANGEROUS, converter=fields.to_tuple, validator=fields.each(_is_call)
    )
    allow: tuple[str, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(_is_call)
    )
    errno: int = field(default=1, validator=fields.between(1, 4095))
    text: str | None = field(default=None, validator=fields.optional(fields.kind(str)))

    def profile(self) -> str:
        """The text of the profile."""
        if self.text is not None:
            return self.text
        if self.allow:
            return seccomp.allow(self.allow, self.errno)
        return seccomp.deny(self.deny, self.errno)


CAPABILITIES = frozenset(
    # capabilities(7)
    """audit_control audit_read audit_write block_suspend bpf checkpoint_restore chown
    dac_override dac_read_search fowner fsetid ipc_lock ipc_owner kill lease linux_immutable
    mac_admin mac_override mknod net_admin net_bind_service net_broadcast net_raw perfmon
    setfcap setgid setpcap setuid sys_admin sys_boot sys_chroot sys_module sys_nice sys_pacct
    sys_ptrace sys_rawio sys_resource sys_time sys_tty_config syslog wake_alarm""".split()  # noqa: SIM905
)


def is_capability(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    """The field is a capability (capabilities(7)), in lower case and without ``cap_``."""
    if value not in CAPABILITIES:
        reason = "must be capabilities in lower case without 'cap_', such as 'net_admin'"
        raise SpecError(field.name, reason, value)
