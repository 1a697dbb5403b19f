"""Parts of a page of HTML that is one file: tables and lists of text, escaped, and the page around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from pipeline.charts.svg import element

SHORT = 24  # letters of a cell that is worth keeping on one line: a time, a name, a version


def write_table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """Return a table of text; a screen reader names it by its caption."""
    head = "".join(element("th", escape(one), scope="col") for one in heads)
    body = "".join(element("tr", *map(_cell, row)) for row in rows)
    named = element("caption", escape(caption)) if caption else ""
    return f"<table>{named}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    """Return a cell; its class lets a page keep what is short on one line."""
    return element("td", escape(text), class_="short") if len(text) <= SHORT else element("td", escape(text))


def write_list(lines: Sequence[str]) -> str:
    """Return a list of text; "" for none."""
    return element("ul", *(element("li", escape(line)) for line in lines)) if lines else ""


def write_document(title: str, style: str, body: Iterable[str]) -> str:
    """Return the page; `title` is escaped here, `style` and `body` are HTML already."""
    size = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">{size}<title>{escape(title)}</title><style>{style}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{chr(10).join(body)}\n</body></html>\n'
