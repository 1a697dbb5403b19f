"""Whole trainings: early stopping, best weights, budgets, records, resuming with more, refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch.testing import assert_close

from pipeline.errors import ArtefactError, ConfigError, TrainingDiverged
from pipeline.training import TrainingConfig, TrainState, fit
from pipeline.training.checkpoint import list_checkpoints, resume, save_checkpoint
from pipeline.training.fitting import validation_terms

SHORT = TrainingConfig(images=48, batch_size=8, validate_every_images=16)


def test_records_and_result(build: Callable, pictures: Callable, tmp_path: Path) -> None:
    records = []
    result = fit(build("vae"), pictures(10), pictures(5), SHORT, tmp_path, records.append)
    assert [r.images_seen for r in records] == [16, 32, 48] == [r.images_seen for r in result.history]
    assert set(records[0].training) == {"total", "reconstruction", "kl", "gradient_norm"}
    assert set(records[0].validation) == {"total", "reconstruction", "kl"}
    assert all(r.images_per_second > 0 for r in records)
    assert result.stopped == "images" and result.images_seen == 48
    assert result.best == min(r.validation["total"] for r in records)
    assert not result.method.training and all(p.requires_grad for p in result.method.parameters())


def test_it_stops_when_held_out_normals_get_no_better_and_keeps_the_best(
    build: Callable, pictures: Callable, tmp_path: Path
) -> None:
    method = build("ae")
    best_after = 24
    best_weights = {}

    def validation(batch: object, phase: object, rng: object) -> dict:
        weights = state_of(fitted["state"])
        seen = fitted["state"].images_seen
        if seen == best_after:
            best_weights.update(weights)
        return {"total": torch.tensor(abs(seen - best_after) / 8.0)}

    fitted = watch_state(method, validation)
    config = TrainingConfig(images=10_000, batch_size=8, validate_every_images=8, patience=3)
    result = fit(method, pictures(10), pictures(5), config, tmp_path)
    assert (result.stopped, result.images_seen, result.best_images_seen, result.best) == ("patience", 48, 24, 0.0)
    for name, value in result.method.state_dict().items():
        assert torch.equal(value, best_weights[name]), name


def watch_state(method: object, validation: Callable) -> dict:
    """Replace the validation, and give a dictionary that will hold the TrainState."""
    import pipeline.training.fitting as module

    held: dict = {}

    class Watched(TrainState):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)
            self.ema.validation = validation
            held["state"] = self

    held["patch"] = pytest.MonkeyPatch()
    held["patch"].setattr(module, "TrainState", Watched)
    return held


@pytest.fixture(autouse=True)
def restore_train_state() -> object:
    """Undo `watch_state`."""
    import pipeline.training.fitting as module

    original = module.TrainState
    yield
    module.TrainState = original


def state_of(state: TrainState) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in state.ema.state_dict().items()}


def test_without_held_out_images_the_last_average_is_the_result(
    build: Callable, pictures: Callable, tmp_path: Path
) -> None:
    result = fit(build("ae"), pictures(10), None, SHORT, tmp_path)
    assert result.best is None and result.stopped == "images" and result.history[-1].validation == {}
    again = fit(build("ae"), pictures(10), pictures(0), SHORT, tmp_path / "b")
    for a, b in zip(result.method.parameters(), again.method.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_budget_of_cpu_seconds_ends_it(build: Callable, pictures: Callable, tmp_path: Path) -> None:
    config = TrainingConfig(images=10**8, batch_size=8, max_seconds=1.0, validate_every_images=10**8)
    result = fit(build("ae"), pictures(10), pictures(4), config, tmp_path)
    assert result.stopped == "seconds" and 1.0 <= result.process_seconds < 3.0
    more = fit(build("ae"), pictures(10), pictures(4), config, tmp_path)
    assert more.images_seen == result.images_seen  # the budget is of the whole training, not of one call


def test_a_larger_budget_goes_on_and_another_configuration_is_refused(
    build: Callable, pictures: Callable, tmp_path: Path
) -> None:
    fit(build("ae"), pictures(10), None, SHORT, tmp_path)
    longer = fit(build("ae"), pictures(10), None, SHORT.model_copy(update={"images": 96}), tmp_path)
    whole = fit(build("ae"), pictures(10), None, SHORT.model_copy(update={"images": 96}), tmp_path / "whole")
    for a, b in zip(longer.method.parameters(), whole.method.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ConfigError, match=r"training\.seed"):
        fit(build("ae"), pictures(10), None, SHORT.model_copy(update={"seed": 9}), tmp_path)
    with pytest.raises(ConfigError, match="method.config"):
        fit(build("vae"), pictures(10), None, SHORT, tmp_path)


def test_a_damaged_checkpoint_is_refused(build: Callable, pictures: Callable, tmp_path: Path) -> None:
    fit(build("ae"), pictures(10), None, SHORT, tmp_path)
    newest = list_checkpoints(tmp_path)[-1]
    file = newest / "state.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ArtefactError, match="was altered"):
        fit(build("ae"), pictures(10), None, SHORT, tmp_path)
    (newest / "state.json").write_text("{")
    with pytest.raises(ArtefactError, match=f"{newest.name}.*JSONDecodeError"):
        fit(build("ae"), pictures(10), None, SHORT, tmp_path)


def test_a_checkpoint_is_plain_files_and_only_the_newest_are_kept(
    build: Callable, pictures: Callable, tmp_path: Path
) -> None:
    fit(build("ae"), pictures(10), pictures(4), SHORT, tmp_path)
    folders = list_checkpoints(tmp_path)
    assert len(folders) == SHORT.keep_checkpoints
    assert {file.name for file in folders[-1].iterdir()} == {"state.json", "state.safetensors"}
    progress = json.loads((folders[-1] / "state.json").read_text())["progress"]
    assert progress["images_seen"] == 48 and progress["stopped"] == "images" and progress["resumed"] == 0
    assert not list(tmp_path.rglob("*.part"))


def test_a_state_survives_saving_and_loading_bit_for_bit(build: Callable, pictures: Callable, tmp_path: Path) -> None:
    from pipeline.training import train

    config = TrainingConfig(batch_size=4)
    state, again = TrainState(build("vq_vae"), config), TrainState(build("vq_vae", seed=8), config)
    list(train(state, pictures(6), 12))
    state.keep_best(0.1 + 0.2)
    save_checkpoint(state, tmp_path, keep=1)
    assert resume(again, tmp_path) and not resume(TrainState(build("vq_vae"), config), tmp_path / "none")
    ours, theirs = state.tensors(), again.tensors()
    assert ours.keys() == theirs.keys() and any(name.startswith("adam.") for name in ours)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(ours[name].stride() == theirs[name].stride() for name in ours if not name.startswith("best."))
    assert again.progress.best == 0.1 + 0.2 and again.progress.resumed == 1


def test_divergence_names_the_last_good_checkpoint(build: Callable, pictures: Callable, tmp_path: Path) -> None:
    method = build("ae")
    original, calls = method.loss, []

    def loss(*args: object) -> dict:
        calls.append(1)
        return {name: value * (float("nan") if len(calls) > 3 else 1) for name, value in original(*args).items()}

    method.loss = loss
    with pytest.raises(TrainingDiverged, match=r"24 .*000000000016-000"):
        fit(method, pictures(10), None, SHORT, tmp_path)


def test_two_trainings_in_one_folder_are_refused(build: Callable, pictures: Callable, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(ConfigError, match=re.escape(str(tmp_path))):
        fit(build("ae"), pictures(10), None, SHORT, tmp_path)


def test_validation_is_the_mean_over_the_images_whatever_the_batch(build: Callable, pictures: Callable) -> None:
    terms = []
    for size in (1, 3, 8):
        state = TrainState(build("dae"), TrainingConfig(batch_size=size, validate_images=7))
        terms.append(validation_terms(state, pictures(20))["total"])
    assert_close(terms[1], terms[0], rtol=1e-4, atol=1e-6)
    assert_close(terms[2], terms[0], rtol=1e-4, atol=1e-6)


def test_progress_gives_the_images_seen(
    build: Callable,
    pictures: Callable,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.progress.FIRST_S", 0.0)
    fit(build("ae"), pictures(10), None, SHORT, tmp_path, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert "of 48 images" in lines[0] and "training ae: 48 of 48 images" in lines[-1]
