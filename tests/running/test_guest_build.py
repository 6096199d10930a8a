"""Building default guests: what is asked for is in them, from the cache when it can be."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.kernels import kernel

from pyvirt import Guest
from pyvirt.errors import DownloadError, SpecError, UnsupportedError
from pyvirt.guest import elf
from pyvirt.running.guest import Built, Cache, apt, build, programs
from pyvirt.running.guest import kernel as choice


def cache_in(root: Path) -> Cache:
    """A cache of its own, into which the downloaded kernel (if there is one) is linked."""
    kernel()
    made = Cache(root)
    for tree in Cache().trees():
        (made.root / "trees").mkdir(parents=True, exist_ok=True)
        (made.root / "trees" / tree.name).symlink_to(tree)
    return made


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return cache_in(tmp_path / "cache")


def contents(built: Built) -> dict[str, tuple[int, bytes]]:
    """Mode and data of every entry of the initramfs, read by the format's specification."""
    data, at, found = built.initramfs.read_bytes(), 0, {}
    while True:
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        body = at + (110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = mode, data[body : body + size]
        at = body + (size + 3) // 4 * 4


def test_the_second_build_is_the_first(cache: Cache) -> None:
    told: list[str] = []
    first = build(cache=cache, progress=lambda what, done: told.append(what))
    assert "building the initramfs" in told
    told.clear()
    assert build(cache=cache, progress=lambda what, done: told.append(what)) == first
    assert told == []
    assert elf.is_elf(first.kernel.read_bytes()[:64])
    assert "console=ttyS0" in first.append.split()


def test_equal_guests_are_equal_bytes(cache: Cache, tmp_path: Path) -> None:
    guest = Guest(files={"/x": b"1"}, init="true")
    one, other = build(guest, cache=cache), build(guest, cache=cache_in(tmp_path / "other"))
    assert one.initramfs.read_bytes() == other.initramfs.read_bytes()
    assert one.initramfs.name == other.initramfs.name


BUILDER = """
import sys
from pathlib import Path
from pyvirt import Guest
from pyvirt.running.guest import Cache, build

told = []
built = build(Guest(init="two"), cache=Cache(Path(sys.argv[1])),
              progress=lambda what, done: told.append(what))
print(built.initramfs.name, built.kernel.name, len(told))
"""


def test_two_processes_that_build_at_once_make_it_once(cache: Cache) -> None:
    command = [sys.executable, "-c", BUILDER, cache.root]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=100)[0].split() for process in both]
    assert told[0][:2] == told[1][:2]
    assert sorted(int(words[2]) > 0 for words in told) == [False, True]
    assert list((cache.root / "making").iterdir()) == []


def test_the_users_files_are_in_it(cache: Cache, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    (source / "below/file").write_bytes(b"below")
    (source / "link").symlink_to("below/file")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "secret").chmod(0o600)
    guest = Guest(
        files={
            "/etc/hostname": b"mine\n",
            "/usr/bin/tool": b"#!/bin/sh\n",
            "/etc/secret": tmp_path / "secret",
            "/srv": source,
        },
        init="echo started",
    )
    found = contents(build(guest, cache=cache))
    assert found["etc/hostname"] == (stat.S_IFREG | 0o644, b"mine\n")
    assert found["usr/bin/tool"][0] == stat.S_IFREG | 0o755
    assert found["etc/secret"] == (stat.S_IFREG | 0o600, b"secret")
    assert found["srv/below/file"][1] == b"below"
    assert found["srv/link"] == (stat.S_IFLNK | 0o777, b"below/file")
    assert found["etc/pyvirt/user"] == (stat.S_IFREG | 0o755, b"#!/bin/sh\necho started\n")


def test_a_changed_file_is_taken_anew(cache: Cache, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"one")
    guest = Guest(files={"/file": source})
    assert contents(build(guest, cache=cache))["file"][1] == b"one"
    source.write_bytes(b"two")
    assert contents(build(guest, cache=cache))["file"][1] == b"two"


def test_a_program_comes_with_its_libraries(cache: Cache) -> None:
    found = contents(build(Guest(binaries=["tar", "/bin/ls"]), cache=cache))
    assert elf.is_elf(found["usr/bin/ls"][1])
    needed = elf.read(found["usr/bin/tar"][1]).needed
    assert needed
    names = {path.rpartition("/")[2] for path in found}
    assert set(needed) <= names
    assert "usr/lib64/ld-linux-x86-64.so.2" in found


def test_qemus_agent_comes_when_it_is_asked_for(cache: Cache) -> None:
    found = contents(build(Guest(qga=True), cache=cache))
    assert elf.is_elf(found["usr/bin/qemu-ga"][1])
    assert "usr/bin/qemu-ga" not in contents(build(cache=cache))


def test_more_modules_are_always_loaded(cache: Cache) -> None:
    found = contents(build(Guest(modules=["dummy", "ext4"]), cache=cache))
    assert found["etc/pyvirt/modules"][1].split()[-2:] == [b"dummy", b"ext4"]
    assert any(path.endswith("/dummy.ko") for path in found)


