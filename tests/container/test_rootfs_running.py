"""Containers run in every kind of root file system, and nothing of it is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rootfs_tars import Layout, docker_archive, entry, tar
from support.containers import REASON, new_store

from pyvirt.container import Container
from pyvirt.errors import PyvirtError, RootFSError, RunsError
from pyvirt.rootfs import (
    Busybox,
    Debian,
    Directory,
    DockerArchive,
    LoopImage,
    OciImage,
    Overlay,
    RootFS,
    Tarball,
)
from pyvirt.running.kept import Kept
from pyvirt.running.lxc.container import RunningContainer
from pyvirt.running.lxc.store import Store
from pyvirt.running.rootfs import copying, prepare
from pyvirt.running.rootfs.watch import Watch

pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

DIRECTORIES = ("dev/", "proc/", "sys/", "run/", "tmp/")
SLEEP = ("/bin/busybox", "sleep", "1000")


def held(*places: Path) -> list[str]:
    """The mounts and loop devices of what lies in *places*; others have their own."""
    said = subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True)
    lines = Path("/proc/self/mounts").read_text().splitlines() + said.stdout.splitlines()
    return [line for line in lines if any(str(place) in line for place in places)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store, of which nothing is left at the end: mounts, loop devices, directories."""
    with new_store() as made:
        yield made
        left = [path.name for path in made.root.iterdir() if not path.name.startswith(".")]
        assert left == []
        assert held(made.root, tmp_path) == []


@pytest.fixture(scope="module")
def busybox() -> bytes:
    path = shutil.which("busybox")
    if path is None:
        pytest.skip("needs busybox")
    return Path(path).read_bytes()


@pytest.fixture
def small(busybox: bytes) -> bytes:
    """A tar of as much as a container needs."""
    users = b"root:x:0:0::/:/bin/sh\nnina:x:1000:1000::/home:/bin/sh\n"
    home = entry("home/", uid=1000, gid=1000)
    tool = entry("bin/busybox", data=busybox, mode=0o755)
    links = (f"bin/{name} -> busybox" for name in ("sh", "cat", "id", "ls"))
    return tar(*DIRECTORIES, "bin/", home, tool, *links, ("etc/passwd", users))


@pytest.fixture
def tree(tmp_path: Path, small: bytes) -> Path:
    (tmp_path / "tree.tar").write_bytes(small)
    (tmp_path / "place").mkdir()
    prepare(Tarball(tmp_path / "tree.tar"), tmp_path / "place")
    tmp_path.chmod(0o755)
    return tmp_path / "place/rootfs"


def seen(rootfs: RootFS, store: Store, idmap: str | None = "auto") -> tuple[str, str]:
    """Whose a container sees that its files are, and what it wrote if it could."""
    container = Container(rootfs=rootfs, command=SLEEP, idmap=idmap)
    with RunningContainer.start(container, store=store) as running:
        listed = running.run("ls -dln /bin /etc /home | busybox awk '{print $3, $9}'").stdout
        wrote = running.run("echo x > /file && cat /file")
        return listed, wrote.stdout


@pytest.mark.parametrize("idmap", ["auto", None])
@pytest.mark.parametrize(
    "kind", ["tar", "directory", "copy", "overlay", "overlay-of-copy", "overlay-of-tar"]
)
def test_containers_run_in_trees(tree: Path, store: Store, kind: str, idmap: str | None) -> None:
    archive = Tarball(tree.parents[1] / "tree.tar")
    rootfs: RootFS = {
        "tar": archive,
        "directory": Directory(tree),
        "copy": Directory(tree, copy=True),
        "overlay": Overlay(tree),
        "overlay-of-copy": Overlay(Directory(tree, copy=True)),
        "overlay-of-tar": Overlay(archive),
    }[kind]
    listed, wrote = seen(rootfs, store, idmap)
    assert listed == "0 /bin\n0 /etc\n1000 /home\n"
    assert wrote == "x\n"
    assert (tree / "file").exists() == (kind == "directory")


@pytest.mark.skipif(shutil.which("mksquashfs") is None, reason="needs mksquashfs")
def test_containers_run_in_images(tree: Path, store: Store, tmp_path: Path) -> None:
    squash, ext4 = tmp_path / "a.squashfs", tmp_path / "a.ext4"
    subprocess.run(["mksquashfs", tree, squash, "-quiet"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, ext4, "16M"], check=True)
    assert seen(LoopImage(squash), store, None)[1] == ""
    assert seen(LoopImage(ext4, readonly=True), store, None)[1] == ""
    assert seen(LoopImage(ext4), store, None)[1] == "x\n"
    said = subprocess.run(["debugfs", "-R", "cat /file", ext4], capture_output=True, text=True)
    assert said.stdout == "x\n"


def test_an_image_says_what_runs(tmp_path: Path, store: Store, small: bytes) -> None:
    config = {
        "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["id -un > /home/who; pwd >> /home/who; echo $A "
        ">> /home/who; exec busybox sleep 1000"],
        "Env": ["PATH=/bin", "A=from the image"], "WorkingDir": "/home", "User": "nina",
    }  # fmt: skip
    layout = Layout(tmp_path / "layout")
    layout.tag("x", layout.image([small, tar(("etc/second", b"layer"))], config))
    (tmp_path / "docker.tar").write_bytes(docker_archive([small], config))
    for rootfs in (OciImage(layout.path), DockerArchive(tmp_path / "docker.tar")):
        with RunningContainer.start(Container(rootfs=rootfs), store=store) as running:
            for _ in range(200):
                said = running.run("cat /home/who").stdout
                if said.count("\n") == 3:
                    break
                time.sleep(0.05)
            assert said == "nina\n/home\nfrom the image\n"


