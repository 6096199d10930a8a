"""The commands of ``qemu-img`` that write, as calls."""

from __future__ import annotations

from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.disk.node import BlockNode
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu_img.amend import AmendOptions
from pyvirt.qemu_img.call import Call, Writer
from pyvirt.qemu_img.options import CreateOptions

_flag: Any = fields.kind(bool)


@frozen
class Backing:
    """The image below, by the name that the image above shall record, and its format."""

    name: str = field(validator=fields.text)
    format: str = field(validator=fields.name)

    def __attrs_post_init__(self) -> None:
        if not 0 < len(self.name.encode("utf-8", "surrogateescape")) <= 1023:
            raise SpecError("backing", "must have a name of 1 to 1023 bytes", self.name)


@frozen
class Copying:
    """How ``convert`` copies; None leaves the choice to QEMU.

    `threads` is how many requests are under way at once. `out_of_order` writes what is read
    first, which is faster, and scatters the image. `sparse`: so many zeros (bytes) in a row
    become a hole, and 0 makes none. `rate` is in bytes a second. `bitmaps` copies the
    persistent bitmaps, and `skip_broken_bitmaps` all but the broken ones. `salvage` goes on
    over what cannot be read, as zeros.
    """

    compress: bool = field(default=False, validator=_flag, kw_only=True)
    threads: int | None = field(
        default=None, validator=fields.optional(fields.between(1, 16)), kw_only=True
    )
    out_of_order: bool = field(default=False, validator=_flag, kw_only=True)
    sparse: int | str | None = field(
        default=None,
        converter=fields.to_size,
        validator=fields.optional(fields.between(0, 2**31 - 1)),
        kw_only=True,
    )
    rate: int | str | None = field(
        default=None,
        converter=fields.to_size,
        validator=fields.optional(fields.positive),
        kw_only=True,
    )
    bitmaps: bool = field(default=False, validator=_flag, kw_only=True)
    skip_broken_bitmaps: bool = field(default=False, validator=_flag, kw_only=True)
    salvage: bool = field(default=False, validator=_flag, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if isinstance(self.sparse, int) and self.sparse % 512:
            raise SpecError("sparse", "must be a multiple of 512", self.sparse)
        if self.out_of_order and self.compress:
            raise SpecError("out_of_order", "does not go with compress", True)
        if self.skip_broken_bitmaps and not self.bitmaps:
            raise SpecError("skip_broken_bitmaps", "needs bitmaps", True)


COPYING = tuple(each.name for each in attrs.fields(Copying))

#: Formats that take compressed clusters, as ``convert -c`` writes them.
COMPRESSES = ("qcow2", "qcow", "vmdk")


def create(
    path: str, size: int | None, options: CreateOptions, backing: Backing | None = None
) -> Call:
    """Make an image at `path`; without `size` it is as large as its backing image.

    The backing image is not opened when the size is known.
    """
    options.check(size, None if backing is None else backing.name)
    words = Writer("create", "-q", "-f", options.format).options(options.words())
    if backing is not None:
        words.add("-b", backing.name, "-F", backing.format)
    words.add(path)
    return words.call() if size is None else words.add(str(size)).call()


def convert(
    source: BlockNode,
    name: str,
    path: str,
    options: CreateOptions,
    how: Copying,
    *,
    snapshot: str | None = None,
    backing: Backing | None = None,
    shared: bool = False,
    existing: bool = False,
) -> Call:
    """Copy what `source` (which people call `name`) holds to `path`.

    `shared` reads an image that another process may be writing. `existing` writes into
    what is at `path`.
    """
    options.check(None, None if backing is None else backing.name)
    if how.compress and options.format not in COMPRESSES:
        raise SpecError("compress", f"is for {', '.join(COMPRESSES)}", options.format)
    words = Writer("convert", "-p", "-O", options.format)
    # Not the default of convert, which loses on a full disk what the kernel had accepted.
    words.add("-t", "writeback")
    words.flag("-c", how.compress).flag("-W", how.out_of_order).flag("-U", shared)
    words.flag("-n", existing).flag("--salvage", how.salvage).flag("--bitmaps", how.bitmaps)
    words.flag("--skip-broken-bitmaps", how.skip_broken_bitmaps)
    words.given("-m", how.threads).given("-S", how.sparse).given("-r", how.rate)
    if snapshot is not None:
        words.add("-l", f"snapshot.name={snapshot.replace(',', ',,')}")
    if backing is not None:
        words.add("-B", backing.name, "-F", backing.format)
    if not existing:
        words.options(options.words())
    return words.image(source, "s", name).add(path).call()


def resize(
    image: BlockNode, name: str, size: int, *, shrink: bool, preallocation: str | None
) -> Call:
    """Make the disk in `image` `size` bytes large."""
    words = Writer("resize", "-q").flag("--shrink", shrink)
    if preallocation is not None:
        words.add(f"--preallocation={preallocation}")
    return words.image(image, "i", name).add(str(size)).call()


def commit(image: BlockNode, name: str, *, empty: bool, rate: int | None) -> Call:
    """Move what `image` holds into its backing image; `empty` it afterwards."""
    words = Writer("commit", "-p", "-t", "writeback").flag("-d", not empty).given("-r", rate)
    return words.image(image, "i", name).call()


def rebase(image: BlockNode, name: str, backing: Backing | None, *, safe: bool) -> Call:
    """Lay `image` over another backing image, or over none.

    `safe` copies what differs first; else the new one is said to hold what the old one held.
    """
    words = Writer("rebase", "-p", "-t", "writeback").flag("-u", not safe)
    if backing is None:
        words.add("-b", "")
    else:
        words.add("-b", backing.name, "-F", backing.format)
    return words.image(image, "i", name).call()


_SNAPSHOT = {"create": "-c", "apply": "-a", "delete": "-d"}


def snapshot(image: BlockNode, name: str, verb: str, tag: str) -> Call:
    """`verb` ("create", "apply", "delete") the internal snapshot `tag`."""
    words = Writer("snapshot", "-q", _SNAPSHOT[verb], tag)
    return words.image(image, "i", name).call()


def bitmap(
    image: BlockNode,
    name: str,
    bitmap: str,
    *verbs: str,
    granularity: int | None = None,
    source: BlockNode | None = None,
) -> Call:
    """Do `verbs` ("--add", "--disable", "--merge", "from", ...) to a persistent bitmap."""
    words = Writer("bitmap", *verbs).given("-g", granularity)
    if source is not None:
        words.add("-b", words.opened(source, "s"))
    return words.image(image, "i", name).add(bitmap).call()


def amend(image: BlockNode, name: str, options: AmendOptions, *, force: bool) -> Call:
    """Change what `options` say."""
    words = Writer("amend", "-p", "-q").flag("--force", force).options(options.words())
    return words.image(image, "i", name).call()


def info(image: BlockNode, name: str) -> Call:
    """Describe `image` as JSON; its backing images stay closed."""
    return Writer("info", "--output=json", "-U").image(image, "i", name).call()


def flat_map(image: BlockNode, name: str) -> Call:
    """Where the data of `image` is, as JSON."""
    return Writer("map", "--output=json", "-U").image(image, "i", name).call()
