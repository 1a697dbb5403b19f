"""The keys of the reading list, read off the scripts that bind them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

STATIC = Path(__file__).resolve().parents[2] / "pipeline" / "review" / "web" / "static"
_BOUND = re.compile(r'^\s*bind\((\[.+?\]|"[^"]+"), "([^"]+)", "([^"]+)"', re.MULTILINE)
_OUTCOMES = re.compile(r"for \(const \[key, words\] of (\[\[.+?\]\])\)")
_NAMES = {"ArrowUp": "↑", "ArrowDown": "↓", "ArrowLeft": "←", "ArrowRight": "→"}


def bound_keys() -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yield (group, keys, meaning) of every key, in the order of the scripts."""
    for file in (STATIC / name for name in ("worklist.js", "controls.js", "decision.js", "keys.js")):
        text = file.read_text(encoding="utf-8")
        for outcomes in _OUTCOMES.findall(text):
            yield from (("Decision", (key,), words) for key, words in ast.literal_eval(outcomes))
        for keys, group, words in _BOUND.findall(text):
            yield group, tuple(re.findall(r'"([^"]+)"', keys)), words


def key_table() -> str:
    """Return the keys as a table, group by group, each meaning once."""
    rows = list(dict.fromkeys(bound_keys()))
    groups = list(dict.fromkeys(group for group, _, _ in rows))
    lines = [
        f"| {group} | {' '.join(f'`{_NAMES.get(key, key)}`' for key in keys)} | {words} |"
        for group, keys, words in sorted(rows, key=lambda row: groups.index(row[0]))
    ]
    return "\n".join(["| where | key | does |", "|---|---|---|", *lines])