def test_a_kept_container_goes_on_where_it_ended(store: Store) -> None:
    kept = Kept.create(Container(name="kept", env={"A": "b"}), store=store)
    for number in range(2):
        with kept.start() as running:
            said = running.run("echo $A >> /root/log; rm -rf /etc; mkdir /etc; cat /root/log")
            assert said.stdout == "b\n" * (number + 1)
            with pytest.raises(RunsError) as caught:
                kept.snapshot("x")
            assert (caught.value.name, caught.value.act) == ("kept", "taking a snapshot")
    kept.snapshot("two")
    with kept.start() as running:
        running.run("echo c >> /root/log")
    kept.restore("two")
    clones = [kept, *kept.clones(["a", "b", "c"])]
    runs = [each.start() for each in clones]
    try:
        for each in runs:
            assert each.run("cat /root/log; ls /etc; hostname").stdout.split()[:2] == ["b", "b"]
            said = each.run(f"echo {each.name} > /root/log; cat /root/log")
            assert said.stdout == f"{each.name}\n"
    finally:
        for each in runs:
            each.close()
    for one in clones:
        one.destroy()
    assert list((store.root / ".kept" / ".states").iterdir()) == []


def test_a_kept_container_is_carried_elsewhere_and_runs(store: Store, tmp_path: Path) -> None:
    kept = Kept.create(Container(name="kept"), store=store)
    with kept.start() as running:
        running.run("echo x > /root/log; rm -r /var/log; ln -s /root/log /link; chown 3:4 /link -h")
    kept.export(tmp_path / "x.tar.zst")
    made = Kept.import_(tmp_path / "x.tar.zst", "made", store=store)
    with made.start() as running:
        said = running.run("cat /link; ls -d /var/log; stat -c %u:%g /link /root/log")
        assert said.stdout == "x\n3:4\n0:0\n"


KILLED = """
import sys
from pathlib import Path
from pyvirt.rootfs import Tarball
from pyvirt.running.rootfs import prepare
def told(what, done):
    print(what, flush=True)
    if done and done > 0.3:
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
prepare(Tarball(sys.argv[1]), Path(sys.argv[2]), progress=told)
"""


def test_a_process_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "big.tar").write_bytes(tar(*((f"d/{n}", bytes(300_000)) for n in range(20))))
    place = tmp_path / "place"
    place.mkdir()
    end = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "big.tar", place],
                         capture_output=True)  # fmt: skip
    assert end.returncode == -signal.SIGKILL
    for _ in range(400):
        if not list(place.iterdir()):
            return
        time.sleep(0.05)
    pytest.fail(f"{list(place.iterdir())} is left")


needs_mmdebstrap = pytest.mark.skipif(
    shutil.which("mmdebstrap") is None, reason="needs mmdebstrap"
)


def debian(rootfs: RootFS, store: Store, told: list[float], **how: object) -> RunningContainer:
    """A container of Debian's packages; skips where its mirror cannot be reached."""
    try:
        return RunningContainer.start(
            Container(rootfs=rootfs, **how),  # type: ignore[arg-type]
            store=store, progress=lambda what, done: done is not None and told.append(done),
        )  # fmt: skip
    except PyvirtError as error:
        if "resolve" in str(error).lower() or "connect" in str(error).lower():
            pytest.skip(str(error))
        raise


@needs_mmdebstrap
@pytest.mark.timeout(300)
def test_packages_are_unpacked_and_run(store: Store) -> None:
    told: list[float] = []
    rootfs = Debian("bookworm", ["busybox-static"], variant="extract")
    with debian(rootfs, store, told, command=SLEEP) as running:
        assert running.run(["/bin/busybox", "id", "-u"]).stdout == "0\n"
    assert told == sorted(told)
    assert told[-1] >= 0.3


@needs_mmdebstrap
@pytest.mark.skipif("PYVIRT_SLOW" not in os.environ, reason="takes minutes; PYVIRT_SLOW=1 runs it")
@pytest.mark.timeout(900)
def test_a_debian_boots(store: Store) -> None:
    rootfs = Overlay(Debian("bookworm", ["systemd-sysv"]))
    with debian(rootfs, store, [], idmap=None) as running:
        assert "bookworm" in running.run("cat /etc/os-release").stdout
        assert running.run("cat /proc/1/comm").stdout == "systemd\n"


def test_a_copy_of_what_is_mounted_stays_out(tree: Path, tmp_path: Path) -> None:
    target = tree / "tmp"
    subprocess.run(["mount", "-t", "tmpfs", "none", target], check=True)
    try:
        (target / "hidden").touch()
        (tmp_path / "copy").mkdir()
        copying.copy(tree, tmp_path / "copy", Watch("copying"))
    finally:
        subprocess.run(["umount", target], check=True)
    assert list((tmp_path / "copy/tmp").iterdir()) == []


def test_the_default_is_described_by_nothing() -> None:
    assert Container().rootfs == Busybox()
    assert repr(Container(rootfs=Overlay("/base"))) == (
        "Container(rootfs=Overlay(Directory(Path('/base'))))"
    )


def test_a_root_without_an_init_does_not_start(tmp_path: Path, store: Store) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(RootFSError) as caught:
        RunningContainer.start(Container(rootfs=Directory(tmp_path)), store=store)
    assert str(caught.value) == f"{tmp_path}: has no /sbin/init; it is empty"
    with pytest.raises(RootFSError) as caught:
        RunningContainer.start(Container(rootfs=Directory("/nowhere")), store=store)
    assert str(caught.value) == "/nowhere: is not there"
