"""Bytes, seconds and rates as people read them, with three digits."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds with the unit that suits: "85.2 µs", "1.2 s"."""
    for unit, size in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= size:
            return f"{_digits(seconds / size)} {unit}"
    return f"{seconds * 1e9:.0f} ns" if seconds else "0 s"


def amount(size: float) -> str:
    """Bytes with binary prefixes: "4 KiB", "1.5 MiB"."""
    return f"{_scaled(size, 1024, ('', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi'))}B"


def number(count: float) -> str:
    """A large number shortly: "350 M", "12.5 k", "17"."""
    return _scaled(count, 1000, ("", "k", "M", "G", "T", "P")).rstrip()


def _scaled(value: float, base: int, prefixes: tuple[str, ...]) -> str:
    for prefix in prefixes[:-1]:
        if abs(value) < base:
            return f"{_digits(value)} {prefix}"
        value /= base
    return f"{_digits(value)} {prefixes[-1]}"


def _digits(value: float) -> str:
    """At least three digits, without zeros behind the point."""
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if places else text
