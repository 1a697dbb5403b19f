"""A finding's score is computed again from the artefacts, in a copy of the workspace too, and what differs is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow, RunRow
from pipeline.errors import ArtefactError, CatalogueError
from pipeline.stages.audit.find_finding import find_finding
from pipeline.stages.audit.reproduce import TOLERANCE, reproduce


@pytest.fixture
def clone(scored: Any, tmp_path: Path) -> Settings:
    """The scored workspace in another place."""
    shutil.copytree(
        scored.settings.workspace, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("cache", "prefect")
    )
    return Settings(workspace=tmp_path / "elsewhere")


def rows_of(settings: Settings) -> list[FindingRow]:
    with Catalogue.open(settings) as catalogue:
        return catalogue.list_findings()


def test_every_score_is_reproduced_in_a_copy_without_the_original(clone: Settings) -> None:
    for row in rows_of(clone):
        result = reproduce(clone, str(row.id))
        assert result.agrees
        assert abs(result.computed - row.score) <= TOLERANCE
        assert result.p_computed == row.p_value
        assert result.changed == {}, "the code and the machine of the score are those of the test"
        assert "is reproduced" in result.lines()[0]


def test_another_score_machine_or_release_is_named(clone: Settings) -> None:
    row = rows_of(clone)[0]
    with Catalogue.open(clone) as catalogue, catalogue.session() as session:
        run = session.get(RunRow, row.run_id)
        assert run is not None
        environment = {**run.summary["environment"], "torch": "1.0", "processor": "Cray-1"}
        run.summary = {**run.summary, "environment": environment}
        session.execute(update(FindingRow).where(FindingRow.id == row.id).values(score=row.score + 3 * TOLERANCE))
    result = reproduce(clone, row.study_id[:12])
    assert not result.agrees
    assert {name: then for name, (then, _) in result.changed.items()} == {"torch": "1.0", "processor": "Cray-1"}
    assert result.to_json()["difference"] == pytest.approx(-3 * TOLERANCE, rel=0.1)


def test_slices_that_came_or_went_are_counted(clone: Settings) -> None:
    row = rows_of(clone)[0]
    with Catalogue.open(clone) as catalogue, catalogue.session() as session:
        more = [*row.evidence, {**row.evidence[0], "instance_id": "f" * 32}]
        session.execute(update(FindingRow).where(FindingRow.id == row.id).values(evidence=more))
    result = reproduce(clone, str(row.id))
    assert not result.agrees
    assert any(note.startswith("1 slices that it rests on are gone") for note in result.notes)


def test_an_altered_model_is_refused(clone: Settings) -> None:
    (weights,) = clone.runs.glob("*/model/weights.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtefactError):
        reproduce(clone, str(rows_of(clone)[0].id))


def test_missing_pixels_are_not_a_score(clone: Settings) -> None:
    shutil.rmtree(clone.workspace / "pixels")
    with pytest.raises(CatalogueError, match="cannot be scored any more"):
        reproduce(clone, str(rows_of(clone)[0].id))


@pytest.mark.parametrize("name", ["0", "999999", "abcdef012345", "ab", "", "%%%%%%", "1/other", "９", "9" * 40])
def test_an_unknown_finding_is_refused(scored: Any, name: str) -> None:
    with Catalogue.open(scored.settings) as catalogue, pytest.raises(CatalogueError):
        find_finding(catalogue, name)


def test_a_name_of_two_findings_lists_their_numbers(clone: Settings) -> None:
    row = rows_of(clone)[0]
    with Catalogue.open(clone) as catalogue:
        with catalogue.session() as session:
            values = {"study_id": row.study_id, "patient_id": row.patient_id, "run_id": row.run_id, "score": 1.0}
            session.add(FindingRow(**values, route="other", model_sha256="0" * 64))
        with pytest.raises(CatalogueError, match=rf"2 findings.*{row.id} \("):
            find_finding(catalogue, row.study_id)
        assert find_finding(catalogue, f"{row.study_id[:8]}/phantom-mr").id == row.id


def test_the_command_says_it_in_json_and_by_its_exit_code(clone: Settings) -> None:
    from click.testing import CliRunner

    from pipeline.cli import group

    row = rows_of(clone)[0]
    done = CliRunner().invoke(group, ["-w", str(clone.workspace), "reproduce", str(row.id), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["state"] == "reproduced"
    with Catalogue.open(clone) as catalogue, catalogue.session() as session:
        session.execute(update(FindingRow).where(FindingRow.id == row.id).values(score=row.score + 1))
    assert CliRunner().invoke(group, ["-w", str(clone.workspace), "reproduce", str(row.id)]).exit_code == 1


@pytest.mark.slow
def test_another_clone_reproduces_from_the_artefacts_and_later_says_erased(clone: Settings, tmp_path: Path) -> None:
    """Processes of their own, with a copy of the code, another working directory, and the workspace without caches."""
    root = Path(__file__).resolve().parents[3]
    for name in ("pipeline", "flows", "configs"):
        shutil.copytree(root / name, tmp_path / "code" / name, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTREAD_")}
    environment |= {"PYTHONPATH": str(tmp_path / "code"), "MLFLOW_DISABLE_TELEMETRY": "true"}

    def nightread(*arguments: str) -> tuple[int, dict[str, Any]]:
        command = [sys.executable, "-m", "pipeline.cli", "-w", "elsewhere", *arguments, "--json"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode in (0, 1), done.stderr[-3000:]
        return done.returncode, json.loads(done.stdout)

    row = rows_of(clone)[0]
    code, result = nightread("reproduce", str(row.id))
    assert (code, result["state"]) == (0, "reproduced") and abs(result["difference"]) <= TOLERANCE
    assert result["detector_sha256"] == row.model_sha256
    assert nightread("forget", row.patient_id, "--yes")[1]["state"] == "finished"
    code, result = nightread("reproduce", str(row.id))
    assert (code, result["state"], result["computed"]) == (1, "erased", None)
    assert "erased on 20" in result["notes"][0]
