"""Keys in QEMU's words (QKeyCode), and text as the keys of a US keyboard."""

from __future__ import annotations

from collections.abc import Iterator

from pyvirt.errors import SpecError
from pyvirt.qmp.flow import Command, Flow, Pause

_PLAIN = {
    " ": "spc", "\n": "ret", "\t": "tab", "-": "minus", "=": "equal", "[": "bracket_left",
    "]": "bracket_right", "\\": "backslash", ";": "semicolon", "'": "apostrophe",
    "`": "grave_accent", ",": "comma", ".": "dot", "/": "slash",
}  # fmt: skip
_SHIFTED = dict(zip('!@#$%^&*()_+{}|:"~<>?', "1234567890-=[]\\;'`,./", strict=True))

#: Names people use for keys, beside QEMU's own.
_ALIASES = {"enter": "ret", "space": "spc", "escape": "esc", "del": "delete", "win": "meta_l"}

#: Seconds between two keys of a text: guests drop what comes faster than their controller's
#: 16-byte queue is emptied.
PACE = 0.02


def chord(text: str) -> tuple[str, ...]:
    """The QKeyCodes of ``"ctrl-alt-delete"``; a minus alone is the key itself."""
    words = [text] if text == "-" else text.split("-")
    return tuple(_PLAIN.get(word, _ALIASES.get(word, word)) for word in words)


def typed(text: str) -> Iterator[tuple[str, ...]]:
    """The keys that type `text` on a US keyboard, one chord a character.

    Raises `SpecError` for a character that has no key there.
    """
    for character in text:
        if character in _SHIFTED:
            yield ("shift", _key(_SHIFTED[character]))
        elif character.isascii() and character.isupper():
            yield ("shift", character.lower())
        else:
            yield (_key(character),)


def _key(character: str) -> str:
    if character in _PLAIN:
        return _PLAIN[character]
    if character.isascii() and character.isalnum():
        return character
    raise SpecError("text", "must have only characters of a US keyboard", character)


def codes(keys: tuple[str, ...]) -> list[dict[str, str]]:
    """The keys of a chord as ``send-key`` takes them."""
    return [{"type": "qcode", "data": key} for key in keys]


def send_keys(chords: list[tuple[str, ...]], hold: float) -> Flow[None]:
    """Press the keys of each chord together for `hold` seconds, one chord after another."""
    for keys in chords:
        yield Command(
            "send-key",
            {"keys": codes(keys), "hold-time": round(hold * 1000)},
        )
        yield Pause(hold + PACE)
