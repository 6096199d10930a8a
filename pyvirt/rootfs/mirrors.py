"""Finds in the files of apt where a suite comes from: sources.list(5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from attrs import evolve, frozen

_LINE = re.compile(
    r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<rest>.*)"
)


@frozen
class _Source:
    options: str
    uri: str
    suite: str
    components: tuple[str, ...]


def sources(lists: Iterable[tuple[str, str]], suite: str, components: tuple[str, ...]) -> list[str]:
    """The lines of a sources.list for *suite*: what the host has for it, or its mirror.

    *lists* are names and texts of the host's files. None is found: mmdebstrap takes its own.
    """
    known = [each for name, text in lists for each in _found(name, text)]
    # Of the distribution itself: others have no "main" below the name of a suite.
    known = [each for each in known if "main" in each.components]
    own = [each for each in known if each.suite.partition("-")[0].partition("/")[0] == suite]
    # Another suite of the same distribution comes from where the host's own comes from.
    plain = [each for each in known if "-" not in each.suite and "/" not in each.suite]
    chosen = own or [evolve(each, suite=suite) for each in plain[:1]]
    lines = [
        f"deb {f'[{each.options}] ' if each.options else ''}{each.uri} {each.suite} "
        f"{' '.join(components)}"
        for each in chosen
    ]
    return list(dict.fromkeys(lines))


def _found(name: str, text: str) -> Iterator[_Source]:
    if name.endswith(".sources"):
        for block in re.split(r"\n\s*\n", text):
            yield from _stanza(block)
        return
    for line in text.splitlines():
        if match := _LINE.match(line.strip()):
            options, words = (match["options"] or "").strip(), tuple(match["rest"].split())
            yield _Source(options, match["uri"], match["suite"], words)


def _stanza(block: str) -> Iterator[_Source]:
    """One paragraph of deb822: fields that may go on in lines that begin with a space."""
    lines = [line for line in block.splitlines() if not line.startswith("#")]
    text = re.sub(r"\n[ \t]+", " ", "\n".join(lines))
    fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", text, re.MULTILINE))
    values = {key.lower(): value.split() for key, value in fields.items()}
    if "deb" not in values.get("types", []) or values.get("enabled", ["yes"])[:1] == ["no"]:
        return
    signed = values.get("signed-by", [])
    options = f"signed-by={signed[0]}" if signed and signed[0].startswith("/") else ""
    for uri in values.get("uris", []):
        for suite in values.get("suites", []):
            yield _Source(options, uri, suite, tuple(values.get("components", ())))
