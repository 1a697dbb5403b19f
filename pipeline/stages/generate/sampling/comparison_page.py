"""Page of a comparison. Its rows are kept beside it, so that samplers of several runs meet in one table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline import durable
from pipeline.evaluation.sample_sheet import Curve
from pipeline.stages.generate.judge import table_of

ROWS = "rows.json"


@dataclass(frozen=True, slots=True)
class PageRow:
    """One line of the table, and what decides which others it may be compared with.

    Attributes:
        sampler: its name in the comparison.
        task: fingerprint of its configuration.
        images: the sentence that says what it was judged against.
        floor: cells of real images against real images.
        cells: its own cells.
        seconds: processor time per image.
        kid, floor_kid: KID, and that of real images against real images.
    """

    sampler: str
    task: str
    images: str
    floor: dict[str, str]
    cells: dict[str, str]
    seconds: float
    kid: float
    floor_kid: float

    @property
    def court(self) -> tuple[object, ...]:
        """What it was judged by: the numbers of images, and the floor of their features."""
        return self.images, *(self.floor.get(name) for name in ("KID", "FID", "precision", "recall"))


def join_rows(
    folder: Path, tasks: Mapping[str, str], rows: Sequence[PageRow], failed: Sequence[str] = ()
) -> list[PageRow]:
    """Return the new rows and those of earlier runs that belong beside them, in the comparison's order; keep them.

    An earlier row belongs there if the comparison still has its sampler with the same configuration, and if it was
    judged against the same images. It makes way for new rows and for a failure of its sampler.

    Args:
        folder: of the comparison.
        tasks: fingerprint of each sampler's configuration, in order.
        rows: of this run.
        failed: samplers that failed in this run.
    """
    replaced = {row.sampler for row in rows} | set(failed)
    earlier = [
        row
        for row in _read(folder / ROWS)
        if row.sampler not in replaced
        and tasks.get(row.sampler) == row.task
        and all(row.court == new.court for new in rows[:1])
    ]
    place = {name: number for number, name in enumerate(tasks)}
    joined = sorted([*earlier, *rows], key=lambda row: place[row.sampler])
    durable.write(folder / ROWS, json.dumps([asdict(row) for row in joined], indent=1))
    return joined


def _read(file: Path) -> list[PageRow]:
    """Return the rows of earlier runs; none if the file is missing, damaged, or of another version."""
    try:
        return [PageRow(**values) for values in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def comparison_page(
    name: str, command: str, rows: Sequence[PageRow], failures: Mapping[str, str], new: Sequence[str] = ()
) -> str:
    """Return the page in Markdown: counts, table, failures, command.

    Args:
        name: of the comparison.
        command: that wrote the page.
        rows: of the table.
        failures: samplers that failed, with the reason.
        new: samplers of this run; the page says which rows are of earlier ones.
    """
    parts = [f"# {name}"]
    if rows:
        parts += [
            f"{rows[0].images} KID with its 95 % interval first: lower is better, and real against real is the floor.",
            comparison_table(rows),
        ]
    earlier = list(dict.fromkeys(row.sampler for row in rows if row.sampler not in new))
    if new and earlier:
        parts.append(f"Rows of earlier runs on the same images: {', '.join(earlier)}.")
    parts += [f"- {sampler} failed: {reason}" for sampler, reason in failures.items()]
    return "\n\n".join([*parts, f"```\n{command}\n```"]) + "\n"


def comparison_table(rows: Sequence[PageRow]) -> str:
    """Return the table: real against real, then every row; columns that are empty throughout are left out."""
    empty = dict.fromkeys((name for row in rows for name in row.cells), "")
    floor: dict[str, str] = {"sampler": "real against real"}
    for row in rows:  # a sampler without conditions has no classes, and so no floor of them
        floor |= {name: text for name, text in row.floor.items() if text}
    return table_of([empty | floor, *(empty | row.cells for row in rows)])


def list_curves(rows: Sequence[PageRow]) -> list[Curve]:
    """Return one curve per sampler: its KID against its seconds per image."""
    names = dict.fromkeys(row.sampler for row in rows)
    return [Curve(name, tuple((row.seconds, row.kid) for row in rows if row.sampler == name)) for name in names]
