"""Where the containers of the command line live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pyvirt.running.lxc.store import Store

_KEY = "pyvirt.container.store"


def given(ctx: click.Context, _: click.Parameter, path: str | None) -> None:
    """Remember --store for `store`."""
    ctx.meta[_KEY] = path


def store() -> Store:
    """The store that --store names, or the usual one."""
    from pyvirt.running.lxc.store import Store

    path: Any = click.get_current_context().meta.get(_KEY)
    return Store() if path is None else Store(path)
