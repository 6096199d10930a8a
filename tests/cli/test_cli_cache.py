"""``pyvirt cache``: what there is, and how it goes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from cli_tool import document, pyvirt

from pyvirt.cli.cache import age, short
from pyvirt.running.guest import Cache
from pyvirt.running.guest.cache import Recipe

LONG_AGO = time.time() - 40 * 86400


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A cache with a guest, a package and what was learnt of a QEMU."""
    cache = Cache(tmp_path / "pyvirt")
    image = cache.add([b"x" * 5000], ".cpio")
    cache.store("key", Recipe({"initramfs": image}, {}), {})
    old = cache.tree(
        "package_1", lambda folder: (folder / "file").write_bytes(b"y" * 3000) and None
    )
    os.utime(old, (LONG_AGO, LONG_AGO))
    (tmp_path / "pyvirt/qemu").mkdir()
    (tmp_path / "pyvirt/qemu/abc").write_bytes(b"z" * 7)
    (tmp_path / "pyvirt/kvm.json").write_text("{}")
    return tmp_path


def test_everything_is_listed(home: Path) -> None:
    made = document("cache", "list", "--json", XDG_CACHE_HOME=str(home))
    sizes = {one["kind"]: one["size"] for one in made["entries"]}
    assert made["directory"] == str(home / "pyvirt")
    assert (sizes["image"], sizes["package"], sizes["QEMU"], sizes["KVM proof"]) == (
        5000, 3000, 7, 2,
    )  # fmt: skip
    assert made["size"] == sum(one["size"] for one in made["entries"])
    said = pyvirt("cache", "list", XDG_CACHE_HOME=str(home)).stdout
    assert "40 days ago" in said
    assert said.splitlines()[-1].endswith(f"in {home / 'pyvirt'}")


def test_all_of_it_goes(home: Path) -> None:
    made = document("cache", "remove", "--json", XDG_CACHE_HOME=str(home))
    assert {one["kind"] for one in made["removed"]} == {
        "guest", "image", "package", "QEMU", "KVM proof",
    }  # fmt: skip
    assert document("cache", "list", "--json", XDG_CACHE_HOME=str(home))["entries"] == []


def test_what_was_not_used_for_long_goes_alone(home: Path) -> None:
    said = pyvirt("cache", "remove", "--unused-for", "30", XDG_CACHE_HOME=str(home))
    assert said.stdout == "Removed 1 of 5, 2.9 KiB.\n"
    left = document("cache", "list", "--json", XDG_CACHE_HOME=str(home))["entries"]
    assert "package" not in [one["kind"] for one in left]


def test_an_empty_cache(tmp_path: Path) -> None:
    said = pyvirt("cache", "list", XDG_CACHE_HOME=str(tmp_path))
    assert said.stdout == f"0 B in {tmp_path / 'pyvirt'}\n"
    assert list(tmp_path.iterdir()) == []


def test_ages_and_names() -> None:
    now = time.time()
    assert [age(now), age(now - 61), age(now - 7300), age(now - 86400 * 3)] == [
        "just now", "1 minute ago", "2 hours ago", "3 days ago",
    ]  # fmt: skip
    assert short("0123456789abcdef0123456789abcdef0123.cpio") == "0123456789ab….cpio"
