"""Write the page "The field in one table": every system with what implements it, and what it reached.

`python docs/hooks/field_table.py` writes docs/results/field.md; a test says when it is out of date.
`field.yaml` names a table, a line and a column of each figure; the numbers and the verdicts are read from there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
FIELD = Path(__file__).with_name("field.yaml")
PAGE = ROOT / "docs" / "results" / "field.md"
TABLES = ("notebooks/leaderboards", "docs/results", "docs/how-to", "notebooks/figures/gallery/tasks")
LOWER_IS_BETTER = ("KID", "FID", "error", "distance", "path length", "rank")
PENDING = "not measured yet"
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
_PAGE = """---
hide: [navigation, toc]
---
# The field in one table

This table lists every system of the field that belongs here, in the order in which the families appeared: its paper,
the file that implements it, the command that makes its figure, and the simplest baseline on the same data. Figures
have 95 % intervals where the table that they come from has them. A system *beats* its baseline, or *loses* to it,
where the two intervals do not overlap; otherwise the table says that it is not shown to beat it. Figures were made at
the commits named on their pages.

<div class="field"></div>

{table}
"""


class Cell(NamedTuple):
    """A number of a table, with its interval if it has one."""

    value: float
    low: float
    high: float
    text: str


def field_page(rows: list[Mapping[str, Any]] | None = None) -> str:
    """Return the page as Markdown."""
    chosen = read_field() if rows is None else rows
    header = ["system", "data", "figure", "baseline", "result", "use for reading scans", "file and command"]
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return _PAGE.format(table="\n".join([*lines, *("| " + " | ".join(_line(row)) + " |" for row in chosen)]))


def read_field() -> list[Mapping[str, Any]]:
    """Return the rows of field.yaml."""
    rows: list[Mapping[str, Any]] = yaml.safe_load(FIELD.read_text(encoding="utf-8"))
    return rows


def _line(row: Mapping[str, Any]) -> Iterator[str]:
    figure, baseline = (None if name not in row else read_cell(row[name]) for name in ("figure", "baseline"))
    yield f"**{row['system']}**<br>{row['paper']}"
    yield row["data"]
    yield PENDING if figure is None else f"{row['figure']['column']} {figure.text}{_floor(row)}"
    yield "" if baseline is None else f"{baseline.text} ({_name(row['baseline'])})"
    yield verdict(row)
    yield row["use"]
    yield f"`{row['file'].removeprefix('pipeline/')}`<br>`{row['command']}`"


def _floor(row: Mapping[str, Any]) -> str:
    return f"; real ones {read_cell(row['floor']).text}" if "floor" in row else ""


def _name(reference: Mapping[str, Any]) -> str:
    return str(reference["line"][-1]).strip("`")


def verdict(row: Mapping[str, Any]) -> str:
    """Return "beats it", "not shown to beat it" or "loses to it"; "" without both figures."""
    if "figure" not in row or "baseline" not in row:
        return ""
    figure, baseline = read_cell(row["figure"]), read_cell(row["baseline"])
    if any(word in row["figure"]["column"] for word in LOWER_IS_BETTER):
        figure, baseline = baseline, figure
    if figure.low > baseline.high:
        return "beats it"
    return "loses to it" if figure.high < baseline.low else "not shown to beat it"


def read_cell(reference: Mapping[str, Any]) -> Cell:
    """Return the cell that a reference names.

    Raises:
        LookupError: the table, the line or the column does not exist, or several lines match.
    """
    text = _find_table(reference["at"]).read_text(encoding="utf-8")
    for table in _tables(text):
        if reference["column"] not in table[0]:
            continue
        lines = [line for line in table[1:] if set(reference["line"]) <= set(line)]
        if lines:  # a page may repeat its table for another set; the first one counts
            return _parse(lines[0][table[0].index(reference["column"])])
    raise LookupError(f"{reference['at']} has no line {reference['line']} with the column {reference['column']!r}.")


def _find_table(name: str) -> Path:
    files = [ROOT / folder / f"{name}.md" for folder in TABLES]
    file = next((one for one in files if one.is_file()), None)
    if file is None:
        raise LookupError(f"No table is named {name}. Choose a file of {', '.join(TABLES)}.")
    return file


def _tables(text: str) -> Iterator[list[list[str]]]:
    """Yield every table of a Markdown text: its header, then its lines, as lists of cells."""
    block: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if not all(set(cell) <= {"-", ":"} for cell in cells):
                block.append(cells)
        elif block:
            yield block
            block = []


def _parse(text: str) -> Cell:
    numbers = [float(number) for number in _NUMBER.findall(text.replace("−", "-"))]
    if not numbers:
        raise LookupError(f"{text!r} is not a number.")
    value = numbers[0]
    low, high = numbers[1:3] if len(numbers) >= 3 else (value, value)
    return Cell(value, low, high, text)


if __name__ == "__main__":
    PAGE.write_text(field_page(), encoding="utf-8")
