"""Whether passt can serve here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

_ROUTES = Path("/proc/net/route").read_text().splitlines()

needs_passt = pytest.mark.skipif(shutil.which("passt") is None, reason="passt is not installed")
needs_route = pytest.mark.skipif(
    not any(line.split()[1] == "00000000" for line in _ROUTES),
    reason="passt needs a default route of the host's",
)
