"""Words such as ``data.qcow2,bus=scsi,readonly=on`` as tables of a description."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pyvirt.errors import SpecError
from pyvirt.files import kinds

_NUMBER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|\d+)")
SWITCH = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}


def table(word: str, first: str, hint: Any, at: str) -> dict[str, Any]:
    """The table in `word`; what has no name is its field `first`.

    A comma in a value is doubled, as on QEMU's command line; dots lead into inner tables.
    `hint` is what the field at `at` takes: texts become what its classes want.
    """
    made: dict[str, Any] = {}
    for number, piece in enumerate(_pieces(word)):
        name, equals, value = piece.partition("=")
        if not equals and number == 0 and first:
            name, value = first, piece
        elif not equals:
            name, value = piece, "on"
        _put(made, name.split("."), value, at)
    typed = _typed(made, hint, at)
    assert isinstance(typed, dict)
    return typed


def literal(text: str) -> Any:
    """A text as JSON would write what it means: a switch, a number, or itself."""
    if text.lower() in SWITCH:
        return SWITCH[text.lower()]
    return int(text, 0) if _NUMBER.fullmatch(text) else text


def _pieces(word: str) -> list[str]:
    """The pieces between single commas."""
    return [piece.replace("\0", ",") for piece in word.replace(",,", "\0").split(",") if piece]


def _put(made: dict[str, Any], path: list[str], value: str, at: str) -> None:
    for step in path[:-1]:
        inner = made.setdefault(step, {})
        if not isinstance(inner, dict):  # `backend=Tap,backend.ifname=tap0`
            inner = made[step] = {"type": inner}
        made = inner
    if path[-1] in made:
        raise SpecError(f"{at}.{'.'.join(path)}", "must be given once", value)
    made[path[-1]] = value


def _typed(value: Any, hint: Any, at: str) -> Any:
    if isinstance(value, str):
        return _plain(value, hint)
    cls = kinds.only(hint)
    if cls is None and kinds.classes(hint):
        cls = kinds.named(value.get("type", kinds.USUAL.get(at.partition("[")[0], "")), hint)
    hints: Mapping[str, Any] = kinds.hints(cls) if cls is not None else {}
    known = {key.replace("-", "_"): key for key in value}
    return {
        (name if name in hints else key): _typed(value[key], hints.get(name, Any), f"{at}.{key}")
        for name, key in known.items()
    }


def _plain(text: str, hint: Any) -> Any:
    if hint is Any:
        return literal(text)
    if kinds.accepts(hint, bool) and text.lower() in SWITCH:
        return SWITCH[text.lower()]
    if kinds.accepts(hint, int, float) and _NUMBER.fullmatch(text):
        return int(text, 0)
    if kinds.accepts(hint, tuple):
        return [_plain(text, kinds.item(hint))]
    # Where only a description fits, a word is the name of its class.
    return {"type": text} if kinds.classes(hint) and not kinds.accepts(hint, str) else text
