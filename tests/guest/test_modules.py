"""Modules: what pyvirt reads of them is what kmod reads, and its tables are depmod's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support.kernels import kernel

from pyvirt.guest import hardware, modules, strip
from pyvirt.guest.modules import Module
from pyvirt.guest.unpack import unpack

SOME = ["virtio_console", "ext4", "megaraid_sas", "usb_storage", "e1000e", "9p", "nvme", "uas"]


def built(name: str, *depends: str, aliases: tuple[str, ...] = (), before: str = "") -> Module:
    return Module(name, f"kernel/{name}.ko", depends, aliases, tuple(before.split()))


def table(*found: Module) -> dict[str, Module]:
    return {module.name: module for module in found}


@pytest.fixture(scope="module")
def real() -> dict[str, tuple[Module, bytes]]:
    """The modules of a default guest, read from the host's kernel."""
    chosen = kernel()
    paths, contents = chosen.catalogue(), {}

    def load(name: str) -> Module | None:
        if chosen.modules is None or name not in paths:
            return None
        contents[name] = unpack((chosen.modules / paths[name]).read_bytes())
        return modules.read(paths[name], contents[name])

    found = modules.closure(hardware.EVERYTHING, load)
    return {name: (module, contents[name]) for name, module in found.items()}


@pytest.fixture(scope="module")
def depmodded(
    real: dict[str, tuple[Module, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A root file system with these modules, where depmod has been."""
    if shutil.which("depmod") is None:
        pytest.skip("depmod is not installed (Debian: kmod)")
    root, release = tmp_path_factory.mktemp("root"), kernel().release
    for name, (module, data) in real.items():
        path = root / "lib/modules" / release / "kernel" / f"{name}.ko"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        assert module.name == name
    subprocess.run(["depmod", "--basedir", root, release], check=True, timeout=60)
    return root


@pytest.mark.parametrize("name", SOME)
def test_needs_are_those_that_modprobe_would_load(
    name: str, real: dict[str, tuple[Module, bytes]], depmodded: Path
) -> None:
    command = ["modprobe", "--dirname", depmodded, "--set-version", kernel().release,
               "--show-depends", name]  # fmt: skip
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    found = {name: module for name, (module, _) in real.items()}
    wanted = {modules.name_of(line.split()[1]) for line in told.splitlines()}
    soft = {before for need in wanted for before in modules.soft_needs(found[need], found)}
    assert set(modules.order(name, found)) == wanted - (soft - set(modules.order(name, found)))


def test_aliases_are_those_of_depmod(
    real: dict[str, tuple[Module, bytes]], depmodded: Path
) -> None:
    depmods = depmodded / "lib/modules" / kernel().release / "modules.alias"
    lines = {line for line in depmods.read_text().splitlines() if line.startswith("alias ")}
    ours = modules.modules_alias({name: module for name, (module, _) in real.items()})
    assert set(ours.splitlines()) == lines


def test_each_module_comes_after_what_it_needs(real: dict[str, tuple[Module, bytes]]) -> None:
    order = list(real)
    for name, (module, _) in real.items():
        assert all(order.index(need) < order.index(name) for need in module.depends), name


def test_the_hardware_list_names_modules_that_exist(
    real: dict[str, tuple[Module, bytes]],
) -> None:
    unknown = set(hardware.EVERYTHING) - real.keys() - kernel().builtin()
    # 6.1 has no virtio-iommu for x86 PCs without ACPI VIOT as a module.
    assert unknown <= {"virtio_iommu"}


def test_a_signature_is_cut_off(real: dict[str, tuple[Module, bytes]]) -> None:
    _, data = real["virtio_blk"]
    plain = strip.unsigned(data)
    signature = b"x" * 40 + bytes(8) + (40).to_bytes(4, "big") + b"~Module signature appended~\n"
    assert strip.unsigned(plain + signature) == plain
    assert strip.unsigned(plain) == plain
    assert modules.read("virtio_blk.ko", plain) == modules.read("virtio_blk.ko", data)


def test_names_have_no_dashes_and_no_suffixes() -> None:
    paths = ["kernel/a-b.ko", "kernel/c.ko.xz", "kernel/d.ko.zst", "modules.dep"]
    assert modules.catalogue(paths) == {
        "a_b": "kernel/a-b.ko", "c": "kernel/c.ko.xz", "d": "kernel/d.ko.zst",
    }  # fmt: skip


def test_builtin_modules_are_named() -> None:
    assert modules.builtin("kernel/a-b.ko\nkernel/c.ko\n") == {"a_b", "c"}


def test_the_closure_ends_where_modules_need_each_other() -> None:
    found = table(built("a", "b"), built("b", "a"), built("c", "missing"))
    assert set(modules.closure(["a", "c", "absent"], found.get)) == {"a", "b", "c"}


def test_modules_dep_has_the_nearest_need_first() -> None:
    found = table(built("a"), built("b", "a"), built("c", "b"))
    assert modules.modules_dep(found) == (
        "kernel/a.ko:\nkernel/b.ko: kernel/a.ko\nkernel/c.ko: kernel/b.ko kernel/a.ko\n"
    )


def test_soft_needs_are_found_by_alias() -> None:
    found = table(built("crc", aliases=("crypto-crc",)), built("fs", before="crypto-crc nothing"))
    assert modules.modules_softdep(found) == "softdep fs pre: crc\n"


@pytest.mark.parametrize(
    ("alias", "names"),
    [
        ("pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00", ["virtio_pci"]),
        ("virtio:d00000002v00001AF4", ["virtio_blk"]),
        ("scsi:t-0x00", ["sd_mod"]),
        ("fs-ext4", ["ext4"]),
        ("virtio-blk", ["virtio_blk"]),
        ("virtio:d0000FFFFv00001AF4", []),
    ],
)
def test_hardware_finds_its_driver(
    alias: str, names: list[str], real: dict[str, tuple[Module, bytes]]
) -> None:
    assert modules.matching(alias, [module for module, _ in real.values()]) == names
