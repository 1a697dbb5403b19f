"""A saved detector: the same scores from the same bytes, and no others."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.detection.detector import Detector
from pipeline.detection.facts import read_facts
from pipeline.errors import ArtefactError, NightreadError
from pipeline.types import Batch

FILES = ("detector.json", "weights.safetensors", "manifest.json")


def rewrite(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change detector.json and make the manifest agree: a forger with access to the whole folder."""
    spec = json.loads((folder / "detector.json").read_text())
    change(spec)
    (folder / "detector.json").write_text(json.dumps(spec))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["detector.json"] = hashlib.sha256((folder / "detector.json").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_loaded_equals_saved_bit_for_bit(detector: Detector, batch: Batch, tmp_path: Path) -> None:
    ref = detector.save(tmp_path / "d")
    loaded = Detector.load(tmp_path / "d", sha256=ref.sha256)
    assert loaded.spec == detector.spec
    assert loaded.calibration == detector.calibration
    for ours, theirs in zip(loaded.score_batch(batch), detector.score_batch(batch), strict=True):
        assert torch.equal(ours, theirs)
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == sorted(FILES)


def test_the_facts_are_read_without_the_network(detector: Detector, tmp_path: Path) -> None:
    ref = detector.save(tmp_path)
    facts = read_facts(tmp_path, ref.sha256)
    assert facts.methods == (detector.method.config.name,)
    assert facts.calibration == detector.calibration is not None
    with pytest.raises(ArtefactError):
        read_facts(tmp_path, "0" * 64)
    (tmp_path / "weights.safetensors").write_bytes(b"altered")
    with pytest.raises(ArtefactError):
        read_facts(tmp_path, ref.sha256)


@pytest.mark.parametrize("name", ["vae", "dae", "vq_vae", "ddpm"])
def test_every_method_survives_the_round_trip(build: Callable, batch: Batch, tmp_path: Path, name: str) -> None:
    detector = build(name)
    detector.save(tmp_path)
    assert torch.equal(Detector.load(tmp_path).score_batch(batch).scores, detector.score_batch(batch).scores)


def test_the_sha256_is_a_function_of_the_content(detector: Detector, tmp_path: Path) -> None:
    first, second = detector.save(tmp_path / "a"), detector.save(tmp_path / "b")
    assert first.sha256 == second.sha256
    assert detector.save(tmp_path / "a") == first
    assert replace(detector, seed=5).save(tmp_path / "b").sha256 != first.sha256
    run = Detector.reference(tmp_path / "a", tmp_path)
    assert (run.path, run.sha256) == (str(tmp_path), first.sha256)


def test_another_artefact_than_the_registered_is_refused(detector: Detector, tmp_path: Path) -> None:
    registered = detector.save(tmp_path).sha256
    replace(detector, route="other").save(tmp_path)
    assert Detector.load(tmp_path).route == "other"
    with pytest.raises(ArtefactError, match="is asked for"):
        Detector.load(tmp_path, sha256=registered)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.3, 0.7, 0.999])
def test_a_changed_byte_is_refused(detector: Detector, tmp_path: Path, name: str, where: float) -> None:
    registered = detector.save(tmp_path).sha256
    data = bytearray((tmp_path / name).read_bytes())
    data[int(where * len(data))] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ArtefactError):
        Detector.load(tmp_path, sha256=registered)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_cut_file_is_refused(detector: Detector, tmp_path: Path, name: str) -> None:
    detector.save(tmp_path)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtefactError):
        Detector.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ArtefactError, match=f"lacks {name}"):
        Detector.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.update(format=99),
        lambda spec: spec.pop("normaliser"),
        lambda spec: spec.update(seed="many"),
        lambda spec: spec.update(detection={"no-such-field": 1}),
        lambda spec: spec.update(calibration={"scores": [2.0, 1.0], "patients": 2}),
        lambda spec: spec["normaliser"].update(version=99),
        lambda spec: spec["method"].update(config={"name": "os.system"}),
        lambda spec: spec["method"]["config"].update(latent=3),
        lambda spec: spec.update(method=["ae"]),
    ],
)
def test_a_forged_specification_is_refused_by_name(detector: Detector, tmp_path: Path, change: Callable) -> None:
    detector.save(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(NightreadError):
        Detector.load(tmp_path)


def test_a_pickle_in_place_of_the_weights_is_never_run(detector: Detector, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    detector.save(tmp_path)
    torch.save(Bomb(), tmp_path / "weights.safetensors")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    digest = hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest()
    manifest["sha256"]["weights.safetensors"] = digest
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match="cannot be read"):
        Detector.load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_an_interrupted_save_leaves_no_detector(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector.save(tmp_path)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.detection.artefact._write", stop)
    with pytest.raises(KeyboardInterrupt):
        detector.save(tmp_path)
    assert not (tmp_path / "detector.json").exists()
    with pytest.raises(ArtefactError, match="lacks detector.json"):
        Detector.load(tmp_path)


@pytest.mark.slow
def test_another_process_gives_the_same_scores(detector: Detector, batch: Batch, tmp_path: Path) -> None:
    detector.save(tmp_path / "d")
    torch.save({"images": batch.images, "body": batch.body}, tmp_path / "batch.pt")
    code = (
        "import sys, torch; from pipeline.detection.detector import Detector; from pipeline.types import Batch\n"
        "b = torch.load(sys.argv[2], weights_only=True)\n"
        "batch = Batch(b['images'], b['body'], tuple(f'slice{i}' for i in range(7)))\n"
        "print(Detector.load(sys.argv[1]).score_batch(batch).scores.tolist())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "d"), str(tmp_path / "batch.pt")]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    assert json.loads(text) == pytest.approx(detector.score_batch(batch).scores.tolist(), rel=1e-5)
