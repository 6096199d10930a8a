"""JSON that every YAML reader reads as what was meant: cloud-init takes YAML.

JSON is nearly a subset of YAML 1.1, which cloud-init's reader (PyYAML) speaks; the rest of
the way is escaping what YAML calls unprintable or a line break, and numbers with a dot.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from pyvirt.errors import SpecError

# All but YAML's printable characters, and those of them that a YAML reader may fold.
_ESCAPED = re.compile(
    '["\\\\]|[^ -~\u00a0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]'
)

# A YAML reader gives up on a key that is longer.
_LONGEST_KEY = 128


def dumps(value: Any, field: str) -> str:
    """`value` as JSON. Raises `SpecError` naming `field` for what JSON has no word for."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return _text(value, field)
        case int():
            return str(int(value))
        case float():
            return _float(value, field)
        case Mapping():
            items = (f"{_key(key, field)}: {dumps(item, field)}" for key, item in value.items())
            return "{" + ", ".join(items) + "}"
        case list() | tuple():
            return "[" + ", ".join(dumps(item, field) for item in value) + "]"
    raise SpecError(field, "must hold text, numbers, booleans, None, lists and mappings", value)


def _key(key: Any, field: str) -> str:
    if not isinstance(key, str) or len(key) > _LONGEST_KEY:
        raise SpecError(field, f"must have keys of at most {_LONGEST_KEY} letters", key)
    return _text(key, field)


def _text(text: str, field: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SpecError(field, "must be text that UTF-8 can hold", text) from None
    return '"' + _ESCAPED.sub(_escape, text) + '"'


def _escape(match: re.Match[str]) -> str:
    letter = match[0]
    return f"\\{letter}" if letter in '"\\' else f"\\u{ord(letter):04x}"


def _float(number: float, field: str) -> str:
    if not math.isfinite(number):
        raise SpecError(field, "must be a finite number", number)
    text = repr(float(number))
    # YAML 1.1 takes "1e+16" for text: its numbers have a dot.
    return text if "." in text else text.replace("e", ".0e")
