"""One run of ``qemu-img``: its words, and what must be held while it runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import Factory, frozen

from pyvirt.disk.format import Format, Raw
from pyvirt.disk.local import File
from pyvirt.disk.node import BlockNode, Laid, Place, lay
from pyvirt.disk.secret import Secret
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.render import resolve

PROGRAM = "qemu-img"
PACKAGE = "qemu-utils"


@frozen
class Call:
    """``qemu-img`` `verb` with `words`; `names` says what people call what is in the words."""

    verb: str
    words: tuple[str, ...]
    objects: tuple[Option, ...] = ()
    needs: tuple[Need, ...] = ()
    names: Mapping[str, str] = Factory(dict)

    def argv(self, supplied: Mapping[str, str]) -> list[str]:
        """The whole command, once the needs are `supplied`."""
        objects = [word for option in self.objects
                   for word in ("--object", _json(option.properties, supplied))]  # fmt: skip
        return [PROGRAM, self.verb, *objects, *self.words]

    def plain(self, said: str) -> str:
        """What it said, in one line, with the names that people know."""
        for word, name in self.names.items():
            said = said.replace(word, name)
        lines = [line.removeprefix(f"{PROGRAM}: ").strip() for line in said.splitlines()]
        return "; ".join(line for line in lines if line)


class Writer:
    """Gathers the words of a call, and the objects and needs that the words refer to."""

    def __init__(self, verb: str, *words: str) -> None:
        self._verb, self._words = verb, list(words)
        self._objects: list[Option] = []
        self._needs: list[Need] = []
        self._names: dict[str, str] = {}

    def add(self, *words: str) -> Writer:
        self._words += words
        return self

    def flag(self, word: str, wanted: bool) -> Writer:
        return self.add(word) if wanted else self

    def given(self, word: str, value: Any) -> Writer:
        """`word` and the value, unless it is None."""
        return self if value is None else self.add(word, str(value))

    def options(self, words: Iterable[tuple[str, Any]], prefix: str = "new") -> Writer:
        """One ``-o`` with all of `words`; a `Secret` becomes an object."""
        text = ",".join(f"{word}={self._value(word, value, prefix)}" for word, value in words)
        return self.add("-o", text) if text else self

    def image(self, node: BlockNode, id: str, name: str) -> Writer:
        """`node`, to be opened as it is described, and nothing guessed."""
        word = self.opened(node, id)
        self._names[word] = name
        return self.add(word)

    def opened(self, node: BlockNode, id: str) -> str:
        """The word for `node`; its secrets become objects."""
        return f"json:{_json(self._note(lay(node, id, Place(id))))}"

    def call(self) -> Call:
        return Call(self._verb, tuple(self._words), tuple(self._objects), tuple(self._needs),
                    self._names)  # fmt: skip

    def _value(self, word: str, value: Any, prefix: str) -> str:
        if isinstance(value, bool):
            return "on" if value else "off"
        if isinstance(value, Secret):
            id = f"{prefix}-{word.replace('.', '-')}"
            for item in value.options(id):
                self._keep(item)
            return id
        return str(value).replace(",", ",,")

    def _note(self, laid: Laid) -> dict[str, Any]:
        while True:
            try:
                self._keep(next(laid))
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]

    def _keep(self, item: Option | Need) -> None:
        if isinstance(item, Option):
            self._objects.append(item)
        else:
            self._needs.append(item)


def node(
    image: str | os.PathLike[str] | BlockNode,
    format: str,
    key: Secret | None = None,
    file: BlockNode | None = None,
) -> BlockNode:
    """`image` of `format` as a node; `file` takes the place of the file that holds it."""
    if isinstance(image, BlockNode):
        return image
    below = File(os.fspath(image)) if file is None else file
    return Raw(below) if format == "raw" else Format(format, below, key=key)


def _json(value: Any, supplied: Mapping[str, str] | None = None) -> str:
    return json.dumps(resolve(value, supplied or {}), separators=(",", ":"), ensure_ascii=False)


