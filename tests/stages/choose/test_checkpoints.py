"""Choosing a checkpoint without labels: its weights are those of the training, its AUCp anybody's, its doubts said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score

from pipeline.cli import group
from pipeline.config import load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.store.pixel_store import PixelStore
from pipeline.detection.stored_detector import load_detector
from pipeline.errors import ArtefactError
from pipeline.stages.choose.checkpoints import CheckpointChoice, adopt_checkpoint, choose_checkpoint, detector_at
from pipeline.stages.detect.train import train
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.training.checkpoint import averaged, checkpoints
from pipeline.types import RunRef

pytestmark = pytest.mark.slow  # a training, and every checkpoint of it scores
KEPT = ("training.images=192", "training.validate_every_images=64", "training.keep_checkpoints=20", "name=kept")


@pytest.fixture(scope="module")
def run(hospital: Any) -> RunRef:
    return train(load_config(hospital.run_file, RunConfig, KEPT), hospital.settings)


@pytest.fixture(scope="module")
def choice(hospital: Any, run: RunRef) -> CheckpointChoice:
    return choose_checkpoint(run, hospital.settings)


def test_every_checkpoint_is_asked_and_the_highest_is_the_best(run: RunRef, choice: CheckpointChoice) -> None:
    assert [row["images_seen"] for row in choice.rows] == [64, 128, 192]
    best = max(choice.rows, key=lambda row: row["aucp"])
    assert choice.best == best["images_seen"] and choice.aucp.value == best["aucp"]
    assert choice.aucp.scores == 3 and 0 < choice.aucp.chance <= 1
    assert RunFolder.behind(run).read("checkpoints/aucp.json") == json.loads(json.dumps(choice.to_json()))


def test_the_checkpoint_that_training_kept_has_the_weights_of_the_run(hospital: Any, run: RunRef) -> None:
    folder = RunFolder.behind(run)
    lowest = min(checkpoints(folder.training), key=lambda path: averaged(path)[0].history[-1]["validation"]["total"])
    found, trained = detector_at(folder, lowest, hospital.settings), load_detector(folder.uncalibrated)
    pairs = zip(found.method.state_dict().values(), trained.method.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert found.spec == trained.spec


def test_its_aucp_is_that_of_scikit_learn(hospital: Any, run: RunRef, choice: CheckpointChoice) -> None:
    folder, settings = RunFolder.behind(run), hospital.settings
    detector, config = detector_at(folder, checkpoints(folder.training)[0], settings), folder.config()
    with Catalogue.open(settings) as catalogue:
        normal = choose(catalogue, config, settings, sets=("validate",))
        nobody = choose(catalogue, config, settings, labels=("unknown",))
    scores = [
        [result.score for result in detector.score_slices(dataset(chosen, config, settings, cache="none"))]
        for chosen in (normal, nobody)
    ]
    assert len(scores[1]) == 24
    truth = np.repeat([0, 1], [len(part) for part in scores])
    assert choice.rows[0]["aucp"] == pytest.approx(roc_auc_score(truth, np.concatenate(scores)))


def test_an_adopted_checkpoint_is_a_run_of_its_own(hospital: Any, run: RunRef) -> None:
    adopted = adopt_checkpoint(run, 64, hospital.settings)
    assert adopted == adopt_checkpoint(run, 64, hospital.settings)
    folder = RunFolder.behind(adopted)
    assert folder.run_id == f"{RunFolder.behind(run).run_id}-at-64" and adopted.sha256 != run.sha256
    assert folder.read("origin.json") == {"run": RunFolder.behind(run).run_id, "images_seen": 64}
    with pytest.raises(ArtefactError, match="kept checkpoints at 64, 128, 192 images"):
        adopt_checkpoint(run, 65, hospital.settings)


def test_only_what_may_be_chosen_on_is_read(hospital: Any, run: RunRef, monkeypatch: pytest.MonkeyPatch) -> None:
    config, settings = RunFolder.behind(run).config(), hospital.settings
    with Catalogue.open(settings) as catalogue:
        hidden = choose(catalogue, config, settings, sets=("calibrate", "test")).slices
    read: set[str] = set()
    get = PixelStore.get
    monkeypatch.setattr(PixelStore, "get", lambda self, key, *more: read.add(key) or get(self, key, *more))
    choose_checkpoint(run, settings, unlabelled="develop")
    assert len(hidden) > 10 and not read & {ref.pixel_key for ref in hidden}


def test_one_checkpoint_is_no_choice(hospital: Any, trained_run: RunRef) -> None:
    with pytest.raises(ArtefactError, match=r"a choice needs two.*keep_checkpoints"):
        choose_checkpoint(trained_run, hospital.settings)


def test_the_command_says_what_to_think_of_it(hospital: Any, run: RunRef) -> None:
    asked = ["-w", str(hospital.settings.workspace), "checkpoints", Path(run.path).name]
    done = CliRunner().invoke(group, [*asked, "--adopt"])
    assert done.exit_code == 0, done.output
    assert "Highest AUCp at" in done.stdout and "validate normals against 24 unlabelled" in done.stdout
    assert "registered phantom-mr version" in done.stdout
    assert len(json.loads(CliRunner().invoke(group, [*asked, "--json"]).stdout)["rows"]) == 3
