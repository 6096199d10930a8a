"""Any text in a description reaches QEMU as it was: commas, quotes, spaces, newlines, unicode."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.parts import running
from support.ports import Ports
from support.qemu import needs_qemu
from test_working import fw_cfg

from pyvirt.devices import (
    File,
    FwCfg,
    Null,
    Parallel,
    Plan9,
    Serial,
    Unix,
    UsbMtp,
    VirtioConsole,
    VirtioSerialPort,
    Vnc,
)

pytestmark = needs_qemu

characters = st.characters(codec="utf-8", exclude_characters="\0/")
words = st.text(characters, min_size=1, max_size=12).filter(lambda text: text not in (".", ".."))


@settings(max_examples=15, deadline=None)
@example(text=",,a=b,,,", name="a,path=b")
@example(text="\"quoted' \\n %s {} <x>", name=" ")
@example(text="on", name="-")
@example(text="=", name="=")
@example(text="línea\nzwei\t三", name="a\nb")
@given(text=words, name=words)
def test_any_text_survives(text, name):
    with tempfile.TemporaryDirectory() as directory, Ports() as ports:
        folder = Path(directory, name)
        folder.mkdir()
        parts = [
            Serial(File(folder / "out", logfile=folder / "log")),
            Parallel(Unix(str(folder / "s"), server=True)),
            VirtioSerialPort(text, Null()),
            VirtioConsole(Null(), name=f"{text}~"),
            Plan9(folder, text[:7], security_model="none"),
            UsbMtp(folder, desc=text),
            FwCfg("opt/text", text),
            FwCfg(f"opt/{text[:12]}", content=b"x"),
            Vnc(path=str(folder / "v")),
        ]
        with running(*parts, words=ports.words, extra_fds=(ports.fd,)) as lab:
            ports.write(0x3F8, ord("!"))
            assert (folder / "out").read_bytes() == (folder / "log").read_bytes() == b"!"
            chardevs = {c["label"]: c["filename"] for c in lab.qemu.cmd("query-chardev")}
            expected = f"disconnected:unix:{folder}/s,server=on"
            assert chardevs["parallel0-chardev"] == expected
            assert lab.qemu.get("port0", "name") == text
            assert lab.qemu.get("console0", "name") == f"{text}~"
            assert lab.qemu.get("fs0", "mount_tag") == text[:7]
            assert lab.qemu.get("mtp0", "rootdir") == str(folder)
            assert lab.qemu.get("mtp0", "desc") == text
            (server,) = lab.qemu.cmd("query-vnc-servers")
            assert server["server"][0]["service"] == str(folder / "v")
            directory_of_items = fw_cfg(ports)
            size, key = directory_of_items["opt/text"]
            assert ports.blob(key, size).decode() == text
            assert f"opt/{text[:12]}" in directory_of_items
