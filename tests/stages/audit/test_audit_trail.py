"""From a finding, one command leads to its models, patients, configuration, code, threshold and decisions."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from pipeline.cli import group
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.operations_schema import PromotionRow
from pipeline.data.catalogue.schema import Patient
from pipeline.sealed_folder import hash_file
from pipeline.stages.audit.audit_trail import read_audit_trail
from pipeline.stages.run.learned_patients import list_runs_behind
from pipeline.stages.run.run_folder import RunFolder


@pytest.fixture
def show(scored: Any) -> Any:
    def run(*arguments: str, workspace: Path = scored.settings.workspace) -> Any:
        return CliRunner().invoke(group, ["-w", str(workspace), "audit", "show", *arguments])

    return run


@pytest.fixture
def trail(scored: Any) -> dict[str, Any]:
    with Catalogue.open(scored.settings) as catalogue:
        row = catalogue.list_findings(flagged=True)[0]
        return read_audit_trail(catalogue, scored.settings, row)


def test_the_chain_from_finding_to_weights_is_by_sha256(scored: Any, trail: dict[str, Any]) -> None:
    (run,) = (folder for folder in scored.settings.runs.iterdir() if (folder / "detector").is_dir())
    assert trail["problems"] == []
    assert trail["detector"]["sha256"] == hash_file(run / "detector" / "detector.json")
    (model,) = trail["models"]
    assert model["sha256"] == hash_file(run / "model" / "manifest.json")
    assert model["weights_sha256"] == hash_file(run / "model" / "weights.safetensors")
    assert model["method"] == "ae"


def test_training_patients_are_those_of_the_sets(scored: Any, trail: dict[str, Any]) -> None:
    (training,) = trail["training"]
    with Catalogue.open(scored.settings) as catalogue, catalogue.reading() as session:
        for name in ("train", "validate", "calibrate"):
            ids = sorted(session.scalars(select(Patient.patient_id).where(Patient.set_name == name)))
            digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
            assert training["patients"][name] == {"patients": len(ids), "sha256": digest}, name
    assert training["environment"]["torch"]
    assert training["config"]["method"]["name"] == "ae"
    assert trail["threshold"]["calibration"]["n"] == training["patients"]["calibrate"]["patients"]
    assert trail["scored_by"]["environment"]["processor"]


def test_neither_the_lines_nor_the_json_name_a_person(scored: Any, trail: dict[str, Any], show: Any) -> None:
    done = show(str(trail["finding"]["id"]))
    assert done.exit_code == 0, done.output
    assert trail["detector"]["sha256"] in done.stdout
    as_json = show(str(trail["finding"]["id"]), "--json")
    assert json.loads(as_json.stdout)["finding"]["id"] == trail["finding"]["id"]
    assert scored.planted.lower() not in (done.output + as_json.output).lower()


def test_a_missing_model_is_a_problem_and_hides_nothing_else(scored: Any, show: Any, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(scored.settings.workspace, copy, ignore=shutil.ignore_patterns("pixels", "mlflow", "prefect"))
    (weights,) = copy.glob("runs/*/model/weights.safetensors")
    weights.unlink()
    done = show("1", workspace=copy)
    assert done.exit_code == 7
    assert "PROBLEM" in done.stdout
    assert "calibrate: " in done.stdout


def test_promotions_of_the_detector_are_part_of_it(scored: Any, tmp_path: Path) -> None:
    copy = Settings(workspace=tmp_path / "copy")
    copy.workspace.mkdir()
    shutil.copyfile(scored.settings.workspace / "catalogue.db", copy.workspace / "catalogue.db")
    with Catalogue.open(copy) as catalogue:
        row = catalogue.list_findings()[0]
        common = {"action": "promote", "run": "r", "version": "1", "who": "ann", "why": "", "chain_hash": ""}
        with catalogue.session() as session:
            for number, sha256 in enumerate(("0" * 64, row.model_sha256), start=1):
                session.add(PromotionRow(id=number, route="phantom-mr", detector_sha256=sha256, **common))
            session.add(
                PromotionRow(route="phantom-mr", detector_sha256="", replaced_sha256=row.model_sha256, **common)
            )
        promotions = read_audit_trail(catalogue, copy, row)["promotions"]
        assert [one["id"] for one in promotions] == [2, 3]
        assert "chain_hash" in promotions[0]


def test_runs_behind_an_ensemble_are_its_members(tmp_path: Path) -> None:
    def make(name: str, config: dict[str, Any]) -> RunFolder:
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir()
        folder.write("config.json", config)
        return folder

    make("teacher", {})
    make("member", {"method": {"codec": {"run": "teacher"}}})
    whole = make("whole", {"method": {"members": [{"run": "member"}, {"run": "whole"}, {"run": "gone"}]}})
    rescored = make("rescored", {})
    (rescored.path / "detector").mkdir()
    rescored.write("detector/detector.json", {"models": [{"folder": "../../member/model", "sha256": "0"}]})
    assert {one.run_id for one in list_runs_behind(whole)} == {"whole", "member", "teacher"}
    assert {one.run_id for one in list_runs_behind(rescored)} == {"rescored", "member", "teacher"}
