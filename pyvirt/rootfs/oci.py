"""Reads the documents of container images: OCI image specification 1.1, Docker's manifest.json.

Whoever wrote them decides neither which files are opened nor how long names get: a digest is
an algorithm and so many hexadecimal digits, and the path of its blob follows from that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from pyvirt.errors import RootFSError
from pyvirt.rootfs.process import Process

#: A document that is larger is none; OCI registries refuse manifests over 4 MiB.
LARGEST = 8 << 20
REF_NAME = "org.opencontainers.image.ref.name"

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_NESTING = 4  # an index may lead to an index
_LAYERS = 1000

#: What `uname -m` says → Go's name of the architecture.
ARCHITECTURES = {
    "x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7", "armv6l": "arm/v6",
    "i686": "386", "i386": "386", "ppc64le": "ppc64le", "riscv64": "riscv64", "s390x": "s390x",
}  # fmt: skip

Fault = Callable[[str], RootFSError]


@frozen
class Blob:
    """What a descriptor points to."""

    digest: str
    size: int
    media_type: str = ""

    @property
    def path(self) -> str:
        """Where it lies in a layout."""
        return "blobs/" + self.digest.replace(":", "/")


@frozen
class Image:
    """One image: its layers from the lowest on, and the digests of what they unpack to."""

    layers: tuple[Blob, ...]
    diffs: tuple[str, ...]
    process: Process


def document(data: bytes, what: str, fault: Fault) -> dict[str, Any]:
    """The JSON object in *data*."""
    found = _json(data, what, fault)
    if not isinstance(found, dict):
        raise fault(f"has no object in its {what}")
    return found


def image_of(
    index: Mapping[str, Any],
    read: Callable[[Blob], bytes],
    tag: str | None,
    architecture: str,
    fault: Fault,
) -> Image:
    """The image with *tag* for *architecture*; *read* gives a small blob, verified."""
    blob = _tagged(_list(index, "manifests", fault), tag, fault)
    for _ in range(_NESTING):
        found = document(read(blob), "manifest", fault)
        if blob.media_type not in _INDEXES and "manifests" not in found:
            return _image(found, read, fault)
        blob = _for_platform(_list(found, "manifests", fault), architecture, fault)
    raise fault("has indexes that lead to each other")


def _tagged(found: list[Any], tag: str | None, fault: Fault) -> Blob:
    """Of the manifests in a layout's index."""
    names = {_annotation(each): each for each in found if isinstance(each, dict)}
    if tag is None:
        if len(found) == 1:
            return descriptor(found[0], fault)
        raise fault(f"has {len(found)} images; name one of {_words(names)} in tag")
    if tag not in names:
        raise fault(f"has no image {tag!r}; there is {_words(names)}")
    return descriptor(names[tag], fault)


def _words(names: Mapping[str, Any]) -> str:
    known = sorted(name for name in names if name)
    return ", ".join(map(repr, known[:20])) or "none with a name"


def _annotation(found: Mapping[str, Any]) -> str:
    annotations = found.get("annotations")
    name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    return name if isinstance(name, str) else ""


def _for_platform(found: list[Any], architecture: str, fault: Fault) -> Blob:
    """The manifest for Linux on *architecture*; of several variants the one that was named."""
    wanted, _, variant = architecture.partition("/")
    fitting = []
    for each in found:
        platform = each.get("platform") if isinstance(each, dict) else None
        if not isinstance(platform, dict) or platform.get("os", "linux") != "linux":
            continue
        if platform.get("architecture") == wanted:
            fitting.append((str(platform.get("variant") or ""), each))
    for name, each in fitting:
        if name == variant or len(fitting) == 1:
            return descriptor(each, fault)
    there = sorted({_platform(each) for each in found} - {""})
    raise fault(f"has nothing for linux/{architecture}; there is {', '.join(there) or 'nothing'}")


def _platform(found: Any) -> str:
    platform = found.get("platform") if isinstance(found, dict) else None
    if not isinstance(platform, dict):
        return ""
    words = (platform.get("os"), platform.get("architecture"), platform.get("variant"))
    return "/".join(word for word in words if isinstance(word, str) and word)


