"""Several champions at the command line: a broken one is reported and does not stop the others."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.types import RunRef


@pytest.fixture
def champions(trained: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A workspace whose first champion was changed, whose second is gone, and whose third is sound."""
    shared, copied = Path(trained.settings.workspace), tmp_path / "workspace"
    shutil.copytree(shared, copied, ignore=shutil.ignore_patterns("artifacts", "prefect"))
    good = replace(trained.report.run, path=str(copied / Path(trained.report.run.path).relative_to(shared)))
    refs = [replace(good, sha256="0" * 64), RunRef(str(Path(good.path).with_name("gone-run")), good.sha256), good]
    monkeypatch.setattr("pipeline.stages.detect.score.find_detectors_to_run", lambda *_: refs)
    return copied


@pytest.mark.parametrize(
    ("command", "came"), [("score", {"route": "phantom-mr"}), ("evaluate", {"set_name": "develop"})]
)
def test_the_sound_one_does_its_work(nightread: Any, champions: Path, command: str, came: dict[str, str]) -> None:
    done = nightread(command, "--json", workspace=champions)
    assert done.exit_code == 7, done.output  # an artefact that was changed
    assert [came.items() <= report.items() for report in json.loads(done.stdout)] == [True]
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 2
    assert "gone-run" in errors[1]
    assert "Traceback" not in done.output


def test_people_are_told_both_too(nightread: Any, champions: Path) -> None:
    done = nightread("score", "--again", workspace=champions)
    assert done.exit_code == 7
    assert "phantom-mr: 6 studies scored" in done.stdout
    assert done.stderr.count("Error: ") == 2
