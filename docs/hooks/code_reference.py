"""List every rejection code and every exit code, read off `pipeline.errors`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from pipeline import errors

HEAD = """# Codes and exit codes

Generated from `pipeline/errors.py`. A **rejection code** says why a file, an instance or a series was refused; the
catalogue keeps it, and its spelling never changes. `nightread rejections` lists them with a sentence each. An **exit
code** says why a command stopped.
"""


def code_reference() -> str:
    """Return the page."""
    return "\n".join([HEAD, "## Rejection codes\n", *_rejections(), "\n## Exit codes\n", *_exits()]) + "\n"


def _rejections() -> list[str]:
    """Return a table of the codes under the comments that group them in the source."""
    source = Path(errors.__file__).read_text(encoding="utf-8")
    body = source.split("class RejectionCode(StrEnum):")[1].split("\nclass ")[0]
    rows, subject = ["| concerns | code |", "|---|---|"], ""
    for line in body.splitlines():
        if comment := re.fullmatch(r"    # (.+)", line):
            subject = comment[1]
        elif code := re.fullmatch(r'    [A-Z_]+ = "([\w-]+)"', line):
            rows.append(f"| {subject} | `{code[1]}` |")
    return rows


def _exits() -> list[str]:
    rows = ["| exit code | error | meaning |", "|---|---|---|", "| 0 | | done |"]
    for node in ast.parse(Path(errors.__file__).read_text(encoding="utf-8")).body:
        kind = getattr(errors, node.name) if isinstance(node, ast.ClassDef) else None
        if isinstance(kind, type) and issubclass(kind, errors.NightreadError):
            meaning = (kind.__doc__ or "").strip().splitlines()[0]
            rows.append(f"| {kind.exit_code} | `{kind.__name__}` | {meaning} |")
    return rows
