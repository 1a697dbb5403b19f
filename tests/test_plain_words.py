"""Plain English in code, messages and pages: the constructions and names that this project does not use.

`python tests/test_plain_words.py` counts them by room and pattern; `... ROOM` lists the places in one room.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
COUNTS = r"\d+|one|number|numbers|seconds|ms|MiB|GiB|bytes|images|times|row|once"
UNITS = (
    "scan|slice|study|series|image|file|patient|kind|route|night|method|pixel|batch|run|reader|finding|row|line|item"
)

# Each construction with the sentence that a native engineer would write instead.
BANNED = {
    '"is no X": write "is not an X"': r"(?<!there )\b(?:is|are|was|were|be) no (?!longer|more|less\b)",
    '"is none": write "is missing", "does not exist"': r"\b(?:is|are|was|were|being|be) (?-i:none)\b",
    '"none that": write "no X"': r"\bnone that\b",
    '"stands": write "is", "is valid", "holds"': r"\b(?:stands?|stood)\b(?! (?:for|out)\b)",
    '"a study" for "per study"': rf"\b(?:{COUNTS}) an? (?:{UNITS})\b",
    '"whom", "wherein", "thereby", "whereof"': r"\b(?:whom|wherein|thereby|thereof|whereof|hereof|herein|whither)\b",
    '"anew", "unasked", "ere"': r"\b(?:anew|unasked|ere|oft|nought|naught|lest|amidst|whilst|betwixt)\b",
    '"is told" of software: write "receives", "is given"': r"\b(?:is|are|was|were|be) told\b",
    '"wants" of software: write "needs"': r"\b(?:it|that|which|one|method|configuration|server|command|model) wants\b",
    '"what is X" as a subject: write "X is"': r"(?:^|[.:;] )What (?:is|was|were|are) \w+ (?:is|was|are|were)\b",
    '"gone through", "asked for": write "checked", "requested"': r"\b(?:gone through|(?:is|are|was) asked for)\b",
    '"Exclude." alone is not a next step': r"(?:^|[.:] )Exclude (?:it|them)\.",
}
BANNED_OPENING = re.compile(r"(?:What|Where|Whom|Whose|Who|Which|How|When|Why)\b")
BANNED_NAMES = {"found", "known", "wanted", "kept", "told", "shown"}
PATTERNS = {label: re.compile(pattern, re.IGNORECASE | re.MULTILINE) for label, pattern in BANNED.items()}

# Rooms that have not been rewritten yet. Shrinks only.
PENDING: set[str] = set()


class Place(NamedTuple):
    """One use of a banned construction."""

    file: Path
    line: int
    label: str
    text: str


def room_of(file: Path) -> str:
    """Return the room of a file: a package of `pipeline`, `flows`, `configs`, `docs` (all Markdown), `tests`."""
    if file.suffix == ".md" and "configs" not in file.parts:
        return "docs"
    top, *rest = file.relative_to(ROOT).parts
    return (rest[0] if len(rest) > 1 else "") if top == "pipeline" else top


def prose_of(file: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of everything that people read in a file: strings and comments of Python, else every line."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        yield from enumerate(text.splitlines(), start=1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT):
            yield token.start[0], token.string


def names_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of every variable that is bound and every argument."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


def places(file: Path) -> list[Place]:
    """Return every use of a banned construction, opening or name in a file."""
    uses = [
        Place(file, line + text.count("\n", 0, match.start()), label, match.group(0).strip())
        for line, text in prose_of(file)
        for label, pattern in PATTERNS.items()
        for match in pattern.finditer(text)
    ]
    if file.suffix != ".py":
        return uses
    tree = ast.parse(file.read_text(encoding="utf-8"))
    opening = BANNED_OPENING.match(ast.get_docstring(tree) or "")
    uses += [Place(file, 1, "module docstring opens with a question word", opening.group(0))] if opening else []
    uses += [Place(file, line, f"the name {name}", name) for line, name in names_of(tree) if name in BANNED_NAMES]
    return uses


def files() -> list[Path]:
    """Return every file whose prose is ours, in order."""
    roots = {"pipeline": ("*.py", "*.html"), "flows": ("*.py",), "tests": ("*.py",), "configs": ("*.md", "*.yaml")}
    listed = [f for root, patterns in roots.items() for pattern in patterns for f in (ROOT / root).rglob(pattern)]
    listed += [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(f for f in listed if f.name != Path(__file__).name and "versions" not in f.parts)


@pytest.mark.parametrize("room", sorted({room_of(f) for f in files()}))
def test_rooms_are_written_in_plain_english(room: str) -> None:
    uses = [use for file in files() if room_of(file) == room for use in places(file)]
    if room in PENDING:
        assert uses, f"{room or 'pipeline'} is clean: take it off PENDING"
        pytest.skip(f"{len(uses)} places are still to be rewritten")
    assert [f"{u.file.relative_to(ROOT)}:{u.line} {u.label}: {u.text}" for u in uses] == []


def test_the_patterns_catch_what_they_are_for(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(
        '"""What a file is.\n\nIt is no tensor; the label stands."""\nfound = 1  # none that is allowed\n'
    )
    assert len(places(planted)) == 5


def main(room: str | None = None) -> None:
    """Print the counts, or the places of one room."""
    uses = [use for file in files() for use in places(file)]
    if room is not None:
        for use in uses:
            if room_of(use.file) == room:
                print(f"{use.file.relative_to(ROOT)}:{use.line}: {use.text!r} ({use.label})")
        return
    for title, counts in (
        ("room", Counter(room_of(u.file) or "pipeline" for u in uses)),
        ("pattern", Counter(u.label for u in uses)),
    ):
        print(f"\n{title}")
        for name, count in counts.most_common():
            print(f"{count:6d}  {name}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
