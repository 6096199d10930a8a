"""The kernel that default guests boot on this host, for tests that need a real one."""

from __future__ import annotations

from functools import cache

import pytest

from pyvirt.errors import DownloadError, UnsupportedError
from pyvirt.guest import Guest
from pyvirt.guest.kernel import Kernel
from pyvirt.running.guest import Cache
from pyvirt.running.guest import kernel as choice


@cache
def kernel() -> Kernel:
    """The kernel of this host's default guest; skips where there is none to be had."""
    try:
        return choice.choose(Guest(), Cache(), lambda what, done: None)
    except (DownloadError, UnsupportedError) as error:
        pytest.skip(f"no kernel: {error}")
