"""The images behind the disks: made once, of one content, and gone afterwards."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from pyvirt.bench import DiskPoint
from pyvirt.bench.images import Images


def test_points_of_one_kind_share_an_image(tmp_path: Path) -> None:
    ide, nvme = (DiskPoint(one, size="2M", backing="file") for one in ("ide", "nvme"))
    with Images(tmp_path) as images:
        images.make([ide, nvme])
        assert images.path(ide) == images.path(nvme)
        data = Path(images.path(ide)).read_bytes()
        assert len(data) == 2 << 20
        assert data[: 1 << 20] == data[1 << 20 :] != bytes(1 << 20)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
def test_a_qcow2_image_is_full_and_of_one_device_that_stays(tmp_path: Path) -> None:
    points = [
        DiskPoint(one, size="2M", backing="file", format="qcow2")
        for one in ("ide", "ahci", "nvme", "virtio-blk")
    ]
    with Images(tmp_path) as images:
        images.make(points)
        paths = [images.path(point) for point in points]
        assert len(set(paths)) == 3
        assert paths[2] == paths[3]
        assert Path(paths[0]).stat().st_size > 2 << 20


def test_no_room_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with Images(tmp_path) as images:
        with pytest.raises(OSError, match=r"the images need 8E, and [0-9]+ MiB are free") as caught:
            images.make([DiskPoint("ide", size=1 << 63, backing="file")])
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(tmp_path)
        assert not list(tmp_path.glob("*/*"))


def test_a_null_disk_has_no_image() -> None:
    with Images() as images:
        assert images.path(DiskPoint("ide", backing="null")) == ""
