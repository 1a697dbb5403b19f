"""Gallery: one static page with the pictures and tables of every task in a workspace."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import durable
from pipeline.config import Settings
from pipeline.errors import ArtefactError, EmptySelection
from pipeline.stages.generate.task_folder import TaskFolder

PICTURES = ("sheet.png", "sweep.png")
_STYLE = """
:root { color-scheme: light dark; --ink: #222; --faint: #777; --page: #fff; --line: #ddd }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --faint: #999; --page: #161616; --line: #3a3a3a } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 64rem;
  margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 13px; margin: .8rem 0 }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line); white-space: nowrap }
img { max-width: 100%; background: #fff; border-radius: 3px }
section { margin: 2.5rem 0 } .fact { color: var(--faint); font-size: 13px } li { margin: .2rem 0 }
"""


@dataclass(frozen=True, slots=True)
class _Task:
    """What the page says of one task."""

    folder: TaskFolder
    config: dict[str, Any]
    facts: dict[str, Any]
    warnings: tuple[str, ...]


def write_gallery(settings: Settings, out: Path) -> Path:
    """Write index.html and copies of the pictures into `out`, and return the page's path.

    Pictures of real images follow the policy `burned_in`, as when the tasks drew them; everything else is synthetic.

    Raises:
        EmptySelection: no task of the workspace is finished.
    """
    tasks = list(_read_tasks(settings))
    if not tasks:
        raise EmptySelection(
            "No generative task of this workspace is finished, so there is nothing to show. Run one with nightread "
            "generate sample configs/tasks/phantom-mr.yaml"
        )
    for task in tasks:
        for name in _pictures(task):
            durable.write(out / _copy_name(task, name), (task.folder.path / name).read_bytes())
    return durable.write(out / "index.html", _page(tasks))


def _read_tasks(settings: Settings) -> Iterator[_Task]:
    for folder in TaskFolder.list_all(settings):
        try:
            config, facts = folder.read("config.json"), folder.read("task.json")
            warnings = tuple(folder.read("report.json")["warnings"])
        except ArtefactError:
            continue  # a comparison's folder, or a task that is not finished
        yield _Task(folder, config, facts, warnings)


def _pictures(task: _Task) -> list[str]:
    return [name for name in PICTURES if (task.folder.path / name).is_file()]


def _copy_name(task: _Task, name: str) -> str:
    return f"{task.folder.task_id}-{name}"


def _page(tasks: list[_Task]) -> str:
    sections = "\n".join(map(_section, tasks))
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Generated images</title>\n<style>{_STYLE}</style>\n<h1>Generated images</h1>\n"
        "<p>Every image under “Generated” is synthetic and shows no patient. Not for diagnosis.</p>\n"
        f"{sections}\n</html>\n"
    )


def _section(task: _Task) -> str:
    name, facts = html.escape(task.config["name"]), task.facts
    origin = f"Method {facts['method']}, route {facts['route']}, model SHA-256 {facts['model_sha256'][:12]}"
    parts = [f"<section>\n<h2>{name}</h2>", f'<p class="fact">{html.escape(origin)}</p>']
    for picture in _pictures(task):
        parts.append(f'<img src="{_copy_name(task, picture)}" alt="{name}: {picture.removesuffix(".png")}">')
    parts += _blocks((task.folder.path / "table.md").read_text(encoding="utf-8"))
    parts.append("<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in task.warnings) + "</ul>")
    return "\n".join([*parts, "</section>"])


def _blocks(markdown: str) -> list[str]:
    """Return tables and the lines of text between them as HTML."""
    blocks = markdown.strip().split("\n\n")
    return [_table(block) if block.startswith("|") else f"<p>{html.escape(block)}</p>" for block in blocks]


def _table(markdown: str) -> str:
    """Return a table of `markdown_table` as HTML."""
    head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.strip().splitlines()]
    rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in body]
    heads = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    return f"<table><tr>{heads}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
