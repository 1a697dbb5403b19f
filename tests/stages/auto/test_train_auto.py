"""An automatic run from the catalogue to a calibrated detector, on phantoms of 32 pixels."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import Settings, load_config
from pipeline.detection.ensemble import Ensemble
from pipeline.detection.stored_detector import load_detector
from pipeline.errors import EmptySelection
from pipeline.stages.auto import timing
from pipeline.stages.auto.make_plan import make_plan
from pipeline.stages.auto.plan import Plan
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


def test_it_says_what_it_chose_then_trains_weighs_and_calibrates(
    hospital: Any, asked: AutoConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: Settings = hospital.settings
    monkeypatch.setattr(timing, "LEAST_IMAGES", 32)
    said: list[str] = []
    run = train_run(asked, settings, say=said.append)
    assert len(said) == 2 and "gated_dae" in said[0]
    folder = RunFolder.open(run)
    written = folder.read("auto.json")
    assert set(written["weights"]) == set(written["trust"]) == {"head", "reconstructor", "features"}
    assert all(choice["why"] for choice in written["choices"])
    report = calibrate(run, settings, to_registry=False)
    detector = load_detector(folder.detector, sha256=report.run.sha256)
    assert isinstance(detector, Ensemble) and detector.calibration is not None
    assert sum(member.weight for member in detector.members) == pytest.approx(1.0, abs=1e-3)
    assert [one.config.name for one in detector.methods] == ["synthetic_lesion", "gated_dae", "knn_features"]
    assert train_run(asked, settings) == run  # by the kept plan, whatever the machine's speed is now
    plan = make_plan(asked, settings)
    assert Plan.from_json(plan.to_json()) == plan


def test_a_route_without_scans_is_refused(hospital: Any) -> None:
    with pytest.raises(EmptySelection):
        make_plan(AutoConfig.model_validate({"data": {"route": "ct-chest"}}), hospital.settings)


def test_a_file_says_by_its_method_whether_it_chooses(hospital: Any) -> None:
    auto = load_run(AUTO, ["data.route=cxr", "method.budget_minutes=3"])
    assert isinstance(auto, AutoConfig) and auto.method.budget_minutes == 3
    assert isinstance(load_run(hospital.run_file), RunConfig)
