"""Closure of a module's imports within our own package, from the source: the code on which its result can depend."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]


@cache
def hash_closure(module: str, package: Path = PACKAGE) -> str:
    """Return SHA-256 over a module's source and all sources that it imports, directly or indirectly.

    Args:
        module: dotted name, e.g. `pipeline.stages.detect.evaluate`.
        package: folder of the top-level package.
    """
    digest = hashlib.sha256()
    for file in find_closure(module, package):
        digest.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def find_closure(module: str, package: Path = PACKAGE) -> list[Path]:
    """Return the files of the package that importing a module can execute, sorted; imports inside functions count.

    The parent packages of a module count as well, since Python runs their `__init__` first. Imports for type
    checkers only do not, since no result depends on them.
    """
    reached: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file_of(name, package)
        if name in reached or file is None:
            continue
        reached[name] = file
        waiting += [name.rpartition(".")[0], *imported_names(ast.parse(file.read_bytes()))]
    return sorted(reached.values())


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names that a syntax tree may import: `a.b` and `a.b.c` for `from a.b import c`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from (name for other in node.orelse for name in imported_names(other))
        else:
            yield from imported_names(node)


def _file_of(module: str, package: Path) -> Path | None:
    """Return the source of a module of the package; None for a name inside a module, and for other packages."""
    top, *parts = module.split(".")
    if top != package.name:
        return None
    place = package.joinpath(*parts)
    files = (place / "__init__.py", place.with_suffix(".py"))
    return next((file for file in files if file.is_file()), None)
