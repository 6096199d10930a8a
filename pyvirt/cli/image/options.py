"""What the commands about images share: options, and the words of ``-o``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import click

from pyvirt.cli.output import Output, size

if TYPE_CHECKING:
    from pyvirt.image import CreateOptions, Image, Written
    from pyvirt.qemu_img.amend import AmendOptions

C = TypeVar("C", bound=Callable[..., Any])

#: A file that is there.
FILE = click.Path(exists=True, dir_okay=False)

_COMMA = re.compile(r"(?<!,),(?!,)")
_ON, _OFF = ("on", "true", "yes"), ("off", "false", "no")


def reading(command: C) -> C:
    """Options of what only reads: ``--format``, ``--trust`` and ``--key-file``."""
    for option in (
        click.option("--key-file", type=FILE, metavar="PATH", help="A file with the passphrase."),
        click.option(
            "--trust-in", type=click.Path(exists=True, file_okay=False), metavar="DIRECTORY",
            help="Open other files that the image names if they lie in DIRECTORY.",
        ),
        click.option(
            "--trust", is_flag=True, help="Open other files that the image names, wherever."
        ),
        click.option(
            "-f", "--format", metavar="FORMAT", help="The format, instead of finding out."
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def opened(
    file: str,
    format: str | None,
    trust: bool,
    trust_in: str | None,
    key_file: str | None,
    snapshot: str | None = None,
) -> Image:
    """The image that the options of `reading` describe."""
    from pyvirt.image import Image

    allowed: Any = Path(trust_in) if trust_in is not None else trust
    key = None if key_file is None else Path(key_file).read_bytes()
    return Image(file, format, trust=allowed, snapshot=snapshot, passphrase=key)


def written_format(command: C) -> C:
    """``-f``: the format of an image that is changed."""
    return click.option(
        "-f", "--format", default="qcow2", show_default=True, metavar="FORMAT",
        help="The format of FILE.",
    )(command)  # fmt: skip


def creation(command: C) -> C:
    """Options of what makes an image."""
    for option in (
        click.option("--overwrite", is_flag=True, help="Replace a file that is there."),
        click.option(
            "-F", "--backing-format", metavar="FORMAT", help="The format of the image below."
        ),
        click.option("-b", "--backing", metavar="FILE", help="The image below the new one."),
        click.option(
            "--encrypt", type=FILE, metavar="PATH",
            help="Encrypt it with the passphrase in this file (-o encrypt.NAME=… for more).",
        ),
        click.option(
            "-o", "options", multiple=True, metavar="NAME=VALUE",
            help="An option of the format (cluster_size=1M); more with commas, or again.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def create_options(format: str, words: tuple[str, ...], encrypt: str | None) -> CreateOptions:
    """The options of `format` that the words of ``-o`` and ``--encrypt`` say."""
    from pyvirt.image import Encrypt
    from pyvirt.qemu_img.options import FORMATS, options

    kind = FORMATS.get(format)
    if kind is None:
        raise click.UsageError(f"Images are written in {', '.join(FORMATS)}, not {format!r}.")
    given = _pairs(words)
    inner = {key.partition(".")[2]: given.pop(key) for key in list(given) if "." in key}
    values = _values(kind, given)
    if inner and encrypt is None:
        raise click.UsageError("-o encrypt.NAME=… needs --encrypt, the file of the passphrase.")
    if encrypt is not None:
        default = {"format": "aes"} if format == "qcow" else {}
        values["encrypt"] = Encrypt(Path(encrypt), **{**default, **_values(Encrypt, inner)})
    return options(format, values)


def amend_options(format: str, words: tuple[str, ...]) -> dict[str, Any]:
    """What the words of ``-o`` change in an image of `format`."""
    from pyvirt.qemu_img.amend import AMENDS

    kind: type[AmendOptions] | None = AMENDS.get(format)
    if kind is None:
        raise click.UsageError(f"What is amended is {' or '.join(AMENDS)}, not {format!r}.")
    return _values(kind, _pairs(words))


def target_options(words: tuple[str, ...]) -> dict[str, Any]:
    """What the words of ``-o`` say of an image that is only measured."""
    from pyvirt.image.measure import Target

    given = _values(Target, _pairs(words))
    known = {each.alias for each in attrs.fields(Target)} - {"format"}
    for name in given:
        if name not in known:
            raise click.UsageError(f"{name} changes nothing that is measured.")
    return given


def said(output: Output, written: Written) -> None:
    """An image that was made or changed, for people or programs."""
    from pyvirt.errors import shown

    if output.json:
        output.document({**attrs.asdict(written), "path": str(written.path)})
    else:
        click.echo(
            f"{shown(written.path)}: {written.format}, {size(written.size)} "
            f"({size(written.allocated)} on the host)"
        )


def _pairs(words: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for word in words:
        for pair in _COMMA.split(word):
            name, equals, value = pair.partition("=")
            if not equals:
                raise click.UsageError(f"-o wants NAME=VALUE, got {pair!r}.")
            found[name] = value.replace(",,", ",")
    return found


def _values(kind: type[Any], given: dict[str, str]) -> dict[str, Any]:
    """Texts as the fields want them; an unknown name is left for the class to refuse."""
    types = {each.alias: str(each.type) for each in attrs.fields(kind)}
    names = {name.replace("-", "_"): value for name, value in given.items()}
    return {name: _value(name, types.get(name, ""), text) for name, text in names.items()}


def _value(name: str, kind: str, text: str) -> Any:
    if kind.startswith("bool"):
        if text not in (*_ON, *_OFF):
            raise click.UsageError(f"{name} is on or off, got {text!r}.")
        return text in _ON
    if kind.startswith("int") and text.isdecimal():
        return int(text)
    if kind.startswith("float"):
        try:
            return float(text)
        except ValueError:
            raise click.UsageError(f"{name} is a number, got {text!r}.") from None
    return text
