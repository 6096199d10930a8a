"""File names as QEMU's JSON can carry them."""

from __future__ import annotations

import os
from typing import Any

import attrs

from pyvirt.errors import SpecError


def to_filename(value: str | os.PathLike[str]) -> str:
    """Converter: the text of a path. What is no path is left to `filename` to refuse."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def filename(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    """Validator: a file name in UTF-8, not empty and without NUL."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise SpecError(field.name, "must be a file name", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SpecError(field.name, "must be UTF-8, as QEMU's JSON is", value) from None
