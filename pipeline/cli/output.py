"""Output of the command line: JSON for programs, tables and progress bars for people."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.errors import ConfigError
from pipeline.progress import show_progress

if TYPE_CHECKING:
    from pipeline.config import Settings

UNFOLDED = 10_000
LONGEST_WHOLE = 40  # characters of an identifier that a terminal shows on one line
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def settings_of(context: click.Context) -> Settings:
    """Return the settings of the workspace that the command names."""
    from pipeline.config import Settings

    return Settings.load(context.find_root().obj)


def use_workspace(settings: Settings) -> None:
    """Set the workspace of the flows; call it before importing Prefect, which fixes its home folder at import."""
    os.environ["NIGHTREAD_WORKSPACE"] = str(settings.workspace)


class OutputFolder(click.Path):
    """A folder that is there or can be made: neither it nor a part of its path is a file."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, file_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; said before the work begins, whose results it is to hold."""
        path = Path(str(super().convert(value, param, ctx)))
        if file := next((part for part in path.parents if part.is_file()), None):
            self.fail(f"{path} cannot be made, since {file} is a file. Choose another folder.", param, ctx)
        return path


def find_shipped(path: Path) -> Path:
    """Return `path` where it exists, else the shipped file of that name, such as `configs/runs/demo-mr.yaml`.

    Raises:
        ConfigError: the file is in neither place.
    """
    from pipeline.config import find_shipped_file

    for place in (path, find_shipped_file(path)):
        if place.is_file():
            return place
    raise ConfigError(
        f"Cannot read the configuration {path}: there is no such file here, and none is shipped with Nightread. Give "
        "an existing YAML file, such as configs/runs/demo-mr.yaml."
    )


def print_markdown(text: str) -> None:
    """Print Markdown: formatted on a terminal, unchanged elsewhere."""
    if not sys.stdout.isatty():
        click.echo(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))


def print_json(value: Any) -> None:
    """Print one JSON document; dates and paths as text."""
    click.echo(json.dumps(value, indent=2, default=str))


def print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool, empty: str, title: str | None = None) -> None:
    """Print rows as JSON, or as a table with the keys of the first row as columns; print `empty` for no rows."""
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        click.echo(empty)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for name in rows[0]:
        numeric = all(isinstance(row[name], (int, float)) or row[name] is None for row in rows)
        # an identifier that is broken over two lines cannot be copied into the next command: sentences give way instead
        whole = all(len(_cell(row[name])) <= LONGEST_WHOLE and " " not in _cell(row[name]) for row in rows)
        table.add_column(str(name), justify="right" if numeric else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    if sys.stdout.isatty():
        Console().print(table)
        return
    text = io.StringIO()  # a file or pipe gets one line per row, however long
    Console(file=text, width=UNFOLDED).print(table)
    click.echo("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def progress_bar(label: str, quiet: bool, unit: str = "") -> Iterator[Callable[[int, int | None], None]]:
    """Report progress on standard error; yield `update(done, total)`, with total None while unknown; not if `quiet`."""
    if quiet:
        yield lambda done, total: None
        return
    with show_progress(label, unit) as advance:
        yield advance
