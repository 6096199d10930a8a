"""The slow reference: what a stream of QMP means, with the json of the standard library."""

from __future__ import annotations

import json
from typing import Any

KINDS = {"QMP": "greeting", "return": "return", "error": "error", "event": "event"}


def messages(stream: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Kind and content of all whole messages of a good stream, however they are spread."""
    found, text, decoder = [], stream.decode(errors="replace"), json.JSONDecoder()
    while text := text.lstrip(" \t\r\n"):
        try:
            message, end = decoder.raw_decode(text)
        except json.JSONDecodeError:
            break  # the last one is not whole
        (kind,) = (KINDS[key] for key in message if key in KINDS)
        found.append((kind, message))
        text = text[end:]
    return found
