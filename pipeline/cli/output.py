"""How the command line prints: JSON for programs, tables and progress bars for people."""

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

if TYPE_CHECKING:
    from pipeline.config import Settings

UNFOLDED = 10_000
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def settings_of(context: click.Context) -> Settings:
    """Return the settings of the workspace that the command names."""
    from pipeline.config import Settings

    return Settings.load(context.find_root().obj)


def use_workspace(settings: Settings) -> None:
    """Tell the flows which workspace is meant: Prefect settles its home when it is first imported."""
    os.environ["NIGHTREAD_WORKSPACE"] = str(settings.workspace)


def shipped(path: Path) -> Path:
    """Return `path` where it exists, else the file of that name that came with us: `configs/runs/demo-mr.yaml`.

    Raises:
        ConfigError: it is in neither place.
    """
    from pipeline.config import shipped_file

    for place in (path, shipped_file(path)):
        if place.is_file():
            return place
    raise ConfigError(
        f"Cannot read the configuration {path}: no such file here, and none came with the program. Give an existing "
        "YAML file, such as configs/runs/demo-mr.yaml."
    )


def print_markdown(text: str) -> None:
    """Print Markdown: laid out on a terminal, as it stands elsewhere."""
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
    """Print rows as JSON or as a table whose columns are the keys of the first row; `empty` where there are none."""
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
        table.add_column(str(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    if sys.stdout.isatty():
        Console().print(table)
        return
    text = io.StringIO()  # a file or pipe gets one line a row, whatever its length
    Console(file=text, width=UNFOLDED).print(table)
    click.echo("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def progress_bar(label: str, quiet: bool) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar on standard error; yields `update(done, total)`, total None while unknown. Silent when `quiet`."""
    if quiet:
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
