"""Images that are judged: ``check``, ``compare``, ``measure``, ``inspect``."""

from __future__ import annotations

from typing import Any

import click

from pyvirt.cli.image.look import plain
from pyvirt.cli.image.options import FILE, opened, reading, target_options
from pyvirt.cli.output import Output, json_option, size
from pyvirt.cli.progress import Progress

#: Exit codes of ``qemu-img check`` and ``qemu-img compare``.
NO_CHECK = 63
DIFFERENT, TROUBLE = 1, 2

#: Findings that are printed; the others are counted.
_SHOWN = 50


class _WrongWords(click.UsageError):
    """Ends with 1, as in qemu-img: 2 would tell of a corrupt image."""

    exit_code = 1


class _Check(click.Command):

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **more)
        except click.UsageError as error:
            raise _WrongWords(error.format_message(), error.ctx) from None


@click.command("check", cls=_Check)
@click.argument("file", type=FILE)
@reading
@json_option
def check(output: Output, file: str, **how: Any) -> int:
    """Look whether the metadata of FILE is consistent.

    Exit codes as of qemu-img: 0 all is well, 1 the check failed, 2 corruptions, 3 only leaked
    clusters, 63 the format has nothing to check.
    """
    from pyvirt.errors import UnsupportedError, shown

    with opened(file, **how) as image:
        try:
            result = image.check()
        except UnsupportedError as error:
            output.fault(error)
            if not output.json:
                click.echo(f"pyvirt: {shown(error)}", err=True)
            return NO_CHECK
    if output.json:
        output.document({"path": file, "exit_code": result.exit_code, **plain(result),
                         "findings": plain(list(result.findings))})  # fmt: skip
        return int(result.exit_code)
    for finding in result.findings[:_SHOWN]:
        click.echo(shown(finding))
    more = len(result.findings) - _SHOWN
    if more > 0:
        click.echo(f"... and {more} more")
    click.echo(f"{result.corruptions} corruptions, {result.leaks} leaked clusters")
    return int(result.exit_code)


@click.command("measure")
@click.argument("file", type=FILE)
@reading
@click.option(
    "-O", "--target-format", default="qcow2", show_default=True, metavar="FORMAT",
    help="The format to be measured.",
)
@click.option(
    "-o", "options", multiple=True, metavar="NAME=VALUE",
    help="An option of that format (cluster_size=1M); more with commas, or again.",
)
@json_option
def measure(
    output: Output, file: str, target_format: str, options: tuple[str, ...], **how: Any
) -> None:
    """Say how large the file of a copy of FILE would be."""  # fmt: skip
    wanted = target_options(options)
    with opened(file, **how) as image:
        result = image.measure(target_format, **wanted)
    if output.json:
        output.document(plain(result))
        return
    for name, value in plain(result).items():
        if value is None:
            continue
        click.echo(f"{name.replace('_', ' ')}: {size(value)} ({value} bytes)")


@click.command("compare")
@click.argument("one", type=FILE)
@click.argument("other", type=FILE)
@click.option("-f", "--format", metavar="FORMAT", help="The format of ONE.")
@click.option("-F", "--other-format", metavar="FORMAT", help="The format of OTHER.")
@click.option("--key-file", type=FILE, metavar="PATH", help="A file with the passphrase of ONE.")
@click.option("--other-key-file", type=FILE, metavar="PATH", help="The same for OTHER.")
@click.option("-s", "--strict", is_flag=True, help="The sizes must be equal, too.")
@click.option("--trust", is_flag=True, help="Open other files that the images name, wherever.")
@click.option(
    "--trust-in", type=click.Path(exists=True, file_okay=False), metavar="DIRECTORY",
    help="Open other files that the images name if they lie in DIRECTORY.",
)
@json_option
def compare(
    output: Output,
    one: str,
    other: str,
    format: str | None,
    other_format: str | None,
    key_file: str | None,
    other_key_file: str | None,
    strict: bool,
    trust: bool,
    trust_in: str | None,
) -> int:
    """Say whether a guest reads the same from two images of any formats.

    Exit codes as of qemu-img: 0 the same, 1 different, 2 it could not be found out.
    """  # fmt: skip
    from pyvirt.cli.output import sentence
    from pyvirt.errors import PyvirtError

    try:
        with (
            opened(one, format, trust, trust_in, key_file) as first,
            opened(other, other_format, trust, trust_in, other_key_file) as second,
            Progress() as progress,
        ):
            result = first.compare(
                second, progress=lambda done, all_: progress("comparing", done / max(1, all_))
            )
    except (PyvirtError, OSError) as error:
        output.fault(error)
        click.echo(f"pyvirt: {sentence(error)}", err=True)
        return TROUBLE
    same = result.identical if strict else result.equal
    if output.json:
        output.document({"same": same, "sizes": list(result.sizes), "first": result.first})
    elif result.first is not None:
        click.echo(f"different from byte {result.first} on")
    elif result.sizes[0] != result.sizes[1]:
        click.echo(f"the same, but for zeros at the end of the larger: {result.sizes}")
    else:
        click.echo("the same")
    return 0 if same else DIFFERENT


@click.command("inspect")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("-f", "--format", metavar="FORMAT", help="What QEMU would be told that it is.")
@click.option(
    "--accept", multiple=True, metavar="CODE", help="A reason that is none to you (hybrid-iso)."
)
@json_option
def inspect(output: Output, file: str, format: str | None, accept: tuple[str, ...]) -> int:
    """Say whether the image of a stranger is safe to be handed to QEMU, and why not.

    FILE "-" is standard input. Exit codes: 0 it is safe, 1 it is not.
    """
    from pyvirt.errors import shown
    from pyvirt.image import inspect_untrusted

    try:
        verdict = inspect_untrusted(0 if file == "-" else file, format).without(*accept)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if output.json:
        output.document({"path": file, "safe": verdict.safe, **plain(verdict)})
    else:
        where = "standard input" if file == "-" else shown(file)
        click.echo(f"{where}: {'safe' if verdict.safe else 'not safe'} as {verdict.format}")
        for reason in verdict.reasons:
            click.echo(f"  {shown_reason(reason)}")
    return 0 if verdict.safe else 1


def shown_reason(reason: Any) -> str:
    """A reason in one line, with nothing in it that a terminal would obey."""
    from pyvirt.errors import shown

    return shown(str(reason))
