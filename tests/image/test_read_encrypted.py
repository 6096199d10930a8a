"""Encrypted disks, against what QEMU and cryptsetup make of them."""

from __future__ import annotations

import io
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.luks import try_again

from pyvirt._native.cipher import Cipher
from pyvirt.errors import ImageError, PassphraseError, UnsupportedError
from pyvirt.image import BytesSource, Image
from pyvirt.image.passphrase import argon2, cipher, merged, pbkdf2

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")

CRYPTSETUP = shutil.which("cryptsetup", path="/usr/sbin:/sbin:/usr/bin")
SIZE = 1 << 20
PASSPHRASE = "correct horse"
SECRET = f"secret,id=s,data={PASSPHRASE}"


def run(*words: str | Path, input: bytes | None = None) -> bytes:
    return subprocess.run(
        [str(word) for word in words], check=True, input=input, stdout=subprocess.PIPE
    ).stdout


@pytest.fixture(scope="module")
def content() -> bytes:
    return random.Random(9).randbytes(SIZE)


def made(folder: Path, content: bytes, format: str, options: str) -> Path:
    raw, path = folder / "raw", folder / "disk"
    raw.write_bytes(content)
    words = ["qemu-img", "convert", "--object", SECRET, "-f", "raw", "-O", format, "-o", options]
    try_again([*words, raw, path])
    return path


# QEMU times itself for seconds to choose the iterations of each image, cryptsetup does not.
LUKS = {
    "xts": "aes-xts-plain64 -s 512 -h sha256",
    "essiv": "aes-cbc-essiv:sha256 -s 256 -h sha1",
    "plain": "aes-cbc-plain -s 128 -h sha512",
}


def formatted(path: Path, *words: str) -> Path:
    """An empty LUKS disk of `SIZE` bytes that cryptsetup made."""
    path.write_bytes(bytes(20 << 20))
    run(CRYPTSETUP or "", "luksFormat", "-q", *words, path, "-", input=PASSPHRASE.encode())
    said = run(CRYPTSETUP or "", "luksDump", path).decode()
    found = re.search(r"Payload offset:\s*(\d+)|offset: (\d+) \[bytes\]", said)
    assert found
    payload = int(found[1]) * 512 if found[1] else int(found[2])
    with path.open("r+b") as file:
        file.truncate(payload + SIZE)
    return path


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> dict[str, Path]:
    """LUKS1 disks that QEMU filled."""
    if CRYPTSETUP is None:
        pytest.skip("needs cryptsetup")
    folder, paths = tmp_path_factory.mktemp("luks"), {}
    (folder / "raw").write_bytes(content)
    for name, words in LUKS.items():
        quick = ["--type", "luks1", "--pbkdf-force-iterations", "1000"]
        paths[name] = formatted(folder / name, *quick, "-c", *words.split())
        place = f"driver=luks,key-secret=s,file.filename={paths[name]}"
        run("qemu-img", "convert", "-n", "--object", SECRET, "-f", "raw", "--target-image-opts",
            folder / "raw", place)  # fmt: skip
    return paths


def check_all(path: Path, content: bytes) -> None:
    """The whole disk, any ranges, a wrong passphrase and none."""
    with Image(path, passphrase=PASSPHRASE) as image:
        assert image.read(0, SIZE + 1) == content
        chance = random.Random(1)
        for _ in range(60):
            offset, size = chance.randrange(SIZE), chance.choice([1, 511, 4096, 70_000])
            assert image.read(offset, size) == content[offset : offset + size]
    with Image(path, passphrase=b"wrong") as image, pytest.raises(PassphraseError) as caught:
        image.read(0, 1)
    assert str(caught.value) == f"{path}: the passphrase opens no key slot"
    with Image(path) as image, pytest.raises(ImageError, match="opened without a passphrase"):
        image.read(0, 1)


@pytest.mark.parametrize("name", LUKS)
def test_luks1_of_qemu_and_cryptsetup_is_read(
    disks: dict[str, Path], content: bytes, name: str
) -> None:
    check_all(disks[name], content)


def test_luks_within_qcow2_is_read(tmp_path: Path, content: bytes) -> None:
    given = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
    check_all(made(tmp_path, content, "qcow2", given), content)


@pytest.mark.parametrize("format", ["qcow2", "qcow"])
def test_aes_of_old_images_is_read(tmp_path: Path, content: bytes, format: str) -> None:
    given = "encrypt.format=aes,encrypt.key-secret=s"
    path = made(tmp_path, content, format, given)
    with Image(path, passphrase=PASSPHRASE) as image:
        assert image.read(0, SIZE) == content
        assert image.read(777, 3000) == content[777:3777]


