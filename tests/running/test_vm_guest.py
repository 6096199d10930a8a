"""Acting on, looking at and changing one running guest."""

from __future__ import annotations

import io
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.qemu import needs_qemu

from pyvirt import (
    CDROM,
    Device,
    Disk,
    Nic,
    RunError,
    RunningVM,
    RunTimedOut,
    SpecError,
    Throttle,
    TimedOut,
    UnsupportedError,
)
from pyvirt.devices import Rng, UsbKeyboard
from pyvirt.disk import Luks
from pyvirt.errors import CommandError
from pyvirt.machine import DIMM
from pyvirt.qemu.part import Part

pytestmark = [needs_qemu, pytest.mark.timeout(240)]

SIZE = 64 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "data, with a comma.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(SIZE)], check=True)
    return path


def settles(guest: RunningVM, command: str, wanted: str) -> str:
    """What `command` prints in the guest once `wanted` is in it, or after 20 seconds."""
    shown = ""
    for _ in range(100):
        shown = guest.run(command).stdout
        if wanted in shown:
            break
        time.sleep(0.2)
    return shown


# Inside ------------------------------------------------------------------------------------------


def test_a_command_has_its_output_exit_code_and_time(guest: RunningVM) -> None:
    result = guest.run("echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_code, result.signal, result.cut) == (
        "out\n",
        "err\n",
        3,
        None,
        False,
    )
    assert 0 < result.duration < 60


def test_check_raises_with_the_result(guest: RunningVM) -> None:
    with pytest.raises(RunError) as caught:
        guest.run(["sh", "-c", "echo broken >&2; exit 7"], check=True)
    assert caught.value.result.exit_code == 7
    assert str(caught.value).endswith("exit code 7: broken")


def test_input_environment_directory_and_bytes(guest: RunningVM) -> None:
    result = guest.run(
        "cat; pwd; echo $WORD", input=b"\xff\0\n", env={"WORD": "a b"}, cwd="/tmp", encoding=None
    )
    assert result.stdout == b"\xff\0\n/tmp\na b\n"


def test_a_command_that_is_too_late_is_ended_with_its_children(guest: RunningVM) -> None:
    with pytest.raises(RunTimedOut) as caught:
        guest.run("echo begun; sleep 4321 & sleep 4321", timeout=0.5)
    assert caught.value.stdout == "begun\n"
    assert "4321" not in guest.run("ps").stdout


def test_a_process_is_talked_to_while_it_runs(guest: RunningVM) -> None:
    with guest.spawn(["cat"]) as process:
        for word in (b"one\n", b"two\n"):
            process.stdin.write(word)
            assert process.stdout.readline() == word
        process.stdin.close()
        assert process.wait(20).exit_code == 0


