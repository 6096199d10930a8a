"""The images below an image: each opened by what the policy allows, none of them twice."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from attrs import frozen

from pyvirt.errors import ChainError, ImageInUse
from pyvirt.image.budget import Budget
from pyvirt.image.detection import detect
from pyvirt.image.formats import format_module
from pyvirt.image.formats.parent import check_parent
from pyvirt.image.holders import writers
from pyvirt.image.layer import Layer, Reference
from pyvirt.image.policy import Policy, Request, Trail, request
from pyvirt.image.source import Source, name_of


@frozen
class Opener:
    """Opens layers and the files that they name; `own` closes a source in the end."""

    policy: Policy
    budget: Budget
    own: Callable[[Source], Source]

    def layer(self, source: Source, format: str, trail: Trail) -> Layer:
        """The image in `source`, with its data file or extents, but without what lies below."""

        def sibling(reference: Reference) -> Source:
            return self._open(request(reference, trail))

        return format_module(format).open(source, budget=self.budget, siblings=sibling)

    def chain(self, layer: Layer, source: Source, trail: Trail) -> Iterator[Layer]:
        """`layer`, which `source` holds, and its backing images, top first."""
        yield layer
        seen = {_identity(source)}
        while backing := backing_of(layer):
            wanted = request(backing, trail)
            if len(trail.names) >= self.budget.depth:
                reason = f"is one more than the {self.budget.depth} images that a chain may have"
                raise ChainError(wanted.path, reason, trail.names)
            source = self._open(wanted)
            if _identity(source) in seen:
                raise ChainError(wanted.path, "is its own backing image", trail.names)
            seen.add(_identity(source))
            trail = trail.to(wanted, name_of(source))
            above = layer
            layer = self.layer(source, wanted.format or detect(source)[0].format, trail)
            check_parent(above, layer)
            yield layer

    def _open(self, wanted: Request) -> Source:
        source = self.own(self.policy.open(wanted))
        held = writers(source)
        if held is not None:
            warnings.warn(ImageInUse(name_of(source), str(held)), stacklevel=2)
        return source


def backing_of(layer: Layer) -> Reference | None:
    """The image that `layer` lies on, if it names one."""
    return next((one for one in layer.references if one.kind == "backing"), None)


def _identity(source: Source) -> Any:
    """What two names of one file have in common."""
    return getattr(source, "identity", None) or id(source)
