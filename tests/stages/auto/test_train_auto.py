"""An automatic run from the catalogue to a calibrated detector, on phantoms of 32 pixels."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from pipeline.config import Settings, load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.ingest.ingest import ingest
from pipeline.data.sets.routes import load_routes
from pipeline.data.sets.selection import select_slices
from pipeline.detection.ensemble import Ensemble
from pipeline.detection.stored_detector import load_detector
from pipeline.dicom.phantom.folder import SYNTAXES, write_phantoms
from pipeline.errors import EmptySelection
from pipeline.stages.auto import timing
from pipeline.stages.auto.make_plan import _choose_sets, make_plan
from pipeline.stages.auto.plan import Plan, read_plan
from pipeline.stages.auto.train_auto import train_run
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.run.auto_config import AutoConfig, load_run
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder

AUTO = "configs/runs/auto.yaml"


@pytest.fixture(scope="module")
def asked(hospital: Any) -> AutoConfig:
    """Half a second of training, with the sets that the hospital's other tests use."""
    splits = load_config(hospital.run_file, RunConfig).data.splits
    values = {"data": {"route": "phantom-mr", "splits": splits}, "method": {"budget_minutes": 0.01}}
    return AutoConfig.model_validate(values)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps to time, and few images to train on."""
    for name, value in (("WARM_UP", 1), ("STEPS", 1), ("LEAST_IMAGES", 32)):
        monkeypatch.setattr(timing, name, value)


def test_a_plan_is_made_of_the_normals_and_kept(hospital: Any, asked: AutoConfig, short: None) -> None:
    plan = make_plan(asked, hospital.settings)
    assert plan.run.data.normaliser.image_size == 32 and plan.run.unit == "study"
    assert (plan.facts.modality, plan.facts.slices_per_series, plan.facts.eight_bit) == ("MR", 3, False)
    assert plan.run.method.name == "ensemble" and len(plan.run.method.members) == 4
    assert plan.expected_minutes > 0 and plan.budget_minutes == 0.01
    again = make_plan(asked, hospital.settings)
    assert Plan.from_json(plan.to_json()) == plan == again
    file = hospital.settings.workspace / "older.json"
    file.write_text(json.dumps({**plan.to_json(), "trust": {**plan.trust, "features": 1.0}}))
    assert read_plan(file) is None  # and a new plan is made, instead of one whose member nothing weighs


@pytest.mark.slow
def test_it_says_what_it_chose_then_trains_weighs_and_calibrates(hospital: Any, asked: AutoConfig, short: None) -> None:
    settings: Settings = hospital.settings
    said: list[str] = []
    run = train_run(asked, settings, say=said.append)
    assert len(said) == 2 and "gated_dae" in said[0]
    folder = RunFolder.open(run)
    written = folder.read("auto.json")
    assert set(written["weights"]) == set(written["trust"]) == {"head", "reconstructor", "memory", "gaussian"}
    assert all(choice["why"] for choice in written["choices"])
    report = calibrate(run, settings, to_registry=False)
    detector = load_detector(folder.detector, sha256=report.run.sha256)
    assert isinstance(detector, Ensemble) and detector.calibration is not None
    assert sum(member.weight for member in detector.members) == pytest.approx(1.0, abs=1e-3)
    chosen = {choice["what"]: choice["value"] for choice in written["choices"]}
    methods = {"head": "synthetic_lesion", "reconstructor": chosen["reconstructor"]}
    methods |= {"memory": "knn_features", "gaussian": "gaussian_features"}
    counted = [role for role, one in written["weights"].items() if one["weight"]]
    assert {"memory", "gaussian"} <= set(counted)
    assert [one.config.name for one in detector.methods] == [methods[role] for role in counted]
    assert train_run(asked, settings) == run  # by the kept plan, whatever the machine's speed is now


def test_a_route_without_scans_is_refused(hospital: Any) -> None:
    with pytest.raises(EmptySelection):
        make_plan(AutoConfig.model_validate({"data": {"route": "ct-chest"}}), hospital.settings)


def tilted_scanner(folder: Path, degrees: float = 15.0) -> None:
    """Write two phantom patients whose slices are sheared as a tilted gantry leaves them."""
    for file in write_phantoms(folder, 2, "CT", 0.0, 5, size=32, slices=3, syntaxes=SYNTAXES[:1]).files:
        ds = dcmread(file.path)
        x, y, z = map(float, ds.ImagePositionPatient)
        ds.ImagePositionPatient = [x, y + z * math.tan(math.radians(degrees)), z]
        ds.save_as(file.path)


def test_scans_of_a_tilted_gantry_are_enough_for_a_route(
    asked: AutoConfig, new_hospital: Callable[[], Settings], tmp_path: Path
) -> None:
    settings, data = new_hospital(), asked.data.model_copy(update={"route": "phantom-ct"})
    tilted_scanner(tmp_path)
    ingest([tmp_path], settings)
    with Catalogue.open(settings) as catalogue:
        routes = load_routes(settings.routes_folder)
        refused = select_slices(catalogue, route="phantom-ct", routes=routes)
        assert not refused.slices and {one.code for one in refused.not_scored} == {"gantry-tilt"}
        chosen = _choose_sets(asked.model_copy(update={"data": data}), settings, catalogue)
    assert chosen.value["unit"] == "study"


def test_a_file_says_by_its_method_whether_it_chooses(hospital: Any) -> None:
    auto = load_run(AUTO, ["data.route=cxr", "method.budget_minutes=3"])
    assert isinstance(auto, AutoConfig) and auto.method.budget_minutes == 3
    assert isinstance(load_run(hospital.run_file), RunConfig)
