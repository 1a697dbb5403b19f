"""A saved detector names its models: the same scores from the same bytes, and no others."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline import sealed_folder
from pipeline.detection.detector import Detector
from pipeline.detection.detector_file import bundle_detector, check_detector, read_detector
from pipeline.detection.ensemble import Ensemble, Member, Moments
from pipeline.detection.facts import read_facts
from pipeline.detection.stored_detector import load_detector, save_detector
from pipeline.errors import ArtefactError, NightreadError
from pipeline.methods.stored_model import load_model, save_model
from pipeline.types import Batch, RunRef

FILES = ("weights.safetensors", "model.json", "manifest.json")


@pytest.fixture
def placed(detector: Detector, tmp_path: Path) -> Detector:
    """A calibrated detector whose model lies in a run folder, `tmp_path / "run" / "model"`."""
    return replace(detector, model=save_model(tmp_path / "run" / "model", detector.model))


def rewrite(folder: Path, name: str, change: Callable[[dict[str, object]], object]) -> None:
    """Change a JSON file as a forger with access to the whole folder would: hashes agree afterwards."""
    file = next(folder.rglob(name))
    spec = json.loads(file.read_text())
    change(spec)
    file.write_text(json.dumps(spec))
    if name == "model.json":
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        rewrite(folder, "manifest.json", lambda manifest: manifest["sha256"].update({name: digest}))
    if name == "manifest.json":
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        place = file.parent.relative_to(folder).as_posix()
        rewrite(folder, "detector.json", lambda spec: spec.update(models=[{"sha256": sha256, "folder": place}]))


def test_loaded_equals_saved_bit_for_bit(detector: Detector, batch: Batch, tmp_path: Path) -> None:
    sha256 = save_detector(tmp_path / "d", detector)
    loaded = load_detector(tmp_path / "d", sha256=sha256)
    assert loaded.spec == detector.spec
    assert loaded.calibration == detector.calibration
    torch.testing.assert_close(loaded.score_batch(batch), detector.score_batch(batch), rtol=0, atol=0)
    files = sorted(path.name for path in (tmp_path / "d").rglob("*") if path.is_file())
    assert files == sorted([*FILES, "detector.json"])


def test_the_facts_are_read_without_the_network(detector: Detector, tmp_path: Path) -> None:
    sha256 = save_detector(tmp_path, detector)
    facts = read_facts(tmp_path, sha256)
    assert facts.methods == (detector.method.config.name,)
    assert facts.calibration == detector.calibration is not None
    with pytest.raises(ArtefactError):
        read_facts(tmp_path, "0" * 64)
    next(tmp_path.rglob("weights.safetensors")).write_bytes(b"altered")
    with pytest.raises(ArtefactError):
        read_facts(tmp_path, sha256)


@pytest.mark.parametrize("name", ["vae", "dae", "vq_vae", "ddpm"])
def test_every_method_survives_the_round_trip(build: Callable, batch: Batch, tmp_path: Path, name: str) -> None:
    detector = build(name)
    save_detector(tmp_path, detector)
    assert torch.equal(load_detector(tmp_path).score_batch(batch).scores, detector.score_batch(batch).scores)


def test_the_sha256_is_that_of_the_file_and_a_function_of_the_content(detector: Detector, tmp_path: Path) -> None:
    first = save_detector(tmp_path / "a", detector)
    assert first == hashlib.sha256((tmp_path / "a" / "detector.json").read_bytes()).hexdigest()
    assert first == save_detector(tmp_path / "b", detector) == save_detector(tmp_path / "a", detector)
    assert save_detector(tmp_path / "b", replace(detector, seed=5)) != first
    assert check_detector(tmp_path / "a", first) == first


def test_a_models_weights_exist_once(placed: Detector, tmp_path: Path) -> None:
    """Another score, a calibration, another seed: JSON that names the one model."""
    run = tmp_path / "run"
    save_detector(run / "uncalibrated", replace(placed, calibration=None))
    save_detector(run / "detector", placed)
    save_detector(tmp_path / "other" / "uncalibrated", replace(placed, seed=7))
    assert len(list(tmp_path.rglob("weights.safetensors"))) == 1
    names = [json.loads(file.read_text())["models"] for file in sorted(tmp_path.rglob("detector.json"))]
    assert {model["sha256"] for (model,) in names} == {placed.model.origin.sha256}
    assert {model["folder"] for (model,) in names} == {"../model", "../../run/model"}


def test_a_run_folder_is_a_door_too(placed: Detector, batch: Batch, tmp_path: Path) -> None:
    run = tmp_path / "run"
    before = save_detector(run / "uncalibrated", replace(placed, calibration=None))
    assert load_detector(run).calibration is None
    save_detector(run / "detector", placed)
    assert load_detector(run).calibration == placed.calibration
    assert load_detector(run, sha256=before).calibration is None
    ours, theirs = load_model(run).method.state_dict(), placed.method.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert load_model(run).origin == load_model(run / "model").origin == placed.model.origin
    with pytest.raises(ArtefactError, match="lacks model.json"):
        load_model(run / "detector")


def test_a_copied_workspace_names_its_own_models(placed: Detector, tmp_path: Path) -> None:
    save_detector(tmp_path / "run" / "detector", placed)
    shutil.copytree(tmp_path / "run", tmp_path / "elsewhere" / "run")
    loaded = load_detector(tmp_path / "elsewhere" / "run")
    assert loaded.model.origin.folder.resolve() == (tmp_path / "elsewhere" / "run" / "model").resolve()
    assert str(tmp_path) not in (tmp_path / "run" / "detector" / "detector.json").read_text()


def test_a_bundle_needs_no_other_folder_and_keeps_its_sha256(placed: Detector, batch: Batch, tmp_path: Path) -> None:
    sha256 = save_detector(tmp_path / "run" / "detector", placed)
    bundle_detector(tmp_path / "run" / "detector", tmp_path / "bundle")
    expected = placed.score_batch(batch).scores
    shutil.rmtree(tmp_path / "run" / "model")
    assert torch.equal(load_detector(tmp_path / "bundle", sha256=sha256).score_batch(batch).scores, expected)
    with pytest.raises(ArtefactError, match=placed.model.origin.sha256[:12]):
        load_detector(tmp_path / "run", sha256=sha256)


@pytest.mark.parametrize("read", [check_detector, read_facts, load_detector, lambda at: bundle_detector(at, at / "b")])
def test_a_model_that_members_share_is_read_once(
    placed: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable
) -> None:
    moments = Moments(mean=0, std=1)
    members = [Member(replace(placed, seed=n), RunRef(f"run{n}", "0" * 64), moments, moments) for n in range(2)]
    sha256 = save_detector(tmp_path / "both", Ensemble(tuple(members), placed.config, "ct"))
    hashed: list[str] = []
    digest = sealed_folder.hash_file
    monkeypatch.setattr(sealed_folder, "hash_file", lambda path: (hashed.append(path.name), digest(path))[1])
    read(tmp_path / "both")
    assert sorted(hashed) == sorted(FILES)
    models = read_detector(tmp_path / "both", sha256).read_models()
    assert [model.sha256 for model in models] == [placed.model.origin.sha256] * 2


def test_another_model_at_the_hint_is_refused(placed: Detector, tmp_path: Path) -> None:
    save_detector(tmp_path / "run" / "detector", placed)
    other = replace(placed.model, method=placed.method.config.build(32, seed=9))
    assert other.origin is None  # other weights are another model
    save_model(tmp_path / "run" / "model", other)
    with pytest.raises(ArtefactError, match="is required"):
        load_detector(tmp_path / "run")


def test_another_artefact_than_the_registered_is_refused(detector: Detector, tmp_path: Path) -> None:
    registered = save_detector(tmp_path, detector)
    save_detector(tmp_path, replace(detector, route="other"))
    assert load_detector(tmp_path).route == "other"
    with pytest.raises(ArtefactError, match="was requested"):
        load_detector(tmp_path, sha256=registered)


@pytest.mark.parametrize("name", [*FILES, "detector.json"])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.7, 0.999])
def test_a_changed_byte_is_refused(detector: Detector, tmp_path: Path, name: str, where: float) -> None:
    registered = save_detector(tmp_path, detector)
    file = next(tmp_path.rglob(name))
    data = bytearray(file.read_bytes())
    data[int(where * len(data))] ^= 1
    file.write_bytes(data)
    with pytest.raises(ArtefactError):
        load_detector(tmp_path, sha256=registered)
    with pytest.raises(ArtefactError):
        check_detector(tmp_path, registered)


@pytest.mark.parametrize("name", [*FILES, "detector.json"])
def test_a_missing_or_cut_file_is_refused(detector: Detector, tmp_path: Path, name: str) -> None:
    save_detector(tmp_path, detector)
    file = next(tmp_path.rglob(name))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ArtefactError):
        load_detector(tmp_path)
    file.unlink()
    with pytest.raises(ArtefactError):
        load_detector(tmp_path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("detector.json", lambda spec: spec.update(format=1)),
        ("detector.json", lambda spec: spec.pop("models")),
        ("detector.json", lambda spec: spec.update(models=[])),
        ("detector.json", lambda spec: spec.update(models=spec["models"] * 2)),
        ("detector.json", lambda spec: spec["models"][0].update(folder=f"/{spec['models'][0]['folder']}")),
        ("detector.json", lambda spec: spec["models"][0].pop("sha256")),
        ("detector.json", lambda spec: spec.update(seed="many")),
        ("detector.json", lambda spec: spec.update(detection={"no-such-field": 1})),
        ("detector.json", lambda spec: spec.update(calibration={"scores": [2.0, 1.0], "patients": 2})),
        ("detector.json", lambda spec: spec.update(members=[{}])),
        ("model.json", lambda spec: spec.update(format=1)),
        ("model.json", lambda spec: spec.pop("normaliser")),
        ("model.json", lambda spec: spec["normaliser"].update(version=99)),
        ("model.json", lambda spec: spec["method"].update(config={"name": "os.system"})),
        ("model.json", lambda spec: spec["method"]["config"].update(latent=3)),
        ("model.json", lambda spec: spec.update(method=["ae"])),
    ],
)
def test_a_forged_specification_is_refused(detector: Detector, tmp_path: Path, name: str, change: Callable) -> None:
    save_detector(tmp_path, detector)
    rewrite(tmp_path, name, lambda spec: None)
    assert load_detector(tmp_path).seed == detector.seed  # the forger's hand alone is not noticed
    rewrite(tmp_path, name, change)
    with pytest.raises(NightreadError):
        load_detector(tmp_path)


def test_a_pickle_in_place_of_the_weights_is_never_run(detector: Detector, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    save_detector(tmp_path, detector)
    weights = next(tmp_path.rglob("weights.safetensors"))
    torch.save(Bomb(), weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    rewrite(tmp_path, "manifest.json", lambda manifest: manifest["sha256"].update({weights.name: digest}))
    with pytest.raises(ArtefactError, match="SafetensorError"):
        load_detector(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_an_interrupted_save_leaves_no_model(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path, detector.model)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.methods.stored_model.save_weights", stop)
    with pytest.raises(KeyboardInterrupt):
        save_model(tmp_path, detector.model)
    with pytest.raises(ArtefactError, match="lacks manifest.json"):
        load_model(tmp_path)


@pytest.mark.slow
def test_another_process_gives_the_same_scores(detector: Detector, batch: Batch, tmp_path: Path) -> None:
    save_detector(tmp_path / "d", detector)
    torch.save({"images": batch.images, "body": batch.body}, tmp_path / "batch.pt")
    code = (
        "import sys, torch; from pipeline.detection import load_detector; from pipeline.types import Batch\n"
        "b = torch.load(sys.argv[2], weights_only=True)\n"
        "batch = Batch(b['images'], b['body'], tuple(f'slice{i}' for i in range(7)))\n"
        "print(load_detector(sys.argv[1]).score_batch(batch).scores.tolist())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "d"), str(tmp_path / "batch.pt")]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    assert json.loads(text) == pytest.approx(detector.score_batch(batch).scores.tolist(), rel=1e-5)
