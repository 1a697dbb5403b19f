"""Every file that a later night reads, cut short or emptied: the next night heals or refuses it, and never uses it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Settings, load_config
from pipeline.errors import NightreadError
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.evaluate import evaluate
from pipeline.stages.detect.score import find_detectors_to_run, score
from pipeline.stages.detect.train import train
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder

# Made for people, and never read again as an input; written whole or not at all like all others.
FOR_PEOPLE = {".md", ".html", ".csv", ".png", ".npz"}
NOTES = {".lock", "report.json", "charts.json", "budget.json"}  # the budget is read for sentences only


@pytest.fixture(scope="module")
def whole(trained: Any, phantom_night: Any, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A copy of the trained workspace after one night."""
    settings = Settings(workspace=tmp_path_factory.mktemp("whole") / "workspace")
    shutil.copytree(trained.settings.workspace, settings.workspace)
    one_night(settings, phantom_night)
    return settings


@pytest.fixture(scope="module")
def run_id(trained: Any) -> str:
    """The champion's training run; other tests of the session may have trained more runs on its route."""
    return Path(trained.report.run.path).name


def one_night(settings: Settings, phantom_night: Any, with_evaluation: bool = True) -> Path:
    """Train if needed, calibrate, score and evaluate; return the run folder."""
    run = train(load_config(phantom_night.config, RunConfig), settings)
    calibrate(run, settings)
    (champion,) = find_detectors_to_run(settings)
    score(champion, settings)
    if with_evaluation:
        evaluate(champion, settings)
    return Path(run.path)


def inputs(folder: Path) -> Iterator[Path]:
    """Yield the files of a run folder that a later night reads; checkpoints are another test's."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        passing = file.suffix in FOR_PEOPLE or file.name in NOTES or "training" in file.parts
        if not passing:
            yield file


def nights_after(whole: Settings, run_id: str, phantom_night: Any, place: Path, keep: int) -> dict[str, str]:
    """Cut each file in turn to 1/`keep` of its bytes (0: to none) and run a night; return the outcome of each."""
    folder = RunFolder.find(whole, run_id).path
    done: dict[str, str] = {}
    for number, file in enumerate(inputs(folder)):
        settings = Settings(workspace=place / str(number))
        shutil.copytree(whole.workspace, settings.workspace)
        name = str(file.relative_to(folder))
        target, original = RunFolder.find(settings, run_id).path / name, file.read_bytes()
        target.write_bytes(original[: len(original) // keep] if keep else b"")
        cut = target.read_bytes()
        try:
            one_night(settings, phantom_night, with_evaluation=False)
            if target.exists() and target.read_bytes() == cut:  # only an evaluation may still read it
                one_night(settings, phantom_night)
        except NightreadError as error:
            assert len(str(error)) > 40 and "Traceback" not in str(error), name
            done[name] = "refused"
        else:
            done[name] = "not read" if target.exists() and target.read_bytes() == cut else "healed"
            if name.startswith("model/") and target.exists():
                assert target.read_bytes() == original, name  # training is deterministic, and so is its healing
        shutil.rmtree(settings.workspace)
    return done


@pytest.mark.parametrize("keep", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_no_damaged_file_is_used(whole: Settings, run_id: str, phantom_night: Any, tmp_path: Path, keep: int) -> None:
    done = nights_after(whole, run_id, phantom_night, tmp_path, keep)
    weights = [name for name in done if name.endswith(".safetensors")]
    assert len(done) >= 9 and len(weights) >= 2
    assert [name for name, what in done.items() if what == "not read"] == []
    healed = {name for name, what in done.items() if what == "healed"}
    assert healed >= {"config.json", "data.json", "calibration.json", *weights}


def test_a_finished_training_is_not_trained_again_for_its_checkpoint(
    whole: Settings, run_id: str, phantom_night: Any, tmp_path: Path
) -> None:
    """The model is whole, so that its checkpoints do not matter; without the model, a damaged one is refused."""
    settings = Settings(workspace=tmp_path / "workspace")
    shutil.copytree(whole.workspace, settings.workspace)
    folder = RunFolder.find(settings, run_id).path
    newest = sorted(folder.glob("training/*/state.safetensors"))[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    one_night(settings, phantom_night)
    shutil.rmtree(folder / "model")
    with pytest.raises(NightreadError, match="altered"):
        one_night(settings, phantom_night)
