"""``pyvirt bench disk``, ``net`` and ``all``."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import click

from pyvirt.cli.bench.look import file_options, tell, write
from pyvirt.cli.output import Output, json_option
from pyvirt.cli.progress import Progress

if TYPE_CHECKING:
    from pyvirt.bench import Matrix
    from pyvirt.bench import Progress as Step

C = TypeVar("C", bound=Callable[..., Any])


def _chosen(command: C) -> C:
    """The options that disks and networks share."""
    for name, words in (
        ("baseline", "What the others are compared with."),
        ("workload", "What is done, as tables name it; several times for several."),
        ("device", "What is measured; several times for several."),
    ):
        many = name != "baseline"
        command = click.option(f"--{name}", metavar="NAME", multiple=many, help=words)(command)
    return command


def _how(command: C) -> C:
    """The options of every run."""
    for option in (
        json_option,
        file_options,
        click.option("--force", is_flag=True, help="Overwrite FILE of --output."),
        click.option("-o", "--output", "kept", metavar="FILE", type=click.Path(
            dir_okay=False, path_type=Path),
            help="Keep the results there (by default pyvirt-bench-TIME.json in this directory)."),
        click.option("--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto",
                     help="What runs the guest's code."),
        click.option("--rounds", type=click.IntRange(1, 10000), metavar="N",
                     help="How often each point is measured."),
        click.option("--full", is_flag=True, help="Every device under every workload: hours."),
        click.option("--quick", is_flag=True, help="The headline in few minutes."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command("disk")
@click.option("--aio", metavar="NAME", help="How QEMU reads and writes: threads, native, io_uring.")
@click.option("--cache", metavar="NAME", help="QEMU's cache mode: none, writeback, unsafe ...")
@click.option("--format", "format_", default="raw", help="raw or qcow2.")
@click.option("--backing", default="ram", help="ram, file (in this directory) or null (no data).")
@_chosen
@_how
def disk(
    output: Output,
    backing: str,
    format_: str,
    cache: str | None,
    aio: str | None,
    **given: Any,
) -> int:
    """Measure disks: virtio-blk against IDE, and others.

    A workload is fio's, such as write-1M-x4 or randread-4K-x16, or a job in a file NAME.fio.
    """
    from pyvirt.bench import disk as disks
    from pyvirt.bench.words import disk_workload

    how = {"backing": backing, "format": format_, "cache": cache, "aio": aio}
    return _run(output, _matrix(disks, disk_workload, "ide", given, how), **given)


@click.command("net")
@click.option("--backend", help="tap (needs root; default for root), user, stream or passt.")
@click.option("--vhost", is_flag=True, help="Let the kernel move the packets of virtio on a tap.")
@_chosen
@_how
def net(output: Output, backend: str | None, vhost: bool, **given: Any) -> int:
    """Measure network cards: virtio-net against e1000, and others.

    A workload is iperf3's, such as send-tcp, receive-udp-1448 or send-tcp-p4-zerocopy, or a
    round-trip-tcp.
    """
    from pyvirt.bench import net as nets
    from pyvirt.bench.words import net_workload

    how: dict[str, Any] = {"backend": backend or _backend()}
    how |= {"vhost": True} if vhost else {}
    return _run(output, _matrix(nets, net_workload, "e1000", given, how), **given)


@click.command("all")
@_how
def all_(output: Output, **given: Any) -> int:
    """Measure disks and network cards in one run."""
    from pyvirt.bench import disk as disks
    from pyvirt.bench import net as nets
    from pyvirt.bench.words import disk_workload, net_workload

    given |= {"device": (), "workload": (), "baseline": None}
    matrix = _matrix(disks, disk_workload, "ide", given, {})
    how = {"backend": _backend()}
    matrix += _matrix(nets, net_workload, "e1000", given, how)
    return _run(output, matrix, **given)


def _backend() -> str:
    """A tap needs a network namespace, and that needs root."""
    return "tap" if os.geteuid() == 0 else "user"


def _matrix(
    module: Any,
    workload: Callable[[str], Any],
    old: str,
    given: dict[str, Any],
    how: dict[str, Any],
) -> Matrix:
    """What was asked for; the usual matrices where nothing was chosen."""
    from pyvirt.bench import Place

    if given["quick"] and given["full"]:
        raise click.UsageError("Give --quick or --full.")
    kind = "quick" if given["quick"] else "full" if given["full"] else "headline"
    usual = _usual(module, kind, how)
    devices = list(given["device"]) or list(dict.fromkeys(one.device for one in usual.points))
    words = [workload(word) for word in given["workload"]]
    words = words or list(dict.fromkeys(one.workload for one in usual.points))
    baseline = given["baseline"] or (old if old in devices else devices[0])
    devices = list(dict.fromkeys([baseline, *devices]))
    how = {**how, "place": Place(accel=given["accel"])}
    made: Matrix = module.matrix(
        devices, words, baseline=baseline, rounds=given["rounds"] or usual.rounds, **how
    )
    # A run that is to be short marks what a busy host spoilt, and does not repeat it.
    return attrs.evolve(made, repeats=0) if given["quick"] else made


def _usual(module: Any, kind: str, how: dict[str, Any]) -> Matrix:
    known = {"backend": how["backend"]} if "backend" in how else {}
    usual: Matrix = getattr(module, kind)(**known)
    return usual


def _run(
    output: Output,
    matrix: Matrix,
    *,
    kept: Path | None,
    force: bool,
    html: Path | None,
    svg: Path | None,
    png: Path | None,
    **_: Any,
) -> int:
    from pyvirt import bench

    path = _kept(kept, force)
    with Progress() as progress:
        results = bench.run(matrix, path=path, progress=_drawn(progress), directory=path.parent)
    tell(output, results)
    write(results, html, svg, png)
    cancelled = bool(results.meta.get("cancelled"))
    click.echo(f"{'Interrupted; what was measured' if cancelled else 'All of it'} is in {path}.",
               err=True)  # fmt: skip
    return 128 + signal.SIGINT if cancelled else int(not results.rows)


def _kept(path: Path | None, force: bool) -> Path:
    """Where results go; nothing is measured that could not be kept."""
    path = path or _unused(time.strftime("pyvirt-bench-%Y%m%d-%H%M%S"))
    if path.exists() and not force:
        raise click.UsageError(f"{path} exists already; --force overwrites it.")
    if not os.access(path.parent, os.W_OK):
        raise click.UsageError(f"Nothing can be written to {path.parent}.")
    return path


def _unused(stem: str) -> Path:
    names = (f"{stem}{f'-{number}' if number else ''}.json" for number in count())
    return next(path for path in map(Path, names) if not path.exists())


def _drawn(progress: Progress) -> Callable[[Step], None]:
    def draw(step: Step) -> None:
        progress(f"{step.doing}, {_left(step.remaining)} left", step.done / max(step.total, 1))

    return draw


def _left(seconds: float) -> str:
    """An estimate as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
