"""Tables on a terminal: identifiers are copied into the next command, so they must not be broken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import group
from pipeline.cli.output import print_rows
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow


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


@pytest.mark.parametrize("guarantee", ["conformal", "empirical"])
@pytest.mark.parametrize("options", [[], ["--all"]])
def test_the_flagged_list_fits_a_terminal_of_80_characters(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, guarantee: str, options: list[str]
) -> None:
    facts = {"route": "mr-brain-flair", "rule": "capacity", "flagged": True, "evidence": []}
    rows = [
        FindingRow(study_id=32 * "a", score=0.1234, p_value=p, n_calibration=1999, guarantee=guarantee, **facts)
        for p in (0.0005, 0.0035)
    ]
    monkeypatch.setattr(Catalogue, "list_findings", lambda *_: rows)
    result = CliRunner().invoke(group, ["-w", str(settings.workspace), "flagged", *options])
    lines = result.output.splitlines()
    assert result.exit_code == 0 and len(lines) == 3
    assert max(map(len, lines)) <= 80
    assert "99.7 % of 1999" in lines[2] and (" flag" in lines[0]) == bool(options)


@pytest.mark.parametrize(
    "command",
    ["generate sample x.yaml", "gallery", "wrap x.csv", "push x --to folder", "export x"],
)
def test_a_folder_below_a_file_is_refused_before_the_work(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "folder"
    result = CliRunner().invoke(group, ["-w", str(tmp_path), *command.split(), "--out", str(out)])
    assert result.exit_code == 2 and "is a file" in result.output, result.output
