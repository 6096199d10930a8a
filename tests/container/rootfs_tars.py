"""Builders: archives as strangers write them, and image layouts by hand."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from tarfile import TarInfo
from typing import Any

_LINK = {"->": tarfile.SYMTYPE, "=>": tarfile.LNKTYPE}


class Entry(TarInfo):
    """An entry, with what is in it."""

    content = b""


def entry(name: str, **facts: Any) -> Entry:
    """``entry("a/", mode=0o700)``, ``entry("a -> b")`` (a link), ``entry("a => b")`` (hard)."""
    info = Entry(name)
    info.mode, info.mtime = 0o644, 1_000_000_000
    for arrow, kind in _LINK.items():
        if f" {arrow} " in name:
            info.name, _, info.linkname = name.partition(f" {arrow} ")
            info.type = kind
    if name.endswith("/"):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    data = facts.pop("data", b"")
    for key, value in facts.items():
        setattr(info, key, value)
    info.size = len(data)
    info.content = data
    return info


def tar(*entries: str | Entry | tuple[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of `entries`; a name and bytes are a file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for one in entries:
            info = entry(one) if isinstance(one, str) else one
            if isinstance(info, tuple):
                info = entry(info[0], data=info[1])
            archive.addfile(info, io.BytesIO(info.content))
    return file.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Layout:
    """An OCI image layout in the directory `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self._manifests: list[dict[str, Any]] = []

    def blob(self, data: bytes, kind: str) -> dict[str, Any]:
        """The descriptor of *data*, which is put among the blobs."""
        self.file(digest(data)).write_bytes(data)
        return {"mediaType": kind, "digest": digest(data), "size": len(data)}

    def file(self, digest: str) -> Path:
        return self.path / "blobs" / digest.replace(":", "/")

    def document(self, value: Any, kind: str) -> dict[str, Any]:
        return self.blob(json.dumps(value).encode(), f"application/vnd.oci.image.{kind}.v1+json")

    def image(
        self,
        layers: Sequence[bytes],
        config: Mapping[str, Any] | None = None,
        pack: Any = gzip.compress,
    ) -> dict[str, Any]:
        """The descriptor of an image's manifest, whose *layers* are tars."""
        described = {
            "architecture": "amd64", "os": "linux", "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        }  # fmt: skip
        kind = "application/vnd.oci.image.layer.v1.tar"
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.document(described, "config"),
            "layers": [self.blob(pack(layer), kind) for layer in layers],
        }
        return self.document(manifest, "manifest")

    def tag(self, name: str, descriptor: Mapping[str, Any]) -> None:
        annotations = {"org.opencontainers.image.ref.name": name}
        self._manifests.append({**descriptor, "annotations": annotations})
        index = {"schemaVersion": 2, "manifests": self._manifests}
        (self.path / "index.json").write_text(json.dumps(index))


def docker_archive(
    layers: Sequence[bytes], config: Mapping[str, Any] | None = None, tag: str = "made:latest"
) -> bytes:
    """What `docker save` writes."""
    described = json.dumps(
        {"config": dict(config or {}), "rootfs": {"diff_ids": [digest(each) for each in layers]}}
    ).encode()
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": names}]
    return tar(
        *zip(names, layers, strict=True),
        ("config.json", described),
        ("manifest.json", json.dumps(manifest).encode()),
    )
