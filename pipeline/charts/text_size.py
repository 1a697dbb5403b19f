"""Width of text in a chart, estimated without a font, and text broken into lines that fit.

The estimate is that of the wider of the fonts that a chart names (DejaVu Sans), so that what fits here fits in all.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

_NARROW, _USUAL, _CAPITAL, _BROAD, _FULL = 0.41, 0.64, 0.79, 1.0, 1.02  # widths in units of the font size
_THIN = frozenset("iIjlftr.,:;!|'()[]/\\ ·")
_THICK = frozenset("mwMW@%—…")
STRONG = 1.1  # of bold text
CUT = "…"


def width_of(text: str, size: float = 12.0) -> float:
    """Return the estimated width in pixels of one line."""
    return size * sum(map(_units, text))


def break_lines(text: str, width: float, size: float = 12.0, most: int = 4) -> list[str]:
    """Return the lines of a text, at most `most`, none wider than `width` pixels; what is left out ends in an ellipsis.

    Lines end at blanks, or within a word that is wider than a line.
    """
    lines = list(_lines(text, width, size)) or [""]
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and width_of(last + CUT, size) > width:
        last = last[:-1]
    return [*lines[: most - 1], last.rstrip() + CUT]


def _lines(text: str, width: float, size: float) -> Iterator[str]:
    line = ""
    for word in text.split():
        rest = word
        if line and width_of(f"{line} {rest}", size) <= width:
            line = f"{line} {rest}"
            continue
        if line:
            yield line
        while width_of(rest, size) > width:
            head = _fitting(rest, width, size)
            yield rest[:head]
            rest = rest[head:]
        line = rest
    if line:
        yield line


def _fitting(word: str, width: float, size: float) -> int:
    """Return how many characters of a word fit, at least one."""
    used = 0.0
    for place, character in enumerate(word):
        used += size * _units(character)
        if used > width:
            return max(1, place)
    return len(word)


def _units(character: str) -> float:
    if unicodedata.combining(character):
        return 0.0
    if unicodedata.east_asian_width(character) in "WF":
        return _FULL
    if character in _THIN:
        return _NARROW
    if character in _THICK:
        return _BROAD
    return _CAPITAL if character.isupper() else _USUAL