@pytest.mark.parametrize(
    ("guest", "field", "sentence"),
    [
        (Guest(binaries=["no-such-tool"]), "binaries[0]",
         "binaries[0] is neither on the host's PATH nor in packages, got 'no-such-tool'"),
        (Guest(files={"/x": Path("/no/such")}), "files['/x']",
         "files['/x'] must be a file or directory, got '/no/such'"),
        (Guest(init=Path("/no/such")), "init", "init must be a file, got '/no/such'"),
        (Guest(kernel=Path("/no/such")), "kernel", "kernel must be a file, got '/no/such'"),
    ],
)  # fmt: skip
def test_what_the_host_lacks_is_named(
    cache: Cache, guest: Guest, field: str, sentence: str
) -> None:
    with pytest.raises(SpecError) as caught:
        build(guest, cache=cache)
    assert caught.value.field == field
    assert str(caught.value) == sentence


def test_an_unknown_module_is_named(cache: Cache) -> None:
    with pytest.raises(SpecError) as caught:
        build(Guest(modules=["ext4", "no-such-module"]), cache=cache)
    assert caught.value.field == "modules[1]"
    assert str(caught.value) == (
        f"modules[1] is not in kernel {kernel().release}, got 'no_such_module'"
    )


def test_a_kernel_of_the_users_is_taken_with_its_modules(cache: Cache) -> None:
    image = kernel().image
    assert choice.choose(Guest(kernel=image), cache, lambda *told: None) == kernel()


def test_what_is_no_kernel_is_refused(cache: Cache, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(2000))
    with pytest.raises(Exception, match="is not a Linux kernel") as caught:
        build(Guest(kernel=image), cache=cache)
    assert caught.value.__class__.__name__ == "ProtocolError"


# Packages ----------------------------------------------------------------------------------------


@pytest.fixture
def apt_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, int], None]:
    """Puts programs before apt's on the PATH that fail with given words."""

    def install(words: str, status: int) -> None:
        for name in ("apt-get", "apt-cache"):
            script = tmp_path / "bin" / name
            script.parent.mkdir(exist_ok=True)
            script.write_text(f"#!/bin/sh\necho '{words}' >&2\nexit {status}\n")
            script.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    return install


def test_missing_package_lists_are_told_with_what_fixes_them(
    apt_says: Callable[[str, int], None],
) -> None:
    apt_says("E: No packages found", 100)
    with pytest.raises(UnsupportedError) as caught:
        apt.kernel_packages("linux-image-amd64")
    assert str(caught.value) == (
        "the package linux-image-amd64 is not available in apt's package lists; "
        "run `apt-get update` as root if the lists are old or empty"
    )


def test_a_host_that_is_offline_is_told_so(
    apt_says: Callable[[str, int], None], cache: Cache
) -> None:
    complaint = "E: Failed to fetch http://x/y.deb  Could not connect to x:80"
    apt_says(f"W: other\n{complaint}\nE: more", 100)
    archive = apt.Archive("y_1_all.deb", 1000)
    with pytest.raises(DownloadError) as caught:
        apt.unpacked(archive, cache, lambda *told: None)
    assert caught.value.package == "y"
    assert caught.value.why == complaint[3:]
    assert not (cache.root / "trees/y_1_all").exists()


def test_a_host_without_apt_is_told_to_name_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UnsupportedError) as caught:
        apt.kernel_packages("linux-image-amd64")
    assert str(caught.value) == (
        "apt-cache is not available in this host; name a kernel of your own in Guest.kernel"
    )


def test_a_package_is_fetched_and_its_files_are_in_the_guest(cache: Cache) -> None:
    try:
        built = build(Guest(packages=["hello"], binaries=["hello"]), cache=cache)
    except (DownloadError, UnsupportedError) as error:
        pytest.skip(f"no packages: {error}")
    found = contents(built)
    assert elf.is_elf(found["usr/bin/hello"][1])
    assert not [path for path in found if path.startswith("usr/share/doc/")]


def test_a_distribution_that_is_not_known_is_told_to_name_a_kernel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(choice.kernels, "installed", list)
    monkeypatch.setattr(
        choice.platform, "freedesktop_os_release", lambda: {"ID": "x", "PRETTY_NAME": "X 1"}
    )
    with pytest.raises(UnsupportedError, match=r"X 1 on \w+; name a kernel .* Guest\.kernel$"):
        choice.choose(Guest(), Cache(tmp_path), lambda *told: None)


def test_a_program_that_was_not_built_is_told(
    monkeypatch: pytest.MonkeyPatch, cache: Cache, tmp_path: Path
) -> None:
    monkeypatch.setattr(programs, "program", lambda name: tmp_path / name)
    with pytest.raises(UnsupportedError, match=r"^pyvirt's program agent is not available in"):
        build(Guest(init="unbuilt"), cache=cache)