def descriptor(found: Any, fault: Fault) -> Blob:
    """Where a descriptor points to."""
    digest = found.get("digest") if isinstance(found, dict) else None
    size = found.get("size") if isinstance(found, dict) else None
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise fault(f"has a descriptor without a digest that is known, but {digest!r}")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise fault(f"has a descriptor without a size, but {size!r}")
    return Blob(digest, size, str(found.get("mediaType") or ""))


def _image(manifest: Mapping[str, Any], read: Callable[[Blob], bytes], fault: Fault) -> Image:
    kind = manifest.get("mediaType")
    if kind is not None and kind not in _MANIFESTS:
        raise fault(f"has a manifest of the kind {kind!r}, which is not of an image")
    layers = [descriptor(each, fault) for each in _list(manifest, "layers", fault)]
    for layer in layers:
        if "tar" not in layer.media_type or "encrypted" in layer.media_type:
            raise fault(f"has a layer of the kind {layer.media_type!r}, which is not read")
    blob = descriptor(manifest.get("config"), fault)
    return with_config(document(read(blob), "config", fault), tuple(layers), fault)


def with_config(config: Mapping[str, Any], layers: tuple[Blob, ...], fault: Fault) -> Image:
    """The image of *layers* whose config is *config*."""
    rootfs = config.get("rootfs")
    diffs = _list(rootfs if isinstance(rootfs, dict) else {}, "diff_ids", fault)
    if not all(isinstance(diff, str) and _DIGEST.fullmatch(diff) for diff in diffs):
        raise fault("has a config with a diff_id that is no digest")
    if layers and len(diffs) != len(layers):
        raise fault(f"has {len(layers)} layers, and {len(diffs)} in its config")
    return Image(layers, tuple(diffs), process(config.get("config"), fault))


def process(config: Any, fault: Fault) -> Process:
    """What the config of an image wants to run, its Entrypoint before its Cmd."""
    given = config if isinstance(config, dict) else {}
    words = [*_texts(given, "Entrypoint", fault), *_texts(given, "Cmd", fault)]
    env = _texts(given, "Env", fault)
    return Process(
        command=tuple(words),
        env=dict(each.split("=", 1) for each in env if "=" in each),
        cwd=_text(given, "WorkingDir", fault) or "/",
        user=_text(given, "User", fault),
        hostname=_text(given, "Hostname", fault),
        stop_signal=_text(given, "StopSignal", fault),
    )


def docker_image(data: bytes, tag: str | None, fault: Fault) -> tuple[str, tuple[str, ...]]:
    """The names of the config and the layers in a `docker save` archive."""
    found = _json(data, "manifest.json", fault)
    images = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    names = {name: each for each in images for name in _texts(each, "RepoTags", fault)}
    if tag is None and len(images) != 1:
        raise fault(f"has {len(images)} images; name one of {_words(names)} in tag")
    if tag is not None and tag not in names:
        raise fault(f"has no image {tag!r}; there is {_words(names)}")
    chosen = images[0] if tag is None else names[tag]
    layers = _texts(chosen, "Layers", fault)
    if len(layers) > _LAYERS:
        raise fault(f"has more than {_LAYERS} layers")
    return _text(chosen, "Config", fault), tuple(layers)


def _json(data: bytes, what: str, fault: Fault) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise fault(f"has a {what} that is not JSON ({error})") from None


def _list(found: Mapping[str, Any], key: str, fault: Fault) -> list[Any]:
    value = found.get(key)
    if not isinstance(value, list):
        raise fault(f"has no list of {key}")
    if len(value) > _LAYERS:
        raise fault(f"has more than {_LAYERS} {key}")
    return value


def _texts(found: Mapping[str, Any], key: str, fault: Fault) -> list[str]:
    value = found.get(key) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise fault(f"has a {key} that is no list of texts")
    if any("\0" in each for each in value):
        raise fault(f"has a {key} with a NUL in it")
    return value


def _text(found: Mapping[str, Any], key: str, fault: Fault) -> str:
    value = found.get(key) or ""
    if not isinstance(value, str) or "\0" in value:
        raise fault(f"has a {key} that is no text")
    return value
