"""Tables as TOML 1.0: plain values first, then one section for each table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pyvirt.errors import SpecError

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"',
          "\\": "\\\\"}  # fmt: skip


def text(table: Mapping[str, Any]) -> str:
    """The document; `tomllib.loads` gives an equal table."""
    return "\n".join(_lines(table)).strip("\n") + "\n"


def _lines(table: Mapping[str, Any]) -> Iterator[str]:
    sections = {key: value for key, value in table.items() if _is_section(value)}
    for key, value in table.items():
        if key not in sections:
            yield f"{_key(key)} = {_value(value, key)}"
    for key, value in sections.items():
        heads = [value] if isinstance(value, Mapping) else value
        head = f"[{_key(key)}]" if isinstance(value, Mapping) else f"[[{_key(key)}]]"
        for entries in heads:
            yield f"\n{head}"
            for name, one in entries.items():
                yield f"{_key(name)} = {_value(one, f'{key}.{name}')}"


def _is_section(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _value(value: Any, at: str) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _string(value, at)
        case list():
            return f"[{', '.join(_value(one, at) for one in value)}]"
        case Mapping():
            inner = ", ".join(f"{_key(k)} = {_value(v, f'{at}.{k}')}" for k, v in value.items())
            return f"{{ {inner} }}" if inner else "{}"
    raise SpecError(at, "cannot be written as TOML", value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _string(key, "key")


def _string(value: str, at: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        reason = "is no valid Unicode, which TOML cannot write; JSON can"
        raise SpecError(at, reason, value) from None
    return f'"{"".join(map(_character, value))}"'


def _character(one: str) -> str:
    if one in _SHORT:
        return _SHORT[one]
    return f"\\u{ord(one):04x}" if ord(one) < 32 or ord(one) == 127 else one
