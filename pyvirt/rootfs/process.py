"""What an image says shall run in it."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field

from pyvirt.fields import frozen


@frozen
class Process:
    """The process of a container: what an OCI image's config asks for.

    `user` is as the image has it: a name or a number, maybe with a group after a colon.
    `stop_signal` is a name or a number ("SIGQUIT").
    """

    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(factory=dict, hash=False)
    cwd: str = "/"
    user: str = ""
    hostname: str = ""
    stop_signal: str = ""