def test_files_go_in_and_come_out(guest: RunningVM, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    source.chmod(0o750)
    seen: list[tuple[int, int | None]] = []
    assert guest.put(source, "/tmp/file", progress=lambda *at: seen.append(at)) == len(data)
    assert seen[-1] == (len(data), len(data))
    assert guest.run("stat -c %a /tmp/file; cksum < /tmp/file").stdout.startswith("750\n")
    assert guest.get("/tmp/file", target) == len(data)
    assert target.read_bytes() == data
    buffer = io.BytesIO()
    guest.get("/tmp/file", buffer)
    assert buffer.getvalue() == data


def test_trees_go_in_and_come_out(guest: RunningVM, tmp_path: Path) -> None:
    (tmp_path / "tree/inner").mkdir(parents=True)
    (tmp_path / "tree/inner/file").write_text("hello")
    (tmp_path / "tree/link").symlink_to("inner/file")
    guest.put(tmp_path / "tree", "/tmp/tree")
    assert guest.read_text("/tmp/tree/link") == "hello"
    guest.get("/tmp/tree", tmp_path / "back", tree=True)
    assert (tmp_path / "back/inner/file").read_text() == "hello"
    assert os.readlink(tmp_path / "back/link") == "inner/file"


def test_text_files(guest: RunningVM) -> None:
    assert guest.write_text("/tmp/text", "grüße\n", mode=0o600) == 8
    assert guest.read_text("/tmp/text") == "grüße\n"


def test_a_file_that_is_not_there_leaves_none_here(guest: RunningVM, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="No such file"):
        guest.get("/tmp/nothing", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_facts_of_the_guest(guest: RunningVM) -> None:
    info = guest.guest_info()
    assert info.os["ID"] == "pyvirt"
    assert "10.0.2.15/24" in [a for i in info.interfaces for a in i.addresses]
    assert guest.ping() < 60
    assert guest.network_statistics()["eth0"].received >= 0


def test_the_clock_is_set(guest: RunningVM) -> None:
    guest.set_time(1_000_000_000)
    assert guest.run("date -u +%Y").stdout == "2001\n"
    guest.set_time()
    assert abs(float(guest.run("date +%s").stdout) - time.time()) < 60


# Looking -----------------------------------------------------------------------------------------


def test_a_screenshot_is_a_picture(guest: RunningVM, tmp_path: Path) -> None:
    picture = guest.screenshot()
    assert picture.size[0] >= 640
    assert picture.save(tmp_path / "screen.png").read_bytes() == picture._repr_png_()
    assert list(guest._engine.directory.glob("*.png")) == []


def test_keys_and_pointer_reach_the_guest(guest: RunningVM) -> None:
    guest.send_keys("ctrl-a", "ret")
    guest.type_text("Hello, World!\n")
    guest.point(0.5, 0.5)
    guest.click()
    with pytest.raises(SpecError):
        guest.point(2, 0)
    with pytest.raises(SpecError):
        guest.click("fourth")
    with pytest.raises(SpecError):
        guest.send_keys("no-such-key")


def test_text_on_the_console_is_waited_for(guest: RunningVM) -> None:
    threading.Timer(0.3, guest.run, ("echo marker 42 > /dev/ttyS0",)).start()
    match = guest.wait_for(serial=r"marker (\d+)", timeout=30)
    assert match is not None
    assert match.group(1) == "42"
    assert "marker 42" in guest.console.text


def test_text_is_typed_at_the_console(guest: RunningVM) -> None:
    with guest.spawn("head -n 1 /dev/ttyS0") as process:
        time.sleep(0.3)
        guest.console.write("from outside\n")
        assert process.stdout.readline() == b"from outside\n"


def test_a_text_that_does_not_come_says_what_came(guest: RunningVM) -> None:
    guest.run("echo the last line > /dev/ttyS0")
    with pytest.raises(TimedOut) as caught:
        guest.wait_for(serial="never", timeout=0.2)
    assert str(caught.value) == (
        "'never' on the serial port took longer than 0.2 s: "
        "the guest's last line is 'the last line'"
    )


def test_figures(guest: RunningVM) -> None:
    usage = guest.usage()
    assert usage.user > 0
    assert usage.resident > 1 << 20
    assert "cdrom0" in guest.block_statistics()
    assert guest.info()["status"]["status"] == "running"


def test_the_text_on_the_screen_is_read_and_waited_for(guest: RunningVM) -> None:
    assert guest.screen_text().splitlines()[0].startswith("SeaBIOS (version ")
    match = guest.wait_for(text=r"Booting from (\w+)", timeout=20)
    assert match is not None
    assert match.group(1) == "ROM"
    with pytest.raises(TimedOut) as caught:
        guest.wait_for(text="never", timeout=0.2)
    assert str(caught.value).startswith("'never' on the screen took longer than 0.2 s: it shows")


def test_a_port_is_waited_for_and_forwarded(guest: RunningVM) -> None:
    with guest.spawn("sleep 0.3; nc -l -p 7777 -e cat") as process:
        guest.wait_for(port=7777, timeout=30)
        forward = guest.forward(7777)
        with socket.create_connection(("127.0.0.1", forward.host), 20) as connection:
            connection.sendall(b"through\n")
            assert connection.recv(100) == b"through\n"
        guest.unforward(forward)
        process.kill()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", forward.host), 5)


# Changing ----------------------------------------------------------------------------------------


def plugged(image: Path) -> Iterator[tuple[Part, str, str]]:
    """Parts with a command that shows them in the guest, and what is then shown."""
    yield Disk(image), "ls /sys/block", "vda"
    yield Disk(image, bus="scsi"), "ls /sys/block", "sda"
    yield Disk(image, bus="nvme", serial="N1"), "ls /sys/block", "nvme0n1"
    yield Disk(image, bus="usb"), "ls /sys/block", "sda"
    yield Nic(), "ls /sys/class/net", "eth1"
    yield Nic(model="e1000e"), "ls /sys/class/net", "eth1"
    yield Rng(), "cat /sys/class/misc/hw_random/rng_available", "virtio_rng"
    yield UsbKeyboard(), "cat /proc/bus/input/devices", "QEMU USB Keyboard"
    yield Device("vmxnet3"), "ls /sys/class/net", "eth1"


@pytest.mark.parametrize("number", range(9))
def test_what_is_plugged_appears_and_what_is_unplugged_goes(
    guest: RunningVM, image: Path, number: int
) -> None:
    part, command, wanted = list(plugged(image))[number]
    before = guest.parts, nodes(guest)
    assert wanted not in guest.run(command).stdout
    name = guest.plug(part)
    assert wanted in settles(guest, command, wanted)
    guest.unplug(name)
    assert (guest.parts, nodes(guest)) == before


def nodes(guest: RunningVM) -> tuple[int, int, int]:
    """How much QEMU has that a part may leave behind: block nodes, char devices, objects."""
    qmp = guest.qmp
    return (
        len(qmp.query_named_block_nodes()),
        len(qmp.query_chardev()),
        len(qmp.qom_list(path="/objects")),
    )


def test_a_plug_that_fails_leaves_nothing(guest: RunningVM, tmp_path: Path, image: Path) -> None:
    before = guest.parts, nodes(guest)
    for part in (
        Disk(tmp_path / "missing.qcow2"),
        Disk(image, format="luks", key="0123"),
        Disk(image, properties={"num-queues": 0}),
        Nic(properties={"speed": -5}),
    ):
        with pytest.raises(CommandError):
            guest.plug(part)
        assert (guest.parts, nodes(guest)) == before


def test_what_this_qemu_lacks_is_said_before_it_is_plugged(guest: RunningVM) -> None:
    with pytest.raises(UnsupportedError, match="no-such-card"):
        guest.plug(Device("no-such-card"))


def test_unplugging_what_is_not_there_names_what_is(guest: RunningVM) -> None:
    with pytest.raises(SpecError) as caught:
        guest.unplug("disk77")
    assert "cdrom0" in str(caught.value)


def test_media_are_changed(guest: RunningVM, tmp_path: Path) -> None:
    disc = tmp_path / "disc.img"
    disc.write_bytes(b"first".ljust(2048, b"\0") * 200)
    other = tmp_path / "other.img"
    other.write_bytes(b"other".ljust(2048, b"\0") * 200)
    guest.insert("cdrom0", CDROM(disc, format="raw"))
    assert settles(guest, "head -c 5 /dev/sr0", "first") == "first"
    guest.insert("cdrom0", CDROM(other, format="raw"))
    assert settles(guest, "head -c 5 /dev/sr0", "other") == "other"
    guest.eject("cdrom0")
    assert guest.run("head -c 5 /dev/sr0").exit_code != 0
    with pytest.raises(CommandError):
        guest.insert("cdrom0", tmp_path / "missing.iso")


def test_what_a_medium_needed_is_given_back(guest: RunningVM, tmp_path: Path) -> None:
    disc = tmp_path / "disc.img"
    disc.write_bytes(b"\0" * (1 << 20))
    before = set(guest._engine.held)
    sealed = CDROM(Luks(disc, key="wrong"))
    with pytest.raises(CommandError):  # it is no LUKS volume, so its secret is not kept
        guest.insert("cdrom0", sealed)
    assert set(guest._engine.held) == before
    guest.insert("cdrom0", CDROM(disc, format="raw"))
    guest.eject("cdrom0")
    assert set(guest._engine.held) == before


def test_a_disk_grows_and_is_limited(guest: RunningVM, image: Path) -> None:
    name = guest.plug(Disk(image))
    assert settles(guest, "cat /sys/block/vda/size", str(SIZE // 512)) == f"{SIZE // 512}\n"
    guest.resize(name, "96M")
    wanted = str((96 << 20) // 512)
    assert wanted in settles(guest, "cat /sys/block/vda/size", wanted)
    guest.throttle(name, Throttle(bps_total=1 << 20))
    limits = [block["inserted"]["bps"] for block in guest.qmp.query_block() if "inserted" in block]
    assert limits == [1 << 20]
    guest.unplug(name)


def test_the_cable_of_a_card(guest: RunningVM) -> None:
    guest.set_link("nic0", False)
    assert settles(guest, "cat /sys/class/net/eth0/carrier", "0") == "0\n"
    guest.set_link("nic0", True)
    assert settles(guest, "cat /sys/class/net/eth0/carrier", "1") == "1\n"


def test_the_balloon_takes_and_gives(guest: RunningVM) -> None:
    assert guest.balloon("256M", timeout=60) == 256 << 20
    assert guest.balloon("384M", timeout=60) == 384 << 20


def test_processors_and_memory_are_added(guest: RunningVM) -> None:
    assert len(guest.plug_cpus(1)) == 1
    command = "echo 1 > /sys/devices/system/cpu/cpu1/online; nproc"
    assert settles(guest, command, "2") == "2\n"
    with pytest.raises(SpecError):
        guest.plug_cpus(1)
    before = memory(guest)
    name = guest.plug(DIMM("128M"))
    while memory(guest) < before + (100 << 10):
        time.sleep(0.1)
    guest.unplug(name, timeout=60)
    assert memory(guest) == before


def memory(guest: RunningVM) -> int:
    """KiB of memory that the guest has."""
    return int(guest.run("awk '/MemTotal/ {print $2}' /proc/meminfo").stdout)


def test_commands_of_this_qemu_are_completed_checked_and_documented(guest: RunningVM) -> None:
    assert "query_block" in dir(guest.qmp)
    assert "node_name" in str(guest.qmp.blockdev_del)
    with pytest.raises(SpecError) as caught:
        guest.qmp.blockdev_del(node_nam="x")
    assert "did you mean" in str(caught.value)
    assert guest.qmp.query_status()["running"] is True


def test_a_reset_interrupts_and_the_agent_comes_back(guest: RunningVM) -> None:
    failed: list[Exception] = []

    def wait() -> None:
        try:
            guest.run("sleep 600")
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    guest.reset()
    thread.join(60)
    assert re.search("the guest was reset", str(failed[0]))
    guest.wait_for(agent=True, timeout=120)
    assert guest.run("echo again").stdout == "again\n"
