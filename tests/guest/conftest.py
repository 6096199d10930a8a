from __future__ import annotations

import pytest


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "guest folder"
    path.mkdir()
    return str(path)
