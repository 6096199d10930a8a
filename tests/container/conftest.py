"""One store and one running container for all tests of a worker that only need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.containers import REASON, new_store

from pyvirt import Container, RunningContainer
from pyvirt.running.lxc.store import Store


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    if REASON is not None:
        pytest.skip(REASON)
    with new_store() as made:
        yield made


@pytest.fixture(scope="session")
def contained(store: Store) -> Iterator[RunningContainer]:
    """A running default container; tests leave it as they found it."""
    with RunningContainer.start(Container(name="shared"), store=store) as running:
        yield running
