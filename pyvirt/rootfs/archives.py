"""Root file systems that come in archives: images as OCI and Docker keep them, plain tars."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.rootfs.rootfs import RootFS

#: How much an archive may unpack to, unless said: what packs better than that is a bomb.
LIMIT = 32 << 30
#: The same for the number of its files: each is an inode, and a syscall or ten.
ENTRIES = 4_000_000

_ARCHITECTURE = re.compile(r"[a-z0-9_]+(/[a-z0-9_.]+)?")


def _is_architecture(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not _ARCHITECTURE.fullmatch(value):
        reason = 'must be a name of Go\'s such as "amd64" or "arm/v7"'
        raise SpecError(field.name, reason, value)


def _limit() -> Any:
    return field(default=LIMIT, kw_only=True, converter=fields.to_size, validator=fields.positive)


def _entries() -> Any:
    return field(default=ENTRIES, kw_only=True, validator=fields.between(1, 1 << 40))


def _devices() -> Any:
    return field(default=False, kw_only=True, validator=fields.kind(bool))


@frozen
class OciImage(RootFS):
    """An image in an OCI image layout: a directory with ``oci-layout`` and ``index.json``.

    `tag` is its ``org.opencontainers.image.ref.name``; it may be left out when there is one
    image only. `architecture` is in Go's words, with a variant perhaps ("arm/v7"); by
    default the host's. Every blob is checked against its digest while it is read.

    `limit`: bytes that it may unpack to. `entries`: files, links and directories that it may
    hold. `devices`: whether device nodes in it are made; otherwise one is an error.
    """

    path: Path = field(converter=Path)
    tag: str | None = field(default=None, validator=fields.optional(fields.text))
    architecture: str | None = field(
        default=None, kw_only=True, validator=fields.optional(_is_architecture)
    )
    limit: int = _limit()
    entries: int = _entries()
    devices: bool = _devices()


@frozen
class DockerArchive(RootFS):
    """An image as ``docker save`` writes it: a tar with ``manifest.json``, maybe compressed.

    `tag` is one of its RepoTags ("busybox:latest"); it may be left out when there is one
    image only. `limit`, `entries` and `devices` are as in `OciImage`.
    """

    path: Path = field(converter=Path)
    tag: str | None = field(default=None, validator=fields.optional(fields.text))
    limit: int = _limit()
    entries: int = _entries()
    devices: bool = _devices()


@frozen
class Tarball(RootFS):
    """A tar of a root file system, plain or compressed by gzip, bzip2, xz or zstd.

    `limit`, `entries` and `devices` are as in `OciImage`.
    """

    path: Path = field(converter=Path)
    limit: int = _limit()
    entries: int = _entries()
    devices: bool = _devices()
