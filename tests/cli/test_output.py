"""Tables on a terminal: identifiers are copied into the next command, so they must not be broken."""

from __future__ import annotations

import sys

import pytest

from pipeline.cli.output import print_rows


def test_a_narrow_terminal_wraps_sentences_and_keeps_identifiers_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("phantom-mr-dae-d4f95b20fda1", "score-20261128-174604-ae4d1b")
    rows = [{"run": name, "summary": "40 studies, 8 flagged, 0 not scored, and so on", "n": 3} for name in names]
    monkeypatch.setenv("COLUMNS", "56")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_rows(rows, as_json=False, empty="")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.split()[0] in names] == list(names)
    assert len(lines) > 3 and max(map(len, lines[1:])) <= 56  # the header has codes for bold type
