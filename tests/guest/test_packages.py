"""Debian packages that dpkg-deb made are read without it."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pytest

from pyvirt.errors import ProtocolError
from pyvirt.guest import packages

URIS = """\
'http://deb.debian.org/debian/pool/main/f/fio/fio_3.33-3_amd64.deb' fio_3.33-3_amd64.deb 537684 SHA256:8c
'http://deb.debian.org/q/qemu-guest-agent_7.2%2bdfsg-7_amd64.deb' qemu-guest-agent_1%3a7.2+dfsg-7_amd64.deb 99 SHA256:9
"""  # noqa: E501

DEPENDS = """\
linux-image-amd64
  Depends: linux-image-6.1.0-56-amd64
linux-image-6.1.0-56-amd64
  Depends: kmod
 |Depends: initramfs-tools
    dracut
  Depends: <linux-initramfs-tool>
  Depends: linux-modules-6.1.0-56-amd64
linux-modules-6.1.0-56-amd64
linux-image-6.1.0-56-amd64-unsigned
"""


@pytest.fixture(params=["xz", "gzip", "zstd", "none"])
def package(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
    )
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/tool").write_text("contents")
    (tree / "usr/bin/other").symlink_to("tool")
    command = ["dpkg-deb", f"-Z{request.param}", "--build", "tree", "x.deb"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    return (tmp_path / "x.deb").read_bytes()


def test_its_files_are_read(package: bytes) -> None:
    found = {}
    with packages.contents(io.BytesIO(package), "x.deb") as files:
        for member in files:
            data = files.extractfile(member) if member.isreg() else None
            found[member.name] = data.read() if data else member.linkname
    assert found["./usr/bin/tool"] == b"contents"
    assert found["./usr/bin/other"] == "tool"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(lambda p: b"junk" + p, "x.deb is not a Debian package at byte 0", id="magic"),
        pytest.param(lambda p: p[:8] + b"x" * 60, "x.deb has a damaged member header at byte 68",
                     id="header"),
        pytest.param(lambda p: p[:8], "x.deb holds no data.tar at byte 8", id="empty"),
        pytest.param(lambda p: p[:30], "x.deb has a damaged member header at byte 30", id="cut"),
    ],
)  # fmt: skip
def test_a_damaged_package_is_refused(package: bytes, damage, reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        packages.contents(io.BytesIO(damage(package)), "x.deb")
    assert str(caught.value) == reason


def test_what_apt_would_fetch_is_listed_with_its_version() -> None:
    found = packages.archives(URIS)
    assert [(archive.name, archive.version, archive.size) for archive in found] == [
        ("fio", "3.33-3", 537684),
        ("qemu-guest-agent", "1:7.2+dfsg-7", 99),
    ]


def test_the_packages_of_a_kernel_are_found_in_its_dependencies() -> None:
    assert packages.kernel_packages(DEPENDS) == [
        "linux-image-6.1.0-56-amd64",
        "linux-modules-6.1.0-56-amd64",
    ]
