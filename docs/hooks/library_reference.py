"""Lay out the pages of the library: one page per room of `pipeline`, every module of it read by mkdocstrings."""

from __future__ import annotations

import ast
from pathlib import Path

LEFT_OUT = {"migrations", "web", "cli", "vendor"}  # generated code, pages and commands: not a library's door


def library_pages(package: Path) -> dict[str, str]:
    """Return the text of each page by its place in the site."""
    rooms: dict[str, list[Path]] = {}
    for file in sorted(package.rglob("*.py")):
        inner = file.relative_to(package)
        if not LEFT_OUT & set(inner.parts) and file.name not in ("__init__.py", "__main__.py"):
            rooms.setdefault(".".join(["pipeline", *inner.parent.parts]), []).append(file)
    return {f"reference/api/{room}.md": _page(room, files, package) for room, files in rooms.items()}


def _page(room: str, files: list[Path], package: Path) -> str:
    modules = [_module(file, package) for file in files]
    about = _first_line(package.parent.joinpath(*room.split(".")) / "__init__.py")
    return "\n\n".join([f"# {room}", about, *modules]) + "\n"


def _module(file: Path, package: Path) -> str:
    name = ".".join(["pipeline", *file.relative_to(package).with_suffix("").parts])
    return f"::: {name}\n    options: {{heading_level: 2}}"


def _first_line(file: Path) -> str:
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.partition("\n\n")[0].replace("\n", " ")