def test_chain_over_an_encrypted_disk_is_read(
    tmp_path: Path, disks: dict[str, Path], content: bytes
) -> None:
    below, path = disks["xts"], tmp_path / "top.qcow2"
    run("qemu-img", "create", "-f", "qcow2", "-u", "-F", "luks", "-b", below, path, str(SIZE))
    place = f"driver=qcow2,file.filename={path},backing.driver=luks,backing.key-secret=s"
    run("qemu-io", "--object", SECRET, "--image-opts", "-c", "write -P 5 100k 100k",
        f"{place},backing.file.filename={below}")  # fmt: skip
    expected = content[: 100 << 10] + b"\5" * (100 << 10) + content[200 << 10 :]
    with Image(path, trust=True, passphrase=PASSPHRASE) as image:
        assert image.read(0, SIZE) == expected


@pytest.mark.skipif(CRYPTSETUP is None, reason="needs cryptsetup")
@pytest.mark.parametrize(("kdf", "sector"), [("pbkdf2", 512), ("argon2i", 512), ("argon2id", 4096)])
def test_luks2_of_cryptsetup_is_read(
    tmp_path: Path, content: bytes, kdf: str, sector: int
) -> None:
    """cryptsetup tells the key; that we encrypt with it as QEMU does, the tests above show."""
    costs = ["--pbkdf-memory", "1024", "--pbkdf-parallel", "1"] if kdf != "pbkdf2" else []
    rounds = "1000" if kdf == "pbkdf2" else "4"
    path = formatted(
        tmp_path / "disk", "--type", "luks2", "--pbkdf", kdf, *costs,
        "--pbkdf-force-iterations", rounds, "--sector-size", str(sector),
    )  # fmt: skip
    said = run(CRYPTSETUP or "", "luksDump", "-q", "--dump-volume-key", path, "--key-file", "-",
               input=PASSPHRASE.encode()).decode()  # fmt: skip
    key = bytes.fromhex("".join(re.findall(r"\b[0-9a-f]{2}\b", said.split("MK dump:")[1])))
    secret = bytearray(content)
    cipher("aes", "xts-plain64", key, sector).apply(secret, 0, encrypt=True)
    with path.open("r+b") as file:
        file.seek(-SIZE, io.SEEK_END)
        file.write(secret)
    check_all(path, content)


def test_sectors_are_decrypted_alike_at_once_and_one_by_one() -> None:
    secret, data = cipher("aes", "xts-plain64", bytes(range(64))), bytearray(range(256)) * 16
    at_once, one_by_one = bytearray(data), bytearray()
    secret.apply(at_once, 5 * 512)
    for at in range(0, len(data), 512):
        one = data[at : at + 512]
        secret.apply(one, 5 * 512 + at)
        one_by_one += one
    assert at_once == one_by_one
    secret.apply(at_once, 5 * 512, encrypt=True)
    assert at_once == data


def test_what_cannot_be_decrypted_is_told() -> None:
    with pytest.raises(UnsupportedError, match="cipher serpent-xts-plain64"):
        cipher("serpent", "xts-plain64", bytes(64))
    with pytest.raises(UnsupportedError, match="IV generator lmk"):
        cipher("aes", "cbc-lmk", bytes(16))
    with pytest.raises(UnsupportedError, match="hash whirlpool9"):
        pbkdf2("disk", "whirlpool9", b"", b"", 1, 16)
    with pytest.raises(ValueError, match="only whole sectors"):
        Cipher("AES-128-CBC", bytes(16), "plain64").apply(bytearray(100), 0)


def test_headers_cannot_ask_for_hours_or_all_memory() -> None:
    with pytest.raises(ImageError, match="impossible number of PBKDF2 iterations"):
        pbkdf2("disk", "sha256", b"", b"", 4_000_000_000, 16)
    kdf = {"time": 1, "memory": 1 << 40, "cpus": 1}
    with pytest.raises(ImageError, match="impossible Argon2"):
        argon2("disk", "argon2id", b"", b"salt" * 4, kdf, 16)


def test_merging_one_stripe_gives_it_back() -> None:
    assert merged(b"k" * 32, 32, "sha256") == b"k" * 32


def test_damaged_key_slots_are_told(disks: dict[str, Path]) -> None:
    data, chance = disks["xts"].read_bytes(), random.Random(3)
    for _ in range(12):
        damaged = bytearray(data)
        damaged[chance.randrange(640)] ^= 1 << chance.randrange(8)
        try:
            with Image(BytesSource(damaged), "luks", passphrase=PASSPHRASE) as image:
                image.read(0, 512)
        except (ImageError, UnsupportedError):
            pass
