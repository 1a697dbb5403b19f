"""Markdown tables that are also aligned in the source, so that they are readable in a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table with padded columns; columns of numbers are right-aligned.

    Args:
        headers: one text per column.
        rows: cells, converted by `str`; a vertical bar in a cell is escaped, a line break becomes a blank.
    """
    cells = [[_cell(text) for text in headers], *([_cell(value) for value in row] for row in rows)]
    widths = [max(3, *(_width(row[i]) for row in cells)) for i in range(len(headers))]
    right = [bool(rows) and all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(headers))]
    rule = [("-" * (w - 1) + ":") if r else "-" * w for w, r in zip(widths, right, strict=True)]
    lines = [_line(cells[0], widths, right), "| " + " | ".join(rule) + " |"]
    return "\n".join([*lines, *(_line(row, widths, right) for row in cells[1:])])


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [
        " " * (width - _width(cell)) + cell if r else cell + " " * (width - _width(cell))
        for cell, width, r in zip(cells, widths, right, strict=True)
    ]
    return "| " + " | ".join(padded) + " |"


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _width(text: str) -> int:
    """Return the columns needed in a terminal: wide characters take two, combining marks zero."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
